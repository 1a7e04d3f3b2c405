//! The whole corpus through `pointsman match --batch`, as a pipe would send it.

use super::reference;
use crate::support::{Project, text};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What is needed of a line; patterns and events hold numbers that no `f64` can.
#[derive(Deserialize)]
struct Line {
    id: String,
    expect: Value,
    suspect: Option<String>,
    cx: Option<u64>,
    pattern: Box<RawValue>,
    event: Box<RawValue>,
}

/// What the reference says, where event-ruler is known to be wrong.
fn plainly(line: &Line) -> Option<bool> {
    let value = |raw: &RawValue| match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => reference::parse(&text),
        Err(_) => reference::parse(raw.get()),
    };
    reference::matches(&value(&line.pattern)?, &value(&line.event)?)
}

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
            let refused = answered["invalid"].is_string();
            // Too complex is refused, and yet has an answer.
            let score = answered["complexity"].as_u64();
            let mut right = (refused && answered["match"].is_boolean()) == score.is_some();
            right &= asked.cx.is_none_or(|cx| score == (cx > 10).then_some(cx));
            right &= if asked.expect == "invalid" {
                refused
            } else if asked.suspect.is_some() {
                answered["match"].as_bool() == plainly(&asked)
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
