//! The envelope as JSON: read with one look at its text, and written.

use super::EventError;
use chrono::DateTime;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A text of an envelope, borrowed from it unless it is spelled with escapes. (Inside an
/// `Option`, serde would copy a plain `Cow`.)
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    pub(super) fn borrowed(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    pub(super) fn owned(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Said;
        impl<'de> Visitor<'de> for Said {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Text::borrowed(v))
            }

            fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Text::owned(v.to_owned()))
            }
        }
        from.deserialize_str(Said)
    }
}

/// A text of an event: where it is in the event, or by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    At(usize, usize),
    Own(Box<str>),
}

impl Member {
    /// What was read in `all`; by itself when it does not lie there.
    pub(super) fn of(said: Option<&Text<'_>>, all: &[u8]) -> Self {
        let said = said.map_or("", |text| &text.0);
        let from = (said.as_ptr() as usize).checked_sub(all.as_ptr() as usize);
        match from.map(|from| (from, from.saturating_add(said.len()))) {
            Some((from, to)) if to <= all.len() => Self::At(from, to),
            _ => Self::Own(said.into()),
        }
    }

    pub(super) fn get<'a>(&'a self, all: &'a [u8]) -> &'a str {
        match self {
            // It was read as text from there.
            Self::At(from, to) => std::str::from_utf8(&all[*from..*to]).unwrap_or_default(),
            Self::Own(text) => text,
        }
    }
}

/// The members of the envelope.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none", borrow, default)]
    pub version: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub detail_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub source: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub account: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub time: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub region: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub resources: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    pub detail: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub cloudevent: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub replay_name: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Reads it and checks the members that are there.
    pub(super) fn read(text: &'a [u8]) -> Result<Self, EventError> {
        let wire = Self::parse(text)?;
        required(wire.source.as_ref(), "source")?;
        required(wire.detail_type.as_ref(), "detail-type")?;
        match wire.detail {
            None => return Err(EventError::at("detail", "is missing")),
            Some(raw) if !raw.get().starts_with('{') => {
                return Err(EventError::at("detail", "must be a JSON object"));
            }
            Some(_) => {}
        }
        if let Some(Text(time)) = &wire.time
            && DateTime::parse_from_rfc3339(time).is_err()
        {
            return Err(EventError::at(
                "time",
                format!("`{time}` is not an RFC 3339 time like 2013-01-01T10:00:00Z"),
            ));
        }
        if wire.id.as_ref().is_some_and(|id| id.0.is_empty()) {
            return Err(EventError::at("id", "must not be empty"));
        }
        Ok(wire)
    }

    /// Reads it, whatever its members say.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, EventError> {
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

    /// The first member that a whole event has and this one has not.
    pub(super) fn missing(&self) -> Option<&'static str> {
        [
            ("version", self.version.is_none()),
            ("id", self.id.is_none()),
            ("account", self.account.is_none()),
            ("time", self.time.is_none()),
            ("region", self.region.is_none()),
            ("resources", self.resources.is_none()),
        ]
        .into_iter()
        .find_map(|(name, absent)| absent.then_some(name))
    }
}

fn required(value: Option<&Text<'_>>, path: &str) -> Result<(), EventError> {
    match value {
        None => Err(EventError::at(path, "is missing")),
        Some(Text(text)) if text.is_empty() => Err(EventError::at(path, "must not be empty")),
        Some(_) => Ok(()),
    }
}
