//! Numbers, compared as EventBridge compares them.
//!
//! A number takes part in comparisons only if its decimal text says exactly
//! what the shortest decimal of its double says: 300, 300.0 and 3e2 are the
//! same number, but 37.807807921694092 (one digit too many) and 1e400 (no
//! double) are "incomparable". An incomparable number in a pattern's operator
//! is refused; in an event it fails every range and satisfies `anything-but`.

use super::ast::Range;

/// A number's text, read as far as it was needed.
#[derive(Debug, Clone)]
pub(super) struct Number<'t> {
    text: &'t [u8],
    decimal: Decimal,
    /// The value lies between these; they are the value once it is known.
    low: f64,
    high: f64,
    exact: bool,
    comparable: Option<bool>,
}

/// A decimal number taken apart: `digits * 10^exponent`, sign aside.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    negative: bool,
    /// The significant digits as an integer, valid if `count <= 19`.
    digits: u64,
    /// How many significant digits there are, without leading or trailing
    /// zeros; 0 for zero.
    count: usize,
    exponent: i64,
}

impl<'t> Number<'t> {
    /// Reads a JSON number; `None` if the text is not one.
    #[inline]
    pub fn read(text: &'t [u8]) -> Option<Self> {
        let decimal = take_apart(text)?;
        let (low, high, exact) = estimate(&decimal);
        Some(Number {
            text,
            decimal,
            low,
            high,
            exact,
            comparable: None,
        })
    }

    /// Bounds of the value, close to it; both are the value if it is known.
    #[inline]
    pub fn bounds(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// The nearest double; infinite if the number is too large for one. Zero
    /// is never negative.
    pub fn value(&mut self) -> f64 {
        if !self.exact {
            let text = std::str::from_utf8(self.text).unwrap_or_default();
            // The text is a number, so it parses.
            self.low = text.parse().unwrap_or(f64::NAN);
            self.high = self.low;
            self.exact = true;
        }
        self.low
    }

    /// Whether the number can be compared at all (see the module).
    pub fn is_comparable(&mut self) -> bool {
        if let Some(known) = self.comparable {
            return known;
        }
        let decimal = self.decimal;
        let comparable = decimal.count == 0
            || (decimal.count <= 17 && {
                let value = self.value();
                value != 0.0 && value.is_finite() && is_shortest(value, self.text, &decimal)
            });
        self.comparable = Some(comparable);
        comparable
    }

    /// Whether the value lies within a range, comparable or not.
    #[inline]
    pub fn is_within(&mut self, range: &Range) -> bool {
        // Mostly the estimate decides.
        let unsure = |bound: Option<(f64, bool)>| {
            bound.is_some_and(|(bound, _)| self.low <= bound && bound <= self.high)
        };
        if !self.exact && (unsure(range.lower) || unsure(range.upper)) {
            self.value();
        }
        range.contains(self.low)
    }
}

/// The value of a JSON number's text if it is comparable (see the module).
///
/// `-0` gives `0.0`, so that equal numbers have equal bits.
pub(super) fn comparable(text: &[u8]) -> Option<f64> {
    let mut number = Number::read(text)?;
    number.is_comparable().then(|| number.value())
}

/// The most digits, and the largest power of ten, that a double holds exactly.
const EXACT_DIGITS: u64 = 1 << 53;
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Bounds of the value, and whether they are the value itself.
#[inline]
fn estimate(decimal: &Decimal) -> (f64, f64, bool) {
    if decimal.count == 0 {
        return (0.0, 0.0, true);
    }
    let scale = POWERS_OF_TEN.get(decimal.exponent.unsigned_abs().min(99) as usize);
    let Some(scale) = scale.filter(|_| decimal.count <= 19) else {
        return (f64::NEG_INFINITY, f64::INFINITY, false);
    };
    let digits = decimal.digits as f64;
    let value = if decimal.exponent < 0 {
        digits / scale
    } else {
        digits * scale
    };
    let value = if decimal.negative { -value } else { value };
    if decimal.digits <= EXACT_DIGITS {
        // One rounding, of exact operands: this is the nearest double.
        return (value, value, true);
    }
    // Two roundings, each off by half a unit in the last place at most.
    let error = value.abs() * (4.0 * f64::EPSILON);
    (value - error, value + error, false)
}

/// Splits a number into digits and exponent; `None` if it is not a JSON number.
fn take_apart(text: &[u8]) -> Option<Decimal> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let whole = digits(unsigned);
    let fraction = match unsigned.get(whole) {
        Some(b'.') => digits(&unsigned[whole + 1..]),
        _ => 0,
    };
    let end = whole + if fraction > 0 { fraction + 1 } else { 0 };
    let mut power = match unsigned.get(end) {
        None => 0,
        Some(b'e' | b'E') => exponent(&unsigned[end + 1..])?,
        Some(_) => return None,
    };
    if whole == 0 {
        return None;
    }
    power = power.saturating_sub(fraction as i64);
    let all = unsigned[..end]
        .iter()
        .filter(|byte| **byte != b'.')
        .map(|byte| byte - b'0');
    let mut decimal = Decimal {
        negative,
        digits: 0,
        count: 0,
        exponent: power,
    };
    if whole + fraction <= 19 {
        decimal.digits = all.fold(0, |sum, digit| sum * 10 + u64::from(digit));
        // Zeros at the end go into the exponent.
        while decimal.digits != 0 && decimal.digits.is_multiple_of(10) {
            decimal.digits /= 10;
            decimal.exponent += 1;
        }
        decimal.count = decimal
            .digits
            .checked_ilog10()
            .map_or(0, |log| log as usize + 1);
    } else {
        let mut zeros = 0;
        for digit in all {
            match digit {
                0 => zeros += usize::from(decimal.count > 0),
                _ => push_digit(&mut decimal, std::mem::take(&mut zeros), digit),
            }
        }
        decimal.exponent = decimal.exponent.saturating_add(zeros as i64);
    }
    Some(decimal)
}

