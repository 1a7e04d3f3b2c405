//! The past, given again: replays, and a new rule's share of what was before it.
//!
//! Both are jobs that read a range of the log and add deliveries to one route.
//! Where a job stands is kept in the side state; what it has given is kept in the
//! log itself, under the job's id. So a job that is interrupted anywhere goes on
//! after the next start, and gives each event once.

mod job;
mod late;

pub use late::LateRule;

use crate::bus::{Bus, BusError};
use crate::clock::SharedClock;
use crate::queues::LATE_RULE;
use crate::router::Router;
use crate::rules::Pattern;
use crate::state::{State, StateError};
use crate::tasks::Tasks;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Where jobs are kept in the side state.
const PREFIX: &str = "replay/";

/// Longest name of a replay, as EventBridge's.
const MAX_NAME: usize = 64;

/// A replay that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its name; `None`: one is made up.
    pub name: Option<String>,
    /// The route that gets the events.
    pub route: String,
    /// Only events accepted at or after this (Unix milliseconds).
    pub from_ms: i64,
    /// Only events accepted before this.
    pub to_ms: i64,
    /// Only events that this pattern matches, too.
    pub filter: Option<String>,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It reads, or goes on after the next start.
    Running,
    /// All is read; what it gave is delivered like everything else.
    Done,
    /// It was stopped, and what still waited was withdrawn.
    Cancelled,
    /// It cannot go on.
    Failed,
}

/// A job as it is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Replay {
    /// Its name; handlers see it as `replay-name`.
    pub name: String,
    /// The route that gets the events.
    pub route: String,
    /// Whether it is a new rule's share of the past (`start`), not a replay.
    pub late: bool,
    /// How far it has come.
    pub stage: Stage,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Events accepted since (Unix milliseconds).
    pub from_ms: i64,
    /// Events accepted before; `None`: until the rule was in force.
    pub to_ms: Option<i64>,
    /// The pattern that events must match besides the rule's.
    pub filter: Option<String>,
    /// First sequence number of the range.
    pub from_seq: u64,
    /// The sequence number after the range; `None`: not known yet.
    pub to_seq: Option<u64>,
    /// The sequence number that is read next.
    pub next_seq: u64,
    /// Events read.
    pub read: u64,
    /// Deliveries added. After a crash this may be too low by one step; the
    /// ledger's `replayed` is exact.
    pub given: u64,
    /// Events that match and were passed over, because they wait on the route, lie
    /// among its dead letters, or were given to it before.
    pub passed: u64,
    /// Deliveries withdrawn when it was cancelled.
    pub withdrawn: u64,
    /// When it was begun (Unix milliseconds).
    pub begun_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
}

/// Why a replay cannot be begun or found.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The name cannot be one.
    #[error("`{0}` cannot be the name of a replay: letters, digits, `-`, `_` and `.`, at most 64")]
    BadName(String),
    /// The name is in use.
    #[error("there is a replay named `{0}` already")]
    Taken(String),
    /// No rule in force has this route.
    #[error("no rule in force has the route `{0}`")]
    NoRoute(String),
    /// The filter is not a pattern.
    #[error("the filter is not a pattern: {0}")]
    BadFilter(String),
    /// The range holds no time.
    #[error("the range ends before it begins")]
    Empty,
    /// There is no such replay.
    #[error("no replay is named `{0}`")]
    Unknown(String),
    /// It has ended.
    #[error("the replay `{0}` has ended")]
    Ended(String),
    /// The log does not answer.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The side state does not answer.
    #[error(transparent)]
    State(#[from] StateError),
}

/// All jobs of a node; cheap to clone.
#[derive(Clone)]
pub struct Replays {
    shared: Arc<Shared>,
}

struct Shared {
    bus: Bus,
    router: Router,
    state: State,
    clock: SharedClock,
    tasks: Tasks,
    stop: CancellationToken,
    /// Those that run, by name.
    running: Mutex<HashMap<String, Job>>,
}

/// A job that runs.
#[derive(Clone)]
struct Job {
    stop: CancellationToken,
    tasks: Tasks,
}

