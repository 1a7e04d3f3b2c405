//! Batches of one key each: several are open at once, and each is closed by its
//! own size or its own window.

use super::options::BatchOptions;
use super::run::Consumer;
use crate::queues::{QueueError, Received, Want};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Full batches' worth of messages that may be held in open ones; above it the
/// largest is closed early.
const HELD: usize = 8;

/// Batches that are open.
#[derive(Default)]
pub(super) struct Keyed {
    open: Vec<Open>,
}

struct Open {
    key: String,
    messages: Vec<Received>,
    bytes: usize,
    end: Instant,
}

impl Keyed {
    /// Waits for a batch that is full or whose window is over. `None`: stopped;
    /// what is open then is taken with [`Keyed::rest`].
    pub async fn next(
        &mut self,
        consumer: &Consumer,
        path: &str,
        stop: &CancellationToken,
    ) -> Result<Option<Vec<Received>>, QueueError> {
        let limits = &consumer.options.batch;
        loop {
            if let Some(batch) = self.closed(limits) {
                return Ok(Some(batch));
            }
            let more = consumer.queue.receive(self.room(consumer)).await?;
            let none = more.is_empty();
            for message in more {
                // What came back unanswered may be what killed the process.
                if message.attempt > 1 {
                    self.alone(message);
                } else {
                    let key = value(&message, path);
                    self.put(key, message, limits);
                }
            }
            if !none {
                continue;
            }
            let end = self.open.iter().map(|batch| batch.end).min();
            let over = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = consumer.queue.ready() => {}
                () = over => {}
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    /// All that is open.
    pub fn rest(&mut self) -> Vec<Vec<Received>> {
        self.open.drain(..).map(|batch| batch.messages).collect()
    }

    fn room(&self, consumer: &Consumer) -> Want {
        let limits = &consumer.options.batch;
        let held: usize = self.open.iter().map(|batch| batch.messages.len()).sum();
        let bytes: usize = self.open.iter().map(|batch| batch.bytes).sum();
        Want {
            messages: (limits.size * HELD)
                .saturating_sub(held)
                .clamp(1, limits.size),
            bytes: (limits.bytes.saturating_mul(HELD))
                .saturating_sub(bytes)
                .clamp(1, limits.bytes.max(1)),
            // A message waits for the window, too.
            visibility: consumer.visibility + limits.window,
        }
    }

    fn put(&mut self, key: String, message: Received, limits: &BatchOptions) {
        let bytes = message.event.text().len();
        // A batch that has no room for it stays open as it is, and is closed next.
        let fits = |batch: &&mut Open| {
            batch.key == key
                && batch.messages.len() < limits.size
                && batch.bytes + bytes <= limits.bytes
        };
        match self.open.iter_mut().find(fits) {
            Some(batch) => {
                batch.messages.push(message);
                batch.bytes += bytes;
            }
            None => {
                for before in self.open.iter_mut().filter(|batch| batch.key == key) {
                    before.end = Instant::now();
                }
                self.open.push(Open {
                    key,
                    messages: vec![message],
                    bytes,
                    end: Instant::now() + limits.window,
                });
            }
        }
    }

    /// A batch of one, closed at once.
    fn alone(&mut self, message: Received) {
        self.open.push(Open {
            key: String::new(),
            bytes: usize::MAX / 2,
            messages: vec![message],
            end: Instant::now(),
        });
    }

    /// Takes a batch that is to be worked on now.
    fn closed(&mut self, limits: &BatchOptions) -> Option<Vec<Received>> {
        let now = Instant::now();
        let due = |batch: &Open| {
            batch.messages.len() >= limits.size || batch.bytes >= limits.bytes || batch.end <= now
        };
        let held: usize = self.open.iter().map(|batch| batch.messages.len()).sum();
        let found = match self.open.iter().position(due) {
            None if held >= limits.size * HELD => {
                let sizes = self.open.iter().enumerate();
                sizes
                    .max_by_key(|(_, batch)| batch.messages.len())
                    .map(|(at, _)| at)
            }
            found => found,
        };
        found.map(|at| self.open.swap_remove(at).messages)
    }
}

/// The value at a dotted path of the message's event, as text; empty where there is none.
fn value(message: &Received, path: &str) -> String {
    let root = message.event.value();
    let found = path
        .split('.')
        .try_fold(&root, |value, name| value.get(name));
    match found {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
