//! What can go wrong on the bus, and what the caller can do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::types::RouteId;

/// An error of the durable log or of the queues over it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Another process holds the data directory.
    #[error("{path} is in use by pid {pid}", path = path.display())]
    InUse {
        /// The bus folder.
        path: PathBuf,
        /// The process that holds it, `unknown` when it did not say.
        pid: String,
    },
    /// A file operation failed; where it matters the log is poisoned too.
    #[error("{action} {path}: {reason}", path = path.display())]
    Io {
        /// What was tried, as a verb: `open`, `write`, `sync`.
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
        /// The operating system's kind, to tell "disk full" from "broken".
        kind: io::ErrorKind,
    },
    /// A write or sync failed earlier. Nothing is taken until the bus is opened again.
    #[error("the log stopped after a failure and must be reopened: {why}")]
    Poisoned {
        /// The failure that stopped it.
        why: String,
    },
    /// Intake is refused for now; nothing was stored.
    #[error("intake is refused: {reason} (try again in {} s)", retry_after.as_secs())]
    Refused {
        /// Which mark was reached.
        reason: String,
        /// When it is worth trying again.
        retry_after: Duration,
        /// Whether more comes than can be written, so that patience is all it takes;
        /// otherwise room has to be made first.
        overloaded: bool,
    },
    /// A single call carries more than one commit may hold.
    #[error("{what} is {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// What was too large: `event`, `batch`, `id`.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// An event that cannot be stored as given.
    #[error("the event cannot be stored: {0}")]
    BadEvent(String),
    /// A route that the log does not know.
    #[error("no route with number {}", .0.0)]
    UnknownRoute(RouteId),
    /// A route name that the log does not know.
    #[error("no route named {0:?}")]
    UnknownRouteName(String),
    /// A route that was retired takes no new deliveries.
    #[error("route {0:?} is retired")]
    RetiredRoute(String),
    /// A route cannot be retired while it holds a backlog.
    #[error("route {name:?} still has {pending} pending deliveries; say where they go")]
    HasBacklog {
        /// The route.
        name: String,
        /// Its pending deliveries.
        pending: u64,
    },
    /// No event with this sequence number is kept.
    #[error("event {0} is not kept")]
    NoEvent(u64),
    /// No dead letter with this sequence number on this route.
    #[error("route {} has no dead letter {seq}", route.0)]
    NoDeadLetter {
        /// The route asked.
        route: RouteId,
        /// The event asked for.
        seq: u64,
    },
    /// Bytes that were once written soundly no longer are.
    #[error("corrupt data in {path} at byte {offset}: {what}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Byte position in it.
        offset: u64,
        /// What did not hold.
        what: String,
    },
    /// A file of a format that this version does not know.
    #[error("{path} has format version {found}; this program reads up to {known}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
}

impl BusError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, error: &io::Error) -> Self {
        Self::Io {
            action,
            path: path.into(),
            reason: error.to_string(),
            kind: error.kind(),
        }
    }

    /// Whether the same call may succeed later without an operator's help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Io { kind, .. } => {
                matches!(
                    kind,
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            _ => false,
        }
    }
}
