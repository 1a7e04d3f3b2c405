//! The end of a node, in good order and at once; and what damage does to it.

use super::{ledger, send, send_numbered, shop};
use crate::support::{Project, Running, text};
use serde_json::Value;
use std::fs;

/// A shop whose handler waits for the file `go`, with this time to stop.
fn waiting(shutdown: &str) -> (Project, Running) {
    let project = Project::new();
    project.write(
        "pointsman.yaml",
        format!("node: {{ listen: 127.0.0.1:0, shutdown: {shutdown} }}\n"),
    );
    project.write(
        "rules/shop.yaml",
        "
rules:
  book: { pattern: { source: [shop] }, targets: [ { handler: book } ] }
handlers:
  book:
    retry: { attempts: 1, lost: 1 }
    exec: { command: [sh, book.sh] }
",
    );
    project.write(
        "book.sh",
        "echo begun >> begun; while ! test -e go; do sleep 0.02; done; cat >> book.ndjson\n",
    );
    let node = project.start();
    send(
        &project,
        r#"{"source":"shop","detail-type":"Order","detail":{"n":1}}"#,
    );
    project.wait("the handler", || project.path("begun").exists());
    (project, node)
}

fn terminate(node: &Running) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(node.pid()).expect("a pid"));
    let signal = rustix::process::Signal::TERM;
    rustix::process::kill_process(pid.expect("a process"), signal).expect("a signal");
}

fn booked(project: &Project) -> usize {
    let lines = fs::read_to_string(project.path("book.ndjson")).unwrap_or_default();
    lines.lines().count()
}

#[test]
fn a_signal_lets_running_work_finish() {
    let (project, node) = waiting("1h");
    terminate(&node);
    project.wait("the signal to be heard", || node.log().contains("stopping"));
    project.write("go", "");
    assert_eq!(node.wait(), 0);
    assert_eq!(booked(&project), 1);
    assert_eq!(ledger(&project, "book/book")["delivered"], 1);
}

#[test]
fn what_does_not_finish_in_time_is_handed_back_uncounted() {
    let (project, node) = waiting("500ms");
    terminate(&node);
    assert_eq!(node.wait(), 0);
    let route = ledger(&project, "book/book");
    assert_eq!(
        (
            &route["ready"],
            &route["leased"],
            &route["retried"],
            &route["dead"]
        ),
        (&1.into(), &0.into(), &0.into(), &0.into()),
        "{route}"
    );
    // With one attempt allowed, a counted one would have been the last.
    project.write("go", "");
    project.ok(&["run", "--until-idle", "0.5"]);
    assert_eq!(booked(&project), 1);
}

#[test]
fn a_second_signal_stops_at_once_and_loses_nothing() {
    let (project, node) = waiting("1h");
    terminate(&node);
    project.wait("the first signal to be heard", || {
        node.log().contains("stopping")
    });
    terminate(&node);
    assert_eq!(node.wait(), 0);
    project.write("book.sh", "cat >> book.ndjson\n");
    fs::write(
        project.path("rules/shop.yaml"),
        fs::read_to_string(project.path("rules/shop.yaml"))
            .expect("the rules")
            .replace("lost: 1", "lost: 2"),
    )
    .expect("the rules");
    project.ok(&["run", "--until-idle", "0.5"]);
    assert_eq!(booked(&project), 1);
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
}

/// A stopped project whose log holds 100 orders that nobody has had, and one
/// flipped bit in the middle.
fn flipped() -> Project {
    let project = shop(&["book"], "concurrency: 1");
    let node = project.start();
    project.ok(&["queues", "pause", "book/book"]);
    for part in 0..10 {
        send_numbered(&project, part * 10..(part + 1) * 10);
    }
    assert_eq!(node.stop(), 0);
    let found = fs::read_dir(project.path("data/bus")).expect("the log");
    let mut segments: Vec<_> = found
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    for path in segments {
        let mut bytes = fs::read(&path).expect("a segment");
        let at = bytes.windows(7).position(|w| w == b"\"n\":55}");
        if let Some(at) = at {
            bytes[at] ^= 1;
            fs::write(path, bytes).expect("a segment");
            return project;
        }
    }
    panic!("the order is not found in the log");
}

