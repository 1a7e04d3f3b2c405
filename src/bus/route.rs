//! One route's deliveries: what is ready, in flight, delayed and dead.
//!
//! Nearly every delivery is a bit in a bitmap. Those that were touched (leased,
//! delayed, tried before) have an entry; those of an ordered route stand in line.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::audit::Counts;
use super::item::Pos;
use super::keys::{Change, Keys};
use super::pages::Pages;
use super::seqs::{Line, Seqs};
use super::timers::Timers;
use super::types::RouteId;

/// The time by both clocks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Now {
    pub wall: i64,
    pub mono: u64,
}

/// Where a touched delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Ready, or waiting in its key's line.
    Ready,
    /// Handed out until this monotonic time.
    Leased { until: u64 },
    /// Its settlement is with the writer.
    Settling,
    /// Waits for its time: `due` is monotonic, `until` the wall clock's, and `wait`
    /// the longest it may take, whatever the wall clock does meanwhile.
    Delayed { due: u64, until: i64, wait: u64 },
}

/// A delivery that was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub attempts: u32,
    /// The oldest segment that holds a part of its history; 0 without one.
    pub first_segment: u32,
    /// The latest lease.
    pub receipt: u64,
    /// Its latest failed attempt in the log.
    pub last: Pos,
    pub at: At,
}

impl Entry {
    pub(crate) fn new() -> Self {
        Self {
            attempts: 0,
            first_segment: 0,
            receipt: 0,
            last: Pos(0),
            at: At::Ready,
        }
    }
}

/// What was known of a delivery that was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    pub entry: Entry,
    /// Hash of its ordering key; 0 for none.
    pub key: u64,
}

/// A delivery that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadRef {
    pub pos: Pos,
    pub first_segment: u32,
    pub attempts: u32,
    pub dead_at_ms: i64,
    pub key: u64,
}

/// What a replay has given to this route.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replay {
    pub id: Arc<str>,
    pub seen: RoaringTreemap,
}

/// One route. What each delivery changes stands first and together: with very many
/// routes, hardly any of them is in the processor's caches when its turn comes.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Route {
    pub pending: u64,
    pub leased: u64,
    pub settling: u64,
    /// No lease runs out before this monotonic time.
    pub lease_hint: u64,
    /// Ready and without a key.
    pub fresh: Seqs,
    pub entries: Pages<Entry>,
    /// By monotonic due time.
    pub delayed: Timers,
    pub id: RouteId,
    pub ordered: bool,
    pub paused: bool,
    pub retired: bool,
    pub counts: Counts,
    /// As `fresh`, given by a replay.
    pub again: Seqs,
    /// Keyed ones that may go now: fresh and replayed.
    pub heads: [Seqs; 2],
    /// All with a key, in flight or not, and the hash of the key.
    pub keyed: Pages<u64>,
    pub keys: Keys,
    pub dead: BTreeMap<u64, DeadRef>,
    pub replays: Vec<Replay>,
    pub name: String,
}

