//! Intake and settlement: what callers hand to the writer.

use std::time::Duration;

use bytes::Bytes;

use super::batch::{Prepared, prepare};
use super::core::{Core, Ended, Request, Work, lock};
use super::error::BusError;
use super::item::{Dead, Item, Pos, Retry};
use super::route::{At, Now};
use super::state::State;
use super::types::{
    Accepted, AttemptError, Durability, NewEvent, Outcome, Pressure, RouteId, Settled, Settlement,
};

/// How long a lease lasts whose settlement could not be written.
const GRACE_MS: u64 = 5_000;

const MAX_BUS: usize = 512;
const MAX_ID: usize = 1024;

impl Core {
    pub(crate) async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, BusError> {
        self.check_open()?;
        if let Pressure::Refuse {
            reason,
            retry_after,
            overloaded,
        } = self.pressure()
        {
            return Err(BusError::Refused {
                reason,
                retry_after,
                overloaded,
            });
        }
        let bytes = self.check_events(&events)?;
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let events = prepare(self, events);
        let ended = Ended::default();
        self.commit(Work::Commit { ended, events }, bytes).await
    }

    /// Checks what does not depend on the state; the sum of the payloads.
    pub(super) fn check_events(&self, events: &[NewEvent]) -> Result<usize, BusError> {
        let too_large = |what, size: usize, limit: usize| {
            Err(BusError::TooLarge {
                what,
                size: size as u64,
                limit: limit as u64,
            })
        };
        let mut total = 0;
        for event in events {
            if event.bus.is_empty() || event.id.is_empty() {
                return Err(BusError::BadEvent(
                    "its bus and its id must not be empty".into(),
                ));
            }
            let texts = [&event.cause, &event.cursor, &event.root];
            let longest = texts
                .iter()
                .filter_map(|t| t.as_ref().map(String::len))
                .max()
                .unwrap_or(0);
            let keys = event
                .deliveries
                .iter()
                .filter_map(|d| d.key.as_ref().map(String::len));
            let longest = longest.max(event.id.len()).max(keys.max().unwrap_or(0));
            if event.bus.len() > MAX_BUS {
                return too_large("bus", event.bus.len(), MAX_BUS);
            }
            if longest > MAX_ID {
                return too_large("id", longest, MAX_ID);
            }
            if event.payload.len() > self.options.max_event_bytes {
                return too_large("event", event.payload.len(), self.options.max_event_bytes);
            }
            total += event.payload.len();
        }
        if total > self.options.max_call_bytes {
            return too_large("batch", total, self.options.max_call_bytes);
        }
        Ok(total)
    }

    pub(crate) async fn settle(
        &self,
        settlements: Vec<Settlement>,
        emits: Vec<NewEvent>,
        durability: Durability,
    ) -> Result<Settled, BusError> {
        self.check_open()?;
        let bytes = self.check_events(&emits)?;
        let now = self.now();
        let (ended, applied) = {
            let mut state = lock(&self.state);
            begin(&mut state, settlements, now)
        };
        if ended.is_empty() && emits.is_empty() {
            return Ok(Settled {
                applied,
                emitted: Vec::new(),
            });
        }
        let relaxed = durability == Durability::Relaxed && emits.is_empty();
        if relaxed {
            let work = Work::Commit {
                ended,
                events: Prepared::default(),
            };
            self.submit(Request {
                work,
                bytes: 0,
                relaxed: true,
                reply: None,
            })?;
            return Ok(Settled {
                applied,
                emitted: Vec::new(),
            });
        }
        let emitted = self
            .commit(
                Work::Commit {
                    ended,
                    events: prepare(self, emits),
                },
                bytes,
            )
            .await?;
        Ok(Settled { applied, emitted })
    }

    /// Waits for everything handed to the writer before.
    pub(crate) async fn flush(&self) -> Result<(), BusError> {
        self.plan(|_| Ok((Vec::new(), ()))).await
    }
}

