//! Versioned buckets: each version is an event, and so is each deletion.

use super::Pond;
use crate::support::seaweedfs;

fn keep_versions(pond: &Pond) {
    let script = "s3.put_bucket_versioning(Bucket=sys.argv[2], VersioningConfiguration={'Status': 'Enabled'})";
    seaweedfs::shared().boto(script, &[&pond.options.bucket]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_is_an_event_even_if_it_came_between_two_listings() {
    let mut pond = Pond::new("versions");
    pond.options.versions = true;
    pond.options.deletes = true;
    keep_versions(&pond);
    for content in ["one", "two", "two", "three"] {
        pond.put("k.csv", content).await;
    }
    pond.put("other.csv", "x").await;
    let source = pond.start().await;
    pond.expect(&source, &["k.csv", "k.csv", "k.csv", "k.csv", "other.csv"])
        .await;
    let ids: std::collections::BTreeSet<String> = pond
        .bus
        .events()
        .iter()
        .map(|e| {
            e["detail"]["object"]["version-id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 5);
    pond.delete("k.csv").await;
    pond.wait_for(&source, 6).await;
    source.handle.rescan().await.unwrap();
    assert_eq!(pond.bus.keys_of("Object Deleted"), ["k.csv"]);
    let events = pond.bus.events();
    let deleted = events.last().unwrap();
    assert_eq!(deleted["detail"]["deletion-type"], "Delete Marker Created");
}
