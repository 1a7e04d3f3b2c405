//! What all handles and all threads share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use tokio::sync::{broadcast, oneshot};

use super::batch::Prepared;
use super::cache::Cache;
use super::damage::Damage;
use super::dedupe::Dedupe;
use super::error::BusError;
use super::item::Item;
use super::log::Appender;
use super::options::BusOptions;
use super::route::Now;
use super::state::State;
use super::table::Table;
use super::types::{Accepted, Backlog, RouteId, RouteInfo, RouteOptions, StoredEvent};
use super::writer::Writer;
use crate::clock::SharedClock;
use crate::storage::FileSystem;

/// Takes a lock. A thread that panicked while holding it did so in a test or by a
/// defect; what it guards is changed in steps that each leave it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Decides, with the state as it is, which items to commit. Runs on a writer thread.
pub(crate) type Plan = Box<dyn FnOnce(&State) -> Result<Vec<Item>, BusError> + Send>;

/// Deliveries that somebody had and that end, or go back.
#[derive(Default)]
pub(crate) struct Ended {
    /// Those that were delivered, nearly all: most routes have one or two of them.
    pub delivered: Vec<(RouteId, u64)>,
    pub items: Vec<Item>,
}

impl Ended {
    pub(crate) fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.items.is_empty()
    }

    fn len(&self) -> usize {
        let many = |item: &Item| match item {
            Item::Released { seqs, .. } | Item::Expired { seqs, .. } => seqs.len(),
            _ => 1,
        };
        self.delivered.len() + self.items.iter().map(many).sum::<usize>()
    }
}

/// What the writer is asked to commit.
pub(crate) enum Work {
    /// Settlements (already validated) and new events.
    Commit { ended: Ended, events: Prepared },
    /// A commit of its own.
    Plan(Plan),
}

/// The writer's answer: one entry per new event.
pub(crate) type Reply = oneshot::Sender<Result<Vec<Accepted>, BusError>>;

/// A piece of work on its way to the writer.
pub(crate) struct Request {
    pub work: Work,
    /// Payload bytes, for the caps.
    pub bytes: usize,
    /// Nobody waits for it: it may ride with what comes later.
    pub relaxed: bool,
    pub reply: Option<Reply>,
}

/// What waits for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    pub requests: VecDeque<Request>,
    pub bytes: usize,
    /// Settlements that nobody waits for.
    pub relaxed: usize,
    /// Requests that somebody waits for.
    pub urgent: usize,
    pub closing: bool,
}

/// The wall clock without its jumps, for ages: what is to be forgotten or dropped must
/// not go because somebody set the clock wrong for a moment.
#[derive(Debug)]
pub(crate) struct Steady {
    /// Wall clock minus monotonic clock, in milliseconds.
    offset: i64,
    /// When a jump forward was first seen (monotonic), while it is not believed yet.
    doubted: Option<u64>,
}

/// A jump forward is believed when it has stood for this long, in milliseconds: by then
/// a suspended machine is told from a clock that somebody will set right.
const BELIEVED_AFTER: u64 = 3_600_000;
/// Clocks drift and are slewed by this much between two looks, in milliseconds.
const SLEW: i64 = 2_000;

impl Steady {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            offset: now.wall.saturating_sub(now.mono as i64),
            doubted: None,
        }
    }

    /// The time to measure ages by; never later than the wall clock by more than drift.
    pub(crate) fn look(&mut self, now: Now) -> i64 {
        let seen = now.wall.saturating_sub(now.mono as i64);
        let forward = seen.saturating_sub(self.offset) > SLEW;
        let since = *self.doubted.get_or_insert(now.mono);
        if !forward || now.mono.saturating_sub(since) >= BELIEVED_AFTER {
            // Backward is believed at once: it only makes things younger.
            self.offset = seen;
            self.doubted = None;
        }
        self.offset.saturating_add(now.mono as i64)
    }
}

/// How the bus ended, if it did.
#[derive(Debug, Clone, Default)]
pub(crate) enum Life {
    #[default]
    Open,
    Poisoned(String),
    Closed,
}

