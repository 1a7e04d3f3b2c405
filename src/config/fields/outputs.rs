//! Topics, their subscriptions, and schedules.

use super::Kind::{Any, Duration, Names, Table, Text};
use super::{EXEC, RETRY, Shape, WEBHOOK, field};

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
pub(in crate::config) const PROTOCOLS: [&str; 3] = ["webhook", "exec", "pull"];

pub(in crate::config) static SUBSCRIPTION: Shape = Shape {
    title: "a subscription",
    fields: &[
        field("webhook", Table(&WEBHOOK), "", "an HTTP endpoint"),
        field("exec", Table(&EXEC), "", "a program"),
        field(
            "pull",
            Table(&PULL),
            "",
            "waits for `pointsman subscribe TOPIC --name NAME`",
        ),
        field("filter", Any, "", "pattern on the message's `detail`"),
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
