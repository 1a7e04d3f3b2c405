//! Every section and field, once: what is accepted, its default, its meaning.
//! Reading (unknown fields, "did you mean"), the JSON Schema for editors and
//! the reference in the documentation all come from these tables.

mod connections;
mod extract;
mod handlers;
mod outputs;
mod publishers;
mod queues;
mod rules;
mod s3;

pub(super) use connections::{AMQP, AWS, CONNECTION, CONNECTION_KINDS, POSTGRES, REDSHIFT, TLS};
pub(super) use extract::{
    API, AUTH, AUTH_KINDS, BASIC, CURSOR, EXTRACT, NUMBER, OAUTH2, OFFSET, OWN_HEADER, PAGES,
    PAGES_KINDS, SINCE,
};
pub(super) use handlers::{
    BATCH, EXEC, HANDLER, HANDLER_KINDS, LOAD, MAINTAIN, NOTIFY, READ, TRANSFORM, WRITE,
};
pub(super) use outputs::{EMIT, PROTOCOLS, PULL, SCHEDULE, SUBSCRIPTION, TOPIC};
pub(super) use publishers::{AMQP_EXCHANGE, PUBLISHER_CIRCUIT, PUBLISHERS, SNS_TOPIC};
pub(super) use queues::{
    AMQP_QUEUE, AMQP_SOURCE, BACKINGS, DRAIN_FROM, QUEUE, SQS_QUEUE, SQS_SOURCE,
};
pub(super) use rules::{
    CIRCUIT, INPUT_KINDS, RULE, SUBSCRIBED_WEBHOOK, TARGET, TARGET_KINDS, TRANSFORMER, WEBHOOK,
};
pub(super) use s3::{NOTIFICATIONS, S3, S3_FOLDER};

use Kind::{Bool, Choice, Duration, Integer, List, Names, OneOf, Size, Table, Text};

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

