//! Rules, their targets, and webhooks.

use super::Kind::{Any, Bool, Duration, List, Table, Text, Texts};
use super::{RETRY, Shape, field};

pub(in crate::config) static RULE: Shape = Shape {
    title: "a rule",
    fields: &[
        field("description", Text, "", "for people"),
        field("bus", Text, "default", "bus that the rule listens on"),
        field("enabled", Bool, "true", "a disabled rule matches nothing"),
        field(
            "start",
            Text,
            "now",
            "which events of the log a new rule gets, once: `now` (none of them), `earliest`, or those accepted since a time",
        ),
        field(
            "pattern",
            Any,
            "",
            "an EventBridge event pattern, as YAML or JSON",
        ),
        field(
            "targets",
            List(&Table(&TARGET)),
            "",
            "where matching events go",
        ),
    ],
};

/// Fields that say where a target is.
pub(in crate::config) const TARGET_KINDS: [&str; 5] =
    ["queue", "handler", "topic", "bus", "webhook"];
/// Fields that say what a target gets.
pub(in crate::config) const INPUT_KINDS: [&str; 3] = ["input", "input_path", "input_transformer"];

pub(in crate::config) static TARGET: Shape = Shape {
    title: "a target",
    fields: &[
        field(
            "id",
            Text,
            "",
            "name within the rule (default: the name of the queue, handler, topic or bus)",
        ),
        field("queue", Text, "", "a declared queue"),
        field("handler", Text, "", "a declared handler"),
        field("topic", Text, "", "a declared topic"),
        field("bus", Text, "", "another bus"),
        field("webhook", Table(&WEBHOOK), "", "an HTTP endpoint"),
        field(
            "input",
            Any,
            "",
            "a constant that the target gets instead of the event",
        ),
        field(
            "input_path",
            Text,
            "",
            "JSONPath of the part that the target gets",
        ),
        field(
            "input_transformer",
            Table(&TRANSFORMER),
            "",
            "a template that the target gets",
        ),
        field(
            "retry",
            Table(&RETRY),
            "",
            "what happens after a failure (default: the queue's, then the handler's)",
        ),
    ],
};

pub(in crate::config) static TRANSFORMER: Shape = Shape {
    title: "`input_transformer`",
    fields: &[
        field(
            "paths",
            Texts,
            "{}",
            "variables: name -> JSONPath into the event",
        ),
        field(
            "template",
            Text,
            "",
            "text or JSON with `<name>` where a variable goes",
        ),
    ],
};

pub(in crate::config) static WEBHOOK: Shape = Shape {
    title: "a webhook",
    fields: &[
        field("url", Text, "", "`http://` or `https://` address"),
        field(
            "secret",
            Text,
            "",
            "signs requests in the shape of Standard Webhooks, `whsec_...` (default: unsigned)",
        ),
        field("headers", Texts, "{}", "sent with every request"),
        field("timeout", Duration, "10s", "longest time for one request"),
        field(
            "allow_private",
            Bool,
            "false",
            "allow addresses of private networks and of this machine",
        ),
    ],
};
