//! The sink: batches in, files per partition out, in bounded memory.
//!
//! Rows are gathered in chunks, a chunk is split by partition, and a
//! partition's rows wait until they make a good row group or memory is needed.
//! Only then are they encoded, in one go: the encoder's buffers and the
//! compressor's tables, which cost far more than the rows, exist for as many
//! partitions as there are threads, not for as many as there are partitions.
//! A file takes row groups until it has its size, and is not held open between
//! them, so thousands of partitions need no file handles. When memory is needed
//! and a partition's rows are too few for a row group, they wait on disk.

mod dictionary;
mod file;
mod spill;
mod split;

pub use file::Finished;

use super::options::WriteOptions;
use crate::handlers::Failure;
use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use file::{Encoder, TableFile};
use spill::{Segment, Spill};
use split::Splitter;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinHandle;

/// Sizes of the sink's buffers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows are split when they have this many bytes.
    pub chunk: usize,
    /// A partition's rows are encoded when they have this many bytes.
    pub row_group: usize,
    /// The largest partitions are encoded when all waiting rows have this many bytes.
    pub waiting: usize,
    /// Fewer bytes than this make no row group while there is more to come.
    pub smallest: usize,
    /// Threads that encode.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            chunk: 24 << 20,
            row_group: 32 << 20,
            waiting: 80 << 20,
            smallest: 1 << 20,
            threads: crate::handlers::query::engine::cores(),
        }
    }
}

impl Limits {
    /// Limits of a sink that shares `memory` bytes with a query.
    #[must_use]
    pub fn within(memory: usize) -> Self {
        let full = Self::default();
        Self {
            chunk: (memory / 16).clamp(4 << 20, full.chunk),
            row_group: (memory / 8).clamp(8 << 20, full.row_group),
            waiting: (memory / 6).clamp(16 << 20, full.waiting),
            ..full
        }
    }

    /// What such a sink leaves for the query.
    #[must_use]
    pub fn rest(memory: usize) -> usize {
        let sink = Self::within(memory);
        let taken = sink.chunk + sink.row_group + sink.waiting;
        memory.saturating_sub(taken).max(memory / 4)
    }
}

/// Writes batches into files under a staging folder.
pub struct Sink {
    chunk: Vec<RecordBatch>,
    chunk_bytes: usize,
    limits: Limits,
    schema: SchemaRef,
    state: Option<State>,
    running: Option<JoinHandle<Result<State, Failure>>>,
    /// Rows taken.
    pub rows: u64,
}

/// What works on one chunk at a time, on a thread of its own.
struct State {
    splitter: Splitter,
    encoder: Encoder,
    spill: Spill,
    parts: Vec<Part>,
    waiting: usize,
    limits: Limits,
    most_files: usize,
    turn: u64,
    done: Vec<Finished>,
}

/// A partition: its rows that wait, and its file that is not full.
#[derive(Default)]
struct Part {
    rows: Vec<RecordBatch>,
    bytes: usize,
    /// Its rows that wait on disk; they come before those in memory.
    aside: Vec<Segment>,
    aside_bytes: usize,
    file: Option<TableFile>,
    used: u64,
}

/// Rows of a partition on their way into its file.
struct Job {
    part: usize,
    file: TableFile,
    aside: Vec<Segment>,
    rows: Vec<RecordBatch>,
    bytes: usize,
}

impl Sink {
    /// A sink for rows of `schema` (as [`super::sql::written`] makes it) that
    /// names its files `part-<id>-<n>`, in folders under `staging`.
    ///
    /// # Errors
    /// When the format cannot hold the columns.
    pub fn new(
        schema: SchemaRef,
        options: &WriteOptions,
        staging: PathBuf,
        id: &str,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let splitter = Splitter::new(&schema, &options.partition_by)?;
        let spill = Spill::new(staging.join(".spill"), splitter.file_schema());
        let encoder = Encoder::new(splitter.file_schema(), options, staging, id)?;
        Ok(Self {
            chunk: Vec::new(),
            chunk_bytes: 0,
            limits,
            schema,
            state: Some(State {
                splitter,
                encoder,
                spill,
                parts: Vec::new(),
                waiting: 0,
                limits,
                most_files: options.max_open_writers.max(1),
                turn: 0,
                done: Vec::new(),
            }),
            running: None,
            rows: 0,
        })
    }

    /// Takes a batch.
    ///
    /// # Errors
    /// When earlier rows could not be written.
    pub async fn push(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let batch = self.plain(batch)?;
        self.rows += batch.num_rows() as u64;
        self.chunk_bytes += bytes_of(&batch);
        self.chunk.push(batch);
        if self.chunk_bytes >= self.limits.chunk {
            self.absorb(false).await?;
        }
        Ok(())
    }

    /// Writes all that waits and tells the files.
    ///
    /// # Errors
    /// When rows could not be written.
    pub async fn finish(mut self) -> Result<Vec<Finished>, Failure> {
        self.absorb(true).await?;
        let mut done = self.join().await?.done;
        done.sort_by(|a, b| (&a.folder, a.number).cmp(&(&b.folder, b.number)));
        Ok(done)
    }

