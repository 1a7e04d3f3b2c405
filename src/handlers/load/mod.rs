//! The load handler: takes `Analytics Ready`, reads the outputs it names, and
//! appends or merges them into a Delta table of the warehouse.
//!
//! Once per publication: each commit carries an application transaction per
//! publication (the id is the publication's), and a publication whose
//! transaction is in the table is not loaded again. Check and commit are
//! race-safe: of two writers that pass the check at once, one fails with a
//! conflict, looks again and finds its work done. Transactions older than
//! [`RECEIPTS_KEPT`] leave the table's log with the next checkpoint, so the log
//! does not grow for ever; that is longer than anything is kept that could be
//! delivered again.

mod columns;
mod commit;
mod incoming;
mod maintain;
pub mod options;
mod source;

pub use maintain::{Maintained, maintain};

use super::transform::locks;
use super::{Class, Context, Done, Failure, Handler, Message, Outcome};
use commit::Target;
use deltalake::DeltaTable;
use futures::future::BoxFuture;
use incoming::Incoming;
pub use options::*;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// How long a table remembers what was loaded (a Delta interval).
const RECEIPTS_KEPT: &str = "interval 90 days";

/// A load, ready to run.
pub struct LoadHandler {
    options: LoadOptions,
    env: LoadEnv,
}

impl LoadHandler {
    /// A load into `options.table`.
    ///
    /// # Errors
    /// When an upsert has no key, or the table's name is none.
    pub fn new(options: LoadOptions, env: LoadEnv) -> Result<Self, Failure> {
        if let options::Mode::Upsert { key } = &options.mode
            && key.is_empty()
        {
            return Err(Failure::permanent("BadOptions", "an upsert needs a `key`"));
        }
        if super::transform::manifest::inside(&env.warehouse, &options.table).is_none() {
            let message = format!("`{}` is not a table's name", options.table);
            return Err(Failure::permanent("BadOptions", message));
        }
        Ok(Self { options, env })
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
            .map(|m| Incoming::of(&m.event, &self.env.lake))
            .collect();
        let folder = self.env.warehouse.join(&self.options.table);
        let _held = locks::lock(&folder).await;
        let sound: Vec<&Incoming> = parsed.iter().filter_map(|p| p.as_ref().ok()).collect();
        let mut loaded = self.together(&folder, &sound, cx).await.into_iter();
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
    /// for good, so that one of them does not stop the others.
    async fn together(
        &self,
        folder: &Path,
        incoming: &[&Incoming],
        cx: &Context,
    ) -> Vec<Result<Loaded, Failure>> {
        let failure = match self.load(folder, incoming, cx).await {
            Ok(loaded) => return loaded.into_iter().map(Ok).collect(),
            Err(failure) => failure,
        };
        if incoming.len() == 1 || failure.class != Class::Permanent {
            return incoming.iter().map(|_| Err(failure.clone())).collect();
        }
        let mut results = Vec::with_capacity(incoming.len());
        for one in incoming {
            let alone = self.load(folder, std::slice::from_ref(one), cx).await;
            results.push(alone.map(|mut loaded| loaded.pop().unwrap_or_default()));
        }
        results
    }

    async fn load(
        &self,
        folder: &Path,
        incoming: &[&Incoming],
        cx: &Context,
    ) -> Result<Vec<Loaded>, Failure> {
        let began = Instant::now();
        let target = Target {
            folder,
            table: &self.options.table,
            mode: &self.options.mode,
            env: &self.env,
        };
        let (version, fresh) = target.load(incoming, cx).await?;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(incoming
            .iter()
            .map(|one| Loaded {
                again: !fresh.contains(&one.id),
                version,
                ms,
            })
            .collect())
    }

    fn done(&self, incoming: &Incoming, loaded: &Loaded) -> Done {
        Done {
            summary: json!({
                "table": self.options.table,
                "cause": incoming.cause,
                "publication": incoming.id,
                "rows": incoming.rows,
                "files": incoming.files.len(),
                "version": loaded.version,
                "already_loaded": loaded.again,
                "duration_ms": loaded.ms,
            }),
            ..Done::default()
        }
    }
}

/// How a publication was loaded.
#[derive(Clone, Debug, Default)]
struct Loaded {
    /// It was in the table before.
    again: bool,
    version: Option<u64>,
    ms: u64,
}

/// Opens a Delta table; one that does not exist has no version.
///
/// # Errors
/// When the folder is there and is no sound table.
pub async fn open(folder: &Path) -> Result<DeltaTable, Failure> {
    let failed = |e: &dyn std::error::Error| {
        Failure::transient(
            "WarehouseFailed",
            format!("the table in {} cannot be opened", folder.display()),
        )
        .caused_by(e)
    };
    std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    let absolute = std::path::absolute(folder).map_err(|e| failed(&e))?;
    let url = deltalake::ensure_table_uri(absolute.to_string_lossy()).map_err(|e| failed(&e))?;
    DeltaTable::try_from_url(url).await.map_err(|e| failed(&e))
}
