//! Opening: what the files say, and what a crash left of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::audit::Ledger;
use super::checkpoint;
use super::core::Core;
use super::dedupe::Dedupe;
use super::error::BusError;
use super::index::{Index, Meta, meta_len};
use super::item::Pos;
use super::log::{Appender, create_segment};
use super::options::BusOptions;
use super::record::{self, CommitHead, Items, Kind, Walk};
use super::route::Now;
use super::segment::{self, BadHeader, Header};
use super::siphash::LogKey;
use super::state::State;
use super::table::{Active, Closed, Table};
use crate::clock::SharedClock;
use crate::storage::{self, File, FileSystem, Mode};

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum DamageKind {
    /// A segment's first bytes do not hold; its records may.
    Header,
    /// Records that were durable once cannot be read. Events or settlements are lost.
    Hole,
    /// Unsynced writes of a crash reached the disk out of order. Nothing that was
    /// acknowledged is affected.
    Gap,
    /// A closed segment ends before its end.
    Truncated,
    /// A segment that must have been there is not.
    Missing,
    /// A checkpoint could not be read; an older one was used.
    Checkpoint,
    /// An event's own bytes do not hold.
    Unreadable,
}

/// One piece of damage.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// What kind.
    pub kind: DamageKind,
    /// The segment's number; 0 when it is about one event.
    pub segment: u32,
    /// First byte, or the event's sequence number when `segment` is 0.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
    /// In words.
    pub note: String,
}

impl Damage {
    pub(crate) fn new(kind: DamageKind, segment: u32, from: u64, to: u64, note: &str) -> Self {
        Self { kind, segment, from, to, note: note.to_owned() }
    }

    pub(crate) fn unreadable(seq: u64, kind: DamageKind, note: &str) -> Self {
        Self { kind, segment: 0, from: seq, to: seq + 1, note: note.to_owned() }
    }

    /// Whether something that was acknowledged may be lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        !matches!(self.kind, DamageKind::Gap | DamageKind::Header | DamageKind::Checkpoint)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segment == 0 {
            return write!(f, "event {}: {}", self.from, self.note);
        }
        write!(f, "segment {} bytes {}..{}: {}", self.segment, self.from, self.to, self.note)
    }
}

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the log is new.
    pub created: bool,
    /// Segments there are.
    pub segments: usize,
    /// Records read again.
    pub records: u64,
    /// The segment whose checkpoint was the start.
    pub from_segment: u32,
    /// Bytes of an unfinished write that were cut off.
    pub torn_bytes: u64,
    /// Side indexes that were built again.
    pub rebuilt_indexes: usize,
    /// Damage beyond a torn tail. Where [`Damage::is_loss`] is true, acknowledged data
    /// may be gone.
    pub damage: Vec<Damage>,
    /// How long it took.
    pub took: Duration,
}

/// All that a bus is made of, recovered.
pub(crate) struct Recovered {
    pub state: State,
    pub table: Table,
    pub appender: Appender,
    pub dedupe: Dedupe,
    pub report: RecoveryReport,
}

struct Recovery<'a> {
    options: &'a BusOptions,
    fs: &'a Arc<dyn FileSystem>,
    dir: &'a Path,
    key: LogKey,
    report: RecoveryReport,
}

/// Opens the log in `options.dir`, which is locked already.
pub(crate) fn open(
    options: &BusOptions,
    fs: &Arc<dyn FileSystem>,
    clock: &SharedClock,
    now: Now,
) -> Result<Recovered, BusError> {
    let dir = options.dir.as_path();
    let mut sizes = segment_sizes(&**fs, dir)?;
    let mut headers = read_headers(&**fs, dir, &sizes)?;
    drop_stillborn(&**fs, dir, &mut sizes, &mut headers)?;
    let key = headers.values().flatten().next().map(|h| h.key);
    let mut recovery = Recovery { options, fs, dir, key: key.unwrap_or([0, 0]), report: RecoveryReport::default() };
    if sizes.is_empty() {
        return recovery.create([clock.random(), clock.random()], now);
    }
    if key.is_none() {
        let path = segment::path(dir, sizes.keys().copied().next().unwrap_or(0));
        return Err(BusError::Corrupt { path, offset: 0, what: "no segment has a readable header".into() });
    }
    let bad = headers.iter().filter(|(id, header)| header.is_none_or(|h| h.id != **id));
    let bad: Vec<u32> = bad.map(|(&id, _)| id).collect();
    for id in bad {
        recovery.note_header(id, sizes.keys().next_back() == Some(&id), now)?;
    }
    recovery.run(&sizes, now)
}

