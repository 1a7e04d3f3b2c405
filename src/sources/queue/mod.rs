//! A queue on a broker as a source: each message becomes an event, or the events
//! that a notification tells of, and is acknowledged when the bus has them.
//!
//! A message whose body is an envelope is that event; any other is wrapped. The
//! id of an event that has none is the message's own, so that what the broker
//! hands out again is taken once.
//!
//! A message that cannot be read, or that the bus refuses, is acknowledged when
//! the bus has taken an event `Message Refused` in its place, which has the reason
//! and the body. Should the bus refuse even that, the message is not acknowledged:
//! it stays at the broker, and is for the broker's own dead-letter policy.

mod read;
mod status;

pub use read::Format;
pub use status::{QueueHandle, QueueMode, QueueStatus};

use super::{Incoming, Intake, IntakeError, Taken};
use crate::clock::SharedClock;
use crate::event::{Defaults, Event};
use crate::queues::{Broker, BrokerError, Inbound, Pull};
use read::Reader;
use status::Board;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a call for messages waits for the first.
const LONG_POLL: Duration = Duration::from_secs(20);

/// Messages that are handed in at a time.
const BATCH: usize = 500;

/// Bounds of the wait for a broker that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What a source is made of.
pub struct QueueSourceOptions {
    /// The source's name.
    pub name: String,
    /// The bus that its events go to.
    pub bus: String,
    /// What its messages are.
    pub format: Format,
    /// How long messages are hidden from others while they are handed in, where the
    /// broker has such a time.
    pub visibility: Duration,
    /// What events get that leave it out.
    pub defaults: Defaults,
}

/// Reads one queue.
pub struct QueueSource {
    options: QueueSourceOptions,
    broker: Arc<dyn Broker>,
    intake: Arc<dyn Intake>,
    clock: SharedClock,
    board: Board,
}

/// What one message came to.
struct Message<'a> {
    inbound: &'a Inbound,
    /// How many of the batch's events are its own.
    events: usize,
    /// Why it is refused.
    refused: Option<String>,
}

/// The source has to end, and its messages go back to the queue.
struct End;

impl QueueSource {
    /// A source that reads `broker` and hands in to `intake`, and a hand on it.
    #[must_use]
    pub fn new(
        options: QueueSourceOptions,
        broker: Arc<dyn Broker>,
        intake: Arc<dyn Intake>,
        clock: SharedClock,
    ) -> (Self, QueueHandle) {
        let board = Board::new(&options.name, broker.label(), options.format);
        let handle = QueueHandle::new(Arc::clone(&broker), board.clone());
        let source = Self {
            options,
            broker,
            intake,
            clock,
            board,
        };
        (source, handle)
    }

