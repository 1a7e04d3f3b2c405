//! The writer threads: one takes what queued up, numbers it and writes it as one record;
//! then it syncs, and then it applies and answers, while others do with what came
//! meanwhile what it has done before.
//!
//! So there are three turns, and a thread takes the next one before it gives its own away:
//! commits are synced and applied in the order in which they were written. What has to
//! see all that was written before takes all turns at once, and waits by that.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use super::batch::{Batch, Prepared, add_ended, add_events};
use super::checkpoint;
use super::core::{Core, Ended, Reply, Request, Work, lock};
use super::error::BusError;
use super::index::Index;
use super::item::{self, Item, Pos};
use super::log::WriteFailure;
use super::record::{self, CommitHead, Kind, Sum};
use super::route::Now;
use super::table::Closed;
use super::waiting::{next, retry_later};

/// How many threads write: one for each turn.
pub(crate) const THREADS: usize = 3;

/// What the writers remember between commits; who has it has the first turn.
#[derive(Default)]
pub(crate) struct Writer {
    /// The head of a record, and the items that are not events.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Duplicates met since the last commit, by label.
    duplicates: BTreeMap<Arc<str>, u64>,
    /// The number after all that was written, applied or not.
    next_seq: u64,
}

/// The second turn and the third.
pub(super) struct Turns<'a> {
    core: &'a Core,
    syncing: Option<MutexGuard<'a, ()>>,
    applying: Option<MutexGuard<'a, ()>>,
}

impl<'a> Turns<'a> {
    fn none(core: &'a Core) -> Self {
        Self {
            core,
            syncing: None,
            applying: None,
        }
    }

    /// To sync; all that was written before is synced then.
    fn sync(&mut self) {
        self.syncing.get_or_insert_with(|| lock(&self.core.syncing));
    }

    /// Both, unless they are taken: all that was written before is applied.
    pub(super) fn all(&mut self) {
        self.sync();
        self.applying
            .get_or_insert_with(|| lock(&self.core.applying));
    }

    /// To apply; who comes after may sync.
    fn apply(&mut self) {
        self.all();
        self.syncing = None;
    }

    /// Whether all that was written before is applied.
    pub(super) fn are_taken(&self) -> bool {
        self.applying.is_some()
    }
}

/// Runs until the queue is closed and empty, or the log is poisoned.
pub(crate) fn run(core: &Core) {
    let _watch = Watch(core);
    loop {
        let writer = lock(&core.writing);
        let Some(requests) = next(core) else { break };
        commit(core, writer, requests);
        if core.poisoned().is_some() {
            break;
        }
    }
    // Whoever still waits hears of the end by its reply being dropped.
    let mut queue = lock(&core.queue);
    queue.closing = true;
    queue.requests.clear();
}

/// Nobody must wait for a writer that a defect has ended.
struct Watch<'a>(&'a Core);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "the writer thread panicked".to_owned();
            self.0.poison(&BusError::Poisoned { why });
            let waiting = std::mem::take(&mut lock(&self.0.queue).requests);
            drop(waiting);
        }
    }
}

/// Who waits for a request, and what of it may be tried again.
type Asked = (Option<Reply>, bool, usize);

/// Makes requests durable, applies them and answers.
fn commit(core: &Core, mut writer: MutexGuard<'_, Writer>, requests: Vec<Request>) {
    let now = core.now();
    let mut asked: Vec<Asked> = Vec::with_capacity(requests.len());
    let mut works = Vec::with_capacity(requests.len());
    for request in requests {
        asked.push((request.reply, request.relaxed, request.bytes));
        works.push(request.work);
    }
    // A plan sees the state, and what comes after sees what it has changed.
    let alone = works.iter().any(|work| matches!(work, Work::Plan(_)));
    let mut turns = Turns::none(core);
    if alone {
        turns.all();
    }
    let mut batch = writer.build(core, &mut works, now, &mut turns);
    let written = writer.write(core, &mut batch, now, &mut turns);
    match &written {
        Ok(_) => turns.sync(),
        Err(_) => turns.all(),
    }
    let mut writer = Some(writer).filter(|_| alone || written.is_err());
    let result = written.and_then(|written| finish(core, &batch, written, now, &mut turns));
    batch.recycle(core);
    match result {
        Ok(()) => {
            drop((turns, writer));
            for ((reply, ..), answer) in asked.into_iter().zip(batch.answers) {
                if let Some(reply) = reply {
                    let _ = reply.send(answer);
                }
            }
        }
        Err(failure) => {
            let (error, broken) = match failure {
                WriteFailure::Full(e) => (e, false),
                WriteFailure::Broken(e) => (e, true),
            };
            if broken && core.poisoned().is_none() {
                core.poison(&error);
            }
            if let Some(writer) = &mut writer {
                writer.keep_duplicates(&mut batch);
            }
            fail(core, batch, asked, works, &error, broken);
        }
    }
}

