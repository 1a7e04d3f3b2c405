//! Topics of our own: subscribers of every kind, and endpoints that misbehave.

mod circuit;
mod fanout;
mod kinds;
mod sns;
mod websocket;

use crate::support::Project;
use crate::support::receiver::Receiver;
use serde_json::{Value, json};

/// A project whose topic `orders` gets every event of `shop`, with these subscriptions.
fn orders(subscriptions: &str) -> Project {
    let project = Project::new();
    project.write(
        "rules/topics.yaml",
        format!(
            "rules:\n  all: {{ pattern: {{ source: [shop] }}, targets: [ {{ topic: orders }} ] }}\ntopics:\n  orders:\n    subscriptions:\n{subscriptions}"
        ),
    );
    project
}

/// An order as an event.
fn order(id: &str, total: i64) -> String {
    json!({
        "id": id, "source": "shop", "detail-type": "Order Placed",
        "time": "2013-01-01T10:00:00Z", "detail": { "total": total },
    })
    .to_string()
}

fn send(project: &Project, events: &[String]) {
    let output = project.run_with(&["send"], events.join("\n").as_bytes());
    assert!(output.status.success(), "{output:?}");
}

/// How a subscription of `orders` stands.
fn standing(project: &Project, name: &str) -> Value {
    project.json(&["topics", "--json"])["orders"]["subscriptions"][name].clone()
}

/// Ids of the events that came to `path`.
fn ids(receiver: &Receiver, path: &str) -> Vec<String> {
    let got = receiver.got(path);
    let id = |event: Value| event["id"].as_str().expect("an id").to_owned();
    got.iter().map(|got| id(got.json())).collect()
}

/// Whether the books balance.
fn assert_balanced(project: &Project) {
    let audit = project.json(&["audit", "--json"]);
    assert_eq!(audit["balanced"], true, "{audit}");
}
