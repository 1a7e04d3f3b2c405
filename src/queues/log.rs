//! The built-in queue: the log's own. It is the set of routes that lead to it.

use super::{Fate, Outgoing, Queue, QueueError, Receipt, Received, Want};
use crate::bus::{
    AttemptError, Bus, BusError, Durability, Leased, NewEvent, Outcome, Receive, RouteId, Settled,
    Settlement,
};
use crate::clock::SharedClock;
use crate::event::Event;
use crate::handlers::Failure;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Decides the deliveries of events that go onto a bus; the router's part in
/// settling, given to the queue so that both are one commit.
pub type Plan = Arc<dyn Fn(Outgoing) -> NewEvent + Send + Sync>;

/// Makes what a target gets instead of an event, given the event and when it
/// was accepted (Unix milliseconds).
pub type MakeInput = Arc<dyn Fn(&Event, i64) -> Result<Bytes, Failure> + Send + Sync>;

/// How long a closed gate is left unlooked at.
const GATE_NAP: Duration = Duration::from_millis(200);

/// A route that feeds a queue.
#[derive(Clone)]
pub struct Feed {
    /// Its number.
    pub id: RouteId,
    /// Its name.
    pub name: Arc<str>,
    /// What the target gets; `None`: the event as it came.
    pub input: Option<MakeInput>,
    /// For the route that messages of a broker come home to: what targets get, by
    /// the name of the route that a message came by first. The event's cursor names
    /// that route and its bus.
    pub home: Option<Arc<HashMap<String, MakeInput>>>,
    /// Whether it is closed for a time.
    pub gate: Gate,
}

/// A route whose backlog has another reader than what comes later: its queue has
/// moved to a broker, and the backlog is handled where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Open.
    #[default]
    None,
    /// Open while something from before this sequence number is pending.
    Until(u64),
    /// Open when nothing from before this sequence number is pending.
    From(u64),
}

/// Deliveries whose replay id begins with this are a new rule's share of the past,
/// its first and only, and not marked as replayed.
pub const LATE_RULE: &str = "start:";

/// A queue in the log.
pub struct LogQueue {
    name: String,
    bus: Bus,
    routes: Vec<RouteId>,
    feeds: HashMap<RouteId, Feed>,
    /// Whether a route is closed for a time.
    gated: bool,
    plan: Plan,
    clock: SharedClock,
    handler: String,
}

impl LogQueue {
    /// The queue `name`, fed by `feeds`, read by `handler`.
    #[must_use]
    pub fn new(
        name: String,
        handler: String,
        bus: Bus,
        feeds: Vec<Feed>,
        plan: Plan,
        clock: SharedClock,
    ) -> Self {
        Self {
            name,
            bus,
            routes: feeds.iter().map(|feed| feed.id).collect(),
            gated: feeds.iter().any(|feed| feed.gate != Gate::None),
            feeds: feeds.into_iter().map(|feed| (feed.id, feed)).collect(),
            plan,
            clock,
            handler,
        }
    }

