//! Columns that are added, renamed or retyped between files, under each policy.

use super::malformed::typed;
use super::world::{World, handle, options};
use pointsman::handlers::transform::TransformHandler;
use pointsman::handlers::transform::drift::Policy;
use pointsman::handlers::transform::options::TransformOptions;
use pointsman::handlers::{Class, Done, Failure};
use serde_json::{Value, json};

const FIRST: &str = "id,name,amount\n1,a,1.5\n2,b,2\n";
const ADDED: &str = "id,name,amount,color\n3,c,3,red\n";
const RENAMED: &str = "id,title,amount\n4,d,4\n";
const RETYPED: &str = "id,name,amount\n5,e,five\n6,f,six\n";

fn with(policy: Policy) -> TransformOptions {
    let mut options = typed();
    options.read.drift = Some(policy);
    options
}

async fn drop_in(
    world: &World,
    handler: &TransformHandler,
    key: &str,
    text: &str,
) -> Result<Done, Failure> {
    handle(handler, world.file(key, text)).await
}

/// The `Schema Changed` among what a handler emits.
fn changed(done: &Done) -> Option<Value> {
    let mut found = done
        .emits
        .iter()
        .filter(|e| e.detail_type == "Schema Changed");
    let one = found.next().map(|e| e.detail.clone());
    assert!(found.next().is_none());
    one
}

