//! The past, given again: replays and rules that begin before they were written.

use super::{ledger, send, send_numbered, shop};
use crate::support::{Project, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What the handler `name` has had: `n` and the replay, in order.
fn had(project: &Project, name: &str) -> Vec<(u64, Option<String>)> {
    let file = project.path(&format!("{name}.ndjson"));
    let lines = fs::read_to_string(file).unwrap_or_default();
    let read = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("an event a line");
        let replay = event["replay-name"].as_str().map(str::to_owned);
        (event["detail"]["n"].as_u64().expect("a number"), replay)
    };
    lines.lines().map(read).collect()
}

fn numbers(had: &[(u64, Option<String>)]) -> Vec<u64> {
    let mut numbers: Vec<u64> = had.iter().map(|(n, _)| *n).collect();
    numbers.sort_unstable();
    numbers
}

fn replays(project: &Project) -> BTreeMap<String, Value> {
    let all = project.json_lines(&["replay", "list", "--json"]);
    let named = |r: Value| (r["name"].as_str().expect("a name").to_owned(), r);
    all.into_iter().map(named).collect()
}

#[test]
fn a_replay_gives_a_range_once_more_marked_and_to_its_route_alone() {
    let project = shop(&["book", "other"], "");
    let node = project.start();
    send_numbered(&project, 0..10);
    project.wait_idle();
    let between = project.json_lines(&["events", "list", "--json"]);
    // Events of one call may share a millisecond, so the range is cut between calls.
    std::thread::sleep(Duration::from_millis(5));
    send_numbered(&project, 10..20);
    project.wait_idle();
    let all = project.json_lines(&["events", "list", "--json"]);
    let from = all[between.len()]["accepted_at"].as_str().expect("a time");

    let filter = r#"{"detail":{"n":[{"numeric":["<",15]}]}}"#;
    let again = [
        "replay",
        "--route",
        "book/book",
        "--from",
        from,
        "--filter",
        filter,
        "--name",
        "monday",
        "--json",
    ];
    let replay = project.json(&again);
    assert_eq!(
        (&replay["stage"], &replay["given"], &replay["percent"]),
        (&json!("done"), &json!(5), &json!(100)),
        "{replay}"
    );
    project.wait_idle();
    let (book, other) = (had(&project, "book"), had(&project, "other"));
    let marked: Vec<u64> = numbers(
        &book
            .iter()
            .filter(|(_, replay)| replay.as_deref() == Some("monday"))
            .cloned()
            .collect::<Vec<_>>(),
    );
    assert_eq!(marked, [10, 11, 12, 13, 14]);
    assert_eq!(
        (book.len(), other.len()),
        (25, 20),
        "nobody else gets anything"
    );

    let taken = project.run(&again);
    assert!(
        text(&taken.stderr).contains("`monday` already"),
        "{}",
        text(&taken.stderr)
    );
    let trace = project.ok(&["trace", all[between.len()]["id"].as_str().expect("an id")]);
    assert!(trace.contains("replayed by monday"), "{trace}");
    assert_eq!(ledger(&project, "book/book")["replayed"], 5);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_replay_is_refused_with_the_reason() {
    let project = shop(&["book"], "");
    let node = project.start();
    send_numbered(&project, 0..1);
    let said = |args: &[&str]| {
        let refused = project.run(&[&["replay"], args].concat());
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        text(&refused.stderr)
    };
    let route = ["--route", "book/book"];
    assert!(said(&["--route", "book/boo", "--from", "1d"]).contains("did you mean `book/book`?"));
    assert!(said(&[&route[..], &["--from", "yesterday"]].concat()).contains("is not a time"));
    assert!(
        said(&[&route[..], &["--from", "1h", "--to", "2h"]].concat()).contains("before it begins")
    );
    assert!(
        said(&[&route[..], &["--from", "1h", "--filter", "{\"a\":1}"]].concat()).contains("filter")
    );
    assert!(said(&[&route[..], &["--from", "1h", "--name", "a/b"]].concat()).contains("letters"));
    assert!(said(&["cancel", "nothing"]).contains("no replay is named"));
    assert_eq!(node.stop(), 0);
}

#[test]
fn fresh_messages_go_before_replayed_ones() {
    let project = shop(&["book"], "concurrency: 1");
    let node = project.start();
    send_numbered(&project, 0..5);
    project.wait_idle();
    project.ok(&["queues", "pause", "book/book"]);
    project.ok(&["replay", "--route", "book/book", "--from", "earliest"]);
    send_numbered(&project, 100..103);
    project.ok(&["queues", "resume", "book/book"]);
    project.wait_idle();
    let order: Vec<u64> = had(&project, "book").iter().map(|(n, _)| *n).collect();
    assert_eq!(order[5..], [100, 101, 102, 0, 1, 2, 3, 4]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_replay_that_is_killed_again_and_again_gives_each_event_once() {
    const EVENTS: u64 = 30_000;
    let project = shop(&["book"], "concurrency: 1\nbatch: { size: 1000 }");
    let node = project.start();
    project.ok(&["queues", "pause", "book/book"]);
    for from in (0..EVENTS).step_by(5_000) {
        send_numbered(&project, from..from + 5_000);
    }
    // The first round is not what this is about: its messages are put elsewhere.
    project.write("rules/shop.yaml", rules_without_the_queue());
    project.ok(&["reload", "--backlog", "book/book=drop"]);
    project.write(
        "rules/shop.yaml",
        super::rules(&["book"], "concurrency: 1\nbatch: { size: 1000 }"),
    );
    project.ok(&["reload"]);
    project.ok(&["queues", "pause", "book/book"]);
    project.ok(&[
        "replay",
        "--route",
        "book/book",
        "--from",
        "earliest",
        "--name",
        "all",
        "--detach",
    ]);
    node.kill();

    let mut interrupted = 0;
    for life in 1_u64.. {
        let replay = replays(&project).remove("all").expect("it is kept");
        if replay["stage"] == "done" {
            break;
        }
        interrupted += 1;
        let node = project.start_unchecked(&[]);
        std::thread::sleep(Duration::from_millis(60 * life));
        node.kill();
        assert!(life < 100, "it does not get on: {replay}");
    }
    assert!(interrupted > 0, "it was done before the first kill");
    assert_eq!(ledger(&project, "book/book")["replayed"], EVENTS);
    project.ok(&["queues", "resume", "book/book"]);
    project.ok(&["run", "--until-idle", "1"]);
    let all: Vec<u64> = (0..EVENTS).collect();
    assert_eq!(numbers(&had(&project, "book")), all);
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
}

fn rules_without_the_queue() -> &'static str {
    "rules: { quiet: { pattern: { source: [nobody] }, targets: [ { topic: quiet } ] } }\ntopics: { quiet: {} }\n"
}

#[test]
fn a_cancelled_replay_takes_back_what_still_waits() {
    let project = shop(&["book"], "");
    let node = project.start();
    send_numbered(&project, 0..50);
    project.wait_idle();
    project.ok(&["queues", "pause", "book/book"]);
    project.ok(&[
        "replay",
        "--route",
        "book/book",
        "--from",
        "1h",
        "--name",
        "oops",
    ]);
    let waits = &replays(&project)["oops"];
    assert_eq!(
        (&waits["waiting"], &waits["stage"]),
        (&json!(50), &json!("done"))
    );
    let said = project.ok(&["replay", "cancel", "oops"]);
    assert!(said.contains("50 of them withdrawn"), "{said}");
    let again = project.run(&["replay", "cancel", "oops"]);
    assert!(
        text(&again.stderr).contains("has ended"),
        "{}",
        text(&again.stderr)
    );
    project.ok(&["queues", "resume", "book/book"]);
    project.wait_idle();
    assert_eq!(had(&project, "book").len(), 50, "nothing came twice");
    let book = ledger(&project, "book/book");
    assert_eq!(
        (&book["replayed"], &book["purged"]),
        (&json!(50), &json!(50))
    );
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_replay_can_be_asked_for_while_nothing_runs() {
    let project = shop(&["book"], "");
    let node = project.start();
    send_numbered(&project, 0..7);
    project.wait_idle();
    assert_eq!(node.stop(), 0);
    let said = project.ok(&["replay", "--route", "book/book", "--from", "1h"]);
    assert!(said.contains("7 of 7 events read were given"), "{said}");
    project.ok(&["run", "--until-idle", "0.5"]);
    assert_eq!(had(&project, "book").len(), 14);
}

#[test]
fn a_new_rule_gets_the_past_once_through_restarts_and_reloads() {
    let project = shop(&["book"], "");
    let node = project.start();
    send_numbered(&project, 0..20);
    send(
        &project,
        r#"{"source":"elsewhere","detail-type":"Order","detail":{"n":1000}}"#,
    );
    project.write("rules/late.yaml", late("earliest"));
    project.ok(&["reload"]);
    send_numbered(&project, 20..30);
    let name = "start:late/late";
    project.wait("the past", || {
        replays(&project)
            .get(name)
            .is_some_and(|r| r["stage"] == "done")
    });
    project.wait_idle();
    let all: Vec<u64> = (0..30).collect();
    let seen = had(&project, "late");
    assert_eq!(numbers(&seen), all);
    assert!(
        seen.iter().all(|(_, replay)| replay.is_none()),
        "it is no replay"
    );

    project.write("rules/late.yaml", late("2013-01-01"));
    project.ok(&["reload"]);
    assert_eq!(node.stop(), 0);
    let node = project.start();
    send_numbered(&project, 30..31);
    project.wait_idle();
    assert_eq!(had(&project, "late").len(), 31, "once is once");

    // A rule that was away gets what it missed, and nothing else.
    fs::remove_file(project.path("rules/late.yaml")).expect("it is there");
    project.ok(&["reload"]);
    send_numbered(&project, 31..35);
    project.write("rules/late.yaml", late("earliest"));
    project.ok(&["reload"]);
    project.wait("what it missed", || had(&project, "late").len() >= 35);
    project.wait_idle();
    assert_eq!(numbers(&had(&project, "late")), (0..35).collect::<Vec<_>>());
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_rule_that_is_added_under_load_misses_nothing_and_gets_nothing_twice() {
    let project = shop(&["book"], "");
    let node = project.start();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for part in 0..20 {
                send_numbered(&project, part * 50..(part + 1) * 50);
            }
        });
        project.wait("some of them", || had(&project, "book").len() > 100);
        project.write("rules/late.yaml", late("earliest"));
        project.ok(&["reload"]);
        sender.join().expect("it sends");
    });
    project.wait("the past", || {
        replays(&project)
            .get("start:late/late")
            .is_some_and(|r| r["stage"] == "done")
    });
    project.wait_idle();
    assert_eq!(
        numbers(&had(&project, "late")),
        (0..1000).collect::<Vec<_>>()
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_rule_without_start_begins_now() {
    let project = shop(&["book"], "");
    let node = project.start();
    send_numbered(&project, 0..5);
    project.write("rules/late.yaml", late("now"));
    project.ok(&["reload"]);
    send_numbered(&project, 5..6);
    project.wait_idle();
    assert_eq!(numbers(&had(&project, "late")), [5]);
    assert_eq!(node.stop(), 0);
}

fn late(start: &str) -> String {
    format!(
        "
rules:
  late: {{ start: \"{start}\", pattern: {{ source: [shop] }}, targets: [ {{ handler: late }} ] }}
handlers:
  late: {{ batch: {{ size: 100 }}, exec: {{ command: [sh, -c, cat >> late.ndjson] }} }}
"
    )
}
