//! `check --connect`: whether what lies outside is there and lets us in.

use super::brokers;
use crate::config::{Backing, Config, Connection};
use crate::drivers::amqp::{AmqpQueue, Finding, Link, check_link};
use serde::Serialize;

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// What: `connection rabbit`, `queue to-transform`.
    pub what: String,
    /// Whether all is well with it.
    pub ok: bool,
    /// What was found.
    pub found: String,
}

/// Tries every connection and what is used through it. Makes nothing.
pub async fn probe(config: &Config) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (name, connection) in &config.connections {
        let what = format!("connection {name}");
        if let Connection::Amqp(amqp) = connection {
            let link = Link::new(brokers::link(name, amqp), "checks");
            probes.push(told(&what, check_link(&link).await));
            link.close().await;
        }
    }
    for (name, queue) in &config.queues {
        for backing in std::iter::once(&queue.on).chain(&queue.drain_from) {
            let what = format!("queue {name} ({})", backing.label());
            let Backing::Amqp {
                connection,
                options,
            } = backing
            else {
                if let Some(broker) = brokers::open(config, backing, "checks") {
                    let found = broker.depth().await;
                    let found = found
                        .map(|depth| format!("the queue is there; {} messages wait", depth.ready));
                    probes.push(told(&what, found.map_err(|e| e.to_string())));
                }
                continue;
            };
            let Some(Connection::Amqp(amqp)) = config.connections.get(connection) else {
                continue;
            };
            let link = Link::new(brokers::link(connection, amqp), "checks");
            let broker = AmqpQueue::new(options.clone(), link);
            let found = broker.check().await;
            probes.extend(found.into_iter().map(|finding| told(&what, finding)));
            crate::queues::Broker::close(&broker).await;
        }
    }
    probes
}

fn told(what: &str, finding: Finding) -> Probe {
    Probe {
        what: what.to_owned(),
        ok: finding.is_ok(),
        found: finding.unwrap_or_else(|wrong| wrong),
    }
}
