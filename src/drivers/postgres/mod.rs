//! Loads into PostgreSQL: rows by binary `COPY`, the merge and the receipts in
//! one transaction.
//!
//! The table `pointsman_loads`, beside the one that is loaded, has a row per
//! publication. The receipt is inserted first: of two attempts at one
//! publication the second waits there for the first, and finds it done. A load
//! whose connection breaks while it commits is settled the same way.
//!
//! Appended rows are copied straight into the table; others into a temporary
//! table and merged from there, so that readers see all of a load or nothing.

mod blame;
mod check;
pub(super) mod connect;
mod copy;
pub(super) mod encode;
mod merge;
mod numeric;
pub(super) mod table;
pub(super) mod types;

pub use check::check_server;
pub use connect::{PostgresOptions, PostgresTls};

use super::{Driver, Role};
use crate::handlers::load::columns;
use crate::handlers::load::incoming::Incoming;
use crate::handlers::load::source::{self, Outputs};
use crate::handlers::load::{LoadOptions, Loaded, Loader, Mode};
use crate::handlers::{Context, Failure};
use connect::{connect, told};
use futures::future::BoxFuture;
use table::Names;
use tokio_postgres::{Client, Transaction};
use tokio_util::sync::CancellationToken;

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "postgres",
    summary: "tables in PostgreSQL",
    connection: Some("postgres"),
    roles: &[Role::Loader],
};

/// Loads into a table of a Postgres server.
pub struct PostgresLoader {
    server: PostgresOptions,
    options: LoadOptions,
    names: Names,
}

impl PostgresLoader {
    /// A loader into the table of `options`.
    ///
    /// # Errors
    /// When the table's name cannot be used. The server is not asked yet.
    pub fn new(options: LoadOptions, server: PostgresOptions) -> Result<Self, Failure> {
        Ok(Self {
            names: Names::of(&options.table)?,
            server,
            options,
        })
    }

    async fn run(
        &self,
        client: &mut Client,
        incoming: &[&Incoming],
        cancel: &CancellationToken,
    ) -> Result<Loaded, Failure> {
        let begin = client.transaction().await;
        let tx = begin.map_err(|e| told(&e, "a transaction cannot be begun"))?;
        table::receipts(&tx, &self.names).await?;
        let fresh = self.receive(&tx, incoming).await?;
        if fresh.is_empty() {
            return Ok(Loaded::default());
        }
        let normal = columns::union(&source::schemas(&fresh)?, types::normal)?;
        for column in self.options.mode.columns() {
            if normal.field_with_name(column).is_err() {
                return Err(source::lacks(column, &self.options.mode));
            }
        }
        let plan = table::plan(&tx, &self.names, &self.options, &normal).await?;
        let direct = self.options.mode == Mode::Append;
        let key = self.options.mode.key();
        let outputs = Outputs::new(&fresh, &plan.schema, key, !direct, cancel.clone());
        if direct {
            copy::copy(&tx, &self.names.table, &plan, &outputs).await?;
        } else {
            merge::stage(&tx, &self.names, &plan, &outputs).await?;
            let merge = merge::Merge::new(&self.names, &plan, &self.options.mode);
            merge.run(&tx, &outputs).await?;
        }
        // Constraints that are checked at the end speak up here.
        let check = tx.batch_execute("set constraints all immediate").await;
        check.map_err(|e| blame::told(&e, &self.names.table, &outputs))?;
        let commit = tx.commit().await;
        commit.map_err(|e| told(&e, "the load cannot be committed"))?;
        Ok(Loaded {
            fresh: fresh.iter().map(|f| f.id.clone()).collect(),
            version: None,
        })
    }

    /// Writes the receipts; tells the publications that had none.
    async fn receive<'a>(
        &self,
        tx: &Transaction<'_>,
        incoming: &[&'a Incoming],
    ) -> Result<Vec<&'a Incoming>, Failure> {
        let sql = format!(
            "insert into {} (target, publication, cause, rows) values ($1, $2, $3, $4)
             on conflict do nothing",
            self.names.receipts
        );
        let failed = |e: tokio_postgres::Error| told(&e, "a receipt cannot be written");
        let statement = tx.prepare(&sql).await.map_err(failed)?;
        let mut ordered: Vec<(usize, &Incoming)> = incoming.iter().copied().enumerate().collect();
        // Two loads of the same publications in different orders would wait for
        // each other for ever.
        ordered.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
        let mut fresh = Vec::new();
        for (at, one) in ordered {
            if one.files.is_empty() {
                continue;
            }
            let rows = i64::try_from(one.rows).unwrap_or(i64::MAX);
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&self.names.table, &one.id, &one.cause, &rows];
            if tx.execute(&statement, &values).await.map_err(failed)? == 1 {
                fresh.push((at, one));
            }
        }
        fresh.sort_by_key(|(at, _)| *at);
        Ok(fresh.into_iter().map(|(_, one)| one).collect())
    }
}

impl Loader for PostgresLoader {
    fn load<'a>(
        &'a self,
        incoming: &'a [&'a Incoming],
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Loaded, Failure>> {
        Box::pin(async move {
            let mut session = connect(&self.server, "set client_min_messages = warning").await?;
            tokio::select! {
                biased;
                () = cx.cancel.cancelled() => {}
                done = self.run(&mut session.client, incoming, &cx.cancel) => return done,
            }
            session.stop.stop().await;
            Err(crate::handlers::transform::cancelled())
        })
    }
}
