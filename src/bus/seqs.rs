//! A set of sequence numbers: a few runs as they are, or a bitmap when there are more.
//!
//! Most routes of a bus with many have none or a few deliveries ready, and a bitmap
//! takes memory from the allocator for each that comes and gives it back for each that
//! goes. A list of runs keeps its memory.

use roaring::RoaringTreemap;

/// More runs than these are kept as a bitmap.
const FEW: usize = 8;

/// A set of sequence numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seqs {
    /// First and last of each run, ascending, with gaps between; empty beside `many`.
    runs: Vec<(u64, u64)>,
    /// Never empty.
    many: Option<Box<RoaringTreemap>>,
}

impl Seqs {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.many.is_none()
    }

    pub(crate) fn len(&self) -> u64 {
        let few: u64 = self.runs.iter().map(|(first, last)| last - first + 1).sum();
        few + self.many.as_ref().map_or(0, |many| many.len())
    }

    pub(crate) fn min(&self) -> Option<u64> {
        let few = self.runs.first().map(|run| run.0);
        few.or_else(|| self.many.as_ref()?.min())
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        let few = || self.runs.iter().any(|run| (run.0..=run.1).contains(&seq));
        few() || self.many.as_ref().is_some_and(|many| many.contains(seq))
    }

    /// Adds one; `false` when it is there.
    pub(crate) fn insert(&mut self, seq: u64) -> bool {
        self.insert_run(seq, seq) == 1
    }

    /// Adds all from `first` to `last`; how many were not there.
    pub(crate) fn insert_run(&mut self, first: u64, last: u64) -> u64 {
        if self.many.is_none() && self.append(first, last) {
            return last - first + 1;
        }
        self.bitmap().insert_range(first..=last)
    }

    /// Adds a run behind all others; `false` when it is not, or when there are too many.
    fn append(&mut self, first: u64, last: u64) -> bool {
        let count = self.runs.len();
        match self.runs.last_mut() {
            Some(end) if end.1 >= first => return false,
            Some(end) if end.1 + 1 == first => end.1 = last,
            _ if count == FEW => return false,
            _ => self.runs.push((first, last)),
        }
        true
    }

    /// Takes one out; `false` when it is not there.
    pub(crate) fn remove(&mut self, seq: u64) -> bool {
        if !self.contains(seq) {
            return false;
        }
        match self.runs.iter().position(|run| seq <= run.1) {
            Some(at) if self.runs[at] == (seq, seq) => drop(self.runs.remove(at)),
            Some(at) if self.runs[at].0 == seq => self.runs[at].0 += 1,
            Some(at) if self.runs[at].1 == seq => self.runs[at].1 -= 1,
            _ => {
                self.bitmap().remove(seq);
                self.settle();
            }
        }
        true
    }

    /// Takes out all up to `last`.
    pub(crate) fn remove_to(&mut self, last: u64) {
        self.runs.retain_mut(|run| {
            run.0 = run.0.max(last.saturating_add(1));
            run.0 <= run.1
        });
        if let Some(many) = &mut self.many {
            many.remove_range(0..=last);
            self.settle();
        }
    }

    /// All as a bitmap from here on.
    fn bitmap(&mut self) -> &mut RoaringTreemap {
        let runs = &mut self.runs;
        self.many.get_or_insert_with(|| {
            let mut many = RoaringTreemap::new();
            for (first, last) in runs.drain(..) {
                many.insert_range(first..=last);
            }
            Box::new(many)
        })
    }

    /// An empty bitmap is none.
    fn settle(&mut self) {
        self.many = self.many.take().filter(|many| !many.is_empty());
    }

    /// All in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.iter_from(0)
    }

    /// All from `first` on, in order.
    pub(crate) fn iter_from(&self, first: u64) -> impl Iterator<Item = u64> {
        let runs = self.runs.iter();
        let few = runs.flat_map(move |run| run.0.max(first)..=run.1);
        let many = self.many.iter().flat_map(move |many| {
            let mut all = many.iter();
            all.advance_to(first);
            all
        });
        few.chain(many)
    }

    /// All in order, to be merged with others.
    pub(crate) fn line(&self) -> Line<'_> {
        match &self.many {
            Some(many) => Line::of(many),
            None => Line::Few(&self.runs, 0),
        }
    }

    /// How many lie in a range.
    pub(crate) fn count_in(&self, range: std::ops::Range<u64>) -> u64 {
        let few = self.runs.iter().map(|run| {
            let end = range.end.min(run.1 + 1);
            end.saturating_sub(range.start.max(run.0))
        });
        let few: u64 = few.sum();
        few + self
            .many
            .as_ref()
            .map_or(0, |many| many.range_cardinality(range))
    }

    /// As a bitmap, to be written.
    pub(crate) fn to_bitmap(&self) -> std::borrow::Cow<'_, RoaringTreemap> {
        match &self.many {
            Some(many) => std::borrow::Cow::Borrowed(many),
            None => {
                let mut copy = self.clone();
                std::borrow::Cow::Owned(std::mem::take(copy.bitmap()))
            }
        }
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        let many = self.many.as_ref().map_or(0, |many| many.serialized_size());
        many + self.runs.capacity() * size_of::<(u64, u64)>()
    }
}

