//! Segment files: their names and their first 64 bytes.

use std::path::{Path, PathBuf};

use super::codec::{Put, Reader};
use super::siphash::{self, LogKey};

/// The newest format version that this program reads, and the one it writes.
pub(crate) const FORMAT: u32 = 1;
/// Bytes before the first record.
pub(crate) const HEADER: usize = 64;

const MAGIC: [u8; 8] = *b"PTSMNLOG";

/// The head of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub id: u32,
    pub key: LogKey,
    pub created_ms: i64,
}

/// Why a header was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Too short, wrong magic or wrong checksum.
    Damaged,
    /// A newer program's file.
    Newer(u32),
}

impl Header {
    /// The salt of the segment's checksums; it follows from the log's key, so that
    /// a damaged header does not make the records unreadable.
    pub(crate) fn salt(&self) -> u64 {
        salt(self.key, self.id)
    }

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&MAGIC);
        out.put_u32(FORMAT);
        out.put_u32(self.id);
        out.put_u64(self.key[0]);
        out.put_u64(self.key[1]);
        out.put_u64(self.created_ms as u64);
        out.resize(HEADER - 4, 0);
        out.put_u32(crc32c::crc32c(&out));
        let mut raw = [0; HEADER];
        raw.copy_from_slice(&out);
        raw
    }

    pub(crate) fn decode(raw: &[u8]) -> Result<Self, BadHeader> {
        let raw = raw.get(..HEADER).ok_or(BadHeader::Damaged)?;
        let (covered, crc) = raw.split_at(HEADER - 4);
        if covered[..8] != MAGIC || crc32c::crc32c(covered).to_le_bytes() != *crc {
            return Err(BadHeader::Damaged);
        }
        let mut r = Reader::new(&covered[8..]);
        let mut fields = || {
            Some((
                r.u32().ok()?,
                r.u32().ok()?,
                r.u64().ok()?,
                r.u64().ok()?,
                r.u64().ok()?,
            ))
        };
        let (version, id, k0, k1, created) = fields().ok_or(BadHeader::Damaged)?;
        if version > FORMAT {
            return Err(BadHeader::Newer(version));
        }
        Ok(Self {
            id,
            key: [k0, k1],
            created_ms: created as i64,
        })
    }
}

/// The salt of segment `id` in the log with this key.
pub(crate) fn salt(key: LogKey, id: u32) -> u64 {
    siphash::hash(key, &[b"segment", &id.to_le_bytes()])
}

/// Path of segment `id`.
pub(crate) fn path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:020}.seg"))
}

/// Path of the side index of segment `id`.
pub(crate) fn index_path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:020}.idx"))
}

/// Path of the list of holes in segment `id` that are known and accounted for.
pub(crate) fn holes_path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:020}.holes"))
}

/// The number in a file name with this extension.
pub(crate) fn id_of(name: &str, extension: &str) -> Option<u32> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_is_noticed() {
        let header = Header {
            id: 7,
            key: [3, 4],
            created_ms: -5,
        };
        let raw = header.encode();
        assert_eq!(Header::decode(&raw), Ok(header));
        for bit in 0..HEADER * 8 {
            let mut flipped = raw;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Header::decode(&flipped),
                Err(BadHeader::Damaged),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut raw = Header {
            id: 1,
            key: [0, 0],
            created_ms: 0,
        }
        .encode();
        raw[8] = 9;
        let crc = crc32c::crc32c(&raw[..HEADER - 4]);
        raw[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&raw), Err(BadHeader::Newer(9)));
    }

    #[test]
    fn names_carry_the_number() {
        let path = path(Path::new("/d"), 42);
        assert_eq!(path, Path::new("/d/00000000000000000042.seg"));
        assert_eq!(id_of("00000000000000000042.seg", "seg"), Some(42));
        assert_eq!(id_of("42.seg", "seg"), None);
        assert_eq!(id_of("00000000000000000042.idx", "seg"), None);
    }
}
