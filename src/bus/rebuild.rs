//! From the records of a segment to what is kept in memory: its index, and the state.

use std::path::Path;

use bytes::Bytes;

use super::audit::Ledger;
use super::checkpoint::{self, Link};
use super::core::Core;
use super::damage::{Damage, DamageKind, RecoveryReport};
use super::error::BusError;
use super::files;
use super::index::{Index, Meta};
use super::item::Pos;
use super::record::{self, CommitHead, Items, Kind, Walk};
use super::recover::Recovery;
use super::route::Now;
use super::segment;
use super::siphash::LogKey;
use super::state::State;
use crate::storage::{self, FileSystem};

/// What a segment's first record says of the one before, if it is a sound checkpoint.
pub(crate) fn link_of(data: &Bytes, walk: &Walk) -> Option<Link> {
    let first = walk.records.first()?;
    let is_link = first.kind == Kind::Checkpoint && first.offset == segment::HEADER;
    is_link.then(|| checkpoint::link(&data[first.body..first.end]).ok())?
}

/// Whether a closed segment lacks its end, though the one after it proves that it was
/// durable. Without that proof it is an unsynced end that a crash took, and the next
/// start accounts for it.
pub(crate) fn lost_end(
    fs: &dyn FileSystem,
    dir: &Path,
    id: u32,
    walk: &Walk,
    next: (&Bytes, &Walk),
) -> Option<Damage> {
    let said = link_of(next.0, next.1).map_or(0, |link| link.previous_len);
    let sound = walk.sound as u64;
    let end = said.max(sound + walk.tail as u64);
    let known = files::read_holes(fs, dir, id);
    if end == sound || next.1.proof == 0 || known.iter().any(|h| h.0 == sound) {
        return None;
    }
    let note = "the end of a closed segment is gone";
    Some(Damage::new(DamageKind::Truncated, id, sound, end, note))
}

/// Applies one commit to the state (if given) and to the index.
pub(crate) fn apply_commit(
    data: &Bytes,
    id: u32,
    found: &record::Found,
    key: LogKey,
    mut state: Option<&mut State>,
    index: &mut Index,
    now: Now,
) {
    let Ok((head, items)) = Items::new(data.slice(found.body..found.end)) else {
        return;
    };
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
pub(crate) fn note_lost(state: &mut State, head: &CommitHead) {
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
pub(crate) fn build_index(
    fs: &dyn FileSystem,
    dir: &Path,
    key: LogKey,
    meta: &Meta,
) -> Result<Index, BusError> {
    let path = segment::path(dir, meta.id);
    let data = storage::read_all(fs, &path).map_err(|e| BusError::io("read", path, &e))?;
    let data = Bytes::from(data);
    let walk = record::walk(&data, segment::salt(key, meta.id), segment::HEADER);
    let mut index = index_from(&data, meta.id, key, &walk);
    // What the running process knows of the segment is what everybody else uses.
    index.meta = meta.clone();
    Ok(index)
}

/// Counts the ledger again from the oldest checkpoint up to byte `len` of segment `id`.
/// Returns it with the first segment read, the records read, and whether damage was met.
pub(crate) fn recount(
    core: &Core,
    id: u32,
    len: u64,
) -> Result<(Ledger, u32, u64, bool), BusError> {
    let dir = core.options.dir.as_path();
    let sizes = files::segment_sizes(&*core.fs, dir)?;
    let report = RecoveryReport::default();
    let mut recovery = Recovery {
        options: &core.options,
        fs: &core.fs,
        dir,
        key: core.table.key,
        report,
        checkpoints: [0, 0],
    };
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
        return Err(BusError::Corrupt {
            path: dir.to_owned(),
            offset: 0,
            what: "no checkpoint is readable".into(),
        });
    };
    for &segment in sizes.keys().filter(|c| (start..=id).contains(c)) {
        let mut data = recovery.load(segment)?;
        if segment == id {
            data.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        }
        let walk = record::walk(
            &data,
            segment::salt(core.table.key, segment),
            segment::HEADER,
        );
        recovery.note_holes(segment, &walk);
        let mut index = Index::new(segment, state.next_seq);
        for commit in &walk.records {
            recovery.report.records += 1;
            if commit.kind == Kind::Commit {
                apply_commit(
                    &data,
                    segment,
                    commit,
                    core.table.key,
                    Some(&mut state),
                    &mut index,
                    Now::default(),
                );
            }
        }
    }
    let damaged = recovery.report.damage.iter().any(Damage::is_loss);
    Ok((state.ledger(), start, recovery.report.records, damaged))
}
