//! The durable log: events and their deliveries in one commit, synced once.
//!
//! A [`Bus`] is one folder with one log. Every event carries the label of its bus,
//! so that one commit can touch several. A *route* is the unit of delivery; what is
//! pending on it is a bitmap of sequence numbers in memory, rebuilt from the log's
//! last checkpoint at start.
//!
//! The way through: [`Bus::accept`] → writer threads (group commit, one `fdatasync`)
//! → [`Bus::ready`] and [`Bus::receive`] → the caller's work → [`Bus::settle`], which
//! commits acknowledgements, retries, dead letters and emitted events together.
//!
//! What an answer means: `accept` and a [`Durability::Synced`] settlement have
//! survived power loss when they return. A lease is written but not synced, so it
//! survives a killed process: a message that kills it is counted.

mod audit;
mod batch;
mod bodies;
mod busy;
mod cache;
mod checkpoint;
mod codec;
mod core;
mod damage;
mod dead;
mod dedupe;
mod doctor;
mod error;
mod files;
mod handle;
mod index;
mod item;
mod keys;
mod log;
mod options;
mod pages;
mod pressure;
mod read;
mod reading;
mod rebuild;
mod receive;
mod record;
mod recover;
mod replay;
mod retention;
mod route;
mod segment;
mod seqs;
mod settle;
mod siphash;
mod state;
mod table;
mod timers;
mod touched;
mod types;
mod view;
mod waiting;
mod writer;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

pub use audit::{BusCounts, Ledger, RouteLedger, Verified};
pub use damage::{Damage, DamageKind, RecoveryReport};
pub use dead::Expiring;
pub use doctor::{DoctorReport, SegmentReport, doctor};
pub use error::BusError;
pub use options::BusOptions;
pub use reading::Reading;
pub use retention::Maintained;
pub use types::{
    Accepted, AttemptError, Backlog, DeadFilter, DeadLetter, DeadPage, Durability, History,
    HistoryEntry, Leased, NewDelivery, NewEvent, Outcome, Pressure, Receive, Redelivered,
    Redelivery, Redriven, RouteId, RouteInfo, RouteOptions, Settled, Settlement, Standing, Step,
    StoredEvent,
};

use crate::clock::SharedClock;
use crate::storage::FileSystem;

/// A handle on an open log; cheap to clone. The log closes with [`Bus::close`] or
/// when the last handle is dropped.
#[derive(Clone)]
pub struct Bus {
    handle: Arc<handle::Handle>,
}

impl Bus {
    /// Opens the log, creating it when missing, and recovers what a crash left.
    ///
    /// Blocks on the disk. Fails with [`BusError::InUse`] when another process has
    /// it, and with [`BusError::Format`] when a newer version wrote it. Damage that is
    /// not a torn tail is told in the report and in [`Bus::damage`]; what is sound is
    /// served.
    pub fn open(
        options: BusOptions,
        fs: Arc<dyn FileSystem>,
        clock: SharedClock,
    ) -> Result<(Self, RecoveryReport), BusError> {
        let (handle, report) = handle::Handle::open(options, fs, clock)?;
        let handle = Arc::new(handle);
        Ok((Self { handle }, report))
    }

    /// Commits what is queued, writes a checkpoint and stops. Later calls on any
    /// handle fail with [`BusError::Closed`]. Leases are void; their deliveries are
    /// ready again at the next start, with the attempt counted.
    pub async fn close(&self) -> Result<(), BusError> {
        self.handle.close().await
    }

    // ---- routes ----

    /// The number of the route `name`, which is created, brought back from
    /// retirement or given new options as needed. Durable when it returns. Turning
    /// order on does not reorder what is already pending.
    pub async fn route(&self, name: &str, options: RouteOptions) -> Result<RouteId, BusError> {
        let wanted = vec![(name.to_owned(), options)];
        let ids = self.routes_of(wanted).await?;
        ids.first().copied().ok_or(BusError::Closed)
    }

