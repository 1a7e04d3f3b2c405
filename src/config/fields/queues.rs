//! Queues, in the log and on brokers.

use super::Kind::{Bool, Choice, Duration, Integer, OneOf, Size, Table, Text};
use super::{FieldSpec, RETRY, Shape, field};

/// Fields that say which broker a queue is on.
pub(in crate::config) const BACKINGS: [&str; 2] = ["amqp", "sqs"];

pub(in crate::config) static QUEUE: Shape = Shape {
    title: "a queue",
    fields: &[
        field(
            "visibility",
            Duration,
            "",
            "how long a message that was received stays invisible (default: the longest timeout of its handlers, and 30s)",
        ),
        field(
            "delay",
            Duration,
            "0",
            "how long a new message waits before it can be received",
        ),
        field(
            "order_by",
            Text,
            "",
            "dotted path into the event, like `detail.customer`; equal values are handled one after the other",
        ),
        field(
            "retry",
            Table(&RETRY),
            "",
            "what happens after a failure (default: the handler's)",
        ),
        field(
            "amqp",
            Table(&AMQP_QUEUE),
            "",
            "the queue is on an AMQP broker (default: in the node's own log)",
        ),
        field("sqs", Table(&SQS_QUEUE), "", "the queue is on Amazon SQS"),
        field(
            "backlog",
            Choice(&["move", "drain"]),
            "",
            "what waits in the log when the queue goes to a broker: `move` publishes it there, `drain` has it handled here (default: move)",
        ),
        field(
            "drain_from",
            Table(&DRAIN_FROM),
            "",
            "the broker's queue that this one was before: what is left there is handled, too",
        ),
    ],
};

pub(in crate::config) static DRAIN_FROM: Shape = Shape {
    title: "`drain_from`",
    fields: &[
        field("amqp", Table(&AMQP_QUEUE), "", "a queue on an AMQP broker"),
        field("sqs", Table(&SQS_QUEUE), "", "a queue on Amazon SQS"),
    ],
};

const SQS_CONNECTION: FieldSpec = field("connection", Text, "", "name of an `aws` connection");
const SQS_DECLARE: FieldSpec = field(
    "declare",
    OneOf(&[Bool, Choice(&["passive"])]),
    "true",
    "`true`: it is made when it is missing; `passive`: it must be there",
);

pub(in crate::config) static SQS_QUEUE: Shape = Shape {
    title: "an SQS queue",
    fields: &[
        SQS_CONNECTION,
        field(
            "queue",
            Text,
            "",
            "its name or URL (default: the queue's own name, and `.fifo` with `order_by`)",
        ),
        SQS_DECLARE,
        field(
            "prefetch",
            Integer(1, 65_535),
            "",
            "received messages that wait for a handler at most (default: twice what its handlers work on at a time, at least 20)",
        ),
        field(
            "max_message_size",
            Size,
            "1008KiB",
            "largest body, at most 1008KiB; a larger one is kept in `data/claims` and referred to",
        ),
    ],
};

/// What the messages of a source are.
const FORMAT: FieldSpec = field(
    "format",
    Choice(&["event", "notification"]),
    "event",
    "what a message is: an `event` (any other body is wrapped), or a `notification` of an object store, which becomes the events that S3 sends to EventBridge",
);

pub(in crate::config) static SQS_SOURCE: Shape = Shape {
    title: "an SQS source",
    fields: &[
        SQS_CONNECTION,
        field(
            "queue",
            Text,
            "",
            "its name or URL (default: the source's own name)",
        ),
        FORMAT,
        SQS_DECLARE,
        field(
            "prefetch",
            Integer(1, 500),
            "500",
            "messages that are handed in together at most",
        ),
        field(
            "visibility",
            Duration,
            "60s",
            "how long received messages are hidden from others while they are handed in, at most 12h",
        ),
    ],
};

const AMQP_CONNECTION: FieldSpec = field("connection", Text, "", "name of an `amqp` connection");
const AMQP_DECLARE: FieldSpec = field(
    "declare",
    OneOf(&[Bool, Choice(&["passive"])]),
    "true",
    "`true`: it is made when it is missing, and must be as it would be made; `passive`: it must be there",
);
const AMQP_KIND: FieldSpec = field(
    "kind",
    Choice(&["quorum", "classic"]),
    "quorum",
    "kind of queue that is made",
);
const AMQP_DELIVERY_LIMIT: FieldSpec = field(
    "delivery_limit",
    Integer(1, 1_000_000),
    "",
    "how often the broker hands a message out before it takes it away (default: as the broker has it)",
);
const AMQP_DEAD_LETTER_EXCHANGE: FieldSpec = field(
    "dead_letter_exchange",
    Text,
    "",
    "exchange at the broker that gets what it takes away",
);
const AMQP_DEAD_LETTER_KEY: FieldSpec = field(
    "dead_letter_routing_key",
    Text,
    "",
    "routing key that it gets there (default: the one that it had)",
);

pub(in crate::config) static AMQP_QUEUE: Shape = Shape {
    title: "an AMQP queue",
    fields: &[
        AMQP_CONNECTION,
        field(
            "queue",
            Text,
            "",
            "its name at the broker (default: the queue's own name)",
        ),
        AMQP_DECLARE,
        AMQP_KIND,
        field(
            "prefetch",
            Integer(1, 65_535),
            "",
            "messages that are on their way to handlers at most (default: twice what its handlers work on at a time, at least 20)",
        ),
        AMQP_DELIVERY_LIMIT,
        AMQP_DEAD_LETTER_EXCHANGE,
        AMQP_DEAD_LETTER_KEY,
        field(
            "max_message_size",
            Size,
            "16MiB",
            "largest body; a larger one is kept in `data/claims` and referred to",
        ),
    ],
};

pub(in crate::config) static AMQP_SOURCE: Shape = Shape {
    title: "an AMQP source",
    fields: &[
        AMQP_CONNECTION,
        field(
            "queue",
            Text,
            "",
            "its name at the broker (default: the source's own name)",
        ),
        FORMAT,
        AMQP_DECLARE,
        AMQP_KIND,
        field(
            "prefetch",
            Integer(1, 65_535),
            "1000",
            "messages that the broker sends ahead of their acknowledgements at most",
        ),
        AMQP_DELIVERY_LIMIT,
        AMQP_DEAD_LETTER_EXCHANGE,
        AMQP_DEAD_LETTER_KEY,
    ],
};
