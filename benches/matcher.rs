//! Event-ruler's benchmark categories, scaling, wildcard stress and worst
//! cases, beside the crate `quamina` in the same run. Prints markdown.
//!
//! Timed is the whole call for an event: bytes in, matching ids out, on one
//! thread, in CPU time (so that a busy machine does not matter much). "full
//! scan" means that both engines look for a path that no event has, which
//! keeps quamina from stopping at the last path it wants; this engine reads
//! every event to its end always.
//!
//!     cargo bench --bench matcher [-- categories | scaling | stress | worst | changes]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pointsman::rules::{Matcher, Mode, Pattern, RuleId, Scratch, Snapshot};
use quamina::{Quamina, QuaminaBuilder};
use support::citylots;
use support::s3::{self, Keys};

/// The system's allocator, counting live bytes.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A path that no event has.
const NOWHERE: &str = r#"{"zz-nowhere":["x"]}"#;

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let sections: [(&str, fn()); 5] = [
        ("categories", categories),
        ("scaling", scaling),
        ("stress", stress),
        ("worst", worst),
        ("changes", changes),
    ];
    for (name, section) in sections {
        if chosen.is_empty() || chosen.iter().any(|one| one == name) {
            section();
        }
    }
}

/// CPU time of this thread; wall time where the system does not tell.
fn now() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let wall = START.get_or_init(Instant::now).elapsed();
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .map_or(wall, Duration::from_nanos)
}

/// An engine with its rules: the number of matches of an event.
type Runner<'r> = Box<dyn FnMut(&[u8]) -> usize + 'r>;

/// Events per second and matches per pass, for several runners over the same
/// events or some of them: in turn, so that whatever else the machine does
/// meets all of them, and the best of five rounds each, since it can only slow
/// them down. The clock may be as coarse as a few milliseconds, so a turn takes
/// a quarter of a second.
fn race(runners: Vec<(&[Vec<u8>], Runner<'_>)>) -> Vec<(f64, usize)> {
    let mut results = vec![(0.0_f64, 0); runners.len()];
    let mut runners = runners;
    for _ in 0..5 {
        for ((events, matches), (best, count)) in runners.iter_mut().zip(&mut results) {
            let (start, mut done) = (now(), 0);
            let mut spent = Duration::ZERO;
            while spent < Duration::from_millis(250) {
                *count = events.iter().map(|event| matches(event)).sum();
                done += events.len();
                spent = now() - start;
            }
            *best = best.max(done as f64 / spent.as_secs_f64());
        }
    }
    results
}

fn ours(rules: &[String]) -> Matcher {
    let matcher = Matcher::new();
    matcher.update(|set| {
        for (i, rule) in rules.iter().enumerate() {
            set.add(
                RuleId(i as u32),
                &Pattern::parse(rule).expect("a valid rule"),
            );
        }
    });
    matcher
}

fn run_ours(rules: &Snapshot, mode: Mode) -> Runner<'_> {
    let mut scratch = Scratch::new();
    Box::new(move |event| {
        rules
            .matches_in(mode, event, &mut scratch)
            .expect("a valid event")
            .len()
    })
}

/// The rules that quamina takes, and how many those are.
fn theirs(rules: &[String]) -> (Quamina<u32>, usize) {
    let builder = QuaminaBuilder::<u32>::new().with_arena_byte_budget(8 << 30);
    let mut quamina = builder.build().expect("quamina");
    let taken = rules
        .iter()
        .enumerate()
        .filter(|(i, rule)| quamina.add_pattern(*i as u32, rule).is_ok());
    let taken = taken.count();
    (quamina, taken)
}

fn run_theirs(quamina: &Quamina<u32>) -> Runner<'_> {
    Box::new(|event| {
        quamina
            .matches_for_event(event)
            .expect("a valid event")
            .len()
    })
}

fn rate(rate: f64) -> String {
    if rate >= 1e6 {
        format!("{:.2} M", rate / 1e6)
    } else {
        format!("{:.1} k", rate / 1e3)
    }
}

