//! What the bus is told of an object: what S3 tells EventBridge
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>).

use super::ledger::identity;
use super::listing::Listed;
use super::options::S3SourceOptions;
use crate::event::{EventError, ObjectEvent, object_id};
use crate::sources::Incoming;

/// `source` of these events.
pub const SOURCE: &str = "aws.s3";

/// A version of an object, as its event names it.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// The object.
    pub listed: &'a Listed,
    /// The version as the ledger has it.
    pub version: &'a str,
    /// How often it was let in again.
    pub salt: i64,
    /// What orders the versions of a key, where a notification told it.
    pub sequencer: Option<&'a str>,
}

impl Version<'_> {
    fn id(&self, options: &S3SourceOptions, what: &str) -> String {
        let listed = self.listed;
        let version = identity(self.version, &listed.etag, listed.modified_ms, self.salt);
        object_id(&options.name, listed.key.as_bytes(), &version, what)
    }

    /// `Object Created`.
    pub fn created(&self, options: &S3SourceOptions, how: &str) -> Result<Incoming, EventError> {
        let listed = self.listed;
        // The etag of an upload in parts tells how many there were.
        let reason = match listed.etag.contains('-') {
            true => "CompleteMultipartUpload",
            false => "PutObject",
        };
        let event = ObjectEvent {
            id: self.id(options, "created"),
            size: Some(listed.size),
            etag: Some(listed.etag.clone()),
            ..self.object(options, "Object Created", reason, listed.modified_ms)
        };
        incoming(options, event, how)
    }

    /// `Object Deleted`.
    pub fn deleted(
        &self,
        options: &S3SourceOptions,
        at_ms: i64,
        how: &str,
    ) -> Result<Incoming, EventError> {
        let kind = match self.listed.deleted {
            true => "Delete Marker Created",
            false => "Permanently Deleted",
        };
        let event = ObjectEvent {
            id: self.id(options, "deleted"),
            deletion_type: Some(kind),
            ..self.object(options, "Object Deleted", "DeleteObject", at_ms)
        };
        incoming(options, event, how)
    }

    fn object(
        &self,
        options: &S3SourceOptions,
        what: &str,
        why: &str,
        time_ms: i64,
    ) -> ObjectEvent {
        let listed = self.listed;
        let sequencer = self
            .sequencer
            .map_or_else(|| format!("{:016X}", time_ms.max(0)), str::to_owned);
        ObjectEvent {
            id: String::new(),
            source: SOURCE.to_owned(),
            detail_type: what.to_owned(),
            bucket: options.bucket.clone(),
            key: listed.key.clone(),
            key_bytes: None,
            size: None,
            etag: None,
            version_id: listed.version.clone().filter(|version| version != "null"),
            sequencer: Some(sequencer),
            reason: why.to_owned(),
            deletion_type: None,
            time_ms,
        }
    }
}

fn incoming(
    options: &S3SourceOptions,
    event: ObjectEvent,
    how: &str,
) -> Result<Incoming, EventError> {
    Ok(Incoming {
        event: event.build(&options.defaults)?.into(),
        bus: options.bus.as_str().into(),
        cursor: Some(format!("{}: {how}", options.name)),
    })
}
