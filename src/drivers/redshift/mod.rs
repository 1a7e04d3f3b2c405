//! Loads into Amazon Redshift. The rows go to a bucket as Parquet, Redshift
//! takes them from there into a staging table with one `COPY` by a manifest, and
//! the merge and the receipts are one transaction. Redshift is spoken to through
//! PostgreSQL's protocol.
//!
//! The rows are written anew for the bucket, and not taken as they lie in the
//! lake, because a `COPY` of Parquet goes by the position and exact type of the
//! columns and knows nothing of partition folders
//! (<https://docs.aws.amazon.com/redshift/latest/dg/copy-usage_notes-copy-from-columnar.html>).
//! On that way each value is looked at, so a row that the table would refuse is
//! named before anything is sent.
//!
//! Redshift enforces no primary key, so receipts are guarded by a lock on their
//! table. It is taken as the first statement of the transaction: the snapshot of
//! a transaction begins after it, and two loads of one publication cannot both
//! miss the other's receipt
//! (<https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html>).

mod explain;
mod receipts;
mod sql;
mod stage;
mod table;

use super::postgres::PostgresOptions;
use super::postgres::connect::{connect, told};
use super::{Driver, Role};
use crate::handlers::load::columns;
use crate::handlers::load::incoming::Incoming;
use crate::handlers::load::source::{self, Outputs};
use crate::handlers::load::{LoadOptions, Loaded, Loader};
use crate::handlers::{Context, Failure};
use futures::future::BoxFuture;
use object_store::ObjectStore;
use receipts::Receipts;
use sql::{Merge, Names};
use stage::Stage;
use std::path::PathBuf;
use std::sync::Arc;
use table::Plan;
use tokio_postgres::{Client, Transaction};
use tokio_util::sync::CancellationToken;

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "redshift",
    summary: "tables in Amazon Redshift, loaded through a bucket",
    connection: Some("redshift"),
    roles: &[Role::Loader],
};

/// How Redshift gets at the bucket.
#[derive(Clone)]
pub enum Credentials {
    /// By a role of the cluster: its ARN (several with commas), or `default`.
    Role(String),
    /// By an access key, its secret, and a token where the key is temporary.
    Keys(String, String, Option<String>),
}

/// The bucket that rows go through.
#[derive(Clone)]
pub struct Staging {
    /// Its store.
    pub store: Arc<dyn ObjectStore>,
    /// Its name.
    pub bucket: String,
    /// The folder in it, without slashes at its ends; may be empty.
    pub prefix: String,
    /// How Redshift gets at it.
    pub credentials: Credentials,
    /// A folder of this machine for files that are about to be uploaded.
    pub scratch: PathBuf,
}

/// Loads into a table of a Redshift cluster or workgroup.
pub struct RedshiftLoader {
    server: PostgresOptions,
    staging: Staging,
    options: LoadOptions,
    names: Names,
}

impl RedshiftLoader {
    /// A loader into the table of `options`.
    ///
    /// # Errors
    /// When the table's name cannot be used. Nothing is asked yet.
    pub fn new(
        options: LoadOptions,
        server: PostgresOptions,
        staging: Staging,
    ) -> Result<Self, Failure> {
        Ok(Self {
            names: Names::of(&options.table)?,
            server,
            staging,
            options,
        })
    }

    async fn run(
        &self,
        client: &mut Client,
        incoming: &[&Incoming],
        cancel: &CancellationToken,
    ) -> Result<Loaded, Failure> {
        let receipts = Receipts::of(client, &self.names).await?;
        let fresh = receipts.missing(client, incoming).await?;
        if fresh.is_empty() {
            return Ok(Loaded::default());
        }
        let normal = columns::union(&source::schemas(&fresh)?, table::normal)?;
        for column in self.options.mode.columns() {
            if normal.field_with_name(column).is_err() {
                return Err(source::lacks(column, &self.options.mode));
            }
        }
        let plan = table::plan(client, &self.names, &self.options, &normal).await?;
        let key = self.options.mode.key();
        let outputs = Outputs::new(&fresh, &plan.schema, key, true, cancel.clone());
        let stage = Stage::new(&self.staging, &self.names, &fresh);
        let loaded = self
            .load_staged(client, &receipts, &fresh, &plan, &outputs, &stage)
            .await;
        stage.remove().await;
        loaded?;
        Ok(Loaded {
            fresh: fresh.iter().map(|f| f.id.clone()).collect(),
            version: None,
        })
    }

    async fn load_staged(
        &self,
        client: &mut Client,
        receipts: &Receipts<'_>,
        fresh: &[&Incoming],
        plan: &Plan,
        outputs: &Arc<Outputs>,
        stage: &Stage<'_>,
    ) -> Result<(), Failure> {
        let manifest = stage.upload(outputs, plan).await?;
        self.copy(client, plan, &manifest).await?;
        let begin = client.transaction().await;
        let tx = begin.map_err(|e| told(&e, "a transaction cannot be begun"))?;
        receipts.lock(&tx).await?;
        if receipts.missing(&tx, fresh).await?.len() < fresh.len() {
            return Err(Failure::transient(
                "Conflict",
                "another attempt loaded some of the publications meanwhile",
            ));
        }
        self.merge(&tx, plan).await?;
        receipts.write(&tx, fresh).await?;
        let commit = tx.commit().await;
        commit.map_err(|e| explain::told(&e, "the load cannot be committed"))
    }

    /// From the bucket into the staging table of the session.
    async fn copy(&self, client: &Client, plan: &Plan, manifest: &str) -> Result<(), Failure> {
        let made = client.batch_execute(&sql::create_stage(plan)).await;
        made.map_err(|e| told(&e, "the staging table cannot be made"))?;
        let copy = sql::copy(manifest, &self.staging.credentials);
        match client.batch_execute(&copy).await {
            Ok(()) => Ok(()),
            Err(error) => Err(explain::copy(client, &error, &self.names.table).await),
        }
    }

    async fn merge(&self, tx: &Transaction<'_>, plan: &Plan) -> Result<(), Failure> {
        let merge = Merge::of(&self.names, plan, &self.options.mode);
        for statement in merge.statements {
            let done = tx.batch_execute(&statement).await;
            done.map_err(|e| explain::told(&e, &format!("{} refuses the rows", self.names.table)))?;
        }
        Ok(())
    }
}

impl Loader for RedshiftLoader {
    fn load<'a>(
        &'a self,
        incoming: &'a [&'a Incoming],
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Loaded, Failure>> {
        Box::pin(async move {
            let mut session = connect(&self.server, "").await?;
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
