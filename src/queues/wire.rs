//! Between events and messages on a broker: what goes into headers, what a body
//! of somebody else's becomes.

use super::broker::{Inbound, Outbound};
use super::claims::Claim;
use super::headers::Headers;
use crate::bus::StoredEvent;
use crate::event::{Defaults, Event, EventError, derived_id, random_id, rfc3339};
use base64::Engine as _;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Name of the bus that the event was accepted on.
pub(super) const BUS: &str = "pointsman-bus";
/// Name of the route that it came by.
pub(super) const ROUTE: &str = "pointsman-route";
/// Id of the event at the beginning of the chain of causes.
pub(super) const ROOT: &str = "pointsman-root";
/// Id of the event that caused it.
pub(super) const CAUSE: &str = "pointsman-cause";
/// Length of the chain of causes before it.
pub(super) const HOPS: &str = "pointsman-hops";
/// When the bus accepted it, Unix milliseconds.
pub(super) const ACCEPTED: &str = "pointsman-accepted";
/// Names the delivery: a second copy of it is the same delivery.
pub const DELIVERY: &str = "pointsman-delivery";
/// Refers to a body that was too large.
pub(super) const CLAIM: &str = "pointsman-claim";
/// The ordering key.
pub(super) const KEY: &str = "pointsman-key";

/// `source` and `detail-type` of events made from messages that are none.
const FOREIGN: (&str, &str) = ("pointsman.message", "Message Received");

/// What Pointsman knows about an event beside it, carried in headers; the texts stay
/// there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub hops: u8,
    pub accepted_ms: Option<i64>,
    pub claim: Option<Claim>,
    pub key: Option<String>,
}

/// A message with an event of ours; its body is put in last, as it may be large.
pub(super) fn outbound(
    event: &Event,
    stored: &StoredEvent,
    route: &str,
    delivery: String,
    order_key: Option<String>,
) -> Outbound {
    let mut headers = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            headers.insert(name.to_owned(), value.to_owned());
        }
    };
    put(BUS, &stored.bus);
    put(ROUTE, route);
    put(ROOT, stored.root());
    put(CAUSE, stored.cause.as_deref().unwrap_or_default());
    put(HOPS, &stored.hops.to_string());
    put(ACCEPTED, &stored.accepted_ms.to_string());
    put(DELIVERY, &delivery);
    put(KEY, order_key.as_deref().unwrap_or_default());
    Outbound {
        id: event.id().to_owned(),
        delivery,
        body: Bytes::new(),
        content_type: "application/json",
        timestamp_ms: stored.accepted_ms,
        source: event.source().to_owned(),
        kind: event.detail_type().to_owned(),
        headers,
        order_key,
        routing_key: None,
    }
}

/// Puts a reference to a body into the message instead of the body.
pub(super) fn refer(message: &mut Outbound, claim: &Claim, bytes: usize) {
    let body = serde_json::json!({ CLAIM: claim.header(), "bytes": bytes });
    message.body = Bytes::from(body.to_string());
    message.headers.insert(CLAIM.to_owned(), claim.header());
}

impl Meta {
    pub(super) fn of(inbound: &Inbound) -> Self {
        let get = |name| inbound.headers.get(name);
        let key = get(KEY).or(inbound.order_key.as_deref());
        Self {
            hops: get(HOPS).and_then(|h| h.parse().ok()).unwrap_or(0),
            accepted_ms: get(ACCEPTED).and_then(|ms| ms.parse().ok()),
            claim: get(CLAIM).and_then(Claim::parse),
            key: key.map(str::to_owned),
        }
    }
}

impl Inbound {
    /// Name of the bus that the event was accepted on.
    pub(super) fn bus(&self) -> Option<&str> {
        self.headers.get(BUS)
    }

    /// Name of the route that it came by.
    pub(super) fn route(&self) -> Option<&str> {
        self.headers.get(ROUTE)
    }

    /// Id of the event at the beginning of the chain of causes.
    pub(super) fn root(&self) -> Option<&str> {
        self.headers.get(ROOT)
    }

    /// Names the delivery, where it is one of ours.
    pub(super) fn delivery(&self) -> Option<&str> {
        self.headers.get(DELIVERY)
    }
}

/// The event in a message: the body, where it is an envelope (what it leaves out
/// is filled in); else an event of source `pointsman.message` whose `detail`
/// holds the body and the headers. `from` names the queue, for people.
///
/// # Errors
/// When the message is larger than `defaults.max_bytes`.
pub fn event_of(
    inbound: &Inbound,
    body: &Bytes,
    from: &str,
    defaults: &Defaults,
    now_ms: i64,
) -> Result<Event, EventError> {
    if body.len() > defaults.max_bytes {
        return Err(EventError::TooLarge {
            bytes: body.len(),
            limit: defaults.max_bytes,
        });
    }
    if let Some(event) = envelope(inbound, body, defaults, now_ms) {
        return Ok(event);
    }
    let id = inbound.id.clone().unwrap_or_else(random_id);
    let detail = Detail::of(inbound, body, from);
    foreign(id, inbound, FOREIGN.1, detail, defaults, now_ms)
}

