//! What the bus is told of a file.

use super::finished::How;
use super::look::{Look, show};
use super::options::FolderOptions;
use crate::event::{EventBuilder, EventError, ObjectEvent, object_id};
use crate::sources::Incoming;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fmt::Write as _;

/// `source` of these events.
const SOURCE: &str = "pointsman.folder";

/// A version of a file, as its event names it.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// The file's key.
    pub key: &'a [u8],
    /// Its size and time.
    pub look: &'a Look,
    /// The hash of its content.
    pub hash: Option<&'a [u8]>,
    /// How often this version was let in again.
    pub salt: i64,
    /// Its place among the versions of the key.
    pub sequencer: i64,
}

impl Version<'_> {
    fn etag(&self) -> String {
        format!("{:x}-{:x}", self.look.size, self.look.mtime_ns)
    }

    /// What tells this version from all others of the key.
    fn identity(&self) -> String {
        let mut identity = self.etag();
        if let Some(hash) = self.hash {
            identity.push('-');
            for byte in hash {
                // Writing to a string cannot fail.
                write!(identity, "{byte:02x}").ok();
            }
        }
        if self.salt > 0 {
            write!(identity, "#{}", self.salt).ok();
        }
        identity
    }

    /// Id of the event that tells of it: the same whenever it is told again.
    #[must_use]
    pub fn created_id(&self, options: &FolderOptions) -> String {
        object_id(&options.name, self.key, &self.identity(), "created")
    }

    fn deleted_id(&self, options: &FolderOptions) -> String {
        object_id(&options.name, self.key, &self.identity(), "deleted")
    }

    /// `Object Created`.
    ///
    /// # Errors
    /// When the event is too large.
    pub fn created(&self, options: &FolderOptions, how: How) -> Result<Incoming, EventError> {
        // S3's words: what is written is put, what comes whole is a copy.
        let (reason, cursor) = match how {
            How::Renamed => ("CopyObject", "renamed into place"),
            How::Linked => ("CopyObject", "linked into place"),
            How::Quiet => ("PutObject", "quiet"),
        };
        let event = ObjectEvent {
            id: self.created_id(options),
            size: Some(self.look.size),
            etag: Some(self.etag()),
            ..self.object(options, "Object Created", reason, self.look.mtime_ms())
        };
        incoming(options, event, cursor)
    }

    /// `Object Deleted`.
    ///
    /// # Errors
    /// When the event is too large.
    pub fn deleted(&self, options: &FolderOptions, gone_ms: i64) -> Result<Incoming, EventError> {
        let event = ObjectEvent {
            id: self.deleted_id(options),
            ..self.object(options, "Object Deleted", "DeleteObject", gone_ms)
        };
        incoming(options, event, "gone")
    }

    /// `Object Moved`: the file had the name `from` before.
    ///
    /// # Errors
    /// When the event is too large.
    pub fn moved(&self, options: &FolderOptions, from: &[u8]) -> Result<Incoming, EventError> {
        let way = format!("{}/{}", self.identity(), show(from));
        let mut detail = json!({
            "version": "0",
            "bucket": { "name": options.name },
            "object": {
                "key": show(self.key),
                "size": self.look.size,
                "etag": self.etag(),
                "sequencer": format!("{:016X}", self.sequencer.max(0)),
            },
            "previous-key": show(from),
            "reason": "RenameObject",
        });
        if std::str::from_utf8(self.key).is_err() {
            detail["object"]["key-bytes"] = json!(STANDARD.encode(self.key));
        }
        let event = EventBuilder {
            id: object_id(&options.name, self.key, &way, "moved"),
            source: SOURCE.to_owned(),
            detail_type: "Object Moved".to_owned(),
            // It has not changed since, so a repetition has the same time.
            time_ms: self.look.ctime_ms(),
            resources: Vec::new(),
            detail,
        };
        Ok(Incoming {
            event: event.build(&options.defaults)?.into(),
            bus: options.bus.as_str().into(),
            cursor: Some(format!("{}: renamed", options.name)),
        })
    }

    fn object(&self, options: &FolderOptions, what: &str, why: &str, time_ms: i64) -> ObjectEvent {
        ObjectEvent {
            id: String::new(),
            source: SOURCE.to_owned(),
            detail_type: what.to_owned(),
            bucket: options.name.clone(),
            key: show(self.key),
            key_bytes: std::str::from_utf8(self.key)
                .is_err()
                .then(|| STANDARD.encode(self.key)),
            size: None,
            etag: None,
            version_id: None,
            sequencer: Some(format!("{:016X}", self.sequencer.max(0))),
            reason: why.to_owned(),
            deletion_type: None,
            time_ms,
        }
    }
}

fn incoming(
    options: &FolderOptions,
    event: ObjectEvent,
    cursor: &str,
) -> Result<Incoming, EventError> {
    Ok(Incoming {
        event: event.build(&options.defaults)?.into(),
        bus: options.bus.as_str().into(),
        cursor: Some(format!("{}: {cursor}", options.name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_version_in_s3s_words() {
        let options = super::super::options::tests::options(std::path::Path::new("/"));
        let look = Look {
            size: 10,
            mtime_ns: 1_000_000_255,
            ..Look::default()
        };
        let version = Version {
            key: b"sub/caf\xe9.csv",
            look: &look,
            hash: None,
            salt: 0,
            sequencer: look.mtime_ns,
        };
        let event = version.created(&options, How::Renamed).unwrap().event;
        let detail = event.detail();
        assert_eq!(detail["bucket"]["name"], "inbox");
        assert_eq!(detail["object"]["key"], "sub/caf\u{fffd}.csv");
        assert_eq!(
            detail["object"]["key-bytes"],
            "c3ViL2NhZuku Y3N2".replace(' ', "")
        );
        assert_eq!(detail["object"]["size"], 10);
        assert_eq!(detail["object"]["etag"], "a-3b9acaff");
        assert_eq!(detail["object"]["sequencer"], "000000003B9ACAFF");
        assert_eq!(event.time(), "1970-01-01T00:00:01.000Z");
        let again = Version { salt: 1, ..version };
        let hashed = Version {
            hash: Some(&[1]),
            ..version
        };
        let ids = [
            event.id().to_owned(),
            again.created_id(&options),
            hashed.created_id(&options),
            version.deleted(&options, 5).unwrap().event.id().to_owned(),
        ];
        assert_eq!(
            ids.iter().collect::<std::collections::HashSet<_>>().len(),
            4
        );
    }
}