fn segment_sizes(fs: &dyn FileSystem, dir: &Path) -> Result<BTreeMap<u32, u64>, BusError> {
    let entries = fs.list(dir).map_err(|e| BusError::io("list", dir, &e))?;
    Ok(entries.into_iter().filter_map(|e| Some((segment::id_of(&e.name, "seg")?, e.len))).collect())
}

fn read_headers(
    fs: &dyn FileSystem,
    dir: &Path,
    sizes: &BTreeMap<u32, u64>,
) -> Result<BTreeMap<u32, Option<Header>>, BusError> {
    let mut headers = BTreeMap::new();
    for &id in sizes.keys() {
        let path = segment::path(dir, id);
        let file = fs.open(&path, Mode::Read).map_err(|e| BusError::io("open", path.clone(), &e))?;
        let mut raw = [0; segment::HEADER];
        let header = match file.read_exact_at(0, &mut raw) {
            Ok(()) => Header::decode(&raw),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(BadHeader::Damaged),
            Err(e) => return Err(BusError::io("read", path, &e)),
        };
        match header {
            Err(BadHeader::Newer(found)) => return Err(BusError::Format { path, found, known: segment::FORMAT }),
            other => headers.insert(id, other.ok()),
        };
    }
    Ok(headers)
}

/// Removes a last segment whose creation a crash interrupted: no header, no record.
fn drop_stillborn(
    fs: &dyn FileSystem,
    dir: &Path,
    sizes: &mut BTreeMap<u32, u64>,
    headers: &mut BTreeMap<u32, Option<Header>>,
) -> Result<(), BusError> {
    let Some((&last, None)) = headers.last_key_value() else { return Ok(()) };
    let path = segment::path(dir, last);
    let data = storage::read_all(fs, &path).map_err(|e| BusError::io("read", path.clone(), &e))?;
    let key = headers.values().flatten().next().map(|h| h.key);
    let has_record = key.is_some_and(|k| record::after(&data, segment::salt(k, last), 0).is_some());
    // Without any readable header nothing can be told about a file that is not tiny.
    if has_record || (key.is_none() && data.len() > segment::HEADER && data.iter().any(|&b| b != 0)) {
        return Ok(());
    }
    fs.remove(&path).map_err(|e| BusError::io("remove", path, &e))?;
    fs.sync_dir(dir).map_err(|e| BusError::io("sync", dir, &e))?;
    sizes.remove(&last);
    headers.remove(&last);
    Ok(())
}

