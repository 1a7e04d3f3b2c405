//! The road of the shipped example: daily CSV files into a warehouse table.

use super::world::{World, emitted, handle, options};
use pointsman::event::Event;
use pointsman::handlers::load::options::Mode;
use pointsman::handlers::transform::check_sql;
use pointsman::handlers::transform::options::{Reference, TransformOptions};
use std::path::{Path, PathBuf};

const SQL: &str = "
    select carrier, airlines.name as airline, flight, tailnum, origin, dest,
      to_timestamp_micros(
        (cast(make_date(year, month, day) as bigint) * 1440 + hour * 60 + minute) * 60000000
      ) as sched_dep,
      dep_delay, arr_delay, dep_time is null as cancelled, distance, month
    from input left join airlines using (carrier)";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn sample() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("examples/flights/inbox")).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "csv"))
        .filter(|p| !p.to_string_lossy().contains("broken"))
        .collect();
    files.sort();
    files
}

pub fn flights() -> TransformOptions {
    let mut options = options();
    let path = root().join("schemas/flight.json");
    let schema = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    options.read.schema = Some((schema, path));
    options.tables.insert(
        "airlines".to_owned(),
        Reference::File(root().join("examples/flights/airlines.csv")),
    );
    options.sql = Some(SQL.to_owned());
    options.write.table = "flights".to_owned();
    options.write.partition_by = vec!["month".to_owned()];
    options
}

fn upsert() -> Mode {
    let key = ["carrier", "flight", "origin", "sched_dep"];
    Mode::upsert(key.map(str::to_owned).to_vec())
}

fn copies(world: &World) -> Vec<Event> {
    let copy = |path: &PathBuf| {
        let key = path.file_name().unwrap().to_str().unwrap();
        world.file(key, std::fs::read(path).unwrap())
    };
    sample().iter().map(copy).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_goes_from_csv_to_a_warehouse_table() {
    let world = World::new();
    let (transform, load) = (world.transform(flights()), world.load("flights", upsert()));
    let mut lines = 0;
    for (i, event) in copies(&world).into_iter().enumerate() {
        let done = handle(&transform, event).await.unwrap();
        assert_eq!(done.emits[0].detail_type, "Analytics Ready");
        assert_eq!(done.summary["rejects"]["count"], 0, "{}", done.summary);
        lines += done.summary["rows_in"].as_u64().unwrap();
        handle(&load, emitted(&done, &format!("ready-{i}")))
            .await
            .unwrap();
    }
    assert_eq!(lines, 7968);
    assert_eq!(world.csv("select count(*) from flights").await, "7968");
    assert_eq!(
        world
            .csv("select count(*), count(distinct month) from lake.flights")
            .await,
        "7968,3"
    );
    let cancelled = world
        .csv("select count(*) from flights where cancelled")
        .await;
    let missing: usize = sample()
        .iter()
        .flat_map(|p| {
            std::fs::read_to_string(p)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|line| line.split(',').nth(3) == Some("NA"))
        .count();
    assert_eq!(cancelled, missing.to_string());
    assert_eq!(
        world.csv("select airline, sched_dep, month from flights where flight = 1545 and carrier = 'UA' and month = 1 order by sched_dep limit 1").await,
        "United Air Lines Inc.,2013-01-01T05:15:00Z,1"
    );
    let partition = world
        .csv("select count(*) from lake.flights where month = 7")
        .await;
    assert_eq!(
        partition,
        world
            .csv("select count(*) from flights where month = 7")
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_again_changes_nothing() {
    let world = World::new();
    let (transform, load) = (world.transform(flights()), world.load("flights", upsert()));
    let event = copies(&world).remove(0);
    let first = handle(&transform, event.clone()).await.unwrap();
    let again = handle(&transform, event).await.unwrap();
    assert_eq!(first.emits[0].detail, again.emits[0].detail);
    let loaded = handle(&load, emitted(&first, "ready")).await.unwrap();
    let twice = handle(&load, emitted(&again, "ready-again")).await.unwrap();
    assert_eq!(loaded.summary["already_loaded"], false);
    assert_eq!(twice.summary["already_loaded"], true);
    assert_eq!(world.csv("select count(*) from flights").await, "842");
}

#[test]
fn the_columns_of_the_result_are_known_beforehand() {
    let schema = check_sql(&flights()).unwrap();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names[..4], ["carrier", "airline", "flight", "tailnum"]);
    let mut typo = flights();
    typo.sql = Some(SQL.replace("dep_delay", "dep_dely"));
    let problem = check_sql(&typo).unwrap_err();
    assert_eq!(
        problem.position.map(|p| (p.line, p.column)),
        Some((6, 7)),
        "{problem}"
    );
    assert!(problem.message.contains("dep_dely"), "{problem}");
    let mut partition = flights();
    partition.write.partition_by = vec!["moth".to_owned()];
    let problem = check_sql(&partition).unwrap_err();
    assert!(
        problem
            .message
            .starts_with("partition column `moth` is not in the result; it has: carrier"),
        "{problem}"
    );
}
