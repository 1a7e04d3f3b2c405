//! The engine against the reference, over random patterns and events.

use pointsman::rules::{self, Matcher, Mode, Pattern, RuleId, Scratch};
use proptest::collection::vec;
use proptest::prelude::*;

use super::generate::Gen;
use super::reference;

/// So many cases, or as many times more as `RULES_TEST_FACTOR` says.
fn cases(count: u32) -> ProptestConfig {
    let factor = std::env::var("RULES_TEST_FACTOR")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: count * factor.unwrap_or(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Bytes for a generator.
fn choices(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

fn parse(text: &str) -> Pattern {
    Pattern::parse_unlimited(text).unwrap_or_else(|error| panic!("{error:?}: {text}"))
}

/// What the reference says; `None` if it gave up.
fn expected(pattern: &str, event: &str) -> Option<bool> {
    let pattern = reference::parse(pattern).expect("a valid pattern");
    let event = reference::parse(event).expect("a valid event");
    reference::matches(&pattern, &event)
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn the_engine_agrees_with_the_reference(bytes in choices(300)) {
        let mut random = Gen::new(&bytes);
        let (pattern, event) = (random.pattern(), random.event());
        let parsed = parse(&pattern);
        if let Some(expected) = expected(&pattern, &event) {
            let matcher = Matcher::new();
            matcher.add(RuleId(3), &parsed);
            let (rules, mut scratch) = (matcher.snapshot(), Scratch::new());
            let found = rules.matches(event.as_bytes(), &mut scratch).map(|ids| !ids.is_empty());
            prop_assert_eq!(&found, &Ok(expected), "{} <- {}", pattern, event);
            prop_assert_eq!(rules::matches(&parsed, event.as_bytes()), found);
        }
    }

    #[test]
    fn explanations_agree_with_the_engine(bytes in choices(300)) {
        let mut random = Gen::new(&bytes);
        let (pattern, event) = (random.pattern(), random.event());
        let parsed = parse(&pattern);
        let found = rules::matches(&parsed, event.as_bytes());
        let explained = rules::explain(&parsed, event.as_bytes()).map(|why| {
            assert_eq!(why.distance() == 0, why.matched, "{why}");
            assert!(!why.to_string().is_empty());
            why.matched
        });
        prop_assert_eq!(found, explained, "{} <- {}", pattern, event);
    }

    #[test]
    fn spaces_and_modes_do_not_matter(bytes in choices(300)) {
        let mut random = Gen::new(&bytes);
        let (pattern, event) = (random.pattern(), random.event());
        let matcher = Matcher::new();
        matcher.add(RuleId(7), &parse(&pattern));
        let (rules, mut scratch) = (matcher.snapshot(), Scratch::new());
        let fast = rules.matches(event.as_bytes(), &mut scratch).map(<[_]>::to_vec);
        let strict = rules.matches_in(Mode::Validating, event.as_bytes(), &mut scratch);
        prop_assert_eq!(fast, strict.map(<[_]>::to_vec), "{} <- {}", pattern, event);
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// Rules come and go; at every moment each rule answers as if alone.
    #[test]
    fn rules_do_not_interfere(bytes in choices(6_000), order in vec(any::<u8>(), 60)) {
        let mut random = Gen::new(&bytes);
        let patterns: Vec<String> = (0..24).map(|_| random.pattern()).collect();
        let parsed: Vec<Pattern> = patterns.iter().map(|pattern| parse(pattern)).collect();
        let events: Vec<String> = (0..8).map(|_| random.event()).collect();
        let alone = |rule: usize, event: &str| rules::matches(&parsed[rule], event.as_bytes());
        let truth: Vec<Vec<bool>> = (0..parsed.len())
            .map(|rule| events.iter().map(|event| alone(rule, event) == Ok(true)).collect())
            .collect();
        let matcher = Matcher::new();
        let mut present = vec![false; parsed.len()];
        let mut scratch = Scratch::new();
        for choice in order {
            let rule = usize::from(choice) % parsed.len();
            if present[rule] && choice % 2 == 0 {
                prop_assert!(matcher.remove(RuleId(rule as u32)));
                present[rule] = false;
            } else {
                matcher.add(RuleId(rule as u32), &parsed[rule]);
                present[rule] = true;
            }
            let snapshot = matcher.snapshot();
            prop_assert_eq!(snapshot.len(), present.iter().filter(|one| **one).count());
            for (i, event) in events.iter().enumerate() {
                let found = snapshot.matches(event.as_bytes(), &mut scratch).expect("valid");
                let expected: Vec<RuleId> = (0..parsed.len())
                    .filter(|rule| present[*rule] && truth[*rule][i])
                    .map(|rule| RuleId(rule as u32))
                    .collect();
                prop_assert_eq!(found, &expected[..], "event {}", event);
            }
        }
    }
}

/// The random pairs must not all miss.
#[test]
fn enough_pairs_match() {
    let mut seed = 1_u64;
    let mut hits = 0;
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..300)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        let mut random = Gen::new(&bytes);
        let (pattern, event) = (random.pattern(), random.event());
        hits += usize::from(expected(&pattern, &event) == Some(true));
    }
    assert!(hits > 200, "only {hits} of 2,000 match");
}
