//! Under which keys the clauses of a field are found.
//!
//! A rule is registered under one of its fields, and that field under one key
//! for every clause. A key either proves its clause (an exact string) or only
//! makes it likely (a part of a wildcard's literals). Clauses without a useful
//! key make the whole field *broad*: it is evaluated whenever its path occurs.

use super::ast::{Clause, Range};
use super::ip::Ip;
use super::wildcard::Wildcard;

/// A space of keys; the path is part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Space {
    /// The whole string.
    #[default]
    Exact,
    /// The first bytes.
    Prefix,
    /// The last bytes.
    Suffix,
    /// The same three, in ASCII lower case.
    ExactFolded,
    PrefixFolded,
    SuffixFolded,
    /// The bits of a double.
    Number,
    /// A number's spelling.
    NumberText,
    /// "t", "f" or "n".
    Word,
    /// The masked address, then the number of bits of the mask.
    Ip4,
    Ip6,
    /// The ends of a wildcard pattern, and up to 8 bytes from its middle.
    WildcardPrefix,
    WildcardSuffix,
    Gram,
}

/// The number of spaces.
pub(super) const SPACES: usize = Space::Gram as usize + 1;

/// How a clause is found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Access {
    Key(Space, Vec<u8>),
    Range(Range),
    /// A choice of grams: whichever is rarest.
    Wildcard,
    /// No key: evaluated whenever the path occurs.
    Broad,
    /// Satisfied by absence: cannot be found by a value at all.
    Absence,
}

impl Access {
    pub fn of(clause: &Clause) -> Access {
        if let Some(value) = point(clause) {
            return Access::Key(Space::Number, number_key(value).to_vec());
        }
        if let Some(word) = word(clause) {
            return Access::Key(Space::Word, word.to_vec());
        }
        match clause {
            Clause::Number(literal) => {
                Access::Key(Space::NumberText, literal.text.as_bytes().to_vec())
            }
            Clause::Text(text) => Access::Key(Space::Exact, text.as_bytes().to_vec()),
            Clause::Ip(ip, _) => IpKey::new(*ip, None).into_access(),
            Clause::Cidr(cidr) => IpKey::new(cidr.base, Some(cidr.mask)).into_access(),
            Clause::Prefix(text) => affix(Space::Prefix, Some(text.as_bytes())),
            Clause::Suffix(text) => affix(Space::Suffix, Some(text.as_bytes())),
            Clause::IgnoreCase(folded) => match folded.ascii() {
                Some(text) => Access::Key(Space::ExactFolded, text.to_ascii_lowercase()),
                None => Access::Broad,
            },
            Clause::PrefixIgnoreCase(folded) => affix(Space::PrefixFolded, folded.ascii()),
            Clause::SuffixIgnoreCase(folded) => affix(Space::SuffixFolded, folded.ascii()),
            Clause::Wildcard(wildcard) => match wildcard.as_key() {
                Some((Space::Prefix, [])) => Access::Broad,
                Some((space, key)) => Access::Key(space, key.to_vec()),
                None => Access::Wildcard,
            },
            Clause::Range(range) => Access::Range(*range),
            Clause::Exists(false) => Access::Absence,
            Clause::Exists(true) | Clause::AnythingBut(_) | Clause::Null | Clause::Bool(_) => {
                Access::Broad
            }
        }
    }
}

fn affix(space: Space, text: Option<&[u8]>) -> Access {
    let folded = matches!(space, Space::PrefixFolded | Space::SuffixFolded);
    match text {
        None | Some([]) => Access::Broad,
        Some(text) if folded => Access::Key(space, text.to_ascii_lowercase()),
        Some(text) => Access::Key(space, text.to_vec()),
    }
}

/// The key of an address under a mask (its own, if none is given): the bytes
/// of the address, then the number of bits of the mask.
#[derive(Debug, Clone, Copy)]
pub(super) struct IpKey {
    pub space: Space,
    bytes: [u8; 17],
    len: usize,
}

impl IpKey {
    pub fn new(ip: Ip, mask: Option<u8>) -> Self {
        let mut bytes = [0; 17];
        let (space, len, mask) = match ip {
            Ip::V4(bits) => {
                bytes[..4].copy_from_slice(&bits.to_be_bytes());
                (Space::Ip4, 4, mask.unwrap_or(32))
            }
            Ip::V6(bits) => {
                bytes[..16].copy_from_slice(&bits.to_be_bytes());
                (Space::Ip6, 16, mask.unwrap_or(128))
            }
        };
        bytes[len] = mask;
        IpKey {
            space,
            bytes,
            len: len + 1,
        }
    }

    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn is(&self, space: Space, key: &[u8]) -> bool {
        self.space == space && self.key() == key
    }

