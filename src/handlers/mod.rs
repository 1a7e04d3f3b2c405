//! Handlers: a batch of events in, plain data out. A handler cannot reach the
//! bus; what it wants to say goes into its [`Outcome`].

pub mod circuit;
pub mod exec;
pub mod extract;
pub mod forward;
pub mod http;
pub mod load;
pub mod maintain;
pub mod objects;
pub mod query;
pub mod refuse;
pub mod transform;

use crate::event::Event;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One event to be handled.
#[derive(Clone, Debug)]
pub struct Message {
    /// The event.
    pub event: Arc<Event>,
    /// What the rule's target says is sent instead of the event.
    pub input: Option<Bytes>,
    /// Its sequence number in the log.
    pub seq: u64,
    /// How often it was received, this time included.
    pub attempt: u32,
    /// When the bus accepted it, Unix milliseconds.
    pub accepted_ms: i64,
}

impl Message {
    /// What is sent on: the target's input, or the event as it came.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        self.input.as_ref().unwrap_or_else(|| self.event.text())
    }
}

/// What a handler gets besides its messages.
#[derive(Clone)]
pub struct Context {
    /// The handler's name.
    pub handler: String,
    /// Cancelled when the handler's time is over or the program stops.
    pub cancel: CancellationToken,
    /// Called now and then by long work.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

/// How far a long piece of work has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is being worked on, for people.
    pub what: String,
    /// Bytes read so far.
    pub bytes: u64,
    /// Bytes in all, where known.
    pub total_bytes: Option<u64>,
    /// Records read so far.
    pub rows: u64,
}

/// What a handler made of its batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One answer per message, in the batch's order.
    pub results: Vec<Result<Done, Failure>>,
    /// The batch failed as a whole, so nothing is known of single messages; it
    /// is split and tried again, to find the one that cannot be handled.
    pub whole: bool,
}

impl Outcome {
    /// An answer for each message by itself.
    #[must_use]
    pub fn each(results: Vec<Result<Done, Failure>>) -> Self {
        Self {
            results,
            whole: false,
        }
    }

    /// A failure of the whole batch of `count` messages.
    #[must_use]
    pub fn all_failed(count: usize, failure: &Failure) -> Self {
        Self {
            results: (0..count).map(|_| Err(failure.clone())).collect(),
            whole: true,
        }
    }
}

/// A message that was handled.
#[derive(Debug, Default)]
pub struct Done {
    /// Events for the bus, caused by this message.
    pub emits: Vec<Emit>,
    /// The message itself, for another bus or topic.
    pub forward: Option<Forward>,
    /// Figures and names for the completion topic.
    pub summary: Value,
    /// How often the message was worked on before with another result: what is
    /// emitted then is news, and its events get ids of their own.
    pub revision: u32,
}

/// A message that is handed on.
#[derive(Debug)]
pub struct Forward {
    /// The bus.
    pub bus: String,
    /// The event, with the id that it had.
    pub event: Event,
}

/// An event that a handler wants on the bus. Its id is computed from the
/// cause, the handler and its place here, so a retry emits nothing twice.
#[derive(Clone, Debug)]
pub struct Emit {
    /// `detail-type` of the new event.
    pub detail_type: String,
    /// `detail` of the new event, an object.
    pub detail: Value,
    /// `resources` of the new event.
    pub resources: Vec<String>,
}

/// How a failure is to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Trying again cannot help: straight to the dead-letter queue.
    Permanent,
    /// Trying again may help.
    Transient,
    /// The other side asks for patience.
    Throttled,
    /// Nothing was tried: the message is handed back, and the attempt does not count.
    Held,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Held => "held",
        })
    }
}

/// Why a message could not be handled.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// How to go on.
    pub class: Class,
    /// A short, stable name of the cause, for grouping: `SchemaMismatch`, `Timeout` ...
    pub code: String,
    /// What happened, in one sentence for people.
    pub message: String,
    /// The causes below it, outermost first.
    pub chain: Vec<String>,
    /// When to come back, where the other side said so.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that no retry mends.
    #[must_use]
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self::new(Class::Permanent, code, message)
    }

    /// A failure that a retry may mend.
    #[must_use]
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self::new(Class::Transient, code, message)
    }

    /// Nothing was tried, since the other side takes nothing for now.
    #[must_use]
    pub fn held(code: &str, message: impl Into<String>) -> Self {
        Self::new(Class::Held, code, message)
    }

    fn new(class: Class, code: &str, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.to_owned(),
            message: message.into(),
            chain: Vec::new(),
            retry_after: None,
        }
    }

    /// Adds the chain of causes of `error`.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.chain.push(cause.to_string());
            next = cause.source();
        }
        self
    }
}

/// Does work on batches.
pub trait Handler: Send + Sync {
    /// Resolves once the handler takes work; nothing is received for it before. It
    /// may have changed its mind by the time that a batch arrives: then it answers
    /// with [`Class::Held`].
    fn open(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Handles a batch. `results` has one entry per message.
    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome>;
}
