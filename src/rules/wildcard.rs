//! `wildcard` patterns: `*` stands for any run of characters, `\*` and `\\`
//! for the characters themselves.

use super::keys::Space;
use super::small::Ids;
use super::text::Text;

/// A parsed wildcard pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wildcard {
    /// The literals between the stars, one behind the other, escapes resolved.
    literals: Text,
    /// Where the literals end, but for the last; one for every star. Only the
    /// first and the last literal may be empty.
    ends: Ids,
}

impl Wildcard {
    /// Reads a pattern. The error is EventBridge's reason; its position counts
    /// bytes and the opening quote.
    pub(crate) fn parse(text: Text) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let (mut literals, mut ends) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < bytes.len() {
            match (bytes[at], bytes.get(at + 1)) {
                (b'*', Some(b'*')) => {
                    return Err(format!("Consecutive wildcard characters at pos {}", at + 1));
                }
                (b'*', _) => ends.push(literals.len() as u32),
                (b'\\', Some(escaped @ (b'*' | b'\\'))) => {
                    literals.push(*escaped);
                    at += 1;
                }
                (b'\\', _) => return Err(format!("Invalid escape character at pos {}", at + 1)),
                (byte, _) => literals.push(byte),
            }
            at += 1;
        }
        Ok(Wildcard {
            literals: Text::from_bytes(&literals),
            ends: Ids::from(&ends[..]),
        })
    }

    /// The pattern as it was written: there is one way to write it.
    pub fn text(&self) -> Text {
        let mut text = Vec::new();
        for (i, piece) in self.pieces().into_iter().enumerate() {
            if i > 0 {
                text.push(b'*');
            }
            for byte in piece {
                if matches!(byte, b'*' | b'\\') {
                    text.push(b'\\');
                }
                text.push(*byte);
            }
        }
        Text::from_bytes(&text)
    }

    /// The literals between the stars, escapes resolved; a pattern without a
    /// star has one.
    pub(crate) fn pieces(&self) -> Vec<&[u8]> {
        let literals = self.literals.as_bytes();
        let ends = self.ends.as_slice().iter().map(|end| *end as usize);
        let starts = [0].into_iter().chain(ends.clone());
        let pieces = starts.zip(ends.chain([literals.len()]));
        pieces.map(|(start, end)| &literals[start..end]).collect()
    }

    /// The key that finds the pattern, if it is no more than a string, or one
    /// with a star at an end.
    pub(super) fn as_key(&self) -> Option<(Space, &[u8])> {
        let literals = self.literals.as_bytes();
        let space = match self.ends.as_slice() {
            [] => Space::Exact,
            [end] if *end as usize == literals.len() => Space::Prefix,
            [0] => Space::Suffix,
            _ => return None,
        };
        Some((space, literals))
    }

    /// Whether the pattern matches the whole of `value`: the ends are fixed,
    /// and every piece between is taken at its first occurrence, which is
    /// always safe. Linear in the length of the value.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        let literals = self.literals.as_bytes();
        let [first, others @ ..] = self.ends.as_slice() else {
            return value == literals;
        };
        let last = others.last().unwrap_or(first);
        let Some(rest) = value.strip_prefix(&literals[..*first as usize]) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(&literals[*last as usize..]) else {
            return false;
        };
        let mut start = *first as usize;
        for end in others {
            let piece = &literals[start..*end as usize];
            start = *end as usize;
            match find(rest, piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        true
    }
}

/// The first occurrence of `needle`. Short haystacks do not pay for the setup
/// that makes long ones linear.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if haystack.len() > 128 {
        return memchr::memmem::find(haystack, needle);
    }
    let (first, tail) = needle.split_first()?;
    let last = haystack.len().checked_sub(needle.len())?;
    let mut from = 0;
    while let Some(at) = memchr::memchr(*first, &haystack[from..=last]) {
        from += at + 1;
        if haystack[from..].starts_with(tail) {
            return Some(from - 1);
        }
        if from > last {
            break;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Wildcard::parse(Text::from(pattern))
            .unwrap()
            .matches(value.as_bytes())
    }

    #[test]
    fn stars_and_escapes() {
        assert!(matches("", "") && !matches("", "a"));
        assert!(matches("*", "") && matches("*", "abc"));
        assert!(matches("a*b", "ab") && matches("a*b", "axxb") && !matches("a*b", "abx"));
        assert!(!matches("ab*ba", "aba") && matches("ab*ba", "abba"));
        assert!(matches("*a*a*", "xaxax") && !matches("*a*a*", "xax"));
        assert!(matches(r"\*\\*", r"*\x") && !matches(r"\*", "x"));
        for pattern in ["", "*", r"a*\*\\*b", "*é*"] {
            let wildcard = Wildcard::parse(Text::from(pattern)).unwrap();
            assert_eq!(wildcard.text(), Text::from(pattern));
        }
        assert!(
            matches("raw/*/7/*.csv", "raw/a/7/b.csv") && !matches("raw/*/7/*.csv", "raw/a/7.csv")
        );
    }

    #[test]
    fn long_values() {
        let value = format!("{}needle{}", "n".repeat(400), "e".repeat(400));
        assert!(matches("*needle*", &value) && !matches("*needles*", &value));
    }

    #[test]
    fn bad_patterns() {
        let error = |pattern: &str| Wildcard::parse(Text::from(pattern)).unwrap_err();
        assert_eq!(
            error("abc**def"),
            "Consecutive wildcard characters at pos 4"
        );
        assert_eq!(error(r"a\b"), "Invalid escape character at pos 2");
        assert_eq!(error("a\\"), "Invalid escape character at pos 2");
    }
}
