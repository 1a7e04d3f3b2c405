use super::*;
use proptest::prelude::*;
use serde_json::json;

fn objects(value: &Value) -> Vec<Event> {
    match read(value.to_string().as_bytes(), &Defaults::default(), 0).unwrap() {
        Notice::Objects(events) => events,
        Notice::Confirm(url) => panic!("asks for {url}"),
    }
}

/// As S3 encodes keys in its records.
fn form(key: &str) -> String {
    let one = |b: u8| match b {
        b' ' => "+".to_owned(),
        b if b.is_ascii_alphanumeric() || b"-_./".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    key.bytes().map(one).collect()
}

fn classic(name: &str, key: &str) -> Value {
    json!({ "Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-west-1",
        "eventTime": "2026-01-02T03:04:05.678Z", "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "c",
            "bucket": { "name": "raw", "arn": "arn:aws:s3:::raw" },
            "object": { "key": form(key), "size": 7, "eTag": "abc", "sequencer": "0055AED6DCD90281E5" },
        },
    }]})
}

/// Every shape, telling of the creation of `key` in bucket `raw`.
fn shapes(key: &str) -> Vec<(&'static str, Value)> {
    let s3 = classic("ObjectCreated:Put", key);
    let mut minio = classic("s3:ObjectCreated:Put", key);
    minio["EventName"] = json!("s3:ObjectCreated:Put");
    minio["Key"] = json!(format!("raw/{key}"));
    vec![
        (
            "SNS",
            json!({ "Type": "Notification", "Message": s3.to_string() }),
        ),
        ("S3", s3),
        ("MinIO", minio),
        (
            "EventBridge",
            json!({
                "version": "0", "source": "aws.s3", "detail-type": "Object Created", "time": "2026-01-02T03:04:05Z",
                "detail": { "bucket": { "name": "raw" }, "object": { "key": key, "size": 7, "etag": "abc" }, "reason": "PutObject" },
            }),
        ),
        (
            "R2",
            json!({
                "account": "a", "action": "PutObject", "bucket": "raw",
                "object": { "key": key, "size": 7, "eTag": "abc" }, "eventTime": "2026-01-02T03:04:05.678Z",
            }),
        ),
        (
            "SeaweedFS",
            json!({
                "event_type": "create", "key": format!("/buckets/raw/{key}"),
                "message": { "new_entry": {
                    "name": "x", "attributes": { "file_size": 7, "mtime": 1_767_323_045 },
                    "extended": { "Seaweed-X-Amz-ETag": STANDARD.encode("abc") },
                }},
            }),
        ),
    ]
}

#[test]
fn every_shape_is_the_same_event() {
    for (shape, value) in shapes("in/a b+c%20é.csv") {
        let events = objects(&value);
        assert_eq!(events.len(), 1, "{shape}");
        let detail = events[0].detail();
        assert_eq!(events[0].source(), "aws.s3", "{shape}");
        assert_eq!(events[0].detail_type(), "Object Created", "{shape}");
        assert_eq!(detail["bucket"]["name"], "raw", "{shape}");
        assert_eq!(detail["object"]["key"], "in/a b+c%20é.csv", "{shape}");
        assert_eq!(detail["object"]["size"], 7, "{shape}");
        assert_eq!(detail["object"]["etag"], "abc", "{shape}");
        assert_eq!(detail["reason"], "PutObject", "{shape}");
        assert!(
            events[0].time().starts_with("2026-01-02T03:04:05"),
            "{shape}"
        );
    }
}

#[test]
fn deletions_are_told_in_every_shape() {
    let r2 = json!({"action": "LifecycleDeletion", "bucket": "raw", "object": {"key": "k"}});
    let weed = json!({"event_type": "delete", "key": "/buckets/raw/k", "message": {"old_entry": {"name": "k"}}});
    for value in [
        classic("ObjectRemoved:DeleteMarkerCreated", "k"),
        classic("s3:ObjectRemoved:Delete", "k"),
        classic("LifecycleExpiration:Delete", "k"),
        r2,
        weed,
    ] {
        let events = objects(&value);
        assert_eq!(events[0].detail_type(), "Object Deleted", "{value}");
        assert_eq!(events[0].detail()["object"]["key"], "k");
    }
}

