//! Custom events in, stored events out.

use super::ApiError;
use crate::app::Node;
use crate::bus::StoredEvent;
use crate::event::{Event, EventError, Room, rfc3339};
use crate::router::Policy;
use crate::sources::{Incoming, Intake, Taken};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Errors that one answer lists; the others are counted.
const MAX_ERRORS: usize = 20;

#[derive(Deserialize)]
pub(super) struct BusParam {
    #[serde(default = "super::default_bus")]
    bus: String,
}

/// The answer to what was taken whole.
#[derive(Serialize)]
pub(super) struct Posted {
    accepted: Vec<Answer>,
}

/// What became of one event.
#[derive(Serialize)]
struct Answer {
    #[serde(rename = "id", serialize_with = "id_of")]
    event: Arc<Event>,
    seq: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

fn id_of<S: Serializer>(event: &Event, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(event.id())
}

/// `POST /events`: one event, a JSON array of them, or NDJSON. All or none: when
/// one is wrong, nothing is taken and every mistake is named.
pub(super) async fn post(
    State(node): State<Arc<Node>>,
    Query(param): Query<BusParam>,
    body: Bytes,
) -> Result<(StatusCode, Json<Posted>), ApiError> {
    let config = node.config();
    if !config.has_bus(&param.bus) {
        let known: Vec<&str> = config.buses().into_iter().collect();
        return Err(ApiError::missing("bus", &param.bus, &known));
    }
    let by_line = lines(&body).map(|texts| read(&node, &param.bus, &texts));
    let batch = match by_line {
        Some(Ok(batch)) => batch,
        // Not an event a line, or wrong: a parser tells.
        _ => split(&body)
            .and_then(|texts| read(&node, &param.bus, &texts))
            .inspect_err(|_| node.metrics.refused("invalid", 1))?,
    };
    let events: Vec<Arc<Event>> = batch.iter().map(|i| Arc::clone(&i.event)).collect();
    let taken = node
        .router
        .take(batch)
        .await
        .inspect_err(|_| node.metrics.refused("busy", events.len() as u64))?;
    let mut accepted = Vec::with_capacity(taken.len());
    for (event, taken) in events.into_iter().zip(taken) {
        match taken {
            Taken::Accepted(seq) => accepted.push(Answer {
                event,
                seq,
                duplicate: false,
            }),
            Taken::Duplicate(seq) => accepted.push(Answer {
                event,
                seq,
                duplicate: true,
            }),
            Taken::Refused(reason) => {
                return Err(ApiError::bad(
                    "InvalidEvent",
                    format!("event `{}`: {reason}", event.id()),
                ));
            }
        }
    }
    Ok((StatusCode::ACCEPTED, Json(Posted { accepted })))
}

/// Checks each event.
fn read(node: &Node, bus: &str, texts: &[&[u8]]) -> Result<Vec<Incoming>, ApiError> {
    let (defaults, now) = (node.config().node.event_defaults(), node.clock.now_ms());
    let table = node.router.table();
    let mut room = Room::for_events(texts.len(), texts.iter().map(|text| text.len()).sum());
    let (mut batch, mut errors) = (Vec::with_capacity(texts.len()), Vec::new());
    let mut too_large = false;
    let bus: Arc<str> = bus.into();
    for (index, text) in texts.iter().enumerate() {
        let checked = Event::complete_in(&mut room, text, &defaults, now)
            .map_err(|e| {
                too_large |= matches!(e, EventError::TooLarge { .. });
                (path_of(&e), e.to_string())
            })
            .and_then(|event| match table.breach(&event) {
                Some(breach) if breach.policy == Policy::Reject => {
                    Err((breach.path, breach.reason))
                }
                _ => Ok(event),
            });
        match checked {
            Ok(event) => batch.push(Incoming {
                event: event.into(),
                bus: Arc::clone(&bus),
                cursor: None,
            }),
            Err((path, reason)) => {
                errors.push(json!({ "index": index, "path": path, "reason": reason }));
            }
        }
    }
    if errors.is_empty() {
        return Ok(batch);
    }
    let first = errors[0]["reason"].as_str().unwrap_or_default().to_owned();
    let message = match (texts.len(), errors.len()) {
        (1, _) => first,
        (all, wrong) => {
            format!("{wrong} of {all} events are wrong, none was taken; the first: {first}")
        }
    };
    errors.truncate(MAX_ERRORS);
    let status = if too_large {
        StatusCode::PAYLOAD_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    };
    Err(ApiError::new(status, "InvalidEvent", message).with(json!(errors)))
}

fn path_of(error: &EventError) -> String {
    match error {
        EventError::Invalid { path, .. } => path.clone(),
        EventError::TooLarge { .. } => "$".to_owned(),
    }
}

/// The lines, if each looks like an event, as those of NDJSON do: that it is one is
/// seen when it is read, and then the body need not be parsed to split it.
fn lines(body: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut from, mut found) = (0, Vec::new());
    for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
        let line = body[from..end].trim_ascii();
        from = end + 1;
        match (line.first(), line.last()) {
            (Some(b'{'), Some(b'}')) => found.push(line),
            (None, _) => {}
            _ => return None,
        }
    }
    (!found.is_empty()).then_some(found)
}

