//! The configuration as it is used: every default filled in, every path
//! resolved, every pattern and schema compiled, every reference known to hold.
//! The rest of the program never meets a half-checked value.

use super::connection::Connection;
pub use super::handler::{Handler, HandlerKind, Load};
use super::marks::{DiskQuota, MemoryMarks};
use super::publish::Publish;
use super::sources::Source;
use crate::delivery::RetryPolicy;
use crate::drivers::amqp::QueueOptions as AmqpQueueOptions;
use crate::drivers::sqs::QueueOptions as SqsQueueOptions;
use crate::error::{Place, Sources};
use crate::handlers::circuit::CircuitOptions;
use crate::handlers::exec::ExecOptions;
use crate::handlers::http::WebhookOptions;
use crate::handlers::objects::BucketFolder;
use crate::rules::Pattern;
use crate::rules::input::TargetInputSpec;
use crate::text::Text;
use crate::topics::FilterOn;
use chrono_tz::Tz;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The bus that exists without being declared.
pub const DEFAULT_BUS: &str = "default";

/// A whole configuration, checked. Serialises with every default visible and
/// every `${env:...}` or `${file:...}` as it was written.
#[derive(Clone)]
pub struct Config {
    /// The folder that was read; relative paths in the YAML start here.
    pub root: PathBuf,
    /// The node's own settings.
    pub node: Node,
    /// Addresses and credentials of other systems, by name.
    pub connections: BTreeMap<String, Connection>,
    /// Where events come from, by name.
    pub sources: BTreeMap<String, Source>,
    /// Buffers between rules and handlers, by name.
    pub queues: BTreeMap<String, Queue>,
    /// Patterns and their targets, by name.
    pub rules: BTreeMap<String, Rule>,
    /// What is done with events, by name.
    pub handlers: BTreeMap<String, Handler>,
    /// Named outputs and who listens to them, by name.
    pub topics: BTreeMap<String, Topic>,
    /// Events that come by the clock, by name.
    pub schedules: BTreeMap<String, Schedule>,
    /// Event types whose `detail` is checked when they arrive.
    pub event_schemas: Vec<EventSchema>,
    /// A hash of the rules and handlers; deliveries carry it, so that a dead
    /// letter names the rules that it was routed by.
    pub rules_version: u32,
    /// Where things were written, for checks that run later.
    pub(super) places: BTreeMap<String, Place>,
    /// Strings with references, as written, by the path of their field.
    pub(super) shown: BTreeMap<String, Text>,
    /// The texts that `places` point into.
    pub(super) texts: Sources,
}

/// The node's own settings.
#[derive(Clone, Debug)]
pub struct Node {
    /// Everything durable lies below this folder (default `data`).
    pub data: PathBuf,
    /// Address of the HTTP interface (default `127.0.0.1:7070`).
    pub listen: SocketAddr,
    /// Largest event in bytes (default 1 MiB, at most 16 MiB).
    pub max_event_bytes: usize,
    /// How long events are kept in the log (default 7 days).
    pub retention: Duration,
    /// When the log has more bytes, the oldest events go before their time; what waits or
    /// is dead stays (default: age alone decides).
    pub retention_bytes: Option<u64>,
    /// How long a repeated event id counts as the same event (default 24 hours).
    pub dedupe: Duration,
    /// How long dead letters are kept (default 30 days).
    pub dead_letter_retention: Duration,
    /// The bucket that the tables of the warehouse lie in (default: the data folder).
    pub warehouse: Option<BucketFolder>,
    /// Marks on the space used below `data`.
    pub disk: DiskQuota,
    /// Marks on the memory of the log.
    pub memory: MemoryMarks,
    /// How long running work may take to finish when the program stops (default 30 s).
    pub shutdown: Duration,
    /// Memory for one query, merge or transform in bytes (default 256 MiB); above it they spill.
    pub query_memory_bytes: usize,
    /// `account` of events that bring none (default `000000000000`).
    pub account: String,
    /// `region` of events that bring none (default `local`).
    pub region: String,
    /// Where others reach the HTTP interface, for links in what is sent (default:
    /// the address that it listens on).
    pub public_url: Option<String>,
}

impl Node {
    /// What events get that leave it out.
    #[must_use]
    pub fn event_defaults(&self) -> crate::event::Defaults {
        crate::event::Defaults {
            account: self.account.clone(),
            region: self.region.clone(),
            max_bytes: self.max_event_bytes,
        }
    }
}

