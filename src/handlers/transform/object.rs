//! One object: from its event to its publication.

use super::bucket::Target;
use super::drift::{self, Known};
use super::manifest::{self, Manifest, ObjectRef, Rejects};
use super::publish::Staging;
use super::read::{self, Expected, Started, open};
use super::rejects::{Origin, RejectFile};
use super::run::{self, Written};
use super::stream::{Read, Records, Setting, Source};
use super::{Inner, done, expand, locks, quarantine, several, sql, upkeep};
use crate::handlers::objects::{Object, Place};
use crate::handlers::{Context, Done, Emit, Failure, Message};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::StreamExt;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// `detail-type` of the event that tells of an object that was replaced or
/// deleted before it was read.
const SUPERSEDED: &str = "Object Superseded";

/// The manifest of an event's own publication; its lock keeps others from the event.
pub(super) fn path(inner: &Inner, message: &Message) -> PathBuf {
    let table = &inner.options.write.table;
    Manifest::path(&inner.env.lake, table, &publication_of(inner, message))
}

fn publication_of(inner: &Inner, message: &Message) -> String {
    manifest::publication_id(&inner.name, &inner.options.write.table, message.event.id())
}

/// The transform has changed, and what it made before cannot be taken back.
pub(super) fn compacted() -> Failure {
    Failure::permanent(
        "Compacted",
        "the transform has changed, but the files that it made of this event were put together with others and cannot be replaced; publish into another table",
    )
}

/// How an event stands that is to be handled.
pub(super) enum Standing {
    /// Nothing is there of it.
    Fresh,
    /// It was handled.
    Answered(Box<Done>),
    /// It is to be handled by itself.
    Alone,
}

/// Looks how an event stands; its lock must be held.
pub(super) async fn standing(
    inner: &Arc<Inner>,
    message: &Message,
    cx: &Context,
) -> Result<Standing, Failure> {
    let table = &inner.options.write.table;
    let publication = publication_of(inner, message);
    let answered = |done| Ok(Standing::Answered(Box::new(done)));
    if let Some(published) = Manifest::load(&inner.env.lake, table, &publication)? {
        return match published.definition == inner.definition {
            true => answered(done(&published, inner.options.read.drift)),
            false => Ok(Standing::Alone),
        };
    }
    if expand::pattern(&message.event).is_some() {
        return Ok(Standing::Alone);
    }
    if let Some(aside) = quarantine::Record::load(&inner.env, table, &publication)? {
        return answered(aside.done());
    }
    match several::published(inner, message, cx).await? {
        Some(done) => answered(done),
        // What a bucket has is asked for where it is needed.
        None if inner.options.write.s3.is_some() => in_bucket(inner, &publication).await,
        None => Ok(Standing::Fresh),
    }
}

async fn in_bucket(inner: &Arc<Inner>, publication: &str) -> Result<Standing, Failure> {
    let mut revision = 0;
    let found = match Target::of(inner)? {
        Some(target) => {
            let table = &inner.options.write.table;
            target.published(table, publication, &mut revision).await?
        }
        None => None,
    };
    Ok(match (found, revision) {
        (Some(published), _) => {
            Standing::Answered(Box::new(done(&published, inner.options.read.drift)))
        }
        (None, 0) => Standing::Fresh,
        (None, _) => Standing::Alone,
    })
}

/// Publishes the object that a message names, once.
pub(super) async fn handle(
    inner: &Arc<Inner>,
    message: &Message,
    cx: &Context,
) -> Result<Done, Failure> {
    if let Some(pattern) = expand::pattern(&message.event) {
        return expand::handle(inner, pattern, cx).await;
    }
    let cause = message.event.id();
    let table = &inner.options.write.table;
    let policy = inner.options.read.drift;
    let publication = publication_of(inner, message);
    let _held = locks::lock(&path(inner, message)).await;
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
            return Err(compacted());
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
    if revision == 0
        && let Some(done) = several::published(inner, message, cx).await?
    {
        return Ok(done);
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
        Err(reason) if reason.code == drift::QUARANTINED => attempt.set_aside(&reason).await,
        Err(failure) => superseded_by(&object, &failure).ok_or(failure),
        Ok(manifest) => Ok(done(&manifest, policy)),
    }
}

/// An object that was read whole into memory.
pub(super) struct Loaded {
    /// The object.
    pub object: Object,
    /// Its columns.
    pub arrow: SchemaRef,
    /// Its good records.
    pub batches: Vec<RecordBatch>,
    /// What they take in memory.
    pub bytes: usize,
    /// What else was found in it.
    pub read: Read,
    /// Its size in bytes.
    pub size: u64,
    /// The parameters' values in its event.
    pub params: sql::Params,
}

/// Reads the object that a message names into memory; `None` if it has no
/// columns, or its records take more than `most` bytes.
pub(super) async fn load(
    inner: &Arc<Inner>,
    message: &Message,
    object: &Object,
    most: usize,
    cx: &Context,
) -> Result<Option<Loaded>, Failure> {
    let attempt = Attempt {
        inner,
        cause: message.event.id(),
        publication: &publication_of(inner, message),
        object,
        revision: 0,
        params: params(inner, message)?,
        target: None,
        cx,
    };
    attempt.load(most).await
}

/// The answer for an object that another version took the place of.
pub(super) fn superseded_by(object: &Object, failure: &Failure) -> Option<Done> {
    is_superseded(object, failure).then(|| superseded(object, failure))
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
pub(super) fn params(inner: &Inner, message: &Message) -> Result<sql::Params, Failure> {
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

    async fn load(self, most: usize) -> Result<Option<Loaded>, Failure> {
        let before = open::stamp(self.object)?;
        if self.object.size.is_some_and(|size| size > most as u64) {
            return Ok(None);
        }
        let (source, columns, size) = self.source(None).await?;
        if columns == 0 {
            return Ok(None);
        }
        let (mut batches, mut bytes) = (Vec::new(), 0);
        let mut stream = Records(Arc::clone(&source)).execute(Arc::default());
        // What reading fails with is told by its end.
        while let Some(Ok(batch)) = stream.next().await {
            let batch = compact(batch).map_err(|e| run::sql_failure(self.inner, &e.into()))?;
            bytes += batch.get_array_memory_size();
            if bytes > most {
                source.abandon();
                drop(stream);
                source.finish().await?;
                return Ok(None);
            }
            batches.push(batch);
        }
        let read = source.finish().await?;
        read.rejects.judge(read.records)?;
        open::unchanged(self.object, before)?;
        Ok(Some(Loaded {
            object: self.object.clone(),
            arrow: Arc::clone(Records(source).schema()),
            batches,
            bytes,
            read,
            size,
            params: self.params,
        }))
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
        let given = run::Given {
            input: Arc::new(input),
            params: &self.params,
            taken: 0,
        };
        run::query(
            self.inner,
            given,
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

/// The same rows without the room that was kept for more of them.
fn compact(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (schema, rows) = (batch.schema(), batch.num_rows());
    let mut columns = batch.columns().to_vec();
    drop(batch);
    for column in &mut columns {
        if let Some(column) = Arc::get_mut(column) {
            column.shrink_to_fit();
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
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
