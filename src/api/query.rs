//! `POST /query`: SQL over lake, warehouse and declared objects; `POST /maintain`:
//! the upkeep of the warehouse.

use super::ApiError;
use crate::app::Node;
use crate::handlers::query::{Output, Query, QueryError, Style};
use crate::handlers::{Failure, load};
use axum::Json;
use axum::extract::State;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A query and how its answer looks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sql {
    sql: String,
    /// At most this many rows.
    #[serde(default = "default_rows")]
    limit: usize,
    #[serde(default)]
    format: Format,
    /// Longest time in seconds.
    #[serde(default = "default_seconds")]
    timeout_seconds: u64,
    /// Tell how it would be run instead.
    #[serde(default)]
    explain: bool,
}

/// How the answer looks.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
    Table,
    Parquet,
}

fn default_rows() -> usize {
    10_000
}

fn default_seconds() -> u64 {
    300
}

/// `POST /query`.
pub(super) async fn query(
    State(node): State<Arc<Node>>,
    Json(request): Json<Sql>,
) -> Result<Vec<u8>, ApiError> {
    let limit = Duration::from_secs(request.timeout_seconds);
    match tokio::time::timeout(limit, answer(&node.query, &request)).await {
        Ok(answer) => answer.map_err(|e| ApiError::bad("Query", e.to_string())),
        Err(_) => Err(ApiError::bad(
            "QueryTimeout",
            format!(
                "the query took longer than {} s and was stopped; give it more with `--timeout`, or ask for less",
                request.timeout_seconds
            ),
        )),
    }
}

async fn answer(query: &Query, request: &Sql) -> Result<Vec<u8>, QueryError> {
    if request.explain {
        return query.explain(&request.sql).await.map(String::into_bytes);
    }
    let style = match request.format {
        Format::Json => Style::Json,
        Format::Csv => Style::Csv,
        Format::Table => Style::Table,
        Format::Parquet => Style::Parquet,
    };
    let mut answer = query.run(&request.sql).await?;
    let mut bytes = Vec::new();
    let mut output = Output::new(style, answer.schema, &mut bytes);
    let mut left = request.limit;
    while let Some(batch) = answer.rows.next().await {
        let batch = batch?;
        output.batch(&batch.slice(0, left.min(batch.num_rows())))?;
        left = left.saturating_sub(batch.num_rows());
        if left == 0 {
            break;
        }
    }
    output.finish()?;
    Ok(bytes)
}

/// Tables that are kept in order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Maintain {
    /// All of them when there are none.
    #[serde(default)]
    tables: Vec<String>,
    /// Files that only older versions need are removed, in seconds.
    keep_seconds: u64,
}

/// `POST /maintain`: puts small files of the warehouse together and removes old ones.
pub(super) async fn maintain(
    State(node): State<Arc<Node>>,
    Json(request): Json<Maintain>,
) -> Result<Json<Value>, ApiError> {
    let warehouse = node.query.warehouse();
    let failed = |failure: Failure| ApiError::bad("Maintain", failure.message);
    let known = warehouse.names().await.map_err(failed)?;
    let tables = match request.tables.is_empty() {
        true => known.clone(),
        false => request.tables,
    };
    if let Some(unknown) = tables.iter().find(|table| !known.contains(table)) {
        let message = format!("the warehouse has no table `{unknown}`");
        return Err(ApiError::bad("Maintain", message));
    }
    let keep = Duration::from_secs(request.keep_seconds);
    let mut told = Vec::with_capacity(tables.len());
    for table in tables {
        let done = load::maintain(&warehouse, &table, keep).await;
        let done = done.map_err(failed)?;
        told.push(json!({ "table": table, "compacted": done.compacted, "removed": done.removed }));
    }
    Ok(Json(Value::Array(told)))
}
