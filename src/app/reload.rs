//! Rules, handlers, queues, topics and sources replaced while the node runs.
//!
//! The new configuration is read, checked and built whole before anything
//! changes; a mistake leaves the old one in force. The rules are one swap. A
//! consumer whose declaration is the same goes on undisturbed; one that changed
//! finishes what it has before its successor begins.

use super::brokers::{self, Brokers};
use super::buckets::places;
use super::endpoints::EndpointsError;
use super::marks::Marks;
use super::sources::bringers;
use super::warehouse;
use super::wiring::{self, Routes, Wiring};
use super::{Live, Node, Running};
use crate::bus::{Backlog, BusError, RouteInfo};
use crate::config::{Config, Diff, Loaded, diff, same_secrets};
use crate::delivery::{Consumer, RunningConsumer};
use crate::error::{Diagnostic, Sources};
use crate::handlers::Failure;
use crate::router::TableError;
use crate::state::StateError;
use crate::topics::Subscriptions;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where the backlog of a route goes whose rule is gone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BacklogTo {
    /// It is dropped, and counted as purged.
    Drop,
    /// It goes to this route.
    MoveTo(String),
}

/// What a reload is told.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// By route: where its backlog goes.
    pub backlog: BTreeMap<String, BacklogTo>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reloaded {
    /// What differs from before.
    pub changes: Vec<Diff>,
    /// Fields of `node` that differ and are used from the next start on.
    pub at_restart: Vec<String>,
    /// Routes out of service, with the number of messages that were moved or dropped.
    pub retired: BTreeMap<String, u64>,
    /// What went wrong after the rules were in force; empty when all is well.
    pub failed: Vec<String>,
    /// Warnings about the files.
    pub warnings: Vec<Diagnostic>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The node does not run, so there is nothing to replace.
    #[error("nothing runs here; the files are read at the next start")]
    Offline,
    /// The files have errors.
    #[error("the configuration has errors; the old rules stay in force")]
    Files {
        /// All of them.
        diagnostics: Vec<Diagnostic>,
        /// The texts that they point into.
        sources: Sources,
    },
    /// Messages wait on routes that would be gone.
    #[error("messages wait on routes that would be gone: {}; the old rules stay in force", told(.0))]
    Backlog(Vec<RouteInfo>),
    /// A backlog is sent where it cannot go.
    #[error("{0}; the old rules stay in force")]
    BadBacklog(String),
    /// The rules do not compile.
    #[error("the rules do not compile: {0}; the old ones stay in force")]
    Rules(#[from] TableError),
    /// A handler cannot be built.
    #[error("a handler cannot be built: {0}; the old rules stay in force")]
    Handler(#[from] Failure),
    /// Webhooks cannot be set up.
    #[error("webhooks cannot be set up: {0}; the old rules stay in force")]
    Endpoints(#[from] EndpointsError),
    /// The log does not answer.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The side state does not answer.
    #[error(transparent)]
    State(#[from] StateError),
}

fn told(routes: &[RouteInfo]) -> String {
    let told: Vec<String> = routes
        .iter()
        .map(|route| format!("`{}` ({})", route.name, route.pending))
        .collect();
    told.join(", ")
}

impl Node {
    /// Reads the files again and puts them in force, as far as they can be
    /// without a restart: all but `node`.
    ///
    /// # Errors
    /// When the files, or what was told of backlogs, cannot be put in force;
    /// then everything is as it was.
    pub async fn reload(&self, told: &Reload) -> Result<Reloaded, ReloadError> {
        if self.mode != super::Mode::Run {
            return Err(ReloadError::Offline);
        }
        let mut running = self.running.lock().await;
        let old = self.config();
        let (mut config, warnings) = read(&old).await?;
        let mut done = Reloaded {
            warnings,
            ..Reloaded::default()
        };
        for change in diff(&old, &config) {
            match change.section.as_str() {
                "node" => done.at_restart.push(change.name),
                _ => done.changes.push(change),
            }
        }
        config.node = old.node.clone();
        let config = Arc::new(config);
        let gone = self.leaving(&old, &config, told)?;
        let subscriptions = self.endpoints.prepare(&config).await?;
        let routes = wiring::routes(&self.bus, &config).await?;
        self.note_moves(&config).await?;
        let built = self.build(&config, &routes, &subscriptions);
        let (table, consumers) = match built {
            Ok(built) => built,
            Err(error) => {
                // The routes that were made for it are taken out again.
                let kept = wiring::routes(&self.bus, &old).await?;
                wiring::retire_gone(&self.bus, &kept).await?;
                return Err(error);
            }
        };

        // From here on the new rules are in force.
        self.rules_version
            .store(config.rules_version, Ordering::Relaxed);
        let before = self.router.swap(table);
        self.live.rcu(|live| Live {
            config: Arc::clone(&config),
            worked: wiring::worked(&config),
            folders: live.folders.clone(),
            buckets: live.buckets.clone(),
            queue_sources: live.queue_sources.clone(),
        });
        let names = routes.keys().cloned().collect();
        let late = wiring::late_rules(&config);
        let begun = self.replays.begin_late(late, &names, Some(&before)).await;
        if let Err(error) = begun {
            done.failed.push(format!("the rules' past: {error}"));
        }
        let fresh = !same_secrets(&old, &config);
        self.brokers.load().depths.forget().await;
        if let Err(error) = self.endpoints.publish(subscriptions, &config).await {
            done.failed
                .push(format!("how subscriptions stand is not kept: {error}"));
        }
        let stopped = self.replace_consumers(&mut running, &config, consumers, fresh);
        self.replace_sources(&mut running, &config, fresh, &mut done)
            .await;
        self.retire(gone, told, stopped, &mut done).await;
        drop(before);
        tracing::info!(
            changes = done.changes.len(),
            rules = config.rules.len(),
            handlers = config.handlers.len(),
            "reloaded"
        );
        Ok(done)
    }

    /// Routes that the new configuration does not have, if all their backlogs
    /// have somewhere to go.
    fn leaving(
        &self,
        old: &Config,
        new: &Config,
        told: &Reload,
    ) -> Result<Vec<RouteInfo>, ReloadError> {
        let names = |config| -> BTreeSet<String> {
            let names = wiring::route_names(config).into_iter();
            names.map(|(name, _)| name).collect()
        };
        let (was, mut is) = (names(old), names(new));
        is.extend(
            brokers::kept_homes(&self.bus, new)
                .into_iter()
                .map(|(name, _)| name),
        );
        let gone = wiring::gone(&self.bus, &is);
        for (route, to) in &told.backlog {
            if !gone.iter().any(|gone| gone.name == *route) {
                let message = format!("no route `{route}` would be gone");
                return Err(ReloadError::BadBacklog(message));
            }
            if let BacklogTo::MoveTo(to) = to
                && !is.contains(to)
            {
                let message =
                    format!("the backlog of `{route}` cannot go to `{to}`: no rule has that route");
                return Err(ReloadError::BadBacklog(message));
            }
        }
        // A backlog that was without a rule before does not hold up other changes.
        let homeless = |route: &&RouteInfo| {
            route.pending > 0
                && was.contains(&route.name)
                && !told.backlog.contains_key(&route.name)
        };
        let homeless: Vec<RouteInfo> = gone.iter().filter(homeless).cloned().collect();
        match homeless.is_empty() {
            true => Ok(gone),
            false => Err(ReloadError::Backlog(homeless)),
        }
    }

    fn build(
        &self,
        config: &Config,
        routes: &Routes,
        subscriptions: &Subscriptions,
    ) -> Result<(crate::router::Table, Vec<Consumer>), ReloadError> {
        let table = wiring::table(config, routes, &self.clock)?;
        Ok((table, self.consumers(config, routes, subscriptions)?))
    }

    /// Notes which queues have moved to a broker or back.
    pub(super) async fn note_moves(&self, config: &Config) -> Result<(), StateError> {
        let moved = brokers::note_moves(&self.state, &self.bus, config).await?;
        self.brokers.rcu(|brokers| Brokers {
            moved: moved.clone(),
            ..Brokers::clone(brokers)
        });
        Ok(())
    }

    /// Every consumer of a configuration, not yet started.
    pub(super) fn consumers(
        &self,
        config: &Config,
        routes: &Routes,
        subscriptions: &Subscriptions,
    ) -> Result<Vec<Consumer>, Failure> {
        let places = places(config)?;
        self.query
            .set_places(places.clone(), warehouse::place(config, &places)?);
        let wiring = Wiring {
            config,
            routes,
            bus: &self.bus,
            router: &self.router,
            clock: &self.clock,
            places: &places,
            rules_version: &self.rules_version,
            brokers: &self.brokers.load(),
            endpoints: &self.endpoints,
            subscriptions,
        };
        wiring.consumers()
    }

    /// Starts consumers that are new or changed, and stops those that are gone,
    /// which are returned. `fresh`: none stays as it is.
    pub(super) fn replace_consumers(
        &self,
        running: &mut Running,
        config: &Config,
        consumers: Vec<Consumer>,
        fresh: bool,
    ) -> Vec<RunningConsumer> {
        let marks = Marks::of(config);
        let mut before = std::mem::take(&mut running.consumers);
        for consumer in consumers {
            let name = consumer.name.clone();
            let mark = marks.consumer(&name);
            let started = match before.remove(&name) {
                Some((was, kept)) if was == mark && !fresh => kept,
                Some((_, old)) => self.delivery.start(consumer, Some(old)),
                None => self.delivery.start(consumer, None),
            };
            running.consumers.insert(name, (mark, started));
        }
        let gone: Vec<RunningConsumer> = before.into_values().map(|(_, gone)| gone).collect();
        gone.iter().for_each(RunningConsumer::stop);
        gone
    }

    /// Stops sources that are gone or changed, and starts those that are new.
    async fn replace_sources(
        &self,
        running: &mut Running,
        config: &Config,
        fresh: bool,
        done: &mut Reloaded,
    ) {
        let marks = Marks::of(config);
        let mut before = std::mem::take(&mut running.sources);
        let mut to_start = Vec::new();
        for (name, what) in bringers(config) {
            let mark = marks.bringer(what);
            match before.remove(&name) {
                Some((was, kept)) if was == mark && !fresh => {
                    running.sources.insert(name, (mark, kept));
                }
                old => to_start.push((name, what, mark, old)),
            }
        }
        for (_, gone) in before.into_values() {
            gone.stop().await;
        }
        for (name, what, mark, old) in to_start {
            if let Some((_, old)) = old {
                old.stop().await;
            }
            match self.bring(&name, what).await {
                Ok(started) => drop(running.sources.insert(name, (mark, started))),
                Err(error) => {
                    tracing::error!(source = name, %error, "does not start");
                    done.failed
                        .push(format!("source `{name}` does not start: {error}"));
                }
            }
        }
        self.publish_sources(running);
    }

    /// Takes routes out of service, once nobody works on them any more.
    async fn retire(
        &self,
        gone: Vec<RouteInfo>,
        told: &Reload,
        stopped: Vec<RunningConsumer>,
        done: &mut Reloaded,
    ) {
        let patience = self.config().node.shutdown;
        let ended = async {
            for consumer in stopped {
                consumer.ended().await;
            }
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("handlers that are gone still work; what they have is handed out anew");
        }
        for route in gone {
            let backlog = match told.backlog.get(&route.name) {
                None => Backlog::Refuse,
                Some(BacklogTo::Drop) => Backlog::Purge {
                    why: "the rule was removed".to_owned(),
                },
                Some(BacklogTo::MoveTo(to)) => match self.bus.route_id(to) {
                    Some(to) => Backlog::MoveTo(to),
                    None => Backlog::Refuse,
                },
            };
            match self.bus.retire_route(&route.name, backlog).await {
                Ok(count) => drop(done.retired.insert(route.name, count)),
                Err(BusError::HasBacklog { name, pending }) => {
                    // It came in by the old rules while they were being replaced,
                    // or was without a rule before.
                    tracing::warn!(route = name, pending, "kept, though no rule has this route");
                }
                Err(error) => done.failed.push(format!("route `{}`: {error}", route.name)),
            }
        }
    }
}

/// The files, read and checked again.
async fn read(old: &Config) -> Result<(Config, Vec<Diagnostic>), ReloadError> {
    let root = old.root.clone();
    let loaded = tokio::task::spawn_blocking(move || super::load(&root)).await;
    let Loaded {
        config,
        diagnostics,
        sources,
        ..
    } = loaded.map_err(|e| ReloadError::BadBacklog(format!("the files cannot be read: {e}")))?;
    match config {
        Some(config) => Ok((config, diagnostics)),
        None => Err(ReloadError::Files {
            diagnostics,
            sources,
        }),
    }
}
