//! `input: events`: the batch's events are the records (their `detail`, or what
//! the rule's target makes of them), and the batch is one publication.
//!
//! Exactly one row per event: a publication lists the ids of its events, and
//! an event that some publication lists is not written again, in whatever
//! batch a retry brings it. One event of each publication, the one with the
//! smallest id, is its carrier: its outcome has the `Analytics Ready`, now and
//! on every retry. Since an event's outcome is settled together with what it
//! emits, the announcement is made once and never lost, even if the program
//! dies between the publication and the settling and the batch falls apart.

use super::batch::{Broken, Feed, Place, check_whole};
use super::bucket::Target;
use super::cell::Cell;
use super::ledger::{self, hour};
use super::manifest::{self, Events, Manifest};
use super::publish::Staging;
use super::read::json::{Order, object_cells};
use super::rejects::Known;
use super::schema::{Column, Extra, Kind, RecordSchema, infer};
use super::several::Again;
use super::{Inner, done, locks, object, run, sql, upkeep};
use crate::handlers::{Class, Context, Done, Failure, Message};
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::DateTime;
use datafusion::datasource::MemTable;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// The columns that every event has, before those of its `detail`.
const COLUMNS: [(&str, Kind); 4] = [
    ("_event_id", Kind::Text),
    ("_event_time", Kind::Timestamp),
    ("_source", Kind::Text),
    ("_detail_type", Kind::Text),
];

/// The columns of `input` for events whose details have the given columns.
#[must_use]
pub fn event_columns(detail: &Schema) -> SchemaRef {
    let own = COLUMNS
        .iter()
        .map(|(name, kind)| Arc::new(Field::new(*name, kind.arrow(), false)));
    Arc::new(Schema::new(
        own.chain(detail.fields().iter().cloned())
            .collect::<Vec<_>>(),
    ))
}

/// Publishes a batch of events; one answer per message.
pub(super) async fn handle(
    inner: &Arc<Inner>,
    batch: &[Message],
    cx: &Context,
) -> Vec<Result<Done, Failure>> {
    // One batch at a time: an event cannot be in two publications.
    let folder = inner
        .env
        .lake
        .join(&inner.options.write.table)
        .join(manifest::FOLDER);
    let _held = locks::lock(&folder.join(&inner.name)).await;
    let mut answers: BTreeMap<&str, Result<Option<Arc<str>>, Failure>> = BTreeMap::new();
    let mut fresh: BTreeMap<&str, &Message> = BTreeMap::new();
    for message in batch {
        let id = message.event.id();
        match find(inner, message).await {
            Ok(None) => drop(fresh.insert(id, message)),
            known => drop(answers.insert(id, known)),
        }
    }
    let fresh: Vec<&Message> = fresh.into_values().collect();
    for (message, answer) in publish(inner, &fresh, cx).await {
        answers.insert(message.event.id(), answer.map(Some));
    }
    let mut results = Vec::with_capacity(batch.len());
    let mut carried = HashSet::new();
    let mut manifests: HashMap<&str, Result<Manifest, Failure>> = HashMap::new();
    for message in batch {
        let id = message.event.id();
        results.push(match answers.get(id) {
            Some(Ok(Some(publication))) => {
                if !manifests.contains_key(publication.as_ref()) {
                    let manifest = current(inner, publication, id, cx).await;
                    manifests.insert(publication, manifest);
                }
                answer(&manifests[publication.as_ref()], id, carried.insert(id))
            }
            Some(Err(failure)) => Err(failure.clone()),
            _ => Err(Failure::transient("Internal", "the event was not handled")),
        });
    }
    results
}

/// The publication that has an event already.
pub(super) async fn find(
    inner: &Arc<Inner>,
    message: &Message,
) -> Result<Option<Arc<str>>, Failure> {
    let mut ledger = inner.ledger.lock().await;
    ledger.find(
        &inner.env.lake,
        &inner.options.write.table,
        &inner.name,
        message.event.id(),
        message.accepted_ms,
    )
}