impl Recovery<'_> {
    fn create(mut self, key: LogKey, now: Now) -> Result<Recovered, BusError> {
        let state = State::new(key);
        let mut first = Vec::new();
        record::begin(Kind::Checkpoint, &mut first);
        checkpoint::encode(0, 1, Some(&state), &mut first);
        let header = Header { id: 1, key, created_ms: now.wall };
        let (file, len) = create_segment(&**self.fs, self.dir, header, &mut first)?;
        self.key = key;
        self.report.created = true;
        self.report.segments = 1;
        self.report.from_segment = 1;
        let index = Index::new(1, 1);
        Ok(self.assemble(state, BTreeMap::new(), index, file, len, Dedupe::new()))
    }

    fn assemble(
        self,
        state: State,
        closed: BTreeMap<u32, Arc<Closed>>,
        index: Index,
        file: Arc<dyn File>,
        len: u64,
        dedupe: Dedupe,
    ) -> Recovered {
        let id = index.meta.id;
        let active = Active { index, file: file.clone(), bytes: len };
        let dir = self.dir.to_owned();
        let appender = Appender::new(self.fs.clone(), dir.clone(), self.key, id, file, len);
        let table = Table::new(self.fs.clone(), dir, self.key, closed, active);
        Recovered { state, table, appender, dedupe, report: self.report }
    }

    fn run(mut self, sizes: &BTreeMap<u32, u64>, now: Now) -> Result<Recovered, BusError> {
        let Some((&last, _)) = sizes.last_key_value() else {
            return Err(BusError::NoEvent(0));
        };
        self.check_sequence(sizes);
        let (start, mut state) = self.find_checkpoint(sizes)?;
        self.report.from_segment = start;
        self.report.segments = sizes.len();
        let mut closed = BTreeMap::new();
        for (&id, &bytes) in sizes.range(..last) {
            if id >= start {
                continue;
            }
            let meta = self.closed_meta(id)?;
            closed.insert(id, Arc::new(Closed::new(meta, bytes, None)));
        }
        let mut active = None;
        for (&id, &bytes) in sizes.range(start..) {
            let (index, walk, data) = self.replay(id, &mut state, now)?;
            if id == last {
                active = Some((index, walk, data));
            } else {
                let fresh = self.saved_meta(id).as_ref() != Some(&index.meta);
                if fresh {
                    self.report.rebuilt_indexes += 1;
                    let _ = save_index(&**self.fs, self.dir, &index);
                }
                closed.insert(id, Arc::new(Closed::new(index.meta, bytes, None)));
            }
        }
        let Some((index, walk, data)) = active else { return Err(BusError::NoEvent(0)) };
        if walk.proof == 0 {
            // The segment before may have been closed without its last sync.
            if let Some(&before) = sizes.range(..last).next_back().map(|(id, _)| id) {
                let data = self.load(before)?;
                let walk = record::walk(&data, segment::salt(self.key, before), segment::HEADER);
                self.rewrite(before, &data, &walk)?;
            }
        }
        let (file, len) = self.mend_tail(last, &data, &walk)?;
        self.fs.sync_dir(self.dir).map_err(|e| BusError::io("sync", self.dir, &e))?;
        state.rearm(now);
        let dedupe = self.fill_dedupe(&closed, &index, now)?;
        Ok(self.assemble(state, closed, index, file, len, dedupe))
    }

    /// Notices segments that are missing between others.
    fn check_sequence(&mut self, sizes: &BTreeMap<u32, u64>) {
        let dropped = read_dropped(&**self.fs, self.dir);
        let Some((&first, _)) = sizes.first_key_value() else { return };
        let Some((&last, _)) = sizes.last_key_value() else { return };
        for id in first..last {
            if !sizes.contains_key(&id) && !dropped.contains(&id) {
                self.report.damage.push(Damage::new(DamageKind::Missing, id, 0, 0, "the segment is missing"));
            }
        }
    }

    fn load(&self, id: u32) -> Result<Bytes, BusError> {
        let path = segment::path(self.dir, id);
        let data = storage::read_all(&**self.fs, &path).map_err(|e| BusError::io("read", path, &e))?;
        Ok(Bytes::from(data))
    }

    /// The newest segment that begins with a full checkpoint, and its state.
    fn find_checkpoint(&mut self, sizes: &BTreeMap<u32, u64>) -> Result<(u32, State), BusError> {
        let (&first, &last) = match (sizes.first_key_value(), sizes.last_key_value()) {
            (Some((first, _)), Some((last, _))) => (first, last),
            _ => return Err(BusError::NoEvent(0)),
        };
        // Whether a later segment holds something that was made durable, and with it
        // everything before.
        let mut proven = false;
        for &id in sizes.keys().rev() {
            let head = self.first_record(id)?;
            match head.as_ref().map(|body| (checkpoint::link(body), body)) {
                Some((Ok(link), _)) if !link.full => {}
                Some((_, body)) => match checkpoint::decode(body, self.key) {
                    Ok(state) => return Ok((id, state)),
                    Err(e) => self.note_checkpoint(id, &format!("the checkpoint does not decode: expected {e}")),
                },
                // A crash came before the checkpoint, and the segment was gone on with; or
                // an earlier start has met and accounted for it.
                None if self.begins_with_commit(id)? || self.is_known_gap(id) => {}
                None => {
                    proven |= self.proof(id)? > 0;
                    if proven {
                        self.note_checkpoint(id, "the checkpoint is damaged");
                    } else if id != last {
                        let note = "a crash interrupted the segment's first write";
                        let at = segment::HEADER as u64;
                        let _ = add_holes(&**self.fs, self.dir, id, &[(at, at)]);
                        self.report.damage.push(Damage::new(DamageKind::Gap, id, segment::HEADER as u64, 0, note));
                    }
                }
            }
            proven = proven || self.proof(id)? > 0;
        }
        if first > 1 {
            self.note_checkpoint(first, "no checkpoint is readable; the queues are counted from the oldest segment");
        }
        Ok((first, State::new(self.key)))
    }

    fn begins_with_commit(&self, id: u32) -> Result<bool, BusError> {
        let data = self.load(id)?;
        let first = record::at(&data, segment::salt(self.key, id), segment::HEADER);
        Ok(first.is_some_and(|f| f.kind == Kind::Commit))
    }

    fn is_known_gap(&self, id: u32) -> bool {
        let holes = read_holes(&**self.fs, self.dir, id);
        holes.iter().any(|h| h.0 == segment::HEADER as u64)
    }

    /// How much of a segment is known to have been durable.
    fn proof(&self, id: u32) -> Result<u64, BusError> {
        let data = self.load(id)?;
        Ok(record::walk(&data, segment::salt(self.key, id), segment::HEADER).proof)
    }

    /// Reports a damaged header. That of the last segment is written again: everything
    /// in it is known, and a crash may have kept it from the disk.
    fn note_header(&mut self, id: u32, last: bool, now: Now) -> Result<(), BusError> {
        let proven = !last || self.proof(id)? > 0;
        let kind = if proven { DamageKind::Header } else { DamageKind::Gap };
        let damage = Damage::new(kind, id, 0, segment::HEADER as u64, "the segment's header is damaged");
        self.report.damage.push(damage);
        if last {
            let path = segment::path(self.dir, id);
            let header = Header { id, key: self.key, created_ms: now.wall };
            let file = self.fs.open(&path, Mode::Write).map_err(|e| BusError::io("open", path.clone(), &e))?;
            file.write_at(0, &header.encode()).map_err(|e| BusError::io("write", path, &e))?;
        }
        Ok(())
    }

    fn note_checkpoint(&mut self, id: u32, note: &str) {
        self.report.damage.push(Damage::new(DamageKind::Checkpoint, id, segment::HEADER as u64, 0, note));
    }

    fn first_record(&self, id: u32) -> Result<Option<Bytes>, BusError> {
        first_record(&**self.fs, self.dir, self.key, id)
    }

    /// Applies a segment's commits and builds its index.
    fn replay(&mut self, id: u32, state: &mut State, now: Now) -> Result<(Index, Walk, Bytes), BusError> {
        let data = self.load(id)?;
        let walk = record::walk(&data, segment::salt(self.key, id), segment::HEADER);
        self.note_holes(id, &walk);
        let mut index = Index::new(id, state.next_seq);
        for found in &walk.records {
            self.report.records += 1;
            if found.kind == Kind::Commit {
                apply_commit(&data, id, found, self.key, Some(state), &mut index, now);
            }
        }
        index.meta.next_seq = state.next_seq;
        index.meta.sound = walk.sound as u64;
        Ok((index, walk, data))
    }

    fn note_holes(&mut self, id: u32, walk: &Walk) {
        let known = read_holes(&**self.fs, self.dir, id);
        for hole in &walk.holes {
            let (from, to) = (hole.from as u64, hole.to as u64);
            if known.contains(&(from, to)) {
                continue;
            }
            let damage = if hole.proven {
                Damage::new(DamageKind::Hole, id, from, to, "records that were durable are damaged")
            } else {
                // Written down, so that later records, which prove that all before
                // them is durable, do not turn it into a hole.
                let _ = add_holes(&**self.fs, self.dir, id, &[(from, to)]);
                Damage::new(DamageKind::Gap, id, from, to, "unsynced writes of a crash arrived out of order")
            };
            self.report.damage.push(damage);
        }
    }

    fn saved_meta(&self, id: u32) -> Option<Meta> {
        let file = self.fs.open(&segment::index_path(self.dir, id), Mode::Read).ok()?;
        let size = usize::try_from(file.len().ok()?).ok()?;
        let mut head = vec![0; size.min(4096)];
        file.read_exact_at(0, &mut head).ok()?;
        let len = meta_len(&head).filter(|&l| l <= size)?;
        if len > head.len() {
            head = vec![0; len];
            file.read_exact_at(0, &mut head).ok()?;
        }
        Meta::decode_file(&head).ok().filter(|m| m.id == id)
    }

    fn closed_meta(&mut self, id: u32) -> Result<Meta, BusError> {
        if let Some(meta) = self.saved_meta(id) {
            return Ok(meta);
        }
        let data = self.load(id)?;
        let walk = record::walk(&data, segment::salt(self.key, id), segment::HEADER);
        self.note_holes(id, &walk);
        let index = index_from(&data, id, self.key, &walk);
        self.report.rebuilt_indexes += 1;
        let _ = save_index(&**self.fs, self.dir, &index);
        Ok(index.meta)
    }

    /// Cuts off a torn tail and makes what stays durable.
    fn mend_tail(&mut self, last: u32, data: &Bytes, walk: &Walk) -> Result<(Arc<dyn File>, u64), BusError> {
        let path = segment::path(self.dir, last);
        let failed = |action| {
            let path = path.clone();
            move |e: std::io::Error| BusError::io(action, path, &e)
        };
        let file = self.fs.open(&path, Mode::Write).map_err(failed("open"))?;
        let len = walk.sound as u64;
        if walk.tail > 0 {
            self.report.torn_bytes = walk.tail as u64;
            file.truncate(len).map_err(failed("truncate"))?;
        }
        drop(file);
        let file = self.rewrite(last, data, walk)?;
        Ok((file, len))
    }

    /// Makes durable what a segment holds. A process may have ended after a sync that
    /// failed, and then the system believes its pages clean though they are not on the
    /// disk. Written again, with the same bytes, they are dirty, and whatever follows
    /// may say that all before it is durable.
    fn rewrite(&self, id: u32, data: &Bytes, walk: &Walk) -> Result<Arc<dyn File>, BusError> {
        let path = segment::path(self.dir, id);
        let file = self.fs.open(&path, Mode::Write).map_err(|e| BusError::io("open", path.clone(), &e))?;
        let from = usize::try_from(walk.proof).unwrap_or(walk.sound).min(walk.sound);
        if from < walk.sound {
            match file.write_at(from as u64, &data[from..walk.sound]) {
                // A full disk must not keep the log from opening, to free some.
                Err(e) if e.kind() != std::io::ErrorKind::StorageFull => return Err(BusError::io("write", path, &e)),
                _ => {}
            }
        }
        file.sync_data().map_err(|e| BusError::io("sync", path, &e))?;
        Ok(file)
    }

    fn fill_dedupe(
        &mut self,
        closed: &BTreeMap<u32, Arc<Closed>>,
        active: &Index,
        now: Now,
    ) -> Result<Dedupe, BusError> {
        let window = longest_window(self.options);
        let mut dedupe = Dedupe::new();
        for one in closed.values() {
            if now.wall.saturating_sub(one.meta.newest_ms) > window {
                continue;
            }
            let path = segment::index_path(self.dir, one.meta.id);
            let saved = storage::read_all(&**self.fs, &path).ok().and_then(|d| Index::decode(&d).ok());
            let index = match saved.filter(|i| i.meta == one.meta) {
                Some(index) => index,
                None => {
                    self.report.rebuilt_indexes += 1;
                    build_index(&**self.fs, self.dir, self.key, &one.meta)?
                }
            };
            note_ids(&mut dedupe, &index);
        }
        note_ids(&mut dedupe, active);
        Ok(dedupe)
    }
}

