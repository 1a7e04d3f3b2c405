//! Topics, their subscriptions, and schedules.

use super::Kind::{Any, Choice, Duration, Names, Table, Text};
use super::{AMQP_EXCHANGE, EXEC, RETRY, SNS_TOPIC, SUBSCRIBED_WEBHOOK, Shape, TRANSFORMER, field};

pub(in crate::config) static TOPIC: Shape = Shape {
    title: "a topic",
    fields: &[field(
        "subscriptions",
        Names(&SUBSCRIPTION),
        "{}",
        "durable subscriptions",
    )],
};

/// Fields that say how messages reach a subscriber.
pub(in crate::config) const PROTOCOLS: [&str; 7] =
    ["webhook", "exec", "queue", "bus", "amqp", "sns", "pull"];

pub(in crate::config) static SUBSCRIPTION: Shape = Shape {
    title: "a subscription",
    fields: &[
        field(
            "webhook",
            Table(&SUBSCRIBED_WEBHOOK),
            "",
            "an HTTP endpoint",
        ),
        field("exec", Table(&EXEC), "", "a program"),
        field("queue", Text, "", "a declared queue"),
        field("bus", Text, "", "another bus"),
        field(
            "amqp",
            Table(&AMQP_EXCHANGE),
            "",
            "an exchange on an AMQP broker",
        ),
        field("sns", Table(&SNS_TOPIC), "", "a topic on Amazon SNS"),
        field(
            "pull",
            Table(&PULL),
            "",
            "waits for `pointsman subscribe TOPIC --name NAME`",
        ),
        field(
            "filter",
            Any,
            "",
            "pattern that messages must match (default: all)",
        ),
        field(
            "filter_on",
            Choice(&["body", "attributes"]),
            "body",
            "what `filter` looks at: the message's `detail`, or the members of the envelope around it",
        ),
        field(
            "input",
            Any,
            "",
            "a constant that the subscriber gets instead of the event",
        ),
        field(
            "input_path",
            Text,
            "",
            "JSONPath of the part that the subscriber gets",
        ),
        field(
            "input_transformer",
            Table(&TRANSFORMER),
            "",
            "a template that the subscriber gets",
        ),
        field(
            "retry",
            Table(&RETRY),
            "{}",
            "what happens after a failed delivery",
        ),
    ],
};

pub(in crate::config) static PULL: Shape = Shape {
    title: "`pull`",
    fields: &[],
};

pub(in crate::config) static SCHEDULE: Shape = Shape {
    title: "a schedule",
    fields: &[
        field(
            "cron",
            Text,
            "",
            "five fields: minute, hour, day, month, day of the week",
        ),
        field("every", Duration, "", "again and again, at least 1s"),
        field(
            "timezone",
            Text,
            "UTC",
            "IANA time zone that the cron line is read in",
        ),
        field("bus", Text, "default", "bus that the events go to"),
        field("emit", Table(&EMIT), "", "the event"),
    ],
};

pub(in crate::config) static EMIT: Shape = Shape {
    title: "`emit`",
    fields: &[
        field(
            "source",
            Text,
            "pointsman.schedule",
            "`source` of the event",
        ),
        field("detail-type", Text, "", "`detail-type` of the event"),
        field("detail", Any, "{}", "`detail` of the event, a table"),
    ],
};
