//! Many small objects in one publication: a batch of events that name objects.
//!
//! Each object is read and checked by itself, whole, into memory. One that is
//! broken is answered for itself and leaves its neighbours alone; so is one that
//! is large, and streams in a publication of its own. The others are the input
//! of one query, as far as they have the same columns and parameters and fit
//! into their share of the memory.
//!
//! Once per cause, as with batches of events: a publication lists the ids of its
//! events, and an event that some publication lists is answered from it. The
//! texts of the events are kept beside the ids, so that all objects can be read
//! again when the transform has changed.

use super::bucket::Target;
use super::events;
use super::ledger::{self, hour};
use super::manifest::{self, Manifest, Member, ObjectRef, Rejects};
use super::object::{self, Loaded, Standing};
use super::publish::Staging;
use super::{Inner, done, locks, run, upkeep};
use crate::event::Event;
use crate::handlers::{Class, Context, Done, Failure, Message};
use datafusion::datasource::MemTable;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Objects that are read together may take one part in this many of a query's memory.
const SHARE: usize = 4;

type Answers = Vec<Option<Result<Done, Failure>>>;

/// Publishes the objects that a batch of events names; one answer per message.
pub(super) async fn handle(
    inner: &Arc<Inner>,
    batch: &[Message],
    cx: &Context,
) -> Vec<Result<Done, Failure>> {
    let mut answers: Answers = batch.iter().map(|_| None).collect();
    // With a policy of drift, each object tells what the next one is measured by.
    if batch.len() > 1 && inner.options.read.drift.is_none() {
        let mut held = Vec::new();
        // In their order, so that two batches never wait for each other.
        let paths: BTreeSet<PathBuf> = batch.iter().map(|m| object::path(inner, m)).collect();
        for path in paths {
            held.push(locks::lock(&path).await);
        }
        gather(inner, batch, &mut answers, cx).await;
    }
    let mut results = Vec::with_capacity(batch.len());
    let mut announced = HashSet::new();
    for (message, answer) in batch.iter().zip(answers) {
        let mut answer = match answer {
            Some(answer) => answer,
            None => object::handle(inner, message, cx).await,
        };
        // An event that is twice in a batch says what it has to say once.
        if let (Ok(done), false) = (&mut answer, announced.insert(message.event.id())) {
            done.emits.clear();
        }
        results.push(answer);
    }
    results
}

/// Reads the objects and publishes those that go together. What has no answer
/// afterwards is to be handled by itself.
async fn gather(inner: &Arc<Inner>, batch: &[Message], answers: &mut Answers, cx: &Context) {
    let most = inner.env.memory_bytes / SHARE;
    let mut seen = HashSet::new();
    let (mut together, mut taken) = (Vec::new(), 0);
    for (at, message) in batch.iter().enumerate() {
        if !seen.insert(message.event.id()) {
            continue;
        }
        match read(inner, message, most, cx).await {
            Ok(Reading::Loaded(loaded)) => {
                if taken + loaded.bytes > most {
                    publish_alike(inner, std::mem::take(&mut together), answers, cx).await;
                    taken = 0;
                }
                taken += loaded.bytes;
                together.push(Part {
                    at,
                    hour: hour(message.accepted_ms),
                    event: Arc::clone(&message.event),
                    loaded: *loaded,
                });
            }
            Ok(Reading::Answered(done)) => answers[at] = Some(Ok(*done)),
            Ok(Reading::Alone) => {}
            Err(failure) => answers[at] = Some(Err(failure)),
        }
    }
    publish_alike(inner, together, answers, cx).await;
}

enum Reading {
    Loaded(Box<Loaded>),
    Answered(Box<Done>),
    Alone,
}

async fn read(
    inner: &Arc<Inner>,
    message: &Message,
    most: usize,
    cx: &Context,
) -> Result<Reading, Failure> {
    match object::standing(inner, message, cx).await? {
        Standing::Answered(done) => return Ok(Reading::Answered(done)),
        Standing::Alone => return Ok(Reading::Alone),
        Standing::Fresh => {}
    }
    let object = inner.places.locate(&message.event)?;
    match object::load(inner, message, &object, most, cx).await {
        Ok(Some(loaded)) => Ok(Reading::Loaded(Box::new(loaded))),
        Ok(None) => Ok(Reading::Alone),
        Err(failure) => match object::superseded_by(&object, &failure) {
            Some(done) => Ok(Reading::Answered(Box::new(done))),
            None => Err(failure),
        },
    }
}

/// An object that was read, and its place in the batch.
struct Part {
    at: usize,
    hour: i64,
    event: Arc<Event>,
    loaded: Loaded,
}

