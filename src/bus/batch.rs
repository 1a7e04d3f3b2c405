//! A commit being put together: events numbered, duplicates left out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::core::{Core, Ended, lock};
use super::error::BusError;
use super::index;
use super::item::{self, Item};
use super::record::Sum;
use super::route::Now;
use super::state::State;
use super::types::{Accepted, NewEvent, RouteId, StoredEvent};
use super::writer::Turns;

/// A new event as its sender's thread prepared it: all but its number and time.
struct Fresh {
    event: Arc<StoredEvent>,
    hash: u64,
    /// Where its item ends in what is encoded; it begins where the one before ends.
    end: usize,
}

/// The events of one call, prepared.
#[derive(Default)]
pub(crate) struct Prepared {
    events: Vec<Fresh>,
    encoded: Vec<u8>,
}

impl Prepared {
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}

/// Prepares events for the writer, which has more to do than any one sender.
pub(crate) fn prepare(core: &Core, events: Vec<NewEvent>) -> Prepared {
    if events.is_empty() {
        return Prepared::default();
    }
    let mut encoded = core.buffer();
    let fresh = |event: NewEvent| {
        let event = Arc::new(stored(event));
        item::prepare_event(&event, &mut encoded);
        Fresh {
            hash: index::id_hash(core.table.key, &event.bus, &event.id),
            end: encoded.len(),
            event,
        }
    };
    let events = events.into_iter().map(fresh).collect();
    Prepared { events, encoded }
}

/// A new event's item in one of the buffers of a batch.
#[derive(Clone, Copy)]
pub(super) struct Span {
    buffer: usize,
    from: usize,
    to: usize,
}

/// A commit being put together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) events: Vec<Arc<StoredEvent>>,
    /// Hashes of the events' ids.
    pub(super) hashes: Vec<u64>,
    /// Where the events' items are.
    pub(super) spans: Vec<Span>,
    pub(super) buffers: Vec<Vec<u8>>,
    /// Deliveries that were delivered, in order when they are written.
    pub(super) acks: Vec<(RouteId, u64)>,
    pub(super) duplicates: BTreeMap<Arc<str>, u64>,
    /// The number that its first event has, or would have, and the one after its last.
    pub(super) first_seq: u64,
    pub(super) next_seq: u64,
    /// Numbers of events that are written and not applied yet.
    pub(super) in_flight: Range<u64>,
    /// Dedupe insertions to take back when the write fails.
    pub(super) inserted: Vec<(u64, Option<u64>)>,
    pub(super) answers: Vec<Result<Vec<Accepted>, BusError>>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.events.is_empty() && self.acks.is_empty()
    }

    /// Bytes of the events' items.
    pub(super) fn event_bytes(&self) -> usize {
        self.spans.iter().map(|s| s.to - s.from).sum()
    }

    /// Fills in what only now is known of the events and adds them to the sum of their
    /// record; tells where in the record each begins.
    pub(super) fn seal(&mut self, salt: u64, sum: &mut Sum) -> Vec<u32> {
        let mut offsets = Vec::with_capacity(self.events.len() + self.items.len());
        for (span, event) in self.spans.iter().zip(&self.events) {
            let item = &mut self.buffers[span.buffer][span.from..span.to];
            item::seal_event(item, salt, event.seq, event.accepted_ms);
            offsets.push(sum.len as u32);
            sum.add(item);
        }
        offsets
    }

    /// The sealed items, neighbours together.
    pub(super) fn parts(&self) -> Vec<&[u8]> {
        let together = |a: &Span, b: &Span| a.buffer == b.buffer && a.to == b.from;
        let runs = self.spans.chunk_by(together);
        runs.map(|run| &self.buffers[run[0].buffer][run[0].from..run[run.len() - 1].to])
            .collect()
    }

    /// Gives the buffers back for batches to come.
    pub(super) fn recycle(&mut self, core: &Core) {
        for buffer in self.buffers.drain(..) {
            core.give_buffer(buffer);
        }
    }
}

pub(super) fn add_ended(batch: &mut Batch, ended: &Ended) {
    batch.acks.extend_from_slice(&ended.delivered);
    batch.items.extend_from_slice(&ended.items);
}

/// Whether every delivery goes to a route that takes it.
fn check_routes(state: &State, events: &[Fresh]) -> Result<(), BusError> {
    for delivery in events.iter().flat_map(|e| &e.event.deliveries) {
        let route = state
            .route(delivery.route)
            .ok_or(BusError::UnknownRoute(delivery.route))?;
        if route.retired {
            return Err(BusError::RetiredRoute(route.name.clone()));
        }
    }
    Ok(())
}

