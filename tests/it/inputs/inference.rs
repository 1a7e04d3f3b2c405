//! Inferred schemas: every sample meets them, and it does not matter how the
//! samples are grouped.

use pointsman::infer::{EventType, Shape, infer};
use proptest::prelude::*;
use serde_json::{Value, json};

const TYPE: EventType<'_> = EventType {
    source: "shop",
    detail_type: "Order",
};

fn inferred(details: &[Value]) -> Value {
    infer(details.iter().cloned(), TYPE)
}

#[test]
fn a_schema_says_what_the_samples_have_in_common() {
    let schema = inferred(&[
        json!({ "id": "1f8b1d0e-6b1c-4c4e-9d55-0c9e6d3c2a11", "at": "2026-01-01T10:00:00Z", "n": 1, "price": 1,
                "note": null, "lines": [{ "sku": "a", "qty": 1 }, { "sku": "b" }], "gift": true }),
        json!({ "id": "1F8B1D0E-6B1C-4C4E-9D55-0C9E6D3C2A12", "at": "2026-01-01T10:00:00.5+02:00", "n": -2,
                "price": 1.5, "note": "x", "lines": [], "day": "2026-02-28", "mail": "a.b+c@example.org" }),
    ]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema).unwrap(), @r#"
    {
      "$schema": "https://json-schema.org/draft/2020-12/schema",
      "properties": {
        "at": {
          "format": "date-time",
          "type": "string"
        },
        "day": {
          "format": "date",
          "type": "string"
        },
        "gift": {
          "type": "boolean"
        },
        "id": {
          "format": "uuid",
          "type": "string"
        },
        "lines": {
          "items": {
            "properties": {
              "qty": {
                "type": "integer"
              },
              "sku": {
                "type": "string"
              }
            },
            "required": [
              "sku"
            ],
            "type": "object"
          },
          "type": "array"
        },
        "mail": {
          "format": "email",
          "type": "string"
        },
        "n": {
          "type": "integer"
        },
        "note": {
          "type": [
            "string",
            "null"
          ]
        },
        "price": {
          "type": "number"
        }
      },
      "required": [
        "at",
        "id",
        "lines",
        "n",
        "note",
        "price"
      ],
      "type": "object",
      "x-pointsman": {
        "detail-type": "Order",
        "policy": "reject",
        "source": "shop"
      }
    }
    "#);
}

#[test]
fn few_texts_seen_often_are_a_list() {
    let samples = |n: usize, many: usize, null: bool| -> Value {
        let mut details: Vec<Value> = (0..n)
            .map(|i| json!({ "s": format!("v{}", i % many) }))
            .collect();
        details.extend(null.then(|| json!({ "s": null })));
        inferred(&details)["properties"]["s"].clone()
    };
    assert_eq!(
        samples(50, 2, false),
        json!({ "type": "string", "enum": ["v0", "v1"] })
    );
    assert_eq!(
        samples(50, 2, true),
        json!({ "type": ["string", "null"], "enum": ["v0", "v1", null] })
    );
    assert_eq!(samples(49, 2, false), json!({ "type": "string" }));
    assert_eq!(
        samples(50, 10, false)["enum"].as_array().map(Vec::len),
        Some(10)
    );
    assert_eq!(samples(50, 11, false), json!({ "type": "string" }));
    let dates: Vec<Value> = (0..60).map(|_| json!({ "s": "2026-01-01" })).collect();
    assert_eq!(
        inferred(&dates)["properties"]["s"],
        json!({ "type": "string", "format": "date" })
    );
    let mut mixed: Vec<Value> = (0..60).map(|_| json!({ "s": "a" })).collect();
    mixed.push(json!({ "s": 1 }));
    assert_eq!(
        inferred(&mixed)["properties"]["s"],
        json!({ "type": ["string", "integer"] })
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{0,2}",
        1 => "\\PC{0,120}",
        2 => "20[0-9]{2}-[01][0-9]-[0-3][0-9]",
        2 => "20[0-9]{2}-0[1-9]-[0-2][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,9})?(Z|[+-][0-2][0-9]:[0-6][0-9])",
        2 => "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        2 => "[a-z0-9.%+_-]{1,8}@[a-z0-9-]{1,8}(\\.[a-z0-9-]{1,4}){0,3}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(2.0)),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn details() -> impl Strategy<Value = Vec<Value>> {
    // Samples repeat, so that lists of texts come about.
    (prop::collection::vec(value(), 0..8), 1_usize..20).prop_map(|(values, times)| {
        values
            .iter()
            .cycle()
            .take(values.len() * times)
            .cloned()
            .collect()
    })
}

fn shape(values: &[Value]) -> Shape {
    values.iter().fold(Shape::default(), |shape, value| {
        shape.merge(Shape::of(value))
    })
}

proptest! {
    #[test]
    fn every_sample_meets_the_schema(details in details()) {
        let schema = inferred(&details);
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        for detail in &details {
            prop_assert!(validator.is_valid(detail), "{detail} against {schema}");
        }
    }

    #[test]
    fn it_does_not_matter_how_samples_are_split(details in details(), a in 0.0..1.0, b in 0.0..1.0) {
        let cut = |at: f64| ((details.len() as f64) * at) as usize;
        let (first, second) = (cut(f64::min(a, b)), cut(f64::max(a, b)));
        let (one, two, three) = (shape(&details[..first]), shape(&details[first..second]), shape(&details[second..]));
        let whole = shape(&details);
        prop_assert_eq!(&one.clone().merge(two.clone().merge(three.clone())), &whole);
        prop_assert_eq!(&three.merge(one).merge(two), &whole);
        prop_assert_eq!(whole.count(), details.len() as u64);
        let mut backwards = details.clone();
        backwards.reverse();
        prop_assert_eq!(inferred(&backwards).to_string(), whole.schema(TYPE).to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn tables_merge_like_everything_else(names in prop::collection::vec(0_u32..2000, 1..1200), at in 0_usize..1200) {
        let details: Vec<Value> =
            names.iter().map(|n| json!({ "t": { format!("k{n}"): if n % 2 == 0 { json!(n) } else { json!("x") } } })).collect();
        let at = at.min(details.len());
        prop_assert_eq!(shape(&details[at..]).merge(shape(&details[..at])), shape(&details));
    }
}
