//! What has no place in a record's columns, put together in one of them.

use crate::handlers::transform::cell::Cell;
use crate::handlers::transform::check::Violation;
use crate::handlers::transform::schema::{Column, RecordSchema};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The members of a record's rescued object.
#[derive(Debug, Default)]
pub struct Rescued(Option<Map<String, Value>>);

impl Rescued {
    /// Whether a value that its column does not take goes in here: it is of
    /// another type, and the column can do without. What is of the type and not
    /// allowed breaks the record, as always.
    #[must_use]
    pub fn takes(&self, schema: &RecordSchema, column: &Column, violation: &Violation) -> bool {
        let other_type = matches!(violation.code, "WrongType" | "WouldRound");
        schema.rescue.is_some() && column.nullable() && other_type
    }

    /// Takes a field's text, if the schema rescues and there is any.
    pub fn put(&mut self, schema: &RecordSchema, name: Option<&String>, text: &str) {
        if schema.rescue.is_none() || text.is_empty() {
            return;
        }
        if let Some(name) = name {
            self.put_json(name, Value::String(text.to_owned()));
        }
    }

    /// Takes a value.
    pub fn put_json(&mut self, name: &str, value: Value) {
        self.0
            .get_or_insert_default()
            .insert(name.to_owned(), value);
    }

    /// The object's text, if anything was rescued.
    #[must_use]
    pub fn text(self) -> Option<String> {
        self.0.map(|object| Value::Object(object).to_string())
    }

    /// Puts the object into its column.
    pub fn finish(self, schema: &RecordSchema, cells: &mut [Cell<'_>]) {
        if let (Some(at), Some(text)) = (schema.rescue, self.text()) {
            cells[at] = Cell::Text(Cow::Owned(text));
        }
    }
}
