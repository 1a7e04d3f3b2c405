//! Collections that are cheap to clone and cheap to change a little.
//!
//! Both are cut into parts behind `Arc`s. A clone copies one pointer; a change
//! after a clone copies the list of parts and the one part concerned. As long
//! as nobody holds a clone, changes happen in place.

use std::sync::Arc;

const CHUNK_BITS: usize = 6;
const CHUNK: usize = 1 << CHUNK_BITS;

/// A vector in parts of 64 elements. A part is one block of memory, filled up
/// with defaults, so that an element is two loads away.
#[derive(Debug)]
pub(super) struct CowVec<T> {
    chunks: Arc<Vec<Arc<[T; CHUNK]>>>,
    len: usize,
}

impl<T> Clone for CowVec<T> {
    fn clone(&self) -> Self {
        CowVec {
            chunks: self.chunks.clone(),
            len: self.len,
        }
    }
}

impl<T> Default for CowVec<T> {
    fn default() -> Self {
        CowVec {
            chunks: Arc::default(),
            len: 0,
        }
    }
}

impl<T: Clone + Default> CowVec<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds an element and returns its index.
    pub fn push(&mut self, value: T) -> u32 {
        let index = self.len as u32;
        if self.len.is_multiple_of(CHUNK) {
            let chunk = Arc::new(std::array::from_fn(|_| T::default()));
            Arc::make_mut(&mut self.chunks).push(chunk);
        }
        self.len += 1;
        *self.get_mut(index) = value;
        index
    }

    /// The element at `index`, for changing. `index` must exist.
    pub fn get_mut(&mut self, index: u32) -> &mut T {
        let chunk = &mut Arc::make_mut(&mut self.chunks)[index as usize >> CHUNK_BITS];
        &mut Arc::make_mut(chunk)[index as usize & (CHUNK - 1)]
    }
}

impl<T> std::ops::Index<u32> for CowVec<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, index: u32) -> &T {
        &self.chunks[index as usize >> CHUNK_BITS][index as usize & (CHUNK - 1)]
    }
}

const SHARD_BITS: u32 = 9;

/// A hash table from 64-bit hashes to numbers, in 512 parts. It knows nothing
/// of keys: whoever asks compares.
#[derive(Debug, Clone)]
pub(super) struct Table {
    shards: Arc<Vec<Shard>>,
}

/// Open addressing with linear probing; the length is a power of two or zero.
#[derive(Debug, Clone, Default)]
struct Shard {
    slots: Arc<[Slot]>,
    used: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u32,
    /// The number, or `EMPTY`.
    id: u32,
}

const EMPTY: u32 = u32::MAX;
const FREE: Slot = Slot { tag: 0, id: EMPTY };

impl Default for Table {
    fn default() -> Self {
        Table {
            shards: Arc::new(vec![Shard::default(); 1 << SHARD_BITS]),
        }
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARD_BITS)) as usize
}

impl Table {
    /// The number stored under `hash` that `is` accepts.
    #[inline]
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let slots = &self.shards[shard_of(hash)].slots[..];
        if slots.is_empty() {
            return None;
        }
        let (mask, tag) = (slots.len() - 1, hash as u32);
        let mut at = tag as usize & mask;
        loop {
            let slot = slots[at];
            if slot.id == EMPTY {
                return None;
            }
            if slot.tag == tag && is(slot.id) {
                return Some(slot.id);
            }
            at = (at + 1) & mask;
        }
    }

    /// Stores a number that is not there yet.
    pub fn insert(&mut self, hash: u64, id: u32) {
        let shard = &mut Arc::make_mut(&mut self.shards)[shard_of(hash)];
        // At most three quarters full, so that probing stays short.
        if (shard.used + 1) * 4 > shard.slots.len() * 3 {
            let size = (shard.slots.len() * 2).max(4);
            shard.refill(size, |_| true);
        }
        let slot = Slot {
            tag: hash as u32,
            id,
        };
        place(Arc::make_mut(&mut shard.slots), slot);
        shard.used += 1;
    }

    /// Removes a number that is there.
    pub fn remove(&mut self, hash: u64, id: u32) {
        let shard = &mut Arc::make_mut(&mut self.shards)[shard_of(hash)];
        shard.refill(shard.slots.len(), |slot| slot.id != id);
        shard.used -= 1;
    }
}

