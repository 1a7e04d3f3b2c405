//! A warehouse in a bucket, by the real program: loads, questions, upkeep, and
//! kills on the way.

use crate::support::seaweedfs::{self, SeaweedFs};
use crate::support::{Project, python};
use std::fmt::Write as _;

/// Files that come wait in `arrivals`.
const ARRIVALS: &str = "
sources:
  inbox: { folder: { path: inbox } }
queues:
  arrivals: {}
rules:
  arrived:
    pattern: { source: [pointsman.folder], detail-type: [Object Created] }
    targets: [{ queue: arrivals }]
";

const RULES: &str = r#"
rules:
  ready:
    pattern: { detail-type: [Analytics Ready], detail: { table: [orders] } }
    targets: [{ handler: keep }, { handler: replace }, { handler: add }, { handler: named }]
handlers:
  clean:
    from: arrivals
    transform:
      sql: select cast(id as bigint) as id, kind, cast(amount as decimal(9,2)) as amount from input
      write: { table: orders }
  keep: { load: { table: kept, mode: upsert, key: id } }
  replace: { load: { table: days, mode: replace-partition, partition_by: kind } }
  add: { load: { table: log } }
  named:
    transform:
      read: { input: publication }
      tables: { known: "warehouse:names" }
      sql: select input.id, known.name from input join known on input.kind = known.kind
      write: { table: named }
"#;

/// A project whose warehouse lies in `bucket`.
fn project(server: &SeaweedFs, bucket: &str) -> Project {
    let project = Project::new();
    let connection = server.connection();
    project.write(
        "pointsman.yaml",
        format!(
            "node:
  listen: 127.0.0.1:0
  warehouse: {{ s3: {{ connection: weed, bucket: {bucket}, prefix: house/tables }} }}
connections:
  weed: {connection}
"
        ),
    );
    project
}

/// The same, with a folder whose files go through `rules`.
fn pipeline(server: &SeaweedFs, bucket: &str, rules: &str) -> Project {
    let project = project(server, bucket);
    project.write("rules/arrivals.yaml", ARRIVALS);
    project.write("rules/tables.yaml", rules);
    project
}

/// Writes a table of the warehouse with somebody else's program.
const NAMES: &str = "
import deltalake, pyarrow, sys
options = {'AWS_ENDPOINT_URL': sys.argv[1], 'AWS_ACCESS_KEY_ID': sys.argv[3], 'AWS_SECRET_ACCESS_KEY': sys.argv[4],
  'AWS_REGION': 'us-east-1', 'AWS_ALLOW_HTTP': 'true', 'conditional_put': 'etag'}
names = pyarrow.table({'kind': ['a', 'b'], 'name': ['apples', 'bread']})
deltalake.write_deltalake(f's3://{sys.argv[2]}/house/tables/names', names, storage_options=options)
";

/// What somebody else's program reads in a table.
const READ: &str = "
import deltalake, sys
options = {'AWS_ENDPOINT_URL': sys.argv[1], 'AWS_ACCESS_KEY_ID': sys.argv[3], 'AWS_SECRET_ACCESS_KEY': sys.argv[4],
  'AWS_REGION': 'us-east-1', 'AWS_ALLOW_HTTP': 'true'}
table = deltalake.DeltaTable(f's3://{sys.argv[2]}/house/tables/{sys.argv[5]}', storage_options=options)
rows = table.to_pyarrow_table().to_pylist()
print(sorted((r['id'], r['kind'], str(r['amount'])) for r in rows), len(table.file_uris()))
";

fn other_program(script: &str, server: &SeaweedFs, bucket: &str, table: &str) -> String {
    let endpoint = server.endpoint();
    let args = [
        endpoint.as_str(),
        bucket,
        seaweedfs::KEY,
        seaweedfs::SECRET,
        table,
    ];
    python(script, &args).trim().to_owned()
}