/// The shared part of all handles.
pub(crate) struct Core {
    pub options: BusOptions,
    pub fs: Arc<dyn FileSystem>,
    pub clock: SharedClock,
    /// The turns of the threads that write.
    pub writing: Mutex<Writer>,
    pub syncing: Mutex<()>,
    pub applying: Mutex<()>,
    // Locks are taken in this order: the three above, queue, state, appender, then any of
    // the others.
    pub queue: Mutex<Queue>,
    pub queue_signal: Condvar,
    pub state: Mutex<State>,
    pub appender: Mutex<Appender>,
    pub dedupe: Mutex<Dedupe>,
    pub table: Table,
    pub cache: Mutex<Cache>,
    /// Memory of written batches, for those to come.
    pub buffers: Mutex<Vec<Vec<u8>>>,
    pub tail: broadcast::Sender<Arc<StoredEvent>>,
    pub life: Mutex<Life>,
    pub damage: Mutex<Vec<Damage>>,
    /// Free bytes on the disk at the last look.
    pub free: AtomicU64,
    /// About how much memory the queues took at the last look.
    pub queued: AtomicUsize,
    /// Whether ids are forgotten before their time, for want of memory.
    pub ids_cut: AtomicBool,
    /// How pressed the log was at the last look.
    pub pressed: AtomicU8,
    /// Size of all segments, kept up by the writer.
    pub log_bytes: AtomicU64,
    pub steady: Mutex<Steady>,
    pub maintenance: Mutex<()>,
    pub maintenance_signal: Condvar,
    /// Held by one round of maintenance at a time.
    pub maintaining: Mutex<()>,
}

impl Core {
    pub(crate) fn now(&self) -> Now {
        let mono = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        // What a sealed event has room for; no clock that is right is beyond it.
        const FAR: i64 = 1 << 47;
        Now {
            wall: self.clock.now_ms().clamp(-FAR, FAR),
            mono,
        }
    }

    /// The wall clock to measure ages by.
    pub(crate) fn steady_ms(&self) -> i64 {
        let now = self.now();
        lock(&self.steady).look(now)
    }

    /// Fails when the bus takes no more work.
    pub(crate) fn check_open(&self) -> Result<(), BusError> {
        match &*lock(&self.life) {
            Life::Open => Ok(()),
            Life::Poisoned(why) => Err(BusError::Poisoned { why: why.clone() }),
            Life::Closed => Err(BusError::Closed),
        }
    }

