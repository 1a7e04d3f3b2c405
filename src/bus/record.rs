//! Records: the atoms of the log. A record is there whole or not at all.
//!
//! `magic 4, length 4, checksum 4, kind 1, body`. Magic and checksum are salted with
//! the segment's random salt, so that nothing a sender puts into a payload, and
//! nothing left over from another segment, can pass for a record; the checksum also
//! covers the record's place. The body of a commit begins with the next sequence
//! number, the time, and how much of the segment was known to be synced when it was
//! written: that tells a torn tail from a hole.

use bytes::Bytes;

use super::codec::{Put, Reader, Undecodable};
use super::item::Item;

/// Bytes before a record's body.
pub(crate) const HEADER: usize = 13;
/// No record is longer, in bytes; a length beyond it is damage.
pub(crate) const MAX_RECORD: usize = 1 << 30;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Items that were committed together.
    Commit,
    /// The whole queue state before the first commit of the segment.
    Checkpoint,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Commit => 1,
            Self::Checkpoint => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Commit),
            2 => Some(Self::Checkpoint),
            _ => None,
        }
    }
}

/// The marker that begins every record of a segment with this salt.
pub(crate) fn magic(salt: u64) -> [u8; 4] {
    let mixed = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    // Odd, so that a run of zeros is never a marker.
    ((mixed as u32) | 1).to_le_bytes()
}

fn checksum(salt: u64, offset: u64, kind_and_body: &[u8]) -> u32 {
    let mut head = [0; 16];
    head[..8].copy_from_slice(&salt.to_le_bytes());
    head[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), kind_and_body)
}

/// Leaves room for the header of a record at the end of `out`.
pub(crate) fn begin(kind: Kind, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; HEADER - 1]);
    out.put_u8(kind.code());
}

/// Fills in the header of the record that `record` holds whole, for this place.
pub(crate) fn finish(record: &mut [u8], salt: u64, offset: u64) {
    let crc = checksum(salt, offset, &record[HEADER - 1..]);
    let len = record.len() - HEADER;
    put_header(record, salt, len, crc);
}

/// The sum of a record that is written in parts, begun before its place is certain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum {
    salt: u64,
    offset: u64,
    crc: u32,
    /// Bytes so far.
    pub len: usize,
}

impl Sum {
    /// Begins with the record's first part, which [`begin`] began, if it goes to `offset`.
    pub(crate) fn new(salt: u64, offset: u64, head: &[u8]) -> Self {
        Self {
            salt,
            offset,
            crc: checksum(salt, offset, &head[HEADER - 1..]),
            len: head.len(),
        }
    }

    /// Goes on with `part`.
    pub(crate) fn add(&mut self, part: &[u8]) {
        self.len += part.len();
        self.crc = crc32c::crc32c_append(self.crc, part);
    }

    /// Fills in the header of the record of these parts, now that it goes to `offset`.
    pub(crate) fn finish(mut self, head: &mut [u8], parts: &[&[u8]], offset: u64) {
        if offset != self.offset {
            // A lease came in between.
            self = Self::new(self.salt, offset, head);
            parts.iter().for_each(|part| self.add(part));
        }
        put_header(head, self.salt, self.len - HEADER, self.crc);
    }
}

