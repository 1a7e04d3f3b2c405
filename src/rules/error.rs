//! What can be wrong with a pattern or an event.

use std::fmt;

/// A pattern that EventBridge would refuse.
///
/// The `Display` form is EventBridge's own reason text, alone; see
/// [`PatternError::aws_message`] for its full message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PatternError {
    /// The reason, in EventBridge's words where it has any.
    pub reason: String,
    /// Where the offending token begins: a byte offset into the pattern text.
    pub offset: usize,
    /// Where it ends (exclusive).
    pub end: usize,
    /// The keys that lead to the offending place in the pattern's own
    /// document: `$or` and the number of its branch are steps of it.
    pub path: Vec<String>,
    /// The element of the leaf array that is wrong, counted from 0.
    pub index: Option<usize>,
    /// The event field concerned: the keys joined with "." (`$or` left out);
    /// empty if it is the pattern as a whole.
    pub field: String,
    /// What to try instead.
    pub hint: Option<String>,
}

impl PatternError {
    /// The message that EventBridge's API gives.
    pub fn aws_message(&self) -> String {
        format!("Event pattern is not valid. Reason: {}", self.reason)
    }
}

/// An event that cannot be matched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct EventError {
    /// What is wrong, in words.
    pub reason: EventFault,
    /// Where: a byte offset into the event.
    pub offset: usize,
    /// The line of that offset, counted from 1.
    pub line: usize,
    /// The column of that offset in bytes, counted from 1.
    pub column: usize,
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at line {}, column {}",
            self.reason, self.line, self.column
        )
    }
}

impl EventError {
    pub(crate) fn new(reason: EventFault, event: &[u8], offset: usize) -> Self {
        let before = &event[..offset.min(event.len())];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        EventError {
            reason,
            offset,
            line,
            column: before.len() - start + 1,
        }
    }
}

/// The ways in which an event can be unfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventFault {
    /// The top level is not an object.
    #[error("Event must be a JSON object")]
    NotAnObject,
    /// The text ends before the object does.
    #[error("unexpected end of the event")]
    Truncated,
    /// A key was expected.
    #[error("expected a key in double quotes")]
    ExpectedKey,
    /// A colon was expected.
    #[error("expected a colon after the key")]
    ExpectedColon,
    /// A value was expected.
    #[error("expected a value")]
    ExpectedValue,
    /// A comma or a closing bracket was expected.
    #[error("expected a comma or a closing bracket")]
    ExpectedComma,
    /// A closing bracket of the wrong kind.
    #[error("closing bracket does not fit the opening one")]
    MismatchedBracket,
    /// A malformed number.
    #[error("malformed number")]
    BadNumber,
    /// A word other than true, false and null.
    #[error("unknown word: only true, false and null are allowed")]
    BadWord,
    /// A malformed escape in a string.
    #[error("malformed escape in a string")]
    BadEscape,
    /// A raw control character in a string.
    #[error("raw control character in a string (write it as an escape)")]
    ControlCharacter,
    /// Bytes that are not UTF-8.
    #[error("invalid UTF-8")]
    BadUtf8,
    /// Something after the closing brace.
    #[error("unexpected text after the event")]
    TrailingText,
    /// Larger than the matcher's offsets can say.
    #[error("the event is larger than 1 GiB")]
    TooLarge,
    /// Deciding the array consistency of one rule took too many steps.
    #[error(
        "the event's arrays need more than {} steps to match one rule",
        super::MAX_STEPS
    )]
    TooManySteps,
}
