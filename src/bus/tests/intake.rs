//! Accepting: durability, duplicates, limits, marks.

use super::*;
use crate::storage::Faults;

#[tokio::test]
async fn an_accepted_event_is_received_once_on_each_route_and_survives_a_crash() {
    let bench = Bench::new();
    let bus = bench.start();
    let (a, b) = (route(&bus, "r/a").await, route(&bus, "r/b").await);
    let accepted = bus
        .accept(vec![event("one", &[a, b]), event("two", &[b])])
        .await
        .unwrap();
    assert_eq!(
        accepted,
        [
            Accepted {
                seq: 1,
                duplicate: false
            },
            Accepted {
                seq: 2,
                duplicate: false
            }
        ]
    );
    let got = bus.receive(&[a], all()).unwrap();
    assert_eq!(ids(&got), ["one"]);
    assert_eq!(got[0].attempts, 1);
    finish(&bus, &got, Outcome::Delivered).await;
    bench.fs.crash();
    drop(bus);
    let (bus, report) = bench.open();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert!(bus.receive(&[a], all()).unwrap().is_empty());
    let got = bus.receive(&[b], all()).unwrap();
    assert_eq!(ids(&got), ["one", "two"]);
    assert_eq!(got[0].event.payload, "{\"id\":\"one\"}");
    assert!(bus.audit().balanced(), "{:#?}", bus.audit());
}

#[tokio::test]
async fn a_known_id_adds_nothing_and_names_the_first() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    let first = bus
        .accept(vec![event("a", &[r]), event("b", &[r]), event("a", &[r])])
        .await
        .unwrap();
    assert_eq!(
        first[2],
        Accepted {
            seq: 1,
            duplicate: true
        }
    );
    let again = bus.accept(vec![event("b", &[r])]).await.unwrap();
    assert_eq!(
        again,
        [Accepted {
            seq: 2,
            duplicate: true
        }]
    );
    let other = NewEvent {
        bus: "orders".into(),
        ..event("a", &[r])
    };
    assert!(
        !bus.accept(vec![other]).await.unwrap()[0].duplicate,
        "another label has its own ids"
    );
    assert_eq!(bus.receive(&[r], all()).unwrap().len(), 3);
    let ledger = bus.audit();
    assert_eq!(
        (
            ledger.buses["default"].accepted,
            ledger.buses["default"].duplicates
        ),
        (2, 2)
    );
}

#[tokio::test]
async fn ids_are_known_after_a_restart_and_over_closed_segments() {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 4096;
    let bus = bench.start();
    for i in 0..100 {
        bus.accept(vec![event(&format!("e{i}"), &[])])
            .await
            .unwrap();
    }
    bus.maintain().unwrap();
    bus.close().await.unwrap();
    let bus = bench.start();
    for i in 0..100 {
        let answer = bus
            .accept(vec![event(&format!("e{i}"), &[])])
            .await
            .unwrap();
        assert_eq!(
            answer,
            [Accepted {
                seq: i + 1,
                duplicate: true
            }]
        );
    }
}

#[tokio::test]
async fn an_id_is_new_again_after_its_window() {
    let mut bench = Bench::new();
    bench
        .options
        .dedupe_by_bus
        .insert("short".into(), Duration::from_secs(60));
    let bus = bench.start();
    let short = NewEvent {
        bus: "short".into(),
        ..event("a", &[])
    };
    bus.accept(vec![short.clone(), event("a", &[])])
        .await
        .unwrap();
    bench.clock.advance(Duration::from_secs(61));
    let answer = bus.accept(vec![short, event("a", &[])]).await.unwrap();
    assert!(!answer[0].duplicate && answer[1].duplicate, "{answer:?}");
}

#[tokio::test]
async fn of_concurrent_senders_of_one_id_exactly_one_is_first() {
    let bench = Bench::new();
    let bus = bench.start();
    let sending: Vec<_> = (0..50)
        .map(|_| {
            let bus = bus.clone();
            tokio::spawn(async move { bus.accept(vec![event("same", &[])]).await.unwrap()[0] })
        })
        .collect();
    let mut first = 0;
    for one in sending {
        let answer = one.await.unwrap();
        assert_eq!(answer.seq, 1);
        first += u32::from(!answer.duplicate);
    }
    assert_eq!(first, 1);
}

