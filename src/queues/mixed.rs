//! A handler's queue where at least one of its queues is on a broker: messages
//! come from brokers and from the log, and each is settled where it belongs.
//!
//! What is on a broker stays there, unacknowledged, while it is handled; then the
//! outcome is committed to the log (what the handler emitted), and then the
//! message is acknowledged. A crash in between means one more delivery.
//!
//! Failures come home: a message that is to be tried again or is given up is
//! written to the log, on the route `queue/NAME`, with its attempt, and then
//! acknowledged at the broker. From there on it is a message like any other of
//! the log: retried with backoff, counted, dead-lettered with all its errors,
//! redriven. On an ordered queue the later messages of its key come home, too, and
//! wait behind it, so that none overtakes it and other keys go on. So does a message
//! that comes back and back without an answer: it may be what kills the process.

use super::broker::Handle;
use super::claims::Claims;
use super::inbox::Inbox;
use super::log::LogQueue;
use super::waiting::Waiting;
use super::{Fate, MakeInput, Outgoing, Queue, QueueError, Receipt, Received, Want, wire};
use crate::bus::{Bus, NewDelivery, NewEvent, Reading};
use crate::clock::SharedClock;
use crate::event::{Event, EventBuilder, random_id};
use crate::handlers::Failure;
use crate::tasks::Tasks;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Marks a receipt whose message is on a broker.
const ON_BROKER: u64 = 1 << 63;

/// Bits of the inbox's token in such a receipt; which inbox stands above them.
const TOKEN_BITS: u32 = 48;

/// How long a message that comes home waits for its outcome to be written.
const SETTLING: Duration = Duration::from_secs(30);

/// A broker counts what was on its way to a handler together with what killed one, so
/// a message that it has handed out so often without an answer comes home, where its
/// attempts are counted before a handler sees it.
const SUSPECT: u32 = 2;

/// Largest id that the log takes, in bytes.
const MAX_ID: usize = 1024;

/// Queues on brokers, and routes of the log, for one handler.
pub struct MixedQueue {
    log: LogQueue,
    bus: Bus,
    inboxes: Vec<Arc<Inbox>>,
    /// What targets get instead of the event, by the name of the route.
    inputs: HashMap<String, MakeInput>,
    claims: Claims,
    clock: SharedClock,
    /// Whose turn it is to be asked first.
    turn: AtomicUsize,
    /// Where the inboxes' loops run.
    tasks: Tasks,
    /// Runs while somebody asks for messages: a queue that is built and never used
    /// takes nothing from anybody.
    fetching: OnceLock<()>,
    /// Cancelled: no more is fetched.
    stop: CancellationToken,
}

impl Drop for MixedQueue {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl MixedQueue {
    /// Joins `inboxes` with the routes of `log`, among them the home of each inbox.
    /// Their connections are closed by tasks among `tasks`, some time after `stop`.
    #[must_use]
    #[allow(clippy::too_many_arguments)] // Each is a part that it is made of.
    pub fn new(
        log: LogQueue,
        bus: Bus,
        inboxes: Vec<Arc<Inbox>>,
        inputs: HashMap<String, MakeInput>,
        claims: Claims,
        clock: SharedClock,
        tasks: Tasks,
        stop: CancellationToken,
    ) -> Self {
        Self {
            log,
            bus,
            inboxes,
            inputs,
            claims,
            clock,
            turn: AtomicUsize::new(0),
            tasks,
            fetching: OnceLock::new(),
            stop,
        }
    }

    fn fetch(&self) {
        self.fetching.get_or_init(|| {
            for inbox in &self.inboxes {
                let stop = self.stop.clone();
                self.tasks.spawn(Arc::clone(inbox).run(stop));
            }
        });
    }

    async fn next(&self, want: Want) -> Result<Vec<Received>, QueueError> {
        self.fetch();
        let sides = self.inboxes.len() + 1;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for side in (0..sides).map(|i| (first + i) % sides) {
            let received = match self.inboxes.get(side) {
                Some(inbox) => self.take_from_broker(side, inbox, want).await?,
                None => self.log.receive(want).await?,
            };
            if !received.is_empty() {
                return Ok(received);
            }
        }
        Ok(Vec::new())
    }

