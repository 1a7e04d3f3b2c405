//! A subscriber elsewhere: an exchange of a broker, a topic of another system.
//!
//! A message counts as delivered when the other side has it. While that is away,
//! blocked or throttles, a circuit breaker holds the messages back, and none of
//! their attempts is used up; what it refuses is a failure of that message, which
//! is tried again by the route's `retry`, or is dead-lettered at once where trying
//! again cannot help.

use super::broker::{BrokerError, Outbound, Publisher};
use super::packer::Packer;
use super::routing_key::RoutingKey;
use crate::handlers::circuit::{Circuit, CircuitOptions};
use crate::handlers::{Context, Done, Failure, Handler, Message, Outcome};
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// When nothing is published for a while: whoever is away says so to every message
/// alike, so one answer is enough, and it is asked again soon.
pub const CIRCUIT: CircuitOptions = CircuitOptions {
    failures: 1,
    pause: Duration::from_secs(1),
    max_pause: Duration::from_secs(30),
};

/// How long what is on its way may take when the node stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long nothing is published to whoever took only a part of a batch.
const REST: Duration = Duration::from_millis(500);

/// Publishes one route's messages.
pub struct Publishing {
    /// Where to.
    pub publisher: Arc<dyn Publisher>,
    /// Makes the messages.
    pub packer: Packer,
    /// What an exchange sorts them by.
    pub routing_key: Option<RoutingKey>,
    /// Holds them back while the other side takes nothing.
    pub circuit: Arc<Circuit>,
    /// Cancelled when the node begins to stop.
    pub stopping: CancellationToken,
}

type Answer = Result<Done, Failure>;

/// What a batch says about the other side.
#[derive(Default)]
struct Seen {
    /// It answered at least one message, be it with a refusal.
    alive: bool,
    /// Why it took nothing, or not all.
    away: Option<String>,
}

impl Publishing {
    fn message(&self, message: &Message) -> Result<Outbound, Failure> {
        let mut out = self.packer.pack(message, message.payload())?;
        if let Some(key) = &self.routing_key {
            out.routing_key = Some(key.of(&message.event)?);
        }
        Ok(out)
    }

    async fn publish(&self, messages: Vec<Outbound>) -> (Vec<Answer>, Seen) {
        let mut answers = Vec::with_capacity(messages.len());
        let mut seen = Seen::default();
        let mut left = messages.into_iter().peekable();
        while left.peek().is_some() {
            let size = self.publisher.limits().batch.max(1);
            let batch: Vec<Outbound> = left.by_ref().take(size).collect();
            let count = batch.len();
            let mut results = self.publisher.publish(batch).await.into_iter();
            for _ in 0..count {
                let unknown = || Err(BrokerError::Unavailable("it gave no answer".to_owned()));
                let result = results.next().unwrap_or_else(unknown);
                answers.push(self.answer(result, &mut seen));
            }
        }
        (answers, seen)
    }

    fn answer(&self, result: Result<(), BrokerError>, seen: &mut Seen) -> Answer {
        match result {
            Ok(()) => {
                seen.alive = true;
                Ok(Done {
                    summary: json!({ "publisher": self.publisher.label() }),
                    ..Done::default()
                })
            }
            Err(BrokerError::Refused {
                code,
                reason,
                permanent,
            }) => {
                seen.alive = true;
                Err(match permanent {
                    true => Failure::permanent(code, reason),
                    false => Failure::transient(code, reason),
                })
            }
            Err(BrokerError::Unavailable(why) | BrokerError::Lost(why)) => {
                let held = Failure::held("Unavailable", why.clone());
                seen.away.get_or_insert(why);
                Err(held)
            }
        }
    }

    /// Publishes, for as long as somebody waits for the answer.
    async fn in_time(&self, messages: Vec<Outbound>, cx: &Context) -> Option<(Vec<Answer>, Seen)> {
        let last_words = async {
            self.stopping.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            done = self.publish(messages) => Some(done),
            () = cx.cancel.cancelled() => None,
            () = last_words => None,
        }
    }
}

impl Handler for Publishing {
    fn open(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.circuit.open())
    }

    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Some(permit) = self.circuit.admit() else {
                let said = "the circuit is open: nothing is published for a while";
                let failure = Failure::held("CircuitOpen", said);
                return Outcome::each(vec![failure; batch.len()].into_iter().map(Err).collect());
            };
            let packed: Vec<Result<Outbound, Failure>> =
                batch.iter().map(|message| self.message(message)).collect();
            let good = packed.iter().flatten().cloned().collect();
            let Some((answers, seen)) = self.in_time(good, cx).await else {
                let failure = Failure::transient("Cancelled", "stopped before it was confirmed");
                return Outcome::each(vec![failure; batch.len()].into_iter().map(Err).collect());
            };
            match seen.away {
                None => permit.succeeded(),
                Some(_) if seen.alive => permit.rest(REST),
                Some(why) => {
                    let to = self.publisher.label();
                    tracing::warn!(to, why, "nothing is taken; messages wait in the log");
                    permit.failed(why);
                }
            }
            let mut answers = answers.into_iter();
            let results = packed.into_iter().map(|packed| {
                let unsent = || Err(Failure::held("Unavailable", "it was not published"));
                packed.and_then(|_| answers.next().unwrap_or_else(unsent))
            });
            Outcome::each(results.collect())
        })
    }
}