#[tokio::test]
async fn a_call_is_stored_as_a_whole_or_not_at_all() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    let error = bus
        .accept(vec![event("a", &[r]), event("b", &[RouteId(9)])])
        .await
        .unwrap_err();
    assert!(
        matches!(error, BusError::UnknownRoute(RouteId(9))),
        "{error}"
    );
    let mut huge = event("c", &[r]);
    huge.payload = vec![0; (1 << 20) + 1].into();
    let error = bus.accept(vec![event("a", &[r]), huge]).await.unwrap_err();
    assert!(
        matches!(error, BusError::TooLarge { what: "event", .. }),
        "{error}"
    );
    assert!(bus.accept(vec![event("", &[])]).await.is_err());
    assert_eq!(bus.next_seq(), 1);
    assert_eq!(
        bus.accept(vec![event("a", &[r])]).await.unwrap()[0],
        Accepted {
            seq: 1,
            duplicate: false
        }
    );
}

#[tokio::test]
async fn the_oldest_ids_go_rather_than_more_memory_and_it_is_told() {
    let mut bench = Bench::new();
    // Room for a hundred ids.
    bench.options.ids_bytes = 4_000;
    bench.options.segment_bytes = 4096;
    let mut bus = bench.start();
    for n in 0..100 {
        bus.accept(vec![event(&format!("e{n}"), &[])])
            .await
            .unwrap();
    }
    bus.maintain().unwrap();
    assert_eq!(bus.pressure(), Pressure::Ok);
    for n in 100..300 {
        bus.accept(vec![event(&format!("e{n}"), &[])])
            .await
            .unwrap();
    }
    bus.maintain().unwrap();
    for _ in 0..2 {
        let again = [event("e201", &[]), event("e299", &[])];
        let again = bus.accept(again.to_vec()).await.unwrap();
        assert!(again.iter().all(|a| a.duplicate), "{again:?}");
        let Pressure::Warn { reason } = bus.pressure() else {
            panic!("{:?}", bus.pressure())
        };
        assert!(reason.contains("newest 100 event ids"), "{reason}");
        bus.close().await.unwrap();
        bus = bench.start();
        bus.maintain().unwrap();
    }
    let old = bus.accept(vec![event("e100", &[])]).await.unwrap();
    assert!(!old[0].duplicate, "{old:?}");
    assert!(bus.verify().await.unwrap().agrees);
}

#[tokio::test]
async fn intake_warns_and_refuses_at_its_marks_and_opens_again() {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 4096;
    bench.options.disk_warn = Some(20_000);
    bench.options.disk_refuse = Some(40_000);
    bench.options.retention = Duration::from_secs(60);
    bench.options.dedupe_window = Duration::from_secs(60);
    let bus = bench.start();
    let mut warned = false;
    let refused = loop {
        warned |= matches!(bus.pressure(), Pressure::Warn { .. });
        let id = format!("e{}", bus.next_seq());
        if let Err(e) = bus.accept(vec![event(&id, &[])]).await {
            break e;
        }
    };
    assert!(
        warned && matches!(refused, BusError::Refused { .. }) && refused.is_temporary(),
        "{refused}"
    );
    bench.clock.advance(Duration::from_secs(120));
    bus.maintain().unwrap();
    bus.maintain().unwrap();
    assert_eq!(bus.pressure(), Pressure::Ok);
    bus.accept(vec![event("again", &[])]).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_and_a_freed_one_goes_on() {
    let mut bench = Bench::new();
    bench.options.free_refuse = 0;
    bench.options.free_warn = 0;
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("before", &[r])]).await.unwrap();
    let leased = bus.receive(&[r], all()).unwrap();
    bench.fs.set_capacity(Some(0));
    for _ in 0..3 {
        let error = bus.accept(vec![event("during", &[r])]).await.unwrap_err();
        assert!(error.is_temporary(), "{error}");
        let settling = leased
            .iter()
            .map(|l| l.settle(Outcome::Delivered))
            .collect();
        let error = bus
            .settle(settling, Vec::new(), Durability::Synced)
            .await
            .unwrap_err();
        assert!(error.is_temporary(), "{error}");
        assert!(bus.flush().await.is_ok(), "nothing waits to be written");
    }
    bench.fs.set_capacity(None);
    assert_eq!(bus.poisoned(), None);
    finish(&bus, &leased, Outcome::Delivered).await;
    assert_eq!(
        bus.accept(vec![event("during", &[r])]).await.unwrap()[0],
        Accepted {
            seq: 2,
            duplicate: false
        }
    );
    bench.fs.crash();
    drop(bus);
    let (bus, report) = bench.open();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(ids(&bus.receive(&[r], all()).unwrap()), ["during"]);
}

