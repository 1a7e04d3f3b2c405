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
        match clause {
            Clause::Null => Access::Key(Space::Word, b"n".to_vec()),
            Clause::Bool(true) => Access::Key(Space::Word, b"t".to_vec()),
            Clause::Bool(false) => Access::Key(Space::Word, b"f".to_vec()),
            Clause::Number(literal) => match literal.value {
                Some(value) => number_key(value),
                None => Access::Key(Space::NumberText, literal.text.as_bytes().to_vec()),
            },
            Clause::Text(text) => Access::Key(Space::Exact, text.as_bytes().to_vec()),
            Clause::Ip(ip, _) => ip_key(*ip, None),
            Clause::Cidr(cidr) => ip_key(cidr.base, Some(cidr.mask)),
            Clause::Prefix(text) => affix(Space::Prefix, Some(text.as_bytes())),
            Clause::Suffix(text) => affix(Space::Suffix, Some(text.as_bytes())),
            Clause::IgnoreCase(folded) => match folded.ascii() {
                Some(text) => Access::Key(Space::ExactFolded, text.to_ascii_lowercase()),
                None => Access::Broad,
            },
            Clause::PrefixIgnoreCase(folded) => affix(Space::PrefixFolded, folded.ascii()),
            Clause::SuffixIgnoreCase(folded) => affix(Space::SuffixFolded, folded.ascii()),
            Clause::Wildcard(wildcard) => wildcard_access(wildcard),
            Clause::Range(Range {
                lower: Some((low, true)),
                upper: Some((high, true)),
            }) if low == high => number_key(*low),
            Clause::Range(range) => Access::Range(*range),
            Clause::Exists(true) | Clause::AnythingBut(_) => Access::Broad,
            Clause::Exists(false) => Access::Absence,
        }
    }
}

fn number_key(value: f64) -> Access {
    Access::Key(Space::Number, value.to_bits().to_le_bytes().to_vec())
}

fn affix(space: Space, text: Option<&[u8]>) -> Access {
    let folded = matches!(space, Space::PrefixFolded | Space::SuffixFolded);
    match text {
        None | Some([]) => Access::Broad,
        Some(text) if folded => Access::Key(space, text.to_ascii_lowercase()),
        Some(text) => Access::Key(space, text.to_vec()),
    }
}

fn wildcard_access(wildcard: &Wildcard) -> Access {
    match wildcard.pieces()[..] {
        [whole] => Access::Key(Space::Exact, whole.to_vec()),
        [first, last] if first.is_empty() && last.is_empty() => Access::Broad,
        [first, last] if last.is_empty() => Access::Key(Space::Prefix, first.to_vec()),
        [first, last] if first.is_empty() => Access::Key(Space::Suffix, last.to_vec()),
        _ => Access::Wildcard,
    }
}

/// The key of an address under a mask (its own, if none is given).
pub(super) fn ip_key(ip: Ip, mask: Option<u8>) -> Access {
    match ip {
        Ip::V4(bits) => {
            let mut key = bits.to_be_bytes().to_vec();
            key.push(mask.unwrap_or(32));
            Access::Key(Space::Ip4, key)
        }
        Ip::V6(bits) => {
            let mut key = bits.to_be_bytes().to_vec();
            key.push(mask.unwrap_or(128));
            Access::Key(Space::Ip6, key)
        }
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
