//! A disk that takes its time: what waits for it, and what must not.

use super::*;
use crate::bus::core::lock;
use crate::storage::{Gate, Gated};

/// Waits until somebody stands before the gate.
async fn held(gate: &Gate) {
    while gate.waiting() == 0 {
        tokio::task::yield_now().await;
    }
}

fn start(cache_bytes: usize) -> (Bus, Gated) {
    let bench = Bench::new();
    let slow = Gated::new(Arc::new(bench.fs.clone()));
    let mut options = bench.options.clone();
    options.cache_bytes = cache_bytes;
    let opened = Bus::open(options, Arc::new(slow.clone()), bench.clock.clone());
    (opened.unwrap().0, slow)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_during_a_sync_is_written_or_shares_the_next() {
    let (bus, slow) = start(1 << 20);
    let r = route(&bus, "r").await;
    slow.syncs.close(true);
    let accept = |i: usize| {
        let (bus, event) = (bus.clone(), event(&format!("e{i}"), &[r]));
        tokio::spawn(async move { bus.accept(vec![event]).await })
    };
    let first = accept(0);
    held(&slow.syncs).await;
    let written = bus.disk_bytes();
    let second = accept(1);
    while bus.disk_bytes() == written {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (2..=200).map(accept).collect();
    while lock(&bus.handle.core().queue).requests.len() < 199 {
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished());
    let before = slow.syncs.passed();
    slow.syncs.close(false);
    for one in others.into_iter().chain([first, second]) {
        one.await.unwrap().unwrap();
    }
    // One for the first, one for what was written meanwhile, one for all that waited.
    assert_eq!(slow.syncs.passed() - before, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_waits_for_the_disk_holds_up_nobody() {
    let (bus, slow) = start(0);
    let r = route(&bus, "r").await;
    for i in 0..3 {
        let event = event(&format!("e{i}"), &[]);
        bus.accept(vec![event]).await.unwrap();
    }
    slow.reads.close(true);
    let reader = bus.clone();
    let reading = tokio::task::spawn_blocking(move || reader.read(1, 3));
    held(&slow.reads).await;
    for i in 3..200 {
        let event = event(&format!("e{i}"), &[r]);
        bus.accept(vec![event]).await.unwrap();
    }
    bus.pause(r).await.unwrap();
    assert_eq!(bus.audit().routes[0].pending(), 197);
    assert!(!reading.is_finished());
    slow.reads.close(false);
    assert_eq!(reading.await.unwrap().unwrap().len(), 3);
}