pub(super) const fn field(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> FieldSpec {
    FieldSpec {
        name,
        kind,
        default,
        doc,
    }
}

const TEXT: Kind = Text;
const TEXT_OR_LIST: Kind = OneOf(&[Text, List(&TEXT)]);

pub(super) static CONFIG: Shape = Shape {
    title: "the configuration",
    fields: &[
        field("node", Table(&NODE), "{}", "settings of the node itself"),
        field(
            "connections",
            Names(&CONNECTION),
            "{}",
            "addresses and credentials of other systems",
        ),
        field("sources", Names(&SOURCE), "{}", "where events come from"),
        field(
            "queues",
            Names(&QUEUE),
            "{}",
            "buffers between rules and handlers",
        ),
        field(
            "rules",
            Names(&RULE),
            "{}",
            "patterns, and where matching events go",
        ),
        field(
            "handlers",
            Names(&HANDLER),
            "{}",
            "what is done with events",
        ),
        field(
            "topics",
            Names(&TOPIC),
            "{}",
            "named outputs and who listens to them",
        ),
        field(
            "schedules",
            Names(&SCHEDULE),
            "{}",
            "events that come by the clock",
        ),
    ],
};

pub(super) static NODE: Shape = Shape {
    title: "`node`",
    fields: &[
        field(
            "data",
            Text,
            "data",
            "folder below which everything durable lies",
        ),
        field(
            "listen",
            OneOf(&[Text, Integer(0, 65_535)]),
            "127.0.0.1:7070",
            "address of the HTTP interface, or a port of this machine alone",
        ),
        field(
            "max_event_size",
            Size,
            "1MiB",
            "largest event, at most 16MiB",
        ),
        field(
            "retention",
            Duration,
            "7d",
            "how long events are kept in the log",
        ),
        field(
            "retention_size",
            Size,
            "",
            "when the log is larger, the oldest events go before their time; what waits or is dead stays (default: age alone decides)",
        ),
        field(
            "dedupe_window",
            Duration,
            "24h",
            "how long a repeated event id counts as the same event",
        ),
        field(
            "dead_letter_retention",
            Duration,
            "30d",
            "how long dead letters are kept",
        ),
        field(
            "warehouse",
            Table(&WAREHOUSE),
            "",
            "where the tables of the warehouse lie (default: in the data folder)",
        ),
        field(
            "disk",
            Table(&DISK),
            "{}",
            "marks on the space used below `data`",
        ),
        field(
            "memory",
            Table(&MEMORY),
            "{}",
            "marks on the memory of the log",
        ),
        field(
            "shutdown",
            Duration,
            "30s",
            "how long running work may take to finish when the program stops",
        ),
        field(
            "query_memory",
            Size,
            "256MiB",
            "memory of one query, merge or transform; above it they use the disk",
        ),
        field(
            "account",
            Text,
            "\"000000000000\"",
            "`account` of events that bring none",
        ),
        field(
            "region",
            Text,
            "local",
            "`region` of events that bring none",
        ),
        field(
            "public_url",
            Text,
            "",
            "where others reach the HTTP interface, for links in what is sent (default: the address of `listen`)",
        ),
    ],
};

pub(super) static WAREHOUSE: Shape = Shape {
    title: "`warehouse`",
    fields: &[field("s3", Table(&S3_FOLDER), "", "in a bucket")],
};

pub(super) static DISK: Shape = Shape {
    title: "`disk`",
    fields: &[
        field(
            "warn",
            Size,
            "",
            "above this a warning is logged (default: never)",
        ),
        field(
            "refuse",
            Size,
            "",
            "above this no more events are taken (default: never)",
        ),
    ],
};

pub(super) static MEMORY: Shape = Shape {
    title: "`memory`",
    fields: &[
        field(
            "intake",
            Size,
            "64MiB",
            "while so much waits to be written, no more events are taken",
        ),
        field(
            "waiting",
            Size,
            "1GiB",
            "while what waits on routes takes so much, no more events are taken (a ready message takes up to 2 bytes, a retried one 66)",
        ),
        field(
            "ids",
            Size,
            "512MiB",
            "event ids known within `dedupe_window`, 40 bytes each; above it the oldest are forgotten early, with a warning",
        ),
    ],
};

/// Fields of a source, of which it has one.
pub(super) const SOURCE_KINDS: [&str; 4] = ["folder", "s3", "amqp", "sqs"];

pub(super) static SOURCE: Shape = Shape {
    title: "a source",
    fields: &[
        field("bus", Text, "default", "bus that its events go to"),
        field("folder", Table(&FOLDER), "", "a watched folder"),
        field(
            "s3",
            Table(&S3),
            "",
            "a bucket of S3, or of what speaks its protocol",
        ),
        field("amqp", Table(&AMQP_SOURCE), "", "a queue on an AMQP broker"),
        field("sqs", Table(&SQS_SOURCE), "", "a queue on Amazon SQS"),
    ],
};

pub(super) static FOLDER: Shape = Shape {
    title: "a folder source",
    fields: &[
        field("path", Text, "", "the folder; made when missing"),
        field(
            "include",
            TEXT_OR_LIST,
            "[]",
            "globs of what is taken, on the path below the folder; empty: everything",
        ),
        field("exclude", TEXT_OR_LIST, "[]", "globs of what is left out"),
        field(
            "hidden",
            Bool,
            "false",
            "take hidden and temporary names (`.*`, `*.tmp`, `*.part`, `*~`, `*.swp`) too",
        ),
        field("recursive", Bool, "true", "look into folders below"),
        field(
            "follow_symlinks",
            Bool,
            "false",
            "follow symbolic links that stay inside the folder",
        ),
        field(
            "finished",
            Table(&FINISHED),
            "{}",
            "when a file counts as finished; all conditions must hold",
        ),
        field(
            "reconcile",
            Duration,
            "60s",
            "how often the whole folder is compared with the ledger",
        ),
        field(
            "start",
            Text,
            "all",
            "files that are there at the very first start: `all`, `now` (none of them), or those changed since a time",
        ),
        field(
            "content_hash",
            Bool,
            "false",
            "tell a touched file from a changed one by its content",
        ),
        field("deletes", Bool, "false", "also send `Object Deleted`"),
        field(
            "moves",
            Bool,
            "false",
            "also send `Object Moved` for a file that gets another name in the folder",
        ),
        field(
            "forget_after",
            Duration,
            "30d",
            "ledger entries of files that are gone are kept this long",
        ),
        field(
            "after",
            OneOf(&[Choice(&["keep", "delete", "tag"]), Table(&AFTER)]),
            "keep",
            "what happens to a file once all its deliveries are done; `tag`: the extended attribute `user.pointsman.done`, or a file `.pointsman-done-NAME` beside it, holds the id of its event",
        ),
    ],
};

pub(super) static FINISHED: Shape = Shape {
    title: "`finished`",
    fields: &[
        field(
            "renamed_in",
            Bool,
            "true",
            "a file that was renamed into the folder is taken at once",
        ),
        field(
            "quiet",
            Duration,
            "2s",
            "size and time must not have changed for this long",
        ),
        field(
            "done_marker",
            Text,
            "",
            "a file with this suffix must stand beside it, like `.done`",
        ),
        field(
            "min_age",
            Duration,
            "0",
            "the file must have been changed at least this long ago",
        ),
        field("min_size", Size, "1", "smallest size"),
        field(
            "trailer",
            Bool,
            "false",
            "a gzip or Parquet file waits until its trailer is there",
        ),
    ],
};

pub(super) static AFTER: Shape = Shape {
    title: "`after`",
    fields: &[field("move", Text, "", "folder that the file is moved to")],
};

pub(super) static RETRY: Shape = Shape {
    title: "`retry`",
    fields: &[
        field(
            "attempts",
            Integer(1, 1_000),
            "8",
            "attempts in all, the first included",
        ),
        field(
            "lost",
            Integer(1, 1_000),
            "16",
            "attempts without any answer, because the process died or the visibility timeout ran out",
        ),
        field(
            "base",
            Duration,
            "1s",
            "delay before the second attempt; doubles from there, with jitter",
        ),
        field("cap", Duration, "15m", "longest delay"),
        field(
            "max_age",
            Duration,
            "24h",
            "an older message is not tried again",
        ),
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
