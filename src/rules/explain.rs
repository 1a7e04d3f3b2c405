//! Why an event matches a pattern, or why not.

use std::fmt;

use serde::Serialize;

use super::ast::{Branch, Field};
use super::error::EventError;
use super::eval;
use super::judge::{self, Event, State};
use super::parse::Pattern;
use super::paths::{PathId, Trie};
use super::scan::{self, Fault, Kind, Leaf, Leaves};

/// How many values of one field are shown.
const MAX_VALUES: usize = 5;
/// How many characters of one value are shown.
const MAX_CHARS: usize = 200;

/// Why an event matches a pattern, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether the pattern matches.
    pub matched: bool,
    /// The combinations that `$or` expands to, the closest to a match first.
    /// One of them is enough.
    pub branches: Vec<BranchReport>,
}

/// One combination of a pattern: every field must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BranchReport {
    /// Whether all of it matches.
    pub matched: bool,
    /// How many fields fail; 1 if only the arrays do not agree.
    pub distance: usize,
    /// The fields, in the order of their paths.
    pub fields: Vec<FieldReport>,
    /// The first field that fails, as an index into `fields`.
    pub first_failed: Option<usize>,
    /// Every field matches by itself, but only with values from different
    /// elements of one array.
    pub arrays_disagree: bool,
}

/// One field: a path, and clauses of which one must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldReport {
    /// The keys joined with ".".
    pub path: String,
    /// Whether some clause matches (some value of) the field.
    pub matched: bool,
    /// The values seen, as JSON; the first few, shortened. Empty if the field
    /// is missing.
    pub seen: Vec<String>,
    /// How many values there are.
    pub values: usize,
    /// The alternatives.
    pub clauses: Vec<ClauseReport>,
}

/// One alternative of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClauseReport {
    /// The clause, in the pattern's language.
    pub wanted: String,
    /// Whether it matches some value of the field (or its absence).
    pub matched: bool,
}

impl Explanation {
    /// How far the event is from matching: the fewest fields that fail in any
    /// branch; 0 if it matches. Sort by it to see "nearly matched" rules first.
    pub fn distance(&self) -> usize {
        if self.matched {
            0
        } else {
            self.branches.first().map_or(0, |branch| branch.distance)
        }
    }

    /// The first field that fails in the branch that is closest to a match.
    pub fn first_failed(&self) -> Option<&FieldReport> {
        let closest = self.branches.first()?;
        closest.fields.get(closest.first_failed?)
    }
}

/// Explains how one event fares with one pattern. Agrees with
/// [`Snapshot::matches`](super::Snapshot::matches) always.
///
/// # Errors
///
/// As [`Snapshot::matches`](super::Snapshot::matches).
pub fn explain(pattern: &Pattern, event: &[u8]) -> Result<Explanation, EventError> {
    try_explain(pattern, event).map_err(|(reason, at)| EventError::new(reason, event, at))
}

fn try_explain(pattern: &Pattern, event: &[u8]) -> Result<Explanation, Fault> {
    let seen = Seen::new(pattern, event)?;
    let mut branches = Vec::new();
    for (branch, paths) in pattern.branches().iter().zip(&seen.paths) {
        branches.push(explain_branch(branch, paths, seen.event())?);
    }
    branches.sort_by_key(|branch| branch.distance);
    Ok(Explanation {
        matched: branches.iter().any(|branch| branch.matched),
        branches,
    })
}

/// Whether a pattern matches, without compiling it.
pub(super) fn matches(pattern: &Pattern, event: &[u8]) -> Result<bool, EventError> {
    let matched = Seen::new(pattern, event).and_then(|seen| {
        for (branch, paths) in pattern.branches().iter().zip(&seen.paths) {
            if decide(branch, paths, seen.event())?.1 {
                return Ok(true);
            }
        }
        Ok(false)
    });
    matched.map_err(|(reason, at)| EventError::new(reason, event, at))
}

/// An event's leaves at the paths of one pattern.
struct Seen<'e> {
    text: &'e [u8],
    leaves: Leaves,
    /// The paths of every branch's fields.
    paths: Vec<Vec<PathId>>,
}

impl<'e> Seen<'e> {
    fn new(pattern: &Pattern, text: &'e [u8]) -> Result<Self, Fault> {
        let mut trie = Trie::default();
        let mut add = |field: &Field| trie.add(field.path.as_bytes(), &mut Vec::new());
        let paths = pattern
            .branches()
            .iter()
            .map(|branch| branch.fields.iter().map(&mut add).collect())
            .collect();
        let mut leaves = Leaves::default();
        leaves.index(text)?;
        scan::scan(&trie, text, &mut leaves)?;
        Ok(Seen {
            text,
            leaves,
            paths,
        })
    }

