//! Splits one CSV record into fields, by RFC 4180.
//!
//! The rule for quotes: a record starts at a line's start. While a quoted
//! field is open at a line's end, the record may go on over further lines, but
//! it is taken only if it is then flawless: every quote closed right before a
//! delimiter or the end, no quote inside an unquoted field, and as many fields
//! as there are columns. Otherwise the first line alone is the broken record,
//! and reading goes on at the next line. So an open quote costs one record;
//! a broken record of several lines costs as many rejects as it has lines, and
//! a neighbour is never swallowed.

use memchr::{memchr, memchr2};
use std::borrow::Cow;

/// Where a field lies in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    start: usize,
    end: usize,
    /// It was in quotes.
    pub quoted: bool,
    /// It has doubled quotes inside.
    doubled: bool,
}

/// How far a record was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It ends with the text given.
    Done,
    /// A quoted field is still open at the end of the text.
    Open,
    /// There is text between a closing quote and the next delimiter.
    TextAfterQuote,
}

/// Splits records into fields.
#[derive(Debug)]
pub struct Splitter {
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
    /// The fields of the record.
    pub fields: Vec<Field>,
    /// A quote was seen inside an unquoted field.
    pub stray_quote: bool,
    /// Start of the open quoted field, and whether it has doubled quotes.
    open: (usize, bool),
}

impl Splitter {
    /// A splitter for a delimiter and a quote; with an escape, a quoted field
    /// may have quotes (and escapes) after one.
    #[must_use]
    pub fn new(delimiter: u8, quote: u8, escape: Option<u8>) -> Self {
        Self {
            delimiter,
            quote,
            escape: escape.filter(|escape| *escape != quote),
            fields: Vec::new(),
            stray_quote: false,
            open: (0, false),
        }
    }

    /// A splitter for the same dialect.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.delimiter, self.quote, self.escape)
    }

    /// The quote.
    #[must_use]
    pub fn quote(&self) -> u8 {
        self.quote
    }

    /// Splits a line.
    #[inline]
    pub fn split(&mut self, line: &[u8]) -> Step {
        self.fields.clear();
        self.stray_quote = false;
        if self.unquoted(line) {
            return Step::Done;
        }
        self.fields.clear();
        self.field(line, 0)
    }

    /// Splits a line that has no quote; `false` as soon as there is one. Eight bytes
    /// at a time: fields are short, and a search for each costs more than it finds.
    #[inline]
    fn unquoted(&mut self, line: &[u8]) -> bool {
        let (quotes, delimiters) = (spread(self.quote), spread(self.delimiter));
        let (words, rest) = line.as_chunks::<8>();
        let (mut start, mut at) = (0, 0);
        for word in words {
            let word = u64::from_le_bytes(*word);
            if equal(word, quotes) != 0 {
                return false;
            }
            let mut found = equal(word, delimiters);
            while found != 0 {
                let end = at + found.trailing_zeros() as usize / 8;
                self.plain(start, end);
                start = end + 1;
                found &= found - 1;
            }
            at += 8;
        }
        for (end, byte) in (at..).zip(rest) {
            if *byte == self.quote {
                return false;
            }
            if *byte == self.delimiter {
                self.plain(start, end);
                start = end + 1;
            }
        }
        self.plain(start, line.len());
        true
    }

    /// Goes on after [`Step::Open`], with a text that begins as the last one
    /// did (up to `searched`) and has one more line.
    #[inline]
    pub fn resume(&mut self, text: &[u8], searched: usize) -> Step {
        let (start, doubled) = self.open;
        self.quoted(text, start, searched, doubled)
    }

    #[inline]
    fn plain(&mut self, start: usize, end: usize) {
        self.fields.push(Field {
            start,
            end,
            quoted: false,
            doubled: false,
        });
    }

    /// Splits from a field's start on.
    #[inline]
    fn field(&mut self, text: &[u8], mut start: usize) -> Step {
        loop {
            if text.get(start) == Some(&self.quote) {
                return self.quoted(text, start, start + 1, false);
            }
            let mut from = start;
            let end = loop {
                match memchr2(self.delimiter, self.quote, &text[from..]) {
                    None => break text.len(),
                    Some(at) if text[from + at] == self.delimiter => break from + at,
                    Some(at) => {
                        self.stray_quote = true;
                        from += at + 1;
                    }
                }
            };
            self.plain(start, end);
            if end == text.len() {
                return Step::Done;
            }
            start = end + 1;
        }
    }

    /// Looks for the end of the quoted field that starts at `start`.
    #[inline]
    fn quoted(&mut self, text: &[u8], start: usize, mut from: usize, mut doubled: bool) -> Step {
        loop {
            let rest = text.get(from..).unwrap_or_default();
            let found = match self.escape {
                None => memchr(self.quote, rest),
                Some(escape) => memchr2(self.quote, escape, rest),
            };
            let Some(at) = found else {
                self.open = (start, doubled);
                return Step::Open;
            };
            let close = from + at;
            if Some(text[close]) == self.escape {
                doubled = true;
                from = close + 2;
                continue;
            }
            match text.get(close + 1) {
                Some(next) if *next == self.quote => {
                    doubled = true;
                    from = close + 2;
                }
                after => {
                    self.fields.push(Field {
                        start: start + 1,
                        end: close,
                        quoted: true,
                        doubled,
                    });
                    return match after {
                        None => Step::Done,
                        Some(next) if *next == self.delimiter => self.field(text, close + 2),
                        Some(_) => Step::TextAfterQuote,
                    };
                }
            }
        }
    }

    /// The text of a field.
    #[must_use]
    #[inline]
    pub fn value<'a>(&self, text: &'a str, field: Field) -> Cow<'a, str> {
        let raw = text.get(field.start..field.end).unwrap_or_default();
        match field.doubled {
            false => Cow::Borrowed(raw),
            true if self.escape.is_some() => Cow::Owned(self.unescaped(raw)),
            true => {
                let quote = char::from(self.quote);
                let (twice, once) = (format!("{quote}{quote}"), quote.to_string());
                Cow::Owned(raw.replace(&twice, &once))
            }
        }
    }

    /// The text without its escapes and doubled quotes.
    fn unescaped(&self, raw: &str) -> String {
        let (quote, escape) = (char::from(self.quote), self.escape.map(char::from));
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw.chars();
        while let Some(c) = rest.next() {
            let escapes = Some(c) == escape || c == quote;
            out.extend(if escapes { rest.next() } else { Some(c) });
        }
        out
    }
}

