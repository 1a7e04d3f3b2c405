//! What is indexed at one path, and how a value is looked up in it.

use std::sync::Arc;

use super::keys::{SPACES, Space};
use super::ranges::Ranges;

/// The index of one path: which spaces hold keys, and of which lengths.
#[derive(Debug, Clone, Default)]
pub(super) struct PathIndex {
    /// How many keys there are, by space.
    counts: [u32; SPACES],
    /// The lengths of keys (or the masks of addresses), where they matter.
    lengths: [Lengths; SPACES],
    pub ranges: Ranges,
    /// The numbers that are looked for, ascending.
    points: Arc<Vec<f64>>,
    /// Fields that are evaluated whenever the path occurs.
    pub broad: Arc<Vec<u32>>,
    /// Fields with addresses or blocks, which numbers can satisfy too.
    pub blocks: Arc<Vec<u32>>,
    pub grams: Grams,
}

/// Distinct lengths, ascending, with the number of keys that have them.
#[derive(Debug, Clone, Default)]
struct Lengths(Vec<(u32, u32)>);

impl PathIndex {
    pub fn has(&self, space: Space) -> bool {
        self.counts[space as usize] > 0
    }

    /// The distinct lengths of a space's keys, ascending.
    pub fn lengths(&self, space: Space) -> impl Iterator<Item = usize> {
        self.lengths[space as usize]
            .0
            .iter()
            .map(|(len, _)| *len as usize)
    }

    pub fn add(&mut self, space: Space, key: &[u8]) {
        self.counts[space as usize] += 1;
        let len = measure(space, key);
        let lengths = &mut self.lengths[space as usize].0;
        match lengths.binary_search_by_key(&len, |(len, _)| *len) {
            Ok(at) => lengths[at].1 += 1,
            Err(at) => lengths.insert(at, (len, 1)),
        }
        if space == Space::Gram {
            self.grams.add(key);
        }
        if let Some(point) = point(space, key) {
            let points = Arc::make_mut(&mut self.points);
            let at = points.partition_point(|other| *other < point);
            points.insert(at, point);
        }
    }

    /// Whether some number that is looked for lies within the bounds.
    #[inline]
    pub fn has_point(&self, (low, high): (f64, f64)) -> bool {
        match &self.points[..] {
            [] => false,
            few if few.len() <= 8 => few.iter().any(|point| low <= *point && *point <= high),
            many => many
                .get(many.partition_point(|point| *point < low))
                .is_some_and(|point| *point <= high),
        }
    }

    pub fn remove(&mut self, space: Space, key: &[u8]) {
        self.counts[space as usize] -= 1;
        let len = measure(space, key);
        let lengths = &mut self.lengths[space as usize].0;
        if let Ok(at) = lengths.binary_search_by_key(&len, |(len, _)| *len) {
            lengths[at].1 -= 1;
            if lengths[at].1 == 0 {
                lengths.remove(at);
            }
        }
        if let Some(point) = point(space, key) {
            let points = Arc::make_mut(&mut self.points);
            if let Some(at) = points.iter().position(|other| *other == point) {
                points.remove(at);
            }
        }
        if self.counts[Space::Gram as usize] == 0 {
            self.grams = Grams::default();
        }
    }
}

/// The number that a key stands for.
fn point(space: Space, key: &[u8]) -> Option<f64> {
    let bits = key.first_chunk().filter(|_| space == Space::Number)?;
    Some(f64::from_bits(u64::from_le_bytes(*bits)))
}

/// What a key is told apart by before it is looked up.
fn measure(space: Space, key: &[u8]) -> u32 {
    match space {
        Space::Ip4 | Space::Ip6 => key.last().copied().map_or(0, u32::from),
        _ => key.len() as u32,
    }
}

/// A filter over the grams of one path: answers "certainly not" for nearly
/// every place in a value, so that the table is asked only where it is worth
/// it. Removed grams linger until there are none at all.
#[derive(Debug, Clone, Default)]
pub(super) struct Grams {
    bits: Arc<Vec<u64>>,
    hashes: Arc<Vec<u32>>,
}

/// Bits of the filter for every gram.
const SPARSENESS: usize = 16;

impl Grams {
    fn add(&mut self, gram: &[u8]) {
        let hash = gram_hash(word(gram), gram.len());
        let hashes = Arc::make_mut(&mut self.hashes);
        hashes.push(hash);
        let wanted = (hashes.len() * SPARSENESS / 64).next_power_of_two().max(8);
        let bits = Arc::make_mut(&mut self.bits);
        if bits.len() < wanted {
            bits.clear();
            bits.resize(wanted * 2, 0);
            for hash in hashes.iter() {
                set(bits, *hash);
            }
        } else {
            set(bits, hash);
        }
    }

    /// Calls `hit` with every part of `text`, of the given length (1..=8),
    /// that may be a gram.
    #[inline]
    pub fn find<'t>(&self, text: &'t [u8], len: usize, mut hit: impl FnMut(&'t [u8])) {
        let keep = u64::MAX >> (64 - 8 * len as u32);
        let mut check = |at: usize, word: u64| {
            if get(&self.bits, gram_hash(word & keep, len)) {
                hit(&text[at..at + len]);
            }
        };
        let Some(last) = text.len().checked_sub(len) else {
            return;
        };
        let mut at = 0;
        for window in text.windows(8) {
            // A window of 8 has 8 bytes.
            check(
                at,
                window
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes)),
            );
            at += 1;
        }
        while at <= last {
            check(at, word(&text[at..]));
            at += 1;
        }
    }
}

/// The first up to 8 bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    let len = bytes.len().min(8);
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[..len]);
    u64::from_le_bytes(word)
}

#[inline(always)]
fn gram_hash(word: u64, len: usize) -> u32 {
    ((word ^ (len as u64) << 59).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// The filter's length is a power of two.
#[inline(always)]
fn get(bits: &[u64], hash: u32) -> bool {
    let at = (hash >> 6) as usize & bits.len().wrapping_sub(1);
    bits.get(at)
        .is_some_and(|word| word >> (hash & 63) & 1 == 1)
}

fn set(bits: &mut [u64], hash: u32) {
    let at = (hash >> 6) as usize & (bits.len() - 1);
    bits[at] |= 1 << (hash & 63);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grams_are_found_everywhere() {
        let mut index = PathIndex::default();
        for gram in ["needle", "ab", "x"] {
            index.add(Space::Gram, gram.as_bytes());
        }
        for i in 0..1_000 {
            index.add(Space::Gram, format!("{i:08}").as_bytes());
        }
        let text = b"needle in the xab00000999";
        let mut found = Vec::new();
        for len in index.lengths(Space::Gram) {
            index.grams.find(text, len, |gram| found.push(gram));
        }
        for gram in [&b"needle"[..], b"ab", b"x", b"00000999"] {
            assert!(found.contains(&gram));
        }
        assert_eq!(index.lengths(Space::Gram).collect::<Vec<_>>(), [1, 2, 6, 8]);
    }
}
