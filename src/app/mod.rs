//! The composition root: builds the parts right to left, shuts them down left
//! to right. The edges (API, command line) hold a [`Node`] and nothing else.

mod after;
mod brokers;
mod buckets;
mod build;
mod depths;
mod endpoints;
mod expiring;
mod load;
mod marks;
mod notices;
mod probe;
mod publishers;
mod reload;
mod schedules;
mod sources;
mod warehouse;
mod wiring;

pub use build::{Mode, StartError};
pub use depths::BrokerQueue;
pub use endpoints::EndpointsError;
pub use load::{load, run_rule_tests, table_of};
pub use probe::{Probe, probe};
pub use reload::{BacklogTo, Reload, ReloadError, Reloaded};

use crate::bus::Bus;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::delivery::{Delivery, RunningConsumer};
use crate::handlers::Progress;
use crate::handlers::circuit::Circuit;
use crate::handlers::query::Query;
use crate::observe::Metrics;
use crate::replay::Replays;
use crate::router::Router;
use crate::sources::folder::FolderHandle;
use crate::sources::queue::QueueHandle;
use crate::sources::s3::S3Handle;
use crate::state::State;
use crate::tasks::Tasks;
use crate::topics::{Links, Signer, Subscriptions};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

/// A node: everything that runs, or (offline) everything that can be asked.
pub struct Node {
    /// The log.
    pub bus: Bus,
    /// The rules.
    pub router: Router,
    /// SQL over lake and warehouse.
    pub query: Query,
    /// Measurements.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: SharedClock,
    /// Side state.
    pub state: State,
    /// Replays, and new rules' shares of the past.
    pub replays: Replays,
    /// Progress of long work, for whoever listens.
    pub progress: broadcast::Sender<Progress>,
    mode: Mode,
    live: Arc<ArcSwap<Live>>,
    /// What a reload replaces; held while one is under way.
    running: Mutex<Running>,
    rules_version: Arc<AtomicU32>,
    delivery: Delivery,
    endpoints: endpoints::Endpoints,
    stop_sources: CancellationToken,
    tasks: Tasks,
    brokers: ArcSwap<brokers::Brokers>,
}

/// Where a queue is.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub struct Place {
    /// `embedded`, or the broker and its queue.
    pub at: String,
    /// Messages that wait for it in the log.
    pub backlog: u64,
}

/// The configuration in force, and what is asked about it all the time.
struct Live {
    config: Arc<Config>,
    /// Routes that have a consumer.
    worked: BTreeSet<String>,
    folders: Folders,
    buckets: Buckets,
    queue_sources: QueueSources,
}

/// Folder sources by name.
type Folders = BTreeMap<String, Arc<FolderHandle>>;

/// Bucket sources by name.
type Buckets = BTreeMap<String, Arc<S3Handle>>;

/// Sources that read queues, by name.
type QueueSources = BTreeMap<String, Arc<QueueHandle>>;

/// What runs, by name, with the mark of the declaration that it was built from.
#[derive(Default)]
struct Running {
    consumers: BTreeMap<String, (String, RunningConsumer)>,
    sources: BTreeMap<String, (String, sources::RunningSource)>,
}

impl Node {
    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.live.load().config)
    }

    /// The folder sources by name; empty while offline.
    #[must_use]
    pub fn folders(&self) -> BTreeMap<String, Arc<FolderHandle>> {
        self.live.load().folders.clone()
    }

    /// The bucket sources by name; empty while offline.
    #[must_use]
    pub fn buckets(&self) -> BTreeMap<String, Arc<S3Handle>> {
        self.live.load().buckets.clone()
    }

    /// The sources that read queues by name; empty while offline.
    #[must_use]
    pub fn queue_sources(&self) -> BTreeMap<String, Arc<QueueHandle>> {
        self.live.load().queue_sources.clone()
    }

    /// Where each declared queue was when it was last used, and how many messages
    /// wait for it in the log.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub async fn places(&self) -> Result<BTreeMap<String, Place>, crate::state::StateError> {
        let config = self.config();
        let mut places = BTreeMap::new();
        for name in config.queues.keys() {
            let (at, _) = brokers::place_of(&self.state, name).await?;
            let backlog = brokers::backlog(&self.bus, &config, name);
            places.insert(name.clone(), Place { at, backlog });
        }
        Ok(places)
    }

    /// Whether messages wait on a route that somebody here works on; those of a
    /// `pull` subscription wait for somebody to come, and those of one that is
    /// disabled or not confirmed for a word from outside.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.bus
            .routes()
            .iter()
            .any(|route| route.pending > 0 && !route.paused && self.may_work_on(&route.name))
    }

    fn may_work_on(&self, route: &str) -> bool {
        self.works_on(route) && !self.subscriptions().held(route)
    }

    /// How subscriptions with an endpoint stand.
    #[must_use]
    pub fn subscriptions(&self) -> Arc<Subscriptions> {
        self.endpoints.subscriptions()
    }

    /// Where the node can be reached, for links.
    #[must_use]
    pub fn links(&self) -> &Links {
        self.endpoints.links()
    }

    /// Signs what is sent in SNS's shape, where something is.
    #[must_use]
    pub fn signer(&self) -> Option<&Arc<Signer>> {
        self.endpoints.signer()
    }

    /// Circuit breakers of endpoints by the name of their route or handler; empty
    /// while offline.
    #[must_use]
    pub fn circuits(&self) -> BTreeMap<String, Arc<Circuit>> {
        self.endpoints.circuits()
    }

    /// Whether a consumer here works on this route.
    #[must_use]
    pub fn works_on(&self, route: &str) -> bool {
        self.live.load().worked.contains(route)
    }

    /// Stops sources, lets running work finish within the configured time, hands
    /// back what is on loan and closes the log.
    ///
    /// # Errors
    /// When the log cannot be closed in good order.
    pub async fn shutdown(&self) -> Result<(), crate::bus::BusError> {
        self.stop_sources.cancel();
        let brokers = self.brokers.load();
        brokers.stopping.cancel();
        let late = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        if late.is_err() {
            tracing::warn!("sources did not stop in time");
        }
        self.delivery.drain(self.config().node.shutdown).await;
        if tokio::time::timeout(Duration::from_secs(3), brokers.tasks.wait())
            .await
            .is_err()
        {
            tracing::debug!("connections to brokers were left open");
        }
        self.bus.close().await
    }
}
