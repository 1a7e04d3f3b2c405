//! Topics over WebSockets. Messages are the same JSON as in server-sent events;
//! those of a durable subscription are acknowledged one by one with `{"ack": SEQ}`,
//! and come again when the connection ends before that.

use super::ApiError;
use super::stream::{Heard, LOAN, SubscribeParams, Wanted, line, live, next, wanted};
use crate::app::Node;
use crate::bus::{Durability, Leased, Outcome, RouteId};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Query, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a connection is tried, and its loans prolonged.
const PING: Duration = Duration::from_secs(15);

/// Largest message that a subscriber may send, in bytes.
const MAX_MESSAGE: usize = 1024;

/// `GET /topics/{topic}/websocket`: a topic's messages over a WebSocket.
pub(super) async fn subscribe(
    State(node): State<Arc<Node>>,
    Path(topic): Path<String>,
    Query(params): Query<SubscribeParams>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    same_origin(&headers)?;
    let wanted = wanted(&node, &topic, params)?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let ended = match wanted {
            Wanted::Live(bus, pattern) => {
                let heard = live(Arc::clone(&node), Some(bus), Some(pattern));
                tell_live(socket, &node, heard).await
            }
            Wanted::Durable(route, prefetch) => {
                let mut lent = HashMap::new();
                let ended = tell_durable(socket, &node, route, prefetch, &mut lent).await;
                settle(&node, lent.into_values(), Outcome::Release).await;
                ended
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "WebSocket");
        }
    }))
}

/// A browser lets any page open a WebSocket to any host; pages of others must not
/// read what is sent here.
fn same_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let text = |value: &axum::http::HeaderValue| value.to_str().map(str::to_owned).ok();
    let origin = text(origin).and_then(|o| o.parse::<Uri>().ok());
    let host = headers.get(HOST).and_then(text);
    match (origin.as_ref().and_then(Uri::authority), host) {
        (Some(origin), Some(host)) if origin.as_str() == host => Ok(()),
        _ => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "ForeignOrigin",
            "pages of another origin may not listen here".to_owned(),
        )),
    }
}

async fn tell_live(
    mut socket: WebSocket,
    node: &Node,
    heard: impl futures::Stream<Item = Heard>,
) -> Result<(), axum::Error> {
    tokio::pin!(heard);
    let mut ping = tokio::time::interval(PING);
    loop {
        tokio::select! {
            heard = heard.next() => match heard {
                Some(Heard::Event(event)) => socket.send(line(node, &event).into()).await?,
                Some(Heard::Missed(missed)) => {
                    socket.send(json!({ "lagged": missed }).to_string().into()).await?;
                }
                None => return socket.send(Message::Close(None)).await,
            },
            said = socket.recv() => match said {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(said) => { said?; }
            },
            _ = ping.tick() => socket.send(Message::Ping("".into())).await?,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    ack: u64,
}

async fn tell_durable(
    mut socket: WebSocket,
    node: &Node,
    route: RouteId,
    prefetch: usize,
    lent: &mut HashMap<u64, Leased>,
) -> Result<(), axum::Error> {
    let mut ping = tokio::time::interval(PING);
    loop {
        let room = prefetch - lent.len().min(prefetch);
        tokio::select! {
            leased = next(&node.bus, route, room), if room > 0 => {
                let Some(leased) = leased else {
                    return socket.send(Message::Close(None)).await;
                };
                for lease in leased {
                    let text = line(node, &lease.event);
                    // From here on it is handed back when the connection ends.
                    lent.insert(lease.seq, lease);
                    socket.send(text.into()).await?;
                }
            }
            said = socket.recv() => match said {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(said) => if let Message::Text(text) = said? {
                    let Ok(Ack { ack }) = serde_json::from_str(&text) else {
                        return refuse(socket, "answer each message with {\"ack\": SEQ}").await;
                    };
                    let Some(lease) = lent.remove(&ack) else {
                        return refuse(socket, "no such message is waiting for its ack").await;
                    };
                    settle(node, [lease], Outcome::Delivered).await;
                },
            },
            _ = ping.tick() => {
                for lease in lent.values() {
                    node.bus.extend(lease.route, lease.seq, lease.receipt, LOAN);
                }
                socket.send(Message::Ping("".into())).await?;
            }
        }
    }
}

async fn refuse(mut socket: WebSocket, reason: &'static str) -> Result<(), axum::Error> {
    let frame = CloseFrame {
        code: close_code::INVALID,
        reason: reason.into(),
    };
    socket.send(Message::Close(Some(frame))).await
}

async fn settle(node: &Node, leases: impl IntoIterator<Item = Leased>, outcome: Outcome) {
    let all: Vec<_> = leases
        .into_iter()
        .map(|lease| lease.settle(outcome.clone()))
        .collect();
    if all.is_empty() {
        return;
    }
    // What cannot be settled comes again when its loan is over.
    if let Err(error) = node.bus.settle(all, Vec::new(), Durability::Relaxed).await {
        tracing::debug!(%error, "WebSocket");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_are_turned_away() {
        let from = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "127.0.0.1:7070".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            same_origin(&headers).is_ok()
        };
        assert!(from(None));
        assert!(from(Some("http://127.0.0.1:7070")));
        assert!(!from(Some("https://evil.example")));
        assert!(!from(Some("null")));
    }
}
