//! Logs and metrics. Every metric's name is in this file.

mod logs;

pub use logs::{LogFormat, init_logs};

use crate::bus::{Expiring, Ledger, RouteLedger};
use crate::delivery::Watch;
use crate::handlers::circuit::Light;
use crate::topics::State;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt::Error;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HandlerLabel {
    handler: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BusLabel {
    bus: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabel {
    route: String,
    what: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteOnly {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: String,
}

/// How the endpoints stand that messages are sent to.
#[derive(Default)]
pub struct Outside {
    /// Circuit breakers by the name of their route or handler.
    pub circuits: Vec<(String, Light)>,
    /// Subscriptions with an endpoint, by route.
    pub subscriptions: Vec<(String, State)>,
}

/// The program's own measurements. The ledger's are read when they are asked for.
pub struct Metrics {
    registry: Registry,
    handler_seconds: Family<HandlerLabel, Histogram, fn() -> Histogram>,
    handled: Family<HandlerLabel, Counter>,
    failed: Family<HandlerLabel, Counter>,
    refused: Family<RefusedLabel, Counter>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pointsman");
        let handler_seconds: Family<HandlerLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 10)));
        let (handled, failed, refused) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "handler_duration_seconds",
            "Time that a batch took from receipt to settlement",
            handler_seconds.clone(),
        );
        registry.register(
            "handler_messages",
            "Messages that were handled",
            handled.clone(),
        );
        registry.register(
            "handler_failures",
            "Messages whose handling failed, retries included",
            failed.clone(),
        );
        registry.register(
            "events_refused",
            "Events refused at intake",
            refused.clone(),
        );
        Self {
            registry,
            handler_seconds,
            handled,
            failed,
            refused,
        }
    }

    /// Counts events that were refused at intake.
    pub fn refused(&self, reason: &'static str, count: u64) {
        self.refused
            .get_or_create(&RefusedLabel { reason })
            .inc_by(count);
    }

    /// Everything in Prometheus' text format (OpenMetrics 1.0).
    ///
    /// # Errors
    /// When a value cannot be written as text.
    pub fn render(&self, books: &Books) -> Result<String, Error> {
        let mut text = String::new();
        let mut registry = ledger_registry(books);
        add_outside(&mut registry, &books.outside);
        encode(&mut text, &registry)?;
        // Each part ends with the end mark of the format; one is enough.
        let end = text.trim_end().trim_end_matches("# EOF").len();
        text.truncate(end);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch for Metrics {
    fn handled(&self, handler: &str, messages: usize, failed: usize, seconds: f64) {
        let label = HandlerLabel {
            handler: handler.to_owned(),
        };
        self.handler_seconds.get_or_create(&label).observe(seconds);
        self.handled.get_or_create(&label).inc_by(messages as u64);
        self.failed.get_or_create(&label).inc_by(failed as u64);
    }
}

/// What is read from the log when metrics are asked for.
#[derive(Default)]
pub struct Books {
    /// The ledger.
    pub ledger: Ledger,
    /// Size of the log on disk in bytes.
    pub disk_bytes: u64,
    /// Dead letters that expire soon.
    pub expiring: Vec<Expiring>,
    /// Pieces of damage that are known.
    pub damage: usize,
    /// How the other systems stand.
    pub outside: Outside,
}

/// The ledger as metrics: counters of events per bus and of deliveries per route.
fn ledger_registry(books: &Books) -> Registry {
    let ledger = &books.ledger;
    let mut registry = Registry::with_prefix("pointsman");
    let accepted = Family::<BusLabel, Counter>::default();
    let duplicates = Family::<BusLabel, Counter>::default();
    let matched = Family::<BusLabel, Counter>::default();
    let unmatched = Family::<BusLabel, Counter>::default();
    for (bus, counts) in &ledger.buses {
        let label = BusLabel { bus: bus.clone() };
        accepted.get_or_create(&label).inc_by(counts.accepted);
        duplicates.get_or_create(&label).inc_by(counts.duplicates);
        matched.get_or_create(&label).inc_by(counts.matched);
        unmatched.get_or_create(&label).inc_by(counts.unmatched);
    }
    let total = Family::<RouteLabel, Counter>::default();
    let now = Family::<RouteLabel, Gauge>::default();
    for route in &ledger.routes {
        let label = |what| RouteLabel {
            route: route.name.clone(),
            what,
        };
        for (what, count) in totals(route) {
            total.get_or_create(&label(what)).inc_by(count);
        }
        for (what, count) in levels(route) {
            now.get_or_create(&label(what))
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    let disk = Gauge::<i64>::default();
    disk.set(i64::try_from(books.disk_bytes).unwrap_or(i64::MAX));
    let expiring = Family::<RouteOnly, Gauge>::default();
    for soon in &books.expiring {
        let label = RouteOnly {
            route: soon.name.clone(),
        };
        let count = i64::try_from(soon.count).unwrap_or(i64::MAX);
        expiring.get_or_create(&label).set(count);
    }
    let damage = Gauge::<i64>::default();
    damage.set(i64::try_from(books.damage).unwrap_or(i64::MAX));
    let lost = Counter::<u64>::default();
    lost.inc_by(ledger.lost);
    let balanced = Gauge::<i64>::default();
    balanced.set(i64::from(ledger.balanced()));
    registry.register("events_accepted", "Events that are durable", accepted);
    registry.register(
        "events_duplicate",
        "Events that the bus had already",
        duplicates,
    );
    registry.register(
        "events_matched",
        "Events that at least one rule matched",
        matched,
    );
    registry.register(
        "events_lost",
        "Events whose record is damaged and cannot be read",
        lost,
    );
    registry.register(
        "dead_letters_expiring",
        "Dead letters in the last tenth of the time that they are kept",
        expiring,
    );
    registry.register("log_damage", "Pieces of damage known in the log", damage);
    registry.register(
        "ledger_balanced",
        "1 while every route and bus adds up and nothing is lost, else 0",
        balanced,
    );
    registry.register("events_unmatched", "Events that no rule matched", unmatched);
    registry.register("deliveries", "Deliveries by what became of them", total);
    registry.register("deliveries_now", "Deliveries by where they are now", now);
    registry.register("log_bytes", "Size of the log on disk in bytes", disk);
    registry
}

fn add_outside(registry: &mut Registry, outside: &Outside) {
    let circuits = Family::<EndpointLabel, Gauge>::default();
    for (endpoint, light) in &outside.circuits {
        let label = EndpointLabel {
            endpoint: endpoint.clone(),
        };
        circuits.get_or_create(&label).set(match light {
            Light::Closed => 0,
            Light::HalfOpen => 1,
            Light::Open => 2,
        });
    }
    let subscriptions = Family::<EndpointLabel, Gauge>::default();
    for (endpoint, state) in &outside.subscriptions {
        let label = EndpointLabel {
            endpoint: endpoint.clone(),
        };
        subscriptions.get_or_create(&label).set(match state {
            State::Active => 0,
            State::Pending => 1,
            State::Disabled => 2,
        });
    }
    registry.register(
        "endpoint_circuit",
        "Circuit breaker of an endpoint: 0 closed, 1 half-open, 2 open",
        circuits,
    );
    registry.register(
        "subscription_state",
        "Standing of a subscription: 0 active, 1 waits to be confirmed, 2 disabled",
        subscriptions,
    );
}

fn totals(route: &RouteLedger) -> [(&'static str, u64); 10] {
    [
        ("enqueued", route.enqueued),
        ("replayed", route.replayed),
        ("redriven", route.redriven),
        ("delivered", route.delivered),
        ("retried", route.retried),
        ("dead_lettered", route.dead_lettered),
        ("purged", route.purged),
        ("expired", route.expired),
        ("moved_in", route.moved_in),
        ("moved_out", route.moved_out),
    ]
}

fn levels(route: &RouteLedger) -> [(&'static str, u64); 4] {
    [
        ("ready", route.ready),
        ("leased", route.leased),
        ("delayed", route.delayed),
        ("dead", route.dead),
    ]
}
