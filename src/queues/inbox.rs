//! What came from a broker and is not settled: messages that wait for a handler,
//! and those that one has.
//!
//! A broker hands a message out again when a connection breaks or an
//! acknowledgement is lost. The inbox knows which deliveries it has had, so that a
//! second copy does no work twice in the life of this process: one that is being
//! handled gets the new loan, one that is done is acknowledged at once.

use super::broker::{Broker, BrokerError, Handle, Inbound, Pull};
use super::claims::Claim;
use super::waiting::{AsItIs, Mark, Marks, Recent, Waiting, identity};
use super::wire::Meta;
use crate::bus::RouteId;
use crate::event::{Defaults, Event};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many messages that went away unhandled are remembered.
const REMEMBERED: usize = 100_000;

/// How long a call for messages waits for the first.
const LONG_POLL: Duration = Duration::from_secs(20);

/// Bounds of the wait for a broker that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What is known of a queue on a broker.
pub struct InboxOptions {
    /// The queue's declared name.
    pub queue: String,
    /// The route in the log that failures come home to.
    pub home: RouteId,
    /// Dotted path of the ordering key; `None`: the queue keeps no order.
    pub order_by: Option<String>,
    /// How long received messages are hidden from others.
    pub visibility: Duration,
    /// What events get that leave it out.
    pub defaults: Defaults,
}

/// Messages of one queue on a broker.
pub struct Inbox {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) options: InboxOptions,
    state: Mutex<State>,
    marks: Marks,
    /// Something may be handed out.
    arrived: Notify,
    /// There is room for more.
    room: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Waiting>>,
    out: HashMap<u64, Out>,
    /// Who is handled now, by what a redelivery is told by.
    tokens: HashMap<Mark, u64, AsItIs>,
    done: Recent,
    /// Ordering keys of which a message is handled now.
    busy: HashSet<String>,
    /// How often messages came and went without being handed to anybody.
    untouched: HashMap<Mark, u32>,
    last_token: u64,
}

/// A message that a handler has.
pub(super) struct Out {
    pub waiting: Arc<Waiting>,
    /// Its loans beside the first, when it came again meanwhile.
    more: Vec<Handle>,
    /// The event, once it was read.
    pub event: Option<Arc<Event>>,
}

/// What may be handed out now.
#[derive(Default)]
pub(super) struct Taken {
    /// To be handled, under these tokens; how often each was tried before.
    pub messages: Vec<(u64, Arc<Waiting>, u32)>,
    /// Done already: to be acknowledged.
    pub copies: Vec<Handle>,
}

impl Out {
    /// All its loans.
    fn handles(&self) -> impl Iterator<Item = Handle> {
        std::iter::once(self.waiting.inbound.handle).chain(self.more.iter().copied())
    }
}

impl Inbox {
    /// The inbox of a queue; it gets messages once somebody asks for some.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, options: InboxOptions) -> Self {
        Self {
            broker,
            options,
            state: Mutex::default(),
            marks: Marks::default(),
            arrived: Notify::new(),
            room: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches messages until `stop`, and closes the connection when the last one is
    /// settled.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        Arc::clone(&self).pump(stop).await;
        self.settled().await;
        self.broker.close().await;
    }

    /// Fetches messages until `stop`, waiting out a broker that is away; then those
    /// that nobody has are handed back.
    async fn pump(self: Arc<Self>, stop: CancellationToken) {
        let mut wait = BACKOFF.0;
        let mut away = false;
        loop {
            let room = self.free();
            if room == 0 {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.room.notified() => {}
                }
                continue;
            }
            let pull = Pull {
                max: room,
                wait: LONG_POLL,
                visibility: self.options.visibility,
            };
            let received = tokio::select! {
                () = stop.cancelled() => break,
                received = self.broker.receive(pull) => received,
            };
            let queue = self.broker.label();
            match received {
                Ok(messages) => {
                    if std::mem::take(&mut away) {
                        tracing::info!(queue, "the broker is there again");
                    }
                    wait = BACKOFF.0;
                    self.put(messages);
                    continue;
                }
                Err(error) => {
                    if matches!(error, BrokerError::Lost(_)) {
                        self.lose();
                    }
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(queue, %error, "nothing can be received; trying again");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
        let waiting = std::mem::take(&mut self.state().waiting);
        let handles = waiting.iter().map(|w| w.inbound.handle).collect();
        // Whoever is not handed back now comes back when the connection closes or
        // the visibility runs out.
        if let Err(error) = self.broker.give_back(handles).await {
            tracing::debug!(queue = self.broker.label(), %error, "not handed back");
        }
    }

    /// Resolves when no handler has a message any more.
    pub(super) async fn settled(&self) {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if self.state().out.is_empty() {
                return;
            }
            arrived.await;
        }
    }

    fn free(&self) -> usize {
        let limit = self.broker.prefetch().max(1);
        limit.saturating_sub(self.state().waiting.len())
    }

    fn put(&self, messages: Vec<Inbound>) {
        if messages.is_empty() {
            return;
        }
        let since = Instant::now();
        let arrived = messages.into_iter().map(|inbound| {
            let mut meta = Meta::of(&inbound);
            meta.key = self.key(&inbound, meta.key.take());
            let mark = identity(&inbound).map(|identity| self.marks.of(identity));
            Arc::new(Waiting {
                inbound,
                meta,
                since,
                mark,
            })
        });
        let arrived: Vec<Arc<Waiting>> = arrived.collect();
        self.state().waiting.extend(arrived);
        self.arrived.notify_waiters();
    }

    /// The ordering key of a message on an ordered queue.
    fn key(&self, inbound: &Inbound, carried: Option<String>) -> Option<String> {
        let path = self.options.order_by.as_ref()?;
        carried.or_else(|| {
            let event = Event::share(&inbound.body, &self.options.defaults, 0).ok()?;
            event.text_at(path)
        })
    }

    /// The connection is lost: what waits will come again.
    fn lose(&self) {
        let mut state = self.state();
        for waiting in std::mem::take(&mut state.waiting) {
            if state.untouched.len() > REMEMBERED {
                state.untouched.clear();
            }
            if let Some(mark) = waiting.mark {
                *state.untouched.entry(mark).or_default() += 1;
            }
        }
    }

    /// Resolves when something may be handed out.
    pub(super) async fn ready(&self) {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            {
                let state = self.state();
                let may_go =
                    |w: &Arc<Waiting>| w.meta.key.as_ref().is_none_or(|k| !state.busy.contains(k));
                if state.waiting.iter().any(may_go) {
                    return;
                }
            }
            arrived.await;
        }
    }

