//! Topics and subscriptions, SNS-style. A topic is a bus of its own in the log
//! (`topic/NAME`); a durable subscription is a route from it, with its filter
//! policy as the rule's pattern, so messages wait for a subscriber that is away
//! and end in its dead-letter queue when it cannot be reached.

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

/// The pattern of a subscription: its filter policy applies to the message,
/// which is the event's `detail`.
#[must_use]
pub fn pattern_of(filter: Option<&str>) -> String {
    match filter {
        Some(filter) => format!(r#"{{"detail":{filter}}}"#),
        None => r#"{"detail-type":[{"exists":true}]}"#.to_owned(),
    }
}
