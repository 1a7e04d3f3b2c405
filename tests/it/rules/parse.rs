//! What a refused pattern says, and where.

use pointsman::rules::{Pattern, PatternError};

fn refused(text: &str) -> PatternError {
    Pattern::parse(text).expect_err("an invalid pattern")
}

#[test]
fn an_error_names_its_place() {
    let text = r#"{"detail": {"size": [1, {"numerik": [">", 0]}]}}"#;
    let error = refused(text);
    assert_eq!(error.to_string(), "Unrecognized match type numerik");
    assert_eq!(&text[error.offset..error.end], "\"numerik\"");
    assert_eq!(error.path, ["detail", "size"]);
    assert_eq!(
        (error.index, error.field.as_str()),
        (Some(1), "detail.size")
    );
    assert_eq!(error.hint.as_deref(), Some("did you mean `numeric`?"));
}

#[test]
fn a_branch_of_or_is_a_step_of_the_path() {
    let error = refused(r#"{"a": {"$or": [{"b": [1]}, {"c": {"d": 5}}]}}"#);
    assert_eq!(error.reason, "\"d\" must be an object or an array");
    assert_eq!(error.path, ["a", "$or", "1", "c", "d"]);
    assert_eq!((error.index, error.field.as_str()), (None, "a.c.d"));
    assert_eq!(
        error.hint.as_deref(),
        Some("put the value in an array: [5]")
    );
}

#[test]
fn hints_for_common_slips() {
    let hint = |name: &str| refused(&format!(r#"{{"a": [{{"{name}": "x"}}]}}"#)).hint;
    for (slip, operator) in [
        ("Prefix", "prefix"),
        ("equalsIgnoreCase", "equals-ignore-case"),
        ("anything_but", "anything-but"),
        ("contains", "wildcard"),
        ("ends-with", "suffix"),
        ("exist", "exists"),
    ] {
        assert_eq!(
            hint(slip),
            Some(format!("did you mean `{operator}`?")),
            "{slip}"
        );
    }
    assert_eq!(hint("frobnicate"), None);
}

#[test]
fn what_blows_up_is_refused() {
    let or = r#""$or":[{"a":[1]},{"b":[1]},{"c":[1]},{"d":[1]}]"#;
    let five = [or; 5].join(",");
    let error = refused(&format!("{{{five}}}"));
    assert_eq!(error.reason, "$or expands to more than 1000 combinations");
    let deep = format!("{}[1]{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    assert!(refused(&deep).reason.starts_with("Document nesting depth"));
    let fields: Vec<String> = (0..200).map(|i| format!(r#""f{i}":[1]"#)).collect();
    let branches: Vec<String> = (0..900).map(|i| format!(r#"{{"x":[{i}]}}"#)).collect();
    let error = refused(&format!(
        r#"{{{},"$or":[{}]}}"#,
        fields.join(","),
        branches.join(",")
    ));
    assert_eq!(error.reason, "Pattern has more than 100000 fields");
    let stars = format!(
        r#"{{"a":[{{"wildcard":"{}"}}]}}"#,
        "*a*b*ab*ba".repeat(1_000)
    );
    assert!(refused(&stars).reason.starts_with("Rule is too complex"));
}

#[test]
fn deep_patterns_fit_on_a_small_stack() {
    let deep = format!("{}[1]{}", r#"{"a":"#.repeat(400), "}".repeat(400));
    let parse = move || Pattern::parse(&deep).is_ok();
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(parse);
    assert!(thread.expect("a thread").join().expect("no overflow"));
}

#[test]
fn text_after_the_pattern_is_ignored() {
    assert!(Pattern::parse(r#"{"a":[1]} and more"#).is_ok());
    assert_eq!(refused("").reason, "Filter is not an object");
}
