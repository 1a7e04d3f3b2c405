//! `input: events`: exactly one row per event, however the batches fall.

use super::world::{World, cx, options, schema};
use pointsman::event::{Defaults, EventBuilder};
use pointsman::handlers::transform::TransformHandler;
use pointsman::handlers::transform::options::{Input, TransformOptions};
use pointsman::handlers::{Class, Handler, Message, Outcome};
use serde_json::{Value, json};
use std::sync::Arc;

const HOUR: i64 = 3_600_000;

fn event(id: &str, accepted_ms: i64, detail: Value) -> Message {
    let event = EventBuilder {
        id: id.to_owned(),
        source: "shop".to_owned(),
        detail_type: "Click".to_owned(),
        time_ms: 1_700_000_000_123,
        resources: Vec::new(),
        detail,
    };
    Message {
        input: None,
        event: Arc::new(event.build(&Defaults::default()).unwrap()),
        seq: 0,
        attempt: 1,
        accepted_ms,
    }
}

/// Clicks `from..to`, ten an hour.
fn clicks(from: i64, to: i64) -> Vec<Message> {
    let click = |n: i64| {
        event(
            &format!("e{n:05}"),
            n / 10 * HOUR,
            json!({"n": n, "shop": format!("s{}", n % 3)}),
        )
    };
    (from..to).map(click).collect()
}

fn clickstream() -> TransformOptions {
    let mut options = options();
    options.read.input = Input::Events;
    options.read.schema = schema(
        json!({"n": {"type": "integer"}, "shop": {"type": "string"}}),
        &["n", "shop"],
    );
    options.write.partition_by = vec!["shop".to_owned()];
    options
}

async fn send(handler: &TransformHandler, batch: &[Message]) -> Outcome {
    handler.handle(batch, &cx()).await
}

