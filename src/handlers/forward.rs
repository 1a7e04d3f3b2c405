//! Hands a message on to another bus or to a topic. Where the rule's target has
//! an input of its own, that takes the place of `detail`.

use super::{Context, Done, Failure, Forward, Handler, Message, Outcome};
use crate::event::Event;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

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

    fn forward(&self, message: &Message) -> Result<Done, Failure> {
        let event = match &message.input {
            None => message.event.as_ref().clone(),
            Some(input) => with_detail(&message.event, input)?,
        };
        Ok(Done {
            forward: Some(Forward {
                bus: self.bus.clone(),
                event,
            }),
            summary: json!({ "bus": self.bus }),
            ..Done::default()
        })
    }
}

impl Handler for ForwardHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], _: &'a Context) -> BoxFuture<'a, Outcome> {
        let results = batch.iter().map(|message| self.forward(message)).collect();
        Box::pin(std::future::ready(Outcome::each(results)))
    }
}

/// The envelope of `event` with `input` as its `detail`; an input that is not an
/// object becomes `{"message": input}`.
fn with_detail(event: &Event, input: &[u8]) -> Result<Event, Failure> {
    let bad = |e: &dyn std::error::Error| {
        Failure::permanent(
            "BadInput",
            "the target's input cannot be the `detail` of an event",
        )
        .caused_by(e)
    };
    let mut envelope: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(event.text()).map_err(|e| bad(&e))?;
    let input: Box<RawValue> = serde_json::from_slice(input).map_err(|e| bad(&e))?;
    let detail = if input.get().starts_with('{') {
        input
    } else {
        serde_json::value::to_raw_value(&json!({ "message": input })).map_err(|e| bad(&e))?
    };
    envelope.insert("detail".to_owned(), detail);
    let text = serde_json::to_vec(&envelope).map_err(|e| bad(&e))?;
    Event::parse(Bytes::from(text)).map_err(|e| bad(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_takes_the_place_of_the_detail() {
        let text = r#"{"version":"0","id":"a","detail-type":"T","source":"s","account":"1","time":"2013-01-01T10:00:00Z","region":"r","resources":[],"detail":{"x":1}}"#;
        let event = Event::parse(Bytes::from_static(text.as_bytes())).unwrap();
        let changed = with_detail(&event, br#"{"y":2.50}"#).unwrap();
        assert_eq!(
            (changed.id(), changed.detail_text()),
            ("a", r#"{"y":2.50}"#)
        );
        let said = with_detail(&event, br#""done""#).unwrap();
        assert_eq!(said.detail_text(), r#"{"message":"done"}"#);
        assert!(with_detail(&event, b"no JSON").is_err());
    }
}
