//! A queue on a broker as a source: each message becomes an event, and is
//! acknowledged when the bus has it.
//!
//! A message whose body is an envelope is that event; any other is wrapped. The
//! id of an event that has none is the message's own, so that what the broker
//! hands out again is taken once.

use super::{Incoming, Intake, IntakeError, Taken};
use crate::clock::SharedClock;
use crate::event::{Defaults, Event};
use crate::queues::{Broker, BrokerError, Inbound, Pull, event_of, refused_event};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a call for messages waits for the first.
const LONG_POLL: Duration = Duration::from_secs(20);

/// Messages that are handed in at a time.
const BATCH: usize = 500;

/// Bounds of the wait for a broker that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long messages are hidden from others while they are handed in.
const VISIBILITY: Duration = Duration::from_secs(60);

/// Reads one queue.
pub struct QueueSource {
    /// The source's name.
    pub name: String,
    /// The queue.
    pub broker: Arc<dyn Broker>,
    /// The bus that its events go to.
    pub bus: String,
    /// What events get that leave it out.
    pub defaults: Defaults,
    /// Where they go.
    pub intake: Arc<dyn Intake>,
    /// The clock.
    pub clock: SharedClock,
}

impl QueueSource {
    /// Reads until `stop`, waiting out a broker that is away and a bus that is full.
    pub async fn run(self, stop: CancellationToken) {
        let mut wait = BACKOFF.0;
        let mut away = false;
        loop {
            let pull = Pull {
                max: BATCH.min(self.broker.limits().prefetch.max(1)),
                wait: LONG_POLL,
                visibility: VISIBILITY,
            };
            let received = tokio::select! {
                () = stop.cancelled() => break,
                received = self.broker.receive(pull) => received,
            };
            let queue = self.broker.label();
            match received {
                Ok(messages) => {
                    if std::mem::take(&mut away) {
                        tracing::info!(source = self.name, queue, "the broker is there again");
                    }
                    wait = BACKOFF.0;
                    if !messages.is_empty() && !self.take(messages, &stop).await {
                        break;
                    }
                    continue;
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(source = self.name, queue, %error, "nothing can be received; trying again");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
        self.broker.close().await;
    }

    fn event(&self, message: &Inbound) -> Result<Event, String> {
        let from = self.broker.label();
        let now_ms = self.clock.now_ms();
        event_of(message, &message.body, from, &self.defaults, now_ms).map_err(|e| e.to_string())
    }

    /// An event that says what was wrong with a message, in the place of its own:
    /// nothing vanishes.
    fn refused(&self, message: &Inbound, reason: &str) -> Option<Event> {
        tracing::warn!(
            source = self.name,
            id = message.id,
            reason,
            "a message is refused"
        );
        let from = self.broker.label();
        refused_event(message, from, reason, &self.defaults, self.clock.now_ms())
            .inspect_err(|error| tracing::error!(source = self.name, %error, "not even told"))
            .ok()
    }

    /// Hands messages in and acknowledges them; `false` when the bus has stopped.
    async fn take(&self, messages: Vec<Inbound>, stop: &CancellationToken) -> bool {
        let incoming = |event: Event, message: &Inbound| Incoming {
            event,
            bus: self.bus.clone(),
            cursor: message.id.clone(),
        };
        let batch: Vec<(Incoming, &Inbound)> = messages
            .iter()
            .filter_map(|message| {
                let event = self.event(message);
                let event = event.or_else(|reason| self.refused(message, &reason).ok_or(reason));
                Some((incoming(event.ok()?, message), message))
            })
            .collect();
        let events = batch.iter().map(|(incoming, _)| incoming.clone()).collect();
        let Some(taken) = self.hand_in(events, &messages, stop).await else {
            return false;
        };
        let mut again = Vec::new();
        for ((_, message), taken) in batch.iter().zip(taken) {
            if let Taken::Refused(reason) = taken {
                let event = self.refused(message, &reason);
                again.extend(event.map(|event| incoming(event, message)));
            }
        }
        if !again.is_empty() && self.hand_in(again, &messages, stop).await.is_none() {
            return false;
        }
        let handles = messages.iter().map(|message| message.handle).collect();
        if let Err(error) = self.broker.ack(handles).await {
            // They come again and are known by their ids.
            tracing::debug!(source = self.name, %error, "not acknowledged");
        }
        true
    }

    /// Hands events in, waiting out a full bus; `None`: they go back to the queue.
    async fn hand_in(
        &self,
        events: Vec<Incoming>,
        messages: &[Inbound],
        stop: &CancellationToken,
    ) -> Option<Vec<Taken>> {
        let handles = || messages.iter().map(|message| message.handle).collect();
        let gave_up = loop {
            match self.intake.take(events.clone()).await {
                Ok(taken) => return Some(taken),
                Err(IntakeError::Busy {
                    reason,
                    retry_after,
                    ..
                }) => {
                    tracing::warn!(source = self.name, reason, "waits for the bus");
                    tokio::select! {
                        () = stop.cancelled() => break "stopped".to_owned(),
                        () = tokio::time::sleep(retry_after) => {}
                    }
                    let kept = self.broker.extend(handles(), VISIBILITY).await;
                    if let Err(BrokerError::Lost(why)) = kept {
                        break why;
                    }
                }
                Err(stopped @ IntakeError::Stopped(_)) => break stopped.to_string(),
            }
        };
        tracing::info!(
            source = self.name,
            why = gave_up,
            "messages go back to the queue"
        );
        if let Err(error) = self.broker.give_back(handles()).await {
            tracing::debug!(source = self.name, %error, "not handed back");
        }
        None
    }
}