    /// The batch with the columns' written types.
    fn plain(&self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns: Result<Vec<_>, _> = columns
            .map(
                |(array, field)| match array.data_type() == field.data_type() {
                    true => Ok(array.clone()),
                    false => cast(array, field.data_type()),
                },
            )
            .collect();
        columns
            .and_then(|columns| RecordBatch::try_new(self.schema.clone(), columns))
            .map_err(|e| {
                Failure::permanent("WriteFailed", "the result does not fit its columns")
                    .caused_by(&e)
            })
    }

    /// Hands the chunk to the thread that writes, once it is done with the last.
    async fn absorb(&mut self, last: bool) -> Result<(), Failure> {
        let mut state = self.join().await?;
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        self.running = Some(tokio::task::spawn_blocking(move || {
            state.absorb(chunk, last)?;
            Ok(state)
        }));
        Ok(())
    }

    async fn join(&mut self) -> Result<State, Failure> {
        if let Some(running) = self.running.take() {
            return running.await.map_err(|e| {
                Failure::transient("Internal", "writing stopped unexpectedly").caused_by(&e)
            })?;
        }
        self.state
            .take()
            .ok_or_else(|| Failure::transient("WriteFailed", "an earlier write failed"))
    }
}

fn bytes_of(batch: &RecordBatch) -> usize {
    // Slices share their buffers, so only what the rows themselves take counts.
    let size = |array: &dyn Array| {
        array
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| array.get_array_memory_size())
    };
    batch.columns().iter().map(|c| size(c.as_ref())).sum()
}

impl State {
    fn absorb(&mut self, chunk: Vec<RecordBatch>, last: bool) -> Result<(), Failure> {
        self.turn += 1;
        for (part, rows) in self.splitter.split(chunk)? {
            if part >= self.parts.len() {
                self.parts.resize_with(part + 1, Part::default);
            }
            let bytes = bytes_of(&rows);
            let part = &mut self.parts[part];
            part.bytes += bytes;
            part.used = self.turn;
            part.rows.push(rows);
            self.waiting += bytes;
        }
        let jobs = self.due(last);
        for (part, file) in self.run(jobs)? {
            self.parts[part].file = Some(file);
        }
        if self.waiting > self.limits.waiting {
            self.put_aside()?;
        }
        self.close(last)
    }

    /// The partitions whose rows are to be encoded now, largest first: those
    /// that make a good row group, and all at the end.
    fn due(&mut self, last: bool) -> Vec<Job> {
        let size = |part: &Part| part.bytes + part.aside_bytes;
        let parts = 0..self.parts.len();
        let mut order: Vec<usize> = parts.filter(|i| size(&self.parts[*i]) > 0).collect();
        order.sort_by_key(|i| std::cmp::Reverse(size(&self.parts[*i])));
        let mut jobs = Vec::new();
        for index in order {
            // Half of the room is made at once, so that the next chunk finds some.
            let full = self.waiting > self.limits.waiting / 2
                && (!jobs.is_empty() || self.waiting > self.limits.waiting);
            let part = &mut self.parts[index];
            let bytes = part.bytes + part.aside_bytes;
            let good = bytes >= self.limits.row_group || (full && bytes >= self.limits.smallest);
            if !(last || good) {
                break;
            }
            self.waiting -= part.bytes;
            part.bytes = 0;
            part.aside_bytes = 0;
            let partition = self.splitter.partition(index);
            let file = part
                .file
                .take()
                .unwrap_or_else(|| self.encoder.file(partition));
            jobs.push(Job {
                part: index,
                file,
                aside: std::mem::take(&mut part.aside),
                rows: std::mem::take(&mut part.rows),
                bytes,
            });
        }
        jobs
    }

    /// Puts all rows that wait in memory on disk.
    fn put_aside(&mut self) -> Result<(), Failure> {
        let spill = &mut self.spill;
        let small = self.parts.iter().filter(|p| p.bytes > 0);
        let segments = spill.write(small.map(|p| p.rows.as_slice()))?;
        let small = self.parts.iter_mut().filter(|p| p.bytes > 0);
        for (part, segment) in small.zip(segments) {
            part.aside.push(segment);
            part.aside_bytes += std::mem::take(&mut part.bytes);
            part.rows.clear();
        }
        self.waiting = 0;
        Ok(())
    }