/// Syncs what was written and applies it.
fn finish(
    core: &Core,
    batch: &Batch,
    written: Option<Written>,
    now: Now,
    turns: &mut Turns<'_>,
) -> Result<(), WriteFailure> {
    // What was written before may not have become durable, and this comes after it.
    if let Some(why) = core.poisoned() {
        return Err(WriteFailure::Broken(BusError::Poisoned { why }));
    }
    let Some(written) = written else {
        return Ok(());
    };
    sync(core, &written)?;
    turns.apply();
    apply(core, batch, &written, now);
    Ok(())
}

/// Takes back what a commit that was not written had begun.
fn fail(
    core: &Core,
    batch: Batch,
    asked: Vec<Asked>,
    works: Vec<Work>,
    error: &BusError,
    broken: bool,
) {
    {
        let mut dedupe = lock(&core.dedupe);
        for (hash, before) in batch.inserted.into_iter().rev() {
            dedupe.undo(hash, before);
        }
    }
    let mut again = Vec::new();
    for ((reply, relaxed, bytes), work) in asked.into_iter().zip(works) {
        if relaxed && !broken {
            again.push(Request {
                work,
                bytes,
                relaxed,
                reply: None,
            });
            continue;
        }
        if let Work::Commit { ended, .. } = &work {
            super::settle::unsettle(core, ended);
        }
        if let Some(reply) = reply {
            let _ = reply.send(Err(error.clone()));
        }
    }
    if !again.is_empty() {
        retry_later(core, again, error);
    }
}

impl Writer {
    /// Counts duplicates that were not written with the next commit.
    fn keep_duplicates(&mut self, batch: &mut Batch) {
        for (label, count) in std::mem::take(&mut batch.duplicates) {
            *self.duplicates.entry(label).or_default() += count;
        }
    }

    fn build(&mut self, core: &Core, works: &mut [Work], now: Now, turns: &mut Turns<'_>) -> Batch {
        let applied = lock(&core.state).next_seq;
        // Only who has this turn gives numbers out.
        let first_seq = applied.max(self.next_seq);
        let mut batch = Batch {
            duplicates: std::mem::take(&mut self.duplicates),
            first_seq,
            next_seq: first_seq,
            in_flight: applied..first_seq,
            ..Batch::default()
        };
        for work in works {
            let answer = match work {
                Work::Plan(_) => {
                    let nothing = Work::Commit {
                        ended: Ended::default(),
                        events: Prepared::default(),
                    };
                    let Work::Plan(plan) = std::mem::replace(work, nothing) else {
                        continue;
                    };
                    plan(&lock(&core.state)).map(|items| {
                        batch.items.extend(items);
                        Vec::new()
                    })
                }
                Work::Commit { ended, events } => {
                    // What ended stays with the request, in case the write fails.
                    let events = std::mem::take(events);
                    let accepted = add_events(core, &mut batch, events, now, turns);
                    match accepted {
                        Ok(_) => add_ended(&mut batch, ended),
                        Err(_) => super::settle::unsettle(core, &std::mem::take(ended)),
                    }
                    accepted
                }
            };
            batch.answers.push(answer);
        }
        batch
    }

    /// Writes a batch; `None` when there is nothing to be made durable.
    fn write(
        &mut self,
        core: &Core,
        batch: &mut Batch,
        now: Now,
        turns: &mut Turns<'_>,
    ) -> Result<Option<Written>, WriteFailure> {
        if batch.is_empty() {
            // Only duplicates, or a plan without items.
            self.keep_duplicates(batch);
            return Ok(None);
        }
        for (bus, count) in &batch.duplicates {
            batch.items.push(Item::Duplicates {
                bus: bus.to_string(),
                count: *count,
            });
        }
        batch.acks.sort_unstable();
        let size = batch.event_bytes() + 64 * batch.items.len() + 16 * batch.acks.len();
        if is_full(core, size as u64) {
            turns.all();
            roll(core, now)?;
        }
        let written = self.append(core, batch, now)?;
        self.next_seq = batch.next_seq;
        Ok(Some(written))
    }

    /// Writes the record, the events straight from where their senders prepared them.
    fn append(
        &mut self,
        core: &Core,
        batch: &mut Batch,
        now: Now,
    ) -> Result<Written, WriteFailure> {
        let (salt, synced, expected) = {
            let appender = lock(&core.appender);
            (appender.salt, appender.synced, appender.len)
        };
        let (head, tail) = (&mut self.head, &mut self.tail);
        head.clear();
        tail.clear();
        record::begin(Kind::Commit, head);
        CommitHead {
            next_seq: batch.first_seq,
            time_ms: now.wall,
            synced,
        }
        .encode(head);
        let mut sum = Sum::new(salt, expected, head);
        let mut offsets = batch.seal(salt, &mut sum);
        for item in &batch.items {
            offsets.push((sum.len + tail.len()) as u32);
            item.encode(salt, tail);
        }
        for of_route in batch.acks.chunk_by(|a, b| a.0 == b.0) {
            item::put_delivered(of_route[0].0, of_route.iter().map(|ack| ack.1), tail);
        }
        sum.add(tail);
        let mut parts = batch.parts();
        if !tail.is_empty() {
            parts.push(tail);
        }
        let (id, start) = {
            let mut appender = lock(&core.appender);
            let start = appender.append_parts(head, &parts, sum)?;
            (appender.id, start)
        };
        let len = sum.len as u64;
        core.log_bytes.fetch_add(len, Ordering::Relaxed);
        offsets.iter_mut().for_each(|at| *at += start as u32);
        if tail.capacity() > 8 << 20 {
            *tail = Vec::new();
        }
        Ok(Written {
            segment: id,
            offsets,
            end: start + len,
        })
    }
}