    async fn take_from_broker(
        &self,
        side: usize,
        inbox: &Inbox,
        want: Want,
    ) -> Result<Vec<Received>, QueueError> {
        let taken = inbox.take(want.messages, want.bytes);
        let copies = taken.copies;
        let mut received = Vec::with_capacity(taken.messages.len());
        let mut stuck = None;
        for (token, waiting, before) in taken.messages {
            if stuck.is_none() {
                let receipt = receipt(side, inbox, token);
                match self.sort(inbox, receipt, &waiting, before).await {
                    Ok(message) => {
                        received.extend(message);
                        continue;
                    }
                    Err(error) => stuck = Some(error),
                }
            }
            // The log takes nothing now; whoever needs it must come again.
            self.hand_back(inbox, &[token]).await;
        }
        acknowledge(inbox, copies).await;
        match stuck {
            Some(error) if received.is_empty() => Err(error),
            _ => Ok(received),
        }
    }

    /// What is to be done with a message: it is handled now, or it is at home
    /// already, or goes there.
    async fn sort(
        &self,
        inbox: &Inbox,
        receipt: Receipt,
        waiting: &Waiting,
        before: u32,
    ) -> Result<Option<Received>, QueueError> {
        let token = token_of(&receipt);
        if inbox.is_stale(waiting) {
            let handles = vec![waiting.inbound.handle];
            let visibility = inbox.options.visibility;
            if let Err(error) = inbox.broker.extend(handles, visibility).await {
                tracing::debug!(%error, "its loan may be over");
            }
        }
        if self.is_home(inbox, waiting) {
            acknowledge(inbox, inbox.finish(&[token], true)).await;
            return Ok(None);
        }
        match self.open(inbox, receipt, waiting, before).await {
            Ok(message) if before >= SUSPECT || self.waits_at_home(inbox, waiting) => {
                self.follow_home(inbox, token, &message).await?;
                Ok(None)
            }
            Ok(message) => Ok(Some(message)),
            Err((message, failure)) => {
                let context = serde_json::json!({ "queue": inbox.broker.label() });
                let fate = Fate::Dead { failure, context };
                let fates = vec![(message.receipt, fate)];
                self.settle_all(fates, Vec::new()).await?;
                Ok(None)
            }
        }
    }

    async fn hand_back(&self, inbox: &Inbox, tokens: &[u64]) {
        let handles = inbox.finish(tokens, false);
        if !handles.is_empty()
            && let Err(error) = inbox.broker.give_back(handles).await
        {
            tracing::debug!(queue = inbox.broker.label(), %error, "not handed back");
        }
    }

    /// Whether a redelivered message came home before its acknowledgement was lost.
    fn is_home(&self, inbox: &Inbox, waiting: &Waiting) -> bool {
        if waiting.inbound.receive_count < 2 {
            return false;
        }
        let identity = inbox_id(waiting.identity());
        let found = identity.and_then(|id| self.bus.find(&bus_of(inbox), &id).ok().flatten());
        found.is_some_and(|event| self.is_held(inbox, event.seq))
    }

    /// Whether the log still has this on the queue's own route.
    fn is_held(&self, inbox: &Inbox, seq: u64) -> bool {
        let history = self.bus.history(seq);
        history.is_ok_and(|h| h.now.iter().any(|(route, ..)| *route == inbox.options.home))
    }

    /// Whether an earlier message of its key came home and is still there.
    fn waits_at_home(&self, inbox: &Inbox, waiting: &Waiting) -> bool {
        let key = waiting.meta.key.as_ref();
        key.is_some_and(|key| self.bus.holds(inbox.options.home, key))
    }

