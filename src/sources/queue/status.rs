//! What a queue source says of itself.

use super::Format;
use crate::queues::{Broker, Inbound};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the broker is asked how much waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the source is doing.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct QueueStatus {
    /// Its name.
    pub name: String,
    /// The queue at its broker.
    pub queue: String,
    /// What its messages are.
    pub format: Format,
    /// What it does now.
    pub mode: QueueMode,
    /// Messages that wait at the broker, where it answers.
    pub waiting: Option<u64>,
    /// Messages that were received and are not acknowledged, where it says so.
    pub unacknowledged: Option<u64>,
    /// What happened since the start.
    pub counts: Counts,
    /// What went wrong last.
    pub last_error: Option<Trouble>,
}

/// What a source does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum QueueMode {
    /// It has not begun.
    #[default]
    Starting,
    /// It receives what comes.
    Receiving,
    /// The bus takes nothing now; messages wait at the broker.
    Paused {
        /// Why.
        why: String,
        /// Since when, Unix milliseconds.
        since_ms: i64,
    },
    /// The broker cannot be reached, or refuses.
    Unreachable {
        /// Why.
        why: String,
        /// Since when, Unix milliseconds.
        since_ms: i64,
    },
    /// It has ended.
    Stopped,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Messages that were received, those that came again included.
    pub received: u64,
    /// Events that the bus took.
    pub accepted: u64,
    /// Events that the bus had already.
    pub duplicates: u64,
    /// Messages in whose place is an event `Message Refused`.
    pub refused: u64,
    /// Notifications that concern no object, such as the one that S3 sends when
    /// notifications are switched on.
    pub without_object: u64,
    /// Messages that were left at the broker, because the bus refused even the
    /// event that tells of them.
    pub held: u64,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trouble {
    /// What.
    pub error: String,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

/// A hand on a running queue source.
pub struct QueueHandle {
    broker: Arc<dyn Broker>,
    board: Board,
}

impl QueueHandle {
    pub(super) fn new(broker: Arc<dyn Broker>, board: Board) -> Self {
        Self { broker, board }
    }

    /// How the source is doing.
    pub async fn status(&self) -> QueueStatus {
        let asked = tokio::time::timeout(PATIENCE, self.broker.depth()).await;
        let mut status = self.board.inner().clone();
        if let Ok(Ok(depth)) = asked {
            status.waiting = Some(depth.ready);
            status.unacknowledged = depth.unsettled;
        }
        status
    }
}

/// The status, as the source writes it.
#[derive(Clone)]
pub(super) struct Board(Arc<Mutex<QueueStatus>>);

impl Board {
    /// A board for a source.
    pub fn new(name: &str, queue: &str, format: Format) -> Self {
        Self(Arc::new(Mutex::new(QueueStatus {
            name: name.to_owned(),
            queue: queue.to_owned(),
            format,
            ..QueueStatus::default()
        })))
    }

    fn inner(&self) -> MutexGuard<'_, QueueStatus> {
        // What is inside is whole after every statement, also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.inner().counts);
    }

    /// All is well.
    pub fn receiving(&self) {
        let mut status = self.inner();
        if matches!(status.mode, QueueMode::Unreachable { .. }) {
            tracing::info!(
                source = status.name,
                queue = status.queue,
                "the broker is there again"
            );
        }
        status.mode = QueueMode::Receiving;
    }

    /// The broker cannot be reached.
    pub fn away(&self, why: &str, now_ms: i64) {
        let mut status = self.inner();
        if !matches!(status.mode, QueueMode::Unreachable { .. }) {
            tracing::warn!(
                source = status.name,
                queue = status.queue,
                error = why,
                "nothing can be received; trying again"
            );
            status.mode = QueueMode::Unreachable {
                why: why.to_owned(),
                since_ms: now_ms,
            };
        }
        status.fail(why, now_ms);
    }

    /// The bus takes nothing now.
    pub fn paused(&self, why: &str, now_ms: i64) {
        let mut status = self.inner();
        if !matches!(status.mode, QueueMode::Paused { .. }) {
            tracing::warn!(source = status.name, reason = why, "waits for the bus");
            status.mode = QueueMode::Paused {
                why: why.to_owned(),
                since_ms: now_ms,
            };
        }
    }

    /// It has ended.
    pub fn stopped(&self) {
        self.inner().mode = QueueMode::Stopped;
    }

    /// A message is refused, and the bus is told.
    pub fn refused(&self, message: &Inbound, reason: &str, now_ms: i64) {
        let mut status = self.inner();
        tracing::warn!(
            source = status.name,
            id = message.id,
            reason,
            "a message is refused"
        );
        status.counts.refused += 1;
        status.fail(&format!("a message is refused: {reason}"), now_ms);
    }

    /// The bus wants to hear nothing of a refused message.
    pub fn held(&self, message: &Inbound, why: &str, now_ms: i64) {
        let mut status = self.inner();
        tracing::error!(
            source = status.name,
            queue = status.queue,
            id = message.id,
            why,
            "a message stays at the broker: the bus does not even take the event that tells why it is refused"
        );
        status.counts.held += 1;
        status.fail(&format!("a message stays at the broker: {why}"), now_ms);
    }
}

impl QueueStatus {
    fn fail(&mut self, error: &str, at_ms: i64) {
        self.last_error = Some(Trouble {
            error: error.to_owned(),
            at_ms,
        });
    }
}