impl Shard {
    /// Places the slots that are to be kept anew.
    fn refill(&mut self, size: usize, keep: impl Fn(&Slot) -> bool) {
        let mut slots = vec![FREE; size];
        for slot in self.slots.iter().filter(|slot| slot.id != EMPTY) {
            if keep(slot) {
                place(&mut slots, *slot);
            }
        }
        self.slots = slots.into();
    }
}

fn place(slots: &mut [Slot], slot: Slot) {
    let mask = slots.len() - 1;
    let mut at = slot.tag as usize & mask;
    while slots[at].id != EMPTY {
        at = (at + 1) & mask;
    }
    slots[at] = slot;
}

/// A list of numbers that mostly has one.
#[derive(Debug, Clone, Default)]
pub(super) enum Posting {
    #[default]
    None,
    One(u32),
    Many(Arc<Vec<u32>>),
}

impl Posting {
    #[inline(always)]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Posting::None => &[],
            Posting::One(id) => std::slice::from_ref(id),
            Posting::Many(ids) => ids,
        }
    }

    pub fn push(&mut self, id: u32) {
        match self {
            Posting::None => *self = Posting::One(id),
            Posting::One(first) => *self = Posting::Many(Arc::new(vec![*first, id])),
            Posting::Many(ids) => Arc::make_mut(ids).push(id),
        }
    }

    /// Removes one occurrence of `id`.
    pub fn remove(&mut self, id: u32) {
        match self {
            Posting::None => {}
            Posting::One(only) if *only == id => *self = Posting::None,
            Posting::One(_) => {}
            Posting::Many(ids) => {
                let ids = Arc::make_mut(ids);
                if let Some(at) = ids.iter().position(|other| *other == id) {
                    ids.swap_remove(at);
                }
                if let [only] = ids[..] {
                    *self = Posting::One(only);
                }
            }
        }
    }
}

/// A hash of a key in one of several spaces.
#[inline]
pub(super) fn hash(space: u64, key: &[u8]) -> u64 {
    let state = fold(space ^ key.len() as u64, 0x9E37_79B9_7F4A_7C15);
    let (state, tail) = match key.last_chunk::<8>() {
        Some(last) => {
            // The last word may overlap the one before it.
            let words = key[..key.len() - 1].as_chunks::<8>().0;
            let mix = |state, word: &[u8; 8]| {
                fold(state ^ u64::from_le_bytes(*word), 0xD6E8_FEB8_6659_FD93)
            };
            (words.iter().fold(state, mix), u64::from_le_bytes(*last))
        }
        None => (state, short(key)),
    };
    fold(state ^ tail, 0xA076_1D64_78BD_642F)
}

/// Fewer than 8 bytes as a number.
#[inline]
fn short(key: &[u8]) -> u64 {
    match (key.first_chunk(), key.last_chunk(), key) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        (_, _, [first, .., last]) => {
            let middle = key[key.len() / 2];
            u64::from(*first) << 16 | u64::from(middle) << 8 | u64::from(*last)
        }
        (_, _, [only]) => u64::from(*only),
        _ => 0,
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x2D35_8DCC_AA6C_78A5) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_elements() {
        let mut all = CowVec::default();
        for i in 0..200 {
            assert_eq!(all.push(i), i);
        }
        let before = all.clone();
        *all.get_mut(130) = 7;
        all.push(200);
        assert_eq!((before[130], before.len()), (130, 200));
        assert_eq!((all[130], all[200], all.len()), (7, 200, 201));
    }

    #[test]
    fn the_table_finds_what_it_holds() {
        let mut table = Table::default();
        let key = |id: u32| hash(1, &id.to_le_bytes());
        (0..5_000).for_each(|id| table.insert(key(id), id));
        let before = table.clone();
        (0..5_000)
            .step_by(2)
            .for_each(|id| table.remove(key(id), id));
        for id in 0..5_000 {
            assert_eq!(
                table.find(key(id), |other| other == id).is_some(),
                id % 2 == 1
            );
            assert_eq!(before.find(key(id), |other| other == id), Some(id));
        }
    }

    #[test]
    fn postings_shrink_and_grow() {
        let mut posting = Posting::default();
        [3, 1, 2].into_iter().for_each(|id| posting.push(id));
        posting.remove(1);
        assert_eq!(posting.as_slice(), [3, 2]);
        posting.remove(3);
        posting.remove(2);
        assert!(posting.as_slice().is_empty());
    }
}
