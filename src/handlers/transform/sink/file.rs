//! Files in the making: row groups are encoded from whole batches and appended;
//! between two of them a file is closed for the system and costs a few kilobytes.

use super::dictionary;
use super::split::Partition;
use crate::handlers::Failure;
use crate::handlers::transform::options::{Format, WriteOptions};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::add_encoded_arrow_schema_to_metadata;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A file that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Folder, relative to the table's.
    pub folder: String,
    /// The file's number among those of its publication.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Values of the partition columns.
    pub values: BTreeMap<String, Option<String>>,
}

/// Appends to a file that is open only while it is written to.
pub(super) struct Appender {
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Appender {
    fn open(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                if self.written == 0
                    && let Some(folder) = self.path.parent()
                {
                    std::fs::create_dir_all(folder)?;
                }
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)?
            }
        };
        Ok(self.file.insert(file))
    }

    fn release(&mut self) {
        self.file = None;
    }
}

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.open()?.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Kind {
    Parquet(
        Box<SerializedFileWriter<Appender>>,
        Arc<ArrowRowGroupWriterFactory>,
    ),
    Text(Appender),
}

/// A file in the making.
pub(super) struct TableFile {
    kind: Kind,
    partition: Partition,
    number: usize,
    name: String,
    rows: u64,
    groups: usize,
}

/// Encodes rows into files.
pub(super) struct Encoder {
    format: Format,
    schema: SchemaRef,
    parquet: TypePtr,
    properties: WriterPropertiesPtr,
    /// The same without dictionaries that do not help, once that was seen.
    seen: OnceLock<WriterPropertiesPtr>,
    folder: PathBuf,
    id: String,
    target: u64,
    next: AtomicUsize,
}

impl Encoder {
    /// An encoder of files under `folder`.
    ///
    /// # Errors
    /// When the format cannot hold the columns.
    pub(super) fn new(
        schema: SchemaRef,
        options: &WriteOptions,
        folder: PathBuf,
        id: &str,
    ) -> Result<Self, Failure> {
        let parquet = ArrowSchemaConverter::new().convert(&schema).map_err(|e| {
            Failure::permanent(
                "WriteFailed",
                "the result has a column that Parquet cannot hold",
            )
            .caused_by(&e)
        })?;
        Ok(Self {
            format: options.format,
            parquet: parquet.root_schema_ptr(),
            properties: finished(properties(), &schema),
            seen: OnceLock::new(),
            schema,
            folder,
            id: id.to_owned(),
            target: options.target_file_bytes.max(1),
            next: AtomicUsize::new(0),
        })
    }

    /// A new file of a partition.
    pub(super) fn file(&self, partition: &Partition) -> TableFile {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let ending = match self.format {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Ndjson | Format::JsonArray => "ndjson",
        };
        let name = format!("part-{}-{number}.{ending}", self.id);
        let appender = Appender {
            path: self.folder.join(&partition.folder).join(&name),
            file: None,
            written: 0,
        };
        TableFile {
            kind: Kind::Text(appender),
            partition: partition.clone(),
            number,
            name,
            rows: 0,
            groups: 0,
        }
    }

    /// Appends rows, on `threads` threads where the format lets it.
    pub(super) fn write(
        &self,
        file: &mut TableFile,
        rows: &[RecordBatch],
        threads: usize,
    ) -> Result<(), Failure> {
        file.rows += rows.iter().map(|b| b.num_rows() as u64).sum::<u64>();
        let result = match self.format {
            Format::Parquet => self.row_group(file, rows, threads),
            Format::Csv => self.csv(file, rows).map_err(Into::into),
            Format::Ndjson | Format::JsonArray => ndjson(file, rows).map_err(Into::into),
        };
        file.groups += 1;
        result.map_err(|e| failed(&file.name, &e))
    }

    fn row_group(
        &self,
        file: &mut TableFile,
        rows: &[RecordBatch],
        threads: usize,
    ) -> Result<(), ParquetError> {
        let groups = file.groups;
        let (writer, factory) = self.parquet_writer(file, rows)?;
        let columns = factory.create_column_writers(groups)?;
        let chunks = encode(&self.schema, columns, rows, threads)?;
        let mut group = writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        writer.flush()?;
        writer.inner_mut().release();
        Ok(())
    }