/// `added / missing / renamed / retyped` of a change.
fn short(done: &Done) -> String {
    let Some(change) = changed(done) else {
        return "nothing".to_owned();
    };
    let names = |list: &str, field: &str| -> String {
        let list = change[list].as_array().unwrap().iter();
        let names: Vec<&str> = list
            .map(|c| c[field].as_str().or(c.as_str()).unwrap())
            .collect();
        names.join(" ")
    };
    format!(
        "+{} -{} {}>{} ~{}",
        names("added", "name"),
        names("missing", ""),
        names("renamed", "from"),
        names("renamed", "to"),
        names("retyped", "to")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_refuses_every_change_by_name() {
    let world = World::new();
    let handler = world.transform(with(Policy::Fail));
    drop_in(&world, &handler, "1.csv", FIRST).await.unwrap();
    for (key, text, said) in [
        (
            "2.csv",
            ADDED,
            "the columns of `2.csv` changed: added `color`",
        ),
        (
            "3.csv",
            RENAMED,
            "the columns of `3.csv` changed: added `title`; missing `name`; perhaps renamed `name` to `title`",
        ),
        (
            "4.csv",
            RETYPED,
            "the columns of `4.csv` changed: `amount` is text, not decimal(18,2)",
        ),
    ] {
        let failure = drop_in(&world, &handler, key, text).await.unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.class),
            ("SchemaDrift", Class::Permanent)
        );
        assert_eq!(failure.message, said);
    }
    assert_eq!(world.csv("select count(*) from lake.t").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn widen_adds_nullable_columns() {
    let world = World::new();
    let handler = world.transform(with(Policy::Widen));
    let done = drop_in(&world, &handler, "1.csv", FIRST).await.unwrap();
    assert_eq!(changed(&done), None);
    let done = drop_in(&world, &handler, "2.csv", ADDED).await.unwrap();
    assert_eq!(
        changed(&done).unwrap(),
        json!({
            "table": "t", "handler": "clean", "policy": "widen", "object": done.summary["object"],
            "added": [{"name": "color", "type": "text"}], "missing": [], "renamed": [], "retyped": [],
        })
    );
    // The same change is told once.
    let again = drop_in(&world, &handler, "2b.csv", &ADDED.replace('3', "7"))
        .await
        .unwrap();
    assert_eq!(changed(&again), None);
    let done = drop_in(&world, &handler, "3.csv", RENAMED).await.unwrap();
    assert_eq!(short(&done), "+title -name name>title ~");
    let done = drop_in(&world, &handler, "4.csv", RETYPED).await.unwrap();
    assert_eq!(
        (short(&done).as_str(), &done.summary["rejects"]["count"]),
        ("+ - > ~text", &json!(2))
    );
    let rows = world
        .csv("select id, name, amount, color, title from lake.t order by id")
        .await;
    assert_eq!(
        rows,
        "1,a,1.50,,\n2,b,2.00,,\n3,c,3.00,red,\n4,,4.00,,d\n7,c,7.00,red,"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rescue_keeps_what_does_not_fit_in_one_column() {
    let world = World::new();
    let handler = world.transform(with(Policy::Rescue));
    let mut told = Vec::new();
    for (key, text) in [
        ("1.csv", FIRST),
        ("2.csv", ADDED),
        ("3.csv", RENAMED),
        ("4.csv", RETYPED),
    ] {
        told.push(short(&drop_in(&world, &handler, key, text).await.unwrap()));
    }
    assert_eq!(
        told,
        [
            "nothing",
            "+color - > ~",
            "+title -name name>title ~",
            "+ - > ~text"
        ]
    );
    let rows = world
        .csv("select id, name, amount, _rescued from lake.t order by id")
        .await;
    assert_eq!(
        rows,
        [
            "1,a,1.50,",
            "2,b,2.00,",
            "3,c,3.00,\"{\"\"color\"\":\"\"red\"\"}\"",
            "4,,4.00,\"{\"\"title\"\":\"\"d\"\"}\"",
            "5,e,,\"{\"\"amount\"\":\"\"five\"\"}\"",
            "6,f,,\"{\"\"amount\"\":\"\"six\"\"}\"",
        ]
        .join("\n")
    );
    // What a column must have cannot be rescued, and what is not allowed is set aside.
    let done = drop_in(&world, &handler, "5.csv", "id,name,amount\nseven,g,1\n")
        .await
        .unwrap();
    assert_eq!(done.summary["rejects"]["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_sets_the_object_aside_whole() {
    let world = World::new();
    let handler = world.transform(with(Policy::Quarantine));
    drop_in(&world, &handler, "1.csv", FIRST).await.unwrap();
    for (key, text, reason) in [
        ("2.csv", ADDED, "added `color`"),
        ("3.csv", RENAMED, "missing `name`"),
        ("4.csv", RETYPED, "`amount` is text"),
    ] {
        let event = world.file(key, text);
        let done = handle(&handler, event.clone()).await.unwrap();
        let kinds: Vec<&str> = done.emits.iter().map(|e| e.detail_type.as_str()).collect();
        assert_eq!(kinds, ["Object Quarantined", "Schema Changed"]);
        let detail = &done.emits[0].detail;
        assert!(
            detail["reason"].as_str().unwrap().contains(reason),
            "{detail}"
        );
        assert_eq!(
            std::fs::read_to_string(detail["path"].as_str().unwrap()).unwrap(),
            text
        );
        // A retry finds it done, even when the object is gone by then.
        std::fs::remove_file(world.path("inbox").join(key)).unwrap();
        let again = handle(&world.transform(with(Policy::Quarantine)), event)
            .await
            .unwrap();
        assert_eq!(again.summary, done.summary);
    }
    assert_eq!(world.csv("select count(*) from lake.t").await, "2");
}

/// Without a declared schema, the first object says what is known.
fn undeclared(policy: Policy) -> TransformOptions {
    let mut options = options();
    options.read.drift = Some(policy);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_schema_types_widen_and_the_table_stays_readable() {
    let world = World::new();
    let handler = world.transform(undeclared(Policy::Widen));
    let first = drop_in(&world, &handler, "1.ndjson", "{\"a\":1,\"b\":\"x\"}\n")
        .await
        .unwrap();
    assert_eq!(changed(&first), None);
    let done = drop_in(
        &world,
        &handler,
        "2.ndjson",
        "{\"a\":1.5,\"b\":\"y\",\"c\":true}\n",
    )
    .await
    .unwrap();
    assert_eq!(short(&done), "+c - > ~number");
    // What was a number stays one; what was not there before is null.
    let done = drop_in(&world, &handler, "3.ndjson", "{\"b\":\"z\"}\n")
        .await
        .unwrap();
    assert_eq!(changed(&done), None);
    assert_eq!(
        world.csv("select a, b, c from lake.t order by b").await,
        "1.0,x,\n1.5,y,true\n,z,"
    );
    let done = drop_in(
        &world,
        &handler,
        "4.ndjson",
        "{\"a\":\"many\",\"b\":\"zz\"}\n",
    )
    .await
    .unwrap();
    assert_eq!(short(&done), "+ - > ~text");
    assert_eq!(
        world.csv("select a, b from lake.t where b = 'zz'").await,
        "\"\"\"many\"\"\",zz"
    );
    assert_eq!(world.csv("select count(a) from lake.t").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_schema_the_other_policies_hold_too() {
    for (policy, rows) in [
        (Policy::Fail, "1,x"),
        (Policy::Quarantine, "1,x"),
        (
            Policy::Rescue,
            "1,x,\n,y,\"{\"\"a\"\":\"\"two\"\",\"\"c\"\":[1]}\"",
        ),
    ] {
        let world = World::new();
        let handler = world.transform(undeclared(policy));
        drop_in(&world, &handler, "1.ndjson", "{\"a\":1,\"b\":\"x\"}\n")
            .await
            .unwrap();
        let second = drop_in(
            &world,
            &handler,
            "2.ndjson",
            "{\"a\":\"two\",\"b\":\"y\",\"c\":[1]}\n",
        )
        .await;
        assert_eq!(second.is_err(), policy == Policy::Fail, "{second:?}");
        let columns = if policy == Policy::Rescue {
            "a, b, _rescued"
        } else {
            "a, b"
        };
        assert_eq!(
            world
                .csv(&format!("select {columns} from lake.t order by b"))
                .await,
            rows
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_parquet_drift_too() {
    let source = World::new();
    let mut made = options();
    made.sql =
        Some("select cast(id as bigint) as id, name as amount, 'x' as more from input".to_owned());
    let event = source.file("x.csv", "id,name\n1,1.5\n2,much\n");
    handle(&source.transform(made), event).await.unwrap();
    let file = source
        .files("lake")
        .into_iter()
        .find(|f| f.ends_with(".parquet"))
        .unwrap();
    let parquet = std::fs::read(source.path("lake").join(file)).unwrap();
    for policy in [
        Policy::Fail,
        Policy::Widen,
        Policy::Rescue,
        Policy::Quarantine,
    ] {
        let world = World::new();
        let handler = world.transform(with(policy));
        let result = handle(&handler, world.file("x.parquet", &parquet)).await;
        match policy {
            Policy::Fail => assert_eq!(
                result.unwrap_err().message,
                "the columns of `x.parquet` changed: added `more`; missing `name`; perhaps renamed `name` to `more`; `amount` is text, not decimal(18,2)"
            ),
            Policy::Quarantine => assert_eq!(result.unwrap().emits.len(), 2),
            Policy::Widen => {
                assert_eq!(result.unwrap().summary["rejects"]["count"], 1);
                assert_eq!(
                    world.csv("select id, amount, more from lake.t").await,
                    "1,1.50,x"
                );
            }
            Policy::Rescue => {
                result.unwrap();
                let rows = world
                    .csv("select id, amount, _rescued from lake.t order by id")
                    .await;
                assert_eq!(
                    rows,
                    "1,1.50,\"{\"\"more\"\":\"\"x\"\"}\"\n2,,\"{\"\"amount\"\":\"\"much\"\",\"\"more\"\":\"\"x\"\"}\""
                );
            }
        }
    }
}
