//! Objects come, are overwritten and go; each version is one event.

use super::Pond;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use pointsman::sources::folder::Start;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_told_of_as_s3_tells_eventbridge() {
    let mut pond = Pond::new("told");
    pond.options.prefix = "in/".to_owned();
    pond.put("in/a b+c/é%.csv", "1,2\n").await;
    pond.put("other.csv", "x").await;
    let source = pond.start().await;
    pond.expect(&source, &["in/a b+c/é%.csv"]).await;
    let event = &pond.bus.events()[0];
    assert_eq!(event["source"], "aws.s3");
    assert_eq!(event["detail-type"], "Object Created");
    let bucket = pond.options.bucket.as_str();
    assert_eq!(event["resources"][0], format!("arn:aws:s3:::{bucket}"));
    let detail = &event["detail"];
    assert_eq!(detail["bucket"]["name"], bucket);
    assert_eq!(detail["object"]["size"], 4);
    // The MD5 of the content, as md5sum prints it.
    assert_eq!(detail["object"]["etag"], "3ecfad755fa825f7a17c5526ec44e651");
    assert_eq!(detail["reason"], "PutObject");
    assert_eq!(detail["object"]["sequencer"].as_str().unwrap().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writes_of_one_second_are_each_one_event() {
    let pond = Pond::new("burst");
    let source = pond.start().await;
    let mut keys = Vec::new();
    for n in 0..60 {
        // Not in the order of keys: lists are, times are not.
        let key = format!("{:02}.csv", n * 37 % 60);
        pond.put(&key, format!("content {n}")).await;
        keys.push(key);
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    pond.expect(&source, &keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_object_is_a_new_version_and_a_rewritten_walk_is_not() {
    let pond = Pond::new("over");
    let source = pond.start().await;
    pond.put("k.csv", "one").await;
    pond.wait_for(&source, 1).await;
    pond.put("k.csv", "two").await;
    pond.wait_for(&source, 2).await;
    // As it was at first: again a version, although its content was told of.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    pond.put("k.csv", "one").await;
    pond.wait_for(&source, 3).await;
    pond.expect(&source, &["k.csv", "k.csv", "k.csv"]).await;
    let etags: Vec<String> = pond
        .bus
        .events()
        .iter()
        .map(|e| e["detail"]["object"]["etag"].to_string())
        .collect();
    assert_eq!(etags[0], etags[2]);
    assert_ne!(etags[0], etags[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_consoles_and_globs_are_left_out() {
    let mut pond = Pond::new("globs");
    pond.options.prefix = "in/".to_owned();
    pond.options.include = vec!["*.csv".to_owned(), "deep/**".to_owned()];
    pond.options.exclude = vec!["bad*".to_owned()];
    let script = "
for key in ['in/', 'in/folder/']:
    s3.put_object(Bucket=sys.argv[2], Key=key, Body=b'')
";
    super::seaweedfs::shared().boto(script, &[&pond.options.bucket]);
    for key in [
        "in/a.csv",
        "in/a.txt",
        "in/bad.csv",
        "in/deep/x.bin",
        "in/empty.csv",
    ] {
        pond.put(key, if key.contains("empty") { "" } else { "x" })
            .await;
    }
    let source = pond.start().await;
    pond.expect(&source, &["in/a.csv", "in/deep/x.bin", "in/empty.csv"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_is_seen_when_it_is_complete() {
    let pond = Pond::new("parts");
    let source = pond.start().await;
    let path = Path::from("big.bin");
    let mut upload = pond.bucket.store.put_multipart(&path).await.unwrap();
    let part = || PutPayload::from(vec![7_u8; 5 << 20]);
    upload.put_part(part()).await.unwrap();
    upload.put_part(part()).await.unwrap();
    source.handle.rescan().await.unwrap();
    source.handle.rescan().await.unwrap();
    assert_eq!(pond.bus.len(), 0);
    upload.complete().await.unwrap();
    pond.expect(&source, &["big.bin"]).await;
    let event = &pond.bus.events()[0];
    assert_eq!(event["detail"]["object"]["size"], 10 << 20);
    assert_eq!(event["detail"]["reason"], "CompleteMultipartUpload");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_at_the_first_start_can_be_left_alone() {
    let mut pond = Pond::new("start");
    pond.options.start = Start::Now;
    pond.put("old.csv", "old").await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let source = pond.start().await;
    source.handle.rescan().await.unwrap();
    pond.put("new.csv", "new").await;
    pond.expect(&source, &["new.csv"]).await;
    assert_eq!(source.status().await.objects.noted, 1);
    // Its next version is news.
    pond.put("old.csv", "changed").await;
    pond.expect(&source, &["new.csv", "old.csv"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_are_told_of_where_that_is_wanted() {
    let mut pond = Pond::new("deletes");
    pond.options.deletes = true;
    pond.put("a.csv", "a").await;
    pond.put("b.csv", "b").await;
    let source = pond.start().await;
    pond.expect(&source, &["a.csv", "b.csv"]).await;
    pond.delete("a.csv").await;
    pond.wait_for(&source, 3).await;
    source.handle.rescan().await.unwrap();
    assert_eq!(pond.bus.keys_of("Object Deleted"), ["a.csv"]);
    // It comes back with other content.
    pond.put("a.csv", "again").await;
    pond.expect(&source, &["a.csv", "a.csv", "b.csv"]).await;
    assert_eq!(source.status().await.objects.gone, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ordered_keys_what_comes_before_the_end_is_found_by_the_reconcile() {
    let mut pond = Pond::new("ordered");
    pond.options.ordered = true;
    pond.options.reconcile = Duration::from_secs(2);
    for n in 0..5 {
        pond.put(&format!("2026/01/{n:02}.csv"), "x").await;
    }
    let source = pond.start().await;
    pond.wait_for(&source, 5).await;
    pond.put("2026/01/99.csv", "x").await;
    pond.put("1999/back-dated.csv", "x").await;
    pond.wait_for(&source, 7).await;
    let keys = pond.bus.created();
    assert_eq!(keys.len(), 7, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_taken_again() {
    let pond = Pond::new("forget");
    pond.put("a.csv", "a").await;
    pond.put("b.txt", "b").await;
    let source = pond.start().await;
    pond.expect(&source, &["a.csv", "b.txt"]).await;
    assert_eq!(source.handle.forget("*.csv").await.unwrap(), 1);
    pond.expect(&source, &["a.csv", "a.csv", "b.txt"]).await;
}
