//! Events that come by the clock. An event's id is computed from the schedule
//! and the time that it was due, so two nodes or a restart send it once.

use crate::clock::SharedClock;
use crate::config::{Schedule, When};
use crate::event::{Defaults, EventBuilder, derived_id};
use crate::sources::{Incoming, Intake};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest sleep at a time, so that a clock that jumps is noticed.
const NAP: Duration = Duration::from_secs(30);

/// Sends a schedule's events until `stop`.
pub(super) async fn run(
    name: String,
    schedule: Schedule,
    intake: Arc<dyn Intake>,
    defaults: Defaults,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let mut after = clock.now_ms();
    while let Some(due) = next(&schedule.when, after) {
        loop {
            let left = due.saturating_sub(clock.now_ms());
            if left <= 0 {
                break;
            }
            let nap = NAP.min(Duration::from_millis(left.unsigned_abs()));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(nap) => {}
            }
        }
        send(&name, &schedule, due, &*intake, &defaults, &stop).await;
        after = due;
    }
}

/// The next time it is due after `after`, in Unix milliseconds.
fn next(when: &When, after: i64) -> Option<i64> {
    match when {
        When::Every(every) => {
            let every = i64::try_from(every.as_millis()).ok()?.max(1);
            // Whole multiples since 1970, so that a restart keeps the beat.
            Some((after / every + 1) * every)
        }
        When::Cron { cron, timezone, .. } => {
            let after = DateTime::<Utc>::from_timestamp_millis(after)?.with_timezone(timezone);
            let next = cron.find_next_occurrence(&after, false).ok()?;
            Some(next.timestamp_millis())
        }
    }
}

async fn send(
    name: &str,
    schedule: &Schedule,
    due: i64,
    intake: &dyn Intake,
    defaults: &Defaults,
    stop: &CancellationToken,
) {
    let built = EventBuilder {
        id: derived_id(&format!("schedule/{name}"), &due.to_string(), 0),
        source: schedule.source.clone(),
        detail_type: schedule.detail_type.clone(),
        time_ms: due,
        resources: vec![format!("schedule/{name}")],
        detail: schedule.detail.clone(),
    }
    .build(defaults);
    let event = match built {
        Ok(event) => Arc::new(event),
        Err(error) => {
            tracing::error!(schedule = name, %error, "its event cannot be built");
            return;
        }
    };
    loop {
        let incoming = Incoming {
            event: Arc::clone(&event),
            bus: schedule.bus.as_str().into(),
            cursor: None,
        };
        match intake.take(vec![incoming]).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(schedule = name, %error, "waits to be taken"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_keeps_its_beat_over_restarts() {
        let every = When::Every(Duration::from_secs(60));
        assert_eq!(next(&every, 59_999), Some(60_000));
        assert_eq!(next(&every, 60_000), Some(120_000));
    }
}
