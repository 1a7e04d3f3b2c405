//! The configuration as it was written: each value is sound in itself, and no
//! name has been looked up yet. What refers to nothing is in its final form.

use super::connection::Connection;
use super::model::{Backlog, Exec, Node, RuleStart, Schedule, TargetInput, Webhook};
use super::publish::RawPublish;
use super::read::At;
use super::sources::Source;
use crate::delivery::{BatchOptions, RetryPolicy};
use crate::drivers::amqp::{Declare, Kind};
use crate::error::Place;
use crate::handlers::extract::ExtractOptions;
use crate::handlers::load::LoadOptions;
use crate::handlers::maintain::MaintainOptions;
use crate::handlers::transform::{RejectLimit, TransformOptions};
use crate::rules::Pattern;
use crate::sources::queue::Format;
use crate::topics::FilterOn;
use std::time::Duration;

/// All files together.
#[derive(Default)]
pub(super) struct Raw {
    pub node: Option<At<Node>>,
    pub connections: Vec<Named<Connection>>,
    pub sources: Vec<Named<RawSource>>,
    pub queues: Vec<Named<RawQueue>>,
    pub rules: Vec<Named<RawRule>>,
    pub handlers: Vec<Named<RawHandler>>,
    pub topics: Vec<Named<Vec<Named<RawSubscription>>>>,
    pub schedules: Vec<Named<Schedule>>,
}

/// Something that was declared. `value` is `None` when it was too broken to be
/// read: its name exists all the same, so that references to it are no mistakes.
pub(super) struct Named<T> {
    pub name: String,
    pub place: Place,
    pub value: Option<T>,
}

pub(super) struct RawQueue {
    pub visibility: Option<At<Duration>>,
    pub delay: Duration,
    pub order_by: Option<String>,
    pub retry: RawRetry,
    pub on: RawBacking,
    pub backlog: Backlog,
    pub drain_from: Option<RawBacking>,
}

/// Where events come from.
pub(super) enum RawSource {
    /// One that refers to nothing.
    Whole(Source),
    /// A queue on a broker.
    Queue {
        bus: String,
        on: RawBacking,
        reading: Reading,
    },
}

/// How a source reads its queue.
pub(super) struct Reading {
    pub format: Format,
    pub visibility: Duration,
}

/// Where a queue's messages wait.
#[derive(Clone)]
pub(super) enum RawBacking {
    Log,
    Amqp(RawAmqpQueue),
    Sqs(RawSqsQueue),
}

#[derive(Clone)]
pub(super) struct RawSqsQueue {
    pub connection: At<String>,
    pub queue: Option<At<String>>,
    pub declare: bool,
    pub prefetch: Option<usize>,
    pub max_message_bytes: usize,
}

#[derive(Clone)]
pub(super) struct RawAmqpQueue {
    pub connection: At<String>,
    pub queue: Option<String>,
    pub declare: Declare,
    pub kind: Kind,
    pub prefetch: Option<u16>,
    pub delivery_limit: Option<u32>,
    pub dead_letter_exchange: Option<String>,
    pub dead_letter_routing_key: Option<String>,
    pub max_message_bytes: usize,
}

/// A retry policy of which parts may be left to someone else.
#[derive(Clone, Default)]
pub(super) struct RawRetry {
    pub attempts: Option<u32>,
    pub lost: Option<u32>,
    pub base: Option<Duration>,
    pub cap: Option<Duration>,
    pub max_age: Option<Duration>,
}

impl RawRetry {
    /// What is not said here is taken from `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            attempts: self.attempts.or(other.attempts),
            lost: self.lost.or(other.lost),
            base: self.base.or(other.base),
            cap: self.cap.or(other.cap),
            max_age: self.max_age.or(other.max_age),
        }
    }

    /// What is not said is the default.
    pub fn policy(&self) -> RetryPolicy {
        let default = RetryPolicy::default();
        let base = self.base.unwrap_or(default.base);
        RetryPolicy {
            attempts: self.attempts.unwrap_or(default.attempts),
            lost: self.lost.unwrap_or(default.lost),
            base,
            // A long first delay without a word about the cap means that delay.
            cap: self.cap.unwrap_or(default.cap.max(base)),
            max_age: self.max_age.unwrap_or(default.max_age),
        }
    }
}

pub(super) struct RawRule {
    pub start: RuleStart,
    pub description: Option<String>,
    pub bus: String,
    pub enabled: bool,
    pub pattern: Option<(Pattern, String)>,
    pub targets: Vec<RawTarget>,
}

pub(super) struct RawTarget {
    pub place: Place,
    pub id: Option<String>,
    pub to: RawTo,
    pub input: TargetInput,
    pub retry: RawRetry,
}

pub(super) enum RawTo {
    Queue(At<String>),
    Handler(At<String>),
    Topic(At<String>),
    Bus(String),
    Webhook(Webhook),
    Exec(Exec),
    Publish(RawPublish),
    Pull,
}

pub(super) struct RawSubscription {
    pub filter: Option<(Pattern, String)>,
    pub filter_on: FilterOn,
    pub target: RawTarget,
}

pub(super) struct RawHandler {
    pub from: Vec<At<String>>,
    pub batch: BatchOptions,
    pub concurrency: usize,
    pub timeout: Duration,
    pub rate: Option<f64>,
    pub retry: RawRetry,
    pub success: Option<At<String>>,
    pub failure: Option<At<String>>,
    /// `None` when it could not be read.
    pub kind: Option<RawKind>,
}

pub(super) enum RawKind {
    Transform(Box<TransformOptions>),
    Extract(Box<ExtractOptions>),
    Load(RawLoad),
    Maintain(MaintainOptions),
    Exec(Exec),
    Http(Webhook),
}

pub(super) struct RawLoad {
    pub options: LoadOptions,
    pub to: Option<At<String>>,
    pub statement_timeout: Duration,
}

/// Rejects are all set aside unless a limit is given.
pub(super) const NO_LIMIT: RejectLimit = RejectLimit::Share(1.0);
