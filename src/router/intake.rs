//! Where sources hand their events in.

use super::{Breach, Policy, Router, Table};
use crate::bus::{BusError, NewDelivery, NewEvent, Reading};
use crate::sources::{Incoming, Intake, IntakeError, Taken};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Most payload bytes in one call of the bus.
const PART_BYTES: usize = 8 * 1024 * 1024;

impl Intake for Router {
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>> {
        Box::pin(self.take_batch(batch))
    }
}

impl Router {
    async fn take_batch(&self, batch: Vec<Incoming>) -> Result<Vec<Taken>, IntakeError> {
        loop {
            let table = self.table();
            match self.take_by(&table, &batch).await {
                // The rules changed between deciding and storing; what was stored
                // already is a duplicate when it comes again.
                Err(BusError::RetiredRoute(_)) if !Arc::ptr_eq(&table, &self.table()) => {}
                answer => return answer.map_err(refusal),
            }
        }
    }

    async fn take_by(&self, table: &Table, batch: &[Incoming]) -> Result<Vec<Taken>, BusError> {
        let mut answers: Vec<Option<Taken>> = Vec::with_capacity(batch.len());
        let mut events: Vec<NewEvent> = Vec::with_capacity(batch.len());
        for incoming in batch {
            match admit(table, incoming) {
                Err(reason) => answers.push(Some(Taken::Refused(reason))),
                Ok(deliveries) => {
                    events.push(NewEvent {
                        bus: Arc::clone(&incoming.bus),
                        root: None,
                        id: incoming.event.id().to_owned(),
                        payload: incoming.event.text().clone(),
                        cause: None,
                        hops: 0,
                        cursor: incoming.cursor.clone(),
                        rules_version: table.version(),
                        deliveries,
                        reading: Reading::of(Arc::clone(&incoming.event)),
                    });
                    answers.push(None);
                }
            }
        }
        let mut accepted = Vec::with_capacity(events.len());
        for part in parts(events) {
            accepted.extend(self.bus.accept(part).await?);
        }
        let mut accepted = accepted.into_iter();
        Ok(answers
            .into_iter()
            .map(|answer| {
                answer.unwrap_or_else(|| match accepted.next() {
                    Some(a) if a.duplicate => Taken::Duplicate(a.seq),
                    Some(a) => Taken::Accepted(a.seq),
                    None => Taken::Refused("the bus gave no answer for it".to_owned()),
                })
            })
            .collect())
    }
}

/// Splits a batch so that no part is larger than one call of the bus may be. A
/// batch that stops between two parts is sent again whole; what is there already
/// is then a duplicate.
fn parts(events: Vec<NewEvent>) -> Vec<Vec<NewEvent>> {
    let mut parts: Vec<Vec<NewEvent>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        if parts.is_empty() || bytes + event.payload.len() > PART_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += event.payload.len();
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
}

/// The deliveries of an event that may come in.
fn admit(table: &Table, incoming: &Incoming) -> Result<Vec<NewDelivery>, String> {
    let event = &incoming.event;
    if let Some(breach) = table.breach(event) {
        let Breach {
            path,
            reason,
            policy,
            route,
        } = breach;
        match (policy, route) {
            (Policy::Reject, _) => return Err(format!("{path}: {reason}")),
            (Policy::DeadLetter, Some(route)) => return Ok(vec![NewDelivery::to(route)]),
            _ => tracing::warn!(event = event.id(), path, reason, "does not meet its schema"),
        }
    }
    table
        .deliveries(&incoming.bus, event)
        .map_err(|e| e.to_string())
}

fn refusal(error: BusError) -> IntakeError {
    match error {
        BusError::Refused {
            reason,
            retry_after,
            overloaded,
        } => IntakeError::Busy {
            reason,
            retry_after,
            overloaded,
        },
        error if error.is_temporary() => IntakeError::Busy {
            reason: error.to_string(),
            retry_after: Duration::from_secs(1),
            overloaded: false,
        },
        error => IntakeError::Stopped(error.to_string()),
    }
}
