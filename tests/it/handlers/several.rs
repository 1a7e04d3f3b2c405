//! Batches of events that name objects: one publication, and yet each object
//! has its own outcome; publications as input; objects named by a pattern.

use super::world::{World, cx, emitted, handle, message, options, schema};
use pointsman::event::{Defaults, Event, EventBuilder};
use pointsman::handlers::load::options::Mode;
use pointsman::handlers::transform::TransformHandler;
use pointsman::handlers::transform::options::{Input, Reference, RejectLimit, TransformOptions};
use pointsman::handlers::{Handler, Message, Outcome};
use serde_json::{Value, json};

fn sales() -> TransformOptions {
    let mut options = options();
    options.read.schema = schema(
        json!({"id": {"type": "integer"}, "shop": {"type": "string"}}),
        &["id", "shop"],
    );
    options.sql = Some("select id, shop, 100 / id as share from input".to_owned());
    options
}

/// Files `a0.csv`, `a1.csv`... of two rows each, from `from` to `to`.
fn files(world: &World, from: i64, to: i64) -> Vec<Message> {
    let one = |n: i64| {
        let text = format!("id,shop\n{},x\n{},y\n", 2 * n + 1, 2 * n + 2);
        message(world.file(&format!("a{n}.csv"), text))
    };
    (from..to).map(one).collect()
}

async fn send(handler: &TransformHandler, batch: &[Message]) -> Outcome {
    handler.handle(batch, &cx()).await
}

fn emits(outcome: &Outcome) -> Vec<&Value> {
    let done = outcome.results.iter().filter_map(|r| r.as_ref().ok());
    done.flat_map(|d| d.emits.iter().map(|e| &e.detail))
        .collect()
}

fn codes(outcome: &Outcome) -> Vec<&str> {
    let results = outcome.results.iter();
    results
        .map(|result| result.as_ref().err().map_or("ok", |failure| &failure.code))
        .collect()
}