/// A byte, eight times.
fn spread(byte: u8) -> u64 {
    u64::from(byte) * 0x0101_0101_0101_0101
}

/// The top bit of each byte that is the same in both.
fn equal(a: u64, b: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differ = a ^ b;
    !(((differ & LOW) + LOW) | differ | LOW)
}

impl Field {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (Step, Vec<String>) {
        let mut splitter = Splitter::new(b',', b'"', None);
        let step = splitter.split(text.as_bytes());
        let fields = splitter.fields.clone();
        let values = fields.iter().map(|f| splitter.value(text, *f).into_owned());
        (step, values.collect())
    }

    #[test]
    fn fields_are_split_by_rfc_4180() {
        let done = |text: &str, fields: &[&str]| {
            let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
            assert_eq!(split(text), (Step::Done, fields), "{text}");
        };
        done("a,b,c", &["a", "b", "c"]);
        done("a,,", &["a", "", ""]);
        done("", &[""]);
        done("\"a,b\",\"c\"\"d\",\"\"", &["a,b", "c\"d", ""]);
        done(r#"a"b,c"#, &[r#"a"b"#, "c"]);
        done("\"\",x", &["", "x"]);
    }

    #[test]
    fn fields_are_found_wherever_they_end() {
        for length in 0..40_usize {
            for seed in 1..40_usize {
                let bytes = (0..length).map(|i| match (i * i + seed * 7 + i / 3) % seed {
                    0 => ',',
                    n if n % 5 == 1 => '\u{ac}',
                    n => char::from(b'-' + u8::try_from(n % 60).unwrap()),
                });
                let text: String = bytes.map(|c| if c == '"' { 'q' } else { c }).collect();
                let expected: Vec<String> = text.split(',').map(str::to_owned).collect();
                assert_eq!(split(&text), (Step::Done, expected), "{text}");
            }
        }
    }

    #[test]
    fn faults_of_quotes_are_told() {
        assert_eq!(split(r#"a,"b"#).0, Step::Open);
        assert_eq!(split(r#"a,"b""#).0, Step::Done);
        assert_eq!(split(r#"a,"b""c"#).0, Step::Open);
        assert_eq!(split(r#"a,"b"c,d"#).0, Step::TextAfterQuote);
    }

    #[test]
    fn an_escape_takes_the_next_character_as_it_is() {
        let mut splitter = Splitter::new(b',', b'"', Some(b'\\'));
        let text = r#""a\"b\\","c""d",e\f"#;
        assert_eq!(splitter.split(text.as_bytes()), Step::Done);
        let fields = splitter.fields.clone();
        let values: Vec<_> = fields.iter().map(|f| splitter.value(text, *f)).collect();
        assert_eq!(values, [r#"a"b\"#, r#"c"d"#, r"e\f"]);
        assert_eq!(splitter.split(br#""open\""#), Step::Open);
    }

    #[test]
    fn an_open_field_goes_on() {
        let mut splitter = Splitter::new(b',', b'"', None);
        assert_eq!(splitter.split(b"a,\"b"), Step::Open);
        assert_eq!(splitter.resume(b"a,\"b\nx", 4), Step::Open);
        assert_eq!(splitter.resume(b"a,\"b\nx\nc\",d", 6), Step::Done);
        let text = "a,\"b\nx\nc\",d";
        let values: Vec<_> = splitter
            .fields
            .iter()
            .map(|f| splitter.value(text, *f))
            .collect();
        assert_eq!(values, ["a", "b\nx\nc", "d"]);
    }
}
