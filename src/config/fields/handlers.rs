//! Handlers.

use super::Kind::{Bool, Choice, Duration, Integer, List, Number, OneOf, Size, Table, Text, Texts};
use super::{EXTRACT, FieldSpec, RETRY, S3_FOLDER, Shape, TEXT, TEXT_OR_LIST, WEBHOOK, field};

/// Fields that say what a handler does.
pub(in crate::config) const HANDLER_KINDS: [&str; 6] =
    ["transform", "extract", "load", "maintain", "exec", "http"];

pub(in crate::config) static HANDLER: Shape = Shape {
    title: "a handler",
    fields: &[
        field(
            "from",
            TEXT_OR_LIST,
            "",
            "queues that it reads; none when rules name the handler itself",
        ),
        field(
            "batch",
            Table(&BATCH),
            "{}",
            "how messages are put together",
        ),
        field(
            "concurrency",
            Integer(1, 1_024),
            "4",
            "batches handled at the same time",
        ),
        field("timeout", Duration, "15m", "longest time for one batch"),
        field(
            "rate",
            Number,
            "",
            "messages per second at most (default: as fast as it goes)",
        ),
        field("retry", Table(&RETRY), "{}", "what happens after a failure"),
        field(
            "notify",
            Table(&NOTIFY),
            "{}",
            "topics that hear of its work",
        ),
        field(
            "transform",
            Table(&TRANSFORM),
            "",
            "reads records, checks them, runs SQL, writes files",
        ),
        field(
            "extract",
            Table(&EXTRACT),
            "",
            "fetches records from an API whenever an event comes, usually a schedule's",
        ),
        field("load", Table(&LOAD), "", "brings files into a table"),
        field(
            "maintain",
            Table(&MAINTAIN),
            "",
            "keeps a table in order whenever an event comes, usually a schedule's",
        ),
        field("exec", Table(&EXEC), "", "runs a program"),
        field("http", Table(&WEBHOOK), "", "calls an HTTP endpoint"),
    ],
};

pub(in crate::config) static BATCH: Shape = Shape {
    title: "`batch`",
    fields: &[
        field("size", Integer(1, 10_000), "1", "most messages"),
        field("bytes", Size, "6MiB", "most bytes of events"),
        field(
            "window",
            Duration,
            "0",
            "how long to wait for a full batch after the first message, at most 15m",
        ),
        field(
            "by",
            Text,
            "",
            "dotted path into the event, like `detail.merchant`: a batch has messages of one value there, and several are open at once",
        ),
    ],
};

pub(in crate::config) static NOTIFY: Shape = Shape {
    title: "`notify`",
    fields: &[
        field(
            "success",
            Text,
            "",
            "topic for each message that was handled",
        ),
        field(
            "failure",
            Text,
            "",
            "topic for each message that went to the dead-letter queue",
        ),
    ],
};

pub(super) const READ_FIELD: FieldSpec = field(
    "read",
    Table(&READ),
    "{}",
    "where the records come from and how they are checked",
);
pub(super) const TABLES: FieldSpec = field(
    "tables",
    Texts,
    "{}",
    "reference tables for the SQL: name -> CSV or Parquet file, `lake:TABLE` or `warehouse:TABLE`",
);
pub(super) const VIEWS: FieldSpec = field(
    "views",
    Texts,
    "{}",
    "named steps before the query: name -> SQL over `input`, the tables and the views above it",
);
pub(super) const PARAMS: FieldSpec = field(
    "params",
    Texts,
    "{}",
    "parameters of the SQL, `$name`: JSONPaths into the event; bound as text, never pasted",
);
pub(super) const SQL: FieldSpec = field(
    "sql",
    Text,
    "",
    "the query over the table `input` (default: records pass as they are)",
);
pub(super) const WRITE_FIELD: FieldSpec =
    field("write", Table(&WRITE), "", "where the result goes");

pub(in crate::config) static TRANSFORM: Shape = Shape {
    title: "a transform",
    fields: &[READ_FIELD, TABLES, VIEWS, PARAMS, SQL, WRITE_FIELD],
};