/// Numbers new events, leaving out duplicates; all or none.
pub(super) fn add_events(
    core: &Core,
    batch: &mut Batch,
    prepared: Prepared,
    now: Now,
    turns: &mut Turns<'_>,
) -> Result<Vec<Accepted>, BusError> {
    let Prepared { events, encoded } = prepared;
    check_routes(&lock(&core.state), &events)?;
    let (seqs, kept) = (batch.next_seq, (batch.events.len(), batch.inserted.len()));
    let (buffer, mut from) = (batch.buffers.len(), 0);
    let mut accepted = Vec::with_capacity(events.len());
    // Looked at for every commit, so that no jump of the clock goes by unseen.
    let steady = core.steady_ms();
    let mut dedupe = lock(&core.dedupe);
    dedupe.fetch(events.iter().map(|event| event.hash));
    for Fresh {
        mut event,
        hash,
        end,
    } in events
    {
        let is_written = |seq| batch.in_flight.contains(&seq);
        if !turns.are_taken() && dedupe.get(hash).is_some_and(is_written) {
            // It can be compared when it is applied; who applies it may want the ids.
            drop(dedupe);
            turns.all();
            dedupe = lock(&core.dedupe);
        }
        let duplicate = match dedupe.get(hash) {
            Some(seq) => is_duplicate(core, batch, seq, &event, steady).map(|d| d.then_some(seq)),
            None => Ok(None),
        };
        match duplicate {
            Ok(Some(seq)) => {
                *batch.duplicates.entry(event.bus.clone()).or_default() += 1;
                accepted.push(Accepted {
                    seq,
                    duplicate: true,
                });
            }
            Ok(None) => {
                let seq = batch.next_seq;
                batch.next_seq += 1;
                batch.inserted.push((hash, dedupe.insert(hash, seq)));
                match Arc::get_mut(&mut event) {
                    Some(event) => (event.seq, event.accepted_ms) = (seq, now.wall),
                    None => {
                        event = Arc::new(StoredEvent {
                            seq,
                            accepted_ms: now.wall,
                            ..(*event).clone()
                        })
                    }
                }
                batch.events.push(event);
                batch.hashes.push(hash);
                batch.spans.push(Span {
                    buffer,
                    from,
                    to: end,
                });
                accepted.push(Accepted {
                    seq,
                    duplicate: false,
                });
            }
            Err(e) => {
                for (hash, before) in batch.inserted.drain(kept.1..).rev() {
                    dedupe.undo(hash, before);
                }
                batch.events.truncate(kept.0);
                batch.hashes.truncate(kept.0);
                batch.spans.truncate(kept.0);
                batch.next_seq = seqs;
                return Err(e);
            }
        }
        from = end;
    }
    if !accepted.is_empty() {
        batch.buffers.push(encoded);
    }
    Ok(accepted)
}

/// Whether the event `seq`, whose id has the same hash, makes `event` a duplicate.
pub(super) fn is_duplicate(
    core: &Core,
    batch: &Batch,
    seq: u64,
    event: &StoredEvent,
    steady: i64,
) -> Result<bool, BusError> {
    let options = &core.options;
    let window = options
        .dedupe_by_bus
        .get(&*event.bus)
        .unwrap_or(&options.dedupe_window);
    let here = batch
        .events
        .first()
        .map(|first| first.seq)
        .filter(|&first| seq >= first);
    let first = match here {
        Some(first) => batch.events.get((seq - first) as usize).cloned(),
        None => match core.fetch(seq) {
            Ok(found) => found,
            // Stored again it can be read again.
            Err(BusError::Corrupt { .. }) => return Ok(false),
            Err(e) => return Err(e),
        },
    };
    let Some(first) = first else {
        // Dropped by retention. By age alone it would be past its window too; by size it
        // may not be, and then 64 equal bits of a keyed hash are evidence enough.
        let retention = options
            .retention_by_bus
            .get(&*event.bus)
            .unwrap_or(&options.retention);
        return Ok(options.retention_bytes.is_some() || retention < window);
    };
    let age = steady.saturating_sub(first.accepted_ms);
    let within = age < i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    Ok(within && first.bus == event.bus && first.id == event.id)
}

/// The event as it will be kept; its number and time are the writer's.
fn stored(event: NewEvent) -> StoredEvent {
    let root_id = event.root.filter(|root| *root != event.id);
    StoredEvent {
        seq: 0,
        accepted_ms: 0,
        bus: event.bus,
        id: event.id,
        cause: event.cause,
        root_id,
        hops: event.hops,
        cursor: event.cursor,
        rules_version: event.rules_version,
        deliveries: event.deliveries,
        payload: event.payload,
        reading: event.reading,
    }
}