/// The answer for an event of a publication.
fn answer(published: &Result<Manifest, Failure>, id: &str, first: bool) -> Result<Done, Failure> {
    let published = published.as_ref().map_err(Clone::clone)?;
    let carries = published.events.as_ref().is_some_and(|e| e.carrier == id);
    Ok(match carries && first {
        true => done(published, None),
        false => Done::default(),
    })
}

/// What was published, as the transform is now. If it has changed since, all
/// events of the publication are read again.
async fn current(
    inner: &Arc<Inner>,
    publication: &str,
    asked_by: &str,
    cx: &Context,
) -> Result<Manifest, Failure> {
    let (lake, table) = (&inner.env.lake, &inner.options.write.table);
    let load = || {
        Manifest::load(lake, table, publication)?.ok_or_else(|| {
            Failure::transient("ManifestUnreadable", "a publication's manifest is gone")
        })
    };
    let published = load()?;
    if published.definition == inner.definition {
        return Ok(published);
    }
    let _kept = upkeep::lock(lake, table).await;
    if upkeep::stands_for(lake, &published)? {
        return Err(object::compacted());
    }
    let incomplete = |what: &str| {
        let message = format!(
            "the transform has changed, but the publication of this and other events cannot be made again: {what}"
        );
        Failure::permanent("Incomplete", message)
    };
    let events = ledger::read_causes(lake, table, publication)?;
    let events = events.ok_or_else(|| incomplete("they were not kept"))?;
    let events: Vec<&Message> = events.iter().collect();
    let (rows, broken) = parse(inner, &events);
    if let Some((message, Err(failure))) = broken.first() {
        let id = message.event.id();
        return Err(incomplete(&format!("event `{id}`: {}", failure.message)));
    }
    let again = Again {
        revision: published.revision + 1,
        asked_by,
    };
    one(inner, rows, Some(again), cx).await?;
    tracing::info!(handler = inner.name, publication, "published anew");
    load()
}

type Answers<'a> = Vec<(&'a Message, Result<Arc<str>, Failure>)>;

/// Publishes events that are in no publication. What the SQL cannot take is
/// found by halving, so that one event's value does not condemn the others.
fn publish<'a>(
    inner: &'a Arc<Inner>,
    fresh: &'a [&'a Message],
    cx: &'a Context,
) -> BoxFuture<'a, Answers<'a>> {
    Box::pin(async move {
        let (rows, mut answers) = parse(inner, fresh);
        if rows.good.is_empty() {
            return answers;
        }
        let good: Vec<&'a Message> = rows.good.clone();
        let failure = match one(inner, rows, None, cx).await {
            Ok(publication) => {
                answers.extend(good.into_iter().map(|m| (m, Ok(Arc::clone(&publication)))));
                return answers;
            }
            Err(failure) => failure,
        };
        let halves =
            failure.class == Class::Permanent && failure.code == "SqlFailed" && good.len() > 1;
        if !halves {
            answers.extend(good.into_iter().map(|m| (m, Err(failure.clone()))));
            return answers;
        }
        let (left, right) = good.split_at(good.len() / 2);
        for half in [left, right] {
            let part = publish(inner, half, cx).await;
            let settled = part.into_iter().map(|(m, r)| (m.event.id().to_owned(), r));
            for (id, result) in settled {
                if let Some(message) = good.iter().find(|m| m.event.id() == id) {
                    answers.push((message, result));
                }
            }
        }
        answers
    })
}

/// Events that are sound, as rows.
struct Rows<'a> {
    good: Vec<&'a Message>,
    batches: Result<(SchemaRef, Vec<RecordBatch>), Failure>,
    ignored: BTreeMap<String, u64>,
    seen: u64,
}

