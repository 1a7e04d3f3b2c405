//! Live streams: server-sent events, and what they share with WebSockets.

use super::ApiError;
use super::events::Stored;
use crate::app::Node;
use crate::bus::{Bus, Durability, Leased, Outcome, Receive, RouteId, StoredEvent};
use crate::rules::{self, Pattern};
use crate::topics::{self, FilterOn};
use axum::extract::{Path, Query, State};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use futures::stream::{Stream, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How long a message is lent to a subscriber.
pub(super) const LOAN: Duration = Duration::from_secs(60);

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
    let heard = live(Arc::clone(&node), params.bus, pattern);
    Ok(answer(heard.map(move |heard| sse(&node, &heard))))
}

#[derive(Deserialize)]
pub(super) struct SubscribeParams {
    /// Name of a durable `pull` subscription; without one, from now on.
    name: Option<String>,
    /// A filter policy: a pattern on the message.
    filter: Option<String>,
    /// `body` or `attributes`: what the filter policy looks at.
    filter_on: Option<String>,
    /// For a durable subscription over a WebSocket: messages that may be on their
    /// way without being acknowledged.
    prefetch: Option<usize>,
}

/// What a subscriber asked for.
pub(super) enum Wanted {
    /// A topic's messages from now on.
    Live(String, Pattern),
    /// What waits for a durable subscription, and what comes; so many at a time.
    Durable(RouteId, usize),
}

/// Finds what a subscriber asked for.
pub(super) fn wanted(
    node: &Node,
    topic: &str,
    params: SubscribeParams,
) -> Result<Wanted, ApiError> {
    let config = node.config();
    let Some(declared) = config.topics.get(topic) else {
        let known: Vec<&str> = config.topics.keys().map(String::as_str).collect();
        return Err(ApiError::missing("topic", topic, &known));
    };
    let Some(name) = params.name else {
        let on = match params.filter_on.as_deref() {
            None | Some("body") => FilterOn::Body,
            Some("attributes") => FilterOn::Attributes,
            Some(other) => {
                let message = format!("`filter_on` is `body` or `attributes`, not `{other}`");
                return Err(ApiError::bad("InvalidFilter", message));
            }
        };
        let text = topics::pattern_of(params.filter.as_deref(), on);
        return Ok(Wanted::Live(topics::bus_of(topic), parse(&text)?));
    };
    let known: Vec<&str> = declared.subscriptions.keys().map(String::as_str).collect();
    let route = topics::route_of(topic, &name);
    match (known.contains(&name.as_str()), node.bus.route_id(&route)) {
        (true, Some(_)) if node.works_on(&route) => Err(ApiError::bad(
            "NotPull",
            format!(
                "the messages of `{name}` go elsewhere; only a `pull` subscription can be read here"
            ),
        )),
        (true, Some(route)) => Ok(Wanted::Durable(
            route,
            params.prefetch.unwrap_or(16).clamp(1, 1_000),
        )),
        _ => Err(ApiError::missing("subscription", &name, &known)),
    }
}

/// `GET /topics/{topic}/messages`: a topic's messages as they come.
pub(super) async fn subscribe(
    State(node): State<Arc<Node>>,
    Path(topic): Path<String>,
    Query(params): Query<SubscribeParams>,
) -> Result<Response, ApiError> {
    Ok(match wanted(&node, &topic, params)? {
        Wanted::Live(bus, pattern) => {
            let heard = live(Arc::clone(&node), Some(bus), Some(pattern));
            answer(heard.map(move |heard| sse(&node, &heard)))
        }
        Wanted::Durable(route, _) => answer(durable(node, route)),
    })
}

fn parse(text: &str) -> Result<Pattern, ApiError> {
    Pattern::parse(text).map_err(|e| ApiError::bad("InvalidPattern", e.to_string()))
}

/// What a live stream tells.
pub(super) enum Heard {
    /// An event.
    Event(Arc<StoredEvent>),
    /// The reader was too slow, and missed this many.
    Missed(u64),
}

/// An event as streams tell it: JSON on one line.
pub(super) fn line(node: &Node, event: &StoredEvent) -> String {
    serde_json::to_string(&Stored::new(node, event)).unwrap_or_default()
}

fn sse(node: &Node, heard: &Heard) -> Sse {
    match heard {
        Heard::Event(event) => sse_event(node, event),
        Heard::Missed(missed) => Sse::default().event("lagged").data(missed.to_string()),
    }
}

fn sse_event(node: &Node, event: &StoredEvent) -> Sse {
    Sse::default()
        .id(event.seq.to_string())
        .data(line(node, event))
}

fn answer(stream: impl Stream<Item = Sse> + Send + 'static) -> Response {
    axum::response::Sse::new(stream.map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
        .into_response()
}

/// Events from now on; a reader that is too slow is told what it missed.
pub(super) fn live(
    node: Arc<Node>,
    bus: Option<String>,
    pattern: Option<Pattern>,
) -> impl Stream<Item = Heard> + Send {
    let tail = node.bus.tail();
    futures::stream::unfold(tail, move |mut tail| {
        let (bus, pattern) = (bus.clone(), pattern.clone());
        async move {
            loop {
                let event = match tail.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(missed)) => return Some((Heard::Missed(missed), tail)),
                };
                let wanted = bus.as_deref().is_none_or(|bus| bus == &*event.bus)
                    && pattern
                        .as_ref()
                        .is_none_or(|p| rules::matches(p, &event.payload).unwrap_or(false));
                if wanted {
                    return Some((Heard::Event(event), tail));
                }
            }
        }
    })
}

/// The messages that wait for a durable subscription. One is acknowledged when
/// the next is asked for, that is, once it has been written to the connection.
fn durable(node: Arc<Node>, route: RouteId) -> impl Stream<Item = Sse> + Send {
    futures::stream::unfold(None::<Leased>, move |last| {
        let node = Arc::clone(&node);
        async move {
            if let Some(lease) = last {
                let done = vec![lease.settle(Outcome::Delivered)];
                let settled = node.bus.settle(done, Vec::new(), Durability::Relaxed).await;
                settled.ok()?;
            }
            let lease = next(&node.bus, route, 1).await?.pop()?;
            Some((sse_event(&node, &lease.event), Some(lease)))
        }
    })
}

/// Waits for up to `max` messages of a route. `None`: the bus has closed.
pub(super) async fn next(bus: &Bus, route: RouteId, max: usize) -> Option<Vec<Leased>> {
    let want = Receive {
        max,
        max_bytes: 4 << 20,
        visibility: LOAN,
    };
    loop {
        let leased = bus.receive(&[route], want).ok()?;
        if !leased.is_empty() {
            return Some(leased);
        }
        bus.ready(&[route]).await;
    }
}
