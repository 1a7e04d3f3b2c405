//! Handing out: who gets which delivery, and for how long.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;

use super::core::{Core, lock};
use super::damage::{Damage, DamageKind};
use super::error::BusError;
use super::item;
use super::log::{Appender, WriteFailure};
use super::record::{self, CommitHead, Kind};
use super::route::At;
use super::settle::millis;
use super::state::State;
use super::types::{
    AttemptError, Durability, Leased, Outcome, Receive, RouteId, Settlement, StoredEvent,
};

/// How long [`super::Bus::ready`] sleeps at most before it looks again by itself.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// A delivery picked but not yet handed out.
struct Picked {
    route: RouteId,
    seq: u64,
    receipt: u64,
    attempts: u32,
    replay: Option<Arc<str>>,
}

impl Core {
    pub(crate) fn receive(
        &self,
        routes: &[RouteId],
        receive: Receive,
    ) -> Result<Vec<Leased>, BusError> {
        self.check_open()?;
        let mut handed = Vec::new();
        // More than one round only when what was picked could not be read.
        while handed.is_empty() {
            let picked = self.pick(routes, &receive);
            if picked.is_empty() {
                break;
            }
            handed = self.hand_out(picked, receive.max_bytes)?;
        }
        Ok(handed)
    }

    /// Takes what may go from its lists, without counting the attempt yet.
    fn pick(&self, routes: &[RouteId], receive: &Receive) -> Vec<Picked> {
        let now = self.now();
        let until = now.mono + millis(receive.visibility);
        let mut state = lock(&self.state);
        let busy = state.busy(routes, now);
        let mut picked = Vec::new();
        for class in [0, 1] {
            let room = receive.max - picked.len().min(receive.max);
            if room == 0 {
                break;
            }
            let found = lowest(&state, &busy, class, room);
            lease(&mut state, class, found, until, &mut picked);
        }
        picked
    }

    pub(crate) fn lease_one(
        &self,
        route: RouteId,
        seq: u64,
        visibility: Duration,
    ) -> Result<Option<u64>, BusError> {
        self.check_open()?;
        let until = self.now().mono + millis(visibility);
        let receipt = {
            let mut state = lock(&self.state);
            let receipt = state.next_receipt;
            let Some(route) = state.route_mut(route) else {
                return Ok(None);
            };
            if !route.take(seq, receipt, until) {
                return Ok(None);
            }
            state.next_receipt += 1;
            receipt
        };
        let picked = Picked {
            route,
            seq,
            receipt,
            attempts: 0,
            replay: None,
        };
        if let Err(e) = self.write_leases(std::iter::once(&picked)) {
            self.give_back(&[picked]);
            return Err(e);
        }
        Ok(Some(receipt))
    }

    pub(crate) fn holds(&self, route: RouteId, key: &str) -> bool {
        let state = lock(&self.state);
        let key = state.key_hash(Some(key));
        state
            .route(route)
            .is_some_and(|route| route.keys.holds(key))
    }

    pub(crate) fn replay_of(&self, route: RouteId, seq: u64) -> Option<Arc<str>> {
        lock(&self.state).route(route)?.replay_of(seq).cloned()
    }

    /// Reads the events, writes the leases down, gives back what is over the limit.
    fn hand_out(&self, picked: Vec<Picked>, max_bytes: usize) -> Result<Vec<Leased>, BusError> {
        let seqs: Vec<u64> = picked.iter().map(|p| p.seq).collect();
        let events = self.fetch_many(&seqs, max_bytes);
        let mut kept = Vec::with_capacity(events.len());
        let (mut back, mut unreadable) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut failed = None;
        for (i, one) in picked.into_iter().enumerate() {
            match events.get(i) {
                Some(Ok(Some(event)))
                    if kept.is_empty() || bytes + event.payload.len() <= max_bytes =>
                {
                    bytes += event.payload.len();
                    kept.push((one, event.clone()));
                }
                Some(Ok(Some(_))) | None => back.push(one),
                Some(Ok(None)) => unreadable.push((one, None)),
                Some(Err(e @ BusError::Corrupt { .. })) => unreadable.push((one, Some(e.clone()))),
                Some(Err(e)) => {
                    failed = Some(e.clone());
                    back.push(one);
                }
            }
        }
        if !kept.is_empty() || !unreadable.is_empty() {
            let all = kept
                .iter()
                .map(|k| &k.0)
                .chain(unreadable.iter().map(|u| &u.0));
            if let Err(e) = self.write_leases(all) {
                back.extend(kept.into_iter().map(|k| k.0));
                back.extend(unreadable.into_iter().map(|u| u.0));
                self.give_back(&back);
                return Err(e);
            }
        }
        self.give_back(&back);
        self.bury(unreadable);
        match failed {
            Some(e) if kept.is_empty() => Err(e),
            _ => Ok(kept
                .into_iter()
                .map(|(one, event)| leased(one, event))
                .collect()),
        }
    }

