//! Stops, full buses, servers that go away, listings that lose their place.

use super::super::folder::Mood;
use super::{Pond, client};
use crate::support::seaweedfs::SeaweedFs;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use pointsman::sources::s3::{Begin, ListError, Listed, Listing, Page, S3Status, What};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The listing of a bucket in pages of a few keys, which loses its place once.
struct Forgetful {
    inner: Arc<dyn Listing>,
    left: AtomicU32,
    pages: AtomicU32,
}

impl Listing for Forgetful {
    fn page<'a>(
        &'a self,
        prefix: &'a str,
        what: What,
        from: &'a Begin,
    ) -> BoxFuture<'a, Result<Page, ListError>> {
        let place = match from {
            Begin::Token(place) => place.parse().unwrap(),
            _ => 0,
        };
        self.pages.fetch_add(1, Ordering::Relaxed);
        let lost = place > 0
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
        if lost {
            let error = ListError::Token("ExpiredToken".to_owned());
            return futures::future::err(error).boxed();
        }
        let all = self.inner.page(prefix, what, &Begin::Start);
        all.map_ok(move |mut all| {
            let rest = all.entries.split_off(place.min(all.entries.len()));
            let more = rest.len() > 3;
            Page {
                entries: rest.into_iter().take(3).collect(),
                next: more.then(|| (place + 3).to_string()),
            }
        })
        .boxed()
    }

    fn head<'a>(
        &'a self,
        key: &'a str,
        version: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Listed>, ListError>> {
        self.inner.head(key, version)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_loses_its_place_is_begun_anew() {
    let mut pond = Pond::new("token");
    let listing = Arc::new(Forgetful {
        inner: Arc::new(pond.bucket.listing.clone()),
        left: AtomicU32::new(2),
        pages: AtomicU32::new(0),
    });
    pond.listing = Some(listing.clone());
    let keys: Vec<String> = (0..10).map(|n| format!("{n}.csv")).collect();
    for key in &keys {
        pond.put(key, "x").await;
    }
    let source = pond.start().await;
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    pond.expect(&source, &keys).await;
    assert_eq!(source.status().await.counts.begun_anew, 2);
    assert!(listing.pages.load(Ordering::Relaxed) >= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_tells_nothing_twice_and_misses_nothing() {
    let pond = Pond::new("restart");
    pond.put("a.csv", "a").await;
    let source = pond.start().await;
    pond.wait_for(&source, 1).await;
    source.stop().await;
    pond.put("b.csv", "b").await;
    pond.put("a.csv", "changed meanwhile").await;
    let source = pond.start().await;
    pond.expect(&source, &["a.csv", "a.csv", "b.csv"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_between_the_bus_and_the_ledger_tells_nothing_twice() {
    let pond = Pond::new("cut");
    pond.put("a.csv", "a").await;
    // The bus has it, and the source never hears of that.
    pond.bus.mood(Mood::TakeAndDie);
    let source = pond.start().await;
    pond.wait_for(&source, 1).await;
    source.stop().await;
    pond.bus.mood(Mood::Take);
    let source = pond.start().await;
    source.handle.rescan().await.unwrap();
    assert_eq!(pond.bus.created(), ["a.csv"]);
    assert_eq!(source.status().await.counts.duplicates, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_bus_takes_nothing_the_source_waits() {
    let pond = Pond::new("busy");
    pond.bus.mood(Mood::Busy);
    pond.put("a.csv", "a").await;
    let source = pond.start().await;
    let paused = |status: &S3Status| serde_json::json!(status)["mode"]["state"] == "paused";
    while !paused(&source.status().await) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pond.bus.mood(Mood::Take);
    pond.expect(&source, &["a.csv"]).await;
    assert!(!paused(&source.status().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_refuses_is_shown_and_not_tried_again() {
    let pond = Pond::new("refused");
    pond.bus.mood(Mood::Refuse);
    pond.put("a.csv", "a").await;
    let source = pond.start().await;
    while source.status().await.objects.refused == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pond.bus.mood(Mood::Take);
    source.handle.rescan().await.unwrap();
    assert_eq!(pond.bus.len(), 0);
    let refused = source.status().await.refused;
    assert_eq!(
        (refused[0].key.as_str(), refused[0].reason.as_str()),
        ("a.csv", "too odd")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_and_comes_back_costs_nothing() {
    let mut server = SeaweedFs::start();
    let pond = Pond::on(&server, "away");
    for n in 0..20 {
        pond.put(&format!("{n:02}.csv"), "x").await;
    }
    let source = pond.start().await;
    pond.wait_for(&source, 20).await;
    server.stop();
    // A walk is under way, or begins; it fails, and says so.
    while source.status().await.errors.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.resume();
    let again = client(&server, &pond.options.bucket);
    let path = object_store::path::Path::from("new.csv");
    object_store::ObjectStoreExt::put(&*again.store, &path, "y".into())
        .await
        .unwrap();
    pond.wait_for(&source, 21).await;
    source.handle.rescan().await.unwrap();
    assert_eq!(pond.bus.len(), 21);
    assert_eq!(pond.bus.duplicates(), 0);
    assert_eq!(source.status().await.objects.gone, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_told_and_found_when_it_comes() {
    let mut pond = Pond::new("late");
    pond.options.bucket = format!("{}-later", pond.options.bucket);
    pond.bucket = client(super::seaweedfs::shared(), &pond.options.bucket);
    let source = pond.start().await;
    let status = loop {
        let status = source.status().await;
        if !status.errors.is_empty() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(
        status.errors[0].error.contains("NoSuchBucket"),
        "{status:?}"
    );
    let script = "s3.create_bucket(Bucket=sys.argv[2])";
    super::seaweedfs::shared().boto(script, &[&pond.options.bucket]);
    pond.put("a.csv", "a").await;
    pond.expect(&source, &["a.csv"]).await;
}
