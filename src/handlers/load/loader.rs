//! The seam between the load handler and the tables that it loads into.

use super::incoming::Incoming;
use crate::handlers::{Context, Failure};
use futures::future::BoxFuture;

/// A table that publications are loaded into, each of them once.
pub trait Loader: Send + Sync {
    /// Loads the publications that are not in the table yet, in one commit that
    /// holds their receipts, too.
    ///
    /// # Errors
    /// Then nothing of this call is in the table. A permanent failure says which
    /// row or column is at fault. When a connection breaks during the commit,
    /// the receipts tell the next attempt what became of it.
    fn load<'a>(
        &'a self,
        incoming: &'a [&'a Incoming],
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Loaded, Failure>>;
}

/// What a load did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Ids of the publications that were loaded now; the others were there before.
    pub fresh: Vec<String>,
    /// The table's version, where tables have versions.
    pub version: Option<u64>,
}