    /// Encodes on all threads; returns the files that take more rows.
    fn run(&mut self, jobs: Vec<Job>) -> Result<Vec<(usize, TableFile)>, Failure> {
        let threads = self.limits.threads.max(1);
        // One large partition is spread by column, many partitions by partition.
        let inner = if jobs.len() < threads { threads } else { 1 };
        let outer = threads.min(jobs.len());
        let slots: Vec<Mutex<Option<Job>>> =
            jobs.into_iter().map(|j| Mutex::new(Some(j))).collect();
        let next = AtomicUsize::new(0);
        let written = Mutex::new(Vec::with_capacity(slots.len()));
        let work = || {
            loop {
                let slot = slots.get(next.fetch_add(1, Ordering::Relaxed));
                let Some(job) =
                    slot.and_then(|s| s.lock().unwrap_or_else(PoisonError::into_inner).take())
                else {
                    return Ok(());
                };
                let done = self.append(job, inner)?;
                written
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(done);
            }
        };
        match outer {
            0 | 1 => work()?,
            _ => std::thread::scope(|scope| {
                let threads: Vec<_> = (0..outer).map(|_| scope.spawn(work)).collect();
                threads.into_iter().try_for_each(|t| {
                    t.join().unwrap_or_else(|_| {
                        Err(Failure::transient(
                            "Internal",
                            "an encoder stopped unexpectedly",
                        ))
                    })
                })
            })?,
        }
        let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut open = Vec::with_capacity(written.len());
        for (part, file, finished) in written {
            open.push((part, file));
            self.done.extend(finished);
        }
        Ok(open)
    }

    /// Appends a job's rows to its file, row group by row group; a file that
    /// gets full on the way is followed by another one.
    fn append(
        &self,
        job: Job,
        threads: usize,
    ) -> Result<(usize, TableFile, Vec<Finished>), Failure> {
        let Job {
            part,
            mut file,
            aside,
            rows,
            bytes,
        } = job;
        let mut all = self.spill.read(&aside)?;
        all.extend(rows);
        let rows = all;
        let threads = if bytes > 4 << 20 { threads } else { 1 };
        let group = self
            .limits
            .row_group
            .min(self.encoder.target().saturating_mul(4));
        let mut finished = Vec::new();
        let mut start = 0;
        let mut size = 0;
        for (index, batch) in rows.iter().enumerate() {
            size += bytes_of(batch);
            if size < group && index + 1 < rows.len() {
                continue;
            }
            if self.encoder.is_full(&file) {
                let next = self.encoder.file(self.splitter.partition(part));
                finished.push(self.encoder.finish(std::mem::replace(&mut file, next))?);
            }
            self.encoder
                .write(&mut file, &rows[start..=index], threads)?;
            (start, size) = (index + 1, 0);
        }
        Ok((part, file, finished))
    }

    /// Closes files that are full, all at the end, and the least used ones
    /// above the allowed number.
    fn close(&mut self, last: bool) -> Result<(), Failure> {
        let mut open = BTreeMap::new();
        for (index, part) in self.parts.iter_mut().enumerate() {
            let Some(file) = &part.file else { continue };
            if last || self.encoder.is_full(file) {
                self.done.extend(
                    part.file
                        .take()
                        .map(|f| self.encoder.finish(f))
                        .transpose()?,
                );
            } else {
                open.insert((part.used, index), ());
            }
        }
        let surplus = open.len().saturating_sub(self.most_files);
        for (_, index) in open.into_keys().take(surplus) {
            let file = self.parts[index].file.take();
            self.done
                .extend(file.map(|f| self.encoder.finish(f)).transpose()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::{Format, WriteOptions};
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::sync::Arc;

    /// Under limits that make everything wait on disk, no row is lost and each
    /// partition keeps its order.
    #[tokio::test]
    async fn rows_that_waited_on_disk_come_out_in_their_order() {
        let folder = std::env::temp_dir().join(format!("sink-{}", uuid::Uuid::new_v4()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("part", DataType::Utf8, true),
        ]));
        let options = WriteOptions {
            table: "t".to_owned(),
            format: Format::Parquet,
            partition_by: vec!["part".to_owned()],
            target_file_bytes: 1 << 20,
            max_open_writers: 3,
            s3: None,
        };
        let limits = Limits {
            chunk: 4_000,
            row_group: 20_000,
            waiting: 3_000,
            smallest: 10_000,
            threads: 2,
        };
        let mut sink = Sink::new(schema.clone(), &options, folder.clone(), "id", limits).unwrap();
        for first in (0..10_000).step_by(100) {
            let ids: Vec<i64> = (first..first + 100).collect();
            let parts = ids.iter().map(|n| format!("p{}", n % 7));
            let batch = RecordBatch::try_new(
                schema.clone(),
                vec![
                    Arc::new(Int64Array::from(ids.clone())),
                    Arc::new(StringArray::from_iter_values(parts)),
                ],
            );
            sink.push(&batch.unwrap()).await.unwrap();
        }
        let files = sink.finish().await.unwrap();
        let mut rows: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for file in &files {
            let open = std::fs::File::open(folder.join(&file.folder).join(&file.name)).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(open).unwrap();
            for batch in reader.build().unwrap() {
                let ids = batch.unwrap().column(0).clone();
                let ids = ids.as_any().downcast_ref::<Int64Array>().unwrap();
                rows.entry(file.folder.clone())
                    .or_default()
                    .extend(ids.values());
            }
        }
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(rows.values().map(Vec::len).sum::<usize>(), 10_000);
        for (part, ids) in rows {
            assert!(ids.is_sorted(), "{part}");
        }
    }
}
