//! The small files and the first bytes of segments, as a start reads and writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::BusError;
use super::index::Index;
use super::record::{self, Kind};
use super::segment::{self, BadHeader, Header};
use super::siphash::LogKey;
use crate::storage::{self, FileSystem, Mode};

pub(crate) fn segment_sizes(
    fs: &dyn FileSystem,
    dir: &Path,
) -> Result<BTreeMap<u32, u64>, BusError> {
    let entries = fs.list(dir).map_err(|e| BusError::io("list", dir, &e))?;
    Ok(entries
        .into_iter()
        .filter_map(|e| Some((segment::id_of(&e.name, "seg")?, e.len)))
        .collect())
}

pub(crate) fn read_headers(
    fs: &dyn FileSystem,
    dir: &Path,
    sizes: &BTreeMap<u32, u64>,
) -> Result<BTreeMap<u32, Option<Header>>, BusError> {
    let mut headers = BTreeMap::new();
    for &id in sizes.keys() {
        let path = segment::path(dir, id);
        let file = fs
            .open(&path, Mode::Read)
            .map_err(|e| BusError::io("open", path.clone(), &e))?;
        let mut raw = [0; segment::HEADER];
        let header = match file.read_exact_at(0, &mut raw) {
            Ok(()) => Header::decode(&raw),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(BadHeader::Damaged),
            Err(e) => return Err(BusError::io("read", path, &e)),
        };
        match header {
            Err(BadHeader::Newer(found)) => {
                return Err(BusError::Format {
                    path,
                    found,
                    known: segment::FORMAT,
                });
            }
            other => headers.insert(id, other.ok()),
        };
    }
    Ok(headers)
}

/// Removes a last segment whose creation a crash interrupted: no header, no record.
pub(crate) fn drop_stillborn(
    fs: &dyn FileSystem,
    dir: &Path,
    sizes: &mut BTreeMap<u32, u64>,
    headers: &mut BTreeMap<u32, Option<Header>>,
) -> Result<(), BusError> {
    let Some((&last, None)) = headers.last_key_value() else {
        return Ok(());
    };
    let path = segment::path(dir, last);
    let data = storage::read_all(fs, &path).map_err(|e| BusError::io("read", path.clone(), &e))?;
    let key = headers.values().flatten().next().map(|h| h.key);
    let has_record = key.is_some_and(|k| record::after(&data, segment::salt(k, last), 0).is_some());
    // Without any readable header nothing can be told about a file that is not tiny.
    if has_record || (key.is_none() && data.len() > segment::HEADER && data.iter().any(|&b| b != 0))
    {
        return Ok(());
    }
    fs.remove(&path)
        .map_err(|e| BusError::io("remove", path, &e))?;
    fs.sync_dir(dir)
        .map_err(|e| BusError::io("sync", dir, &e))?;
    sizes.remove(&last);
    headers.remove(&last);
    Ok(())
}

/// The body of a segment's first record, when it is a sound checkpoint.
pub(crate) fn first_record(
    fs: &dyn FileSystem,
    dir: &Path,
    key: LogKey,
    id: u32,
) -> Result<Option<Bytes>, BusError> {
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
    Ok(found
        .filter(|f| f.kind == Kind::Checkpoint)
        .map(|f| data.slice(f.body..f.end)))
}

/// Writes an index file; not synced, because it can be built again.
pub(crate) fn save_index(fs: &dyn FileSystem, dir: &Path, index: &Index) -> std::io::Result<()> {
    let file = fs.open(&segment::index_path(dir, index.meta.id), Mode::Truncate)?;
    file.write_at(0, &index.encode())
}

/// Holes of a segment that are known and accounted for, as byte ranges.
pub(crate) fn read_holes(fs: &dyn FileSystem, dir: &Path, id: u32) -> Vec<(u64, u64)> {
    let Ok(data) = storage::read_all(fs, &segment::holes_path(dir, id)) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&data);
    let range = |line: &str| {
        let (from, to) = line.split_once("..")?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

/// Adds to the known holes of a segment.
pub(crate) fn add_holes(
    fs: &dyn FileSystem,
    dir: &Path,
    id: u32,
    holes: &[(u64, u64)],
) -> std::io::Result<()> {
    let mut all = read_holes(fs, dir, id);
    all.extend(
        holes
            .iter()
            .filter(|h| !all.contains(h))
            .copied()
            .collect::<Vec<_>>(),
    );
    let text: String = all
        .iter()
        .map(|(from, to)| format!("{from}..{to}\n"))
        .collect();
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
    let Ok(data) = storage::read_all(fs, &dir.join(DROPPED)) else {
        return Vec::new();
    };
    String::from_utf8_lossy(&data)
        .lines()
        .filter_map(|l| l.parse().ok())
        .collect()
}

/// Says which segments retention dropped although an older one stays.
pub(crate) fn write_dropped(fs: &dyn FileSystem, dir: &Path, ids: &[u32]) -> std::io::Result<()> {
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    replace(fs, dir, &dir.join(DROPPED), text.as_bytes())
}
