//! What is SNS's own about a topic that is published to; the rest is in the
//! conformance suite.

use crate::conformance::{Outside, System, unique};
use crate::support::{Project, aws, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `orders` gets every event of `shop`; its subscription `out` publishes to SNS.
fn project(topic: &str, fields: &str) -> Project {
    let project = Project::new();
    let connection = aws::shared().connection();
    project.write(
        "rules/a.yaml",
        format!(
            "connections: {{ cloud: {connection} }}\nrules: {{ all: {{ pattern: {{ source: [shop] }}, targets: [{{ topic: orders }}] }} }}\ntopics: {{ orders: {{ subscriptions: {{ out: {{ sns: {{ connection: cloud, topic: {topic}{fields} }} }} }} }} }}\n"
        ),
    );
    project
}

fn send(project: &Project, events: &[(&str, Value)]) {
    let line = |(id, detail): &(&str, Value)| {
        json!({ "id": id, "source": "shop", "detail-type": "Order Placed", "detail": detail })
            .to_string()
    };
    let lines: Vec<String> = events.iter().map(line).collect();
    let output = project.run_with(&["send"], lines.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn attributes_say_what_subscribers_filter_by() {
    let mut outside = Outside::new(System::Sns);
    let project = project(&outside.name, "");
    let node = project.start();
    send(&project, &[("o-1", json!({ "total": 1 }))]);
    project.wait("the message", || !outside.got().is_empty());
    let got = &outside.got()[0];
    let header = |name: &str| got.headers.get(name).map_or("", String::as_str);
    assert_eq!(header("source"), "shop");
    assert_eq!(header("detail-type"), "Order Placed");
    assert_eq!(header("pointsman-root"), "o-1");
    assert_eq!(header("pointsman-cause"), "o-1");
    assert_eq!(got.json()["id"], "o-1");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_fifo_topic_keeps_the_order_of_each_group() {
    let outside = Outside::closed(System::Sns, &format!("{}.fifo", unique("ordered")));
    outside.open();
    let mut outside = outside;
    let project = project(&outside.name, ", order_by: detail.key");
    let node = project.start();
    let events: Vec<(String, Value)> = (0..40)
        .map(|n| (format!("e-{n}"), json!({ "key": n % 4, "n": n })))
        .collect();
    let events: Vec<(&str, Value)> = events
        .iter()
        .map(|(id, detail)| (id.as_str(), detail.clone()))
        .collect();
    send(&project, &events);
    // Taken only when all is there: the server forgets the deduplication id of a message
    // that was taken, so a call that the SDK made twice would show as a copy.
    project.wait_idle();
    let mut groups: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for got in outside.got() {
        let n = got.json()["detail"]["n"].as_u64().expect("a number");
        groups
            .entry(got.headers["group"].clone())
            .or_default()
            .push(n);
    }
    assert_eq!(groups.len(), 4, "{groups:?}");
    for (group, numbers) in groups {
        assert!(numbers.is_sorted(), "{group}: {numbers:?}");
        assert_eq!(numbers.len(), 10, "each came once");
    }
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_message_that_is_too_large_is_dead_lettered_and_those_beside_it_arrive() {
    let mut outside = Outside::new(System::Sns);
    let project = project(&outside.name, "");
    let node = project.start();
    let large = "x".repeat(300_000);
    let some = json!({ "total": 1 });
    send(
        &project,
        &[
            ("a", some.clone()),
            ("large", json!({ "text": large })),
            ("nearly", json!({ "text": "x".repeat(250_000) })),
            ("b", some),
        ],
    );
    project.wait("the others", || outside.got().len() == 3);
    project.wait("the dead letter", || {
        project.json_lines(&["dlq", "list", "--json"]).len() == 1
    });
    let letter = &project.json_lines(&["dlq", "list", "--json"])[0];
    let said = letter["errors"].to_string();
    assert_eq!(letter["event"]["id"], "large");
    assert_eq!(
        letter["errors"].as_array().map(Vec::len),
        Some(1),
        "one attempt"
    );
    assert!(
        said.contains("MessageTooLarge") && said.contains("SNS takes 262144"),
        "{said}"
    );
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_topic_is_made_when_it_is_missing_unless_it_must_be_there() {
    let name = unique("made");
    let made = project(&name, "");
    let node = made.start();
    send(&made, &[("first", json!({}))]);
    made.wait_idle();
    let there = || {
        aws::shared().boto(
            "print(any(t['TopicArn'].endswith(':' + args[0]) for t in sns.list_topics()['Topics']))",
            &[&name],
        )
    };
    assert_eq!(there(), "True\n");
    assert_eq!(node.stop(), 0);
}
