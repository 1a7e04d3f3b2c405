//! What a node knows of itself.

use super::ApiError;
use crate::app::Node;
use crate::bus::Pressure;
use crate::handlers::query::{Output, QueryError, Style};
use crate::observe::{Books, Outside};
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /healthz`: 200 while events are taken, 503 with the reason otherwise.
pub(super) async fn healthz(State(node): State<Arc<Node>>) -> Response {
    let (status, text) = match (node.bus.poisoned(), node.bus.pressure()) {
        (Some(why), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {why}")),
        (None, Pressure::Refuse { reason, .. }) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("refusing events: {reason}"),
        ),
        (None, Pressure::Warn { reason }) => (StatusCode::OK, format!("ok, but {reason}")),
        (None, Pressure::Ok) => match node.bus.damage().len() {
            0 => (StatusCode::OK, "ok".to_owned()),
            n => (
                StatusCode::OK,
                format!("ok, but {n} places in the log are damaged; `pointsman audit` names them"),
            ),
        },
    };
    (status, format!("{text}\n")).into_response()
}

/// `GET /metrics`: Prometheus.
pub(super) async fn metrics(
    State(node): State<Arc<Node>>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let text = node
        .metrics
        .render(&Books {
            ledger: node.bus.audit(),
            disk_bytes: node.bus.disk_bytes(),
            expiring: node.expiring(),
            damage: node.bus.damage().len(),
            outside: outside(&node),
        })
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Metrics", e.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text))
}

fn outside(node: &Node) -> Outside {
    let circuits = node.circuits().into_iter();
    Outside {
        circuits: circuits
            .map(|(name, circuit)| (name, circuit.status().state))
            .collect(),
        subscriptions: node
            .subscriptions()
            .iter()
            .map(|(route, one)| (route.to_owned(), one.standing().state))
            .collect(),
    }
}

/// What holds for every route.
const EQUATION: &str = "enqueued + replayed + moved_in = delivered + dead + purged + expired + moved_out + ready + leased + delayed";

/// `GET /audit`: the ledger, and whether it adds up.
pub(super) async fn audit(State(node): State<Arc<Node>>) -> Json<Value> {
    let ledger = node.bus.audit();
    let balanced = ledger.balanced();
    Json(json!({
        "balanced": balanced,
        "equation": EQUATION,
        "ledger": ledger,
        "damage": node.bus.damage(),
    }))
}

/// `GET /plan`: the configuration in force, defaults included, secrets not.
pub(super) async fn plan(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(json!(*node.config()))
}

#[derive(Deserialize)]
pub(super) struct Sql {
    sql: String,
    /// Most rows in the answer.
    #[serde(default = "default_rows")]
    limit: usize,
    /// How the answer looks.
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// A JSON object a line.
    #[default]
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// A table for people.
    Table,
}

fn default_rows() -> usize {
    10_000
}

/// `POST /query`: SQL over lake and warehouse.
pub(super) async fn query(
    State(node): State<Arc<Node>>,
    Json(request): Json<Sql>,
) -> Result<Vec<u8>, ApiError> {
    answer(&node, &request)
        .await
        .map_err(|e| ApiError::bad("Query", e.to_string()))
}

async fn answer(node: &Node, request: &Sql) -> Result<Vec<u8>, QueryError> {
    let style = match request.format {
        Format::Json => Style::Json,
        Format::Csv => Style::Csv,
        Format::Table => Style::Table,
    };
    let mut answer = node.query.run(&request.sql).await?;
    let mut text = Vec::new();
    let mut output = Output::new(style, answer.schema, &mut text);
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
    Ok(text)
}
