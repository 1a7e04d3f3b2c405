//! One object: from its event to its publication.

use super::manifest::{self, Manifest, ObjectRef, Rejects};
use super::publish::Staging;
use super::read::{self, Started, open};
use super::rejects::{Origin, RejectFile};
use super::run::{self, Written};
use super::stream::{Read, Records, Setting, Source};
use super::{Inner, done, locks};
use crate::handlers::objects::{Object, Place};
use crate::handlers::{Context, Done, Emit, Failure, Message};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::physical_plan::streaming::PartitionStream;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// `detail-type` of the event that tells of an object that was replaced or
/// deleted before it was read.
const SUPERSEDED: &str = "Object Superseded";

/// Publishes the object that a message names, once.
pub(super) async fn handle(
    inner: &Arc<Inner>,
    message: &Message,
    cx: &Context,
) -> Result<Done, Failure> {
    let cause = message.event.id();
    let table = &inner.options.write.table;
    let publication = manifest::publication_id(&inner.name, table, cause);
    let path = Manifest::path(&inner.env.lake, table, &publication);
    let _held = locks::lock(&path).await;
    if let Some(published) = Manifest::load(&inner.env.lake, table, &publication)? {
        return Ok(done(&published));
    }
    let object = inner.places.locate(&message.event)?;
    let attempt = Attempt {
        inner,
        cause,
        publication: &publication,
        object: &object,
        cx,
    };
    match attempt.run().await {
        Err(failure) if is_superseded(&object, &failure) => Ok(superseded(&object, &failure)),
        published => published.map(|manifest| done(&manifest)),
    }
}

/// Whether an object in a bucket has gone the way of objects in buckets: another
/// version took its place, of which another event tells, or it was deleted.
fn is_superseded(object: &Object, failure: &Failure) -> bool {
    matches!(object.place, Place::Stored { .. })
        && matches!(failure.code.as_str(), "ObjectGone" | "ObjectChanged")
}

/// The work is over, and the log tells why there is no result.
fn superseded(object: &Object, failure: &Failure) -> Done {
    tracing::info!(bucket = %object.bucket, key = %object.key, reason = %failure.message, "superseded");
    let detail = json!({
        "bucket": { "name": object.bucket },
        "object": { "key": object.key, "etag": object.etag, "size": object.size },
        "reason": failure.code,
        "message": failure.message,
    });
    Done {
        emits: vec![Emit {
            detail_type: SUPERSEDED.to_owned(),
            detail: detail.clone(),
            resources: Vec::new(),
        }],
        summary: json!({ "superseded": detail }),
        ..Done::default()
    }
}

struct Attempt<'a> {
    inner: &'a Arc<Inner>,
    cause: &'a str,
    publication: &'a str,
    object: &'a Object,
    cx: &'a Context,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Manifest, Failure> {
        let began = Instant::now();
        let before = open::stamp(self.object)?;
        let (source, columns, size) = self.source().await?;
        let inner = Arc::clone(self.inner);
        let publication = self.publication.to_owned();
        let staging = run::blocking(move || Staging::begin(&inner.env.lake, &publication)).await?;
        let written = match columns {
            // Nothing names a column: an empty file. Its bad lines are still told.
            0 => Ok(Written::default()),
            _ => self.query(&source, &staging).await,
        };
        if written.is_err() {
            source.abandon();
        }
        // A failure of the reader is the cause of what the query says.
        let read = match (source.finish().await, &written) {
            (Ok(read), _) => read,
            (Err(failure), Err(query)) if failure.code == "Cancelled" => return Err(query.clone()),
            (Err(failure), _) => return Err(failure),
        };
        let written = written?;
        read.rejects.judge(read.records)?;
        open::unchanged(self.object, before)?;
        let manifest = self.manifest(&read, written, size, began);
        run::blocking(move || publish(&staging, read.rejects, manifest)).await
    }

    /// Opens the object and finds its columns.
    async fn source(&self) -> Result<(Arc<Source>, usize, u64), Failure> {
        let opening = {
            let (inner, object) = (Arc::clone(self.inner), self.object.clone());
            move || -> Result<(Started, u64, Arc<open::Meter>), Failure> {
                let opened = open::open(&object)?;
                let (size, meter) = (opened.size, Arc::clone(&opened.meter));
                let started = read::start(opened, &inner.options.read, inner.declared.as_ref())?;
                Ok((started, size, meter))
            }
        };
        let again = opening.clone();
        let (mut started, size, meter) = run::blocking(opening).await?;
        let columns = started.arrow.fields().len();
        let ignored = std::mem::take(&mut started.ignored);
        if !ignored.is_empty() {
            tracing::info!(object = %self.object.key, columns = ?ignored, "columns that the schema does not declare are left out");
        }
        let setting = Setting {
            what: self.object.key.clone(),
            size,
            meter,
            cx: self.cx.clone(),
            every: self.inner.env.progress_every,
            ignored,
        };
        let reopen = Box::new(move || again().map(|(started, _, _)| started));
        let source = Source::new(started, self.rejects(), reopen, setting);
        Ok((source, columns, size))
    }

    fn rejects(&self) -> RejectFile {
        let origin = Origin {
            bucket: self.object.bucket.clone(),
            key: self.object.key.clone(),
            etag: self.object.etag.clone(),
        };
        let folder = self.inner.env.rejects.join(&self.inner.options.write.table);
        let unique = uuid::Uuid::new_v4().simple();
        RejectFile::new(
            origin,
            self.inner.options.read.reject_limit,
            folder.join(format!(".{}.{unique}.tmp", self.publication)),
            folder.join(format!("{}.ndjson", self.publication)),
        )
    }

    async fn query(&self, source: &Arc<Source>, staging: &Staging) -> Result<Written, Failure> {
        let records: Arc<dyn PartitionStream> = Arc::new(Records(Arc::clone(source)));
        let schema = Arc::clone(records.schema());
        let input = StreamingTable::try_new(schema, vec![records])
            .map_err(|e| run::sql_failure(self.inner, &e))?;
        run::query(
            self.inner,
            Arc::new(input),
            staging,
            self.publication,
            self.cx,
        )
        .await
    }

    fn manifest(&self, read: &Read, written: Written, size: u64, began: Instant) -> Manifest {
        let mut manifest = run::manifest(self.inner, self.cause, self.publication, written);
        manifest.object = Some(ObjectRef {
            bucket: self.object.bucket.clone(),
            key: self.object.key.clone(),
            etag: self.object.etag.clone(),
        });
        manifest.rows_in = read.records;
        manifest.ignored.clone_from(&read.ignored);
        manifest.bytes_in = size;
        manifest.duration_ms = run::millis(began);
        manifest
    }
}

/// Puts the rejects in their place, then the files, then the manifest.
fn publish(
    staging: &Staging,
    rejects: RejectFile,
    mut manifest: Manifest,
) -> Result<Manifest, Failure> {
    let count = rejects.count();
    let path: Option<PathBuf> = rejects.publish()?;
    manifest.rejects = Rejects {
        count,
        path: path.as_deref().map(Path::display).map(|p| p.to_string()),
    };
    staging.publish(&manifest)?;
    Ok(manifest)
}
