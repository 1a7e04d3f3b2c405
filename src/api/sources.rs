//! Sources: how they stand, what they are told to do, and notifications.

use super::ApiError;
use crate::app::Node;
use crate::sources::notifications::{self, Notice};
use crate::sources::{Incoming, Intake, Taken};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

fn failed(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Source", error.to_string())
}

fn unknown(node: &Node, name: &str) -> ApiError {
    let (folders, buckets) = (node.folders(), node.buckets());
    let known: Vec<&str> = folders
        .keys()
        .chain(buckets.keys())
        .map(String::as_str)
        .collect();
    ApiError::missing("source", name, &known)
}

/// `GET /sources`: how each source stands.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Json<Value>, ApiError> {
    let mut sources = serde_json::Map::new();
    for (name, folder) in node.folders() {
        let status = folder.status().await.map_err(failed)?;
        sources.insert(name, json!(status));
    }
    for (name, bucket) in node.buckets() {
        let status = bucket.status().await.map_err(failed)?;
        sources.insert(name, json!(status));
    }
    for (name, queue) in node.queue_sources() {
        sources.insert(name, json!(queue.status().await));
    }
    Ok(Json(Value::Object(sources)))
}

/// `POST /sources/{name}/rescan`: looks through everything; answers when done.
pub(super) async fn rescan(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(folder) = node.folders().get(&name) {
        folder.rescan().await.map_err(failed)?;
    } else if let Some(bucket) = node.buckets().get(&name) {
        bucket.rescan().await.map_err(failed)?;
    } else {
        return Err(unknown(&node, &name));
    }
    Ok(Json(json!({ "rescanned": name })))
}

#[derive(Deserialize)]
pub(super) struct Forget {
    /// A path or glob, as in `include`.
    which: String,
}

/// `POST /sources/{name}/forget`: what matches is taken again, if it is there.
pub(super) async fn forget(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    Json(forget): Json<Forget>,
) -> Result<Json<Value>, ApiError> {
    let which = &forget.which;
    if let Err(error) = globset::Glob::new(which) {
        let message = format!("`{which}` is not a glob: {}", error.kind());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "BadGlob", message));
    }
    let forgotten = if let Some(folder) = node.folders().get(&name) {
        folder.forget(which).await.map_err(failed)?
    } else if let Some(bucket) = node.buckets().get(&name) {
        bucket.forget(which).await.map_err(failed)?
    } else {
        return Err(unknown(&node, &name));
    };
    Ok(Json(json!({ "forgotten": forgotten })))
}

/// `POST /sources/{name}/notifications`: a bucket's notifications, in any of the
/// shapes that object stores send. 200 means that all they led to is durable.
pub(super) async fn notify(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let buckets = node.buckets();
    let bucket = buckets.get(&name).ok_or_else(|| {
        let known: Vec<&str> = buckets.keys().map(String::as_str).collect();
        ApiError::missing("bucket source", &name, &known)
    })?;
    let defaults = node.config().node.event_defaults();
    let read = notifications::read(&body, &defaults, node.clock.now_ms());
    let notice =
        read.map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "BadNotification", e.to_string()))?;
    let events = match notice {
        Notice::Objects(events) => events,
        Notice::Confirm(url) => {
            tracing::warn!(
                source = name,
                url,
                "SNS asks whether its messages are wanted; open this URL to say so"
            );
            return Ok(Json(json!({ "accepted": 0, "confirm": url })));
        }
    };
    let batch: Vec<Incoming> = events
        .into_iter()
        .map(|event| Incoming {
            event: event.into(),
            bus: bucket.bus().into(),
            cursor: Some(format!("{name}: notified")),
        })
        .collect();
    let told = batch.len();
    let taken = match batch.is_empty() {
        true => Vec::new(),
        false => bucket.take(batch).await?,
    };
    let accepted = taken.iter().filter(|t| matches!(t, Taken::Accepted(_)));
    Ok(Json(json!({ "told": told, "accepted": accepted.count() })))
}