    fn event(&self) -> Event<'_> {
        Event {
            text: self.text,
            leaves: &self.leaves,
        }
    }
}

/// The states of a branch's fields, whether it matches, and whether that took
/// a look at the arrays.
fn decide(
    branch: &Branch,
    paths: &[PathId],
    event: Event<'_>,
) -> Result<(Vec<State>, bool, bool), Fault> {
    let fields = || branch.fields.iter().zip(paths);
    let states: Vec<State> = fields()
        .map(|(field, path)| event.state(*path, &field.clauses))
        .collect();
    Ok(match judge::decide(states.iter().copied()) {
        Some(matched) => (states, matched, false),
        None => {
            let fields = fields().map(|(field, path)| (*path, &field.clauses[..]));
            (states, event.is_consistent(fields)?, true)
        }
    })
}

fn explain_branch(
    branch: &Branch,
    paths: &[PathId],
    event: Event<'_>,
) -> Result<BranchReport, Fault> {
    let fields = branch.fields.iter().zip(paths);
    let (states, matched, by_arrays) = decide(branch, paths, event)?;
    let reports: Vec<FieldReport> = fields
        .zip(&states)
        .map(|((field, path), state)| explain_field(field, *path, *state, event))
        .collect();
    let failed = reports.iter().filter(|field| !field.matched).count();
    let arrays_disagree = !matched && by_arrays;
    Ok(BranchReport {
        matched,
        distance: failed + usize::from(arrays_disagree),
        first_failed: reports.iter().position(|field| !field.matched),
        fields: reports,
        arrays_disagree,
    })
}

fn explain_field(field: &Field, path: PathId, state: State, event: Event<'_>) -> FieldReport {
    let mut leaves: Vec<&Leaf> = event.leaves.at(path).collect();
    leaves.reverse();
    let clauses = field.clauses.iter().map(|clause| ClauseReport {
        wanted: clause.to_string(),
        matched: match clause {
            super::ast::Clause::Exists(false) => leaves.is_empty(),
            _ => leaves
                .iter()
                .any(|leaf| eval::accepts_one(&field.clauses, clause, &event.value(leaf))),
        },
    });
    FieldReport {
        path: field.path.to_lossy(),
        matched: state != State::No,
        clauses: clauses.collect(),
        values: leaves.len(),
        seen: leaves
            .iter()
            .take(MAX_VALUES)
            .map(|leaf| shown(event, leaf))
            .collect(),
    }
}

/// A value as JSON, shortened.
fn shown(event: Event<'_>, leaf: &Leaf) -> String {
    let value = event.value(leaf);
    let text = String::from_utf8_lossy(value.bytes);
    let mut short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    match leaf.kind {
        // A string can always be written as JSON.
        Kind::Plain | Kind::Unescaped => serde_json::to_string(&short).unwrap_or_default(),
        _ => short,
    }
}

impl fmt::Display for Explanation {
    /// A small block of lines: the branch that is closest to a match, with
    /// what each field wanted and what was seen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(closest) = self.branches.first() else {
            return f.write_str("no match");
        };
        match (self.matched, closest.arrays_disagree) {
            (true, _) => f.write_str("match")?,
            (false, false) => {
                let total = closest.fields.len();
                write!(f, "no match: {} of {total} fields failed", closest.distance)?;
            }
            (false, true) => {
                f.write_str("no match: the fields match only in different elements of one array")?
            }
        }
        if self.branches.len() > 1 {
            write!(
                f,
                " (the closest of {} $or combinations)",
                self.branches.len()
            )?;
        }
        let width = closest
            .fields
            .iter()
            .map(|field| field.path.chars().count())
            .max();
        for field in &closest.fields {
            let mark = if field.matched { "ok  " } else { "FAIL" };
            let wanted: Vec<&str> = field
                .clauses
                .iter()
                .map(|clause| clause.wanted.as_str())
                .collect();
            write!(
                f,
                "\n  {mark}  {:width$}",
                field.path,
                width = width.unwrap_or(0)
            )?;
            write!(f, "  wanted {}  ", wanted.join(" or "))?;
            if field.seen.is_empty() {
                f.write_str("field is missing")?;
            } else {
                write!(f, "saw {}", field.seen.join(", "))?;
            }
            if field.values > field.seen.len() {
                write!(f, " and {} more", field.values - field.seen.len())?;
            }
        }
        Ok(())
    }
}
