//! The loops: one per consumer, started by the composition root.

use super::Watch;
use super::keyed::Keyed;
use super::options::{DeliveryOptions, RetryPolicy};
use super::worker::Worker;
use crate::clock::SharedClock;
use crate::emit::{Emitter, Notify};
use crate::handlers::{Handler, Progress};
use crate::queues::{Queue, QueueError, Received, Want};
use crate::tasks::Tasks;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A rate may ask for any pause; an instant cannot hold any.
const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A handler and the queue that feeds it.
#[derive(Clone)]
pub struct Consumer {
    /// The handler's name.
    pub name: String,
    /// The handler.
    pub handler: Arc<dyn Handler>,
    /// Its queue.
    pub queue: Arc<dyn Queue>,
    /// How it is fed.
    pub options: DeliveryOptions,
    /// How long received messages are hidden from others.
    pub visibility: Duration,
    /// What happens after a failure, by the name of the route; others keep to
    /// `options.retry`.
    pub retries: HashMap<String, RetryPolicy>,
    /// Where its notices go.
    pub notify: Notify,
    /// Version of the rules in force; dead letters state it.
    pub rules_version: Arc<AtomicU32>,
}

impl Consumer {
    /// What happens after a failure of a message that came by `route`.
    #[must_use]
    pub fn retry(&self, route: &str) -> &RetryPolicy {
        self.retries.get(route).unwrap_or(&self.options.retry)
    }
}

/// A consumer's loop.
#[derive(Clone)]
pub struct RunningConsumer {
    stop: CancellationToken,
    /// The loop and its batches.
    tasks: Tasks,
}

impl RunningConsumer {
    /// Receives no more; what it has is finished.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves when the loop and its last batch have ended.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }
}

/// All delivery loops.
pub struct Delivery {
    emitter: Emitter,
    clock: SharedClock,
    watch: Arc<dyn Watch>,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Cancelled: no more is received.
    stop: CancellationToken,
    /// Cancelled: handlers are to give up what they do.
    abort: CancellationToken,
    tasks: Tasks,
}

impl Delivery {
    /// No loops yet.
    #[must_use]
    pub fn new(
        emitter: Emitter,
        clock: SharedClock,
        watch: Arc<dyn Watch>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Self {
        Self {
            emitter,
            clock,
            watch,
            progress,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: Tasks::default(),
        }
    }

    /// Starts a consumer's loop. It ends with [`Delivery::drain`], or when it is
    /// stopped (then what it has is finished first). With `before`, that loop is
    /// stopped, and the new one begins when its last batch has ended, so that two
    /// never exceed the concurrency of one.
    pub fn start(&self, consumer: Consumer, before: Option<RunningConsumer>) -> RunningConsumer {
        let stop = self.stop.child_token();
        let tasks = self.tasks.part();
        let worker = Arc::new(Worker {
            consumer,
            emitter: self.emitter.clone(),
            clock: self.clock.clone(),
            watch: Arc::clone(&self.watch),
            progress: Arc::clone(&self.progress),
            abort: self.abort.clone(),
        });
        let (ours, within) = (stop.clone(), tasks.clone());
        tasks.spawn(async move {
            if let Some(before) = before {
                before.stop();
                before.ended().await;
            }
            consume(worker, ours, within).await;
        });
        RunningConsumer { stop, tasks }
    }

    /// Receives no more, lets handlers finish for `patience`, then asks them to
    /// give up; what they hold is handed back.
    pub async fn drain(&self, patience: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_err()
        {
            self.abort.cancel();
            // Handlers that do not listen are left behind: their messages come
            // back after the restart, since nothing was settled.
            let late = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
            if late.is_err() {
                tracing::warn!(tasks = self.tasks.len(), "handlers did not stop in time");
            }
        }
    }
}

async fn consume(worker: Arc<Worker>, stop: CancellationToken, tasks: Tasks) {
    let slots = Arc::new(Semaphore::new(worker.consumer.options.concurrency.max(1)));
    let mut free_at = Instant::now();
    let mut keyed = Keyed::default();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => match slot {
                Ok(slot) => slot,
                Err(_) => break,
            },
        };
        // Waited out before anything is received, so that no loan runs out meanwhile.
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(free_at) => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = worker.consumer.handler.open() => {}
        }
        let gathered = match &worker.consumer.options.batch.by {
            None => gather(&worker.consumer, &stop).await,
            Some(path) => keyed.next(&worker.consumer, path, &stop).await,
        };
        match gathered {
            Ok(Some(batch)) => {
                free_at = Instant::now() + pause(&worker.consumer, batch.len());
                let worker = Arc::clone(&worker);
                tasks.spawn(async move {
                    worker.work(batch).await;
                    drop(slot);
                });
            }
            Ok(None) => break,
            Err(QueueError::Busy {
                retry_after,
                reason,
                ..
            }) => {
                tracing::warn!(queue = worker.consumer.queue.name(), %reason, "busy");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(retry_after) => {}
                }
            }
            Err(stopped) => {
                tracing::error!(error = %stopped, handler = worker.consumer.name, "delivery stopped");
                break;
            }
        }
    }
    // What it holds is finished, not left on loan.
    for batch in keyed.rest() {
        worker.work(batch).await;
    }
}

/// Waits for a batch: the first message starts the window; a full batch or the
/// window's end closes it. `None`: stopped.
async fn gather(
    consumer: &Consumer,
    stop: &CancellationToken,
) -> Result<Option<Vec<Received>>, QueueError> {
    let limits = &consumer.options.batch;
    let mut batch: Vec<Received> = Vec::new();
    let mut bytes = 0;
    let mut window_end = None;
    let mut looked = false;
    loop {
        // A message that came back unanswered may be what killed the process, so
        // whatever comes first is looked at before others join it.
        let size = if batch.is_empty() { 1 } else { limits.size };
        let room = Want {
            messages: size.saturating_sub(batch.len()),
            bytes: limits.bytes.saturating_sub(bytes),
            // A message waits for the window, too.
            visibility: consumer.visibility + limits.window,
        };
        let more = consumer.queue.receive(room).await?;
        bytes += more.iter().map(|m| m.event.text().len()).sum::<usize>();
        batch.extend(more);
        let alone = batch.first().is_some_and(|m| m.attempt > 1);
        let full = batch.len() >= limits.size || bytes >= limits.bytes;
        if alone || full || (looked && limits.window.is_zero()) {
            return Ok(Some(batch));
        }
        if !batch.is_empty() && !looked {
            looked = true;
            continue;
        }
        if !batch.is_empty() && window_end.is_none() {
            window_end = Some(Instant::now() + limits.window);
        }
        let closed = async {
            match window_end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = consumer.queue.ready() => {}
            () = closed => return Ok(Some(batch)),
            () = stop.cancelled() => return Ok((!batch.is_empty()).then_some(batch)),
        }
    }
}

/// How long to receive nothing after a batch, to keep to the rate.
fn pause(consumer: &Consumer, messages: usize) -> Duration {
    let Some(rate) = consumer.options.rate.filter(|rate| *rate > 0.0) else {
        return Duration::ZERO;
    };
    #[allow(clippy::cast_precision_loss)] // A batch has far fewer than 2^52 messages.
    let seconds = messages as f64 / rate;
    Duration::try_from_secs_f64(seconds).map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE))
}
