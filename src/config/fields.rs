//! Every section and field, once: what is accepted, its default, its meaning.
//! Reading (unknown fields, "did you mean"), the JSON Schema for editors and
//! the reference in the documentation all come from these tables.

use Kind::{Any, Bool, Choice, Duration, Integer, List, Names, Number, OneOf, Size, Table, Text, Texts};

/// What a field takes.
pub(super) enum Kind {
    /// Text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number from the first to the second.
    Integer(u64, u64),
    /// A number above 0.
    Number,
    /// `5s`, `1h30m`.
    Duration,
    /// `64MiB`, `10MB`, bytes.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A table with these fields.
    Table(&'static Shape),
    /// A table from names to tables with these fields.
    Names(&'static Shape),
    /// A table from names to texts.
    Texts,
    /// A list.
    List(&'static Kind),
    /// One of these.
    OneOf(&'static [Kind]),
    /// Any value.
    Any,
}

/// A table with a known set of fields.
pub(super) struct Shape {
    /// How messages call it.
    pub title: &'static str,
    pub fields: &'static [FieldSpec],
}

/// A field.
pub(super) struct FieldSpec {
    pub name: &'static str,
    pub kind: Kind,
    /// The default as written in YAML; empty: none, or as the text says.
    pub default: &'static str,
    pub doc: &'static str,
}

pub(super) const fn field(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> FieldSpec {
    FieldSpec { name, kind, default, doc }
}

const TEXT: Kind = Text;
const TEXT_OR_LIST: Kind = OneOf(&[Text, List(&TEXT)]);

pub(super) static CONFIG: Shape = Shape {
    title: "the configuration",
    fields: &[
        field("node", Table(&NODE), "{}", "settings of the node itself"),
        field("connections", Names(&CONNECTION), "{}", "addresses and credentials of other systems"),
        field("sources", Names(&SOURCE), "{}", "where events come from"),
        field("queues", Names(&QUEUE), "{}", "buffers between rules and handlers"),
        field("rules", Names(&RULE), "{}", "patterns, and where matching events go"),
        field("handlers", Names(&HANDLER), "{}", "what is done with events"),
        field("topics", Names(&TOPIC), "{}", "named outputs and who listens to them"),
        field("schedules", Names(&SCHEDULE), "{}", "events that come by the clock"),
    ],
};

pub(super) static CONNECTION: Shape = Shape { title: "a connection", fields: &[] };

pub(super) static NODE: Shape = Shape {
    title: "`node`",
    fields: &[
        field("data", Text, "data", "folder below which everything durable lies"),
        field("listen", OneOf(&[Text, Integer(0, 65_535)]), "127.0.0.1:7070", "address of the HTTP interface, or a port of this machine alone"),
        field("max_event_size", Size, "1MiB", "largest event, at most 16MiB"),
        field("retention", Duration, "7d", "how long events are kept in the log"),
        field("dedupe_window", Duration, "24h", "how long a repeated event id counts as the same event"),
        field("dead_letter_retention", Duration, "30d", "how long dead letters are kept"),
        field("disk", Table(&DISK), "{}", "marks on the space used below `data`"),
        field("shutdown", Duration, "30s", "how long running work may take to finish when the program stops"),
        field("query_memory", Size, "256MiB", "memory of one query, merge or transform; above it they use the disk"),
        field("account", Text, "\"000000000000\"", "`account` of events that bring none"),
        field("region", Text, "local", "`region` of events that bring none"),
    ],
};

pub(super) static DISK: Shape = Shape {
    title: "`disk`",
    fields: &[
        field("warn", Size, "", "above this a warning is logged (default: never)"),
        field("refuse", Size, "", "above this no more events are taken (default: never)"),
    ],
};

pub(super) static SOURCE: Shape = Shape {
    title: "a source",
    fields: &[
        field("bus", Text, "default", "bus that its events go to"),
        field("folder", Table(&FOLDER), "", "a watched folder"),
    ],
};

pub(super) static FOLDER: Shape = Shape {
    title: "a folder source",
    fields: &[
        field("path", Text, "", "the folder; made when missing"),
        field("include", TEXT_OR_LIST, "[]", "globs of what is taken, on the path below the folder; empty: everything"),
        field("exclude", TEXT_OR_LIST, "[]", "globs of what is left out"),
        field("hidden", Bool, "false", "take hidden and temporary names (`.*`, `*.tmp`, `*.part`, `*~`, `*.swp`) too"),
        field("recursive", Bool, "true", "look into folders below"),
        field("follow_symlinks", Bool, "false", "follow symbolic links that stay inside the folder"),
        field("finished", Table(&FINISHED), "{}", "when a file counts as finished; all conditions must hold"),
        field("reconcile", Duration, "60s", "how often the whole folder is compared with the ledger"),
        field("start", Text, "all", "files that are there at the very first start: `all`, `now` (none of them), or those changed since a time"),
        field("content_hash", Bool, "false", "tell a touched file from a changed one by its content"),
        field("deletes", Bool, "false", "also send `Object Deleted`"),
        field("forget_after", Duration, "30d", "ledger entries of files that are gone are kept this long"),
        field("after", OneOf(&[Choice(&["keep", "delete"]), Table(&AFTER)]), "keep", "what happens to a file once all its deliveries are done"),
    ],
};

pub(super) static FINISHED: Shape = Shape {
    title: "`finished`",
    fields: &[
        field("renamed_in", Bool, "true", "a file that was renamed into the folder is taken at once"),
        field("quiet", Duration, "2s", "size and time must not have changed for this long"),
        field("done_marker", Text, "", "a file with this suffix must stand beside it, like `.done`"),
        field("min_age", Duration, "0", "the file must have been changed at least this long ago"),
        field("min_size", Size, "1", "smallest size"),
        field("trailer", Bool, "true", "gzip and Parquet files must have their trailer"),
    ],
};

pub(super) static AFTER: Shape = Shape {
    title: "`after`",
    fields: &[field("move", Text, "", "folder that the file is moved to")],
};

pub(super) static QUEUE: Shape = Shape {
    title: "a queue",
    fields: &[
        field("visibility", Duration, "", "how long a message that was received stays invisible (default: the longest timeout of its handlers, and 30s)"),
        field("delay", Duration, "0", "how long a new message waits before it can be received"),
        field("order_by", Text, "", "dotted path into the event, like `detail.customer`; equal values are handled one after the other"),
        field("retry", Table(&RETRY), "", "what happens after a failure (default: the handler's)"),
    ],
};

pub(super) static RETRY: Shape = Shape {
    title: "`retry`",
    fields: &[
        field("attempts", Integer(1, 1_000), "8", "attempts in all, the first included"),
        field("base", Duration, "1s", "delay before the second attempt; doubles from there, with jitter"),
        field("cap", Duration, "15m", "longest delay"),
        field("max_age", Duration, "24h", "an older message is not tried again"),
    ],
};

pub(super) static RULE: Shape = Shape {
    title: "a rule",
    fields: &[
        field("description", Text, "", "for people"),
        field("bus", Text, "default", "bus that the rule listens on"),
        field("enabled", Bool, "true", "a disabled rule matches nothing"),
        field("pattern", Any, "", "an EventBridge event pattern, as YAML or JSON"),
        field("targets", List(&Table(&TARGET)), "", "where matching events go"),
    ],
};

/// Fields that say where a target is.
pub(super) const TARGET_KINDS: [&str; 5] = ["queue", "handler", "topic", "bus", "webhook"];
/// Fields that say what a target gets.
pub(super) const INPUT_KINDS: [&str; 3] = ["input", "input_path", "input_transformer"];

pub(super) static TARGET: Shape = Shape {
    title: "a target",
    fields: &[
        field("id", Text, "", "name within the rule (default: the name of the queue, handler, topic or bus)"),
        field("queue", Text, "", "a declared queue"),
        field("handler", Text, "", "a declared handler"),
        field("topic", Text, "", "a declared topic"),
        field("bus", Text, "", "another bus"),
        field("webhook", Table(&WEBHOOK), "", "an HTTP endpoint"),
        field("input", Any, "", "a constant that the target gets instead of the event"),
        field("input_path", Text, "", "JSONPath of the part that the target gets"),
        field("input_transformer", Table(&TRANSFORMER), "", "a template that the target gets"),
        field("retry", Table(&RETRY), "", "what happens after a failure (default: the queue's, then the handler's)"),
    ],
};

pub(super) static TRANSFORMER: Shape = Shape {
    title: "`input_transformer`",
    fields: &[
        field("paths", Texts, "{}", "variables: name -> JSONPath into the event"),
        field("template", Text, "", "text or JSON with `<name>` where a variable goes"),
    ],
};

pub(super) static WEBHOOK: Shape = Shape {
    title: "a webhook",
    fields: &[
        field("url", Text, "", "`http://` or `https://` address"),
        field("secret", Text, "", "signs requests in the shape of Standard Webhooks, `whsec_...` (default: unsigned)"),
        field("headers", Texts, "{}", "sent with every request"),
        field("timeout", Duration, "10s", "longest time for one request"),
        field("allow_private", Bool, "false", "allow addresses of private networks and of this machine"),
    ],
};

/// Fields that say what a handler does.
pub(super) const HANDLER_KINDS: [&str; 4] = ["transform", "load", "exec", "http"];

pub(super) static HANDLER: Shape = Shape {
    title: "a handler",
    fields: &[
        field("from", TEXT_OR_LIST, "", "queues that it reads; none when rules name the handler itself"),
        field("batch", Table(&BATCH), "{}", "how messages are put together"),
        field("concurrency", Integer(1, 1_024), "4", "batches handled at the same time"),
        field("timeout", Duration, "15m", "longest time for one batch"),
        field("rate", Number, "", "messages per second at most (default: as fast as it goes)"),
        field("retry", Table(&RETRY), "{}", "what happens after a failure"),
        field("notify", Table(&NOTIFY), "{}", "topics that hear of its work"),
        field("transform", Table(&TRANSFORM), "", "reads records, checks them, runs SQL, writes files"),
        field("load", Table(&LOAD), "", "brings files into a table"),
        field("exec", Table(&EXEC), "", "runs a program"),
        field("http", Table(&WEBHOOK), "", "calls an HTTP endpoint"),
    ],
};

pub(super) static BATCH: Shape = Shape {
    title: "`batch`",
    fields: &[
        field("size", Integer(1, 10_000), "1", "most messages"),
        field("bytes", Size, "6MiB", "most bytes of events"),
        field("window", Duration, "0", "how long to wait for a full batch after the first message, at most 15m"),
    ],
};

pub(super) static NOTIFY: Shape = Shape {
    title: "`notify`",
    fields: &[
        field("success", Text, "", "topic for each message that was handled"),
        field("failure", Text, "", "topic for each message that went to the dead-letter queue"),
    ],
};

pub(super) static TRANSFORM: Shape = Shape {
    title: "a transform",
    fields: &[
        field("read", Table(&READ), "{}", "where the records come from and how they are checked"),
        field("tables", Texts, "{}", "reference tables for the SQL: name -> CSV or Parquet file"),
        field("sql", Text, "", "the query over the table `input` (default: records pass as they are)"),
        field("write", Table(&WRITE), "", "where the result goes"),
    ],
};

pub(super) static READ: Shape = Shape {
    title: "`read`",
    fields: &[
        field("input", Choice(&["object", "events"]), "object", "`object`: each event names a file of records; `events`: the details of the batch are the records"),
        field("format", Choice(&["csv", "ndjson", "json", "parquet"]), "", "format of the file (default: by its name)"),
        field("delimiter", Text, "\",\"", "field delimiter of CSV, one character or `\\t`"),
        field("quote", Text, "'\"'", "quote of CSV, one character"),
        field("header", Bool, "true", "whether CSV has a header line"),
        field("null", TEXT_OR_LIST, "[]", "texts that mean null in CSV, besides the empty field"),
        field("schema", Text, "", "file of the JSON Schema that each record must meet"),
        field("reject_limit", OneOf(&[Integer(0, u64::MAX), Text]), "100%", "more rejects than this fail the whole file: a number, or a share like `1%`"),
    ],
};

pub(super) static WRITE: Shape = Shape {
    title: "`write`",
    fields: &[
        field("table", Text, "", "name of the table in the lake"),
        field("format", Choice(&["parquet", "ndjson", "csv"]), "parquet", "format of the files"),
        field("partition_by", TEXT_OR_LIST, "[]", "columns that become folders, outermost first"),
        field("target_size", Size, "128MiB", "a file is closed at about this size"),
        field("max_open_files", Integer(1, 1_024), "64", "most files open at once"),
    ],
};

pub(super) static LOAD: Shape = Shape {
    title: "a load",
    fields: &[
        field("table", Text, "", "name of the table in the warehouse"),
        field("mode", Choice(&["append", "upsert"]), "append", "`append` adds rows, `upsert` replaces those with the same key"),
        field("key", TEXT_OR_LIST, "", "columns of the key, for `upsert`"),
    ],
};

pub(super) static EXEC: Shape = Shape {
    title: "`exec`",
    fields: &[
        field("command", List(&TEXT), "", "the program and its arguments; no shell"),
        field("env", Texts, "{}", "the only environment variables it sees, besides `PATH`"),
        field("cwd", Text, ".", "working folder"),
    ],
};

pub(super) static TOPIC: Shape = Shape {
    title: "a topic",
    fields: &[field("subscriptions", Names(&SUBSCRIPTION), "{}", "durable subscriptions")],
};

/// Fields that say how messages reach a subscriber.
pub(super) const PROTOCOLS: [&str; 3] = ["webhook", "exec", "pull"];

pub(super) static SUBSCRIPTION: Shape = Shape {
    title: "a subscription",
    fields: &[
        field("webhook", Table(&WEBHOOK), "", "an HTTP endpoint"),
        field("exec", Table(&EXEC), "", "a program"),
        field("pull", Table(&PULL), "", "waits for `pointsman subscribe TOPIC --name NAME`"),
        field("filter", Any, "", "pattern on the message's `detail`"),
        field("retry", Table(&RETRY), "{}", "what happens after a failed delivery"),
    ],
};

pub(super) static PULL: Shape = Shape { title: "`pull`", fields: &[] };

pub(super) static SCHEDULE: Shape = Shape {
    title: "a schedule",
    fields: &[
        field("cron", Text, "", "five fields: minute, hour, day, month, day of the week"),
        field("every", Duration, "", "again and again, at least 1s"),
        field("timezone", Text, "UTC", "IANA time zone that the cron line is read in"),
        field("bus", Text, "default", "bus that the events go to"),
        field("emit", Table(&EMIT), "", "the event"),
    ],
};

pub(super) static EMIT: Shape = Shape {
    title: "`emit`",
    fields: &[
        field("source", Text, "pointsman.schedule", "`source` of the event"),
        field("detail-type", Text, "", "`detail-type` of the event"),
        field("detail", Any, "{}", "`detail` of the event, a table"),
    ],
};

#[cfg(test)]
thread_local! {
    static READS: std::cell::RefCell<std::collections::BTreeSet<(&'static str, String)>> = const {
        std::cell::RefCell::new(std::collections::BTreeSet::new())
    };
}

/// Notes that the reader asked for a field, for the test that every field of
/// these tables is read.
#[cfg(test)]
pub(super) fn note_read(shape: &'static Shape, name: &str) {
    READS.with_borrow_mut(|reads| reads.insert((shape.title, name.to_owned())));
}

/// Fields that were asked for on this thread, by the title of their shape.
#[cfg(test)]
pub(super) fn reads() -> std::collections::BTreeSet<(&'static str, String)> {
    READS.with_borrow(Clone::clone)
}
