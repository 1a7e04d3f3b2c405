//! Events at the edges: malformed, enormous, matched by many threads.

use std::sync::atomic::{AtomicBool, Ordering};

use pointsman::rules::{EventError, EventFault, Matcher, Mode, Pattern, RuleId, Scratch, Snapshot};

fn matcher(patterns: &[&str]) -> Matcher {
    let matcher = Matcher::new();
    for (id, pattern) in (0..).zip(patterns) {
        matcher.add(
            RuleId(id),
            &Pattern::parse(pattern).expect("a valid pattern"),
        );
    }
    matcher
}

fn run(rules: &Snapshot, mode: Mode, event: &str) -> Result<Vec<u32>, EventError> {
    let mut scratch = Scratch::new();
    let found = rules.matches_in(mode, event.as_bytes(), &mut scratch)?;
    Ok(found.iter().map(|id| id.0).collect())
}

#[test]
fn faults_have_a_place() {
    let rules = matcher(&[r#"{"a":[1]}"#]).snapshot();
    let fault = |event: &str| {
        let error = run(&rules, Mode::Validating, event).expect_err("malformed");
        (error.reason, error.line, error.column)
    };
    assert_eq!(fault("[1]"), (EventFault::NotAnObject, 1, 1));
    assert_eq!(fault(""), (EventFault::Truncated, 1, 1));
    assert_eq!(
        fault("{\"a\":1,\n \"b\":01}"),
        (EventFault::BadNumber, 2, 6)
    );
    assert_eq!(fault(r#"{"a":1,"b":"\x"}"#), (EventFault::BadEscape, 1, 13));
    assert_eq!(
        fault("{\"a\":1,\"b\":\"\n\"}"),
        (EventFault::ControlCharacter, 1, 13)
    );
    assert_eq!(fault(r#"{"a":1,}"#), (EventFault::ExpectedKey, 1, 8));
    assert_eq!(fault(r#"{"a":[1,]}"#), (EventFault::ExpectedValue, 1, 9));
    assert_eq!(fault(r#"{"a":[1}"#), (EventFault::MismatchedBracket, 1, 8));
    assert_eq!(fault(r#"{"a" 1}"#), (EventFault::ExpectedColon, 1, 6));
    assert_eq!(fault(r#"{"a":NaN}"#), (EventFault::BadWord, 1, 6));
    assert_eq!(fault(r#"{"a":1} x"#), (EventFault::TrailingText, 1, 9));
    assert_eq!(fault(r#"{"a":1 "b":2}"#), (EventFault::ExpectedComma, 1, 8));
    assert_eq!(fault(r#"{"a":"x"#), (EventFault::Truncated, 1, 8));
}

#[test]
fn the_fast_mode_checks_where_it_looks() {
    let rules = matcher(&[r#"{"a":[1]}"#]).snapshot();
    let fast = |event: &str| run(&rules, Mode::Fast, event);
    assert_eq!(fast(r#"{"b":{"x":01,,},"a":1} trailing"#), Ok(vec![0]));
    assert!(fast(r#"{"a":01}"#).is_err());
    assert!(fast(r#"{"a":1"#).is_err());
    assert!(fast(r#"{"b":{"a":1}"#).is_err());
    assert_eq!(fast(r#"{"\u0061":1}"#), Ok(vec![0]));
}

#[test]
fn depth_and_size_do_no_harm() {
    let deep_path = vec!["a"; 1_000].join(".");
    let deep_rule = format!(r#"{{"{deep_path}":[1]}}"#);
    let rules = matcher(&[&deep_rule, r#"{"b":[1]}"#]).snapshot();
    let deep = format!("{}1{}", r#"{"a":"#.repeat(1_000), "}".repeat(1_000));
    let arrays = format!(r#"{{"b":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let objects = format!(
        r#"{{"c":{}1{},"b":1}}"#,
        r#"{"x":"#.repeat(200_000),
        "}".repeat(200_000)
    );
    for mode in [Mode::Fast, Mode::Validating] {
        assert_eq!(run(&rules, mode, &deep), Ok(vec![0]));
        assert_eq!(run(&rules, mode, &arrays), Ok(vec![1]));
        assert_eq!(run(&rules, mode, &objects), Ok(vec![1]));
    }
}

#[test]
fn large_arrays_take_linear_time() {
    let rules = matcher(&[
        r#"{"a":{"b":[1],"c":[1]}}"#,
        r#"{"a":{"b":[1],"c":[{"exists":false}]}}"#,
        r#"{"a":{"b":[1],"c":[0]}}"#,
    ])
    .snapshot();
    let items: Vec<String> = (0..100_000)
        .map(|i| format!(r#"{{"b":{},"c":{}}}"#, i % 2, 1 - i % 2))
        .collect();
    let event = format!(r#"{{"a":[{}]}}"#, items.join(","));
    assert_eq!(run(&rules, Mode::Fast, &event), Ok(vec![2]));
}

#[test]
fn entangled_arrays_meet_a_limit() {
    let rules = matcher(&[
        r#"{"a":{"p":{"x":[{"exists":true}]},"q":{"x":[{"exists":true}],"y":[{"exists":false}]}}}"#,
    ])
    .snapshot();
    let items: Vec<String> = (0..4_000)
        .map(|i| format!(r#"{{"x":{i},"y":{i}}}"#))
        .collect();
    let items = items.join(",");
    let event = format!(r#"{{"a":[{{"p":[{items}],"q":[{items}]}}]}}"#);
    let error = run(&rules, Mode::Fast, &event).expect_err("too many steps");
    assert_eq!(error.reason, EventFault::TooManySteps);
}

#[test]
fn one_value_is_tried_once_for_many_grams() {
    let rules = matcher(&[r#"{"a":[{"wildcard":"*y*yy*z*"}]}"#]).snapshot();
    let event = format!(r#"{{"a":"{}"}}"#, "y".repeat(1_000_000));
    assert_eq!(run(&rules, Mode::Fast, &event), Ok(vec![]));
}

#[test]
fn one_scratch_serves_many_snapshots() {
    let (one, other) = (
        matcher(&[r#"{"a":[1]}"#]),
        matcher(&[r#"{"b":[1]}"#, r#"{"a":[2]}"#]),
    );
    let mut scratch = Scratch::new();
    for _ in 0..3 {
        let found = one
            .snapshot()
            .matches(br#"{"a":1}"#, &mut scratch)
            .map(<[_]>::len);
        assert_eq!(found, Ok(1));
        let rules = other.snapshot();
        let found = rules
            .matches(br#"{"a":2,"b":1}"#, &mut scratch)
            .map(<[_]>::len);
        assert_eq!(found, Ok(2));
    }
}

#[test]
fn a_rule_is_replaced_and_removed() {
    let matcher = matcher(&[r#"{"a":[1]}"#]);
    matcher.add(RuleId(0), &Pattern::parse(r#"{"a":[2]}"#).expect("valid"));
    assert_eq!(
        run(&matcher.snapshot(), Mode::Fast, r#"{"a":1}"#),
        Ok(vec![])
    );
    assert_eq!(
        run(&matcher.snapshot(), Mode::Fast, r#"{"a":2}"#),
        Ok(vec![0])
    );
    assert!(matcher.remove(RuleId(0)) && !matcher.remove(RuleId(0)));
    assert!(matcher.snapshot().is_empty());
}

/// A change is seen whole or not at all: both rules are there, or neither is.
#[test]
fn changes_are_atomic_under_threads() {
    let matcher = Matcher::new();
    let patterns: Vec<Pattern> = (0..50)
        .map(|i| Pattern::parse(&format!(r#"{{"a":[{{"prefix":"x{i}"}},"y"]}}"#)).expect("valid"))
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut scratch = Scratch::new();
                while !done.load(Ordering::Relaxed) {
                    let rules = matcher.snapshot();
                    let found = rules.matches(br#"{"a":"y"}"#, &mut scratch).expect("valid");
                    assert_eq!(found.len(), rules.len());
                    assert_eq!(found.len() % 2, 0, "{found:?}");
                }
            });
        }
        for round in 0..2_000_usize {
            let id = (round * 7 % 25 * 2) as u32;
            matcher.update(|rules| {
                if !rules.remove(RuleId(id)) {
                    rules.add(RuleId(id), &patterns[id as usize]);
                    rules.add(RuleId(id + 1), &patterns[id as usize + 1]);
                } else {
                    rules.remove(RuleId(id + 1));
                }
            });
        }
        done.store(true, Ordering::Relaxed);
    });
}
