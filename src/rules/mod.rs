//! Event patterns: EventBridge's language, whole and exact.

mod alone;
mod arrays;
mod ast;
mod blocks;
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
mod small;
mod snapshot;
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
