//! Reading what the log keeps: by number, by id, by time, by cause.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::core::{Core, lock};
use super::error::BusError;
use super::index::{self, Rows};
use super::item::{Item, Pos};
use super::record::{self, Items, Kind};
use super::segment;
use super::types::{AttemptError, History, HistoryEntry, RouteId, Step, StoredEvent};

/// The errors found at one place of the log and before it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub errors: Vec<AttemptError>,
    pub dead_at_ms: i64,
    pub context: Bytes,
}

impl Core {
    /// One event, from memory or disk.
    pub(crate) fn fetch(&self, seq: u64) -> Result<Option<Arc<StoredEvent>>, BusError> {
        let cached = lock(&self.cache).get(seq);
        match cached {
            Some(event) => Ok(Some(event)),
            None => self.table.event(seq),
        }
    }

    /// Several events in order; stops after `max_bytes` of payload.
    pub(crate) fn fetch_many(
        &self,
        seqs: &[u64],
        max_bytes: usize,
    ) -> Vec<Result<Option<Arc<StoredEvent>>, BusError>> {
        let cached: Vec<Option<Arc<StoredEvent>>> = {
            let cache = lock(&self.cache);
            seqs.iter().map(|&seq| cache.get(seq)).collect()
        };
        let mut out = Vec::with_capacity(seqs.len());
        let mut bytes = 0;
        let mut i = 0;
        while i < seqs.len() && bytes < max_bytes.max(1) {
            if let Some(event) = &cached[i] {
                bytes += event.payload.len();
                out.push(Ok(Some(event.clone())));
                i += 1;
                continue;
            }
            let end = (i..seqs.len())
                .find(|&j| cached[j].is_some())
                .unwrap_or(seqs.len());
            let read = self
                .table
                .events(&seqs[i..end], max_bytes.saturating_sub(bytes).max(1));
            i += read.len();
            bytes += read
                .iter()
                .flatten()
                .flatten()
                .map(|e| e.payload.len())
                .sum::<usize>();
            out.extend(read);
        }
        out
    }

    pub(crate) fn get(&self, seq: u64) -> Result<Option<Arc<StoredEvent>>, BusError> {
        self.fetch(seq)
    }

    pub(crate) fn next_seq(&self) -> u64 {
        lock(&self.state).next_seq
    }

    pub(crate) fn first_seq(&self) -> u64 {
        let segments = self.table.read();
        let metas = segments.closed.values().map(|c| &c.meta);
        let all = metas.chain(std::iter::once(&segments.active.index.meta));
        all.map(|m| m.moved.min().map_or(m.first_seq, |s| s.min(m.first_seq)))
            .min()
            .unwrap_or(1)
    }

    pub(crate) fn tail(&self) -> broadcast::Receiver<Arc<StoredEvent>> {
        self.tail.subscribe()
    }

