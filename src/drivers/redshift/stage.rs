//! The rows in the bucket: Parquet files of exactly the columns of the staging
//! table, and the manifest that a `COPY` goes by.
//!
//! Their keys are computed from the table and the publications, so an attempt
//! writes over what an earlier one left, and removes all of it at its end.

use super::Staging;
use super::sql::Names;
use super::table::{Check, Plan};
use crate::drivers::postgres::encode;
use crate::handlers::Failure;
use crate::handlers::load::incoming::Incoming;
use crate::handlers::load::source::Outputs;
use crate::handlers::objects::S3_SCHEME;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as StorePath;
use object_store::{Error as StoreError, ObjectStoreExt, WriteMultipart};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

/// A staged file is closed at about this size: several of them let the slices of
/// a cluster read at the same time.
const FILE_BYTES: usize = 64 << 20;
/// Bytes of one part of an upload, and parts under way.
const PART: usize = 8 << 20;
const PARTS: usize = 3;

/// What is staged for one load.
pub(super) struct Stage<'a> {
    staging: &'a Staging,
    /// `PREFIX/TABLE/HASH`
    folder: String,
}

/// A file that was written and is to be uploaded. It has no name any more, so it
/// is gone with the process, whatever becomes of that.
struct Written {
    file: File,
    bytes: u64,
}

impl<'a> Stage<'a> {
    pub(super) fn new(staging: &'a Staging, names: &Names, fresh: &[&Incoming]) -> Self {
        let mut hash = Sha256::new();
        for text in std::iter::once(&names.table).chain(fresh.iter().map(|f| &f.id)) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        let hash: String = hash.finalize()[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let below = format!("{}.{}/{hash}", names.schema, names.name);
        Self {
            folder: match staging.prefix.is_empty() {
                true => below,
                false => format!("{}/{below}", staging.prefix),
            },
            staging,
        }
    }

    fn path(&self, name: &str) -> StorePath {
        StorePath::from(format!("{}/{name}", self.folder))
    }

    fn url(&self, path: &StorePath) -> String {
        format!("{S3_SCHEME}{}/{path}", self.staging.bucket)
    }

    /// Uploads the rows; tells the address of their manifest.
    ///
    /// # Errors
    /// Permanent failures name a row that the table would refuse.
    pub(super) async fn upload(
        &self,
        outputs: &Arc<Outputs>,
        plan: &Plan,
    ) -> Result<String, Failure> {
        let (sender, mut files) = mpsc::channel(1);
        let writer = {
            let (outputs, scratch) = (Arc::clone(outputs), self.staging.scratch.clone());
            let checks = plan.columns().map(|(.., check)| check).collect::<Vec<_>>();
            tokio::task::spawn_blocking(move || write(&outputs, &checks, &scratch, &sender))
        };
        let mut entries = Vec::new();
        let mut failed = Ok(());
        while let Some(written) = files.recv().await {
            let path = self.path(&format!("part-{:05}.parquet", entries.len()));
            let bytes = written.bytes;
            failed = self.put(written, &path).await;
            if failed.is_err() {
                break;
            }
            // A manifest of Parquet files must tell their sizes.
            entries.push(json!({
                "url": self.url(&path),
                "mandatory": true,
                "meta": { "content_length": bytes },
            }));
        }
        drop(files);
        let gone = |_| Failure::transient("Internal", "the rows were not read to their end");
        writer.await.map_err(gone)??;
        failed?;
        let manifest = self.path("manifest.json");
        let text = json!({ "entries": entries }).to_string();
        let put = self.staging.store.put(&manifest, text.into()).await;
        put.map_err(|e| self.unwritten(&e))?;
        Ok(self.url(&manifest))
    }

    async fn put(&self, written: Written, path: &StorePath) -> Result<(), Failure> {
        let unread = |e: std::io::Error| {
            Failure::transient("ReadFailed", "a staged file cannot be read").caused_by(&e)
        };
        let mut file = tokio::fs::File::from_std(written.file);
        file.seek(SeekFrom::Start(0)).await.map_err(unread)?;
        let upload = self.staging.store.put_multipart(path).await;
        let upload = upload.map_err(|e| self.unwritten(&e))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        loop {
            let mut part = Vec::with_capacity(PART);
            let read = (&mut file).take(PART as u64).read_to_end(&mut part).await;
            let ready = upload.wait_for_capacity(PARTS).await;
            match (read, ready) {
                (Ok(0), Ok(())) => break,
                (Ok(_), Ok(())) => upload.put(part.into()),
                (Err(e), _) => {
                    upload.abort().await.ok();
                    return Err(unread(e));
                }
                (_, Err(e)) => {
                    upload.abort().await.ok();
                    return Err(self.unwritten(&e));
                }
            }
        }
        let finished = upload.finish().await;
        finished.map(drop).map_err(|e| self.unwritten(&e))
    }

    /// Removes what was staged, as far as that can be done now.
    pub(super) async fn remove(&self) {
        let store = &self.staging.store;
        let folder = StorePath::from(self.folder.clone());
        let staged = store.list(Some(&folder)).map_ok(|meta| meta.location);
        let removed = store.delete_stream(staged.boxed()).try_collect::<Vec<_>>();
        if let Err(error) = removed.await {
            tracing::warn!(folder = self.folder, %error, "staged files stay in the bucket");
        }
    }

    fn unwritten(&self, e: &StoreError) -> Failure {
        let message = format!(
            "the rows cannot be staged in bucket `{}`",
            self.staging.bucket
        );
        match e {
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                Failure::permanent("BucketForbidden", message)
            }
            _ => Failure::transient("WriteFailed", message),
        }
        .caused_by(e)
    }
}

