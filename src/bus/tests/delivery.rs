//! Receiving and settling.

use super::*;

#[tokio::test]
async fn nobody_else_gets_a_leased_delivery_until_its_time_is_over() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("a", &[r])]).await.unwrap();
    let first = bus.receive(&[r], all()).unwrap();
    bench.clock.advance(Duration::from_secs(29));
    assert!(bus.receive(&[r], all()).unwrap().is_empty());
    assert!(bus.extend(r, first[0].seq, first[0].receipt, Duration::from_secs(30)));
    bench.clock.advance(Duration::from_secs(29));
    assert!(bus.receive(&[r], all()).unwrap().is_empty());
    bench.clock.advance(Duration::from_secs(1));
    let second = bus.receive(&[r], all()).unwrap();
    assert_eq!(second[0].attempts, 2);
    assert!(!bus.extend(r, first[0].seq, first[0].receipt, Duration::from_secs(30)));
    assert_eq!(
        finish(&bus, &first, Outcome::Delivered).await.applied,
        [false]
    );
    assert_eq!(
        finish(&bus, &second, Outcome::Delivered).await.applied,
        [true]
    );
    assert_eq!(
        finish(&bus, &second, Outcome::Delivered).await.applied,
        [false]
    );
    assert!(bus.audit().balanced());
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_ends_no_lease_and_lengthens_no_delay() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    let mut late = event("late", &[r]);
    late.deliveries[0].not_before_ms = Some(1_700_000_000_000 + 10_000);
    bus.accept(vec![event("a", &[r]), late]).await.unwrap();
    let leased = bus.receive(&[r], all()).unwrap();
    assert_eq!(ids(&leased), ["a"]);
    bench.clock.jump(365 * 86_400_000);
    assert!(bus.receive(&[r], all()).unwrap().is_empty());
    bench.clock.jump(-2 * 365 * 86_400_000);
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(ids(&bus.receive(&[r], all()).unwrap()), ["late"]);
    drop(bus);
    let bus = bench.start();
    assert_eq!(ids(&bus.receive(&[r], all()).unwrap()), ["a"]);
    bench.clock.advance(Duration::from_secs(10));
    let late = bus.receive(&[r], all()).unwrap();
    assert_eq!(
        ids(&late),
        ["late"],
        "after a restart with the clock set back it waits no longer than at first"
    );
}

#[tokio::test]
async fn the_receive_count_survives_a_killed_process() {
    let bench = Bench::new();
    let mut attempts = Vec::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("poison", &[r])]).await.unwrap();
    let mut bus = Some(bus);
    for _ in 0..4 {
        let leased = bus.as_ref().unwrap().receive(&[r], all()).unwrap();
        attempts.push(leased[0].attempts);
        bench.fs.kill();
        bus = None;
        bus.replace(bench.start());
    }
    assert_eq!(attempts, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_retry_waits_for_its_time_and_is_told_with_its_errors() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("a", &[r]), event("b", &[r])])
        .await
        .unwrap();
    for i in 0..3 {
        let leased: Vec<_> = bus.receive(&[r], Receive { max: 1, ..all() }).unwrap();
        assert_eq!((ids(&leased), leased[0].attempts), (vec!["a"], i + 1));
        let not_before_ms = crate::clock::Clock::now_ms(&*bench.clock) + 5_000;
        finish(
            &bus,
            &leased,
            Outcome::Retry {
                not_before_ms,
                error: failed(&format!("no {i}")),
            },
        )
        .await;
        bench.clock.advance(Duration::from_millis(4_999));
        let meanwhile = bus.receive(&[r], all()).unwrap();
        assert_eq!(ids(&meanwhile), ["b"], "the other is not held up");
        finish(&bus, &meanwhile, Outcome::Release).await;
        bench.clock.advance(Duration::from_millis(1));
    }
    let told = |bus: &Bus| {
        bus.attempts(r, 1)
            .unwrap()
            .into_iter()
            .map(|e| e.message)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&bus), ["no 0", "no 1", "no 2"]);
    drop(bus);
    let bus = bench.start();
    assert_eq!(told(&bus), ["no 0", "no 1", "no 2"]);
    let leased = bus.receive(&[r], all()).unwrap();
    assert_eq!(
        leased.iter().map(|l| l.attempts).collect::<Vec<_>>(),
        [4, 1],
        "a release does not count"
    );
}

