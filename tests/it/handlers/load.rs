//! Loads: once per publication, by key, with columns that come and go.

use super::world::{World, cx, emitted, handle, message, options};
use pointsman::event::Event;
use pointsman::handlers::load::maintain;
use pointsman::handlers::load::options::Mode;
use pointsman::handlers::{Class, Handler, Outcome};
use std::time::Duration;

/// Publishes a CSV through SQL and tells the event that announces it.
pub async fn published(world: &World, key: &str, csv: &str, sql: &str) -> Event {
    let event = world.file(key, csv);
    let mut options = options();
    options.sql = Some(sql.to_owned());
    let done = handle(&world.transform(options), event).await.unwrap();
    emitted(&done, &format!("ready-{key}"))
}

pub const TYPED: &str = "select cast(id as bigint) as id, v from input";

fn by_id() -> Mode {
    Mode::upsert(vec!["id".to_owned()])
}

async fn all(world: &World, mode: Mode, events: Vec<Event>) -> Outcome {
    let batch: Vec<_> = events.into_iter().map(message).collect();
    world.load("w", mode).handle(&batch, &cx()).await
}

async fn rows(world: &World) -> String {
    world.csv("select id, v from w order by id, v").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_row_of_a_key_wins() {
    let world = World::new();
    let one = published(&world, "1.csv", "id,v\n1,a\n2,b\n1,c\n", TYPED).await;
    handle(&world.load("w", by_id()), one).await.unwrap();
    assert_eq!(rows(&world).await, "1,c\n2,b");
    let two = published(&world, "2.csv", "id,v\n3,x\n2,y\n3,z\n", TYPED).await;
    handle(&world.load("w", by_id()), two).await.unwrap();
    assert_eq!(rows(&world).await, "1,c\n2,y\n3,z");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_publication_is_loaded_once() {
    let world = World::new();
    let one = published(&world, "1.csv", "id,v\n1,a\n", TYPED).await;
    let two = published(&world, "2.csv", "id,v\n1,b\n", TYPED).await;
    for _ in 0..3 {
        // Twice in one batch, too; and by two handlers at once.
        let batch = vec![one.clone(), two.clone(), one.clone()];
        let (a, b) = tokio::join!(
            all(&world, Mode::Append, batch.clone()),
            all(&world, Mode::Append, batch)
        );
        assert!(a.results.iter().chain(&b.results).all(Result::is_ok));
    }
    assert_eq!(rows(&world).await, "1,a\n1,b");
    // A batch is one commit.
    let log = world
        .files("warehouse/w/_delta_log")
        .into_iter()
        .filter(|f| f.ends_with(".json"));
    assert_eq!(log.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_publication_of_a_batch_stops_no_other() {
    let world = World::new();
    let good = published(&world, "1.csv", "id,v\n1,a\n", TYPED).await;
    let null = published(&world, "2.csv", "id,v\n2,b\n,c\n", TYPED).await;
    let also = published(&world, "3.csv", "id,v\n3,c\n", TYPED).await;
    let outcome = all(&world, by_id(), vec![good, null, also]).await;
    let failure = outcome.results[1].as_ref().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("NullKey", Class::Permanent)
    );
    assert_eq!(
        failure.message,
        "1 rows have no value in the key column `id`"
    );
    assert!(outcome.results[0].is_ok() && outcome.results[2].is_ok());
    assert_eq!(rows(&world).await, "1,a\n3,c");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_columns_are_added_and_types_are_kept() {
    for mode in [Mode::Append, by_id()] {
        let world = World::new();
        let load = world.load("w", mode);
        let one = published(&world, "1.csv", "id,v\n1,a\n", TYPED).await;
        handle(&load, one).await.unwrap();
        let more = "select cast(id as integer) as id, v, 7.5 as extra from input";
        let two = published(&world, "2.csv", "id,v\n2,b\n", more).await;
        handle(&load, two).await.unwrap();
        let found = world
            .csv("select id, v, extra, arrow_typeof(id) from w order by id")
            .await;
        assert_eq!(found, "1,a,,Int64\n2,b,7.5,Int64");
        let fewer = "select cast(id as bigint) as id from input";
        let three = published(&world, "3.csv", "id,v\n3,c\n", fewer).await;
        handle(&load, three).await.unwrap();
        assert_eq!(
            world.csv("select id, v, extra from w where id = 3").await,
            "3,,"
        );
        let text = "select id, v from input";
        let four = published(&world, "4.csv", "id,v\nx,c\n", text).await;
        let failure = handle(&load, four).await.unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("SchemaConflict", Class::Permanent)
        );
        assert!(
            failure
                .message
                .starts_with("column `id` is varchar in the outputs and bigint in the table"),
            "{failure:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_load_is_a_success() {
    let world = World::new();
    let none = published(&world, "1.csv", "id,v\n", TYPED).await;
    let done = handle(&world.load("w", by_id()), none).await.unwrap();
    assert_eq!(done.summary["rows"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_gone_is_told() {
    let world = World::new();
    let event = published(&world, "1.csv", "id,v\n1,a\n", TYPED).await;
    for file in world.files("lake").iter().filter(|f| f.contains("part-")) {
        std::fs::remove_file(world.path("lake").join(file)).unwrap();
    }
    let failure = handle(&world.load("w", by_id()), event).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("OutputGone", Class::Permanent)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_puts_files_together_and_keeps_the_rows_and_receipts() {
    let world = World::new();
    let load = world.load("w", Mode::Append);
    let mut events = Vec::new();
    for n in 0..25 {
        let event = published(
            &world,
            &format!("{n}.csv"),
            &format!("id,v\n{n},a\n"),
            TYPED,
        )
        .await;
        handle(&load, event.clone()).await.unwrap();
        events.push(event);
    }
    let checkpoints = world
        .files("warehouse/w/_delta_log")
        .into_iter()
        .filter(|f| f.contains("checkpoint"))
        .count();
    assert!(checkpoints > 0);
    let done = maintain(&world.path("warehouse").into(), "w", Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(done.compacted, 25);
    assert!(done.removed >= 25, "{done:?}");
    let files = world
        .files("warehouse/w")
        .into_iter()
        .filter(|f| f.ends_with(".parquet") && !f.contains("_delta_log"));
    assert_eq!(files.count(), 1);
    for event in events {
        let done = handle(&load, event).await.unwrap();
        assert_eq!(done.summary["already_loaded"], true);
    }
    assert_eq!(
        world
            .csv("select count(*), count(distinct id) from w")
            .await,
        "25,25"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_row_does_not_replace_a_newer_one() {
    let world = World::new();
    let load = world.load(
        "w",
        Mode::Upsert {
            key: vec!["id".to_owned()],
            newer_by: Some("at".to_owned()),
        },
    );
    let sql = "select cast(id as bigint) as id, v, cast(at as bigint) as at from input";
    // Nothing is older than null; equal replaces; of one load's rows the newest counts.
    let steps = [
        ("1,a,5\n2,b,NA\n3,c,5\n", "1,a,5\n2,b,\n3,c,5"),
        (
            "1,old,4\n2,known,1\n3,equal,5\n",
            "1,a,5\n2,known,1\n3,equal,5",
        ),
        (
            "1,none,NA\n2,new,9\n2,older,8\n4,d,1\n",
            "1,a,5\n2,new,9\n3,equal,5\n4,d,1",
        ),
    ];
    for (n, (rows, expected)) in steps.into_iter().enumerate() {
        let key = format!("{n}.csv");
        let event = published(&world, &key, &format!("id,v,at\n{rows}"), sql).await;
        handle(&load, event).await.unwrap();
        let found = world.csv("select id, v, at from w order by id").await;
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_replaced_whole_and_no_other() {
    let world = World::new();
    let by = vec!["v".to_owned()];
    let load = world.load("w", Mode::ReplacePartition { by });
    let steps = [
        ("1,a\n2,a\n3,b\n4,NA\n", "1,a\n2,a\n3,b\n4,"),
        ("5,a\n6,NA\n", "3,b\n5,a\n6,"),
        ("7,c\n", "3,b\n5,a\n6,\n7,c"),
    ];
    for (n, (new, expected)) in steps.into_iter().enumerate() {
        let event = published(&world, &format!("{n}.csv"), &format!("id,v\n{new}"), TYPED).await;
        handle(&load, event).await.unwrap();
        assert_eq!(world.csv("select id, v from w order by id").await, expected);
    }
}
