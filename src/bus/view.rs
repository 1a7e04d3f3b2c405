//! A route looked at: where a delivery stands, what is pending, what it takes.

use roaring::RoaringTreemap;

use super::route::{At, DeadRef, Route};
use super::seqs::Seqs;
use super::types::Standing;

impl Route {
    /// Where a delivery stands, and how often it was tried.
    pub(crate) fn standing(&self, seq: u64) -> Option<(Standing, u32)> {
        if let Some(dead) = self.dead.get(&seq) {
            return Some((Standing::Dead, dead.attempts));
        }
        if let Some(entry) = self.entries.get(seq) {
            let standing = match entry.at {
                At::Ready => Standing::Ready,
                At::Leased { .. } | At::Settling => Standing::Leased,
                At::Delayed { .. } => Standing::Delayed,
            };
            return Some((standing, entry.attempts));
        }
        self.is_pending(seq).then_some((Standing::Ready, 0))
    }

    /// Every pending sequence number in a range.
    pub(crate) fn pending_in(&self, first: u64, last: u64) -> RoaringTreemap {
        let mut all = RoaringTreemap::new();
        all.extend(self.fresh.iter_from(first).take_while(|&seq| seq <= last));
        all.extend(self.again.iter_from(first).take_while(|&seq| seq <= last));
        let keyed = self.keyed.iter_from(first).map(|k| k.0);
        all.extend(keyed.take_while(|&seq| seq <= last));
        let touched = self.entries.iter_from(first).map(|e| e.0);
        all.extend(touched.take_while(|&seq| seq <= last));
        all
    }

    /// What is pending and was given by this replay.
    pub(crate) fn pending_of(&self, replay_id: &str) -> RoaringTreemap {
        let Some(replay) = self.replays.iter().find(|r| &*r.id == replay_id) else {
            return RoaringTreemap::new();
        };
        let ends = replay.seen.min().zip(replay.seen.max());
        let mut pending = ends.map_or_else(RoaringTreemap::new, |(a, z)| self.pending_in(a, z));
        pending &= &replay.seen;
        let others = |seq: &u64| self.replay_of(*seq).is_none_or(|id| &**id != replay_id);
        let others: RoaringTreemap = pending.iter().filter(others).collect();
        pending -= others;
        pending
    }

    /// The lowest pending sequence number.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let bits = [self.fresh.min(), self.again.min()].into_iter().flatten();
        let keyed = self.keyed.iter().next().map(|k| k.0);
        let touched = self.entries.iter().next().map(|e| e.0);
        bits.chain(keyed).chain(touched).min()
    }

    /// Everything that is pending, lowest first.
    pub(crate) fn all_pending(&self) -> Vec<u64> {
        self.pending_in(0, u64::MAX).iter().collect()
    }

    /// About how much memory its deliveries take, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        let lists = [&self.fresh, &self.again, &self.heads[0], &self.heads[1]];
        let seen = self.replays.iter().map(|r| r.seen.serialized_size());
        lists.map(Seqs::footprint).iter().sum::<usize>()
            + seen.sum::<usize>()
            + self.keyed.footprint()
            + self.keys.footprint()
            + self.entries.footprint()
            + self.delayed.footprint()
            // A tree whose nodes are half full.
            + self.dead.len() * 2 * size_of::<(u64, DeadRef)>()
    }
}
