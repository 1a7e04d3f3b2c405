//! Opening a node: ground first, then right to left, sources last.

use super::brokers::{self, Brokers};
use super::buckets;
use super::endpoints::{Endpoints, EndpointsError};
use super::marks::Marks;
use super::sources::{BringError, bringers};
use super::warehouse;
use super::wiring::{self, Routes};
use super::{Buckets, Folders, Live, Node, QueueSources, expiring};
use crate::bus::{Bus, BusError, BusOptions};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::emit::Emitter;
use crate::handlers::query::{Query, QueryEnv};
use crate::handlers::{Failure, Progress};
use crate::observe::Metrics;
use crate::replay::{ReplayError, Replays};
use crate::router::{Router, TableError};
use crate::state::{State, StateError};
use crate::storage::FileSystem;
use crate::tasks::Tasks;
use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

/// What a node is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To run: sources and handlers start.
    Run,
    /// To be asked and mended while nothing runs.
    Offline,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("cannot create the data folder {}: {error}", path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The log does not open.
    #[error("the log does not open: {0}")]
    Bus(#[from] BusError),
    /// The side state does not open.
    #[error("the side state does not open: {0}")]
    State(#[from] StateError),
    /// The rules do not compile.
    #[error("the rules do not compile: {0}")]
    Rules(#[from] TableError),
    /// Endpoints cannot be set up.
    #[error("webhooks cannot be set up: {0}")]
    Endpoints(#[from] EndpointsError),
    /// A handler cannot be built.
    #[error("a handler cannot be built: {0}")]
    Handler(#[from] Failure),
    /// A replay or a late rule cannot go on.
    #[error("the past cannot be given again: {0}")]
    Replay(#[from] ReplayError),
    /// A source does not start.
    #[error("source `{name}` does not start: {error}")]
    Source {
        /// The source.
        name: String,
        /// Why.
        error: BringError,
    },
}

impl Node {
    /// Opens a node.
    ///
    /// # Errors
    /// When a part cannot be built; nothing is left running then.
    pub async fn open(
        config: Arc<Config>,
        mode: Mode,
        clock: SharedClock,
    ) -> Result<Self, StartError> {
        Self::open_on(config, mode, clock, crate::storage::Real::shared()).await
    }

    /// Opens a node whose log lies on `disk`; all else is on the machine's own.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_on(
        config: Arc<Config>,
        mode: Mode,
        clock: SharedClock,
        disk: Arc<dyn FileSystem>,
    ) -> Result<Self, StartError> {
        let data = &config.node.data;
        std::fs::create_dir_all(data).map_err(|error| StartError::DataFolder {
            path: data.clone(),
            error,
        })?;
        let bus = open_bus(&config, &clock, disk)?;
        let state = State::open(&data.join("state.sqlite"))?;
        let node_name = brokers::node_name(&state).await?;
        let endpoints = Endpoints::new(&config, &state, &clock)?;
        let routes = wiring::routes(&bus, &config).await?;
        let router = Router::new(bus.clone(), wiring::table(&config, &routes, &clock)?);
        let metrics = Arc::new(Metrics::new());
        let (progress, _) = broadcast::channel(64);
        let tell = progress.clone();
        let delivery = Delivery::new(
            Emitter::new(config.node.event_defaults(), clock.clone()),
            clock.clone(),
            Arc::<Metrics>::clone(&metrics),
            Arc::new(move |p: Progress| drop(tell.send(p))),
        );
        wiring::retire_gone(&bus, &routes).await?;
        let places = buckets::places(&config)?;
        let (tasks, stop_sources) = (Tasks::default(), CancellationToken::new());
        let replays = Replays::new(
            bus.clone(),
            router.clone(),
            state.clone(),
            clock.clone(),
            tasks.clone(),
            stop_sources.child_token(),
        );
        let node = Self {
            replays,
            query: Query::new(QueryEnv {
                lake: data.join("lake"),
                warehouse: shared(warehouse::place(&config, &places)?),
                rejects: data.join("rejects"),
                scratch: data.join("scratch"),
                memory_bytes: config.node.query_memory_bytes,
                places: shared(places),
            }),
            bus,
            router,
            metrics,
            clock,
            state,
            progress,
            delivery,
            endpoints,
            mode,
            rules_version: Arc::new(AtomicU32::new(config.rules_version)),
            live: Arc::new(ArcSwap::from_pointee(Live {
                worked: wiring::worked(&config),
                config: Arc::clone(&config),
                folders: Folders::new(),
                buckets: Buckets::new(),
                queue_sources: QueueSources::new(),
            })),
            running: Mutex::default(),
            stop_sources,
            tasks,
            brokers: ArcSwap::from_pointee(Brokers::new(node_name)),
        };
        if mode == Mode::Offline {
            let subscriptions = node.endpoints.prepare(&config).await?;
            node.endpoints.publish(subscriptions, &config).await?;
        } else {
            node.begin(&config, &routes).await?;
        }
        Ok(node)
    }

    /// Removes bodies whose messages are long gone.
    fn sweep_claims(&self, config: &Config) {
        let claims = brokers::claims(&config.node.data);
        let age = config.node.dead_letter_retention.max(config.node.retention);
        self.tasks.spawn(async move {
            if let Err(error) = claims.sweep(age).await {
                tracing::warn!(%error, "old bodies stay in `data/claims`");
            }
        });
    }

    /// Starts everything that works.
    async fn begin(&self, config: &Arc<Config>, routes: &Routes) -> Result<(), StartError> {
        self.tasks.spawn(expiring::warn(
            self.bus.clone(),
            config.node.dead_letter_retention,
            self.stop_sources.child_token(),
        ));
        let mut running = self.running.lock().await;
        self.note_moves(config).await?;
        self.sweep_claims(config);
        let subscriptions = self.endpoints.prepare(config).await?;
        let consumers = self.consumers(config, routes, &subscriptions)?;
        self.endpoints.publish(subscriptions, config).await?;
        self.replace_consumers(&mut running, config, consumers, false);
        self.replays.resume().await?;
        let (late, names) = (wiring::late_rules(config), routes.keys().cloned().collect());
        self.replays.begin_late(late, &names, None).await?;
        let marks = Marks::of(config);
        for (name, what) in bringers(config) {
            let started = self.bring(&name, what).await;
            let started = started.map_err(|error| StartError::Source {
                name: name.clone(),
                error,
            })?;
            let mark = marks.bringer(what);
            running.sources.insert(name, (mark, started));
        }
        self.publish_sources(&running);
        Ok(())
    }
}

fn open_bus(
    config: &Config,
    clock: &SharedClock,
    disk: Arc<dyn FileSystem>,
) -> Result<Bus, BusError> {
    let node = &config.node;
    let options = BusOptions {
        max_event_bytes: node.max_event_bytes,
        retention: node.retention,
        retention_bytes: node.retention_bytes,
        dedupe_window: node.dedupe,
        dead_letter_retention: node.dead_letter_retention,
        disk_warn: node.disk.warn_bytes,
        disk_refuse: node.disk.refuse_bytes,
        intake_bytes: node.memory.intake_bytes,
        queue_bytes: node.memory.waiting_bytes,
        ids_bytes: node.memory.ids_bytes,
        ..BusOptions::new(node.data.join("bus"))
    };
    let (bus, report) = Bus::open(options, disk, clock.clone())?;
    tracing::debug!(?report, "log recovered");
    for damage in bus.damage() {
        tracing::error!(?damage, "the log is damaged; `pointsman doctor` tells more");
    }
    Ok(bus)
}

/// A value that a reload replaces.
fn shared<T>(value: T) -> Arc<ArcSwap<T>> {
    Arc::new(ArcSwap::from_pointee(value))
}