    fn parquet_writer<'f>(
        &self,
        file: &'f mut TableFile,
        rows: &[RecordBatch],
    ) -> Result<
        (
            &'f mut SerializedFileWriter<Appender>,
            Arc<ArrowRowGroupWriterFactory>,
        ),
        ParquetError,
    > {
        if let Kind::Text(appender) = &mut file.kind {
            let appender = Appender {
                path: std::mem::take(&mut appender.path),
                file: None,
                written: 0,
            };
            let properties = Arc::clone(self.properties(rows));
            let writer =
                SerializedFileWriter::new(appender, Arc::clone(&self.parquet), properties)?;
            let factory = ArrowRowGroupWriterFactory::new(&writer, Arc::clone(&self.schema));
            file.kind = Kind::Parquet(Box::new(writer), Arc::new(factory));
        }
        match &mut file.kind {
            Kind::Parquet(writer, factory) => Ok((writer, Arc::clone(factory))),
            Kind::Text(_) => Err(ParquetError::General("the file is not Parquet".to_owned())),
        }
    }

    /// How a file is written that begins with these rows.
    fn properties(&self, rows: &[RecordBatch]) -> &WriterPropertiesPtr {
        match self.seen.get() {
            Some(seen) => seen,
            None if dictionary::can_tell(rows) => self.seen.get_or_init(|| {
                let without = dictionary::without(properties(), &self.schema, rows);
                finished(without, &self.schema)
            }),
            None => &self.properties,
        }
    }

    fn csv(&self, file: &mut TableFile, rows: &[RecordBatch]) -> Result<(), ArrowError> {
        let header = file.groups == 0;
        let Kind::Text(appender) = &mut file.kind else {
            return Ok(());
        };
        let mut writer = arrow::csv::WriterBuilder::new()
            .with_header(header)
            .build(io::BufWriter::new(&mut *appender));
        for batch in rows {
            writer.write(batch)?;
        }
        finish_text(writer.into_inner())?;
        appender.release();
        Ok(())
    }

    /// The size that files are meant to have.
    pub(super) fn target(&self) -> usize {
        usize::try_from(self.target).unwrap_or(usize::MAX)
    }

    /// Whether a file has its size.
    pub(super) fn is_full(&self, file: &TableFile) -> bool {
        file.bytes() >= self.target
    }

    /// Completes a file.
    pub(super) fn finish(&self, file: TableFile) -> Result<Finished, Failure> {
        let mut bytes = file.bytes();
        if let Kind::Parquet(mut writer, _) = file.kind {
            let closed = writer
                .finish()
                .map(|_| ())
                .and_then(|()| Ok(writer.inner_mut().flush()?));
            closed.map_err(|e| failed(&file.name, &e))?;
            bytes = writer.inner().written;
        }
        Ok(Finished {
            folder: file.partition.folder,
            number: file.number,
            name: file.name,
            rows: file.rows,
            bytes,
            values: file.partition.values,
        })
    }
}

/// What all files have in common.
fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("pointsman ", env!("CARGO_PKG_VERSION")).to_owned())
}

fn finished(properties: WriterPropertiesBuilder, schema: &SchemaRef) -> WriterPropertiesPtr {
    let mut properties = properties.build();
    add_encoded_arrow_schema_to_metadata(schema, &mut properties);
    Arc::new(properties)
}

impl TableFile {
    fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::Parquet(writer, _) => writer.inner().written,
            Kind::Text(appender) => appender.written,
        }
    }
}

fn ndjson(file: &mut TableFile, rows: &[RecordBatch]) -> Result<(), ArrowError> {
    let Kind::Text(appender) = &mut file.kind else {
        return Ok(());
    };
    let mut writer = arrow::json::LineDelimitedWriter::new(io::BufWriter::new(&mut *appender));
    for batch in rows {
        writer.write(batch)?;
    }
    writer.finish()?;
    finish_text(writer.into_inner())?;
    appender.release();
    Ok(())
}

fn finish_text(mut buffered: io::BufWriter<&mut Appender>) -> Result<(), ArrowError> {
    buffered
        .flush()
        .map_err(|e| ArrowError::IoError(e.to_string(), e))
}

/// The writers of one column of the schema (several, if it is nested).
struct Column {
    index: usize,
    writers: Vec<ArrowColumnWriter>,
    chunks: Vec<ArrowColumnChunk>,
}

/// Encodes rows into column chunks, columns spread over threads.
fn encode(
    schema: &SchemaRef,
    writers: Vec<ArrowColumnWriter>,
    rows: &[RecordBatch],
    threads: usize,
) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
    let mut writers = writers.into_iter();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let empty = arrow::array::new_empty_array(field.data_type());
        let leaves = compute_leaves(field, &empty)?.len();
        columns.push(Mutex::new(Column {
            index,
            writers: writers.by_ref().take(leaves).collect(),
            chunks: Vec::new(),
        }));
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), ParquetError> {
        while let Some(slot) = columns.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut column = slot.lock().unwrap_or_else(PoisonError::into_inner);
            column.encode(schema, rows)?;
        }
        Ok(())
    };
    match threads {
        0 | 1 => work()?,
        _ => std::thread::scope(|scope| {
            let spawned: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            spawned.into_iter().try_for_each(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(ParquetError::General("an encoder stopped".to_owned())))
            })
        })?,
    }
    let done = columns
        .into_iter()
        .map(|c| c.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(done.flat_map(|c| c.chunks).collect())
}

impl Column {
    fn encode(&mut self, schema: &SchemaRef, rows: &[RecordBatch]) -> Result<(), ParquetError> {
        let field = schema.field(self.index);
        for batch in rows {
            let leaves = compute_leaves(field, batch.column(self.index))?;
            for (leaf, writer) in leaves.iter().zip(&mut self.writers) {
                writer.write(leaf)?;
            }
        }
        for writer in self.writers.drain(..) {
            self.chunks.push(writer.close()?);
        }
        Ok(())
    }
}

fn failed(name: &str, e: &ParquetError) -> Failure {
    let full = e.to_string().contains("No space left");
    let code = if full { "DiskFull" } else { "WriteFailed" };
    Failure::transient(code, format!("{name} could not be written")).caused_by(e)
}
