//! Notifications as hints: lost, doubled, shuffled, late.

use super::{Pond, Source};
use pointsman::event::{Defaults, Event};
use pointsman::sources::{Incoming, Intake, IntakeError, Taken};
use serde_json::json;
use std::time::Duration;

/// A notification, as S3 sends it to EventBridge.
fn hint(pond: &Pond, what: &str, key: &str) -> Incoming {
    let detail = json!({
        "bucket": { "name": pond.options.bucket },
        "object": { "key": key, "size": 1, "etag": "of-then", "sequencer": "00A1" },
    });
    let text = json!({ "source": "aws.s3", "detail-type": what, "detail": detail });
    Incoming {
        event: Event::complete(text.to_string().as_bytes(), &Defaults::default(), 0)
            .unwrap()
            .into(),
        bus: "default".into(),
        cursor: None,
    }
}

async fn notified(what: &str) -> (Pond, Source) {
    let mut pond = Pond::new(what);
    pond.options.notified = true;
    pond.options.deletes = true;
    let source = pond.start().await;
    source.handle.rescan().await.unwrap();
    (pond, source)
}

async fn tell(source: &Source, hints: Vec<Incoming>) -> Vec<Taken> {
    source.handle.take(hints).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_brings_the_object_at_once_and_only_once() {
    let (pond, source) = notified("hint").await;
    pond.put("a.csv", "a").await;
    let twice = vec![
        hint(&pond, "Object Created", "a.csv"),
        hint(&pond, "Object Created", "a.csv"),
    ];
    let taken = tell(&source, twice).await;
    assert_eq!(taken, [Taken::Accepted(1), Taken::Duplicate(0)]);
    tell(&source, vec![hint(&pond, "Object Created", "a.csv")]).await;
    pond.expect(&source, &["a.csv"]).await;
    let counts = source.status().await.counts;
    assert_eq!((counts.hints, counts.absorbed), (3, 2));
    assert_eq!(counts.missed_by_hints, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_notification_is_only_late() {
    let (pond, source) = notified("lost").await;
    pond.put("a.csv", "a").await;
    source.handle.rescan().await.unwrap();
    pond.expect(&source, &["a.csv"]).await;
    assert_eq!(source.status().await.counts.missed_by_hints, 1);
    // It comes after all.
    let late = tell(&source, vec![hint(&pond, "Object Created", "a.csv")]).await;
    assert_eq!(late, [Taken::Duplicate(0)]);
    assert_eq!(pond.bus.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bucket_has_counts_whatever_the_order_of_hints() {
    let (pond, source) = notified("order").await;
    pond.put("a.csv", "a").await;
    pond.wait_until_told(&source, "a.csv").await;
    pond.delete("a.csv").await;
    pond.put("a.csv", "again").await;
    // The deletion comes last, and is of before.
    let hints = vec![
        hint(&pond, "Object Created", "a.csv"),
        hint(&pond, "Object Deleted", "a.csv"),
    ];
    tell(&source, hints).await;
    assert_eq!(pond.bus.created(), ["a.csv", "a.csv"]);
    assert_eq!(pond.bus.keys_of("Object Deleted").len(), 0);
    // Now it is gone, and the creation comes late.
    pond.delete("a.csv").await;
    tell(&source, vec![hint(&pond, "Object Created", "a.csv")]).await;
    assert_eq!(pond.bus.keys_of("Object Deleted"), ["a.csv"]);
    source.handle.rescan().await.unwrap();
    assert_eq!(pond.bus.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_none_of_the_buckets_goes_on_to_the_bus() {
    let (pond, source) = notified("others").await;
    let mut other = hint(&pond, "Object Created", "a.csv");
    let text = other.event.text().to_vec();
    let text = String::from_utf8(text)
        .unwrap()
        .replace(&pond.options.bucket, "elsewhere");
    other.event = Event::complete(text.as_bytes(), &Defaults::default(), 0)
        .unwrap()
        .into();
    assert_eq!(tell(&source, vec![other]).await, [Taken::Accepted(1)]);
    assert_eq!(pond.bus.created(), ["a.csv"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_of_hints_is_told_to_come_again_when_the_source_has_ended() {
    let (pond, source) = notified("ended").await;
    let handle = std::sync::Arc::clone(&source.handle);
    source.stop().await;
    let refused = handle
        .take(vec![hint(&pond, "Object Created", "a.csv")])
        .await;
    assert!(
        matches!(refused, Err(IntakeError::Busy { retry_after, .. }) if retry_after >= Duration::from_secs(1))
    );
}

impl Pond {
    async fn wait_until_told(&self, source: &Source, key: &str) {
        tell(source, vec![hint(self, "Object Created", key)]).await;
        assert!(self.bus.created().contains(&key.to_owned()));
    }
}
