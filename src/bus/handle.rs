//! Opening and closing: the lock, the threads, the end.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use tokio::sync::broadcast;

use super::cache::Cache;
use super::core::{Core, Life, Queue, Steady, lock};
use super::damage::RecoveryReport;
use super::error::BusError;
use super::options::BusOptions;
use super::recover;
use super::route::Now;
use super::{retention, writer};
use crate::clock::SharedClock;
use crate::storage::{FileSystem, Lock, LockError};

/// Events that a lagging [`super::Bus::tail`] may be behind.
const TAIL: usize = 4096;

/// Owns the threads; the last one out closes the log.
pub(crate) struct Handle {
    core: Arc<Core>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    writers: Vec<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
    lock: Option<Box<dyn Lock>>,
}

impl Handle {
    pub(crate) fn open(
        options: BusOptions,
        fs: Arc<dyn FileSystem>,
        clock: SharedClock,
    ) -> Result<(Self, RecoveryReport), BusError> {
        let started = clock.monotonic();
        let mut options = options;
        // Places in a segment are 32 bits wide; this leaves room for the largest commit.
        options.segment_bytes = options.segment_bytes.min(1 << 30);
        fs.create_dir_all(&options.dir)
            .map_err(|e| BusError::io("create", &options.dir, &e))?;
        let lock = take_lock(&options, &*fs)?;
        let mono = u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        let now = Now {
            wall: clock.now_ms(),
            mono,
        };
        let recovered = recover::open(&options, &fs, &clock, now)?;
        let mut report = recovered.report;
        report.took = clock.monotonic().saturating_sub(started);
        for damage in &report.damage {
            tracing::error!(%damage, "damage in the log");
        }
        if report.torn_bytes > 0 {
            tracing::warn!(
                bytes = report.torn_bytes,
                "an unfinished write was cut off the log"
            );
        }
        let mut state = recovered.state;
        // Receipts of an earlier process must not fit: the high bits are this one's.
        state.next_receipt = (clock.random() << 32) | 1;
        let free = fs.free_space(&options.dir).unwrap_or(u64::MAX);
        let core = Arc::new(Core {
            cache: Mutex::new(Cache::new(options.cache_bytes)),
            buffers: Mutex::new(Vec::new()),
            log_bytes: AtomicU64::new(recovered.table.bytes()),
            options,
            fs,
            clock,
            writing: Mutex::default(),
            syncing: Mutex::default(),
            applying: Mutex::default(),
            queue: Mutex::new(Queue::default()),
            queue_signal: Condvar::new(),
            state: Mutex::new(state),
            appender: Mutex::new(recovered.appender),
            dedupe: Mutex::new(recovered.dedupe),
            table: recovered.table,
            tail: broadcast::channel(TAIL).0,
            life: Mutex::new(Life::Open),
            damage: Mutex::new(report.damage.clone()),
            free: AtomicU64::new(free),
            queued: AtomicUsize::new(0),
            ids_cut: AtomicBool::new(false),
            pressed: AtomicU8::new(0),
            steady: Mutex::new(Steady::new(now)),
            maintenance: Mutex::new(()),
            maintenance_signal: Condvar::new(),
            maintaining: Mutex::new(()),
        });
        let threads = start(&core, lock)?;
        Ok((
            Self {
                core,
                threads: Mutex::new(threads),
            },
            report,
        ))
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn core_arc(&self) -> Arc<Core> {
        self.core.clone()
    }

    pub(crate) async fn close(&self) -> Result<(), BusError> {
        let flushed = self.core.flush().await;
        let marked = match flushed {
            Ok(()) => self.core.mark_closed(),
            Err(BusError::Closed) => return Ok(()),
            Err(e) => Err(e),
        };
        self.stop();
        marked
    }

    /// Stops the threads and gives the lock back.
    fn stop(&self) {
        {
            let mut life = lock(&self.core.life);
            if matches!(*life, Life::Open) {
                *life = Life::Closed;
            }
        }
        lock(&self.core.queue).closing = true;
        self.core.queue_signal.notify_all();
        self.core.maintenance_signal.notify_all();
        lock(&self.core.state).wake_all();
        let mut threads = lock(&self.threads);
        let writers = std::mem::take(&mut threads.writers);
        for thread in writers.into_iter().chain(threads.maintenance.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the bus ended by a panic");
            }
        }
        threads.lock = None;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

fn take_lock(options: &BusOptions, fs: &dyn FileSystem) -> Result<Box<dyn Lock>, BusError> {
    let path = options.dir.join("LOCK");
    fs.lock(&path).map_err(|e| match e {
        LockError::Held(pid) => {
            let pid = if pid.is_empty() {
                "unknown".to_owned()
            } else {
                pid
            };
            BusError::InUse {
                path: options.dir.clone(),
                pid,
            }
        }
        LockError::Io(e) => BusError::io("lock", path, &e),
    })
}

fn start(core: &Arc<Core>, lock: Box<dyn Lock>) -> Result<Threads, BusError> {
    let spawn = |name: &str, run: fn(&Core)| {
        let core = core.clone();
        let failed = |e: std::io::Error| BusError::io("start a thread for", &core.options.dir, &e);
        let core = core.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&core))
            .map_err(failed)
    };
    let mut threads = Threads {
        writers: (0..writer::THREADS)
            .map(|_| spawn("bus-writer", writer::run))
            .collect::<Result<_, _>>()?,
        maintenance: None,
        lock: Some(lock),
    };
    if !core.options.maintain_every.is_zero() {
        threads.maintenance = Some(spawn("bus-maintain", retention::run)?);
    }
    Ok(threads)
}

impl Core {
    /// Writes a last record that says: all before it is durable. With it, damage done
    /// to the end of the log while it is closed is told from a torn tail.
    fn mark_closed(&self) -> Result<(), BusError> {
        let next_seq = lock(&self.state).next_seq;
        let mut appender = lock(&self.appender);
        let sync = |appender: &super::log::Appender| {
            let synced = appender.file.sync_data();
            synced.map_err(|e| BusError::io("sync", appender.path(), &e))
        };
        sync(&appender)?;
        let mut mark = Vec::new();
        super::record::begin(super::record::Kind::Commit, &mut mark);
        let head = super::record::CommitHead {
            next_seq,
            time_ms: self.clock.now_ms(),
            synced: appender.len,
        };
        head.encode(&mut mark);
        match appender.append(&mut mark) {
            Ok(_) => sync(&appender),
            // A full disk cannot take the mark; everything else is on it already.
            Err(super::log::WriteFailure::Full(_)) => Ok(()),
            Err(super::log::WriteFailure::Broken(e)) => Err(e),
        }
    }
}
