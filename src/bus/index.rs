//! The side index of a segment: where its events are, hashes to find them by, and
//! which deliveries were settled in it.
//!
//! It is only ever a shortcut: written without a sync, checked by checksums, rebuilt
//! from its segment when anything about it is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::checkpoint::{bitmap, put_bitmap};
use super::codec::{Put, Reader, Undecodable};
use super::item::Item;
use super::siphash::{self, LogKey};
use super::touched::Touched;
use super::types::{RouteId, StoredEvent};

const MAGIC: [u8; 8] = *b"PTSMNIDX";
const FORMAT: u32 = 1;

/// What a segment holds of one label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LabelStat {
    pub count: u64,
    pub newest_ms: i64,
}

/// What is kept in memory of every segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Meta {
    pub id: u32,
    /// The first sequence number that was given out in this segment, or would be.
    pub first_seq: u64,
    /// The one after the last.
    pub next_seq: u64,
    /// Where the last record ends.
    pub sound: u64,
    pub oldest_ms: i64,
    pub newest_ms: i64,
    pub labels: BTreeMap<Arc<str>, LabelStat>,
    /// Older events that were copied into this segment.
    pub moved: RoaringTreemap,
}

/// The rows of events: parallel columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub seqs: Vec<u64>,
    pub offsets: Vec<u32>,
    pub ids: Vec<u64>,
    pub causes: Vec<u32>,
    pub roots: Vec<u32>,
}

/// A segment's index.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Index {
    pub meta: Meta,
    /// In ascending order of sequence number: the segment's own events.
    pub own: Rows,
    /// Ascending: events copied here.
    pub moved: Rows,
    pub touched: Touched,
}

/// Hash of an event's id on its label.
pub(crate) fn id_hash(key: LogKey, bus: &str, id: &str) -> u64 {
    siphash::hash(key, &[bus.as_bytes(), id.as_bytes()])
}

/// Short hash of an id as a cause or root; never 0, which means "none".
pub(crate) fn short_hash(key: LogKey, id: &str) -> u32 {
    (siphash::hash(key, &[id.as_bytes()]) as u32).max(1)
}

impl Rows {
    fn push(&mut self, key: LogKey, event: &StoredEvent, hash: u64, offset: u32) {
        self.seqs.push(event.seq);
        self.offsets.push(offset);
        self.ids.push(hash);
        self.causes
            .push(event.cause.as_deref().map_or(0, |c| short_hash(key, c)));
        self.roots
            .push(event.root_id.as_deref().map_or(0, |c| short_hash(key, c)));
    }

    pub(crate) fn find(&self, seq: u64) -> Option<u32> {
        // Own events follow each other without gaps unless something was lost.
        let guess = usize::try_from(seq.checked_sub(*self.seqs.first()?)?).ok()?;
        if self.seqs.get(guess) == Some(&seq) {
            return Some(self.offsets[guess]);
        }
        self.seqs.binary_search(&seq).ok().map(|i| self.offsets[i])
    }

