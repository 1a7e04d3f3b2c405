//! A broker that is short of memory blocks who publishes: that is back-pressure, and
//! no error.

use crate::conformance::unique;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{Project, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// Every event goes to a queue of the broker, and to an exchange of it.
fn project(broker: &RabbitMq) -> Project {
    let project = Project::new();
    let (queue, exchange, address) = (unique("blocked"), unique("blocked"), broker.address());
    project.write(
        "rules/a.yaml",
        format!(
            r#"
connections: {{ rabbit: {{ amqp: {{ hosts: "{address}", heartbeat: 2s }} }} }}
queues: {{ work: {{ amqp: {{ connection: rabbit, queue: {queue} }} }} }}
rules:
  all: {{ pattern: {{ source: [s] }}, targets: [{{ queue: work }}, {{ topic: out }}] }}
topics:
  out: {{ subscriptions: {{ away: {{ amqp: {{ connection: rabbit, exchange: "{exchange}", kind: fanout }} }} }} }}
handlers:
  note: {{ from: work, batch: {{ size: 10 }}, exec: {{ command: [sh, -c, 'cat >> done.ndjson'] }} }}
"#
        ),
    );
    super::with_channel(&broker.url(), async |channel| {
        let durable = lapin::options::ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let none = lapin::types::FieldTable::default;
        let kind = lapin::ExchangeKind::Fanout;
        let made = channel.exchange_declare(exchange.as_str().into(), kind, durable, none());
        made.await.expect("an exchange");
        super::declare(&channel, &exchange, "classic").await;
        let name = || exchange.as_str().into();
        let options = lapin::options::QueueBindOptions::default();
        let bound = channel.queue_bind(name(), name(), "".into(), options, none());
        bound.await.expect("a binding");
    });
    project
}

fn send(project: &Project, range: std::ops::Range<usize>) {
    let line =
        |n| json!({ "id": format!("e-{n}"), "source": "s", "detail-type": "T", "detail": {} });
    let lines: Vec<String> = range.map(|n| line(n).to_string()).collect();
    let output = project.run_with(&["send", "-"], lines.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn done(project: &Project) -> BTreeSet<String> {
    let text = fs::read_to_string(project.path("done.ndjson")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let id = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("an event");
        event["id"].as_str().expect("an id").to_owned()
    };
    whole.lines().map(id).collect()
}

fn pending(project: &Project, route: &str) -> u64 {
    let routes = project.json(&["queues", "--json"]);
    let found = routes.as_array().expect("routes").iter();
    let found = found.clone().find(|r| r["route"] == route);
    found.expect("the route")["pending"]
        .as_u64()
        .expect("a number")
}

#[test]
fn a_broker_short_of_memory_holds_messages_back_and_costs_no_attempt() {
    let broker = RabbitMq::start();
    let project = project(&broker);
    let node = project.start();
    send(&project, 0..50);
    project.wait("the first", || done(&project).len() == 50);
    project.wait_idle();

    broker.ctl(&["set_vm_memory_high_watermark", "0"]);
    project.wait("the alarm", || {
        let alarms = broker.ctl(&["eval", "rabbit_alarm:get_alarms()."]);
        alarms.contains("memory")
    });
    send(&project, 50..150);
    project.wait("both to be blocked", || {
        node.log().matches("blocked by the broker").count() >= 2
    });
    send(&project, 150..200);
    let route = "topic/out/away";
    // The broker may have taken what was on its way when it began to block.
    for route in ["all/work", route] {
        assert!(pending(&project, route) >= 50, "they wait in the log");
    }
    assert!(done(&project).len() < 200);

    broker.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    project.wait("the others", || done(&project).len() == 200);
    project.wait("the exchange", || pending(&project, route) == 0);
    project.wait_idle();
    // Nobody was told of a failure, and nothing was given up.
    assert!(
        !node.log().contains("will be tried again"),
        "{}",
        node.log()
    );
    assert!(project.json_lines(&["dlq", "list", "--json"]).is_empty());
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}
