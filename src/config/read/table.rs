//! Tables with a known set of fields.

use super::{At, Field, bus_name};
use crate::config::fields::Shape;
use crate::config::yaml::{Entry, shorten};
use crate::error::{Diagnostic, codes};
use std::time::Duration;

/// A table with a known set of fields.
pub(in crate::config) struct Table<'a> {
    pub field: Field<'a>,
    entries: &'a [Entry],
    shape: &'static Shape,
}

impl<'a> Table<'a> {
    pub(super) fn new(field: Field<'a>, entries: &'a [Entry], shape: &'static Shape) -> Self {
        let table = Self {
            field,
            entries,
            shape,
        };
        table.refuse_unknown();
        table
    }

    fn refuse_unknown(&self) {
        let known: Vec<&str> = self.shape.fields.iter().map(|f| f.name).collect();
        for entry in self.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let message = format!(
                "unknown field `{}` in {}",
                shorten(&entry.key),
                self.shape.title
            );
            let diagnostic = Diagnostic::error(&codes::UNKNOWN_FIELD, message)
                .at(self.field.file.place(entry.key_span.clone()))
                .suggest(&entry.key, known.iter().copied());
            self.field.report(diagnostic);
        }
    }

    /// A field that is there and is not null.
    pub fn get(&self, name: &str) -> Option<Field<'a>> {
        self.written(name).filter(|field| !field.item.is_null())
    }

    /// A field that is there, even when it is null: for tables without fields.
    pub fn written(&self, name: &str) -> Option<Field<'a>> {
        debug_assert!(
            self.shape.fields.iter().any(|f| f.name == name),
            "`{name}` is read and is not in the shape of {}",
            self.shape.title
        );
        #[cfg(test)]
        crate::config::fields::note_read(self.shape, name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(self.field.child(entry))
    }

    /// A field without which nothing works.
    pub fn need(&self, name: &str) -> Option<Field<'a>> {
        let field = self.get(name);
        if field.is_none() {
            let message = format!("{} needs `{name}`", self.shape.title);
            let mut diagnostic =
                Diagnostic::error(&codes::MISSING_FIELD, message).at(self.field.key_place());
            if let Some(spec) = self.shape.fields.iter().find(|f| f.name == name) {
                diagnostic = diagnostic.hint(format!("`{name}`: {}", spec.doc));
            }
            self.field.report(diagnostic);
        }
        field
    }

    /// The one field of several that is given; anything else is reported.
    pub fn one_of(&self, names: &[&str]) -> Option<Field<'a>> {
        let mut given: Vec<Field<'a>> =
            names.iter().filter_map(|name| self.written(name)).collect();
        let all = crate::error::quoted(names);
        match given.len() {
            1 => given.pop(),
            0 => {
                let message = format!("{} needs one of {all}", self.shape.title);
                self.field
                    .report(Diagnostic::error(&codes::ONE_OF, message).at(self.field.key_place()));
                None
            }
            _ => {
                let message = format!(
                    "{} has {} of {all}, and takes one",
                    self.shape.title,
                    given.len()
                );
                let mut diagnostic =
                    Diagnostic::error(&codes::ONE_OF, message).at(given[0].key_place());
                for other in &given[1..] {
                    diagnostic = diagnostic.related(other.key_place(), "and here");
                }
                self.field.report(diagnostic);
                None
            }
        }
    }

    pub fn duration_or(&self, name: &str, default: Duration) -> Duration {
        self.get(name).and_then(|f| f.duration()).unwrap_or(default)
    }

    pub fn bool_or(&self, name: &str, default: bool) -> bool {
        self.get(name).and_then(|f| f.bool()).unwrap_or(default)
    }

    pub fn string(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|f| f.string())
    }

    /// The field `bus`; without one, the bus that always exists.
    pub fn bus(&self) -> Option<At<String>> {
        self.get("bus").and_then(|f| bus_name(&f))
    }

    pub fn string_or(&self, name: &str, default: &str) -> String {
        self.string(name).unwrap_or_else(|| default.to_owned())
    }
}
