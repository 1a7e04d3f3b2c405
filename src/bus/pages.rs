//! A map from sequence numbers, made for neighbours: pages of 64, the last one at hand.
//!
//! What is leased and settled comes in runs, so most steps find their page where the
//! step before left it and cost a shift and a count of bits; and a page costs next to
//! nothing beside what it holds, however many there are.

use std::collections::BTreeMap;

use smallvec::SmallVec;

/// Up to 64 neighbours. A slot stays where it is when its value goes, until the page is
/// put away. One slot has room in the page itself: of a bus with very many routes each
/// has a delivery or two in flight, and memory of their own would be far from all else.
#[derive(Debug, Clone)]
struct Page<T> {
    /// Whose value is there.
    present: u64,
    /// Whose slot is there.
    placed: u64,
    slots: SmallVec<[T; 1]>,
}

/// Values by sequence number.
#[derive(Debug, Clone)]
pub(crate) struct Pages<T> {
    /// All pages that hold something, but the one at hand.
    rest: BTreeMap<u64, Page<T>>,
    number: u64,
    page: Page<T>,
    len: usize,
}

fn split(seq: u64) -> (u64, u64) {
    (seq >> 6, 1 << (seq & 63))
}

impl<T: Copy> Page<T> {
    fn new() -> Self {
        Self {
            present: 0,
            placed: 0,
            slots: SmallVec::new(),
        }
    }

    fn slot(&self, bit: u64) -> usize {
        (self.placed & (bit - 1)).count_ones() as usize
    }

    fn get(&self, bit: u64) -> Option<&T> {
        if self.present & bit == 0 {
            return None;
        }
        self.slots.get(self.slot(bit))
    }

    fn get_mut(&mut self, bit: u64) -> Option<&mut T> {
        if self.present & bit == 0 {
            return None;
        }
        let slot = self.slot(bit);
        self.slots.get_mut(slot)
    }

    fn insert(&mut self, bit: u64, value: T) -> Option<T> {
        let slot = self.slot(bit);
        let before = self.get(bit).copied();
        self.present |= bit;
        if self.placed & bit != 0 {
            self.slots[slot] = value;
            return before;
        }
        self.placed |= bit;
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len().max(1));
        }
        self.slots.insert(slot, value);
        None
    }

    /// Gives the memory of gone values back when they are half of the page or more.
    fn pack(&mut self) {
        if self.present.count_ones() * 2 > self.placed.count_ones() {
            return;
        }
        let (present, mut left) = (self.present, self.placed);
        self.slots.retain(|_| {
            let bit = left & left.wrapping_neg();
            left &= !bit;
            present & bit != 0
        });
        self.slots.shrink_to_fit();
        self.placed = present;
    }

    fn iter(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let bit = left & left.wrapping_neg();
            left &= !bit;
            let value = self.get(bit)?;
            Some((number << 6 | u64::from(bit.trailing_zeros()), value))
        })
    }
}

impl<T: Copy> Default for Pages<T> {
    fn default() -> Self {
        Self {
            rest: BTreeMap::new(),
            number: 0,
            page: Page::new(),
            len: 0,
        }
    }
}

impl<T: Copy> Pages<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&T> {
        let (number, bit) = split(seq);
        if number == self.number {
            return self.page.get(bit);
        }
        self.rest.get(&number)?.get(bit)
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.get(seq).is_some()
    }

    pub(crate) fn get_mut(&mut self, seq: u64) -> Option<&mut T> {
        let (number, bit) = split(seq);
        self.fetch(number);
        self.page.get_mut(bit)
    }

    /// Sets a value; returns the one before.
    pub(crate) fn insert(&mut self, seq: u64, value: T) -> Option<T> {
        let (number, bit) = split(seq);
        self.fetch(number);
        let before = self.page.insert(bit, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(crate) fn remove(&mut self, seq: u64) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let (number, bit) = split(seq);
        self.fetch(number);
        let value = self.page.get(bit).copied()?;
        self.page.present &= !bit;
        self.len -= 1;
        Some(value)
    }

    /// Takes this page at hand.
    fn fetch(&mut self, number: u64) {
        if number == self.number {
            return;
        }
        let next = self.rest.remove(&number);
        if self.page.present == 0 {
            match next {
                Some(next) => self.page = next,
                // The memory of an emptied page serves the next one.
                None => {
                    self.page.slots.clear();
                    self.page.placed = 0;
                }
            }
        } else {
            let mut old = std::mem::replace(&mut self.page, next.unwrap_or_else(Page::new));
            old.pack();
            self.rest.insert(self.number, old);
        }
        self.number = number;
    }

    /// All in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.iter_from(0)
    }

    /// All from `first` on, in order.
    pub(crate) fn iter_from(&self, first: u64) -> impl Iterator<Item = (u64, &T)> {
        let (from, here) = (first >> 6, self.number);
        let before = self.rest.range(from..here.max(from));
        let at_hand = (here >= from).then_some((here, &self.page));
        let after = self.rest.range(from.max(here)..);
        let pages = before.map(|(&n, page)| (n, page)).chain(at_hand);
        pages
            .chain(after.map(|(&n, page)| (n, page)))
            .flat_map(|(n, page)| page.iter(n))
            .skip_while(move |&(seq, _)| seq < first)
    }

    /// Changes every value in place.
    pub(crate) fn update(&mut self, mut f: impl FnMut(&mut T)) {
        let pages = self.rest.values_mut().chain([&mut self.page]);
        // Slots whose value is gone are never read again, so they may change too.
        pages.flat_map(|p| p.slots.iter_mut()).for_each(&mut f);
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        self.len * size_of::<T>() + self.rest.len() * (size_of::<Page<T>>() + 32)
    }
}

impl<T: Copy + PartialEq> PartialEq for Pages<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_map_in_order(steps: Vec<(u16, u8)>, first: u16) {
            let (mut pages, mut map) = (Pages::default(), BTreeMap::new());
            for (i, (seq, what)) in steps.into_iter().enumerate() {
                // Close together, so that pages fill, empty and are met again.
                let seq = u64::from(seq % 1024);
                match what % 4 {
                    0 => prop_assert_eq!(pages.remove(seq), map.remove(&seq)),
                    1 => {
                        for seq in seq..seq + 80 {
                            prop_assert_eq!(pages.remove(seq), map.remove(&seq));
                        }
                    }
                    2 => prop_assert_eq!(pages.get_mut(seq).copied(), map.get(&seq).copied()),
                    _ => prop_assert_eq!(pages.insert(seq, i), map.insert(seq, i)),
                }
                prop_assert_eq!(pages.len(), map.len());
            }
            prop_assert!(pages.iter().map(|(s, &v)| (s, v)).eq(map.iter().map(|(&s, &v)| (s, v))));
            let first = u64::from(first % 1024);
            let from = map.range(first..).map(|(&s, &v)| (s, v));
            prop_assert!(pages.iter_from(first).map(|(s, &v)| (s, v)).eq(from));
            pages.update(|v| *v += 1);
            for (seq, v) in &map {
                prop_assert_eq!(pages.get(*seq), Some(&(v + 1)));
            }
        }
    }

    #[test]
    fn what_is_gone_gives_its_memory_back() {
        let mut pages = Pages::default();
        for seq in 0..64_000_u64 {
            pages.insert(seq, [seq; 6]);
        }
        for seq in (0..64_000).filter(|s| s % 64 != 9) {
            pages.remove(seq);
        }
        assert_eq!(pages.len(), 1_000);
        let slots: usize = pages.rest.values().map(|p| p.slots.capacity()).sum();
        assert!(slots <= 1_100, "{slots}");
    }
}
