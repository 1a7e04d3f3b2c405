//! A pull reader for the JSON text of patterns.
//!
//! Its own, because the raw spelling of numbers, duplicate keys, byte offsets
//! and the wording of syntax errors all matter here. It stops at the end of
//! the top-level value: text after it is ignored, as EventBridge does.

use super::text::{Text, unescape};

/// How deep a pattern may nest.
const MAX_DEPTH: usize = 1_000;

/// One step through the text. For names, strings and numbers the reader's
/// [`Reader::raw`] has the spelling.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    StartObject,
    EndObject,
    StartArray,
    EndArray,
    Name(Text),
    String(Text),
    Number,
    True,
    False,
    Null,
}

/// A syntax error: the reason and where the trouble begins.
#[derive(Debug)]
pub(super) struct Malformed {
    pub reason: String,
    pub offset: usize,
    pub end: usize,
}

struct Open {
    object: bool,
    offset: usize,
    /// Whether an element was read already.
    filled: bool,
}

pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// Where the current token begins.
    start: usize,
    open: Vec<Open>,
    /// A name was read, its value is due.
    value_due: bool,
}

const VALUES: &str = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";

impl<'t> Reader<'t> {
    pub fn new(text: &'t str) -> Self {
        Reader {
            text,
            at: 0,
            start: 0,
            open: Vec::new(),
            value_due: false,
        }
    }

