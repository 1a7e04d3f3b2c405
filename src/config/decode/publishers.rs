//! Exchanges of brokers and topics of other systems.

use super::ends::circuit;
use super::path;
use crate::config::fields;
use crate::config::publish::{PublishTo, RawPublish};
use crate::config::read::{Field, Table};
use crate::drivers::amqp::{Declare, ExchangeOptions, ExchangeType};
use crate::drivers::sns::TopicOptions;
use crate::error::{Diagnostic, codes};
use crate::handlers::circuit::CircuitOptions;
use crate::queues::{PUBLISHING_CIRCUIT, RoutingKey};

/// Longest name and longest routing key that AMQP takes, in bytes.
const MAX_NAME: usize = 255;

/// The routing key of an event, unless it is said.
const ROUTING_KEY: &str = "<source>.<detail-type>";

/// A publisher, whichever the field is named after.
pub(super) fn publisher(field: &Field<'_>) -> Option<RawPublish> {
    match field.name.as_str() {
        "amqp" => exchange(field),
        _ => topic(field),
    }
}

fn exchange(field: &Field<'_>) -> Option<RawPublish> {
    let table = field.table(&fields::AMQP_EXCHANGE)?;
    let size = table.get("max_message_size").and_then(|f| f.size());
    let written = table.get("routing_key");
    let routing_key = match &written {
        None => RoutingKey::parse(ROUTING_KEY).ok(),
        Some(field) => routing_key(field),
    };
    let order_by = table.get("order_by").and_then(|f| path(&f));
    let declare = [("true", Declare::Active), ("passive", Declare::Passive)];
    let declare = table.get("declare").and_then(|f| f.choice(&declare));
    let kind = table
        .get("kind")
        .and_then(|f| f.choice(&ExchangeType::WORDS));
    let circuit = publisher_circuit(&table);
    let connection = connection(&table);
    let name = table.need("exchange").and_then(|f| short(&f));
    Some(RawPublish {
        connection: connection?,
        to: PublishTo::Exchange {
            options: ExchangeOptions {
                exchange: name?,
                declare: declare.unwrap_or(Declare::Active),
                kind: kind.unwrap_or(ExchangeType::Topic),
                max_message_bytes: size
                    .and_then(|n| usize::try_from(n).ok())
                    .unwrap_or(16 << 20),
            },
            routing_key: routing_key?,
        },
        order_by,
        circuit,
    })
}

fn topic(field: &Field<'_>) -> Option<RawPublish> {
    let table = field.table(&fields::SNS_TOPIC)?;
    let order_by = table.get("order_by");
    let declare = [("true", true), ("passive", false)];
    let declare = table.get("declare").and_then(|f| f.choice(&declare));
    let circuit = publisher_circuit(&table);
    let connection = connection(&table);
    let name = table.need("topic").and_then(|f| f.string());
    if let (Some(order), Some(name)) = (&order_by, &name)
        && !name.ends_with(".fifo")
    {
        let message = "`order_by` needs a FIFO topic, whose name ends with `.fifo`";
        let diagnostic = Diagnostic::error(&codes::BAD_VALUE, message).at(order.place());
        field.report(diagnostic.hint("a standard topic of SNS keeps no order"));
    }
    Some(RawPublish {
        connection: connection?,
        order_by: order_by.and_then(|f| path(&f)),
        to: PublishTo::Topic(TopicOptions {
            topic: name?,
            declare: declare.unwrap_or(true),
        }),
        circuit,
    })
}

fn publisher_circuit(table: &Table<'_>) -> CircuitOptions {
    // One that never opened would ask whoever is away without a pause.
    let least = 1;
    let said = table.get("circuit");
    said.and_then(|f| circuit(&f, &fields::PUBLISHER_CIRCUIT, least, &PUBLISHING_CIRCUIT))
        .unwrap_or(PUBLISHING_CIRCUIT)
}

fn connection(table: &Table<'_>) -> Option<crate::config::read::At<String>> {
    let field = table.need("connection")?;
    field.string().map(|name| field.at(name))
}

fn short(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    if text.len() > MAX_NAME {
        let message = format!("AMQP allows {MAX_NAME} bytes for `{}`", field.name);
        field.report(field.error(&codes::BAD_VALUE, message));
        return None;
    }
    Some(text)
}

fn routing_key(field: &Field<'_>) -> Option<RoutingKey> {
    let text = short(field)?;
    match RoutingKey::parse(&text) {
        Ok(key) => Some(key),
        Err(reason) => {
            let message = format!("`routing_key` cannot be read: {reason}");
            let diagnostic = field.error(&codes::BAD_VALUE, message);
            field.report(diagnostic.hint("write it like `orders.<detail.region>.<detail-type>`"));
            None
        }
    }
}
