//! The ids of the dedupe window, by hash.
//!
//! 16 bytes an id (20 to 39 with the table's slack), in shards so that a table
//! that grows or is cleaned stalls nobody for long. A hash that is found is checked
//! against the event itself before anything is called a duplicate.

use std::collections::HashMap;

use super::siphash::BuildSpread;

const SHARDS: usize = 256;

/// What an id takes at most, in bytes: a table that has just doubled is 7/16 full, and a
/// place in it has 17 bytes.
const ID_BYTES: usize = 40;

/// How many of the newest ids fit into so much memory, in bytes.
pub(crate) fn most(bytes: usize) -> u64 {
    (bytes / ID_BYTES) as u64
}

/// From the hash of an id to the newest event that had it.
pub(crate) struct Dedupe {
    shards: Vec<HashMap<u64, u64, BuildSpread>>,
    /// Events before this one are out of every window.
    floor: u64,
    next_clean: usize,
}

impl Dedupe {
    pub(crate) fn new() -> Self {
        Self {
            shards: vec![HashMap::default(); SHARDS],
            floor: 0,
            next_clean: 0,
        }
    }

    fn shard(&mut self, hash: u64) -> &mut HashMap<u64, u64, BuildSpread> {
        &mut self.shards[(hash >> 56) as usize % SHARDS]
    }

    /// The event that had this hash, if it may still be within a window.
    pub(crate) fn get(&self, hash: u64) -> Option<u64> {
        let seq = self.shards[(hash >> 56) as usize % SHARDS]
            .get(&hash)
            .copied();
        seq.filter(|&s| s >= self.floor)
    }

    /// Looks for all of these, so that what follows finds them in the processor's caches:
    /// the tables are far larger, and of look-ups that do not wait for one another the
    /// processor has several under way.
    pub(crate) fn fetch(&self, hashes: impl Iterator<Item = u64>) {
        std::hint::black_box(hashes.filter(|&hash| self.get(hash).is_some()).count());
    }

    /// Notes an event; returns what was there, for [`Dedupe::undo`].
    pub(crate) fn insert(&mut self, hash: u64, seq: u64) -> Option<u64> {
        let floor = self.floor;
        let shard = self.shard(hash);
        // Rather than doubling for what is long out of the window.
        if shard.len() == shard.capacity() && floor > 0 {
            shard.retain(|_, s| *s >= floor);
        }
        shard.insert(hash, seq)
    }

    /// Takes back an insertion whose commit failed.
    pub(crate) fn undo(&mut self, hash: u64, before: Option<u64>) {
        match before {
            Some(seq) => self.shard(hash).insert(hash, seq),
            None => self.shard(hash).remove(&hash),
        };
    }

    /// Forgets what is before `floor`, a few shards at a call.
    pub(crate) fn forget(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        let floor = self.floor;
        if floor == 0 {
            return;
        }
        for _ in 0..8 {
            let shard = &mut self.shards[self.next_clean];
            shard.retain(|_, s| *s >= floor);
            if shard.capacity() > 4 * shard.len() + 64 {
                shard.shrink_to(2 * shard.len());
            }
            self.next_clean = (self.next_clean + 1) % SHARDS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undone_insertion_leaves_what_was_there() {
        let mut dedupe = Dedupe::new();
        assert_eq!(dedupe.insert(7, 1), None);
        let before = dedupe.insert(7, 2);
        dedupe.undo(7, before);
        assert_eq!(dedupe.get(7), Some(1));
        dedupe.undo(7, None);
        assert_eq!(dedupe.get(7), None);
    }

    #[test]
    fn what_left_the_window_is_unknown_and_its_memory_is_given_back() {
        let mut dedupe = Dedupe::new();
        for i in 0..100_000_u64 {
            dedupe.insert(i.wrapping_mul(0x9E37_79B9_7F4A_7C15), i + 1);
        }
        for _ in 0..SHARDS {
            dedupe.forget(99_001);
        }
        assert_eq!(dedupe.get(0), None);
        assert_eq!(dedupe.shards.iter().map(HashMap::len).sum::<usize>(), 1_000);
        let capacity: usize = dedupe.shards.iter().map(HashMap::capacity).sum();
        assert!(capacity < 20_000, "{capacity}");
    }
}