/// Publishes objects together that have the same columns and parameters.
async fn publish_alike(inner: &Arc<Inner>, parts: Vec<Part>, answers: &mut Answers, cx: &Context) {
    let mut sets: Vec<Vec<Part>> = Vec::new();
    for part in parts {
        let alike = sets.iter_mut().find(|set| alike(&set[0], &part));
        match alike {
            Some(set) => set.push(part),
            None => sets.push(vec![part]),
        }
    }
    for set in sets {
        publish(inner, set, answers, cx).await;
    }
}

fn alike(a: &Part, b: &Part) -> bool {
    a.loaded.arrow == b.loaded.arrow && a.loaded.params == b.loaded.params
}

/// Publishes objects together. What the SQL cannot take is found by halving, so
/// that one object's values do not condemn the others.
fn publish<'a>(
    inner: &'a Arc<Inner>,
    mut set: Vec<Part>,
    answers: &'a mut Answers,
    cx: &'a Context,
) -> BoxFuture<'a, ()> {
    async move {
        if set.len() < 2 {
            return;
        }
        let places: Vec<usize> = set.iter().map(|part| part.at).collect();
        let ids: Vec<String> = set.iter().map(|part| part.event.id().to_owned()).collect();
        match one(inner, &mut set, None, cx).await {
            Ok(manifest) => {
                for (at, id) in places.into_iter().zip(ids) {
                    answers[at] = Some(Ok(answer(&manifest, &id)));
                }
            }
            Err(failure) if failure.class == Class::Permanent && failure.code == "SqlFailed" => {
                let half = set.split_off(set.len() / 2);
                publish(inner, set, answers, cx).await;
                publish(inner, half, answers, cx).await;
            }
            Err(failure) => {
                for at in places {
                    answers[at] = Some(Err(failure.clone()));
                }
            }
        }
    }
    .boxed()
}

/// A publication that is made again: how often it was made, and the event that asks for it.
pub(super) struct Again<'a> {
    pub revision: u32,
    pub asked_by: &'a str,
}

/// Makes one publication of the objects. They are taken from `set` once the query
/// has succeeded.
async fn one(
    inner: &Arc<Inner>,
    set: &mut Vec<Part>,
    again: Option<Again<'_>>,
    cx: &Context,
) -> Result<Manifest, Failure> {
    let began = Instant::now();
    set.sort_by(|a, b| a.event.id().cmp(b.event.id()));
    let entries: Vec<(i64, String)> = set
        .iter()
        .map(|part| (part.hour, part.event.id().to_owned()))
        .collect();
    let cause = events::cause(&entries);
    let table = inner.options.write.table.clone();
    let publication = manifest::publication_id(&inner.name, &table, &cause);
    let target = Target::of(inner)?;
    let mut revision = again.as_ref().map_or(0, |again| again.revision);
    if let Some(target) = &target
        && let Some(there) = target
            .published(&table, &publication, &mut revision)
            .await?
    {
        inner.ledger.lock().await.add(&publication, &entries);
        return Ok(there);
    }
    let staging = {
        let (inner, publication) = (Arc::clone(inner), publication.clone());
        run::blocking(move || Staging::begin(&inner.env.lake, &publication)).await?
    };
    let rows = set.iter().flat_map(|part| part.loaded.batches.clone());
    let taken = set.iter().map(|part| part.loaded.bytes).sum();
    let input = MemTable::try_new(Arc::clone(&set[0].loaded.arrow), vec![rows.collect()])
        .map_err(|e| run::sql_failure(inner, &e))?;
    let given = run::Given {
        input: Arc::new(input),
        params: &set[0].loaded.params,
        taken,
    };
    let id = run::file_id(&publication, revision);
    let written = run::query(inner, given, &staging, &id, cx).await?;
    let mut manifest = run::manifest(inner, &cause, &publication, written);
    manifest.revision = revision;
    manifest.events = events::listed(&publication, &entries);
    if let (Some(again), Some(listed)) = (&again, &mut manifest.events) {
        again.asked_by.clone_into(&mut listed.carrier);
    }
    let causes = ledger::causes(
        set.iter()
            .map(|part| (part.event.as_ref(), None, part.hour)),
    )?;
    for part in set.drain(..) {
        let member = settled(part).await?;
        for (name, count) in member.1 {
            super::batch::count_ignored(&mut manifest.ignored, name.into(), count);
        }
        manifest.rows_in += member.0.rows_in;
        manifest.bytes_in += member.0.bytes;
        manifest.rejects.count += member.0.rejects.count;
        manifest.objects.push(member.0);
    }
    manifest.duration_ms = run::millis(began);
    let (lake, name) = (inner.env.lake.clone(), publication.clone());
    let of = table.clone();
    run::blocking(move || ledger::write_causes(&lake, &of, &name, &causes)).await?;
    let entries = events::committed(inner, target, staging, manifest, entries).await;
    let mut ledger = inner.ledger.lock().await;
    match entries {
        Ok(entries) => ledger.add(&publication, &entries),
        Err(failure) => {
            // The manifest may be there all the same: what is known is read again.
            *ledger = ledger::Ledger::default();
            return Err(failure);
        }
    }
    drop(ledger);
    Manifest::load(&inner.env.lake, &table, &publication)?
        .ok_or_else(|| Failure::transient("ManifestUnreadable", "a publication's manifest is gone"))
}

