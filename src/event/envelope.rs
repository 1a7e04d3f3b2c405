//! The envelope as JSON: read with one look at its text, and written.

use super::EventError;
use bytes::{BufMut, BytesMut};
use chrono::DateTime;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A text of an envelope, borrowed from it unless it is spelled with escapes. (Inside an
/// `Option`, serde would copy a plain `Cow`.)
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

/// The members that an event knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    pub id: Member,
    pub source: Member,
    pub detail_type: Member,
    pub time: Member,
}

/// The members of the envelope.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
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
    #[serde(borrow, default)]
    pub cloudevent: Option<&'a RawValue>,
    #[serde(borrow, default)]
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

    /// Writes it at the end of `out`; where in what it wrote the members are that an
    /// event knows.
    pub(super) fn write(&self, out: &mut BytesMut) -> Members {
        let mut writer = Writer::new(out);
        writer.text("version", self.version.as_ref());
        let id = writer.text("id", self.id.as_ref());
        let detail_type = writer.text("detail-type", self.detail_type.as_ref());
        let source = writer.text("source", self.source.as_ref());
        writer.text("account", self.account.as_ref());
        let time = writer.text("time", self.time.as_ref());
        writer.text("region", self.region.as_ref());
        if let Some(resources) = &self.resources {
            writer.name("resources");
            writer.out.put_u8(b'[');
            for (i, Text(resource)) in resources.iter().enumerate() {
                if i > 0 {
                    writer.out.put_u8(b',');
                }
                writer.string(resource);
            }
            writer.out.put_u8(b']');
        }
        writer.raw("detail", self.detail);
        writer.raw("cloudevent", self.cloudevent);
        writer.raw("replay-name", self.replay_name);
        writer.out.put_u8(b'}');
        Members {
            id,
            source,
            detail_type,
            time,
        }
    }

    /// The members that an event knows, for an event whose text is `all` and which was
    /// read in it.
    pub(super) fn members(&self, all: &[u8]) -> Members {
        Members {
            id: Member::of(self.id.as_ref(), all),
            source: Member::of(self.source.as_ref(), all),
            detail_type: Member::of(self.detail_type.as_ref(), all),
            time: Member::of(self.time.as_ref(), all),
        }
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

/// Writes an object's members one after the other.
struct Writer<'a> {
    out: &'a mut BytesMut,
    /// Where the object begins.
    start: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut BytesMut) -> Self {
        let start = out.len();
        out.put_u8(b'{');
        Self { out, start }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > self.start + 1 {
            self.out.put_u8(b',');
        }
        self.out.put_u8(b'"');
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b"\":");
    }

    fn raw(&mut self, name: &str, raw: Option<&RawValue>) {
        if let Some(raw) = raw {
            self.name(name);
            self.out.put_slice(raw.get().as_bytes());
        }
    }

    /// Writes a text, and tells where it is.
    fn text(&mut self, name: &str, text: Option<&Text<'_>>) -> Member {
        let Some(Text(text)) = text else {
            return Member::Own("".into());
        };
        self.name(name);
        let from = self.out.len() + 1 - self.start;
        self.string(text);
        let to = self.out.len() - 1 - self.start;
        match to - from == text.len() {
            true => Member::At(from, to),
            // It is spelled with escapes.
            false => Member::Own((**text).into()),
        }
    }

    fn string(&mut self, text: &str) {
        let plain = |b: &u8| *b >= b' ' && *b != b'"' && *b != b'\\';
        if text.as_bytes().iter().all(plain) {
            self.out.put_u8(b'"');
            self.out.put_slice(text.as_bytes());
            self.out.put_u8(b'"');
            return;
        }
        let written = serde_json::to_writer((&mut *self.out).writer(), text);
        // Neither a string nor memory that grows gives it a reason to fail.
        debug_assert!(written.is_ok());
    }
}

fn required(value: Option<&Text<'_>>, path: &str) -> Result<(), EventError> {
    match value {
        None => Err(EventError::at(path, "is missing")),
        Some(Text(text)) if text.is_empty() => Err(EventError::at(path, "must not be empty")),
        Some(_) => Ok(()),
    }
}