    /// The spelling of the current token.
    pub fn raw(&self) -> &'t str {
        &self.text[self.start..self.at]
    }

    /// Where the current token begins and ends.
    pub fn span(&self) -> (usize, usize) {
        (self.start, self.at)
    }

    /// The next token.
    pub fn next(&mut self) -> Result<Token, Malformed> {
        self.skip_space();
        self.start = self.at;
        let Some(open) = self.open.last_mut() else {
            return self.value();
        };
        if self.value_due {
            self.value_due = false;
            // `name` has seen the colon.
            self.at += 1;
            self.skip_space();
            self.start = self.at;
            return self.value();
        }
        let byte = self.text.as_bytes().get(self.at).copied();
        if let Some(close @ (b'}' | b']')) = byte {
            return self.close(close);
        }
        if open.filled {
            let kind = if open.object { "Object" } else { "Array" };
            if byte != Some(b',') {
                return Err(
                    self.unexpected(&format!("was expecting comma to separate {kind} entries"))
                );
            }
            self.at += 1;
            self.skip_space();
            self.start = self.at;
        }
        let object = self.open.last().is_some_and(|open| open.object);
        if let Some(open) = self.open.last_mut() {
            open.filled = true;
        }
        if object { self.name() } else { self.value() }
    }

    fn skip_space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest
            .iter()
            .take_while(|byte| b" \t\r\n".contains(byte))
            .count();
    }

    fn close(&mut self, byte: u8) -> Result<Token, Malformed> {
        let Some(open) = self.open.last() else {
            return Err(self.unexpected("expected a value"));
        };
        if open.object != (byte == b'}') {
            let (want, kind) = if open.object {
                ('}', "Object")
            } else {
                (']', "Array")
            };
            let (line, column) = self.place(open.offset);
            let reason = format!(
                "Unexpected close marker '{}': expected '{want}' (for {kind} starting at line: \
                 {line}, column: {column})",
                char::from(byte)
            );
            return Err(Malformed {
                reason,
                offset: self.at,
                end: self.at + 1,
            });
        }
        self.at += 1;
        self.open.pop();
        Ok(if byte == b'}' {
            Token::EndObject
        } else {
            Token::EndArray
        })
    }

    fn name(&mut self) -> Result<Token, Malformed> {
        if self.text.as_bytes().get(self.at) != Some(&b'"') {
            return Err(self.unexpected("was expecting double-quote to start field name"));
        }
        let name = self.string()?;
        let end = self.at;
        self.skip_space();
        if self.text.as_bytes().get(self.at) != Some(&b':') {
            return Err(self.unexpected("was expecting a colon to separate field name and value"));
        }
        // `raw` and `span` speak of the name; the colon is skipped later on.
        self.at = end;
        self.value_due = true;
        Ok(Token::Name(name))
    }

    fn value(&mut self) -> Result<Token, Malformed> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at) {
            Some(b'{') => self.enter(true),
            Some(b'[') => self.enter(false),
            Some(b'"') => self.string().map(Token::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(byte) if byte.is_ascii_alphabetic() => self.word(),
            Some(_) => Err(self.unexpected(&format!("expected a valid value {VALUES}"))),
            None => Err(self.unexpected("expected a value")),
        }
    }

    fn enter(&mut self, object: bool) -> Result<Token, Malformed> {
        if self.open.len() == MAX_DEPTH {
            let reason = format!(
                "Document nesting depth ({}) exceeds the maximum allowed ({MAX_DEPTH})",
                MAX_DEPTH + 1
            );
            return Err(Malformed {
                reason,
                offset: self.at,
                end: self.at + 1,
            });
        }
        self.open.push(Open {
            object,
            offset: self.at,
            filled: false,
        });
        self.at += 1;
        Ok(if object {
            Token::StartObject
        } else {
            Token::StartArray
        })
    }

    fn string(&mut self) -> Result<Text, Malformed> {
        let bytes = self.text.as_bytes();
        let begin = self.at + 1;
        let mut end = begin;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(byte @ 0..0x20) => {
                    let reason = format!(
                        "Illegal unquoted character ((CTRL-CHAR, code {byte})): has to be escaped \
                         using backslash to be included in string value"
                    );
                    return Err(Malformed {
                        reason,
                        offset: end,
                        end: end + 1,
                    });
                }
                Some(_) => end += 1,
                None => {
                    let reason =
                        "Unexpected end-of-input: was expecting closing quote for a string value";
                    return Err(self.malformed(reason, bytes.len()));
                }
            }
        }
        self.at = end + 1;
        let mut plain = Vec::new();
        match unescape(&bytes[begin..end], &mut plain) {
            Ok(()) => Ok(Text::from_bytes(&plain)),
            Err(offset) => Err(self.bad_escape(begin + offset)),
        }
    }

    fn bad_escape(&self, offset: usize) -> Malformed {
        let escaped = self.text[offset + 1..].chars().next().unwrap_or('"');
        let reason = if escaped == 'u' {
            "Unexpected character: expected a hex-digit for character escape sequence".to_owned()
        } else {
            format!(
                "Unrecognized character escape '{escaped}' (code {})",
                u32::from(escaped)
            )
        };
        Malformed {
            reason,
            offset,
            end: offset + 1 + escaped.len_utf8(),
        }
    }

    fn number(&mut self) -> Result<Token, Malformed> {
        let bytes = self.text.as_bytes();
        let digits = |from: usize| {
            bytes[from..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count()
        };
        let mut at = self.at + usize::from(bytes[self.at] == b'-');
        let whole = digits(at);
        let leading_zero = whole > 1 && bytes[at] == b'0';
        at += whole;
        let mut complete = whole > 0 && !leading_zero;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            complete &= fraction > 0;
            at += 1 + fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at.min(bytes.len()));
            complete &= exponent > 0;
            at += exponent;
        }
        self.at = at.min(bytes.len());
        if leading_zero {
            return Err(
                self.malformed("Invalid numeric value: Leading zeroes not allowed", self.at)
            );
        }
        let ends = bytes
            .get(at)
            .is_none_or(|byte| b" \t\r\n,]}".contains(byte));
        if !complete || !ends {
            return Err(self.unexpected("expected a digit, or the end of the number"));
        }
        Ok(Token::Number)
    }

    fn word(&mut self) -> Result<Token, Malformed> {
        let rest = &self.text[self.at..];
        let len = rest
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(rest.len());
        self.at += len;
        match &rest[..len] {
            "true" => Ok(Token::True),
            "false" => Ok(Token::False),
            "null" => Ok(Token::Null),
            other => {
                let reason = format!("Unrecognized token '{other}': was expecting {VALUES}");
                Err(self.malformed(&reason, self.at))
            }
        }
    }

    fn malformed(&self, reason: &str, end: usize) -> Malformed {
        Malformed {
            reason: reason.to_owned(),
            offset: self.start,
            end,
        }
    }

    fn unexpected(&self, expectation: &str) -> Malformed {
        match self.text[self.at..].chars().next() {
            Some(c) => Malformed {
                reason: format!(
                    "Unexpected character ('{c}' (code {})): {expectation}",
                    u32::from(c)
                ),
                offset: self.at,
                end: self.at + c.len_utf8(),
            },
            None => Malformed {
                reason: self.unexpected_end(),
                offset: self.at,
                end: self.at,
            },
        }
    }

    fn unexpected_end(&self) -> String {
        match self.open.last() {
            None => "No content to map due to end-of-input".to_owned(),
            Some(open) => {
                let (line, column) = self.place(open.offset);
                format!(
                    "Unexpected end-of-input: expected close marker for {} (start marker at line: \
                     {line}, column: {column})",
                    if open.object { "Object" } else { "Array" }
                )
            }
        }
    }

    /// Line and column (in characters), counted from 1.
    fn place(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}
