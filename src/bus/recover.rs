//! Opening: what the files say, and what a crash left of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::checkpoint::{self, Link};
use super::damage::{Damage, DamageKind, RecoveryReport};
use super::dedupe::Dedupe;
use super::error::BusError;
use super::files::{
    add_holes, drop_stillborn, first_record, read_dropped, read_headers, read_holes, save_index,
    segment_sizes,
};
use super::index::{Index, Meta, meta_len};
use super::log::{Appender, create_segment};
use super::options::BusOptions;
use super::rebuild::{apply_commit, build_index, index_from, link_of, lost_end};
use super::record::{self, Kind, Walk};
use super::route::Now;
use super::segment::{self, Header};
use super::siphash::LogKey;
use super::state::State;
use super::table::{Active, Closed, Table};
use crate::clock::SharedClock;
use crate::storage::{self, File, FileSystem, Mode};

/// All that a bus is made of, recovered.
pub(crate) struct Recovered {
    pub state: State,
    pub table: Table,
    pub appender: Appender,
    pub dedupe: Dedupe,
    pub report: RecoveryReport,
}

pub(super) struct Recovery<'a> {
    pub options: &'a BusOptions,
    pub fs: &'a Arc<dyn FileSystem>,
    pub dir: &'a Path,
    pub key: LogKey,
    pub report: RecoveryReport,
    /// The two newest segments that begin with the whole state; 0 for none.
    pub checkpoints: [u32; 2],
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
    let mut recovery = Recovery {
        options,
        fs,
        dir,
        key: key.unwrap_or([0, 0]),
        report: RecoveryReport::default(),
        checkpoints: [0, 0],
    };
    if sizes.is_empty() {
        return recovery.create([clock.random(), clock.random()], now);
    }
    if key.is_none() {
        let path = segment::path(dir, sizes.keys().copied().next().unwrap_or(0));
        return Err(BusError::Corrupt {
            path,
            offset: 0,
            what: "no segment has a readable header".into(),
        });
    }
    let bad = headers
        .iter()
        .filter(|(id, header)| header.is_none_or(|h| h.id != **id));
    let bad: Vec<u32> = bad.map(|(&id, _)| id).collect();
    for id in bad {
        recovery.note_header(id, sizes.keys().next_back() == Some(&id), now)?;
    }
    recovery.run(&sizes, now)
}