impl Route {
    pub(crate) fn new(id: RouteId, name: String, ordered: bool) -> Self {
        Self {
            id,
            name,
            ordered,
            paused: false,
            retired: false,
            fresh: Seqs::default(),
            again: Seqs::default(),
            keyed: Pages::default(),
            keys: Keys::default(),
            heads: Default::default(),
            entries: Pages::default(),
            delayed: Timers::default(),
            leased: 0,
            settling: 0,
            lease_hint: u64::MAX,
            pending: 0,
            dead: BTreeMap::new(),
            replays: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn is_pending(&self, seq: u64) -> bool {
        self.entries.contains(seq)
            || self.fresh.contains(seq)
            || self.again.contains(seq)
            || self.keyed.contains(seq)
    }

    /// The newest replay that gave this delivery.
    pub(crate) fn replay_of(&self, seq: u64) -> Option<&Arc<str>> {
        self.replays
            .iter()
            .rev()
            .find(|r| r.seen.contains(seq))
            .map(|r| &r.id)
    }

    fn is_replayed(&self, seq: u64) -> bool {
        !self.replays.is_empty() && self.replay_of(seq).is_some()
    }

    /// Adds a pending delivery. `false` when it is pending already.
    pub(crate) fn enqueue(&mut self, seq: u64, key: u64, delay: Option<At>) -> bool {
        if self.is_pending(seq) {
            return false;
        }
        self.pending += 1;
        let key = if self.ordered { key } else { 0 };
        if let Some(at) = delay {
            self.entries.insert(seq, Entry { at, ..Entry::new() });
        }
        if key != 0 {
            self.keyed.insert(seq, key);
            let change = self.keys.push(key, seq);
            self.follow(key, change);
        } else if delay.is_some() {
            self.park(seq);
        } else if self.is_replayed(seq) {
            self.again.insert(seq);
        } else {
            self.fresh.insert(seq);
        }
        true
    }

    /// Adds a run of fresh deliveries that nobody has seen before.
    pub(crate) fn enqueue_run(&mut self, first: u64, last: u64) {
        self.pending += self.fresh.insert_run(first, last);
    }

    /// Puts what its line says may go now where it is found.
    pub(crate) fn follow(&mut self, key: u64, change: Change) {
        if let Some(seq) = change.down {
            self.heads[0].remove(seq);
            self.heads[1].remove(seq);
        }
        let Some(seq) = change.up else { return };
        if self.is_delayed(seq) {
            // Its delay keeps its place in the line.
            self.start(key, seq);
            self.park(seq);
        } else {
            let class = usize::from(self.is_replayed(seq));
            self.heads[class].insert(seq);
        }
    }

    pub(crate) fn is_delayed(&self, seq: u64) -> bool {
        let at = self.entries.get(seq).map(|e| e.at);
        matches!(at, Some(At::Delayed { .. }))
    }

    /// The hash of a delivery's ordering key; 0 for none.
    pub(crate) fn key(&self, seq: u64) -> u64 {
        self.keyed.get(seq).copied().unwrap_or(0)
    }

    /// A delivery is in flight ahead of its key's line; `false` when another one is.
    /// Not only the head can be: a log that is read again tells of a lease as an attempt,
    /// and an older delivery of the key may have come since.
    fn start(&mut self, key: u64, seq: u64) -> bool {
        let change = self.keys.start(key, seq);
        if let Some(change) = change {
            self.follow(key, change);
        }
        change.is_some()
    }

    /// Lists a delayed entry under its due time.
    fn park(&mut self, seq: u64) {
        if let Some(At::Delayed { due, .. }) = self.entries.get(seq).map(|e| e.at) {
            self.delayed.push(due, seq);
        }
    }

    /// Makes a touched delivery ready again, in its place.
    fn make_ready(&mut self, seq: u64) {
        let Some(entry) = self.entries.get_mut(seq) else {
            return;
        };
        entry.at = At::Ready;
        // Untouched in all but name: the entry would only cost memory.
        if entry.attempts == 0 && entry.receipt == 0 && entry.last.is_none() {
            self.entries.remove(seq);
        }
        let class = usize::from(self.is_replayed(seq));
        if self.keyed.contains(seq) {
            self.heads[class].insert(seq);
        } else if class == 1 {
            self.again.insert(seq);
        } else {
            self.fresh.insert(seq);
        }
    }

    /// Makes delayed deliveries ready whose time has come, and takes back leases
    /// that ran out. Returns whether anything became ready.
    pub(crate) fn advance(&mut self, now: Now) -> bool {
        let mut any = false;
        loop {
            let entries = &self.entries;
            let due = self
                .delayed
                .pop(now.mono, |due, seq| waits_until(entries, due, seq));
            let Some(seq) = due else { break };
            self.make_ready(seq);
            any = true;
        }
        if self.leased > 0 && self.lease_hint <= now.mono {
            any |= self.reclaim(now);
        }
        any
    }

    fn reclaim(&mut self, now: Now) -> bool {
        let mut next = u64::MAX;
        let mut over = Vec::new();
        for (seq, entry) in self.entries.iter() {
            if let At::Leased { until } = entry.at {
                if until <= now.mono {
                    over.push(seq);
                } else {
                    next = next.min(until);
                }
            }
        }
        self.lease_hint = next;
        self.leased -= over.len() as u64;
        for &seq in &over {
            self.make_ready(seq);
        }
        !over.is_empty()
    }

    /// The next monotonic time at which something becomes ready by itself.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let delayed = self.delayed.next();
        let lease = (self.leased > 0 && self.lease_hint != u64::MAX).then_some(self.lease_hint);
        delayed.into_iter().chain(lease).min()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.paused
            && (!self.fresh.is_empty()
                || !self.again.is_empty()
                || self.heads.iter().any(|h| !h.is_empty()))
    }

    /// What may go now, of the fresh (0) or the replayed (1): those without a key and
    /// the heads of the keys' lines, each in order.
    pub(crate) fn ready(&self, class: usize) -> [Line<'_>; 2] {
        let plain = match class {
            0 => self.fresh.line(),
            _ => self.again.line(),
        };
        [plain, self.heads[class].line()]
    }

    /// Leases the lowest of [`Route::ready`]; receipts count up from `receipt`.
    /// The attempt is counted by [`Route::count_attempt`], once it is written.
    pub(crate) fn lease(&mut self, class: usize, seqs: &[u64], receipt: u64, until: u64) {
        let mut last_plain = None;
        for (i, &seq) in seqs.iter().enumerate() {
            let key = self.key(seq);
            if key == 0 {
                last_plain = Some(seq);
            } else {
                self.heads[class].remove(seq);
                self.start(key, seq);
            }
            let (at, receipt) = (At::Leased { until }, receipt + i as u64);
            match self.entries.get_mut(seq) {
                Some(entry) => (entry.at, entry.receipt) = (at, receipt),
                None => {
                    let new = Entry::new();
                    self.entries.insert(seq, Entry { at, receipt, ..new });
                }
            }
        }
        // The plain ones are the lowest of their set, so the range is exact.
        match last_plain {
            Some(last) if class == 0 => self.fresh.remove_to(last),
            Some(last) => self.again.remove_to(last),
            None => {}
        }
        self.leased += seqs.len() as u64;
        self.lease_hint = self.lease_hint.min(until);
    }

    /// Leases one delivery, wherever it waits, unless somebody has it or others of
    /// its key come first.
    pub(crate) fn take(&mut self, seq: u64, receipt: u64, until: u64) -> bool {
        let at = self.entries.get(seq).map_or(At::Ready, |e| e.at);
        let delayed = match at {
            At::Leased { .. } | At::Settling => return false,
            At::Delayed { .. } => true,
            At::Ready => false,
        };
        let key = self.key(seq);
        let head = self.heads.iter().any(|heads| heads.contains(seq));
        let first = head || (delayed && self.keys.is_busy(key, seq));
        if key != 0 && !first {
            return false;
        }
        let Some(mut entry) = self.detach(seq) else {
            return false;
        };
        entry.at = At::Leased { until };
        entry.receipt = receipt;
        if key != 0 && !self.keys.is_busy(key, seq) {
            self.start(key, seq);
        }
        self.entries.insert(seq, entry);
        self.leased += 1;
        self.lease_hint = self.lease_hint.min(until);
        true
    }

    /// A written lease counts as an attempt.
    pub(crate) fn count_attempt(&mut self, seq: u64) {
        if let Some(entry) = self.entries.get_mut(seq) {
            entry.attempts = entry.attempts.saturating_add(1);
        } else if self.is_pending(seq) {
            let attempts = 1;
            self.entries.insert(
                seq,
                Entry {
                    attempts,
                    ..Entry::new()
                },
            );
        }
    }

    /// Whether a settlement with this receipt may go ahead; then nobody else gets
    /// the delivery before it is applied.
    pub(crate) fn begin_settling(&mut self, seq: u64, receipt: u64) -> bool {
        let Some(entry) = self.entries.get_mut(seq) else {
            return false;
        };
        if entry.receipt != receipt || receipt == 0 {
            return false;
        }
        let at = entry.at;
        match at {
            At::Leased { .. } | At::Ready => entry.at = At::Settling,
            At::Settling | At::Delayed { .. } => return false,
        }
        if at == At::Ready {
            // It ran out, but nobody else has had it since.
            self.unlist(seq);
            let key = self.key(seq);
            if key != 0 && !self.keys.is_busy(key, seq) {
                self.start(key, seq);
            }
        } else {
            self.leased -= 1;
        }
        self.settling += 1;
        true
    }

    /// Takes a ready delivery off the lists that it may be handed out from.
    fn unlist(&mut self, seq: u64) {
        self.fresh.remove(seq);
        self.again.remove(seq);
        self.heads[0].remove(seq);
        self.heads[1].remove(seq);
    }

    /// Makes a lease last until `until`. `false` when the receipt is stale.
    pub(crate) fn extend(&mut self, seq: u64, receipt: u64, until: u64) -> bool {
        match self.entries.get_mut(seq) {
            Some(entry) if entry.receipt == receipt && matches!(entry.at, At::Leased { .. }) => {
                entry.at = At::Leased { until };
                self.lease_hint = self.lease_hint.min(until);
                true
            }
            _ => false,
        }
    }

    /// Takes a delivery out, wherever it stands.
    pub(crate) fn remove(&mut self, seq: u64) -> Option<Removed> {
        let entry = self.detach(seq)?;
        self.pending -= 1;
        let key = self.keyed.remove(seq).unwrap_or(0);
        if key != 0 {
            let change = self.keys.finish(key, seq);
            self.follow(key, change);
        }
        Some(Removed { entry, key })
    }

    /// Takes a delivery out of every list but its key's line; its entry, or a blank one.
    fn detach(&mut self, seq: u64) -> Option<Entry> {
        let Some(entry) = self.entries.remove(seq) else {
            if self.fresh.remove(seq) || self.again.remove(seq) {
                return Some(Entry::new());
            }
            if !self.keyed.contains(seq) {
                return None;
            }
            self.heads[0].remove(seq);
            self.heads[1].remove(seq);
            return Some(Entry::new());
        };
        match entry.at {
            At::Leased { .. } => self.leased -= 1,
            At::Settling => self.settling -= 1,
            At::Delayed { .. } => {
                let key = self.key(seq);
                // Behind others of its key it has no timer yet.
                if key == 0 || self.keys.is_busy(key, seq) {
                    let entries = &self.entries;
                    self.delayed
                        .cancel(|due, seq| waits_until(entries, due, seq));
                }
            }
            At::Ready => self.unlist(seq),
        }
        Some(entry)
    }

    /// Lists everything that is delayed anew, with the due times its entries have now.
    pub(crate) fn list_delayed(&mut self) {
        let mut timers = Timers::default();
        for (seq, entry) in self.entries.iter() {
            if let At::Delayed { due, .. } = entry.at {
                let key = self.key(seq);
                if key == 0 || self.keys.is_busy(key, seq) {
                    timers.push(due, seq);
                }
            }
        }
        self.delayed = timers;
    }

    /// Puts a delivery that was in somebody's hands back, ready or delayed.
    pub(crate) fn put_back(&mut self, seq: u64, change: impl FnOnce(&mut Entry), at: At) -> bool {
        let Some(mut entry) = self.detach(seq) else {
            return false;
        };
        change(&mut entry);
        entry.at = at;
        let key = self.key(seq);
        self.entries.insert(seq, entry);
        if key != 0 && !self.keys.is_busy(key, seq) && !self.start(key, seq) {
            // Another of its key is in flight; the line tells when it may go.
            return true;
        }
        match at {
            At::Delayed { .. } => self.park(seq),
            _ => self.make_ready(seq),
        }
        true
    }
}

/// Whether the delivery `seq` is delayed until `due`.
fn waits_until(entries: &Pages<Entry>, due: u64, seq: u64) -> bool {
    let at = entries.get(seq).map(|e| e.at);
    matches!(at, Some(At::Delayed { due: its, .. }) if its == due)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