/// Puts an object's rejects in their place and tells what was found in it.
async fn settled(part: Part) -> Result<(Member, Vec<(String, u64)>), Failure> {
    let Loaded {
        read, object, size, ..
    } = part.loaded;
    let event = part.event.id().to_owned();
    run::blocking(move || {
        let count = read.rejects.count();
        let path = read.rejects.publish()?;
        let member = Member {
            object: ObjectRef {
                bucket: object.bucket,
                key: object.key,
                etag: object.etag,
            },
            event,
            rows_in: read.records,
            rejects: Rejects {
                count,
                path: path.map(|p| p.display().to_string()),
            },
            bytes: size,
        };
        Ok((member, read.ignored.into_iter().collect()))
    })
    .await
}

/// The answer for one event of a publication: the carrier announces it, the
/// others have figures of their own.
fn answer(manifest: &Manifest, id: &str) -> Done {
    if manifest.events.as_ref().is_some_and(|e| e.carrier == id) {
        return done(manifest, None);
    }
    let mine = manifest.objects.iter().find(|member| member.event == id);
    Done {
        revision: manifest.revision,
        summary: match mine {
            None => json!({ "table": manifest.table, "publication": manifest.name() }),
            Some(member) => json!({
                "table": manifest.table,
                "publication": manifest.name(),
                "object": member.object,
                "rows_in": member.rows_in,
                "rejects": member.rejects,
            }),
        },
        ..Done::default()
    }
}

/// The answer for an event whose object some publication has together with
/// others. If the transform has changed since, all of it is made again.
pub(super) async fn published(
    inner: &Arc<Inner>,
    message: &Message,
    cx: &Context,
) -> Result<Option<Done>, Failure> {
    let Some(publication) = events::find(inner, message).await? else {
        return Ok(None);
    };
    let table = &inner.options.write.table;
    let path = Manifest::path(&inner.env.lake, table, &publication);
    let _held = locks::lock(&path).await;
    let Some(manifest) = Manifest::load(&inner.env.lake, table, &publication)? else {
        // Its time was over.
        return Ok(None);
    };
    let id = message.event.id();
    if manifest.definition == inner.definition {
        return Ok(Some(answer(&manifest, id)));
    }
    let kept = upkeep::lock(&inner.env.lake, table).await;
    if upkeep::stands_for(&inner.env.lake, &manifest)? {
        return Err(object::compacted());
    }
    let made = anew(inner, &manifest, id, cx).await;
    drop(kept);
    made.map(|manifest| Some(answer(&manifest, id)))
}

/// Reads all objects of a publication again and puts a new revision in its place.
async fn anew(
    inner: &Arc<Inner>,
    manifest: &Manifest,
    asked_by: &str,
    cx: &Context,
) -> Result<Manifest, Failure> {
    let (lake, table) = (&inner.env.lake, &manifest.table);
    let incomplete = |what: &str| {
        Failure::permanent(
            "Incomplete",
            format!(
                "the transform has changed, but the publication of this and other objects cannot be made again: {what}"
            ),
        )
    };
    let mut set: Vec<Part> = Vec::new();
    let kept = ledger::read_causes(lake, table, &manifest.publication)?;
    let kept = kept.ok_or_else(|| incomplete("its events were not kept"))?;
    for (at, message) in kept.into_iter().enumerate() {
        let object = inner.places.locate(&message.event)?;
        let loaded = object::load(inner, &message, &object, usize::MAX, cx).await;
        let loaded = loaded.map_err(|failure| match failure.class {
            Class::Permanent => incomplete(&failure.message),
            _ => failure,
        })?;
        let (hour, event) = (hour(message.accepted_ms), message.event);
        set.extend(loaded.map(|loaded| Part {
            at,
            hour,
            event,
            loaded,
        }));
    }
    if set.is_empty() || !set.iter().all(|part| alike(&set[0], part)) {
        return Err(incomplete("its objects have not the same columns any more"));
    }
    let again = Again {
        revision: manifest.revision + 1,
        asked_by,
    };
    tracing::info!(
        handler = inner.name,
        publication = manifest.publication,
        "published anew"
    );
    one(inner, &mut set, Some(again), cx).await
}
