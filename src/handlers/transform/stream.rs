//! The records of an object as a table of the engine. Reading, parsing and
//! checking happen on a blocking thread; a short channel keeps it from running
//! ahead. The object is always read to its end, so that every bad record is
//! found, even if the query wants only some rows.

use super::batch::Feed;
use super::drift::Changes;
use super::read::open::Meter;
use super::read::{Reader, Started};
use super::rejects::{Known, RejectFile, RejectSink};
use super::schema::RecordSchema;
use crate::handlers::{Context, Failure, Progress};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

/// Batches that may wait between the reader and the query.
const AHEAD: usize = 2;

/// Opens the object once more, for queries that read `input` twice.
pub type Reopen = Box<dyn Fn() -> Result<Started, Failure> + Send + Sync>;

/// What the first pass over an object came to.
#[derive(Debug)]
pub struct Read {
    /// Records, bad ones included.
    pub records: u64,
    /// Members that were left out.
    pub ignored: BTreeMap<String, u64>,
    /// The bad records.
    pub rejects: RejectFile,
}

/// An object that a query reads.
pub struct Source {
    /// How the columns differ from the known ones.
    pub changes: Changes,
    schema: Arc<RecordSchema>,
    arrow: SchemaRef,
    what: String,
    size: u64,
    meter: Arc<Meter>,
    cx: Context,
    every: Duration,
    ignored: Vec<String>,
    reopen: Reopen,
    /// The reader and the rejects of the first pass, until it starts.
    first: Mutex<Option<(Box<dyn Reader>, RejectFile)>>,
    passes: Mutex<Vec<Pass>>,
    abandoned: Arc<AtomicBool>,
}

/// A pass over the object, under way; what it read, if it was the one that counts.
type Pass = JoinHandle<Result<Option<Read>, Failure>>;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

/// What a source is made of, besides its reader.
pub struct Setting {
    /// The object's key, for people.
    pub what: String,
    /// Its size.
    pub size: u64,
    /// How far it was read.
    pub meter: Arc<Meter>,
    /// The handler's context.
    pub cx: Context,
    /// How often progress is told.
    pub every: Duration,
    /// Columns that are left out.
    pub ignored: Vec<String>,
}

impl Source {
    /// A source over a started reader.
    #[must_use]
    pub fn new(
        started: Started,
        rejects: RejectFile,
        reopen: Reopen,
        setting: Setting,
    ) -> Arc<Self> {
        Arc::new(Self {
            changes: started.changes,
            schema: started.schema,
            arrow: started.arrow,
            what: setting.what,
            size: setting.size,
            meter: setting.meter,
            cx: setting.cx,
            every: setting.every,
            ignored: setting.ignored,
            reopen,
            first: Mutex::new(Some((started.reader, rejects))),
            passes: Mutex::new(Vec::new()),
            abandoned: Arc::default(),
        })
    }

    /// The columns of the records.
    #[must_use]
    pub fn schema(&self) -> &RecordSchema {
        &self.schema
    }

    /// Starts a pass; batches go to `out`, if there is one.
    fn start(self: &Arc<Self>, out: Option<mpsc::Sender<Result<RecordBatch, DataFusionError>>>) {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let this = Arc::clone(self);
        let pass = tokio::task::spawn_blocking(move || {
            let result = this.pass(first, out.as_ref());
            if let (Err(failure), Some(out)) = (&result, &out) {
                // The query may be gone already; the failure is kept either way.
                drop(out.blocking_send(Err(DataFusionError::Execution(failure.message.clone()))));
            }
            result
        });
        self.passes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pass);
    }

    /// Stops reading: the query has failed.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Waits for the passes to end. An object that the query did not need to
    /// read is read now, for its bad records.
    ///
    /// # Errors
    /// What a pass failed with.
    pub async fn finish(self: &Arc<Self>) -> Result<Read, Failure> {
        let unread = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if unread && !self.abandoned.load(Ordering::Relaxed) {
            self.start(None);
        }
        let passes =
            std::mem::take(&mut *self.passes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut read = None;
        for pass in passes {
            let ended = pass.await.map_err(|e| {
                Failure::transient("Internal", "reading stopped unexpectedly").caused_by(&e)
            })??;
            read = read.or(ended);
        }
        read.ok_or_else(|| Failure::transient("Cancelled", "the object was not read"))
    }

    fn pass(
        &self,
        first: Option<(Box<dyn Reader>, RejectFile)>,
        out: Option<&mpsc::Sender<Result<RecordBatch, DataFusionError>>>,
    ) -> Result<Option<Read>, Failure> {
        match first {
            None => {
                let mut again = (self.reopen)()?;
                self.run(again.reader.as_mut(), &mut Known, out, false)?;
                Ok(None)
            }
            Some((mut reader, mut rejects)) => {
                let (records, mut ignored) = self.run(reader.as_mut(), &mut rejects, out, true)?;
                ignored.extend(self.ignored.iter().map(|name| (name.clone(), records)));
                Ok(Some(Read {
                    records,
                    ignored,
                    rejects,
                }))
            }
        }
    }

    fn run(
        &self,
        reader: &mut dyn Reader,
        rejects: &mut dyn RejectSink,
        out: Option<&mpsc::Sender<Result<RecordBatch, DataFusionError>>>,
        to_the_end: bool,
    ) -> Result<(u64, BTreeMap<String, u64>), Failure> {
        let mut feed = Feed::new(Arc::clone(&self.schema), rejects);
        let mut wanted = out;
        let mut told = Instant::now();
        loop {
            let more = reader.fill(&mut feed)?;
            if let (Some(batch), Some(sender)) = (feed.take()?, wanted)
                && sender.blocking_send(Ok(batch)).is_err()
            {
                wanted = None;
            }
            if self.cx.cancel.is_cancelled() {
                return Err(cancelled());
            }
            let enough = wanted.is_none() && !to_the_end;
            if !more || enough || self.abandoned.load(Ordering::Relaxed) {
                return Ok((feed.records, feed.ignored));
            }
            if to_the_end && told.elapsed() >= self.every {
                told = Instant::now();
                self.tell(feed.records);
            }
        }
    }

    fn tell(&self, rows: u64) {
        (self.cx.progress)(Progress {
            what: self.what.clone(),
            bytes: self.meter.bytes.load(Ordering::Relaxed),
            total_bytes: Some(self.size),
            rows,
        });
    }
}

/// The handler's time is over, or the program stops.
#[must_use]
pub fn cancelled() -> Failure {
    Failure::transient("Cancelled", "the work was stopped before it was done")
}

/// A source as a partition of a table.
#[derive(Debug)]
pub struct Records(pub Arc<Source>);

impl PartitionStream for Records {
    fn schema(&self) -> &SchemaRef {
        &self.0.arrow
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (sender, receiver) = mpsc::channel(AHEAD);
        self.0.start(Some(sender));
        let schema = Arc::clone(&self.0.arrow);
        Box::pin(RecordBatchStreamAdapter::new(
            schema,
            ReceiverStream::new(receiver),
        ))
    }
}
