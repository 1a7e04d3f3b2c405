//! The members of a JSON object, their values unparsed.
//!
//! Nearly every record of an NDJSON file is flat and spelled without escapes; such a one
//! is split here, at half of what a parser takes. Whatever else there is, and all that is
//! wrong, is left to the parser, which knows what to say of it.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A member's name, and the text of its value.
pub type Member<'a> = (Cow<'a, str>, &'a str);

/// The members of an object in the order of the text, those that are there twice, too.
///
/// # Errors
/// When the text is no JSON, or no object.
pub fn members(text: &str) -> serde_json::Result<Vec<Member<'_>>> {
    match plain(text) {
        Some(members) => Ok(members),
        None => serde_json::from_str(text).map(|Parsed(members)| members),
    }
}

/// The members of a flat object without escapes; `None` for any other text.
fn plain(text: &str) -> Option<Vec<Member<'_>>> {
    let mut at = Cursor { text, pos: 0 };
    at.expect(b'{')?;
    let mut members = Vec::with_capacity(16);
    if at.expect(b'}').is_none() {
        loop {
            let name = at.string()?;
            at.expect(b':')?;
            let value = at.value()?;
            members.push((Cow::Borrowed(&name[1..name.len() - 1]), value));
            if at.expect(b',').is_none() {
                at.expect(b'}')?;
                break;
            }
        }
    }
    at.space();
    (at.pos == text.len()).then_some(members)
}

struct Cursor<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.pos += 1;
        }
    }

    /// Goes past space and this byte, if it comes next.
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.peek() == Some(byte)).then(|| self.pos += 1)
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.pos;
        self.expect(b'"')?;
        let from = self.pos;
        let rest = &self.text.as_bytes()[from..];
        let len = memchr::memchr2(b'"', b'\\', rest)?;
        let plain = rest[len] == b'"' && rest[..len].iter().all(|b| *b >= b' ');
        self.pos = from + len + 1;
        // What is before the first quote is space.
        plain.then(|| self.text[start..self.pos].trim_ascii_start())
    }

    /// A string, a number, `true`, `false` or `null`.
    fn value(&mut self) -> Option<&'a str> {
        self.space();
        let start = self.pos;
        match self.peek()? {
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => return None,
        }
        Some(&self.text[start..self.pos])
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let found = self.text.as_bytes()[self.pos..].starts_with(word.as_bytes());
        found.then(|| self.pos += word.len())
    }

    fn number(&mut self) -> Option<()> {
        self.pos += usize::from(self.peek() == Some(b'-'));
        match self.peek()? {
            b'0' => self.pos += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.pos += 1;
            self.pos += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let from = self.pos;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.pos += 1;
        }
        (self.pos > from).then_some(())
    }
}

/// The members as a parser reads them.
struct Parsed<'a>(Vec<Member<'a>>);

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Parsed<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Parsed<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some((Name(name), value)) = map.next_entry::<_, &RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Parsed(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Option<Vec<Member<'_>>> {
        let parsed: Result<Parsed<'_>, _> = serde_json::from_str(text);
        parsed.ok().map(|Parsed(members)| members)
    }

    #[test]
    fn flat_records_are_split_without_the_parser() {
        let text = " { \"a\" : 1 ,\"b\":\"x y\",\t\"c\":-0.5e+3,\"d\":true,\"e\":null, \"\":\"\"} ";
        let split = plain(text).unwrap();
        assert_eq!(Some(&split), parsed(text).as_ref());
        let values: Vec<&str> = split.iter().map(|m| m.1).collect();
        assert_eq!(values, ["1", "\"x y\"", "-0.5e+3", "true", "null", "\"\""]);
        assert_eq!(plain("{}"), Some(Vec::new()));
        assert_eq!(plain(r#"{"ü":"é"}"#), parsed(r#"{"ü":"é"}"#));
    }

    #[test]
    fn what_is_nested_escaped_or_wrong_is_left_to_the_parser() {
        for text in [
            "",
            "[]",
            "{",
            "{}x",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{\"a\":{}}",
            "{\"a\":[1]}",
            r#"{"a":"\n"}"#,
            "{\"a\":\"\u{1}\"}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":nul}",
            "{\"a\":\"x}",
        ] {
            assert_eq!(plain(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_split_is_what_a_parser_reads(text in r#"[{}\[\]":,0-9.eE+\-tfnrualse \\x\t]{0,40}"#) {
            if let Some(split) = plain(&text) {
                prop_assert_eq!(Some(split), parsed(&text));
            }
        }

        #[test]
        fn records_are_split_as_a_parser_reads_them(
            members in prop::collection::vec(("[a-z\" \\\\é]{0,6}", any::<i64>(), any::<f64>(), ".{0,8}", 0..5), 0..8),
            space in "[ \t]{0,2}",
        ) {
            let mut text = String::from("{");
            for (i, (name, whole, real, said, which)) in members.into_iter().enumerate() {
                let value = match which {
                    0 => serde_json::json!(whole),
                    1 => serde_json::json!(real),
                    2 => serde_json::json!(said),
                    3 => serde_json::json!(null),
                    _ => serde_json::json!(whole > 0),
                };
                let comma = if i > 0 { "," } else { "" };
                text.push_str(&format!("{comma}{space}{}{space}:{space}{value}{space}", serde_json::json!(name)));
            }
            text.push('}');
            prop_assert_eq!(members_of(&text), parsed(&text));
        }
    }

    fn members_of(text: &str) -> Option<Vec<Member<'_>>> {
        members(text).ok()
    }
}
