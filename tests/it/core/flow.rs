//! What holds while messages flow: targets do not hold up each other, rates and
//! order are kept, a pause keeps the backlog, the clock may jump.

use super::{ledger, send, send_numbered, shop};
use crate::support::Project;
use pointsman::app::{Mode, Node, load};
use pointsman::clock::Manual;
use pointsman::event::{Defaults, Event};
use pointsman::sources::{Incoming, Intake, Taken};
use serde_json::Value;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

fn had(project: &Project, name: &str) -> Vec<Value> {
    let lines = fs::read_to_string(project.path(&format!("{name}.ndjson"))).unwrap_or_default();
    let read = |line: &str| serde_json::from_str(line).expect("an event a line");
    lines.lines().map(read).collect()
}

#[test]
fn a_target_that_is_dead_holds_up_nobody_else() {
    let project = shop(&["book"], "concurrency: 1");
    project.write(
        "rules/dead.yaml",
        "
rules:
  hook:
    pattern: { source: [shop] }
    targets:
      - id: dead
        webhook: { url: \"http://127.0.0.1:9/\", allow_private: true }
        retry: { attempts: 1000, base: 1h, cap: 1h }
      - { handler: stuck }
handlers:
  stuck: { timeout: 1h, exec: { command: [sleep, \"3600\"] } }
",
    );
    let node = project.start();
    for part in 0..4 {
        send_numbered(&project, part * 50..(part + 1) * 50);
    }
    project.wait("all of them", || had(&project, "book").len() == 200);
    for dead in ["hook/dead", "hook/stuck"] {
        let route = ledger(&project, dead);
        let waits = ["ready", "leased", "delayed"].map(|w| route[w].as_u64().expect("a count"));
        assert_eq!(waits.iter().sum::<u64>(), 200, "{route}");
        assert_eq!(
            (&route["delivered"], &route["dead"]),
            (&0.into(), &0.into())
        );
    }
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    node.kill();
}

#[test]
fn a_rate_holds_back_its_handler_alone() {
    let project = shop(&["slow"], "rate: 0.001\nconcurrency: 4");
    project.write("rules/quick.yaml", super::rules(&["quick"], "").as_bytes());
    let node = project.start();
    send_numbered(&project, 0..5);
    project.wait("the quick one", || had(&project, "quick").len() == 5);
    project.wait("the first", || had(&project, "slow").len() == 1);
    let route = ledger(&project, "slow/slow");
    assert_eq!(
        (&route["ready"], &route["leased"]),
        (&4.into(), &0.into()),
        "none is held"
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn messages_of_a_key_are_handled_in_order_and_a_failing_key_blocks_only_itself() {
    let project = Project::new();
    project.write(
        "rules/shop.yaml",
        "
queues: { orders: { order_by: detail.customer } }
rules:
  placed: { pattern: { source: [shop] }, targets: [ { queue: orders } ] }
handlers:
  book:
    from: orders
    concurrency: 4
    retry: { attempts: 1000, base: 10ms, cap: 20ms }
    exec: { command: [sh, book.sh] }
",
    );
    project.write(
        "book.sh",
        "line=$(cat); case \"$line\" in *'\"customer\":\"a\"'*) test -e open || exit 1;; esac; echo \"$line\" >> book.ndjson\n",
    );
    let node = project.start();
    let mut orders = String::new();
    for n in 0..8 {
        for customer in ["a", "b", "c"] {
            orders.push_str(&format!(
                "{{\"source\":\"shop\",\"detail-type\":\"Order\",\"detail\":{{\"customer\":\"{customer}\",\"n\":{n}}}}}\n"
            ));
        }
    }
    send(&project, &orders);
    let of = |customer: &str| -> Vec<u64> {
        let all = had(&project, "book").into_iter();
        let mine = all.filter(|e| e["detail"]["customer"] == customer);
        mine.map(|e| e["detail"]["n"].as_u64().expect("n"))
            .collect()
    };
    project.wait("the others", || had(&project, "book").len() == 16);
    let order: Vec<u64> = (0..8).collect();
    assert_eq!(
        (of("a"), of("b"), of("c")),
        (vec![], order.clone(), order.clone())
    );
    project.write("open", "");
    project.wait_idle();
    assert_eq!(of("a"), order);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_pause_keeps_the_backlog_through_a_restart() {
    let project = shop(&["book", "other"], "");
    project.write("rules/queue.yaml", "queues: { spare: {} }\n");
    let node = project.start();
    assert_eq!(
        project.ok(&["queues", "pause", "book/book"]).trim(),
        "paused book/book"
    );
    send_numbered(&project, 0..10);
    project.wait("the other", || had(&project, "other").len() == 10);
    assert_eq!(node.stop(), 0);

    let node = project.start();
    send_numbered(&project, 10..12);
    project.wait("the other", || had(&project, "other").len() == 12);
    assert_eq!(had(&project, "book").len(), 0);
    let listed = project.ok(&["routes"]);
    let line = listed.lines().find(|line| line.starts_with("book/book"));
    assert!(
        line.is_some_and(|l| l.contains("12") && l.ends_with("paused")),
        "{listed}"
    );
    let none = project.run(&["queues", "pause", "book/bok"]);
    let said = crate::support::text(&none.stderr);
    assert!(said.contains("did you mean `book/book`?"), "{said}");
    project.ok(&["queues", "resume", "book/book"]);
    project.wait("the backlog", || had(&project, "book").len() == 12);
    assert_eq!(node.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_forward_and_back_loses_and_repeats_nothing() {
    let project = shop(&["book"], "");
    let year = 365 * 86_400_000;
    let clock = Manual::new(1_700_000_000_000, 7);
    let config = load(project.root()).config.expect("it is sound");
    let node = Node::open(Arc::new(config), Mode::Run, clock.clone())
        .await
        .expect("it opens");
    let order = |n: u64| {
        let text = format!(
            "{{\"id\":\"o{n}\",\"source\":\"shop\",\"detail-type\":\"Order\",\"detail\":{{\"n\":{n}}}}}"
        );
        let event = Event::complete(text.as_bytes(), &Defaults::default(), 0).expect("an event");
        Incoming {
            event: event.into(),
            bus: "default".into(),
            cursor: None,
        }
    };
    let delivered = |node: &Node| node.bus.audit().routes[0].delivered;
    for (n, jump) in [(0, 0), (1, 10 * year), (2, -20 * year), (3, 10 * year)] {
        clock.jump(jump);
        let first = node.router.take(vec![order(n)]).await.expect("it is taken");
        assert!(matches!(first[..], [Taken::Accepted(_)]), "{first:?}");
        let again = node.router.take(vec![order(n)]).await.expect("it is taken");
        assert!(matches!(again[..], [Taken::Duplicate(_)]), "{again:?}");
        let begun = std::time::Instant::now();
        while delivered(&node) < n + 1 {
            assert!(begun.elapsed() < crate::support::PATIENCE, "not delivered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Retention and expiry look at their clock, too.
        node.bus.maintain().expect("maintenance");
    }
    for seq in 1..=4 {
        assert!(
            node.bus.get(seq).expect("it reads").is_some(),
            "event {seq} is kept"
        );
    }
    let ledger = node.bus.audit();
    assert!(
        ledger.balanced() && ledger.routes[0].dead == 0,
        "{ledger:?}"
    );
    node.shutdown().await.expect("a good end");
    assert_eq!(had(&project, "book").len(), 4);
}
