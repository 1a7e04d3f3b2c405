//! Queues, in the log and on brokers.

use super::retry;
use crate::config::fields::{self, BACKINGS};
use crate::config::model::Backlog;
use crate::config::raw::{RawAmqpQueue, RawBacking, RawQueue, RawSqsQueue, Reading};
use crate::config::read::{Field, Table};
use crate::drivers::amqp::{Declare, Kind};
use crate::drivers::sqs::QueueOptions as SqsOptions;
use crate::error::{Diagnostic, codes};
use crate::sources::queue::Format;
use std::time::Duration;

/// Largest body that an AMQP queue takes, in bytes, unless it is said.
const AMQP_BODY: usize = 16 << 20;

/// Messages that a source hands in together at most.
const SOURCE_BATCH: u64 = 500;

/// How long the messages of a source are hidden while they are handed in.
const VISIBILITY: Duration = Duration::from_secs(60);

/// Longest name that AMQP takes, in bytes.
const MAX_NAME: usize = 255;

pub(in crate::config) fn queue(field: &Field<'_>) -> Option<RawQueue> {
    let table = field.table(&fields::QUEUE)?;
    let visibility = table
        .get("visibility")
        .and_then(|f| f.duration().map(|d| f.at(d)));
    let order_by = table.get("order_by").and_then(|f| super::path(&f));
    let given = BACKINGS.iter().any(|kind| table.written(kind).is_some());
    let on = match given {
        false => RawBacking::Log,
        true => backing(&table)?,
    };
    let drain_from = table
        .get("drain_from")
        .and_then(|f| backing(&f.table(&fields::DRAIN_FROM)?));
    let backlog = table.get("backlog").map(|f| {
        if matches!(on, RawBacking::Log) {
            let message = "`backlog` says what happens when a queue goes to a broker";
            f.report(Diagnostic::warning(&codes::NO_EFFECT, message).at(f.key_place()));
        }
        f.choice(&Backlog::WORDS).unwrap_or(Backlog::Move)
    });
    Some(RawQueue {
        visibility,
        delay: table.duration_or("delay", Duration::ZERO),
        order_by,
        retry: retry(table.get("retry")),
        on,
        backlog: backlog.unwrap_or(Backlog::Move),
        drain_from,
    })
}

/// The broker that a queue is on.
fn backing(table: &Table<'_>) -> Option<RawBacking> {
    let kind = table.one_of(&BACKINGS)?;
    match kind.name.as_str() {
        "amqp" => amqp(&kind).map(RawBacking::Amqp),
        _ => sqs(&kind).map(RawBacking::Sqs),
    }
}

/// A queue on SQS as a source.
pub(super) fn sqs_source(field: &Field<'_>) -> Option<(RawSqsQueue, Reading)> {
    let table = field.table(&fields::SQS_SOURCE)?;
    let reading = Reading {
        format: format(&table),
        visibility: visibility(&table),
    };
    let most = SqsOptions::MAX_BODY;
    Some((sqs_in(&table, SOURCE_BATCH, most)?, reading))
}

fn visibility(table: &Table<'_>) -> Duration {
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(12 * 60 * 60));
    let visibility = table.duration_or("visibility", VISIBILITY);
    if let Some(field) = table.get("visibility")
        && !(least..=most).contains(&visibility)
    {
        let message = "`visibility` is from `1s` to `12h`";
        field.report(field.error(&codes::BAD_VALUE, message));
    }
    visibility
}

fn format(table: &Table<'_>) -> Format {
    let words = [
        ("event", Format::Event),
        ("notification", Format::Notification),
    ];
    table
        .get("format")
        .and_then(|f| f.choice(&words))
        .unwrap_or_default()
}

fn sqs(field: &Field<'_>) -> Option<RawSqsQueue> {
    let table = field.table(&fields::SQS_QUEUE)?;
    let most = SqsOptions::MAX_BODY;
    let size = table.get("max_message_size").and_then(|f| {
        let size = usize::try_from(f.size()?).ok();
        if size.is_none_or(|size| size > most) {
            let message = "SQS takes 1 MiB with the attributes: at most `1008KiB`";
            f.report(f.error(&codes::BAD_VALUE, message));
            return None;
        }
        size
    });
    sqs_in(&table, 65_535, size.unwrap_or(most))
}

/// What a queue on SQS and a source have in common.
fn sqs_in(table: &Table<'_>, most: u64, max_message_bytes: usize) -> Option<RawSqsQueue> {
    let prefetch = table.get("prefetch").and_then(|f| f.integer(1..=most));
    let connection = table.need("connection");
    Some(RawSqsQueue {
        queue: table
            .get("queue")
            .and_then(|f| f.string().map(|name| f.at(name))),
        declare: table
            .get("declare")
            .and_then(|f| f.choice(&[("true", true), ("passive", false)]))
            .unwrap_or(true),
        prefetch: prefetch.and_then(|n| usize::try_from(n).ok()),
        max_message_bytes,
        connection: connection.and_then(|f| f.string().map(|name| f.at(name)))?,
    })
}

fn amqp(field: &Field<'_>) -> Option<RawAmqpQueue> {
    let table = field.table(&fields::AMQP_QUEUE)?;
    let size = table.get("max_message_size").and_then(|f| f.size());
    let size = size.and_then(|n| usize::try_from(n).ok());
    amqp_in(&table, size.unwrap_or(AMQP_BODY))
}

/// A queue on an AMQP broker as a source.
pub(super) fn amqp_source(field: &Field<'_>) -> Option<(RawAmqpQueue, Reading)> {
    let table = field.table(&fields::AMQP_SOURCE)?;
    let reading = Reading {
        format: format(&table),
        visibility: VISIBILITY,
    };
    Some((amqp_in(&table, AMQP_BODY)?, reading))
}

/// What a queue on an AMQP broker and a source have in common.
fn amqp_in(table: &Table<'_>, max_message_bytes: usize) -> Option<RawAmqpQueue> {
    let name = |name: &str| {
        let field = table.get(name)?;
        let text = field.string()?;
        if text.len() > MAX_NAME {
            let message = format!("AMQP allows {MAX_NAME} bytes for `{name}`");
            field.report(field.error(&codes::BAD_VALUE, message));
            return None;
        }
        Some(text)
    };
    let integer = |name: &str, max: u64| table.get(name).and_then(|f| f.integer(1..=max));
    let connection = table.need("connection");
    Some(RawAmqpQueue {
        queue: name("queue"),
        declare: table
            .get("declare")
            .and_then(|f| f.choice(&[("true", Declare::Active), ("passive", Declare::Passive)]))
            .unwrap_or(Declare::Active),
        kind: table
            .get("kind")
            .and_then(|f| f.choice(&[("quorum", Kind::Quorum), ("classic", Kind::Classic)]))
            .unwrap_or(Kind::Quorum),
        prefetch: integer("prefetch", 65_535).and_then(|n| u16::try_from(n).ok()),
        delivery_limit: integer("delivery_limit", 1_000_000).and_then(|n| u32::try_from(n).ok()),
        dead_letter_exchange: name("dead_letter_exchange"),
        dead_letter_routing_key: name("dead_letter_routing_key"),
        max_message_bytes,
        connection: connection.and_then(|f| f.string().map(|name| f.at(name)))?,
    })
}
