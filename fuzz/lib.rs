//! What the fuzz targets share: the engine by itself, the reference and the
//! generator of the tests, and the comparison.

// The engine lives in the crate `pointsman`; here it stands alone.
#[allow(dead_code)]
#[path = "../src/rules/mod.rs"]
pub mod rules;

#[path = "../tests/it/rules/generate.rs"]
pub mod generate;
#[path = "../tests/it/rules/reference.rs"]
pub mod reference;

use rules::{Matcher, Mode, Pattern, RuleId, Scratch};

/// Checks all that the engine says about a valid pattern and any event.
pub fn check(text: &str, pattern: &Pattern, event: &[u8]) {
    let matcher = Matcher::new();
    matcher.add(RuleId(0), pattern);
    let (rules, mut scratch) = (matcher.snapshot(), Scratch::new());
    let fast = rules
        .matches(event, &mut scratch)
        .map(|found| !found.is_empty());
    let strict = rules.matches_in(Mode::Validating, event, &mut scratch);
    let strict = strict.map(|found| !found.is_empty());
    let explained = rules::explain(pattern, event).map(|why| {
        let _ = why.to_string();
        why.matched
    });
    assert_eq!(fast, explained, "{text}");
    let valid = std::str::from_utf8(event)
        .ok()
        .filter(|text| is_json_object(text));
    match valid {
        Some(event) => {
            assert_eq!(fast, strict, "{text} <- {event}");
            compare(text, event, fast.ok());
        }
        None => assert!(
            strict.is_err(),
            "{text} <- {}",
            String::from_utf8_lossy(event)
        ),
    }
}

/// What another parser thinks; deeper nesting than it takes counts as invalid
/// and is left alone.
fn is_json_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

fn compare(pattern: &str, event: &str, found: Option<bool>) {
    // The reference is slow and recursive.
    if event.len() > 2_000 || pattern.len() > 2_000 {
        return;
    }
    let (Some(wanted), Some(value)) = (reference::parse(pattern), reference::parse(event)) else {
        panic!("the reference cannot read {pattern} <- {event}");
    };
    if let Some(expected) = reference::matches(&wanted, &value) {
        assert_eq!(found, Some(expected), "{pattern} <- {event}");
    }
}
