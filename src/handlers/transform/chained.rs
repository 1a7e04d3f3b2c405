//! `input: publication`: the rows of a publication of another table, as its
//! `Analytics Ready` announces it. A publication is known by its own id, not by
//! the event's: when it is published anew, what was made of it is made anew, too.

use super::bucket::Target;
use super::manifest::{self, InputRef, Manifest};
use super::object::compacted;
use super::publish::Staging;
use super::{Inner, done, locks, run, upkeep};
use crate::event::Event;
use crate::handlers::query::LakeTable;
use crate::handlers::{Context, Done, Failure, Message};
use std::sync::Arc;
use std::time::Instant;

/// Publishes what the SQL makes of the publication that a message announces, once.
pub(super) async fn handle(
    inner: &Arc<Inner>,
    message: &Message,
    cx: &Context,
) -> Result<Done, Failure> {
    let began = Instant::now();
    let input = announced(&message.event)?;
    let table = &inner.options.write.table;
    let publication = manifest::publication_id(&inner.name, table, &input.publication);
    let path = Manifest::path(&inner.env.lake, table, &publication);
    let _held = locks::lock(&path).await;
    let current = |made: &Manifest| {
        let of = made.input.as_ref().map_or(0, |input| input.revision);
        made.definition == inner.definition && of >= input.revision
    };
    let (mut revision, mut kept) = (0, None);
    if let Some(made) = Manifest::load(&inner.env.lake, table, &publication)? {
        if current(&made) {
            return Ok(done(&made, None));
        }
        revision = made.revision + 1;
        kept = Some(upkeep::lock(&inner.env.lake, table).await);
        if upkeep::stands_for(&inner.env.lake, &made)? {
            return Err(compacted());
        }
    }
    let target = Target::of(inner)?;
    if let Some(target) = &target {
        let found = target
            .published_as(table, &publication, &mut revision, &current)
            .await?;
        if let Some(made) = found {
            return Ok(done(&made, None));
        }
    }
    let read = {
        let (inner, input) = (Arc::clone(inner), input.clone());
        run::blocking(move || upstream(&inner, &input)).await?
    };
    let staging = {
        let (inner, publication) = (Arc::clone(inner), publication.clone());
        run::blocking(move || Staging::begin(&inner.env.lake, &publication)).await?
    };
    let params = super::object::params(inner, message)?;
    let given = run::Given {
        input: Arc::new(read.rows),
        params: &params,
        taken: 0,
    };
    let id = run::file_id(&publication, revision);
    let written = run::query(inner, given, &staging, &id, cx).await?;
    let mut manifest = run::manifest(inner, message.event.id(), &publication, written);
    manifest.revision = revision;
    manifest.input = Some(read.input);
    manifest.rows_in = read.manifest.outputs.iter().map(|o| o.rows).sum();
    manifest.bytes_in = read.manifest.outputs.iter().map(|o| o.bytes).sum();
    manifest.duration_ms = run::millis(began);
    let manifest = match target {
        Some(target) => target.publish(&staging, manifest).await?,
        None => {
            run::blocking(move || {
                staging.publish(&manifest)?;
                Ok(manifest)
            })
            .await?
        }
    };
    drop(kept);
    Ok(done(&manifest, None))
}

/// The publication that an event announces.
fn announced(event: &Event) -> Result<InputRef, Failure> {
    let detail = event.detail();
    let text = |name: &str| detail.get(name).and_then(|value| value.as_str());
    let (Some(table), Some(name)) = (text("table"), text("publication")) else {
        return Err(Failure::permanent(
            "NotAnalyticsReady",
            format!(
                "event `{}` of type `{}` announces no publication: `detail.table` and `detail.publication` are needed",
                event.id(),
                event.detail_type()
            ),
        ));
    };
    // The name of one that was published anew ends in `-r` and the number.
    let (publication, revision) = match name.rsplit_once("-r") {
        Some((base, number)) => (base, number.parse().unwrap_or(0)),
        None => (name, 0),
    };
    let plain = |name: &str| {
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !name.is_empty() && name.chars().all(fit)
    };
    if !plain(table) || !plain(publication) {
        let message = format!("`{table}/{name}` cannot be the name of a publication");
        return Err(Failure::permanent("BadPath", message));
    }
    Ok(InputRef {
        table: table.to_owned(),
        publication: publication.to_owned(),
        revision,
    })
}

/// A publication that is read.
struct Upstream {
    manifest: Manifest,
    input: InputRef,
    rows: LakeTable,
}

fn upstream(inner: &Inner, announced: &InputRef) -> Result<Upstream, Failure> {
    let (lake, table) = (&inner.env.lake, &announced.table);
    let manifest = Manifest::load(lake, table, &announced.publication)?.ok_or_else(|| {
        let message = format!(
            "publication `{}` of table `{table}` is gone: it was removed before it was read",
            announced.publication
        );
        Failure::permanent("PublicationGone", message)
    })?;
    // A newer revision than the announced one: its own event finds the work done.
    let input = InputRef {
        revision: manifest.revision,
        ..announced.clone()
    };
    let one = std::slice::from_ref(&manifest);
    let rows = LakeTable::of(lake, table, one, &inner.places)?;
    Ok(Upstream {
        input,
        rows,
        manifest,
    })
}
