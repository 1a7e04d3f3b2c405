//! `equals-ignore-case`: not case folding, but a set of spellings for every
//! character of the *pattern*.
//!
//! A pattern character matches itself, its lower-case and its upper-case
//! spelling (root locale, full mappings): "straße" matches "STRASSE", "ı"
//! matches "I", but "k" does not match the Kelvin sign, since neither spelling
//! of "k" is one. Characters outside the basic plane are treated like all
//! others.

use super::text::Text;

/// A string to be matched regardless of case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Folded {
    /// The pattern as it was written.
    text: Text,
    /// Set if some character has a spelling outside ASCII; then one set of
    /// spellings a character. Otherwise an ASCII comparison is exact.
    spellings: Option<Box<[Spellings]>>,
}

/// The distinct spellings of one character: none is a prefix or a suffix of
/// another (a test checks it for all of Unicode), so matching needs no way
/// back.
type Spellings = Box<[Box<[u8]>]>;

impl Folded {
    pub(crate) fn new(text: Text) -> Self {
        let sets: Vec<Vec<Box<[u8]>>> = characters(text.as_bytes()).map(spellings).collect();
        let ascii = sets.iter().flatten().all(|spelling| spelling.is_ascii());
        // An ASCII letter has its two cases; "ı" is one that has only "I".
        let plain = ascii && text.as_bytes().is_ascii();
        let spellings = (!plain).then(|| {
            sets.into_iter()
                .map(Vec::into_boxed_slice)
                .collect::<Box<[_]>>()
        });
        Folded { text, spellings }
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// The pattern, if comparing it with ASCII case ignored is exact.
    pub(crate) fn ascii(&self) -> Option<&[u8]> {
        self.spellings.is_none().then(|| self.text.as_bytes())
    }

    pub(crate) fn equals(&self, value: &[u8]) -> bool {
        match &self.spellings {
            None => value.eq_ignore_ascii_case(self.text.as_bytes()),
            Some(sets) => match_prefix(sets, value).is_some_and(<[u8]>::is_empty),
        }
    }

    pub(crate) fn is_prefix_of(&self, value: &[u8]) -> bool {
        match &self.spellings {
            None => value
                .get(..self.text.as_bytes().len())
                .is_some_and(|head| head.eq_ignore_ascii_case(self.text.as_bytes())),
            Some(sets) => match_prefix(sets, value).is_some(),
        }
    }

    pub(crate) fn is_suffix_of(&self, value: &[u8]) -> bool {
        let len = self.text.as_bytes().len();
        match &self.spellings {
            None => value
                .len()
                .checked_sub(len)
                .is_some_and(|start| value[start..].eq_ignore_ascii_case(self.text.as_bytes())),
            Some(sets) => match_suffix(sets, value),
        }
    }
}

/// The rest of `value` after one spelling of every character.
fn match_prefix<'v>(sets: &[Spellings], value: &'v [u8]) -> Option<&'v [u8]> {
    sets.iter().try_fold(value, |rest, set| {
        set.iter()
            .find_map(|spelling| rest.strip_prefix(&spelling[..]))
    })
}

fn match_suffix(sets: &[Spellings], value: &[u8]) -> bool {
    sets.iter()
        .rev()
        .try_fold(value, |rest, set| {
            set.iter()
                .find_map(|spelling| rest.strip_suffix(&spelling[..]))
        })
        .is_some()
}

/// The characters of a WTF-8 string, lone surrogates as their three bytes.
fn characters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let len = match *rest.first()? {
            0..0x80 => 1,
            0x80..0xE0 => 2,
            0xE0..0xF0 => 3,
            0xF0.. => 4,
        };
        let (character, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        Some(character)
    })
}

fn spellings(character: &[u8]) -> Vec<Box<[u8]>> {
    let mut all: Vec<Box<[u8]>> = vec![Box::from(character)];
    let c = std::str::from_utf8(character)
        .ok()
        .and_then(|text| text.chars().next());
    if let Some(c) = c {
        for other in [c.to_lowercase().to_string(), c.to_uppercase().to_string()] {
            if all.iter().all(|known| &known[..] != other.as_bytes()) {
                all.push(Box::from(other.as_bytes()));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(pattern: &str, value: &str) -> bool {
        Folded::new(Text::from(pattern)).equals(value.as_bytes())
    }

    #[test]
    fn spellings_of_the_pattern_count() {
        assert!(equal("straße", "STRASSE"));
        assert!(!equal("strasse", "straße"));
        assert!(equal("ı", "I") && !equal("I", "ı"));
        assert!(!equal("k", "\u{212A}") && equal("\u{212A}", "k"));
        assert!(equal("İstanbul", "i\u{307}STANBUL"));
        assert!(equal("😀", "😀") && !equal("😀", "??"));
        assert!(equal("𐐀", "𐐨") && equal("ǅ", "ǅ"));
    }

    #[test]
    fn ends_are_found() {
        let ends = Folded::new(Text::from("ße"));
        assert!(ends.is_suffix_of(b"STRASSE") && !ends.is_suffix_of(b"e"));
        assert!(Folded::new(Text::from("é")).is_prefix_of("Éclair".as_bytes()));
        assert!(Folded::new(Text::from("Ab")).is_prefix_of(b"aBc"));
    }

    #[test]
    fn no_spelling_begins_or_ends_another() {
        for c in '\0'..=char::MAX {
            let all = spellings(c.to_string().as_bytes());
            for (i, one) in all.iter().enumerate() {
                for (j, other) in all.iter().enumerate() {
                    assert!(
                        i == j || !(one.starts_with(other) || one.ends_with(other)),
                        "{c}"
                    );
                }
            }
        }
    }
}
