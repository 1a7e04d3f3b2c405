//! Any bytes as an event, against a pattern of every operator.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pointsman_fuzz::rules::Pattern;

const PATTERN: &str = r#"{"a":[{"prefix":"x"},{"suffix":{"equals-ignore-case":"é"}},{"exists":false}],
"$or":[{"b":{"c":[{"numeric":[">",-1,"<=",300]},{"cidr":"10.0.0.0/8"}],"d":[{"anything-but":["x"]}]}},
{"b.c":[{"wildcard":"*a*b*"},null,true,"10.0.0.1"],"e":[{"exists":false}]},{"b":{"d":[300,"",{"exists":true}]}}]}"#;

fuzz_target!(|event: &[u8]| {
    static PARSED: OnceLock<Pattern> = OnceLock::new();
    let pattern = PARSED.get_or_init(|| Pattern::parse(PATTERN).expect("a valid pattern"));
    pointsman_fuzz::check(PATTERN, pattern, event);
});
