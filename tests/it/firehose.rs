//! Streams of custom events into well-sized partitioned files, with `kill -9`
//! in the middle: exactly one row per event.

use crate::support::Project;
use serde_json::{Value, json};
use std::time::Duration;

const PIPELINE: &str = "
queues: { clicks: {} }
rules:
  clicks: { pattern: { source: [shop] }, targets: [ { queue: clicks } ] }
handlers:
  store:
    from: clicks
    batch: { size: 400, bytes: 1MiB, window: 300ms, by: detail.shop }
    concurrency: 2
    retry: { attempts: 20, lost: 200, base: 50ms, cap: 500ms }
    transform:
      read: { input: events, schema: click.json }
      sql: select _event_id, n, shop, hour from input
      write: { table: clicks, partition_by: [hour, shop] }
";

const SCHEMA: &str = r#"{"type":"object","required":["n","shop","hour"],"properties":{
    "n":{"type":"integer"},"shop":{"type":"string"},"hour":{"type":"string"}}}"#;

/// Enough that each of four keys fills four batches.
const EVENTS: usize = 6_400;
const PART: usize = 800;

/// After a kill, what was on its way is handled one by one: few are enough.
const KILLED: usize = 480;
const KILLED_PART: usize = 80;

/// Events `from..from + count`, their ids computed.
fn events(from: usize, count: usize) -> String {
    (from..from + count)
        .map(|n| {
            let detail = json!({"n": n, "shop": format!("s{}", n % 4), "hour": format!("h{}", n / 3_000)});
            let event = json!({"id": format!("click-{n:06}"), "source": "shop", "detail-type": "Click", "detail": detail});
            format!("{event}\n")
        })
        .collect()
}

fn project() -> Project {
    let project = Project::new();
    project.write("rules/a.yaml", PIPELINE);
    project.write("click.json", SCHEMA);
    project
}

/// The detail of each publication's announcement.
fn manifests(project: &Project) -> Vec<Value> {
    let folder = project.path("data/lake/clicks/_manifests");
    let entries = std::fs::read_dir(folder)
        .expect("manifests")
        .map(|e| e.expect("an entry").path());
    let json = entries.filter(|path| path.extension().is_some_and(|e| e == "json"));
    json.map(|path| {
        serde_json::from_slice(&std::fs::read(path).expect("a manifest")).expect("JSON")
    })
    .collect()
}

const ROWS: &str =
    "select count(*) as n, count(distinct _event_id) as ids, sum(n) as total from lake.clicks";

#[test]
fn a_stream_lands_in_files_of_one_key_each() {
    let project = project();
    let node = project.start();
    for from in (0..EVENTS).step_by(PART) {
        let sent = project.run_with(&["send"], events(from, PART).as_bytes());
        assert!(sent.status.success());
    }
    project.wait_idle();
    assert_eq!(node.stop(), 0);
    let rows = project.ok(&["query", ROWS, "--format", "csv"]);
    let total = EVENTS * (EVENTS - 1) / 2;
    assert_eq!(
        rows.lines().nth(1),
        Some(format!("{EVENTS},{EVENTS},{total}").as_str())
    );
    let made = manifests(&project);
    for manifest in &made {
        let shops: std::collections::BTreeSet<&str> = manifest["outputs"]
            .as_array()
            .expect("outputs")
            .iter()
            .map(|o| o["partition"]["shop"].as_str().expect("a shop"))
            .collect();
        assert_eq!(shops.len(), 1, "{manifest}");
        assert!(manifest["rows_out"].as_u64().expect("a number") <= 400);
    }
    // Four keys, each gathered by number or window and not event by event.
    assert!(
        made.len() >= 16 && made.len() <= EVENTS / 10,
        "{} publications",
        made.len()
    );
}

#[test]
fn kills_in_the_middle_of_a_stream_leave_one_row_per_event() {
    let project = project();
    let mut unsent: Vec<usize> = (0..KILLED).step_by(KILLED_PART).collect();
    let mut kills = 0;
    while !unsent.is_empty() {
        let node = project.start();
        // What was not acknowledged is sent again, with the same ids.
        let batch: Vec<usize> = unsent.iter().copied().take(1).collect();
        for from in batch {
            let sent = project.run_with(&["send"], events(from, KILLED_PART).as_bytes());
            if sent.status.success() {
                unsent.retain(|other| *other != from);
            }
        }
        // Somewhere between the gathering of the batches and their settling.
        std::thread::sleep(Duration::from_millis(37 * (kills % 12)));
        node.kill();
        kills += 1;
    }
    // Some come again though they were acknowledged, as careful senders do.
    let node = project.start();
    assert!(
        project
            .run_with(&["send"], events(0, KILLED_PART).as_bytes())
            .status
            .success()
    );
    project.wait_idle();
    assert_eq!(node.stop(), 0);
    let rows = project.ok(&["query", ROWS, "--format", "csv"]);
    let total = KILLED * (KILLED - 1) / 2;
    assert_eq!(
        rows.lines().nth(1),
        Some(format!("{KILLED},{KILLED},{total}").as_str()),
        "after {kills} kills"
    );
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
    let audit = project.json(&["audit", "--json"]);
    assert_eq!(audit["balanced"], true, "{audit}");
}
