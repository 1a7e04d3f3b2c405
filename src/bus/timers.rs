//! When delayed deliveries are due: a heap that lets go of what was cancelled in its
//! own time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Due times and sequence numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    /// Of them, those that somebody still waits for.
    live: usize,
}

/// So many cancelled ones are not worth a cleaning.
const SLACK: usize = 1_024;

impl Timers {
    /// How many are waited for.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn push(&mut self, due: u64, seq: u64) {
        self.heap.push(Reverse((due, seq)));
        self.live += 1;
    }

    /// One of those pushed is waited for no longer; `is_live` tells which still are.
    pub(crate) fn cancel(&mut self, is_live: impl Fn(u64, u64) -> bool) {
        self.live -= 1;
        if self.heap.len() > 2 * self.live + SLACK {
            self.heap.retain(|&Reverse((due, seq))| is_live(due, seq));
            self.heap.shrink_to(2 * self.live);
        }
    }

    /// The next whose time has come, if any is.
    pub(crate) fn pop(&mut self, now: u64, is_live: impl Fn(u64, u64) -> bool) -> Option<u64> {
        loop {
            let &Reverse((due, seq)) = self.heap.peek().filter(|t| t.0.0 <= now)?;
            self.heap.pop();
            if is_live(due, seq) {
                self.live -= 1;
                return Some(seq);
            }
        }
    }

    /// No timer is due before; a cancelled one may make it too early, never too late.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|t| t.0.0).filter(|_| self.live > 0)
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        self.heap.len() * size_of::<(u64, u64)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn they_come_in_order_and_cancelled_ones_never() {
        let mut timers = Timers::default();
        let mut due: HashMap<u64, u64> = HashMap::new();
        for seq in 0..10_000 {
            due.insert(seq, 10_000 - seq);
            timers.push(10_000 - seq, seq);
        }
        for seq in (0..10_000).filter(|s| s % 10 != 0) {
            due.remove(&seq);
            timers.cancel(|at, seq| due.get(&seq) == Some(&at));
        }
        assert_eq!(timers.len(), 1_000);
        assert!(timers.heap.len() <= 2_000 + SLACK);
        assert_eq!(timers.pop(9, |at, seq| due.get(&seq) == Some(&at)), None);
        let all: Vec<u64> = std::iter::from_fn(|| {
            let seq = timers.pop(20_000, |at, seq| due.get(&seq) == Some(&at))?;
            due.remove(&seq);
            Some(seq)
        })
        .collect();
        assert_eq!(all.len(), 1_000);
        assert!(all.is_sorted_by(|a, b| a > b));
        assert_eq!((timers.len(), timers.next()), (0, None));
    }
}
