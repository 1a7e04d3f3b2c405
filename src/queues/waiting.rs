//! A message that came from a broker, and what a second copy of it is told by.

use super::broker::Inbound;
use super::wire::Meta;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::Instant;

/// How many deliveries that are done are remembered.
const REMEMBERED: usize = 100_000;

/// A message that waits or is handled.
pub(super) struct Waiting {
    pub inbound: Inbound,
    pub meta: Meta,
    pub since: Instant,
    /// Of [`Waiting::identity`].
    pub mark: Option<Mark>,
}

impl Waiting {
    /// What a second copy is told by.
    pub fn identity(&self) -> Option<&str> {
        identity(&self.inbound)
    }

    /// Whether a message of this identity that was there before is this one. Others
    /// may give two messages one id; a redelivery is the same message for sure.
    pub fn is_copy(&self) -> bool {
        self.inbound.delivery().is_some() || self.inbound.receive_count > 1
    }
}

/// What a second copy of a message is told by.
pub(super) fn identity(inbound: &Inbound) -> Option<&str> {
    inbound.delivery().or(inbound.identity.as_deref())
}

/// Stands for an identity: 128 bits of two keyed hashes, which no sender can foresee.
/// A hundred thousand of them are kept, so one in 10^33 messages would be taken for
/// another.
pub(super) type Mark = (u64, u64);

/// Marks need no further hashing.
pub(super) type AsItIs = BuildHasherDefault<Numbers>;

/// Numbers that are hashed already.
#[derive(Default)]
pub(super) struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64((*b).into()));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(1) ^ number;
    }
}

/// Makes marks.
#[derive(Default)]
pub(super) struct Marks {
    first: RandomState,
    second: RandomState,
}

impl Marks {
    pub fn of(&self, identity: &str) -> Mark {
        (
            self.first.hash_one(identity),
            self.second.hash_one(identity),
        )
    }
}

/// The marks of the last so many deliveries.
#[derive(Default)]
pub(super) struct Recent {
    known: HashSet<Mark, AsItIs>,
    order: VecDeque<Mark>,
}

impl Recent {
    pub fn contains(&self, mark: &Mark) -> bool {
        self.known.contains(mark)
    }

    pub fn insert(&mut self, mark: Mark) {
        if !self.known.insert(mark) {
            return;
        }
        self.order.push_back(mark);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_deliveries_are_remembered_and_no_more() {
        let (marks, mut recent) = (Marks::default(), Recent::default());
        let mark = |n: usize| marks.of(&format!("node/route/{n}"));
        for n in 0..=REMEMBERED {
            recent.insert(mark(n));
            recent.insert(mark(n));
        }
        assert!(!recent.contains(&mark(0)));
        assert!(recent.contains(&mark(1)) && recent.contains(&mark(REMEMBERED)));
        assert_eq!(recent.known.len(), REMEMBERED);
    }
}
