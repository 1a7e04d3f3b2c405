//! The only arrow that points left: what a handler wants to say becomes events
//! on the bus or messages on a topic, committed with the settling of its cause.

use crate::clock::SharedClock;
use crate::event::{Defaults, Event, EventBuilder, derived_id, random_id};
use crate::handlers::{Done, Failure};
use crate::queues::{Outgoing, Received};
use crate::topics;
use serde_json::{Map, Value, json};

/// Longest chain of causes; an event that would go beyond it is not sent, and
/// its cause goes to the dead-letter queue.
pub const MAX_HOPS: u8 = 32;

/// `source` of the events that handlers emit and of notices.
pub const SOURCE: &str = "pointsman";

/// Where a handler's notices go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// Topic that hears of each message that is done.
    pub success: Option<String>,
    /// Topic that hears of each message that went to the dead-letter queue.
    pub failure: Option<String>,
}

/// Makes events of what handlers say.
#[derive(Clone)]
pub struct Emitter {
    defaults: Defaults,
    clock: SharedClock,
}

impl Emitter {
    /// An emitter that fills in `defaults`.
    #[must_use]
    pub fn new(defaults: Defaults, clock: SharedClock) -> Self {
        Self { defaults, clock }
    }

    /// The events of a message that is done: what it emits, and the notice.
    ///
    /// # Errors
    /// Permanent failures: the chain of causes is too long, or what the handler
    /// emits is not an event.
    pub fn done(
        &self,
        handler: &str,
        notify: &Notify,
        message: &Received,
        done: &Done,
    ) -> Result<Vec<Outgoing>, Failure> {
        let cause = message.event.id();
        let by = match done.revision {
            0 => handler.to_owned(),
            n => format!("{handler}#{n}"),
        };
        let mut out = Vec::with_capacity(done.emits.len() + 1);
        let sends = !done.emits.is_empty() || done.forward.is_some();
        if sends && message.hops >= MAX_HOPS {
            return Err(Failure::permanent(
                "HopLimit",
                format!(
                    "the chain of causes that began with event `{}` has {MAX_HOPS} links; does a rule match what its own handler emits?",
                    message.root()
                ),
            ));
        }
        for (index, emit) in done.emits.iter().enumerate() {
            let event = self.event(
                derived_id(cause, &by, index),
                &emit.detail_type,
                emit.resources.clone(),
                emit.detail.clone(),
            )?;
            out.push(outgoing(message, message.bus.to_string(), event));
        }
        if let Some(forward) = &done.forward {
            out.push(outgoing(
                message,
                forward.bus.clone(),
                forward.event.clone(),
            ));
        }
        if let Some(topic) = &notify.success {
            let detail = self.notice(handler, message, "success", &done.summary);
            let event = self.event(
                derived_id(cause, &format!("{by}/success"), 0),
                "Handler Succeeded",
                Vec::new(),
                detail,
            )?;
            out.push(outgoing(message, topics::bus_of(topic), event));
        }
        Ok(out)
    }

    /// The notice of a message that was given up.
    #[must_use]
    pub fn dead(
        &self,
        handler: &str,
        notify: &Notify,
        message: &Received,
        failure: &Failure,
    ) -> Option<Outgoing> {
        let topic = notify.failure.as_ref()?;
        let error = json!({ "error": {
            "class": failure.class,
            "code": failure.code,
            "message": failure.message,
        }, "route": &*message.route, "attempts": message.attempt });
        let detail = self.notice(handler, message, "failure", &error);
        // A message that is redriven and fails again is news again, so the id is new.
        let event = self
            .event(random_id(), "Handler Failed", Vec::new(), detail)
            .ok()?;
        Some(outgoing(message, topics::bus_of(topic), event))
    }

    fn event(
        &self,
        id: String,
        detail_type: &str,
        resources: Vec<String>,
        detail: Value,
    ) -> Result<Event, Failure> {
        EventBuilder {
            id,
            source: SOURCE.to_owned(),
            detail_type: detail_type.to_owned(),
            time_ms: self.clock.now_ms(),
            resources,
            detail,
        }
        .build(&self.defaults)
        .map_err(|e| {
            Failure::permanent("BadEmit", "what the handler emits is not an event").caused_by(&e)
        })
    }

    /// A notice: who, what, which event; the handler's summary beside them, so
    /// that filter policies can use its members.
    fn notice(&self, handler: &str, message: &Received, status: &str, summary: &Value) -> Value {
        let mut detail: Map<String, Value> = summary.as_object().cloned().unwrap_or_default();
        detail.insert("handler".to_owned(), json!(handler));
        detail.insert("status".to_owned(), json!(status));
        detail.insert(
            "event".to_owned(),
            json!({
                "id": message.event.id(),
                "source": message.event.source(),
                "detail-type": message.event.detail_type(),
                "root": message.root(),
            }),
        );
        Value::Object(detail)
    }
}

fn outgoing(message: &Received, bus: String, event: Event) -> Outgoing {
    Outgoing {
        bus,
        event,
        cause: message.event.id().to_owned(),
        root: message.root().to_owned(),
        hops: message.hops.saturating_add(1),
    }
}
