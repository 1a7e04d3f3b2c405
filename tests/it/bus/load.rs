//! Everything at once on a real disk: publishers, duplicates, consumers that fail,
//! retention and copying forward, while the books must stay right.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::bus::{
    AttemptError, Bus, BusOptions, Durability, NewEvent, Outcome, Receive, RouteId, RouteOptions,
};
use pointsman::clock;
use pointsman::storage::Real;

use super::world::{Rng, payload_of};

const PUBLISHERS: u64 = 4;
const EVENTS: u64 = 1_500;

type Seen = Arc<Mutex<HashMap<(RouteId, u64), u32>>>;

#[test]
fn under_load_every_delivery_ends_once_and_the_books_agree() {
    let dir = tempfile::tempdir().unwrap();
    let options = BusOptions {
        segment_bytes: 128 << 10,
        cache_bytes: 128 << 10,
        retention: Duration::from_millis(50),
        dedupe_window: Duration::from_secs(60),
        maintain_every: Duration::from_millis(5),
        ..BusOptions::new(dir.path())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bus = Bus::open(options.clone(), Real::shared(), clock::system())
            .unwrap()
            .0;
        let a = bus.route("a", RouteOptions::default()).await.unwrap();
        let b = bus
            .route("b", RouteOptions { ordered: true })
            .await
            .unwrap();
        let ended: Seen = Seen::default();
        let publishing: Vec<_> = (0..PUBLISHERS)
            .map(|p| tokio::spawn(publish(bus.clone(), [a, b], p)))
            .collect();
        let consuming: Vec<_> = [a, a, b, b]
            .into_iter()
            .enumerate()
            .map(|(i, route)| tokio::spawn(consume(bus.clone(), route, i as u64, ended.clone())))
            .collect();
        for one in publishing {
            one.await.unwrap();
        }
        for one in consuming {
            one.await.unwrap();
        }
        bus.flush().await.unwrap();
        let ledger = bus.audit();
        assert!(ledger.balanced(), "{ledger:#?}");
        assert_eq!(ledger.buses["default"].accepted, PUBLISHERS * EVENTS);
        assert!(
            ledger
                .routes
                .iter()
                .all(|r| r.enqueued == PUBLISHERS * EVENTS && r.pending() == 0),
            "{ledger:#?}"
        );
        let ended = ended.lock().unwrap().clone();
        assert!(ended.values().all(|&n| n == 1));
        assert_eq!(ended.len() as u64, 2 * PUBLISHERS * EVENTS);
        let verified = bus.verify().await.unwrap();
        assert!(verified.agrees, "{verified:#?}");
        bus.close().await.unwrap();
        let (bus, report) = Bus::open(options, Real::shared(), clock::system()).unwrap();
        assert!(
            report.damage.is_empty() && report.torn_bytes == 0,
            "{report:?}"
        );
        assert_eq!(bus.audit().routes, ledger.routes);
    });
}

async fn publish(bus: Bus, routes: [RouteId; 2], publisher: u64) {
    let mut rng = Rng(publisher);
    let mut n = 0;
    while n < EVENTS {
        let count = (1 + rng.below(30)).min(EVENTS - n);
        let new = |n: u64| {
            let id = format!("{publisher}-{n}");
            let payload = payload_of(&id);
            let mut event = NewEvent::new("default", id, payload)
                .deliver(routes[0])
                .deliver(routes[1]);
            event.deliveries[1].key = Some(format!("key-{}", n % 50));
            event
        };
        let mut events: Vec<NewEvent> = (n..n + count).map(new).collect();
        let repeats = n > 0;
        if repeats {
            events.push(new(rng.below(n)));
        }
        let accepted = bus.accept(events).await.unwrap();
        assert!(accepted[..count as usize].iter().all(|a| !a.duplicate));
        assert!(!repeats || accepted[count as usize].duplicate);
        n += count;
    }
}

async fn consume(bus: Bus, route: RouteId, seed: u64, ended: Seen) {
    let mut rng = Rng(seed);
    loop {
        let receive = Receive {
            max: 1 + rng.below(60) as usize,
            ..Receive::default()
        };
        let leased = bus.receive(&[route], receive).unwrap();
        if leased.is_empty() {
            let over = ended
                .lock()
                .unwrap()
                .keys()
                .filter(|k| k.0 == route)
                .count() as u64
                == PUBLISHERS * EVENTS;
            if over {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), bus.ready(&[route])).await;
            continue;
        }
        let mut settlements = Vec::new();
        for one in &leased {
            assert_eq!(one.event.payload, payload_of(&one.event.id));
            let error = AttemptError {
                class: "transient".into(),
                ..AttemptError::default()
            };
            let outcome = match rng.below(12) {
                0 => Outcome::Retry {
                    not_before_ms: one.event.accepted_ms,
                    error,
                },
                1 => Outcome::Release,
                2 => Outcome::Expired {
                    policy: "test".into(),
                },
                _ => Outcome::Delivered,
            };
            if matches!(outcome, Outcome::Delivered | Outcome::Expired { .. }) {
                *ended.lock().unwrap().entry((route, one.seq)).or_default() += 1;
            }
            settlements.push(one.settle(outcome));
        }
        let durability = if rng.chance(2) {
            Durability::Relaxed
        } else {
            Durability::Synced
        };
        let settled = bus
            .settle(settlements, Vec::new(), durability)
            .await
            .unwrap();
        assert!(settled.applied.iter().all(|&a| a));
    }
}
