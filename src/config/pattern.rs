//! Patterns in YAML. The rules engine reads JSON text; this writes that text
//! from the tree, remembers which bytes of it came from where, and moves the
//! engine's errors back. The only file here that knows the engine.

use super::read::{Field, odd_number};
use super::yaml::{Item, Node, Scalar, shorten, written_at};
use crate::error::{Code, Diagnostic, codes};
use crate::rules::{self, Clause, FindingKind, Pattern, PatternError};
use std::ops::Range;

/// Most mistakes of one pattern that are reported.
const MAX_ERRORS: usize = 16;

/// Reads the pattern in `field`: the compiled pattern and its JSON text.
pub(super) fn read(field: &Field<'_>) -> Option<(Pattern, String)> {
    match field.item.scalar() {
        None => from_tree(field),
        // A pattern pasted as a block of text is taken as it is.
        Some(Scalar::Text(text)) if text.trim_start().starts_with('{') => {
            let origin = |offset: usize, end: usize| {
                let start = written_at(field.file.text, &field.item.span, text, offset)?;
                Some(start..start + end.saturating_sub(offset).max(1))
            };
            match Pattern::parse(text) {
                Ok(pattern) => Some((pattern, text.to_owned())),
                Err(error) => {
                    let span = origin(error.offset, error.end);
                    field.report(diagnostic(&error, field, span.as_ref()));
                    None
                }
            }
        }
        Some(_) => {
            let message = format!(
                "`{}` must be a table, not {}",
                field.name,
                field.item.describe()
            );
            field.report(field.error(&codes::BAD_PATTERN, message).hint(
                "a pattern has the event's shape: `{ source: [aws.s3], detail: { size: [{ exists: true }] } }`",
            ));
            None
        }
    }
}

/// The engine stops at the first mistake. To report the others too, the field
/// with the mistake is taken out and the rest is read again.
fn from_tree(field: &Field<'_>) -> Option<(Pattern, String)> {
    let mut rest = Some(field.item.clone());
    let mut sound = true;
    for _ in 0..MAX_ERRORS {
        let item = rest.take()?;
        let mut json = Json::default();
        json.write(&item, sound.then_some(field));
        if sound {
            note_places(field, &item, &field.path);
        }
        sound &= !json.failed;
        match Pattern::parse(&json.text) {
            Ok(pattern) => return sound.then_some((pattern, json.text)),
            Err(error) => {
                let span = json.origin(error.offset, error.end);
                field.report(diagnostic(&error, field, span.as_ref()));
                sound = false;
                rest = span.and_then(|span| without(&item, &span));
            }
        }
    }
    None
}

/// Remembers where the pattern's fields were written, by their path in the event.
fn note_places(field: &Field<'_>, item: &Item, path: &str) {
    let Node::Table(entries) = &item.node else {
        return;
    };
    for entry in entries.iter() {
        let path = format!("{path}.{}", entry.key);
        let place = field.file.place(entry.key_span.clone());
        note_places(field, &entry.item, &path);
        field.cx.places.borrow_mut().insert(path, place);
    }
}

/// The pattern without the field that holds `span`; `None` when nothing is left
/// or the mistake is not in a field.
fn without(item: &Item, span: &Range<usize>) -> Option<Item> {
    let Node::Table(entries) = &item.node else {
        return None;
    };
    let holds = |range: &Range<usize>| range.start <= span.start && span.end <= range.end;
    let index = entries
        .iter()
        .position(|entry| holds(&entry.key_span) || holds(&entry.item.span))?;
    let mut entries = entries.as_ref().clone();
    match without(&entries[index].item, span) {
        Some(inner) => entries[index].item = inner,
        None => {
            entries.remove(index);
        }
    }
    let node = Node::Table(entries.into());
    let empty = matches!(&node, Node::Table(entries) if entries.is_empty());
    (!empty).then(|| Item {
        node,
        span: item.span.clone(),
    })
}

fn diagnostic(error: &PatternError, field: &Field<'_>, span: Option<&Range<usize>>) -> Diagnostic {
    let subject = match error.field.is_empty() {
        true => format!("`{}` is not valid", field.name),
        false => format!(
            "`{}` at `{}` is not valid",
            field.name,
            shorten(&error.field)
        ),
    };
    let reason = error.reason.trim_end_matches('.');
    let diagnostic = Diagnostic::error(&codes::BAD_PATTERN, format!("{subject}: {reason}"));
    let diagnostic = match span {
        Some(span) => diagnostic.at(field.file.place(span.clone())),
        None => diagnostic.at(field.place()),
    };
    match &error.hint {
        Some(hint) => diagnostic.hint(hint.clone()),
        None => diagnostic,
    }
}

/// JSON text and where its parts came from.
#[derive(Default)]
struct Json {
    text: String,
    /// Bytes of the JSON text -> bytes of the YAML text, inner ones first.
    origins: Vec<(Range<usize>, Range<usize>)>,
    failed: bool,
}