    fn into_access(self) -> Access {
        Access::Key(self.space, self.key().to_vec())
    }
}

/// Whether the keys of a space can be read off their clauses, so that they
/// need not be kept beside them. A wildcard has a choice of keys.
pub(super) fn is_in_clause(space: Space) -> bool {
    !matches!(
        space,
        Space::WildcardPrefix | Space::WildcardSuffix | Space::Gram
    )
}

/// Whether a clause is found by this key; for spaces of which
/// [`is_in_clause`] is true.
#[inline]
pub(super) fn is_found_by(clause: &Clause, space: Space, key: &[u8]) -> bool {
    match (space, clause) {
        (Space::Exact, Clause::Text(text))
        | (Space::Prefix, Clause::Prefix(text))
        | (Space::Suffix, Clause::Suffix(text)) => text.as_bytes() == key,
        (Space::Exact | Space::Prefix | Space::Suffix, Clause::Wildcard(wildcard)) => {
            wildcard.as_key() == Some((space, key))
        }
        (Space::ExactFolded, Clause::IgnoreCase(folded))
        | (Space::PrefixFolded, Clause::PrefixIgnoreCase(folded))
        | (Space::SuffixFolded, Clause::SuffixIgnoreCase(folded)) => {
            // The key is in lower case.
            let text = folded.ascii();
            text.is_some_and(|text| text.eq_ignore_ascii_case(key))
        }
        (Space::Number, clause) => point(clause).is_some_and(|value| key == number_key(value)),
        (Space::NumberText, Clause::Number(literal)) => {
            literal.value.is_none() && literal.text.as_bytes() == key
        }
        (Space::Word, clause) => word(clause).is_some_and(|word| key == word),
        (Space::Ip4 | Space::Ip6, Clause::Ip(ip, _)) => IpKey::new(*ip, None).is(space, key),
        (Space::Ip4 | Space::Ip6, Clause::Cidr(cidr)) => {
            IpKey::new(cidr.base, Some(cidr.mask)).is(space, key)
        }
        _ => false,
    }
}

/// The number that a clause asks for.
fn point(clause: &Clause) -> Option<f64> {
    match clause {
        Clause::Number(literal) => literal.value,
        Clause::Range(Range {
            lower: Some((low, true)),
            upper: Some((high, true)),
        }) if low == high => Some(*low),
        _ => None,
    }
}

pub(super) fn number_key(value: f64) -> [u8; 8] {
    value.to_bits().to_le_bytes()
}

fn word(clause: &Clause) -> Option<&'static [u8]> {
    match clause {
        Clause::Null => Some(b"n"),
        Clause::Bool(true) => Some(b"t"),
        Clause::Bool(false) => Some(b"f"),
        _ => None,
    }
}

/// The lengths that grams can have.
pub(super) const GRAM_LENGTHS: [usize; 6] = [8, 6, 4, 3, 2, 1];

/// At most this many grams of a pattern are considered.
const MAX_GRAMS: usize = 32;

/// The keys that a wildcard pattern could be registered under, the cheapest to
/// look up first.
pub(super) fn wildcard_keys(wildcard: &Wildcard) -> Vec<(Space, &[u8])> {
    let pieces = wildcard.pieces();
    let mut keys = Vec::new();
    if let [first, .., last] = pieces[..] {
        if !first.is_empty() {
            keys.push((Space::WildcardPrefix, first));
        }
        if !last.is_empty() {
            keys.push((Space::WildcardSuffix, last));
        }
    }
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let len = GRAM_LENGTHS
            .into_iter()
            .find(|len| *len <= piece.len())
            .unwrap_or(1);
        let room = MAX_GRAMS.saturating_sub(keys.len());
        keys.extend(
            piece
                .windows(len)
                .take(room)
                .map(|gram| (Space::Gram, gram)),
        );
    }
    keys
}

/// How many values a clause lets through, very roughly: the lower, the better
/// to register a rule under it. `None` if no value can lead to it.
pub(super) fn breadth(clause: &Clause) -> Option<u64> {
    match Access::of(clause) {
        Access::Key(Space::Exact | Space::ExactFolded | Space::Number | Space::NumberText, _) => {
            Some(1)
        }
        Access::Key(Space::Word, _) => Some(64),
        Access::Key(Space::Ip4 | Space::Ip6, _) => Some(2),
        Access::Key(_, key) if key.len() >= 4 => Some(2),
        Access::Key(_, _) => Some(8),
        Access::Wildcard => Some(4),
        Access::Range(Range {
            lower: Some(_),
            upper: Some(_),
        }) => Some(32),
        Access::Range(_) => Some(128),
        Access::Broad => Some(256),
        Access::Absence => None,
    }
}
