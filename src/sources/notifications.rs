//! Notifications of object stores, in whatever shape they come, as the one
//! envelope: what S3 tells EventBridge.
//!
//! | shape | told by | key |
//! | --- | --- | --- |
//! | S3 to SQS or a webhook; MinIO, Ceph | `Records[]` with `s3` | form-encoded |
//! | the same by way of SNS | `Type: Notification`, the text in `Message` | form-encoded |
//! | S3 to EventBridge | `detail-type` and `detail` | as it is |
//! | Cloudflare R2 | `action`, `bucket` and `object` | as it is |
//! | SeaweedFS | `event_type` and a `key` below `/buckets/` | as it is |
//!
//! Sources: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>,
//! <https://min.io/docs/minio/linux/administration/monitoring/bucket-notifications.html>,
//! <https://developers.cloudflare.com/r2/buckets/event-notifications/>, and for
//! SeaweedFS what its server sends.
//!
//! The id of an event is computed from bucket, key, version and sequencer (or
//! etag and time), so a notification that comes twice is one event.

use crate::event::{Defaults, Event, EventError, ObjectEvent, object_id};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use serde_json::Value;

/// How deep notifications are wrapped in others.
const DEPTH: usize = 3;
/// Where SeaweedFS keeps its buckets.
const BUCKETS: &str = "/buckets/";

/// What a notification comes to.
#[derive(Clone, Debug)]
pub enum Notice {
    /// These objects came or went; may be empty, for what concerns no object.
    Objects(Vec<Event>),
    /// SNS asks whether its messages are wanted; opening this URL says yes.
    Confirm(String),
}

/// Why something is not a notification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    /// It is not JSON.
    #[error("the notification is not JSON: {0}")]
    NotJson(String),
    /// It has none of the known shapes.
    #[error(
        "the notification has no known shape: it has neither `Records`, nor `detail`, nor `action`, nor `event_type`"
    )]
    Unknown,
    /// A field is missing or is something else.
    #[error("the notification lacks `{0}`")]
    Lacks(&'static str),
    /// The event cannot be made.
    #[error("{0}")]
    Event(String),
}

impl From<EventError> for NotificationError {
    fn from(error: EventError) -> Self {
        Self::Event(error.to_string())
    }
}

/// What any shape tells of an object.
#[derive(Default)]
struct Told {
    deleted: bool,
    bucket: String,
    key: String,
    size: Option<u64>,
    etag: Option<String>,
    version: Option<String>,
    sequencer: Option<String>,
    reason: String,
    time: Option<String>,
    region: Option<String>,
}

/// Reads a notification.
///
/// # Errors
/// When it is none, with the reason.
pub fn read(body: &[u8], defaults: &Defaults, now_ms: i64) -> Result<Notice, NotificationError> {
    let value = json(body)?;
    if let Some(url) = confirmation(&value) {
        return Ok(Notice::Confirm(url));
    }
    let told = of_value(&value, DEPTH)?;
    let events = told
        .into_iter()
        .map(|told| told.event(defaults, now_ms))
        .collect::<Result<_, _>>()?;
    Ok(Notice::Objects(events))
}

fn json(body: &[u8]) -> Result<Value, NotificationError> {
    serde_json::from_slice(body).map_err(|e| NotificationError::NotJson(e.to_string()))
}

fn confirmation(value: &Value) -> Option<String> {
    let asks = value["Type"] == "SubscriptionConfirmation";
    let url = value["SubscribeURL"].as_str().filter(|_| asks)?;
    Some(url.to_owned())
}

fn of_value(value: &Value, depth: usize) -> Result<Vec<Told>, NotificationError> {
    if value["Type"] == "Notification" && depth > 0 {
        let inside = value["Message"].as_str();
        let inside = inside.ok_or(NotificationError::Lacks("Message"))?;
        return of_value(&json(inside.as_bytes())?, depth - 1);
    }
    if let Some(records) = value["Records"].as_array() {
        return records.iter().filter_map(record).collect();
    }
    // S3 sends it when notifications are switched on.
    if value["Event"] == "s3:TestEvent" {
        return Ok(Vec::new());
    }
    let detail = &value["detail"];
    if detail["bucket"].is_object() && value["detail-type"].is_string() {
        return Ok(envelope(value)?.into_iter().collect());
    }
    if value["action"].is_string() && value["object"].is_object() {
        return Ok(r2(value)?.into_iter().collect());
    }
    if value["event_type"].is_string() {
        return seaweedfs(value);
    }
    Err(NotificationError::Unknown)
}

