//! What a bus promises, told on a disk in memory and a clock that is moved by hand.

mod damage;
mod dead;
mod delivery;
mod intake;
mod keeping;
mod reading;
mod slow;

use std::path::PathBuf;

use super::*;
use crate::clock::Manual;
use crate::storage::Memory;

/// A bus on a disk in memory, with what is needed to open it again.
struct Bench {
    fs: Memory,
    clock: Arc<Manual>,
    options: BusOptions,
}

impl Bench {
    fn new() -> Self {
        let mut options = BusOptions::new(PathBuf::from("/bus"));
        options.maintain_every = Duration::ZERO;
        Self {
            fs: Memory::new(1),
            clock: Manual::new(1_700_000_000_000, 7),
            options,
        }
    }

    fn open(&self) -> (Bus, RecoveryReport) {
        Bus::open(
            self.options.clone(),
            Arc::new(self.fs.clone()),
            self.clock.clone(),
        )
        .unwrap()
    }

    fn start(&self) -> Bus {
        self.open().0
    }
}

fn event(id: &str, routes: &[RouteId]) -> NewEvent {
    let mut event = NewEvent::new("default", id, format!("{{\"id\":\"{id}\"}}"));
    event.deliveries = routes.iter().map(|&r| NewDelivery::to(r)).collect();
    event
}

fn all() -> Receive {
    Receive {
        max: 1000,
        ..Receive::default()
    }
}

async fn route(bus: &Bus, name: &str) -> RouteId {
    bus.route(name, RouteOptions::default()).await.unwrap()
}

fn ids(leased: &[Leased]) -> Vec<&str> {
    leased.iter().map(|l| l.event.id.as_str()).collect()
}

async fn finish(bus: &Bus, leased: &[Leased], outcome: Outcome) -> Settled {
    let settlements = leased.iter().map(|l| l.settle(outcome.clone())).collect();
    bus.settle(settlements, Vec::new(), Durability::Synced)
        .await
        .unwrap()
}

fn failed(message: &str) -> AttemptError {
    AttemptError {
        class: "transient".into(),
        message: message.into(),
        ..AttemptError::default()
    }
}