/// An event in the place of a message that is refused, with the reason; the body
/// is in it as far as there is room.
///
/// # Errors
/// When even without the body it is larger than `defaults.max_bytes`.
pub fn refused_event(
    inbound: &Inbound,
    from: &str,
    reason: &str,
    defaults: &Defaults,
    now_ms: i64,
) -> Result<Event, EventError> {
    let id = || match &inbound.id {
        // Beside the event that was refused, which may have this id, too.
        Some(id) => derived_id(id, "refused", 0),
        None => random_id(),
    };
    let whole = Detail {
        reason: Some(reason),
        ..Detail::of(inbound, &inbound.body, from)
    };
    let short = Detail {
        body: None,
        body_base64: None,
        bytes: Some(inbound.body.len()),
        ..Detail::of(inbound, b"", from)
    };
    let kind = "Message Refused";
    foreign(id(), inbound, kind, whole, defaults, now_ms).or_else(|_| {
        let short = Detail {
            reason: Some(reason),
            ..short
        };
        foreign(id(), inbound, kind, short, defaults, now_ms)
    })
}

fn foreign(
    id: String,
    inbound: &Inbound,
    detail_type: &str,
    detail: Detail<'_>,
    defaults: &Defaults,
    now_ms: i64,
) -> Result<Event, EventError> {
    let event = Foreign {
        id,
        detail_type,
        source: FOREIGN.0,
        time: rfc3339(inbound.sent_ms.unwrap_or(now_ms)),
        detail,
    };
    let text = serde_json::to_vec(&event).map_err(|e| EventError::Invalid {
        path: "$".to_owned(),
        reason: e.to_string(),
    })?;
    Event::complete(&text, defaults, now_ms)
}

/// The body as an event, if it is one. An event without an id gets that of its
/// message, so that a redelivery is the same event.
fn envelope(inbound: &Inbound, body: &Bytes, defaults: &Defaults, now_ms: i64) -> Option<Event> {
    let event = Event::share(body, defaults, now_ms).ok()?;
    let Some(id) = inbound.id.as_ref().filter(|id| !id.is_empty()) else {
        return Some(event);
    };
    if event.id() == id.as_str() {
        return Some(event);
    }
    let mut members: BTreeMap<&str, &RawValue> = serde_json::from_slice(body).ok()?;
    if members.get("id").is_some_and(|id| id.get() != "null") {
        return Some(event);
    }
    let id = serde_json::value::to_raw_value(id).ok()?;
    members.insert("id", &id);
    let text = serde_json::to_vec(&members).ok()?;
    Event::complete(&text, defaults, now_ms).ok()
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Foreign<'a> {
    id: String,
    detail_type: &'a str,
    source: &'a str,
    time: String,
    detail: Detail<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Detail<'a> {
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    headers: &'a Headers,
    /// JSON as it came, or text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
    /// What is neither, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// Size of a body that is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// Why the message was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Detail<'a> {
    fn of(inbound: &'a Inbound, body: &'a [u8], queue: &'a str) -> Self {
        let text = std::str::from_utf8(body).ok();
        let json: Option<&RawValue> = serde_json::from_slice(body).ok();
        let readable = json.map(Body::Json).or_else(|| text.map(Body::Text));
        let encode = || base64::engine::general_purpose::STANDARD.encode(body);
        Self {
            queue,
            message_id: inbound.id.as_deref(),
            content_type: inbound.content_type.as_deref(),
            headers: &inbound.headers,
            body_base64: readable.is_none().then(encode),
            body: readable,
            bytes: None,
            reason: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(body: &[u8]) -> Inbound {
        Inbound {
            handle: 1,
            identity: None,
            id: Some("m-1".to_owned()),
            body: Bytes::copy_from_slice(body),
            content_type: Some("text/plain".into()),
            sent_ms: Some(0),
            headers: [("shop", "Zürich".to_owned())].into_iter().collect(),
            order_key: None,
            receive_count: 1,
        }
    }

    fn event(body: &[u8]) -> Event {
        let inbound = inbound(body);
        event_of(&inbound, &inbound.body, "amqp r/q", &Defaults::default(), 5).unwrap()
    }

    #[test]
    fn envelopes_are_taken_as_they_are_and_completed() {
        let whole = r#"{"version":"0","id":"a","detail-type":"T","source":"s","account":"1","time":"2013-01-01T10:00:00Z","region":"r","resources":[],"detail":{"n":1.20}}"#;
        assert_eq!(&event(whole.as_bytes()).text()[..], whole.as_bytes());
        let short = event(br#"{"source":"s","detail-type":"T","detail":{"n":1.20}}"#);
        assert_eq!((short.id(), short.detail_text()), ("m-1", r#"{"n":1.20}"#));
    }

    #[test]
    fn other_bodies_are_wrapped_without_loss() {
        let json = event(br#"{"n": 1.20, "z": [12345678901234567890123]}"#);
        assert_eq!((json.id(), json.source()), ("m-1", "pointsman.message"));
        assert!(
            json.detail_text()
                .contains(r#"{"n": 1.20, "z": [12345678901234567890123]}"#)
        );
        let text = event("Grüße\u{0}".as_bytes()).detail();
        assert_eq!(text["body"], "Grüße\u{0}");
        assert_eq!(text["headers"]["shop"], "Zürich");
        let binary = event(&[0, 159, 146, 150]).detail();
        assert_eq!(binary["body-base64"], "AJ+Slg==");
        assert_eq!(binary.get("body"), None);
        assert_eq!(event(b"").detail()["body"], "");
    }
}