#[tokio::test]
async fn order_is_kept_per_key_and_a_failing_key_blocks_only_itself() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = bus
        .route("r", RouteOptions { ordered: true })
        .await
        .unwrap();
    let keyed = |id: &str, key: &str| {
        let mut event = event(id, &[r]);
        event.deliveries[0].key = Some(key.to_owned());
        event
    };
    bus.accept(vec![
        keyed("a1", "a"),
        keyed("a2", "a"),
        keyed("b1", "b"),
        event("free", &[r]),
    ])
    .await
    .unwrap();
    let first = bus.receive(&[r], all()).unwrap();
    assert_eq!(ids(&first), ["a1", "b1", "free"]);
    let later = 1_700_000_000_000 + 60_000;
    finish(
        &bus,
        &first[..1],
        Outcome::Retry {
            not_before_ms: later,
            error: failed("no"),
        },
    )
    .await;
    finish(&bus, &first[1..], Outcome::Delivered).await;
    assert!(bus.receive(&[r], all()).unwrap().is_empty());
    drop(bus);
    let bus = bench.start();
    assert!(
        bus.receive(&[r], all()).unwrap().is_empty(),
        "also after a restart"
    );
    bench.clock.advance(Duration::from_secs(60));
    let again = bus.receive(&[r], all()).unwrap();
    assert_eq!(ids(&again), ["a1"]);
    finish(
        &bus,
        &again,
        Outcome::Dead {
            error: failed("no"),
            context: bytes::Bytes::new(),
        },
    )
    .await;
    assert_eq!(ids(&bus.receive(&[r], all()).unwrap()), ["a2"]);
}

#[tokio::test]
async fn a_receive_keeps_to_its_counts_and_bytes_over_several_routes() {
    let bench = Bench::new();
    let bus = bench.start();
    let (a, b) = (route(&bus, "a").await, route(&bus, "b").await);
    let sized = |id: &str, route, size| NewEvent {
        payload: vec![1; size].into(),
        ..event(id, &[route])
    };
    let events = vec![
        sized("1", a, 600),
        sized("2", b, 600),
        sized("3", a, 600),
        sized("4", b, 5),
    ];
    bus.accept(events).await.unwrap();
    let got = bus
        .receive(
            &[b, a],
            Receive {
                max: 3,
                max_bytes: 1_200,
                ..all()
            },
        )
        .unwrap();
    assert_eq!(ids(&got), ["1", "2"]);
    let got = bus
        .receive(
            &[a, b],
            Receive {
                max: 9,
                max_bytes: 1,
                ..all()
            },
        )
        .unwrap();
    assert_eq!(
        (ids(&got), got[0].attempts),
        (vec!["3"], 1),
        "always one, and what was given back is uncounted"
    );
    assert_eq!(ids(&bus.receive(&[a, b], all()).unwrap()), ["4"]);
}