fn need(value: &Value, name: &'static str) -> Result<String, NotificationError> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned)
        .ok_or(NotificationError::Lacks(name))
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn etag(value: &Value) -> Option<String> {
    value.as_str().map(|etag| etag.trim_matches('"').to_owned())
}

/// One of S3's `Records`; `None` for what is no coming or going.
fn record(record: &Value) -> Option<Result<Told, NotificationError>> {
    // Others send records, too; they are no word of a bucket.
    if !record["s3"].is_object() {
        return Some(Err(NotificationError::Lacks("s3")));
    }
    let name = match need(&record["eventName"], "eventName") {
        Ok(name) => name,
        Err(error) => return Some(Err(error)),
    };
    let name = name.strip_prefix("s3:").unwrap_or(&name);
    let (kind, how) = name.split_once(':').unwrap_or((name, ""));
    let deleted = match kind {
        "ObjectCreated" => false,
        "ObjectRemoved" | "LifecycleExpiration" => true,
        _ => return None,
    };
    let s3 = &record["s3"];
    let object = &s3["object"];
    let told = || {
        Ok(Told {
            deleted,
            bucket: need(&s3["bucket"]["name"], "s3.bucket.name")?,
            key: form_decoded(&need(&object["key"], "s3.object.key")?),
            size: object["size"].as_u64().filter(|_| !deleted),
            etag: etag(&object["eTag"]),
            version: text(&object["versionId"]).filter(|v| !v.is_empty()),
            sequencer: text(&object["sequencer"]),
            reason: match how {
                "Put" => "PutObject".to_owned(),
                "Post" => "POST Object".to_owned(),
                "Copy" => "CopyObject".to_owned(),
                "CompleteMultipartUpload" => how.to_owned(),
                _ if deleted => "DeleteObject".to_owned(),
                _ => "PutObject".to_owned(),
            },
            time: text(&record["eventTime"]),
            region: text(&record["awsRegion"]).filter(|r| !r.is_empty()),
        })
    };
    Some(told())
}

/// S3's own event on EventBridge.
fn envelope(value: &Value) -> Result<Option<Told>, NotificationError> {
    let deleted = match value["detail-type"].as_str() {
        Some("Object Created") => false,
        Some("Object Deleted") => true,
        _ => return Ok(None),
    };
    let detail = &value["detail"];
    let object = &detail["object"];
    Ok(Some(Told {
        deleted,
        bucket: need(&detail["bucket"]["name"], "detail.bucket.name")?,
        key: need(&object["key"], "detail.object.key")?,
        size: object["size"].as_u64(),
        etag: etag(&object["etag"]),
        version: text(&object["version-id"]),
        sequencer: text(&object["sequencer"]),
        reason: text(&detail["reason"]).unwrap_or_default(),
        time: text(&value["time"]),
        region: text(&value["region"]),
    }))
}

fn r2(value: &Value) -> Result<Option<Told>, NotificationError> {
    let action = need(&value["action"], "action")?;
    let deleted = match action.as_str() {
        "PutObject" | "CopyObject" | "CompleteMultipartUpload" => false,
        "DeleteObject" | "LifecycleDeletion" => true,
        _ => return Ok(None),
    };
    let object = &value["object"];
    Ok(Some(Told {
        deleted,
        bucket: need(&value["bucket"], "bucket")?,
        key: need(&object["key"], "object.key")?,
        size: object["size"].as_u64().filter(|_| !deleted),
        etag: etag(&object["eTag"]),
        reason: action,
        time: text(&value["eventTime"]),
        ..Told::default()
    }))
}

fn seaweedfs(value: &Value) -> Result<Vec<Told>, NotificationError> {
    let message = match &value["message"] {
        Value::Null => &value["message_data"],
        message => message,
    };
    let path = need(&value["key"], "key")?;
    let (old, new) = (&message["old_entry"], &message["new_entry"]);
    let is_folder = |entry: &Value| {
        let marked = ["is_directory", "isDirectory"]
            .iter()
            .any(|f| entry[f] == true);
        marked || entry["attributes"]["mime"] == "httpd/unix-directory"
    };
    let moved = new["name"].as_str().and_then(|name| {
        let folder = message["new_parent_path"].as_str()?;
        Some(format!("{}/{name}", folder.trim_end_matches('/')))
    });
    let mut told = Vec::new();
    let kind = need(&value["event_type"], "event_type")?;
    if matches!(kind.as_str(), "delete" | "rename") && !is_folder(old) {
        told.extend(weed_object(&path, old, true));
    }
    if matches!(kind.as_str(), "create" | "update" | "rename") && !is_folder(new) {
        let path = moved.filter(|_| kind == "rename").unwrap_or(path);
        told.extend(weed_object(&path, new, false));
    }
    Ok(told)
}

/// An object of SeaweedFS's filer; `None` for what is none of a bucket's.
fn weed_object(path: &str, entry: &Value, deleted: bool) -> Option<Told> {
    let (bucket, key) = path.strip_prefix(BUCKETS)?.split_once('/')?;
    // What begins with a dot is the server's own: versions, uploads in parts.
    if bucket.starts_with('.') || key.starts_with(".uploads/") || key.is_empty() {
        return None;
    }
    let attributes = &entry["attributes"];
    let bytes = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let given = bytes(&entry["extended"]["Seaweed-X-Amz-ETag"])
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(|etag| etag.trim_matches('"').to_owned());
    let hash = || {
        let hash = bytes(&attributes["md5"]).filter(|hash| hash.len() == 16)?;
        Some(hash.iter().map(|b| format!("{b:02x}")).collect())
    };
    let seconds = attributes["mtime"].as_i64().filter(|_| !deleted);
    Some(Told {
        deleted,
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        size: attributes["file_size"].as_u64().filter(|_| !deleted),
        etag: given.or_else(hash).filter(|_| !deleted),
        reason: if deleted { "DeleteObject" } else { "PutObject" }.to_owned(),
        time: seconds.map(|s| crate::event::rfc3339(s.saturating_mul(1000))),
        ..Told::default()
    })
}

impl Told {
    fn event(self, defaults: &Defaults, now_ms: i64) -> Result<Event, NotificationError> {
        let given = self.time.as_deref();
        let time = given.and_then(|t| DateTime::parse_from_rfc3339(t).ok());
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        // What two different events of one key differ by.
        let version = match &self.sequencer {
            Some(sequencer) => format!("{}/{sequencer}", part(&self.version)),
            None => format!(
                "{}/{}/{}",
                part(&self.version),
                part(&self.etag),
                part(&self.time)
            ),
        };
        let (what, tag) = match self.deleted {
            true => ("Object Deleted", "deleted"),
            false => ("Object Created", "created"),
        };
        let defaults = Defaults {
            region: self.region.unwrap_or_else(|| defaults.region.clone()),
            ..defaults.clone()
        };
        let event = ObjectEvent {
            id: object_id(&self.bucket, self.key.as_bytes(), &version, tag),
            source: "aws.s3".to_owned(),
            detail_type: what.to_owned(),
            bucket: self.bucket,
            key: self.key,
            key_bytes: None,
            size: self.size,
            etag: self.etag,
            version_id: self.version,
            sequencer: self.sequencer,
            reason: self.reason,
            deletion_type: None,
            time_ms: time.map_or(now_ms, |t| t.timestamp_millis()),
        };
        Ok(event.build(&defaults)?)
    }
}

/// Text that was form-encoded, decoded once: `+` is a space, `%XX` a byte. What is not such a code is
/// itself.
pub(crate) fn form_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &tail[2..];
            }
            (b'+', ..) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[path = "notifications_tests.rs"]
mod tests;