/// The body of a segment's first record, when it is a sound checkpoint.
fn first_record(fs: &dyn FileSystem, dir: &Path, key: LogKey, id: u32) -> Result<Option<Bytes>, BusError> {
    let path = segment::path(dir, id);
    let failed = |e: std::io::Error| BusError::io("read", path.clone(), &e);
    let file = fs.open(&path, Mode::Read).map_err(failed)?;
    let size = file.len().map_err(failed)?;
    let mut head = vec![0; segment::HEADER + record::HEADER];
    if size < head.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(0, &mut head).map_err(failed)?;
    let at = segment::HEADER;
    let len = u32::from_le_bytes([head[at + 4], head[at + 5], head[at + 6], head[at + 7]]) as usize;
    let end = (at + record::HEADER).saturating_add(len);
    if len > record::MAX_RECORD || end as u64 > size {
        return Ok(None);
    }
    let mut data = vec![0; end];
    file.read_exact_at(0, &mut data).map_err(failed)?;
    let data = Bytes::from(data);
    let found = record::at(&data, segment::salt(key, id), at);
    Ok(found.filter(|f| f.kind == Kind::Checkpoint).map(|f| data.slice(f.body..f.end)))
}

/// Whether a segment begins with a sound and full checkpoint.
pub(crate) fn begins_full(fs: &dyn FileSystem, dir: &Path, key: LogKey, id: u32) -> Result<bool, BusError> {
    let body = first_record(fs, dir, key, id)?;
    Ok(body.and_then(|b| checkpoint::link(&b).ok()).is_some_and(|l| l.full))
}

