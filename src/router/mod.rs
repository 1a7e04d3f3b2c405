//! Event -> match -> commit: an event and its deliveries, atomically.
//!
//! The [`Router`] holds the rules of every bus as one immutable [`Table`]; a
//! change of rules is a swap. Sources hand events in through [`Intake`];
//! handlers' events come through [`Router::plan`], which decides their
//! deliveries for the commit that settles their cause.

mod intake;
mod schema;
mod table;

pub use schema::{Breach, Policy, TypeSchema};
pub use table::{Entry, RouteRule, Table, TableError};

use crate::bus::{Bus, NewDelivery, NewEvent, Reading};
use crate::event::Event;
use crate::queues::Outgoing;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Decides where events go, and commits them.
#[derive(Clone)]
pub struct Router {
    bus: Bus,
    table: Arc<ArcSwap<Table>>,
}

impl Router {
    /// A router over `bus` with the rules of `table`.
    #[must_use]
    pub fn new(bus: Bus, table: Table) -> Self {
        Self {
            bus,
            table: Arc::new(ArcSwap::from_pointee(table)),
        }
    }

    /// Replaces the rules; events in the making keep the old ones, which are
    /// returned. When nobody else holds those any more, no event that came in by
    /// them is still to be stored.
    pub fn swap(&self, table: Table) -> Arc<Table> {
        self.table.swap(Arc::new(table))
    }

    /// The rules in force.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// The deliveries of an event on a bus.
    fn deliveries(&self, table: &Table, bus: &str, event: &Event) -> Vec<NewDelivery> {
        // An event that the matcher cannot read was refused at intake, and those of
        // our own making are well-formed, so a failure here is a bug worth a log line.
        table.deliveries(bus, event).unwrap_or_else(|error| {
            tracing::error!(event = event.id(), %error, "event cannot be matched");
            Vec::new()
        })
    }

    /// An event of a handler's with its deliveries, for the commit that settles
    /// its cause.
    #[must_use]
    pub fn plan(&self, out: Outgoing) -> NewEvent {
        let table = self.table.load();
        let deliveries = self.deliveries(&table, &out.bus, &out.event);
        NewEvent {
            bus: out.bus.into(),
            id: out.event.id().to_owned(),
            payload: out.event.text().clone(),
            cause: Some(out.cause),
            root: Some(out.root),
            hops: out.hops,
            cursor: None,
            rules_version: table.version(),
            deliveries,
            reading: Reading::of(Arc::new(out.event)),
        }
    }
}