    pub(crate) fn poisoned(&self) -> Option<String> {
        match &*lock(&self.life) {
            Life::Poisoned(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Stops intake for good: what is on disk is no longer known.
    pub(crate) fn poison(&self, error: &BusError) {
        let why = error.to_string();
        tracing::error!(error = %why, "the log has stopped; nothing more is accepted until it is reopened");
        {
            let mut life = lock(&self.life);
            if matches!(*life, Life::Open) {
                *life = Life::Poisoned(why);
            }
        }
        lock(&self.state).wake_all();
        self.queue_signal.notify_all();
    }

    pub(crate) fn damage(&self) -> Vec<Damage> {
        lock(&self.damage).clone()
    }

    pub(crate) fn note_damage(&self, damage: Damage) {
        let mut known = lock(&self.damage);
        if !known.contains(&damage) && known.len() < 10_000 {
            tracing::error!(%damage, "damage in the log");
            known.push(damage);
        }
    }

    /// Hands work to the writer.
    pub(crate) fn submit(&self, request: Request) -> Result<(), BusError> {
        self.check_open()?;
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Err(BusError::Closed);
        }
        queue.bytes += request.bytes;
        if request.relaxed {
            queue.relaxed += relaxed_weight(&request);
        } else {
            queue.urgent += 1;
        }
        let wake = !request.relaxed
            || queue.relaxed >= self.options.relaxed_count
            || queue.requests.is_empty();
        queue.requests.push_back(request);
        drop(queue);
        if wake {
            self.queue_signal.notify_one();
        }
        Ok(())
    }

    /// Memory to prepare a batch in; warm, when there was one before.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    /// Keeps the memory of a written batch, up to 16 MiB in all.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = lock(&self.buffers);
        if kept.len() < 8 && buffer.capacity() <= 2 << 20 {
            kept.push(buffer);
        }
    }

    /// Hands work to the writer and waits until it is durable.
    pub(crate) async fn commit(&self, work: Work, bytes: usize) -> Result<Vec<Accepted>, BusError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Request {
            work,
            bytes,
            relaxed: false,
            reply: Some(reply),
        })?;
        let answer = answer.await;
        // The writer has more to do than any one sender, so senders let go of what fell
        // out of the window over the newest events.
        let old = lock(&self.cache).trim(0);
        drop(old);
        match answer {
            Ok(result) => result,
            Err(_) => Err(self.check_open().err().unwrap_or(BusError::Closed)),
        }
    }

    /// Commits what `plan` decides and returns what it says besides.
    pub(crate) async fn plan<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&State) -> Result<(Vec<Item>, T), BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        let (said, hear) = oneshot::channel();
        let plan: Plan = Box::new(move |state| {
            let (items, answer) = plan(state)?;
            // The caller may have gone away; the work is done all the same.
            let _ = said.send(answer);
            Ok(items)
        });
        self.commit(Work::Plan(plan), 0).await?;
        hear.await.map_err(|_| BusError::Closed)
    }

    // ---- routes ----

    /// The numbers of routes, in one commit for all that are new or differ.
    pub(crate) async fn routes_of(
        &self,
        wanted: Vec<(String, RouteOptions)>,
    ) -> Result<Vec<RouteId>, BusError> {
        for (name, _) in &wanted {
            if name.is_empty() || name.len() > 1024 {
                return Err(BusError::BadEvent(format!(
                    "a route's name has 1 to 1024 bytes, not {}",
                    name.len()
                )));
            }
        }
        let there: Option<Vec<RouteId>> = {
            let state = lock(&self.state);
            let ids = wanted
                .iter()
                .map(|(name, options)| as_wanted(&state, name, options));
            ids.collect()
        };
        if let Some(ids) = there {
            self.check_open()?;
            return Ok(ids);
        }
        self.plan(move |state| {
            let mut next = state.routes.len() as u32;
            let mut made: HashMap<String, RouteId> = HashMap::new();
            let (mut items, mut ids) = (Vec::new(), Vec::with_capacity(wanted.len()));
            for (name, options) in wanted {
                let known = as_wanted(state, &name, &options);
                if let Some(id) = known.or_else(|| made.get(&name).copied()) {
                    ids.push(id);
                    continue;
                }
                let id = state.names.get(&name).copied().unwrap_or_else(|| {
                    next += 1;
                    RouteId(next - 1)
                });
                made.insert(name.clone(), id);
                ids.push(id);
                items.push(Item::Route {
                    id,
                    name,
                    ordered: options.ordered,
                });
            }
            Ok((items, ids))
        })
        .await
    }

    pub(crate) fn route_id(&self, name: &str) -> Option<RouteId> {
        lock(&self.state).names.get(name).copied()
    }

    pub(crate) fn routes(&self) -> Vec<RouteInfo> {
        let state = lock(&self.state);
        let info = |r: &super::route::Route| RouteInfo {
            id: r.id,
            name: r.name.clone(),
            ordered: r.ordered,
            paused: r.paused,
            retired: r.retired,
            pending: r.pending,
            dead: r.dead.len() as u64,
        };
        state.routes.iter().map(info).collect()
    }

    pub(crate) async fn set_paused(&self, route: RouteId, paused: bool) -> Result<(), BusError> {
        self.plan(move |state| {
            state.route(route).ok_or(BusError::UnknownRoute(route))?;
            Ok((vec![Item::Paused { route, paused }], ()))
        })
        .await
    }

    pub(crate) async fn retire_route(&self, name: &str, backlog: Backlog) -> Result<u64, BusError> {
        let name = name.to_owned();
        self.plan(move |state| {
            let id = state.names.get(&name).copied();
            let found = id.and_then(|id| state.route(id));
            let route = found.ok_or_else(|| BusError::UnknownRouteName(name.clone()))?;
            let (id, pending) = (route.id, route.pending);
            let fate = match backlog {
                Backlog::Refuse if pending > 0 => {
                    return Err(BusError::HasBacklog { name, pending });
                }
                Backlog::Refuse => super::item::Fate::Empty,
                Backlog::Purge { why } => super::item::Fate::Purged(why),
                Backlog::MoveTo(to) => {
                    let target = state.route(to).ok_or(BusError::UnknownRoute(to))?;
                    if target.retired || to == id {
                        return Err(BusError::RetiredRoute(target.name.clone()));
                    }
                    super::item::Fate::MovedTo(to)
                }
            };
            Ok((vec![Item::Retired { route: id, fate }], pending))
        })
        .await
    }
}

/// How many settlements a relaxed request stands for.
pub(crate) fn relaxed_weight(request: &Request) -> usize {
    match &request.work {
        Work::Commit { ended, .. } => ended.len(),
        Work::Plan(_) => 1,
    }
}

/// The number of a route that is there as it should be.
fn as_wanted(state: &State, name: &str, options: &RouteOptions) -> Option<RouteId> {
    let route = state.names.get(name).and_then(|&id| state.route(id))?;
    (!route.retired && route.ordered == options.ordered).then_some(route.id)
}
