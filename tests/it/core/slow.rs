//! A disk that stands still: what comes meanwhile waits up to a mark, beyond it senders
//! are told to come back, and nothing is lost.

use super::{http_at, shop};
use pointsman::api::Server;
use pointsman::app::{Mode, Node, load};
use pointsman::storage::{Gated, Real};
use std::sync::{Arc, mpsc};
use tokio_util::sync::CancellationToken;

const SENDERS: u64 = 120;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_writer_queue_answers_429_with_a_time_and_loses_nothing() {
    let project = shop(&["book"], "");
    // A sixth of what the senders bring together.
    let node = "node: { listen: 127.0.0.1:0, memory: { intake: 80KiB } }\n";
    project.write("pointsman.yaml", node);
    let config = Arc::new(load(project.root()).config.expect("it is sound"));
    let disk = Arc::new(Gated::new(Real::shared()));
    let clock = pointsman::clock::system();
    let node = Node::open_on(Arc::clone(&config), Mode::Offline, clock, disk.clone()).await;
    let node = Arc::new(node.expect("it opens"));
    let bound = Server::bind(config.node.listen, &config.node.data).await;
    let server = bound.expect("it listens");
    let (address, stop) = (server.address().unwrap(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(Arc::clone(&node), stop.clone()));

    disk.syncs.close(true);
    let (told, answers) = mpsc::channel();
    for n in 0..SENDERS {
        let told = told.clone();
        // Each waits for its answer; a thread of its own holds up nobody else.
        std::thread::spawn(move || {
            let order = super::pressure::order(n);
            let answer = http_at(&address.to_string(), "POST", "/events", &order);
            told.send((n, answer)).ok();
        });
    }
    // The writer stands in its sync with at most a full queue in hand, behind it waits
    // at most another: half of the senders are refused, whatever the order.
    let mut refused = Vec::new();
    let hear = || {
        let heard = answers.recv_timeout(crate::support::PATIENCE);
        heard.expect("an answer")
    };
    let some = usize::try_from(SENDERS / 4).unwrap();
    tokio::task::block_in_place(|| {
        while refused.len() < some {
            let (n, answer) = hear();
            assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
            let head = answer.to_lowercase();
            assert!(head.contains("\r\nretry-after: 1\r\n"), "{answer}");
            assert!(answer.contains("wait to be written"), "{answer}");
            refused.push(n);
        }
        disk.syncs.close(false);
        let mut accepted = 0;
        for _ in refused.len()..usize::try_from(SENDERS).unwrap() {
            let (n, answer) = hear();
            if answer.starts_with("HTTP/1.1 429") {
                refused.push(n);
            } else {
                assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
                accepted += 1;
            }
        }
        assert_eq!(node.bus.audit().buses["default"].accepted, accepted);
        // Nothing of what was refused is there, and all of it is taken once there is room.
        for &n in &refused {
            let order = super::pressure::order(n);
            let answer = http_at(&address.to_string(), "POST", "/events", &order);
            assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        }
    });
    let ledger = node.bus.audit();
    assert!(ledger.balanced(), "{ledger:?}");
    assert_eq!(ledger.buses["default"].accepted, SENDERS);
    assert_eq!(ledger.routes[0].pending(), SENDERS);
    stop.cancel();
    node.shutdown().await.expect("a good end");
    serving.await.expect("the server ends");
}
