//! A queue goes to a broker and comes back, with messages waiting.

use super::{declare, with_channel};
use crate::conformance::{Backing, unique};
use crate::support::{Project, rabbitmq, text};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::json;
use std::fs;

const RULES: &str = r#"
rules:
  all:
    pattern: { source: [suite] }
    targets: [{ queue: work }]
"#;

const HANDLER: &str = r#"
handlers:
  worker:
    from: work
    batch: { size: 20, window: 20ms }
    exec: { command: [sh, -c, "cat >> done.ndjson"] }
"#;

fn configure(project: &Project, queue: &str, handled: bool) {
    let handler = if handled { HANDLER } else { "" };
    let yaml = format!("queues:\n  work: {queue}\n{RULES}{handler}");
    project.write("rules/pipeline.yaml", yaml);
    project.write("rules/connections.yaml", Backing::RabbitMq.connections());
}

fn send(project: &Project, from: usize, to: usize) {
    let lines: Vec<String> = (from..to)
        .map(|n| json!({ "id": format!("e-{n}"), "source": "suite", "detail-type": "T", "detail": { "n": n } }).to_string())
        .collect();
    let output = project.run_with(&["send", "-"], lines.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// 50 messages that wait in the log, and no node.
fn backlog(project: &Project) {
    configure(project, "{}", false);
    let node = project.start();
    send(project, 0, 50);
    assert_eq!(node.stop(), 0);
}

fn handled(project: &Project) -> usize {
    let text = fs::read_to_string(project.path("done.ndjson")).unwrap_or_default();
    text.lines().count()
}

/// Messages that wait at the broker.
fn at_broker(queue: &str) -> u32 {
    with_channel(&rabbitmq::shared().url(), async |channel| {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default());
        // It is not there at first.
        found.await.map_or(0, |queue| queue.message_count())
    })
}

fn wait_for(project: &Project, count: usize) {
    project.wait("every message", || handled(project) >= count);
    project.wait_idle();
    assert_eq!(handled(project), count, "some were handled twice");
    project.ok(&["audit"]);
}

#[test]
fn a_backlog_moves_to_the_broker_and_what_is_left_there_comes_back() {
    let project = Project::new();
    let queue = unique("moves");
    let amqp = format!("{{ amqp: {{ connection: broker, queue: {queue} }} }}");

    // A backlog in the log, then the queue goes to the broker, with nobody to read it.
    backlog(&project);
    configure(&project, &amqp, true);
    let plan = project.ok(&["plan"]);
    let said = format!(
        "queue work moves from embedded to amqp broker/{queue}: 50 messages wait in the log; they are published to the broker"
    );
    assert!(plan.contains(&said), "{plan}");
    configure(&project, &amqp, false);
    let node = project.start();
    project.wait("the backlog at the broker", || at_broker(&queue) == 50);
    project.wait_idle();
    assert_eq!(node.stop(), 0);

    // It comes back, and what is left at the broker is handled.
    let back = format!("{{ drain_from: {amqp} }}");
    configure(&project, &back, true);
    let plan = project.ok(&["plan"]);
    assert!(
        plan.contains(&format!(
            "queue work moves from amqp broker/{queue} to embedded"
        )),
        "{plan}"
    );
    send(&project, 50, 60);
    let node = project.start();
    wait_for(&project, 60);
    assert_eq!(at_broker(&queue), 0);
    assert_eq!(node.stop(), 0);
    assert!(!project.ok(&["plan"]).contains("moves from"));
}

#[test]
fn a_backlog_is_drained_where_it_is_when_asked() {
    let project = Project::new();
    let queue = unique("drains");
    backlog(&project);
    let amqp = format!("{{ backlog: drain, amqp: {{ connection: broker, queue: {queue} }} }}");
    configure(&project, &amqp, true);
    let plan = project.ok(&["plan"]);
    assert!(
        plan.contains("50 messages wait in the log; they are handled here"),
        "{plan}"
    );
    let node = project.start();
    wait_for(&project, 50);
    send(&project, 50, 80);
    wait_for(&project, 80);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_queue_moves_while_the_node_runs() {
    let project = Project::new();
    let queue = unique("reload");
    configure(&project, "{}", true);
    let node = project.start();
    send(&project, 0, 20);
    let amqp = format!("{{ amqp: {{ connection: broker, queue: {queue} }} }}");
    configure(&project, &amqp, true);
    project.ok(&["reload"]);
    send(&project, 20, 40);
    wait_for(&project, 40);
    configure(&project, &format!("{{ drain_from: {amqp} }}"), true);
    project.ok(&["reload"]);
    send(&project, 40, 60);
    wait_for(&project, 60);
    assert_eq!(node.stop(), 0);
}

#[test]
fn files_are_not_deleted_before_a_queue_at_a_broker_is_done() {
    let project = Project::new();
    configure(&project, "{ amqp: { connection: broker } }", true);
    project.write(
        "rules/inbox.yaml",
        "sources: { inbox: { folder: { path: inbox, after: delete } } }\n",
    );
    let output = project.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("P0210") && said.contains("the queue `work` is on a broker"),
        "{said}"
    );
}

/// Keeps the helper of the other tests honest: a queue that others made is found.
#[test]
fn a_queue_that_others_made_is_used_as_it_is() {
    let project = Project::new();
    let queue = unique("theirs");
    with_channel(&rabbitmq::shared().url(), async |channel| {
        declare(&channel, &queue, "classic").await;
    });
    let passive = format!("{{ amqp: {{ connection: broker, queue: {queue}, declare: passive }} }}");
    configure(&project, &passive, true);
    let node = project.start();
    send(&project, 0, 20);
    wait_for(&project, 20);
    assert_eq!(node.stop(), 0);
}
