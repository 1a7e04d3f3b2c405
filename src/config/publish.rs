//! Publishers: where a target or a subscription sends messages for the subscribers
//! of another system.

use super::read::At;
use super::units::{format_duration, format_size};
use crate::drivers::amqp::{Declare, ExchangeOptions};
use crate::drivers::sns::TopicOptions;
use crate::handlers::circuit::CircuitOptions;
use crate::queues::RoutingKey;
use serde_json::{Value, json};

/// An exchange of a broker, or a topic of another system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Name of the connection.
    pub connection: String,
    /// What is published to.
    pub to: PublishTo,
    /// Dotted path into the event; messages with equal values there are published
    /// one after the other (default: no order).
    pub order_by: Option<String>,
    /// When nothing is published for a while, because the other side takes nothing.
    pub circuit: CircuitOptions,
}

/// What is published to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishTo {
    /// An exchange on an AMQP broker.
    Exchange {
        /// The exchange.
        options: ExchangeOptions,
        /// What it sorts by.
        routing_key: RoutingKey,
    },
    /// A topic on Amazon SNS.
    Topic(TopicOptions),
}

impl Publish {
    /// The kind's name, as in the YAML.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.to {
            PublishTo::Exchange { .. } => "amqp",
            PublishTo::Topic(_) => "sns",
        }
    }

    /// For people: `rabbit/orders`.
    #[must_use]
    pub fn address(&self) -> String {
        let name = match &self.to {
            PublishTo::Exchange { options, .. } => &options.exchange,
            PublishTo::Topic(options) => &options.topic,
        };
        format!("{}/{name}", self.connection)
    }

    /// With every default visible, in the YAML's own shape.
    pub(super) fn plan(&self) -> Value {
        let declare = |made: bool| if made { json!(true) } else { json!("passive") };
        let mut value = match &self.to {
            PublishTo::Exchange {
                options,
                routing_key,
            } => json!({
                "exchange": options.exchange,
                "declare": declare(options.declare == Declare::Active),
                "kind": options.kind.name(),
                "routing_key": routing_key.as_str(),
                "max_message_size": format_size(options.max_message_bytes as u64),
            }),
            PublishTo::Topic(options) => json!({
                "topic": options.topic,
                "declare": declare(options.declare),
            }),
        };
        value["connection"] = json!(self.connection);
        value["order_by"] = json!(self.order_by);
        value["circuit"] = plan_circuit(&self.circuit);
        value
    }
}

/// With every default visible, in the YAML's own shape.
pub(super) fn plan_circuit(circuit: &CircuitOptions) -> Value {
    json!({
        "failures": circuit.failures,
        "pause": format_duration(circuit.pause),
        "max_pause": format_duration(circuit.max_pause),
    })
}

/// As it was written: its connection is not looked up yet.
pub(super) struct RawPublish {
    pub connection: At<String>,
    pub to: PublishTo,
    pub order_by: Option<String>,
    pub circuit: CircuitOptions,
}
