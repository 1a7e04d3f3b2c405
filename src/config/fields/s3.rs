//! Buckets: as sources, and as places that tables are written to.

use super::Kind::{Bool, Choice, Duration, OneOf, Table, Text};
use super::{Shape, TEXT_OR_LIST, field};

pub(in crate::config) static S3: Shape = Shape {
    title: "an S3 source",
    fields: &[
        field(
            "connection",
            Text,
            "",
            "an `aws` connection (default: as AWS's own tools find region and credentials)",
        ),
        field("bucket", Text, "", "the bucket"),
        field("prefix", Text, "\"\"", "only keys that begin so"),
        field(
            "include",
            TEXT_OR_LIST,
            "[]",
            "globs of what is taken, on the key after the prefix; empty: everything",
        ),
        field("exclude", TEXT_OR_LIST, "[]", "globs of what is left out"),
        field(
            "every",
            Duration,
            "30s",
            "pause between two listings; longer where a listing takes more than a third of it",
        ),
        field(
            "every_idle",
            Duration,
            "",
            "the pause grows up to this while nothing new comes (default: `every`)",
        ),
        field(
            "reconcile",
            Duration,
            "1h",
            "how often everything is listed, with `ordered` keys or with notifications",
        ),
        field(
            "ordered",
            Bool,
            "false",
            "new keys sort behind old ones, so that a listing begins 1,000 keys before the last one known; what comes elsewhere is found by `reconcile`",
        ),
        field(
            "versions",
            Bool,
            "false",
            "each version of a versioned bucket is an event, not only the newest at the time of a listing",
        ),
        field(
            "start",
            Text,
            "all",
            "objects that are there at the very first start: `all`, `now` (none of them), or those written since a time",
        ),
        field("deletes", Bool, "false", "also send `Object Deleted`"),
        field(
            "forget_after",
            Duration,
            "30d",
            "ledger entries of objects that are gone are kept this long",
        ),
        field(
            "notifications",
            OneOf(&[Choice(&["webhook"]), Table(&NOTIFICATIONS)]),
            "",
            "how the bucket's notifications come; then everything is listed every `reconcile` only. `webhook`: they are posted to `/sources/NAME/notifications`",
        ),
    ],
};

pub(in crate::config) static NOTIFICATIONS: Shape = Shape {
    title: "`notifications`",
    fields: &[field(
        "from",
        Text,
        "",
        "a source with `format: notification` that brings them; several buckets may share one",
    )],
};

pub(in crate::config) static S3_FOLDER: Shape = Shape {
    title: "`s3`",
    fields: &[
        field(
            "connection",
            Text,
            "",
            "an `aws` connection (default: as AWS's own tools find region and credentials)",
        ),
        field("bucket", Text, "", "the bucket"),
        field("prefix", Text, "\"\"", "the folder in it, above the tables"),
    ],
};