    /// Reads the event of a message; a message that cannot be read comes with an
    /// event that says so.
    async fn open(
        &self,
        inbox: &Inbox,
        receipt: Receipt,
        waiting: &Waiting,
        before: u32,
    ) -> Result<Received, (Received, Failure)> {
        let now_ms = self.clock.now_ms();
        let (event, failure) = match self.event(inbox, waiting).await {
            Ok(event) => (event, None),
            Err(failure) => (unreadable(inbox, waiting, &failure, now_ms), Some(failure)),
        };
        let event = Arc::new(event);
        inbox.read(token_of(&receipt), &event);
        let (meta, inbound) = (&waiting.meta, &waiting.inbound);
        let route = inbound.route().map(str::to_owned);
        let route = route.unwrap_or_else(|| home_of(inbox));
        let accepted_ms = meta
            .accepted_ms
            .or(waiting.inbound.sent_ms)
            .unwrap_or(now_ms);
        let input = match (&failure, self.inputs.get(&route)) {
            (None, Some(make)) => make(&event, accepted_ms).map(Some),
            _ => Ok(None),
        };
        let (input, bad_input) = match input {
            Ok(input) => (input, None),
            Err(failure) => (None, Some(failure)),
        };
        let message = Received {
            receipt,
            input,
            route: route.into(),
            bus: inbound.bus().unwrap_or("default").into(),
            attempt: before.saturating_add(1),
            accepted_ms,
            root: inbound.root().map(str::to_owned),
            hops: meta.hops,
            event,
        };
        match failure.or(bad_input) {
            None => Ok(message),
            Some(failure) => Err((message, failure)),
        }
    }

    async fn event(&self, inbox: &Inbox, waiting: &Waiting) -> Result<Event, Failure> {
        let claimed = match &waiting.meta.claim {
            None => None,
            Some(claim) => Some(self.claims.read(claim).await.map_err(|e| {
                let said = "the message refers to a body in `data/claims` that cannot be read";
                Failure::permanent("ClaimMissing", said).caused_by(&e)
            })?),
        };
        let body = claimed.as_ref().unwrap_or(&waiting.inbound.body);
        let defaults = &inbox.options.defaults;
        let from = inbox.broker.label();
        wire::event_of(&waiting.inbound, body, from, defaults, self.clock.now_ms())
            .map_err(|e| Failure::permanent("BadEvent", e.to_string()))
    }

    /// A message whose key is busy at home goes to the end of that line, and one that
    /// came back again and again is counted there from now on.
    async fn follow_home(
        &self,
        inbox: &Inbox,
        token: u64,
        message: &Received,
    ) -> Result<(), QueueError> {
        let event = inbox.look(token, |out| {
            let foreign = out.waiting.inbound.delivery().is_none();
            home_event(inbox, out, message.event.id(), None).map(|event| (event, foreign))
        });
        if let Some(Some((event, foreign))) = event {
            let settled = self.log.commit(Vec::new(), vec![event.clone()]).await?;
            let known = settled
                .emitted
                .first()
                .filter(|accepted| accepted.duplicate);
            if foreign && known.is_some_and(|known| !self.is_held(inbox, known.seq)) {
                // Somebody gives two messages one id. This may be another message.
                let id = random_id();
                let again = vec![NewEvent { id, ..event }];
                self.log.commit(Vec::new(), again).await?;
            }
        }
        let claims = inbox.claims(&[token]);
        acknowledge(inbox, inbox.finish(&[token], true)).await;
        for claim in claims {
            self.claims.release(&claim).await;
        }
        Ok(())
    }

    fn inbox(&self, receipt: &Receipt) -> Option<(usize, &Arc<Inbox>)> {
        let side = usize::try_from((receipt.token & !ON_BROKER) >> TOKEN_BITS).ok()?;
        let inbox = self.inboxes.get(side)?;
        (receipt.token & ON_BROKER != 0).then_some((side, inbox))
    }

