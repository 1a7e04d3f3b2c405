//! What every publisher does, whoever it publishes to: a webhook, an exchange of
//! RabbitMQ, a topic of SNS with a queue that gets its messages.

use super::outside::{Outside, System};
use crate::support::proxy::Proxy;
use crate::support::{Project, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A topic that gets every event of `suite`, with one subscription, `out`.
/// `subscription`: its fields, each ending with a comma; `target`: further fields of
/// where it leads, each after a comma.
fn project(outside: &Outside, via: Option<&Proxy>, subscription: &str, target: &str) -> Project {
    let project = Project::new();
    project.write("rules/connections.yaml", outside.connections(via));
    let target = outside.target(via, target);
    project.write(
        "rules/pipeline.yaml",
        format!(
            "rules:\n  all: {{ pattern: {{ source: [suite] }}, targets: [{{ topic: out }}] }}\ntopics:\n  out: {{ subscriptions: {{ away: {{ {subscription} {target} }} }} }}\n"
        ),
    );
    project
}

fn event(id: &str, detail: &Value) -> String {
    json!({ "id": id, "source": "suite", "detail-type": "Order Placed", "detail": detail })
        .to_string()
}

fn send(project: &Project, events: &[String]) {
    let output = project.run_with(&["send", "-"], events.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range
        .map(|n| event(&format!("e-{n}"), &json!({ "n": n })))
        .collect()
}

fn ids(outside: &mut Outside) -> Vec<String> {
    let id = |event: Value| event["id"].as_str().expect("an id").to_owned();
    outside.got().iter().map(|got| id(got.json())).collect()
}

fn wanted(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|n| format!("e-{n}")).collect()
}

fn wait_for(project: &Project, outside: &mut Outside, wanted: &BTreeSet<String>) {
    project.wait("every message", || {
        let got: BTreeSet<String> = ids(outside).into_iter().collect();
        got.is_superset(wanted)
    });
}

fn subscription(project: &Project) -> Value {
    project.json(&["topics", "--json"])["out"]["subscriptions"]["away"].clone()
}

fn every_message_arrives_whole(system: System) {
    let mut outside = Outside::new(system);
    let project = project(&outside, None, "", "");
    let node = project.start();
    let odd = json!({ "text": "Zürich 🚆 \u{1} \"quoted\" \u{7f}", "n": 12345678901234567_u64 });
    let mut events = numbered(0..250);
    events.push(event("odd", &odd));
    send(&project, &events);
    let mut all = wanted(0..250);
    all.insert("odd".to_owned());
    wait_for(&project, &mut outside, &all);
    project.wait_idle();
    let came: BTreeSet<String> = ids(&mut outside).into_iter().collect();
    assert_eq!(came, all);
    let got = outside.got();
    let bodies: Vec<Value> = got.iter().map(super::outside::Got::json).collect();
    let found = bodies.iter().find(|event| event["id"] == "odd");
    assert_eq!(found.expect("the odd one")["detail"], odd);
    let told = subscription(&project);
    assert_eq!((&told["pending"], &told["dead"]), (&json!(0), &json!(0)));
    assert_eq!(told["circuit"]["state"], "closed", "{told}");
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

fn a_filter_and_an_input_say_what_is_sent(system: System) {
    let mut outside = Outside::new(system);
    let fields = "filter: { total: [{ numeric: [\">\", 10] }] }, input_path: $.detail,";
    let project = project(&outside, None, fields, "");
    let node = project.start();
    let totals = [5, 20, 10, 30];
    let events: Vec<String> = totals
        .iter()
        .map(|total| event(&format!("t-{total}"), &json!({ "total": total })))
        .collect();
    send(&project, &events);
    project.wait("both", || outside.got().len() == 2);
    project.wait_idle();
    let got = outside.got().iter().map(|got| got.json()["total"].clone());
    let mut got: Vec<i64> = got.map(|total| total.as_i64().expect("a number")).collect();
    got.sort_unstable();
    assert_eq!(got, [20, 30]);
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

fn a_crash_loses_nothing(system: System) {
    let mut outside = Outside::new(system);
    let project = project(&outside, None, "", "");
    let node = project.start();
    send(&project, &numbered(0..400));
    // Wherever it is in its work, it is killed; the rest is published by the next.
    node.kill();
    let node = project.start();
    send(&project, &numbered(400..500));
    wait_for(&project, &mut outside, &wanted(0..500));
    project.wait_idle();
    assert!(project.json_lines(&["dlq", "list", "--json"]).is_empty());
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

fn an_absence_is_waited_out(system: System) {
    let mut outside = Outside::new(system);
    let proxy = Proxy::start(outside.address());
    let retry = "retry: { attempts: 100, base: 100ms, cap: 300ms },";
    let project = project(&outside, Some(&proxy), retry, "");
    let node = project.start();
    send(&project, &numbered(0..20));
    wait_for(&project, &mut outside, &wanted(0..20));
    project.wait_idle();

    proxy.refuse(true);
    proxy.cut();
    send(&project, &numbered(20..60));
    project.wait("the circuit to open", || {
        subscription(&project)["circuit"]["state"] != "closed"
    });
    let told = subscription(&project);
    assert!(told["circuit"]["error"].is_string(), "{told}");
    assert_eq!(told["pending"], 40, "{told}");
    proxy.refuse(false);
    wait_for(&project, &mut outside, &wanted(0..60));
    project.wait_idle();
    assert_eq!(subscription(&project)["dead"], 0);
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

fn what_is_refused_is_dead_lettered_with_the_reason_and_redriven(system: System) {
    let mut outside = Outside::closed(system, &super::unique("refusing"));
    let retry = "retry: { attempts: 2, base: 10ms, cap: 20ms },";
    // An exchange that nothing is bound to is there, a topic is not.
    let target = if system == System::Sns {
        ", declare: passive"
    } else {
        ""
    };
    let project = project(&outside, None, retry, target);
    let node = project.start();
    send(&project, &numbered(0..3));
    project.wait("dead letters", || subscription(&project)["dead"] == 3);
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    let reason = match system {
        System::Webhook => "404",
        System::RabbitMq => "NO_ROUTE",
        System::Sns => "there is no topic",
    };
    for letter in &letters {
        assert!(letter["errors"].to_string().contains(reason), "{letter}");
    }
    outside.open();
    project.ok(&["dlq", "redrive", "--all"]);
    wait_for(&project, &mut outside, &wanted(0..3));
    project.wait_idle();
    assert_eq!(subscription(&project)["dead"], 0);
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

fn a_rule_may_publish_without_a_topic(system: System) {
    let mut outside = Outside::new(system);
    let project = Project::new();
    project.write("rules/connections.yaml", outside.connections(None));
    let target = outside.target(None, "");
    project.write(
        "rules/pipeline.yaml",
        format!(
            "rules:\n  all: {{ pattern: {{ source: [suite] }}, targets: [{{ id: out, {target} }}] }}\n"
        ),
    );
    let node = project.start();
    send(&project, &numbered(0..10));
    wait_for(&project, &mut outside, &wanted(0..10));
    project.wait_idle();
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

/// The suite, against one system.
macro_rules! suite {
    ($name:ident, $system:expr, $($test:ident)*) => {
        mod $name {
            use super::System;
            $(
                #[test]
                fn $test() {
                    super::$test($system);
                }
            )*
        }
    };
}

macro_rules! suites {
    ($($test:ident)*) => {
        suite!(webhook, System::Webhook, $($test)*);
        suite!(rabbitmq, System::RabbitMq, $($test)*);
        suite!(sns, System::Sns, $($test)*);
    };
}

suites! {
    a_crash_loses_nothing
    a_filter_and_an_input_say_what_is_sent
    a_rule_may_publish_without_a_topic
    an_absence_is_waited_out
    every_message_arrives_whole
    what_is_refused_is_dead_lettered_with_the_reason_and_redriven
}
