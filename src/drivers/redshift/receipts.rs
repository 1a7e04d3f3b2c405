//! Receipts: a row per publication beside the table, written with the merge.

use super::explain::told;
use super::sql::Names;
use crate::handlers::Failure;
use crate::handlers::load::incoming::Incoming;
use tokio_postgres::{Client, GenericClient, Transaction};

/// The receipts of a table.
pub(super) struct Receipts<'a> {
    names: &'a Names,
}

impl<'a> Receipts<'a> {
    /// Makes the table of receipts where it is missing.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn of(client: &Client, names: &'a Names) -> Result<Self, Failure> {
        let there = super::table::exists(client, &names.schema, "pointsman_loads").await?;
        if !there {
            // On its own, before any transaction: making a table takes a snapshot.
            let made = client.batch_execute(&names.create_receipts()).await;
            // Two that make it at once may both be refused by the catalog but one.
            if let Err(e) = made
                && !super::table::exists(client, &names.schema, "pointsman_loads").await?
            {
                let what = format!("the table of receipts {} cannot be made", names.receipts);
                return Err(told(&e, &what));
            }
        }
        Ok(Self { names })
    }

    /// Lets one load at a time pass, until the transaction ends.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn lock(&self, tx: &Transaction<'_>) -> Result<(), Failure> {
        let sql = format!("lock table {}", self.names.receipts);
        tx.batch_execute(&sql)
            .await
            .map_err(|e| told(&e, "the receipts cannot be locked"))
    }

    /// The publications that have no receipt, each once.
    ///
    /// # Errors
    /// When the receipts cannot be read.
    pub(super) async fn missing<'i>(
        &self,
        client: &impl GenericClient,
        incoming: &[&'i Incoming],
    ) -> Result<Vec<&'i Incoming>, Failure> {
        let failed = |e: tokio_postgres::Error| told(&e, "the receipts cannot be read");
        let sql = format!(
            "select publication from {} where target = $1::varchar and publication = $2::varchar",
            self.names.receipts
        );
        let statement = client.prepare(&sql).await.map_err(failed)?;
        let mut missing: Vec<&Incoming> = Vec::new();
        for one in incoming {
            if one.files.is_empty() || missing.iter().any(|m| m.id == one.id) {
                continue;
            }
            let found = client
                .query(&statement, &[&self.names.table, &one.id])
                .await
                .map_err(failed)?;
            if found.is_empty() {
                missing.push(one);
            }
        }
        Ok(missing)
    }

    /// Writes the receipts of publications.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn write(
        &self,
        tx: &Transaction<'_>,
        loaded: &[&Incoming],
    ) -> Result<(), Failure> {
        let failed = |e: tokio_postgres::Error| told(&e, "a receipt cannot be written");
        let sql = format!(
            "insert into {} (target, publication, cause, rows, loaded_at)
             values ($1::varchar, $2::varchar, $3::varchar, $4::bigint, $5::varchar::timestamp)",
            self.names.receipts
        );
        let statement = tx.prepare(&sql).await.map_err(failed)?;
        let now = chrono::Utc::now().format("%Y-%m-%d %H:%M:%S").to_string();
        for one in loaded {
            let rows = i64::try_from(one.rows).unwrap_or(i64::MAX);
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&self.names.table, &one.id, &one.cause, &rows, &now];
            tx.execute(&statement, &values).await.map_err(failed)?;
        }
        Ok(())
    }
}
