//! Dead letters: edited, redriven, purged, and expired only by policy.

use super::{ledger, metrics, send, shop};
use crate::support::{Project, text};
use serde_json::Value;
use std::fs;

/// Orders are booked when they are `ok`; others are given up at once.
fn strict() -> Project {
    let project = shop(&["other"], "");
    project.write(
        "rules/strict.yaml",
        r#"
rules:
  book: { pattern: { source: [shop] }, targets: [ { handler: book } ] }
handlers:
  book:
    retry: { attempts: 1 }
    exec: { command: [sh, book.sh] }
"#,
    );
    project.write(
        "book.sh",
        "line=$(cat); case \"$line\" in *'\"ok\":true'*) echo \"$line\" >> book.ndjson;; *) exit 1;; esac\n",
    );
    project
}

fn order(n: u64, ok: bool) -> String {
    format!(
        "{{\"source\":\"shop\",\"detail-type\":\"Order\",\"detail\":{{\"n\":{n},\"ok\":{ok}}}}}\n"
    )
}

fn letters(project: &Project) -> Vec<Value> {
    project.json_lines(&["dlq", "list", "--json"])
}

fn booked(project: &Project) -> Vec<Value> {
    let lines = fs::read_to_string(project.path("book.ndjson")).unwrap_or_default();
    let read = |line: &str| serde_json::from_str(line).expect("an event");
    lines.lines().map(read).collect()
}

