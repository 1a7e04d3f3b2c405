//! The example in the documentation of `pointsman::rules`, as its reader runs it.

use pointsman::rules::{Matcher, Mode, Pattern, RuleId, Scratch, explain};

#[test]
fn the_documented_example_holds() -> Result<(), Box<dyn std::error::Error>> {
    let large =
        Pattern::parse(r#"{"source": ["shop"], "detail": {"total": [{"numeric": [">", 100]}]}}"#)?;
    let any = Pattern::parse(r#"{"detail-type": [{"prefix": "Order "}]}"#)?;

    let matcher = Matcher::new();
    matcher.add(RuleId(1), &large);
    matcher.add(RuleId(2), &any);

    let (rules, mut scratch) = (matcher.snapshot(), Scratch::new());
    let event = br#"{"source": "shop", "detail-type": "Order Placed", "detail": {"total": 42}}"#;
    assert_eq!(rules.matches(event, &mut scratch)?, [RuleId(2)]);
    assert!(
        rules
            .matches_in(Mode::Validating, b"{\"a\": 01}", &mut scratch)
            .is_err()
    );

    let why = explain(&large, event)?;
    let failed = why.first_failed().map(|field| field.path.as_str());
    assert_eq!(failed, Some("detail.total"));

    matcher.remove(RuleId(2));
    assert!(matcher.snapshot().matches(event, &mut scratch)?.is_empty());
    Ok(())
}
