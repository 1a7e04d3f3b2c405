//! Patterns that are valid but hardly meant.

use serde::Serialize;

use super::ast::{AnythingBut, Branch, Clause, Field, Range};
use super::parse::Pattern;
use super::parse_clause::edit_distance;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// No event can match.
    NeverMatches,
    /// No event of the bus can fail.
    MatchesEverything,
    /// A field accepts whatever value it has.
    MatchesAnyValue,
    /// A path is wanted both as a value and as an object.
    ValueAndObject,
    /// A branch of `$or` adds nothing to another one.
    RedundantBranch,
    /// An alternative adds nothing to another one.
    RedundantClause,
    /// A path differs from a known one in case or by a slip only.
    CaseSlip,
}

/// Something about a pattern that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The field concerned: the keys joined with "."; empty if it is the whole
    /// pattern.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// The fields that every event of a bus has; all are strings.
const ENVELOPE: [&str; 7] = [
    "version",
    "id",
    "source",
    "detail-type",
    "account",
    "time",
    "region",
];

/// Looks a pattern over. Events are taken to have EventBridge's envelope.
pub fn lint(pattern: &Pattern) -> Vec<Finding> {
    let mut findings = Vec::new();
    let branches = pattern.branches();
    for branch in branches {
        for field in branch.fields() {
            push_new(&mut findings, lint_field(field));
        }
        push_new(&mut findings, values_and_objects(branch));
    }
    let dead = branches
        .iter()
        .filter(|branch| branch.fields().iter().any(is_dead))
        .count();
    if dead == branches.len() {
        let message = match dead {
            1 => "this pattern can never match".to_owned(),
            _ => "no combination of this pattern can ever match".to_owned(),
        };
        findings.insert(0, finding(FindingKind::NeverMatches, "", message));
    }
    if branches
        .iter()
        .any(|branch| branch.fields().iter().all(is_certain))
    {
        let message = "this pattern matches every event".to_owned();
        findings.insert(0, finding(FindingKind::MatchesEverything, "", message));
    }
    findings.extend(redundant_branches(branches));
    findings
}

fn finding(kind: FindingKind, path: &str, message: String) -> Finding {
    Finding {
        kind,
        path: path.to_owned(),
        message,
    }
}

