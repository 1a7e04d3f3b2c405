//! One clause against one value: the meaning of the language, in one place.

use super::ast::{AnythingBut, Clause};
use super::ip::Ip;
use super::number::{self, Number};
use super::scan::Kind;

/// A leaf's value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'v> {
    pub kind: Kind,
    /// A string's characters or a number's text.
    pub bytes: &'v [u8],
}

impl<'v> Value<'v> {
    fn text(&self) -> Option<&'v [u8]> {
        matches!(self.kind, Kind::Plain | Kind::Unescaped).then_some(self.bytes)
    }
}

/// Whether a value satisfies one of a field's clauses. `exists: false` is
/// satisfied by no value, only by there being none.
#[inline]
pub(super) fn accepts(clauses: &[Clause], value: &Value<'_>) -> bool {
    clauses.iter().any(|clause| clause.accepts(value))
        || (value.kind == Kind::Number
            && clauses
                .iter()
                .any(|clause| accepts_number(clauses, clause, value)))
}

/// Whether a value satisfies one clause of a field.
pub(super) fn accepts_one(clauses: &[Clause], clause: &Clause, value: &Value<'_>) -> bool {
    clause.accepts(value) || (value.kind == Kind::Number && accepts_number(clauses, clause, value))
}

/// The block of addresses that a clause asks for.
pub(super) fn block(clause: &Clause) -> Option<(Ip, u8)> {
    match clause {
        Clause::Cidr(cidr) => Some((cidr.base, cidr.mask)),
        Clause::Ip(ip @ Ip::V4(_), _) => Some((*ip, 32)),
        Clause::Ip(ip @ Ip::V6(_), _) => Some((*ip, 128)),
        _ => None,
    }
}

/// Whether a number satisfies a clause for addresses.
///
/// EventBridge's engine takes a block for a range of hex digits, and a
/// number's spelling for such digits: 645 is "in" 100.64.0.0/10, which is the
/// range 64400000 to 647FFFFF. It does so unless the field has numeric clauses
/// too and the number can be compared. (Observed; nobody would ask for it.)
fn accepts_number(clauses: &[Clause], clause: &Clause, value: &Value<'_>) -> bool {
    let Some((base, mask)) = block(clause) else {
        return false;
    };
    let numeric = |clause: &Clause| match clause {
        Clause::Number(literal) => literal.value.is_some(),
        Clause::Range(_) | Clause::AnythingBut(AnythingBut::Numbers(_)) => true,
        _ => false,
    };
    digits_within(value.bytes, base, mask)
        && !(clauses.iter().any(numeric) && number::comparable(value.bytes).is_some())
}

/// Whether the hex digits that `text` begins with lead into the block; what
/// follows once that is clear does not matter.
fn digits_within(text: &[u8], base: Ip, mask: u8) -> bool {
    let (low, width) = match base {
        Ip::V4(bits) => (u128::from(bits), 32_u32),
        Ip::V6(bits) => (bits, 128),
    };
    let free = width - u32::from(mask);
    let high = low | u128::MAX.checked_shr(128 - free).unwrap_or(0);
    let (mut on_low, mut on_high) = (true, true);
    for position in 0..width / 4 {
        let digit = match text.get(position as usize) {
            Some(byte @ b'0'..=b'9') => byte - b'0',
            Some(byte @ b'A'..=b'F') => byte - b'A' + 10,
            _ => return false,
        };
        let shift = width - 4 - 4 * position;
        let (low_digit, high_digit) = ((low >> shift & 15) as u8, (high >> shift & 15) as u8);
        if (on_low && digit < low_digit) || (on_high && digit > high_digit) {
            return false;
        }
        on_low &= digit == low_digit;
        on_high &= digit == high_digit;
        if !on_low && !on_high {
            return true;
        }
    }
    true
}

impl Clause {
    /// Whether a value satisfies the clause by itself; see [`accepts_one`].
    fn accepts(&self, value: &Value<'_>) -> bool {
        match self {
            Clause::Null => value.kind == Kind::Null,
            Clause::Bool(true) => value.kind == Kind::True,
            Clause::Bool(false) => value.kind == Kind::False,
            Clause::Exists(wanted) => *wanted,
            Clause::AnythingBut(but) => !but.excludes(value),
            Clause::Number(literal) => {
                value.kind == Kind::Number
                    && (value.bytes == literal.text.as_bytes()
                        || (literal.value.is_some()
                            && literal.value == number::comparable(value.bytes)))
            }
            Clause::Range(range) => {
                // The costly check comes last.
                value.kind == Kind::Number
                    && Number::read(value.bytes)
                        .is_some_and(|mut number| number.is_within(range) && number.is_comparable())
            }
            _ => value.text().is_some_and(|text| self.accepts_text(text)),
        }
    }

    /// The clauses that only strings can satisfy.
    fn accepts_text(&self, text: &[u8]) -> bool {
        match self {
            Clause::Text(wanted) => text == wanted.as_bytes(),
            Clause::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Clause::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
            Clause::IgnoreCase(folded) => folded.equals(text),
            Clause::PrefixIgnoreCase(folded) => folded.is_prefix_of(text),
            Clause::SuffixIgnoreCase(folded) => folded.is_suffix_of(text),
            Clause::Wildcard(wildcard) => wildcard.matches(text),
            Clause::Ip(wanted, _) => Ip::parse(text) == Some(*wanted),
            Clause::Cidr(cidr) => Ip::parse(text).is_some_and(|ip| cidr.contains(ip)),
            Clause::Null
            | Clause::Bool(_)
            | Clause::Exists(_)
            | Clause::AnythingBut(_)
            | Clause::Number(_)
            | Clause::Range(_) => false,
        }
    }
}

impl AnythingBut {
    /// Whether the value is one of those that are excluded.
    fn excludes(&self, value: &Value<'_>) -> bool {
        if let AnythingBut::Numbers(numbers) = self {
            return value.kind == Kind::Number
                && number::comparable(value.bytes)
                    .is_some_and(|found| numbers.iter().any(|number| number.value == Some(found)));
        }
        let Some(text) = value.text() else {
            return false;
        };
        match self {
            AnythingBut::Numbers(_) => false,
            AnythingBut::Texts(texts) => texts.iter().any(|one| one.as_bytes() == text),
            AnythingBut::Prefix(all) => all.iter().any(|one| text.starts_with(one.as_bytes())),
            AnythingBut::Suffix(all) => all.iter().any(|one| text.ends_with(one.as_bytes())),
            AnythingBut::IgnoreCase(all) => all.iter().any(|one| one.equals(text)),
            AnythingBut::Wildcard(all) => all.iter().any(|one| one.matches(text)),
        }
    }
}
