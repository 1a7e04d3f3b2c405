//! Filters, and subscribers that are no endpoints.

use super::{assert_balanced, ids, order, orders, send, standing};
use crate::support::Project;
use crate::support::receiver::{Receiver, Reply};
use serde_json::Value;
use std::fs;

#[test]
fn a_queue_a_program_another_bus_and_a_webhook_each_get_what_their_filter_lets_through() {
    let receiver = Receiver::start(|_, _| Reply::status(200));
    let project = orders(&format!(
        r#"      desk: {{ queue: desk, filter: {{ total: [{{ numeric: [">", 10] }}] }} }}
      log: {{ exec: {{ command: [sh, log.sh] }}, filter_on: attributes, filter: {{ detail-type: [Order Placed] }} }}
      other: {{ bus: other, filter_on: attributes, filter: {{ detail-type: [Order Refused] }} }}
      hook: {{ webhook: {{ url: "{}", allow_private: true }}, filter: {{ total: [20] }}, input_path: $.detail }}
queues: {{ desk: {{}} }}
handlers: {{ desk: {{ from: desk, exec: {{ command: [sh, desk.sh] }} }} }}
"#,
        receiver.url("/hook")
    ));
    project.write(
        "rules/other.yaml",
        "rules: { heard: { bus: other, pattern: { source: [shop] }, targets: [ { topic: heard } ] } }\ntopics: { heard: {} }\n",
    );
    project.write("log.sh", "cat >> log.ndjson\n");
    project.write("desk.sh", "cat >> desk.ndjson\n");
    let node = project.start();
    let refused = order("r", 5).replace("Order Placed", "Order Refused");
    send(&project, &[order("a", 5), order("b", 20), refused]);
    project.wait("the webhook", || !receiver.got("/hook").is_empty());
    project.wait_idle();
    project.wait("the other bus", || {
        !project
            .json_lines(&["events", "list", "--bus", "topic/heard", "--json"])
            .is_empty()
    });

    let read = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(project.path(name)).unwrap_or_default();
        let id = |line: &str| {
            let event: Value = serde_json::from_str(line).expect("JSON");
            event["id"].as_str().expect("an id").to_owned()
        };
        let mut ids: Vec<String> = text.lines().map(id).collect();
        ids.sort();
        ids
    };
    assert_eq!(read("desk.ndjson"), ["b"]);
    assert_eq!(read("log.ndjson"), ["a", "b"]);
    let heard = project.json_lines(&["events", "list", "--bus", "topic/heard", "--json"]);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["event"]["id"], "r");
    let hooked = receiver.got("/hook");
    assert_eq!(hooked.len(), 1);
    assert_eq!(hooked[0].json(), serde_json::json!({ "total": 20 }));
    assert_eq!(standing(&project, "desk")["by"], "queue");
    assert_balanced(&project);
    assert_eq!(node.stop(), 0);
}

#[test]
fn an_attribute_that_no_message_has_is_refused_with_its_place() {
    let project = orders(
        "      a: { pull: {}, filter_on: attributes, filter: { detail: { total: [1] } } }\n      b: { pull: {}, filter_on: attributes, filter: { detail-typ: [x] } }\n",
    );
    let output = project.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(crate::support::text(&output.stderr));
}

#[test]
fn a_message_that_a_webhook_refuses_for_good_is_dead_lettered_and_the_others_go_on() {
    let receiver = Receiver::start(|got, _| {
        let bad = got.json()["detail"]["total"] == 13;
        Reply::status(if bad { 422 } else { 204 })
    });
    let url = receiver.url("/hook");
    let project = orders(&format!(
        "      hook: {{ webhook: {{ url: '{url}', allow_private: true }} }}\n"
    ));
    let node = project.start();
    send(&project, &[order("a", 1), order("b", 13), order("c", 2)]);
    project.wait("a dead letter", || standing(&project, "hook")["dead"] == 1);
    project.wait_idle();
    let mut got = ids(&receiver, "/hook");
    got.sort();
    assert_eq!(got, ["a", "b", "c"], "each was tried once");
    assert_eq!(standing(&project, "hook")["circuit"]["state"], "closed");
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    assert_eq!(letters[0]["event"]["id"], "b");
    assert_eq!(node.stop(), 0);
}

#[test]
fn topics_and_other_buses_get_events_in_the_order_of_their_bus() {
    let project = Project::new();
    project.write(
        "rules/a.yaml",
        "rules:\n  all:\n    pattern: { source: [shop] }\n    targets: [ { topic: orders }, { bus: other } ]\ntopics: { orders: {} }\n",
    );
    let node = project.start();
    let sent: Vec<String> = (0..900).map(|n| format!("e-{n}")).collect();
    let events: Vec<String> = sent.iter().map(|id| order(id, 1)).collect();
    send(&project, &events);
    project.wait_idle();
    for bus in ["topic/orders", "other"] {
        let listed = ["events", "list", "--bus", bus, "--limit", "1000", "--json"];
        let listed = project.json_lines(&listed);
        let id = |line: &Value| line["event"]["id"].as_str().expect("an id").to_owned();
        let ids: Vec<String> = listed.iter().map(id).collect();
        assert_eq!(ids, sent, "{bus}");
    }
    assert_eq!(node.stop(), 0);
}
