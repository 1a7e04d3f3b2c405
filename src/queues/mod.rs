//! Queues: what waits between a rule and a handler.
//!
//! A [`Queue`] hands out messages for a time (the visibility timeout) and takes
//! their outcome back. The built-in one is the log's own ([`LogQueue`]): a
//! queue is the set of routes that lead to it, and settling a message, the
//! events that its handler emitted and its notices are one commit.
//!
//! A queue on a broker ([`Broker`]) is fed from the log by an [`Outbox`] and read
//! through a [`MixedQueue`], which has the same promises. Exchanges and topics
//! elsewhere ([`Publisher`]) are subscribers, fed by [`Publishing`].

mod broker;
mod claims;
mod headers;
mod inbox;
mod log;
mod mixed;
mod outbox;
mod packer;
mod publishing;
mod routing_key;
mod waiting;
mod wire;

pub use broker::{Broker, BrokerError, Depth, Handle, Inbound, Limits, Outbound, Publisher, Pull};
pub use claims::Claims;
pub use headers::Headers;
pub use inbox::{Inbox, InboxOptions};
pub use log::{Feed, Gate, LATE_RULE, LogQueue, MakeInput};
pub use mixed::MixedQueue;
pub use outbox::Outbox;
pub use packer::Packer;
pub use publishing::{CIRCUIT as PUBLISHING_CIRCUIT, Publishing};
pub use routing_key::RoutingKey;
pub use wire::{DELIVERY, event_of, refused_event};

use crate::event::Event;
use crate::handlers::Failure;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// A message on loan.
#[derive(Clone, Debug)]
pub struct Received {
    /// The event.
    pub event: Arc<Event>,
    /// What the target gets instead of the event, where its rule says so.
    pub input: Option<Bytes>,
    /// Identifies this loan.
    pub receipt: Receipt,
    /// Name of the route that it came by.
    pub route: Arc<str>,
    /// Name of the event's bus.
    pub bus: Arc<str>,
    /// How often it was received, this time included.
    pub attempt: u32,
    /// When the bus accepted it, Unix milliseconds.
    pub accepted_ms: i64,
    /// The id of the event at the beginning of the chain of causes; `None` means its
    /// own. See [`Received::root`].
    pub root: Option<String>,
    /// Length of the chain of causes before it.
    pub hops: u8,
}

impl Received {
    /// The id of the event at the beginning of the chain of causes.
    #[must_use]
    pub fn root(&self) -> &str {
        self.root.as_deref().unwrap_or(self.event.id())
    }
}

/// Identifies a loan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Number of the route.
    pub route: u32,
    /// Sequence number of the event.
    pub seq: u64,
    /// Which of the message's loans this is.
    pub token: u64,
}

/// How much to receive.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Most messages.
    pub messages: usize,
    /// Most payload bytes; one message is always handed out.
    pub bytes: usize,
    /// How long the messages are hidden from other receivers.
    pub visibility: Duration,
}

/// What is to become of a message.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is done.
    Delivered,
    /// It comes back at this time (Unix milliseconds).
    Retry {
        /// When.
        at_ms: i64,
        /// What went wrong.
        failure: Failure,
    },
    /// It goes to the dead-letter queue.
    Dead {
        /// What went wrong.
        failure: Failure,
        /// Handler, rule, version and trace, as JSON.
        context: serde_json::Value,
    },
    /// It is handed back; this attempt does not count.
    Release,
}

/// An event that goes onto a bus together with the settling of its cause.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The bus.
    pub bus: String,
    /// The event.
    pub event: Event,
    /// Id of the event that caused it.
    pub cause: String,
    /// Id of the event at the beginning of the chain.
    pub root: String,
    /// Length of the chain of causes before it.
    pub hops: u8,
}

/// Why a queue does not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// It cannot work until somebody looks after it.
    #[error("queue `{queue}` has stopped: {reason}")]
    Stopped {
        /// The queue.
        queue: String,
        /// Why.
        reason: String,
    },
    /// It takes nothing for the moment.
    #[error("queue `{queue}` is busy: {reason}")]
    Busy {
        /// The queue.
        queue: String,
        /// Why.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// Holds messages for a handler.
pub trait Queue: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;
    /// Resolves when there may be something to receive.
    fn ready(&self) -> BoxFuture<'_, ()>;
    /// Lends up to `want` messages; an empty answer means none is due.
    fn receive(&self, want: Want) -> BoxFuture<'_, Result<Vec<Received>, QueueError>>;
    /// How many attempts on a message have ended with a failure so far. May read
    /// from disk; asked only about messages that were received before.
    fn failures(&self, receipt: &Receipt) -> Result<u32, QueueError>;
    /// Prolongs loans to `visibility` from now. A loan that is over is left alone.
    fn extend(&self, receipts: &[Receipt], visibility: Duration);
    /// Settles messages and sends events, all or nothing. A message whose loan
    /// is over is left as it is.
    fn settle(
        &self,
        fates: Vec<(Receipt, Fate)>,
        events: Vec<Outgoing>,
    ) -> BoxFuture<'_, Result<(), QueueError>>;
}
