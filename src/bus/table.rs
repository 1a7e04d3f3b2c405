//! Which segments there are, and where in them an event is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;

use super::core::lock;
use super::error::BusError;
use super::index::{Index, Meta};
use super::item::{self, Item, Pos};
use super::segment;
use super::siphash::LogKey;
use super::types::StoredEvent;
use crate::storage::{File, FileSystem, Mode};

/// Loaded indexes of closed segments are kept up to this many bytes.
const INDEX_CACHE: usize = 32 << 20;
/// Neighbouring events are read together up to this many bytes.
const READ_AHEAD: usize = 256 << 10;

/// A closed segment.
pub(crate) struct Closed {
    pub meta: Meta,
    pub bytes: u64,
    /// Written by the running process and not yet on disk as a file.
    unsaved: Mutex<Option<Arc<Index>>>,
    file: Mutex<Option<Arc<dyn File>>>,
}

impl Closed {
    pub(crate) fn new(meta: Meta, bytes: u64, unsaved: Option<Arc<Index>>) -> Self {
        Self {
            meta,
            bytes,
            unsaved: Mutex::new(unsaved),
            file: Mutex::new(None),
        }
    }

    pub(crate) fn unsaved(&self) -> Option<Arc<Index>> {
        lock(&self.unsaved).clone()
    }

    pub(crate) fn set_saved(&self) {
        *lock(&self.unsaved) = None;
    }
}

/// The segment that is being written.
pub(crate) struct Active {
    pub index: Index,
    pub file: Arc<dyn File>,
    pub bytes: u64,
}

/// All segments, and the ways to the one that holds an event.
pub(crate) struct Segments {
    pub closed: BTreeMap<u32, Arc<Closed>>,
    /// Closed segments by the first sequence number that was given out in them.
    by_seq: BTreeMap<u64, u32>,
    /// Closed segments that hold copies of older events.
    movers: BTreeSet<u32>,
    pub active: Active,
}

impl Segments {
    fn new(active: Active) -> Self {
        Self {
            closed: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            movers: BTreeSet::new(),
            active,
        }
    }

    pub(crate) fn insert(&mut self, closed: Closed) {
        let meta = &closed.meta;
        if meta.next_seq > meta.first_seq {
            self.by_seq.insert(meta.first_seq, meta.id);
        }
        if !meta.moved.is_empty() {
            self.movers.insert(meta.id);
        }
        self.closed.insert(meta.id, Arc::new(closed));
    }

    pub(crate) fn remove(&mut self, id: u32) {
        self.closed.remove(&id);
        self.movers.remove(&id);
        self.by_seq.retain(|_, other| *other != id);
    }

    /// Whether events of segment `id` may have been copied into a later one.
    pub(crate) fn moved_after(&self, id: u32) -> bool {
        self.movers.range(id + 1..).next().is_some() || !self.active.index.meta.moved.is_empty()
    }

    /// The closed segments that may hold an event, the newest copy first.
    fn homes(&self, seq: u64) -> Vec<Arc<Closed>> {
        let own = self.by_seq.range(..=seq).next_back().map(|(_, id)| *id);
        let copies = self.movers.iter().rev().copied();
        let closed = copies.chain(own).filter_map(|id| self.closed.get(&id));
        let holds = |c: &&Arc<Closed>| {
            (c.meta.first_seq..c.meta.next_seq).contains(&seq) || c.meta.moved.contains(seq)
        };
        closed.filter(holds).cloned().collect()
    }
}

/// All segments. Readers share it; the writer holds it only to add what it wrote.
pub(crate) struct Table {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    pub key: LogKey,
    pub segments: RwLock<Segments>,
    loaded: Mutex<Vec<Arc<Index>>>,
}

/// Where an item is, and how much to read.
struct Place {
    segment: u32,
    offset: u32,
    file: Arc<dyn File>,
}