    async fn settle_all(
        &self,
        fates: Vec<(Receipt, Fate)>,
        events: Vec<Outgoing>,
    ) -> Result<(), QueueError> {
        let mut in_log = Vec::new();
        let mut done: HashMap<usize, Vec<u64>> = HashMap::new();
        let mut back: HashMap<usize, Vec<u64>> = HashMap::new();
        let mut failed = Vec::new();
        for (receipt, fate) in fates {
            let Some((side, inbox)) = self.inbox(&receipt) else {
                in_log.push((receipt, fate));
                continue;
            };
            let token = token_of(&receipt);
            let list = match &fate {
                Fate::Release => &mut back,
                _ => &mut done,
            };
            list.entry(side).or_default().push(token);
            if matches!(fate, Fate::Retry { .. } | Fate::Dead { .. }) {
                failed.push((Arc::clone(inbox), token, fate));
            }
        }
        let mut new: Vec<NewEvent> = events.into_iter().map(|e| self.log.plan(e)).collect();
        let emitted = new.len();
        let mut homes = Vec::with_capacity(failed.len());
        for (inbox, token, fate) in failed {
            if let Some(event) = self.home_event(&inbox, token) {
                new.push(event.clone());
                homes.push((inbox, event, fate));
            }
        }
        if !in_log.is_empty() || !new.is_empty() {
            let settled = self.log.commit(in_log, new).await?;
            let accepted = settled.emitted.into_iter().skip(emitted);
            for ((inbox, event, fate), accepted) in homes.into_iter().zip(accepted) {
                let mut seq = accepted.seq;
                if accepted.duplicate {
                    if self.is_held(&inbox, seq) {
                        continue;
                    }
                    // Somebody gives two messages one id. This is another message.
                    let id = random_id();
                    let again = self.log.commit(Vec::new(), vec![NewEvent { id, ..event }]);
                    seq = again.await?.emitted.first().map_or(seq, |a| a.seq);
                }
                self.record(&inbox, seq, fate).await?;
            }
        }
        for (side, inbox) in self.inboxes.iter().enumerate() {
            let done = done.remove(&side).unwrap_or_default();
            let claims = inbox.claims(&done);
            acknowledge(inbox, inbox.finish(&done, true)).await;
            for claim in claims {
                self.claims.release(&claim).await;
            }
            let back = back.remove(&side).unwrap_or_default();
            self.hand_back(inbox, &back).await;
        }
        Ok(())
    }

    /// The event that a failed message becomes in the log.
    fn home_event(&self, inbox: &Inbox, token: u64) -> Option<NewEvent> {
        // Nobody may have it before its attempt is written, however short its delay.
        let settling = i64::try_from(SETTLING.as_millis()).unwrap_or(i64::MAX);
        let due = self.clock.now_ms().saturating_add(settling);
        let id = inbox.look(token, |out| out.event.as_ref().map(|e| e.id().to_owned()));
        let cause = id.flatten()?;
        inbox.look(token, |out| home_event(inbox, out, &cause, Some(due)))?
    }

