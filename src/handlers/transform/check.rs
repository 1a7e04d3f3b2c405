//! What a column's values must meet, checked on the typed value.

use super::cell::{self, Cell};
use super::schema::{Kind, SchemaError, validator};
use jsonschema::Validator;
use serde_json::{Map, Value};

/// The checks of one column.
#[derive(Debug, Default)]
pub struct Check {
    lowest: Option<Bound>,
    highest: Option<Bound>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    /// Sorted.
    one_of: Option<Vec<String>>,
    uuid: bool,
    /// For what is not known above.
    general: Option<Box<Validator>>,
    /// Whether any of the above is set.
    any: bool,
}

#[derive(Clone, Debug)]
struct Bound {
    at: Limit,
    exclusive: bool,
    text: String,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Whole(i128),
    Float(f64),
}

/// A value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A short, stable name.
    pub code: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

impl Violation {
    /// A violation.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Keywords that the typed columns and plain checks take care of, or that say nothing.
const PLAIN: &[&str] = &[
    "type",
    "title",
    "description",
    "examples",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "x-precision",
    "x-scale",
];

/// Compiles the checks of a property.
pub(super) fn compile(
    root: &Map<String, Value>,
    property: &Value,
    resolved: &Value,
    kind: Kind,
    pointer: &str,
) -> Result<Check, SchemaError> {
    let mut check = Check::default();
    let Some(members) = resolved.as_object() else {
        // `true` allows all, `false` nothing: the general validator knows.
        return general(check, root, property.clone(), pointer);
    };
    let mut rest = Map::new();
    for (key, value) in members {
        let taken = PLAIN.contains(&key.as_str()) || check.take(key, value, kind);
        if !taken {
            rest.insert(key.clone(), value.clone());
        }
    }
    check.any = check.lowest.is_some()
        || check.highest.is_some()
        || check.min_length.is_some()
        || check.max_length.is_some()
        || check.one_of.is_some()
        || check.uuid;
    // A union of types is not one of our columns' types: all of it is checked.
    let union = kind == Kind::Json && members.contains_key("type");
    let beside =
        property.get("$ref").is_some() && property.as_object().is_some_and(|p| p.len() > 1);
    match (union || beside, rest.is_empty()) {
        (true, _) => general(check, root, property.clone(), pointer),
        (false, true) => Ok(check),
        (false, false) => general(check, root, Value::Object(rest), pointer),
    }
}

fn general(
    mut check: Check,
    root: &Map<String, Value>,
    schema: Value,
    pointer: &str,
) -> Result<Check, SchemaError> {
    let mut whole = Map::new();
    for shared in ["$schema", "$defs", "definitions"] {
        if let Some(value) = root.get(shared) {
            whole.insert(shared.to_owned(), value.clone());
        }
    }
    whole.insert("allOf".to_owned(), Value::Array(vec![schema]));
    let compiled =
        validator(&Value::Object(whole)).map_err(|e| SchemaError::at(pointer, e.reason))?;
    check.general = Some(Box::new(compiled));
    check.any = true;
    Ok(check)
}

impl Check {
    /// Takes a keyword into the plain checks, if they know it for this type.
    fn take(&mut self, key: &str, value: &Value, kind: Kind) -> bool {
        let numeric = matches!(kind, Kind::Int | Kind::Float | Kind::Decimal { .. });
        match key {
            "minimum" | "exclusiveMinimum" if numeric => {
                Self::narrow(&mut self.lowest, key, value, kind)
            }
            "maximum" | "exclusiveMaximum" if numeric => {
                Self::narrow(&mut self.highest, key, value, kind)
            }
            "minLength" | "maxLength" if kind == Kind::Text => {
                let length = value.as_u64().and_then(|n| usize::try_from(n).ok());
                let place = match key {
                    "minLength" => &mut self.min_length,
                    _ => &mut self.max_length,
                };
                *place = length;
                length.is_some()
            }
            "enum" | "const" if kind == Kind::Text && self.one_of.is_none() => {
                let values = match value {
                    Value::Array(values) if key == "enum" => values.as_slice(),
                    one => std::slice::from_ref(one),
                };
                let mut texts: Vec<String> = values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
                texts.sort_unstable();
                self.one_of = Some(texts);
                true
            }
            "format" => match value.as_str() {
                Some("date-time") => kind == Kind::Timestamp,
                Some("date") => kind == Kind::Date,
                Some("uuid") if kind == Kind::Text => {
                    self.uuid = true;
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Sets a bound once; a second one of the same side is left to the general validator.
    fn narrow(side: &mut Option<Bound>, key: &str, value: &Value, kind: Kind) -> bool {
        let Value::Number(number) = value else {
            return false;
        };
        let text = number.to_string();
        let at = match kind {
            Kind::Float => number.as_f64().map(Limit::Float),
            Kind::Int => number.as_i64().map(|n| Limit::Whole(i128::from(n))),
            Kind::Decimal { scale, .. } => cell::decimal(&text, 38, scale).ok().map(Limit::Whole),
            _ => None,
        };
        match (side.is_some(), at) {
            (false, Some(at)) => {
                *side = Some(Bound {
                    at,
                    exclusive: key.starts_with("exclusive"),
                    text,
                });
                true
            }
            _ => false,
        }
    }

    /// Whether there is anything to check.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any
    }

    /// Checks a value that is not null.
    ///
    /// # Errors
    /// Says what the value breaks.
    #[inline]
    pub fn test(&self, cell: &Cell<'_>, kind: Kind) -> Result<(), Violation> {
        match self.any {
            true => self.test_all(cell, kind),
            false => Ok(()),
        }
    }

    #[inline]
    fn test_all(&self, cell: &Cell<'_>, kind: Kind) -> Result<(), Violation> {
        if let Some(bound) = &self.lowest
            && bound
                .compare(cell)
                .is_some_and(|o| o.is_lt() || (bound.exclusive && o.is_eq()))
        {
            let than = if bound.exclusive {
                "must be more than"
            } else {
                "is less than"
            };
            return Err(Violation::new(
                "OutOfRange",
                format!("{} {than} {}", said(cell, kind), bound.text),
            ));
        }
        if let Some(bound) = &self.highest
            && bound
                .compare(cell)
                .is_some_and(|o| o.is_gt() || (bound.exclusive && o.is_eq()))
        {
            let than = if bound.exclusive {
                "must be less than"
            } else {
                "is more than"
            };
            return Err(Violation::new(
                "OutOfRange",
                format!("{} {than} {}", said(cell, kind), bound.text),
            ));
        }
        if let Cell::Text(text) = cell {
            self.test_text(text)?;
        }
        if let Some(general) = &self.general {
            let value = cell.to_json(kind);
            if let Err(error) = general.validate(&value) {
                return Err(Violation::new(
                    "SchemaViolation",
                    shorten(&error.to_string()),
                ));
            }
        }
        Ok(())
    }

    #[inline]
    fn test_text(&self, text: &str) -> Result<(), Violation> {
        if self.min_length.is_some() || self.max_length.is_some() {
            let length = match text.is_ascii() {
                true => text.len(),
                false => text.chars().count(),
            };
            if let Some(least) = self.min_length.filter(|least| length < *least) {
                return Err(Violation::new(
                    "TooShort",
                    format!("{length} characters, at least {least} are needed"),
                ));
            }
            if let Some(most) = self.max_length.filter(|most| length > *most) {
                return Err(Violation::new(
                    "TooLong",
                    format!("{length} characters, at most {most} are allowed"),
                ));
            }
        }
        if let Some(allowed) = &self.one_of
            && allowed.binary_search_by(|a| a.as_str().cmp(text)).is_err()
        {
            return Err(Violation::new(
                "NotAllowed",
                format!("`{}` is not one of the allowed values", shorten(text)),
            ));
        }
        if self.uuid && uuid::Uuid::try_parse(text).is_err() {
            return Err(Violation::new(
                "NotAUuid",
                format!("`{}` is not a UUID", shorten(text)),
            ));
        }
        Ok(())
    }
}

impl Bound {
    /// How the value stands to the bound.
    #[inline]
    fn compare(&self, cell: &Cell<'_>) -> Option<std::cmp::Ordering> {
        match (cell, self.at) {
            (Cell::Int(n), Limit::Whole(bound)) => Some(i128::from(*n).cmp(&bound)),
            (Cell::Decimal(n), Limit::Whole(bound)) => Some(n.cmp(&bound)),
            (Cell::Float(x), Limit::Float(bound)) => x.partial_cmp(&bound),
            _ => None,
        }
    }
}

fn said(cell: &Cell<'_>, kind: Kind) -> String {
    shorten(&cell.to_json(kind).to_string())
}

/// At most 80 characters of a text, for messages.
#[must_use]
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::RecordSchema;
    use super::*;
    use serde_json::json;
    use std::borrow::Cow;

    fn verdict(property: Value, cell: &Cell<'_>) -> Option<&'static str> {
        let schema = json!({"properties": {"x": property}, "$defs": {"short": {"type": "string", "maxLength": 2}}});
        let compiled = RecordSchema::compile(&schema).unwrap();
        let column = &compiled.columns[0];
        column.check.test(cell, column.kind).err().map(|v| v.code)
    }

    fn text(s: &str) -> Cell<'_> {
        Cell::Text(Cow::Borrowed(s))
    }

    #[test]
    fn bounds_hold_exactly() {
        let int = json!({"type": "integer", "minimum": 1, "exclusiveMaximum": 10});
        assert_eq!(verdict(int.clone(), &Cell::Int(1)), None);
        assert_eq!(verdict(int.clone(), &Cell::Int(0)), Some("OutOfRange"));
        assert_eq!(verdict(int, &Cell::Int(10)), Some("OutOfRange"));
        let dec = json!({"type": "number", "x-scale": 2, "maximum": 9.99});
        assert_eq!(verdict(dec.clone(), &Cell::Decimal(999)), None);
        assert_eq!(verdict(dec, &Cell::Decimal(1000)), Some("OutOfRange"));
        let half = json!({"type": "integer", "minimum": 0.5});
        assert_eq!(verdict(half, &Cell::Int(0)), Some("SchemaViolation"));
    }

    #[test]
    fn texts_are_checked_by_character() {
        let short = json!({"type": "string", "minLength": 2, "maxLength": 2});
        assert_eq!(verdict(short.clone(), &text("äö")), None);
        assert_eq!(verdict(short.clone(), &text("ä")), Some("TooShort"));
        assert_eq!(verdict(short, &text("äöü")), Some("TooLong"));
        let list = json!({"type": ["string", "null"], "enum": ["EWR", "JFK", null]});
        assert_eq!(verdict(list.clone(), &text("JFK")), None);
        assert_eq!(verdict(list, &text("LAX")), Some("NotAllowed"));
        let uuid = json!({"type": "string", "format": "uuid"});
        assert_eq!(verdict(uuid, &text("no")), Some("NotAUuid"));
    }

    #[test]
    fn what_is_not_known_goes_through_the_general_validator() {
        let pattern = json!({"type": "string", "pattern": "^[A-Z]{2}$"});
        assert_eq!(verdict(pattern.clone(), &text("UA")), None);
        assert_eq!(verdict(pattern, &text("ua")), Some("SchemaViolation"));
        let multiple = json!({"type": "integer", "multipleOf": 5});
        assert_eq!(verdict(multiple.clone(), &Cell::Int(10)), None);
        assert_eq!(verdict(multiple, &Cell::Int(11)), Some("SchemaViolation"));
        let shared = json!({"$ref": "#/$defs/short"});
        assert_eq!(verdict(shared, &text("abc")), Some("TooLong"));
        let email = json!({"type": "string", "format": "email"});
        assert_eq!(verdict(email, &text("nobody")), Some("SchemaViolation"));
    }
}
