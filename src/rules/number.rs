//! Numbers, compared as EventBridge compares them.
//!
//! A number takes part in comparisons only if its decimal text says exactly
//! what the shortest decimal of its double says: 300, 300.0 and 3e2 are the
//! same number, but 37.807807921694092 (one digit too many) and 1e400 (no
//! double) are "incomparable". An incomparable number in a pattern's operator
//! is refused; in an event it fails every range and satisfies `anything-but`.

use std::fmt::Write;

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

/// The value of a JSON number's text if it is comparable (see the module).
///
/// `-0` gives `0.0`, so that equal numbers have equal bits.
pub(crate) fn comparable(text: &[u8]) -> Option<f64> {
    let decimal = take_apart(text)?;
    if decimal.count == 0 {
        return Some(0.0);
    }
    if decimal.count > 17 {
        return None;
    }
    let value = parse(text, &decimal)?;
    (value != 0.0 && value.is_finite() && is_shortest(value, &decimal)).then_some(value)
}

/// The nearest double of a JSON number's text, comparable or not; infinite if
/// it is too large. `None` if the text is not a JSON number.
pub(crate) fn nearest(text: &[u8]) -> Option<f64> {
    let decimal = take_apart(text)?;
    if decimal.count == 0 {
        return Some(0.0);
    }
    parse(text, &decimal)
}

/// Whether a text whose nearest double is `value` is comparable.
pub(crate) fn confirms(text: &[u8], value: f64) -> bool {
    take_apart(text).is_some_and(|decimal| {
        decimal.count == 0
            || (decimal.count <= 17
                && value != 0.0
                && value.is_finite()
                && is_shortest(value, &decimal))
    })
}

fn parse(text: &[u8], decimal: &Decimal) -> Option<f64> {
    // Small integers and short fractions: one exact operation on doubles.
    if decimal.count <= 15 && (-22..=22).contains(&decimal.exponent) {
        let digits = decimal.digits as f64;
        let scale = POWERS_OF_TEN[decimal.exponent.unsigned_abs() as usize];
        let value = if decimal.exponent < 0 { digits / scale } else { digits * scale };
        return Some(if decimal.negative { -value } else { value });
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Splits a number into digits and exponent; `None` if it is not a JSON number.
fn take_apart(text: &[u8]) -> Option<Decimal> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut decimal = Decimal { negative, digits: 0, count: 0, exponent: 0 };
    let mut zeros = 0_usize;
    let mut fraction = false;
    let mut at = 0;
    while let Some(byte) = unsigned.get(at) {
        match byte {
            b'0'..=b'9' => {
                decimal.exponent -= i64::from(fraction);
                if *byte == b'0' && decimal.count == 0 {
                    // A leading zero says nothing.
                } else if *byte == b'0' {
                    zeros += 1;
                } else {
                    push_digit(&mut decimal, zeros, byte - b'0');
                    zeros = 0;
                }
            }
            b'.' if !fraction => fraction = true,
            b'e' | b'E' => break,
            _ => return None,
        }
        at += 1;
    }
    if at == 0 {
        return None;
    }
    // Zeros at the end, before or after the point, go into the exponent.
    decimal.exponent += zeros as i64;
    if at < unsigned.len() {
        decimal.exponent = decimal.exponent.saturating_add(exponent(&unsigned[at + 1..])?);
    }
    Some(decimal)
}

fn push_digit(decimal: &mut Decimal, zeros: usize, digit: u8) {
    decimal.count += zeros + 1;
    if decimal.count <= 19 {
        decimal.digits = decimal.digits * 10_u64.pow(zeros as u32 + 1) + u64::from(digit);
    }
}

/// The exponent after `e`, clamped to a range far outside that of doubles.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_i64, |sum, digit| {
        (sum * 10 + i64::from(digit - b'0')).min(1_000_000_000_000)
    });
    Some(if negative { -value } else { value })
}

/// Whether `decimal` is the shortest decimal that reads back as `value`.
fn is_shortest(value: f64, decimal: &Decimal) -> bool {
    // Any decimal of 15 digits survives the way to a (normal) double and back.
    if decimal.count <= 15 && value.abs() >= f64::MIN_POSITIVE {
        return true;
    }
    let mut shortest = Shortest::default();
    // Writing to a `Shortest` can't fail: it drops what does not fit.
    let _ = write!(shortest, "{:e}", value.abs());
    let Some(other) = take_apart(shortest.text()) else {
        return false;
    };
    other.digits == decimal.digits && other.exponent == decimal.exponent
}

/// A buffer on the stack for the scientific notation of a double, which takes
/// at most 17 digits, a point and an exponent of 5.
#[derive(Default)]
struct Shortest {
    buffer: [u8; 32],
    len: usize,
}

impl Shortest {
    fn text(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Write for Shortest {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let end = (self.len + part.len()).min(self.buffer.len());
        let fits = end - self.len;
        self.buffer[self.len..end].copy_from_slice(&part.as_bytes()[..fits]);
        self.len = end;
        Ok(())
    }
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
        for text in ["37.80780792169409", "1e22", "9007199254740992", "1.7976931348623157e308"] {
            assert_eq!(comparable(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for text in [
            "37.807807921694092", "1e400", "1e-400", "9007199254740993", "123456789012345678",
            "9223372036854775807", "18446744073709551616", "3.141592653589793238", "-1e309",
        ] {
            assert_eq!(comparable(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn nearest_agrees_with_the_standard_library() {
        for text in ["0.1", "-122.42916360922355", "1e-7", "5000000001", "1e23", "4.9e-324"] {
            assert_eq!(nearest(text.as_bytes()), text.parse().ok(), "{text}");
        }
        assert_eq!(nearest(b"1x"), None);
        assert_eq!(nearest(b""), None);
    }
}
