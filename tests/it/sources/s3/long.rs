//! Many keys. `POINTSMAN_LONG=1` makes it 100,000.

use super::Pond;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
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
