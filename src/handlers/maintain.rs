//! The maintain handler: any event, usually a schedule's, is the word to do the
//! upkeep of a table of the lake or of the warehouse.

use super::load::{self, Warehouse};
use super::transform::upkeep::{self, Upkeep};
use super::{Context, Done, Failure, Handler, Message, Outcome};
use crate::clock::SharedClock;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Versions of a warehouse table are kept this long, if nothing else is said.
const VERSIONS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which table is kept, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintainOptions {
    /// The table.
    pub table: TableRef,
    /// What is kept of it.
    pub upkeep: Upkeep,
}

/// A table by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRef {
    /// A table of the lake.
    Lake(String),
    /// A table of the warehouse.
    Warehouse(String),
}

/// Does the upkeep of one table.
pub struct MaintainHandler {
    options: MaintainOptions,
    lake: PathBuf,
    warehouse: Warehouse,
    clock: SharedClock,
}

impl MaintainHandler {
    /// A handler for tables under `lake` and in `warehouse`.
    #[must_use]
    pub fn new(
        options: MaintainOptions,
        lake: PathBuf,
        warehouse: Warehouse,
        clock: SharedClock,
    ) -> Self {
        Self {
            options,
            lake,
            warehouse,
            clock,
        }
    }

    async fn maintain(&self) -> Result<Value, Failure> {
        let upkeep = &self.options.upkeep;
        match &self.options.table {
            TableRef::Lake(table) => {
                let kept = upkeep::maintain(&self.lake, table, upkeep, self.clock.now_ms()).await?;
                Ok(json!({
                    "table": table,
                    "compacted": kept.compacted,
                    "written": kept.written,
                    "expired": kept.expired,
                    "removed": kept.removed,
                }))
            }
            TableRef::Warehouse(table) => {
                let keep = upkeep.keep.unwrap_or(VERSIONS_KEPT);
                let kept = load::maintain(&self.warehouse, table, keep).await?;
                Ok(json!({
                    "table": table,
                    "compacted": kept.compacted,
                    "removed": kept.removed,
                }))
            }
        }
    }
}

impl Handler for MaintainHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], _: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            // Once is enough for all words that came together.
            let result = self.maintain().await;
            let each = batch.iter().map(|_| {
                result.clone().map(|summary| Done {
                    summary,
                    ..Done::default()
                })
            });
            Outcome::each(each.collect())
        })
    }
}