/// Checks each event; those that are broken are answered at once.
fn parse<'a>(inner: &Inner, fresh: &[&'a Message]) -> (Rows<'a>, Answers<'a>) {
    let detail = match &inner.declared {
        Some(declared) => Arc::clone(declared),
        None => {
            let all = fresh
                .iter()
                .map(|m| serde_json::from_str(record(m).unwrap_or_default()));
            let records: Vec<_> = all.filter_map(Result::ok).collect();
            Arc::new(infer(&records))
        }
    };
    let own = COLUMNS.iter().map(|(name, kind)| (*name, *kind, false));
    let theirs = detail
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.kind, c.nullable()));
    let columns = own.chain(theirs).map(|(name, kind, nullable)| Column {
        required: !nullable,
        null_allowed: nullable,
        ..Column::plain(name, kind)
    });
    let combined = Arc::new(RecordSchema::from_columns(
        columns.collect(),
        Extra::Ignored,
    ));
    let (mut none, mut order) = (Known, Order::default());
    let mut feed = Feed::new(Arc::clone(&combined), &mut none);
    let mut rows = Rows {
        good: Vec::new(),
        batches: Err(Failure::transient("Internal", "no rows")),
        ignored: BTreeMap::new(),
        seen: fresh.len() as u64,
    };
    let mut answers: Answers<'a> = Vec::new();
    let mut batches = Vec::new();
    for message in fresh {
        let taken = row(&detail, message, &mut order, &mut rows.ignored).and_then(|cells| {
            feed.record(Ok(&cells), Place::default(), &[])?;
            if feed.full() {
                batches.extend(feed.take()?);
            }
            Ok(())
        });
        match taken {
            Ok(()) => rows.good.push(message),
            Err(failure) => answers.push((message, Err(failure))),
        }
    }
    rows.batches = feed.take().map(|last| {
        batches.extend(last);
        (Arc::clone(combined.arrow()), batches)
    });
    (rows, answers)
}

/// The text of an event's record.
fn record(message: &Message) -> Result<&str, Failure> {
    match &message.input {
        None => Ok(message.event.detail_text()),
        Some(input) => std::str::from_utf8(input).map_err(|e| {
            Failure::permanent("InvalidUtf8", "the target's input is no text").caused_by(&e)
        }),
    }
}

fn row<'a>(
    detail: &RecordSchema,
    message: &'a Message,
    order: &mut Order,
    ignored: &mut BTreeMap<String, u64>,
) -> Result<Vec<Cell<'a>>, Failure> {
    let event = &message.event;
    let broken = |b: Broken| {
        let column = b
            .column
            .map(|c| format!("`detail.{c}`: "))
            .unwrap_or_default();
        Failure::permanent(b.violation.code, format!("{column}{}", b.violation.message))
    };
    let mut cells = Vec::new();
    object_cells(detail, record(message)?, order, &mut cells, ignored).map_err(broken)?;
    check_whole(detail, &cells).map_err(broken)?;
    let time = DateTime::parse_from_rfc3339(event.time())
        .map_err(|e| Failure::permanent("BadTime", "the event's time is none").caused_by(&e))?;
    let text = |value: &'a str| Cell::Text(Cow::Borrowed(value));
    let mut all = vec![
        text(event.id()),
        Cell::Int(time.timestamp_micros()),
        text(event.source()),
        text(event.detail_type()),
    ];
    all.append(&mut cells);
    Ok(all)
}

