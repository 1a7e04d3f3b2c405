//! Many keys. `POINTSMAN_LONG=1` makes it 100,000.

use super::Pond;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use pointsman::sources::s3::{Begin, ListError, Listed, Listing, Page, What};
use pointsman::sources::{Incoming, Intake, IntakeError, Taken};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_each_one_event() {
    let many: usize = match std::env::var_os("POINTSMAN_LONG") {
        Some(_) => 100_000,
        None => 2_500,
    };
    let pond = Pond::new("many");
    let source = pond.start().await;
    let store: Arc<dyn ObjectStore> = pond.bucket.store.clone();
    let began = Instant::now();
    let puts = (0..many).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let key = Path::from(format!("{:03}/{n:06}.csv", n * 7919 % 997));
            store.put(&key, format!("{n}").into()).await.unwrap();
        })
    });
    futures::stream::iter(puts)
        .buffer_unordered(32)
        .for_each(|put| async { put.unwrap() })
        .await;
    eprintln!("{many} puts in {:?}", began.elapsed());
    // The source has looked all the while; after a long walk it rests for long.
    source.handle.rescan().await.unwrap();
    pond.wait_for(&source, many).await;
    let keys = pond.bus.created();
    let distinct: std::collections::BTreeSet<&String> = keys.iter().collect();
    assert_eq!((keys.len(), distinct.len()), (many, many));
    assert_eq!(pond.bus.duplicates(), 0);
    let status = source.status().await;
    assert_eq!(status.objects.accepted, many as u64);
    eprintln!("{}", serde_json::json!(status.last_walk));
}

/// A bucket of so many keys that nobody has to fill.
struct MadeUp {
    keys: usize,
    pages: AtomicUsize,
}

impl MadeUp {
    fn entry(n: usize) -> Listed {
        Listed {
            key: format!("year=2026/part={:03}/object-{n:08}.parquet", n / 10_000),
            size: 1,
            etag: format!("{n:032x}"),
            modified_ms: 1_767_225_600_000,
            version: None,
            deleted: false,
            class: None,
        }
    }
}

impl Listing for MadeUp {
    fn page<'a>(
        &'a self,
        _prefix: &'a str,
        _what: What,
        from: &'a Begin,
    ) -> BoxFuture<'a, Result<Page, ListError>> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        let first = match from {
            Begin::Token(place) => place.parse().expect("a number"),
            _ => 0,
        };
        let end = (first + 1_000).min(self.keys);
        let page = Page {
            entries: (first..end).map(Self::entry).collect(),
            next: (end < self.keys).then(|| end.to_string()),
        };
        futures::future::ok(page).boxed()
    }

    fn head<'a>(
        &'a self,
        _key: &'a str,
        _version: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Listed>, ListError>> {
        futures::future::ok(None).boxed()
    }
}

/// A bus that only counts.
#[derive(Default)]
struct Counts(AtomicU64);

impl Intake for Counts {
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>> {
        let taken = batch
            .iter()
            .map(|_| Taken::Accepted(self.0.fetch_add(1, Ordering::Relaxed) + 1));
        futures::future::ok(taken.collect()).boxed()
    }
}

/// Resident memory of this process, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a number") / 1024
}

/// `POINTSMAN_LONG=1` makes it a million.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_has_nothing_new_is_compared_page_by_page() {
    let keys: usize = match std::env::var_os("POINTSMAN_LONG") {
        Some(_) => 1_000_000,
        None => 12_345,
    };
    let mut pond = Pond::new("million");
    let listing = Arc::new(MadeUp {
        keys,
        pages: AtomicUsize::new(0),
    });
    pond.listing = Some(listing.clone());
    let counts = Arc::new(Counts::default());
    let taken = || counts.0.load(Ordering::Relaxed);
    let before = resident();
    let source = pond.start_into(counts.clone()).await;
    source.handle.rescan().await.unwrap();
    source.handle.rescan().await.unwrap();
    assert_eq!(taken(), keys as u64);
    let status = source.status().await;
    assert_eq!(status.objects.accepted, keys as u64);
    let walk = status.last_walk.expect("a walk");
    assert_eq!((walk.keys, walk.found), (keys as u64, 0));
    assert_eq!(walk.pages, keys.div_ceil(1_000) as u64);
    assert!(listing.pages.load(Ordering::Relaxed) >= 2 * keys.div_ceil(1_000));
    eprintln!(
        "{keys} keys: {} ms a walk, {} MiB more than before",
        walk.took_ms,
        resident().saturating_sub(before)
    );
    source.stop().await;
}
