//! What a message is: an event, something to be wrapped, or a notification.

use crate::event::{Defaults, Event};
use crate::queues::{Inbound, event_of, refused_event};
use crate::sources::notifications::{self, Notice};
use serde::Serialize;

/// What the messages of a queue are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Events; any other body is wrapped in one.
    #[default]
    Event,
    /// Notifications of an object store, in any of the shapes of
    /// [`notifications`].
    Notification,
}

/// Reads messages of one queue.
pub struct Reader<'a> {
    /// The queue, for people.
    pub from: &'a str,
    /// What events get that leave it out.
    pub defaults: &'a Defaults,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

impl Reader<'_> {
    /// The events of a message; none for a notification that concerns no object.
    ///
    /// # Errors
    /// When it cannot be read, with the reason.
    pub fn events(&self, message: &Inbound, format: Format) -> Result<Vec<Event>, String> {
        match format {
            Format::Event => {
                let body = &message.body;
                let event = event_of(message, body, self.from, self.defaults, self.now_ms);
                event.map(|event| vec![event]).map_err(|e| e.to_string())
            }
            Format::Notification => {
                let now_ms = message.sent_ms.unwrap_or(self.now_ms);
                match notifications::read(&message.body, self.defaults, now_ms) {
                    Ok(Notice::Objects(events)) => Ok(events),
                    Ok(Notice::Confirm(url)) => Err(format!(
                        "SNS asks whether its messages are wanted; opening this URL says so: {url}"
                    )),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }

    /// The event that says why a message was refused.
    ///
    /// # Errors
    /// When even without the body it is too large for an event.
    pub fn refusal(&self, message: &Inbound, reason: &str) -> Result<Event, String> {
        refused_event(message, self.from, reason, self.defaults, self.now_ms)
            .map_err(|e| e.to_string())
    }
}
