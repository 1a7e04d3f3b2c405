//! Looks at every byte of a log that is not in use, and repairs what is safe.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::damage::{Damage, DamageKind};
use super::error::BusError;
use super::files;
use super::rebuild;
use super::record::{self, Items, Kind};

use super::segment::{self, BadHeader, Header};
use crate::storage::{self, FileSystem, LockError, Mode};

/// What the doctor found in one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct SegmentReport {
    /// Its number.
    pub id: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Sound records.
    pub records: u64,
    /// Events in them.
    pub events: u64,
    /// First and last sequence number of its own events.
    pub seqs: Option<(u64, u64)>,
    /// Whether its side index is there and sound.
    pub index_sound: bool,
}

/// What the doctor found, and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct DoctorReport {
    /// Per segment.
    pub segments: Vec<SegmentReport>,
    /// All damage, known or new.
    pub damage: Vec<Damage>,
    /// Bytes of an unfinished write at the end.
    pub torn_bytes: u64,
    /// What was done, in words; empty when nothing was asked or needed.
    pub repaired: Vec<String>,
}

impl DoctorReport {
    /// Whether nothing that was acknowledged is damaged.
    #[must_use]
    pub fn sound(&self) -> bool {
        !self.damage.iter().any(Damage::is_loss)
    }
}

/// Checks every segment of the log in `dir`. With `repair`: a torn tail is cut off, side
/// indexes are built again, and holes are written down as known, so that they are not
/// reported at every start; no sound byte is ever removed.
///
/// Fails with [`BusError::InUse`] while a process has the log open.
pub fn doctor(
    dir: &Path,
    fs: &Arc<dyn FileSystem>,
    repair: bool,
) -> Result<DoctorReport, BusError> {
    let entries = fs.list(dir).map_err(|e| BusError::io("list", dir, &e))?;
    let _lock = fs.lock(&dir.join("LOCK")).map_err(|e| match e {
        LockError::Held(pid) => BusError::InUse {
            path: dir.to_owned(),
            pid,
        },
        LockError::Io(e) => BusError::io("lock", dir.join("LOCK"), &e),
    })?;
    let ids: Vec<u32> = entries
        .iter()
        .filter_map(|e| segment::id_of(&e.name, "seg"))
        .collect();
    let mut doctor = Doctor {
        dir,
        fs,
        repair,
        report: DoctorReport::default(),
    };
    let Some(key) = doctor.find_key(&ids)? else {
        return Ok(doctor.report);
    };
    let mut before = None;
    for (i, &id) in ids.iter().enumerate() {
        before = Some(doctor.segment(id, key, i + 1 == ids.len(), before)?);
    }
    let dropped = files::read_dropped(&**fs, dir);
    for pair in ids.windows(2) {
        for id in (pair[0] + 1..pair[1]).filter(|id| !dropped.contains(id)) {
            let damage = Damage::new(DamageKind::Missing, id, 0, 0, "the segment is missing");
            doctor.report.damage.push(damage);
        }
    }
    Ok(doctor.report)
}

struct Doctor<'a> {
    dir: &'a Path,
    fs: &'a Arc<dyn FileSystem>,
    repair: bool,
    report: DoctorReport,
}

