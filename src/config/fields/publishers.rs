//! Where messages are published to: exchanges of brokers, topics of other systems.

use super::Kind::{Bool, Choice, Duration, Integer, OneOf, Size, Table, Text};
use super::{FieldSpec, Shape, field};

/// Fields of a target or subscription that name a publisher.
pub(in crate::config) const PUBLISHERS: [&str; 2] = ["amqp", "sns"];

const CIRCUIT: FieldSpec = field(
    "circuit",
    Table(&PUBLISHER_CIRCUIT),
    "{}",
    "when nothing is published for a while, because the other side takes nothing",
);

pub(in crate::config) static PUBLISHER_CIRCUIT: Shape = Shape {
    title: "`circuit` of an exchange or topic elsewhere",
    fields: &[
        field(
            "failures",
            Integer(1, 1_000_000),
            "1",
            "batches in a row of which nothing is taken that open it",
        ),
        field(
            "pause",
            Duration,
            "1s",
            "how long nothing is published; then one batch goes out as a probe, and doubles it when it fails",
        ),
        field(
            "max_pause",
            Duration,
            "30s",
            "longest time that nothing is published",
        ),
    ],
};

pub(in crate::config) static AMQP_EXCHANGE: Shape = Shape {
    title: "an AMQP exchange",
    fields: &[
        field("connection", Text, "", "name of an `amqp` connection"),
        field("exchange", Text, "", "its name at the broker"),
        field(
            "declare",
            OneOf(&[Bool, Choice(&["passive"])]),
            "true",
            "`true`: it is made when it is missing, and must be as it would be made; `passive`: it must be there",
        ),
        field(
            "kind",
            Choice(&["topic", "direct", "fanout"]),
            "topic",
            "type of exchange that is made",
        ),
        field(
            "routing_key",
            Text,
            "<source>.<detail-type>",
            "what the exchange sorts by: text with dotted paths into the event in angle brackets, like `orders.<detail.region>`",
        ),
        field(
            "order_by",
            Text,
            "",
            "dotted path into the event, like `detail.customer`; equal values are published one after the other",
        ),
        field(
            "max_message_size",
            Size,
            "16MiB",
            "largest body; a larger one is dead-lettered",
        ),
        CIRCUIT,
    ],
};

pub(in crate::config) static SNS_TOPIC: Shape = Shape {
    title: "an SNS topic",
    fields: &[
        field("connection", Text, "", "name of an `aws` connection"),
        field(
            "topic",
            Text,
            "",
            "its name or ARN; one that ends with `.fifo` is a FIFO topic",
        ),
        field(
            "declare",
            OneOf(&[Bool, Choice(&["passive"])]),
            "true",
            "`true`: it is made when it is missing; `passive`: it must be there",
        ),
        field(
            "order_by",
            Text,
            "",
            "dotted path into the event, like `detail.customer`: the message group of a FIFO topic (default: each message is a group of its own)",
        ),
        CIRCUIT,
    ],
};
