//! What a record must look like: a JSON Schema compiled into typed columns
//! with a few plain checks each, so that clean data is not validated by a
//! general validator. What the plain checks do not know goes through one.

use super::check::{self, Check};
use super::inferred;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// How a column is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A 64-bit integer.
    Int,
    /// A double.
    Float,
    /// An exact decimal.
    Decimal {
        /// Digits in all, at most 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// True or false.
    Bool,
    /// A point in time, microseconds in UTC.
    Timestamp,
    /// A day.
    Date,
    /// Any JSON value, kept as its text.
    Json,
}

impl Kind {
    /// The Arrow type of the column.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text | Self::Json => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Bool => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
        }
    }

    /// A name that [`Kind::named`] understands.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Self::Text => "text".to_owned(),
            Self::Int => "integer".to_owned(),
            Self::Float => "number".to_owned(),
            Self::Bool => "boolean".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }

    /// The type of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let plain = [
            Self::Text,
            Self::Int,
            Self::Float,
            Self::Bool,
            Self::Timestamp,
            Self::Date,
            Self::Json,
        ];
        if let Some(kind) = plain.into_iter().find(|kind| kind.name() == name) {
            return Some(kind);
        }
        let inner = name.strip_prefix("decimal(")?.strip_suffix(')')?;
        let (precision, scale) = inner.split_once(',')?;
        Some(Self::Decimal {
            precision: precision.parse().ok()?,
            scale: scale.parse().ok()?,
        })
    }

    /// What a value must be, for people.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "an integer",
            Self::Float => "a number",
            Self::Decimal { .. } => "a decimal number",
            Self::Bool => "true or false",
            Self::Timestamp => "a time like 2013-01-01T10:00:00Z",
            Self::Date => "a day like 2013-01-31",
            Self::Json => "JSON",
        }
    }
}

/// One column of the records.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether the schema's type lets it be null.
    pub null_allowed: bool,
    /// Whether each record must have it.
    pub required: bool,
    /// What its values must meet.
    pub check: Check,
}

impl Column {
    /// Whether the column can hold nulls: by its type, or because a record may leave it out.
    #[must_use]
    pub fn nullable(&self) -> bool {
        self.null_allowed || !self.required
    }

    /// A column of unchecked text.
    #[must_use]
    pub fn text(name: &str) -> Self {
        Self::plain(name, Kind::Text)
    }

    /// A nullable column without checks.
    #[must_use]
    pub fn plain(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            null_allowed: true,
            required: false,
            check: Check::default(),
        }
    }
}

/// What happens to members that no column is declared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// They are left out and counted.
    Ignored,
    /// They break the record (or, in a header, the file).
    Refused,
}

/// The columns of the records and what they must meet.
#[derive(Debug)]
pub struct RecordSchema {
    /// The columns in their declared order.
    pub columns: Vec<Column>,
    /// What happens to members without a column.
    pub extra: Extra,
    /// For what the columns' checks do not know: sees the whole record.
    pub whole: Option<Validator>,
    /// The place of the column that takes, as one JSON object, what no column is
    /// there for, or what is not of its column's type.
    pub rescue: Option<usize>,
    index: HashMap<String, usize>,
    arrow: SchemaRef,
}

/// A JSON Schema that no columns can be made of.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{pointer}: {reason}")]
pub struct SchemaError {
    /// JSON pointer into the schema.
    pub pointer: String,
    /// What is wrong there.
    pub reason: String,
}

impl SchemaError {
    /// An error at `pointer`.
    pub(super) fn at(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            reason: reason.into(),
        }
    }
}

/// Members of the schema's root that the columns take care of, or that say nothing.
const ROOT_KNOWN: &[&str] = &[
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "examples",
    "default",
    "type",
    "properties",
    "required",
];

