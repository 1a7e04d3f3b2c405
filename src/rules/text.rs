//! Strings of the pattern language.
//!
//! EventBridge compares strings by UTF-16 code units, so a lone surrogate
//! (`"\ud800"`) is a character like any other. A [`Text`] therefore holds
//! WTF-8: UTF-8, except that a lone surrogate is kept as its three bytes.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// An immutable string in WTF-8; cloning is cheap.
#[derive(Clone)]
pub struct Text(Repr);

/// Most strings of patterns are short and lie where they are used.
#[derive(Clone)]
enum Repr {
    Here { len: u8, bytes: [u8; HERE] },
    There(Arc<[u8]>),
}

/// As much as leaves a [`Text`] at three words.
const HERE: usize = 22;

impl Text {
    /// The bytes, in WTF-8.
    #[inline(always)]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Here { len, bytes } => &bytes[..usize::from(*len)],
            Repr::There(bytes) => bytes,
        }
    }

    /// True for `""`.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The string, with lone surrogates shown as U+FFFD.
    pub fn to_lossy(&self) -> String {
        String::from_utf8_lossy(self.as_bytes()).into_owned()
    }

    /// Takes bytes that are already in WTF-8.
    pub(crate) fn from_bytes(text: &[u8]) -> Self {
        let mut bytes = [0; HERE];
        Text(match bytes.get_mut(..text.len()) {
            Some(here) => {
                here.copy_from_slice(text);
                let len = text.len() as u8;
                Repr::Here { len, bytes }
            }
            None => Repr::There(Arc::from(text)),
        })
    }
}

impl Default for Text {
    fn default() -> Self {
        Text::from_bytes(b"")
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::from_bytes(text.as_bytes())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

/// Compares two WTF-8 strings by UTF-16 code units, which is how the order of
/// a rule's fields is defined (it decides what `exists: false` sees inside
/// arrays).
///
/// It differs from the order of the bytes in one place: characters outside the
/// basic plane (lead byte 0xF0 and up) come before U+E000..U+FFFF (0xEE, 0xEF).
pub(crate) fn utf16_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| match byte {
        0xEE | 0xEF => u16::from(byte) + 0x100,
        _ => u16::from(byte),
    };
    match a.iter().zip(b).find(|(x, y)| x != y) {
        Some((x, y)) => rank(*x).cmp(&rank(*y)),
        None => a.len().cmp(&b.len()),
    }
}

/// Appends the JSON string content `raw` (without its quotes) to `out`, with
/// the escapes resolved. Stops at a malformed escape and returns its offset in
/// `raw`; what was decoded before it stays in `out`.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), usize> {
    let mut at = 0;
    while at < raw.len() {
        let run = memchr::memchr(b'\\', &raw[at..]).unwrap_or(raw.len() - at);
        out.extend_from_slice(&raw[at..at + run]);
        at += run;
        if at == raw.len() {
            break;
        }
        let escaped = *raw.get(at + 1).ok_or(at)?;
        let simple = match escaped {
            b'"' | b'\\' | b'/' => escaped,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                at += unescape_unicode(raw, at, out)?;
                continue;
            }
            _ => return Err(at),
        };
        out.push(simple);
        at += 2;
    }
    Ok(())
}

/// Decodes the `\uXXXX` at `at` (and the low surrogate after it, if it begins
/// a pair) and returns the number of bytes read.
fn unescape_unicode(raw: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, usize> {
    let unit = hex4(raw, at + 2).ok_or(at)?;
    if (0xD800..0xDC00).contains(&unit)
        && raw.get(at + 6) == Some(&b'\\')
        && raw.get(at + 7) == Some(&b'u')
        && let Some(low) = hex4(raw, at + 8)
        && (0xDC00..0xE000).contains(&low)
    {
        push_code_point(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), out);
        return Ok(12);
    }
    push_code_point(unit, out);
    Ok(6)
}

/// The length of the escape that `raw` begins with; `None` if it is malformed.
pub(crate) fn escape_len(raw: &[u8]) -> Option<usize> {
    match raw.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => hex4(raw, 2).map(|_| 6),
        _ => None,
    }
}

fn hex4(raw: &[u8], at: usize) -> Option<u32> {
    let digits = raw.get(at..at + 4)?;
    let mut unit = 0;
    for digit in digits {
        unit = unit * 16 + char::from(*digit).to_digit(16)?;
    }
    Some(unit)
}

/// Appends a code point in WTF-8 (surrogates take three bytes).
fn push_code_point(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        // Only surrogates are not chars here: `code` is at most 0x10FFFF.
        None => out.extend_from_slice(&[
            0xE0 | (code >> 12) as u8,
            0x80 | (code >> 6 & 0x3F) as u8,
            0x80 | (code & 0x3F) as u8,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(raw: &str) -> Result<Vec<u8>, usize> {
        let mut out = Vec::new();
        unescape(raw.as_bytes(), &mut out).map(|()| out)
    }

    #[test]
    fn short_and_long_strings_are_alike() {
        for len in [0, 1, 21, 22, 23, 100] {
            let text = "x".repeat(len);
            assert_eq!(Text::from(text.as_str()).as_bytes(), text.as_bytes());
            assert!(Text::from(text.as_str()) < Text::from("y"));
        }
        assert_eq!(size_of::<Text>(), 24);
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(
            plain(r#"a\"\\\/\b\f\n\r\t"#),
            Ok(b"a\"\\/\x08\x0C\n\r\t".to_vec())
        );
        assert_eq!(plain(r"\u00e9"), Ok("é".as_bytes().to_vec()));
        assert_eq!(plain(r"\ud83d\ude00!"), Ok("😀!".as_bytes().to_vec()));
        assert_eq!(plain(r"\ud83dx"), Ok(b"\xED\xA0\xBDx".to_vec()));
        assert_eq!(plain(r"ab\d"), Err(2));
        assert_eq!(plain(r"\u12g4"), Err(0));
        assert_eq!(plain("\\"), Err(0));
    }

    #[test]
    fn order_is_that_of_utf16() {
        assert_eq!(
            utf16_cmp("😀".as_bytes(), "\u{FF21}".as_bytes()),
            Ordering::Less
        );
        assert_eq!(utf16_cmp(b"a", b"ab"), Ordering::Less);
        assert_eq!(utf16_cmp(b"a.b", b"a-b"), Ordering::Greater);
    }
}