/// A buffer between rules and handlers.
#[derive(Clone, Debug)]
pub struct Queue {
    /// How long a message that was received stays invisible (default: the longest
    /// timeout of the handlers that read the queue, and 30 s).
    pub visibility: Duration,
    /// How long a new message waits before it can be received (default 0).
    pub delay: Duration,
    /// Dotted path into the event; messages with equal values there are handled
    /// one after the other (default: no order).
    pub order_by: Option<String>,
    /// What happens after a failure of a message whose route says nothing else.
    pub retry: RetryPolicy,
    /// Where its messages wait (default: in the log).
    pub on: Backing,
    /// What becomes of the backlog in the log when the queue goes to a broker.
    pub backlog: Backlog,
    /// The broker's queue that it was before.
    pub drain_from: Option<Backing>,
}

/// Where the messages of a queue wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// In the node's own log.
    Log,
    /// On an AMQP broker.
    Amqp {
        /// Name of the connection.
        connection: String,
        /// The queue there.
        options: AmqpQueueOptions,
    },
    /// On Amazon SQS.
    Sqs {
        /// Name of the connection.
        connection: String,
        /// The queue there.
        options: SqsQueueOptions,
    },
}

impl Backing {
    /// Whether it is somewhere else than in the log.
    #[must_use]
    pub fn is_broker(&self) -> bool {
        *self != Self::Log
    }

    /// For people, and to tell whether a queue has moved.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Log => "embedded".to_owned(),
            Self::Amqp {
                connection,
                options,
            } => format!("amqp {connection}/{}", options.queue),
            Self::Sqs {
                connection,
                options,
            } => format!("sqs {connection}/{}", options.queue),
        }
    }
}

/// What becomes of a backlog in the log when its queue goes to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// It is published to the broker.
    Move,
    /// The handlers of this node handle it.
    Drain,
}

impl Backlog {
    /// The words of `backlog`.
    pub(super) const WORDS: [(&'static str, Self); 2] =
        [("move", Self::Move), ("drain", Self::Drain)];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Drain => "drain",
        }
    }
}

/// A pattern, and where matching events go.
#[derive(Clone, Debug)]
pub struct Rule {
    /// For people.
    pub description: Option<String>,
    /// The bus that it listens on (default `default`).
    pub bus: String,
    /// A disabled rule matches nothing (default true).
    pub enabled: bool,
    /// Which events of the log it gets when it is new (default `now`).
    pub start: RuleStart,
    /// What it matches.
    pub pattern: Arc<Pattern>,
    /// The pattern as JSON text, numbers spelt as written.
    pub pattern_text: String,
    /// Where matching events go; at least one.
    pub targets: Vec<Target>,
}

/// Which events of the log a new rule gets, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleStart {
    /// None: those that come from now on.
    Now,
    /// All that are kept.
    Earliest,
    /// Those accepted since then (Unix milliseconds).
    Since(i64),
}

/// One route with all that is known about it.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// Name of the rule; for a subscription, of the route.
    pub rule: &'a str,
    /// Where it was declared: `rules.NAME.targets`, `topics.NAME.subscriptions.NAME`.
    pub declared: String,
    /// The bus that the rule listens on.
    pub bus: &'a str,
    /// The target.
    pub target: &'a Target,
    /// Handlers that work on the route's messages: the one that is named, or those
    /// that read the named queue.
    pub handlers: Vec<&'a str>,
}

/// Where a matched event goes: one route.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the route, unique: `RULE/ID`, where the id defaults to the name of
    /// the queue, handler, topic or bus; `topic/TOPIC/NAME` for a subscription.
    pub route: String,
    /// Where it goes.
    pub to: To,
    /// What the target gets.
    pub input: TargetInput,
    /// What happens after a failure: the target's own `retry`, completed from the
    /// queue's, the handler's and the defaults, field by field.
    pub retry: RetryPolicy,
}

/// The far end of a route.
#[derive(Clone, Debug)]
pub enum To {
    /// A declared queue.
    Queue(String),
    /// A declared handler, without a queue of its own name between.
    Handler(String),
    /// A declared topic.
    Topic(String),
    /// Another bus.
    Bus(String),
    /// An HTTP endpoint.
    Webhook(Webhook),
    /// A program (subscriptions only).
    Exec(Exec),
    /// An exchange of a broker, or a topic of another system.
    Publish(Publish),
    /// The messages wait for a subscriber that comes by this name (subscriptions only).
    Pull,
}

/// What a target gets instead of the event as it came.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetInput {
    /// The event as it came.
    Event,
    /// This JSON text.
    Constant(String),
    /// The part of the event under this JSONPath.
    Path(String),
    /// A template filled from paths.
    Transformer {
        /// Variables: name -> JSONPath into the event.
        paths: BTreeMap<String, String>,
        /// The text, with `<name>` where a variable goes.
        template: String,
    },
}

impl TargetInput {
    /// The input as the rules engine compiles it.
    #[must_use]
    pub fn spec(&self) -> TargetInputSpec<'_> {
        match self {
            Self::Event => TargetInputSpec::Event,
            Self::Constant(text) => TargetInputSpec::Constant(text),
            Self::Path(path) => TargetInputSpec::Path(path),
            Self::Transformer { paths, template } => {
                TargetInputSpec::Transformer { paths, template }
            }
        }
    }
}

