//! Buckets: as sources, and as places that tables are written to.

use super::folder::{globs, start};
use crate::config::fields;
use crate::config::read::{Field, Table};
use crate::config::sources::{Notifications, S3Source};
use crate::config::yaml::Node;
use crate::error::codes;
use crate::event::Defaults;
use crate::handlers::objects::BucketFolder;
use crate::sources::folder::Start;
use crate::sources::s3::S3SourceOptions;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(in crate::config) fn source(field: &Field<'_>, name: String, bus: String) -> Option<S3Source> {
    let table = field.table(&fields::S3)?;
    let bucket = bucket(&table);
    let globs = |name: &str| table.get(name).map(|f| globs(&f)).unwrap_or_default();
    let every = at_least_a_second(&table, "every", Duration::from_secs(30));
    let notifications = table.get("notifications").and_then(|f| notifications(&f));
    let options = S3SourceOptions {
        name,
        bus,
        prefix: prefix(&table),
        include: globs("include"),
        exclude: globs("exclude"),
        every,
        every_idle: table.duration_or("every_idle", every).max(every),
        reconcile: at_least_a_second(&table, "reconcile", Duration::from_secs(3600)),
        ordered: table.bool_or("ordered", false),
        versions: table.bool_or("versions", false),
        start: table
            .get("start")
            .and_then(|f| start(&f))
            .unwrap_or(Start::All),
        deletes: table.bool_or("deletes", false),
        forget_after: table.duration_or("forget_after", DAY * 30),
        notified: notifications.is_some(),
        defaults: Defaults::default(),
        bucket: bucket?,
    };
    Some(S3Source {
        connection: table.string("connection"),
        options,
        notifications,
    })
}

fn notifications(field: &Field<'_>) -> Option<Notifications> {
    match &field.item.node {
        Node::Scalar { .. } => field
            .choice(&[("webhook", ())])
            .map(|()| Notifications::Webhook),
        _ => field
            .table(&fields::NOTIFICATIONS)?
            .need("from")?
            .string()
            .map(Notifications::From),
    }
}

fn at_least_a_second(table: &Table<'_>, name: &str, default: Duration) -> Duration {
    let duration = table.duration_or(name, default);
    if let Some(field) = table.get(name)
        && duration < Duration::from_secs(1)
    {
        let message = format!("`{name}` must be at least `1s`");
        field.report(field.error(&codes::BAD_VALUE, message));
    }
    duration
}

/// A place in a bucket that tables are written to.
pub(in crate::config) fn folder(field: &Field<'_>) -> Option<BucketFolder> {
    let table = field.table(&fields::S3_FOLDER)?;
    let bucket = bucket(&table);
    Some(BucketFolder {
        connection: table.string("connection"),
        prefix: prefix(&table).trim_matches('/').to_owned(),
        bucket: bucket?,
    })
}

fn prefix(table: &Table<'_>) -> String {
    let prefix = table.get("prefix").and_then(|f| f.text());
    prefix.map_or_else(String::new, |text| text.reveal().to_owned())
}

/// A bucket's name, by the rules of S3
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
fn bucket(table: &Table<'_>) -> Option<String> {
    let field = table.need("bucket")?;
    let name = field.string()?;
    let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if (3..=63).contains(&name.len()) && name.bytes().all(fit) {
        return Some(name);
    }
    let message = format!("`{name}` cannot be the name of a bucket");
    let diagnostic = field.error(&codes::BAD_VALUE, message);
    field.report(diagnostic.hint(
        "the name alone, without `s3://`: 3 to 63 lower-case letters, digits, `-` and `.`; a path in it goes into `prefix`",
    ));
    None
}