    pub(crate) fn len(&self) -> usize {
        self.seqs.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.seqs.len() as u64);
        let mut last = 0;
        for &seq in &self.seqs {
            out.put_varint(seq.wrapping_sub(last));
            last = seq;
        }
        self.offsets.iter().for_each(|&v| out.put_u32(v));
        self.ids.iter().for_each(|&v| out.put_u64(v));
        // Most events have neither; a flag saves the columns.
        for column in [&self.causes, &self.roots] {
            let any = column.iter().any(|&v| v != 0);
            out.put_u8(u8::from(any));
            if any {
                column.iter().for_each(|&v| out.put_u32(v));
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Undecodable> {
        let n = usize::try_from(r.u64()?).map_err(|_| Undecodable("a length in memory"))?;
        if n > r.remaining() {
            return Err(Undecodable("a length within the index"));
        }
        let mut rows = Self {
            seqs: Vec::with_capacity(n),
            ..Self::default()
        };
        let mut last = 0_u64;
        for _ in 0..n {
            last = last.wrapping_add(r.varint()?);
            rows.seqs.push(last);
        }
        rows.offsets = column32(r, n)?;
        let raw = r.take(n.saturating_mul(8))?;
        let word = |c: &[u8]| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
        rows.ids = raw.chunks_exact(8).map(word).collect();
        for column in [&mut rows.causes, &mut rows.roots] {
            *column = if r.u8()? == 0 {
                vec![0; n]
            } else {
                column32(r, n)?
            };
        }
        Ok(rows)
    }
}

fn column32(r: &mut Reader<'_>, n: usize) -> Result<Vec<u32>, Undecodable> {
    let raw = r.take(n.saturating_mul(4))?;
    Ok(raw
        .chunks_exact(4)
        .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect())
}

impl Index {
    pub(crate) fn new(id: u32, first_seq: u64) -> Self {
        let meta = Meta {
            id,
            first_seq,
            next_seq: first_seq,
            sound: 0,
            oldest_ms: i64::MAX,
            newest_ms: i64::MIN,
            labels: BTreeMap::new(),
            moved: RoaringTreemap::new(),
        };
        Self {
            meta,
            own: Rows::default(),
            moved: Rows::default(),
            touched: Touched::default(),
        }
    }

    /// Notes an item that stands at `offset` in the segment.
    pub(crate) fn note(&mut self, key: LogKey, item: &Item, offset: u32) {
        match item {
            Item::Event(event) => {
                let hash = id_hash(key, &event.bus, &event.id);
                self.note_event(key, event, hash, offset);
            }
            Item::Moved(moved) => {
                self.meta.moved.insert(moved.event.seq);
                insert_row(&mut self.moved, key, &moved.event, offset);
                self.note_age(&moved.event);
            }
            Item::Delivered { route, seqs }
            | Item::Expired { route, seqs, .. }
            | Item::Purged { route, seqs, .. } => self.touch(*route, seqs),
            Item::Redriven { from, to, seqs } => {
                self.touch(*from, seqs);
                self.touch(*to, seqs);
            }
            Item::Retry(retry) => self.touch(retry.route, &[retry.seq]),
            Item::Dead(dead) => self.touch(dead.route, &[dead.seq]),
            Item::Replayed {
                route, deliveries, ..
            } => {
                let seqs: Vec<u64> = deliveries.iter().map(|d| d.0).collect();
                self.touch(*route, &seqs);
            }
            Item::Leased { .. }
            | Item::Released { .. }
            | Item::Route { .. }
            | Item::Paused { .. }
            | Item::Retired { .. }
            | Item::Duplicates { .. } => {}
        }
    }

    /// Notes an event whose id has this hash.
    pub(crate) fn note_event(&mut self, key: LogKey, event: &StoredEvent, hash: u64, offset: u32) {
        self.own.push(key, event, hash, offset);
        self.meta.next_seq = event.seq + 1;
        self.note_age(event);
    }

    fn note_age(&mut self, event: &StoredEvent) {
        self.meta.oldest_ms = self.meta.oldest_ms.min(event.accepted_ms);
        self.meta.newest_ms = self.meta.newest_ms.max(event.accepted_ms);
        let stat = match self.meta.labels.get_mut(&event.bus) {
            Some(stat) => stat,
            None => self
                .meta
                .labels
                .entry(event.bus.clone())
                .or_insert(LabelStat {
                    count: 0,
                    newest_ms: i64::MIN,
                }),
        };
        stat.count += 1;
        stat.newest_ms = stat.newest_ms.max(event.accepted_ms);
    }

    /// Notes that something was done to these deliveries.
    pub(crate) fn touch(&mut self, route: RouteId, seqs: &[u64]) {
        seqs.iter().for_each(|&seq| self.touched.note(route, seq));
    }

    /// Where an event stands in the segment.
    pub(crate) fn find(&self, seq: u64) -> Option<u32> {
        self.own.find(seq).or_else(|| {
            self.moved
                .seqs
                .binary_search(&seq)
                .ok()
                .map(|i| self.moved.offsets[i])
        })
    }

    /// Roughly what it takes in memory, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        (self.own.len() + self.moved.len()) * 28 + 4096
    }

    /// The file's contents: the meta part with its checksum, then the rest with its.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut meta = Vec::new();
        self.meta.encode(&mut meta);
        let mut out = Vec::with_capacity(meta.len() + self.footprint());
        out.extend_from_slice(&MAGIC);
        out.put_u32(FORMAT);
        out.put_u32(meta.len() as u32);
        out.put_u32(crc32c::crc32c(&meta));
        out.extend_from_slice(&meta);
        let rest = out.len();
        self.own.encode(&mut out);
        self.moved.encode(&mut out);
        let touched = self.touched.bitmaps();
        out.put_varint(touched.len() as u64);
        for (route, seqs) in &*touched {
            out.put_varint(u64::from(route.0));
            put_bitmap(&mut out, seqs);
        }
        let crc = crc32c::crc32c(&out[rest..]);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(data: &[u8]) -> Result<Self, Undecodable> {
        let (len, _) = head(data)?;
        let meta = Meta::decode_file(data)?;
        let start = HEAD + len;
        let rest = data.get(start..).ok_or(Undecodable("the columns"))?;
        let (rest, crc) =
            rest.split_at(rest.len().checked_sub(4).ok_or(Undecodable("a checksum"))?);
        if crc32c::crc32c(rest).to_le_bytes() != *crc {
            return Err(Undecodable("a matching checksum"));
        }
        let mut r = Reader::new(rest);
        let (own, moved) = (Rows::decode(&mut r)?, Rows::decode(&mut r)?);
        let mut touched = BTreeMap::new();
        for _ in 0..r.len()? {
            let route = RouteId(r.varint_u32()?);
            touched.insert(route, bitmap(&mut r)?);
        }
        Ok(Self {
            meta,
            own,
            moved,
            touched: touched.into(),
        })
    }
}

fn insert_row(rows: &mut Rows, key: LogKey, event: &StoredEvent, offset: u32) {
    let hash = id_hash(key, &event.bus, &event.id);
    match rows.seqs.binary_search(&event.seq) {
        // Copied twice into the same segment: the later copy counts.
        Ok(i) => rows.offsets[i] = offset,
        Err(i) if i == rows.seqs.len() => rows.push(key, event, hash, offset),
        Err(i) => {
            let mut one = Rows::default();
            one.push(key, event, hash, offset);
            rows.seqs.insert(i, one.seqs[0]);
            rows.offsets.insert(i, offset);
            rows.ids.insert(i, one.ids[0]);
            rows.causes.insert(i, one.causes[0]);
            rows.roots.insert(i, one.roots[0]);
        }
    }
}

/// Bytes before the meta part.
const HEAD: usize = 20;

fn head(data: &[u8]) -> Result<(usize, u32), Undecodable> {
    let mut r = Reader::new(data);
    if r.take(8)? != MAGIC || r.u32()? != FORMAT {
        return Err(Undecodable("an index of this version"));
    }
    Ok((r.u32()? as usize, r.u32()?))
}

/// How much of an index file has to be read for [`Meta::decode_file`], from its first
/// bytes (at least 20).
pub(crate) fn meta_len(data: &[u8]) -> Option<usize> {
    head(data).ok().map(|(len, _)| HEAD + len)
}

impl Meta {
    /// Reads the meta part from the beginning of an index file.
    pub(crate) fn decode_file(data: &[u8]) -> Result<Self, Undecodable> {
        let (len, crc) = head(data)?;
        let raw = data
            .get(HEAD..HEAD.saturating_add(len))
            .ok_or(Undecodable("the meta part"))?;
        if crc32c::crc32c(raw) != crc {
            return Err(Undecodable("a matching checksum"));
        }
        Self::decode(raw)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.id);
        for v in [self.first_seq, self.next_seq, self.sound] {
            out.put_varint(v);
        }
        out.put_signed(self.oldest_ms);
        out.put_signed(self.newest_ms);
        out.put_varint(self.labels.len() as u64);
        for (label, stat) in &self.labels {
            out.put_str(label);
            out.put_varint(stat.count);
            out.put_signed(stat.newest_ms);
        }
        put_bitmap(out, &self.moved);
    }

    fn decode(raw: &[u8]) -> Result<Self, Undecodable> {
        let mut r = Reader::new(raw);
        let mut meta = Self {
            id: r.u32()?,
            first_seq: r.varint()?,
            next_seq: r.varint()?,
            sound: r.varint()?,
            oldest_ms: r.signed()?,
            newest_ms: r.signed()?,
            labels: BTreeMap::new(),
            moved: RoaringTreemap::new(),
        };
        for _ in 0..r.len()? {
            let label = r.str()?.into();
            meta.labels.insert(
                label,
                LabelStat {
                    count: r.varint()?,
                    newest_ms: r.signed()?,
                },
            );
        }
        meta.moved = bitmap(&mut r)?;
        Ok(meta)
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
