//! `check --connect`: what is wrong outside is said before anything runs.

use super::{declare, with_channel};
use crate::conformance::unique;
use crate::support::{Project, rabbitmq, text};

fn check(yaml: &str) -> (Option<i32>, String) {
    let project = Project::new();
    project.write("rules/pipeline.yaml", yaml);
    let output = project.run(&["check", "--connect"]);
    (
        output.status.code(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

fn queues(connection: &str, queues: &str) -> String {
    format!(
        "connections:\n  broker: {{ amqp: {connection} }}\nqueues:\n{queues}\nrules:\n  all: {{ pattern: {{ source: [s] }}, targets: [{{ queue: work }}] }}\n"
    )
}

#[test]
fn what_is_well_is_said_and_what_is_missing_is_made_at_the_start() {
    let url = rabbitmq::shared().url();
    let name = unique("connect");
    let yaml = queues(
        &format!("{{ url: \"{url}\" }}"),
        &format!("  work: {{ amqp: {{ connection: broker, queue: {name} }} }}"),
    );
    let (code, said) = check(&yaml);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("connection broker: connected"), "{said}");
    assert!(said.contains("the queue is made at the start"), "{said}");
    assert!(said.contains("it can be written"), "{said}");
}

#[test]
fn a_wrong_password_a_closed_port_and_an_unknown_vhost_are_told_apart() {
    let address = rabbitmq::shared().address();
    let work = "  work: { amqp: { connection: broker } }";
    let (code, said) = check(&queues(
        &format!("{{ hosts: \"{address}\", password: wrong }}"),
        work,
    ));
    assert_eq!(code, Some(1));
    assert!(said.contains("ACCESS_REFUSED"), "{said}");
    let (code, said) = check(&queues("{ hosts: \"127.0.0.1:1\" }", work));
    assert_eq!(code, Some(1));
    assert!(said.to_lowercase().contains("refused"), "{said}");
    let (code, said) = check(&queues(
        &format!("{{ hosts: \"{address}\", vhost: nowhere }}"),
        work,
    ));
    assert_eq!(code, Some(1));
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn a_queue_that_differs_is_told_with_both_values() {
    let url = rabbitmq::shared().url();
    let name = unique("differs");
    with_channel(&url, async |channel| {
        declare(&channel, &name, "classic").await
    });
    let yaml = queues(
        &format!("{{ url: \"{url}\" }}"),
        &format!("  work: {{ amqp: {{ connection: broker, queue: {name} }} }}"),
    );
    let (code, said) = check(&yaml);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not as it would be made"), "{said}");
    assert!(
        said.contains("quorum") && said.contains("classic"),
        "{said}"
    );
}

#[test]
fn what_must_be_there_and_is_not_is_named() {
    let url = rabbitmq::shared().url();
    let (passive, dead) = (unique("passive"), unique("dead"));
    let yaml = queues(
        &format!("{{ url: \"{url}\" }}"),
        &format!(
            "  work: {{ amqp: {{ connection: broker, queue: {passive}, declare: passive }} }}\n  other: {{ amqp: {{ connection: broker, queue: {dead}, dead_letter_exchange: no-such-exchange }} }}"
        ),
    );
    let (code, said) = check(&yaml);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("NOT_FOUND") && said.contains(&passive),
        "{said}"
    );
    assert!(said.contains("no-such-exchange"), "{said}");
}
