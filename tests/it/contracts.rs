//! What events must look like when they come in, and what targets get.

use crate::support::{Project, text};
use serde_json::Value;

const ORDER: &str = r#"{"source":"shop","detail-type":"Order Placed","detail":{"id":"o-1","total":12.50,"items":[{"sku":"a"}]}}"#;

fn shop(target: &str) -> Project {
    let project = Project::new();
    project.write(
        "rules/shop.yaml",
        format!(
            r#"
rules:
  placed:
    pattern: {{ source: [shop] }}
    targets: [ {target} ]
handlers:
  keep: {{ exec: {{ command: [sh, -c, "cat >> seen.ndjson"] }} }}
topics:
  orders: {{ subscriptions: {{ all: {{ pull: {{}} }} }} }}
"#
        ),
    );
    project
}

#[test]
fn a_target_gets_what_its_transformer_makes_of_the_event() {
    let project = shop(
        r#"{ handler: keep, input_transformer: { paths: { id: $.detail.id, total: $.detail.total, none: $.detail.none }, template: '{"order": <id>, "said": "<id> costs <total>", "rule": <aws.events.rule-name>, "none": <none>}' } }, { topic: orders, input_path: $.detail }"#,
    );
    project.ok(&["run", "--until-idle", "0.2"]);
    project.run_with(&["send"], ORDER.as_bytes());
    project.ok(&["run", "--until-idle", "0.5"]);
    let seen = std::fs::read_to_string(project.path("seen.ndjson")).expect("the handler ran");
    assert_eq!(
        seen.trim(),
        r#"{"order": "o-1", "said": "o-1 costs 12.50", "rule": "placed", "none": ""}"#
    );
    let messages = project.json_lines(&["events", "list", "--bus", "topic/orders", "--json"]);
    assert_eq!(messages[0]["event"]["detail"]["total"], 12.5);
}

const SCHEMA: &str = r#"{
  "x-pointsman": { "source": "shop", "detail-type": "Order Placed", "policy": "POLICY" },
  "type": "object",
  "required": ["id", "total"],
  "properties": { "id": { "type": "string" }, "total": { "type": "number", "minimum": 0 } }
}"#;

#[test]
fn an_event_that_breaks_its_schema_is_refused_with_path_and_reason() {
    let project = shop("{ handler: keep }");
    project.write("schemas/order.json", SCHEMA.replace("POLICY", "reject"));
    let node = project.start();
    assert!(
        project
            .run_with(&["send"], ORDER.as_bytes())
            .status
            .success()
    );
    let bad = ORDER.replace("12.50", "-1");
    let refused = project.run_with(&["send"], bad.as_bytes());
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("-1 is less than the minimum of 0"), "{said}");
    // With the path, for programs.
    let script = "import sys, urllib.request, urllib.error\n\
try: urllib.request.urlopen(sys.argv[1] + '/events', data=sys.argv[2].encode())\n\
except urllib.error.HTTPError as e: print(e.code, e.read().decode())";
    let url = node
        .log()
        .lines()
        .find_map(|line| {
            Some(
                line.split_once("http=")?
                    .1
                    .split_whitespace()
                    .next()?
                    .to_owned(),
            )
        })
        .expect("the address in the log");
    let answer = crate::support::python(script, &[&url, &bad]);
    assert!(
        answer.starts_with("400 ") && answer.contains(r#""path":"detail.total""#),
        "{answer}"
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn an_event_that_breaks_its_schema_can_be_kept_as_a_dead_letter() {
    let project = shop("{ handler: keep }");
    project.write(
        "schemas/order.json",
        SCHEMA.replace("POLICY", "dead-letter"),
    );
    project.ok(&["run", "--until-idle", "0.2"]);
    let sent = project.run_with(&["send"], ORDER.replace("12.50", "\"free\"").as_bytes());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    project.ok(&["run", "--until-idle", "0.5"]);
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0].to_string().contains("detail.total"),
        "{}",
        letters[0]
    );
    assert!(!project.path("seen.ndjson").exists(), "no rule saw it");
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
}

#[test]
fn a_schema_is_inferred_from_what_came_and_holds_for_it() {
    let project = shop("{ handler: keep }");
    project.ok(&["run", "--until-idle", "0.2"]);
    for n in 1..4 {
        let order = ORDER
            .replace("o-1", &format!("o-{n}"))
            .replace("12.50", &n.to_string());
        project.run_with(&["send"], order.as_bytes());
    }
    let schema = project.ok(&[
        "schema",
        "infer",
        "--source",
        "shop",
        "--detail-type",
        "Order Placed",
    ]);
    let parsed: Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(parsed["properties"]["total"]["type"], "integer");
    project.write("schemas/order.json", schema);
    project.ok(&["check"]);
    let refused = project.run_with(&["send"], ORDER.replace("12.50", "\"x\"").as_bytes());
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stdout));
    let none = project.run(&["schema", "infer", "--source", "mill", "--detail-type", "T"]);
    assert!(
        text(&none.stderr).contains("no event of source `mill`"),
        "{}",
        text(&none.stderr)
    );
}

#[test]
fn match_explains_itself_and_names_the_rules_that_come_closest() {
    let project = Project::new();
    project.write(
        "rules/shop.yaml",
        r#"
rules:
  large:
    pattern: { source: [shop], detail: { total: [ { numeric: [ ">", 100 ] } ] } }
    targets: [ { topic: all } ]
  far:
    pattern: { source: [mill], detail-type: [Grain], detail: { total: [ 1 ] } }
    targets: [ { topic: all } ]
topics: { all: {} }
"#,
    );
    let explained = project.run(&["match", "--rules", ".", "--event", ORDER, "--near", "1"]);
    assert_eq!(explained.status.code(), Some(1));
    let said = text(&explained.stdout);
    assert!(
        said.contains("rule large") && !said.contains("rule far"),
        "{said}"
    );
    assert!(
        said.contains("detail.total") && said.contains("12.50"),
        "{said}"
    );
}
