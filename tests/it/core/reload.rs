//! New rules while the node runs: all or none, and nothing in flight is lost.

use crate::support::{Project, Running, text};
use serde_json::Value;
use std::fs;

const ORDER: &[u8] = br#"{"source":"shop","detail-type":"Order","detail":{"n":1}}"#;

/// One rule that leads every event of `shop` to a program which notes its name.
fn rules(name: &str, script: &str) -> String {
    format!(
        r#"
rules:
  {name}:
    pattern: {{ source: [shop] }}
    targets: [ {{ handler: {name} }} ]
handlers:
  {name}:
    exec: {{ command: [sh, -c, "{script}"] }}
"#
    )
}

fn note(name: &str) -> String {
    rules(name, &format!("echo {name} >> seen"))
}

fn seen(project: &Project) -> Vec<String> {
    let text = fs::read_to_string(project.path("seen")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn send(project: &Project) {
    let sent = project.run_with(&["send"], ORDER);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
}

fn route(project: &Project, name: &str) -> Option<Value> {
    let routes = project.json(&["queues", "--json"]);
    let mut routes = routes.as_array().expect("routes").clone().into_iter();
    routes.find(|route| route["route"] == name && route["retired"] == false)
}

#[test]
fn a_rule_that_is_added_changed_or_removed_is_so_after_a_reload() {
    let project = Project::new();
    project.write("rules/a.yaml", note("a"));
    let node = project.start();
    project.write("rules/b.yaml", note("b"));
    let said = project.ok(&["reload"]);
    assert!(
        said.contains("added rules b") && said.contains("added handlers b"),
        "{said}"
    );
    send(&project);
    project.wait("both", || seen(&project).len() == 2);

    project.write("rules/b.yaml", note("b").replace("echo b", "echo new-b"));
    fs::remove_file(project.path("rules/a.yaml")).expect("it is there");
    let said = project.ok(&["reload"]);
    assert!(said.contains("retired a/a"), "{said}");
    send(&project);
    project.wait_idle();
    let mut all = seen(&project);
    all.sort();
    assert_eq!(all, ["a", "b", "new-b"]);
    assert_eq!(project.ok(&["reload"]).trim(), "nothing changed");
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_bad_file_is_refused_with_its_place_and_the_old_rules_stay() {
    let project = Project::new();
    project.write("rules/a.yaml", note("a"));
    let node = project.start();
    project.write("rules/b.yaml", "rules: { b: { patern: {} } }\n");
    let refused = project.run(&["reload"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("rules/b.yaml:1:") && said.contains("did you mean `pattern`?"),
        "{said}"
    );
    assert!(said.contains("the old rules stay in force"), "{said}");

    hang_up(&node);
    project.wait("the refusal of the signal", || {
        node.log().contains("reload refused")
    });
    send(&project);
    project.wait("the old rule", || seen(&project) == ["a"]);
    assert_eq!(node.stop(), 0);
}

fn hang_up(node: &Running) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(node.pid()).expect("a pid"));
    let pid = pid.expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal");
}

#[test]
fn work_under_way_is_finished_by_the_old_handler_and_counted_once() {
    let project = Project::new();
    let wait =
        "echo old-begins >> seen; while test ! -e go; do sleep 0.02; done; echo old-ends >> seen";
    project.write("rules/a.yaml", rules("a", wait));
    let node = project.start();
    send(&project);
    project.wait("the old handler", || seen(&project) == ["old-begins"]);
    project.write("rules/a.yaml", note("a"));
    hang_up(&node);
    project.wait("the reload", || node.log().contains("reloaded"));
    send(&project);
    // The new one waits for the old one, or two would run where one may.
    assert_eq!(seen(&project), ["old-begins"]);
    project.write("go", "");
    project.wait_idle();
    assert_eq!(seen(&project), ["old-begins", "old-ends", "a"]);
    let audit = project.json(&["audit", "--json"]);
    let ledger = &audit["ledger"]["routes"][0];
    assert_eq!(
        (&ledger["delivered"], &ledger["retried"]),
        (&2.into(), &0.into())
    );
    assert_eq!(node.stop(), 0);
}

/// A queue with three messages that nobody reads, and another one.
fn backlog() -> (Project, Running) {
    let project = Project::new();
    project.write(
        "rules/a.yaml",
        "
queues: { old: {}, new: {} }
rules:
  a: { pattern: { source: [shop] }, targets: [ { queue: old } ] }
  b: { pattern: { source: [other] }, targets: [ { queue: new } ] }
",
    );
    let node = project.start();
    for _ in 0..3 {
        send(&project);
    }
    project.write(
        "rules/a.yaml",
        "
queues: { new: {} }
rules:
  b: { pattern: { source: [other] }, targets: [ { queue: new } ] }
",
    );
    (project, node)
}

#[test]
fn a_route_with_a_backlog_is_not_removed_unless_told_where_it_goes() {
    let (project, node) = backlog();
    let refused = project.run(&["reload"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("`a/old` (3)") && said.contains("--backlog"),
        "{said}"
    );
    assert_eq!(route(&project, "a/old").expect("it stays")["pending"], 3);

    let wrong = project.run(&["reload", "--backlog", "a/old=move-to:nowhere"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong.stderr));
    let wrong = project.run(&["reload", "--backlog", "a/old=elsewhere"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));

    let said = project.ok(&["reload", "--backlog", "a/old=move-to:b/new"]);
    assert!(said.contains("retired a/old: 3 messages"), "{said}");
    assert_eq!(route(&project, "a/old"), None);
    assert_eq!(route(&project, "b/new").expect("it is there")["pending"], 3);
    let audit = project.json(&["audit", "--json"]);
    assert_eq!(audit["balanced"], true, "{audit}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_backlog_is_dropped_when_told_so_and_the_ledger_says_it() {
    let (project, node) = backlog();
    project.ok(&["reload", "--backlog", "a/old=drop"]);
    assert_eq!(route(&project, "a/old"), None);
    let audit = project.json(&["audit", "--json"]);
    assert_eq!(audit["balanced"], true, "{audit}");
    let routes = audit["ledger"]["routes"].as_array().expect("routes");
    let old = routes
        .iter()
        .find(|r| r["name"] == "a/old")
        .expect("it is told");
    assert_eq!(old["purged"], 3);
    assert_eq!(node.stop(), 0);
}

#[test]
fn sources_topics_and_schemas_are_replaced_too() {
    let project = Project::new();
    project.write(
        "rules/a.yaml",
        "sources: { one: { folder: { path: one } } }\n",
    );
    let node = project.start();
    project.write(
        "rules/a.yaml",
        "
sources: { two: { folder: { path: two } } }
rules:
  files: { pattern: { detail-type: [Object Created] }, targets: [ { topic: told } ] }
topics: { told: { subscriptions: { later: { pull: {} } } } }
",
    );
    project.write(
        "schemas/order.json",
        r#"{ "x-pointsman": { "source": "shop", "detail-type": "Order" }, "required": ["total"] }"#,
    );
    project.ok(&["reload"]);
    let sources = project.json(&["sources", "--json"]);
    assert_eq!(sources.as_object().expect("sources").len(), 1, "{sources}");
    project.drop_in("one/x.csv", "1\n");
    project.drop_in("two/y.csv", "1\n");
    project.wait("the message", || {
        route(&project, "topic/told/later").is_some_and(|r| r["pending"] == 1)
    });
    let events = project.json_lines(&["events", "list", "--bus", "default", "--json"]);
    assert_eq!(events.len(), 1, "the old folder is left alone: {events:?}");
    let refused = project.run_with(&["send"], ORDER);
    assert!(
        text(&refused.stderr).contains("total"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn settings_of_the_node_wait_for_a_restart_and_are_named() {
    let project = Project::new();
    project.write("rules/a.yaml", note("a"));
    let node = project.start();
    project.write(
        "pointsman.yaml",
        "node: { listen: 127.0.0.1:0, retention: 1d }\n",
    );
    let reloaded = project.run(&["reload"]);
    let said = text(&reloaded.stderr);
    assert!(said.contains("node.retention"), "{said}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_node_that_watches_reloads_when_a_file_changes() {
    let project = Project::new();
    project.write("rules/a.yaml", note("a"));
    let node = project.start_with(&["--watch"]);
    project.write("rules/b.yaml", note("b"));
    project.wait("the new rule", || {
        send(&project);
        seen(&project).contains(&"b".to_owned())
    });
    assert_eq!(node.stop(), 0);
}