#[tokio::test]
async fn little_free_space_refuses_intake_before_the_disk_is_full() {
    let bench = Bench::new();
    bench.fs.set_capacity(Some(100 << 20));
    let bus = bench.start();
    let error = bus.accept(vec![event("a", &[])]).await.unwrap_err();
    assert!(matches!(&error, BusError::Refused { .. }), "{error}");
    bench.fs.set_capacity(None);
    bus.maintain().unwrap();
    bus.accept(vec![event("a", &[])]).await.unwrap();
}

#[tokio::test]
async fn relaxed_settlements_outlive_a_full_disk() {
    let mut bench = Bench::new();
    bench.options.free_refuse = 0;
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("a", &[r])]).await.unwrap();
    let leased = bus.receive(&[r], all()).unwrap();
    bench.fs.set_capacity(Some(0));
    let settling = leased
        .iter()
        .map(|l| l.settle(Outcome::Delivered))
        .collect();
    bus.settle(settling, Vec::new(), Durability::Relaxed)
        .await
        .unwrap();
    let error = bus.flush().await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    bench.fs.set_capacity(None);
    bus.flush().await.unwrap();
    assert_eq!(bus.audit().routes[0].delivered, 1);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_until_it_is_opened_again() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    bus.accept(vec![event("before", &[r])]).await.unwrap();
    bench.fs.set_faults(Faults {
        sync_error: 1,
        ..Faults::default()
    });
    assert!(bus.accept(vec![event("a", &[r])]).await.is_err());
    bench.fs.set_faults(Faults::default());
    let error = bus.accept(vec![event("b", &[r])]).await.unwrap_err();
    assert!(matches!(error, BusError::Poisoned { .. }), "{error}");
    assert!(bus.receive(&[r], all()).is_err());
    assert!(matches!(bus.pressure(), Pressure::Refuse { .. }));
    bus.ready(&[r]).await;
    assert_eq!(bus.get(1).unwrap().unwrap().id, "before", "reading goes on");
    drop(bus);
    let bus = bench.start();
    bus.accept(vec![event("b", &[r])]).await.unwrap();
    assert!(bus.audit().balanced());
}

#[tokio::test]
async fn a_failed_write_stops_the_log() {
    let bench = Bench::new();
    let bus = bench.start();
    bench.fs.set_faults(Faults {
        write_error: 1,
        ..Faults::default()
    });
    assert!(bus.accept(vec![event("a", &[])]).await.is_err());
    assert!(bus.poisoned().unwrap().contains("write"));
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_it() {
    let bench = Bench::new();
    let _bus = bench.start();
    let second = Bus::open(
        bench.options.clone(),
        Arc::new(bench.fs.clone()),
        bench.clock.clone(),
    );
    match second.err().unwrap() {
        BusError::InUse { pid, .. } => assert_eq!(pid, std::process::id().to_string()),
        e => panic!("{e}"),
    }
}

#[tokio::test]
async fn after_closing_every_call_says_so_and_the_folder_is_free() {
    let bench = Bench::new();
    let bus = bench.start();
    let r = route(&bus, "r").await;
    let waiting = tokio::spawn(bus.ready(&[r]));
    bus.close().await.unwrap();
    waiting.await.unwrap();
    assert!(matches!(
        bus.accept(vec![event("a", &[])]).await,
        Err(BusError::Closed)
    ));
    assert!(matches!(bus.receive(&[r], all()), Err(BusError::Closed)));
    bus.close().await.unwrap();
    bench.start();
}

#[tokio::test]
async fn a_backlog_that_takes_too_much_memory_refuses_and_a_drained_one_goes_on() {
    let mut bench = Bench::new();
    bench.options.queue_bytes = 40_000;
    let bus = bench.start();
    let r = bus
        .route("r", RouteOptions { ordered: true })
        .await
        .unwrap();
    let mut refused = None;
    for i in 0..2_000 {
        let mut new = event(&format!("e{i}"), &[r]);
        new.deliveries[0].key = Some(format!("k{i}"));
        match bus.accept(vec![new]).await {
            Ok(_) => {
                bus.maintain().unwrap();
            }
            Err(e) => {
                refused = Some((i, e));
                break;
            }
        }
    }
    let (accepted, error) = refused.expect("a mark that is reached");
    assert!(matches!(error, BusError::Refused { .. }), "{error}");
    // Each has a key of its own: a line, a place in it, and its key.
    assert!((500..1_200).contains(&accepted), "{accepted}");
    let leased = bus
        .receive(
            &[r],
            Receive {
                max: 2_000,
                ..all()
            },
        )
        .unwrap();
    finish(&bus, &leased, Outcome::Delivered).await;
    bus.maintain().unwrap();
    assert_eq!(bus.pressure(), Pressure::Ok);
    bus.accept(vec![event("after", &[r])]).await.unwrap();
}