impl RecordSchema {
    /// Compiles a JSON Schema of records.
    ///
    /// # Errors
    /// When it is not a schema of objects with named properties.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let root = schema
            .as_object()
            .ok_or_else(|| SchemaError::at("", "a schema must be a JSON object"))?;
        match root.get("type") {
            None => {}
            Some(Value::String(kind)) if kind == "object" => {}
            Some(_) => return Err(SchemaError::at("/type", "records must be of type `object`")),
        }
        let properties = root
            .get("properties")
            .and_then(Value::as_object)
            .filter(|map| !map.is_empty())
            .ok_or_else(|| SchemaError::at("/properties", "names no columns"))?;
        let required = required_names(root, properties)?;
        let columns = properties
            .iter()
            .map(|(name, property)| column(root, name, property, required.contains(&&**name)))
            .collect::<Result<Vec<_>, _>>()?;
        let extra = match root.get("additionalProperties") {
            Some(Value::Bool(false)) => Extra::Refused,
            _ => Extra::Ignored,
        };
        let plain = root.iter().all(|(key, value)| {
            ROOT_KNOWN.contains(&key.as_str())
                || (key == "additionalProperties" && value.is_boolean())
        });
        let whole = (!plain).then(|| validator(schema)).transpose()?;
        let mut made = Self::from_columns(columns, extra);
        made.whole = whole;
        Ok(made)
    }

    /// A schema of the given columns.
    #[must_use]
    pub fn from_columns(columns: Vec<Column>, extra: Extra) -> Self {
        let fields: Vec<Field> = columns
            .iter()
            .map(|c| Field::new(&c.name, c.kind.arrow(), c.nullable()))
            .collect();
        let index = columns
            .iter()
            .enumerate()
            .map(|(i, c)| (c.name.clone(), i))
            .collect();
        Self {
            columns,
            extra,
            whole: None,
            rescue: None,
            index,
            arrow: Arc::new(Schema::new(fields)),
        }
    }

    /// Puts the columns into the given order; those that are not named go last.
    pub fn reorder(&mut self, order: &[String]) {
        let mut columns = std::mem::take(&mut self.columns);
        columns.sort_by_key(|c| {
            order
                .iter()
                .position(|name| *name == c.name)
                .unwrap_or(usize::MAX)
        });
        self.set(columns);
    }

    fn set(&mut self, columns: Vec<Column>) {
        let made = Self::from_columns(columns, self.extra);
        self.columns = made.columns;
        self.index = made.index;
        self.arrow = made.arrow;
    }

    /// Adds columns at the end; others that have none are left out from then on.
    pub fn extend(&mut self, added: Vec<Column>) {
        let mut columns = std::mem::take(&mut self.columns);
        columns.extend(added);
        self.extra = Extra::Ignored;
        self.set(columns);
    }

    /// Adds the column that takes what has no place in the others.
    pub fn rescue_into(&mut self, name: &str) {
        self.extend(vec![Column::plain(name, Kind::Json)]);
        self.rescue = Some(self.columns.len() - 1);
    }

    /// The columns as an Arrow schema.
    #[must_use]
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The place of a column.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }
}

fn required_names<'a>(
    root: &'a Map<String, Value>,
    properties: &Map<String, Value>,
) -> Result<Vec<&'a str>, SchemaError> {
    let Some(required) = root.get("required") else {
        return Ok(Vec::new());
    };
    let names: Vec<&str> = required
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .ok_or_else(|| SchemaError::at("/required", "must be a list of names"))?;
    match names.iter().find(|name| !properties.contains_key(**name)) {
        Some(name) => Err(SchemaError::at(
            "/required",
            format!("`{name}` is required but not among `properties`"),
        )),
        None => Ok(names),
    }
}

fn column(
    root: &Map<String, Value>,
    name: &str,
    property: &Value,
    required: bool,
) -> Result<Column, SchemaError> {
    let pointer = format!("/properties/{}", name.replace('~', "~0").replace('/', "~1"));
    let resolved = resolve(root, property, &pointer)?;
    let (kind, null_allowed) = kind_of(resolved, &pointer)?;
    let check = check::compile(root, property, resolved, kind, &pointer)?;
    Ok(Column {
        name: name.to_owned(),
        kind,
        null_allowed,
        required,
        check,
    })
}

