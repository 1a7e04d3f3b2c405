//! What can be said of a topic, as it is used.

use crate::delivery::RetryPolicy;
use crate::handlers::exec::ExecOptions;
use crate::handlers::http::WebhookOptions;
use crate::rules::Pattern;
use std::collections::BTreeMap;

/// A topic and who listens to it.
#[derive(Clone, Debug, Default)]
pub struct TopicOptions {
    /// Durable subscriptions by name.
    pub subscriptions: BTreeMap<String, SubscriptionOptions>,
}

/// A durable subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    /// Only messages whose `detail` matches are delivered (JSON text, compiled).
    pub filter: Option<Pattern>,
    /// How messages are delivered.
    pub protocol: Protocol,
    /// What happens after a failed delivery.
    pub retry: RetryPolicy,
}

/// How messages reach a subscriber.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// An HTTP POST.
    Webhook(WebhookOptions),
    /// A program.
    Exec(ExecOptions),
    /// Waits for `pointsman subscribe TOPIC --name NAME`.
    Pull,
}
