//! What a node knows of itself.

use super::ApiError;
use crate::app::Node;
use crate::bus::Pressure;
use crate::observe::{Books, Outside};
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
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

/// `GET /queues/places`: where each declared queue was when it was last used.
pub(super) async fn places(State(node): State<Arc<Node>>) -> Result<Json<Value>, ApiError> {
    let places = node.places().await;
    let places = places
        .map_err(|e| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "State", e.to_string()))?;
    Ok(Json(json!(places)))
}

/// `GET /plan`: the configuration in force, defaults included, secrets not.
pub(super) async fn plan(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(json!(*node.config()))
}