fn emits(outcome: &Outcome) -> usize {
    outcome
        .results
        .iter()
        .map(|r| r.as_ref().map_or(0, |done| done.emits.len()))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_publication_with_the_envelope_s_columns() {
    let world = World::new();
    let outcome = send(&world.transform(clickstream()), &clicks(0, 6)).await;
    assert!(outcome.results.iter().all(Result::is_ok));
    assert_eq!(emits(&outcome), 1);
    let detail = &outcome.results[0].as_ref().unwrap().emits[0].detail;
    assert_eq!(
        (&detail["rows_in"], &detail["events"]["count"]),
        (&json!(6), &json!(6))
    );
    let row = world
        .csv(
            "select _event_id, _event_time, _source, _detail_type, n, shop from lake.t where n = 4",
        )
        .await;
    assert_eq!(row, "e00004,2023-11-14T22:13:20.123Z,shop,Click,4,s1");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_in_other_batches_add_no_row_and_lose_no_announcement() {
    let world = World::new();
    let handler = world.transform(clickstream());
    send(&handler, &clicks(0, 30)).await;
    // The program dies before anything is settled; the events come again, in
    // other batches, to a handler that knows nothing.
    let handler = world.transform(clickstream());
    let mut announced = 0;
    for batch in [clicks(5, 25), clicks(0, 7), clicks(20, 45)] {
        let outcome = send(&handler, &batch).await;
        assert!(outcome.results.iter().all(Result::is_ok));
        announced += emits(&outcome);
    }
    // The first publication by its carrier `e00000`, the second one by its own.
    assert_eq!(announced, 2);
    let found = world
        .csv("select count(*), count(distinct _event_id), min(n), max(n) from lake.t")
        .await;
    assert_eq!(found, "45,45,0,44");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_twice_in_a_batch_is_one_row() {
    let world = World::new();
    let mut batch = clicks(0, 3);
    batch.extend(clicks(0, 3));
    let outcome = send(&world.transform(clickstream()), &batch).await;
    assert_eq!((outcome.results.len(), emits(&outcome)), (6, 1));
    assert_eq!(world.csv("select count(*) from lake.t").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_fails_alone() {
    let world = World::new();
    let mut batch = clicks(0, 3);
    batch.insert(1, event("bad", 0, json!({"n": "many", "shop": "s1"})));
    let outcome = send(&world.transform(clickstream()), &batch).await;
    let failure = outcome.results[1].as_ref().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("WrongType", Class::Permanent)
    );
    assert_eq!(failure.message, "`detail.n`: `\"many\"` is not an integer");
    assert_eq!(outcome.results.iter().filter(|r| r.is_ok()).count(), 3);
    assert_eq!(world.csv("select count(*) from lake.t").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_sql_cannot_take_is_found() {
    let world = World::new();
    let mut options = clickstream();
    options.sql = Some("select _event_id, shop, 100 / (n - 5) as q from input".to_owned());
    let outcome = send(&world.transform(options), &clicks(0, 9)).await;
    for (n, result) in outcome.results.iter().enumerate() {
        assert_eq!(result.is_ok(), n != 5, "{n}: {result:?}");
    }
    assert_eq!(outcome.results[5].as_ref().unwrap_err().code, "SqlFailed");
    assert_eq!(
        world
            .csv("select count(*), count(distinct _event_id) from lake.t")
            .await,
        "8,8"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_without_a_manifest_count_for_nothing() {
    let world = World::new();
    let handler = world.transform(clickstream());
    let outcome = send(&handler, &clicks(0, 4)).await;
    let publication = outcome.results[0].as_ref().unwrap().summary["publication"]
        .as_str()
        .unwrap()
        .to_owned();
    // As if the program had died between the ids and the manifest.
    std::fs::remove_file(world.path(&format!("lake/t/_manifests/{publication}.json"))).unwrap();
    let again = send(&world.transform(clickstream()), &clicks(0, 4)).await;
    assert_eq!(emits(&again), 1);
    assert_eq!(world.csv("select count(*) from lake.t").await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_transform_makes_all_events_of_a_publication_again() {
    let world = World::new();
    let with = |sql: &str| {
        let mut options = clickstream();
        options.sql = Some(sql.to_owned());
        world.transform(options)
    };
    let mut batch = clicks(0, 12);
    // What the rule's target made of an event is its record, then and now.
    batch[11].input = Some(br#"{"n": 100, "shop": "s9"}"#.as_slice().into());
    send(&with("select _event_id, n, shop from input"), &batch).await;
    send(
        &with("select _event_id, n, shop from input"),
        &clicks(12, 20),
    )
    .await;
    let changed = with("select _event_id, n * 10 as n, shop from input");
    // Some are replayed; whoever asks first announces it, also when asked again.
    for _ in 0..2 {
        let outcome = send(&changed, &batch[3..6]).await;
        assert!(outcome.results.iter().all(Result::is_ok));
        assert_eq!(emits(&outcome), 1);
        let done = outcome.results[0].as_ref().unwrap();
        let told = done.emits[0].detail["publication"].as_str().unwrap();
        assert!(told.ends_with("-r1"), "{told}");
        assert_eq!(
            (done.revision, &done.emits[0].detail["rows_out"]),
            (1, &json!(12))
        );
    }
    // The others come later, in other batches: they are there.
    assert_eq!(emits(&send(&changed, &batch[5..]).await), 0);
    let found = "select count(*), count(distinct _event_id), sum(n) from lake.t";
    let sum = (55 + 100) * 10 + (12..20).sum::<i64>();
    assert_eq!(world.csv(found).await, format!("20,20,{sum}"));
    // To a handler that knows nothing, too.
    let changed = with("select _event_id, n * 10 as n, shop from input");
    assert_eq!(emits(&send(&changed, &batch).await), 1);
    assert_eq!(emits(&send(&changed, &clicks(12, 20)).await), 1);
    let sum = (55 + 100 + (12..20).sum::<i64>()) * 10;
    assert_eq!(world.csv(found).await, format!("20,20,{sum}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_changed_transform_cannot_take_stay_as_they_are() {
    let world = World::new();
    send(&world.transform(clickstream()), &clicks(0, 4)).await;
    let mut narrow = clickstream();
    narrow.read.schema = schema(json!({"n": {"type": "integer", "maximum": 2}}), &["n"]);
    let outcome = send(&world.transform(narrow), &clicks(0, 2)).await;
    for result in &outcome.results {
        let failure = result.as_ref().unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("Incomplete", Class::Permanent)
        );
        assert!(failure.message.contains("event `e00003`"), "{failure:?}");
    }
    let mut fails = clickstream();
    fails.sql = Some("select _event_id, shop, 100 / (n - 3) as q from input".to_owned());
    let outcome = send(&world.transform(fails), &clicks(0, 1)).await;
    assert_eq!(outcome.results[0].as_ref().unwrap_err().code, "SqlFailed");
    assert_eq!(
        world.csv("select count(*), sum(n) from lake.t").await,
        "4,6"
    );
    // Events that were not kept cannot be read again.
    let folder = world.path("lake/t/_manifests");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "causes") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut changed = clickstream();
    changed.sql = Some("select n from input".to_owned());
    let outcome = send(&world.transform(changed), &clicks(0, 1)).await;
    let failure = outcome.results[0].as_ref().unwrap_err();
    assert!(
        failure.message.ends_with("they were not kept"),
        "{failure:?}"
    );
    assert_eq!(
        world.csv("select count(*), sum(n) from lake.t").await,
        "4,6"
    );
}