impl Doctor<'_> {
    fn find_key(&mut self, ids: &[u32]) -> Result<Option<super::siphash::LogKey>, BusError> {
        let (mut key, mut bad) = (None, Vec::new());
        for &id in ids {
            let path = segment::path(self.dir, id);
            let data = storage::read_all(&**self.fs, &path)
                .map_err(|e| BusError::io("read", path.clone(), &e))?;
            match Header::decode(&data) {
                Ok(header) if header.id == id => key = key.or(Some(header.key)),
                Err(BadHeader::Newer(found)) => {
                    return Err(BusError::Format {
                        path,
                        found,
                        known: segment::FORMAT,
                    });
                }
                _ => bad.push(id),
            }
        }
        for id in bad {
            let note = "the segment's header is damaged";
            let end = segment::HEADER as u64;
            let damage = Damage::new(DamageKind::Header, id, 0, end, note);
            self.report.damage.push(damage);
            if let Some(key) = key.filter(|_| self.repair) {
                self.write_header(id, key)?;
            }
        }
        Ok(key)
    }

    /// Writes a header again: all that is needed of it is in every other segment's.
    fn write_header(&mut self, id: u32, key: super::siphash::LogKey) -> Result<(), BusError> {
        let path = segment::path(self.dir, id);
        let failed = |action| {
            let path = path.clone();
            move |e: std::io::Error| BusError::io(action, path, &e)
        };
        let file = self.fs.open(&path, Mode::Write).map_err(failed("open"))?;
        let header = Header {
            id,
            key,
            created_ms: 0,
        };
        file.write_at(0, &header.encode())
            .map_err(failed("write"))?;
        file.sync_data().map_err(failed("sync"))?;
        self.report
            .repaired
            .push(format!("segment {id}: the header was written again"));
        Ok(())
    }

    /// Checks one segment, and with it the end of the one before; returns its walk.
    fn segment(
        &mut self,
        id: u32,
        key: super::siphash::LogKey,
        last: bool,
        before: Option<(u32, record::Walk)>,
    ) -> Result<(u32, record::Walk), BusError> {
        let path = segment::path(self.dir, id);
        let data = storage::read_all(&**self.fs, &path)
            .map_err(|e| BusError::io("read", path.clone(), &e))?;
        let data = Bytes::from(data);
        let walk = record::walk(&data, segment::salt(key, id), segment::HEADER);
        let index = rebuild::index_from(&data, id, key, &walk);
        let mut report = SegmentReport {
            id,
            bytes: data.len() as u64,
            records: walk.records.len() as u64,
            events: index.own.len() as u64,
            seqs: index
                .own
                .seqs
                .first()
                .copied()
                .zip(index.own.seqs.last().copied()),
            index_sound: false,
        };
        self.undecodable(&data, id, &walk);
        self.holes(id, &walk)?;
        // Where retention dropped the one before, there is nothing to compare.
        if let Some((before, its)) = before.filter(|b| b.0 + 1 == id) {
            let lost = rebuild::lost_end(&**self.fs, self.dir, before, &its, (&data, &walk));
            self.lost_end(lost)?;
        }
        if walk.tail > 0 && last {
            self.tail(id, &walk, &path)?;
        }
        if !last {
            let saved = storage::read_all(&**self.fs, &segment::index_path(self.dir, id)).ok();
            let saved = saved.and_then(|d| super::index::Index::decode(&d).ok());
            report.index_sound =
                saved.is_some_and(|s| s.own == index.own && s.moved == index.moved);
            if !report.index_sound && self.repair {
                let written = files::save_index(&**self.fs, self.dir, &index);
                written
                    .map_err(|e| BusError::io("write", segment::index_path(self.dir, id), &e))?;
                self.report
                    .repaired
                    .push(format!("segment {id}: the side index was built again"));
            }
        }
        self.report.segments.push(report);
        Ok((id, walk))
    }

    fn undecodable(&mut self, data: &Bytes, id: u32, walk: &record::Walk) {
        for found in walk.records.iter().filter(|r| r.kind == Kind::Commit) {
            let sound = match Items::new(data.slice(found.body..found.end)) {
                Ok((_, items)) => items.into_iter().all(|i| i.is_ok()),
                Err(_) => false,
            };
            if !sound {
                let note = "a record passes its checksum and does not decode";
                let damage = Damage::new(
                    DamageKind::Hole,
                    id,
                    found.offset as u64,
                    found.end as u64,
                    note,
                );
                self.report.damage.push(damage);
            }
        }
    }

    fn holes(&mut self, id: u32, walk: &record::Walk) -> Result<(), BusError> {
        let known = files::read_holes(&**self.fs, self.dir, id);
        let mut new = Vec::new();
        for hole in &walk.holes {
            let range = (hole.from as u64, hole.to as u64);
            let (kind, note) = if known.contains(&range) {
                (DamageKind::Gap, "a hole that is known and accounted for")
            } else if hole.proven {
                new.push(range);
                (DamageKind::Hole, "records that were durable are damaged")
            } else {
                new.push(range);
                (
                    DamageKind::Gap,
                    "unsynced writes of a crash arrived out of order",
                )
            };
            self.report
                .damage
                .push(Damage::new(kind, id, range.0, range.1, note));
        }
        if self.repair && !new.is_empty() {
            let written = files::add_holes(&**self.fs, self.dir, id, &new);
            written.map_err(|e| BusError::io("write", segment::holes_path(self.dir, id), &e))?;
            self.report.repaired.push(format!(
                "segment {id}: {} holes written down as known",
                new.len()
            ));
        }
        Ok(())
    }

    fn lost_end(&mut self, lost: Option<Damage>) -> Result<(), BusError> {
        let Some(damage) = lost else { return Ok(()) };
        if self.repair {
            let (id, range) = (damage.segment, (damage.from, damage.to));
            files::add_holes(&**self.fs, self.dir, id, &[range])
                .map_err(|e| BusError::io("write", segment::holes_path(self.dir, id), &e))?;
            self.report
                .repaired
                .push(format!("segment {id}: its lost end written down as known"));
        }
        self.report.damage.push(damage);
        Ok(())
    }

    fn tail(&mut self, id: u32, walk: &record::Walk, path: &Path) -> Result<(), BusError> {
        let from = walk.sound as u64;
        self.report.torn_bytes = walk.tail as u64;
        if self.repair {
            let failed = |action| move |e: std::io::Error| BusError::io(action, path, &e);
            let file = self.fs.open(path, Mode::Write).map_err(failed("open"))?;
            file.truncate(from).map_err(failed("truncate"))?;
            file.sync_data().map_err(failed("sync"))?;
            self.report.repaired.push(format!(
                "segment {id}: {} bytes of an unfinished write cut off",
                walk.tail
            ));
        }
        Ok(())
    }
}
