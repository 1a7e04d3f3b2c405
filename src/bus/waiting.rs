//! What waits for the writers: taken in order, as much as one commit holds.

use std::time::{Duration, Instant};

use super::core::{Core, Queue, Request, Work, lock, relaxed_weight};
use super::error::BusError;

/// How long to wait before a full disk is tried again for what nobody waits for.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(50);

/// Waits for work; `None` at the end.
pub(super) fn next(core: &Core) -> Option<Vec<Request>> {
    let mut queue = lock(&core.queue);
    let mut since: Option<Instant> = None;
    loop {
        let due = queue.urgent > 0 || queue.relaxed >= core.options.relaxed_count || queue.closing;
        if queue.requests.is_empty() {
            if queue.closing || core.poisoned().is_some() {
                return None;
            }
            since = None;
            queue = core
                .queue_signal
                .wait(queue)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        }
        let waited = since.get_or_insert_with(Instant::now).elapsed();
        let Some(left) = core
            .options
            .relaxed_delay
            .checked_sub(waited)
            .filter(|l| !l.is_zero() && !due)
        else {
            return Some(take(core, &mut queue));
        };
        queue = core
            .queue_signal
            .wait_timeout(queue, left)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0;
    }
}

fn take(core: &Core, queue: &mut Queue) -> Vec<Request> {
    let mut taken = Vec::new();
    let (mut events, mut bytes) = (0, 0);
    while let Some(request) = queue.requests.front() {
        let count = match &request.work {
            Work::Plan(_) if !taken.is_empty() => break,
            Work::Plan(_) => 0,
            Work::Commit { events, .. } => events.len(),
        };
        let over = events + count > core.options.commit_events
            || bytes + request.bytes > core.options.commit_bytes;
        if over && !taken.is_empty() && count > 0 {
            break;
        }
        let Some(request) = queue.requests.pop_front() else {
            break;
        };
        events += count;
        bytes += request.bytes;
        queue.bytes -= request.bytes;
        if request.relaxed {
            queue.relaxed -= relaxed_weight(&request);
        } else {
            queue.urgent -= 1;
        }
        let alone = matches!(request.work, Work::Plan(_));
        taken.push(request);
        if alone {
            break;
        }
    }
    taken
}

/// Puts relaxed settlements back that a full disk did not take. Whoever waits behind
/// them is told of the full disk rather than left waiting.
pub(super) fn retry_later(core: &Core, again: Vec<Request>, error: &BusError) {
    let mut queue = lock(&core.queue);
    let mut waiting = std::mem::take(&mut queue.requests);
    (queue.urgent, queue.relaxed, queue.bytes) = (0, 0, 0);
    if queue.closing {
        // Unwritten settlements mean one more delivery, which a restart gives anyway.
        return;
    }
    waiting.retain_mut(|request| {
        if request.relaxed {
            return true;
        }
        if let Work::Commit { ended, .. } = &request.work {
            super::settle::unsettle(core, ended);
        }
        if let Some(reply) = request.reply.take() {
            let _ = reply.send(Err(error.clone()));
        }
        false
    });
    for request in again.into_iter().rev() {
        waiting.push_front(request);
    }
    queue.relaxed = waiting.iter().map(relaxed_weight).sum();
    queue.bytes = waiting.iter().map(|r| r.bytes).sum();
    queue.requests = waiting;
    drop(queue);
    std::thread::sleep(FULL_DISK_PAUSE);
}
