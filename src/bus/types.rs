//! The plain data that goes into the bus and comes out of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::reading::Reading;

/// A route's number in the log; names are interned with [`super::Bus::route`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// How a route hands out its deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// One delivery in flight per ordering key, in the order of acceptance.
    pub ordered: bool,
}

/// A route as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its number.
    pub id: RouteId,
    /// Its name, such as `csv-arrived/to-transform`.
    pub name: String,
    /// Whether it keeps order per key.
    pub ordered: bool,
    /// Whether it hands out nothing for now.
    pub paused: bool,
    /// Whether it was retired: no new deliveries, its dead letters remain.
    pub retired: bool,
    /// Deliveries that are ready, leased or delayed.
    pub pending: u64,
    /// Dead letters it holds now.
    pub dead: u64,
}

/// One delivery of a new event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Where it goes.
    pub route: RouteId,
    /// The ordering key; without one the delivery waits for nobody.
    pub key: Option<String>,
    /// Not handed out before this time (Unix milliseconds).
    pub not_before_ms: Option<i64>,
}

impl NewDelivery {
    /// A delivery that is ready at once and keeps no order.
    #[must_use]
    pub fn to(route: RouteId) -> Self {
        Self {
            route,
            key: None,
            not_before_ms: None,
        }
    }
}

/// An event to be stored, with the deliveries its rules decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The label of its bus: `default`, `orders`, `topic/etl-complete`. 1 to 512 bytes.
    pub bus: Arc<str>,
    /// Its id, unique per label within the dedupe window. 1 to 1,024 bytes.
    pub id: String,
    /// The event as it came.
    pub payload: Bytes,
    /// The id of the event that caused this one.
    pub cause: Option<String>,
    /// The id at the start of the chain of causes; `None` means its own id.
    pub root: Option<String>,
    /// Steps from the root.
    pub hops: u8,
    /// Where its source stood, to be told back to the source.
    pub cursor: Option<String>,
    /// The version of the rule set that decided its deliveries.
    pub rules_version: u32,
    /// Where it goes; empty is an unmatched event, which is counted and kept.
    pub deliveries: Vec<NewDelivery>,
    /// What is known of the payload already.
    pub reading: Reading,
}

impl NewEvent {
    /// An event without a cause and without deliveries.
    #[must_use]
    pub fn new(bus: impl Into<Arc<str>>, id: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            bus: bus.into(),
            root: None,
            id: id.into(),
            payload: payload.into(),
            cause: None,
            hops: 0,
            cursor: None,
            rules_version: 0,
            deliveries: Vec::new(),
            reading: Reading::default(),
        }
    }

    /// Adds a plain delivery.
    #[must_use]
    pub fn deliver(mut self, route: RouteId) -> Self {
        self.deliveries.push(NewDelivery::to(route));
        self
    }
}

/// The answer for one accepted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its sequence number; for a duplicate, the first one's.
    pub seq: u64,
    /// Whether its id was known, so that nothing was added.
    pub duplicate: bool,
}

/// An event as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Position in the log's order, from 1, over all labels.
    pub seq: u64,
    /// When it was accepted (Unix milliseconds).
    pub accepted_ms: i64,
    /// The label of its bus.
    pub bus: Arc<str>,
    /// Its id.
    pub id: String,
    /// The id of the event that caused it.
    pub cause: Option<String>,
    /// The id at the start of the chain; `None` means its own id. See [`StoredEvent::root`].
    pub root_id: Option<String>,
    /// Steps from the root.
    pub hops: u8,
    /// Where its source stood.
    pub cursor: Option<String>,
    /// The rule set that decided its deliveries.
    pub rules_version: u32,
    /// The deliveries decided at acceptance.
    pub deliveries: Vec<NewDelivery>,
    /// The event as it came.
    pub payload: Bytes,
    /// What readers made of the payload.
    pub reading: Reading,
}

impl StoredEvent {
    /// The id at the start of the chain of causes.
    #[must_use]
    pub fn root(&self) -> &str {
        self.root_id.as_deref().unwrap_or(&self.id)
    }

    /// Roughly what it holds in memory, in bytes.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let text = |s: &Option<String>| s.as_ref().map_or(0, String::len);
        // With what is read in it.
        320 + self.payload.len()
            + self.id.len()
            + text(&self.cause)
            + text(&self.root_id)
            + text(&self.cursor)
            + self.deliveries.len() * size_of::<NewDelivery>()
    }
}

/// How much to receive, and for how long it stays invisible to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receive {
    /// At most this many deliveries.
    pub max: usize,
    /// At most this many payload bytes, but always one delivery.
    pub max_bytes: usize,
    /// Until when a delivery is neither handed to others nor retried, unless extended.
    pub visibility: Duration,
}

impl Default for Receive {
    fn default() -> Self {
        Self {
            max: 10,
            max_bytes: 6 << 20,
            visibility: Duration::from_secs(30),
        }
    }
}

/// A delivery that the caller holds until it settles it or its visibility runs out.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The route it was received from.
    pub route: RouteId,
    /// The event's sequence number.
    pub seq: u64,
    /// Names this lease; a later lease of the same delivery has another.
    pub receipt: u64,
    /// How often it was received, this time included.
    pub attempts: u32,
    /// The replay it belongs to.
    pub replay: Option<Arc<str>>,
    /// The event.
    pub event: Arc<StoredEvent>,
}

