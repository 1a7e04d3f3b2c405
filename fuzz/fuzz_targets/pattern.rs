//! Any text as a pattern: no panic, no hang; what is accepted works.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_fuzz::rules::{self, Pattern};

fuzz_target!(|text: &str| match Pattern::parse(text) {
    Ok(pattern) => {
        let _ = rules::canonical(&pattern);
        let _ = rules::lint(&pattern);
        pointsman_fuzz::check(text, &pattern, br#"{"a":{"b":[1,"x"]},"c":"10.0.0.1"}"#);
    }
    Err(error) => assert!(
        error.offset <= error.end && error.end <= text.len(),
        "{error:?}"
    ),
});
