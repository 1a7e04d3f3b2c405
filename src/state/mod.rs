//! Side state: one small SQLite database for what is not on the hot path, such
//! as the ledgers of sources and the cursors of subscriptions.
//!
//! All writes go through one thread. It takes the writes that queued up during
//! the last sync, runs each in a savepoint of its own inside one transaction,
//! syncs once and answers all: a write that fails takes no other with it, and
//! an answer means that the write is on disk (WAL, `synchronous = FULL`), or, where
//! that was asked for, that it survives the death of the process. Short
//! reads have a second thread with a read-only connection; a loop that reads
//! much opens its own with [`State::reader`]. No call blocks the async runtime.

mod kv;
mod schema;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Writes that share one sync, at most.
const GROUP_MAX: usize = 256;

/// How long SQLite waits for another process that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why side state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The database answered with an error.
    #[error("the side state: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The folder of the database could not be made.
    #[error("the side state's folder {path}: {error}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The database was written by a newer version of the program.
    #[error(
        "the side state has layout {found}, this program knows layouts up to {known}: it was written by a newer version"
    )]
    Newer {
        /// Layout of the database.
        found: i64,
        /// The newest layout that this program knows.
        known: usize,
    },
    /// The group that the write was in could not be committed.
    #[error("the side state could not be written: {0}")]
    Commit(String),
    /// The threads have ended.
    #[error("the side state is closed")]
    Closed,
}

type Work = Box<dyn FnOnce(&mut Transaction<'_>) -> Option<Answer> + Send>;
type ReadJob = Box<dyn FnOnce(&Connection) + Send>;
/// Sends a job's answer once it is known whether its group was committed.
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

struct WriteJob {
    work: Work,
    safety: Safety,
}

/// What a write has to survive once it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// The loss of power.
    Synced,
    /// The death of the process; for what can be found out again.
    Written,
}

/// The side state; clones share one database.
#[derive(Clone)]
pub struct State {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writes: Option<mpsc::Sender<WriteJob>>,
    reads: Option<mpsc::Sender<ReadJob>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl State {
    /// Opens the database, makes it when it is missing, and brings it to the
    /// newest layout. Takes milliseconds; meant for the start of the program.
    ///
    /// # Errors
    /// When the file cannot be opened, is no database, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| StateError::Folder {
                path: folder.to_owned(),
                error,
            })?;
        }
        let mut writer = Connection::open(path)?;
        set_up(&writer)?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        writer.pragma_update(None, "cache_size", -16 * 1024)?;
        schema::migrate(&mut writer)?;
        let reader = open_reader(path)?;

        let (writes, write_jobs) = mpsc::channel();
        let (reads, read_jobs) = mpsc::channel::<ReadJob>();
        let threads = vec![
            spawn("state-write", move || write_loop(writer, &write_jobs))?,
            spawn("state-read", move || {
                while let Ok(job) = read_jobs.recv() {
                    job(&reader);
                }
            })?,
        ];
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                writes: Some(writes),
                reads: Some(reads),
                threads: Mutex::new(threads),
            }),
        })
    }

    /// Runs a write. `Ok` means that it is on disk. When `work` fails, what it
    /// wrote is undone and nothing else is.
    ///
    /// # Errors
    /// What `work` answered, or that the group could not be committed.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.send_write(Safety::Synced, work)?
            .await
            .unwrap_or(Err(StateError::Closed))
    }

    /// [`State::write`] for a thread outside of the async runtime, as safe as
    /// is asked for.
    ///
    /// # Errors
    /// As [`State::write`].
    pub fn write_blocking<T, F>(&self, safety: Safety, work: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.send_write(safety, work)?
            .blocking_recv()
            .unwrap_or(Err(StateError::Closed))
    }

    /// Runs a short read; it sees every write that has been answered.
    ///
    /// # Errors
    /// What `work` answered.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: ReadJob = Box::new(move |connection| {
            // The asker may have gone; then nobody wants the answer.
            drop(answer.send(work(connection).map_err(StateError::from)));
        });
        let reads = self.shared.reads.as_ref().ok_or(StateError::Closed)?;
        reads.send(job).map_err(|_| StateError::Closed)?;
        answered.await.unwrap_or(Err(StateError::Closed))
    }

    /// A read-only connection for a thread that reads much. Its reads must be
    /// short: an open statement keeps the write-ahead log from being folded in.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub fn reader(&self) -> Result<Connection, StateError> {
        open_reader(&self.shared.path)
    }

    fn send_write<T, F>(
        &self,
        safety: Safety,
        work: F,
    ) -> Result<oneshot::Receiver<Result<T, StateError>>, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let done = transaction.savepoint().and_then(|point| {
                // Dropped without a commit, a savepoint undoes what it saw.
                let value = work(&point)?;
                point.commit()?;
                Ok(value)
            });
            match done {
                Ok(value) => Some(Box::new(move |committed| {
                    drop(answer.send(committed.map(|()| value).map_err(StateError::Commit)));
                })),
                Err(error) => {
                    drop(answer.send(Err(error.into())));
                    None
                }
            }
        });
        let writes = self.shared.writes.as_ref().ok_or(StateError::Closed)?;
        let job = WriteJob { work, safety };
        writes.send(job).map_err(|_| StateError::Closed)?;
        Ok(answered)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Closing the channels ends the threads after what is queued; waiting
        // for them lets SQLite fold its log into the database.
        self.writes = None;
        self.reads = None;
        let threads = std::mem::take(
            self.threads
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the side state panicked");
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StateError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| StateError::Commit(format!("no thread: {error}")))
}

