//! Many small files, one publication for a batch of them, with `kill -9` in the
//! middle; and the memory that sorts and aggregations take.

use crate::support::Project;
use std::time::Duration;

const PIPELINE: &str = "
node: { listen: 127.0.0.1:0, query_memory: 32MiB }
sources: { inbox: { folder: { path: inbox } } }
queues: { files: {} }
rules:
  files: { pattern: { source: [pointsman.folder], detail-type: [Object Created] }, targets: [ { queue: files } ] }
  named: { pattern: { source: [pointsman], detail-type: [Object Created] }, targets: [ { queue: files } ] }
  globs: { pattern: { source: [ops] }, targets: [ { queue: files } ] }
handlers:
  store:
    from: files
    batch: { size: 40, window: 200ms }
    retry: { attempts: 20, lost: 200, base: 50ms, cap: 500ms }
    transform:
      read: { schema: row.json }
      write: { table: rows }
";

const SCHEMA: &str =
    r#"{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}"#;

/// Files that are dropped in before each kill, and kills.
const PART: usize = 40;
const KILLS: usize = 6;

#[test]
fn kills_while_small_files_arrive_leave_each_row_once() {
    let project = Project::new();
    project.write("pointsman.yaml", PIPELINE);
    project.write("row.json", SCHEMA);
    let mut rows = 0;
    for kill in 0..KILLS {
        let node = project.start();
        for n in kill * PART..(kill + 1) * PART {
            project.drop_in(
                &format!("inbox/f{n}.csv"),
                format!("id\n{}\n{}\nbad\n", 2 * n, 2 * n + 1),
            );
            rows += 2;
        }
        let broken = format!("inbox/broken{kill}.csv.gz");
        project.drop_in(&broken, [0x1f, 0x8b, 8, 0]);
        // Somewhere between the gathering of a batch and its settling.
        std::thread::sleep(Duration::from_millis(
            140 * u64::try_from(kill).expect("small"),
        ));
        node.kill();
    }
    let node = project.start();
    let count = "select count(*) from lake.rows";
    project.wait("all rows", || project.count(count) >= Some(rows));
    project.wait_idle();
    assert_eq!(node.stop(), 0);
    let found = project.ok(&[
        "query",
        "select count(*), count(distinct id), sum(id) from lake.rows",
        "--format",
        "csv",
    ]);
    let expected = format!("{rows},{rows},{}", rows * (rows - 1) / 2);
    assert_eq!(found.lines().nth(1), Some(expected.as_str()));
    let rejects = "select count(distinct key) from rejects where code = 'WrongType'";
    assert_eq!(project.count(rejects), Some(rows / 2));
    // The broken ones took nobody with them.
    let dead = project.json_lines(&["dlq", "list", "--json"]);
    assert_eq!(dead.len(), KILLS, "{dead:?}");
    let audit = project.json(&["audit", "--json"]);
    assert_eq!(audit["balanced"], true, "{audit}");
}

#[test]
fn files_that_a_pattern_names_come_by_themselves() {
    let project = Project::new();
    // Nobody watches the folder: an event alone names what is in it.
    let pipeline = PIPELINE.replace("source: [pointsman.folder]", "source: [nobody]");
    project.write("pointsman.yaml", pipeline);
    project.write("row.json", SCHEMA);
    for n in 0..30 {
        project.write(&format!("inbox/2026/f{n}.csv"), format!("id\n{n}\n"));
    }
    project.write("inbox/2026/other.txt", "id\n99\n");
    let node = project.start();
    let event = r#"{"source":"ops","detail-type":"Again","detail":{"bucket":{"name":"inbox"},"object":{"glob":"2026/*.csv"}}}"#;
    assert!(
        project
            .run_with(&["send"], event.as_bytes())
            .status
            .success()
    );
    project.wait("the rows", || {
        project.count("select count(*) from lake.rows") == Some(30)
    });
    project.wait_idle();
    assert_eq!(node.stop(), 0);
    let manifests =
        std::fs::read_dir(project.path("data/lake/rows/_manifests")).expect("manifests");
    let made = manifests.filter(|e| {
        let path = e.as_ref().expect("an entry").path();
        path.extension().is_some_and(|ending| ending == "json")
    });
    assert!(made.count() < 30, "each file has a publication of its own");
}

const HEAVY: &str = "
node: { listen: 127.0.0.1:0, query_memory: 64MiB }
sources: { inbox: { folder: { path: inbox } } }
rules:
  sort: { pattern: { detail-type: [Object Created], detail: { object: { key: [ { prefix: s } ] } } }, targets: [ { handler: sorted } ] }
  group: { pattern: { detail-type: [Object Created], detail: { object: { key: [ { prefix: g } ] } } }, targets: [ { handler: grouped } ] }
handlers:
  sorted:
    transform: { sql: 'select * from input order by key, pad', write: { table: sorted } }
  grouped:
    transform: { sql: 'select key, max(pad) as pad, count(*) as n from input group by key', write: { table: grouped } }
";

/// Rows of half a kilobyte each, in no order.
fn wide(rows: u64) -> String {
    let mut text = String::from("key,pad\n");
    for n in 0..rows {
        let key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        text.push_str(&format!("k{key:014},{}\n", format!("{key:08x}").repeat(60)));
    }
    text
}

/// The most memory that a process has had, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        / 1024
}

/// What a node takes at most for `rows` rows through a sort and an aggregation.
fn peak_for(rows: u64) -> u64 {
    let project = Project::new();
    project.write("pointsman.yaml", HEAVY);
    let node = project.start();
    let text = wide(rows);
    for table in ["sorted", "grouped"] {
        project.drop_in(&format!("inbox/{table}.csv"), &text);
        let count = format!("select count(*) from lake.{table}");
        project.wait(table, || project.count(&count) == i64::try_from(rows).ok());
    }
    project.wait_idle();
    let peak = peak_mib(node.pid());
    assert_eq!(node.stop(), 0);
    peak
}

/// Sorted and grouped in memory, the rows would take several times what a query may
/// have; what a node takes beyond one that has seen a few rows only is the bound that
/// the documentation states.
#[test]
fn sorts_and_aggregations_stay_within_their_memory() {
    let few = peak_for(1_000);
    let many = peak_for(400_000);
    let bound = 64 + 48;
    assert!(
        many < few + bound,
        "{few} MiB for few rows, {many} MiB for many"
    );
}
