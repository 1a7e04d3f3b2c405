//! The queue state, and how each item of a commit changes it.
//!
//! The same [`State::apply`] runs on live commits and on the log at start, so that a
//! restarted bus cannot disagree with the one that stopped. Nothing here fails: an
//! item that does not fit (its counterpart was lost to damage) changes nothing, which
//! keeps the ledger balanced.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::audit::{BusCounts, Ledger, RouteLedger};
use super::busy::Busy;
use super::item::{Dead, Fate, Item, Moved, Pos, Retry};
use super::route::{At, DeadRef, Now, Removed, Replay, Route};
use super::siphash::{self, LogKey};
use super::types::{NewDelivery, RouteId, StoredEvent};

/// The state of all routes and labels.
pub(crate) struct State {
    pub key: LogKey,
    /// By number.
    pub routes: Vec<Route>,
    pub names: HashMap<String, RouteId>,
    pub buses: BTreeMap<Arc<str>, BusCounts>,
    pub next_seq: u64,
    pub lost: u64,
    pub next_receipt: u64,
    waiters: Vec<(Vec<RouteId>, Weak<Notify>)>,
    /// Runs of fresh deliveries not yet in their set, by route.
    runs: Vec<Option<(u64, u64)>>,
    /// Routes with such a run.
    running: Vec<usize>,
    busy: Busy,
}

impl State {
    pub(crate) fn new(key: LogKey) -> Self {
        Self {
            key,
            routes: Vec::new(),
            names: HashMap::new(),
            buses: BTreeMap::new(),
            next_seq: 1,
            lost: 0,
            next_receipt: 1,
            waiters: Vec::new(),
            runs: Vec::new(),
            running: Vec::new(),
            busy: Busy::default(),
        }
    }

    pub(crate) fn route(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(id.0 as usize)
    }

    pub(crate) fn route_mut(&mut self, id: RouteId) -> Option<&mut Route> {
        let route = self.routes.get_mut(id.0 as usize)?;
        self.busy.touch(id);
        Some(route)
    }

    /// Adds a route, the next by number.
    pub(crate) fn add_route(&mut self, route: Route) {
        self.busy.touch(route.id);
        self.names.insert(route.name.clone(), route.id);
        self.routes.push(route);
    }

    /// Those of the routes that something is pending on, once each and by number, with
    /// the time let pass on them.
    pub(crate) fn busy(&mut self, routes: &[RouteId], now: Now) -> Vec<RouteId> {
        let mut busy = Vec::new();
        for &id in routes {
            if !self.busy.has(id) {
                continue;
            }
            match self.routes.get_mut(id.0 as usize) {
                Some(route) if route.pending > 0 => {
                    route.advance(now);
                    busy.push(id);
                }
                _ => self.busy.idle(id),
            }
        }
        busy.sort_unstable();
        busy.dedup();
        busy
    }

    /// Hash of an ordering key; never 0, which means "none".
    pub(crate) fn key_hash(&self, key: Option<&str>) -> u64 {
        key.map_or(0, |k| {
            siphash::hash(self.key, &[b"key", k.as_bytes()]).max(1)
        })
    }

    /// A route that must be there; damage may have taken the note with its name.
    fn ensure(&mut self, id: RouteId) -> &mut Route {
        // A number beyond any plausible table comes from damage that its checksum
        // missed; it must not ask for all memory.
        let index = (id.0 as usize).min(self.routes.len() + 100_000);
        while self.routes.len() <= index {
            let n = RouteId(self.routes.len() as u32);
            let name = format!("unnamed-{}", n.0);
            self.add_route(Route::new(n, name, false));
        }
        self.busy.touch(RouteId(index as u32));
        &mut self.routes[index]
    }

