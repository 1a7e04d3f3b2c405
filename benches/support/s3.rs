//! S3's "Object Created" events in EventBridge's envelope, about 740 bytes
//! each, and rules of which each event matches one.

/// How the rules ask for the object's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    Prefix,
    Wildcard,
}

/// `count` events for `rules` rules: event n is for rule n * 7919 % rules.
pub fn events(count: usize, rules: usize, keys: Keys) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| event(n * 7919 % rules, n, keys).into_bytes())
        .collect()
}

fn event(i: usize, n: usize, keys: Keys) -> String {
    let day = n % 28 + 1;
    let key = match keys {
        Keys::Prefix => format!("raw/{i}/2026/03/{day:02}/part-{n:05}.parquet"),
        Keys::Wildcard => format!("raw/team-{}/{i}/part-{n:05}.csv", n % 17),
    };
    format!(
        "{{\"version\":\"0\",\"id\":\"17793124-05d4-b198-2fde-{n:012x}\",\"detail-type\":\"Object \
         Created\",\"source\":\"aws.s3\",\"account\":\"111122223333\",\"time\":\"2026-03-{day:02}T20:\
         22:{:02}Z\",\"region\":\"ca-central-1\",\"resources\":[\"arn:aws:s3:::bucket-{i}\"],\
         \"detail\":{{\"version\":\"0\",\"bucket\":{{\"name\":\"bucket-{i}\"}},\"object\":{{\"key\":\
         \"{key}\",\"size\":{},\"etag\":\"b1946ac92492d2347c6235b4d2611184\",\"version-id\":\
         \"IYV3p45BT0ac8hjHg1houSdS1a.Mro8e\",\"sequencer\":\"617f08299329d189\"}},\"request-id\":\
         \"N4N7GDK58NMKJ12R\",\"requester\":\"123456789012\",\"source-ip-address\":\"10.{}.{}.{}\",\
         \"reason\":\"PutObject\",\"deletion-type\":null,\"user\":{{\"arn\":\"arn:aws:iam::\
         123456789012:role/ingest-writer\",\"session\":\"AROAEXAMPLE:ingest-{}\"}},\"tags\":[\"team=\
         data\",\"env=prod\",\"tier=raw\"]}}}}",
        n % 60,
        n % 100_000 + 5,
        n % 200,
        n % 251,
        n % 83,
        n % 97,
    )
}

/// The rule that the events of number `i` are for.
pub fn rule(i: usize, keys: Keys) -> String {
    let key = match keys {
        Keys::Prefix => format!("{{\"prefix\":\"raw/{i}/\"}}"),
        Keys::Wildcard => format!("{{\"wildcard\":\"raw/*/{i}/*.csv\"}}"),
    };
    format!(
        "{{\"source\":[\"aws.s3\"],\"detail-type\":[\"Object Created\"],\"detail\":{{\"bucket\":\
         {{\"name\":[\"bucket-{i}\"]}},\"object\":{{\"key\":[{key}],\"size\":[{{\"numeric\":[\">\",0\
         ]}}]}}}}}}"
    )
}

/// A rule that has nothing but a wildcard to be found by.
pub fn wildcard_rule(i: usize) -> String {
    format!(
        "{{\"source\":[\"aws.s3\"],\"detail\":{{\"object\":{{\"key\":[{{\"wildcard\":\"raw/*/{i}/*.\
         csv\"}}]}}}}}}"
    )
}
