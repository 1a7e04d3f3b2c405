//! The one noun of the program: the EventBridge envelope.
//!
//! An [`Event`] keeps its JSON text as it came (numbers keep their spelling,
//! `detail` is not rebuilt) and knows the few members that every part needs.
//! What Pointsman itself knows about an event (sequence number, cause, hops)
//! is metadata beside it and never inside it.

mod build;
mod ids;

pub use build::{EventBuilder, ObjectEvent};
pub use ids::{derived_id, object_id, random_id};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The largest event that is taken inline, in bytes (1 MiB, as EventBridge since 2026).
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// An event: the EventBridge envelope, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    text: Bytes,
    id: String,
    source: String,
    detail_type: String,
    time: String,
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

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none", borrow, default)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    detail_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    account: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    region: Option<Cow<'a, str>>,
    #[serde(default)]
    resources: Option<Vec<String>>,
    #[serde(borrow, default)]
    detail: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    cloudevent: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    replay_name: Option<&'a RawValue>,
}

impl Event {
    /// Reads an envelope that must be complete, as the log keeps it.
    ///
    /// # Errors
    /// When a member is missing or of the wrong type.
    pub fn parse(text: Bytes) -> Result<Self, EventError> {
        let (event, missing) = read(text)?;
        match missing {
            None => Ok(event),
            Some(path) => Err(EventError::at(path, "is missing")),
        }
    }

    /// Reads a custom event, filling in `version`, `id`, `time`, `account`,
    /// `region` and `resources` where they are left out. `source`,
    /// `detail-type` and an object as `detail` are required.
    ///
    /// # Errors
    /// When the text is not an envelope or is over `defaults.max_bytes`.
    pub fn complete(text: Bytes, defaults: &Defaults, now_ms: i64) -> Result<Self, EventError> {
        if text.len() > defaults.max_bytes {
            return Err(EventError::TooLarge {
                bytes: text.len(),
                limit: defaults.max_bytes,
            });
        }
        let (event, missing) = read(text)?;
        if missing.is_none() {
            return Ok(event);
        }
        let mut wire: Envelope<'_> = parse_envelope(&event.text)?;
        wire.version.get_or_insert(Cow::Borrowed("0"));
        wire.id.get_or_insert_with(|| Cow::Owned(random_id()));
        wire.time.get_or_insert_with(|| Cow::Owned(rfc3339(now_ms)));
        wire.account
            .get_or_insert(Cow::Borrowed(defaults.account.as_str()));
        wire.region
            .get_or_insert(Cow::Borrowed(defaults.region.as_str()));
        wire.resources.get_or_insert_with(Vec::new);
        let text = serde_json::to_vec(&wire).map_err(|e| EventError::at("$", e.to_string()))?;
        Self::parse(Bytes::from(text))
    }

    /// The event under another id and, where one is given, with another `detail`
    /// (JSON text of an object).
    ///
    /// # Errors
    /// When `detail` is not an object.
    pub fn edited(&self, id: &str, detail: Option<&str>) -> Result<Self, EventError> {
        let mut wire = parse_envelope(&self.text)?;
        wire.id = Some(Cow::Borrowed(id));
        if let Some(detail) = detail {
            let raw: &RawValue = serde_json::from_str(detail)
                .map_err(|e| EventError::at("detail", format!("is not JSON: {e}")))?;
            wire.detail = Some(raw);
        }
        let text = serde_json::to_vec(&wire).map_err(|e| EventError::at("$", e.to_string()))?;
        Self::parse(Bytes::from(text))
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
        let mut wire = parse_envelope(&self.text)?;
        wire.replay_name = Some(&name);
        let text = serde_json::to_vec(&wire).map_err(|e| EventError::at("$", e.to_string()))?;
        Self::parse(Bytes::from(text))
    }

    /// The whole envelope as JSON text.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The event's id; a repeated id within the dedupe window is the same event.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What kind of event it is.
    #[must_use]
    pub fn detail_type(&self) -> &str {
        &self.detail_type
    }

    /// When it happened, RFC 3339.
    #[must_use]
    pub fn time(&self) -> &str {
        &self.time
    }

    /// `detail` as raw JSON text.
    #[must_use]
    pub fn detail_text(&self) -> &str {
        parse_envelope(&self.text)
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

fn parse_envelope(text: &[u8]) -> Result<Envelope<'_>, EventError> {
    serde_json::from_slice(text).map_err(|e| {
        let said = e.to_string();
        let reason = match said.strip_prefix("unknown field ") {
            Some(rest) => {
                let name = rest.split('`').nth(1).unwrap_or("?");
                format!("unknown field `{name}`; an event's own data belongs in `detail`")
            }
            None => said,
        };
        EventError::at("$", reason)
    })
}

/// Reads and checks the members that are there; names the first that is missing.
fn read(text: Bytes) -> Result<(Event, Option<&'static str>), EventError> {
    let wire = parse_envelope(&text)?;
    let source = required(wire.source.as_deref(), "source")?;
    let detail_type = required(wire.detail_type.as_deref(), "detail-type")?;
    match wire.detail {
        None => return Err(EventError::at("detail", "is missing")),
        Some(raw) if !raw.get().starts_with('{') => {
            return Err(EventError::at("detail", "must be a JSON object"));
        }
        Some(_) => {}
    }
    if let Some(time) = &wire.time
        && DateTime::parse_from_rfc3339(time).is_err()
    {
        return Err(EventError::at(
            "time",
            format!("`{time}` is not an RFC 3339 time like 2013-01-01T10:00:00Z"),
        ));
    }
    if wire.id.as_deref() == Some("") {
        return Err(EventError::at("id", "must not be empty"));
    }
    let missing = [
        ("version", wire.version.is_none()),
        ("id", wire.id.is_none()),
        ("account", wire.account.is_none()),
        ("time", wire.time.is_none()),
        ("region", wire.region.is_none()),
        ("resources", wire.resources.is_none()),
    ]
    .into_iter()
    .find_map(|(name, absent)| absent.then_some(name));
    let (id, time) = (
        wire.id.as_deref().unwrap_or_default().to_owned(),
        wire.time.as_deref().unwrap_or_default().to_owned(),
    );
    Ok((
        Event {
            id,
            source,
            detail_type,
            time,
            text,
        },
        missing,
    ))
}

fn required(value: Option<&str>, path: &str) -> Result<String, EventError> {
    match value {
        None => Err(EventError::at(path, "is missing")),
        Some("") => Err(EventError::at(path, "must not be empty")),
        Some(value) => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> Result<Event, EventError> {
        Event::complete(
            Bytes::copy_from_slice(text.as_bytes()),
            &Defaults::default(),
            0,
        )
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
    fn a_complete_event_keeps_its_text() {
        let text = r#"{"version":"0", "id":"a","detail-type":"T","source":"s","account":"1","time":"2013-01-01T10:00:00Z","region":"r","resources":[],"detail":{}}"#;
        assert_eq!(&complete(text).unwrap().text()[..], text.as_bytes());
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
