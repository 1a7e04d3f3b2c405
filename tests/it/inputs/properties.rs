//! Whatever is written as an input, and whatever event comes: no panic, and what
//! is delivered is JSON.

use pointsman::rules::input::{Input, InputContext, TargetInputSpec};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CX: InputContext<'static> = InputContext {
    rule_name: "r\"\\\n",
    rule_arn: "arn:é",
    ingestion_time: "2026-01-01T00:00:00Z",
};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a\"\\\\<>{}\\n\\u{0}é,:\\[\\] ]{0,6}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[a-c]", 1 => "[a-c]-[a-c]", 1 => "[a-c]/1", 1 => "\\PC{0,3}"]
}

fn event() -> impl Strategy<Value = String> {
    prop::collection::btree_map(name(), value(), 0..5).prop_map(|members| {
        let event = Value::Object(members.into_iter().collect());
        serde_json::to_string_pretty(&event).expect("a value has a text")
    })
}

/// Paths as people write them, half right.
fn path() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        6 => "\\.[a-c]",
        1 => "\\.[a-c]-[a-c]",
        1 => "\\.[a-c]/1",
        2 => "\\[-?[0-3]\\]",
        1 => Just("[*]".to_owned()),
        1 => Just(".*".to_owned()),
        1 => "\\['[a-c]{1,2}'\\]",
        1 => Just("..a".to_owned()),
        1 => Just("[0:2]".to_owned()),
        1 => Just("[?@.a == 1]".to_owned()),
        1 => Just("['a','b']".to_owned()),
        1 => "[\\[\\]().,*?@$'\"<>=!&| a-c0-9:-]{1,6}",
    ];
    prop::collection::vec(step, 0..5).prop_map(|steps| format!("${}", steps.concat()))
}

fn template() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "<[xyz]>",
        4 => "\"[a-c ]{0,3}<[xyz]>\\\\\"<[xyz]>\"",
        1 => Just("\"\\<\\>\"".to_owned()),
        1 => Just("<aws.events.event>".to_owned()),
        1 => Just("<aws.events.event.json>".to_owned()),
        1 => Just("\"<aws.events.rule-name><aws.events.rule-arn>\"".to_owned()),
        1 => Just("<aws.events.rule-name>".to_owned()),
        1 => Just("<aws.events.event.ingestion-time>".to_owned()),
        1 => Just("17".to_owned()),
    ];
    prop_oneof![
        prop::collection::vec(part.clone(), 1..4)
            .prop_map(|parts| format!("[{}]", parts.join(" , "))),
        prop::collection::vec(part.clone(), 1..4).prop_map(|parts| {
            let members: Vec<String> = parts
                .iter()
                .enumerate()
                .map(|(n, part)| format!("\"k{n}\": {part}"))
                .collect();
            format!("{{{}}}", members.join(","))
        }),
        prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("\n")),
    ]
}

/// Whether it is one JSON value, or several.
fn is_json(output: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(output).into_iter::<Value>();
    values.by_ref().all(|value| value.is_ok()) && !output.is_empty()
}

fn table(paths: Vec<String>) -> BTreeMap<String, String> {
    ["x", "y", "z"]
        .into_iter()
        .map(str::to_owned)
        .zip(paths)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn anything_compiled_delivers_json(
        paths in prop::collection::vec(path(), 3),
        template in template(),
        event in event(),
    ) {
        let paths = table(paths);
        let spec = TargetInputSpec::Transformer { paths: &paths, template: &template };
        if let Ok(input) = Input::compile(&spec) {
            let output = input.apply(event.as_bytes(), &CX).expect("the event is JSON");
            prop_assert!(is_json(&output), "{template} -> {}", String::from_utf8_lossy(&output));
        }
        for path in paths.values() {
            if let Ok(input) = Input::compile(&TargetInputSpec::Path(path))
                && let Ok(output) = input.apply(event.as_bytes(), &CX)
            {
                prop_assert!(serde_json::from_slice::<Value>(&output).is_ok());
            }
        }
    }

    #[test]
    fn right_templates_are_not_refused(template in template(), event in event()) {
        let paths = table(vec!["$".to_owned(), "$.a".to_owned(), "$.b[0]".to_owned()]);
        let spec = TargetInputSpec::Transformer { paths: &paths, template: &template };
        prop_assert_eq!(Input::check(&spec), []);
        let output = Input::compile(&spec).expect("checked").apply(event.as_bytes(), &CX).expect("JSON");
        prop_assert!(is_json(&output));
    }

    #[test]
    fn exact_paths_find_what_a_tree_has(event in event(), name in name(), inner in name(), index in -3_i64..3) {
        let quotable = |name: &str| !name.contains(['\'', '\\']) && !name.chars().any(char::is_control);
        prop_assume!(quotable(&name) && quotable(&inner));
        let tree: Value = serde_json::from_str(&event).expect("JSON");
        let at = |value: &Value| {
            let items = value.as_array()?;
            let index = usize::try_from(if index < 0 { items.len() as i64 + index } else { index }).ok()?;
            items.get(index).cloned()
        };
        let cases = [
            (format!("$['{name}']"), tree.get(&name).cloned()),
            (format!("$['{name}']['{inner}']"), tree.get(&name).and_then(|v| v.get(&inner)).cloned()),
            (format!("$['{name}'][{index}]"), tree.get(&name).and_then(at)),
        ];
        for (path, expected) in cases {
            let input = Input::compile(&TargetInputSpec::Path(&path)).expect("a path");
            let found = input.apply(event.as_bytes(), &CX).ok();
            let found: Option<Value> = found.map(|text| serde_json::from_slice(&text).expect("JSON"));
            prop_assert_eq!(found, expected, "{}", path);
        }
    }

    #[test]
    fn any_text_at_all_is_taken_or_refused(
        paths in prop::collection::vec("\\PC{0,20}", 3),
        template in "[\"\\\\<>{}\\[\\],: xyza.\\n\\PC]{0,40}",
        event in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let paths = table(paths);
        let specs = [
            TargetInputSpec::Transformer { paths: &paths, template: &template },
            TargetInputSpec::Constant(&template),
            TargetInputSpec::Path(&paths["x"]),
        ];
        for spec in specs {
            for error in Input::check(&spec) {
                prop_assert!(error.field().is_some() && error.offset().is_some() && !error.to_string().is_empty());
            }
            if let Ok(input) = Input::compile(&spec) {
                let applied = input.apply(&event, &CX);
                prop_assert!(applied.is_ok() || applied.is_err_and(|error| !error.to_string().is_empty()));
            }
        }
    }
}

#[test]
fn the_worst_paths_stay_cheap() {
    let event = json!({ "a": vec![vec![1; 10]; 20_000] }).to_string();
    let paths = [
        "$..*",
        "$.a[*][0,0,0,0,0,0,0,0]",
        "$.a[?@[0] == 1]",
        "$..[?@.*]",
        "$.a[::1][::-1]",
    ];
    for path in paths {
        let started = std::time::Instant::now();
        if let Ok(input) = Input::compile(&TargetInputSpec::Path(path)) {
            let found = input.apply(event.as_bytes(), &CX);
            assert!(found.is_ok(), "{path}");
        }
        assert!(
            started.elapsed().as_secs() < 20,
            "{path} took {:?}",
            started.elapsed()
        );
    }
    let deep = format!("$[?{}", "length(length(".repeat(2));
    assert!(Input::compile(&TargetInputSpec::Path(&deep)).is_err());
}
