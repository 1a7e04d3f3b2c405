//! Reading the log, tracing, the books.

use super::*;

async fn filled(bench: &mut Bench, n: u64) -> (Bus, RouteId) {
    bench.options.segment_bytes = 4096;
    bench.options.cache_bytes = 2_000;
    let bus = bench.start();
    let r = route(&bus, "r").await;
    for i in 0..n {
        bench.clock.advance(Duration::from_secs(1));
        bus.accept(vec![event(&format!("e{i}"), &[r])])
            .await
            .unwrap();
    }
    (bus, r)
}

#[tokio::test]
async fn events_are_read_in_order_from_memory_and_from_closed_segments() {
    let mut bench = Bench::new();
    let (bus, _) = filled(&mut bench, 200).await;
    bus.maintain().unwrap();
    let read = bus.read(0, 1000).unwrap();
    assert_eq!(
        read.iter().map(|e| e.seq).collect::<Vec<_>>(),
        (1..=200).collect::<Vec<_>>()
    );
    assert_eq!(read[41].payload, "{\"id\":\"e41\"}");
    assert_eq!(bus.read(150, 10).unwrap()[9].seq, 159);
    assert!(bus.read(201, 10).unwrap().is_empty());
    assert_eq!(bus.find("default", "e7").unwrap().unwrap().seq, 8);
    assert!(bus.find("other", "e7").unwrap().is_none());
    assert_eq!((bus.first_seq(), bus.next_seq()), (1, 201));
}

#[tokio::test]
async fn the_first_event_at_a_time_is_found() {
    let mut bench = Bench::new();
    let (bus, _) = filled(&mut bench, 100).await;
    let start = 1_700_000_000_000;
    assert_eq!(bus.first_seq_at(0).unwrap(), 1);
    assert_eq!(bus.first_seq_at(start + 1_000).unwrap(), 1);
    assert_eq!(bus.first_seq_at(start + 1_001).unwrap(), 2);
    assert_eq!(bus.first_seq_at(start + 99_500).unwrap(), 100);
    assert_eq!(bus.first_seq_at(start + 100_001).unwrap(), 101);
}

#[tokio::test]
async fn the_tail_gives_every_event_from_now_on() {
    let bench = Bench::new();
    let bus = bench.start();
    bus.accept(vec![event("before", &[])]).await.unwrap();
    let mut tail = bus.tail();
    bus.accept(vec![event("a", &[]), event("b", &[])])
        .await
        .unwrap();
    assert_eq!(tail.recv().await.unwrap().id, "a");
    assert_eq!(tail.recv().await.unwrap().seq, 3);
}

#[tokio::test]
async fn causes_and_what_became_of_an_event_can_be_traced() {
    let mut bench = Bench::new();
    let (bus, r) = filled(&mut bench, 60).await;
    let child = |id: &str, cause: &str| NewEvent {
        cause: Some(cause.into()),
        root: Some("e3".into()),
        hops: 1,
        ..event(id, &[])
    };
    bus.accept(vec![child("c1", "e3"), child("c2", "e3")])
        .await
        .unwrap();
    for i in 0..60 {
        bus.accept(vec![event(&format!("f{i}"), &[])])
            .await
            .unwrap();
    }
    bus.accept(vec![child("c3", "c1")]).await.unwrap();
    let names =
        |events: Vec<Arc<StoredEvent>>| events.iter().map(|e| e.id.clone()).collect::<Vec<_>>();
    assert_eq!(names(bus.by_cause("e3").unwrap()), ["c1", "c2"]);
    assert_eq!(names(bus.by_root("e3").unwrap()), ["e3", "c1", "c2", "c3"]);

    let first = bus.receive(&[r], Receive { max: 4, ..all() }).unwrap();
    finish(
        &bus,
        &first[3..],
        Outcome::Retry {
            not_before_ms: 0,
            error: failed("no"),
        },
    )
    .await;
    finish(&bus, &first[..3], Outcome::Delivered).await;
    let again = bus.receive(&[r], Receive { max: 1, ..all() }).unwrap();
    finish(
        &bus,
        &again,
        Outcome::Dead {
            error: failed("no"),
            context: bytes::Bytes::new(),
        },
    )
    .await;
    let history = bus.history(4).unwrap();
    let steps: Vec<&Step> = history.entries.iter().map(|e| &e.step).collect();
    assert!(
        matches!(steps[..], [Step::Retried(_), Step::Dead]),
        "{steps:?}"
    );
    assert_eq!(history.now, [(r, Standing::Dead, 2)]);
    let history = bus.history(1).unwrap();
    assert_eq!(
        history.entries.iter().map(|e| &e.step).collect::<Vec<_>>(),
        [&Step::Delivered]
    );
    assert!(history.now.is_empty());
    assert_eq!(bus.oldest_pending(r).unwrap(), (5, 1_700_000_005_000));
}

#[tokio::test]
async fn the_books_agree_with_the_log() {
    let mut bench = Bench::new();
    let (bus, r) = filled(&mut bench, 100).await;
    let leased = bus.receive(&[r], Receive { max: 30, ..all() }).unwrap();
    finish(&bus, &leased[..20], Outcome::Delivered).await;
    finish(
        &bus,
        &leased[20..25],
        Outcome::Expired {
            policy: "age".into(),
        },
    )
    .await;
    let verified = bus.verify().await.unwrap();
    assert!(verified.agrees, "{verified:#?}");
    assert_eq!(verified.kept.routes[0].leased, 5);
    let before = bus.audit();
    bus.close().await.unwrap();
    let bus = bench.start();
    assert_eq!(bus.audit().buses, before.buses);
    assert_eq!(bus.audit().routes[0].pending(), before.routes[0].pending());
    assert!(bus.verify().await.unwrap().agrees);
}

#[tokio::test]
async fn many_routes_are_made_at_once_and_keep_their_numbers() {
    let bench = Bench::new();
    let bus = bench.start();
    let old = route(&bus, "r-2").await;
    let ordered = RouteOptions { ordered: true };
    let wanted: Vec<(String, RouteOptions)> = (0..1_000)
        .map(|n| (format!("r-{n}"), RouteOptions::default()))
        .chain([("r-7".to_owned(), RouteOptions::default())])
        .chain([("sorted".to_owned(), ordered)])
        .collect();
    let before = bench.fs.syncs();
    let ids = bus.routes_of(wanted.clone()).await.unwrap();
    assert_eq!(bench.fs.syncs() - before, 1, "one commit for all of them");
    assert_eq!(ids.len(), 1_002);
    assert_eq!((ids[2], ids[7]), (old, ids[1_000]), "one route, one number");
    let distinct: std::collections::BTreeSet<RouteId> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), 1_001);
    assert_eq!(bus.routes_of(wanted.clone()).await.unwrap(), ids);
    bus.close().await.unwrap();

    let bus = bench.start();
    assert_eq!(bus.routes_of(wanted).await.unwrap(), ids);
    let named = |name: &str| bus.routes().into_iter().find(|r| r.name == name).unwrap();
    assert!(named("sorted").ordered && !named("r-2").ordered);
    assert!(bus.routes_of(vec![(String::new(), ordered)]).await.is_err());
}
