//! Notifications of a bucket by a broker that loses, doubles and shuffles them: a
//! real S3 server, a real broker, and the whole program between them. Each version
//! is one event all the same; one whose notification was lost is only late.

use crate::conformance::{By, Feed, Message};
use crate::support::receiver::{Receiver, Reply};
use crate::support::seaweedfs::{self, SeaweedFs};
use crate::support::{PATIENCE, Running};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A server that tells of what happens in its buckets, and who is told.
fn telling() -> &'static (Receiver, SeaweedFs) {
    static SERVER: OnceLock<(Receiver, SeaweedFs)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let receiver = Receiver::start(|_, _| Reply::status(200));
        let server = SeaweedFs::start_notifying(&receiver.url("/told"));
        (receiver, server)
    })
}

/// A node that hears of `bucket` by a queue.
fn listening(by: By, server: &SeaweedFs, bucket: &str, more: &str) -> (Feed, Running) {
    let feed = Feed::new(by, "format: notification,");
    let weed = server.connection();
    feed.project.write(
        "rules/bucket.yaml",
        format!(
            "connections: {{ weed: {weed} }}\nsources: {{ raw: {{ s3: {{ connection: weed, bucket: {bucket}, prefix: in/, deletes: true, reconcile: 24h, {more} notifications: {{ from: feed }} }} }} }}\n"
        ),
    );
    let node = feed.project.start();
    feed.project.ok(&["sources", "rescan", "raw"]);
    (feed, node)
}

/// One in ten is lost, one in ten comes twice, and the order is any: the same in
/// every run.
fn mistreated(all: &[Message]) -> Vec<Message> {
    let mut left = Vec::new();
    for (n, message) in all.iter().enumerate() {
        match n % 10 {
            3 => {}
            7 => left.extend([message.clone(), message.clone()]),
            _ => left.push(message.clone()),
        }
    }
    let mut random: u64 = 0x5eed;
    for n in (1..left.len()).rev() {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        left.swap(n, (random >> 33) as usize % (n + 1));
    }
    left
}

