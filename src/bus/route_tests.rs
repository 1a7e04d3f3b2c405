use super::*;

impl Route {
    /// The lowest `n` that may go now, of the fresh (0) or the replayed (1).
    pub(crate) fn candidates(&self, class: usize, n: usize) -> impl Iterator<Item = u64> {
        let mut seqs: Vec<u64> = self.ready(class).into_iter().flatten().collect();
        seqs.sort_unstable();
        seqs.into_iter().take(n)
    }
}

fn route(ordered: bool) -> Route {
    Route::new(RouteId(0), "r".into(), ordered)
}

fn at(mono: u64) -> Now {
    Now { wall: 0, mono }
}

#[test]
fn a_lease_that_runs_out_is_ready_again_and_keeps_its_count() {
    let mut r = route(false);
    r.enqueue_run(1, 3);
    r.lease(0, &[1, 2], 10, 500);
    r.count_attempt(1);
    assert!(r.candidates(0, 9).eq([3]));
    assert_eq!(r.next_due(), Some(500));
    assert!(!r.advance(at(499)));
    assert!(r.advance(at(500)));
    assert!(r.candidates(0, 9).eq([1, 2, 3]));
    assert_eq!(r.entries.get(1).unwrap().attempts, 1);
}

#[test]
fn a_late_settlement_counts_unless_somebody_else_has_it() {
    let mut r = route(false);
    r.enqueue_run(1, 1);
    r.lease(0, &[1], 10, 100);
    r.advance(at(100));
    assert!(r.begin_settling(1, 10));
    assert_eq!(r.candidates(0, 9).next(), None);
    assert!(r.remove(1).is_some());

    r.enqueue_run(2, 2);
    r.lease(0, &[2], 11, 200);
    r.advance(at(200));
    r.lease(0, &[2], 12, 300);
    assert!(!r.begin_settling(2, 11));
    assert!(r.begin_settling(2, 12));
    assert!(!r.begin_settling(2, 12));
}

#[test]
fn an_extended_lease_lasts() {
    let mut r = route(false);
    r.enqueue_run(1, 1);
    r.lease(0, &[1], 10, 100);
    assert!(r.extend(1, 10, 900));
    assert!(!r.extend(1, 9, 900));
    assert!(!r.advance(at(100)));
    assert!(r.advance(at(900)));
}

#[test]
fn of_a_key_one_is_in_flight_and_a_delayed_one_blocks_only_its_key() {
    let mut r = route(true);
    for (seq, key) in [(1, 7), (2, 7), (3, 8)] {
        r.enqueue(seq, key, None);
    }
    assert!(r.candidates(0, 9).eq([1, 3]));
    r.lease(0, &[1], 10, 100);
    assert!(r.candidates(0, 9).eq([3]));
    let delayed = At::Delayed {
        due: 50,
        until: 0,
        wait: 50,
    };
    assert!(r.put_back(1, |_| {}, delayed));
    assert!(r.candidates(0, 9).eq([3]));
    r.advance(at(50));
    assert!(r.candidates(0, 9).eq([1, 3]));
    r.lease(0, &[1], 11, 100);
    assert!(r.remove(1).is_some());
    assert!(r.candidates(0, 9).eq([2, 3]));
}

#[test]
fn a_delay_keeps_the_place_in_the_line() {
    let mut r = route(true);
    r.enqueue(
        1,
        7,
        Some(At::Delayed {
            due: 50,
            until: 0,
            wait: 50,
        }),
    );
    r.enqueue(2, 7, None);
    assert_eq!(r.candidates(0, 9).next(), None);
    r.advance(at(50));
    assert!(r.candidates(0, 9).eq([1]));
}

#[test]
fn pending_counts_every_place_once() {
    let mut r = route(true);
    r.enqueue_run(1, 5);
    r.enqueue(6, 9, None);
    r.enqueue(7, 9, None);
    r.enqueue(
        8,
        0,
        Some(At::Delayed {
            due: 50,
            until: 0,
            wait: 50,
        }),
    );
    r.lease(0, &[1], 1, 10);
    assert_eq!(r.pending, 8);
    assert_eq!(r.all_pending(), [1, 2, 3, 4, 5, 6, 7, 8]);
    for seq in [1, 7, 8, 3] {
        assert!(r.remove(seq).is_some());
        assert!(r.remove(seq).is_none());
    }
    assert_eq!(r.pending, 4);
    assert_eq!(r.all_pending(), [2, 4, 5, 6]);
    assert_eq!((r.leased, r.delayed.len()), (0, 0));
    assert_eq!(r.oldest(), Some(2));
}

#[test]
fn what_was_in_flight_stays_ahead_of_an_older_one_that_came_since() {
    let delayed = At::Delayed {
        due: 50,
        until: 0,
        wait: 50,
    };
    for at_again in [At::Ready, delayed] {
        let mut r = route(true);
        // As a log that is read again tells it: a lease is an attempt and no more.
        r.enqueue(5, 7, None);
        r.count_attempt(5);
        r.enqueue(3, 7, None);
        assert!(r.put_back(5, |_| {}, at_again));
        r.advance(at(50));
        assert!(r.candidates(0, 9).eq([5]));
        r.lease(0, &[5], 10, 100);
        assert_eq!(r.candidates(0, 9).next(), None);
        assert!(r.remove(5).is_some());
        assert!(r.candidates(0, 9).eq([3]));
    }
}