    /// As [`Bus::route`], for many: what is new is one commit. In the order of `wanted`.
    pub async fn routes_of(
        &self,
        wanted: Vec<(String, RouteOptions)>,
    ) -> Result<Vec<RouteId>, BusError> {
        self.handle.core().routes_of(wanted).await
    }

    /// The number of a route that exists, retired or not.
    #[must_use]
    pub fn route_id(&self, name: &str) -> Option<RouteId> {
        self.handle.core().route_id(name)
    }

    /// All routes, retired ones included, by number.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteInfo> {
        self.handle.core().routes()
    }

    /// Hands out nothing from `route` until it is resumed; durable, backlog kept.
    pub async fn pause(&self, route: RouteId) -> Result<(), BusError> {
        self.handle.core().set_paused(route, true).await
    }

    /// Ends a pause.
    pub async fn resume(&self, route: RouteId) -> Result<(), BusError> {
        self.handle.core().set_paused(route, false).await
    }

    /// Takes a route out of service. Its dead letters stay. Leases on it are void.
    /// Returns how many pending deliveries were purged or moved.
    pub async fn retire_route(&self, name: &str, backlog: Backlog) -> Result<u64, BusError> {
        self.handle.core().retire_route(name, backlog).await
    }

    // ---- intake ----

    /// Stores events with their deliveries, all or none; synced to disk when it
    /// returns. One answer per event, in order. Events whose id was seen within the
    /// dedupe window add nothing and name the first.
    ///
    /// Fails with [`BusError::Refused`] at a mark (see [`Bus::pressure`]), with
    /// [`BusError::UnknownRoute`] or [`BusError::RetiredRoute`] when a delivery goes
    /// nowhere, and with [`BusError::Poisoned`] after a failed write. When the future
    /// is dropped, the events may still be stored; sending them again is a duplicate.
    pub async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, BusError> {
        self.handle.core().accept(events).await
    }

    /// Whether intake is open, near a mark or refused.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.handle.core().pressure()
    }

    /// Why the log stopped, if it did. It stays so until it is opened again.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.handle.core().poisoned()
    }

    /// Damage known since the start or found while reading, oldest first.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.handle.core().damage()
    }

    // ---- delivery ----

    /// Leases what is ready on `routes`: fresh before replayed, lowest sequence
    /// number first; on an ordered route one delivery per key, and none of a key that
    /// is in flight or waits for a retry. The receive counts are written before this
    /// returns. Does not wait; empty when nothing is ready. May read events from disk.
    pub fn receive(&self, routes: &[RouteId], receive: Receive) -> Result<Vec<Leased>, BusError> {
        self.handle.core().receive(routes, receive)
    }

    /// Leases one delivery by its sequence number, also one that still waits for its
    /// time; the receipt, or `None` when somebody has it, when others of its key come
    /// first, or when it is not pending. Counts as an attempt, as [`Bus::receive`] does.
    pub fn lease(
        &self,
        route: RouteId,
        seq: u64,
        visibility: Duration,
    ) -> Result<Option<u64>, BusError> {
        self.handle.core().lease_one(route, seq, visibility)
    }

    /// Whether something with this ordering key is pending on an ordered route.
    #[must_use]
    pub fn holds(&self, route: RouteId, key: &str) -> bool {
        self.handle.core().holds(route, key)
    }

    /// The newest replay that gave this delivery, if one did.
    #[must_use]
    pub fn replay_of(&self, route: RouteId, seq: u64) -> Option<Arc<str>> {
        self.handle.core().replay_of(route, seq)
    }

    /// Resolves when something can be received from `routes`, including delayed
    /// deliveries falling due and leases running out, and when the bus is closed.
    /// Safe to drop at any time. Needs a Tokio runtime with time.
    pub fn ready(&self, routes: &[RouteId]) -> impl Future<Output = ()> + Send + 'static {
        self.handle.core_arc().ready(routes.to_vec())
    }

    /// Makes a lease last `visibility` from now. `false` when the receipt is stale.
    pub fn extend(&self, route: RouteId, seq: u64, receipt: u64, visibility: Duration) -> bool {
        self.handle.core().extend(route, seq, receipt, visibility)
    }

    /// Ends leases and stores the events their handlers emitted, in one atomic commit.
    ///
    /// A stale receipt is told in [`Settled::applied`] and changes nothing; the emitted
    /// events are stored all the same (their ids make a repeat harmless). With
    /// [`Durability::Relaxed`] and nothing emitted it answers at once.
    pub async fn settle(
        &self,
        settlements: Vec<Settlement>,
        emits: Vec<NewEvent>,
        durability: Durability,
    ) -> Result<Settled, BusError> {
        self.handle
            .core()
            .settle(settlements, emits, durability)
            .await
    }

    /// Waits until every relaxed settlement given so far is on disk.
    pub async fn flush(&self) -> Result<(), BusError> {
        self.handle.core().flush().await
    }

    /// The errors of the attempts so far of a delivery that is pending or dead,
    /// oldest first. Reads from disk.
    pub fn attempts(&self, route: RouteId, seq: u64) -> Result<Vec<AttemptError>, BusError> {
        self.handle.core().attempts(route, seq)
    }

    /// The oldest pending delivery of a route: its sequence number and when its event
    /// was accepted (Unix milliseconds).
    #[must_use]
    pub fn oldest_pending(&self, route: RouteId) -> Option<(u64, i64)> {
        self.handle.core().oldest_pending(route)
    }

    // ---- dead letters ----

    /// Dead letters by route and sequence number, a page at a time. Reads from disk.
    pub fn dead(&self, filter: &DeadFilter) -> Result<DeadPage, BusError> {
        self.handle.core().dead(filter)
    }

    /// One dead letter with all its errors.
    pub fn dead_letter(&self, route: RouteId, seq: u64) -> Result<DeadLetter, BusError> {
        self.handle.core().dead_letter(route, seq)
    }

    /// Makes dead letters pending again, attempts starting anew, on their own route or
    /// on `to`. Durable when it returns.
    pub async fn redrive(
        &self,
        route: RouteId,
        seqs: &[u64],
        to: Option<RouteId>,
    ) -> Result<Redriven, BusError> {
        self.handle.core().redrive(route, seqs, to).await
    }

    /// Puts a new event, with its own deliveries, in the place of a dead letter, which
    /// is purged for the stated reason; one commit. The first event stays as it is.
    pub async fn replace_dead(
        &self,
        route: RouteId,
        seq: u64,
        event: NewEvent,
        why: &str,
    ) -> Result<Accepted, BusError> {
        self.handle
            .core()
            .replace_dead(route, seq, event, why)
            .await
    }

    /// Drops dead letters for a stated reason, which the log keeps. Returns how many.
    pub async fn purge(&self, route: RouteId, seqs: &[u64], why: &str) -> Result<u64, BusError> {
        self.handle.core().purge(route, seqs, why).await
    }

    /// The dead letters that expire within `within` from now, counted by route.
    #[must_use]
    pub fn expiring(&self, within: Duration) -> Vec<Expiring> {
        self.handle.core().expiring(within)
    }

    // ---- replay ----

    /// Adds deliveries for events already in the log, marked with `replay_id`. Each
    /// event comes once per replay id and route, however often this is repeated.
    /// Durable when it returns. At most about 100,000 in one call.
    pub async fn redeliver(
        &self,
        route: RouteId,
        deliveries: Vec<Redelivery>,
        replay_id: &str,
    ) -> Result<Redelivered, BusError> {
        self.handle
            .core()
            .redeliver(route, deliveries, replay_id)
            .await
    }

    /// How many deliveries of a replay are pending on a route.
    #[must_use]
    pub fn replay_pending(&self, route: RouteId, replay_id: &str) -> u64 {
        self.handle.core().replay_pending(route, replay_id)
    }

    /// Drops deliveries of a replay that nobody holds, for a stated reason, which the
    /// log keeps; they count as purged. Returns how many.
    pub async fn withdraw_replay(
        &self,
        route: RouteId,
        replay_id: &str,
        why: &str,
    ) -> Result<u64, BusError> {
        self.handle
            .core()
            .withdraw_replay(route, replay_id, why)
            .await
    }

    // ---- reading ----

    /// One event by its sequence number; `None` when it is not kept.
    pub fn get(&self, seq: u64) -> Result<Option<Arc<StoredEvent>>, BusError> {
        self.handle.core().get(seq)
    }

    /// The newest event with this id on this label, within what is kept. Answers from
    /// memory within the dedupe window, else looks through the side indexes
    /// (8 bytes per event kept).
    pub fn find(&self, bus: &str, id: &str) -> Result<Option<Arc<StoredEvent>>, BusError> {
        self.handle.core().find(bus, id)
    }

    /// Up to `limit` events of all labels in order, from `from_seq` on. Reads by
    /// position with its own file handles: a slow reader does not slow the writer.
    /// Sequence numbers may have gaps (what retention dropped).
    pub fn read(&self, from_seq: u64, limit: usize) -> Result<Vec<Arc<StoredEvent>>, BusError> {
        self.handle.core().read(from_seq, limit)
    }

    /// The first sequence number accepted at or after `ms` (Unix milliseconds), or the
    /// next one to be given out. Reads the one segment that it is in. Events of a time
    /// when the clock was set back may follow that are older than `ms`.
    pub fn first_seq_at(&self, ms: i64) -> Result<u64, BusError> {
        self.handle.core().first_seq_at(ms)
    }

    /// The sequence number that the next event gets.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.handle.core().next_seq()
    }

    /// The oldest sequence number that may still be kept.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.handle.core().first_seq()
    }

    /// Every event from now on, once durable. A receiver that lags loses the oldest
    /// and is told how many; it can [`Bus::read`] them.
    #[must_use]
    pub fn tail(&self) -> broadcast::Receiver<Arc<StoredEvent>> {
        self.handle.core().tail()
    }

    /// What became of an event. Reads the side index of every segment since, and of
    /// those that name it the whole segment (about 50 ms each).
    pub fn history(&self, seq: u64) -> Result<History, BusError> {
        self.handle.core().history(seq)
    }

    /// Events caused directly by the event with this id, oldest first. Looks through
    /// the side indexes of what is kept (4 bytes per event).
    pub fn by_cause(&self, id: &str) -> Result<Vec<Arc<StoredEvent>>, BusError> {
        self.handle.core().by_cause(id)
    }

    /// Events whose chain of causes starts at this id, itself included, oldest first.
    /// Costs the same as [`Bus::by_cause`].
    pub fn by_root(&self, root: &str) -> Result<Vec<Arc<StoredEvent>>, BusError> {
        self.handle.core().by_root(root)
    }

    // ---- books ----

    /// The ledger as it stands; cheap enough for every scrape of the metrics.
    #[must_use]
    pub fn audit(&self) -> Ledger {
        self.handle.core().audit()
    }

    /// Counts the ledger again from the oldest checkpoint that is kept, reading every
    /// segment since and checking every checksum on the way. Blocks; reads the disk.
    pub async fn verify(&self) -> Result<Verified, BusError> {
        self.handle.core_arc().verify().await
    }

    /// Size of all segments, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.handle.core().disk_bytes()
    }

    /// One round of retention, expiry, index building and free-space checks. The
    /// background thread calls it; tests and tools may.
    pub fn maintain(&self) -> Result<Maintained, BusError> {
        self.handle.core().maintain()
    }
}

#[cfg(test)]
mod tests;
