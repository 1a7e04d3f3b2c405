//! Publications that were written as CSV or NDJSON, into every kind of table:
//! the rows are those of the same publication written as Parquet.

use super::redshift::Cluster;
use super::world::{World, emitted, handle, options};
use super::{postgres, redshift};
use crate::support::postgres::shared;
use pointsman::event::Event;
use pointsman::handlers::Class;
use pointsman::handlers::load::options::Mode;
use pointsman::handlers::transform::options::Format;

const FORMATS: [(Format, &str); 3] = [
    (Format::Parquet, "parquet"),
    (Format::Csv, "csv"),
    (Format::Ndjson, "ndjson"),
];

const SQL: &str = "select cast(id as bigint) as id, cast(id as smallint) as s, cast(n as double) as d,
    cast(n as decimal(20,3)) as n, x, id = '1' as o, cast(day as date) as day,
    to_timestamp_micros(cast(b as bigint)) as at,
    arrow_cast(to_timestamp_micros(cast(b as bigint)), 'Timestamp(Microsecond, Some(\"UTC\"))') as atz,
    cast(m as int) as m
  from input";

const ROWS: &str = "id,b,n,x,day,m
1,1361000000123456,12345678901234567.125,\"a\"\"\u{e9},\r\nline\",2013-02-28,1
2,0,-0.1,\"tab\there\\\",1969-12-31,1
3,NA,NA,NA,NA,2
";

/// Publishes rows in a format, partitioned by `m`.
async fn published(world: &World, format: Format, key: &str, csv: &str, sql: &str) -> Event {
    let event = world.file(key, csv);
    let mut options = options();
    options.sql = Some(sql.to_owned());
    options.write.format = format;
    options.write.partition_by = vec!["m".to_owned()];
    let done = handle(&world.transform(options), event).await.unwrap();
    emitted(&done, &format!("ready-{key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_loaded_into_the_warehouse_like_parquet() {
    let mut found = Vec::new();
    for (format, _) in FORMATS {
        let world = World::new();
        let load = world.load("w", Mode::upsert(vec!["id".to_owned()]));
        let event = published(&world, format, "1.csv", ROWS, SQL).await;
        handle(&load, event.clone()).await.unwrap();
        let more = "id,b,n,x,day,m\n2,1,0.25,new,2020-02-29,3\n";
        let next = published(&world, format, "2.csv", more, SQL).await;
        handle(&load, next).await.unwrap();
        let again = handle(&load, event).await.unwrap();
        assert_eq!(again.summary["already_loaded"], true);
        found.push(world.csv("select * from w order by id").await);
        found.push(
            world
                .csv("select arrow_typeof(n), arrow_typeof(at), arrow_typeof(m) from w limit 1")
                .await,
        );
    }
    assert!(found[0].contains("12345678901234567.125"), "{}", found[0]);
    assert!(found[0].contains("2020-02-29"), "{}", found[0]);
    assert_eq!(found[..2], found[2..4]);
    assert_eq!(found[..2], found[4..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_loaded_into_databases_like_parquet() {
    let mut found: Vec<[String; 2]> = Vec::new();
    let cluster = Cluster::new();
    for (format, name) in FORMATS {
        let (world, database) = (World::new(), shared().database());
        let event = published(&world, format, "1.csv", ROWS, SQL).await;
        let options = postgres::options(Mode::Append, true, false);
        let load = postgres::loader(&world, options, postgres::server(&database));
        handle(&load, event).await.unwrap();

        let event = published(&cluster.world, format, &format!("{name}.csv"), ROWS, SQL).await;
        let mut options = redshift::options(Mode::upsert(vec!["id".to_owned()]));
        options.table = format!("w_{name}");
        handle(&cluster.load(options), event).await.unwrap();
        let rows = |table: &str| format!("set timezone = 'UTC'; select * from {table} order by id");
        found.push([
            database.sql(&rows("w")),
            cluster.database.sql(&rows(&format!("w_{name}"))),
        ]);
    }
    assert!(
        found[0][0].contains("12345678901234567.125"),
        "{}",
        found[0][0]
    );
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_survive_ndjson() {
    let mut found = Vec::new();
    for format in [Format::Parquet, Format::Ndjson] {
        let world = World::new();
        let sql = "select id, make_array(id, x) as list, named_struct('a', cast(id as bigint)) as s, m from input";
        let event = published(&world, format, "1.csv", ROWS, sql).await;
        handle(&world.load("w", Mode::Append), event).await.unwrap();
        found.push(
            world
                .csv("select list[1], list[2], s['a'], m from w order by id")
                .await,
        );
    }
    assert_eq!(found[0], found[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_of_text_is_named() {
    for (format, _) in &FORMATS[1..] {
        let (world, database) = (World::new(), shared().database());
        database.sql("create table w (id bigint check (id < 6000), m int)");
        let rows: String = (0..7_000).map(|id| format!("{id},{}\n", id % 2)).collect();
        let sql = "select cast(id as bigint) as id, cast(m as int) as m from input";
        let event = published(&world, *format, "1.csv", &format!("id,m\n{rows}"), sql).await;
        let options = postgres::options(Mode::upsert(vec!["id".to_owned()]), false, false);
        let load = postgres::loader(&world, options, postgres::server(&database));
        let failure = handle(&load, event).await.unwrap_err();
        assert_eq!(failure.code, "ConstraintFailed");
        // Partition 0 has the even ids first.
        assert!(
            failure.message.contains("(id=6000), row 3001 in"),
            "{failure:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_was_changed_is_refused() {
    let world = World::new();
    let damages = [
        ("the columns are declared as", "id,s", "s,id"),
        ("cannot be read to its end", "12345678901234567.125", "much"),
    ];
    for (at, (said, from, to)) in damages.into_iter().enumerate() {
        let event = published(&world, Format::Csv, &format!("{at}.csv"), ROWS, SQL).await;
        for output in event.detail()["outputs"].as_array().unwrap() {
            let path = world.path("lake").join(output["path"].as_str().unwrap());
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        }
        let load = world.load("w", Mode::Append);
        let failure = handle(&load, event).await.unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("CorruptInput", Class::Permanent)
        );
        assert!(failure.message.contains(said), "{failure:?}");
    }
    assert!(!world.path("warehouse/w/_delta_log").exists());
}
