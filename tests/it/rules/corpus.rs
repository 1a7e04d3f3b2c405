//! The conformance corpus in `tests/patterns/` (see its README).

use std::path::PathBuf;

use pointsman::rules::{self, Matcher, Mode, Pattern, RuleId, Scratch};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::reference;

const PAIRS: [&str; 3] = ["localstack.jsonl", "ruler_unittests.jsonl", "oracle.jsonl"];

/// One line of a file of pairs.
#[derive(Deserialize)]
struct Line {
    id: String,
    pattern: Box<RawValue>,
    event: Box<RawValue>,
    /// `true`, `false` or "invalid".
    expect: serde_json::Value,
    /// The first line of the reason why the pattern is invalid.
    error: Option<String>,
    /// The wildcard complexity.
    cx: Option<u32>,
    /// The expectation is a known fault of event-ruler.
    suspect: Option<String>,
}

fn read(file: &str) -> String {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let path = PathBuf::from(root).join("tests/patterns").join(file);
    std::fs::read_to_string(path).expect("the corpus is part of the repository")
}

fn pairs() -> impl Iterator<Item = Line> {
    PAIRS.into_iter().flat_map(|file| {
        let lines: Vec<Line> = read(file)
            .lines()
            .map(|line| serde_json::from_str(line).expect("a corpus line"))
            .collect();
        assert!(!lines.is_empty(), "{file} is empty");
        lines
    })
}

/// A member's raw text; the content, if it is a string.
fn raw(value: &RawValue) -> String {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => text,
        Err(_) => value.get().to_owned(),
    }
}

/// Fails with the first of what went wrong, if anything did.
fn report(wrong: &[String]) {
    let shown = wrong
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        wrong.is_empty(),
        "{} lines are wrong:\n{shown}",
        wrong.len()
    );
}

/// Every pair, one pattern at a time, in both modes, with the reference beside.
#[test]
fn every_pair_alone() {
    let (mut wrong, mut scratch) = (Vec::new(), Scratch::new());
    let (mut count, mut gave_up) = (0, 0);
    for line in pairs().filter(|line| line.expect != "invalid") {
        let (text, event) = (raw(&line.pattern), raw(&line.event));
        count += 1;
        let pattern = match Pattern::parse_unlimited(&text) {
            Ok(pattern) => pattern,
            Err(error) => {
                wrong.push(format!("{}: refused: {error}", line.id));
                continue;
            }
        };
        let plain = reference::matches(
            &reference::parse(&text).expect("a valid pattern"),
            &reference::parse(&event).expect("a valid event"),
        );
        let expected = match line.suspect {
            // Here the reference knows better.
            Some(_) => plain,
            None => line.expect.as_bool(),
        };
        let matcher = Matcher::new();
        matcher.add(RuleId(1), &pattern);
        for mode in [Mode::Fast, Mode::Validating] {
            let snapshot = matcher.snapshot();
            let found = snapshot.matches_in(mode, event.as_bytes(), &mut scratch);
            let found = found.map(|ids| !ids.is_empty());
            if found.as_ref().ok() != expected.as_ref() {
                wrong.push(format!(
                    "{}: {mode:?}: {found:?}: {text} <- {event}",
                    line.id
                ));
            }
        }
        if plain.is_none() {
            gave_up += 1;
        } else if plain != expected {
            wrong.push(format!(
                "{}: reference: {plain:?}: {text} <- {event}",
                line.id
            ));
        }
        let explained = rules::explain(&pattern, event.as_bytes())
            .map(|why| why.matched)
            .ok();
        if explained != expected {
            wrong.push(format!(
                "{}: explained: {explained:?}: {text} <- {event}",
                line.id
            ));
        }
    }
    report(&wrong);
    assert_eq!(count, 5_609);
    assert!(gave_up < 10, "the reference gave up on {gave_up}");
}

/// Every invalid pattern, with the reason word for word (up to where the JSON
/// library of the original names a place).
#[test]
fn every_reason() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in pairs().filter(|line| line.expect == "invalid") {
        count += 1;
        let error = match Pattern::parse(&raw(&line.pattern)) {
            Ok(_) => {
                wrong.push(format!("{}: accepted {}", line.id, line.pattern));
                continue;
            }
            Err(error) => error,
        };
        let place = |text: &str| text.split(" (for ").next().unwrap_or_default().to_owned();
        if let Some(expected) = line.error {
            let found = if line.id.starts_with("localstack") {
                error.aws_message()
            } else {
                error.reason
            };
            if place(&found) != place(&expected) {
                wrong.push(format!("{}: {found}, not {expected}", line.id));
            }
        }
    }
    report(&wrong);
    assert_eq!(count, 445);
}

#[test]
fn every_complexity() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for line in pairs() {
        let (Some(cx), Ok(pattern)) = (line.cx, Pattern::parse_unlimited(&raw(&line.pattern)))
        else {
            continue;
        };
        count += 1;
        if pattern.complexity() != cx {
            let found = pattern.complexity();
            wrong.push(format!("{}: {found}, not {cx}: {}", line.id, line.pattern));
        }
    }
    report(&wrong);
    assert_eq!(count, 1_682);
}

#[derive(Deserialize)]
struct MatrixPattern {
    id: u32,
    pattern: Box<RawValue>,
}

#[derive(Deserialize)]
struct MatrixEvent {
    id: u32,
    event: Box<RawValue>,
    matches: Vec<u32>,
}

/// All patterns of the matrix in one matcher against every event.
#[test]
fn the_matrix_at_once() {
    let matcher = Matcher::new();
    for line in read("matrix_patterns.jsonl").lines() {
        let line: MatrixPattern = serde_json::from_str(line).expect("a pattern line");
        let pattern = Pattern::parse_unlimited(&raw(&line.pattern)).expect("a valid pattern");
        matcher.add(RuleId(line.id), &pattern);
    }
    let rules = matcher.snapshot();
    assert_eq!(rules.len(), 228);
    let (mut scratch, mut hits) = (Scratch::new(), 0);
    for line in read("matrix_events.jsonl").lines() {
        let line: MatrixEvent = serde_json::from_str(line).expect("an event line");
        let found = rules
            .matches(raw(&line.event).as_bytes(), &mut scratch)
            .expect("valid");
        let found: Vec<u32> = found.iter().map(|id| id.0).collect();
        assert_eq!(found, line.matches, "event {}", line.id);
        hits += found.len();
    }
    assert_eq!(hits, 4_056);
}