/// Follows local references, so that the type of a shared definition is known.
fn resolve<'a>(
    root: &'a Map<String, Value>,
    property: &'a Value,
    pointer: &str,
) -> Result<&'a Value, SchemaError> {
    let mut at = property;
    for _ in 0..16 {
        let Some(reference) = at.get("$ref").and_then(Value::as_str) else {
            return Ok(at);
        };
        let mut parts = reference.split('/');
        let found = match (parts.next(), parts.next()) {
            (Some("#"), Some(first)) => root
                .get(first)
                .and_then(|v| parts.try_fold(v, |v, part| v.get(part))),
            _ => None,
        };
        at = found.ok_or_else(|| {
            SchemaError::at(
                pointer,
                format!("`$ref: {reference}` leads nowhere in this file"),
            )
        })?;
    }
    Err(SchemaError::at(pointer, "references go round in a circle"))
}

/// The column's type, and whether null is among the types.
fn kind_of(property: &Value, pointer: &str) -> Result<(Kind, bool), SchemaError> {
    let names: Vec<&str> = match property.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(untyped(property)),
    };
    let null = names.contains(&"null");
    let mut rest: Vec<&str> = names.into_iter().filter(|n| *n != "null").collect();
    rest.sort_unstable();
    rest.dedup();
    let kind = match rest.as_slice() {
        [] => Kind::Text,
        ["string"] => match property.get("format").and_then(Value::as_str) {
            Some("date-time") => Kind::Timestamp,
            Some("date") => Kind::Date,
            _ => Kind::Text,
        },
        ["integer"] => Kind::Int,
        ["number"] | ["integer", "number"] => decimal(property, pointer)?.unwrap_or(Kind::Float),
        ["boolean"] => Kind::Bool,
        others => {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            if let Some(odd) = others.iter().find(|n| !known.contains(n)) {
                return Err(SchemaError::at(
                    format!("{pointer}/type"),
                    format!("`{odd}` is not a JSON type"),
                ));
            }
            Kind::Json
        }
    };
    // A null must also be among the allowed values, where they are listed.
    let listed = property.get("enum").and_then(Value::as_array);
    Ok((
        kind,
        null && listed.is_none_or(|values| values.contains(&Value::Null)),
    ))
}

/// Without `type`: text where all of `enum` is text, else any JSON.
fn untyped(property: &Value) -> (Kind, bool) {
    match property.get("enum").and_then(Value::as_array) {
        Some(values) if values.iter().all(|v| v.is_string() || v.is_null()) => {
            (Kind::Text, values.iter().any(Value::is_null))
        }
        _ => (Kind::Json, true),
    }
}

/// `x-precision` and `x-scale` make a number an exact decimal.
fn decimal(property: &Value, pointer: &str) -> Result<Option<Kind>, SchemaError> {
    let (precision, scale) = (property.get("x-precision"), property.get("x-scale"));
    if precision.is_none() && scale.is_none() {
        return Ok(None);
    }
    let precision = precision.map_or(Some(38), Value::as_u64);
    let scale = scale.map_or(Some(0), Value::as_u64);
    match (precision, scale) {
        (Some(p @ 1..=38), Some(s)) if s <= p => Ok(Some(Kind::Decimal {
            // Both are at most 38 here.
            precision: u8::try_from(p).unwrap_or(38),
            scale: i8::try_from(s).unwrap_or(0),
        })),
        _ => Err(SchemaError::at(
            pointer,
            "`x-precision` must be 1 to 38 and `x-scale` 0 to `x-precision`",
        )),
    }
}

/// A general validator; it follows no references out of the file.
///
/// # Errors
/// When the text is not a schema.
pub(super) fn validator(schema: &Value) -> Result<Validator, SchemaError> {
    jsonschema::options()
        .should_validate_formats(true)
        .offline()
        .build(schema)
        .map_err(|e| SchemaError::at(e.instance_path().to_string(), e.to_string()))
}

/// A record's cells as a JSON object, for the general validator.
#[must_use]
pub(super) fn as_json(columns: &[Column], cells: &[super::cell::Cell<'_>]) -> Value {
    let mut record = Map::new();
    for (column, cell) in columns.iter().zip(cells) {
        if !cell.is_absent(column) {
            record.insert(column.name.clone(), cell.to_json(column.kind));
        }
    }
    json!(record)
}

/// Makes the schema of records that none is declared for.
#[must_use]
pub fn infer(records: &[Map<String, Value>]) -> RecordSchema {
    RecordSchema::from_columns(inferred::columns(records), Extra::Refused)
}