    /// The routes that may be read now.
    fn open_routes(&self) -> Cow<'_, [RouteId]> {
        if !self.gated {
            return Cow::Borrowed(&self.routes);
        }
        let open = |id: &RouteId| {
            let gate = self.feeds.get(id).map_or(Gate::None, |feed| feed.gate);
            let old = |mark| {
                self.bus
                    .oldest_pending(*id)
                    .is_some_and(|(seq, _)| seq < mark)
            };
            match gate {
                Gate::None => true,
                Gate::Until(mark) => old(mark),
                Gate::From(mark) => !old(mark),
            }
        };
        self.routes.iter().copied().filter(open).collect()
    }

    fn lend(&self, leased: Leased) -> Result<Received, Box<(Receipt, Failure)>> {
        let receipt = Receipt {
            route: leased.route.0,
            seq: leased.seq,
            token: leased.receipt,
        };
        let replay = leased.replay.as_deref();
        let replay = replay.filter(|id| !id.starts_with(LATE_RULE));
        let stored = &leased.event;
        let read = stored
            .reading
            .get_or_make(|| Event::parse(stored.payload.clone()));
        let parsed = read.and_then(|event| match replay {
            Some(name) => event.replayed(name).map(Arc::new),
            None => Ok(event),
        });
        let event = parsed.map_err(|e| {
            let failure = Failure::permanent("BadEvent", "the event in the log cannot be read");
            Box::new((receipt, failure.caused_by(&e)))
        })?;
        let feed = self.feeds.get(&leased.route);
        let first = leased.event.cursor.as_deref().unwrap_or_default();
        let home = feed.and_then(|feed| feed.home.as_ref());
        let (bus, route, make) = match (home, first.split_once(' ')) {
            (Some(inputs), Some((bus, route))) => (bus.into(), route.into(), inputs.get(route)),
            _ => {
                let came_by = feed.map_or_else(|| "".into(), |feed| Arc::clone(&feed.name));
                let make = feed.and_then(|feed| feed.input.as_ref());
                (Arc::clone(&leased.event.bus), came_by, make)
            }
        };
        let input = make
            .map(|make| make(&event, leased.event.accepted_ms))
            .transpose()
            .map_err(|failure| Box::new((receipt, failure)))?;
        Ok(Received {
            event,
            input,
            receipt,
            route,
            bus,
            attempt: leased.attempts,
            accepted_ms: leased.event.accepted_ms,
            root: leased.event.root_id.clone(),
            hops: leased.event.hops,
        })
    }

    fn error(&self, failure: &Failure) -> AttemptError {
        AttemptError {
            class: failure.class.to_string(),
            message: format!("{}: {}", failure.code, failure.message),
            chain: failure.chain.clone(),
            at_ms: self.clock.now_ms(),
            handler: self.handler.clone(),
        }
    }

    fn outcome(&self, fate: Fate) -> Outcome {
        match fate {
            Fate::Delivered => Outcome::Delivered,
            Fate::Release => Outcome::Release,
            Fate::Retry { at_ms, failure } => Outcome::Retry {
                not_before_ms: at_ms,
                error: self.error(&failure),
            },
            Fate::Dead { failure, context } => Outcome::Dead {
                error: self.error(&failure),
                context: Bytes::from(context.to_string()),
            },
        }
    }

    async fn settle_in_log(
        &self,
        fates: Vec<(Receipt, Fate)>,
        events: Vec<Outgoing>,
    ) -> Result<(), QueueError> {
        let events = events.into_iter().map(|event| self.plan(event)).collect();
        self.commit(fates, events).await.map(|_| ())
    }

    /// An event with the deliveries that its rules decide on.
    pub(super) fn plan(&self, event: Outgoing) -> NewEvent {
        (self.plan)(event)
    }

    /// Settles messages of the log and stores events, all or nothing.
    pub(super) async fn commit(
        &self,
        fates: Vec<(Receipt, Fate)>,
        events: Vec<NewEvent>,
    ) -> Result<Settled, QueueError> {
        // An outcome that brings nothing new may ride with the next commit: if it
        // is lost in a crash, the message comes once more and changes nothing.
        let durability = if events.is_empty() {
            Durability::Relaxed
        } else {
            Durability::Synced
        };
        let settlements = fates
            .into_iter()
            .map(|(receipt, fate)| Settlement {
                route: RouteId(receipt.route),
                seq: receipt.seq,
                receipt: receipt.token,
                outcome: self.outcome(fate),
            })
            .collect();
        self.bus
            .settle(settlements, events, durability)
            .await
            .map_err(|e| self.stopped(&e))
    }

    pub(super) fn stopped(&self, error: &BusError) -> QueueError {
        match error {
            BusError::Refused {
                reason,
                retry_after,
                ..
            } => QueueError::Busy {
                queue: self.name.clone(),
                reason: reason.clone(),
                retry_after: *retry_after,
            },
            // The rules changed between planning and settling: planned again, it
            // goes where the new ones say.
            BusError::RetiredRoute(_) => QueueError::Busy {
                queue: self.name.clone(),
                reason: error.to_string(),
                retry_after: Duration::from_millis(50),
            },
            other if other.is_temporary() => QueueError::Busy {
                queue: self.name.clone(),
                reason: other.to_string(),
                retry_after: Duration::from_secs(1),
            },
            other => QueueError::Stopped {
                queue: self.name.clone(),
                reason: other.to_string(),
            },
        }
    }
}

impl Queue for LogQueue {
    fn name(&self) -> &str {
        &self.name
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        if !self.gated {
            return Box::pin(self.bus.ready(&self.routes));
        }
        Box::pin(async move {
            // Nobody tells when a gate opens.
            let ready = self.bus.ready(&self.open_routes());
            if tokio::time::timeout(GATE_NAP, ready).await.is_err() {
                tracing::trace!(queue = self.name, "looks at its gates again");
            }
        })
    }

    fn receive(&self, want: Want) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        Box::pin(async move {
            let leased = self
                .bus
                .receive(
                    &self.open_routes(),
                    Receive {
                        max: want.messages,
                        max_bytes: want.bytes,
                        visibility: want.visibility,
                    },
                )
                .map_err(|e| self.stopped(&e))?;
            let mut received = Vec::with_capacity(leased.len());
            for lease in leased {
                match self.lend(lease) {
                    Ok(message) => received.push(message),
                    Err(bad) => {
                        let (receipt, failure) = *bad;
                        let context = serde_json::json!({ "handler": self.handler });
                        let fate = Fate::Dead { failure, context };
                        self.settle_in_log(vec![(receipt, fate)], Vec::new())
                            .await?;
                    }
                }
            }
            Ok(received)
        })
    }

    fn failures(&self, receipt: &Receipt) -> Result<u32, QueueError> {
        let errors = self.bus.attempts(RouteId(receipt.route), receipt.seq);
        let errors = errors.map_err(|e| self.stopped(&e))?;
        Ok(u32::try_from(errors.len()).unwrap_or(u32::MAX))
    }

    fn extend(&self, receipts: &[Receipt], visibility: Duration) {
        for receipt in receipts {
            // A loan that is over cannot be prolonged; its settlement will be stale.
            let route = RouteId(receipt.route);
            let prolonged = self
                .bus
                .extend(route, receipt.seq, receipt.token, visibility);
            tracing::trace!(seq = receipt.seq, prolonged, "extend");
        }
    }

    fn settle(
        &self,
        fates: Vec<(Receipt, Fate)>,
        events: Vec<Outgoing>,
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.settle_in_log(fates, events))
    }
}
