//! A queue on a broker as a source of events.

use super::{declare, publish, with_channel};
use crate::conformance::unique;
use crate::support::{Project, rabbitmq};
use lapin::BasicProperties;
use serde_json::Value;
use std::fs;

fn events(project: &Project) -> Vec<Value> {
    project.json_lines(&["events", "list", "--limit", "1000", "--json"])
}

fn project(queue: &str) -> Project {
    let project = Project::new();
    let url = rabbitmq::shared().url();
    project.write(
        "rules/pipeline.yaml",
        format!(
            "connections:\n  broker: {{ amqp: {{ url: \"{url}\" }} }}\nsources:\n  shop: {{ bus: orders, amqp: {{ connection: broker, queue: {queue} }} }}\nrules:\n  all: {{ bus: orders, pattern: {{ detail-type: [Order, Message Received] }}, targets: [{{ handler: note }}] }}\nhandlers:\n  note: {{ exec: {{ command: [sh, -c, \"cat >> got.ndjson\"] }} }}\n"
        ),
    );
    project
}

#[test]
fn messages_of_every_kind_become_events() {
    let queue = unique("source");
    let project = project(&queue);
    let node = project.start();
    let envelope = r#"{"source":"shop","detail-type":"Order","detail":{"amount":1.20}}"#;
    with_channel(&rabbitmq::shared().url(), async |channel| {
        declare(&channel, &queue, "quorum").await;
        let id = |id: &str| BasicProperties::default().with_message_id(id.into());
        publish(&channel, &queue, envelope.as_bytes(), id("order-1")).await;
        publish(&channel, &queue, envelope.as_bytes(), id("order-1")).await;
        publish(&channel, &queue, br#"{"n": 1.20}"#, id("json")).await;
        publish(&channel, &queue, "Grüße".as_bytes(), id("text")).await;
        publish(&channel, &queue, &[0, 159, 146, 150], id("binary")).await;
        publish(&channel, &queue, b"", BasicProperties::default()).await;
    });
    let handled = || fs::read_to_string(project.path("got.ndjson")).unwrap_or_default();
    project.wait("five events", || handled().lines().count() == 5);
    project.wait_idle();
    let all = handled();
    let find = |id: &str| {
        let wanted = format!("\"{id}\"");
        let found = all.lines().find(|line| line.contains(&wanted));
        found.unwrap_or_else(|| panic!("no {id}: {all}")).to_owned()
    };
    assert_eq!(all.lines().count(), 5, "order-1 was taken twice: {all}");
    assert!(find("order-1").contains("1.20"));
    assert!(find("json").contains("1.20"));
    assert!(find("text").contains("Grüße"));
    assert!(find("binary").contains("AJ+Slg=="));
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_message_too_large_for_an_event_is_told_and_not_lost_silently() {
    let queue = unique("large");
    let project = project(&queue);
    project.write(
        "pointsman.yaml",
        "node: { listen: 127.0.0.1:0, max_event_size: 4KiB }\n",
    );
    let node = project.start();
    with_channel(&rabbitmq::shared().url(), async |channel| {
        declare(&channel, &queue, "quorum").await;
        let id = BasicProperties::default().with_message_id("large".into());
        publish(&channel, &queue, &vec![b'x'; 8192], id).await;
    });
    project.wait("the refusal", || {
        let all = events(&project);
        all.iter()
            .any(|e| e.to_string().contains("Message Refused"))
    });
    assert_eq!(node.stop(), 0);
}
