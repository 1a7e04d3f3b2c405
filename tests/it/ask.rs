//! Questions to the lake, the warehouse and single objects, and the upkeep of
//! the warehouse, as they are used: through the program.

use crate::support::{Project, python, text};

const CONFIGURATION: &str = "
node: { listen: 127.0.0.1:0 }
sources: { inbox: { folder: { path: inbox } } }
rules:
  arrived:
    pattern: { detail-type: [Object Created] }
    targets: [{ handler: clean }]
  ready:
    pattern: { detail-type: [Analytics Ready] }
    targets: [{ handler: into }]
handlers:
  clean:
    concurrency: 1
    transform:
      sql: select cast(id as bigint) as id, day from input
      write: { table: t, partition_by: day }
  into:
    concurrency: 1
    load: { table: t }
";

/// Three files of two rows, a day each, in the lake and in the warehouse.
fn project() -> Project {
    let project = Project::new();
    project.write("pointsman.yaml", CONFIGURATION);
    for n in 1..=3 {
        let content = format!("id,day\n{n},2024-01-0{n}\n{n}0,2024-01-0{n}\n");
        project.drop_in(&format!("inbox/{n}.csv"), content);
        project.ok(&["run", "--until-idle", "1"]);
    }
    project
}

#[test]
fn questions_have_answers_in_every_form_within_limits() {
    let project = project();
    let explained = project.ok(&[
        "query",
        "--explain",
        "select count(*) from lake.t where day = '2024-01-02'",
    ]);
    assert!(
        explained.contains("lake.t: 1 of 3 files are read (partitioned by day)"),
        "{explained}"
    );
    assert!(explained.contains("day=2024-01-02"), "{explained}");
    assert!(!explained.contains("day=2024-01-01"), "{explained}");

    let all = "select * from t order by id";
    let answer = project.path("answer.parquet");
    let answer = answer.to_str().expect("a path");
    project.ok(&["query", all, "--format", "parquet", "--output", answer]);
    let read = "import sys, polars; print(polars.read_parquet(sys.argv[1])['id'].to_list())";
    assert_eq!(python(read, &[answer]).trim(), "[1, 2, 3, 10, 20, 30]");
    let limited = project.ok(&["query", all, "--format", "csv", "--limit", "2"]);
    assert_eq!(limited, "id,day\n1,2024-01-01\n2,2024-01-02\n");

    let endless = "select max(value % 7) from generate_series(1, 1000000000000)";
    let late = project.run(&["query", endless, "--timeout", "1s"]);
    assert!(!late.status.success());
    let said = text(&late.stderr);
    assert!(said.contains("took longer than 1 s"), "{said}");
}

#[test]
fn one_object_is_asked_directly_if_it_is_declared() {
    let project = project();
    let sql = |from: &str| format!("select id from {from} where id > 1 order by id");
    let csv = |from: &str| project.ok(&["query", &sql(from), "--format", "csv"]);
    assert_eq!(csv("'inbox/1.csv'"), "id\n10\n");
    project.write("inbox/more/x.ndjson", "{\"id\": 1}\n{\"id\": 5}\n");
    assert_eq!(csv("'inbox/more/x.ndjson'"), "id\n5\n");
    project.write("secret.csv", "id\n5\n");
    project.write("inbox/x.xls", "id\n5\n");
    let outside = project.path("secret.csv");
    let refused = [
        ("inbox/../secret.csv", "leads out of source `inbox`"),
        (
            outside.to_str().expect("a path"),
            "no source is named ``; declared: inbox",
        ),
        (
            "elsewhere/1.csv",
            "no source is named `elsewhere`; declared: inbox",
        ),
        ("s3://elsewhere/1.csv", "no source is named `elsewhere`"),
        ("inbox/none.csv", "cannot be read"),
        ("inbox/x.xls", "no object that can be read"),
    ];
    for (name, reason) in refused {
        let output = project.run(&["query", &sql(&format!("'{name}'"))]);
        assert!(!output.status.success(), "{name}");
        let said = text(&output.stderr);
        assert!(said.contains(reason), "{name}: {said}");
    }
}

/// Parquet files in the table's folder.
fn files(project: &Project) -> usize {
    let entries = std::fs::read_dir(project.path("data/warehouse/t")).expect("a table");
    let names = entries.map(|entry| entry.expect("an entry").path());
    names
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .count()
}

const COUNTED: &str = "select count(*) from t";

#[test]
fn small_files_are_put_together_and_old_ones_removed() {
    let project = project();
    assert_eq!(files(&project), 3);
    let told = project.ok(&["maintain", "t", "--keep", "0s"]);
    assert_eq!(told, "t: 3 small files put together, 3 old files removed\n");
    assert_eq!((files(&project), project.count(COUNTED)), (1, Some(6)));
    let unknown = project.run(&["maintain", "u"]);
    assert!(text(&unknown.stderr).contains("the warehouse has no table `u`"));
}

#[test]
fn a_schedule_keeps_the_warehouse_in_order() {
    let project = project();
    assert_eq!(files(&project), 3);
    project.write(
        "rules/upkeep.yaml",
        "
rules:
  upkeep: { pattern: { detail-type: [Upkeep] }, targets: [{ handler: upkeep }] }
handlers:
  upkeep: { maintain: { warehouse: t, keep: 0s } }
schedules:
  often: { every: 1s, emit: { detail-type: Upkeep } }
",
    );
    let node = project.start();
    project.wait("the upkeep", || files(&project) == 1);
    assert_eq!(project.count(COUNTED), Some(6));
    assert_eq!(node.stop(), 0);
}