const ROWS: &str = "select count(*), count(distinct id), sum(id) from lake.t";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_publication_and_a_broken_object_stays_alone() {
    let world = World::new();
    let mut batch = files(&world, 0, 4);
    batch.insert(1, message(world.file("cut.csv.gz", [0x1f, 0x8b, 8, 0])));
    batch.insert(
        3,
        message(world.file("bad.csv", "id,shop\n21,x\nmany,y\n22,z\n")),
    );
    batch.push(message(world.file("other.csv", "id,place\n1,x\n")));
    let gone = world.file("gone.csv", "id,shop\n1,x\n");
    std::fs::remove_file(world.path("inbox/gone.csv")).unwrap();
    batch.push(message(gone));
    let outcome = send(&world.transform(sales()), &batch).await;
    assert_eq!(
        codes(&outcome),
        [
            "ok",
            "CorruptInput",
            "ok",
            "ok",
            "ok",
            "ok",
            "SchemaMismatch",
            "ObjectGone"
        ]
    );
    let told = emits(&outcome);
    assert_eq!(told.len(), 1, "{told:?}");
    let told = told[0];
    assert_eq!(
        (&told["rows_in"], &told["rows_out"]),
        (&json!(11), &json!(10))
    );
    assert_eq!(
        (&told["objects"]["count"], &told["rejects"]["count"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(told["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(world.csv(ROWS).await, "10,10,79");
    let rejects = world.csv("select key, line, code, raw from rejects").await;
    assert_eq!(rejects, "bad.csv,3,WrongType,\"many,y\"");
    // Who does not carry the announcement has figures of its own.
    let own: Vec<&Value> = outcome
        .results
        .iter()
        .filter_map(|r| r.as_ref().ok())
        .filter(|done| done.emits.is_empty())
        .map(|done| &done.summary)
        .collect();
    assert_eq!(own.len(), 4);
    assert!(
        own.iter()
            .all(|s| s["object"]["key"].is_string() && s["publication"] == told["publication"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_come_again_in_other_batches_add_no_row() {
    let world = World::new();
    let all = files(&world, 0, 12);
    send(&world.transform(sales()), &all[..6]).await;
    // The program dies before anything is settled.
    let handler = world.transform(sales());
    let mut announced = 0;
    for batch in [&all[2..9], &all[..1], &all[4..12], &all[11..12]] {
        let outcome = send(&handler, batch).await;
        assert!(outcome.results.iter().all(Result::is_ok));
        announced += emits(&outcome).len();
    }
    // The first by its carrier, which came alone; two more; and the last one's carrier again.
    assert!(announced >= 3, "{announced}");
    assert_eq!(world.csv(ROWS).await, "24,24,300");
    let twice: Vec<Message> = files(&world, 20, 22)
        .into_iter()
        .flat_map(|m| [m.clone(), m])
        .collect();
    let outcome = send(&handler, &twice).await;
    assert_eq!((codes(&outcome), emits(&outcome).len()), (vec!["ok"; 4], 1));
    assert_eq!(world.csv("select count(*) from lake.t").await, "28");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sql_cannot_take_is_found_among_its_neighbours() {
    let world = World::new();
    let mut batch = files(&world, 0, 5);
    batch.insert(2, message(world.file("zero.csv", "id,shop\n0,x\n50,y\n")));
    let outcome = send(&world.transform(sales()), &batch).await;
    let mut expected = vec!["ok"; 6];
    expected[2] = "SqlFailed";
    assert_eq!(codes(&outcome), expected);
    assert_eq!(world.csv(ROWS).await, "10,10,55");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_rejects_fail_their_object_only() {
    let world = World::new();
    let mut options = sales();
    options.read.reject_limit = RejectLimit::Count(0);
    let mut batch = files(&world, 0, 3);
    batch.push(message(world.file("bad.csv", "id,shop\nno,x\n9,y\n")));
    let outcome = send(&world.transform(options), &batch).await;
    assert_eq!(codes(&outcome), ["ok", "ok", "ok", "TooManyRejects"]);
    assert_eq!(world.csv("select count(*) from lake.t").await, "6");
    assert_eq!(world.csv("select count(*) from rejects").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_parameters_keep_objects_apart() {
    let world = World::new();
    let mut options = options();
    options
        .params
        .insert("day".to_owned(), "$.detail.day".to_owned());
    options.sql = Some("select *, $day as day from input".to_owned());
    let with_day = |key: &str, text: &str, day: &str| {
        let event = world.file(key, text);
        let mut detail = event.detail();
        detail["day"] = json!(day);
        let detail = detail.to_string();
        message(event.edited(event.id(), Some(&detail)).unwrap())
    };
    let batch = [
        with_day("a.csv", "x\n1\n", "mon"),
        with_day("b.csv", "x\n2\n", "tue"),
        with_day("c.csv", "x\n3\n", "mon"),
        with_day("d.csv", "y\n4\n", "mon"),
    ];
    let outcome = send(&world.transform(options), &batch).await;
    assert_eq!((codes(&outcome), emits(&outcome).len()), (vec!["ok"; 4], 3));
    let rows = world
        .csv("select x, y, day from lake.t order by coalesce(x, y)")
        .await;
    assert_eq!(rows, "1,,mon\n2,,tue\n3,,mon\n,4,mon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_has_a_publication_of_its_own() {
    let world = World::new();
    let mut batch = files(&world, 0, 3);
    // More than its share of 64 MiB.
    let mut text = String::from("id,shop\n");
    for n in 0..400_000 {
        text.push_str(&format!("{},{}\n", n + 1, "long".repeat(10)));
    }
    batch.insert(1, message(world.file("large.csv", text)));
    let outcome = send(&world.transform(sales()), &batch).await;
    assert_eq!((codes(&outcome), emits(&outcome).len()), (vec!["ok"; 4], 2));
    assert_eq!(world.csv("select count(*) from lake.t").await, "400006");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_transform_makes_all_objects_of_a_publication_again() {
    let world = World::new();
    let batch = files(&world, 0, 3);
    send(&world.transform(sales()), &batch).await;
    let mut changed = sales();
    changed.sql = Some("select id + 1000 as id, shop from input".to_owned());
    let handler = world.transform(changed.clone());
    // One of them is replayed; whoever asks first announces it, also when asked again.
    for _ in 0..2 {
        let outcome = send(&handler, &batch[1..2]).await;
        assert_eq!(codes(&outcome), ["ok"]);
        let told = emits(&outcome);
        assert_eq!(told.len(), 1);
        assert!(told[0]["publication"].as_str().unwrap().ends_with("-r1"));
        assert_eq!(outcome.results[0].as_ref().unwrap().revision, 1);
    }
    let outcome = send(&handler, &batch).await;
    assert_eq!((codes(&outcome), emits(&outcome).len()), (vec!["ok"; 3], 1));
    assert_eq!(world.csv(ROWS).await, "6,6,6021");
    // An object that is gone cannot be read again: all stays as it is.
    std::fs::remove_file(world.path("inbox/a2.csv")).unwrap();
    changed.sql = Some("select id + 5000 as id, shop from input".to_owned());
    let outcome = send(&world.transform(changed), &batch[..1]).await;
    assert_eq!(codes(&outcome), ["Incomplete"]);
    assert_eq!(world.csv(ROWS).await, "6,6,6021");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_the_input_of_another_transform() {
    let world = World::new();
    let mut bronze = sales();
    bronze.sql = None;
    bronze.write.partition_by = vec!["shop".to_owned()];
    let mut silver = options();
    silver.read.input = Input::Publication;
    silver.sql = Some("select shop, sum(id) as total from input group by shop".to_owned());
    silver.write.table = "silver".to_owned();
    let silver = world.transform(silver);
    let batch = files(&world, 0, 2);
    let ready = |outcome: &Outcome, id: &str| {
        let done = outcome
            .results
            .iter()
            .flatten()
            .find(|d| !d.emits.is_empty());
        emitted(done.unwrap(), id)
    };
    let first = ready(
        &send(&world.transform(bronze.clone()), &batch).await,
        "ready-1",
    );
    let total = "select shop, total from lake.silver order by shop";
    for _ in 0..2 {
        let done = handle(&silver, first.clone()).await.unwrap();
        assert_eq!(done.emits[0].detail["rows_in"], 4);
        assert_eq!(world.csv(total).await, "x,4\ny,6");
    }
    // What it was made of is published anew: so is what was made of it.
    bronze.sql = Some("select id * 10 as id, shop from input".to_owned());
    let again = ready(&send(&world.transform(bronze), &batch).await, "ready-2");
    let done = handle(&silver, again).await.unwrap();
    assert_eq!(
        (done.revision, &done.emits[0].detail["input"]["revision"]),
        (1, &json!(1))
    );
    assert_eq!(world.csv(total).await, "x,40\ny,60");
    // The old announcement comes late, or again: nothing changes.
    handle(&silver, first).await.unwrap();
    assert_eq!(world.csv(total).await, "x,40\ny,60");
    let failure = handle(&silver, world.file("x.csv", "a\n1\n"))
        .await
        .unwrap_err();
    assert_eq!(failure.code, "NotAnalyticsReady");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_lake_and_warehouse_are_joined_as_they_are_at_the_time() {
    let world = World::new();
    let mut shops = options();
    shops.write.table = "shops".to_owned();
    let mut sales = sales();
    sales.sql = Some(
        "select i.id, l.city, w.city as kept from input i join shops l using (shop) join stored w using (shop)"
            .to_owned(),
    );
    sales
        .tables
        .insert("shops".to_owned(), Reference::Lake("shops".to_owned()));
    sales.tables.insert(
        "stored".to_owned(),
        Reference::Warehouse("shops".to_owned()),
    );
    let sales = world.transform(sales);
    let missing = handle(&sales, world.file("s.csv", "id,shop\n1,x\n"))
        .await
        .unwrap_err();
    assert_eq!(missing.code, "ReferenceTableMissing");
    let made = handle(
        &world.transform(shops.clone()),
        world.file("x.csv", "shop,city\nx,Bonn\n"),
    )
    .await
    .unwrap();
    handle(&world.load("shops", Mode::Append), emitted(&made, "r1"))
        .await
        .unwrap();
    handle(&sales, world.file("s1.csv", "id,shop\n1,x\n"))
        .await
        .unwrap();
    handle(
        &world.transform(shops),
        world.file("y.csv", "shop,city\nx,Ulm\n"),
    )
    .await
    .unwrap();
    handle(&sales, world.file("s2.csv", "id,shop\n2,x\n"))
        .await
        .unwrap();
    let rows = world
        .csv("select id, city, kept from lake.t order by id, city")
        .await;
    assert_eq!(rows, "1,Bonn,Bonn\n2,Bonn,Bonn\n2,Ulm,Bonn");
}

fn named(glob: &str, bucket: &str) -> Event {
    let event = EventBuilder {
        id: format!("all-{glob}"),
        source: "ops".to_owned(),
        detail_type: "Read Again".to_owned(),
        time_ms: 0,
        resources: Vec::new(),
        detail: json!({"bucket": {"name": bucket}, "object": {"glob": glob}}),
    };
    event.build(&Defaults::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_names_each_object_that_is_there() {
    let world = World::new();
    std::fs::create_dir_all(world.path("inbox/2026/01")).unwrap();
    for key in [
        "2026/b.csv",
        "2026/a.csv",
        "2026/c.txt",
        "2026/.d.csv",
        "2026/01/e.csv",
    ] {
        world.file(key, "id,shop\n1,x\n");
    }
    let handler = world.transform(sales());
    let keys = |done: &pointsman::handlers::Done| -> Vec<String> {
        let key =
            |e: &pointsman::handlers::Emit| e.detail["object"]["key"].as_str().unwrap().to_owned();
        done.emits.iter().map(key).collect()
    };
    let done = handle(&handler, named("2026/*.csv", "inbox"))
        .await
        .unwrap();
    assert_eq!(keys(&done), ["2026/a.csv", "2026/b.csv"]);
    assert_eq!(done.emits[0].detail_type, "Object Created");
    let deep = handle(&handler, named("2026/**/*.csv", "inbox"))
        .await
        .unwrap();
    assert_eq!(keys(&deep), ["2026/01/e.csv", "2026/a.csv", "2026/b.csv"]);
    let none = handle(&handler, named("*.parquet", "inbox")).await.unwrap();
    assert_eq!((none.emits.len(), &none.summary["objects"]), (0, &json!(0)));
    // Each is an event like any other.
    let event = emitted(&done, "derived");
    handle(&handler, event).await.unwrap();
    assert_eq!(world.csv("select count(*) from lake.t").await, "1");
    for (glob, bucket, code) in [
        ("*.csv", "nowhere", "UnknownBucket"),
        ("[a", "inbox", "BadGlob"),
    ] {
        let failure = handle(&handler, named(glob, bucket)).await.unwrap_err();
        assert_eq!(failure.code, code);
    }
}