#[test]
fn an_edited_letter_is_sent_again_and_the_first_event_stays_as_it_came() {
    let project = strict();
    let node = project.start();
    send(&project, &order(1, false));
    project.wait("a dead letter", || letters(&project).len() == 1);
    let first = letters(&project).remove(0);
    let seq = first["seq"].to_string();

    let wrong = project.run(&["dlq", "edit", &seq, "--detail", "[1]"]);
    assert!(
        text(&wrong.stderr).contains("must be a JSON object"),
        "{}",
        text(&wrong.stderr)
    );
    assert_eq!(letters(&project).len(), 1, "nothing was changed");

    let detail = r#"{"n":1.50,"ok":true}"#;
    let said = project.ok(&["dlq", "edit", &seq, "--detail", detail]);
    assert!(said.contains("was sent again as event"), "{said}");
    project.wait("the order", || booked(&project).len() == 1);
    let again = &booked(&project)[0];
    assert_eq!(again["time"], first["event"]["time"]);
    assert_ne!(again["id"], first["event"]["id"]);
    let lines = fs::read_to_string(project.path("book.ndjson")).expect("the order");
    assert!(
        lines.contains(detail),
        "numbers keep their spelling: {lines}"
    );

    assert!(letters(&project).is_empty());
    let kept = project.json(&["events", "show", &seq]);
    assert_eq!(kept["event"]["detail"]["ok"], false);
    let trace = project.ok(&["trace", &seq]);
    assert!(
        trace.contains("purged: edited, and sent again as event") && trace.contains("└─"),
        "{trace}"
    );
    let route = ledger(&project, "book/book");
    assert_eq!(
        (&route["purged"], &route["delivered"]),
        (&1.into(), &1.into())
    );
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    let gone = project.run(&["dlq", "edit", &seq, "--detail", detail]);
    assert_eq!(gone.status.code(), Some(2), "it is no dead letter any more");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_letter_can_be_edited_by_hand_while_nothing_runs() {
    let project = strict();
    let node = project.start();
    send(&project, &order(1, false));
    project.wait("a dead letter", || letters(&project).len() == 1);
    assert_eq!(node.stop(), 0);
    let seq = letters(&project)[0]["seq"].to_string();
    let by = |editor: &str| {
        let mut command = project.command(&["dlq", "edit", &seq]);
        command.env_remove("VISUAL").env("EDITOR", editor);
        command.output().expect("it runs")
    };
    assert_eq!(by("true").status.code(), Some(1), "nothing was changed");
    assert_eq!(by("false").status.code(), Some(2), "the editor failed");
    let edited = by("sed -i s/false/true/");
    assert!(edited.status.success(), "{}", text(&edited.stderr));
    project.ok(&["run", "--until-idle", "0.5"]);
    assert_eq!(booked(&project).len(), 1);
    assert!(letters(&project).is_empty());
}

#[test]
fn an_event_that_broke_its_schema_is_edited_and_then_goes_where_the_rules_say() {
    let project = strict();
    project.write(
        "schemas/order.json",
        r#"{ "x-pointsman": { "source": "shop", "detail-type": "Order", "policy": "dead-letter" }, "required": ["total"] }"#,
    );
    let node = project.start();
    send(&project, &order(1, true));
    project.wait("a dead letter", || letters(&project).len() == 1);
    let seq = letters(&project)[0]["seq"].to_string();
    let still = project.run(&["dlq", "edit", &seq, "--detail", r#"{"ok":true}"#]);
    assert!(
        text(&still.stderr).contains("\"total\" is a required"),
        "{}",
        text(&still.stderr)
    );
    project.ok(&[
        "dlq",
        "edit",
        &seq,
        "--detail",
        r#"{"n":1,"ok":true,"total":5}"#,
    ]);
    project.wait("the order", || booked(&project).len() == 1);
    assert!(letters(&project).is_empty());
    assert_eq!(node.stop(), 0);
}

#[test]
fn letters_are_redriven_by_filter_at_a_rate_and_elsewhere() {
    let project = strict();
    let node = project.start();
    let orders: String = (0..6).map(|n| order(n, false)).collect();
    send(&project, &orders);
    project.wait("dead letters", || letters(&project).len() == 6);
    let small = r#"{"detail":{"n":[{"numeric":["<",4]}]}}"#;
    let elsewhere = [
        "dlq",
        "redrive",
        "--filter",
        small,
        "--rate",
        "6000/m",
        "--to",
        "other/other",
    ];
    assert_eq!(project.ok(&elsewhere).trim(), "redriven: 4");
    project.wait_idle();
    assert_eq!(letters(&project).len(), 2);
    let (book, other) = (
        ledger(&project, "book/book"),
        ledger(&project, "other/other"),
    );
    assert_eq!(
        (&book["moved_out"], &other["moved_in"]),
        (&4.into(), &4.into())
    );

    // To its own route they fail again, and are letters again.
    assert_eq!(
        project
            .ok(&["dlq", "redrive", "--all", "--to", "SAME"])
            .trim(),
        "redriven: 2"
    );
    project.wait("them to be back", || {
        ledger(&project, "book/book")["dead_lettered"] == 8
    });
    let wrong = project.run(&["dlq", "redrive", "--all", "--rate", "fast"]);
    assert!(
        text(&wrong.stderr).contains("is not a rate"),
        "{}",
        text(&wrong.stderr)
    );
    let why = project.run(&["dlq", "purge", "--all"]);
    assert_eq!(why.status.code(), Some(2), "a purge needs a reason");
    assert_eq!(
        project
            .ok(&["dlq", "purge", "--all", "--why", "a test"])
            .trim(),
        "purged: 2"
    );
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    assert_eq!(node.stop(), 0);
}

#[test]
fn letters_expire_by_the_stated_policy_after_a_warning() {
    let project = strict();
    project.write(
        "pointsman.yaml",
        "node: { listen: 127.0.0.1:0, dead_letter_retention: 10s }\n",
    );
    let node = project.start();
    send(&project, &order(1, false));
    project.wait("a dead letter", || letters(&project).len() == 1);
    let gauge = "pointsman_dead_letters_expiring{route=\"book/book\"} 1";
    project.wait("the metric", || metrics(&node).contains(gauge));
    project.wait("the warning", || {
        node.log().contains("dead letters expire soon")
    });
    let expired = "pointsman_deliveries_total{route=\"book/book\",what=\"expired\"} 1";
    project.wait("the end", || metrics(&node).contains(expired));
    assert!(letters(&project).is_empty());
    let trace = project.ok(&["trace", "1"]);
    assert!(
        trace.contains("expired by dead letters are kept for 10 s"),
        "{trace}"
    );
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    assert_eq!(node.stop(), 0);
}
