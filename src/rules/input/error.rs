//! What can be wrong with an input, and with applying it.

/// Why an input is refused when it is compiled, or why it cannot be applied to an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// A part of the input cannot work.
    #[error("{field}: {reason} (byte {offset})")]
    Refused {
        /// The field concerned: `input`, `input_path`, `paths`, `paths.NAME` or `template`.
        field: String,
        /// Where in that field's text the trouble starts, in bytes.
        offset: usize,
        /// What is wrong, in one sentence.
        reason: String,
    },
    /// The template uses a variable that nobody defines.
    #[error("template: `<{name}>` is used, and `paths` does not define it (byte {offset})")]
    Unknown {
        /// Where in the template the variable stands, in bytes.
        offset: usize,
        /// The variable.
        name: String,
    },
    /// The event cannot be read.
    #[error("the event is not valid JSON: {reason}")]
    Event {
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing under the input path, so there is nothing to deliver.
    #[error("input_path: `{path}` finds nothing in the event")]
    NoMatch {
        /// The path.
        path: String,
    },
}

impl InputError {
    pub(super) fn refused(field: &str, offset: usize, reason: impl Into<String>) -> Self {
        Self::Refused {
            field: field.to_owned(),
            offset,
            reason: reason.into(),
        }
    }

    pub(super) fn template(offset: usize, reason: impl Into<String>) -> Self {
        Self::refused("template", offset, reason)
    }

    pub(super) fn event(error: &serde_json::Error) -> Self {
        Self::Event {
            reason: error.to_string(),
        }
    }

    /// The field that has to be changed; none where the event is at fault.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Refused { field, .. } => Some(field),
            Self::Unknown { .. } => Some("template"),
            Self::NoMatch { .. } => Some("input_path"),
            Self::Event { .. } => None,
        }
    }

    /// The byte in the field's text where the trouble starts, where it is known.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        match self {
            Self::Refused { offset, .. } | Self::Unknown { offset, .. } => Some(*offset),
            Self::NoMatch { .. } | Self::Event { .. } => None,
        }
    }
}