/// Branches share fields: each finding is told once.
fn push_new(findings: &mut Vec<Finding>, new: Vec<Finding>) {
    for finding in new {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
}

fn lint_field(field: &Field) -> Vec<Finding> {
    let path = field.path.to_lossy();
    let mut findings = Vec::new();
    if is_dead(field) {
        let message = dead_message(field, &path);
        findings.push(finding(FindingKind::NeverMatches, &path, message));
    }
    let clauses = field.clauses();
    if accepts_any_value(clauses) && !matches!(clauses, [Clause::Exists(true)]) {
        let buts = clauses
            .iter()
            .filter(|clause| matches!(clause, Clause::AnythingBut(_)))
            .count();
        let message = if buts > 1 {
            format!(
                "`{path}` accepts any value: alternatives are joined by OR, so what one \
                 anything-but excludes another lets in; put all values into one anything-but list"
            )
        } else {
            format!("`{path}` accepts any value it has; write [{{\"exists\": true}}] if meant")
        };
        findings.push(finding(FindingKind::MatchesAnyValue, &path, message));
    }
    for (i, clause) in clauses.iter().enumerate() {
        if clauses[..i].contains(clause) {
            let message = format!("`{path}` lists {clause} twice");
            findings.push(finding(FindingKind::RedundantClause, &path, message));
        }
    }
    findings
}

/// Whether no value, nor the absence of one, can satisfy the field.
fn is_dead(field: &Field) -> bool {
    let envelope = is_envelope(field);
    field.clauses().iter().all(|clause| match clause {
        Clause::Range(range) => envelope || is_empty(range),
        Clause::Exists(wanted) => envelope && !wanted,
        Clause::Null | Clause::Bool(_) | Clause::Number(_) => envelope,
        _ => false,
    }) || field.path.as_bytes() == b"detail" && wants_only_values(field)
}

fn is_envelope(field: &Field) -> bool {
    ENVELOPE
        .iter()
        .any(|name| name.as_bytes() == field.path.as_bytes())
}

/// `detail` is an object, so it has no value of its own.
fn wants_only_values(field: &Field) -> bool {
    !field.clauses().contains(&Clause::Exists(false))
}

fn dead_message(field: &Field, path: &str) -> String {
    if path == "detail" {
        return "`detail` is always an object: name the fields inside it".to_owned();
    }
    if !is_envelope(field) {
        return format!("no number lies in the range that `{path}` asks for");
    }
    if field.clauses().contains(&Clause::Exists(false)) {
        return format!("`{path}` is forbidden, but every event has it");
    }
    format!("`{path}` is always a string, but only other values are asked for")
}

/// Whether no double lies within the bounds.
fn is_empty(range: &Range) -> bool {
    match (range.lower, range.upper) {
        (Some((low, low_included)), Some((high, high_included))) => {
            let first = if low_included { low } else { low.next_up() };
            let last = if high_included {
                high
            } else {
                high.next_down()
            };
            first > last
        }
        (Some((low, false)), None) => low == f64::MAX,
        (None, Some((high, false))) => high == f64::MIN,
        _ => false,
    }
}

/// Whether the clauses accept whatever value there is.
fn accepts_any_value(clauses: &[Clause]) -> bool {
    if clauses.contains(&Clause::Exists(true)) {
        return true;
    }
    let buts: Vec<&AnythingBut> = clauses
        .iter()
        .filter_map(|clause| match clause {
            Clause::AnythingBut(but) => Some(but),
            _ => None,
        })
        .collect();
    // What is not a string satisfies every anything-but of strings, so only
    // the strings that all of them exclude are left.
    buts.iter().any(|but| excludes_nothing(but))
        || (!buts.is_empty() && clauses.iter().any(accepts_any_string))
        || buts
            .iter()
            .enumerate()
            .any(|(i, one)| buts[..i].iter().any(|other| are_disjoint(one, other)))
}

fn accepts_any_string(clause: &Clause) -> bool {
    match clause {
        Clause::Prefix(text) | Clause::Suffix(text) => text.is_empty(),
        Clause::PrefixIgnoreCase(folded) | Clause::SuffixIgnoreCase(folded) => {
            folded.text().is_empty()
        }
        Clause::Wildcard(wildcard) => wildcard.text().as_bytes() == b"*",
        _ => false,
    }
}

fn excludes_nothing(but: &AnythingBut) -> bool {
    match but {
        AnythingBut::Texts(texts) | AnythingBut::Prefix(texts) | AnythingBut::Suffix(texts) => {
            texts.is_empty()
        }
        AnythingBut::Numbers(numbers) => numbers.is_empty(),
        AnythingBut::IgnoreCase(folded) => folded.is_empty(),
        AnythingBut::Wildcard(wildcards) => wildcards.is_empty(),
    }
}

/// Whether nothing is excluded by both, as far as that is plain to see.
fn are_disjoint(one: &AnythingBut, other: &AnythingBut) -> bool {
    match (one, other) {
        (AnythingBut::Texts(some), AnythingBut::Texts(others)) => {
            !some.iter().any(|text| others.contains(text))
        }
        (AnythingBut::Numbers(some), AnythingBut::Numbers(others)) => !some
            .iter()
            .any(|number| others.iter().any(|other| other.value == number.value)),
        (AnythingBut::Numbers(_), _) | (_, AnythingBut::Numbers(_)) => true,
        _ => false,
    }
}

/// Whether every event of the bus satisfies the field.
fn is_certain(field: &Field) -> bool {
    let clauses = field.clauses();
    (clauses.contains(&Clause::Exists(false)) && accepts_any_value(clauses))
        || (is_envelope(field)
            && (accepts_any_value(clauses) || clauses.iter().any(accepts_any_string)))
}

/// Paths that are wanted as values while others run through them.
fn values_and_objects(branch: &Branch) -> Vec<Finding> {
    let fields = branch.fields();
    let mut findings = Vec::new();
    for outer in fields
        .iter()
        .filter(|field| !field.clauses().contains(&Clause::Exists(false)))
    {
        let path = outer.path.to_lossy();
        let below = format!("{path}.");
        let inner = fields.iter().find(|field| {
            field.path.as_bytes().starts_with(below.as_bytes())
                && !field.clauses().contains(&Clause::Exists(false))
        });
        if let Some(inner) = inner {
            let message = format!(
                "`{path}` must have a value, and `{}` makes it an object: only an array that \
                 holds both can match",
                inner.path
            );
            findings.push(finding(FindingKind::ValueAndObject, &path, message));
        }
    }
    findings
}

/// At most this many branches are compared with each other.
const MAX_COMPARED: usize = 200;

/// Branches that have all the fields of another one, and more.
fn redundant_branches(branches: &[Branch]) -> Vec<Finding> {
    if branches.len() > MAX_COMPARED {
        return Vec::new();
    }
    let covers = |one: &Branch, other: &Branch| {
        one.fields()
            .iter()
            .all(|field| other.fields().contains(field))
    };
    let redundant = (0..branches.len()).filter(|i| {
        (0..branches.len()).any(|j| {
            j != *i
                && covers(&branches[j], &branches[*i])
                && (j < *i || !covers(&branches[*i], &branches[j]))
        })
    });
    match redundant.count() {
        0 => Vec::new(),
        count => vec![finding(
            FindingKind::RedundantBranch,
            "$or",
            format!(
                "{count} of the {} combinations of $or add nothing to the others (a field after \
                 $or replaces the same field inside it)",
                branches.len()
            ),
        )],
    }
}

/// A text that is equal for patterns that mean the same by their form: order of
/// keys, of alternatives and of branches, repetitions and spellings of numbers
/// do not matter.
pub fn canonical(pattern: &Pattern) -> String {
    let mut branches: Vec<String> = pattern
        .branches()
        .iter()
        .map(|branch| {
            let fields: Vec<String> = branch
                .fields()
                .iter()
                .map(|field| {
                    let mut clauses: Vec<String> =
                        field.clauses().iter().map(canonical_clause).collect();
                    clauses.sort();
                    clauses.dedup();
                    format!("{:?}:[{}]", field.path(), clauses.join(","))
                })
                .collect();
            fields.join(",")
        })
        .collect();
    branches.sort();
    branches.dedup();
    branches.join(" or ")
}

fn canonical_clause(clause: &Clause) -> String {
    match clause {
        Clause::Number(literal) => match literal.value {
            Some(value) => value.to_string(),
            None => literal.text.to_string(),
        },
        Clause::Ip(ip, _) => format!("ip {ip}"),
        Clause::AnythingBut(but) => {
            let mut but = but.clone();
            let mut items: Vec<String> = match &mut but {
                AnythingBut::Numbers(numbers) => numbers
                    .iter()
                    .filter_map(|number| number.value)
                    .map(|v| v.to_string())
                    .collect(),
                AnythingBut::Texts(texts)
                | AnythingBut::Prefix(texts)
                | AnythingBut::Suffix(texts) => texts.iter().map(|t| format!("{t:?}")).collect(),
                AnythingBut::IgnoreCase(all) => {
                    all.iter().map(|one| format!("{:?}", one.text())).collect()
                }
                AnythingBut::Wildcard(all) => {
                    all.iter().map(|one| format!("{:?}", one.text())).collect()
                }
            };
            items.sort();
            items.dedup();
            let kind = match but {
                AnythingBut::Numbers(_) => "number",
                AnythingBut::Texts(_) => "text",
                AnythingBut::Prefix(_) => "prefix",
                AnythingBut::Suffix(_) => "suffix",
                AnythingBut::IgnoreCase(_) => "ignore-case",
                AnythingBut::Wildcard(_) => "wildcard",
            };
            format!("anything-but {kind} [{}]", items.join(","))
        }
        _ => clause.to_string(),
    }
}

/// Paths of a pattern that are not among the known ones, but nearly.
pub fn case_slips(pattern: &Pattern, known: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for field in pattern.branches().iter().flat_map(Branch::fields) {
        let path = field.path.to_lossy();
        if known.contains(&path.as_str()) {
            continue;
        }
        let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
        let same = known.iter().find(|other| plain(other) == plain(&path));
        let near = || {
            known
                .iter()
                .find(|other| path.len() > 5 && edit_distance(&path, other) == 1)
        };
        if let Some(other) = same.or_else(near) {
            let message = format!("no event has `{path}`; did you mean `{other}`?");
            push_new(
                &mut findings,
                vec![finding(FindingKind::CaseSlip, &path, message)],
            );
        }
    }
    findings
}
