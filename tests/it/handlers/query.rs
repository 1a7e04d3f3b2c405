//! Queries: what can be asked, and what cannot.

use super::world::{World, handle, options};
use pointsman::handlers::query::QueryError;

async fn refused(world: &World, sql: &str) -> String {
    match world.query().run(sql).await {
        Err(QueryError::Sql { shown, .. }) => shown,
        Err(other) => panic!("{sql}: {other}"),
        Ok(_) => panic!("{sql}: it has an answer"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_show_the_sql_with_a_caret() {
    let world = World::new();
    let event = world.file("x.csv", "id\n1\n");
    handle(&world.transform(options()), event).await.unwrap();
    let shown = refused(&world, "select id,\n  idd\nfrom lake.t").await;
    assert!(shown.contains("\n 2 |   idd\n   |   ^"), "{shown}");
    let shown = refused(&world, "select * from t").await;
    assert_eq!(
        shown,
        "there is no table `t` in the warehouse; the lake has one: `lake.t`\n 1 | select * from t\n   |               ^"
    );
    let shown = refused(&world, "select * from nothing").await;
    assert!(
        shown.starts_with("there is no table `nothing`; there are: lake.t, rejects\n"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed_and_no_file_outside_read() {
    let world = World::new();
    let outside = world.path("outside.csv");
    std::fs::write(&outside, "a\n1\n").unwrap();
    let path = outside.display();
    for sql in [
        "create table x as select 1".to_owned(),
        format!("create external table x stored as csv location '{path}'"),
        format!("copy (select 1) to '{path}'"),
        "insert into rejects values (1)".to_owned(),
        "set datafusion.catalog.information_schema = true".to_owned(),
        format!("select * from '{path}'"),
        "select * from lake.\"../outside\"".to_owned(),
    ] {
        refused(&world, &sql).await;
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "a\n1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_can_be_asked_for() {
    let world = World::new();
    let event = world.file("x.csv", "id,day\n1,mon\n2,tue\n");
    let mut options = options();
    options.write.partition_by = vec!["day".to_owned()];
    handle(&world.transform(options), event).await.unwrap();
    let plan = world
        .csv("explain select * from lake.t where day = 'mon'")
        .await;
    assert!(
        plan.contains("day=mon") && !plan.contains("day=tue"),
        "{plan}"
    );
}
