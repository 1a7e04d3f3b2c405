//! Objects that a pattern names, in a bucket and in a folder: worked on together,
//! and asked as one table.

use crate::support::seaweedfs;
use crate::support::{Project, text};
use std::io::Write as _;

fn csv(project: &Project, sql: &str) -> String {
    project.ok(&["query", sql, "--format", "csv"])
}

fn refused(project: &Project, from: &str) -> String {
    let output = project.run(&["query", &format!("select * from '{from}'")]);
    assert!(!output.status.success(), "{from}");
    text(&output.stderr)
}

/// What lies under a table's manifests, with this ending.
fn publications(project: &Project, ending: &str) -> usize {
    let folder = project.path("data/lake/rows/_manifests");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .count()
}

const OBJECTS: i64 = 60;

#[test]
fn objects_of_a_bucket_go_together_and_each_once() {
    let server = seaweedfs::shared();
    let (raw, lake) = (server.bucket("globs"), server.bucket("lake"));
    let script = "
for n in range(int(sys.argv[3])):
    s3.put_object(Bucket=sys.argv[2], Key=f'2026/{n % 3}/f{n:02}.csv', Body=f'id,day\\n{n},d{n % 2}\\nbad,d1\\n'.encode())
s3.put_object(Bucket=sys.argv[2], Key='2026/0/broken.csv', Body=b'\\x1f\\x8b\\x08\\x00')
s3.put_object(Bucket=sys.argv[2], Key='2026/other.txt', Body=b'id\\n99\\n')
s3.put_object(Bucket=sys.argv[2], Key='2025/0/f.csv', Body=b'id,day\\n98,d0\\n')
";
    server.boto(script, &[&raw, &OBJECTS.to_string()]);
    let project = Project::new();
    project.write("row.json", r#"{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"day":{"type":"string"}}}"#);
    let connection = server.connection();
    project.write(
        "pointsman.yaml",
        format!(
            "
node: {{ listen: 127.0.0.1:0 }}
connections: {{ weed: {connection} }}
sources:
  raw: {{ s3: {{ connection: weed, bucket: {raw}, prefix: nothing/ }} }}
queues: {{ files: {{}} }}
rules:
  named: {{ pattern: {{ source: [ops, pointsman], detail-type: [Again, Object Created] }}, targets: [ {{ queue: files }} ] }}
handlers:
  store:
    from: files
    batch: {{ size: 20, window: 500ms }}
    retry: {{ attempts: 3, lost: 100, base: 50ms, cap: 200ms }}
    transform:
      read: {{ schema: row.json }}
      write: {{ table: rows, partition_by: day, s3: {{ connection: weed, bucket: {lake} }} }}
"
        ),
    );
    let event = format!(
        r#"{{"source":"ops","detail-type":"Again","detail":{{"bucket":{{"name":"{raw}"}},"object":{{"glob":"2026/*/*.csv"}}}}}}"#
    );
    let mut node = project.start();
    let count = "select count(*) from lake.rows";
    // The same objects are named twice, with a kill before the first are done.
    for round in 0..2 {
        let sent = project.run_with(&["send"], event.as_bytes());
        assert!(sent.status.success(), "{}", text(&sent.stderr));
        if round == 0 {
            project.wait("some rows", || project.count(count) > Some(0));
            node.kill();
            node = project.start();
        }
        let wanted = (round + 1) * OBJECTS;
        project.wait("all rows", || project.count(count) >= Some(wanted));
        project.wait_idle();
        // Named again, an object is an event of its own: its rows are there again.
        assert_eq!(project.count(count), Some(wanted));
        let dead = project.json_lines(&["dlq", "list", "--json"]);
        assert_eq!(dead.len() as i64, round + 1, "{dead:?}");
        assert!(dead[0].to_string().contains("broken.csv"), "{dead:?}");
    }
    assert_eq!(node.stop(), 0);
    let rejects = "select count(*) from rejects where code = 'WrongType'";
    assert_eq!(project.count(rejects), Some(2 * OBJECTS));
    let distinct = "select count(distinct id) from lake.rows where id < 98";
    assert_eq!(project.count(distinct), Some(OBJECTS));
    let (made, together) = (
        publications(&project, "json"),
        publications(&project, "causes"),
    );
    assert!(together > 0, "no objects went together");
    assert!(
        made < 2 * OBJECTS as usize,
        "each object has a publication of its own"
    );
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);

    // The same pattern is asked directly; a bad value makes its column text.
    let asked = |pattern: &str| {
        csv(
            &project,
            &format!("select count(*) as n, min(id) as id from 's3://{raw}/{pattern}'"),
        )
    };
    assert_eq!(asked("2026/*/f*.csv"), format!("n,id\n{},0\n", 2 * OBJECTS));
    assert_eq!(asked("2026/1/f?1.csv"), "n,id\n4,1\n");
    assert_eq!(asked("**/f.csv"), "n,id\n1,98\n");
    let said = refused(&project, &format!("s3://{raw}/2024/*.csv"));
    assert!(said.contains("no object matches `s3://"), "{said}");
    let said = refused(&project, "s3://elsewhere/*.csv");
    assert!(said.contains("no source is named `elsewhere`"), "{said}");
}

#[test]
fn files_of_several_forms_are_one_table() {
    let project = Project::new();
    project.write(
        "pointsman.yaml",
        "node: { listen: 127.0.0.1:0 }\nsources: { inbox: { folder: { path: inbox } } }\n",
    );
    project.ok(&["run", "--until-idle", "0"]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"v,id\nc,3\n").expect("memory");
    project.write("inbox/a/1.csv", "id,v\n1,a\n");
    project.write("inbox/a/2.csv", "id,v,more\n2.5,b,true\n");
    project.write("inbox/a/3.csv.gz", packed.finish().expect("memory"));
    project.write("inbox/a/4.ndjson", "{\"id\": 4, \"list\": [1, 2]}\n");
    project.write("inbox/a/5.csv", "id,v\n");
    project.write("inbox/a/6.csv", "");
    project.write("inbox/a/.hidden.csv", "id,v\n99,x\n");
    project.write("inbox/a/b/7.csv", "id,v\n7,g\n");
    assert_eq!(
        csv(&project, "select id, v, more from 'inbox/a/*' order by id"),
        "id,v,more\n1.0,a,\n2.5,b,true\n3.0,c,\n4.0,,\n"
    );
    assert_eq!(
        csv(
            &project,
            "select count(*) as n, max(id) as id from 'inbox/**/*.csv'"
        ),
        "n,id\n3,7.0\n"
    );
    // Whole numbers stay whole where all files have such.
    assert_eq!(
        csv(
            &project,
            "select id, v from 'inbox/**/[157].csv' order by id"
        ),
        "id,v\n1,a\n7,g\n"
    );
    // A name is a name, even if it looks like a pattern.
    project.write("inbox/[1].csv", "id\n11\n");
    project.write("inbox/1.csv", "id\n12\n");
    assert_eq!(csv(&project, "select id from 'inbox/[1].csv'"), "id\n11\n");
    project.write("inbox/x.xls", "id\n12\n");
    for (from, reason) in [
        ("inbox/[2].csv", "no object matches `inbox/[2].csv`"),
        ("inbox/*.xls", "no object that can be read"),
        ("inbox/[.csv", "is not a glob"),
        ("inbox/../*.csv", "no object matches"),
        ("elsewhere/*.csv", "no source is named `elsewhere`"),
    ] {
        let said = refused(&project, from);
        assert!(said.contains(reason), "{from}: {said}");
    }
}
