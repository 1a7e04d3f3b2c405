//! The transform handler: objects (or events) in, checked, computed by SQL,
//! written as partitioned files of a lake table, announced by `Analytics Ready`.
//!
//! What comes in: an [`object`], [`several`] of them, a batch of [`events`], or a
//! publication of another table ([`chained`]).
//!
//! The way of an object: [`read`] opens it and makes records, [`schema`],
//! [`cell`] and [`check`] type and check them, [`batch`] makes columns of the
//! good ones, [`rejects`] keeps the bad ones, [`stream`] hands the batches to
//! the [`sql`], [`sink`] writes the result, and [`publish`] makes it visible at
//! once through a [`manifest`]. One publication per cause: a retry finds the
//! manifest and answers from it.

pub mod batch;
mod bucket;
pub mod cell;
mod chained;
mod check;
pub(in crate::handlers) mod disk;
pub mod drift;
mod events;
mod expand;
mod inferred;
mod ledger;
pub(crate) mod locks;
pub mod manifest;
mod object;
pub mod options;
pub mod publish;
mod quarantine;
pub mod read;
mod reference;
pub mod rejects;
mod run;
pub mod schema;
mod schema_order;
mod several;
mod sink;
mod sql;
mod stream;
pub mod upkeep;

pub use sql::check_sql;
pub use stream::cancelled;

use super::objects::Places;
use super::{Context, Done, Emit, Failure, Handler, Message, Outcome};
use futures::future::BoxFuture;
use manifest::Manifest;
pub use options::*;
use schema::RecordSchema;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// `detail-type` of the event that announces a publication.
pub const READY: &str = "Analytics Ready";
/// Leftovers of attempts that nobody retries are removed after this time.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// A transform, ready to run.
pub struct TransformHandler {
    inner: Arc<Inner>,
}

/// What all runs of a transform share.
struct Inner {
    name: String,
    options: TransformOptions,
    env: TransformEnv,
    places: Places,
    declared: Option<Arc<RecordSchema>>,
    /// A hash of all that decides what is made of an object.
    definition: String,
    references: reference::Cache,
    ledger: tokio::sync::Mutex<ledger::Ledger>,
    /// Leftovers in the bucket were looked for.
    swept: tokio::sync::OnceCell<()>,
}

impl TransformHandler {
    /// A transform named `name`, which is part of its publications' identity.
    ///
    /// # Errors
    /// When the declared schema is not one.
    pub fn new(
        name: &str,
        options: TransformOptions,
        env: TransformEnv,
        places: Places,
    ) -> Result<Self, Failure> {
        let declared = sql::declared(&options.read)
            .map_err(|e| Failure::permanent("BadSchema", e))?
            .map(Arc::new);
        publish::sweep(&env.lake, LEFTOVER_AGE).map_err(|e| {
            Failure::transient("WriteFailed", "leftovers in the lake could not be removed")
                .caused_by(&e)
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                definition: options.definition(),
                options,
                env,
                places,
                declared,
                references: reference::Cache::default(),
                ledger: tokio::sync::Mutex::default(),
                swept: tokio::sync::OnceCell::new(),
            }),
        })
    }
}

impl Handler for TransformHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let results = match self.inner.options.read.input {
                Input::Events => events::handle(&self.inner, batch, cx).await,
                Input::Object => several::handle(&self.inner, batch, cx).await,
                Input::Publication => {
                    let mut results = Vec::with_capacity(batch.len());
                    for message in batch {
                        results.push(chained::handle(&self.inner, message, cx).await);
                    }
                    results
                }
            };
            Outcome::each(results)
        })
    }
}

/// The answer for a publication.
fn done(manifest: &Manifest, policy: Option<drift::Policy>) -> Done {
    let detail = manifest.detail();
    let mut emits = vec![Emit {
        detail_type: READY.to_owned(),
        detail: detail.clone(),
        resources: Vec::new(),
    }];
    if let Some(changes) = &manifest.changes {
        let about = json!({
            "table": manifest.table,
            "handler": manifest.handler,
            "object": manifest.object,
            "policy": policy,
        });
        emits.push(changed(about, changes));
    }
    Done {
        emits,
        revision: manifest.revision,
        summary: detail,
        ..Done::default()
    }
}

/// The event that tells what changed, besides what it is about.
fn changed(mut about: Value, changes: &drift::Changes) -> Emit {
    about["added"] = json!(changes.added);
    about["missing"] = json!(changes.missing);
    about["renamed"] = json!(changes.renamed);
    about["retyped"] = json!(changes.retyped);
    Emit {
        detail_type: drift::CHANGED.to_owned(),
        detail: about,
        resources: Vec::new(),
    }
}
