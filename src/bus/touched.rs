//! Which deliveries something was done to in a segment.
//!
//! A commit may settle deliveries of hundreds of routes, one or two of each; to find the
//! bitmap of each would cost more than all else that is noted of them. So they are kept
//! as they come, and put into bitmaps many at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use roaring::RoaringTreemap;

use super::types::RouteId;

/// So many are kept as they came, at 16 bytes each.
const LOOSE: usize = 1 << 16;

/// Deliveries by route; the log has the details.
#[derive(Debug, Clone, Default)]
pub(crate) struct Touched {
    sorted: BTreeMap<RouteId, RoaringTreemap>,
    loose: Vec<(RouteId, u64)>,
}

impl Touched {
    /// Notes a delivery.
    pub(crate) fn note(&mut self, route: RouteId, seq: u64) {
        self.loose.push((route, seq));
        if self.loose.len() >= LOOSE {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.loose.sort_unstable();
        for of_route in self.loose.chunk_by(|a, b| a.0 == b.0) {
            let seqs = self.sorted.entry(of_route[0].0).or_default();
            for run in of_route.chunk_by(|a, b| a.1 + 1 == b.1) {
                seqs.insert_range(run[0].1..=run[run.len() - 1].1);
            }
        }
        self.loose.clear();
    }

    /// Whether something was done to a delivery of this event.
    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.sorted.values().any(|seqs| seqs.contains(seq))
            || self.loose.iter().any(|one| one.1 == seq)
    }

    /// All of them as bitmaps.
    pub(crate) fn bitmaps(&self) -> Cow<'_, BTreeMap<RouteId, RoaringTreemap>> {
        if self.loose.is_empty() {
            return Cow::Borrowed(&self.sorted);
        }
        let mut copy = self.clone();
        copy.sort();
        Cow::Owned(copy.sorted)
    }
}

impl From<BTreeMap<RouteId, RoaringTreemap>> for Touched {
    fn from(sorted: BTreeMap<RouteId, RoaringTreemap>) -> Self {
        Self {
            sorted,
            loose: Vec::new(),
        }
    }
}

impl PartialEq for Touched {
    fn eq(&self, other: &Self) -> bool {
        self.bitmaps() == other.bitmaps()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set_for_each_route(notes: Vec<(u8, u8)>, sorted_before: u8) {
            let mut touched = Touched::default();
            let mut sets: BTreeMap<RouteId, RoaringTreemap> = BTreeMap::new();
            for (i, (route, seq)) in notes.into_iter().enumerate() {
                let (route, seq) = (RouteId(u32::from(route % 4)), u64::from(seq));
                touched.note(route, seq);
                sets.entry(route).or_default().insert(seq);
                if i == usize::from(sorted_before) {
                    touched.sort();
                }
            }
            for seq in 0..256 {
                prop_assert_eq!(touched.contains(seq), sets.values().any(|s| s.contains(seq)));
            }
            prop_assert_eq!(&*touched.bitmaps(), &sets);
            prop_assert!(touched == Touched::from(sets));
        }
    }

    #[test]
    fn what_is_kept_as_it_came_is_bounded() {
        let mut touched = Touched::default();
        for seq in 0..200_000 {
            touched.note(RouteId((seq % 3) as u32), seq);
        }
        assert!(touched.loose.len() < LOOSE && touched.loose.capacity() <= LOOSE);
        let all: u64 = touched.bitmaps().values().map(RoaringTreemap::len).sum();
        assert_eq!(all, 200_000);
    }
}