impl From<RoaringTreemap> for Seqs {
    fn from(many: RoaringTreemap) -> Self {
        let mut seqs = Self {
            runs: Vec::new(),
            many: Some(Box::new(many)),
        };
        seqs.settle();
        seqs
    }
}

impl PartialEq for Seqs {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Numbers in order, small enough to have one for each of very many routes.
pub(crate) enum Line<'a> {
    /// Runs, and how many of the first were given.
    Few(&'a [(u64, u64)], u64),
    Many(Box<roaring::treemap::Iter<'a>>),
}

impl<'a> Line<'a> {
    /// The numbers of a bitmap.
    fn of(many: &'a RoaringTreemap) -> Self {
        match many.is_empty() {
            true => Self::Few(&[], 0),
            false => Self::Many(Box::new(many.iter())),
        }
    }
}

impl Iterator for Line<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self {
            Self::Few(runs, given) => {
                let (first, last) = *runs.first()?;
                let seq = first + *given;
                *given += 1;
                if seq == last {
                    (*runs, *given) = (&runs[1..], 0);
                }
                Some(seq)
            }
            Self::Many(all) => all.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set_in_order(steps: Vec<(u8, u8)>, from: u8) {
            let (mut seqs, mut set) = (Seqs::default(), BTreeSet::new());
            let mut end = 0;
            for (seq, what) in steps {
                let seq = u64::from(seq);
                match what % 6 {
                    0 => prop_assert_eq!(seqs.insert(seq), set.insert(seq)),
                    1 => {
                        seqs.remove_to(seq);
                        set.retain(|&s| s > seq);
                    }
                    2 | 3 => prop_assert_eq!(seqs.remove(seq), set.remove(&seq)),
                    // Mostly they come at the end.
                    _ => {
                        let first = end + seq % 3;
                        end = first + seq % 7;
                        let added = (first..=end).filter(|&s| set.insert(s)).count() as u64;
                        prop_assert_eq!(seqs.insert_run(first, end), added);
                    }
                }
                prop_assert_eq!((seqs.len(), seqs.min()), (set.len() as u64, set.first().copied()));
                prop_assert_eq!((seqs.is_empty(), seqs.contains(seq)), (set.is_empty(), set.contains(&seq)));
            }
            let from = u64::from(from);
            prop_assert!(seqs.iter().eq(set.iter().copied()));
            prop_assert!(seqs.line().eq(set.iter().copied()));
            prop_assert!(seqs.iter_from(from).eq(set.range(from..).copied()));
            prop_assert_eq!(seqs.count_in(from..from + 50), set.range(from..from + 50).count() as u64);
            prop_assert!(seqs.to_bitmap().iter().eq(set.iter().copied()));
            prop_assert!(Seqs::from(seqs.to_bitmap().into_owned()) == seqs);
        }
    }

    #[test]
    fn many_runs_take_the_memory_of_a_bitmap_and_give_it_back() {
        let mut seqs = Seqs::default();
        for i in 0..1_000 {
            seqs.insert(2 * i);
        }
        assert!(seqs.many.is_some() && seqs.footprint() < 4_096);
        seqs.remove_to(3_000);
        assert!(seqs.many.is_none() && seqs.is_empty());
    }
}
