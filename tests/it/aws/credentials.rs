//! Credentials that are not in the configuration: they are found as AWS's own tools find
//! them.

use crate::conformance::{Outside, System, unique};
use crate::support::{Project, aws, text};
use serde_json::json;
use std::fs;
use std::process::Command;

/// All of `shop` goes to the queue `work` on SQS, whose handler notes it, and to a topic
/// on SNS. `profile`: what the connection says beside the address.
fn project(topic: &str, profile: &str) -> Project {
    let project = Project::new();
    let (url, queue) = (aws::shared().url(), unique("chain"));
    project.write(
        "rules/a.yaml",
        format!(
            "connections: {{ cloud: {{ aws: {{ endpoint: \"{url}\", region: eu-west-1{profile} }} }} }}\nqueues: {{ work: {{ sqs: {{ connection: cloud, queue: {queue} }} }} }}\nrules: {{ all: {{ pattern: {{ source: [shop] }}, targets: [{{ queue: work }}, {{ sns: {{ connection: cloud, topic: {topic} }} }}] }} }}\nhandlers: {{ note: {{ from: work, exec: {{ command: [sh, -c, 'cat >> seen.ndjson'] }} }} }}\n"
        ),
    );
    project
}

fn command(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(args);
    aws::without_keys(&mut command, &project.path("nowhere"));
    command
}

fn send(project: &Project) {
    let event = json!({ "id": "o-1", "source": "shop", "detail-type": "T", "detail": {} });
    let output = project.run_with(&["send"], event.to_string().as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// With these variables set, the message comes through both.
fn comes_through(profile: &str, files: &[(&str, &str)], set: &[(&str, &str)]) {
    let mut outside = Outside::new(System::Sns);
    let project = project(&outside.name, profile);
    let files = files.iter().map(|(name, text)| {
        let file = project.write(&format!("keys/{name}"), text);
        (*name, file)
    });
    let files: Vec<_> = files.collect();
    let with = |args: &[&str]| {
        let mut command = command(&project, args);
        command.envs(files.clone()).envs(set.iter().copied());
        command
    };
    let output = with(&["check", "--connect"]).output().expect("it runs");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("credentials are there"), "{said}");
    let node = project.start_command(with(&["run"]));
    send(&project);
    let seen = || fs::read_to_string(project.path("seen.ndjson")).unwrap_or_default();
    project.wait("the message of the queue", || seen().contains("o-1"));
    project.wait("the message of the topic", || !outside.got().is_empty());
    assert_eq!(node.stop(), 0);
}

#[test]
fn keys_come_from_the_environment() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "token"),
    ];
    comes_through("", &[], &keys);
}

#[test]
fn keys_come_from_a_profile_in_the_files() {
    let keys = "[etl]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n";
    let files = [("AWS_SHARED_CREDENTIALS_FILE", keys)];
    comes_through(", profile: etl", &files, &[]);
}

#[test]
fn a_role_is_assumed_with_the_keys_of_another_profile() {
    let keys = "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = secret\n";
    let role = "[profile etl]\nrole_arn = arn:aws:iam::123456789012:role/etl\nsource_profile = base\nregion = eu-west-1\n";
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", keys),
        ("AWS_CONFIG_FILE", role),
    ];
    let url = aws::shared().url();
    comes_through(", profile: etl", &files, &[("AWS_ENDPOINT_URL_STS", &url)]);
}

#[test]
fn without_any_it_is_said_and_the_messages_wait() {
    let topic = unique("nobody");
    let project = project(&topic, "");
    let output = command(&project, &["check", "--connect"]).output();
    let output = output.expect("it runs");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no credentials"), "{said}");
    assert!(said.contains("set `AWS_ACCESS_KEY_ID`"), "{said}");
    let node = project.start_command(command(&project, &["run"]));
    send(&project);
    project.wait("the queue's log line", || {
        node.log().contains("the broker is away")
    });
    let topics = || project.json(&["queues", "--json"]).to_string();
    project.wait("the topic's circuit", || topics().contains("\"open\""));
    project.ok(&["audit"]);
    assert!(project.json_lines(&["dlq", "list", "--json"]).is_empty());
    assert_eq!(node.stop(), 0);
}
