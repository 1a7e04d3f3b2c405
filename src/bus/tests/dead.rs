//! Dead letters, redrive, replay.

use bytes::Bytes;

use super::*;

async fn kill(bus: &Bus, r: RouteId, context: &str) {
    let leased = bus.receive(&[r], all()).unwrap();
    let context = Bytes::copy_from_slice(context.as_bytes());
    finish(
        bus,
        &leased,
        Outcome::Dead {
            error: failed("at last"),
            context,
        },
    )
    .await;
}

#[tokio::test]
async fn a_dead_letter_tells_its_whole_story() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("a", &[r])]).await.unwrap();
    let leased = bus.receive(&[r], all()).unwrap();
    finish(
        &bus,
        &leased,
        Outcome::Retry {
            not_before_ms: 0,
            error: failed("first"),
        },
    )
    .await;
    kill(&bus, r, "{\"rule\":\"csv\"}").await;
    drop(bus);
    let bus = bench.start();
    let letter = bus.dead_letter(r, 1).unwrap();
    assert_eq!(letter.event.unwrap().id, "a");
    assert_eq!((letter.attempts, letter.dead_at_ms), (2, 1_700_000_000_000));
    assert_eq!(
        letter
            .errors
            .iter()
            .map(|e| e.message.as_str())
            .collect::<Vec<_>>(),
        ["first", "at last"]
    );
    assert_eq!(letter.context, "{\"rule\":\"csv\"}");
    assert!(matches!(
        bus.dead_letter(r, 2),
        Err(BusError::NoDeadLetter { .. })
    ));
}

#[tokio::test]
async fn dead_letters_are_listed_by_page_and_filter() {
    let bench = Bench::new();
    let bus = bench.start();
    let (a, b) = (route(&bus, "a").await, route(&bus, "b").await);
    bus.accept((0..5).map(|i| event(&format!("{i}"), &[a, b])).collect())
        .await
        .unwrap();
    kill(&bus, a, "").await;
    bench.clock.advance(Duration::from_secs(10));
    kill(&bus, b, "").await;
    let mut filter = DeadFilter {
        limit: 3,
        ..DeadFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = bus.dead(&filter).unwrap();
        seen.extend(page.letters.iter().map(|l| (l.route, l.seq)));
        let Some(next) = page.next else { break };
        filter.after = Some(next);
    }
    let expected: Vec<_> = [a, b]
        .iter()
        .flat_map(|&r| (1..=5).map(move |s| (r, s)))
        .collect();
    assert_eq!(seen, expected);
    let late = DeadFilter {
        since_ms: Some(1_700_000_005_000),
        ..DeadFilter::default()
    };
    assert!(
        bus.dead(&late)
            .unwrap()
            .letters
            .iter()
            .all(|l| l.route == b)
    );
}

#[tokio::test]
async fn redriven_letters_start_anew_here_or_elsewhere() {
    let bench = Bench::new();
    let bus = bench.start();
    let (a, b) = (route(&bus, "a").await, route(&bus, "b").await);
    bus.accept(vec![
        event("x", &[a, b]),
        event("y", &[a]),
        event("z", &[a]),
    ])
    .await
    .unwrap();
    kill(&bus, a, "").await;
    assert_eq!(
        bus.redrive(a, &[2, 99], None).await.unwrap(),
        Redriven {
            redriven: 1,
            skipped: vec![99]
        }
    );
    assert_eq!(
        bus.redrive(a, &[1, 3], Some(b)).await.unwrap(),
        Redriven {
            redriven: 1,
            skipped: vec![1]
        }
    );
    drop(bus);
    let bus = bench.start();
    let again = bus.receive(&[a], all()).unwrap();
    assert_eq!((ids(&again), again[0].attempts), (vec!["y"], 1));
    assert_eq!(ids(&bus.receive(&[b], all()).unwrap()), ["x", "z"]);
    assert_eq!(bus.purge(a, &[1, 2], "looked at").await.unwrap(), 1);
    let ledger = bus.audit();
    assert!(ledger.balanced(), "{ledger:#?}");
    assert_eq!(
        (
            ledger.routes[0].redriven,
            ledger.routes[0].purged,
            ledger.routes[0].dead
        ),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn dead_letters_expire_by_policy_after_a_warning() {
    let mut bench = Bench::new();
    bench.options.dead_letter_retention = Duration::from_secs(100);
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("a", &[r])]).await.unwrap();
    kill(&bus, r, "").await;
    bench.clock.advance(Duration::from_secs(60));
    assert!(bus.expiring(Duration::from_secs(39)).is_empty());
    let soon = bus.expiring(Duration::from_secs(40));
    assert_eq!((soon[0].count, soon[0].first_at_ms), (1, 1_700_000_100_000));
    assert_eq!(bus.maintain().unwrap().expired, 0);
    bench.clock.advance(Duration::from_secs(40));
    assert_eq!(bus.maintain().unwrap().expired, 1);
    let ledger = bus.audit();
    assert!(
        ledger.balanced() && ledger.routes[0].expired == 1,
        "{ledger:#?}"
    );
}

