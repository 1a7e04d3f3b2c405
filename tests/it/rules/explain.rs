//! Explanations, as they are read.

use pointsman::rules::{Explanation, Pattern, explain};

fn why(pattern: &str, event: &str) -> Explanation {
    let pattern = Pattern::parse(pattern).expect("a valid pattern");
    explain(&pattern, event.as_bytes()).expect("a valid event")
}

#[test]
fn the_first_failed_field_is_named() {
    let why = why(
        r#"{"source":["aws.s3"],"detail":{"size":[{"numeric":[">",5]}],"key":[{"prefix":"raw/"},"x"]}}"#,
        r#"{"source":"aws.s3","detail":{"size":3,"tags":["a"]}}"#,
    );
    assert!(!why.matched);
    assert_eq!(why.distance(), 2);
    let failed = why.first_failed().expect("a failed field");
    assert_eq!((failed.path.as_str(), failed.seen.len()), ("detail.key", 0));
    let expected = "no match: 2 of 3 fields failed
  FAIL  detail.key   wanted {\"prefix\":\"raw/\"} or \"x\"  field is missing
  FAIL  detail.size  wanted {\"numeric\":[\">\",5]}  saw 3
  ok    source       wanted \"aws.s3\"  saw \"aws.s3\"";
    assert_eq!(why.to_string(), expected);
}

#[test]
fn arrays_that_disagree_are_told() {
    let why = why(
        r#"{"a":{"b":[1],"c":[2]}}"#,
        r#"{"a":[{"b":1,"c":3},{"c":2}]}"#,
    );
    assert!(why.branches[0].arrays_disagree);
    assert_eq!(why.distance(), 1);
    assert!(why.to_string().contains("different elements of one array"));
}

#[test]
fn the_closest_branch_comes_first() {
    let why = why(
        r#"{"x":[1],"$or":[{"a":[1],"b":[1]},{"c":[1]}]}"#,
        r#"{"x":1,"c":[2,3,4,5,6,7],"a":9}"#,
    );
    assert_eq!(
        why.branches
            .iter()
            .map(|branch| branch.distance)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let text = why.to_string();
    assert!(
        text.contains("(the closest of 2 $or combinations)"),
        "{text}"
    );
    assert!(text.contains("saw 2, 3, 4, 5, 6 and 1 more"), "{text}");
}

#[test]
fn a_match_has_no_distance() {
    let why = why(
        r#"{"a":[{"exists":false}],"b":["x"]}"#,
        r#"{"b":["y","x"]}"#,
    );
    assert!(why.matched);
    assert_eq!((why.distance(), why.first_failed()), (0, None));
    let json = serde_json::to_value(&why).expect("plain data");
    assert_eq!(
        json["branches"][0]["fields"][1]["clauses"][0]["wanted"],
        "\"x\""
    );
}