    /// Writes which deliveries are handed out, so that a process that dies of one has
    /// counted it, and counts the attempts. Not synced.
    fn write_leases<'a>(&self, picked: impl Iterator<Item = &'a Picked>) -> Result<(), BusError> {
        let mut leases: Vec<(RouteId, u64)> = picked.map(|one| (one.route, one.seq)).collect();
        leases.sort_unstable();
        let now = self.now();
        let mut record = Vec::with_capacity(64);
        let (mut state, mut appender) = self.state_and_appender();
        record::begin(Kind::Commit, &mut record);
        CommitHead {
            next_seq: state.next_seq,
            time_ms: now.wall,
            synced: appender.synced,
        }
        .encode(&mut record);
        for of_route in leases.chunk_by(|a, b| a.0 == b.0) {
            let seqs = of_route.iter().map(|lease| lease.1);
            item::put_leased(of_route[0].0, seqs, &mut record);
        }
        let appended = appender.append(&mut record);
        drop(appender);
        match appended {
            Ok(_) => {}
            Err(WriteFailure::Full(e)) => return Err(e),
            Err(WriteFailure::Broken(e)) => {
                drop(state);
                self.poison(&e);
                return Err(e);
            }
        }
        self.log_bytes
            .fetch_add(record.len() as u64, std::sync::atomic::Ordering::Relaxed);
        for (route, seq) in leases {
            if let Some(route) = state.route_mut(route) {
                route.count_attempt(seq);
            }
        }
        Ok(())
    }

    /// Both locks. A commit that is being written holds the second for a while; nobody
    /// must wait for the first meanwhile.
    fn state_and_appender(&self) -> (MutexGuard<'_, State>, MutexGuard<'_, Appender>) {
        loop {
            let state = lock(&self.state);
            match self.appender.try_lock() {
                Ok(appender) => return (state, appender),
                Err(TryLockError::Poisoned(e)) => return (state, e.into_inner()),
                Err(TryLockError::WouldBlock) => {
                    drop(state);
                    drop(lock(&self.appender));
                }
            }
        }
    }

    /// Puts back what was picked and not handed out, uncounted.
    fn give_back(&self, back: &[Picked]) {
        if back.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        for one in back {
            if let Some(route) = state.route_mut(one.route)
                && route
                    .entries
                    .get(one.seq)
                    .is_some_and(|e| e.receipt == one.receipt)
            {
                route.put_back(one.seq, |e| e.receipt = 0, At::Ready);
            }
        }
        state.wake();
    }

    /// What cannot be read can be delivered to nobody; among the dead letters
    /// somebody sees it.
    fn bury(&self, unreadable: Vec<(Picked, Option<BusError>)>) {
        for (one, error) in unreadable {
            let message = error.map_or_else(
                || "the event is not in the log".to_owned(),
                |e| e.to_string(),
            );
            self.note_damage(Damage::unreadable(
                one.seq,
                DamageKind::Unreadable,
                &message,
            ));
            let error = AttemptError {
                class: "corrupt".to_owned(),
                message,
                at_ms: self.clock.now_ms(),
                handler: "bus".to_owned(),
                ..AttemptError::default()
            };
            let outcome = Outcome::Dead {
                error,
                context: bytes::Bytes::new(),
            };
            let settlement = Settlement {
                route: one.route,
                seq: one.seq,
                receipt: one.receipt,
                outcome,
            };
            // Relaxed settlements are only queued, so there is nothing to wait for. If
            // it fails, the lease runs out and it is met again.
            let _ = self.settle_relaxed(settlement);
        }
    }

    pub(crate) fn extend(
        &self,
        route: RouteId,
        seq: u64,
        receipt: u64,
        visibility: Duration,
    ) -> bool {
        let now = self.now();
        let mut state = lock(&self.state);
        let Some(route) = state.route_mut(route) else {
            return false;
        };
        route.advance(now);
        route.extend(seq, receipt, now.mono + millis(visibility))
    }

    pub(crate) async fn ready(self: Arc<Self>, routes: Vec<RouteId>) {
        let waiter = Arc::new(Notify::new());
        loop {
            let nap = {
                let now = self.now();
                let mut state = lock(&self.state);
                let busy = state.busy(&routes, now);
                let found = busy.iter().filter_map(|&id| state.route(id));
                if found.clone().any(super::route::Route::has_ready) || self.check_open().is_err() {
                    return;
                }
                let due = found
                    .filter(|r| !r.paused)
                    .filter_map(super::route::Route::next_due)
                    .min();
                state.wait(&routes, &waiter);
                due.map_or(LONGEST_NAP, |due| {
                    Duration::from_millis(due.saturating_sub(now.mono).max(1))
                })
            };
            // Whichever comes first; both only lead to another look.
            let _ = tokio::time::timeout(nap.min(LONGEST_NAP), waiter.notified()).await;
        }
    }

    /// Errors of the attempts so far.
    pub(crate) fn attempts(&self, route: RouteId, seq: u64) -> Result<Vec<AttemptError>, BusError> {
        let last = {
            let state = lock(&self.state);
            let found = state.route(route).ok_or(BusError::UnknownRoute(route))?;
            let entry = found.entries.get(seq).map(|e| e.last);
            entry.or_else(|| found.dead.get(&seq).map(|d| d.pos))
        };
        match last {
            Some(pos) if !pos.is_none() => Ok(self.errors_at(route, seq, pos)?.errors),
            _ => Ok(Vec::new()),
        }
    }

    pub(crate) fn oldest_pending(&self, route: RouteId) -> Option<(u64, i64)> {
        let seq = lock(&self.state).route(route)?.oldest()?;
        let event = self.fetch(seq).ok().flatten()?;
        Some((seq, event.accepted_ms))
    }

    fn settle_relaxed(&self, settlement: Settlement) -> Result<(), BusError> {
        let mut settling =
            std::pin::pin!(self.settle(vec![settlement], Vec::new(), Durability::Relaxed));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match settling.as_mut().poll(&mut context) {
            std::task::Poll::Ready(result) => result.map(|_| ()),
            std::task::Poll::Pending => Ok(()),
        }
    }
}