/// Writes the rows into files of the scratch folder and hands each on when it is
/// whole. Stops when nobody takes them any more.
fn write(
    outputs: &Outputs,
    checks: &[Check],
    scratch: &Path,
    out: &mpsc::Sender<Written>,
) -> Result<(), Failure> {
    let failed = |e: &dyn std::error::Error| {
        Failure::transient("WriteFailed", "the rows cannot be staged on disk").caused_by(e)
    };
    std::fs::create_dir_all(scratch).map_err(|e| failed(&e))?;
    let schema = staged_schema(outputs.schema());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut open: Option<(ArrowWriter<File>, Written)> = None;
    let mut before = 0_u64;
    let close = |open: &mut Option<(ArrowWriter<File>, Written)>| -> Result<bool, Failure> {
        let Some((writer, mut written)) = open.take() else {
            return Ok(true);
        };
        writer.close().map_err(|e| failed(&e))?;
        written.bytes = written.file.metadata().map_err(|e| failed(&e))?.len();
        Ok(out.blocking_send(written).is_ok())
    };
    outputs.each(&mut |batch| {
        if let Some((row, mut failure)) = refused(&batch, checks) {
            if let Some(name) = outputs.name(before + row as u64) {
                failure.message = format!("{}, in the row {name}", failure.message);
            }
            return Err(failure);
        }
        before += batch.num_rows() as u64;
        if open.is_none() {
            let file = unnamed(scratch).map_err(|e| failed(&e))?;
            let clone = file.try_clone().map_err(|e| failed(&e))?;
            let writer = ArrowWriter::try_new(clone, Arc::clone(&schema), Some(properties.clone()));
            open = Some((writer.map_err(|e| failed(&e))?, Written { file, bytes: 0 }));
        }
        let Some((writer, _)) = &mut open else {
            return Ok(false);
        };
        let staged = staged(&batch, &schema)
            .ok_or_else(|| Failure::transient("Internal", "a column is not of its type"))?;
        writer.write(&staged).map_err(|e| failed(&e))?;
        match writer.bytes_written() + writer.in_progress_size() >= FILE_BYTES {
            true => close(&mut open),
            false => Ok(true),
        }
    })?;
    close(&mut open).map(drop)
}

/// A file without a name.
fn unnamed(folder: &Path) -> std::io::Result<File> {
    let path: PathBuf = folder.join(format!("{}.parquet", uuid::Uuid::new_v4().simple()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The first value that the table would refuse.
fn refused(batch: &RecordBatch, checks: &[Check]) -> Option<(usize, Failure)> {
    let schema = batch.schema();
    for (at, check) in checks.iter().enumerate() {
        let (array, name) = (batch.column(at), schema.field(at).name());
        if check.required && array.null_count() > 0 {
            let row = (0..array.len()).find(|row| array.is_null(*row))?;
            let message = format!("column `{name}` must not be null");
            return Some((row, Failure::permanent("ConstraintFailed", message)));
        }
        let Some(limit) = check.limit else { continue };
        let Some(text) = encode::text(array) else {
            continue;
        };
        let long = |row: &usize| text.is_valid(*row) && text.value_length(*row) as usize > limit;
        if let Some(row) = (0..text.len()).find(long) {
            let message = format!(
                "column `{name}` takes {limit} bytes of text, not {}",
                text.value_length(row)
            );
            return Some((row, Failure::permanent("BadValue", message)));
        }
    }
    None
}

/// The types of the staged files: times are in UTC and say no zone, and what is
/// nested is JSON.
fn staged_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, None),
            other if encode::is_nested(other) => DataType::Utf8,
            other => other.clone(),
        };
        Field::new(field.name(), kind, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn staged(batch: &RecordBatch, schema: &SchemaRef) -> Option<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (array, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(match field.data_type() {
            DataType::Timestamp(..) => {
                let times = array.as_primitive_opt::<TimestampMicrosecondType>()?;
                Arc::new(times.clone().with_timezone_opt(None::<&str>))
            }
            DataType::Utf8 => Arc::new(encode::text(array)?),
            _ => Arc::clone(array),
        });
    }
    RecordBatch::try_new(Arc::clone(schema), columns).ok()
}
