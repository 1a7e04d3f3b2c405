//! What a folder source says of itself.

use super::finished::Wait;
use super::look::show;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Errors that are kept, at most; the oldest go first.
const ERRORS_MAX: usize = 100;

/// How the source is doing.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FolderStatus {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub root: PathBuf,
    /// Whether it watches, polls or waits.
    pub mode: Mode,
    /// Files by their state in the ledger.
    pub files: Files,
    /// The file that has waited longest to be finished.
    pub oldest_waiting: Option<Waiting>,
    /// The last scan of the whole tree.
    pub last_scan: Option<ScanReport>,
    /// A scan of the whole tree is under way.
    pub scanning: bool,
    /// Folders that are watched.
    pub watched: usize,
    /// What happened since the start.
    pub counts: Counts,
    /// Paths that could not be read, or handed on.
    pub errors: Vec<PathError>,
    /// Files that the bus refused, the newest first.
    pub refused: Vec<RefusedFile>,
}

/// How a source learns of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Mode {
    /// It has not begun.
    #[default]
    Starting,
    /// By notifications, with a scan now and then.
    Watching,
    /// By scans in short order.
    Polling {
        /// Why.
        why: String,
    },
    /// The bus takes nothing now; what changes is seen later.
    Paused {
        /// Why.
        why: String,
        /// Since when, Unix milliseconds.
        since_ms: i64,
    },
    /// It has ended, as it was told to.
    Stopped,
    /// It has ended by a mistake of its own; the log has the place.
    Failed,
}

/// Files by their state in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Files {
    /// Seen, and not finished.
    pub seen: u64,
    /// There at the first start, and not to be taken.
    pub noted: u64,
    /// Finished, and on the way to the bus.
    pub stable: u64,
    /// Taken by the bus.
    pub accepted: u64,
    /// All deliveries are settled and the after-action is done.
    pub done: u64,
    /// Refused by the bus.
    pub refused: u64,
    /// Gone, and the bus was told.
    pub deleted: u64,
    /// To be taken again.
    pub forgotten: u64,
}

/// A file that waits to be finished.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waiting {
    /// Its path below the root.
    pub path: String,
    /// Since when it is known, Unix milliseconds.
    pub since_ms: i64,
    /// What it waits for.
    pub why: Wait,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScanReport {
    /// Its number since the start.
    pub number: u64,
    /// When it began, Unix milliseconds.
    pub began_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Files that are taken by their names.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Links that are not followed, pipes, sockets and devices.
    pub others: u64,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Events that the bus took.
    pub accepted: u64,
    /// Events that the bus had already.
    pub duplicates: u64,
    /// Events that the bus refused.
    pub refused: u64,
    /// `Object Deleted` among the accepted.
    pub deletes: u64,
    /// Files that were renamed within the tree.
    pub renames: u64,
    /// Touches that a hash of the content has shown to be none.
    pub touches: u64,
    /// Notifications read.
    pub notifications: u64,
    /// Times that notifications were lost.
    pub losses: u64,
    /// Entries of the ledger that were forgotten because their files are long gone.
    pub expired: u64,
}

/// A path that could not be read, or handed on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathError {
    /// The path below the root; empty for the root.
    pub path: String,
    /// What went wrong.
    pub error: String,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// When it was last tried, Unix milliseconds.
    pub last_ms: i64,
    /// How often it was tried.
    pub times: u64,
}

/// A file that the bus refused.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefusedFile {
    /// Its path below the root.
    pub path: String,
    /// Why.
    pub reason: String,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

/// The part of the status that the engine writes and the handle reads.
#[derive(Clone, Default)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    status: FolderStatus,
    errors: BTreeMap<Vec<u8>, PathError>,
}

impl Board {
    /// A board for the source `name`.
    #[must_use]
    pub fn new(name: &str, root: PathBuf) -> Self {
        let board = Self::default();
        board.update(|status| {
            status.name = name.to_owned();
            status.root = root;
        });
        board
    }

    /// Changes what is said.
    pub fn update(&self, change: impl FnOnce(&mut FolderStatus)) {
        change(&mut self.inner().status);
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.inner().status.counts);
    }

    /// Notes that a path could not be read or handed on.
    pub fn fail(&self, key: &[u8], error: &str, now_ms: i64) {
        let mut inner = self.inner();
        if let Some(known) = inner.errors.get_mut(key) {
            known.times += 1;
            known.last_ms = now_ms;
            if known.error != error {
                known.error = error.to_owned();
            }
            return;
        }
        tracing::warn!(source = %inner.status.name, path = %show(key), error, "cannot be read now, will be tried again");
        if inner.errors.len() >= ERRORS_MAX {
            let oldest = inner.errors.iter().min_by_key(|(_, e)| e.last_ms);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                inner.errors.remove(&key);
            }
        }
        let error = PathError {
            path: show(key),
            error: error.to_owned(),
            since_ms: now_ms,
            last_ms: now_ms,
            times: 1,
        };
        inner.errors.insert(key.to_vec(), error);
    }

    /// Notes that a path is as it should be.
    pub fn clear(&self, key: &[u8]) {
        self.inner().errors.remove(key);
    }

    /// What there is to say now, without the ledger's part.
    #[must_use]
    pub fn read(&self) -> FolderStatus {
        let inner = self.inner();
        let mut status = inner.status.clone();
        status.errors = inner.errors.values().cloned().collect();
        status
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is inside is whole after every statement, also after a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds of a duration.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
