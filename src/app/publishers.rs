//! Publishers: which driver serves which, and how they are fed.

use super::brokers::{aws, link};
use super::wiring::Wiring;
use crate::config::{Config, Connection, Publish, PublishTo, Route};
use crate::delivery::Consumer;
use crate::drivers::amqp::{AmqpExchange, Link};
use crate::drivers::sns::SnsTopic;
use crate::handlers::Failure;
use crate::queues::{Publisher, Publishing};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Batches that are published at a time.
const BATCHES: usize = 2;

/// Connections to AMQP brokers that publishers share, by name.
pub(super) type Links = BTreeMap<String, Arc<Link>>;

/// The driver of a publisher. Its connection is declared, or the files would not
/// have been taken.
fn open(config: &Config, publish: &Publish, links: &mut Links) -> Option<Arc<dyn Publisher>> {
    let name = &publish.connection;
    match &publish.to {
        PublishTo::Exchange { options, .. } => {
            let Some(Connection::Amqp(amqp)) = config.connections.get(name) else {
                return None;
            };
            let shared = links.entry(name.clone());
            let shared = shared.or_insert_with(|| Arc::new(Link::new(link(name, amqp), "topics")));
            let exchange = AmqpExchange::new(options.clone(), Arc::clone(shared));
            Some(Arc::new(exchange))
        }
        PublishTo::Topic(options) => {
            let aws = aws(config, name)?;
            Some(Arc::new(SnsTopic::new(options.clone(), aws)))
        }
    }
}

impl Wiring<'_> {
    /// What publishes the messages of a route.
    pub(super) fn publishes(
        &self,
        route: &Route<'_>,
        publish: &Publish,
        links: &mut Links,
    ) -> Result<Option<Consumer>, Failure> {
        let (Some(feed), Some(publisher)) = (self.feed(route)?, open(self.config, publish, links))
        else {
            return Ok(None);
        };
        let name = feed.name.to_string();
        let address = format!("{} {}", publish.kind(), publish.address());
        let handler = Publishing {
            publisher,
            packer: self.packer(&feed),
            routing_key: match &publish.to {
                PublishTo::Exchange { routing_key, .. } => Some(routing_key.clone()),
                PublishTo::Topic(_) => None,
            },
            circuit: self.endpoints.circuit(&name, &address, &publish.circuit),
            stopping: self.brokers.stopping.clone(),
        };
        let queue = self.queue(&name, &name, vec![feed]);
        let handler = Arc::new(handler);
        Ok(Some(self.publishing(handler, queue, route, BATCHES)))
    }
}
