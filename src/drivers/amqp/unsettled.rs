//! What was received on a channel and is not settled, and how to acknowledge it with
//! few words: AMQP takes one acknowledgement for all messages up to a point
//! (<https://www.rabbitmq.com/docs/confirms#consumer-acks-multiple-parameter>).

use crate::queues::Handle;
use std::collections::BTreeMap;

/// What is on loan, in the order of delivery.
pub(super) struct Unsettled<A> {
    lent: BTreeMap<Handle, Lent<A>>,
    /// How many of these are settled.
    settled: usize,
}

struct Lent<A> {
    acker: A,
    /// It is done, and the broker does not know it yet.
    settled: bool,
}

impl<A> Default for Unsettled<A> {
    fn default() -> Self {
        Self {
            lent: BTreeMap::new(),
            settled: 0,
        }
    }
}

impl<A: Clone> Unsettled<A> {
    /// Something was received; handles grow in the order of delivery.
    pub fn insert(&mut self, handle: Handle, acker: A) {
        let settled = false;
        self.lent.insert(handle, Lent { acker, settled });
    }

    /// The channel is gone, and its loans with it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// These are done, as far as they are still on loan.
    pub fn settle(&mut self, handles: &[Handle]) {
        for handle in handles {
            if let Some(lent) = self.lent.get_mut(handle) {
                self.settled += usize::from(!lent.settled);
                lent.settled = true;
            }
        }
    }

    /// Those of `handles` that are still on loan, the last first.
    pub fn of(&self, handles: &[Handle]) -> Vec<(Handle, A)> {
        let mut found: Vec<(Handle, A)> = handles
            .iter()
            .filter_map(|handle| Some((*handle, self.lent.get(handle)?.acker.clone())))
            .collect();
        found.sort_by_key(|(handle, _)| std::cmp::Reverse(*handle));
        found
    }

    /// The last one that is settled together with all before it.
    pub fn head(&self) -> Option<(Handle, A)> {
        let head = self.lent.iter().take_while(|(_, lent)| lent.settled);
        let (handle, lent) = head.last()?;
        Some((*handle, lent.acker.clone()))
    }

    /// Whether something is settled that the broker does not know of.
    pub fn has_settled(&self) -> bool {
        self.settled > 0
    }

    /// All that is settled, in the order of delivery.
    pub fn settled(&self) -> Vec<(Handle, A)> {
        let settled = self.lent.iter().filter(|(_, lent)| lent.settled);
        settled
            .map(|(handle, lent)| (*handle, lent.acker.clone()))
            .collect()
    }

    /// The broker knows of this one.
    pub fn remove(&mut self, handle: Handle) {
        if let Some(lent) = self.lent.remove(&handle) {
            self.settled -= usize::from(lent.settled);
        }
    }

    /// The broker knows of all up to this one.
    pub fn remove_to(&mut self, last: Handle) {
        let rest = self.lent.split_off(&(last + 1));
        let gone = std::mem::replace(&mut self.lent, rest);
        self.settled -= gone.values().filter(|lent| lent.settled).count();
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

    /// What one word settles, and what is left that each needs its own for.
    fn words(unsettled: &mut Unsettled<Handle>) -> (Option<Handle>, Vec<Handle>) {
        let head = unsettled.head().map(|(handle, acker)| {
            assert_eq!(handle, acker);
            unsettled.remove_to(handle);
            handle
        });
        let single: Vec<Handle> = unsettled.settled().iter().map(|(h, _)| *h).collect();
        assert_eq!(unsettled.has_settled(), !single.is_empty());
        (head, single)
    }

    #[test]
    fn one_word_settles_all_that_nothing_unsettled_stands_before() {
        let said = |handles: &[Handle]| {
            let mut unsettled = lent(&[3, 4, 5, 6, 7]);
            unsettled.settle(handles);
            words(&mut unsettled)
        };
        assert_eq!(said(&[5, 3, 4]), (Some(5), vec![]));
        assert_eq!(said(&[3, 4, 6]), (Some(4), vec![6]));
        assert_eq!(said(&[4, 5]), (None, vec![4, 5]));
        assert_eq!(said(&[3, 4, 5, 6, 7]), (Some(7), vec![]));
    }

    #[test]
    fn what_was_done_out_of_turn_goes_with_what_came_before_it() {
        let mut unsettled = lent(&[3, 4, 5, 6, 7]);
        unsettled.settle(&[5, 6]);
        assert_eq!(words(&mut unsettled), (None, vec![5, 6]));
        unsettled.settle(&[3, 4, 4]);
        assert_eq!(words(&mut unsettled), (Some(6), vec![]));
        assert_eq!(unsettled.of(&[3, 6, 7]), vec![(7, 7)]);
    }

    #[test]
    fn what_is_no_longer_on_loan_is_passed_over() {
        let mut unsettled = lent(&[3, 4, 5]);
        unsettled.remove(3);
        unsettled.settle(&[1, 3, 4, 9]);
        assert_eq!(words(&mut unsettled), (Some(4), vec![]));
        unsettled.settle(&[5]);
        unsettled.clear();
        assert_eq!(words(&mut unsettled), (None, vec![]));
    }
}