/// Waits for as long as `number` grows, until it is `wanted`.
fn until(what: &str, wanted: usize, mut number: impl FnMut() -> usize) {
    let (mut best, mut since) = (0, Instant::now());
    loop {
        let now = number();
        if now >= wanted {
            return;
        }
        if now > best {
            (best, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{best} of {wanted} {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends messages, and waits until the source has done with all that were ever sent.
fn relay(feed: &Feed, node: &Running, messages: &[Message], before: &mut u64) {
    feed.send(Some(node), messages);
    *before += messages.len() as u64;
    let sent = *before;
    let done = || {
        let status = feed.status();
        let count = |name: &str| status["counts"][name].as_u64().expect("a count");
        assert_eq!(count("refused"), 0, "{status}");
        let done = count("accepted") + count("duplicates") + count("without-object");
        // One that came again is still in its hands.
        let still = count("received").saturating_sub(done).min(sent);
        usize::try_from(done.min(sent - still)).expect("a count")
    };
    until("messages", usize::try_from(sent).expect("a count"), done);
}

/// The events of the bucket, in the order of the bus: kind, key, etag and version.
fn told(feed: &Feed) -> Vec<(String, String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut told: Vec<_> = feed
        .listed()
        .iter()
        .filter(|event| event["source"] == "aws.s3")
        .map(|event| {
            let object = &event["detail"]["object"];
            (
                text(&event["detail-type"]),
                text(&object["key"]),
                text(&object["etag"]),
                text(&object["version-id"]),
            )
        })
        .collect();
    told.sort();
    told
}

fn created(key: &str, etag: &str) -> (String, String, String, String) {
    let kind = "Object Created".to_owned();
    (kind, key.to_owned(), etag.to_owned(), String::new())
}

/// Puts these objects, as fast as it can; the etags, by key.
fn put(server: &SeaweedFs, bucket: &str, objects: &[(String, String)]) -> BTreeMap<String, String> {
    let script = "
etags = {}
for key, body in json.loads(sys.argv[3]):
    etags[key] = s3.put_object(Bucket=sys.argv[2], Key=key, Body=body.encode())['ETag'].strip('\"')
print(json.dumps(etags))
";
    let said = server.boto(script, &[bucket, &json!(objects).to_string()]);
    serde_json::from_str(&said).expect("etags")
}

/// What the server has told of this bucket since `from`, and how much that is.
fn heard(receiver: &Receiver, bucket: &str, from: usize) -> Vec<Message> {
    let all = receiver.got("/told");
    let mine = all.iter().enumerate().skip(from).filter(|(_, got)| {
        let key = got.json()["key"].as_str().unwrap_or_default().to_owned();
        key.starts_with(&format!("/buckets/{bucket}/in/"))
    });
    mine.map(|(n, got)| Message {
        id: format!("{bucket}-{n}"),
        body: got.body.clone().into_bytes(),
    })
    .collect()
}

fn versions_that_are_seen_one_by_one(by: By) {
    let (receiver, server) = telling();
    let bucket = server.bucket("told");
    let (feed, node) = listening(by, server, &bucket, "");
    let mut expected = Vec::new();
    let (mut missed, mut sent) = (0, 0);
    // Writes of one second; keys that sort before all others; the same keys with
    // other contents; deletions, and keys that come back.
    let rounds: Vec<Vec<(String, String)>> = vec![
        (0..60)
            .map(|n| (format!("in/m {n:02}+ü.csv"), format!("{n}")))
            .collect(),
        (0..20)
            .map(|n| (format!("in/a{n:02}.csv"), format!("{n}")))
            .collect(),
        (0..30)
            .map(|n| (format!("in/m {n:02}+ü.csv"), format!("again {n}")))
            .collect(),
    ];
    for (number, objects) in rounds.iter().enumerate() {
        let from = receiver.got("/told").len();
        let etags = put(server, &bucket, objects);
        until("notifications", objects.len(), || {
            heard(receiver, &bucket, from).len()
        });
        let heard = heard(receiver, &bucket, from);
        relay(&feed, &node, &mistreated(&heard), &mut sent);
        let late = expected.len() + objects.len() - told(&feed).len();
        assert!(
            (1..=objects.len() / 10 + 1).contains(&late),
            "round {number}: {late} were late"
        );
        expected.extend(etags.iter().map(|(key, etag)| created(key, etag)));
        feed.project.ok(&["sources", "rescan", "raw"]);
        expected.sort();
        assert_eq!(told(&feed), expected, "round {number}");
        missed += late;
    }
    let counts = feed.project.json(&["sources", "--json"])["raw"]["counts"].clone();
    assert_eq!(counts["missed-by-hints"], missed);
    assert!(counts["absorbed"].as_u64() > Some(0), "{counts}");
    assert_eq!(node.stop(), 0);
}

fn overwrites_and_deletions_while_notifications_are_read(by: By) {
    let (receiver, server) = telling();
    let bucket = server.bucket("busy");
    let (feed, node) = listening(by, server, &bucket, "");
    let from = receiver.got("/told").len();
    let objects = |text: &str| -> Vec<(String, String)> {
        (0..40)
            .map(|n| (format!("in/{n:02}"), format!("{text} {n}")))
            .collect()
    };
    put(server, &bucket, &objects("first"));
    until("notifications", 40, || heard(receiver, &bucket, from).len());
    let first = mistreated(&heard(receiver, &bucket, from));
    // They are read while the objects are written again, and some deleted.
    feed.send(Some(&node), &first[..20]);
    let last = put(server, &bucket, &objects("second"));
    feed.send(Some(&node), &first[20..]);
    server.boto(
        "for n in range(10): s3.delete_object(Bucket=sys.argv[2], Key=f'in/{n:02}')",
        &[&bucket],
    );
    until("notifications", 90, || heard(receiver, &bucket, from).len());
    // All of it once more, the old with the new.
    let mut sent = first.len() as u64;
    let all = heard(receiver, &bucket, from);
    relay(&feed, &node, &mistreated(&all), &mut sent);
    feed.project.ok(&["sources", "rescan", "raw"]);
    let events = told(&feed);
    let mut distinct = events.clone();
    distinct.dedup();
    assert_eq!(events, distinct, "a version was told twice");
    for (key, etag) in &last {
        let there = key.as_str() >= "in/10";
        let told = events.contains(&created(key, etag));
        assert!(told || !there, "{key} as it is now was not told of");
        let of_key = |kind: &str| events.iter().filter(|e| e.0 == kind && e.1 == *key).count();
        assert!(
            (1..=2).contains(&of_key("Object Created")) || !there,
            "{key}"
        );
        // One that was never seen need not be told of as gone.
        let gone = usize::from(!there && of_key("Object Created") > 0);
        assert_eq!(of_key("Object Deleted"), gone, "{key}");
    }
    assert_eq!(node.stop(), 0);
}

fn every_version_of_a_versioned_bucket(by: By) {
    let server = seaweedfs::shared();
    let bucket = server.bucket("versions");
    server.boto(
        "s3.put_bucket_versioning(Bucket=sys.argv[2], VersioningConfiguration={'Status': 'Enabled'})",
        &[&bucket],
    );
    let (feed, node) = listening(by, server, &bucket, "versions: true,");
    // Nobody waits between writes; each is told as S3 tells it.
    let script = "
import datetime
told, number = [], 0
def record(name, key, said):
    global number
    number += 1
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
    told.append({'Records': [{'eventVersion': '2.1', 'eventSource': 'aws:s3', 'eventTime': now, 'eventName': name,
        's3': {'bucket': {'name': sys.argv[2]}, 'object': {'key': key.replace('/', '%2F'), 'size': 1,
            'eTag': said.get('ETag', '').strip('\"'), 'versionId': said['VersionId'], 'sequencer': f'{number:016X}'}}}]})
for turn in range(5):
    for n in range(12):
        key = f'in/{n:02}'
        record('ObjectCreated:Put', key, s3.put_object(Bucket=sys.argv[2], Key=key, Body=b'%d' % (turn // 2)))
for n in range(6):
    key = f'in/{n:02}'
    record('ObjectRemoved:DeleteMarkerCreated', key, s3.delete_object(Bucket=sys.argv[2], Key=key))
print(json.dumps(told))
";
    let all: Vec<Value> = serde_json::from_str(&server.boto(script, &[&bucket])).expect("JSON");
    let messages: Vec<Message> = all
        .iter()
        .enumerate()
        .map(|(n, record)| Message {
            id: format!("{bucket}-{n}"),
            body: record.to_string().into_bytes(),
        })
        .collect();
    relay(&feed, &node, &mistreated(&messages), &mut 0);
    let late = all.len() - told(&feed).len();
    assert!((1..=all.len() / 10 + 1).contains(&late), "{late} were late");
    feed.project.ok(&["sources", "rescan", "raw"]);
    let mut expected: Vec<(String, String)> = all
        .iter()
        .map(|told| {
            let (name, object) = (
                &told["Records"][0]["eventName"],
                &told["Records"][0]["s3"]["object"],
            );
            let kind = match name == "ObjectCreated:Put" {
                true => "Object Created",
                false => "Object Deleted",
            };
            (
                kind.to_owned(),
                object["versionId"].as_str().expect("a version").to_owned(),
            )
        })
        .collect();
    expected.sort();
    let mut events: Vec<(String, String)> = told(&feed)
        .into_iter()
        .map(|(kind, _, _, version)| (kind, version))
        .collect();
    events.sort();
    assert_eq!(events, expected);
    assert_eq!(node.stop(), 0);
}

macro_rules! by {
    ($system:ident, $by:expr, $($test:ident)*) => {
        mod $system {
            use super::By;
            $(
                #[test]
                fn $test() {
                    super::$test($by);
                }
            )*
        }
    };
}

by! { rabbitmq, By::RabbitMq,
    versions_that_are_seen_one_by_one
    overwrites_and_deletions_while_notifications_are_read
    every_version_of_a_versioned_bucket
}

by! { sqs, By::Sqs,
    versions_that_are_seen_one_by_one
    overwrites_and_deletions_while_notifications_are_read
    every_version_of_a_versioned_bucket
}