    /// Applies the items of one commit in order.
    pub(crate) fn apply_all<'a>(&mut self, items: impl Iterator<Item = (Pos, &'a Item)>, now: Now) {
        for (pos, item) in items {
            self.apply(item, pos, now);
        }
        self.flush_runs();
    }

    /// Applies one item; [`State::flush_runs`] must follow before anybody looks.
    pub(crate) fn apply(&mut self, item: &Item, pos: Pos, now: Now) {
        match item {
            Item::Event(event) => self.apply_event(event, now),
            Item::Leased { route, seqs } => {
                let route = self.ensure(*route);
                seqs.iter().for_each(|&seq| route.count_attempt(seq));
            }
            Item::Delivered { route, seqs } => {
                seqs.iter().for_each(|&seq| self.deliver(*route, seq));
            }
            Item::Released { route, seqs } => {
                let route = self.ensure(*route);
                for &seq in seqs {
                    let untry = |e: &mut super::route::Entry| {
                        e.attempts = e.attempts.saturating_sub(1);
                        e.receipt = 0;
                    };
                    route.put_back(seq, untry, At::Ready);
                }
            }
            Item::Retry(retry) => self.apply_retry(retry, pos, now),
            Item::Dead(dead) => self.apply_dead(dead, pos),
            Item::Expired { route, seqs, .. } => {
                let route = self.ensure(*route);
                for &seq in seqs {
                    let gone = route.remove(seq).is_some() || route.dead.remove(&seq).is_some();
                    route.counts.expired += u64::from(gone);
                }
            }
            Item::Purged { route, seqs, .. } => {
                let route = self.ensure(*route);
                for &seq in seqs {
                    let gone = route.dead.remove(&seq).is_some() || route.remove(seq).is_some();
                    route.counts.purged += u64::from(gone);
                }
            }
            Item::Redriven { from, to, seqs } => self.apply_redriven(*from, *to, seqs),
            Item::Replayed {
                route,
                replay_id,
                deliveries,
            } => {
                self.apply_replayed(*route, replay_id, deliveries);
            }
            Item::Moved(moved) => self.apply_moved(moved, pos),
            Item::Route { id, name, ordered } => self.apply_route(*id, name, *ordered),
            Item::Paused { route, paused } => self.ensure(*route).paused = *paused,
            Item::Retired { route, fate } => self.apply_retired(*route, fate),
            Item::Duplicates { bus, count } => self.bus(bus).duplicates += count,
        }
    }

    /// A delivery is done.
    pub(crate) fn deliver(&mut self, route: RouteId, seq: u64) {
        let route = self.ensure(route);
        route.counts.delivered += u64::from(route.remove(seq).is_some());
    }

    fn bus(&mut self, label: &str) -> &mut BusCounts {
        if !self.buses.contains_key(label) {
            self.buses.insert(label.into(), BusCounts::default());
        }
        self.buses.entry(label.into()).or_default()
    }

    /// Applies an event; [`State::flush_runs`] must follow before anybody looks.
    pub(crate) fn apply_event(&mut self, event: &StoredEvent, now: Now) {
        let seq = event.seq;
        self.next_seq = self.next_seq.max(seq + 1);
        let bus = match self.buses.get_mut(&event.bus) {
            Some(bus) => bus,
            None => self.buses.entry(event.bus.clone()).or_default(),
        };
        bus.accepted += 1;
        bus.bytes += event.payload.len() as u64;
        if event.deliveries.is_empty() {
            bus.unmatched += 1;
        } else {
            bus.matched += 1;
        }
        for delivery in &event.deliveries {
            let delay = delivery
                .not_before_ms
                .and_then(|until| delay(until, event.accepted_ms, now));
            self.enqueue_new(seq, delivery, delay);
        }
    }

    fn enqueue_new(&mut self, seq: u64, delivery: &NewDelivery, delay: Option<At>) {
        let key = self.key_hash(delivery.key.as_deref());
        let id = delivery.route.0 as usize;
        let route = self.ensure(delivery.route);
        if delay.is_some() || (route.ordered && key != 0) {
            route.counts.enqueued += u64::from(route.enqueue(seq, key, delay));
            return;
        }
        if self.runs.len() <= id {
            self.runs.resize(id + 1, None);
        }
        let run = &mut self.runs[id];
        match run {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            // Two deliveries of one event on one route are one.
            Some((_, last)) if *last == seq => {}
            _ => match run.replace((seq, seq)) {
                Some(done) => self.end_run(id, done),
                None => self.running.push(id),
            },
        }
    }

    fn end_run(&mut self, id: usize, (first, last): (u64, u64)) {
        if let Some(route) = self.route_mut(RouteId(id as u32)) {
            let before = route.pending;
            route.enqueue_run(first, last);
            route.counts.enqueued += route.pending - before;
        }
    }

    /// Puts what [`State::apply`] held back into the sets.
    pub(crate) fn flush_runs(&mut self) {
        while let Some(id) = self.running.pop() {
            if let Some(run) = self.runs[id].take() {
                self.end_run(id, run);
            }
        }
    }

    fn apply_retry(&mut self, retry: &Retry, pos: Pos, now: Now) {
        let route = self.ensure(retry.route);
        let at = delay(retry.not_before_ms, retry.set_ms, now).unwrap_or(At::Ready);
        let change = |e: &mut super::route::Entry| {
            e.attempts = e.attempts.max(retry.attempts);
            e.receipt = 0;
            e.last = pos;
            if e.first_segment == 0 {
                e.first_segment = pos.segment();
            }
        };
        if route.put_back(retry.seq, change, at) {
            route.counts.retried += 1;
        }
    }

    fn apply_dead(&mut self, dead: &Dead, pos: Pos) {
        let route = self.ensure(dead.route);
        let Some(Removed { entry, key }) = route.remove(dead.seq) else {
            return;
        };
        route.counts.dead_lettered += 1;
        let first_segment = match entry.first_segment {
            0 => pos.segment(),
            first => first,
        };
        let letter = DeadRef {
            pos,
            first_segment,
            attempts: dead.attempts,
            dead_at_ms: dead.dead_at_ms,
            key,
        };
        route.dead.insert(dead.seq, letter);
    }

    fn apply_redriven(&mut self, from: RouteId, to: RouteId, seqs: &[u64]) {
        self.ensure(from);
        self.ensure(to);
        for &seq in seqs {
            if from != to && !self.can_take(to, seq) {
                continue;
            }
            let Some(letter) = self.ensure(from).dead.remove(&seq) else {
                continue;
            };
            let counts = &mut self.ensure(from).counts;
            counts.redriven += 1;
            if from != to {
                counts.moved_out += 1;
                self.ensure(to).counts.moved_in += 1;
            }
            self.ensure(to).enqueue(seq, letter.key, None);
        }
    }

    /// Whether a delivery of this event can be added to a route.
    pub(crate) fn can_take(&self, route: RouteId, seq: u64) -> bool {
        self.route(route)
            .is_some_and(|r| !r.is_pending(seq) && !r.dead.contains_key(&seq))
    }

    fn apply_replayed(&mut self, route: RouteId, id: &str, deliveries: &[(u64, u64)]) {
        let route = self.ensure(route);
        let at = match route.replays.iter().position(|r| &*r.id == id) {
            Some(at) => at,
            None => {
                let seen = roaring::RoaringTreemap::new();
                route.replays.push(Replay {
                    id: id.into(),
                    seen,
                });
                route.replays.len() - 1
            }
        };
        for &(seq, key) in deliveries {
            let blocked = route.is_pending(seq) || route.dead.contains_key(&seq);
            if !blocked && route.replays[at].seen.insert(seq) {
                route.enqueue(seq, key, None);
                route.counts.replayed += 1;
            }
        }
    }

    fn apply_moved(&mut self, moved: &Moved, pos: Pos) {
        let seq = moved.event.seq;
        for attached in &moved.attached {
            let route = self.ensure(attached.route);
            if let Some(entry) = route.entries.get_mut(seq) {
                entry.last = pos;
                entry.first_segment = pos.segment();
            }
            if let Some(letter) = route.dead.get_mut(&seq) {
                letter.pos = pos;
                letter.first_segment = pos.segment();
            }
        }
    }

    fn apply_route(&mut self, id: RouteId, name: &str, ordered: bool) {
        let route = self.ensure(id);
        let old = std::mem::replace(&mut route.name, name.to_owned());
        route.ordered = ordered;
        route.retired = false;
        if old != name {
            self.names.remove(&old);
        }
        self.names.insert(name.to_owned(), id);
    }

    fn apply_retired(&mut self, id: RouteId, fate: &Fate) {
        let backlog = self.ensure(id).all_pending();
        for seq in backlog {
            let Some(Removed { key, .. }) = self.ensure(id).remove(seq) else {
                continue;
            };
            match fate {
                Fate::MovedTo(to) if self.can_take(*to, seq) => {
                    self.ensure(id).counts.moved_out += 1;
                    let to = self.ensure(*to);
                    to.counts.moved_in += 1;
                    to.enqueue(seq, key, None);
                }
                // Also what the other route already has.
                _ => self.ensure(id).counts.purged += 1,
            }
        }
        self.ensure(id).retired = true;
    }

    /// Lets time pass on every route.
    pub(crate) fn advance(&mut self, now: Now) {
        for route in &mut self.routes {
            route.advance(now);
        }
    }

    /// Sets the due times of everything delayed anew, after a start.
    pub(crate) fn rearm(&mut self, now: Now) {
        for route in &mut self.routes {
            route.entries.update(|entry| {
                if let At::Delayed { due, until, wait } = &mut entry.at {
                    let left = u64::try_from(until.saturating_sub(now.wall)).unwrap_or(0);
                    *due = now.mono + left.min(*wait);
                }
            });
            route.list_delayed();
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let routes = self.routes.iter().map(route_ledger).collect();
        let buses = self
            .buses
            .iter()
            .map(|(k, v)| (k.to_string(), *v))
            .collect();
        Ledger {
            buses,
            routes,
            lost: self.lost,
        }
    }

    // ---- waking ----

    /// Wakes `waiter` at the next [`State::wake`] with something ready on its routes.
    pub(crate) fn wait(&mut self, routes: &[RouteId], waiter: &Arc<Notify>) {
        self.waiters.retain(|(_, w)| w.strong_count() > 0);
        self.waiters.push((routes.to_vec(), Arc::downgrade(waiter)));
    }

    /// Wakes everybody whose route has something ready.
    pub(crate) fn wake(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.retain(|(routes, waiter)| {
            let Some(waiter) = waiter.upgrade() else {
                return false;
            };
            let busy = routes.iter().filter(|&&id| self.busy.has(id));
            let mut routes = busy.filter_map(|&id| self.route(id));
            if routes.any(Route::has_ready) {
                waiter.notify_one();
                return false;
            }
            true
        });
        self.waiters = waiters;
    }

    /// Wakes everybody, as at the end.
    pub(crate) fn wake_all(&mut self) {
        for (_, waiter) in self.waiters.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }
}

/// The delay until `until`, counted from `set` (both wall clock) and from now; `None`
/// when it is over. A jump of the wall clock can shorten it, never lengthen it.
fn delay(until: i64, set: i64, now: Now) -> Option<At> {
    let wait = u64::try_from(until.saturating_sub(set)).unwrap_or(0);
    let left = u64::try_from(until.saturating_sub(now.wall))
        .unwrap_or(0)
        .min(wait);
    (left > 0).then(|| At::Delayed {
        due: now.mono + left,
        until,
        wait,
    })
}

fn route_ledger(route: &Route) -> RouteLedger {
    let c = route.counts;
    let delayed = route.delayed.len() as u64;
    let leased = route.leased + route.settling;
    RouteLedger {
        id: route.id,
        name: route.name.clone(),
        enqueued: c.enqueued,
        replayed: c.replayed,
        redriven: c.redriven,
        delivered: c.delivered,
        retried: c.retried,
        dead_lettered: c.dead_lettered,
        dead: route.dead.len() as u64,
        purged: c.purged,
        expired: c.expired,
        moved_in: c.moved_in,
        moved_out: c.moved_out,
        ready: route.pending.saturating_sub(leased + delayed),
        leased,
        delayed,
        paused: route.paused,
        retired: route.retired,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
