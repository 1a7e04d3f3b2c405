//! Upkeep of a warehouse table: small files are put together, old ones go.

use super::Warehouse;
use crate::handlers::Failure;
use crate::handlers::transform::locks;
use chrono::TimeDelta;
use std::time::Duration;

/// What the upkeep of a table did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Small files that were put together.
    pub compacted: u64,
    /// Files that no kept version needs, removed.
    pub removed: u64,
}

/// Puts small files of a table of the warehouse together and removes files that
/// only versions older than `keep` need.
///
/// # Errors
/// When the table cannot be read or written.
pub async fn maintain(
    warehouse: &Warehouse,
    table: &str,
    keep: Duration,
) -> Result<Maintained, Failure> {
    let place = warehouse.place(table);
    let failed = |e: &deltalake::DeltaTableError| {
        Failure::transient(
            "WarehouseFailed",
            format!("the table in {} cannot be maintained", place.display()),
        )
        .caused_by(e)
    };
    let _held = locks::lock(&place).await;
    let table = warehouse.open(table).await?;
    if table.version().is_none() {
        return Ok(Maintained::default());
    }
    let (table, optimized) = table.optimize().await.map_err(|e| failed(&e))?;
    let keep = TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
    let (_, vacuumed) = table
        .vacuum()
        .with_retention_period(keep)
        // The time given is the one that is wanted, also when it is short.
        .with_enforce_retention_duration(false)
        .await
        .map_err(|e| failed(&e))?;
    Ok(Maintained {
        compacted: optimized.num_files_removed,
        removed: vacuumed.files_deleted.len() as u64,
    })
}
