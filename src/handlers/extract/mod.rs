//! The extract handler: any event, usually a schedule's, is the word to fetch
//! what is new from an API, page by page, into a table of the lake.
//!
//! A run belongs to its cause. Each page is appended to the run's file and
//! synced before the place of the next one is noted, so a run that dies goes on
//! with the page that it missed. When all pages are there, the file goes the way
//! of every other object through a [transform](super::transform), which
//! publishes once per cause; only then is the watermark moved that the next run
//! begins with. So nothing is left out, and what comes twice is for the key of
//! the load to sort out.

mod api;
mod auth;
mod link;
mod options;
mod path;
mod run;

pub use options::*;
pub use path::{JsonPath, PathError};

use super::objects::Places;
use super::transform::manifest::{Manifest, publication_id};
use super::transform::{TransformEnv, TransformHandler, locks};
use super::{Context, Done, Failure, Handler, Message, Outcome, Progress};
use crate::clock::SharedClock;
use api::{Api, Fetched};
use futures::future::BoxFuture;
use run::{Run, State};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// A run whose place in the pages was lost begins again this often.
const RESTARTS: u32 = 3;
/// A run that has this many pages goes in a circle.
const MAX_PAGES: u64 = 1_000_000;

/// An extract, ready to run.
pub struct ExtractHandler {
    name: String,
    api: Api,
    transform: TransformHandler,
    /// Its table, and a hash of what its transform is.
    table: String,
    definition: String,
    lake: PathBuf,
    /// Where its runs and its watermark lie.
    folder: PathBuf,
}

/// The bucket that the files of an extract seem to lie in. No bucket and no
/// folder source has such a name.
fn bucket(name: &str) -> String {
    format!("extract:{name}")
}

impl ExtractHandler {
    /// An extract named `name`, which is part of its publications' identity.
    /// Its runs lie in a folder of that name below `root`.
    ///
    /// # Errors
    /// When the declared schema or the URL is none.
    pub fn new(
        name: &str,
        options: ExtractOptions,
        root: PathBuf,
        env: TransformEnv,
        mut places: Places,
        clock: SharedClock,
    ) -> Result<Self, Failure> {
        let folder = root.join(name);
        places.add_folder(&bucket(name), folder.clone());
        let lake = env.lake.clone();
        Ok(Self {
            name: name.to_owned(),
            api: Api::new(options.http, clock)?,
            table: options.transform.write.table.clone(),
            definition: options.transform.definition(),
            transform: TransformHandler::new(name, *options.transform, env, places)?,
            lake,
            folder,
        })
    }

    async fn one(&self, message: &Message, cx: &Context) -> Result<Done, Failure> {
        // One run at a time: the next one begins where this one ends.
        let _held = locks::lock(&self.folder).await;
        let cause = message.event.id();
        let mut state = State::load(&self.folder, self.api.identity())?;
        if self.published(cause)? {
            // What is left of the run tells how far it came.
            if let Some(run) = Run::known(&self.folder, cause, self.api.identity())? {
                state.advance(run.watermark())?;
                run.remove();
            }
            return self.publish(message, 0, cx).await;
        }
        run::sweep(&self.folder, cause);
        let since = state.watermark.clone().or_else(|| self.api.start());
        let mut run = Run::open(&self.folder, cause, self.api.identity(), since)?;
        self.fetch(&mut run, cx).await?;
        let told = run.told();
        let done = match run.records() {
            0 => Done::default(),
            _ => self.publish(message, run.bytes(), cx).await?,
        };
        state.advance(run.watermark())?;
        run.remove();
        Ok(summed_up(done, told, &self.table))
    }

    /// Whether the transform answers for this cause without reading anything.
    fn published(&self, cause: &str) -> Result<bool, Failure> {
        let publication = publication_id(&self.name, &self.table, cause);
        let there = Manifest::load(&self.lake, &self.table, &publication)?;
        Ok(there.is_some_and(|m| m.definition.is_empty() || m.definition == self.definition))
    }

    /// Fetches the pages that the run lacks.
    async fn fetch(&self, run: &mut Run, cx: &Context) -> Result<(), Failure> {
        while let Some(next) = run.next() {
            let fetched = tokio::select! {
                biased;
                () = cx.cancel.cancelled() => return Err(super::transform::cancelled()),
                fetched = self.api.page(&next, run.since()) => fetched?,
            };
            match fetched {
                Fetched::Page(page) => {
                    if run.pages() >= MAX_PAGES || page.next.as_ref() == Some(&next) {
                        let message =
                            "the pages go in a circle: the answer names itself as the next page";
                        return Err(Failure::permanent("PagesLoop", message));
                    }
                    run.add(page).await?;
                }
                Fetched::Lost(reason) => {
                    if run.restarts() >= RESTARTS {
                        let message =
                            format!("the place in the pages was lost {RESTARTS} times: {reason}");
                        return Err(Failure::permanent("CursorExpired", message));
                    }
                    tracing::warn!(handler = self.name, reason, "the run begins again");
                    run.restart().await?;
                }
            }
            (cx.progress)(Progress {
                what: format!("{}: page {}", self.name, run.pages()),
                bytes: run.bytes(),
                total_bytes: None,
                rows: run.records(),
            });
        }
        Ok(())
    }

    /// Hands the run's file to the transform, in the name of the cause.
    async fn publish(&self, message: &Message, bytes: u64, cx: &Context) -> Result<Done, Failure> {
        let internal = |e: &dyn std::error::Error| {
            Failure::permanent("Internal", "the run cannot be announced").caused_by(e)
        };
        let cause = message.event.id();
        let mut detail = message.event.detail();
        detail["bucket"] = json!({ "name": bucket(&self.name) });
        detail["object"] = json!({ "key": run::key(cause), "size": bytes });
        let event = message.event.edited(cause, Some(&detail.to_string()));
        let about = Message {
            event: Arc::new(event.map_err(|e| internal(&e))?),
            input: None,
            ..message.clone()
        };
        let mut outcome = self.transform.handle(&[about], cx).await;
        outcome.results.pop().unwrap_or_else(|| {
            Err(Failure::transient(
                "Internal",
                "the transform gave no answer",
            ))
        })
    }
}

/// The transform's answer with what was fetched.
fn summed_up(mut done: Done, told: Value, table: &str) -> Done {
    if !done.summary.is_object() {
        done.summary = json!({ "table": table, "rows_in": 0, "rows_out": 0 });
    }
    done.summary["extract"] = told;
    done
}

impl Handler for ExtractHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let mut results = Vec::with_capacity(batch.len());
            for message in batch {
                results.push(self.one(message, cx).await);
            }
            Outcome::each(results)
        })
    }
}