fn put_header(record: &mut [u8], salt: u64, len: usize, crc: u32) {
    record[..4].copy_from_slice(&magic(salt));
    record[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    record[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// A sound record found in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub kind: Kind,
    /// Where the record begins, in bytes from the segment's start.
    pub offset: usize,
    /// Where its body begins.
    pub body: usize,
    /// Where it ends.
    pub end: usize,
}

/// Looks for a sound record exactly at `offset`.
pub(crate) fn at(segment: &[u8], salt: u64, offset: usize) -> Option<Found> {
    let head = segment.get(offset..offset.checked_add(HEADER)?)?;
    if head[..4] != magic(salt) {
        return None;
    }
    let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let crc = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if len > MAX_RECORD {
        return None;
    }
    let body = offset + HEADER;
    let end = body.checked_add(len)?;
    let covered = segment.get(body - 1..end)?;
    if checksum(salt, offset as u64, covered) != crc {
        return None;
    }
    Some(Found {
        kind: Kind::from_code(head[12])?,
        offset,
        body,
        end,
    })
}

/// Looks for the next sound record that begins after `offset`.
pub(crate) fn after(segment: &[u8], salt: u64, offset: usize) -> Option<Found> {
    let magic = magic(salt);
    let from = offset.checked_add(1)?;
    let rest = segment.get(from..)?;
    memchr::memmem::find_iter(rest, &magic).find_map(|i| at(segment, salt, from + i))
}

/// What stands at the head of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitHead {
    /// The sequence number that the first event of this commit has, or would have.
    pub next_seq: u64,
    /// When it was written (Unix milliseconds).
    pub time_ms: i64,
    /// All of the segment before this offset was durable when this was written.
    pub synced: u64,
}

impl CommitHead {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.next_seq);
        out.put_signed(self.time_ms);
        out.put_varint(self.synced);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Undecodable> {
        Ok(Self {
            next_seq: r.varint()?,
            time_ms: r.signed()?,
            synced: r.varint()?,
        })
    }
}

/// The items of a commit, one by one, with each one's place in the body.
pub(crate) struct Items {
    body: Bytes,
    pos: usize,
}

impl Items {
    /// Payloads share `body`, which they keep in memory.
    pub(crate) fn new(body: Bytes) -> Result<(CommitHead, Self), Undecodable> {
        let mut reader = Reader::new(&body);
        let head = CommitHead::decode(&mut reader)?;
        let pos = reader.pos();
        Ok((head, Self { body, pos }))
    }
}

impl Iterator for Items {
    type Item = Result<(usize, Item), Undecodable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pos >= self.body.len() {
            return None;
        }
        let at = self.pos;
        let mut reader = Reader::new(&self.body[at..]);
        let home = self.body.slice(at..);
        match Item::decode(&mut reader, Some(&home)) {
            Ok(item) => {
                self.pos = at + reader.pos();
                Some(Ok((at, item)))
            }
            Err(e) => {
                self.pos = self.body.len();
                Some(Err(e))
            }
        }
    }
}

/// A stretch of a segment where no sound record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub from: usize,
    pub to: usize,
    /// A later record proves that these bytes were durable once.
    pub proven: bool,
}

/// What a walk over a segment found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Walk {
    pub records: Vec<Found>,
    pub holes: Vec<Hole>,
    /// Where the last sound record ends.
    pub sound: usize,
    /// Bytes after it that are no record.
    pub tail: usize,
    /// All before this offset is known to have been durable.
    pub proof: u64,
}

/// Finds every sound record from `start` on, and every hole between two of them.
pub(crate) fn walk(segment: &[u8], salt: u64, start: usize) -> Walk {
    let mut walk = Walk {
        sound: start,
        ..Walk::default()
    };
    loop {
        let here = walk.sound;
        let found = match at(segment, salt, here) {
            Some(found) => found,
            None => match after(segment, salt, here) {
                Some(found) => {
                    walk.holes.push(Hole {
                        from: here,
                        to: found.offset,
                        proven: false,
                    });
                    found
                }
                None => break,
            },
        };
        walk.sound = found.end;
        walk.records.push(found);
    }
    walk.tail = segment.len().saturating_sub(walk.sound);
    let synced = walk.records.iter().filter(|r| r.kind == Kind::Commit);
    let proof = synced
        .filter_map(|r| CommitHead::decode(&mut Reader::new(&segment[r.body..r.end])).ok())
        .map(|head| head.synced)
        .max()
        .unwrap_or(0);
    for hole in &mut walk.holes {
        hole.proven = (hole.from as u64) < proof;
    }
    walk.proof = proof;
    walk
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