fn note_ids(dedupe: &mut Dedupe, index: &Index) {
    for (&hash, &seq) in index.own.ids.iter().zip(&index.own.seqs) {
        dedupe.insert(hash, seq);
    }
}

/// The longest dedupe window of any label, in milliseconds.
pub(crate) fn longest_window(options: &BusOptions) -> i64 {
    let longest = options.dedupe_by_bus.values().copied().max().unwrap_or_default().max(options.dedupe_window);
    i64::try_from(longest.as_millis()).unwrap_or(i64::MAX)
}

/// Applies one commit to the state (if given) and to the index.
fn apply_commit(
    data: &Bytes,
    id: u32,
    found: &record::Found,
    key: LogKey,
    mut state: Option<&mut State>,
    index: &mut Index,
    now: Now,
) {
    let Ok((head, items)) = Items::new(data.slice(found.body..found.end)) else { return };
    if let Some(state) = state.as_deref_mut() {
        note_lost(state, &head);
    }
    for (at, item) in items.flatten() {
        let offset = (found.body + at) as u32;
        if let Some(state) = state.as_deref_mut() {
            state.apply(&item, Pos::new(id, offset), now);
        }
        index.note(key, &item, offset);
    }
    if let Some(state) = state {
        state.flush_runs();
    }
}

