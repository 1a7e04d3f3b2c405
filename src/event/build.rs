//! Events that the program itself makes.

use super::{Defaults, Event, EventError, rfc3339};
use serde_json::{Map, Value, json};

/// Builds an event of the program's own.
#[derive(Clone, Debug)]
pub struct EventBuilder {
    /// The event's id.
    pub id: String,
    /// `source`.
    pub source: String,
    /// `detail-type`.
    pub detail_type: String,
    /// `time` in Unix milliseconds.
    pub time_ms: i64,
    /// `resources`.
    pub resources: Vec<String>,
    /// `detail`, an object.
    pub detail: Value,
}

impl EventBuilder {
    /// Makes the event.
    ///
    /// # Errors
    /// When `detail` is not an object, a name is empty, or the event is too large.
    pub fn build(self, defaults: &Defaults) -> Result<Event, EventError> {
        let envelope = json!({
            "version": "0",
            "id": self.id,
            "detail-type": self.detail_type,
            "source": self.source,
            "account": defaults.account,
            "time": rfc3339(self.time_ms),
            "region": defaults.region,
            "resources": self.resources,
            "detail": self.detail,
        });
        Event::complete(envelope.to_string().as_bytes(), defaults, self.time_ms)
    }
}

/// An object event: the same `detail` as S3 sends to EventBridge, so that one
/// rule serves a folder and a bucket.
#[derive(Clone, Debug)]
pub struct ObjectEvent {
    /// The event's id (see [`super::object_id`]).
    pub id: String,
    /// `source`: `pointsman.folder`, or `aws.s3` for a bucket.
    pub source: String,
    /// `Object Created` or `Object Deleted`.
    pub detail_type: String,
    /// `detail.bucket.name`: a bucket, or the name of the declared folder source.
    pub bucket: String,
    /// `detail.object.key`, relative to the bucket or folder.
    pub key: String,
    /// The key's bytes in base64, only where the key is not UTF-8.
    pub key_bytes: Option<String>,
    /// Size in bytes (absent for deletes).
    pub size: Option<u64>,
    /// What identifies the content: an etag, or a value computed from size and time.
    pub etag: Option<String>,
    /// Version id of a versioned bucket.
    pub version_id: Option<String>,
    /// Orders the versions of one key (hexadecimal).
    pub sequencer: Option<String>,
    /// `detail.reason`.
    pub reason: String,
    /// `detail.deletion-type`, for deletes in a bucket.
    pub deletion_type: Option<&'static str>,
    /// When the object was written, Unix milliseconds.
    pub time_ms: i64,
}

impl ObjectEvent {
    /// Makes the event.
    ///
    /// # Errors
    /// When a name is empty or the event is too large.
    pub fn build(self, defaults: &Defaults) -> Result<Event, EventError> {
        let mut object = Map::new();
        object.insert("key".to_owned(), json!(self.key));
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                object.insert(name.to_owned(), value);
            }
        };
        put("key-bytes", self.key_bytes.map(Value::from));
        put("size", self.size.map(Value::from));
        put("etag", self.etag.map(Value::from));
        put("version-id", self.version_id.map(Value::from));
        put("sequencer", self.sequencer.map(Value::from));
        let mut detail = json!({
            "version": "0",
            "bucket": { "name": self.bucket },
            "object": object,
            "reason": self.reason,
        });
        if let Some(kind) = self.deletion_type {
            detail["deletion-type"] = json!(kind);
        }
        EventBuilder {
            id: self.id,
            resources: match self.source.as_str() {
                "aws.s3" => vec![format!("arn:aws:s3:::{}", self.bucket)],
                _ => Vec::new(),
            },
            source: self.source,
            detail_type: self.detail_type,
            time_ms: self.time_ms,
            detail,
        }
        .build(defaults)
    }
}
