//! Retention, copying forward, restart over many segments.

use super::*;

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 4096;
    bench.options.cache_bytes = 0;
    bench.options.retention = Duration::from_secs(100);
    bench.options.dedupe_window = Duration::from_secs(100);
    bench
}

async fn fill(bus: &Bus, from: u64, n: u64, routes: &[RouteId]) {
    for i in from..from + n {
        bus.accept(vec![event(&format!("e{i}"), routes)])
            .await
            .unwrap();
    }
}

async fn settle_but(bus: &Bus, r: RouteId, spared: &[u64]) {
    let leased = bus.receive(&[r], all()).unwrap();
    let (keep, done): (Vec<_>, Vec<_>) = leased.into_iter().partition(|l| spared.contains(&l.seq));
    finish(bus, &done, Outcome::Delivered).await;
    finish(bus, &keep, Outcome::Release).await;
}

#[tokio::test]
async fn settled_events_go_after_their_time_and_one_stuck_event_pins_nothing() {
    let bench = bench();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    fill(&bus, 0, 300, &[r]).await;
    let before = bus.disk_bytes();
    settle_but(&bus, r, &[1, 2]).await;
    let leased = bus.receive(&[r], Receive { max: 1, ..all() }).unwrap();
    finish(
        &bus,
        &leased,
        Outcome::Dead {
            error: failed("no"),
            context: bytes::Bytes::new(),
        },
    )
    .await;
    assert_eq!(bus.maintain().unwrap().dropped, 0, "nothing is old yet");
    bench.clock.advance(Duration::from_secs(200));
    bus.maintain().unwrap();
    let done = bus.maintain().unwrap();
    assert!(
        bus.disk_bytes() < before / 2,
        "{} of {before}, {done:?}",
        bus.disk_bytes()
    );
    assert!(bus.get(3).unwrap().is_none());
    let ledger = bus.audit();
    bench.fs.crash();
    drop(bus);
    let (bus, report) = bench.open();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(bus.audit().routes[0].delivered, ledger.routes[0].delivered);
    let letter = bus.dead_letter(r, 1).unwrap();
    assert_eq!(
        (letter.event.unwrap().id.as_str(), letter.errors.len()),
        ("e0", 1)
    );
    let left = bus.receive(&[r], all()).unwrap();
    assert_eq!(
        (ids(&left), left[0].event.accepted_ms),
        (vec!["e1"], 1_700_000_000_000)
    );
    assert!(bus.audit().balanced());
    assert!(bus.verify().await.unwrap().agrees);
}

#[tokio::test]
async fn a_segment_that_is_mostly_pending_stays_where_it_is() {
    let bench = bench();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    fill(&bus, 0, 200, &[r]).await;
    bench.clock.advance(Duration::from_secs(200));
    for _ in 0..3 {
        let done = bus.maintain().unwrap();
        assert_eq!((done.dropped, done.moved), (0, 0));
    }
    assert_eq!(bus.receive(&[r], all()).unwrap().len(), 200);
}

#[tokio::test]
async fn the_errors_of_a_retried_delivery_come_along() {
    let bench = bench();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    fill(&bus, 0, 100, &[r]).await;
    settle_but(&bus, r, &[1]).await;
    for i in 0..3 {
        let leased = bus.receive(&[r], all()).unwrap();
        finish(
            &bus,
            &leased,
            Outcome::Retry {
                not_before_ms: 0,
                error: failed(&format!("no {i}")),
            },
        )
        .await;
        fill(&bus, 100 + i * 50, 50, &[]).await;
    }
    bench.clock.advance(Duration::from_secs(200));
    bus.maintain().unwrap();
    bus.maintain().unwrap();
    assert!(bus.get(50).unwrap().is_none());
    let leased = bus.receive(&[r], all()).unwrap();
    assert_eq!(leased[0].attempts, 4);
    finish(
        &bus,
        &leased,
        Outcome::Dead {
            error: failed("end"),
            context: bytes::Bytes::new(),
        },
    )
    .await;
    drop(bus);
    let bus = bench.start();
    let errors: Vec<_> = bus
        .dead_letter(r, 1)
        .unwrap()
        .errors
        .into_iter()
        .map(|e| e.message)
        .collect();
    assert_eq!(errors, ["no 0", "no 1", "no 2", "end"]);
}

#[tokio::test]
async fn labels_with_a_longer_retention_are_kept_longer() {
    let mut bench = bench();
    bench
        .options
        .retention_by_bus
        .insert("long".into(), Duration::from_secs(100_000));
    let bus = bench.start();
    for i in 0..200 {
        let bus_label = if i % 20 == 0 { "long" } else { "default" };
        let event = NewEvent {
            bus: bus_label.into(),
            ..event(&format!("e{i}"), &[])
        };
        bus.accept(vec![event]).await.unwrap();
    }
    bench.clock.advance(Duration::from_secs(200));
    bus.maintain().unwrap();
    bus.maintain().unwrap();
    assert!(bus.get(2).unwrap().is_none());
    for seq in (1..=200).step_by(20) {
        assert_eq!(&*bus.get(seq).unwrap().unwrap().bus, "long", "event {seq}");
    }
}

#[tokio::test]
async fn the_oldest_go_when_the_log_is_too_large() {
    let mut bench = bench();
    bench.options.retention = Duration::from_secs(1_000_000);
    bench.options.retention_bytes = Some(30_000);
    let bus = bench.start();
    let r = route(&bus, "r").await;
    for round in 0..20 {
        fill(&bus, round * 50, 50, &[r]).await;
        settle_but(&bus, r, &[1]).await;
        bus.maintain().unwrap();
        bus.maintain().unwrap();
        assert!(bus.disk_bytes() < 30_000 + 6 * 4096, "{}", bus.disk_bytes());
    }
    assert_eq!(ids(&bus.receive(&[r], all()).unwrap()), ["e0"]);
}

#[tokio::test]
async fn missing_and_broken_side_indexes_are_built_again() {
    let bench = bench();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    fill(&bus, 0, 200, &[r]).await;
    bus.maintain().unwrap();
    bus.close().await.unwrap();
    let fs: &dyn FileSystem = &bench.fs;
    let dir = bench.options.dir.as_path();
    for (i, entry) in fs
        .list(dir)
        .unwrap()
        .iter()
        .filter(|e| e.name.ends_with(".idx"))
        .enumerate()
    {
        match i % 3 {
            0 => fs.remove(&dir.join(&entry.name)).unwrap(),
            1 => bench.fs.flip(&dir.join(&entry.name), 30 + i, 3),
            _ => {}
        }
    }
    let (bus, report) = bench.open();
    assert!(
        report.rebuilt_indexes > 0 && report.damage.is_empty(),
        "{report:?}"
    );
    assert_eq!(bus.read(0, 1000).unwrap().len(), 200);
    assert_eq!(bus.receive(&[r], all()).unwrap().len(), 200);
}

#[tokio::test]
async fn a_restart_reads_one_checkpoint_and_what_follows() {
    let bench = bench();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    fill(&bus, 0, 500, &[r]).await;
    bus.maintain().unwrap();
    bus.close().await.unwrap();
    let (bus, report) = bench.open();
    assert!(report.segments >= 10 && report.records < 60, "{report:?}");
    assert_eq!(bus.routes()[0].pending, 500);
}
