//! Texts that may hold secrets: printed, they show the reference that they were written
//! with.

use serde::{Serialize, Serializer};
use std::fmt;

/// A text from the configuration. One that was written with a reference
/// (`${env:NAME}`, `${file:PATH}`) is shown as it was written, a password as
/// `***`, in every form of output; only [`Text::reveal`] gives the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    value: String,
    written: Option<String>,
}

impl Text {
    /// A text without references.
    #[must_use]
    pub fn plain(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            written: None,
        }
    }

    /// The same text, shown as `shown` wherever it is printed.
    #[must_use]
    pub fn shown_as(self, shown: impl Into<String>) -> Self {
        Self {
            written: Some(shown.into()),
            ..self
        }
    }

    /// The value with every reference resolved. Never print it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.value
    }

    /// The text as it was written.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.value)
    }

    /// Whether its value is not shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.written.is_some()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}
