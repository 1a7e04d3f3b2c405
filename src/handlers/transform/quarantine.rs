//! Objects that are set aside whole: a copy, and a record that says why. A
//! record is there for each object that was set aside, so a retry finds it.

use super::drift::Changes;
use super::manifest::ObjectRef;
use super::options::TransformEnv;
use super::read::open;
use super::{Inner, changed, disk};
use crate::handlers::objects::Object;
use crate::handlers::{Done, Emit, Failure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// `detail-type` of the event that tells of an object that was set aside.
const ASIDE: &str = "Object Quarantined";

/// Why and where an object was set aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    publication: String,
    table: String,
    handler: String,
    cause: String,
    object: ObjectRef,
    reason: String,
    changes: Changes,
    /// The copy.
    path: PathBuf,
}

impl Record {
    /// A record for `object`, which failed with `reason`.
    pub(super) fn new(
        inner: &Inner,
        cause: &str,
        publication: &str,
        object: &Object,
        reason: &Failure,
    ) -> Self {
        let table = inner.options.write.table.clone();
        let base = Path::new(&object.key).file_name().unwrap_or_default();
        let folder = inner.env.quarantine.join(&table).join(publication);
        // The drift's failure carries what changed.
        let changes = reason
            .chain
            .first()
            .and_then(|text| serde_json::from_str(text).ok());
        Self {
            publication: publication.to_owned(),
            table,
            handler: inner.name.clone(),
            cause: cause.to_owned(),
            object: ObjectRef {
                bucket: object.bucket.clone(),
                key: object.key.clone(),
                etag: object.etag.clone(),
            },
            reason: reason.message.clone(),
            changes: changes.unwrap_or_default(),
            path: folder.join(base),
        }
    }

    fn file(env: &TransformEnv, table: &str, publication: &str) -> PathBuf {
        env.quarantine
            .join(table)
            .join(format!("{publication}.json"))
    }

    /// The record of a publication that did not come to be.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(
        env: &TransformEnv,
        table: &str,
        publication: &str,
    ) -> Result<Option<Self>, Failure> {
        let path = Self::file(env, table, publication);
        match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&path, &e)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| failed(&path, &e.into())),
        }
    }

    /// Copies the object, then writes the record.
    ///
    /// # Errors
    /// When the object cannot be read or the disk refuses.
    pub fn keep(self, env: &TransformEnv, object: &Object) -> Result<Self, Failure> {
        let mut from = open::open(object)?.file.reader(0);
        let copy = || -> io::Result<()> {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let mut to = File::create(&self.path)?;
            io::copy(&mut from, &mut to)?;
            to.sync_all()?;
            disk::sync_dir(folder)?;
            let text = serde_json::to_vec_pretty(&self)?;
            disk::write_atomic(&Self::file(env, &self.table, &self.publication), &text)
        };
        let mut copy = copy;
        copy().map_err(|e| failed(&self.path, &e))?;
        Ok(self)
    }

    /// The answer for the object.
    #[must_use]
    pub fn done(&self) -> Done {
        let about = json!({
            "table": self.table,
            "handler": self.handler,
            "object": self.object,
            "policy": "quarantine",
        });
        let detail = json!({
            "table": self.table,
            "handler": self.handler,
            "cause": self.cause,
            "object": self.object,
            "reason": self.reason,
            "path": self.path,
        });
        Done {
            emits: vec![
                Emit {
                    detail_type: ASIDE.to_owned(),
                    detail: detail.clone(),
                    resources: Vec::new(),
                },
                changed(about, &self.changes),
            ],
            summary: detail,
            ..Done::default()
        }
    }
}

fn failed(path: &Path, e: &io::Error) -> Failure {
    let message = format!("the object could not be set aside ({})", path.display());
    Failure::transient("WriteFailed", message).caused_by(e)
}
