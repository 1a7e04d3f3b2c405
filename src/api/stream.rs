//! Live streams over server-sent events.

use super::ApiError;
use super::events::Stored;
use crate::app::Node;
use crate::bus::{Bus, Durability, Leased, Outcome, Receive, RouteId, StoredEvent};
use crate::rules::{self, Pattern};
use crate::topics;
use axum::extract::{Path, Query, State};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use futures::stream::{BoxStream, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

#[derive(Deserialize)]
pub(super) struct TailParams {
    bus: Option<String>,
    pattern: Option<String>,
}

/// `GET /events/tail`: every event from now on.
pub(super) async fn tail(
    State(node): State<Arc<Node>>,
    Query(params): Query<TailParams>,
) -> Result<Response, ApiError> {
    let pattern = params.pattern.as_deref().map(parse).transpose()?;
    Ok(live(node, params.bus, pattern))
}

#[derive(Deserialize)]
pub(super) struct SubscribeParams {
    /// Name of a durable `pull` subscription; without one, from now on.
    name: Option<String>,
    /// A filter policy: a pattern on the message.
    filter: Option<String>,
}

/// `GET /topics/{topic}/messages`: a topic's messages as they come.
pub(super) async fn subscribe(
    State(node): State<Arc<Node>>,
    Path(topic): Path<String>,
    Query(params): Query<SubscribeParams>,
) -> Result<Response, ApiError> {
    let config = node.config();
    let Some(declared) = config.topics.get(&topic) else {
        let known: Vec<&str> = config.topics.keys().map(String::as_str).collect();
        return Err(ApiError::missing("topic", &topic, &known));
    };
    let Some(name) = params.name else {
        let text = topics::pattern_of(params.filter.as_deref());
        return Ok(live(
            node,
            Some(topics::bus_of(&topic)),
            Some(parse(&text)?),
        ));
    };
    let known: Vec<&str> = declared.subscriptions.keys().map(String::as_str).collect();
    let route = topics::route_of(&topic, &name);
    match (known.contains(&name.as_str()), node.bus.route_id(&route)) {
        (true, Some(route)) => Ok(durable(node, route)),
        _ => Err(ApiError::missing("subscription", &name, &known)),
    }
}

fn parse(text: &str) -> Result<Pattern, ApiError> {
    Pattern::parse(text).map_err(|e| ApiError::bad("InvalidPattern", e.to_string()))
}

fn sse(node: &Node, event: &StoredEvent) -> Sse {
    let text = serde_json::to_string(&Stored::new(node, event)).unwrap_or_default();
    Sse::default().id(event.seq.to_string()).data(text)
}

fn answer(stream: BoxStream<'static, Sse>) -> Response {
    axum::response::Sse::new(stream.map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
        .into_response()
}

/// Events from now on; a reader that is too slow is told what it missed.
fn live(node: Arc<Node>, bus: Option<String>, pattern: Option<Pattern>) -> Response {
    let tail = node.bus.tail();
    let stream = futures::stream::unfold(tail, move |mut tail| {
        let (node, bus, pattern) = (Arc::clone(&node), bus.clone(), pattern.clone());
        async move {
            loop {
                let event = match tail.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(missed)) => {
                        let told = Sse::default().event("lagged").data(missed.to_string());
                        return Some((told, tail));
                    }
                };
                let wanted = bus.as_deref().is_none_or(|bus| bus == &*event.bus)
                    && pattern
                        .as_ref()
                        .is_none_or(|p| rules::matches(p, &event.payload).unwrap_or(false));
                if wanted {
                    return Some((sse(&node, &event), tail));
                }
            }
        }
    });
    answer(stream.boxed())
}

/// The messages that wait for a durable subscription. One is acknowledged when
/// the next is asked for, that is, once it has been written to the connection.
fn durable(node: Arc<Node>, route: RouteId) -> Response {
    let stream = futures::stream::unfold(None::<Leased>, move |last| {
        let node = Arc::clone(&node);
        async move {
            if let Some(lease) = last {
                let done = vec![lease.settle(Outcome::Delivered)];
                let settled = node.bus.settle(done, Vec::new(), Durability::Relaxed).await;
                settled.ok()?;
            }
            let lease = next(&node.bus, route).await?;
            Some((sse(&node, &lease.event), Some(lease)))
        }
    });
    answer(stream.boxed())
}

async fn next(bus: &Bus, route: RouteId) -> Option<Leased> {
    let one = Receive {
        max: 1,
        max_bytes: usize::MAX,
        visibility: Duration::from_secs(60),
    };
    loop {
        let leased = bus.receive(&[route], one).ok()?;
        if let Some(lease) = leased.into_iter().next() {
            return Some(lease);
        }
        bus.ready(&[route]).await;
    }
}
