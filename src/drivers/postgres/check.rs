//! Looking whether a server, and the table of a load, will do as they are asked,
//! before anything runs.

use super::PostgresLoader;
use super::connect::{PostgresOptions, connect, told};
use crate::drivers::Finding;
use crate::handlers::Failure;
use crate::handlers::load::Mode;
use tokio_postgres::Client;

/// Tries to connect.
pub async fn check_server(server: &PostgresOptions) -> Finding {
    let session = connect(server, "").await.map_err(|e| whole(&e))?;
    let version = session.client.query_one("show server_version", &[]).await;
    let version: String = version
        .and_then(|row| row.try_get(0))
        .map_err(|e| whole(&told(&e, "the server does not answer")))?;
    Ok(format!("connected, PostgreSQL {version}"))
}

/// A failure with what caused it.
fn whole(failure: &Failure) -> String {
    let mut said = failure.message.clone();
    for cause in &failure.chain {
        said.push_str(&format!(": {cause}"));
    }
    said
}

impl PostgresLoader {
    /// Looks whether the table and its receipts are there, or can be made, and
    /// whether they can be written. Makes and changes nothing.
    pub async fn check(&self) -> Vec<Finding> {
        let session = match connect(&self.server, "").await {
            Ok(session) => session,
            Err(failure) => return vec![Err(whole(&failure))],
        };
        let checked = self.look(&session.client).await;
        checked.unwrap_or_else(|e| {
            let failure = told(&e, "the table cannot be looked at");
            vec![Err(whole(&failure))]
        })
    }

    async fn look(&self, client: &Client) -> Result<Vec<Finding>, tokio_postgres::Error> {
        let names = &self.names;
        let mut findings = Vec::new();
        let needed = match self.options.mode {
            Mode::Append => "insert",
            Mode::Upsert { .. } => "select, insert, update, delete",
            Mode::ReplacePartition { .. } => "select, insert, delete",
        };
        let schema = &names.schema;
        let may_make = match on_schema(client, schema).await? {
            None => return Ok(vec![Err(format!("the schema `{schema}` is not there"))]),
            Some((false, _)) => {
                let said = format!("using the schema `{schema}` is not permitted");
                return Ok(vec![Err(said)]);
            }
            Some((true, may_make)) => may_make,
        };
        let both = [
            (&names.table, needed, self.options.create),
            (&names.receipts, "select, insert", true),
        ];
        for (table, needed, made) in both {
            let row = client
                .query_one("select to_regclass($1) is not null", &[table])
                .await?;
            findings.push(match (row.try_get(0)?, made, may_make) {
                (true, ..) => may(client, table, needed).await?,
                (false, true, true) => Ok(format!("the table {table} is made with the first load")),
                (false, true, false) => Err(format!(
                    "the table {table} is not there, and making tables in schema `{schema}` is not permitted"
                )),
                (false, false, _) => Err(format!(
                    "the table {table} is not there; make it, or write `create: true`"
                )),
            });
        }
        if self.options.mode != Mode::Append {
            let sql = "select has_database_privilege(current_database(), 'temp')";
            let temporary: bool = client.query_one(sql, &[]).await?.try_get(0)?;
            if !temporary {
                findings.push(Err(
                    "temporary tables, which a merge needs, are not permitted".to_owned(),
                ));
            }
        }
        Ok(findings)
    }
}

/// Whether a schema that is there may be used, and tables made in it.
async fn on_schema(
    client: &Client,
    schema: &str,
) -> Result<Option<(bool, bool)>, tokio_postgres::Error> {
    let sql =
        "select has_schema_privilege(nspname, 'usage'), has_schema_privilege(nspname, 'create')
               from pg_namespace where nspname = $1";
    match client.query_opt(sql, &[&schema]).await? {
        None => Ok(None),
        Some(row) => Ok(Some((row.try_get(0)?, row.try_get(1)?))),
    }
}

/// Whether a table that is there can be used.
async fn may(client: &Client, table: &str, needed: &str) -> Result<Finding, tokio_postgres::Error> {
    let mut lacks = Vec::new();
    for one in needed.split(", ") {
        let row = client
            .query_one("select has_table_privilege($1, $2)", &[&table, &one])
            .await?;
        if !row.try_get::<_, bool>(0)? {
            lacks.push(one);
        }
    }
    Ok(match lacks.is_empty() {
        true => Ok(format!("the table {table} is there and can be written")),
        false => Err(format!(
            "the table {table} is there, but not permitted: {}",
            lacks.join(", ")
        )),
    })
}