    /// Writes the attempt that ended in this fate. The delivery waits for its time,
    /// so nobody else has it.
    async fn record(&self, inbox: &Inbox, seq: u64, fate: Fate) -> Result<(), QueueError> {
        let home = inbox.options.home;
        let leased = self.bus.lease(home, seq, SETTLING);
        let Some(token) = leased.map_err(|e| self.log.stopped(&e))? else {
            return Ok(());
        };
        let receipt = Receipt {
            route: home.0,
            seq,
            token,
        };
        self.log.commit(vec![(receipt, fate)], Vec::new()).await?;
        Ok(())
    }
}

fn receipt(side: usize, inbox: &Inbox, token: u64) -> Receipt {
    Receipt {
        route: inbox.options.home.0,
        seq: 0,
        token: ON_BROKER | ((side as u64) << TOKEN_BITS) | token,
    }
}

fn token_of(receipt: &Receipt) -> u64 {
    receipt.token & ((1 << TOKEN_BITS) - 1)
}

/// Acknowledges at the broker. A loan that cannot be given back now is over: the
/// message comes again and is known.
async fn acknowledge(inbox: &Inbox, handles: Vec<Handle>) {
    if handles.is_empty() {
        return;
    }
    if let Err(error) = inbox.broker.ack(handles).await {
        tracing::debug!(queue = inbox.broker.label(), %error, "not acknowledged");
    }
}

/// The label in the log of messages that came home.
fn bus_of(inbox: &Inbox) -> String {
    format!("queue/{}", inbox.options.queue)
}

fn home_of(inbox: &Inbox) -> String {
    bus_of(inbox)
}

fn inbox_id(identity: Option<&str>) -> Option<String> {
    let fits = |id: &&str| !id.is_empty() && id.len() <= MAX_ID;
    identity.filter(fits).map(str::to_owned)
}

fn home_event(
    inbox: &Inbox,
    out: &super::inbox::Out,
    cause: &str,
    not_before_ms: Option<i64>,
) -> Option<NewEvent> {
    let event = out.event.as_ref()?;
    let (meta, inbound) = (&out.waiting.meta, &out.waiting.inbound);
    let id = inbox_id(out.waiting.identity()).unwrap_or_else(random_id);
    let bus = inbound.bus().unwrap_or("default");
    let home = home_of(inbox);
    let route = inbound.route().unwrap_or(&home);
    Some(NewEvent {
        bus: bus_of(inbox).into(),
        id,
        payload: event.text().clone(),
        cause: Some(cause.to_owned()),
        root: Some(inbound.root().unwrap_or(event.id()).to_owned()),
        hops: meta.hops,
        cursor: Some(format!("{bus} {route}")),
        rules_version: 0,
        deliveries: vec![NewDelivery {
            route: inbox.options.home,
            key: meta.key.clone(),
            not_before_ms,
        }],
        reading: Reading::default(),
    })
}

/// Stands for a message that cannot be read.
fn unreadable(inbox: &Inbox, waiting: &Waiting, failure: &Failure, now_ms: i64) -> Event {
    let inbound = &waiting.inbound;
    let build = |headers: bool| {
        EventBuilder {
            id: inbound.id.clone().unwrap_or_else(random_id),
            source: "pointsman.message".to_owned(),
            detail_type: "Message Unreadable".to_owned(),
            time_ms: inbound.sent_ms.unwrap_or(now_ms),
            resources: Vec::new(),
            detail: serde_json::json!({
                "queue": inbox.broker.label(),
                "bytes": inbound.body.len(),
                "reason": failure.message,
                "headers": headers.then_some(&inbound.headers),
            }),
        }
        .build(&inbox.options.defaults)
    };
    build(true)
        .or_else(|_| build(false))
        // Without headers it is a few hundred bytes, which every limit lets through.
        .unwrap_or_else(|error| panic!("a small event cannot be built: {error}"))
}

impl Queue for MixedQueue {
    fn name(&self) -> &str {
        self.log.name()
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut sides: Vec<BoxFuture<'_, ()>> = vec![self.log.ready()];
            for inbox in &self.inboxes {
                sides.push(Box::pin(inbox.ready()));
            }
            futures::future::select_all(sides).await;
        })
    }

    fn receive(&self, want: Want) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        Box::pin(self.next(want))
    }

    fn failures(&self, receipt: &Receipt) -> Result<u32, QueueError> {
        match self.inbox(receipt) {
            // Who failed once has come home.
            Some(_) => Ok(0),
            None => self.log.failures(receipt),
        }
    }

    fn extend(&self, receipts: &[Receipt], visibility: Duration) {
        let (at_brokers, in_log): (Vec<&Receipt>, Vec<&Receipt>) =
            receipts.iter().partition(|r| self.inbox(r).is_some());
        let in_log: Vec<Receipt> = in_log.into_iter().copied().collect();
        self.log.extend(&in_log, visibility);
        for (side, inbox) in self.inboxes.iter().enumerate() {
            let mine = at_brokers
                .iter()
                .filter(|r| self.inbox(r).is_some_and(|(of, _)| of == side));
            let tokens: Vec<u64> = mine.map(|r| token_of(r)).collect();
            let handles = inbox.handles(&tokens);
            if handles.is_empty() {
                continue;
            }
            let inbox = Arc::clone(inbox);
            tokio::spawn(async move {
                if let Err(error) = inbox.broker.extend(handles, visibility).await {
                    tracing::warn!(queue = inbox.broker.label(), %error, "not prolonged");
                }
            });
        }
    }

    fn settle(
        &self,
        fates: Vec<(Receipt, Fate)>,
        events: Vec<Outgoing>,
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.settle_all(fates, events))
    }
}
