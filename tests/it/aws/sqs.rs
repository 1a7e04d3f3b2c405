//! What is SQS's own about a queue on SQS; the rest is in the conformance suite.

use crate::support::{Project, aws, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// A rule that sends all of `suite` to the queue `work`, and a handler that notes
/// what it gets. `queue`: the fields of the queue.
fn project(queue: &str, with_handler: bool) -> Project {
    let project = Project::new();
    let connection = aws::shared().connection();
    project.write(
        "rules/a.yaml",
        format!(
            "connections: {{ cloud: {connection} }}\nqueues: {{ work: {queue} }}\nrules: {{ all: {{ pattern: {{ source: [suite] }}, targets: [ {{ queue: work }} ] }} }}\n"
        ),
    );
    if with_handler {
        project.write(
            "rules/b.yaml",
            "handlers: { note: { from: work, timeout: 5s, batch: { size: 10 }, exec: { command: [sh, -c, 'cat >> seen.ndjson'] } } }\n",
        );
    }
    project
}

fn event(id: &str, detail: &Value) -> String {
    json!({ "id": id, "source": "suite", "detail-type": "T", "detail": detail }).to_string()
}

fn send(project: &Project, events: &[String]) {
    let output = project.run_with(&["send", "-"], events.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn seen(project: &Project) -> Vec<Value> {
    let text = fs::read_to_string(project.path("seen.ndjson")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("events")
}

#[test]
fn messages_of_one_key_keep_their_order_through_a_fifo_queue() {
    let project = project(
        "{ order_by: detail.key, sqs: { connection: cloud, queue: ordered.fifo } }",
        true,
    );
    let node = project.start();
    let events: Vec<String> = (0..60)
        .map(|n| event(&format!("e-{n:02}"), &json!({ "key": n % 3, "n": n })))
        .collect();
    send(&project, &events);
    project.wait("every message", || seen(&project).len() == 60);
    let mut by_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for event in seen(&project) {
        let number = |name: &str| event["detail"][name].as_u64().expect("a number");
        by_key.entry(number("key")).or_default().push(number("n"));
    }
    for (key, numbers) in by_key {
        assert!(numbers.is_sorted(), "key {key}: {numbers:?}");
        assert_eq!(numbers.len(), 20);
    }
    project.wait_idle();
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn large_and_odd_bodies_come_through_whole_and_the_queue_is_empty_after() {
    let project = project(
        "{ sqs: { connection: cloud, queue: large, max_message_size: 64KiB } }",
        true,
    );
    let node = project.start();
    let big = "ü".repeat(200_000);
    send(
        &project,
        &[
            event("big", &json!({ "text": big })),
            event("odd", &json!({ "text": "\u{ffff}\u{7f}" })),
        ],
    );
    project.wait("both", || seen(&project).len() == 2);
    let text = |id: &str| {
        let seen = seen(&project);
        let found = seen.iter().find(|event| event["id"] == id);
        found.expect("the event")["detail"]["text"].clone()
    };
    assert_eq!(text("big"), big);
    assert_eq!(text("odd"), "\u{ffff}\u{7f}");
    project.wait_idle();
    let left = || {
        aws::shared().boto(
            "url = sqs.get_queue_url(QueueName=args[0])['QueueUrl']\nprint(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=['All'])['Attributes']['ApproximateNumberOfMessages'], sqs.get_queue_attributes(QueueUrl=url, AttributeNames=['All'])['Attributes']['ApproximateNumberOfMessagesNotVisible'])",
            &["large"],
        )
    };
    project.wait("the deletes", || left() == "0 0\n");
    assert_eq!(node.stop(), 0);
}

#[test]
fn other_programs_send_to_the_queue_and_read_from_it() {
    let reading = project("{ sqs: { connection: cloud, queue: shared-in } }", true);
    let node = reading.start();
    reading.wait("the queue", || {
        aws::shared().boto(
            "print(len(sqs.list_queues(QueueNamePrefix='shared-in').get('QueueUrls', [])))",
            &[],
        ) == "1\n"
    });
    aws::shared().boto(
        "url = sqs.get_queue_url(QueueName='shared-in')['QueueUrl']\nsqs.send_message(QueueUrl=url, MessageBody=args[0])\nsqs.send_message(QueueUrl=url, MessageBody='plain text')",
        &[&event("from-outside", &json!({ "n": 1 }))],
    );
    reading.wait("both", || seen(&reading).len() == 2);
    let got = seen(&reading);
    assert!(got.iter().any(|e| e["id"] == "from-outside"));
    assert!(
        got.iter().any(|e| e["source"] == "pointsman.message"),
        "{got:?}"
    );
    assert_eq!(node.stop(), 0);

    // Nobody here reads this one, so it is left to others.
    let writing = project("{ sqs: { connection: cloud, queue: shared-out } }", false);
    let node = writing.start();
    send(&writing, &[event("to-outside", &json!({ "n": 2 }))]);
    writing.wait("the message", || {
        let got = aws::shared().boto(
            "urls = sqs.list_queues(QueueNamePrefix='shared-out').get('QueueUrls', [])\ngot = [m for u in urls for m in sqs.receive_message(QueueUrl=u, MessageAttributeNames=['All']).get('Messages', [])]\nprint(json.dumps(got))",
            &[],
        );
        let got: Value = serde_json::from_str(&got).expect("JSON");
        let Some(message) = got.get(0) else {
            return false;
        };
        let body = message["Body"].as_str().expect("a body");
        let event: Value = serde_json::from_str(body).expect("an event");
        assert_eq!(event["id"], "to-outside");
        assert_eq!(
            message["MessageAttributes"]["pointsman-bus"]["StringValue"],
            "default"
        );
        true
    });
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_queue_that_must_be_there_and_is_not_holds_its_messages_in_the_log() {
    let project = project(
        "{ sqs: { connection: cloud, queue: made-later, declare: passive } }",
        true,
    );
    let node = project.start();
    send(&project, &[event("early", &json!({ "n": 1 }))]);
    project.wait("the reason", || {
        node.log().contains("let it be made with `declare: true`")
    });
    aws::shared().boto("sqs.create_queue(QueueName='made-later')", &[]);
    project.wait("the message", || seen(&project).len() == 1);
    project.wait_idle();
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn an_ordered_queue_needs_a_fifo_queue() {
    let project = project(
        "{ order_by: detail.key, sqs: { connection: cloud, queue: plain } }",
        true,
    );
    let output = project.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("needs a FIFO queue"), "{said}");
    assert!(said.contains("rules/a.yaml:2:"), "{said}");
}