pub(in crate::config) static READ: Shape = Shape {
    title: "`read`",
    fields: &[
        field(
            "input",
            Choice(&["object", "events", "publication"]),
            "object",
            "`object`: each event names a file of records; `events`: the details of the batch are the records; `publication`: each event is the `Analytics Ready` of another table",
        ),
        field(
            "format",
            Choice(&["csv", "ndjson", "json", "parquet"]),
            "",
            "format of the file (default: by its name)",
        ),
        field(
            "encoding",
            Text,
            "utf-8",
            "encoding of text, like `latin1` or `utf-16le`; a byte order mark in the file has the last word",
        ),
        field(
            "delimiter",
            Text,
            "\",\"",
            "field delimiter of CSV, one character or `\\t`",
        ),
        field("quote", Text, "'\"'", "quote of CSV, one character"),
        field(
            "escape",
            Text,
            "",
            "character that lets a quote stand inside quotes, like `\\` (default: a quote is doubled)",
        ),
        field(
            "comment",
            Text,
            "",
            "CSV lines that start with this character are passed over",
        ),
        field(
            "skip",
            Integer(0, 1_000_000),
            "0",
            "CSV lines that are passed over before the header",
        ),
        field("header", Bool, "true", "whether CSV has a header line"),
        field(
            "names",
            TEXT_OR_LIST,
            "[]",
            "names of the CSV columns, instead of those of the header",
        ),
        field(
            "duplicates",
            Choice(&["refuse", "rename"]),
            "refuse",
            "a CSV header with a name twice: the file fails, or the second becomes `NAME_2`",
        ),
        field(
            "ragged",
            Choice(&["reject", "fill"]),
            "reject",
            "CSV records with too few or too many fields: set aside, or missing ones are null and surplus empty ones left out",
        ),
        field(
            "null",
            TEXT_OR_LIST,
            "[]",
            "texts that mean null in CSV, besides the empty field",
        ),
        field(
            "members",
            TEXT_OR_LIST,
            "[]",
            "globs of the members of a tar or zip archive that are read (default: all files)",
        ),
        field(
            "max_unpacked",
            Size,
            "1TiB",
            "most bytes that a packed file may unpack to",
        ),
        field(
            "schema",
            Text,
            "",
            "file of the JSON Schema that each record must meet",
        ),
        field(
            "drift",
            Choice(&["fail", "widen", "rescue", "quarantine"]),
            "",
            "when a file's columns are not the known ones: it fails; new columns are added; what does not fit goes into `_rescued`; it is set aside whole (default: missing required columns fail it, unknown ones are left out)",
        ),
        field(
            "reject_limit",
            OneOf(&[Integer(0, u64::MAX), Text]),
            "100%",
            "more rejects than this fail the whole file: a number, or a share like `1%`",
        ),
    ],
};

pub(in crate::config) static WRITE: Shape = Shape {
    title: "`write`",
    fields: &[
        field("table", Text, "", "name of the table in the lake"),
        field(
            "format",
            Choice(&["parquet", "ndjson", "csv"]),
            "parquet",
            "format of the files",
        ),
        field(
            "partition_by",
            TEXT_OR_LIST,
            "[]",
            "columns that become folders, outermost first",
        ),
        field(
            "target_size",
            Size,
            "128MiB",
            "a file is closed at about this size",
        ),
        field(
            "max_open_files",
            Integer(1, 16_384),
            "1024",
            "most files that are begun and not finished at once; with fewer than there are partitions, a partition gets several files",
        ),
        field(
            "s3",
            Table(&S3_FOLDER),
            "",
            "a bucket that the files are written to (default: the lake in the data folder)",
        ),
    ],
};

pub(in crate::config) static LOAD: Shape = Shape {
    title: "a load",
    fields: &[
        field(
            "to",
            Text,
            "",
            "Postgres or Redshift connection whose database has the table (default: the built-in warehouse)",
        ),
        field(
            "table",
            Text,
            "",
            "name of the table; in a database `SCHEMA.TABLE`",
        ),
        field(
            "mode",
            Choice(&["append", "upsert", "replace-partition"]),
            "append",
            "`append` adds rows, `upsert` replaces those with the same key, `replace-partition` all those of the same partitions",
        ),
        field("key", TEXT_OR_LIST, "", "columns of the key, for `upsert`"),
        field(
            "newer_by",
            Text,
            "",
            "column that grows with time, for `upsert`: a row does not replace one that has more there",
        ),
        field(
            "partition_by",
            TEXT_OR_LIST,
            "",
            "columns that tell partitions apart, for `replace-partition`",
        ),
        field(
            "create",
            Bool,
            "false",
            "make the table in the database if it is missing; the built-in warehouse always does",
        ),
        field(
            "widen",
            Bool,
            "false",
            "add columns that the table in the database lacks, and in Postgres widen types; the built-in warehouse always adds columns",
        ),
        field(
            "statement_timeout",
            Duration,
            "15m",
            "longest time for one statement in the database",
        ),
    ],
};

pub(in crate::config) static MAINTAIN: Shape = Shape {
    title: "`maintain`",
    fields: &[
        field("lake", Text, "", "name of a table of the lake"),
        field("warehouse", Text, "", "or of a table of the warehouse"),
        field(
            "small",
            Size,
            "32MiB",
            "lake: Parquet files below this size are put together, by day and partition",
        ),
        field(
            "target_size",
            Size,
            "128MiB",
            "lake: into files of about this size",
        ),
        field(
            "keep",
            Duration,
            "",
            "lake: publications older than this go (default: they stay); warehouse: versions older than this go (default: 7d)",
        ),
        field(
            "grace",
            Duration,
            "7d",
            "lake: files that are not needed any more are removed after this time",
        ),
    ],
};

pub(in crate::config) static EXEC: Shape = Shape {
    title: "`exec`",
    fields: &[
        field(
            "command",
            List(&TEXT),
            "",
            "the program and its arguments; no shell",
        ),
        field(
            "env",
            Texts,
            "{}",
            "the only environment variables it sees, besides `PATH`",
        ),
        field("cwd", Text, ".", "working folder"),
    ],
};