impl Table {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        key: LogKey,
        closed: Vec<Closed>,
        active: Active,
    ) -> Self {
        let mut segments = Segments::new(active);
        closed.into_iter().for_each(|c| segments.insert(c));
        let segments = RwLock::new(segments);
        Self {
            fs,
            dir,
            key,
            segments,
            loaded: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, Segments> {
        self.segments
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, Segments> {
        self.segments
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The closed segments, oldest first.
    pub(crate) fn closed(&self) -> Vec<Arc<Closed>> {
        self.read().closed.values().cloned().collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let segments = self.read();
        segments.closed.values().map(|c| c.bytes).sum::<u64>() + segments.active.bytes
    }

    /// The index of a closed segment, loaded, or built again when it is missing.
    pub(crate) fn index(&self, closed: &Closed) -> Result<Arc<Index>, BusError> {
        if let Some(index) = closed.unsaved() {
            return Ok(index);
        }
        let id = closed.meta.id;
        let mut loaded = lock(&self.loaded);
        if let Some(at) = loaded.iter().position(|i| i.meta.id == id) {
            let index = loaded.remove(at);
            loaded.push(index.clone());
            return Ok(index);
        }
        drop(loaded);
        let index = Arc::new(self.load_index(closed)?);
        let mut loaded = lock(&self.loaded);
        loaded.push(index.clone());
        let mut total: usize = loaded.iter().map(|i| i.footprint()).sum();
        while total > INDEX_CACHE && loaded.len() > 1 {
            total -= loaded.remove(0).footprint();
        }
        Ok(index)
    }

    fn load_index(&self, closed: &Closed) -> Result<Index, BusError> {
        let path = segment::index_path(&self.dir, closed.meta.id);
        let read = crate::storage::read_all(&*self.fs, &path);
        if let Ok(index) = read
            .map_err(|_| ())
            .and_then(|d| Index::decode(&d).map_err(|_| ()))
            && index.meta == closed.meta
        {
            return Ok(index);
        }
        tracing::warn!(path = %path.display(), "the side index is missing or broken and is built again");
        let index = super::rebuild::build_index(&*self.fs, &self.dir, self.key, &closed.meta)?;
        // A failed write costs only the same work again at the next look.
        let _ = super::files::save_index(&*self.fs, &self.dir, &index);
        Ok(index)
    }

    fn file_of(&self, closed: &Closed) -> Result<Arc<dyn File>, BusError> {
        let mut file = lock(&closed.file);
        if let Some(file) = file.as_ref() {
            return Ok(file.clone());
        }
        let path = segment::path(&self.dir, closed.meta.id);
        let opened = self
            .fs
            .open(&path, Mode::Read)
            .map_err(|e| BusError::io("open", path, &e))?;
        *file = Some(opened.clone());
        Ok(opened)
    }

    /// Where the event is now; `None` when it is not kept.
    fn locate(&self, seq: u64) -> Result<Option<Place>, BusError> {
        let homes: Vec<Arc<Closed>> = {
            let segments = self.read();
            let active = &segments.active;
            if let Some(offset) = active.index.find(seq) {
                let file = active.file.clone();
                return Ok(Some(Place {
                    segment: active.index.meta.id,
                    offset,
                    file,
                }));
            }
            segments.homes(seq)
        };
        for closed in homes {
            if let Some(offset) = self.index(&closed)?.find(seq) {
                let file = self.file_of(&closed)?;
                return Ok(Some(Place {
                    segment: closed.meta.id,
                    offset,
                    file,
                }));
            }
        }
        Ok(None)
    }

    /// The segment that holds the event's newest copy.
    pub(crate) fn segment_of(&self, seq: u64) -> Result<Option<u32>, BusError> {
        Ok(self.locate(seq)?.map(|p| p.segment))
    }

    /// Reads an event from disk.
    pub(crate) fn event(&self, seq: u64) -> Result<Option<Arc<StoredEvent>>, BusError> {
        let Some(place) = self.locate(seq)? else {
            return Ok(None);
        };
        let item = self.item_at(&place)?;
        event_of(item, seq)
            .map(Some)
            .ok_or_else(|| self.corrupt(&place, "another item stands here"))
    }

    /// Reads events from disk, neighbours together, up to `max_bytes` of them but at
    /// least the first. The answer has one entry per event looked at.
    pub(crate) fn events(
        &self,
        seqs: &[u64],
        max_bytes: usize,
    ) -> Vec<Result<Option<Arc<StoredEvent>>, BusError>> {
        let mut out = Vec::with_capacity(seqs.len());
        let mut window = Window::default();
        let mut bytes = 0;
        for &seq in seqs {
            let event = self.event_in(seq, &mut window);
            if let Ok(Some(event)) = &event {
                bytes += event.payload.len();
            }
            out.push(event);
            if bytes >= max_bytes {
                break;
            }
        }
        out
    }

    fn event_in(
        &self,
        seq: u64,
        window: &mut Window,
    ) -> Result<Option<Arc<StoredEvent>>, BusError> {
        let Some(place) = self.locate(seq)? else {
            return Ok(None);
        };
        let item = self.item_in(&place, window)?;
        event_of(item, seq)
            .map(Some)
            .ok_or_else(|| self.corrupt(&place, "another item stands here"))
    }

    /// Reads an addressed item by position.
    pub(crate) fn item(&self, pos: Pos) -> Result<Option<Item>, BusError> {
        let closed = {
            let segments = self.read();
            if segments.active.index.meta.id == pos.segment() {
                let file = segments.active.file.clone();
                drop(segments);
                return self
                    .item_at(&Place {
                        segment: pos.segment(),
                        offset: pos.offset(),
                        file,
                    })
                    .map(Some);
            }
            segments.closed.get(&pos.segment()).cloned()
        };
        let Some(closed) = closed else {
            return Ok(None);
        };
        let file = self.file_of(&closed)?;
        self.item_at(&Place {
            segment: pos.segment(),
            offset: pos.offset(),
            file,
        })
        .map(Some)
    }

    fn item_at(&self, place: &Place) -> Result<Item, BusError> {
        self.item_in(
            place,
            &mut Window {
                ahead: 4096,
                ..Window::default()
            },
        )
    }

    fn item_in(&self, place: &Place, window: &mut Window) -> Result<Item, BusError> {
        let failed = |e: std::io::Error| match e.kind() {
            // The length was read from the file, and so is no better than the file.
            std::io::ErrorKind::UnexpectedEof => {
                self.corrupt(place, "the item ends after the file")
            }
            _ => BusError::io("read", segment::path(&self.dir, place.segment), &e),
        };
        let mut raw = [0; item::ADDRESSED_HEADER];
        raw.copy_from_slice(window.get(place, item::ADDRESSED_HEADER).map_err(failed)?);
        let Some((kind, crc, len)) = item::addressed_header(&raw) else {
            return Err(self.corrupt(place, "no item begins here"));
        };
        let whole = window
            .get(place, item::ADDRESSED_HEADER + len)
            .map_err(failed)?;
        // A copy, so that one event does not keep the whole window in memory.
        let body = Bytes::copy_from_slice(&whole[item::ADDRESSED_HEADER..]);
        let salt = segment::salt(self.key, place.segment);
        item::decode_checked(salt, kind, crc, &body)
            .map_err(|e| self.corrupt(place, &format!("expected {e}")))
    }

    fn corrupt(&self, place: &Place, what: &str) -> BusError {
        BusError::Corrupt {
            path: segment::path(&self.dir, place.segment),
            offset: u64::from(place.offset),
            what: what.to_owned(),
        }
    }
}

/// A stretch of a file that was read at once.
struct Window {
    segment: u32,
    start: u64,
    data: Vec<u8>,
    ahead: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            segment: 0,
            start: 0,
            data: Vec::new(),
            ahead: READ_AHEAD,
        }
    }
}

impl Window {
    fn get(&mut self, place: &Place, len: usize) -> std::io::Result<&[u8]> {
        let (from, to) = (
            u64::from(place.offset),
            u64::from(place.offset) + len as u64,
        );
        let inside = self.segment == place.segment
            && self.start <= from
            && to <= self.start + self.data.len() as u64;
        if !inside {
            self.fill(place, len)?;
        }
        let at = (from - self.start) as usize;
        Ok(&self.data[at..at + len])
    }

    fn fill(&mut self, place: &Place, len: usize) -> std::io::Result<()> {
        let left = place.file.len()?.saturating_sub(u64::from(place.offset));
        if (len as u64) > left {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let want = (len.max(self.ahead) as u64).min(left) as usize;
        self.data.resize(want, 0);
        self.segment = 0;
        place
            .file
            .read_exact_at(u64::from(place.offset), &mut self.data)?;
        (self.segment, self.start) = (place.segment, u64::from(place.offset));
        Ok(())
    }
}

fn event_of(item: Item, seq: u64) -> Option<Arc<StoredEvent>> {
    let event = match item {
        Item::Event(event) => event,
        Item::Moved(moved) => moved.event,
        _ => return None,
    };
    (event.seq == seq).then_some(event)
}
