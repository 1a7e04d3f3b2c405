//! Event types whose `detail` is checked when they arrive.

use crate::bus::RouteId;
use crate::event::Event;
use std::sync::Arc;

/// What happens to an event that does not meet its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is refused, with the reason.
    Reject,
    /// It is taken, and put into the dead-letter queue.
    DeadLetter,
    /// It is taken, and the reason is logged.
    Warn,
}

/// An event type and the schema of its `detail`.
#[derive(Clone)]
pub struct TypeSchema {
    /// `source` of the events.
    pub source: String,
    /// `detail-type` of the events.
    pub detail_type: String,
    /// What happens to those that do not meet it.
    pub policy: Policy,
    /// The schema, compiled.
    pub validator: Arc<jsonschema::Validator>,
    /// The route to the dead-letter queue, where the policy needs one.
    pub route: Option<RouteId>,
}

/// How an event breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Path of the member concerned, from the top of the envelope.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// What is to happen.
    pub policy: Policy,
    /// The route to the dead-letter queue.
    pub route: Option<RouteId>,
}

impl TypeSchema {
    /// How `event` breaks this schema; `None` if it is of another type or all is well.
    #[must_use]
    pub fn breach(&self, event: &Event) -> Option<Breach> {
        if event.source() != self.source || event.detail_type() != self.detail_type {
            return None;
        }
        let detail = event.detail();
        let error = self.validator.iter_errors(&detail).next()?;
        let pointer = error.instance_path().to_string();
        Some(Breach {
            path: format!("detail{}", pointer.replace('/', ".")),
            reason: error.to_string(),
            policy: self.policy,
            route: self.route,
        })
    }
}