/// The texts of the events: the elements of one array, or the values of a
/// sequence (one value is a sequence, too).
fn split(body: &[u8]) -> Result<Vec<&[u8]>, ApiError> {
    let wrong =
        |e: serde_json::Error| ApiError::bad("InvalidJson", format!("the body is not JSON: {e}"));
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    let texts: Result<Vec<&RawValue>, _> = match first {
        Some(b'[') => serde_json::from_slice(body),
        _ => serde_json::Deserializer::from_slice(body)
            .into_iter()
            .collect(),
    };
    let texts = texts.map_err(wrong)?;
    if texts.is_empty() {
        return Err(ApiError::bad("NoEvents", "the body has no event")
            .hint(r#"send {"source": "shop", "detail-type": "Order Placed", "detail": {...}}"#));
    }
    Ok(texts.iter().map(|text| text.get().as_bytes()).collect())
}

/// A stored event, for people and programs.
#[derive(Serialize)]
pub(super) struct Stored {
    seq: u64,
    accepted_at: String,
    bus: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    root: String,
    hops: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    routes: Vec<String>,
    event: Option<Box<RawValue>>,
}

impl Stored {
    pub(super) fn new(node: &Node, stored: &StoredEvent) -> Self {
        let names = node.bus.routes();
        Self {
            seq: stored.seq,
            accepted_at: rfc3339(stored.accepted_ms),
            bus: stored.bus.to_string(),
            id: stored.id.clone(),
            cause: stored.cause.clone(),
            root: stored.root().to_owned(),
            hops: stored.hops,
            cursor: stored.cursor.clone(),
            routes: stored
                .deliveries
                .iter()
                .filter_map(|d| names.iter().find(|r| r.id == d.route))
                .map(|r| r.name.clone())
                .collect(),
            event: std::str::from_utf8(&stored.payload)
                .ok()
                .and_then(|text| RawValue::from_string(text.to_owned()).ok()),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ListParams {
    bus: Option<String>,
    /// First sequence number; without one, the newest events are listed.
    from: Option<u64>,
    limit: Option<usize>,
    detail_type: Option<String>,
    #[serde(default)]
    unmatched: bool,
}

/// `GET /events`: stored events in order.
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Query(params): Query<ListParams>,
) -> Result<Json<Vec<Stored>>, ApiError> {
    let limit = params.limit.unwrap_or(50).min(10_000);
    let wanted = |event: &StoredEvent| {
        params.bus.as_deref().is_none_or(|bus| bus == &*event.bus)
            && (!params.unmatched || event.deliveries.is_empty())
            && params.detail_type.as_deref().is_none_or(|wanted| {
                Event::parse(event.payload.clone()).is_ok_and(|e| e.detail_type() == wanted)
            })
    };
    let mut found = Vec::new();
    match params.from {
        Some(from) => {
            let mut next = from;
            while found.len() < limit {
                let page = node.bus.read(next, 1_000)?;
                let Some(last) = page.last() else { break };
                next = last.seq + 1;
                found.extend(page.into_iter().filter(|e| wanted(e)));
            }
            found.truncate(limit);
        }
        None => {
            found = newest(&node, limit, wanted)?;
            found.reverse();
        }
    }
    Ok(Json(found.iter().map(|e| Stored::new(&node, e)).collect()))
}

/// The newest events that are `wanted`, at most `limit`, the newest first.
pub(super) fn newest(
    node: &Node,
    limit: usize,
    wanted: impl Fn(&StoredEvent) -> bool,
) -> Result<Vec<Arc<StoredEvent>>, ApiError> {
    let mut found = Vec::new();
    let mut before = node.bus.next_seq();
    let first = node.bus.first_seq();
    while found.len() < limit && before > first {
        let from = before.saturating_sub(1_000).max(first);
        let page = node.bus.read(from, 1_000)?;
        let older = page.into_iter().rev().filter(|e| e.seq < before);
        found.extend(older.filter(|e| wanted(e)));
        before = from;
    }
    found.truncate(limit);
    Ok(found)
}

/// `GET /events/{id}`: one event, by sequence number or id.
pub(super) async fn show(
    State(node): State<Arc<Node>>,
    Path(id): Path<String>,
) -> Result<Json<Stored>, ApiError> {
    let found = find(&node, &id)?;
    Ok(Json(Stored::new(&node, &found)))
}

/// The event with this sequence number or id, on whatever bus.
pub(super) fn find(node: &Node, id: &str) -> Result<Arc<StoredEvent>, ApiError> {
    if let Ok(seq) = id.parse::<u64>()
        && let Some(event) = node.bus.get(seq)?
    {
        return Ok(event);
    }
    for bus in node.bus.audit().buses.keys() {
        if let Some(event) = node.bus.find(bus, id)? {
            return Ok(event);
        }
    }
    Err(ApiError::missing("event", id, &[])
        .hint("it may be older than the retention; `pointsman events list` shows what is kept"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_by_line_only_where_every_line_looks_like_an_event() {
        let by_line = |body: &'static str| lines(body.as_bytes());
        let two: &[&[u8]] = &[b"{\"a\":1}", b"{}"];
        for body in [
            "{\"a\":1}\n{}",
            "{\"a\":1}\r\n{}\r\n",
            "\n  {\"a\":1} \n\n{}\n",
        ] {
            assert_eq!(by_line(body).as_deref(), Some(two), "{body}");
        }
        for body in ["", " \n", "[{}]", "{\n\"a\":1\n}", "{}\n[{}]", "{}\n{\n}\n"] {
            assert_eq!(by_line(body), None, "{body}");
        }
        // What only looks so is left to the parser.
        assert_eq!(by_line("{}{}"), Some(vec!["{}{}".as_bytes()]));
        assert_eq!(split(b"{}{}").unwrap(), vec![b"{}", b"{}"]);
        assert!(split(b"[]").is_err() && split(b" ").is_err() && split(b"{").is_err());
    }
}