impl Replays {
    /// Jobs that end with `stop` and are counted in `tasks`.
    #[must_use]
    pub fn new(
        bus: Bus,
        router: Router,
        state: State,
        clock: SharedClock,
        tasks: Tasks,
        stop: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                bus,
                router,
                state,
                clock,
                tasks,
                stop,
                running: Mutex::default(),
            }),
        }
    }

    /// Goes on with what was interrupted.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub async fn resume(&self) -> Result<(), StateError> {
        for replay in self.list().await? {
            if replay.stage == Stage::Running {
                tracing::info!(replay = replay.name, next = replay.next_seq, "goes on");
                self.spawn(replay, None);
            }
        }
        Ok(())
    }

    /// Begins a replay; durable when this returns.
    ///
    /// # Errors
    /// When what is wanted cannot be, or cannot be written down.
    pub async fn begin(&self, wanted: Wanted) -> Result<Replay, ReplayError> {
        let shared = &self.shared;
        let now = shared.clock.now_ms();
        let name = match wanted.name {
            Some(name) => name,
            None => made_up(now, shared.clock.random()),
        };
        let fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fit) {
            return Err(ReplayError::BadName(name));
        }
        if let Some(text) = &wanted.filter {
            Pattern::parse(text).map_err(|e| ReplayError::BadFilter(e.to_string()))?;
        }
        if shared.router.table().route(&wanted.route).is_none() {
            return Err(ReplayError::NoRoute(wanted.route));
        }
        if wanted.from_ms >= wanted.to_ms {
            return Err(ReplayError::Empty);
        }
        if shared.state.get(&key(&name)).await?.is_some() {
            return Err(ReplayError::Taken(name));
        }
        let bus = shared.bus.clone();
        let (from, to) = (wanted.from_ms, wanted.to_ms);
        let range = tokio::task::spawn_blocking(move || {
            Ok::<_, BusError>((bus.first_seq_at(from)?, bus.first_seq_at(to)?))
        });
        let (from_seq, to_seq) = range.await.map_err(|_| BusError::Closed)??;
        let replay = Replay {
            from_ms: wanted.from_ms,
            to_ms: Some(wanted.to_ms),
            filter: wanted.filter,
            to_seq: Some(to_seq),
            ..Replay::new(name, wanted.route, from_seq, now)
        };
        self.keep(&replay).await?;
        self.spawn(replay.clone(), None);
        Ok(replay)
    }

    /// All jobs, the newest first.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub async fn list(&self) -> Result<Vec<Replay>, StateError> {
        let kept = self.shared.state.list(PREFIX).await?;
        let mut replays: Vec<Replay> = kept.iter().filter_map(|(_, v)| read(v)).collect();
        replays.sort_by_key(|replay| std::cmp::Reverse(replay.begun_ms));
        Ok(replays)
    }

    /// One job.
    ///
    /// # Errors
    /// When there is none, or the side state cannot be read.
    pub async fn get(&self, name: &str) -> Result<Replay, ReplayError> {
        let kept = self.shared.state.get(&key(name)).await?;
        let replay = kept.as_deref().and_then(read);
        replay.ok_or_else(|| ReplayError::Unknown(name.to_owned()))
    }

    /// How many of a job's deliveries are not settled yet.
    #[must_use]
    pub fn waiting(&self, replay: &Replay) -> u64 {
        let bus = &self.shared.bus;
        let route = bus.route_id(&replay.route);
        route.map_or(0, |route| bus.replay_pending(route, &replay.name))
    }

    /// Stops a job and withdraws what it gave and nobody has received yet. What is
    /// in somebody's hands is finished.
    ///
    /// # Errors
    /// When there is no such job or nothing of it is left to stop.
    pub async fn cancel(&self, name: &str) -> Result<Replay, ReplayError> {
        self.halt(name).await;
        let mut replay = self.get(name).await?;
        if replay.stage != Stage::Running && self.waiting(&replay) == 0 {
            return Err(ReplayError::Ended(name.to_owned()));
        }
        let bus = &self.shared.bus;
        if let Some(route) = bus.route_id(&replay.route) {
            let why = format!("the replay `{name}` was cancelled");
            replay.withdrawn += bus.withdraw_replay(route, name, &why).await?;
        }
        replay.stage = Stage::Cancelled;
        replay.ended_ms = Some(self.shared.clock.now_ms());
        self.keep(&replay).await?;
        Ok(replay)
    }

    /// Stops a job that runs, and waits until it has.
    async fn halt(&self, name: &str) {
        let job = self.running().get(name).cloned();
        if let Some(job) = job {
            job.stop.cancel();
            job.tasks.wait().await;
        }
    }

    async fn keep(&self, replay: &Replay) -> Result<(), StateError> {
        // Plain data serialises; a number that is none would be null, and read as nothing.
        let text = serde_json::to_vec(replay).unwrap_or_default();
        self.shared.state.put(&key(&replay.name), &text).await
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Job>> {
        let running = &self.shared.running;
        running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replay {
    fn new(name: String, route: String, from_seq: u64, now_ms: i64) -> Self {
        Self {
            late: name.starts_with(LATE_RULE),
            name,
            route,
            stage: Stage::Running,
            reason: None,
            from_ms: i64::MIN,
            to_ms: None,
            filter: None,
            from_seq,
            to_seq: None,
            next_seq: from_seq,
            read: 0,
            given: 0,
            passed: 0,
            withdrawn: 0,
            begun_ms: now_ms,
            ended_ms: None,
        }
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn read(kept: &[u8]) -> Option<Replay> {
    serde_json::from_slice(kept).ok()
}

/// A name that says when, and differs from others of that second.
fn made_up(now_ms: i64, random: u64) -> String {
    let time: String = crate::event::rfc3339(now_ms)
        .chars()
        .take(19)
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    format!("replay-{time}-{:04x}", random & 0xffff)
}
