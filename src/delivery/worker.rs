//! One batch: run the handler, split what fails whole, settle.

use super::Watch;
use super::retry::{Reason, Verdict, judge};
use super::run::Consumer;
use crate::clock::SharedClock;
use crate::emit::Emitter;
use crate::handlers::{Class, Context, Done, Failure, Message, Outcome, Progress};
use crate::queues::{Fate, Outgoing, QueueError, Receipt, Received};
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a handler may take to notice that its time is over.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    pub consumer: Consumer,
    pub emitter: Emitter,
    pub clock: SharedClock,
    pub watch: Arc<dyn Watch>,
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    pub abort: CancellationToken,
}

type Answers = Vec<(Received, Result<Done, Failure>)>;

impl Worker {
    /// Handles a batch to its end: every message of it is settled.
    pub async fn work(&self, batch: Vec<Received>) {
        let started = self.clock.monotonic();
        let receipts: Vec<Receipt> = batch.iter().map(|m| m.receipt).collect();
        let (crashed, batch) = self.crashed(batch);
        let mut answers: Answers = tokio::select! {
            answers = self.handle(batch) => answers,
            () = self.keep(&receipts) => Vec::new(),
        };
        answers.extend(crashed);
        let messages = answers.len();
        let failed = answers.iter().filter(|(_, a)| a.is_err()).count();
        let (mut fates, mut events) = (Vec::with_capacity(messages), Vec::new());
        for (message, answer) in answers {
            let (fate, mut out) = self.judge(&message, answer);
            fates.push((message.receipt, fate));
            events.append(&mut out);
        }
        self.settle(fates, events).await;
        let seconds = self.clock.monotonic().saturating_sub(started).as_secs_f64();
        self.watch
            .handled(&self.consumer.name, messages, failed, seconds);
    }

    /// Takes out messages whose attempts ended without an answer too often: they
    /// may be what kills the process, so they are not tried again.
    fn crashed(&self, batch: Vec<Received>) -> (Answers, Vec<Received>) {
        let (mut spent, mut rest) = (Vec::new(), Vec::new());
        for message in batch {
            let lost = (message.attempt - 1).saturating_sub(self.failures(&message));
            if lost < self.consumer.retry(&message.route).lost {
                rest.push(message);
                continue;
            }
            let failure = Failure::permanent(
                "NeverSettled",
                format!(
                    "received {lost} times without an answer: the process died or the handler outlived its visibility timeout each time"
                ),
            );
            spent.push((message, Err(failure)));
        }
        (spent, rest)
    }

    /// How many attempts on a message have failed before this one.
    fn failures(&self, message: &Received) -> u32 {
        if message.attempt <= 1 {
            return 0;
        }
        self.consumer
            .queue
            .failures(&message.receipt)
            .unwrap_or_else(|error| {
                tracing::warn!(seq = message.receipt.seq, %error, "its attempts cannot be read");
                message.attempt - 1
            })
    }

