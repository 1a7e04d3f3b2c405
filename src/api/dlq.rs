//! Dead letters over HTTP.

use super::ApiError;
use crate::app::Node;
use crate::dlq::{self, Group, Letter, Selection};
use crate::rules::Pattern;
use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// A selection as a request states it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Route, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Event, by sequence number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Pattern, as JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Code or class of the last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Most letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl Which {
    fn selection(self) -> Result<Selection, ApiError> {
        let filter = self.filter.map(|text| {
            Pattern::parse(&text)
                .map_err(|e| ApiError::bad("InvalidPattern", format!("`filter`: {e}")))
        });
        Ok(Selection {
            route: self.route,
            seq: self.seq,
            filter: filter.transpose()?,
            cause: self.cause,
            limit: self.limit,
        })
    }
}

/// `GET /dlq`
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Letter>>, ApiError> {
    Ok(Json(dlq::list(&node.bus, &which.selection()?)?))
}

/// `GET /dlq/groups`
pub(super) async fn groups(
    State(node): State<Arc<Node>>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Group>>, ApiError> {
    Ok(Json(dlq::groups(&node.bus, &which.selection()?)?))
}

/// `GET /dlq/expiring`: how many dead letters are soon too old to be kept.
pub(super) async fn expiring(State(node): State<Arc<Node>>) -> Json<Value> {
    let soon = node.expiring().into_iter().map(|soon| {
        json!({
            "route": soon.name,
            "count": soon.count,
            "first_at": crate::event::rfc3339(soon.first_at_ms),
        })
    });
    Json(soon.collect())
}

#[derive(Deserialize)]
pub(super) struct Redrive {
    which: Which,
    to: Option<String>,
    rate: Option<f64>,
}

/// `POST /dlq/redrive`
pub(super) async fn redrive(
    State(node): State<Arc<Node>>,
    Json(request): Json<Redrive>,
) -> Result<Json<Value>, ApiError> {
    if request
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err(ApiError::bad(
            "BadRate",
            "`rate` must be above 0 per second",
        ));
    }
    let selection = request.which.selection()?;
    let redriven = dlq::redrive(&node.bus, &selection, request.to.as_deref(), request.rate).await?;
    Ok(Json(json!({ "redriven": redriven })))
}

#[derive(Deserialize)]
pub(super) struct Purge {
    which: Which,
    why: String,
}

/// `POST /dlq/purge`
pub(super) async fn purge(
    State(node): State<Arc<Node>>,
    Json(request): Json<Purge>,
) -> Result<Json<Value>, ApiError> {
    if request.why.trim().is_empty() {
        return Err(ApiError::bad(
            "NoReason",
            "`why` must say why the letters are dropped",
        ));
    }
    let selection = request.which.selection()?;
    let purged = dlq::purge(&node.bus, &selection, &request.why).await?;
    Ok(Json(json!({ "purged": purged })))
}
