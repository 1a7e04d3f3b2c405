//! Event patterns: EventBridge's language, whole and exact.
//!
//! The module stands alone: no clock, no files, nothing of the rest of the
//! program. A [`Pattern`] is read from its JSON text and refused with AWS's
//! reason if it is not valid; a [`Matcher`] holds the patterns of many rules in
//! one structure and finds those that an event matches in one pass over its
//! bytes; [`explain`] says why one pattern matches or does not.
//!
//! ```
//! use pointsman::rules::{Matcher, Mode, Pattern, RuleId, Scratch, explain};
//!
//! let large = Pattern::parse(
//!     r#"{"source": ["shop"], "detail": {"total": [{"numeric": [">", 100]}]}}"#,
//! )?;
//! let any = Pattern::parse(r#"{"detail-type": [{"prefix": "Order "}]}"#)?;
//!
//! let matcher = Matcher::new();
//! matcher.add(RuleId(1), &large);
//! matcher.add(RuleId(2), &any);
//!
//! // A snapshot never changes; working memory is kept from event to event.
//! let (rules, mut scratch) = (matcher.snapshot(), Scratch::new());
//! let event = br#"{"source": "shop", "detail-type": "Order Placed", "detail": {"total": 42}}"#;
//! assert_eq!(rules.matches(event, &mut scratch)?, [RuleId(2)]);
//!
//! // As at an intake: malformed JSON anywhere in the event is an error.
//! assert!(rules.matches_in(Mode::Validating, b"{\"a\": 01}", &mut scratch).is_err());
//!
//! let why = explain(&large, event)?;
//! let failed = why.first_failed().map(|field| field.path.as_str());
//! assert_eq!(failed, Some("detail.total"));
//!
//! matcher.remove(RuleId(2));
//! assert!(matcher.snapshot().matches(event, &mut scratch)?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rules are added and removed at any time: a change is an atomic swap of the
//! snapshot that readers take, and [`Matcher::update`] makes many at once.
//! [`lint`] names patterns that are valid but hardly meant, and [`input`] has
//! EventBridge's input transformers.

mod alone;
mod arrays;
mod ast;
mod blocks;
mod classes;
mod complexity;
mod cow;
mod error;
mod eval;
mod explain;
mod fold;
mod index;
pub mod input;
mod ip;
mod judge;
mod keys;
mod lint;
mod machine;
mod matcher;
mod number;
// Errors are rare, and plain data for whoever shows them.
#[expect(clippy::result_large_err)]
mod parse;
#[expect(clippy::result_large_err)]
mod parse_clause;
mod paths;
mod ranges;
mod reader;
mod scan;
mod slots;
mod small;
mod snapshot;
mod strict;
mod text;
mod validate;
mod wildcard;

pub use ast::{AnythingBut, Branch, Clause, Field, Literal, Range};
pub use error::{EventError, EventFault, PatternError};
pub use explain::{BranchReport, ClauseReport, Explanation, FieldReport, explain};
pub use fold::Folded;
pub use ip::{Cidr, Ip};
pub use lint::{Finding, FindingKind, canonical, case_slips, lint};
pub use matcher::{Matcher, RuleSet};
pub use parse::{MAX_BRANCHES, MAX_COMPLEXITY, MAX_FIELDS, Pattern};
pub use snapshot::{Mode, Scratch, Snapshot};
pub use text::Text;
pub use wildcard::Wildcard;

/// How many steps the matcher spends on the array consistency of one rule.
pub const MAX_STEPS: u64 = 10_000_000;

/// The caller's number for a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// Whether one pattern matches one event. For many events, or many patterns,
/// use a [`Matcher`].
///
/// # Errors
///
/// As [`Snapshot::matches`].
pub fn matches(pattern: &Pattern, event: &[u8]) -> Result<bool, EventError> {
    explain::matches(pattern, event)
}
