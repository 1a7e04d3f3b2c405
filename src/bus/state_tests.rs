use super::*;

const NOW: Now = Now {
    wall: 1_000_000,
    mono: 500,
};

#[test]
fn a_delay_is_never_lengthened_by_a_clock_that_was_set_back() {
    let hour = 3_600_000;
    let set_back = Now {
        wall: NOW.wall - hour,
        mono: 500,
    };
    assert_eq!(
        delay(NOW.wall + 1_000, NOW.wall, set_back),
        Some(At::Delayed {
            due: 1_500,
            until: NOW.wall + 1_000,
            wait: 1_000
        })
    );
    assert_eq!(
        delay(
            NOW.wall + 1_000,
            NOW.wall,
            Now {
                wall: NOW.wall + hour,
                mono: 500
            }
        ),
        None
    );
    assert_eq!(delay(NOW.wall, NOW.wall, NOW), None);
}

#[test]
fn settling_what_was_lost_to_damage_keeps_the_ledger_balanced() {
    let mut state = State::new([0, 0]);
    let items = [
        Item::Delivered {
            route: RouteId(3),
            seqs: vec![1, 2],
        },
        Item::Redriven {
            from: RouteId(1),
            to: RouteId(2),
            seqs: vec![9],
        },
        Item::Expired {
            route: RouteId(3),
            seqs: vec![4],
            policy: "age".into(),
        },
    ];
    state.apply_all(items.iter().map(|i| (Pos(1), i)), NOW);
    assert!(state.ledger().balanced());
    assert_eq!(state.routes.len(), 4);
}

#[test]
fn two_deliveries_of_an_event_on_one_route_are_one() {
    let mut state = State::new([0, 0]);
    let mut event = StoredEvent {
        seq: 1,
        accepted_ms: NOW.wall,
        bus: "default".into(),
        id: "a".into(),
        cause: None,
        root_id: None,
        hops: 0,
        cursor: None,
        rules_version: 0,
        deliveries: vec![NewDelivery::to(RouteId(0)), NewDelivery::to(RouteId(0))],
        payload: bytes::Bytes::new(),
        reading: Default::default(),
    };
    let first = Item::Event(Arc::new(event.clone()));
    event.seq = 2;
    let second = Item::Event(Arc::new(event));
    state.apply_all([(Pos(1), &first), (Pos(2), &second)].into_iter(), NOW);
    let ledger = state.ledger();
    assert_eq!((ledger.routes[0].enqueued, ledger.routes[0].ready), (2, 2));
    assert!(ledger.balanced());
}

#[test]
fn a_route_is_looked_at_only_while_something_is_pending_on_it() {
    let mut state = State::new([0, 0]);
    let all: Vec<RouteId> = (0..200).map(RouteId).collect();
    let replayed = |route: u32, seq: u64| Item::Replayed {
        route: RouteId(route),
        replay_id: "r".into(),
        deliveries: vec![(seq, 0)],
    };
    let delivered = Item::Delivered {
        route: RouteId(190),
        seqs: vec![1],
    };
    let items = [replayed(190, 1), replayed(3, 1)];
    state.apply_all(items.iter().map(|i| (Pos(1), i)), NOW);
    assert_eq!(state.busy(&all, NOW), [RouteId(3), RouteId(190)]);
    state.apply_all([(Pos(1), &delivered)].into_iter(), NOW);
    assert_eq!(state.busy(&all, NOW), [RouteId(3)]);
    assert!(state.busy(&all[4..], NOW).is_empty());
    state.apply_all([(Pos(1), &replayed(190, 2))].into_iter(), NOW);
    assert_eq!(state.busy(&all[4..], NOW), [RouteId(190)]);
}
