//! One object: from its event to its publication.

use super::bucket::Target;
use super::drift::{self, Known};
use super::manifest::{self, Manifest, ObjectRef, Rejects};
use super::publish::Staging;
use super::read::{self, Expected, Started, open};
use super::rejects::{Origin, RejectFile};
use super::run::{self, Written};
use super::stream::{Read, Records, Setting, Source};
use super::{Inner, done, locks, quarantine, sql, upkeep};
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
    let policy = inner.options.read.drift;
    let publication = manifest::publication_id(&inner.name, table, cause);
    let path = Manifest::path(&inner.env.lake, table, &publication);
    let _held = locks::lock(&path).await;
    let mut revision = 0;
    let mut kept = None;
    if let Some(published) = Manifest::load(&inner.env.lake, table, &publication)? {
        // One of before definitions were kept is taken as it is.
        if published.definition.is_empty() || published.definition == inner.definition {
            return Ok(done(&published, policy));
        }
        // The transform is not what it was: what it makes now takes the place.
        revision = published.revision + 1;
        // No upkeep meanwhile: it could put together what is about to be replaced.
        kept = Some(upkeep::lock(&inner.env.lake, table).await);
        if upkeep::stands_for(&inner.env.lake, &published)? {
            return Err(Failure::permanent(
                "Compacted",
                "the transform has changed, but the files that it made of this event were put together with others and cannot be replaced; publish into another table",
            ));
        }
        tracing::info!(
            handler = inner.name,
            publication,
            revision,
            "published anew"
        );
    }
    if let Some(aside) = quarantine::Record::load(&inner.env, table, &publication)? {
        return Ok(aside.done());
    }
    let target = Target::of(inner)?;
    if let Some(target) = &target
        && let Some(published) = target.published(table, &publication, &mut revision).await?
    {
        return Ok(done(&published, policy));
    }
    let object = inner.places.locate(&message.event)?;
    let attempt = Attempt {
        inner,
        cause,
        publication: &publication,
        object: &object,
        revision,
        params: params(inner, message)?,
        target,
        cx,
    };
    let result = attempt.run().await;
    drop(kept);
    match result {
        Err(failure) if is_superseded(&object, &failure) => Ok(superseded(&object, &failure)),
        Err(reason) if reason.code == drift::QUARANTINED => attempt.set_aside(&reason).await,
        published => published.map(|manifest| done(&manifest, policy)),
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
    /// How often the cause was published before.
    revision: u32,
    params: sql::Params,
    target: Option<Target<'a>>,
    cx: &'a Context,
}

/// The parameters' values in the event.
fn params(inner: &Inner, message: &Message) -> Result<sql::Params, Failure> {
    if inner.options.params.is_empty() {
        return Ok(sql::Params::new());
    }
    let bad =
        |e: String| Failure::permanent("BadParams", format!("the parameters of the SQL: {e}"));
    let event = serde_json::from_slice(message.event.text()).map_err(|e| bad(e.to_string()))?;
    sql::params(&inner.options, &event).map_err(bad)
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Manifest, Failure> {
        let began = Instant::now();
        let before = open::stamp(self.object)?;
        let known = self.known().await?;
        let (source, columns, size) = self.source(known.clone()).await?;
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
        let mut manifest = self.manifest(&read, written, size, began);
        manifest.changes = source.changes.untold(&known.unwrap_or_default());
        let told = run::blocking(move || with_rejects(read.rejects, manifest)).await?;
        let manifest = match &self.target {
            Some(target) => target.publish(&staging, told).await?,
            None => {
                run::blocking(move || {
                    staging.publish(&told)?;
                    Ok(told)
                })
                .await?
            }
        };
        self.learn(&source).await?;
        Ok(manifest)
    }

    /// What is known of the columns, where it matters.
    async fn known(&self) -> Result<Option<Known>, Failure> {
        if self.inner.options.read.drift.is_none() {
            return Ok(None);
        }
        let inner = Arc::clone(self.inner);
        run::blocking(move || Known::load(&inner.env.lake, &inner.options.write.table, &inner.name))
            .await
    }

    async fn learn(&self, source: &Arc<Source>) -> Result<(), Failure> {
        if self.inner.options.read.drift.is_none() {
            return Ok(());
        }
        let (inner, source) = (Arc::clone(self.inner), Arc::clone(source));
        let table = self.inner.options.write.table.clone();
        let _held = locks::lock(&self.inner.env.lake.join(&table).join(&self.inner.name)).await;
        run::blocking(move || {
            let (lake, changes) = (&inner.env.lake, &source.changes);
            Known::learn(lake, &table, &inner.name, source.schema(), changes)
        })
        .await
    }

    /// Sets the object aside whole; the event is done with that.
    async fn set_aside(&self, reason: &Failure) -> Result<Done, Failure> {
        let record = quarantine::Record::new(
            self.inner,
            self.cause,
            self.publication,
            self.object,
            reason,
        );
        let (inner, object) = (Arc::clone(self.inner), self.object.clone());
        run::blocking(move || record.keep(&inner.env, &object))
            .await
            .map(|record| record.done())
    }

    /// Opens the object and finds its columns.
    async fn source(&self, known: Option<Known>) -> Result<(Arc<Source>, usize, u64), Failure> {
        let opening = {
            let (inner, object) = (Arc::clone(self.inner), self.object.clone());
            let expected = Expected {
                declared: inner.declared.clone(),
                known,
            };
            move || -> Result<(Started, u64, Arc<open::Meter>), Failure> {
                let opened = open::open(&object)?;
                let (size, meter) = (opened.size, Arc::clone(&opened.meter));
                let started = read::start(opened, &inner.options.read, &expected)?;
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
            (Arc::new(input), &self.params),
            staging,
            &run::file_id(self.publication, self.revision),
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
        manifest.revision = self.revision;
        manifest.rows_in = read.records;
        manifest.ignored.clone_from(&read.ignored);
        manifest.bytes_in = size;
        manifest.duration_ms = run::millis(began);
        manifest
    }
}

/// Puts the rejects in their place, before the files and the manifest.
fn with_rejects(rejects: RejectFile, mut manifest: Manifest) -> Result<Manifest, Failure> {
    let count = rejects.count();
    let path: Option<PathBuf> = rejects.publish()?;
    manifest.rejects = Rejects {
        count,
        path: path.as_deref().map(Path::display).map(|p| p.to_string()),
    };
    Ok(manifest)
}
