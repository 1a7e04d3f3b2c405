//! Folder sources.

use crate::config::fields;
use crate::config::model::DEFAULT_BUS;
use crate::config::raw::{RawBacking, RawSource};
use crate::config::read::Field;
use crate::config::sources::Source;
use crate::config::yaml::Node;
use crate::error::codes;
use crate::sources::folder::{After, Finished, FolderOptions, Start};
use chrono::{DateTime, NaiveDate};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(in crate::config) fn source(field: &Field<'_>) -> Option<RawSource> {
    let table = field.table(&fields::SOURCE)?;
    let bus = table
        .bus()
        .map_or_else(|| DEFAULT_BUS.to_owned(), |bus| bus.value);
    let kind = table.one_of(&fields::SOURCE_KINDS)?;
    let name = field.name.clone();
    match kind.name.as_str() {
        "folder" => folder_options(&kind, name, bus)
            .map(Source::Folder)
            .map(RawSource::Whole),
        "s3" => super::s3::source(&kind, name, bus).map(|s3| RawSource::Whole(Source::S3(s3))),
        "sqs" => {
            let (sqs, reading) = super::queues::sqs_source(&kind)?;
            let on = RawBacking::Sqs(sqs);
            Some(RawSource::Queue { bus, on, reading })
        }
        _ => {
            let (amqp, reading) = super::queues::amqp_source(&kind)?;
            let on = RawBacking::Amqp(amqp);
            Some(RawSource::Queue { bus, on, reading })
        }
    }
}

fn folder_options(field: &Field<'_>, name: String, bus: String) -> Option<FolderOptions> {
    let table = field.table(&fields::FOLDER)?;
    let root = table.need("path").and_then(|f| f.path());
    let globs = |name: &str| table.get(name).map(|f| globs(&f)).unwrap_or_default();
    let start = table
        .get("start")
        .and_then(|f| start(&f))
        .unwrap_or(Start::All);
    let options = FolderOptions {
        name,
        bus,
        include: globs("include"),
        exclude: globs("exclude"),
        hidden: table.bool_or("hidden", false),
        recursive: table.bool_or("recursive", true),
        follow_symlinks: table.bool_or("follow_symlinks", false),
        finished: finished(table.get("finished")),
        reconcile: table.duration_or("reconcile", Duration::from_secs(60)),
        start,
        content_hash: table.bool_or("content_hash", false),
        deletes: table.bool_or("deletes", false),
        moves: table.bool_or("moves", false),
        forget_after: table.duration_or("forget_after", DAY * 30),
        after: table
            .get("after")
            .and_then(|f| after(&f))
            .unwrap_or(After::Keep),
        defaults: crate::event::Defaults::default(),
        root: root?,
    };
    if let Some(field) = table.get("reconcile")
        && options.reconcile < Duration::from_secs(1)
    {
        field.report(field.error(&codes::BAD_VALUE, "`reconcile` must be at least `1s`"));
    }
    Some(options)
}

pub(super) fn globs(field: &Field<'_>) -> Vec<String> {
    let fields = field.one_or_more().unwrap_or_default();
    let globs: Vec<_> = fields
        .iter()
        .filter_map(|f| f.string().map(|glob| f.at(glob)))
        .collect();
    for glob in &globs {
        if let Err(error) = globset::Glob::new(&glob.value) {
            let message = format!("`{}` is not a glob: {}", glob.value, error.kind());
            let diagnostic =
                crate::error::Diagnostic::error(&codes::BAD_GLOB, message).at(glob.place.clone());
            field.report(
                diagnostic.hint("a `[` or `{` that is meant literally is written `[[]` or `[{]`"),
            );
        }
    }
    globs.into_iter().map(|glob| glob.value).collect()
}

fn finished(field: Option<Field<'_>>) -> Finished {
    let mut finished = Finished {
        renamed_in: true,
        quiet: Duration::from_secs(2),
        done_marker: None,
        min_age: Duration::ZERO,
        min_size: 1,
        trailer: false,
    };
    let Some(table) = field.and_then(|f| f.table(&fields::FINISHED)) else {
        return finished;
    };
    finished.renamed_in = table.bool_or("renamed_in", finished.renamed_in);
    finished.quiet = table.duration_or("quiet", finished.quiet);
    finished.done_marker = table.string("done_marker");
    finished.min_age = table.duration_or("min_age", finished.min_age);
    finished.min_size = table
        .get("min_size")
        .and_then(|f| f.size())
        .unwrap_or(finished.min_size);
    finished.trailer = table.bool_or("trailer", finished.trailer);
    if let (Some(marker), Some(field)) = (&finished.done_marker, table.get("done_marker"))
        && marker.contains('/')
    {
        let message = format!("`{marker}` is not the ending of a file name");
        field.report(
            field
                .error(&codes::BAD_VALUE, message)
                .hint("write it like `.done`"),
        );
    }
    finished
}

pub(super) fn start(field: &Field<'_>) -> Option<Start> {
    let text = field.string()?;
    let midnight = |day: NaiveDate| Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    match text.as_str() {
        "all" => Some(Start::All),
        "now" => Some(Start::Now),
        _ => {
            let time = DateTime::parse_from_rfc3339(&text)
                .map(|t| t.timestamp_millis())
                .ok();
            let time = time.or_else(|| text.parse().ok().and_then(midnight));
            if time.is_none() {
                let message = format!("`{text}` is neither `all`, nor `now`, nor a time");
                let diagnostic = field.error(&codes::BAD_TIME, message);
                field.report(
                    diagnostic.hint("times are written `2013-01-01T00:00:00Z` or `2013-01-01`"),
                );
            }
            time.map(Start::Since)
        }
    }
}

fn after(field: &Field<'_>) -> Option<After> {
    match &field.item.node {
        Node::Scalar { .. } => {
            field
                .choice(&[("keep", 0), ("delete", 1), ("tag", 2)])
                .map(|what| match what {
                    0 => After::Keep,
                    1 => After::Delete,
                    _ => After::Tag,
                })
        }
        _ => field
            .table(&fields::AFTER)?
            .need("move")?
            .path()
            .map(After::Move),
    }
}
