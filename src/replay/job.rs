//! One job: read a page of the log, decide, give, write down how far it is.

use super::{Job, Replay, Replays, Stage};
use crate::bus::{BusError, Pressure, Redelivery};
use crate::event::Event;
use crate::queues::LATE_RULE;
use crate::router::Table;
use crate::rules::{self, Pattern};
use crate::state::StateError;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Payload that is read at a time, roughly, in bytes.
const PAGE_BYTES: usize = 8 << 20;

/// Most events that are read at a time.
const PAGE: usize = 1_000;

/// How long to wait before something is tried again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a job stops where it is.
enum Stop {
    /// For now: the node ends, or it is to be tried again.
    Now(BusError),
    /// For good.
    Failed(String),
}

impl From<BusError> for Stop {
    fn from(error: BusError) -> Self {
        match error {
            BusError::RetiredRoute(name) => Self::Failed(format!("the route `{name}` is gone")),
            error => Self::Now(error),
        }
    }
}

/// What a page of the log holds for a route.
#[derive(Default)]
struct Page {
    read: usize,
    bytes: usize,
    passed: u64,
    next: Option<u64>,
    deliveries: Vec<Redelivery>,
}

impl Replays {
    /// Runs a job until it ends or is stopped. `before`: rules that events may
    /// still come in by; the range ends when they are no longer used.
    pub(super) fn spawn(&self, replay: Replay, before: Option<Arc<Table>>) {
        let job = Job {
            stop: self.shared.stop.child_token(),
            tasks: self.shared.tasks.part(),
        };
        self.running().insert(replay.name.clone(), job.clone());
        let (this, stop) = (self.clone(), job.stop.clone());
        job.tasks.spawn(async move {
            let name = replay.name.clone();
            if let Err(error) = this.run(replay, before, &stop).await {
                tracing::error!(replay = name, %error, "its state cannot be written; it goes on after the next start");
            }
            this.running().remove(&name);
        });
    }

    async fn run(
        &self,
        mut replay: Replay,
        before: Option<Arc<Table>>,
        stop: &CancellationToken,
    ) -> Result<(), StateError> {
        let to = match replay.to_seq {
            Some(to) => to,
            None => match self.end_of_the_old(before, stop).await {
                Some(to) => to,
                None => return Ok(()),
            },
        };
        replay.to_seq = Some(to);
        self.keep(&replay).await?;
        let mut page = 64;
        while replay.next_seq < to && !stop.is_cancelled() {
            if matches!(self.shared.bus.pressure(), Pressure::Refuse { .. }) {
                nap(stop).await;
                continue;
            }
            match self.step(&mut replay, to, &mut page).await {
                Ok(()) => {}
                Err(Stop::Now(error)) => {
                    tracing::warn!(replay = replay.name, %error, "waits");
                    nap(stop).await;
                    continue;
                }
                Err(Stop::Failed(reason)) => {
                    tracing::error!(replay = replay.name, reason, "failed");
                    replay.stage = Stage::Failed;
                    replay.reason = Some(reason);
                    replay.ended_ms = Some(self.shared.clock.now_ms());
                    return self.keep(&replay).await;
                }
            }
            self.keep(&replay).await?;
        }
        if replay.next_seq >= to {
            replay.stage = Stage::Done;
            replay.ended_ms = Some(self.shared.clock.now_ms());
            tracing::info!(
                replay = replay.name,
                route = replay.route,
                given = replay.given,
                "done"
            );
            self.keep(&replay).await?;
        }
        Ok(())
    }

    /// The sequence number from which on every event came in by the new rules.
    async fn end_of_the_old(
        &self,
        before: Option<Arc<Table>>,
        stop: &CancellationToken,
    ) -> Option<u64> {
        if let Some(before) = before {
            // Sources hold the rules that they decide by until their events are stored.
            while Arc::strong_count(&before) > 1 {
                if stop.is_cancelled() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // What handlers emit is decided just before it is handed to the writer.
            tokio::time::sleep(PATIENCE).await;
            self.shared.bus.flush().await.ok()?;
        }
        Some(self.shared.bus.next_seq())
    }

    async fn step(&self, replay: &mut Replay, to: u64, size: &mut usize) -> Result<(), Stop> {
        let (this, job, count) = (self.clone(), replay.clone(), *size);
        let page = tokio::task::spawn_blocking(move || this.page(&job, to, count)).await;
        let page = page.map_err(|e| Stop::Failed(format!("the log cannot be read: {e}")))??;
        if let Some(average) = page.bytes.checked_div(page.read) {
            *size = (PAGE_BYTES / average.max(1)).clamp(8, PAGE);
        }
        if !page.deliveries.is_empty() {
            let bus = &self.shared.bus;
            let gone =
                || Stop::Failed(format!("no rule has the route `{}` any more", replay.route));
            let route = bus.route_id(&replay.route).ok_or_else(gone)?;
            let done = bus.redeliver(route, page.deliveries, &replay.name).await?;
            replay.given += done.enqueued;
            replay.passed += done.already_replayed + done.already_pending + done.dead;
        }
        replay.read += page.read as u64;
        replay.passed += page.passed;
        replay.next_seq = page.next.unwrap_or(to);
        Ok(())
    }

    /// Reads and decides. Blocks on the disk.
    fn page(&self, replay: &Replay, to: u64, count: usize) -> Result<Page, Stop> {
        let shared = &self.shared;
        let table = shared.router.table();
        let rule = table.route(&replay.route);
        let rule = rule.ok_or_else(|| {
            Stop::Failed(format!("no rule has the route `{}` any more", replay.route))
        })?;
        let filter = replay.filter.as_deref().map(Pattern::parse).transpose();
        let filter = filter.map_err(|e| Stop::Failed(format!("the filter: {e}")))?;
        let mut page = Page::default();
        for event in shared.bus.read(replay.next_seq, count)? {
            if event.seq >= to {
                page.next = None;
                return Ok(page);
            }
            page.read += 1;
            page.bytes += event.payload.len();
            page.next = Some(event.seq + 1);
            // The clock may have been set back, so the range is not one of time.
            let within = event.accepted_ms >= replay.from_ms
                && replay.to_ms.is_none_or(|to| event.accepted_ms < to);
            let matches = |pattern| rules::matches(pattern, &event.payload).unwrap_or(false);
            if !within
                || *event.bus != *rule.bus
                || !matches(rule.pattern)
                || !filter.as_ref().is_none_or(matches)
            {
                continue;
            }
            let given = |d: &crate::bus::NewDelivery| d.route == rule.entry.route;
            if replay.name.starts_with(LATE_RULE) && event.deliveries.iter().any(given) {
                page.passed += 1;
                continue;
            }
            let key = match rule.entry.order_by {
                Some(_) => Event::parse(event.payload.clone())
                    .ok()
                    .and_then(|e| rule.key(&e)),
                None => None,
            };
            page.deliveries.push(Redelivery {
                seq: event.seq,
                key,
            });
        }
        Ok(page)
    }
}

async fn nap(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(PATIENCE) => {}
    }
}
