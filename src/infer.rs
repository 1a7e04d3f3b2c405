//! JSON Schemas from samples: what the `detail`s of an event type have in common.
//!
//! A [`Shape`] says what is known of some samples. Shapes merge, and it does not
//! matter in which order or in what groups: the shape of all samples is the merge of
//! the shapes of any parts. Every sample meets the schema of its shape.

use chrono::{NaiveDate, NaiveTime};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The most different values that are listed as an `enum`.
const MAX_ENUM: usize = 10;
/// The longest value that is listed, in bytes.
const MAX_ENUM_BYTES: usize = 100;
/// How often texts must have been seen before their values are taken for all there are.
const MIN_ENUM_SAMPLES: u64 = 50;
/// An object with more different names is a table: its names are data.
const MAX_PROPERTIES: usize = 500;

/// The events that a schema is for.
#[derive(Clone, Copy, Debug)]
pub struct EventType<'a> {
    /// Their `source`.
    pub source: &'a str,
    /// Their `detail-type`.
    pub detail_type: &'a str,
}

/// The JSON Schema (draft 2020-12) of the events' `detail`s, as it goes into `schemas/`:
/// it names the event type, and refuses what does not meet it.
#[must_use]
pub fn infer(details: impl IntoIterator<Item = Value>, of: EventType<'_>) -> Value {
    let shape = details.into_iter().fold(Shape::default(), |shape, detail| {
        shape.merge(Shape::of(&detail))
    });
    shape.schema(of)
}

/// What is known of a number of JSON values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// How many values there were.
    count: u64,
    null: bool,
    boolean: bool,
    integer: bool,
    /// A number with a fraction, or spelt as one.
    fraction: bool,
    text: Option<Texts>,
    array: Option<Box<Shape>>,
    object: Option<Objects>,
}

/// The texts among the values.
#[derive(Clone, Debug, PartialEq)]
struct Texts {
    count: u64,
    /// The formats that all of them have.
    formats: BTreeSet<Format>,
    /// The different texts; none where there are too many.
    values: Option<BTreeSet<String>>,
}

/// The objects among the values.
#[derive(Clone, Debug, PartialEq)]
struct Objects {
    count: u64,
    members: Members,
}

#[derive(Clone, Debug, PartialEq)]
enum Members {
    /// By name.
    Named(BTreeMap<String, Shape>),
    /// Too many names to tell apart.
    Any(Box<Shape>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    DateTime,
    Date,
    Uuid,
    Email,
}

impl Shape {
    /// The shape of one value.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        let mut shape = Self {
            count: 1,
            ..Self::default()
        };
        match value {
            Value::Null => shape.null = true,
            Value::Bool(_) => shape.boolean = true,
            Value::Number(number) if number.is_f64() => shape.fraction = true,
            Value::Number(_) => shape.integer = true,
            Value::String(text) => shape.text = Some(Texts::of(text)),
            Value::Array(items) => {
                let all = items
                    .iter()
                    .fold(Self::default(), |all, item| all.merge(Self::of(item)));
                shape.array = Some(Box::new(all));
            }
            Value::Object(members) => {
                let named = members
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::of(value)))
                    .collect();
                shape.object = Some(Objects {
                    count: 1,
                    members: Members::Named(named).limited(),
                });
            }
        }
        shape
    }

    /// The shape of the samples of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            null: self.null || other.null,
            boolean: self.boolean || other.boolean,
            integer: self.integer || other.integer,
            fraction: self.fraction || other.fraction,
            text: both(self.text, other.text, Texts::merge),
            array: both(self.array, other.array, |a, b| Box::new(a.merge(*b))),
            object: both(self.object, other.object, Objects::merge),
        }
    }

    /// How many samples there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The schema of the samples, as [`infer`] writes it.
    #[must_use]
    pub fn schema(&self, of: EventType<'_>) -> Value {
        let mut schema = Map::new();
        schema.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        let about =
            json!({ "source": of.source, "detail-type": of.detail_type, "policy": "reject" });
        schema.insert("x-pointsman".to_owned(), about);
        if self.count == 0 {
            // Nothing was seen, but a `detail` is an object.
            schema.insert("type".to_owned(), json!("object"));
        }
        self.describe(&mut schema);
        Value::Object(schema)
    }

    fn described(&self) -> Value {
        let mut schema = Map::new();
        self.describe(&mut schema);
        Value::Object(schema)
    }

    fn describe(&self, schema: &mut Map<String, Value>) {
        let types = self.types();
        match types.as_slice() {
            [] => {}
            [one] => {
                schema.insert("type".to_owned(), json!(one));
            }
            several => {
                schema.insert("type".to_owned(), json!(several));
            }
        }
        if let Some(texts) = &self.text {
            texts.describe(schema, types.len() == 1 + usize::from(self.null), self.null);
        }
        if let Some(items) = self.array.as_ref().filter(|items| items.count > 0) {
            schema.insert("items".to_owned(), items.described());
        }
        if let Some(objects) = &self.object {
            objects.describe(schema);
        }
    }

    fn types(&self) -> Vec<&'static str> {
        let seen = [
            ("object", self.object.is_some()),
            ("array", self.array.is_some()),
            ("string", self.text.is_some()),
            // Every integer is a number.
            ("number", self.fraction),
            ("integer", self.integer && !self.fraction),
            ("boolean", self.boolean),
            ("null", self.null),
        ];
        seen.into_iter()
            .filter_map(|(name, seen)| seen.then_some(name))
            .collect()
    }
}

