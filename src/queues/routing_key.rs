//! What an exchange sorts messages by, made of parts of the event.

use crate::event::Event;
use crate::handlers::Failure;

/// A template like `orders.<detail.region>.<detail-type>`: dotted paths into the
/// event stand in angle brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingKey {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(String),
}

impl RoutingKey {
    /// Reads a template.
    ///
    /// # Errors
    /// When a bracket is not closed, or encloses no path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once('<') {
            let Some((path, after)) = from.split_once('>') else {
                return Err(format!("`<{from}` is not closed by `>`"));
            };
            if path.is_empty() || path.split('.').any(str::is_empty) || path.contains('<') {
                return Err(format!("`<{path}>` holds no path like `detail.region`"));
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Path(path.to_owned()));
            rest = after;
        }
        if rest.contains('>') {
            return Err(format!("`{rest}` closes a bracket that was not opened"));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key of an event.
    ///
    /// # Errors
    /// When the event has nothing at one of the paths.
    pub fn of(&self, event: &Event) -> Result<String, Failure> {
        let mut key = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => key.push_str(text),
                Part::Path(path) => key.push_str(&at(event, path)?),
            }
        }
        Ok(key)
    }
}

fn at(event: &Event, path: &str) -> Result<String, Failure> {
    let found = match path {
        "source" => Some(event.source().to_owned()),
        "detail-type" => Some(event.detail_type().to_owned()),
        _ => event.text_at(path),
    };
    found.ok_or_else(|| {
        let said = format!("the event has no `{path}`, which its routing key is made of");
        Failure::permanent("NoRoutingKey", said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_key_is_made_of_text_and_of_parts_of_the_event() {
        let text = r#"{"version":"0","id":"a","detail-type":"Order Placed","source":"shop","account":"1","time":"2013-01-01T10:00:00Z","region":"r","resources":[],"detail":{"to":{"city":"Z\u00fcrich"},"n":7}}"#;
        let event = Event::parse(Bytes::from_static(text.as_bytes())).unwrap();
        let key = |template: &str| RoutingKey::parse(template).unwrap().of(&event);
        assert_eq!(key("<source>.<detail-type>").unwrap(), "shop.Order Placed");
        assert_eq!(
            key("o.<detail.to.city>.<detail.n>!").unwrap(),
            "o.Zürich.7!"
        );
        assert_eq!(key("fixed").unwrap(), "fixed");
        let missing = key("<detail.street>").unwrap_err();
        assert!(missing.message.contains("no `detail.street`"), "{missing}");
    }

    #[test]
    fn brackets_are_balanced_and_hold_paths() {
        for wrong in ["a.<source", "a>", "<>", "<a..b>", "<<source>"] {
            assert!(RoutingKey::parse(wrong).is_err(), "{wrong}");
        }
    }
}
