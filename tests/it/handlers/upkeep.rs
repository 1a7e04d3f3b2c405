//! Lake tables over time: small files are put together, old publications go,
//! and readers see each row once at every moment.

use super::world::{World, handle, options};
use pointsman::handlers::transform::manifest::Manifest;
use pointsman::handlers::transform::options::TransformOptions;
use pointsman::handlers::transform::upkeep::{Kept, Upkeep, maintain};
use std::time::Duration;

const DAY: i64 = 24 * 3_600_000;

fn by_day() -> TransformOptions {
    let mut options = options();
    options.write.partition_by = vec!["day".to_owned()];
    options
}

fn upkeep() -> Upkeep {
    Upkeep {
        small: 1 << 20,
        target: 8 << 20,
        keep: Some(Duration::from_secs(10 * 24 * 3600)),
        grace: Duration::from_secs(3600),
    }
}

async fn run(world: &World, now_ms: i64) -> Kept {
    maintain(&world.path("lake"), "t", &upkeep(), now_ms)
        .await
        .unwrap()
}

/// Dates a publication back.
fn date(world: &World, publication: &str, published_ms: i64) {
    let lake = world.path("lake");
    let mut manifest = Manifest::load(&lake, "t", publication).unwrap().unwrap();
    manifest.published_ms = published_ms;
    let path = Manifest::path(&lake, "t", publication);
    std::fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn data_files(world: &World) -> usize {
    world
        .files("lake")
        .iter()
        .filter(|f| f.ends_with(".parquet"))
        .count()
}

const ROWS: &str = "select count(*), count(distinct id), count(distinct day) from lake.t";

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_put_together_and_old_ones_go() {
    let world = World::new();
    let handler = world.transform(by_day());
    let start = 20_000 * DAY;
    let mut publications = Vec::new();
    for file in 0..20_i64 {
        let rows: String = (0..10)
            .map(|n| format!("{},d{}\n", file * 10 + n, n % 2))
            .collect();
        let event = world.file(&format!("{file}.csv"), format!("id,day\n{rows}"));
        let done = handle(&handler, event).await.unwrap();
        let publication = done.summary["publication"].as_str().unwrap().to_owned();
        // Half of them on one day, half on the next.
        date(&world, &publication, start + file / 10 * DAY + file);
        publications.push(publication);
    }
    assert_eq!(
        (data_files(&world), world.csv(ROWS).await),
        (40, "200,200,2".to_owned())
    );
    // Two days, two partitions: four groups of ten.
    let kept = run(&world, start + DAY + 1000).await;
    assert_eq!(
        (kept.compacted, kept.written, kept.expired, kept.removed),
        (40, 4, 0, 0)
    );
    assert_eq!(
        (data_files(&world), world.csv(ROWS).await),
        (44, "200,200,2".to_owned())
    );
    assert_eq!(
        world
            .csv("select count(*) from lake.t where day = 'd1'")
            .await,
        "100"
    );
    // Within the time of grace what was replaced stays; a second run finds nothing to do.
    let kept = run(&world, start + DAY + 2000).await;
    assert_eq!(kept, Kept::default());
    let kept = run(&world, start + DAY + 2 * 3_600_000).await;
    assert_eq!((kept.removed, data_files(&world)), (40, 4));
    assert_eq!(world.csv(ROWS).await, "200,200,2");
    // A transform that changed cannot take back what was put together, and says so.
    let mut changed = by_day();
    changed.sql = Some("select id, 'x' as day from input".to_owned());
    let refused = handle(&world.transform(changed), world.created("0.csv")).await;
    assert_eq!(refused.unwrap_err().code, "Compacted");
    // A retry of a cause whose files were put together is answered, not done again.
    let again = handle(&handler, world.created("0.csv")).await.unwrap();
    assert_eq!(again.summary["publication"], publications[0].as_str());
    assert_eq!(world.csv(ROWS).await, "200,200,2");
    // Ten days later the first day goes, and then the second.
    let kept = run(&world, start + 10 * DAY + DAY / 2).await;
    assert_eq!(
        (kept.expired, world.csv(ROWS).await),
        (12, "100,100,2".to_owned())
    );
    let kept = run(&world, start + 12 * DAY).await;
    let left = world.csv("select count(*) from lake.t").await;
    assert_eq!((kept.expired, left), (12, "0".to_owned()));
    run(&world, start + 13 * DAY).await;
    assert_eq!(data_files(&world), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_changed_transform_left_behind_goes_too() {
    let world = World::new();
    let event = world.file("x.csv", "id,day\n1,a\n2,b\n");
    handle(&world.transform(by_day()), event.clone())
        .await
        .unwrap();
    let mut changed = by_day();
    changed.sql = Some("select id, 'all' as day from input".to_owned());
    handle(&world.transform(changed), event).await.unwrap();
    assert_eq!(data_files(&world), 3);
    let now = 30_000 * DAY;
    let keep = Upkeep {
        keep: None,
        ..upkeep()
    };
    let lake = world.path("lake");
    for at in [now, now + DAY] {
        maintain(&lake, "t", &keep, at).await.unwrap();
    }
    assert_eq!(data_files(&world), 1);
    assert_eq!(
        world.csv("select count(*), min(day) from lake.t").await,
        "2,all"
    );
}
