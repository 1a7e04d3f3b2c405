//! The writer thread: takes what queued up during the last sync, writes it as one
//! record, syncs once, applies it, answers all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batch::{Batch, Prepared, add_ended, add_events};
use super::checkpoint;
use super::core::{Core, Ended, Queue, Request, Work, lock, relaxed_weight};
use super::error::BusError;
use super::index::Index;
use super::item::{self, Item, Pos};
use super::log::WriteFailure;
use super::record::{self, CommitHead, Kind, Sum};
use super::route::Now;
use super::table::Closed;

/// How long to wait before a full disk is tried again for what nobody waits for.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(50);

/// The writer's own memory between commits.
#[derive(Default)]
pub(crate) struct Writer {
    /// The head of a record, and the items that are not events.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Duplicates met since the last commit, by label.
    duplicates: BTreeMap<Arc<str>, u64>,
}

/// Runs until the queue is closed and empty, or the log is poisoned.
pub(crate) fn run(core: &Core) {
    let _watch = Watch(core);
    let mut writer = Writer::default();
    while let Some(requests) = next(core) {
        writer.commit(core, requests);
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

/// Waits for work; `None` at the end.
fn next(core: &Core) -> Option<Vec<Request>> {
    let mut queue = lock(&core.queue);
    let mut since: Option<Instant> = None;
    loop {
        let due = queue.urgent > 0 || queue.relaxed >= core.options.relaxed_count || queue.closing;
        if queue.requests.is_empty() {
            if queue.closing || core.poisoned().is_some() {
                return None;
            }
            since = None;
            queue = core
                .queue_signal
                .wait(queue)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        }
        let waited = since.get_or_insert_with(Instant::now).elapsed();
        let Some(left) = core
            .options
            .relaxed_delay
            .checked_sub(waited)
            .filter(|l| !l.is_zero() && !due)
        else {
            return Some(take(core, &mut queue));
        };
        queue = core
            .queue_signal
            .wait_timeout(queue, left)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0;
    }
}

fn take(core: &Core, queue: &mut Queue) -> Vec<Request> {
    let mut taken = Vec::new();
    let (mut events, mut bytes) = (0, 0);
    while let Some(request) = queue.requests.front() {
        let count = match &request.work {
            Work::Plan(_) if !taken.is_empty() => break,
            Work::Plan(_) => 0,
            Work::Commit { events, .. } => events.len(),
        };
        let over = events + count > core.options.commit_events
            || bytes + request.bytes > core.options.commit_bytes;
        if over && !taken.is_empty() && count > 0 {
            break;
        }
        let Some(request) = queue.requests.pop_front() else {
            break;
        };
        events += count;
        bytes += request.bytes;
        queue.bytes -= request.bytes;
        if request.relaxed {
            queue.relaxed -= relaxed_weight(&request);
        } else {
            queue.urgent -= 1;
        }
        let alone = matches!(request.work, Work::Plan(_));
        taken.push(request);
        if alone {
            break;
        }
    }
    taken
}

impl Writer {
    fn commit(&mut self, core: &Core, requests: Vec<Request>) {
        let now = core.now();
        let mut replies = Vec::with_capacity(requests.len());
        let mut works = Vec::with_capacity(requests.len());
        for request in requests {
            replies.push((request.reply, request.relaxed, request.bytes));
            works.push(request.work);
        }
        let mut batch = self.build(core, &mut works, now);
        let result = self.write(core, &mut batch, now);
        batch.recycle(core);
        match result {
            Ok(()) => {
                for ((reply, ..), answer) in replies.into_iter().zip(batch.answers) {
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
                if broken {
                    core.poison(&error);
                }
                self.fail(core, batch, replies, works, &error, broken);
            }
        }
    }

    /// Takes back what a commit that was not written had begun.
    fn fail(
        &mut self,
        core: &Core,
        batch: Batch,
        replies: Vec<(Option<super::core::Reply>, bool, usize)>,
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
        for (label, count) in batch.duplicates {
            *self.duplicates.entry(label).or_default() += count;
        }
        let mut again = Vec::new();
        for ((reply, relaxed, bytes), work) in replies.into_iter().zip(works) {
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

    fn build(&mut self, core: &Core, works: &mut [Work], now: Now) -> Batch {
        let mut batch = Batch {
            duplicates: std::mem::take(&mut self.duplicates),
            ..Batch::default()
        };
        // Only this thread gives numbers out.
        let mut next_seq = lock(&core.state).next_seq;
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
                    let accepted =
                        add_events(core, &mut batch, std::mem::take(events), &mut next_seq, now);
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

    /// Writes, syncs and applies a batch.
    fn write(&mut self, core: &Core, batch: &mut Batch, now: Now) -> Result<(), WriteFailure> {
        if batch.is_empty() {
            // Only duplicates, or a plan without items: nothing to make durable.
            self.duplicates = std::mem::take(&mut batch.duplicates);
            return Ok(());
        }
        for (bus, count) in &batch.duplicates {
            batch.items.push(Item::Duplicates {
                bus: bus.to_string(),
                count: *count,
            });
        }
        batch.acks.sort_unstable();
        let size = batch.event_bytes() + 64 * batch.items.len() + 16 * batch.acks.len();
        self.roll_if_full(core, size as u64, now)?;
        let written = self.append(core, batch, now)?;
        self.sync(core)?;
        apply(core, batch, &written, now);
        Ok(())
    }

    /// Writes the record, the events straight from where their senders prepared them.
    fn append(
        &mut self,
        core: &Core,
        batch: &mut Batch,
        now: Now,
    ) -> Result<Written, WriteFailure> {
        let next_seq = lock(&core.state).next_seq;
        let (salt, synced, expected) = {
            let appender = lock(&core.appender);
            (appender.salt, appender.synced, appender.len)
        };
        let (head, tail) = (&mut self.head, &mut self.tail);
        head.clear();
        tail.clear();
        record::begin(Kind::Commit, head);
        CommitHead {
            next_seq,
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

    fn sync(&self, core: &Core) -> Result<(), WriteFailure> {
        let (file, len, path) = {
            let appender = lock(&core.appender);
            (appender.file.clone(), appender.len, appender.path())
        };
        file.sync_data()
            .map_err(|e| WriteFailure::Broken(BusError::io("sync", path, &e)))?;
        let mut appender = lock(&core.appender);
        appender.synced = appender.synced.max(len);
        Ok(())
    }

    fn roll_if_full(&mut self, core: &Core, size: u64, now: Now) -> Result<(), WriteFailure> {
        let len = lock(&core.appender).len;
        if len + size <= core.options.segment_bytes || len < core.options.segment_bytes / 2 {
            return Ok(());
        }
        roll(core, now)
    }
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

/// Puts relaxed settlements back that a full disk did not take. Whoever waits behind
/// them is told of the full disk rather than left waiting.
fn retry_later(core: &Core, again: Vec<Request>, error: &BusError) {
    let mut queue = lock(&core.queue);
    let mut waiting = std::mem::take(&mut queue.requests);
    (queue.urgent, queue.relaxed, queue.bytes) = (0, 0, 0);
    if queue.closing {
        // Unwritten settlements mean one more delivery, which a restart gives anyway.
        return;
    }
    waiting.retain_mut(|request| {
        if request.relaxed {
            return true;
        }
        if let Work::Commit { ended, .. } = &request.work {
            super::settle::unsettle(core, ended);
        }
        if let Some(reply) = request.reply.take() {
            let _ = reply.send(Err(error.clone()));
        }
        false
    });
    for request in again.into_iter().rev() {
        waiting.push_front(request);
    }
    queue.relaxed = waiting.iter().map(relaxed_weight).sum();
    queue.bytes = waiting.iter().map(|r| r.bytes).sum();
    queue.requests = waiting;
    drop(queue);
    std::thread::sleep(FULL_DISK_PAUSE);
}
