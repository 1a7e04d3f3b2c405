//! What a queue on a broker must be able to do, and nothing more: a driver
//! (RabbitMQ, SQS) is one implementation of [`Broker`]. All that makes it a
//! queue for handlers (batches, retries, order, dead letters, large messages)
//! is done around it, once for all of them: [`super::Outbox`] publishes what
//! the log holds for the queue, [`super::MixedQueue`] receives and settles.
//!
//! What is only published to, an exchange or a topic of another system, is a
//! [`Publisher`]; [`super::Publishing`] is the subscriber that feeds it.
//!
//! How a driver is used:
//! - one value serves one queue, for publishing, for receiving, or for both;
//!   calls come from several tasks at once;
//! - it connects by itself, when first asked and again after a loss, and says
//!   [`BrokerError::Unavailable`] meanwhile (the caller waits and asks again);
//! - it need not delay, retry, count, order or dead-letter anything: what failed
//!   in a handler comes home to the log and is acknowledged at the broker.

use super::headers::Headers;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// A message on its way to a broker.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Id of the event (AMQP: `message-id`).
    pub id: String,
    /// Names this delivery of it: the same in every attempt to publish it, so
    /// that a second copy can be told (SQS FIFO: deduplication id).
    pub delivery: String,
    /// The body, at most [`Limits::body_bytes`].
    pub body: Bytes,
    /// Media type of the body.
    pub content_type: &'static str,
    /// When the bus accepted the event, Unix milliseconds.
    pub timestamp_ms: i64,
    /// `source` of the event.
    pub source: String,
    /// `detail-type` of the event.
    pub kind: String,
    /// Headers (SQS: message attributes), at most ten; names are
    /// `pointsman-...`, values are text that is not empty.
    pub headers: BTreeMap<String, String>,
    /// Messages of one key keep their order (SQS and SNS FIFO: group id).
    pub order_key: Option<String>,
    /// What an exchange sorts by; queues and topics have no use for it.
    pub routing_key: Option<String>,
}

/// Names a received message until it is settled; the driver gives them out.
pub type Handle = u64;

/// A message from a broker, invisible to others until it is settled.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Names this loan. A redelivery has another.
    pub handle: Handle,
    /// What a redelivery of the same message is told by; `None` where the broker
    /// knows nothing of the kind.
    pub identity: Option<String>,
    /// Id that the sender gave the message.
    pub id: Option<String>,
    /// The body.
    pub body: Bytes,
    /// Media type of the body, where the sender said so.
    pub content_type: Option<Cow<'static, str>>,
    /// When the sender says that it was sent, Unix milliseconds.
    pub sent_ms: Option<i64>,
    /// Headers that are text, or were turned into text.
    pub headers: Headers,
    /// Key of the sender's order, where the broker carries one.
    pub order_key: Option<String>,
    /// How often the broker has handed it out, this time included, from 1.
    pub receive_count: u32,
}

/// What a broker can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body in bytes; a larger one is kept in a file and referred to.
    pub body_bytes: usize,
    /// Most messages in one call of [`Publisher::publish`].
    pub batch: usize,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that can be received.
    pub ready: u64,
    /// Messages that were received and are not settled, where the broker says so.
    pub unsettled: Option<u64>,
}

/// How to receive.
#[derive(Clone, Copy, Debug)]
pub struct Pull {
    /// Most messages, at least 1.
    pub max: usize,
    /// How long to wait for the first.
    pub wait: Duration,
    /// How long the messages are to be hidden from others, where the broker has
    /// such a time.
    pub visibility: Duration,
}

/// Why a broker did not do as it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BrokerError {
    /// It cannot be reached, or takes nothing now (a blocked connection, a
    /// throttle). What was to be published may or may not have arrived.
    #[error("{0}")]
    Unavailable(String),
    /// As above, and every message that was received and not settled will come
    /// again by itself.
    #[error("{0}")]
    Lost(String),
    /// It refused this message or this call, and says why.
    #[error("{reason}")]
    Refused {
        /// Short and stable, for grouping: `Unroutable`, `AccessDenied` ...
        code: &'static str,
        /// Why.
        reason: String,
        /// Whether trying again cannot help.
        permanent: bool,
    },
}

/// What takes messages: a queue on a broker, an exchange, a topic elsewhere.
pub trait Publisher: Send + Sync {
    /// For people: `amqp rabbit/etl.partner`.
    fn label(&self) -> &str;

    /// What it can take.
    fn limits(&self) -> Limits;

    /// Publishes a batch in its order. One answer per message; `Ok` means that the
    /// other side has it as durably as it can (a confirm, an answered send).
    fn publish(&self, batch: Vec<Outbound>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>>;

    /// Lets go of the connection in good order.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A queue on a broker.
pub trait Broker: Publisher {
    /// How many received messages may wait for a handler in this process.
    fn prefetch(&self) -> usize;

    /// Receives up to `pull.max` messages, waiting up to `pull.wait` for the
    /// first; an empty answer means that there were none. Safe to drop: what was
    /// received and not handed over comes again.
    fn receive(&self, pull: Pull) -> BoxFuture<'_, Result<Vec<Inbound>, BrokerError>>;

    /// Takes messages off the queue. A handle that is no longer good is passed
    /// over: its message comes again and is known by its identity.
    fn ack(&self, handles: Vec<Handle>) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Hands messages back, to be received again soon.
    fn give_back(&self, handles: Vec<Handle>) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Hides messages for `visibility` from now, where the broker has such a time.
    fn extend(
        &self,
        handles: Vec<Handle>,
        visibility: Duration,
    ) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// How full the queue is.
    fn depth(&self) -> BoxFuture<'_, Result<Depth, BrokerError>>;
}