/// The `n` lowest that may go now over several routes, of the fresh (0) or the replayed
/// (1). Costs as much as it finds, and a little for every route that has something.
fn lowest(state: &State, routes: &[RouteId], class: usize, n: usize) -> Vec<(u64, RouteId)> {
    let going = routes.iter().filter_map(|&id| state.route(id));
    let lines = going
        .filter(|route| route.has_ready())
        .flat_map(|route| route.ready(class).map(|line| (route.id, line)));
    let heads = lines.filter_map(|(id, mut line)| Some((line.next()?, id, line)));
    let mut lines: Vec<_> = heads.collect();
    if let [(first, id, line)] = &mut lines[..] {
        let seqs = std::iter::once(*first).chain(line);
        return seqs.take(n).map(|seq| (seq, *id)).collect();
    }
    let heads = lines.iter().enumerate();
    let mut heads: BinaryHeap<_> = heads
        .map(|(i, &(seq, id, _))| Reverse((seq, id, i)))
        .collect();
    let mut found = Vec::with_capacity(n.min(64));
    while found.len() < n
        && let Some(mut head) = heads.peek_mut()
    {
        let Reverse((seq, id, i)) = *head;
        found.push((seq, id));
        match lines[i].2.next() {
            Some(next) => *head = Reverse((next, id, i)),
            None => drop(std::collections::binary_heap::PeekMut::pop(head)),
        }
    }
    found
}

fn lease(
    state: &mut State,
    class: usize,
    mut found: Vec<(u64, RouteId)>,
    until: u64,
    picked: &mut Vec<Picked>,
) {
    found.sort_unstable_by_key(|&(seq, id)| (id, seq));
    let from = picked.len();
    let mut seqs = Vec::new();
    for of_route in found.chunk_by(|a, b| a.1 == b.1) {
        let id = of_route[0].1;
        seqs.clear();
        seqs.extend(of_route.iter().map(|&(seq, _)| seq));
        let receipt = state.next_receipt;
        state.next_receipt += seqs.len() as u64;
        let Some(route) = state.route_mut(id) else {
            continue;
        };
        route.lease(class, &seqs, receipt, until);
        picked.extend(seqs.iter().enumerate().map(|(i, &seq)| Picked {
            route: id,
            seq,
            receipt: receipt + i as u64,
            attempts: route.entries.get(seq).map_or(0, |e| e.attempts) + 1,
            replay: if class == 1 {
                route.replay_of(seq).cloned()
            } else {
                None
            },
        }));
    }
    // Over several routes the order is by sequence number.
    picked[from..].sort_unstable_by_key(|p| p.seq);
}

fn leased(one: Picked, event: Arc<StoredEvent>) -> Leased {
    Leased {
        route: one.route,
        seq: one.seq,
        receipt: one.receipt,
        attempts: one.attempts,
        replay: one.replay,
        event,
    }
}