/// Sequence numbers that were given out and are not in the log were in a damaged part.
fn note_lost(state: &mut State, head: &CommitHead) {
    if head.next_seq > state.next_seq {
        state.lost += head.next_seq - state.next_seq;
        state.next_seq = head.next_seq;
    }
}

pub(crate) fn index_from(data: &Bytes, id: u32, key: LogKey, walk: &Walk) -> Index {
    let mut first_seq = None;
    let mut index = Index::new(id, 0);
    for found in &walk.records {
        let body = data.slice(found.body..found.end);
        let next = match found.kind {
            Kind::Checkpoint => checkpoint::link(&body).ok().map(|l| l.next_seq),
            Kind::Commit => Items::new(body).ok().map(|(head, _)| head.next_seq),
        };
        if let Some(next) = next {
            first_seq = first_seq.or(Some(next));
            index.meta.next_seq = index.meta.next_seq.max(next);
        }
        if found.kind == Kind::Commit {
            apply_commit(data, id, found, key, None, &mut index, Now::default());
        }
    }
    index.meta.first_seq = first_seq.unwrap_or(index.meta.next_seq);
    index.meta.sound = walk.sound as u64;
    index
}

/// Builds a closed segment's index again from the segment.
pub(crate) fn build_index(fs: &dyn FileSystem, dir: &Path, key: LogKey, meta: &Meta) -> Result<Index, BusError> {
    let path = segment::path(dir, meta.id);
    let data = storage::read_all(fs, &path).map_err(|e| BusError::io("read", path, &e))?;
    let data = Bytes::from(data);
    let walk = record::walk(&data, segment::salt(key, meta.id), segment::HEADER);
    let mut index = index_from(&data, meta.id, key, &walk);
    // What the running process knows of the segment is what everybody else uses.
    index.meta = meta.clone();
    Ok(index)
}

/// Writes an index file; not synced, because it can be built again.
pub(crate) fn save_index(fs: &dyn FileSystem, dir: &Path, index: &Index) -> std::io::Result<()> {
    let file = fs.open(&segment::index_path(dir, index.meta.id), Mode::Truncate)?;
    file.write_at(0, &index.encode())
}