    /// Reads until `stop`, waiting out a broker that is away and a bus that is full.
    pub async fn run(self, stop: CancellationToken) {
        let mut wait = BACKOFF.0;
        loop {
            let pull = Pull {
                max: BATCH.min(self.broker.prefetch().max(1)),
                wait: LONG_POLL,
                visibility: self.options.visibility,
            };
            let received = tokio::select! {
                () = stop.cancelled() => break,
                received = self.broker.receive(pull) => received,
            };
            match received {
                Ok(messages) => {
                    self.board.receiving();
                    wait = BACKOFF.0;
                    if !messages.is_empty() && self.take(messages, &stop).await.is_err() {
                        break;
                    }
                    continue;
                }
                Err(error) => self.board.away(&error.to_string(), self.clock.now_ms()),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
        self.broker.close().await;
        self.board.stopped();
    }

    /// Hands messages in and acknowledges them.
    async fn take(&self, inbound: Vec<Inbound>, stop: &CancellationToken) -> Result<(), End> {
        self.board.count(|c| c.received += inbound.len() as u64);
        let reader = Reader {
            from: self.broker.label(),
            defaults: &self.options.defaults,
            now_ms: self.clock.now_ms(),
        };
        let mut events = Vec::with_capacity(inbound.len());
        let mut messages = Vec::with_capacity(inbound.len());
        for one in &inbound {
            let (own, refused) = match reader.events(one, self.options.format) {
                Ok(own) => (own, None),
                Err(reason) => (Vec::new(), Some(reason)),
            };
            messages.push(Message {
                inbound: one,
                events: own.len(),
                refused,
            });
            events.extend(own.into_iter().map(|event| self.incoming(event, one)));
        }
        let taken = self.hand_in(events, &inbound, stop).await?;
        self.note(&mut messages, taken);
        let held = self
            .tell_refused(&messages, &reader, &inbound, stop)
            .await?;
        let handles = inbound.iter().map(|message| message.handle);
        let handles = handles.filter(|handle| !held.contains(handle)).collect();
        if let Err(error) = self.broker.ack(handles).await {
            // They come again and are known by their ids.
            tracing::debug!(source = self.options.name, %error, "not acknowledged");
        }
        Ok(())
    }

    fn incoming(&self, event: Event, message: &Inbound) -> Incoming {
        Incoming {
            event: event.into(),
            bus: self.options.bus.as_str().into(),
            cursor: message.id.clone(),
        }
    }

    /// Notes what became of the events of each message.
    fn note(&self, messages: &mut [Message<'_>], taken: Vec<Taken>) {
        let mut taken = taken.into_iter();
        for message in messages {
            if message.events == 0 && message.refused.is_none() {
                self.board.count(|c| c.without_object += 1);
            }
            for answer in taken.by_ref().take(message.events) {
                match answer {
                    Taken::Accepted(_) => self.board.count(|c| c.accepted += 1),
                    Taken::Duplicate(_) => self.board.count(|c| c.duplicates += 1),
                    Taken::Refused(reason) => message.refused = Some(reason),
                }
            }
        }
    }

    /// Tells the bus of messages that are refused; the handles of those of which it
    /// does not want to hear.
    async fn tell_refused(
        &self,
        messages: &[Message<'_>],
        reader: &Reader<'_>,
        all: &[Inbound],
        stop: &CancellationToken,
    ) -> Result<Vec<u64>, End> {
        let (mut events, mut told, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for message in messages {
            let Some(reason) = &message.refused else {
                continue;
            };
            let inbound = message.inbound;
            self.board.refused(inbound, reason, self.clock.now_ms());
            match reader.refusal(inbound, reason) {
                Ok(event) => {
                    events.push(self.incoming(event, inbound));
                    told.push(inbound);
                }
                Err(error) => held.push((inbound, error)),
            }
        }
        let taken = match events.is_empty() {
            true => Vec::new(),
            false => self.hand_in(events, all, stop).await?,
        };
        for (inbound, answer) in told.into_iter().zip(taken) {
            if let Taken::Refused(why) = answer {
                held.push((inbound, why));
            }
        }
        for (inbound, why) in &held {
            self.board.held(inbound, why, self.clock.now_ms());
        }
        Ok(held
            .into_iter()
            .map(|(inbound, _)| inbound.handle)
            .collect())
    }

    /// Hands events in, waiting out a full bus.
    async fn hand_in(
        &self,
        events: Vec<Incoming>,
        messages: &[Inbound],
        stop: &CancellationToken,
    ) -> Result<Vec<Taken>, End> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let handles = || messages.iter().map(|message| message.handle).collect();
        let visibility = self.options.visibility;
        let gave_up = loop {
            match self.intake.take(events.clone()).await {
                Ok(taken) => {
                    self.board.receiving();
                    return Ok(taken);
                }
                Err(IntakeError::Busy {
                    reason,
                    retry_after,
                    ..
                }) => {
                    self.board.paused(&reason, self.clock.now_ms());
                    // Not so long that the messages come into sight again.
                    let pause = retry_after.min(visibility / 2);
                    tokio::select! {
                        () = stop.cancelled() => break "stopped".to_owned(),
                        () = tokio::time::sleep(pause) => {}
                    }
                    let kept = self.broker.extend(handles(), visibility).await;
                    if let Err(BrokerError::Lost(why)) = kept {
                        // They come again by themselves.
                        self.board.away(&why, self.clock.now_ms());
                    }
                }
                Err(stopped @ IntakeError::Stopped(_)) => break stopped.to_string(),
            }
        };
        tracing::info!(
            source = self.options.name,
            why = gave_up,
            "messages go back to the queue"
        );
        if let Err(error) = self.broker.give_back(handles()).await {
            tracing::debug!(source = self.options.name, %error, "not handed back");
        }
        Err(End)
    }
}