fn push_digit(decimal: &mut Decimal, zeros: usize, digit: u8) {
    decimal.count += zeros + 1;
    if decimal.count <= 19 {
        decimal.digits = decimal.digits * 10_u64.pow(zeros as u32 + 1) + u64::from(digit);
    }
}

/// How many digits the text begins with.
#[inline]
fn digits(text: &[u8]) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut count = 0;
    while let Some(bytes) = text[count..].first_chunk::<8>() {
        // The high bit of every byte that is not a digit; no carries.
        let word = u64::from_le_bytes(*bytes) ^ (EACH * 0x30);
        let others = (((word & (EACH * 0x7F)) + EACH * 0x76) | word) & (EACH * 0x80);
        if others != 0 {
            return count + others.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    count
        + text[count..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
}

/// The length of the JSON number that the text begins with; `None` if it does
/// not begin with one.
#[inline]
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(&text[at..]);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(&text[at + 1..]);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(&text[at..]);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

/// The exponent after `e`, clamped to a range far outside that of doubles.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if unsigned.is_empty() || digits(unsigned) < unsigned.len() {
        return None;
    }
    let value = unsigned.iter().fold(0_i64, |sum, digit| {
        (sum * 10 + i64::from(digit - b'0')).min(1_000_000_000_000)
    });
    Some(if negative { -value } else { value })
}

/// Whether a number is the shortest decimal that reads back as `value`; of
/// several the closest, of two as close the even one.
fn is_shortest(value: f64, text: &[u8], decimal: &Decimal) -> bool {
    // Any decimal of 15 digits survives the way to a (normal) double and back.
    if decimal.count <= 15 && value.abs() >= f64::MIN_POSITIVE {
        return true;
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value).as_bytes();
    // Most numbers were written by a program that spells them like this.
    shortest == text
        || take_apart(shortest).is_some_and(|other| {
            other.digits == decimal.digits && other.exponent == decimal.exponent
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_matter() {
        for text in ["300", "300.0", "3e2", "3.0E+2", "0.3e3", "30000e-2"] {
            assert_eq!(comparable(text.as_bytes()), Some(300.0), "{text}");
        }
        assert_eq!(comparable(b"-0.0").map(f64::to_bits), Some(0));
        assert_eq!(comparable(b"0e999999"), Some(0.0));
    }

    #[test]
    fn only_the_shortest_text_compares() {
        for text in [
            "37.80780792169409",
            "977832296098763.2",
            "1e22",
            "9007199254740992",
            "1.7976931348623157e308",
        ] {
            assert_eq!(comparable(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for text in [
            "37.807807921694092",
            "977832296098763.3",
            "1e400",
            "1e-400",
            "9007199254740993",
            "123456789012345678",
            "9223372036854775807",
            "18446744073709551616",
            "3.141592653589793238",
            "-1e309",
        ] {
            assert_eq!(comparable(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn nearest_agrees_with_the_standard_library() {
        for text in [
            "0.1",
            "-122.42916360922355",
            "1e-7",
            "5000000001",
            "1e23",
            "4.9e-324",
        ] {
            let value: f64 = text.parse().unwrap();
            let mut number = Number::read(text.as_bytes()).unwrap();
            let (low, high) = number.bounds();
            assert!(low <= value && value <= high, "{text}");
            assert_eq!(number.value(), value, "{text}");
        }
        for text in ["1x", "", "-", "1.", "1e", ".5"] {
            assert!(Number::read(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn lengths() {
        for (text, len) in [
            ("0,", 1),
            ("-12.5e+3}", 8),
            ("12345678901 ", 11),
            ("1.5", 3),
        ] {
            assert_eq!(length(text.as_bytes()), Some(len), "{text}");
        }
        for text in ["01", "-", "1.", "1e+", "x", ""] {
            assert_eq!(length(text.as_bytes()), None, "{text}");
        }
    }
}