/// What there is of both, merged.
fn both<T>(one: Option<T>, other: Option<T>, merge: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(merge(one, other)),
        (one, other) => one.or(other),
    }
}

impl Texts {
    fn of(text: &str) -> Self {
        let values = (text.len() <= MAX_ENUM_BYTES).then(|| BTreeSet::from([text.to_owned()]));
        Self {
            count: 1,
            formats: Format::ALL
                .into_iter()
                .filter(|format| format.fits(text))
                .collect(),
            values,
        }
    }

    fn merge(self, other: Self) -> Self {
        let values = self.values.zip(other.values).map(|(mut one, other)| {
            one.extend(other);
            one
        });
        Self {
            count: self.count + other.count,
            formats: self.formats.intersection(&other.formats).copied().collect(),
            values: values.filter(|values| values.len() <= MAX_ENUM),
        }
    }

    /// `alone`: the values are texts, or null, and nothing else.
    fn describe(&self, schema: &mut Map<String, Value>, alone: bool, null: bool) {
        // Seen dates are not all dates, so a format forbids the list.
        if let Some(format) = self.formats.first() {
            schema.insert("format".to_owned(), json!(format.name()));
        } else if let Some(values) = self
            .values
            .as_ref()
            .filter(|_| alone && self.count >= MIN_ENUM_SAMPLES)
        {
            let values = values
                .iter()
                .map(|text| json!(text))
                .chain(null.then_some(Value::Null));
            schema.insert("enum".to_owned(), values.collect());
        }
    }
}

impl Objects {
    fn merge(self, other: Self) -> Self {
        let members = match (self.members, other.members) {
            (Members::Named(mut one), Members::Named(other)) => {
                for (name, shape) in other {
                    let known = one.remove(&name).unwrap_or_default();
                    one.insert(name, known.merge(shape));
                }
                Members::Named(one).limited()
            }
            (one, other) => Members::Any(Box::new(one.any().merge(other.any()))),
        };
        Self {
            count: self.count + other.count,
            members,
        }
    }

    fn describe(&self, schema: &mut Map<String, Value>) {
        match &self.members {
            Members::Any(shape) => {
                schema.insert("additionalProperties".to_owned(), shape.described());
            }
            Members::Named(members) => {
                let properties = members
                    .iter()
                    .map(|(name, shape)| (name.clone(), shape.described()));
                schema.insert("properties".to_owned(), Value::Object(properties.collect()));
                let always = members
                    .iter()
                    .filter(|(_, shape)| shape.count == self.count);
                let required: Vec<&String> = always.map(|(name, _)| name).collect();
                if !required.is_empty() {
                    schema.insert("required".to_owned(), json!(required));
                }
            }
        }
    }
}

impl Members {
    fn limited(self) -> Self {
        match self {
            Self::Named(members) if members.len() > MAX_PROPERTIES => {
                Self::Any(Box::new(Self::Named(members).any()))
            }
            fitting => fitting,
        }
    }

    /// The shape of all values, whatever their names.
    fn any(self) -> Shape {
        match self {
            Self::Any(shape) => *shape,
            Self::Named(members) => members.into_values().fold(Shape::default(), Shape::merge),
        }
    }
}

impl Format {
    const ALL: [Self; 4] = [Self::DateTime, Self::Date, Self::Uuid, Self::Email];

