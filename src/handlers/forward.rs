//! Hands a message on, as it is, to another bus or to a topic.

use super::{Context, Done, Handler, Message, Outcome};
use futures::future::BoxFuture;
use serde_json::json;

/// Forwards to a bus.
pub struct ForwardHandler {
    bus: String,
}

impl ForwardHandler {
    /// A handler that forwards to `bus`.
    #[must_use]
    pub fn new(bus: String) -> Self {
        Self { bus }
    }
}

impl Handler for ForwardHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], _: &'a Context) -> BoxFuture<'a, Outcome> {
        let done = || Done {
            forward_to: Some(self.bus.clone()),
            summary: json!({ "bus": self.bus }),
            ..Done::default()
        };
        let results = batch.iter().map(|_| Ok(done())).collect();
        Box::pin(std::future::ready(Outcome::each(results)))
    }
}