#[tokio::test]
async fn a_clock_that_is_wrong_for_a_moment_expires_nothing() {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 4096;
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("a", &[r])]).await.unwrap();
    kill(&bus, r, "").await;
    for i in 0..60 {
        bus.accept(vec![event(&format!("e{i}"), &[])])
            .await
            .unwrap();
    }
    let year = 365 * 86_400_000;
    bench.clock.jump(year);
    for _ in 0..3 {
        let done = bus.maintain().unwrap();
        assert_eq!((done.dropped, done.moved, done.expired), (0, 0, 0));
    }
    assert_eq!(bus.audit().routes[0].dead, 1);
    assert!(bus.get(2).unwrap().is_some());
    assert!(bus.accept(vec![event("e0", &[])]).await.unwrap()[0].duplicate);
    bench.clock.jump(-year);
    bus.maintain().unwrap();
    assert_eq!(bus.audit().routes[0].dead, 1);
}

#[tokio::test]
async fn a_replay_gives_each_event_once_however_often_it_is_repeated() {
    let bench = Bench::new();
    let bus = bench.start();
    let (old, late) = (route(&bus, "old").await, route(&bus, "late").await);
    bus.accept((0..4).map(|i| event(&format!("{i}"), &[old])).collect())
        .await
        .unwrap();
    let deliveries = |seqs: &[u64]| {
        seqs.iter()
            .map(|&seq| Redelivery { seq, key: None })
            .collect::<Vec<_>>()
    };
    let answer = bus
        .redeliver(late, deliveries(&[1, 2]), "r1")
        .await
        .unwrap();
    assert_eq!(
        answer,
        Redelivered {
            enqueued: 2,
            ..Redelivered::default()
        }
    );
    drop(bus);
    let bus = bench.start();
    let first = bus.receive(&[late], Receive { max: 1, ..all() }).unwrap();
    assert_eq!(first[0].replay.as_deref(), Some("r1"));
    finish(&bus, &first, Outcome::Delivered).await;
    let answer = bus
        .redeliver(late, deliveries(&[1, 2, 3, 77]), "r1")
        .await
        .unwrap();
    assert_eq!(
        answer,
        Redelivered {
            enqueued: 1,
            already_replayed: 2,
            not_kept: 1,
            ..Redelivered::default()
        }
    );
    let answer = bus
        .redeliver(late, deliveries(&[1, 2]), "r2")
        .await
        .unwrap();
    assert_eq!(
        answer,
        Redelivered {
            enqueued: 1,
            already_pending: 1,
            ..Redelivered::default()
        }
    );
    bus.accept(vec![event("fresh", &[late])]).await.unwrap();
    let got = bus.receive(&[late], all()).unwrap();
    assert_eq!(ids(&got), ["fresh", "0", "1", "2"], "fresh before replayed");
    assert_eq!(got[0].replay, None);
    assert_eq!(
        bus.receive(&[old], all()).unwrap().len(),
        4,
        "nobody else gets anything"
    );
    let ledger = bus.audit();
    assert!(
        ledger.balanced() && ledger.routes[1].replayed == 4,
        "{ledger:#?}"
    );
}