    fn name(self) -> &'static str {
        match self {
            Self::DateTime => "date-time",
            Self::Date => "date",
            Self::Uuid => "uuid",
            Self::Email => "email",
        }
    }

    /// Strict: a text that a validator might refuse is not of the format.
    fn fits(self, text: &str) -> bool {
        match self {
            Self::DateTime => is_date_time(text),
            Self::Date => is_date(text),
            Self::Uuid => is_uuid(text),
            Self::Email => is_email(text),
        }
    }
}

/// Whether `text` has `mask`'s letters where that has none of `9`, and digits there.
fn has_digits(text: &str, mask: &str) -> bool {
    let fits = |(byte, mask): (u8, u8)| {
        if mask == b'9' {
            byte.is_ascii_digit()
        } else {
            byte == mask
        }
    };
    text.len() == mask.len() && text.bytes().zip(mask.bytes()).all(fits)
}

fn is_date(text: &str) -> bool {
    has_digits(text, "9999-99-99") && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else {
        return false;
    };
    let (Some(clock), Some(rest)) = (time.get(..8), time.get(8..)) else {
        return false;
    };
    // Seconds of 60 are for leap seconds, on which readers differ.
    let is_clock = has_digits(clock, "99:99:99") && clock < "24" && !clock.ends_with(":60");
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    let is_zone = match zone.strip_prefix(['+', '-']) {
        Some(offset) => {
            has_digits(offset, "99:99") && NaiveTime::parse_from_str(offset, "%H:%M").is_ok()
        }
        None => zone == "Z",
    };
    is_date(date) && is_clock && NaiveTime::parse_from_str(clock, "%H:%M:%S").is_ok() && is_zone
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let word = |part: &str, more: &[u8]| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let label = |part: &str| {
        word(part, b"-")
            && part.len() <= 63
            && !part.starts_with('-')
            && !part.ends_with('-')
            && !part.contains("--")
    };
    let Some((names, top)) = domain.rsplit_once('.') else {
        return false;
    };
    let is_top = (2..=63).contains(&top.len()) && top.bytes().all(|b| b.is_ascii_alphabetic());
    local.len() <= 64
        && domain.len() <= 253
        && is_top
        && local.split('.').all(|part| word(part, b"_%+-"))
        && names.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: EventType<'_> = EventType {
        source: "shop",
        detail_type: "Order",
    };

    fn inferred(details: &[Value]) -> Value {
        infer(details.iter().cloned(), TYPE)
    }

    #[test]
    fn an_object_with_too_many_names_is_a_table() {
        let details: Vec<Value> = (0..=MAX_PROPERTIES)
            .map(|i| json!({ format!("k{i}"): i }))
            .collect();
        let schema = inferred(&details);
        assert_eq!(schema["additionalProperties"], json!({ "type": "integer" }));
        assert_eq!(schema.get("properties"), None);
        assert!(inferred(&details[1..]).get("properties").is_some());
    }

    #[test]
    fn nothing_seen_is_any_object() {
        let schema = inferred(&[]);
        assert_eq!(schema["type"], "object");
        assert_eq!(
            schema["x-pointsman"],
            json!({ "source": "shop", "detail-type": "Order", "policy": "reject" })
        );
    }

    #[test]
    fn formats_are_strict() {
        let formats = |text: &str| -> Vec<&str> {
            Format::ALL
                .into_iter()
                .filter(|format| format.fits(text))
                .map(Format::name)
                .collect()
        };
        for text in [
            "2026-01-01T23:59:59Z",
            "2024-02-29T00:00:00.123456789-23:59",
        ] {
            assert_eq!(formats(text), ["date-time"], "{text}");
        }
        assert_eq!(formats("2024-02-29"), ["date"]);
        assert_eq!(formats("a@b.co"), ["email"]);
        let others = [
            "",
            "T",
            "2026-02-29",
            "26-01-01",
            "2026-1-1",
            "2026-01-01 10:00:00Z",
            "2026-01-01T10:00:00",
            "2026-01-01T10:00:00.Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T10:00:60Z",
            "2026-01-01T10:00:00+24:00",
            "2026-01-01T10:00:00z",
            "2026-01-01T1é:00:00Z",
            "a@b",
            "a@b.",
            "a..b@c.de",
            "a@-b.de",
            "a@1.2",
            "@b.de",
            "1f8b1d0e6b1c4c4e9d550c9e6d3c2a11",
            "gf8b1d0e-6b1c-4c4e-9d55-0c9e6d3c2a11",
        ];
        for text in others {
            assert_eq!(formats(text), Vec::<&str>::new(), "{text}");
        }
    }
}