    /// Takes out up to `max` messages of up to `bytes` bytes, one per ordering key.
    pub(super) fn take(&self, max: usize, bytes: usize) -> Taken {
        let mut state = self.state();
        let mut taken = Taken::default();
        let mut kept = Vec::new();
        // Keys of messages that are left behind: none of theirs may overtake them.
        let mut left: HashSet<String> = HashSet::new();
        let mut room = bytes;
        while taken.messages.len() < max
            && let Some(one) = state.waiting.pop_front()
        {
            if let Some(handle) = state.copy(&one) {
                taken.copies.extend(handle);
                continue;
            }
            let blocked = one
                .meta
                .key
                .as_ref()
                .is_some_and(|key| state.busy.contains(key) || left.contains(key));
            let size = one.inbound.body.len();
            if blocked || (size > room && !taken.messages.is_empty()) {
                left.extend(one.meta.key.clone());
                kept.push(one);
                continue;
            }
            room = room.saturating_sub(size);
            taken.messages.push(state.hand_out(one));
        }
        for one in kept.into_iter().rev() {
            state.waiting.push_front(one);
        }
        drop(state);
        self.room.notify_one();
        taken
    }

    /// Keeps the event of a message that is handled.
    pub(super) fn read(&self, token: u64, event: &Arc<Event>) {
        if let Some(out) = self.state().out.get_mut(&token) {
            out.event = Some(Arc::clone(event));
        }
    }

    /// A look at a message that a handler has.
    pub(super) fn look<T>(&self, token: u64, look: impl FnOnce(&Out) -> T) -> Option<T> {
        self.state().out.get(&token).map(look)
    }

    /// The loans of messages that handlers have.
    pub(super) fn handles(&self, tokens: &[u64]) -> Vec<Handle> {
        let state = self.state();
        let out = tokens.iter().filter_map(|token| state.out.get(token));
        out.flat_map(Out::handles).collect()
    }

    /// What messages that handlers have refer to.
    pub(super) fn claims(&self, tokens: &[u64]) -> Vec<Claim> {
        let state = self.state();
        let out = tokens.iter().filter_map(|token| state.out.get(token));
        out.filter_map(|out| out.waiting.meta.claim.clone())
            .collect()
    }

    /// A handler is done with these; the loans that are to be settled. Copies that
    /// come later are known when `done`.
    pub(super) fn finish(&self, tokens: &[u64], done: bool) -> Vec<Handle> {
        let mut handles = Vec::with_capacity(tokens.len());
        // Their memory is given back when others may go on.
        let mut gone = Vec::with_capacity(tokens.len());
        let mut state = self.state();
        for token in tokens {
            let Some(out) = state.out.remove(token) else {
                continue;
            };
            handles.extend(out.handles());
            if let Some(key) = &out.waiting.meta.key {
                state.busy.remove(key);
            }
            if let Some(mark) = out.waiting.mark {
                if state.tokens.get(&mark) == Some(token) {
                    state.tokens.remove(&mark);
                }
                if done {
                    state.done.insert(mark);
                }
            }
            gone.push(out);
        }
        drop(state);
        drop(gone);
        self.arrived.notify_waiters();
        handles
    }

    /// How many messages wait here, and how many handlers have.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let state = self.state();
        (state.waiting.len(), state.out.len())
    }

    /// Whether a message has waited so long that its loan should be prolonged
    /// before it is handed out.
    pub(super) fn is_stale(&self, waiting: &Waiting) -> bool {
        waiting.since.elapsed() > self.options.visibility / 2
    }
}

impl State {
    /// What to do with a second copy: acknowledge it, or keep its loan for the one
    /// that is handled now.
    fn copy(&mut self, waiting: &Waiting) -> Option<Option<Handle>> {
        let mark = waiting.mark.filter(|_| waiting.is_copy())?;
        if self.done.contains(&mark) {
            return Some(Some(waiting.inbound.handle));
        }
        let token = self.tokens.get(&mark)?;
        let out = self.out.get_mut(token)?;
        out.more.push(waiting.inbound.handle);
        Some(None)
    }

    fn hand_out(&mut self, one: Arc<Waiting>) -> (u64, Arc<Waiting>, u32) {
        self.last_token += 1;
        let token = self.last_token;
        if let Some(mark) = one.mark {
            self.tokens.entry(mark).or_insert(token);
        }
        self.busy.extend(one.meta.key.clone());
        let untouched = one.mark.and_then(|mark| self.untouched.remove(&mark));
        let before = one.inbound.receive_count.saturating_sub(1);
        let out = Out {
            waiting: Arc::clone(&one),
            more: Vec::new(),
            event: None,
        };
        self.out.insert(token, out);
        (token, one, before.saturating_sub(untouched.unwrap_or(0)))
    }
}
