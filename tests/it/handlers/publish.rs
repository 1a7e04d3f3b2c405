//! Publications: once per cause, whole or not at all, whatever died before.

use super::world::{World, cx, handle, message, options};
use pointsman::handlers::transform::options::{Format, TransformOptions};
use pointsman::handlers::{Class, Handler};
use serde_json::json;

const CSV: &str = "id,day\n1,mon\n2,tue\n3,mon\n";

fn by_day() -> TransformOptions {
    let mut options = options();
    options.write.partition_by = vec!["day".to_owned()];
    options
}

/// What a lake has after the transform ran undisturbed.
async fn undisturbed() -> (Vec<String>, String) {
    let world = World::new();
    let event = world.file("x.csv", CSV);
    handle(&world.transform(by_day()), event).await.unwrap();
    (names(&world), rows(&world).await)
}

/// The files of the lake, publications told by their order.
fn names(world: &World) -> Vec<String> {
    let strip = |name: String| {
        let mut parts: Vec<&str> = name.split('/').collect();
        let last = parts.pop().unwrap();
        let shown = match last.split_once("part-") {
            Some((_, rest)) => format!("part{}", &rest[16..]),
            None => "manifest".to_owned(),
        };
        [parts.join("/"), shown].join("/")
    };
    world.files("lake").into_iter().map(strip).collect()
}