#[test]
fn a_flipped_bit_is_reported_and_all_else_is_served() {
    let project = flipped();
    let node = project.start();
    project.ok(&["queues", "resume", "book/book"]);
    project.wait_idle();
    let lines = fs::read_to_string(project.path("book.ndjson")).expect("orders");
    let number = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("an event");
        event["detail"]["n"].as_u64().expect("n")
    };
    let had: Vec<u64> = lines.lines().map(number).collect();
    // One call is one record, so its ten orders stand and fall together.
    let sound: Vec<u64> = (0..50).chain(60..100).collect();
    assert_eq!(had, sound);
    let audit = project.run(&["audit", "--json"]);
    let books: Value = serde_json::from_slice(&audit.stdout).expect("JSON");
    let missing = books["ledger"]["lost"].as_u64().expect("a count")
        + ledger_of(&books, "dead").as_u64().expect("a count");
    assert_eq!(missing, 10, "{books}");
    assert!(
        !books["damage"].as_array().expect("a list").is_empty(),
        "{books}"
    );
    assert!(node.log().contains("damage"), "{}", node.log());
    send_numbered(&project, 200..201);
    project.wait_idle();
    assert_eq!(booked(&project), 91, "new orders go on");
    assert_eq!(node.stop(), 0);
}

fn ledger_of(books: &Value, what: &str) -> Value {
    let routes = books["ledger"]["routes"].as_array().expect("routes");
    let book = routes.iter().find(|route| route["name"] == "book/book");
    book.expect("the route")[what].clone()
}

#[test]
fn the_doctor_finds_the_bit_and_repairs_nothing_silently() {
    let project = flipped();
    let before = fs::read_dir(project.path("data/bus"))
        .expect("the log")
        .count();
    let sick = project.run(&["doctor"]);
    let said = text(&sick.stdout);
    assert_eq!(sick.status.code(), Some(1), "{said}{}", text(&sick.stderr));
    assert!(
        said.contains("LOST: segment 1 bytes") && said.contains("DAMAGED"),
        "{said}"
    );
    assert_eq!(
        fs::read_dir(project.path("data/bus"))
            .expect("the log")
            .count(),
        before
    );
    let report = project.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["sound"], false);
    assert_eq!(report["log"]["segments"][0]["events"], 90, "{report}");
    assert_eq!(report["log"]["repaired"].as_array().map(Vec::len), Some(0));

    let repaired = project.run(&["doctor", "--repair"]);
    let said = text(&repaired.stdout);
    assert!(
        said.contains("repaired: segment 1: 1 holes written down as known"),
        "{said}"
    );
    let now = project.run(&["doctor"]);
    let said = text(&now.stdout);
    assert_eq!(now.status.code(), Some(0), "{said}");
    assert!(said.contains("known and accounted for"), "{said}");
}

#[test]
fn the_doctor_tells_sound_data_from_a_torn_tail_from_a_broken_side_state() {
    let project = shop(&["book"], "");
    let node = project.start();
    send_numbered(&project, 0..10);
    let busy = project.run(&["doctor"]);
    assert_eq!(busy.status.code(), Some(2), "a node runs");
    assert!(
        text(&busy.stderr).contains("a node runs here"),
        "{}",
        text(&busy.stderr)
    );
    assert_eq!(node.stop(), 0);
    let said = project.ok(&["doctor"]);
    assert!(
        said.contains("sound:") && said.contains("every checksum holds"),
        "{said}"
    );
    let other = project.ok(&["doctor", "--data", &project.path("data").to_string_lossy()]);
    assert_eq!(said, other);

    let found = fs::read_dir(project.path("data/bus")).expect("the log");
    let mut segments: Vec<_> = found
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    let last = segments.last().expect("a segment");
    let mut bytes = fs::read(last).expect("a segment");
    bytes.extend_from_slice(&[7; 100]);
    fs::write(last, bytes).expect("a segment");
    let said = project.ok(&["doctor"]);
    assert!(
        said.contains("of an unfinished write") && said.contains("--repair"),
        "{said}"
    );
    let said = project.ok(&["doctor", "--repair"]);
    assert!(
        said.contains("repaired: ") && said.contains("cut off"),
        "{said}"
    );
    assert!(
        !project.ok(&["doctor"]).contains("unfinished"),
        "it is gone"
    );

    project.write("data/state.sqlite", vec![7_u8; 8192]);
    let sick = project.run(&["doctor"]);
    assert_eq!(sick.status.code(), Some(1));
    assert!(
        text(&sick.stdout).contains("side state: "),
        "{}",
        text(&sick.stdout)
    );
    let nowhere = project.run(&["doctor", "--data", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(2));
}
