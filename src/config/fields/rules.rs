//! Rules, their targets, and webhooks.

use super::Kind::{Any, Bool, Choice, Duration, Integer, List, Table, Text, Texts};
use super::{AMQP_EXCHANGE, FieldSpec, RETRY, SNS_TOPIC, Shape, field};

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
pub(in crate::config) const TARGET_KINDS: [&str; 7] =
    ["queue", "handler", "topic", "bus", "webhook", "amqp", "sns"];
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
            "amqp",
            Table(&AMQP_EXCHANGE),
            "",
            "an exchange on an AMQP broker",
        ),
        field("sns", Table(&SNS_TOPIC), "", "a topic on Amazon SNS"),
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

const URL: FieldSpec = field("url", Text, "", "`http://` or `https://` address");
const SECRET: FieldSpec = field(
    "secret",
    Text,
    "",
    "signs requests in the shape of Standard Webhooks, `whsec_...` (default: unsigned)",
);
const HEADERS: FieldSpec = field("headers", Texts, "{}", "sent with every request");
const TIMEOUT: FieldSpec = field("timeout", Duration, "10s", "longest time for one request");
const ALLOW_PRIVATE: FieldSpec = field(
    "allow_private",
    Bool,
    "false",
    "allow addresses of private networks and of this machine",
);
const CONCURRENCY: FieldSpec = field(
    "concurrency",
    Integer(1, 1_000),
    "10",
    "requests at the same time",
);
const CIRCUIT_FIELD: FieldSpec = field(
    "circuit",
    Table(&CIRCUIT),
    "{}",
    "when nothing more is sent for a while",
);

pub(in crate::config) static WEBHOOK: Shape = Shape {
    title: "a webhook",
    fields: &[
        URL,
        SECRET,
        HEADERS,
        TIMEOUT,
        ALLOW_PRIVATE,
        CONCURRENCY,
        CIRCUIT_FIELD,
    ],
};

pub(in crate::config) static SUBSCRIBED_WEBHOOK: Shape = Shape {
    title: "a subscription's webhook",
    fields: &[
        URL,
        field(
            "format",
            Choice(&["standard", "raw", "sns"]),
            "standard",
            "`standard`: the message as JSON, with the headers of Standard Webhooks; `sns`: the message inside SNS's document; `raw`: the message with SNS's headers",
        ),
        field(
            "confirm",
            Bool,
            "",
            "the endpoint has to confirm the subscription before messages flow, as SNS's do (default: with `format: sns`)",
        ),
        SECRET,
        HEADERS,
        TIMEOUT,
        ALLOW_PRIVATE,
        CONCURRENCY,
        CIRCUIT_FIELD,
    ],
};

pub(in crate::config) static CIRCUIT: Shape = Shape {
    title: "`circuit`",
    fields: &[
        field(
            "failures",
            Integer(0, 1_000_000),
            "5",
            "failures in a row that open it; 0: it never opens",
        ),
        field(
            "pause",
            Duration,
            "10s",
            "how long nothing is sent; then one request goes out as a probe, and doubles it when it fails",
        ),
        field(
            "max_pause",
            Duration,
            "5m",
            "longest time that nothing is sent",
        ),
    ],
};
