//! Routes and what waits on them; pausing and resuming.

use super::ApiError;
use crate::app::{BrokerQueue, Node};
use crate::bus::{BusError, RouteId};
use crate::config::To;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `GET /routes`: every route with what waits on it.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Json<Value>, ApiError> {
    let brokers = node.broker_queues().await;
    // The age of the oldest is read from the log, which may mean the disk.
    let read = tokio::task::spawn_blocking(move || routes(&node, &brokers)).await;
    read.map(Json).map_err(|_| ApiError::from(BusError::Closed))
}

fn routes(node: &Node, brokers: &BTreeMap<String, BrokerQueue>) -> Value {
    let now = node.clock.now_ms();
    let circuits = node.circuits();
    let ordered: BTreeMap<RouteId, bool> = node
        .bus
        .routes()
        .into_iter()
        .map(|route| (route.id, route.ordered))
        .collect();
    let routes: Vec<Value> = node
        .bus
        .audit()
        .routes
        .into_iter()
        .map(|route| {
            let oldest = node.bus.oldest_pending(route.id);
            json!({
                "route": route.name,
                "pending": route.pending(),
                "ready": route.ready,
                "in_flight": route.leased,
                "delayed": route.delayed,
                "dead": route.dead,
                "paused": route.paused,
                "retired": route.retired,
                "ordered": ordered.get(&route.id),
                "worked": node.works_on(&route.name),
                "broker": brokers.get(&route.name),
                "circuit": circuits.get(&route.name).map(|circuit| circuit.status().state),
                "oldest_seconds": oldest.map(|(_, at)| now.saturating_sub(at).max(0) / 1000),
            })
        })
        .collect();
    Value::Array(routes)
}

#[derive(Deserialize)]
pub(super) struct Named {
    /// A route, or a queue: then every route that leads to it.
    route: String,
}

/// `POST /routes/pause`: hands out nothing more; the backlog is kept.
pub(super) async fn pause(
    State(node): State<Arc<Node>>,
    Json(asked): Json<Named>,
) -> Result<Json<Value>, ApiError> {
    let routes = named(&node, &asked.route)?;
    for (_, id) in &routes {
        node.bus.pause(*id).await?;
    }
    let names: Vec<&String> = routes.iter().map(|(name, _)| name).collect();
    Ok(Json(json!({ "paused": names })))
}

/// `POST /routes/resume`
pub(super) async fn resume(
    State(node): State<Arc<Node>>,
    Json(asked): Json<Named>,
) -> Result<Json<Value>, ApiError> {
    let routes = named(&node, &asked.route)?;
    for (_, id) in &routes {
        node.bus.resume(*id).await?;
    }
    let names: Vec<&String> = routes.iter().map(|(name, _)| name).collect();
    Ok(Json(json!({ "resumed": names })))
}

/// The number of a route.
pub(super) fn route_id(node: &Node, name: &str) -> Result<RouteId, ApiError> {
    node.bus.route_id(name).ok_or_else(|| {
        let routes = node.bus.routes();
        let known: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        ApiError::missing("route", name, &known)
    })
}

/// The route of this name, or those that lead to the queue of this name.
fn named(node: &Node, name: &str) -> Result<Vec<(String, RouteId)>, ApiError> {
    if let Some(id) = node.bus.route_id(name) {
        return Ok(vec![(name.to_owned(), id)]);
    }
    let config = node.config();
    let to_it = |to: &To| matches!(to, To::Queue(queue) if queue == name);
    let routes: Vec<(String, RouteId)> = config
        .routes()
        .into_iter()
        .filter(|route| to_it(&route.target.to))
        .filter_map(|route| {
            let id = node.bus.route_id(&route.target.route)?;
            Some((route.target.route.clone(), id))
        })
        .collect();
    if routes.is_empty() {
        let all = node.bus.routes();
        let known = all.iter().map(|route| route.name.as_str());
        let known: Vec<&str> = known
            .chain(config.queues.keys().map(String::as_str))
            .collect();
        return Err(ApiError::missing("route or queue", name, &known));
    }
    Ok(routes)
}