/// A named output.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// The bus that holds its messages.
    pub bus: String,
    /// Durable subscriptions by name.
    pub subscriptions: BTreeMap<String, Subscription>,
}

/// A durable subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Only messages that match are delivered.
    pub filter: Option<Pattern>,
    /// The filter as JSON text.
    pub filter_text: Option<String>,
    /// What the filter looks at (default `body`).
    pub filter_on: FilterOn,
    /// How messages are delivered.
    pub target: Target,
}

/// What a webhook gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The message as JSON, with the headers of Standard Webhooks.
    Standard,
    /// The message as it is, with SNS's headers.
    Raw,
    /// The message inside SNS's document.
    Sns,
}

impl WebhookFormat {
    /// The name, as in the YAML.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Raw => "raw",
            Self::Sns => "sns",
        }
    }
}

/// An HTTP endpoint. Its texts are shown as references wherever they are printed.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `http` or `https`.
    pub url: Text,
    /// Signs requests in the shape of Standard Webhooks (`whsec_...`; default: unsigned).
    pub secret: Option<Text>,
    /// Sent with every request.
    pub headers: BTreeMap<String, Text>,
    /// Longest time for one request (default 10 s).
    pub timeout: Duration,
    /// Allow addresses of private networks and of this machine (default false).
    pub allow_private: bool,
    /// Requests at the same time (default 10).
    pub concurrency: usize,
    /// When nothing is sent for a while.
    pub circuit: CircuitOptions,
    /// What it gets (default `standard`; subscriptions alone have others).
    pub format: WebhookFormat,
    /// Whether it has to confirm before messages flow (default: with `format: sns`).
    pub confirm: bool,
}

impl Webhook {
    /// The webhook with its secrets in the clear, for the part that calls it.
    #[must_use]
    pub fn options(&self) -> WebhookOptions {
        WebhookOptions {
            url: self.url.reveal().to_owned(),
            secret: self.secret.as_ref().map(|s| s.reveal().to_owned()),
            headers: revealed(&self.headers),
            timeout: self.timeout,
            allow_private: self.allow_private,
            concurrency: self.concurrency,
        }
    }
}

/// A program. Its texts are shown as references wherever they are printed.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The program and its arguments; no shell.
    pub command: Vec<Text>,
    /// The only environment variables it sees, besides `PATH`.
    pub env: BTreeMap<String, Text>,
    /// Working folder (default: the folder of the configuration).
    pub cwd: Option<PathBuf>,
    /// Most bytes of its output that are kept (default 64 KiB).
    pub max_output: usize,
}

impl Exec {
    /// The program with its secrets in the clear, for the part that runs it.
    #[must_use]
    pub fn options(&self) -> ExecOptions {
        ExecOptions {
            command: self.command.iter().map(|c| c.reveal().to_owned()).collect(),
            env: revealed(&self.env),
            cwd: self.cwd.clone(),
            max_output: self.max_output,
        }
    }
}

/// Events that come by the clock.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// When.
    pub when: When,
    /// The bus that they go to (default `default`).
    pub bus: String,
    /// `source` of the event (default `pointsman.schedule`).
    pub source: String,
    /// `detail-type` of the event.
    pub detail_type: String,
    /// `detail` of the event, an object (default `{}`).
    pub detail: serde_json::Value,
}

/// When a schedule is due.
#[derive(Clone, Debug)]
pub enum When {
    /// At the times of a cron line of five fields, in a time zone.
    Cron {
        /// The line as written.
        text: String,
        /// The line, parsed.
        cron: Box<croner::Cron>,
        /// The zone that it is read in (default `UTC`).
        timezone: Tz,
    },
    /// Again and again, counted from the start of the program.
    Every(Duration),
}

/// An event type that is checked when it arrives.
#[derive(Clone)]
pub struct EventSchema {
    /// `source` of the events.
    pub source: String,
    /// `detail-type` of the events.
    pub detail_type: String,
    /// What happens to an event that does not meet it (default `reject`).
    pub policy: SchemaPolicy,
    /// The schema of `detail`, as it is in the file.
    pub document: serde_json::Value,
    /// The schema of `detail`, compiled.
    pub validator: Arc<jsonschema::Validator>,
    /// Its file.
    pub file: PathBuf,
}

/// What happens to an event that does not meet its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaPolicy {
    /// It is refused, with the reason.
    Reject,
    /// It is taken, and put into the dead-letter queue.
    DeadLetter,
    /// It is taken, and the reason is logged.
    Warn,
}

fn revealed(texts: &BTreeMap<String, Text>) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|(name, text)| (name.clone(), text.reveal().to_owned()))
        .collect()
}
