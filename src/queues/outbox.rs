//! From the log to a broker: the handler of the route that leads to a queue on a
//! broker. The log is the outbox: a message leaves it when the broker has
//! confirmed it, so a broker that is away makes a backlog, and no loss.

use super::broker::{Broker, BrokerError, Outbound};
use super::claims::Claims;
use super::packer::Packer;
use super::wire;
use crate::handlers::{Context, Done, Failure, Handler, Message, Outcome};
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bounds of the wait for a broker that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Publishes one route's messages to a queue on a broker.
pub struct Outbox {
    /// The queue.
    pub broker: Arc<dyn Broker>,
    /// Makes its messages.
    pub packer: Packer,
    /// Bodies that the broker does not take.
    pub claims: Claims,
    /// Whether the target's input is sent instead of the event. A handler of ours
    /// needs the whole event and makes its input itself.
    pub inputs: bool,
    /// Cancelled: a broker that is away is not waited for.
    pub stopping: CancellationToken,
    /// Whether the broker was away when it was last asked.
    pub away: AtomicBool,
}

type Answer = Result<Done, Failure>;

impl Outbox {
    async fn message(&self, message: &Message) -> Result<Outbound, Failure> {
        let body = match self.inputs {
            true => message.payload(),
            false => message.event.text(),
        };
        let mut out = self.packer.pack(message, body)?;
        let bytes = out.body.len();
        if bytes > self.broker.limits().body_bytes {
            let kept = self.claims.keep(&out.delivery, out.body.clone()).await;
            let claim = kept.map_err(|e| {
                let said = "the body is larger than the broker takes, and cannot be kept on disk";
                Failure::transient("ClaimNotKept", said).caused_by(&e)
            })?;
            wire::refer(&mut out, &claim, bytes);
        }
        Ok(out)
    }

    /// Publishes until each message is confirmed or refused, however long the
    /// broker is away.
    async fn publish(
        &self,
        messages: Vec<(usize, Outbound)>,
        cx: &Context,
    ) -> Vec<(usize, Answer)> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut left = messages;
        let mut wait = BACKOFF.0;
        while !left.is_empty() {
            let size = self.broker.limits().batch.max(1).min(left.len());
            let rest = left.split_off(size);
            let batch = left.iter().map(|(_, message)| message.clone()).collect();
            let results = self.broker.publish(batch).await;
            let mut again = Vec::new();
            let mut away = None;
            let mut results = results.into_iter();
            for (index, message) in left {
                match results.next() {
                    Some(Ok(())) => {
                        let summary = json!({ "queue": self.broker.label() });
                        answers.push((
                            index,
                            Ok(Done {
                                summary,
                                ..Done::default()
                            }),
                        ));
                    }
                    Some(Err(BrokerError::Refused {
                        code,
                        reason,
                        permanent,
                    })) => {
                        let failure = match permanent {
                            true => Failure::permanent(code, reason),
                            false => Failure::transient(code, reason),
                        };
                        answers.push((index, Err(failure)));
                    }
                    Some(Err(BrokerError::Unavailable(why) | BrokerError::Lost(why))) => {
                        away.get_or_insert(why);
                        again.push((index, message));
                    }
                    None => again.push((index, message)),
                }
            }
            again.extend(rest);
            left = again;
            match away {
                None => {
                    wait = BACKOFF.0;
                    self.is_back();
                }
                Some(why) => {
                    self.is_away(&why);
                    if !self.pause(wait, cx).await {
                        let failure = Failure::transient("Cancelled", why);
                        answers.extend(left.drain(..).map(|(i, _)| (i, Err(failure.clone()))));
                    }
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
        answers
    }

    /// Waits; `false` when nobody waits for the broker any more.
    async fn pause(&self, wait: Duration, cx: &Context) -> bool {
        tokio::select! {
            () = cx.cancel.cancelled() => false,
            () = self.stopping.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    fn is_away(&self, why: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            let queue = self.broker.label();
            tracing::warn!(queue, why, "the broker is away; messages wait in the log");
        }
    }

    fn is_back(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!(
                queue = self.broker.label(),
                "the broker takes messages again"
            );
        }
    }
}

impl Handler for Outbox {
    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let mut answers: Vec<(usize, Answer)> = Vec::with_capacity(batch.len());
            let mut messages = Vec::with_capacity(batch.len());
            for (index, message) in batch.iter().enumerate() {
                match self.message(message).await {
                    Ok(out) => messages.push((index, out)),
                    Err(failure) => answers.push((index, Err(failure))),
                }
            }
            answers.extend(self.publish(messages, cx).await);
            answers.sort_by_key(|(index, _)| *index);
            Outcome::each(answers.into_iter().map(|(_, answer)| answer).collect())
        })
    }
}