impl Json {
    /// `field` takes the reports; `None` when they were made before.
    fn write(&mut self, item: &Item, field: Option<&Field<'_>>) {
        let start = self.text.len();
        match &item.node {
            Node::List(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.comma(index);
                    self.write(item, field);
                }
                self.text.push(']');
            }
            Node::Table(entries) => {
                self.text.push('{');
                for (index, entry) in entries.iter().enumerate() {
                    self.comma(index);
                    let key = self.text.len();
                    self.string(&entry.key);
                    self.origins
                        .push((key..self.text.len(), entry.key_span.clone()));
                    self.text.push(':');
                    self.write(&entry.item, field);
                }
                self.text.push('}');
            }
            Node::Scalar { .. } => self.scalar(item, field),
        }
        self.origins
            .push((start..self.text.len(), item.span.clone()));
    }

    fn comma(&mut self, index: usize) {
        if index > 0 {
            self.text.push(',');
        }
    }

    fn scalar(&mut self, item: &Item, field: Option<&Field<'_>>) {
        match item.scalar() {
            None | Some(Scalar::Null) => self.text.push_str("null"),
            Some(Scalar::Bool(value)) => self.text.push_str(if value { "true" } else { "false" }),
            Some(Scalar::Number(text)) => self.text.push_str(text),
            Some(Scalar::Text(text)) => self.string(text),
            Some(Scalar::OddNumber(text)) => {
                if let Some(field) = field {
                    let place = field.file.place(item.span.clone());
                    field.report(odd_number(
                        Diagnostic::error(&codes::AMBIGUOUS_SCALAR, "").at(place),
                        text,
                    ));
                }
                self.failed = true;
                self.text.push_str("null");
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.text
            .push_str(&serde_json::Value::from(text).to_string());
    }

    /// The YAML bytes of the smallest part that holds `offset..end`.
    fn origin(&self, offset: usize, end: usize) -> Option<Range<usize>> {
        let holds = |range: &Range<usize>, end: usize| range.start <= offset && end <= range.end;
        let smallest = |end: usize| {
            self.origins
                .iter()
                .filter(|(range, _)| holds(range, end))
                .min_by_key(|(range, _)| range.len())
                .map(|(_, span)| span.clone())
        };
        smallest(end.max(offset + 1)).or_else(|| smallest(offset))
    }
}

/// What is valid in a pattern and hardly meant: the code, the path of the field
/// (empty: the whole pattern), and the message. `known` are paths that events of
/// the rule's types have; empty when they are not declared.
pub(super) fn lint(pattern: &Pattern, known: &[&str]) -> Vec<(&'static Code, String, String)> {
    let mut findings = rules::lint(pattern);
    if !known.is_empty() {
        findings.extend(rules::case_slips(pattern, known));
    }
    let code = |kind: FindingKind| match kind {
        FindingKind::NeverMatches | FindingKind::ValueAndObject => &codes::DEAD_PATTERN,
        FindingKind::MatchesEverything | FindingKind::MatchesAnyValue => &codes::BROAD_PATTERN,
        FindingKind::RedundantBranch | FindingKind::RedundantClause => &codes::REDUNDANT_PATTERN,
        FindingKind::CaseSlip => &codes::UNKNOWN_PATH,
    };
    findings
        .into_iter()
        .map(|f| (code(f.kind), f.path, f.message))
        .collect()
}

/// A text that is equal for patterns that mean the same by their form.
pub(super) fn canonical(pattern: &Pattern) -> String {
    rules::canonical(pattern)
}

/// What can be said of a pattern and an event of which only some fields are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Overlap {
    /// No such event matches.
    Never,
    /// Some may.
    Maybe,
    /// All do.
    Always,
}

/// Whether events with these text fields (dotted path, value) match.
pub(super) fn overlap(pattern: &Pattern, known: &[(&str, &str)]) -> Overlap {
    let branch = |branch: &crate::rules::Branch| {
        branch
            .fields()
            .iter()
            .map(|field| {
                let path = field.path().to_lossy();
                match known.iter().find(|(name, _)| *name == path) {
                    Some((_, value)) => field
                        .clauses()
                        .iter()
                        .map(|clause| meets(clause, value))
                        .max()
                        .unwrap_or(Overlap::Never),
                    None => Overlap::Maybe,
                }
            })
            .min()
            .unwrap_or(Overlap::Always)
    };
    pattern
        .branches()
        .iter()
        .map(branch)
        .max()
        .unwrap_or(Overlap::Never)
}

fn meets(clause: &Clause, value: &str) -> Overlap {
    let sure = |answer: bool| {
        if answer {
            Overlap::Always
        } else {
            Overlap::Never
        }
    };
    match clause {
        Clause::Text(text) => sure(text.as_bytes() == value.as_bytes()),
        Clause::Prefix(text) => sure(value.as_bytes().starts_with(text.as_bytes())),
        Clause::Suffix(text) => sure(value.as_bytes().ends_with(text.as_bytes())),
        Clause::Exists(wanted) => sure(*wanted),
        Clause::Null
        | Clause::Bool(_)
        | Clause::Number(_)
        | Clause::Range(_)
        | Clause::Cidr(_)
        | Clause::Ip(..) => Overlap::Never,
        _ => Overlap::Maybe,
    }
}

/// Whether it is plain that no event matches both: some field of every pair of
/// branches has only exact texts on one side, none of which the other takes.
pub(super) fn disjoint(one: &Pattern, other: &Pattern) -> bool {
    one.branches()
        .iter()
        .all(|a| other.branches().iter().all(|b| apart(a, b) || apart(b, a)))
}

fn apart(exact: &crate::rules::Branch, other: &crate::rules::Branch) -> bool {
    exact.fields().iter().any(|field| {
        let Some(theirs) = other.fields().iter().find(|f| f.path() == field.path()) else {
            return false;
        };
        field.clauses().iter().all(|clause| match clause {
            Clause::Text(text) => {
                let text = text.to_lossy();
                theirs
                    .clauses()
                    .iter()
                    .all(|clause| meets(clause, &text) == Overlap::Never)
            }
            _ => false,
        })
    })
}
