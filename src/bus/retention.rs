//! What happens in the background: closed segments get their index, old ones go,
//! dead letters expire, free space is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::core::{Core, Life, Request, Work, lock};
use super::damage::{Damage, DamageKind};
use super::error::BusError;
use super::files;
use super::item::{Attached, Item, Moved, Pos};

use super::segment;
use super::settle::millis;
use super::table::Closed;
use super::types::RouteId;

/// Events copied forward in one commit, in bytes of payload.
const MOVE_BYTES: usize = 512 << 10;
/// Dead letters expired in one commit.
const EXPIRE_AT_ONCE: usize = 1_000;

/// What one round of maintenance did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Segments dropped.
    pub dropped: u64,
    /// Events copied forward.
    pub moved: u64,
    /// Dead letters that expired.
    pub expired: u64,
    /// Side indexes written.
    pub indexed: u64,
}

/// The background thread.
pub(crate) fn run(core: &Core) {
    loop {
        {
            let guard = lock(&core.maintenance);
            if !matches!(*lock(&core.life), Life::Open) {
                return;
            }
            let waited = core
                .maintenance_signal
                .wait_timeout(guard, core.options.maintain_every);
            drop(waited.unwrap_or_else(std::sync::PoisonError::into_inner));
        }
        if !matches!(*lock(&core.life), Life::Open) {
            return;
        }
        if let Err(e) = core.maintain()
            && !matches!(e, BusError::Closed | BusError::Poisoned { .. })
        {
            tracing::warn!(error = %e, "maintenance of the log is behind");
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks this thread on a future; unlike the runtime's own way, also on a thread that
/// a runtime runs on.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// One pending or dead delivery of an event that is to be copied forward.
struct Held {
    route: RouteId,
    pos: Pos,
    dead: bool,
}

impl Core {
    pub(crate) fn maintain(&self) -> Result<Maintained, BusError> {
        let _one_at_a_time = lock(&self.maintaining);
        let mut done = Maintained::default();
        if let Ok(free) = self.fs.free_space(&self.options.dir) {
            self.free.store(free, Ordering::Relaxed);
        }
        {
            let now = self.now();
            let mut state = lock(&self.state);
            state.advance(now);
            state.wake();
            let queued = state.routes.iter().map(super::route::Route::footprint);
            self.queued.store(queued.sum(), Ordering::Relaxed);
        }
        self.note_pressure();
        self.check_open()?;
        done.indexed = self.save_indexes();
        self.forget_ids();
        self.forget_replays();
        done.expired = self.expire_dead()?;
        self.retain(&mut done)?;
        Ok(done)
    }

    fn save_indexes(&self) -> u64 {
        let mut saved = 0;
        for closed in self.table.closed() {
            let Some(index) = closed.unsaved() else {
                continue;
            };
            match files::save_index(&*self.fs, &self.options.dir, &index) {
                Ok(()) => {
                    closed.set_saved();
                    saved += 1;
                }
                Err(e) => {
                    tracing::warn!(segment = closed.meta.id, error = %e, "a side index was not written")
                }
            }
        }
        saved
    }

    /// What is no longer kept cannot be replayed again.
    fn forget_replays(&self) {
        let first = self.first_seq();
        for route in &mut lock(&self.state).routes {
            for replay in &mut route.replays {
                replay.seen.remove_range(..first);
            }
            route.replays.retain(|r| !r.seen.is_empty());
        }
    }

    fn expire_dead(&self) -> Result<u64, BusError> {
        let keep = millis(self.options.dead_letter_retention);
        let horizon = self
            .steady_ms()
            .saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
        let mut over: BTreeMap<RouteId, Vec<u64>> = BTreeMap::new();
        for route in &lock(&self.state).routes {
            let seqs = route
                .dead
                .iter()
                .filter(|(_, d)| d.dead_at_ms <= horizon)
                .map(|(&seq, _)| seq);
            let seqs: Vec<u64> = seqs.take(EXPIRE_AT_ONCE).collect();
            if !seqs.is_empty() {
                over.insert(route.id, seqs);
            }
        }
        let policy = format!("dead letters are kept for {} s", keep / 1000);
        let mut expired = 0;
        for (route, seqs) in over {
            expired += seqs.len() as u64;
            tracing::warn!(route = route.0, count = seqs.len(), "dead letters expired");
            let policy = policy.clone();
            self.plan_blocking(move |state| {
                let still =
                    |seq: &u64| state.route(route).is_some_and(|r| r.dead.contains_key(seq));
                let seqs: Vec<u64> = seqs.into_iter().filter(still).collect();
                Ok(vec![Item::Expired {
                    route,
                    seqs,
                    policy,
                }])
            })?;
        }
        Ok(expired)
    }

    /// Commits a plan from a thread that may block.
    fn plan_blocking(
        &self,
        plan: impl FnOnce(&super::state::State) -> Result<Vec<Item>, BusError> + Send + 'static,
    ) -> Result<(), BusError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Request {
            work: Work::Plan(Box::new(plan)),
            bytes: 0,
            relaxed: false,
            reply: Some(reply),
        })?;
        match wait(answer) {
            Ok(result) => result.map(|_| ()),
            Err(_) => Err(self.check_open().err().unwrap_or(BusError::Closed)),
        }
    }

    /// Drops segments that are past their time, copying forward what is still needed.
    fn retain(&self, done: &mut Maintained) -> Result<(), BusError> {
        let now = self.steady_ms();
        let [needed_for_start, _] = lock(&self.appender).checkpoints;
        let mut excess = self
            .options
            .retention_bytes
            .map_or(0, |most| self.disk_bytes().saturating_sub(most));
        for closed in self.table.closed() {
            // What a start needs, and one more in case the newest does not read.
            if closed.meta.id >= needed_for_start || closed.unsaved().is_some() {
                break;
            }
            let by_size = excess > 0;
            if !by_size && !self.past_its_time(&closed, now) {
                continue;
            }
            let total = closed.meta.next_seq - closed.meta.first_seq + closed.meta.moved.len();
            if self.surely_needed(&closed, now, by_size) * 4 > total {
                continue;
            }
            let needed = self.needed(&closed, now, by_size)?;
            if needed.len() as u64 * 4 > total {
                continue;
            }
            if self.move_forward(&closed, &needed, now, by_size, done)? {
                self.drop_segment(&closed)?;
                excess = excess.saturating_sub(closed.bytes);
                done.dropped += 1;
            }
        }
        Ok(())
    }

    fn retention_of(&self, bus: &str) -> i64 {
        let keep = self
            .options
            .retention_by_bus
            .get(bus)
            .unwrap_or(&self.options.retention);
        i64::try_from(millis(*keep)).unwrap_or(i64::MAX)
    }

    /// Whether any label's events in the segment are all older than their retention.
    /// Labels that are kept longer may be few enough to be copied.
    fn past_its_time(&self, closed: &Closed, now: i64) -> bool {
        let labels = &closed.meta.labels;
        labels
            .iter()
            .any(|(bus, stat)| now.saturating_sub(stat.newest_ms) > self.retention_of(bus))
            || labels.is_empty()
    }

    /// At least so many events of the segment must stay, found without looking at each;
    /// 0 when some may have been copied already.
    fn surely_needed(&self, closed: &Closed, now: i64, by_size: bool) -> u64 {
        let meta = &closed.meta;
        if self.table.read().moved_after(meta.id) {
            return 0;
        }
        let young = |bus: &str, newest: i64| {
            !by_size && now.saturating_sub(newest) <= self.retention_of(bus)
        };
        let labels = meta
            .labels
            .iter()
            .filter(|(bus, stat)| young(bus, stat.newest_ms));
        let young: u64 = labels.map(|(_, stat)| stat.count).sum();
        let own = meta.first_seq..meta.next_seq;
        let state = lock(&self.state);
        let pending = state.routes.iter().map(|r| r.fresh.count_in(own.clone()));
        pending.max().unwrap_or(0).max(young)
    }

    /// The events in the segment that must stay: pending, dead, part of a history, or
    /// within their label's retention.
    fn needed(&self, closed: &Arc<Closed>, now: i64, by_size: bool) -> Result<Vec<u64>, BusError> {
        let meta = &closed.meta;
        let mut held = roaring::RoaringTreemap::new();
        {
            let state = lock(&self.state);
            for route in &state.routes {
                held |= route.pending_in(meta.first_seq, meta.next_seq.saturating_sub(1));
                held.extend(
                    route
                        .dead
                        .range(meta.first_seq..meta.next_seq)
                        .map(|d| *d.0),
                );
                for seq in &meta.moved {
                    if route.is_pending(seq) || route.dead.contains_key(&seq) {
                        held.insert(seq);
                    }
                }
                let touches = |first: u32, last: Pos| {
                    first != 0 && (first..=last.segment()).contains(&meta.id)
                };
                held.extend(
                    route
                        .entries
                        .iter()
                        .filter(|(_, e)| touches(e.first_segment, e.last))
                        .map(|e| e.0),
                );
                held.extend(
                    route
                        .dead
                        .iter()
                        .filter(|(_, d)| touches(d.first_segment, d.pos))
                        .map(|d| *d.0),
                );
            }
        }
        let young = |bus: &str| {
            let stat = meta.labels.get(bus);
            !by_size
                && stat.is_some_and(|s| now.saturating_sub(s.newest_ms) <= self.retention_of(bus))
        };
        if meta.labels.keys().any(|bus| young(bus)) {
            self.add_young(closed, &young, &mut held)?;
        }
        let mut needed = Vec::new();
        for seq in &held {
            // Copied already, by an earlier round that was interrupted.
            let elsewhere = self.table.segment_of(seq)?.is_some_and(|id| id != meta.id);
            if !elsewhere || self.has_history_in(seq, meta.id) {
                needed.push(seq);
            }
        }
        Ok(needed)
    }

    fn add_young(
        &self,
        closed: &Closed,
        young: &dyn Fn(&str) -> bool,
        held: &mut roaring::RoaringTreemap,
    ) -> Result<(), BusError> {
        let index = self.table.index(closed)?;
        for rows in [&index.own, &index.moved] {
            for &seq in &rows.seqs {
                match self.fetch(seq) {
                    Ok(Some(event)) if young(&event.bus) => {
                        held.insert(seq);
                    }
                    Ok(_) | Err(BusError::Corrupt { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Whether a failed attempt or a dead letter of the event is told in this segment.
    fn has_history_in(&self, seq: u64, id: u32) -> bool {
        let spans = |first: u32, last: Pos| first != 0 && (first..=last.segment()).contains(&id);
        lock(&self.state).routes.iter().any(|r| {
            r.entries
                .get(seq)
                .is_some_and(|e| spans(e.first_segment, e.last))
                || r.dead
                    .get(&seq)
                    .is_some_and(|d| spans(d.first_segment, d.pos))
        })
    }

    /// Copies events to the end of the log. `false` when one of them changed meanwhile,
    /// so that the segment has to stay for another round.
    fn move_forward(
        &self,
        closed: &Arc<Closed>,
        needed: &[u64],
        now: i64,
        by_size: bool,
        done: &mut Maintained,
    ) -> Result<bool, BusError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for &seq in needed {
            let event = match self.fetch(seq) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(BusError::Corrupt { what, .. }) => {
                    // It cannot be copied; its segment stays as it is, for `doctor`.
                    self.note_damage(Damage::unreadable(seq, DamageKind::Unreadable, &what));
                    return Ok(false);
                }
                Err(e) => return Err(e),
            };
            let held = self.held(seq);
            let mut attached = Vec::new();
            for one in held.iter().filter(|h| !h.pos.is_none()) {
                let account = self.errors_at(one.route, seq, one.pos)?;
                let dead = one.dead.then_some((account.dead_at_ms, account.context));
                attached.push(Attached {
                    route: one.route,
                    errors: account.errors,
                    dead,
                });
            }
            bytes += event.footprint();
            batch.push((Moved { event, attached }, held));
            if bytes >= MOVE_BYTES {
                done.moved += batch.len() as u64;
                self.commit_moved(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        done.moved += batch.len() as u64;
        if !batch.is_empty() {
            self.commit_moved(batch)?;
        }
        // Whatever changed while it was being copied is still told in the old place.
        Ok(self.needed(closed, now, by_size)?.is_empty())
    }

    /// Where the history of every delivery of the event ends.
    fn held(&self, seq: u64) -> Vec<Held> {
        let state = lock(&self.state);
        let mut held = Vec::new();
        for route in &state.routes {
            if let Some(entry) = route.entries.get(seq) {
                held.push(Held {
                    route: route.id,
                    pos: entry.last,
                    dead: false,
                });
            }
            if let Some(letter) = route.dead.get(&seq) {
                held.push(Held {
                    route: route.id,
                    pos: letter.pos,
                    dead: true,
                });
            }
        }
        held
    }

    fn commit_moved(&self, batch: Vec<(Moved, Vec<Held>)>) -> Result<(), BusError> {
        self.plan_blocking(move |state| {
            let unchanged = |seq: u64, held: &[Held]| {
                held.iter().all(|h| {
                    let route = state.route(h.route);
                    let now = route.and_then(|r| {
                        let entry = r.entries.get(seq).map(|e| e.last).filter(|_| !h.dead);
                        entry.or_else(|| r.dead.get(&seq).map(|d| d.pos))
                    });
                    now.is_none_or(|pos| pos == h.pos)
                })
            };
            let same = batch
                .into_iter()
                .filter(|(moved, held)| unchanged(moved.event.seq, held));
            Ok(same
                .map(|(moved, _)| Item::Moved(Box::new(moved)))
                .collect())
        })
    }

    fn drop_segment(&self, closed: &Closed) -> Result<(), BusError> {
        let dir = &self.options.dir;
        let id = closed.meta.id;
        let older_stays = self.table.closed().first().is_some_and(|c| c.meta.id < id);
        if older_stays {
            let mut dropped = files::read_dropped(&*self.fs, dir);
            let first = self.table.closed().first().map_or(id, |c| c.meta.id);
            dropped.retain(|&d| d > first);
            dropped.push(id);
            files::write_dropped(&*self.fs, dir, &dropped)
                .map_err(|e| BusError::io("write", dir.join("dropped"), &e))?;
        }
        self.table.write().remove(id);
        lock(&self.cache).forget(closed.meta.next_seq);
        let path = segment::path(dir, id);
        self.fs
            .remove(&path)
            .map_err(|e| BusError::io("remove", path, &e))?;
        for side in [segment::index_path(dir, id), segment::holes_path(dir, id)] {
            // Not there, or left over without harm.
            let _ = self.fs.remove(&side);
        }
        self.fs
            .sync_dir(dir)
            .map_err(|e| BusError::io("sync", dir, &e))?;
        self.log_bytes
            .fetch_sub(closed.bytes.min(self.disk_bytes()), Ordering::Relaxed);
        tracing::info!(segment = id, "a segment past its retention was dropped");
        Ok(())
    }
}
