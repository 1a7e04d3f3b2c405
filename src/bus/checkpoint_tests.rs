use std::sync::Arc;

use super::super::item::{Dead, Item, Retry};
use super::super::route::Now;
use super::super::types::{AttemptError, NewDelivery, NewEvent, StoredEvent};
use super::*;

const NOW: Now = Now {
    wall: 1_000_000,
    mono: 0,
};

fn event(seq: u64, deliveries: Vec<NewDelivery>) -> Item {
    let new = NewEvent::new("default", format!("e{seq}"), "{}");
    Item::Event(Arc::new(StoredEvent {
        seq,
        accepted_ms: NOW.wall,
        bus: new.bus,
        id: new.id,
        cause: None,
        root_id: None,
        hops: 0,
        cursor: None,
        rules_version: 0,
        deliveries,
        payload: new.payload,
        reading: Default::default(),
    }))
}

fn to(route: u32, key: Option<&str>, delay: Option<i64>) -> NewDelivery {
    NewDelivery {
        route: RouteId(route),
        key: key.map(str::to_owned),
        not_before_ms: delay.map(|d| NOW.wall + d),
    }
}

fn sample() -> State {
    let mut items = vec![
        Item::Route {
            id: RouteId(0),
            name: "plain".into(),
            ordered: false,
        },
        Item::Route {
            id: RouteId(1),
            name: "ordered".into(),
            ordered: true,
        },
        Item::Route {
            id: RouteId(2),
            name: "late".into(),
            ordered: false,
        },
    ];
    for seq in 1..=40 {
        let key = format!("k{}", seq % 3);
        let delay = (seq % 5 == 0).then_some(5_000);
        items.push(event(
            seq,
            vec![to(0, None, delay), to(1, Some(&key), delay)],
        ));
    }
    items.extend(changes());
    let mut state = State::new([1, 2]);
    let places = items
        .iter()
        .enumerate()
        .map(|(i, item)| (Pos::new(1, 100 + i as u32), item));
    state.apply_all(places, NOW);
    state
}

fn again(state: &State) -> State {
    let mut body = Vec::new();
    encode(77, state.next_seq, Some(state), &mut body);
    assert_eq!(
        link(&body).unwrap(),
        Link {
            previous_len: 77,
            next_seq: 41,
            full: true
        }
    );
    decode(&body, state.key).unwrap()
}

/// What happened to some of the deliveries.
fn changes() -> Vec<Item> {
    let mut items = Vec::new();
    items.push(Item::Leased {
        route: RouteId(0),
        seqs: vec![1, 2, 3, 4],
    });
    items.push(Item::Delivered {
        route: RouteId(0),
        seqs: vec![1, 9],
    });
    let error = AttemptError::default();
    items.push(Item::Retry(Box::new(Retry {
        route: RouteId(0),
        seq: 2,
        attempts: 1,
        not_before_ms: NOW.wall + 60_000,
        set_ms: NOW.wall,
        error: error.clone(),
        previous: Pos(0),
    })));
    items.push(Item::Dead(Box::new(Dead {
        route: RouteId(1),
        seq: 1,
        attempts: 3,
        dead_at_ms: NOW.wall,
        error,
        context: bytes::Bytes::new(),
        previous: Pos(0),
    })));
    let deliveries = vec![(1, 0), (2, 0)];
    items.push(Item::Replayed {
        route: RouteId(2),
        replay_id: "r1".into(),
        deliveries,
    });
    items.push(Item::Paused {
        route: RouteId(2),
        paused: true,
    });
    items.push(Item::Duplicates {
        bus: "default".into(),
        count: 3,
    });
    items
}

#[test]
fn a_state_comes_back_with_all_its_queues() {
    let state = sample();
    let mut read = again(&state);
    read.rearm(NOW);
    assert_eq!(read.ledger(), state.ledger());
    assert_eq!(read.names, state.names);
    for (a, b) in read.routes.iter().zip(&state.routes) {
        assert_eq!(a.fresh, b.fresh, "{}", a.name);
        assert_eq!(a.again, b.again, "{}", a.name);
        assert_eq!(a.heads, b.heads, "{}", a.name);
        assert_eq!(a.keys, b.keys, "{}", a.name);
        assert_eq!(a.keyed, b.keyed, "{}", a.name);
        assert_eq!(a.delayed.len(), b.delayed.len(), "{}", a.name);
        assert_eq!(a.entries, b.entries, "{}", a.name);
        assert_eq!((&a.dead, &a.replays), (&b.dead, &b.replays), "{}", a.name);
    }
}

#[test]
fn what_was_in_somebodys_hands_is_ready_again() {
    let mut state = sample();
    let route = &mut state.routes[1];
    let seqs: Vec<u64> = route.candidates(0, 2).collect();
    route.lease(0, &seqs, 1, 1_000);
    let read = again(&state);
    let ledger = &read.ledger().routes[1];
    assert_eq!(ledger.leased, 0);
    assert_eq!(ledger.pending(), state.ledger().routes[1].pending());
    assert!(read.routes[1].candidates(0, 2).eq(seqs));
}

#[test]
fn a_cut_checkpoint_is_refused() {
    let state = sample();
    let mut body = Vec::new();
    encode(0, state.next_seq, Some(&state), &mut body);
    for cut in 0..body.len() {
        assert!(decode(&body[..cut], state.key).is_err(), "cut at {cut}");
    }
}