impl Recovery<'_> {
    fn create(mut self, key: LogKey, now: Now) -> Result<Recovered, BusError> {
        let state = State::new(key);
        let mut first = Vec::new();
        record::begin(Kind::Checkpoint, &mut first);
        checkpoint::encode(0, 1, Some(&state), &mut first);
        let header = Header {
            id: 1,
            key,
            created_ms: now.wall,
        };
        let (file, len) = create_segment(&**self.fs, self.dir, header, &mut first)?;
        self.key = key;
        self.checkpoints = [0, 1];
        self.report.created = true;
        self.report.segments = 1;
        self.report.from_segment = 1;
        let index = Index::new(1, 1);
        Ok(self.assemble(state, Vec::new(), index, file, len, Dedupe::new()))
    }

    fn assemble(
        self,
        state: State,
        closed: Vec<Closed>,
        index: Index,
        file: Arc<dyn File>,
        len: u64,
        dedupe: Dedupe,
    ) -> Recovered {
        let id = index.meta.id;
        let active = Active {
            index,
            file: file.clone(),
            bytes: len,
        };
        let dir = self.dir.to_owned();
        let mut appender = Appender::new(self.fs.clone(), dir.clone(), self.key, id, file, len);
        appender.checkpoints = self.checkpoints;
        let table = Table::new(self.fs.clone(), dir, self.key, closed, active);
        Recovered {
            state,
            table,
            appender,
            dedupe,
            report: self.report,
        }
    }

    fn run(mut self, sizes: &BTreeMap<u32, u64>, now: Now) -> Result<Recovered, BusError> {
        let Some((&last, _)) = sizes.last_key_value() else {
            return Err(BusError::NoEvent(0));
        };
        self.check_sequence(sizes);
        let (start, mut state) = self.find_checkpoint(sizes)?;
        self.report.from_segment = start;
        self.report.segments = sizes.len();
        let mut closed = Vec::new();
        for (&id, &bytes) in sizes.range(..start) {
            closed.push(Closed::new(self.closed_meta(id, bytes)?, bytes, None));
        }
        let (mut active, mut ended) = (None, None);
        for (&id, &bytes) in sizes.range(start..) {
            let (index, walk, data) = self.replay(id, &mut state, now)?;
            if let Some((before, its)) = ended.as_ref().filter(|e: &&(u32, Walk)| e.0 + 1 == id) {
                let next = (&data, &walk);
                let lost = lost_end(&**self.fs, self.dir, *before, its, next);
                self.report.damage.extend(lost);
            }
            ended = Some((id, walk.clone()));
            if id == last {
                active = Some((index, walk, data));
            } else {
                let fresh = self.saved_meta(id).as_ref() != Some(&index.meta);
                if fresh {
                    self.report.rebuilt_indexes += 1;
                    let _ = save_index(&**self.fs, self.dir, &index);
                }
                closed.push(Closed::new(index.meta, bytes, None));
            }
        }
        let Some((index, walk, data)) = active else {
            return Err(BusError::NoEvent(0));
        };
        if walk.proof == 0
            && let Some(before) = last.checked_sub(1).filter(|id| sizes.contains_key(id))
        {
            self.mend_closed(before, link_of(&data, &walk))?;
        }
        let (file, len) = self.mend_tail(last, &data, &walk)?;
        self.fs
            .sync_dir(self.dir)
            .map_err(|e| BusError::io("sync", self.dir, &e))?;
        state.rearm(now);
        let dedupe = self.fill_dedupe(&closed, &index, now)?;
        self.checkpoints = [self.checkpoint_before(sizes, start)?, start];
        Ok(self.assemble(state, closed, index, file, len, dedupe))
    }

    /// Notices segments that are missing between others.
    fn check_sequence(&mut self, sizes: &BTreeMap<u32, u64>) {
        let dropped = read_dropped(&**self.fs, self.dir);
        let Some((&first, _)) = sizes.first_key_value() else {
            return;
        };
        let Some((&last, _)) = sizes.last_key_value() else {
            return;
        };
        for id in first..last {
            if !sizes.contains_key(&id) && !dropped.contains(&id) {
                self.report.damage.push(Damage::new(
                    DamageKind::Missing,
                    id,
                    0,
                    0,
                    "the segment is missing",
                ));
            }
        }
    }

    pub(super) fn load(&self, id: u32) -> Result<Bytes, BusError> {
        let path = segment::path(self.dir, id);
        let data =
            storage::read_all(&**self.fs, &path).map_err(|e| BusError::io("read", path, &e))?;
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
                    Err(e) => self.note_checkpoint(
                        id,
                        &format!("the checkpoint does not decode: expected {e}"),
                    ),
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
                        self.report.damage.push(Damage::new(
                            DamageKind::Gap,
                            id,
                            segment::HEADER as u64,
                            0,
                            note,
                        ));
                    }
                }
            }
            proven = proven || self.proof(id)? > 0;
        }
        if first > 1 {
            self.note_checkpoint(
                first,
                "no checkpoint is readable; the queues are counted from the oldest segment",
            );
        }
        Ok((first, State::new(self.key)))
    }

    /// The newest segment before `start` that begins with a full checkpoint; 0 if none.
    fn checkpoint_before(&self, sizes: &BTreeMap<u32, u64>, start: u32) -> Result<u32, BusError> {
        for &id in sizes.range(..start).rev().map(|(id, _)| id) {
            let link = self
                .first_record(id)?
                .and_then(|b| checkpoint::link(&b).ok());
            if link.is_some_and(|l| l.full) {
                return Ok(id);
            }
        }
        Ok(0)
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
        let kind = if proven {
            DamageKind::Header
        } else {
            DamageKind::Gap
        };
        let damage = Damage::new(
            kind,
            id,
            0,
            segment::HEADER as u64,
            "the segment's header is damaged",
        );
        self.report.damage.push(damage);
        if last {
            let path = segment::path(self.dir, id);
            let header = Header {
                id,
                key: self.key,
                created_ms: now.wall,
            };
            let file = self
                .fs
                .open(&path, Mode::Write)
                .map_err(|e| BusError::io("open", path.clone(), &e))?;
            file.write_at(0, &header.encode())
                .map_err(|e| BusError::io("write", path, &e))?;
        }
        Ok(())
    }

    fn note_checkpoint(&mut self, id: u32, note: &str) {
        self.report.damage.push(Damage::new(
            DamageKind::Checkpoint,
            id,
            segment::HEADER as u64,
            0,
            note,
        ));
    }

    pub(super) fn first_record(&self, id: u32) -> Result<Option<Bytes>, BusError> {
        first_record(&**self.fs, self.dir, self.key, id)
    }

    /// Applies a segment's commits and builds its index.
    fn replay(
        &mut self,
        id: u32,
        state: &mut State,
        now: Now,
    ) -> Result<(Index, Walk, Bytes), BusError> {
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

    pub(super) fn note_holes(&mut self, id: u32, walk: &Walk) {
        let known = read_holes(&**self.fs, self.dir, id);
        for hole in &walk.holes {
            let (from, to) = (hole.from as u64, hole.to as u64);
            if known.contains(&(from, to)) {
                continue;
            }
            let damage = if hole.proven {
                Damage::new(
                    DamageKind::Hole,
                    id,
                    from,
                    to,
                    "records that were durable are damaged",
                )
            } else {
                // Written down, so that later records, which prove that all before
                // them is durable, do not turn it into a hole.
                let _ = add_holes(&**self.fs, self.dir, id, &[(from, to)]);
                Damage::new(
                    DamageKind::Gap,
                    id,
                    from,
                    to,
                    "unsynced writes of a crash arrived out of order",
                )
            };
            self.report.damage.push(damage);
        }
    }

    fn saved_meta(&self, id: u32) -> Option<Meta> {
        let file = self
            .fs
            .open(&segment::index_path(self.dir, id), Mode::Read)
            .ok()?;
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

    fn closed_meta(&mut self, id: u32, bytes: u64) -> Result<Meta, BusError> {
        let saved = self.saved_meta(id);
        if let Some(meta) = saved.as_ref().filter(|m| m.sound == bytes) {
            return Ok(meta.clone());
        }
        let data = self.load(id)?;
        let walk = record::walk(&data, segment::salt(self.key, id), segment::HEADER);
        // What follows the last record may be damage; an index that ends before it is of
        // a time when the segment was closed and, after a crash, gone on with.
        if let Some(meta) = saved.filter(|m| m.sound == walk.sound as u64) {
            return Ok(meta);
        }
        self.note_holes(id, &walk);
        let index = index_from(&data, id, self.key, &walk);
        self.report.rebuilt_indexes += 1;
        let _ = save_index(&**self.fs, self.dir, &index);
        Ok(index.meta)
    }

    /// Cuts off a torn tail and makes what stays durable.
    fn mend_tail(
        &mut self,
        last: u32,
        data: &Bytes,
        walk: &Walk,
    ) -> Result<(Arc<dyn File>, u64), BusError> {
        let path = segment::path(self.dir, last);
        let failed = |action| {
            let path = path.clone();
            move |e: std::io::Error| BusError::io(action, path, &e)
        };
        let file = self.fs.open(&path, Mode::Write).map_err(failed("open"))?;
        let len = walk.sound as u64;
        if walk.tail > 0 {
            self.report.torn_bytes += walk.tail as u64;
            file.truncate(len).map_err(failed("truncate"))?;
        }
        drop(file);
        // It may be from before a crash that took the segments after this one. Not there
        // is as good.
        let _ = self.fs.remove(&segment::index_path(self.dir, last));
        let file = self.rewrite(last, data, walk)?;
        Ok((file, len))
    }

    /// The segment before the last may have been closed without its last sync: cuts off
    /// what a crash took of its end, and says so in its list of holes.
    fn mend_closed(&mut self, id: u32, link: Option<Link>) -> Result<(), BusError> {
        let data = self.load(id)?;
        let walk = record::walk(&data, segment::salt(self.key, id), segment::HEADER);
        let file = self.rewrite(id, &data, &walk)?;
        let sound = walk.sound as u64;
        if walk.tail > 0 {
            self.report.torn_bytes += walk.tail as u64;
            let path = segment::path(self.dir, id);
            file.truncate(sound)
                .and_then(|()| file.sync_data())
                .map_err(|e| BusError::io("truncate", path, &e))?;
        }
        let said = link.map_or(0, |l| l.previous_len);
        if said > sound {
            let _ = add_holes(&**self.fs, self.dir, id, &[(sound, said)]);
        }
        Ok(())
    }

    /// Makes durable what a segment holds. A process may have ended after a sync that
    /// failed, and then the system believes its pages clean though they are not on the
    /// disk. Written again, with the same bytes, they are dirty, and whatever follows
    /// may say that all before it is durable.
    fn rewrite(&self, id: u32, data: &Bytes, walk: &Walk) -> Result<Arc<dyn File>, BusError> {
        let path = segment::path(self.dir, id);
        let file = self
            .fs
            .open(&path, Mode::Write)
            .map_err(|e| BusError::io("open", path.clone(), &e))?;
        let from = usize::try_from(walk.proof)
            .unwrap_or(walk.sound)
            .min(walk.sound);
        if from < walk.sound {
            match file.write_at(from as u64, &data[from..walk.sound]) {
                // A full disk must not keep the log from opening, to free some.
                Err(e) if e.kind() != std::io::ErrorKind::StorageFull => {
                    return Err(BusError::io("write", path, &e));
                }
                _ => {}
            }
        }
        file.sync_data()
            .map_err(|e| BusError::io("sync", path, &e))?;
        Ok(file)
    }

    fn fill_dedupe(
        &mut self,
        closed: &[Closed],
        active: &Index,
        now: Now,
    ) -> Result<Dedupe, BusError> {
        let window = longest_window(self.options);
        let mut dedupe = Dedupe::new();
        let most = super::dedupe::most(self.options.ids_bytes);
        let floor = active.meta.next_seq.saturating_sub(most);
        for one in closed {
            let too_old = now.wall.saturating_sub(one.meta.newest_ms) > window;
            if too_old || one.meta.next_seq <= floor {
                continue;
            }
            let path = segment::index_path(self.dir, one.meta.id);
            let saved = storage::read_all(&**self.fs, &path)
                .ok()
                .and_then(|d| Index::decode(&d).ok());
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
        dedupe.forget(floor);
        Ok(dedupe)
    }
}

fn note_ids(dedupe: &mut Dedupe, index: &Index) {
    for (&hash, &seq) in index.own.ids.iter().zip(&index.own.seqs) {
        dedupe.insert(hash, seq);
    }
}

/// The longest dedupe window of any label, in milliseconds.
pub(crate) fn longest_window(options: &BusOptions) -> i64 {
    let longest = options
        .dedupe_by_bus
        .values()
        .copied()
        .max()
        .unwrap_or_default()
        .max(options.dedupe_window);
    i64::try_from(longest.as_millis()).unwrap_or(i64::MAX)
}
