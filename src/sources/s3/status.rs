//! What a bucket source says of itself.

pub use super::ledger::Objects;
use super::options::S3SourceOptions;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Errors that are kept, at most; the oldest go first.
const ERRORS_MAX: usize = 20;

/// How the source is doing.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct S3Status {
    /// Its name.
    pub name: String,
    /// Its bucket.
    pub bucket: String,
    /// Only keys that begin so.
    pub prefix: String,
    /// What it does now.
    pub mode: Mode,
    /// Objects by their state in the ledger.
    pub objects: Objects,
    /// The last walk that came to its end.
    pub last_walk: Option<WalkReport>,
    /// A walk is under way.
    pub walking: bool,
    /// When the next walk begins, Unix milliseconds.
    pub next_walk_ms: Option<i64>,
    /// What happened since the start.
    pub counts: Counts,
    /// What went wrong, the newest last.
    pub errors: VecDeque<Trouble>,
    /// Objects that the bus refused, the newest first.
    pub refused: Vec<RefusedObject>,
}

/// What a source does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Mode {
    /// It has not begun.
    #[default]
    Starting,
    /// It lists now and then.
    Polling,
    /// It hears of changes, and lists now and then.
    Notified,
    /// The bus takes nothing now.
    Paused {
        /// Why.
        why: String,
        /// Since when, Unix milliseconds.
        since_ms: i64,
    },
    /// The bucket cannot be listed now.
    Unreachable {
        /// Why.
        why: String,
        /// Since when, Unix milliseconds.
        since_ms: i64,
    },
    /// It has ended.
    Stopped,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct WalkReport {
    /// Its number since the start.
    pub number: u64,
    /// Whether it listed everything.
    pub full: bool,
    /// When it began, Unix milliseconds.
    pub began_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Keys (or versions) in the listing.
    pub keys: u64,
    /// Pages of the listing.
    pub pages: u64,
    /// Versions that were new.
    pub found: u64,
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
    /// Pages of listings that were asked for.
    pub list_calls: u64,
    /// Objects that were asked for one by one.
    pub head_calls: u64,
    /// Notifications that came in.
    pub hints: u64,
    /// Notifications that told nothing new: doubled, late, or of objects gone.
    pub absorbed: u64,
    /// Versions that a walk found although notifications come in.
    pub missed_by_hints: u64,
    /// Listings that were begun anew, because the server lost the place.
    pub begun_anew: u64,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trouble {
    /// What.
    pub error: String,
    /// When first, Unix milliseconds.
    pub since_ms: i64,
    /// When last, Unix milliseconds.
    pub last_ms: i64,
    /// How often.
    pub times: u64,
}

/// An object that the bus refused.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefusedObject {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

/// The part of the status that the engine writes and the handle reads.
#[derive(Clone)]
pub struct Board(Arc<Mutex<S3Status>>);

impl Board {
    /// A board for a source.
    pub fn new(options: &S3SourceOptions) -> Self {
        Self(Arc::new(Mutex::new(S3Status {
            name: options.name.clone(),
            bucket: options.bucket.clone(),
            prefix: options.prefix.clone(),
            ..S3Status::default()
        })))
    }

    /// Changes what is said.
    pub fn update(&self, change: impl FnOnce(&mut S3Status)) {
        change(&mut self.inner());
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.inner().counts);
    }

    /// Notes that something went wrong.
    pub fn fail(&self, error: &str, now_ms: i64) {
        let mut status = self.inner();
        if let Some(known) = status.errors.iter_mut().find(|e| e.error == error) {
            known.times += 1;
            known.last_ms = now_ms;
            return;
        }
        tracing::warn!(source = %status.name, bucket = %status.bucket, error, "will be tried again");
        if status.errors.len() >= ERRORS_MAX {
            status.errors.pop_front();
        }
        status.errors.push_back(Trouble {
            error: error.to_owned(),
            since_ms: now_ms,
            last_ms: now_ms,
            times: 1,
        });
    }

    /// What there is to say now, without the ledger's part.
    pub fn read(&self) -> S3Status {
        self.inner().clone()
    }

    fn inner(&self) -> MutexGuard<'_, S3Status> {
        // What is inside is whole after every statement, also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
