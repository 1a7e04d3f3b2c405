//! Patterns that are valid but hardly meant.

use pointsman::rules::{FindingKind, Pattern, canonical, case_slips, lint};

fn parse(text: &str) -> Pattern {
    Pattern::parse(text).expect("a valid pattern")
}

fn kinds(text: &str) -> Vec<FindingKind> {
    lint(&parse(text))
        .into_iter()
        .map(|finding| finding.kind)
        .collect()
}

#[test]
fn ordinary_patterns_are_fine() {
    for text in [
        r#"{"source":["aws.s3"],"detail":{"object":{"key":[{"prefix":"raw/"}]}}}"#,
        r#"{"a":[{"anything-but":["x","y"]}],"b":[{"exists":false}]}"#,
        r#"{"$or":[{"a":[1]},{"b":[2]}],"c":[{"numeric":[">",0,"<=",5]}]}"#,
    ] {
        assert_eq!(kinds(text), [], "{text}");
    }
}

#[test]
fn dead_patterns() {
    for text in [
        r#"{"source":[{"exists":false}]}"#,
        r#"{"source":[5,null]}"#,
        r#"{"detail":["x"]}"#,
        r#"{"a":[{"numeric":[">",1,"<",1.0000000000000002]}]}"#,
        r#"{"$or":[{"source":[1]},{"id":[{"exists":false}]}]}"#,
    ] {
        assert!(kinds(text).contains(&FindingKind::NeverMatches), "{text}");
    }
}

#[test]
fn patterns_without_effect() {
    for text in [
        r#"{"source":[{"prefix":""}]}"#,
        r#"{"a":[{"exists":true},{"exists":false}]}"#,
        r#"{"id":[{"wildcard":"*"}],"time":[{"exists":true}]}"#,
    ] {
        assert!(
            kinds(text).contains(&FindingKind::MatchesEverything),
            "{text}"
        );
    }
    let or_instead_of_and = r#"{"a":[{"anything-but":"x"},{"anything-but":"y"}]}"#;
    assert_eq!(kinds(or_instead_of_and), [FindingKind::MatchesAnyValue]);
}

#[test]
fn redundancy() {
    assert_eq!(kinds(r#"{"a":["x","x"]}"#), [FindingKind::RedundantClause]);
    let overridden = r#"{"$or":[{"a":[1]},{"a":[2]}],"a":[3]}"#;
    assert_eq!(kinds(overridden), [FindingKind::RedundantBranch]);
    assert_eq!(
        kinds(r#"{"a":["x"],"a.b":["y"]}"#),
        [FindingKind::ValueAndObject]
    );
}

#[test]
fn equal_patterns_have_one_form() {
    let one = parse(r#"{"a":{"b":[1,"x"]},"c":[{"anything-but":["p","q"]}]}"#);
    let other = parse(r#"{"c":[{"anything-but":["q","p","q"]}],"a.b":["x",1.0]}"#);
    assert_eq!(canonical(&one), canonical(&other));
    assert_ne!(canonical(&one), canonical(&parse(r#"{"a":{"b":[1,"x"]}}"#)));
}

#[test]
fn slips_of_case() {
    let pattern = parse(r#"{"detail":{"bucketname":["b"],"objekt-key":["k"],"new":["n"]}}"#);
    let found = case_slips(
        &pattern,
        &["detail.bucketName", "detail.object-key", "detail.size"],
    );
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|slip| (slip.path.as_str(), slip.message.as_str()))
        .collect();
    assert_eq!(found.len(), 2);
    assert!(found[0].1.ends_with("did you mean `detail.bucketName`?"));
    assert!(found[1].1.ends_with("did you mean `detail.object-key`?"));
}
