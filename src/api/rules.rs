//! Why rules match an event, or not.

use super::ApiError;
use crate::app::Node;
use crate::bus::StoredEvent;
use crate::event::Event;
use crate::infer::EventType;
use crate::rules;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
pub(super) struct Asked {
    /// The event; without it, the one with `id` is taken from the log.
    event: Option<Box<RawValue>>,
    id: Option<String>,
    #[serde(default = "super::default_bus")]
    bus: String,
    /// Only this rule.
    rule: Option<String>,
    /// At most this many rules, the closest first.
    near: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct EventKind {
    source: String,
    detail_type: String,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    1_000
}

/// `GET /schema/infer`: a schema of an event type from the newest events of it.
pub(super) async fn infer(
    State(node): State<Arc<Node>>,
    Query(kind): Query<EventKind>,
) -> Result<Json<Value>, ApiError> {
    let of_kind = |stored: &StoredEvent| {
        Event::parse(stored.payload.clone())
            .is_ok_and(|e| e.source() == kind.source && e.detail_type() == kind.detail_type)
    };
    let events = super::events::newest(&node, kind.limit, of_kind)?;
    let details: Vec<Value> = events
        .iter()
        .filter_map(|stored| Event::parse(stored.payload.clone()).ok())
        .map(|event| event.detail())
        .collect();
    if details.is_empty() {
        let message = format!(
            "the log has no event of source `{}` and type `{}`",
            kind.source, kind.detail_type
        );
        return Err(ApiError::new(StatusCode::NOT_FOUND, "NotFound", message)
            .hint("`pointsman events list` shows what is there"));
    }
    let about = EventType {
        source: &kind.source,
        detail_type: &kind.detail_type,
    };
    Ok(Json(crate::infer::infer(details, about)))
}

/// `POST /match`: explains each rule of a bus, those that match or nearly match first.
pub(super) async fn explain(
    State(node): State<Arc<Node>>,
    Json(asked): Json<Asked>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let event = match (&asked.event, &asked.id) {
        (Some(event), _) => event.get().as_bytes().to_vec(),
        (None, Some(id)) => super::events::find(&node, id)?.payload.to_vec(),
        (None, None) => {
            return Err(ApiError::bad(
                "NoEvent",
                "give `event`, or `id` of one in the log",
            ));
        }
    };
    let table = node.router.table();
    let mut explained = Vec::new();
    for (name, pattern) in table.patterns(&asked.bus) {
        if asked.rule.as_deref().is_some_and(|rule| rule != name) {
            continue;
        }
        let why = rules::explain(pattern, &event)
            .map_err(|e| ApiError::bad("InvalidEvent", e.to_string()))?;
        explained.push((name, why));
    }
    explained.sort_by(|(a, x), (b, y)| x.distance().cmp(&y.distance()).then(a.cmp(b)));
    let near = asked.near.unwrap_or(usize::MAX);
    let answers = explained
        .iter()
        .take(near)
        .map(|(name, why)| json!({ "rule": name, "explanation": why }))
        .collect();
    Ok(Json(answers))
}
