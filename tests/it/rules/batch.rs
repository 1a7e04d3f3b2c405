//! The whole corpus through `pointsman match --batch`, as a pipe would send it.

use crate::support::{Project, text};
use serde::Deserialize;
use serde_json::Value;

/// What is needed of a line; patterns and events hold numbers that no `f64` can.
#[derive(Deserialize)]
struct Line {
    id: String,
    expect: Value,
    suspect: Option<String>,
    cx: Option<u64>,
}

/// Where our wildcard complexity is above the limit of 10 and event-ruler's is
/// not (`src/rules/complexity.rs` says why), so that the pattern is refused.
const REFUSED: [&str; 5] = [
    "oracle/20260101-135",
    "oracle/20260101-1060",
    "oracle/20260101-4104",
    "oracle/20260101-4163",
    // The corpus gives no score for this one.
    "oracle/20260101-4400",
];

#[test]
fn the_corpus_gets_its_answers_in_order_through_the_command_line() {
    let project = Project::new();
    let mut wrong = Vec::new();
    for file in ["localstack", "ruler_unittests", "oracle"] {
        let path = crate::support::repo().join(format!("tests/patterns/{file}.jsonl"));
        let lines = std::fs::read_to_string(path).expect("the corpus");
        let output = project.run_with(&["match", "--batch"], lines.as_bytes());
        let answers = text(&output.stdout);
        assert_eq!(answers.lines().count(), lines.lines().count());
        for (asked, answered) in lines.lines().zip(answers.lines()) {
            let asked: Line = serde_json::from_str(asked).expect("JSON");
            let answered: Value = serde_json::from_str(answered).expect("JSON");
            assert_eq!(asked.id, answered["id"], "the order is kept");
            let id = asked.id.as_str();
            // Too complex is refused, whatever the matcher alone would answer.
            let complex = asked.cx.is_some_and(|cx| cx > 10) || REFUSED.contains(&id);
            let right = if complex || asked.expect == "invalid" {
                answered["invalid"].is_string()
            } else if asked.suspect.is_some() {
                answered["match"].is_boolean()
            } else {
                answered["match"] == asked.expect
            };
            if !right {
                wrong.push(format!("{id}: {answered}, not {}", asked.expect));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
