//! The load handler: takes `Analytics Ready`, reads the outputs it names, and
//! brings them into a table: a Delta table of the built-in warehouse, or
//! whatever else implements [`Loader`].
//!
//! Once per publication: a loader commits a receipt per publication with the
//! rows, and a publication whose receipt is in the table is not loaded again.
//! In a Delta table a receipt is an application transaction. Check and commit
//! are race-safe: of two writers that pass the check at once, one fails with a
//! conflict, looks again and finds its work done. Transactions older than
//! [`RECEIPTS_KEPT`] leave the table's log with the next checkpoint, so the log
//! does not grow for ever; that is longer than anything is kept that could be
//! delivered again.

pub mod columns;
mod delta;
pub mod incoming;
pub mod layout;
mod loader;
mod maintain;
pub mod options;
pub mod source;
mod warehouse;

pub use delta::DeltaLoader;
pub use loader::{Loaded, Loader};
pub use maintain::{Maintained, maintain};
pub use warehouse::Warehouse;

use super::objects::Places;
use super::{Class, Context, Done, Failure, Handler, Message, Outcome};
use futures::future::BoxFuture;
use incoming::Incoming;
pub use options::*;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How long a table remembers what was loaded (a Delta interval).
const RECEIPTS_KEPT: &str = "interval 90 days";

/// A load, ready to run.
pub struct LoadHandler {
    options: LoadOptions,
    lake: PathBuf,
    places: Places,
    loader: Arc<dyn Loader>,
}

impl LoadHandler {
    /// A load into a Delta table of the built-in warehouse.
    ///
    /// # Errors
    /// When an upsert has no key, or the table's name is none.
    pub fn new(options: LoadOptions, env: LoadEnv) -> Result<Self, Failure> {
        let lake = env.lake.clone();
        let loader = Arc::new(DeltaLoader::new(options.clone(), env)?);
        Self::into(options, lake, loader)
    }

    /// A load of the lake's outputs by another loader.
    ///
    /// # Errors
    /// When an upsert has no key.
    pub fn into(
        options: LoadOptions,
        lake: PathBuf,
        loader: Arc<dyn Loader>,
    ) -> Result<Self, Failure> {
        options.check()?;
        Ok(Self {
            options,
            lake,
            places: Places::default(),
            loader,
        })
    }
}

impl LoadHandler {
    /// The buckets that outputs may lie in.
    #[must_use]
    pub fn reading(mut self, places: Places) -> Self {
        self.places = places;
        self
    }
}

impl Handler for LoadHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Outcome::each(self.all(batch, cx).await) })
    }
}

impl LoadHandler {
    async fn all(&self, batch: &[Message], cx: &Context) -> Vec<Result<Done, Failure>> {
        let parsed: Vec<Result<Incoming, Failure>> = batch
            .iter()
            .map(|m| Incoming::of(&m.event, &self.lake, &self.places))
            .collect();
        let sound: Vec<&Incoming> = parsed.iter().filter_map(|p| p.as_ref().ok()).collect();
        let mut loaded = self.together(&sound, cx).await.into_iter();
        parsed
            .iter()
            .map(|parsed| match parsed {
                Err(failure) => Err(failure.clone()),
                Ok(incoming) => {
                    let none = || Err(Failure::transient("Internal", "the load was not tried"));
                    loaded
                        .next()
                        .unwrap_or_else(none)
                        .map(|how| self.done(incoming, &how))
                }
            })
            .collect()
    }

    /// Loads several publications in one commit; each by itself, if that fails
    /// for good, so that one of them does not stop the others. Of two
    /// publications of one partition the second replaces the first, so they
    /// cannot share a commit that replaces partitions.
    async fn together(&self, incoming: &[&Incoming], cx: &Context) -> Vec<Result<Told, Failure>> {
        let by_itself = matches!(self.options.mode, Mode::ReplacePartition { .. });
        if !by_itself {
            let failure = match self.load(incoming, cx).await {
                Ok(loaded) => return loaded.into_iter().map(Ok).collect(),
                Err(failure) => failure,
            };
            if incoming.len() == 1 || failure.class != Class::Permanent {
                return incoming.iter().map(|_| Err(failure.clone())).collect();
            }
        }
        let mut results = Vec::with_capacity(incoming.len());
        for one in incoming {
            let alone = self.load(std::slice::from_ref(one), cx).await;
            results.push(alone.map(|mut told| told.pop().unwrap_or_default()));
        }
        results
    }

    async fn load(&self, incoming: &[&Incoming], cx: &Context) -> Result<Vec<Told>, Failure> {
        let began = Instant::now();
        let loaded = self.loader.load(incoming, cx).await?;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(incoming
            .iter()
            .map(|one| Told {
                again: !loaded.fresh.contains(&one.id),
                version: loaded.version,
                ms,
            })
            .collect())
    }

    fn done(&self, incoming: &Incoming, told: &Told) -> Done {
        Done {
            summary: json!({
                "table": self.options.table,
                "cause": incoming.cause,
                "publication": incoming.id,
                "rows": incoming.rows,
                "files": incoming.files.len(),
                "version": told.version,
                "already_loaded": told.again,
                "duration_ms": told.ms,
            }),
            ..Done::default()
        }
    }
}

/// How a publication was loaded.
#[derive(Clone, Debug, Default)]
struct Told {
    /// It was in the table before.
    again: bool,
    version: Option<u64>,
    ms: u64,
}
