//! Topics and subscriptions, SNS-style. A topic is a bus of its own in the log
//! (`topic/NAME`); a durable subscription is a route from it, with its filter
//! policy as the rule's pattern, so messages wait for a subscriber that is away
//! and end in its dead-letter queue when it cannot be reached.
//!
//! Whether an endpoint wants its messages at all is its [`Standing`]: it may have
//! to confirm first, and it can end the subscription by itself.

mod links;
mod signer;
mod sns;
mod standing;
mod subscriber;

pub use links::Links;
pub use signer::{Signer, SignerError};
pub use sns::{Sns, Style, TopicName, string_to_sign, topic_arn};
pub use standing::{Refused, Standing, State, Subscription, Subscriptions, Terms};
pub use subscriber::Subscriber;

/// What the names of topics' buses begin with.
pub const BUS_PREFIX: &str = "topic/";

/// The bus that holds a topic's messages.
#[must_use]
pub fn bus_of(topic: &str) -> String {
    format!("{BUS_PREFIX}{topic}")
}

/// The route that leads to a subscription.
#[must_use]
pub fn route_of(topic: &str, subscription: &str) -> String {
    format!("{BUS_PREFIX}{topic}/{subscription}")
}

/// What a filter policy looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterOn {
    /// The message's body: the event's `detail`.
    #[default]
    Body,
    /// The message's attributes: all other members of the envelope.
    Attributes,
}

/// The pattern of a subscription: its filter policy, put where it applies.
#[must_use]
pub fn pattern_of(filter: Option<&str>, on: FilterOn) -> String {
    match (filter, on) {
        (Some(filter), FilterOn::Body) => format!(r#"{{"detail":{filter}}}"#),
        (Some(filter), FilterOn::Attributes) => filter.to_owned(),
        (None, _) => r#"{"detail-type":[{"exists":true}]}"#.to_owned(),
    }
}