/// Checks receipts and turns settlements into what is written; those that may go ahead
/// are nobody else's from here on.
fn begin(state: &mut State, settlements: Vec<Settlement>, now: Now) -> (Ended, Vec<bool>) {
    let mut ended = Ended::default();
    let items = &mut ended.items;
    let mut applied = Vec::with_capacity(settlements.len());
    let mut advanced = None;
    for settlement in settlements {
        let Settlement {
            route: id,
            seq,
            receipt,
            outcome,
        } = settlement;
        let Some(route) = state.route_mut(id) else {
            applied.push(false);
            continue;
        };
        if advanced != Some(id) {
            // A lease that ran out counts as such even if nobody has looked since.
            route.advance(now);
            advanced = Some(id);
        }
        let ok = route.begin_settling(seq, receipt);
        applied.push(ok);
        if !ok {
            continue;
        }
        let told = route.entries.get(seq).map(|e| (e.attempts, e.last));
        match outcome {
            Outcome::Delivered => ended.delivered.push((id, seq)),
            Outcome::Release => push_released(items, id, seq),
            Outcome::Expired { policy } => items.push(Item::Expired {
                route: id,
                seqs: vec![seq],
                policy,
            }),
            Outcome::Retry {
                not_before_ms,
                error,
            } => {
                items.push(retry(id, seq, told, not_before_ms, error, now));
            }
            Outcome::Dead { error, context } => {
                items.push(dead(id, seq, told, error, context, now));
            }
        }
    }
    (ended, applied)
}

/// Attempts so far, and where the last failed one is told.
type Told = Option<(u32, Pos)>;

fn retry(
    route: RouteId,
    seq: u64,
    told: Told,
    not_before_ms: i64,
    error: AttemptError,
    now: Now,
) -> Item {
    let (attempts, previous) = told.unwrap_or_default();
    Item::Retry(Box::new(Retry {
        route,
        seq,
        attempts,
        not_before_ms,
        // The delay is measured from here, whatever the caller's clock said.
        set_ms: now.wall,
        error: dated(error, now),
        previous,
    }))
}

fn dead(
    route: RouteId,
    seq: u64,
    told: Told,
    error: AttemptError,
    context: Bytes,
    now: Now,
) -> Item {
    let (attempts, previous) = told.unwrap_or_default();
    Item::Dead(Box::new(Dead {
        route,
        seq,
        attempts,
        dead_at_ms: now.wall,
        error: dated(error, now),
        context,
        previous,
    }))
}

/// An error that says when it was.
fn dated(mut error: AttemptError, now: Now) -> AttemptError {
    if error.at_ms == 0 {
        error.at_ms = now.wall;
    }
    error
}

/// Adds to the list for the same route, if it is the last.
fn push_released(items: &mut Vec<Item>, id: RouteId, seq: u64) {
    match items.last_mut() {
        Some(Item::Released { route, seqs }) if *route == id => seqs.push(seq),
        _ => items.push(Item::Released {
            route: id,
            seqs: vec![seq],
        }),
    }
}

/// Gives leases back whose settlement was not written: the caller still holds them.
pub(crate) fn unsettle(core: &Core, ended: &Ended) {
    let now = core.now();
    unsettle_in(&mut lock(&core.state), ended, now);
}

/// The same, for who has the state already.
pub(crate) fn unsettle_in(state: &mut State, ended: &Ended, now: Now) {
    let until = now.mono + GRACE_MS;
    let delivered = ended.delivered.iter();
    let delivered = delivered.map(|(route, seq)| (*route, std::slice::from_ref(seq)));
    let others = ended.items.iter().filter_map(|item| {
        Some(match item {
            Item::Released { route, seqs } | Item::Expired { route, seqs, .. } => {
                (*route, seqs.as_slice())
            }
            Item::Retry(retry) => (retry.route, std::slice::from_ref(&retry.seq)),
            Item::Dead(dead) => (dead.route, std::slice::from_ref(&dead.seq)),
            _ => return None,
        })
    });
    for (route, seqs) in delivered.chain(others) {
        let Some(route) = state.route_mut(route) else {
            continue;
        };
        for seq in seqs {
            if let Some(entry) = route.entries.get_mut(*seq)
                && entry.at == At::Settling
            {
                entry.at = At::Leased { until };
                route.settling -= 1;
                route.leased += 1;
                route.lease_hint = route.lease_hint.min(until);
            }
        }
    }
}

/// A span of time in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX / 4)
        .min(u64::MAX / 4)
}
