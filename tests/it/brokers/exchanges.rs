//! What is AMQP's own about an exchange that is published to; the rest is in the
//! conformance suite.

use super::with_channel;
use crate::conformance::{Outside, System, unique};
use crate::support::{Project, rabbitmq, text};
use lapin::ExchangeKind;
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

fn project(exchange: &str, fields: &str) -> Project {
    let project = Project::new();
    let url = rabbitmq::shared().url();
    project.write(
        "rules/a.yaml",
        format!(
            "connections: {{ rabbit: {{ amqp: {{ url: \"{url}\" }} }} }}\nrules: {{ all: {{ pattern: {{ source: [shop] }}, targets: [{{ topic: orders }}] }} }}\ntopics: {{ orders: {{ subscriptions: {{ out: {{ retry: {{ attempts: 2, base: 10ms, cap: 10ms }}, amqp: {{ connection: rabbit, exchange: {exchange}{fields} }} }} }} }} }}\n"
        ),
    );
    project
}

fn send(project: &Project, id: &str, detail: &Value) {
    let event = json!({
        "id": id, "source": "shop", "detail-type": "Order Placed",
        "time": "2013-01-01T10:00:00Z", "detail": detail,
    });
    let output = project.run_with(&["send"], event.to_string().as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_message_has_its_properties_its_trace_and_its_routing_key() {
    let mut outside = Outside::new(System::RabbitMq);
    let project = project(
        &outside.name,
        ", routing_key: \"o.<detail.city>.<detail-type>\"",
    );
    let node = project.start();
    send(&project, "o-1", &json!({ "city": "Zürich" }));
    project.wait("the message", || !outside.got().is_empty());
    let got = &outside.got()[0];
    assert_eq!(got.routing_key, "o.Zürich.Order Placed");
    let header = |name: &str| got.headers.get(name).map_or("", String::as_str);
    assert_eq!(header("message-id"), "o-1");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("type"), "Order Placed");
    assert_eq!(header("app-id"), "pointsman");
    assert_eq!(header("delivery-mode"), "2", "it is written to disk");
    assert!(header("timestamp").parse::<u64>().expect("seconds") > 1_700_000_000);
    assert_eq!(header("pointsman-root"), "o-1");
    assert_eq!(header("pointsman-cause"), "o-1");
    assert_eq!(header("pointsman-route"), "topic/orders/out");
    assert_eq!(got.json()["detail"]["city"], "Zürich");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_key_that_cannot_be_made_or_is_too_long_is_told_with_the_message() {
    let outside = Outside::new(System::RabbitMq);
    let project = project(&outside.name, ", routing_key: <detail.city>");
    let node = project.start();
    send(&project, "none", &json!({ "town": "Basel" }));
    send(&project, "long", &json!({ "city": "x".repeat(300) }));
    project.wait("both dead letters", || {
        project.json_lines(&["dlq", "list", "--json"]).len() == 2
    });
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    let said = json!(letters).to_string();
    assert!(said.contains("the event has no `detail.city`"), "{said}");
    assert!(
        said.contains("the routing key has 300 bytes; AMQP allows 255"),
        "{said}"
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn what_comes_back_is_told_from_the_messages_beside_it() {
    let (name, taken) = (unique("some"), std::cell::Cell::new(0));
    with_channel(&rabbitmq::shared().url(), async |channel| {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (none, kind) = (FieldTable::default, ExchangeKind::Topic);
        let made = channel.exchange_declare(name.as_str().into(), kind, options, none());
        made.await.expect("an exchange");
        super::declare(&channel, &name, "classic").await;
        let bound = channel.queue_bind(
            name.as_str().into(),
            name.as_str().into(),
            "n.1.#".into(),
            QueueBindOptions::default(),
            none(),
        );
        bound.await.expect("a binding");
    });
    let project = project(&name, ", routing_key: \"n.<detail.third>.x\"");
    let node = project.start();
    let line = |n: usize| {
        let detail = json!({ "n": n, "third": n % 3 });
        json!({ "id": format!("e-{n}"), "source": "shop", "detail-type": "T", "detail": detail })
            .to_string()
    };
    let lines: Vec<String> = (0..300).map(line).collect();
    let output = project.run_with(&["send"], lines.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    project.wait("the dead letters", || {
        let topics = project.json(&["topics", "--json"]);
        let out = &topics["orders"]["subscriptions"]["out"];
        out["dead"] == 200 && out["pending"] == 0
    });
    with_channel(&rabbitmq::shared().url(), async |channel| {
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = channel
            .basic_get(name.as_str().into(), options)
            .await
            .expect("an answer")
        {
            assert_eq!(got.routing_key.as_str(), "n.1.x");
            taken.set(taken.get() + 1);
        }
    });
    assert_eq!(
        taken.get(),
        100,
        "those that a queue is bound for, and each once"
    );
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    let wrong = letters
        .iter()
        .filter(|l| l["event"]["detail"]["third"] == 1);
    assert_eq!(wrong.count(), 0);
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_missing_exchange_and_one_that_differs_are_explained_before_and_while_it_runs() {
    let (missing, other) = (unique("missing"), unique("other"));
    with_channel(&rabbitmq::shared().url(), async |channel| {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default();
        let kind = ExchangeKind::Direct;
        let made = channel.exchange_declare(other.as_str().into(), kind, options, none);
        made.await.expect("an exchange");
    });
    for (name, fields, reason) in [
        (
            &missing,
            ", declare: passive",
            "`declare: true` makes the exchange",
        ),
        (&other, "", "received 'topic' but current is 'direct'"),
    ] {
        let project = project(name, fields);
        let output = project.run(&["check", "--connect"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
        let node = project.start();
        send(&project, "waits", &json!({}));
        let circuit = || {
            let topics = project.json(&["topics", "--json"]);
            topics["orders"]["subscriptions"]["out"]["circuit"]["error"].to_string()
        };
        project.wait("the reason", || circuit().contains(reason));
        // It is no fault of the message, so it waits.
        assert!(project.json_lines(&["dlq", "list", "--json"]).is_empty());
        project.ok(&["audit"]);
        assert_eq!(node.stop(), 0);
    }
    // One that is there and is taken as it is.
    let project = project(&other, ", declare: passive");
    let said = project.ok(&["check", "--connect"]);
    assert!(said.contains("the exchange is there"), "{said}");
    assert!(said.contains("it can be written"), "{said}");
}

#[test]
fn when_its_circuit_opens_and_for_how_long_can_be_said() {
    let missing = unique("missing");
    let said = ", declare: passive, circuit: { failures: 3, pause: 10m, max_pause: 1h }";
    let project = project(&missing, said);
    let node = project.start();
    send(&project, "waits", &json!({}));
    let out = || project.json(&["topics", "--json"])["orders"]["subscriptions"]["out"].clone();
    project.wait("the circuit", || out()["circuit"]["state"] == "open");
    let told = out();
    assert_eq!(told["circuit"]["failures"], 3, "{told}");
    let waits = told["circuit"]["waits_ms"].as_u64();
    assert!(waits.is_some_and(|ms| ms > 60_000), "{told}");
    assert_eq!((&told["pending"], &told["dead"]), (&json!(1), &json!(0)));
    assert_eq!(node.stop(), 0);
}

#[test]
fn what_is_looked_at_reaches_nobody_and_makes_nothing() {
    let mut outside = Outside::new(System::RabbitMq);
    let there = project(&outside.name, "");
    let said = there.ok(&["check", "--connect"]);
    assert!(said.contains("it can be written"), "{said}");
    assert!(outside.got().is_empty());
    let fresh = unique("fresh");
    for _ in 0..2 {
        let said = project(&fresh, "").ok(&["check", "--connect"]);
        assert!(said.contains("the exchange is made at the start"), "{said}");
    }
}

#[test]
fn mistakes_in_the_files_are_shown_with_their_place() {
    let project = Project::new();
    project.write(
        "rules/a.yaml",
        r#"connections:
  rabbit: { amqp: {} }
  cloud: { aws: { region: eu-west-1 } }
rules:
  all: { pattern: { source: [shop] }, targets: [{ topic: t }] }
topics:
  t:
    subscriptions:
      open: { amqp: { connection: rabbit, exchange: e, routing_key: "o.<detail.city" } }
      kind: { amqp: { connection: cloud, exchange: e } }
      none: { amqp: { connection: rabbit } }
      order: { sns: { connection: cloud, topic: plain, order_by: detail.city } }
      never: { sns: { connection: cloud, topic: t, circuit: { failures: 0 } } }
"#,
    );
    let output = project.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output.stderr));
}