/// Holes of a segment that are known and accounted for, as byte ranges.
pub(crate) fn read_holes(fs: &dyn FileSystem, dir: &Path, id: u32) -> Vec<(u64, u64)> {
    let Ok(data) = storage::read_all(fs, &segment::holes_path(dir, id)) else { return Vec::new() };
    let text = String::from_utf8_lossy(&data);
    let range = |line: &str| {
        let (from, to) = line.split_once("..")?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

/// Adds to the known holes of a segment.
pub(crate) fn add_holes(fs: &dyn FileSystem, dir: &Path, id: u32, holes: &[(u64, u64)]) -> std::io::Result<()> {
    let mut all = read_holes(fs, dir, id);
    all.extend(holes.iter().filter(|h| !all.contains(h)).copied().collect::<Vec<_>>());
    let text: String = all.iter().map(|(from, to)| format!("{from}..{to}\n")).collect();
    replace(fs, dir, &segment::holes_path(dir, id), text.as_bytes())
}

/// Replaces a small file as a whole.
fn replace(fs: &dyn FileSystem, dir: &Path, path: &Path, data: &[u8]) -> std::io::Result<()> {
    let temporary: PathBuf = path.with_extension("tmp");
    let file = fs.open(&temporary, Mode::Truncate)?;
    file.write_at(0, data)?;
    file.sync_data()?;
    fs.rename(&temporary, path)?;
    fs.sync_dir(dir)
}

const DROPPED: &str = "dropped";

/// Segments that retention dropped although an older one stays.
pub(crate) fn read_dropped(fs: &dyn FileSystem, dir: &Path) -> Vec<u32> {
    let Ok(data) = storage::read_all(fs, &dir.join(DROPPED)) else { return Vec::new() };
    String::from_utf8_lossy(&data).lines().filter_map(|l| l.parse().ok()).collect()
}

/// Says which segments retention dropped although an older one stays.
pub(crate) fn write_dropped(fs: &dyn FileSystem, dir: &Path, ids: &[u32]) -> std::io::Result<()> {
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    replace(fs, dir, &dir.join(DROPPED), text.as_bytes())
}

/// Counts the ledger again from the oldest checkpoint up to byte `len` of segment `id`.
/// Returns it with the first segment read, the records read, and whether damage was met.
pub(crate) fn recount(core: &Core, id: u32, len: u64) -> Result<(Ledger, u32, u64, bool), BusError> {
    let dir = core.options.dir.as_path();
    let sizes = segment_sizes(&*core.fs, dir)?;
    let report = RecoveryReport::default();
    let mut recovery = Recovery { options: &core.options, fs: &core.fs, dir, key: core.table.key, report };
    // From the last segment back to where one was dropped: what that one held is counted
    // in the checkpoint after it, and no longer in the log.
    let mut whole = id;
    while whole > 1 && sizes.contains_key(&(whole - 1)) {
        whole -= 1;
    }
    let mut found = None;
    for &candidate in sizes.keys().filter(|c| (whole..=id).contains(c)) {
        if let Some(body) = recovery.first_record(candidate)?
            && let Ok(state) = checkpoint::decode(&body, core.table.key)
        {
            found = Some((candidate, state));
            break;
        }
    }
    let Some((start, mut state)) = found else {
        return Err(BusError::Corrupt { path: dir.to_owned(), offset: 0, what: "no checkpoint is readable".into() });
    };
    for &segment in sizes.keys().filter(|c| (start..=id).contains(c)) {
        let mut data = recovery.load(segment)?;
        if segment == id {
            data.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        }
        let walk = record::walk(&data, segment::salt(core.table.key, segment), segment::HEADER);
        recovery.note_holes(segment, &walk);
        let mut index = Index::new(segment, state.next_seq);
        for commit in &walk.records {
            recovery.report.records += 1;
            if commit.kind == Kind::Commit {
                apply_commit(&data, segment, commit, core.table.key, Some(&mut state), &mut index, Now::default());
            }
        }
    }
    let damaged = recovery.report.damage.iter().any(Damage::is_loss);
    Ok((state.ledger(), start, recovery.report.records, damaged))
}
