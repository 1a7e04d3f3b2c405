//! The shipped examples, as a newcomer meets them.

use crate::support::{Project, python};
use serde_json::Value;

/// Facts about the nine sample files, computed with DuckDB.
const ROWS: i64 = 7_968;
const CANCELLED: i64 = 1_023;
const DISTANCE: i64 = 8_259_280;
/// Good and bad rows of the file that is broken on purpose.
const BROKEN_GOOD: i64 = 7;
const BROKEN_BAD: i64 = 5;

#[test]
fn flights_go_from_the_folder_to_the_warehouse_with_nothing_typed() {
    let project = Project::shipped();
    let node = project.start();
    let loaded = || project.count("select count(*) from flights") == Some(ROWS + BROKEN_GOOD);
    project.wait("the samples to be loaded", loaded);
    project.wait_idle();

    let count = |sql: &str| project.count(sql).unwrap_or_else(|| panic!("{sql}"));
    assert_eq!(
        count("select count(*) from lake.flights"),
        ROWS + BROKEN_GOOD
    );
    assert_eq!(count("select count(*) from flights where month <> 3"), ROWS);
    assert_eq!(
        count("select count(*) from flights where month <> 3 and cancelled"),
        CANCELLED
    );
    assert_eq!(
        count("select cast(sum(distance) as bigint) from flights where month <> 3"),
        DISTANCE
    );
    assert_eq!(
        count("select count(*) from flights where airline is null"),
        0
    );

    let rejects = project.ok(&[
        "query",
        "select line, message from rejects order by line",
        "--format",
        "json",
    ]);
    assert_eq!(rejects.lines().count() as i64, BROKEN_BAD, "{rejects}");
    for line in rejects.lines() {
        let reject: Value = serde_json::from_str(line).expect("JSON");
        assert!(
            reject["line"].as_i64().is_some_and(|line| line > 1),
            "{line}"
        );
        assert!(
            !reject["message"].as_str().unwrap_or_default().is_empty(),
            "{line}"
        );
    }
    let notices = project.json_lines(&[
        "events",
        "list",
        "--bus",
        "topic/etl-complete",
        "--limit",
        "100",
        "--json",
    ]);
    assert_eq!(
        notices.len(),
        20,
        "a notice per file from each of two handlers"
    );
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
    assert_eq!(node.stop(), 0);

    // The same questions are answered while nothing runs.
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
    assert_eq!(count("select count(*) from flights"), ROWS + BROKEN_GOOD);
}