#[test]
fn what_concerns_no_object_is_nothing() {
    for value in [
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "raw"}),
        classic("ObjectRestore:Post", "k"),
        classic("s3:ObjectAccessed:Get", "k"),
        json!({"Records": []}),
        json!({"event_type": "create", "key": "/buckets/raw", "message": {"new_entry": {"name": "raw", "is_directory": true}}}),
        json!({"event_type": "create", "key": "/buckets/.system/x", "message": {"new_entry": {"name": "x"}}}),
        json!({"event_type": "create", "key": "/buckets/raw/.uploads/1/p", "message": {"new_entry": {"name": "p"}}}),
    ] {
        assert!(objects(&value).is_empty(), "{value}");
    }
}

#[test]
fn a_rename_is_a_going_and_a_coming() {
    let value = json!({
        "event_type": "rename", "key": "/buckets/raw/a.csv",
        "message": {
            "old_entry": {"name": "a.csv"}, "new_parent_path": "/buckets/raw/done",
            "new_entry": {"name": "b.csv", "attributes": {"file_size": 1}},
        },
    });
    let told: Vec<_> = objects(&value)
        .iter()
        .map(|e| {
            (
                e.detail_type().to_owned(),
                e.detail()["object"]["key"].clone(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Object Deleted".to_owned(), json!("a.csv")),
            ("Object Created".to_owned(), json!("done/b.csv")),
        ]
    );
}

#[test]
fn what_is_no_notification_is_told_why() {
    let error = |body: &str| read(body.as_bytes(), &Defaults::default(), 0).unwrap_err();
    assert!(matches!(error("{"), NotificationError::NotJson(_)));
    assert_eq!(error("{}"), NotificationError::Unknown);
    assert_eq!(error("[1]"), NotificationError::Unknown);
    assert_eq!(
        error(r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"}}}]}"#),
        NotificationError::Lacks("s3.object.key")
    );
    // What others send is no word of a bucket, and must not pass for one.
    assert_eq!(
        error(r#"{"Records":[{"eventSource":"aws:kinesis","kinesis":{}}]}"#),
        NotificationError::Lacks("s3")
    );
    assert_eq!(
        error(r#"{"source":"shop","detail-type":"Order","detail":{"n":1}}"#),
        NotificationError::Unknown
    );
    let asked = read(
        br#"{"Type":"SubscriptionConfirmation","SubscribeURL":"https://sns/x"}"#,
        &Defaults::default(),
        0,
    );
    assert!(matches!(asked, Ok(Notice::Confirm(url)) if url == "https://sns/x"));
}

#[test]
fn a_notification_that_comes_twice_is_one_event() {
    let first = objects(&classic("ObjectCreated:Put", "k"));
    let again = objects(&json!({
        "Type": "Notification", "Message": classic("ObjectCreated:Put", "k").to_string(),
    }));
    assert_eq!(first[0].id(), again[0].id());
    let mut later = classic("ObjectCreated:Put", "k");
    later["Records"][0]["s3"]["object"]["sequencer"] = json!("0055AED6DCD90281E6");
    assert_ne!(first[0].id(), objects(&later)[0].id());
}

/// Any JSON, with the names that shapes are told by among its members.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z:/% +.]{0,12}".prop_map(Value::from),
        Just(json!("Notification")),
        Just(json!("ObjectCreated:Put")),
        Just(json!("/buckets/raw/k")),
        Just(json!("Object Created")),
    ];
    let names = prop::sample::select(vec![
        "Records",
        "Type",
        "Message",
        "eventName",
        "s3",
        "bucket",
        "object",
        "key",
        "name",
        "detail",
        "detail-type",
        "action",
        "event_type",
        "message",
        "new_entry",
        "eventTime",
    ]);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(read(&body, &Defaults::default(), 0));
    }

    #[test]
    fn no_json_makes_it_panic(value in any_json()) {
        drop(read(value.to_string().as_bytes(), &Defaults::default(), 0));
    }

    #[test]
    fn every_key_comes_through_every_shape(key in "[^/\\.\0][^\0]{0,30}") {
        for (shape, value) in shapes(&key) {
            let events = objects(&value);
            prop_assert_eq!(&events[0].detail()["object"]["key"], &json!(key), "{}", shape);
        }
    }
}
