//! Why rules match an event, or not.

use super::ApiError;
use crate::app::Node;
use crate::rules;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
pub(super) struct Asked {
    /// The event; without it, the one with `id` is taken from the log.
    event: Option<Box<RawValue>>,
    id: Option<String>,
    #[serde(default = "default_bus")]
    bus: String,
    /// Only this rule.
    rule: Option<String>,
    /// At most this many rules, the closest first.
    near: Option<usize>,
}

fn default_bus() -> String {
    crate::config::DEFAULT_BUS.to_owned()
}

/// `POST /match`: explains each rule of a bus, those that match or nearly match first.
pub(super) async fn explain(
    State(node): State<Arc<Node>>,
    Json(asked): Json<Asked>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let event = match (&asked.event, &asked.id) {
        (Some(event), _) => event.get().as_bytes().to_vec(),
        (None, Some(id)) => super::events::find(&node, id)?.payload.to_vec(),
        (None, None) => return Err(ApiError::bad("NoEvent", "give `event`, or `id` of one in the log")),
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