async fn rows(world: &World) -> String {
    world.csv("select id, day from lake.t order by id").await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_partitioned_and_nothing_is_left_over() {
    let (files, rows) = undisturbed().await;
    assert_eq!(
        files,
        [
            "t/_manifests/manifest",
            "t/day=mon/part-0.parquet",
            "t/day=tue/part-1.parquet"
        ]
    );
    assert_eq!(rows, "1,mon\n2,tue\n3,mon");
}

/// Every state that a death in the middle of an attempt can leave behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_any_death_gives_the_same() {
    let expected = undisturbed().await;
    for step in ["staged", "planned", "one moved", "all moved", "committed"] {
        let world = World::new();
        let event = world.file("x.csv", CSV);
        let done = handle(&world.transform(by_day()), event.clone())
            .await
            .unwrap();
        let lake = world.path("lake");
        let publication = done.summary["publication"].as_str().unwrap().to_owned();
        let manifest = lake.join(format!("t/_manifests/{publication}.json"));
        // Back to the state at the time of the death.
        let staging = lake.join(format!(".staging/{publication}-dead"));
        let outputs: Vec<String> = done.summary["outputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["path"].as_str().unwrap().to_owned())
            .collect();
        let back = match step {
            "staged" | "planned" => outputs.len(),
            "one moved" => outputs.len() - 1,
            _ => 0,
        };
        for path in outputs.iter().take(back) {
            let staged = staging.join(path);
            std::fs::create_dir_all(staged.parent().unwrap()).unwrap();
            std::fs::rename(lake.join(path), staged).unwrap();
        }
        std::fs::create_dir_all(&staging).unwrap();
        if step != "staged" {
            // A file more than the retry will make: it must not stay.
            let mut plan = outputs.clone();
            plan.push("t/day=mon/part-of-the-dead.parquet".to_owned());
            std::fs::write(staging.join("plan.json"), json!(plan).to_string()).unwrap();
            if step != "committed" {
                std::fs::create_dir_all(lake.join("t/day=mon")).unwrap();
                std::fs::write(lake.join(&plan[outputs.len()]), "dead").unwrap();
            }
        }
        if step != "committed" {
            std::fs::remove_file(&manifest).unwrap();
            let answered = world.query().run("select * from lake.t").await;
            assert!(answered.is_ok(), "{step}");
            assert_eq!(
                world.csv("select count(*) from lake.t").await,
                "0",
                "{step}"
            );
        }
        let again = handle(&world.transform(by_day()), event).await.unwrap();
        assert_eq!(again.summary["outputs"], done.summary["outputs"], "{step}");
        if step == "committed" {
            std::fs::remove_dir_all(&staging).unwrap();
        }
        assert_eq!((names(&world), rows(&world).await), expected, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_attempts_at_once_publish_once() {
    let world = World::new();
    let event = world.file("x.csv", CSV);
    let (one, two) = (world.transform(by_day()), world.transform(by_day()));
    let (a, b) = tokio::join!(handle(&one, event.clone()), handle(&two, event));
    assert_eq!(a.unwrap().summary, b.unwrap().summary);
    assert_eq!((names(&world), rows(&world).await), undisturbed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_one_batch_stand_alone() {
    let world = World::new();
    let good = world.file("a.csv", CSV);
    let bad = world.file("b.csv", b"\0\xff\xff\n");
    let batch = [message(bad), message(good)];
    let outcome = world.transform(by_day()).handle(&batch, &cx()).await;
    assert_eq!(outcome.results[0].as_ref().unwrap_err().code, "NotCsv");
    assert!(outcome.results[1].is_ok());
    assert!(!outcome.whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_stopped_publishes_nothing() {
    let world = World::new();
    let event = world.file("x.csv", CSV);
    let stopped = cx();
    stopped.cancel.cancel();
    let outcome = world
        .transform(by_day())
        .handle(&[message(event)], &stopped)
        .await;
    let failure = outcome.results[0].as_ref().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("Cancelled", Class::Transient)
    );
    assert_eq!(world.files("lake"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_partitions_in_one_file() {
    let world = World::new();
    let mut text = String::from("id,part\n");
    for id in 0..20_000 {
        text += &format!("{id},p{}\n", id * 7919 % 5000);
    }
    let event = world.file("x.csv", text);
    let mut options = options();
    options.write.partition_by = vec!["part".to_owned()];
    options.write.max_open_writers = 100;
    let done = handle(&world.transform(options), event).await.unwrap();
    assert_eq!(done.summary["outputs"].as_array().unwrap().len(), 5000);
    let found = world
        .csv("select count(*), count(distinct part), count(distinct id) from lake.t")
        .await;
    assert_eq!(found, "20000,5000,20000");
    assert_eq!(
        world
            .csv("select count(*) from lake.t where part = 'p17'")
            .await,
        "4"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_values_keep_their_type_and_null() {
    let world = World::new();
    let event = world.file(
        "x.csv",
        "id,day,city\n1,2024-01-02,a/b\n2,,\n3,2024-01-02,..\n",
    );
    let mut options = options();
    options.sql = Some("select id, cast(day as date) as day, city from input".to_owned());
    options.write.partition_by = vec!["day".to_owned(), "city".to_owned()];
    handle(&world.transform(options), event).await.unwrap();
    let folders: Vec<String> = world
        .files("lake")
        .into_iter()
        .filter(|f| f.contains("part-"))
        .map(|f| f.split("/part-").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        folders,
        [
            "t/day=2024-01-02/city=%2E%2E",
            "t/day=2024-01-02/city=a%2Fb",
            "t/day=__HIVE_DEFAULT_PARTITION__/city=__HIVE_DEFAULT_PARTITION__"
        ]
    );
    let typed = world
        .csv("select id, arrow_typeof(day), city from lake.t where day > '2024-01-01' order by id")
        .await;
    assert_eq!(typed, "1,Date32,a/b\n3,Date32,..");
    assert_eq!(
        world.csv("select id from lake.t where day is null").await,
        "2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn text_formats_are_written_and_read_back() {
    for format in [Format::Ndjson, Format::Csv] {
        let world = World::new();
        let event = world.file("x.csv", "id,name\n1,\"a,\"\"b\"\"\n2\"\n2,\n");
        let mut options = options();
        options.sql = Some("select cast(id as bigint) as id, name from input".to_owned());
        options.write.format = format;
        handle(&world.transform(options), event).await.unwrap();
        let rows = world
            .csv("select id + 1, name from lake.t order by id")
            .await;
        assert_eq!(rows, "2,\"a,\"\"b\"\"\n2\"\n3,", "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_unpartitioned_result_becomes_several_files() {
    let world = World::new();
    let mut text = String::from("id,name\n");
    for id in 0..200_000_u64 {
        text += &format!(
            "{id},{:x}{:x}\n",
            id.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            id.wrapping_mul(0xBF58_476D_1CE4_E5B9)
        );
    }
    let event = world.file("x.csv", &text);
    let mut options = options();
    options.sql = Some("select id, name || name || name || name as long from input union all select id, name from input".to_owned());
    options.write.target_file_bytes = 1 << 20;
    let done = handle(&world.transform(options), event).await.unwrap();
    assert!(
        done.summary["outputs"].as_array().unwrap().len() > 1,
        "{}",
        done.summary
    );
    assert_eq!(done.summary["rows_in"], 200_000);
    assert_eq!(world.csv("select count(*) from lake.t").await, "400000");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_record_is_found_even_if_the_query_stops_early() {
    let world = World::new();
    let mut text = String::from("id,name\n");
    for id in 0..50_000 {
        text += &format!("{id},a\n");
    }
    text += "1,2,3\n";
    let event = world.file("x.csv", text);
    for (table, sql, rows) in [
        ("one", "select * from input limit 1", 1),
        ("none", "select * from input where false", 0),
    ] {
        let mut options = options();
        options.write.table = table.to_owned();
        options.sql = Some(sql.to_owned());
        let done = handle(&world.transform(options), event.clone())
            .await
            .unwrap();
        assert_eq!(done.summary["rows_out"], rows, "{sql}");
        assert_eq!(
            (&done.summary["rows_in"], &done.summary["rejects"]["count"]),
            (&json!(50_001), &json!(1)),
            "{sql}"
        );
    }
}