/// Syncs what was written, unless the sync before has done it.
fn sync(core: &Core, written: &Written) -> Result<(), WriteFailure> {
    let (file, len, path) = {
        let appender = lock(&core.appender);
        if appender.id == written.segment && appender.synced >= written.end {
            return Ok(());
        }
        (appender.file.clone(), appender.len, appender.path())
    };
    file.sync_data()
        .map_err(|e| WriteFailure::Broken(BusError::io("sync", path, &e)))?;
    let mut appender = lock(&core.appender);
    appender.synced = appender.synced.max(len);
    Ok(())
}

/// Whether the active segment has no room for so many bytes more.
fn is_full(core: &Core, size: u64) -> bool {
    let len = lock(&core.appender).len;
    len + size > core.options.segment_bytes && len >= core.options.segment_bytes / 2
}

/// Where a commit was written.
struct Written {
    segment: u32,
    /// Of each item, the events first.
    offsets: Vec<u32>,
    end: u64,
}

/// Makes a durable commit visible: first to readers, then to receivers.
fn apply(core: &Core, batch: &Batch, written: &Written, now: Now) {
    let (events, items) = (&batch.events, &batch.items);
    let (of_events, of_items) = written.offsets.split_at(events.len());
    {
        let mut segments = core.table.write();
        let index = &mut segments.active.index;
        for ((event, &hash), &offset) in events.iter().zip(&batch.hashes).zip(of_events) {
            index.note_event(core.table.key, event, hash, offset);
        }
        for (item, &offset) in items.iter().zip(of_items) {
            index.note(core.table.key, item, offset);
        }
        for &(route, seq) in &batch.acks {
            index.touch(route, &[seq]);
        }
        segments.active.bytes = segments.active.bytes.max(written.end);
    }
    {
        let mut cache = lock(&core.cache);
        for event in events {
            cache.push(event.clone());
        }
        // Senders see to it, unless they have gone away.
        drop(cache.trim(core.options.cache_bytes / 4));
    }
    {
        let mut state = lock(&core.state);
        for event in events {
            state.apply_event(event, now);
        }
        let place = |at: u32| Pos::new(written.segment, at);
        let items = of_items.iter().zip(items);
        state.apply_all(items.map(|(&at, item)| (place(at), item)), now);
        for &(route, seq) in &batch.acks {
            state.deliver(route, seq);
        }
        state.wake();
    }
    if core.tail.receiver_count() > 0 {
        for event in events {
            // Fails only when the last receiver has just gone.
            let _ = core.tail.send(event.clone());
        }
    }
}

/// Closes the active segment and goes on in a new one, which begins with the state.
pub(crate) fn roll(core: &Core, now: Now) -> Result<(), WriteFailure> {
    let sync = |file: &Arc<dyn crate::storage::File>, path| {
        file.sync_data()
            .map_err(|e| WriteFailure::Broken(BusError::io("sync", path, &e)))
    };
    let (old, old_path) = {
        // Receivers wait meanwhile: what they lease must be in the state that the new
        // segment begins with.
        let state = lock(&core.state);
        let mut appender = lock(&core.appender);
        let full = checkpoint::estimate(&state) <= (appender.since_checkpoint + appender.len) / 4;
        let mut first = Vec::new();
        record::begin(Kind::Checkpoint, &mut first);
        checkpoint::encode(
            appender.len,
            state.next_seq,
            full.then_some(&*state),
            &mut first,
        );
        let old_path = appender.path();
        let (old, old_len) = appender.roll(&mut first, full, now.wall)?;
        core.log_bytes.fetch_add(appender.len, Ordering::Relaxed);
        let mut segments = core.table.write();
        let next = Index::new(appender.id, state.next_seq);
        let mut index = std::mem::replace(&mut segments.active.index, next);
        index.meta.sound = old_len;
        index.meta.next_seq = index.meta.next_seq.max(state.next_seq);
        segments.active.file = appender.file.clone();
        segments.active.bytes = appender.len;
        let index = Arc::new(index);
        let closed = Closed::new(index.meta.clone(), old_len, Some(index.clone()));
        segments.insert(closed);
        (old, old_path)
    };
    // Before anything in the new segment is called durable.
    sync(&old, old_path)?;
    core.maintenance_signal.notify_one();
    Ok(())
}