    /// Runs the handler; a batch that fails whole is split in halves until the
    /// message that cannot be handled stands alone.
    fn handle(&self, batch: Vec<Received>) -> BoxFuture<'_, Answers> {
        Box::pin(async move {
            if batch.is_empty() {
                return Vec::new();
            }
            let outcome = self.run(&batch).await;
            if batch.len() > 1 && failed_whole(&outcome) {
                let mut first = batch;
                let second = first.split_off(first.len() / 2);
                let mut answers = self.handle(first).await;
                answers.extend(self.handle(second).await);
                return answers;
            }
            let mut results = outcome.results.into_iter();
            batch
                .into_iter()
                .map(|message| {
                    let answer = results.next().unwrap_or_else(|| {
                        Err(Failure::transient(
                            "NoAnswer",
                            "the handler gave no answer for this message",
                        ))
                    });
                    (message, answer)
                })
                .collect()
        })
    }

    /// One call of the handler, bounded in time and safe from its panics.
    async fn run(&self, batch: &[Received]) -> Outcome {
        let cancel = self.abort.child_token();
        let context = Context {
            handler: self.consumer.name.clone(),
            cancel: cancel.clone(),
            progress: Arc::clone(&self.progress),
        };
        let messages: Vec<Message> = batch.iter().map(message).collect();
        let handler = Arc::clone(&self.consumer.handler);
        let mut task = tokio::spawn(async move { handler.handle(&messages, &context).await });
        let timeout = self.consumer.options.timeout;
        let joined = match tokio::time::timeout(timeout, &mut task).await {
            Ok(joined) => joined,
            Err(_) => {
                cancel.cancel();
                if tokio::time::timeout(GRACE, &mut task).await.is_err() {
                    task.abort();
                }
                let failure = Failure::transient(
                    "Timeout",
                    format!("the handler took longer than {} s", timeout.as_secs_f64()),
                );
                return Outcome::all_failed(batch.len(), &failure);
            }
        };
        joined.unwrap_or_else(|error| {
            let failure = Failure::transient("Panic", "the handler panicked").caused_by(&error);
            Outcome::all_failed(batch.len(), &failure)
        })
    }

    /// Prolongs the loans for as long as the handler works. Never resolves.
    async fn keep(&self, receipts: &[Receipt]) {
        let visibility = self.consumer.visibility;
        loop {
            tokio::time::sleep(visibility / 2).await;
            self.consumer.queue.extend(receipts, visibility);
        }
    }

    fn judge(&self, message: &Received, answer: Result<Done, Failure>) -> (Fate, Vec<Outgoing>) {
        let consumer = &self.consumer;
        let answer = answer.and_then(|done| {
            let events = self
                .emitter
                .done(&consumer.name, &consumer.notify, message, &done)?;
            tracing::info!(
                handler = consumer.name,
                route = &*message.route,
                event = message.event.id(),
                what = %brief(&done.summary),
                "done"
            );
            Ok(events)
        });
        match answer {
            Ok(events) => (Fate::Delivered, events),
            Err(failure) => self.failed(message, failure),
        }
    }

    fn failed(&self, message: &Received, failure: Failure) -> (Fate, Vec<Outgoing>) {
        let given_up = self.abort.is_cancelled() || failure.code == "Cancelled";
        if given_up && failure.class != Class::Permanent {
            return (Fate::Release, Vec::new());
        }
        let now_ms = self.clock.now_ms();
        let age = u64::try_from(now_ms.saturating_sub(message.accepted_ms)).unwrap_or(0);
        let verdict = judge(
            self.consumer.retry(&message.route),
            &failure,
            self.failures(message) + 1,
            Duration::from_millis(age),
            self.clock.random(),
        );
        match verdict {
            Verdict::HandBack => (Fate::Release, Vec::new()),
            Verdict::Again(delay) => {
                tracing::warn!(
                    handler = self.consumer.name, route = &*message.route, event = message.event.id(),
                    attempt = message.attempt, retry_in_ms = delay.as_millis(), code = failure.code,
                    error = %failure, "failed, will be tried again"
                );
                let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                let at_ms = now_ms.saturating_add(delay);
                (Fate::Retry { at_ms, failure }, Vec::new())
            }
            Verdict::GiveUp(reason) => self.give_up(message, failure, reason),
        }
    }

    fn give_up(
        &self,
        message: &Received,
        failure: Failure,
        reason: Reason,
    ) -> (Fate, Vec<Outgoing>) {
        tracing::error!(
            handler = self.consumer.name, route = &*message.route, event = message.event.id(),
            attempts = message.attempt, code = failure.code, error = %failure,
            "dead-lettered"
        );
        let notice = self.emitter.dead(
            &self.consumer.name,
            &self.consumer.notify,
            message,
            &failure,
        );
        let context = json!({
            "handler": self.consumer.name,
            "queue": self.consumer.queue.name(),
            "route": &*message.route,
            "rules_version": self.consumer.rules_version.load(Ordering::Relaxed),
            "reason": reason.as_str(),
            "code": failure.code,
            "bus": &*message.bus,
            "trace": { "root": message.root(), "hops": message.hops },
        });
        (
            Fate::Dead { failure, context },
            notice.into_iter().collect(),
        )
    }

    /// Settles, waiting out a bus that is busy; the loans are kept meanwhile.
    async fn settle(&self, fates: Vec<(Receipt, Fate)>, events: Vec<Outgoing>) {
        let queue = &self.consumer.queue;
        let receipts: Vec<Receipt> = fates.iter().map(|(receipt, _)| *receipt).collect();
        loop {
            match queue.settle(fates.clone(), events.clone()).await {
                Ok(()) => return,
                Err(QueueError::Busy {
                    retry_after,
                    reason,
                    ..
                }) if !self.abort.is_cancelled() => {
                    tracing::warn!(queue = queue.name(), %reason, "settling waits");
                    queue.extend(&receipts, self.consumer.visibility + retry_after);
                    tokio::time::sleep(retry_after).await;
                }
                Err(error) => {
                    // Nothing is settled, so the messages come back after a restart.
                    tracing::error!(handler = self.consumer.name, %error, "not settled");
                    return;
                }
            }
        }
    }
}

fn message(received: &Received) -> Message {
    Message {
        event: Arc::clone(&received.event),
        input: received.input.clone(),
        seq: received.receipt.seq,
        attempt: received.attempt,
        accepted_ms: received.accepted_ms,
    }
}

/// Whether no message got through, for a reason that may lie in one of them.
fn failed_whole(outcome: &Outcome) -> bool {
    outcome.whole
        && outcome.results.iter().all(|result| {
            let held = |f: &Failure| matches!(f.class, Class::Throttled | Class::Held);
            matches!(result, Err(f) if !held(f) && f.code != "Cancelled")
        })
}

/// The figures of a summary that people look for first.
fn brief(summary: &serde_json::Value) -> String {
    let mut said = Vec::new();
    if let Some(key) = summary.pointer("/object/key").and_then(|key| key.as_str()) {
        said.push(key.to_owned());
    }
    if let Some(table) = summary["table"].as_str() {
        said.push(format!("table {table}"));
    }
    for (name, words) in [
        ("rows_in", "rows in"),
        ("rows_out", "rows out"),
        ("rows", "rows"),
    ] {
        if let Some(count) = summary[name].as_u64() {
            said.push(format!("{count} {words}"));
        }
    }
    if let Some(count) = summary.pointer("/rejects/count").and_then(|c| c.as_u64()) {
        said.push(format!("{count} rejects"));
    }
    if let Some(ms) = summary["duration_ms"].as_u64() {
        said.push(format!("{}.{} s", ms / 1000, ms % 1000 / 100));
    }
    said.join(", ")
}
