//! Sends what did not meet its schema to the dead-letter queue.

use super::{Context, Failure, Handler, Message, Outcome};
use crate::event::Event;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Says how an event breaks its schema.
pub type Reason = Arc<dyn Fn(&Event) -> Option<String> + Send + Sync>;

/// Fails every message for good, with the reason.
pub struct RefuseHandler {
    reason: Reason,
}

impl RefuseHandler {
    /// A handler that fails messages for `reason`.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason }
    }
}

impl Handler for RefuseHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], _: &'a Context) -> BoxFuture<'a, Outcome> {
        let results = batch
            .iter()
            .map(|message| {
                let reason = (self.reason)(&message.event);
                let reason = reason
                    .unwrap_or_else(|| "it did not meet its schema when it arrived".to_owned());
                Err(Failure::permanent("SchemaMismatch", reason))
            })
            .collect();
        Box::pin(std::future::ready(Outcome::each(results)))
    }
}
