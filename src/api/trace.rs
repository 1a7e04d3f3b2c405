//! The life of an event: from what began the chain of causes to its last end.

use super::ApiError;
use super::events::find;
use crate::app::Node;
use crate::bus::{RouteId, Standing, Step, StoredEvent};
use crate::event::{Event, rfc3339};
use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An event, what became of it on each route, and what it caused.
#[derive(Debug, Serialize, Deserialize)]
pub struct TraceNode {
    /// Sequence number.
    pub seq: u64,
    /// The event's id.
    pub id: String,
    /// The bus.
    pub bus: String,
    /// When it was accepted, RFC 3339.
    pub accepted_at: String,
    /// `source`.
    pub source: String,
    /// `detail-type`.
    pub detail_type: String,
    /// What it is about: an object, a table, or nothing.
    pub about: Option<String>,
    /// Whether it is the event that was asked for.
    pub asked: bool,
    /// What became of it, by route.
    pub routes: Vec<TraceRoute>,
    /// Events that it caused.
    pub caused: Vec<TraceNode>,
}

/// What became of an event on one route.
#[derive(Debug, Serialize, Deserialize)]
pub struct TraceRoute {
    /// The route.
    pub route: String,
    /// Where it stands: `delivered`, `pending`, `leased`, `delayed`, `dead` ...
    pub state: String,
    /// What happened, oldest first.
    pub steps: Vec<String>,
}

/// `GET /trace/{id}`: the whole tree that an event belongs to.
pub(super) async fn trace(
    State(node): State<Arc<Node>>,
    Path(id): Path<String>,
) -> Result<Json<Vec<TraceNode>>, ApiError> {
    let asked = find(&node, &id)?;
    let events = node.bus.by_root(asked.root())?;
    let names: BTreeMap<RouteId, String> = node
        .bus
        .routes()
        .into_iter()
        .map(|r| (r.id, r.name))
        .collect();
    let mut children: BTreeMap<Option<u64>, Vec<Arc<StoredEvent>>> = BTreeMap::new();
    for event in &events {
        children
            .entry(parent(&events, event))
            .or_default()
            .push(Arc::clone(event));
    }
    Ok(Json(tree(&node, &names, &children, None, asked.seq)?))
}

/// The newest event before `event` that has the id of its cause.
fn parent(events: &[Arc<StoredEvent>], event: &StoredEvent) -> Option<u64> {
    let cause = event.cause.as_ref()?;
    events
        .iter()
        .filter(|e| e.id == *cause && e.seq < event.seq)
        .map(|e| e.seq)
        .max()
}

fn tree(
    node: &Node,
    names: &BTreeMap<RouteId, String>,
    children: &BTreeMap<Option<u64>, Vec<Arc<StoredEvent>>>,
    of: Option<u64>,
    asked: u64,
) -> Result<Vec<TraceNode>, ApiError> {
    let mut nodes = Vec::new();
    for event in children.get(&of).into_iter().flatten() {
        let parsed = Event::parse(event.payload.clone()).ok();
        let text = |get: fn(&Event) -> &str| parsed.as_ref().map_or("", get).to_owned();
        nodes.push(TraceNode {
            seq: event.seq,
            id: event.id.clone(),
            bus: event.bus.to_string(),
            accepted_at: rfc3339(event.accepted_ms),
            source: text(Event::source),
            detail_type: text(Event::detail_type),
            about: parsed.as_ref().and_then(about),
            asked: event.seq == asked,
            routes: routes(node, names, event)?,
            // Children have higher sequence numbers, so this ends.
            caused: tree(node, names, children, Some(event.seq), asked)?,
        });
    }
    Ok(nodes)
}

fn routes(
    node: &Node,
    names: &BTreeMap<RouteId, String>,
    event: &StoredEvent,
) -> Result<Vec<TraceRoute>, ApiError> {
    let history = node.bus.history(event.seq)?;
    let mut routes: BTreeMap<RouteId, TraceRoute> = BTreeMap::new();
    let blank = |id: &RouteId| TraceRoute {
        route: names.get(id).cloned().unwrap_or_default(),
        state: "unknown".to_owned(),
        steps: Vec::new(),
    };
    for delivery in &event.deliveries {
        routes
            .entry(delivery.route)
            .or_insert_with(|| blank(&delivery.route));
    }
    for entry in history.entries {
        let route = routes
            .entry(entry.route)
            .or_insert_with(|| blank(&entry.route));
        let (state, said) = told(&entry.step, names);
        state.clone_into(&mut route.state);
        route.steps.push(format!("{} {said}", rfc3339(entry.at_ms)));
    }
    for (id, standing, attempts) in history.now {
        let route = routes.entry(id).or_insert_with(|| blank(&id));
        let state = match standing {
            Standing::Ready => "pending",
            Standing::Leased => "leased",
            Standing::Delayed => "delayed",
            Standing::Dead => "dead",
        };
        state.clone_into(&mut route.state);
        if attempts > 0 {
            route
                .steps
                .push(format!("received {attempts} times so far"));
        }
    }
    Ok(routes.into_values().collect())
}

fn told(step: &Step, names: &BTreeMap<RouteId, String>) -> (&'static str, String) {
    match step {
        Step::Delivered => ("delivered", "delivered".to_owned()),
        Step::Retried(error) => (
            "pending",
            format!("failed ({}): {}", error.class, error.message),
        ),
        Step::Dead => ("dead", "dead-lettered".to_owned()),
        Step::Expired { policy } => ("expired", format!("expired by {policy}")),
        Step::Purged { why } => ("purged", format!("purged: {why}")),
        Step::Redriven { from } => {
            let from = names.get(from).map_or("?", String::as_str);
            ("pending", format!("redriven from {from}"))
        }
        Step::Replayed { replay_id } => ("pending", format!("replayed by {replay_id}")),
    }
}

/// The object or table that an event is about.
fn about(event: &Event) -> Option<String> {
    let detail = event.detail();
    let text = |pointer: &str| detail.pointer(pointer).and_then(|v| v.as_str());
    match (text("/bucket/name"), text("/object/key"), text("/table")) {
        (Some(bucket), Some(key), _) => Some(format!("{bucket}/{key}")),
        (_, _, Some(table)) => Some(format!("table {table}")),
        _ => None,
    }
}
