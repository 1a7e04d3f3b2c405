//! The one noun of the program: the EventBridge envelope.
//!
//! An [`Event`] keeps its JSON text as it came (numbers keep their spelling,
//! `detail` is not rebuilt) and knows the few members that every part needs.
//! What Pointsman itself knows about an event (sequence number, cause, hops)
//! is metadata beside it and never inside it.

mod build;
mod envelope;
mod ids;

pub use build::{EventBuilder, ObjectEvent};
pub use ids::{derived_id, object_id, random_id};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use envelope::{Envelope, Members, Text};
use serde_json::value::RawValue;

/// The largest event that is taken inline, in bytes (1 MiB, as EventBridge since 2026).
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Bytes that a custom event grows by at most, as a rule, when it is completed.
const ROOM: usize = 256;

/// Bytes of memory that neighbours share.
const SHARED: usize = 32 * 1024;

/// An event: the EventBridge envelope, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    text: Bytes,
    members: Members,
}

/// Memory for the texts of several events. Neighbours share pieces of at most 32 KiB,
/// each of which is free when the last of its events is.
#[derive(Debug, Default)]
pub struct Room {
    memory: BytesMut,
    /// Bytes that are still to come.
    left: usize,
    /// The time that was written last, and how: most get the same.
    time: Option<(i64, String)>,
}

impl Room {
    /// Room for so many events, whose texts have so many bytes together.
    #[must_use]
    pub fn for_events(count: usize, bytes: usize) -> Self {
        Self {
            memory: BytesMut::new(),
            time: None,
            left: bytes.saturating_add(count.saturating_mul(ROOM)),
        }
    }

    /// [`rfc3339`] of `ms`.
    fn time(&mut self, ms: i64) -> String {
        match &self.time {
            Some((at, text)) if *at == ms => text.clone(),
            _ => {
                let text = rfc3339(ms);
                self.time = Some((ms, text.clone()));
                text
            }
        }
    }

    /// Where to write an event whose text has so many bytes before it is completed.
    fn take(&mut self, bytes: usize) -> &mut BytesMut {
        let most = bytes + ROOM;
        if self.memory.capacity() < most {
            self.memory = BytesMut::with_capacity(most.max(self.left.min(SHARED)));
        }
        self.left = self.left.saturating_sub(most);
        &mut self.memory
    }
}

/// What is filled in where a custom event leaves it out.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// `account` (12 digits on AWS).
    pub account: String,
    /// `region`.
    pub region: String,
    /// Largest size in bytes.
    pub max_bytes: usize,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            account: "000000000000".to_owned(),
            region: "local".to_owned(),
            max_bytes: MAX_EVENT_BYTES,
        }
    }
}

