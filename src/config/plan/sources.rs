//! Sources, as `plan` shows them.

use super::{Paths, backing};
use crate::config::model::Backing;
use crate::config::sources::{Notifications, S3Source, Source};
use crate::config::units::{format_duration, format_size};
use crate::sources::folder::{After, FolderOptions, Start};
use serde_json::{Value, json};

pub(super) fn source(source: &Source, paths: &Paths<'_>) -> Value {
    match source {
        Source::Folder(folder) => {
            json!({ "bus": folder.bus, "folder": folder_source(folder, paths) })
        }
        Source::S3(s3) => json!({ "bus": s3.options.bus, "s3": s3_source(s3) }),
        Source::Queue(queue) => {
            let mut value = json!({ "bus": queue.bus });
            backing(&queue.on, &mut value);
            let of_sqs = matches!(queue.on, Backing::Sqs { .. });
            let table = &mut value[if of_sqs { "sqs" } else { "amqp" }];
            if let Some(table) = table.as_object_mut() {
                // What is said of publishing does not concern a source.
                table.remove("max_message_size");
            }
            table["format"] = json!(queue.format);
            if of_sqs {
                table["visibility"] = json!(format_duration(queue.visibility));
            }
            value
        }
    }
}

fn start(start: &Start) -> String {
    match start {
        Start::All => "all".to_owned(),
        Start::Now => "now".to_owned(),
        Start::Since(ms) => crate::event::rfc3339(*ms),
    }
}

fn s3_source(source: &S3Source) -> Value {
    let s3 = &source.options;
    json!({
        "connection": source.connection,
        "bucket": s3.bucket,
        "prefix": s3.prefix,
        "include": s3.include,
        "exclude": s3.exclude,
        "every": format_duration(s3.every),
        "every_idle": format_duration(s3.every_idle),
        "reconcile": format_duration(s3.reconcile),
        "ordered": s3.ordered,
        "versions": s3.versions,
        "start": start(&s3.start),
        "deletes": s3.deletes,
        "forget_after": format_duration(s3.forget_after),
        "notifications": match &source.notifications {
            None => json!(null),
            Some(Notifications::Webhook) => json!("webhook"),
            Some(Notifications::From(name)) => json!({ "from": name }),
        },
        // What it costs: requests that list, a day, by the number of keys.
        "list_calls_a_day": {
            "up_to_1000_keys": s3.calls_a_day(1),
            "1000000_keys": s3.calls_a_day(1_000_000),
        },
    })
}

fn folder_source(folder: &FolderOptions, paths: &Paths<'_>) -> Value {
    json!({
        "path": paths.show(&folder.root),
        "include": folder.include,
        "exclude": folder.exclude,
        "hidden": folder.hidden,
        "recursive": folder.recursive,
        "follow_symlinks": folder.follow_symlinks,
        "finished": {
            "renamed_in": folder.finished.renamed_in,
            "quiet": format_duration(folder.finished.quiet),
            "done_marker": folder.finished.done_marker,
            "min_age": format_duration(folder.finished.min_age),
            "min_size": format_size(folder.finished.min_size),
            "trailer": folder.finished.trailer,
        },
        "reconcile": format_duration(folder.reconcile),
        "start": start(&folder.start),
        "content_hash": folder.content_hash,
        "deletes": folder.deletes,
        "moves": folder.moves,
        "forget_after": format_duration(folder.forget_after),
        "after": match &folder.after {
            After::Keep => json!("keep"),
            After::Delete => json!("delete"),
            After::Tag => json!("tag"),
            After::Move(to) => json!({ "move": paths.show(to) }),
        },
    })
}
