//! Old logs open for ever: a folder written by format version 1 and kept as it was.
//!
//! `BUS_FORMAT_WRITE=DIR` writes such a folder; it is done once per format version.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pointsman::bus::{
    AttemptError, Backlog, Bus, BusOptions, DeadFilter, Durability, NewEvent, Outcome, Receive,
    Redelivery, RouteOptions, doctor,
};
use pointsman::clock::Manual;
use pointsman::storage::Real;

const START: i64 = 1_700_000_000_000;

fn options(dir: &Path) -> BusOptions {
    BusOptions {
        segment_bytes: 2048,
        maintain_every: Duration::ZERO,
        retention: Duration::from_secs(1 << 40),
        ..BusOptions::new(dir)
    }
}

fn event(id: &str) -> NewEvent {
    NewEvent::new(
        "default",
        id,
        format!("{{\"detail\":{{\"name\":\"{id}\"}}}}"),
    )
}

/// A bit of everything that a log can hold.
async fn write(dir: &Path) {
    let clock = Manual::new(START, 42);
    let (bus, _) = Bus::open(options(dir), Real::shared(), clock.clone()).unwrap();
    let a = bus.route("a", RouteOptions::default()).await.unwrap();
    let b = bus
        .route("b", RouteOptions { ordered: true })
        .await
        .unwrap();
    let c = bus.route("c", RouteOptions::default()).await.unwrap();
    for i in 0..60 {
        let mut new = event(&format!("e{i}")).deliver(a).deliver(b);
        new.deliveries[1].key = Some(format!("key-{}", i % 3));
        if i % 7 == 0 {
            new.deliveries[0].not_before_ms = Some(START + 3_600_000);
            (new.cause, new.root) = (Some("e1".into()), Some("e0".into()));
            (new.cursor, new.hops, new.rules_version) = (Some("at 7".into()), 3, 9);
        }
        bus.accept(vec![new]).await.unwrap();
    }
    let error = AttemptError {
        class: "transient".into(),
        message: "no answer".into(),
        chain: vec!["timed out".into()],
        at_ms: START,
        handler: "load".into(),
    };
    for route in [a, b] {
        let leased = bus.receive(&[route], Receive::default()).unwrap();
        let settle = |i: usize| match i {
            0 => Outcome::Retry {
                not_before_ms: START + 60_000,
                error: error.clone(),
            },
            1 => Outcome::Dead {
                error: error.clone(),
                context: Bytes::from_static(b"{\"rule\":\"r\"}"),
            },
            2 => Outcome::Expired {
                policy: "age".into(),
            },
            3 => Outcome::Release,
            _ => Outcome::Delivered,
        };
        let all = leased
            .iter()
            .enumerate()
            .map(|(i, l)| l.settle(settle(i)))
            .collect();
        let emitted = event(&format!("topic-{}", route.0)).deliver(c);
        bus.settle(all, vec![emitted], Durability::Synced)
            .await
            .unwrap();
    }
    let again = [1, 2].map(|seq| Redelivery { seq, key: None }).to_vec();
    bus.redeliver(c, again, "replay-1").await.unwrap();
    bus.pause(c).await.unwrap();
    let dead = bus.dead(&DeadFilter::default()).unwrap().letters;
    bus.redrive(b, &[dead[1].seq], None).await.unwrap();
    bus.route("old", RouteOptions::default()).await.unwrap();
    bus.retire_route("old", Backlog::Refuse).await.unwrap();
    bus.maintain().unwrap();
    bus.close().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_log_of_version_1_opens_with_all_it_holds() {
    if let Some(dir) = std::env::var_os("BUS_FORMAT_WRITE") {
        write(Path::new(&dir)).await;
    }
    let kept = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/formats/bus-v1");
    let dir = tempfile::tempdir().unwrap();
    copy(&kept, dir.path());
    let found = doctor(dir.path(), &Real::shared(), false).unwrap();
    assert!(
        found.sound() && found.damage.is_empty() && found.torn_bytes == 0,
        "{found:#?}"
    );
    assert!(found.segments.len() > 2);

    let clock = Manual::new(START + 10_000, 1);
    let (bus, report) = Bus::open(options(dir.path()), Real::shared(), clock.clone()).unwrap();
    assert_eq!((report.damage.len(), report.rebuilt_indexes), (0, 0));
    let ledger = bus.audit();
    assert!(ledger.balanced(), "{ledger:#?}");
    assert_eq!(ledger.buses["default"].accepted, 62);
    let names: Vec<_> = bus
        .routes()
        .iter()
        .map(|r| (r.name.clone(), r.ordered, r.paused, r.retired))
        .collect();
    let expected = [
        ("a", false, false, false),
        ("b", true, false, false),
        ("c", false, true, false),
        ("old", false, false, true),
    ];
    assert_eq!(names, expected.map(|(n, o, p, r)| (n.to_owned(), o, p, r)));
    for i in 0..60 {
        let kept = bus.get(i + 1).unwrap().unwrap();
        assert_eq!(kept.payload, event(&format!("e{i}")).payload);
        assert_eq!(kept.accepted_ms, START);
    }
    let eighth = bus.get(8).unwrap().unwrap();
    assert_eq!(
        (
            eighth.cause.as_deref(),
            eighth.root(),
            eighth.cursor.as_deref()
        ),
        (Some("e1"), "e0", Some("at 7"))
    );
    assert_eq!((eighth.hops, eighth.rules_version), (3, 9));
    let dead = bus.dead(&DeadFilter::default()).unwrap().letters;
    assert_eq!(
        (
            dead.len(),
            dead[0].errors[0].chain[0].as_str(),
            &dead[0].context[..]
        ),
        (1, "timed out", &b"{\"rule\":\"r\"}"[..])
    );
    assert!(bus.accept(vec![event("e5")]).await.unwrap()[0].duplicate);
    assert!(bus.verify().await.unwrap().agrees);
    let again = [1, 2].map(|seq| Redelivery { seq, key: None }).to_vec();
    let c = bus.route_id("c").unwrap();
    assert_eq!(
        bus.redeliver(c, again, "replay-1")
            .await
            .unwrap()
            .already_replayed,
        2
    );
    assert!(Arc::strong_count(&clock) > 1);
    bus.close().await.unwrap();
}