#[test]
fn tables_in_a_bucket_are_loaded_asked_and_kept_in_order() {
    let server = seaweedfs::shared();
    let bucket = server.bucket("house");
    other_program(NAMES, server, &bucket, "names");
    let project = pipeline(server, &bucket, RULES);
    let files = [
        ("1.csv", "id,kind,amount\n1,a,1.10\n2,b,2.20\n"),
        ("2.csv", "id,kind,amount\n2,b,2.25\n3,b,3.30\n"),
    ];
    for (name, text) in files {
        project.drop_in(&format!("inbox/{name}"), text);
        project.ok(&["run", "--until-idle", "1"]);
    }
    let csv = |sql: &str| project.ok(&["query", sql, "--format", "csv"]);
    assert_eq!(
        csv("select * from kept order by id"),
        "id,kind,amount\n1,a,1.10\n2,b,2.25\n3,b,3.30\n"
    );
    assert_eq!(
        csv("select * from days order by id"),
        "id,kind,amount\n1,a,1.10\n2,b,2.25\n3,b,3.30\n"
    );
    assert_eq!(csv("select count(*) as n from log"), "n\n4\n");
    // A table of the warehouse is joined with.
    assert_eq!(
        csv("select * from lake.named order by id, name"),
        "id,name\n1,apples\n2,bread\n2,bread\n3,bread\n"
    );
    assert!(!project.path("data/warehouse").exists());
    // The server has no accounts to ask for, so not all is well.
    let probes = project.run(&["check", "--connect"]);
    let probes = crate::support::text(&probes.stdout);
    assert!(
        probes.contains("warehouse") && probes.contains("4 tables"),
        "{probes}"
    );
    let unknown = project.run(&["query", "select 1 from nope"]);
    let unknown = crate::support::text(&unknown.stderr);
    assert!(unknown.contains("days, kept, log, names"), "{unknown}");

    // Upkeep puts the files together; the rows stay, for others, too.
    let before = other_program(READ, server, &bucket, "log");
    assert!(before.ends_with(" 2"), "{before}");
    let told = project.ok(&["maintain", "log", "--keep", "0s"]);
    assert!(told.contains("log"), "{told}");
    let after = other_program(READ, server, &bucket, "log");
    assert_eq!(
        after,
        "[(1, 'a', '1.10'), (2, 'b', '2.20'), (2, 'b', '2.25'), (3, 'b', '3.30')] 1"
    );
    let script = "print(sum(o['Key'].endswith('.parquet') for o in s3.list_objects_v2(Bucket=sys.argv[2], Prefix='house/tables/log/')['Contents']))";
    assert_eq!(server.boto(script, &[&bucket]).trim(), "1");
    assert_eq!(csv("select count(*) as n from log"), "n\n4\n");
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
}

#[test]
fn a_warehouse_that_cannot_be_reached_is_no_empty_one() {
    let mut server = SeaweedFs::start();
    let bucket = server.bucket("away");
    let project = project(&server, &bucket);
    project.ok(&["run", "--until-idle", "0"]);
    server.stop();
    // An endpoint that refuses is asked several times, for a while.
    let asked = project.run(&["query", "select 1 from t"]);
    let said = crate::support::text(&asked.stderr);
    assert!(!asked.status.success());
    assert!(said.contains("of the warehouse cannot be opened"), "{said}");
}

const LOAD: &str = "
rules:
  ready:
    pattern: { detail-type: [Analytics Ready] }
    targets: [{ handler: add }, { handler: keep }]
handlers:
  clean:
    from: arrivals
    transform:
      sql: select cast(id as bigint) as id, v from input
      write: { table: rows }
  add: { load: { table: added }, batch: { size: 5, window: 100ms } }
  keep: { load: { table: kept, mode: upsert, key: id }, concurrency: 2 }
";

const FILES: usize = 12;
const ROWS: usize = 50;

#[test]
fn kills_between_two_nodes_load_each_file_once() {
    let server = seaweedfs::shared();
    let bucket = server.bucket("kills");
    // Two nodes, each with files of its own, write the same tables.
    let projects = [(); 2].map(|()| pipeline(server, &bucket, LOAD));
    for (at, project) in projects.iter().enumerate() {
        for file in 0..FILES {
            let mut text = "id,v\n".to_owned();
            for row in 0..ROWS {
                let id = (at * FILES + file) * ROWS + row;
                writeln!(text, "{id},{file}").expect("a line");
            }
            project.drop_in(&format!("inbox/{file}.csv"), text);
        }
    }
    let wanted = 2 * FILES * ROWS;
    let rows = |table: &str| {
        let sql = format!("select count(*) from {table}");
        projects[0].count(&sql).unwrap_or(0)
    };
    // Each node is killed whenever some more rows are there.
    let mut nodes = projects.each_ref().map(|project| Some(project.start()));
    for kill in 0..4 {
        let before = rows("added");
        let enough = || rows("added") > before || rows("added") == wanted as i64;
        projects[0].wait("more rows", enough);
        let at = kill % 2;
        if let Some(node) = nodes[at].take() {
            node.kill();
        }
        nodes[at] = Some(projects[at].start());
    }
    for table in ["added", "kept"] {
        projects[0].wait_for_count(table, wanted, || rows(table) as usize);
    }
    for project in &projects {
        project.wait_idle();
        assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
        assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    }
    for table in ["added", "kept"] {
        let distinct = format!("select count(distinct id) from {table}");
        assert_eq!(rows(table), wanted as i64, "{table}");
        assert_eq!(projects[1].count(&distinct), Some(wanted as i64), "{table}");
    }
}