    pub(crate) fn read(
        &self,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, BusError> {
        let next = self.next_seq();
        let mut out = Vec::new();
        let mut seq = from_seq.max(self.first_seq());
        while seq < next && out.len() < limit {
            let end = next.min(seq + (limit - out.len()) as u64);
            let wanted: Vec<u64> = (seq..end).collect();
            let read = self.fetch_many(&wanted, 8 << 20);
            seq += read.len() as u64;
            for event in read {
                match event {
                    Ok(found) => out.extend(found),
                    Err(e @ BusError::Corrupt { .. }) => {
                        tracing::warn!(error = %e, "an event is left out")
                    }
                    Err(e) => return Err(e),
                }
            }
            if out.is_empty() || out.len() < limit {
                seq = self.skip_gap(seq);
            }
        }
        Ok(out)
    }

    /// The next sequence number at or after `seq` that some segment may hold.
    fn skip_gap(&self, seq: u64) -> u64 {
        let segments = self.table.read();
        let active = &segments.active.index.meta;
        let metas = segments
            .closed
            .values()
            .map(|c| &c.meta)
            .chain(std::iter::once(active));
        let next = |m: &index::Meta| {
            let own = (seq < m.next_seq).then_some(seq.max(m.first_seq));
            let mut moved = m.moved.iter();
            moved.advance_to(seq);
            own.into_iter().chain(moved.next()).min()
        };
        metas.filter_map(next).min().unwrap_or(seq)
    }

    pub(crate) fn first_seq_at(&self, ms: i64) -> Result<u64, BusError> {
        let mut first = self.next_seq();
        for closed in self.table.closed() {
            if closed.meta.newest_ms < ms {
                continue;
            }
            let index = self.table.index(&closed)?;
            if let Some(seq) = self.first_of(&index.own.seqs, ms)? {
                first = first.min(seq);
                break;
            }
        }
        let (active, mut copies) = {
            let segments = self.table.read();
            let closed = segments.closed.values().map(|c| &c.meta.moved);
            let active = &segments.active.index;
            let copies = closed.chain(std::iter::once(&active.meta.moved));
            let copies: Vec<u64> = copies
                .flat_map(|m| m.iter().take_while(|&s| s < first))
                .collect();
            (active.own.seqs.clone(), copies)
        };
        if active.first().is_some_and(|&s| s < first)
            && let Some(seq) = self.first_of(&active, ms)?
        {
            first = first.min(seq);
        }
        // Copied events are older than whatever else their segment holds.
        copies.sort_unstable();
        Ok(self
            .first_of(&copies, ms)?
            .map_or(first, |seq| first.min(seq)))
    }

    /// The first of these events accepted at or after `ms`. One by one, because a clock
    /// that was set back leaves no order to search by.
    fn first_of(&self, seqs: &[u64], ms: i64) -> Result<Option<u64>, BusError> {
        let mut rest = seqs;
        while !rest.is_empty() {
            let read = self.fetch_many(rest, 4 << 20);
            for event in &read {
                match event {
                    Ok(Some(event)) if event.accepted_ms >= ms => return Ok(Some(event.seq)),
                    Ok(_) | Err(BusError::Corrupt { .. }) => {}
                    Err(e) => return Err(e.clone()),
                }
            }
            rest = &rest[read.len()..];
        }
        Ok(None)
    }

    pub(crate) fn find(&self, bus: &str, id: &str) -> Result<Option<Arc<StoredEvent>>, BusError> {
        let hash = index::id_hash(self.table.key, bus, id);
        let known = lock(&self.dedupe).get(hash);
        if let Some(seq) = known
            && let Some(event) = self.fetch(seq)?
            && *event.bus == *bus
            && event.id == id
        {
            return Ok(Some(event));
        }
        let is_it = |e: &StoredEvent| *e.bus == *bus && e.id == id;
        let found = self.search(|rows, i| rows.ids[i] == hash, is_it)?;
        Ok(found.into_iter().next_back())
    }

    pub(crate) fn by_cause(&self, id: &str) -> Result<Vec<Arc<StoredEvent>>, BusError> {
        let hash = index::short_hash(self.table.key, id);
        self.search(
            |rows, i| rows.causes[i] == hash,
            |e| e.cause.as_deref() == Some(id),
        )
    }

    pub(crate) fn by_root(&self, root: &str) -> Result<Vec<Arc<StoredEvent>>, BusError> {
        let hash = index::short_hash(self.table.key, root);
        // The root itself has no root hash of its own, so its id is looked for too.
        let mut found = self.search(|rows, i| rows.roots[i] == hash, |e| e.root() == root)?;
        let buses: Vec<Arc<str>> = lock(&self.state).buses.keys().cloned().collect();
        for bus in buses {
            found.extend(self.find(&bus, root)?.filter(|e| e.root_id.is_none()));
        }
        found.sort_by_key(|e| e.seq);
        found.dedup_by_key(|e| e.seq);
        Ok(found)
    }

    /// Looks through every segment's rows, then at the events themselves.
    fn search(
        &self,
        row: impl Fn(&Rows, usize) -> bool,
        is_it: impl Fn(&StoredEvent) -> bool,
    ) -> Result<Vec<Arc<StoredEvent>>, BusError> {
        let hits = |index: &index::Index| {
            let mut seqs = Vec::new();
            for rows in [&index.own, &index.moved] {
                seqs.extend(
                    (0..rows.len())
                        .filter(|&i| row(rows, i))
                        .map(|i| rows.seqs[i]),
                );
            }
            seqs
        };
        let mut seqs = Vec::new();
        for closed in self.table.closed() {
            seqs.extend(hits(&*self.table.index(&closed)?));
        }
        seqs.extend(hits(&self.table.read().active.index));
        seqs.sort_unstable();
        seqs.dedup();
        let mut found = Vec::new();
        for seq in seqs {
            found.extend(self.fetch(seq)?.filter(|e| is_it(e)));
        }
        Ok(found)
    }

    /// Reads the chain of failed attempts that ends at `pos`.
    pub(crate) fn errors_at(
        &self,
        route: RouteId,
        seq: u64,
        pos: Pos,
    ) -> Result<Account, BusError> {
        let mut account = Account::default();
        let mut pos = pos;
        while !pos.is_none() {
            match self.table.item(pos)? {
                Some(Item::Retry(retry)) if retry.seq == seq => {
                    account.errors.push(retry.error);
                    pos = retry.previous;
                }
                Some(Item::Dead(dead)) if dead.seq == seq => {
                    account.dead_at_ms = dead.dead_at_ms;
                    account.context = dead.context;
                    account.errors.push(dead.error);
                    pos = dead.previous;
                }
                Some(Item::Moved(moved)) if moved.event.seq == seq => {
                    if let Some(mine) = moved.attached.into_iter().find(|a| a.route == route) {
                        account.errors.extend(mine.errors.into_iter().rev());
                        if let Some((at, context)) = mine.dead {
                            (account.dead_at_ms, account.context) = (at, context);
                        }
                    }
                    break;
                }
                // Its segment was damaged or dropped: the newer part is better than none.
                _ => break,
            }
        }
        account.errors.reverse();
        Ok(account)
    }

    pub(crate) fn history(&self, seq: u64) -> Result<History, BusError> {
        let mut history = History::default();
        for closed in self.table.closed() {
            // Closed before the event was there, so nothing in it can be about it.
            if closed.meta.next_seq <= seq {
                continue;
            }
            let index = self.table.index(&closed)?;
            if index.touched.contains(seq) {
                self.history_in(closed.meta.id, seq, &mut history)?;
            }
        }
        let active = {
            let segments = self.table.read();
            let index = &segments.active.index;
            index.touched.contains(seq).then_some(index.meta.id)
        };
        if let Some(id) = active {
            self.history_in(id, seq, &mut history)?;
        }
        let now = self.now();
        let mut state = lock(&self.state);
        state.advance(now);
        for route in &state.routes {
            if let Some((standing, attempts)) = route.standing(seq) {
                history.now.push((route.id, standing, attempts));
            }
        }
        Ok(history)
    }

    fn history_in(&self, id: u32, seq: u64, history: &mut History) -> Result<(), BusError> {
        let path = segment::path(&self.options.dir, id);
        let data = crate::storage::read_all(&*self.fs, &path)
            .map_err(|e| BusError::io("read", path, &e))?;
        let data = Bytes::from(data);
        let walk = record::walk(&data, segment::salt(self.table.key, id), segment::HEADER);
        for found in walk.records.iter().filter(|r| r.kind == Kind::Commit) {
            let Ok((head, items)) = Items::new(data.slice(found.body..found.end)) else {
                continue;
            };
            for (_, item) in items.flatten() {
                note_steps(&item, seq, head.time_ms, history);
            }
        }
        Ok(())
    }
}

fn note_steps(item: &Item, seq: u64, at_ms: i64, history: &mut History) {
    let mut add = |route: RouteId, step| history.entries.push(HistoryEntry { route, at_ms, step });
    match item {
        Item::Delivered { route, seqs } if seqs.contains(&seq) => add(*route, Step::Delivered),
        Item::Retry(retry) if retry.seq == seq => {
            add(retry.route, Step::Retried(retry.error.clone()))
        }
        Item::Dead(dead) if dead.seq == seq => add(dead.route, Step::Dead),
        Item::Expired {
            route,
            seqs,
            policy,
        } if seqs.contains(&seq) => {
            add(
                *route,
                Step::Expired {
                    policy: policy.clone(),
                },
            );
        }
        Item::Purged { route, seqs, why } if seqs.contains(&seq) => {
            add(*route, Step::Purged { why: why.clone() })
        }
        Item::Redriven { from, to, seqs } if seqs.contains(&seq) => {
            add(*to, Step::Redriven { from: *from })
        }
        Item::Replayed {
            route,
            replay_id,
            deliveries,
        } if deliveries.iter().any(|d| d.0 == seq) => {
            add(
                *route,
                Step::Replayed {
                    replay_id: replay_id.clone(),
                },
            );
        }
        _ => {}
    }
}