#[tokio::test]
async fn acks_and_emitted_events_are_one_commit() {
    for stop in 0..6 {
        let bench = Bench::new();
        let bus = bench.start();
        let (r, next) = (route(&bus, "r").await, route(&bus, "next").await);
        bus.accept(vec![event("cause", &[r])]).await.unwrap();
        let leased = bus.receive(&[r], all()).unwrap();
        bench.fs.stop_after(stop);
        let emit = NewEvent {
            cause: Some("cause".into()),
            root: Some("cause".into()),
            hops: 1,
            ..event("effect", &[next])
        };
        let settling = vec![leased[0].settle(Outcome::Delivered)];
        let result = bus
            .settle(settling, vec![emit.clone()], Durability::Relaxed)
            .await;
        bench.fs.crash();
        drop(bus);
        let bus = bench.start();
        let acked = bus.receive(&[r], all()).unwrap().is_empty();
        let emitted = !bus.receive(&[next], all()).unwrap().is_empty();
        assert_eq!(acked, emitted, "stopped after {stop} operations");
        assert!(acked || result.is_err());
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap()
}

#[tokio::test]
async fn ready_resolves_for_what_is_there_what_comes_and_what_falls_due() {
    let mut bench = Bench::new();
    bench.options.relaxed_delay = Duration::from_millis(1);
    let bus = Bus::open(
        bench.options.clone(),
        Arc::new(bench.fs.clone()),
        crate::clock::system(),
    )
    .unwrap()
    .0;
    let r = route(&bus, "r").await;
    let waiting = tokio::spawn(bus.ready(&[r]));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    bus.accept(vec![event("a", &[r])]).await.unwrap();
    soon(waiting).await.unwrap();
    soon(bus.ready(&[r])).await;
    let receive = Receive {
        visibility: Duration::from_millis(100),
        ..all()
    };
    assert_eq!(bus.receive(&[r], receive).unwrap().len(), 1);
    soon(bus.ready(&[r])).await;
    let leased = bus.receive(&[r], all()).unwrap();
    let not_before_ms = crate::clock::Clock::now_ms(&*crate::clock::system()) + 100;
    finish(
        &bus,
        &leased,
        Outcome::Retry {
            not_before_ms,
            error: failed("no"),
        },
    )
    .await;
    soon(bus.ready(&[r])).await;
    assert_eq!(bus.receive(&[r], all()).unwrap()[0].attempts, 3);
}

#[tokio::test]
async fn a_paused_route_keeps_its_backlog_also_over_a_restart() {
    let bench = Bench::new();
    let bus = bench.start();
    let (a, b) = (route(&bus, "a").await, route(&bus, "b").await);
    bus.accept(vec![event("x", &[a, b])]).await.unwrap();
    bus.pause(a).await.unwrap();
    drop(bus);
    let bus = bench.start();
    assert!(bus.receive(&[a], all()).unwrap().is_empty());
    assert_eq!(bus.receive(&[a, b], all()).unwrap().len(), 1);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), bus.ready(&[a]))
            .await
            .is_err()
    );
    let waiting = tokio::spawn(bus.ready(&[a]));
    bus.resume(a).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bus.receive(&[a], all()).unwrap().len(), 1);
}

#[tokio::test]
async fn a_retired_route_is_refused_with_a_backlog_unless_told_where_it_goes() {
    let bench = Bench::new();
    let bus = bench.start();
    let (a, b, c) = (
        route(&bus, "a").await,
        route(&bus, "b").await,
        route(&bus, "c").await,
    );
    bus.accept(vec![
        event("x", &[a, b]),
        event("y", &[a]),
        event("z", &[c]),
    ])
    .await
    .unwrap();
    let error = bus.retire_route("a", Backlog::Refuse).await.unwrap_err();
    assert!(
        matches!(error, BusError::HasBacklog { pending: 2, .. }),
        "{error}"
    );
    let held = bus.receive(&[a], Receive { max: 1, ..all() }).unwrap();
    assert_eq!(bus.retire_route("a", Backlog::MoveTo(b)).await.unwrap(), 2);
    assert_eq!(
        finish(&bus, &held, Outcome::Delivered).await.applied,
        [false]
    );
    assert_eq!(
        ids(&bus.receive(&[b], all()).unwrap()),
        ["x", "y"],
        "what it had already comes once"
    );
    let error = bus.accept(vec![event("w", &[a])]).await.unwrap_err();
    assert!(matches!(error, BusError::RetiredRoute(_)), "{error}");
    assert_eq!(
        bus.retire_route("c", Backlog::Purge { why: "gone".into() })
            .await
            .unwrap(),
        1
    );
    drop(bus);
    let bus = bench.start();
    assert!(bus.audit().balanced(), "{:#?}", bus.audit());
    assert!(bus.routes()[0].retired);
    assert_eq!(route(&bus, "a").await, a, "it comes back under its number");
    bus.accept(vec![event("w", &[a])]).await.unwrap();
    assert_eq!(ids(&bus.receive(&[a], all()).unwrap()), ["w"]);
}
