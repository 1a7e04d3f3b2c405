//! A random valid pattern against a random valid event, both made from the
//! fuzzer's bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_fuzz::generate::Gen;
use pointsman_fuzz::rules::Pattern;

fuzz_target!(|bytes: &[u8]| {
    let mut random = Gen::new(bytes);
    let (text, event) = (random.pattern(), random.event());
    match Pattern::parse_unlimited(&text) {
        Ok(pattern) => pointsman_fuzz::check(&text, &pattern, event.as_bytes()),
        Err(error) => panic!("{error:?}: {text}"),
    }
});