#[test]
fn a_trace_leads_from_the_file_to_the_table() {
    let project = Project::shipped();
    let node = project.start();
    project.wait("the samples to be loaded", || {
        project.count("select count(*) from flights") == Some(ROWS + BROKEN_GOOD)
    });
    project.wait_idle();
    let ready = project.json_lines(&[
        "events",
        "list",
        "--bus",
        "default",
        "--detail-type",
        "Analytics Ready",
        "--limit",
        "1",
        "--json",
    ]);
    let id = ready[0]["id"].as_str().expect("an id");
    let tree = project.json(&["trace", id, "--json"]);
    let root = &tree[0];
    assert_eq!(root["detail_type"], "Object Created");
    assert_eq!(root["routes"][0]["state"], "delivered");
    let caused = root["caused"].as_array().expect("children");
    let emitted = caused
        .iter()
        .find(|c| c["detail_type"] == "Analytics Ready")
        .expect("the emitted event");
    assert_eq!(emitted["asked"], true);
    assert_eq!(emitted["routes"][0]["route"], "flights-ready/load-flights");
    assert_eq!(emitted["routes"][0]["state"], "delivered");
    let notice = &emitted["caused"][0];
    assert_eq!(notice["bus"], "topic/etl-complete");
    let drawn = project.ok(&["trace", id]);
    assert!(
        drawn.contains("└─") && drawn.contains("<- asked"),
        "{drawn}"
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn the_warehouse_opens_in_other_peoples_readers() {
    let project = Project::shipped();
    let status = project.ok(&["run", "--until-idle", "2"]);
    assert_eq!(status, "");
    let table = project.path("data/warehouse/flights");
    let script = r#"
import sys, json
from deltalake import DeltaTable
import polars, duckdb
path = sys.argv[1]
table = DeltaTable(path)
arrow = table.to_pyarrow_table()
pandas = table.to_pandas()
frame = polars.read_delta(path)
files = [f for f in table.file_uris()]
duck = duckdb.sql(f"select count(*), sum(distance)::bigint, min(sched_dep)::varchar from read_parquet({files!r})").fetchall()[0]
print(json.dumps({
    "arrow": arrow.num_rows, "pandas": len(pandas),
    "polars": [frame.height, int(frame["distance"].sum())],
    "duckdb": list(duck), "keys": frame.select("carrier", "flight", "origin", "sched_dep").unique().height,
}))
"#;
    let read: Value =
        serde_json::from_str(&python(script, &[&table.to_string_lossy()])).expect("JSON");
    let rows = ROWS + BROKEN_GOOD;
    assert_eq!(read["arrow"], rows, "{read}");
    assert_eq!(read["pandas"], rows);
    assert_eq!(read["polars"][0], rows);
    assert_eq!(read["duckdb"][0], rows);
    assert_eq!(read["duckdb"][1], read["polars"][1]);
    assert_eq!(read["keys"], rows, "one row per key");
}

#[test]
fn clickstream_events_land_as_partitioned_files_once() {
    let project = Project::new();
    crate::support::copy(
        &crate::support::repo().join("examples/clickstream"),
        project.root(),
    );
    let config = std::fs::read_to_string(project.path("pointsman.yaml")).expect("the example");
    project.write(
        "pointsman.yaml",
        config.replace("127.0.0.1:7071", "127.0.0.1:0"),
    );
    let events = std::fs::read_to_string(project.path("clicks.ndjson")).expect("the sample");
    let total = events.lines().count() as i64;
    let node = project.start();
    project.ok(&["send", "clicks.ndjson"]);
    // Sent again, as a client does that missed the answer.
    let again = project.ok(&["send", "clicks.ndjson"]);
    assert_eq!(
        again.matches("had it already").count() as i64,
        total,
        "{again}"
    );
    project.wait("the events to land", || {
        project.count("select count(*) from lake.clicks") == Some(total)
    });
    project.wait_idle();
    let merchants = project
        .count("select count(distinct merchant) from lake.clicks")
        .expect("merchants");
    assert!(merchants > 1, "partitioned by merchant");
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
    assert_eq!(node.stop(), 0);
}

#[test]
fn one_file_becomes_bronze_silver_and_gold() {
    let project = Project::new();
    crate::support::copy(
        &crate::support::repo().join("examples/medallion"),
        project.root(),
    );
    let config = std::fs::read_to_string(project.path("pointsman.yaml")).expect("the example");
    project.write(
        "pointsman.yaml",
        config.replace("127.0.0.1:7072", "127.0.0.1:0"),
    );
    project.ok(&["run", "--until-idle", "2"]);
    assert_eq!(project.count("select count(*) from lake.bronze"), Some(120));
    assert_eq!(project.count("select count(*) from lake.silver"), Some(118));
    let rescued = "select count(*) from lake.silver where _rescued is not null";
    assert_eq!(project.count(rescued), Some(40));
    assert_eq!(project.count("select count(*) from gold"), Some(6));
    assert_eq!(project.count("select sum(sales) from gold"), Some(118));
    // A corrected file of the second day replaces that day's figures.
    let second = project.path("inbox/sales-2026-03-02.csv");
    let mended = std::fs::read_to_string(&second)
        .expect("the sample")
        .replace("desert", "harbour");
    project.drop_in("inbox/sales-2026-03-02.csv", mended);
    project.ok(&["run", "--until-idle", "2"]);
    assert_eq!(project.count("select sum(sales) from gold"), Some(119));
    assert_eq!(project.count("select count(*) from gold"), Some(6));
    let bronze = "select count(*) from lake.bronze where file = 'sales-2026-03-02.csv'";
    assert_eq!(project.count(bronze), Some(80));
    // The upkeep puts small files together; nothing is old yet.
    let event = r#"{"source":"test","detail-type":"Upkeep","detail":{}}"#;
    project.run_with(&["send"], event.as_bytes());
    project.ok(&["run", "--until-idle", "2"]);
    assert_eq!(project.count("select count(*) from lake.bronze"), Some(160));
    let manifests = project.path("data/lake/bronze/_manifests");
    let compacted = std::fs::read_dir(manifests)
        .expect("manifests")
        .map(|e| std::fs::read_to_string(e.expect("an entry").path()).expect("a manifest"))
        .filter(|text| text.contains("\"replaces\""))
        .count();
    assert!(compacted > 0, "nothing was put together");
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
}