fn categories() {
    println!("\n## Categories (events/s; city lots, 30,000 events)\n");
    println!(
        "| category | rules | validating | ours | quamina | ours, full scan | quamina, full scan | ratio | matches |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let rules: BTreeMap<String, Vec<String>> =
        serde_json::from_str(include_str!("support/rules.json")).expect("rules.json");
    let count = std::env::var("EVENTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(30_000);
    let events = citylots::events(count);
    let only = std::env::var("ONLY").ok();
    for (name, rules) in rules {
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let mut with_nowhere = rules.clone();
        with_nowhere.push(NOWHERE.to_owned());
        let (few, all) = (ours(&rules).snapshot(), ours(&with_nowhere).snapshot());
        let (quamina, taken) = theirs(&rules);
        let quamina_all = theirs(&with_nowhere).0;
        let mut runners = vec![
            (&events[..], run_ours(&few, Mode::Validating)),
            (&events[..], run_ours(&few, Mode::Fast)),
            (&events[..], run_ours(&all, Mode::Fast)),
        ];
        if taken == rules.len() {
            runners.push((&events[..], run_theirs(&quamina)));
            runners.push((&events[..], run_theirs(&quamina_all)));
        }
        let results = race(runners);
        let [(strict, _), (fast, count), (full, _)] = [results[0], results[1], results[2]];
        let (q_fast, q_full, ratio, note) = match results[3..] {
            [(q_fast, q_count), (q_full, _)] => {
                let note = if q_count == count {
                    String::new()
                } else {
                    format!(" (quamina {q_count})")
                };
                let ratio = format!("{:.1}", full / q_full);
                (rate(q_fast), rate(q_full), ratio, note)
            }
            _ => {
                let refused = format!("refuses {}", rules.len() - taken);
                (refused, "-".to_owned(), "-".to_owned(), String::new())
            }
        };
        println!(
            "| {name} | {} | {} | {} | {q_fast} | {} | {q_full} | {ratio} | {count}{note} |",
            rules.len(),
            rate(strict),
            rate(fast),
            rate(full),
        );
    }
}

fn scaling() {
    println!("\n## Scaling (events/s; S3 events, one rule matches each)\n");
    println!(
        "| rules | keys | ours | quamina | ratio | build | memory | quamina build | memory | matches |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for count in [1, 10, 100, 1_000, 10_000, 100_000] {
        for (keys, name) in [(Keys::Prefix, "prefix"), (Keys::Wildcard, "wildcard")] {
            let rules: Vec<String> = (0..count).map(|i| s3::rule(i, keys)).collect();
            let events = s3::events(20_000, count, keys);
            row(count, name, &rules, &events, count <= 10_000);
        }
    }
}

fn stress() {
    println!("\n## Wildcard stress (rules with nothing but a wildcard to tell them apart)\n");
    println!(
        "| rules | keys | ours | quamina | ratio | build | memory | quamina build | memory | matches |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for count in [10, 100, 1_000, 10_000, 100_000] {
        let rules: Vec<String> = (0..count).map(s3::wildcard_rule).collect();
        let events = s3::events(20_000, count, Keys::Wildcard);
        row(count, "wildcard", &rules, &events, count <= 1_000);
    }
}

fn row(count: usize, name: &str, rules: &[String], events: &[Vec<u8>], compare: bool) {
    // Enough for the slowest, and never less than every rule once.
    let few = if name == "wildcard" && count >= 1_000 {
        2_000
    } else {
        20_000
    };
    let (live, start) = (LIVE.load(Ordering::Relaxed), now());
    let matcher = ours(rules);
    let (build, memory) = (now() - start, LIVE.load(Ordering::Relaxed) - live);
    let snapshot = matcher.snapshot();
    let mut theirs_columns = ["-", "-", "-", "-"].map(str::to_owned);
    let (fast, matches);
    if compare {
        let (live, start) = (LIVE.load(Ordering::Relaxed), now());
        let (quamina, taken) = theirs(rules);
        let (build, memory) = (now() - start, LIVE.load(Ordering::Relaxed) - live);
        let few = &events[..events.len().min(few)];
        let results = race(vec![
            (events, run_ours(&snapshot, Mode::Fast)),
            (few, run_theirs(&quamina)),
        ]);
        let (other, _) = results[1];
        (fast, matches) = results[0];
        let note = if taken < rules.len() {
            format!(" (takes {taken})")
        } else {
            String::new()
        };
        theirs_columns = [
            rate(other) + &note,
            format!("{:.1}", fast / other),
            format!("{:.3} s", build.as_secs_f64()),
            format!("{:.1} MB", memory as f64 / 1e6),
        ];
    } else {
        (fast, matches) = race(vec![(events, run_ours(&snapshot, Mode::Fast))])[0];
    }
    let [other, ratio, other_build, other_memory] = theirs_columns;
    println!(
        "| {count} | {name} | {} | {other} | {ratio} | {:.3} s | {:.1} MB | {other_build} | {other_memory} | {matches} |",
        rate(fast),
        build.as_secs_f64(),
        memory as f64 / 1e6,
    );
}

/// One event, several times; the shortest time for one.
fn once(matcher: &Matcher, event: &[u8]) -> (Duration, String) {
    let (rules, mut scratch) = (matcher.snapshot(), Scratch::new());
    let mut best = Duration::MAX;
    let mut outcome = String::new();
    for _ in 0..5 {
        let start = Instant::now();
        outcome = match rules.matches(event, &mut scratch) {
            Ok(found) => format!("{} match", found.len()),
            Err(error) => error.to_string(),
        };
        best = best.min(start.elapsed());
    }
    (best, outcome)
}

fn worst() {
    println!("\n## Worst cases (time for one event)\n\n| case | time | outcome |\n|---|---|---|");
    let show = |name: &str, matcher: &Matcher, event: &str| {
        let (time, outcome) = once(matcher, event.as_bytes());
        println!("| {name} | {time:.1?} | {outcome} |");
    };
    let rule = |text: &str| ours(&[text.to_owned()]);
    let long = format!(r#"{{"a":{{"b":"{}"}},"c":"x"}}"#, "y".repeat(1_000_000));
    show("1 MB event, field after it", &rule(r#"{"c":["x"]}"#), &long);
    show(
        "1 MB value, wildcard",
        &rule(r#"{"a":{"b":[{"wildcard":"*y*yy*z*"}]}}"#),
        &long,
    );
    let grams: Vec<String> = (0..10_000)
        .map(|i| format!(r#"{{"a":{{"b":[{{"wildcard":"*y{i}*z{i}*"}}]}}}}"#))
        .collect();
    show("1 MB value, 10,000 wildcards", &ours(&grams), &long);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(1_000), "}".repeat(1_000));
    let path = vec!["a"; 1_000].join(".");
    show(
        "nested 1,000 deep",
        &rule(&format!(r#"{{"{path}":[1]}}"#)),
        &deep,
    );
    let arrays = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    show("arrays nested 100,000 deep", &rule(r#"{"a":[1]}"#), &arrays);
    let two = r#"{"a":{"b":[1],"c":[1]}}"#;
    let items: Vec<String> = (0..100_000)
        .map(|i| format!(r#"{{"b":{},"c":{}}}"#, i % 2, 1 - i % 2))
        .collect();
    let items = format!(r#"{{"a":[{}]}}"#, items.join(","));
    show("array of 100,000, two fields, no match", &rule(two), &items);
    let absent = r#"{"a":{"b":[1],"c":[{"exists":false}]}}"#;
    show(
        "array of 100,000, one absent, no match",
        &rule(absent),
        &items,
    );
    let crossed: Vec<String> = (0..2_000)
        .map(|i| format!(r#"{{"x":{i},"y":{i}}}"#))
        .collect();
    let crossed = crossed.join(",");
    let crossed = format!(r#"{{"a":[{{"p":[{crossed}],"q":[{crossed}]}}]}}"#);
    let four =
        r#"{"a":{"p":{"x":[{"exists":true}]},"q":{"x":[{"exists":true}],"y":[{"exists":false}]}}}"#;
    show(
        "two arrays of 2,000 inside one, absence",
        &rule(four),
        &crossed,
    );
    let same: Vec<String> = (0..10_000)
        .map(|i| {
            format!(
                r#"{{"k":[{{"wildcard":"*aaaa*aaa{}*"}}]}}"#,
                "b".repeat(i % 7 + 1)
            )
        })
        .collect();
    let all_a = format!(r#"{{"k":"{}"}}"#, "a".repeat(1_000));
    show(
        "10,000 wildcards, all alike, 1,000 characters",
        &ours(&same),
        &all_a,
    );
    let but: Vec<String> = (0..10_000)
        .map(|i| format!(r#"{{"k":[{{"anything-but":"v{i}"}}]}}"#))
        .collect();
    show(
        "10,000 anything-but, all match",
        &ours(&but),
        r#"{"k":"v7"}"#,
    );
    let mut pattern = String::from(r#"{"a":[1]"#);
    for i in 0..9 {
        pattern += &format!(r#","$or":[{{"x{i}":[1]}},{{"y{i}":[1]}}]"#);
    }
    pattern += "}";
    let start = Instant::now();
    let parsed = Pattern::parse(&pattern).map(|pattern| pattern.branches().len());
    println!(
        "| parse: nine $or in a row | {:.1?} | {parsed:?} combinations |",
        start.elapsed()
    );
    let stars = format!(
        r#"{{"a":[{{"wildcard":"{}"}}]}}"#,
        "*a*b*c*ab*ba".repeat(40)
    );
    let start = Instant::now();
    let parsed = Pattern::parse(&stars)
        .map_err(|error| error.hint)
        .map(|_| ());
    println!(
        "| parse: a wildcard of 480 characters | {:.1?} | {parsed:?} |",
        start.elapsed()
    );
}

fn changes() {
    println!("\n## Changes at 100,000 rules (median of 500 single adds and removes)\n");
    println!("| keys | add | slowest | remove | slowest |\n|---|---|---|---|---|");
    for (keys, name) in [(Keys::Prefix, "prefix"), (Keys::Wildcard, "wildcard")] {
        let rules: Vec<String> = (0..100_000).map(|i| s3::rule(i, keys)).collect();
        let matcher = ours(&rules);
        let new: Vec<Pattern> = (100_000..100_500)
            .map(|i| Pattern::parse(&s3::rule(i, keys)).expect("a valid rule"))
            .collect();
        let timed = |change: &dyn Fn(RuleId, &Pattern)| {
            let mut times: Vec<Duration> = Vec::new();
            for (i, pattern) in new.iter().enumerate() {
                let reader = matcher.snapshot();
                let start = Instant::now();
                change(RuleId(100_000 + i as u32), pattern);
                times.push(start.elapsed());
                drop(reader);
            }
            times.sort();
            (times[times.len() / 2], times[times.len() - 1])
        };
        let (add, add_slowest) = timed(&|id, pattern| matcher.add(id, pattern));
        let (remove, remove_slowest) = timed(&|id, _| assert!(matcher.remove(id)));
        println!(
            "| {name} | {add:.1?} | {add_slowest:.1?} | {remove:.1?} | {remove_slowest:.1?} |"
        );
    }
}