/// Why a text is not an event.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    /// The text is not JSON, or not an envelope.
    #[error("{path}: {reason}")]
    Invalid {
        /// Dotted path of the member concerned; `$` is the whole event.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text is larger than the limit.
    #[error("$: the event has {bytes} bytes, more than the limit of {limit} bytes")]
    TooLarge {
        /// Size of the event in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl EventError {
    fn at(path: &str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

impl Event {
    /// Reads an envelope that must be complete, as the log keeps it.
    ///
    /// # Errors
    /// When a member is missing or of the wrong type.
    pub fn parse(text: Bytes) -> Result<Self, EventError> {
        let wire = Envelope::read(&text)?;
        match wire.missing() {
            None => {
                let members = wire.members(&text);
                Ok(Self { text, members })
            }
            Some(path) => Err(EventError::at(path, "is missing")),
        }
    }

    /// Reads a custom event, filling in `version`, `id`, `time`, `account`,
    /// `region` and `resources` where they are left out. `source`,
    /// `detail-type` and an object as `detail` are required.
    ///
    /// # Errors
    /// When the text is not an envelope or is over `defaults.max_bytes`.
    pub fn complete(text: &[u8], defaults: &Defaults, now_ms: i64) -> Result<Self, EventError> {
        Self::complete_in(&mut Room::default(), text, defaults, now_ms)
    }

    /// As [`Event::complete`], for many that share their memory.
    ///
    /// # Errors
    /// As there.
    pub fn complete_in(
        room: &mut Room,
        text: &[u8],
        defaults: &Defaults,
        now_ms: i64,
    ) -> Result<Self, EventError> {
        let kept = |room: &mut Room| {
            let memory = room.take(text.len());
            memory.extend_from_slice(text);
            memory.split().freeze()
        };
        Self::completed(room, text, kept, defaults, now_ms)
    }

    /// As [`Event::complete`]; one that is complete already shares the memory of `text`.
    ///
    /// # Errors
    /// As there.
    pub fn share(text: &Bytes, defaults: &Defaults, now_ms: i64) -> Result<Self, EventError> {
        Self::completed(
            &mut Room::default(),
            text,
            |_| text.clone(),
            defaults,
            now_ms,
        )
    }

    fn completed(
        room: &mut Room,
        text: &[u8],
        kept: impl FnOnce(&mut Room) -> Bytes,
        defaults: &Defaults,
        now_ms: i64,
    ) -> Result<Self, EventError> {
        if text.len() > defaults.max_bytes {
            return Err(EventError::TooLarge {
                bytes: text.len(),
                limit: defaults.max_bytes,
            });
        }
        let mut wire = Envelope::read(text)?;
        if wire.missing().is_none() {
            let members = wire.members(text);
            let text = kept(room);
            return Ok(Self { text, members });
        }
        wire.version.get_or_insert(Text::borrowed("0"));
        wire.id.get_or_insert_with(|| Text::owned(random_id()));
        wire.time
            .get_or_insert_with(|| Text::owned(room.time(now_ms)));
        wire.account
            .get_or_insert(Text::borrowed(&defaults.account));
        wire.region.get_or_insert(Text::borrowed(&defaults.region));
        wire.resources.get_or_insert_with(Vec::new);
        let memory = room.take(text.len());
        let members = wire.write(memory);
        let text = memory.split().freeze();
        Ok(Self { text, members })
    }

    /// The event under another id and, where one is given, with another `detail`
    /// (JSON text of an object).
    ///
    /// # Errors
    /// When `detail` is not an object.
    pub fn edited(&self, id: &str, detail: Option<&str>) -> Result<Self, EventError> {
        let mut wire = Envelope::parse(&self.text)?;
        wire.id = Some(Text::borrowed(id));
        if let Some(detail) = detail {
            let raw: &RawValue = serde_json::from_str(detail)
                .map_err(|e| EventError::at("detail", format!("is not JSON: {e}")))?;
            wire.detail = Some(raw);
        }
        let mut text = BytesMut::with_capacity(self.text.len() + ROOM);
        wire.write(&mut text);
        Self::parse(text.freeze())
    }

    /// The event as a replay gives it: with `replay-name`, as EventBridge marks
    /// replayed events
    /// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-replay-archived-event.html>).
    ///
    /// # Errors
    /// When the text cannot be written again.
    pub fn replayed(&self, name: &str) -> Result<Self, EventError> {
        let name = serde_json::value::to_raw_value(name)
            .map_err(|e| EventError::at("replay-name", e.to_string()))?;
        let mut wire = Envelope::parse(&self.text)?;
        wire.replay_name = Some(&name);
        let mut text = BytesMut::with_capacity(self.text.len() + ROOM);
        wire.write(&mut text);
        Self::parse(text.freeze())
    }

    /// The whole envelope as JSON text.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The event's id; a repeated id within the dedupe window is the same event.
    #[must_use]
    pub fn id(&self) -> &str {
        self.members.id.get(&self.text)
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> &str {
        self.members.source.get(&self.text)
    }

    /// What kind of event it is.
    #[must_use]
    pub fn detail_type(&self) -> &str {
        self.members.detail_type.get(&self.text)
    }

    /// When it happened, RFC 3339.
    #[must_use]
    pub fn time(&self) -> &str {
        self.members.time.get(&self.text)
    }

    /// `detail` as raw JSON text.
    #[must_use]
    pub fn detail_text(&self) -> &str {
        Envelope::parse(&self.text)
            .ok()
            .and_then(|wire| wire.detail)
            .map_or("{}", RawValue::get)
    }

    /// `detail` as a tree.
    #[must_use]
    pub fn detail(&self) -> serde_json::Value {
        serde_json::from_str(self.detail_text()).unwrap_or(serde_json::Value::Null)
    }

    /// The value at a dotted path, as text; `None` where there is none.
    #[must_use]
    pub fn text_at(&self, path: &str) -> Option<String> {
        let value = self.value();
        let found = path
            .split('.')
            .try_fold(&value, |value, name| value.get(name))?;
        Some(match found.as_str() {
            Some(text) => text.to_owned(),
            None => found.to_string(),
        })
    }

    /// The whole envelope as a tree.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.text).unwrap_or(serde_json::Value::Null)
    }
}

/// Unix milliseconds as RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> Result<Event, EventError> {
        Event::complete(text.as_bytes(), &Defaults::default(), 0)
    }

    #[test]
    fn a_custom_event_gets_what_it_leaves_out() {
        let event =
            complete(r#"{"source":"shop","detail-type":"Order","detail":{"n":3e2}}"#).unwrap();
        assert_eq!(event.time(), "1970-01-01T00:00:00.000Z");
        assert!(!event.id().is_empty());
        assert_eq!(event.detail_text(), r#"{"n":3e2}"#);
        assert_eq!(event.value()["account"], "000000000000");
        assert!(Event::parse(event.text().clone()).is_ok());
    }

    #[test]
    fn what_an_event_says_is_the_same_however_it_is_spelled() {
        let plain = r#"{"id":"Ä1","source":"shöp","detail-type":"Order","time":"2013-01-01T10:00:00Z","detail":{}}"#;
        let spelled = r#"{"id":"\u00c41","source":"sh\u00f6p","detail-type":"\u004frder","time":"2013-01-01T10:00:00\u005a","detail":{}}"#;
        let said = |e: &Event| [e.id(), e.source(), e.detail_type(), e.time()].map(str::to_owned);
        let wanted = ["Ä1", "shöp", "Order", "2013-01-01T10:00:00Z"].map(str::to_owned);
        for text in [plain, spelled] {
            let completed = complete(text).unwrap();
            assert_eq!(said(&completed), wanted);
            let stored = Event::parse(completed.text().clone()).unwrap();
            assert_eq!(said(&stored), wanted);
            assert_eq!(stored.text(), completed.text());
        }
        // One that is complete already keeps its spelling.
        let whole = spelled.replacen(
            '{',
            r#"{"version":"0","account":"1","region":"r","resources":["\u0061"],"#,
            1,
        );
        let stored = Event::parse(Bytes::from(whole.clone())).unwrap();
        assert_eq!(said(&stored), wanted);
        assert_eq!(complete(&whole).unwrap().text(), &whole);
    }

    #[test]
    fn events_that_share_their_memory_say_what_they_say_alone() {
        let large = format!(
            r#"{{"id":"l","source":"s","detail-type":"T","detail":{{"pad":"{}"}}}}"#,
            "x".repeat(3 * SHARED)
        );
        let texts = [
            r#"{"id":"a","source":"s","detail-type":"T","resources":["r\u00e4","\"q\""],"detail":{"n":3e2}}"#,
            r#"{"id":"\n\u0007\\","source":"\"s\"","detail-type":"\u0041","detail":{ "n" : [1] }}"#,
            r#"{"version":"0","id":"w","detail-type":"T","source":"s","account":"1","time":"2013-01-01T10:00:00Z","region":"r","resources":[],"detail":{}}"#,
            r#"{"id":"c","source":"s","detail-type":"T","detail":{},"replay-name":"r","cloudevent":{"a":1}}"#,
            &large,
            r#"{"id":"z","source":"ends with a backslash\\","detail-type":"T","detail":{}}"#,
        ];
        let mut room = Room::for_events(texts.len(), texts.iter().map(|t| t.len()).sum());
        for text in texts {
            let shared =
                Event::complete_in(&mut room, text.as_bytes(), &Defaults::default(), 0).unwrap();
            assert_eq!(shared, complete(text).unwrap());
            let said: serde_json::Value = serde_json::from_str(text).unwrap();
            let whole = shared.value();
            for (name, value) in said.as_object().unwrap() {
                assert_eq!(&whole[name], value, "{name}");
            }
            assert_eq!(said["id"], shared.id());
            assert_eq!(said["source"], shared.source());
            assert_eq!(Event::parse(shared.text().clone()).unwrap(), shared);
        }
    }

    #[test]
    fn a_complete_event_keeps_its_text() {
        let text = r#"{"version":"0", "id":"a","detail-type":"T","source":"s","account":"1","time":"2013-01-01T10:00:00Z","region":"r","resources":[],"detail":{}}"#;
        assert_eq!(&complete(text).unwrap().text()[..], text.as_bytes());
        let shared = Bytes::from_static(text.as_bytes());
        let event = Event::share(&shared, &Defaults::default(), 0).unwrap();
        assert_eq!(event.text().as_ptr(), shared.as_ptr());
    }

    #[test]
    fn an_edited_event_keeps_all_but_id_and_detail() {
        let event = complete(r#"{"id":"a","source":"s","detail-type":"T","detail":{"n":3e2}}"#);
        let event = event.unwrap();
        let edited = event.edited("b", Some(r#"{"n":1.50}"#)).unwrap();
        assert_eq!((edited.id(), edited.detail_text()), ("b", r#"{"n":1.50}"#));
        assert_eq!(edited.time(), event.time());
        assert_eq!(
            event.edited("b", None).unwrap().detail_text(),
            r#"{"n":3e2}"#
        );
        let wrong = event.edited("b", Some("[1]")).unwrap_err();
        assert_eq!(wrong.to_string(), "detail: must be a JSON object");
    }

    #[test]
    fn a_replayed_event_says_so_and_is_else_the_same() {
        let event = complete(r#"{"id":"a","source":"s","detail-type":"T","detail":{"n":3e2}}"#);
        let event = event.unwrap();
        let again = event.replayed("monday").unwrap();
        assert_eq!(again.value()["replay-name"], "monday");
        assert_eq!(again.detail_text(), r#"{"n":3e2}"#);
        assert_eq!((again.id(), again.time()), (event.id(), event.time()));
        assert_eq!(
            again.replayed("tuesday").unwrap().value()["replay-name"],
            "tuesday"
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let said = |text: &str| complete(text).unwrap_err().to_string();
        assert_eq!(
            said(r#"{"detail-type":"T","detail":{}}"#),
            "source: is missing"
        );
        assert_eq!(
            said(r#"{"source":"s","detail-type":"T","detail":[]}"#),
            "detail: must be a JSON object"
        );
        assert_eq!(
            said(r#"{"source":"s","detail-type":"T","detail":{},"time":"yesterday"}"#),
            "time: `yesterday` is not an RFC 3339 time like 2013-01-01T10:00:00Z"
        );
        assert!(
            said(r#"{"source":"s","detail-type":"T","detail":{},"amount":3}"#)
                .starts_with("$: unknown field `amount`; an event's own data belongs in `detail`")
        );
    }
}