/// Lets SQLite check every page of the database at `path`; what it finds, in its
/// words. Nothing when there is no database.
///
/// # Errors
/// When the file cannot be read at all.
pub fn check(path: &Path) -> Result<Vec<String>, StateError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let found = connection
        .prepare("PRAGMA integrity_check")
        .and_then(|mut check| {
            let rows = check.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<Result<Vec<_>, _>>()
        });
    match found {
        Ok(found) => Ok(found.into_iter().filter(|line| line != "ok").collect()),
        // A file that is no database, or whose pages cannot be followed.
        Err(error) => Ok(vec![error.to_string()]),
    }
}

fn set_up(connection: &Connection) -> Result<(), StateError> {
    prepare(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    Ok(())
}

fn prepare(connection: &Connection) -> Result<(), StateError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Without this, some statements are planned anew for every value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn open_reader(path: &Path) -> Result<Connection, StateError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    connection.pragma_update(None, "cache_size", -4 * 1024)?;
    Ok(connection)
}

fn write_loop(mut connection: Connection, jobs: &mpsc::Receiver<WriteJob>) {
    let mut at = None;
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        let sync = group.iter().any(|job| job.safety == Safety::Synced);
        let mut set = Ok(());
        if at != Some(sync) {
            // In this mode a commit also syncs the commits before it.
            let level = if sync { "FULL" } else { "NORMAL" };
            set = connection.pragma_update(None, "synchronous", level);
            at = set.is_ok().then_some(sync);
        }
        run_group(&mut connection, group, set);
    }
}

fn run_group(connection: &mut Connection, group: Vec<WriteJob>, set: Result<(), rusqlite::Error>) {
    let mut answers = Vec::with_capacity(group.len());
    let done = set
        .and_then(|()| connection.transaction_with_behavior(TransactionBehavior::Immediate))
        .and_then(|mut transaction| {
            for job in group {
                answers.extend((job.work)(&mut transaction));
            }
            transaction.commit()
        })
        .map_err(|error| error.to_string());
    if let Err(error) = &done {
        tracing::error!(error, "the side state could not be written");
    }
    for answer in answers {
        answer(done.clone());
    }
}

#[cfg(test)]
mod tests;
