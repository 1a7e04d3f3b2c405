//! What every source of messages does, whatever they come by.

use super::feed::{By, Feed, Message, envelope, post};
use crate::support::PATIENCE;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::time::Instant;

fn numbered(numbers: Range<usize>) -> Vec<Message> {
    numbers
        .map(|n| envelope(&format!("e-{n}"), &json!({ "n": n })))
        .collect()
}

/// Exactly these numbers, each once.
fn expect_numbered(events: &BTreeMap<String, (usize, Value)>, count: usize) {
    for n in 0..count {
        let found = events.get(&format!("e-{n}"));
        let (times, event) = found.unwrap_or_else(|| panic!("e-{n} is missing"));
        assert_eq!((*times, &event["detail"]["n"]), (1, &json!(n)));
    }
    assert_eq!(events.len(), count);
}

fn every_message_is_one_event_whatever_is_in_it(by: By) {
    let feed = Feed::new(by, "");
    let node = feed.project.start();
    let text = "Zürich 🚆 \u{1} \"quoted\" \u{ffff}";
    let mut messages: Vec<Message> = (0..120)
        .map(|n| envelope(&format!("e-{n}"), &json!({ "n": n, "text": text })))
        .collect();
    // Numbers keep their digits.
    let exact =
        br#"{"id":"exact","source":"suite","detail-type":"T","detail":{"n":12345678901234567890.10}}"#;
    messages.push(Message {
        id: "exact".to_owned(),
        body: exact.to_vec(),
    });
    let mut count = messages.len();
    if by != By::Http {
        for (id, body) in [
            ("json", br#"{"n": 1.20}"#.as_slice()),
            ("text", "Grüße".as_bytes()),
            ("binary", &[0, 159, 146, 150]),
        ] {
            count += 1;
            messages.push(Message {
                id: id.to_owned(),
                body: body.to_vec(),
            });
        }
    }
    feed.send(Some(&node), &messages);
    let events = feed.wait_for(&node, count);
    assert_eq!(events.len(), count);
    assert!(events.values().all(|(times, _)| *times == 1));
    for n in 0..120 {
        assert_eq!(events[&format!("e-{n}")].1["detail"]["text"], text);
    }
    feed.project.wait_idle();
    let lines = fs::read_to_string(feed.project.path("got.ndjson")).expect("what the handler got");
    assert!(lines.contains("12345678901234567890.10"));
    if by != By::Http {
        // Bodies that are no envelopes are wrapped, without loss.
        for body in [
            r#""body":{"n": 1.20}"#,
            r#""body":"Grüße""#,
            r#""body-base64":"AJ+Slg==""#,
        ] {
            assert!(lines.contains(body), "no {body}");
        }
        let counts = &feed.status()["counts"];
        assert_eq!(counts["accepted"], count);
        assert_eq!(counts["refused"], 0);
    }
    assert_eq!(node.stop(), 0);
}

fn an_event_that_comes_again_is_taken_once(by: By) {
    let feed = Feed::new(by, "");
    let node = feed.project.start();
    let twice: Vec<Message> = numbered(0..20).into_iter().chain(numbered(0..20)).collect();
    feed.send(Some(&node), &twice);
    expect_numbered(&feed.wait_for(&node, 20), 20);
    assert_eq!(node.stop(), 0);
    // Nor after a restart.
    let node = feed.project.start();
    feed.send(Some(&node), &numbered(0..21));
    expect_numbered(&feed.wait_for(&node, 21), 21);
    feed.project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

fn a_killed_node_loses_and_doubles_nothing(by: By) {
    let feed = Feed::new(by, "");
    let mut sent = 0;
    for _ in 0..4 {
        let node = feed.project.start();
        let chunk = numbered(sent..sent + 150);
        match by {
            // The node dies while messages come; whoever gets no answer sends again.
            By::Http => {
                let (first, rest) = chunk.split_at(70);
                feed.send(Some(&node), first);
                node.kill();
                let node = feed.project.start();
                feed.send(Some(&node), &first[60..]);
                feed.send(Some(&node), rest);
                node.kill();
            }
            _ => {
                let before = feed.events().len();
                feed.send(None, &chunk);
                let begun = Instant::now();
                while feed.events().len() == before {
                    assert!(begun.elapsed() < PATIENCE, "{}", node.log());
                }
                node.kill();
            }
        }
        sent += 150;
    }
    let node = feed.project.start();
    expect_numbered(&feed.wait_for(&node, sent), sent);
    feed.project.wait_idle();
    feed.project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

fn what_cannot_be_taken_is_told_of_and_holds_up_nothing(by: By) {
    let feed = Feed::new(by, "");
    feed.node("max_event_size: 4KiB");
    let node = feed.project.start();
    let large = envelope("large", &json!({ "text": "x".repeat(8_192) }));
    if by == By::Http {
        feed.send(Some(&node), &numbered(0..5));
        let answer = post(&node, &large.body).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(answer.contains("4096"), "{answer}");
        expect_numbered(&feed.wait_for(&node, 5), 5);
        assert_eq!(node.stop(), 0);
        return;
    }
    let mut messages = numbered(0..5);
    messages.insert(2, large);
    feed.send(None, &messages);
    let mut events = feed.wait_for(&node, 6);
    let refused = events
        .iter()
        .find(|(_, (_, event))| event["detail-type"] == "Message Refused");
    let (id, (_, event)) = refused.expect("a refusal");
    let reason = event["detail"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("4096"), "{reason}");
    let id = id.clone();
    events.remove(&id);
    expect_numbered(&events, 5);
    let status = feed.status();
    assert_eq!(
        (&status["counts"]["refused"], &status["counts"]["held"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(status["waiting"], 0);
    assert_eq!(node.stop(), 0);
}

fn what_is_no_notification_is_told_of(by: By) {
    let feed = Feed::new(by, "format: notification,");
    let node = feed.project.start();
    let text = |id: &str, body: &str| Message {
        id: id.to_owned(),
        body: body.as_bytes().to_vec(),
    };
    let put = json!({ "Records": [{
        "eventName": "ObjectCreated:Put", "eventTime": "2026-01-02T03:04:05Z",
        "s3": { "bucket": { "name": "raw" }, "object": { "key": "a+b.csv", "sequencer": "17" } },
    }]});
    feed.send(
        None,
        &[
            text("put", &put.to_string()),
            text("again", &put.to_string()),
            text(
                "test",
                r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"raw"}"#,
            ),
            text("broken", "{"),
            text(
                "shop",
                r#"{"source":"shop","detail-type":"Order","detail":{}}"#,
            ),
        ],
    );
    let events = feed.wait_for(&node, 3);
    let of = |kind: &str| -> Vec<Value> {
        let all = events.values().filter(|(_, e)| e["detail-type"] == kind);
        all.map(|(_, event)| event["detail"].clone()).collect()
    };
    assert_eq!(of("Object Created")[0]["object"]["key"], "a b.csv");
    let refused = of("Message Refused");
    let bodies: Vec<String> = refused.iter().map(|d| d["body"].to_string()).collect();
    assert_eq!(refused.len(), 2, "{events:?}");
    assert!(bodies.iter().any(|b| b == "\"{\""), "{bodies:?}");
    assert!(bodies.iter().any(|b| b.contains("Order")), "{bodies:?}");
    assert!(
        refused
            .iter()
            .all(|d| d["reason"].as_str().is_some_and(|r| !r.is_empty()))
    );
    let counts = &feed.status()["counts"];
    assert_eq!(counts["without-object"], 1);
    assert_eq!(
        (&counts["accepted"], &counts["duplicates"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(node.stop(), 0);
}

fn while_the_bus_is_full_messages_wait_where_they_are(by: By) {
    let feed = Feed::new(by, "");
    feed.node("disk: { refuse: 256KiB }");
    let node = feed.project.start();
    let answer = Feed::fill(&node);
    if by == By::Http {
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let answer = answer.to_lowercase();
        assert!(answer.contains("\r\nretry-after: "), "{answer}");
    } else {
        feed.send(None, &numbered(0..30));
        feed.project.wait("the source to pause", || {
            feed.status()["mode"]["state"] == "paused"
        });
    }
    assert_eq!(feed.events().len(), 0);
    assert_eq!(node.stop(), 0);
    if by != By::Http {
        feed.project
            .wait("the messages to be back", || feed.left() == (30, 0));
    }
    feed.node("disk: { refuse: 1GiB }");
    let node = feed.project.start();
    if by == By::Http {
        feed.send(Some(&node), &numbered(0..30));
    }
    expect_numbered(&feed.wait_for(&node, 30), 30);
    assert_eq!(node.stop(), 0);
}

fn a_connection_that_breaks_costs_nothing(by: By) {
    let feed = Feed::new(by, "");
    let node = feed.project.start();
    let mut sent = 0;
    for _ in 0..4 {
        feed.send(None, &numbered(sent..sent + 100));
        sent += 100;
        feed.proxy.cut();
    }
    feed.wait_for(&node, sent);
    // Now it is gone for good, and the source says so.
    feed.proxy.refuse(true);
    feed.proxy.cut();
    feed.project.wait("the source to notice", || {
        feed.status()["mode"]["state"] == "unreachable"
    });
    feed.send(None, &numbered(sent..sent + 100));
    sent += 100;
    feed.proxy.refuse(false);
    expect_numbered(&feed.wait_for(&node, sent), sent);
    assert_eq!(feed.status()["mode"]["state"], "receiving");
    assert_eq!(node.stop(), 0);
}

/// The suite, by one way.
macro_rules! suite {
    ($system:ident, $by:expr, $($test:ident)*) => {
        mod $system {
            use super::By;
            $(
                #[test]
                fn $test() {
                    super::$test($by);
                }
            )*
        }
    };
}

suite! { rabbitmq, By::RabbitMq,
    every_message_is_one_event_whatever_is_in_it
    an_event_that_comes_again_is_taken_once
    a_killed_node_loses_and_doubles_nothing
    what_cannot_be_taken_is_told_of_and_holds_up_nothing
    what_is_no_notification_is_told_of
    while_the_bus_is_full_messages_wait_where_they_are
    a_connection_that_breaks_costs_nothing
}

suite! { sqs, By::Sqs,
    every_message_is_one_event_whatever_is_in_it
    an_event_that_comes_again_is_taken_once
    a_killed_node_loses_and_doubles_nothing
    what_cannot_be_taken_is_told_of_and_holds_up_nothing
    what_is_no_notification_is_told_of
    while_the_bus_is_full_messages_wait_where_they_are
    a_connection_that_breaks_costs_nothing
}

// There is no broker that would hold messages, or break the connection to them.
suite! { http, By::Http,
    every_message_is_one_event_whatever_is_in_it
    an_event_that_comes_again_is_taken_once
    a_killed_node_loses_and_doubles_nothing
    what_cannot_be_taken_is_told_of_and_holds_up_nothing
    while_the_bus_is_full_messages_wait_where_they_are
}
