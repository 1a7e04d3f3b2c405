use super::super::types::NewDelivery;
use super::*;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    ".{0,20}"
}

fn error() -> impl Strategy<Value = AttemptError> {
    (
        text(),
        text(),
        proptest::collection::vec(text(), 0..3),
        any::<i64>(),
        text(),
    )
        .prop_map(|(class, message, chain, at_ms, handler)| AttemptError {
            class,
            message,
            chain,
            at_ms,
            handler,
        })
}

fn delivery() -> impl Strategy<Value = NewDelivery> {
    (
        any::<u32>(),
        proptest::option::of(text()),
        proptest::option::of(any::<i64>()),
    )
        .prop_map(|(route, key, not_before_ms)| NewDelivery {
            route: RouteId(route),
            key,
            not_before_ms,
        })
}

fn stored() -> impl Strategy<Value = StoredEvent> {
    let texts = (
        text(),
        text(),
        proptest::option::of(text()),
        proptest::option::of(text()),
        proptest::option::of(text()),
    );
    let numbers = (any::<u64>(), any::<i64>(), any::<u8>(), any::<u32>());
    let rest = (
        proptest::collection::vec(delivery(), 0..4),
        proptest::collection::vec(any::<u8>(), 0..100),
    );
    (texts, numbers, rest).prop_map(|(texts, numbers, (deliveries, payload))| StoredEvent {
        seq: numbers.0,
        accepted_ms: numbers.1,
        hops: numbers.2,
        rules_version: numbers.3,
        bus: texts.0.into(),
        id: texts.1,
        cause: texts.2,
        root_id: texts.3,
        cursor: texts.4,
        deliveries,
        payload: payload.into(),
        reading: Default::default(),
    })
}

fn seqs() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(any::<u64>(), 0..20)
}

fn attached() -> impl Strategy<Value = Attached> {
    let dead = proptest::option::of((any::<i64>(), text().prop_map(Bytes::from)));
    (any::<u32>(), proptest::collection::vec(error(), 0..3), dead).prop_map(
        |(route, errors, dead)| Attached {
            route: RouteId(route),
            errors,
            dead,
        },
    )
}

fn lists() -> impl Strategy<Value = Item> {
    let route = || any::<u32>().prop_map(RouteId);
    prop_oneof![
        (route(), seqs()).prop_map(|(route, seqs)| Item::Leased { route, seqs }),
        (route(), seqs()).prop_map(|(route, seqs)| Item::Delivered { route, seqs }),
        (route(), seqs()).prop_map(|(route, seqs)| Item::Released { route, seqs }),
        (route(), seqs(), text()).prop_map(|(route, seqs, policy)| Item::Expired {
            route,
            seqs,
            policy
        }),
        (route(), seqs(), text()).prop_map(|(route, seqs, why)| Item::Purged { route, seqs, why }),
        (route(), route(), seqs()).prop_map(|(from, to, seqs)| Item::Redriven { from, to, seqs }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let route = || any::<u32>().prop_map(RouteId);
    prop_oneof![
        stored().prop_map(|e| Item::Event(Arc::new(e))),
        lists(),
        (
            route(),
            text(),
            proptest::collection::vec(any::<(u64, u64)>(), 0..9)
        )
            .prop_map(|(route, replay_id, deliveries)| Item::Replayed {
                route,
                replay_id,
                deliveries
            }),
        (route(), any::<(u64, u32, i64, i64, u64)>(), error()).prop_map(|(route, n, error)| {
            let (seq, attempts, not_before_ms, set_ms, previous) = n;
            Item::Retry(Box::new(Retry {
                route,
                seq,
                attempts,
                not_before_ms,
                set_ms,
                error,
                previous: Pos(previous),
            }))
        }),
        (route(), any::<(u64, u32, i64, u64)>(), error(), text()).prop_map(
            |(route, n, error, context)| {
                let (seq, attempts, dead_at_ms, previous) = n;
                let context = context.into();
                Item::Dead(Box::new(Dead {
                    route,
                    seq,
                    attempts,
                    dead_at_ms,
                    error,
                    context,
                    previous: Pos(previous),
                }))
            }
        ),
        (stored(), proptest::collection::vec(attached(), 0..3)).prop_map(|(event, attached)| {
            Item::Moved(Box::new(Moved {
                event: Arc::new(event),
                attached,
            }))
        }),
        (route(), text(), any::<bool>()).prop_map(|(id, name, ordered)| Item::Route {
            id,
            name,
            ordered
        }),
        (route(), any::<bool>()).prop_map(|(route, paused)| Item::Paused { route, paused }),
        (route(), text()).prop_map(|(route, why)| Item::Retired {
            route,
            fate: Fate::Purged(why)
        }),
        (route(), route()).prop_map(|(route, to)| Item::Retired {
            route,
            fate: Fate::MovedTo(to)
        }),
        route().prop_map(|route| Item::Retired {
            route,
            fate: Fate::Empty
        }),
        (text(), any::<u64>()).prop_map(|(bus, count)| Item::Duplicates { bus, count }),
    ]
}

proptest! {
    #[test]
    fn every_item_comes_back_as_it_went_in(item in item(), salt: u64) {
        let mut out = Vec::new();
        item.encode(salt, &mut out);
        let home = Bytes::from(out);
        let mut reader = Reader::new(&home);
        prop_assert_eq!(&Item::decode(&mut reader, Some(&home)).unwrap(), &item);
        prop_assert!(reader.is_done());
        prop_assert_eq!(&Item::decode(&mut Reader::new(&home), None).unwrap(), &item);
    }

    #[test]
    fn decoding_arbitrary_bytes_never_panics(data: Vec<u8>) {
        let home = Bytes::from(data);
        let mut reader = Reader::new(&home);
        while Item::decode(&mut reader, Some(&home)).is_ok() {}
    }

    #[test]
    fn a_flipped_bit_of_an_item_read_by_position_is_noticed(event in stored(), salt: u64, at: prop::sample::Index) {
        let mut out = Vec::new();
        Item::Event(Arc::new(event)).encode(salt, &mut out);
        let bit = at.index((out.len() - ADDRESSED_HEADER) * 8);
        let byte = ADDRESSED_HEADER + bit / 8;
        out[byte] ^= 1 << (bit % 8);
        let mut head = [0; ADDRESSED_HEADER];
        head.copy_from_slice(&out[..ADDRESSED_HEADER]);
        let (kind, crc, len) = addressed_header(&head).unwrap();
        let body = Bytes::copy_from_slice(&out[ADDRESSED_HEADER..ADDRESSED_HEADER + len]);
        prop_assert!(decode_checked(salt, kind, crc, &body).is_err());
    }
}
