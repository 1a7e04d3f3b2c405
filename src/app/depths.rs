//! How full queues on brokers are: what waits there, and what this node has of it.

use super::Node;
use super::brokers::{home, open};
use crate::config::{Backing, Config};
use crate::queues::{Broker, BrokerError, Depth, Inbox};
use futures::future::join_all;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A queue on a broker, as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerQueue {
    /// The broker and its queue.
    pub at: String,
    /// Messages that wait there; none where the broker does not answer.
    pub ready: Option<u64>,
    /// Messages that were received there and are not settled, by whomever, where the
    /// broker says so.
    pub unsettled: Option<u64>,
    /// Messages that this node has received and not settled.
    pub here: usize,
    /// Why the broker does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl BrokerQueue {
    /// Whether messages wait there, as far as is known.
    fn has_work(&self) -> bool {
        let waits = self.ready.is_none_or(|ready| ready > 0);
        waits || self.unsettled.is_some_and(|n| n > 0) || self.here > 0
    }
}

/// Connections by the label of their queue.
type Asked = BTreeMap<String, Arc<dyn Broker>>;

/// Inboxes by the name of their queue, which may have several.
type Inboxes = Vec<(String, Weak<Inbox>)>;

/// Who can tell how full queues on brokers are. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Depths {
    /// Connections that only ask, by the queue's label.
    asked: Arc<tokio::sync::Mutex<Asked>>,
    /// Inboxes of this node.
    inboxes: Arc<Mutex<Inboxes>>,
}

impl Depths {
    /// Notes an inbox of a queue, for as long as it lives.
    pub fn note(&self, queue: &str, inbox: &Arc<Inbox>) {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.retain(|(_, inbox)| inbox.strong_count() > 0);
        inboxes.push((queue.to_owned(), Arc::downgrade(inbox)));
    }

    /// Forgets connections, since what they were made of may have changed.
    pub async fn forget(&self) {
        self.asked.lock().await.clear();
    }

    fn here(&self, queue: &str) -> usize {
        let inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = inboxes.iter().filter(|(name, _)| name == queue);
        let held = mine.filter_map(|(_, inbox)| Some(inbox.upgrade()?.held()));
        held.map(|(waiting, out)| waiting + out).sum()
    }

    async fn ask(&self, config: &Config, on: &Backing) -> Result<Depth, BrokerError> {
        let broker = {
            let mut asked = self.asked.lock().await;
            match asked.get(&on.label()) {
                Some(broker) => Arc::clone(broker),
                None => {
                    let Some(broker) = open(config, on, "asks") else {
                        return Ok(Depth::default());
                    };
                    asked.insert(on.label(), Arc::clone(&broker));
                    broker
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, broker.depth()).await;
        answer.unwrap_or_else(|_| Err(BrokerError::Unavailable("no answer".to_owned())))
    }

    async fn of(&self, config: &Config, queue: &str, on: &Backing) -> BrokerQueue {
        let answer = self.ask(config, on).await;
        let depth = answer.as_ref().ok();
        BrokerQueue {
            at: on.label(),
            ready: depth.map(|depth| depth.ready),
            unsettled: depth.and_then(|depth| depth.unsettled),
            here: self.here(queue),
            error: answer.as_ref().err().map(ToString::to_string),
        }
    }
}

impl Node {
    /// Every queue on a broker, by the route in the log that its messages come home to.
    pub async fn broker_queues(&self) -> BTreeMap<String, BrokerQueue> {
        let (config, depths) = (self.config(), self.brokers.load().depths.clone());
        let queues = config.queues.iter().flat_map(|(name, queue)| {
            let backings = std::iter::once(&queue.on).chain(&queue.drain_from);
            let on_broker = backings.filter(|backing| backing.is_broker());
            on_broker.map(move |backing| (name, backing))
        });
        let asked = queues.map(|(name, on)| {
            let (depths, config) = (&depths, &config);
            async move { (home(name), depths.of(config, name, on).await) }
        });
        let mut all: BTreeMap<String, BrokerQueue> = BTreeMap::new();
        for (home, one) in join_all(asked).await {
            match all.get_mut(&home) {
                None => drop(all.insert(home, one)),
                // The queue that this one was before.
                Some(first) => first.add(one),
            }
        }
        all
    }

    /// Whether messages wait at a broker that somebody here works on. A broker that
    /// does not answer may have some.
    pub async fn brokers_have_work(&self) -> bool {
        let queues = self.broker_queues().await;
        let mine = queues.iter().filter(|(home, _)| self.works_on(home));
        mine.into_iter().any(|(_, queue)| queue.has_work())
    }
}

impl BrokerQueue {
    fn add(&mut self, other: Self) {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        self.at = format!("{} and {}", self.at, other.at);
        self.ready = sum(self.ready, other.ready);
        let unsettled = self.unsettled.unwrap_or(0) + other.unsettled.unwrap_or(0);
        self.unsettled = (self.unsettled.or(other.unsettled)).map(|_| unsettled);
        self.error = self.error.take().or(other.error);
    }
}
