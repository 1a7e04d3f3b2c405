//! World -> bus. A source brings events to an [`Intake`] and goes on only when
//! the answer says that they are durable.

pub mod folder;
pub mod notifications;
pub mod queue;
pub mod s3;

use crate::event::Event;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// An event on its way in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The event.
    pub event: Arc<Event>,
    /// Name of the bus that it is for.
    pub bus: Arc<str>,
    /// Where the source stood when it saw this (shown by `trace`).
    pub cursor: Option<String>,
}

/// What became of an incoming event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is durable, under this sequence number.
    Accepted(u64),
    /// The bus has it already, under this sequence number.
    Duplicate(u64),
    /// It will never be taken, for this reason.
    Refused(String),
}

/// Why nothing was taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IntakeError {
    /// Come back later; nothing was taken.
    #[error("the bus takes no events now: {reason}")]
    Busy {
        /// Why.
        reason: String,
        /// When to try again.
        retry_after: Duration,
        /// Whether more comes than can be written, so that patience is all it takes;
        /// otherwise room has to be made first.
        overloaded: bool,
    },
    /// The bus has stopped and needs a restart or an operator.
    #[error("the bus has stopped: {0}")]
    Stopped(String),
}

/// Where sources hand their events in.
pub trait Intake: Send + Sync {
    /// Takes a batch: when this returns `Ok`, all that is `Accepted` is durable
    /// together with its deliveries. Answers are in the batch's order.
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>>;
}