impl Leased {
    /// The settlement of this delivery with `outcome`.
    #[must_use]
    pub fn settle(&self, outcome: Outcome) -> Settlement {
        Settlement {
            route: self.route,
            seq: self.seq,
            receipt: self.receipt,
            outcome,
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttemptError {
    /// `permanent`, `throttled`, `transient`, or a finer class of the caller's.
    pub class: String,
    /// The error in one line.
    pub message: String,
    /// Its causes, outermost first.
    pub chain: Vec<String>,
    /// When it failed (Unix milliseconds).
    pub at_ms: i64,
    /// The handler or target that failed.
    pub handler: String,
}

/// What became of a leased delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived.
    Delivered,
    /// It failed and is tried again.
    Retry {
        /// Not before this time (Unix milliseconds).
        not_before_ms: i64,
        /// Why it failed.
        error: AttemptError,
    },
    /// It failed for good and goes to the dead letters.
    Dead {
        /// The last error.
        error: AttemptError,
        /// The caller's own account (handler, rule, version, trace), kept as it is.
        context: Bytes,
    },
    /// It is handed back untried; the attempt does not count.
    Release,
    /// A stated policy (such as a maximum age) ends it.
    Expired {
        /// The policy's name.
        policy: String,
    },
}

/// The end, or the next turn, of one leased delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The route it was received from.
    pub route: RouteId,
    /// The event.
    pub seq: u64,
    /// The lease, from [`Leased::receipt`].
    pub receipt: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// When a settlement is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After the disk has it.
    Synced,
    /// At once; it rides with the next commit, or gets its own within about 10 ms.
    /// A crash in between means one more delivery, never a loss.
    Relaxed,
}

/// The answer to [`super::Bus::settle`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Per settlement: whether it was applied. `false` is a stale receipt: the
    /// visibility ran out and somebody else has it, or it is already settled.
    pub applied: Vec<bool>,
    /// Per emitted event, in the order given.
    pub emitted: Vec<Accepted>,
}

/// A delivery that failed for good.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The route it failed on.
    pub route: RouteId,
    /// The event's sequence number.
    pub seq: u64,
    /// The event; `None` when its bytes can no longer be read soundly.
    pub event: Option<Arc<StoredEvent>>,
    /// How often it was received before it was given up.
    pub attempts: u32,
    /// The error of every attempt that was settled as failed, oldest first. Fewer
    /// than `attempts` when a lease ran out or the process died with it.
    pub errors: Vec<AttemptError>,
    /// When it was given up (Unix milliseconds).
    pub dead_at_ms: i64,
    /// The caller's own account of it.
    pub context: Bytes,
}

/// Which dead letters to list.
#[derive(Debug, Clone, Default)]
pub struct DeadFilter {
    /// Only of these routes; empty means all.
    pub routes: Vec<RouteId>,
    /// Only dead since this time (Unix milliseconds, inclusive).
    pub since_ms: Option<i64>,
    /// Only dead before this time (Unix milliseconds, exclusive).
    pub before_ms: Option<i64>,
    /// Continue after this one, from [`DeadPage::next`].
    pub after: Option<(RouteId, u64)>,
    /// At most this many; 0 means 100.
    pub limit: usize,
}

/// A page of dead letters, by route and sequence number.
#[derive(Debug, Clone, Default)]
pub struct DeadPage {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// Where to go on, when there is more.
    pub next: Option<(RouteId, u64)>,
}

/// What [`super::Bus::redrive`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// How many went back to being pending.
    pub redriven: u64,
    /// Not a dead letter (any more), or already pending on the route named.
    pub skipped: Vec<u64>,
}

/// One delivery that replay or a late rule adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redelivery {
    /// An event in the log.
    pub seq: u64,
    /// The ordering key on the route.
    pub key: Option<String>,
}

/// What [`super::Bus::redeliver`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redelivered {
    /// Deliveries added.
    pub enqueued: u64,
    /// Given by this replay id before.
    pub already_replayed: u64,
    /// Still pending on the route, so it gets them anyway.
    pub already_pending: u64,
    /// Dead letters of the route; redrive them instead.
    pub dead: u64,
    /// No longer kept.
    pub not_kept: u64,
}

/// Where the backlog of a retired route goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backlog {
    /// Retire only if nothing is pending.
    Refuse,
    /// Drop it, and say why; it is counted as purged.
    Purge {
        /// The reason, kept in the log.
        why: String,
    },
    /// Hand it to another route; attempts start anew.
    MoveTo(RouteId),
}

/// Whether the bus takes more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pressure {
    /// All is well.
    Ok,
    /// The lower mark is reached; sources should slow down.
    Warn {
        /// Which mark.
        reason: String,
    },
    /// Intake is refused.
    Refuse {
        /// Which mark.
        reason: String,
        /// When it is worth trying again.
        retry_after: Duration,
        /// Whether more comes than can be written, so that patience is all it takes;
        /// otherwise room has to be made first.
        overloaded: bool,
    },
}

/// A step in the life of one event, for tracing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The route.
    pub route: RouteId,
    /// When it was written (Unix milliseconds).
    pub at_ms: i64,
    /// What happened.
    pub step: Step,
}

/// What happened to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It arrived.
    Delivered,
    /// An attempt failed.
    Retried(AttemptError),
    /// It was given up.
    Dead,
    /// A policy ended it.
    Expired {
        /// The policy's name.
        policy: String,
    },
    /// An operator or a retired route dropped it.
    Purged {
        /// The reason given.
        why: String,
    },
    /// It came back from the dead letters, or moved to this route.
    Redriven {
        /// The route it came from.
        from: RouteId,
    },
    /// A replay gave it again.
    Replayed {
        /// The replay's id.
        replay_id: String,
    },
}

/// Where a delivery stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Waiting to be received.
    Ready,
    /// In somebody's hands.
    Leased,
    /// Waiting for its time.
    Delayed,
    /// Among the dead letters.
    Dead,
}

/// The life of one event as far as the log keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What happened, oldest first.
    pub entries: Vec<HistoryEntry>,
    /// Where it stands now, per route that still holds it.
    pub now: Vec<(RouteId, Standing, u32)>,
}
