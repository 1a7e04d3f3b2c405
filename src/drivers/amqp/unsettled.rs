//! What was received on a channel and is not settled, and how to acknowledge it with
//! few words: AMQP takes one acknowledgement for all messages up to a point
//! (<https://www.rabbitmq.com/docs/confirms#consumer-acks-multiple-parameter>).

use crate::queues::Handle;
use std::collections::{BTreeMap, HashSet};

/// What is on loan, in the order of delivery.
pub(super) struct Unsettled<A> {
    lent: BTreeMap<Handle, A>,
}

/// How to acknowledge some of it.
pub(super) struct Acks<A> {
    /// All of these by the last one's: nothing before it stays on loan.
    pub together: Option<(Vec<Handle>, A)>,
    /// Each by its own.
    pub single: Vec<(Handle, A)>,
}

impl<A> Default for Unsettled<A> {
    fn default() -> Self {
        Self {
            lent: BTreeMap::new(),
        }
    }
}

impl<A: Clone> Unsettled<A> {
    /// Something was received; handles grow in the order of delivery.
    pub fn insert(&mut self, handle: Handle, acker: A) {
        self.lent.insert(handle, acker);
    }

    /// The channel is gone, and its loans with it.
    pub fn clear(&mut self) {
        self.lent.clear();
    }

    /// Those of `handles` that are still on loan, the last first.
    pub fn of(&self, handles: &[Handle]) -> Vec<(Handle, A)> {
        let mut found: Vec<(Handle, A)> = handles
            .iter()
            .filter_map(|handle| Some((*handle, self.lent.get(handle)?.clone())))
            .collect();
        found.sort_by_key(|(handle, _)| std::cmp::Reverse(*handle));
        found
    }

    /// How to acknowledge `handles`, as far as they are still on loan.
    pub fn acks(&self, handles: &[Handle]) -> Acks<A> {
        let wanted: HashSet<Handle> = handles.iter().copied().collect();
        let head = self.lent.iter().take_while(|(h, _)| wanted.contains(h));
        let head: Vec<Handle> = head.map(|(handle, _)| *handle).collect();
        let last = head.last().and_then(|last| self.lent.get(last));
        let mut single = self.of(handles);
        single.reverse();
        single.retain(|(handle, _)| head.last().is_none_or(|last| handle > last));
        let together = last.cloned().map(|acker| (head, acker));
        Acks { together, single }
    }

    /// These are settled.
    pub fn remove(&mut self, handles: &[Handle]) {
        for handle in handles {
            self.lent.remove(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(handles: &[Handle]) -> Unsettled<Handle> {
        let mut unsettled = Unsettled::default();
        handles.iter().for_each(|h| unsettled.insert(*h, *h));
        unsettled
    }

    fn acks(unsettled: &Unsettled<Handle>, handles: &[Handle]) -> (Option<Handle>, Vec<Handle>) {
        let acks = unsettled.acks(handles);
        let together = acks.together.map(|(covered, acker)| {
            assert_eq!(covered.last(), Some(&acker));
            acker
        });
        (together, acks.single.iter().map(|(h, _)| *h).collect())
    }

    #[test]
    fn one_word_settles_all_that_nothing_unsettled_stands_before() {
        let unsettled = lent(&[3, 4, 5, 6, 7]);
        assert_eq!(acks(&unsettled, &[5, 3, 4]), (Some(5), vec![]));
        assert_eq!(acks(&unsettled, &[3, 4, 6]), (Some(4), vec![6]));
        assert_eq!(acks(&unsettled, &[4, 5]), (None, vec![4, 5]));
        assert_eq!(acks(&unsettled, &[3, 4, 5, 6, 7]), (Some(7), vec![]));
    }

    #[test]
    fn what_is_no_longer_on_loan_is_passed_over() {
        let mut unsettled = lent(&[3, 4, 5]);
        unsettled.remove(&[3]);
        assert_eq!(acks(&unsettled, &[3, 4]), (Some(4), vec![]));
        assert_eq!(acks(&unsettled, &[1, 9]), (None, vec![]));
        unsettled.clear();
        assert_eq!(acks(&unsettled, &[4]), (None, vec![]));
    }
}