/// Publishes rows as one publication.
async fn one(
    inner: &Arc<Inner>,
    rows: Rows<'_>,
    again: Option<Again<'_>>,
    cx: &Context,
) -> Result<Arc<str>, Failure> {
    let began = Instant::now();
    let (schema, batches) = rows.batches?;
    let bytes: usize = rows.good.iter().map(|m| m.event.text().len()).sum();
    let mut events: Vec<(i64, String)> = rows
        .good
        .iter()
        .map(|m| (hour(m.accepted_ms), m.event.id().to_owned()))
        .collect();
    events.sort_by(|a, b| a.1.cmp(&b.1));
    let cause = cause(&events);
    let table = inner.options.write.table.clone();
    let publication = manifest::publication_id(&inner.name, &table, &cause);
    let target = Target::of(inner)?;
    let mut revision = again.as_ref().map_or(0, |again| again.revision);
    let mut there = match again {
        None => Manifest::load(&inner.env.lake, &table, &publication)?,
        Some(_) => None,
    };
    if let (None, Some(target)) = (&there, &target) {
        there = target
            .published(&table, &publication, &mut revision)
            .await?;
    }
    if there.is_some() {
        inner.ledger.lock().await.add(&publication, &events);
        return Ok(publication.into());
    }
    let staging = {
        let (inner, publication) = (Arc::clone(inner), publication.clone());
        run::blocking(move || Staging::begin(&inner.env.lake, &publication)).await?
    };
    let input =
        MemTable::try_new(schema, vec![batches]).map_err(|e| run::sql_failure(inner, &e))?;
    let written = run::query(
        inner,
        run::Given {
            input: Arc::new(input),
            params: &sql::Params::new(),
            taken: 0,
        },
        &staging,
        &run::file_id(&publication, revision),
        cx,
    )
    .await?;
    let mut manifest = run::manifest(inner, &cause, &publication, written);
    manifest.revision = revision;
    manifest.rows_in = rows.seen;
    manifest.rejects.count = rows.seen - rows.good.len() as u64;
    manifest.ignored = rows.ignored;
    manifest.bytes_in = bytes as u64;
    manifest.duration_ms = run::millis(began);
    manifest.events = listed(&publication, &events);
    match (&again, &mut manifest.events) {
        (Some(again), Some(listed)) => again.asked_by.clone_into(&mut listed.carrier),
        _ => keep(inner, &publication, &rows.good).await?,
    }
    let published = committed(inner, target, staging, manifest, events).await;
    let mut ledger = inner.ledger.lock().await;
    match published {
        Ok(events) => ledger.add(&publication, &events),
        Err(failure) => {
            // The manifest may be there all the same: what is known is read again.
            *ledger = ledger::Ledger::default();
            return Err(failure);
        }
    }
    Ok(publication.into())
}

/// Keeps the events, so that the publication can be made again.
async fn keep(inner: &Inner, publication: &str, events: &[&Message]) -> Result<(), Failure> {
    let each = events
        .iter()
        .map(|m| (m.event.as_ref(), m.input.as_deref(), hour(m.accepted_ms)));
    let causes = ledger::causes(each)?;
    let (lake, table) = (inner.env.lake.clone(), inner.options.write.table.clone());
    let publication = publication.to_owned();
    run::blocking(move || ledger::write_causes(&lake, &table, &publication, &causes)).await
}

/// Writes the ids, and then what was published.
pub(super) async fn committed(
    inner: &Inner,
    target: Option<Target<'_>>,
    staging: Staging,
    manifest: Manifest,
    events: Vec<(i64, String)>,
) -> Result<Vec<(i64, String)>, Failure> {
    let lake = inner.env.lake.clone();
    let in_bucket = target.is_some();
    let (staging, manifest, events) = run::blocking(move || {
        ledger::write_ids(&lake, &manifest.table, &manifest.publication, &events)?;
        if !in_bucket {
            staging.publish(&manifest)?;
        }
        Ok((staging, manifest, events))
    })
    .await?;
    if let Some(target) = target {
        target.publish(&staging, manifest).await?;
    }
    Ok(events)
}

/// The part of a manifest that tells the events.
pub(super) fn listed(publication: &str, events: &[(i64, String)]) -> Option<Events> {
    Some(Events {
        count: events.len() as u64,
        ids: ledger::ids_file(publication),
        hours: (
            events.iter().map(|(hour, _)| *hour).min()?,
            events.iter().map(|(hour, _)| *hour).max()?,
        ),
        carrier: events.first()?.1.clone(),
    })
}

/// The cause of a batch: computed from the ids, in their order.
pub(super) fn cause(events: &[(i64, String)]) -> String {
    let mut hash = Sha256::new();
    for (_, id) in events {
        hash.update((id.len() as u64).to_le_bytes());
        hash.update(id.as_bytes());
    }
    let hex: String = hash.finalize()[..16]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("batch-{hex}")
}
