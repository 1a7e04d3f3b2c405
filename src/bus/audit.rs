//! The books: what came in, what became of it, and the equation between the two.

use std::collections::BTreeMap;

use super::core::{Core, lock};
use super::types::RouteId;

/// What one bus label has seen since the log began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct BusCounts {
    /// Events stored.
    pub accepted: u64,
    /// Events refused because their id was known; lost when the process is killed
    /// before its next commit.
    pub duplicates: u64,
    /// Stored with at least one delivery.
    pub matched: u64,
    /// Stored without any.
    pub unmatched: u64,
    /// Sum of their payloads, in bytes.
    pub bytes: u64,
}

/// The running totals of a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub enqueued: u64,
    pub replayed: u64,
    pub redriven: u64,
    pub delivered: u64,
    pub retried: u64,
    pub dead_lettered: u64,
    pub purged: u64,
    pub expired: u64,
    pub moved_in: u64,
    pub moved_out: u64,
}

impl Counts {
    pub(crate) fn to_array(self) -> [u64; 10] {
        [
            self.enqueued,
            self.replayed,
            self.redriven,
            self.delivered,
            self.retried,
            self.dead_lettered,
            self.purged,
            self.expired,
            self.moved_in,
            self.moved_out,
        ]
    }

    pub(crate) fn from_array(v: [u64; 10]) -> Self {
        let [
            enqueued,
            replayed,
            redriven,
            delivered,
            retried,
            dead_lettered,
            purged,
            expired,
            moved_in,
            moved_out,
        ] = v;
        Self {
            enqueued,
            replayed,
            redriven,
            delivered,
            retried,
            dead_lettered,
            purged,
            expired,
            moved_in,
            moved_out,
        }
    }
}

/// A route's side of the ledger. Totals are since the log began; they survive
/// restarts and retention.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RouteLedger {
    /// Its number.
    #[serde(skip)]
    pub id: RouteId,
    /// Its name.
    pub name: String,
    /// Deliveries decided when their event was accepted.
    pub enqueued: u64,
    /// Deliveries added by replays and late rules.
    pub replayed: u64,
    /// Dead letters that became pending again, here or on another route.
    pub redriven: u64,
    /// Settled as delivered.
    pub delivered: u64,
    /// Attempts that failed and were to be tried again.
    pub retried: u64,
    /// Given up, in total.
    pub dead_lettered: u64,
    /// Dead letters held now.
    pub dead: u64,
    /// Dropped for a stated reason.
    pub purged: u64,
    /// Ended by a policy.
    pub expired: u64,
    /// Taken over from other routes.
    pub moved_in: u64,
    /// Handed over to other routes.
    pub moved_out: u64,
    /// Pending and not in anybody's hands; includes those behind another of their key.
    pub ready: u64,
    /// Pending and in somebody's hands.
    pub leased: u64,
    /// Pending and waiting for their time.
    pub delayed: u64,
    /// Whether it hands out nothing for now.
    pub paused: bool,
    /// Whether it was retired.
    pub retired: bool,
}

impl RouteLedger {
    /// Ready, leased and delayed.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.ready + self.leased + self.delayed
    }

    /// Whether what went in equals what became of it.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.enqueued + self.replayed + self.moved_in
            == self.delivered
                + self.dead
                + self.purged
                + self.expired
                + self.moved_out
                + self.pending()
    }
}

/// The whole ledger at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Ledger {
    /// Per bus label.
    pub buses: BTreeMap<String, BusCounts>,
    /// Per route, by number.
    pub routes: Vec<RouteLedger>,
    /// Events that were accepted and whose commit can no longer be read: damage.
    pub lost: u64,
}

impl Ledger {
    /// Whether every route and every label adds up, and nothing was lost to damage.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.lost == 0
            && self.routes.iter().all(RouteLedger::balanced)
            && self
                .buses
                .values()
                .all(|b| b.accepted == b.matched + b.unmatched)
    }
}

/// The answer of [`super::Bus::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The ledger as counted again from the log.
    pub recounted: Ledger,
    /// The ledger as it was kept.
    pub kept: Ledger,
    /// The first segment that was read again.
    pub from_segment: u32,
    /// Records read.
    pub records: u64,
    /// Whether both agree and no damage was met.
    pub agrees: bool,
}

impl Core {
    pub(crate) fn audit(&self) -> Ledger {
        let now = self.now();
        let mut state = lock(&self.state);
        state.advance(now);
        state.ledger()
    }
}
