//! Values on their way from text to columns: parsed strictly, never rounded.

use super::schema::{Column, Kind};
use chrono::{DateTime, NaiveDate};
use serde_json::{Value, json};
use std::borrow::Cow;

/// A parsed value, not yet in its column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// An integer; also a day (since 1970) and a time (microseconds since 1970).
    Int(i64),
    /// A double.
    Float(f64),
    /// A decimal, times ten to its scale.
    Decimal(i128),
    /// True or false.
    Bool(bool),
    /// Text, or the text of a JSON value.
    Text(Cow<'a, str>),
}

/// Days from 0001-01-01 to 1970-01-01.
const EPOCH_DAY: i32 = 719_163;

impl Cell<'_> {
    /// Whether the record has no such member, as far as its schema is concerned.
    #[must_use]
    pub fn is_absent(&self, column: &Column) -> bool {
        matches!(self, Self::Null) && !column.null_allowed
    }

    /// The value as JSON, for the general validator.
    #[must_use]
    pub fn to_json(&self, kind: Kind) -> Value {
        match (self, kind) {
            (Self::Null, _) => Value::Null,
            (Self::Int(days), Kind::Date) => json!(day_text(*days)),
            (Self::Int(us), Kind::Timestamp) => json!(time_text(*us)),
            (Self::Int(n), _) => json!(n),
            (Self::Float(x), _) => json!(x),
            (Self::Decimal(n), Kind::Decimal { scale, .. }) => {
                serde_json::from_str(&decimal_text(*n, scale)).unwrap_or(Value::Null)
            }
            (Self::Decimal(n), _) => json!(n.to_string()),
            (Self::Bool(b), _) => json!(b),
            (Self::Text(text), Kind::Json) => {
                serde_json::from_str(text).unwrap_or_else(|_| json!(text))
            }
            (Self::Text(text), _) => json!(text),
        }
    }
}

/// A day as text.
#[must_use]
pub fn day_text(days: i64) -> String {
    i32::try_from(days)
        .ok()
        .and_then(|d| NaiveDate::from_num_days_from_ce_opt(d.checked_add(EPOCH_DAY)?))
        .map_or_else(|| days.to_string(), |d| d.to_string())
}

fn time_text(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).map_or_else(|| micros.to_string(), |t| t.to_rfc3339())
}

/// A scaled decimal as text.
#[must_use]
pub fn decimal_text(value: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    match fraction {
        "" => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

/// An integer. A fraction of zeros is allowed (`517.0`), as JSON Schema has it.
#[must_use]
#[inline]
pub fn int(text: &str) -> Option<i64> {
    if let Some(n) = digits(text.as_bytes()) {
        return Some(n);
    }
    let (whole, fraction) = text.split_once('.')?;
    let zeros = !fraction.is_empty() && fraction.bytes().all(|b| b == b'0');
    zeros.then(|| digits(whole.as_bytes())).flatten()
}

#[inline]
fn digits(text: &[u8]) -> Option<i64> {
    let (negative, body) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    if body.is_empty() || body.len() > 19 {
        // 19 digits hold every i64; longer ones only with leading zeros.
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut sum: u64 = 0;
    for b in body {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum * 10 + u64::from(digit);
    }
    match negative {
        true => 0_i64.checked_sub_unsigned(sum),
        false => i64::try_from(sum).ok(),
    }
}

/// A finite double in decimal notation; no `nan`, no `inf`.
#[must_use]
#[inline]
pub fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    match body.as_bytes() {
        [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => {}
        _ => return None,
    }
    text.parse().ok().filter(|x: &f64| x.is_finite())
}

/// Powers of ten.
const POWERS: [i128; 39] = {
    let mut powers = [1; 39];
    let mut i = 1;
    while i < 39 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Why a text is no decimal of the declared precision and scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDecimal {
    /// It is not a number.
    NotANumber,
    /// It has digits beyond the scale, and rounding would change it.
    TooPrecise,
    /// It has too many digits before the point.
    TooLarge,
}

/// A decimal, exactly, times ten to `scale`.
///
/// # Errors
/// When the text is no number, or not one that fits exactly.
#[inline]
pub fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, NotDecimal> {
    let (mantissa, exponent) = match memchr::memchr2(b'e', b'E', text.as_bytes()) {
        None => (text, 0),
        Some(at) => {
            let exponent = text[at + 1..].parse::<i32>();
            (&text[..at], exponent.map_err(|_| NotDecimal::NotANumber)?)
        }
    };
    let (negative, body) = match mantissa.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let (value, point, seen) = mantissa_of(body)?;
    let fraction = seen - point.unwrap_or(seen);
    let value = shifted(
        value,
        i64::from(scale) - i64::from(fraction) + i64::from(exponent),
    )?;
    if value >= POWERS[usize::from(precision.min(38))] {
        return Err(NotDecimal::TooLarge);
    }
    Ok(if negative { -value } else { value })
}

/// A number's digits as one integer, how many stand before the point (if there
/// is one), and how many there are.
#[inline]
fn mantissa_of(body: &[u8]) -> Result<(i128, Option<i32>, i32), NotDecimal> {
    let (mut short, mut point, mut seen) = (0_u64, None, 0_i32);
    let mut rest = body.iter();
    // Eighteen digits fit 64 bits, which is much faster than 128.
    for &b in rest.by_ref() {
        match b {
            b'0'..=b'9' => {
                short = short * 10 + u64::from(b - b'0');
                seen += 1;
            }
            b'.' if point.is_none() => point = Some(seen),
            _ => return Err(NotDecimal::NotANumber),
        }
        if seen == 18 {
            break;
        }
    }
    let mut value = i128::from(short);
    for &b in rest {
        match b {
            b'0'..=b'9' => {
                value = value
                    .checked_mul(10)
                    .and_then(|v| v.checked_add(i128::from(b - b'0')))
                    .ok_or(NotDecimal::TooLarge)?;
                seen += 1;
            }
            b'.' if point.is_none() => point = Some(seen),
            _ => return Err(NotDecimal::NotANumber),
        }
    }
    match seen {
        0 => Err(NotDecimal::NotANumber),
        _ => Ok((value, point, seen)),
    }
}

/// `value` times ten to `by`, exactly.
#[inline]
fn shifted(mut value: i128, by: i64) -> Result<i128, NotDecimal> {
    if value == 0 || by == 0 {
        return Ok(value);
    }
    for _ in 0..by.max(0) {
        value = value.checked_mul(10).ok_or(NotDecimal::TooLarge)?;
    }
    for _ in 0..(-by).max(0) {
        if value % 10 != 0 {
            return Err(NotDecimal::TooPrecise);
        }
        value /= 10;
    }
    Ok(value)
}

/// The narrowest type that all the texts have.
#[must_use]
pub fn narrowest<'a>(texts: impl Iterator<Item = &'a str>) -> Kind {
    type Test = fn(&str) -> bool;
    let mut open: Vec<(Kind, Test)> = vec![
        (Kind::Int, |t| int(t).is_some()),
        (Kind::Float, |t| float(t).is_some()),
        (Kind::Bool, |t| boolean(t).is_some()),
        (Kind::Date, |t| date(t).is_some()),
        (Kind::Timestamp, |t| timestamp(t).is_some()),
    ];
    for text in texts {
        open.retain(|(_, test)| test(text));
    }
    open.first().map_or(Kind::Text, |(kind, _)| *kind)
}

/// A boolean.
#[must_use]
#[inline]
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "TRUE" | "True" => Some(true),
        "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A day (`2013-01-31`) as days since 1970.
#[must_use]
#[inline]
pub fn date(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    let year = two(b, 0)? * 100 + two(b, 2)?;
    let (month, day) = (two(b, 5)?, two(b, 8)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > longest {
        return None;
    }
    // Years are counted from March, so that the leap day is their last.
    let (y, m) = match month {
        1 | 2 => (i64::from(year) - 1, i64::from(month) + 9),
        _ => (i64::from(year), i64::from(month) - 3),
    };
    let in_year = (153 * m + 2) / 5 + i64::from(day) - 1;
    let days = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + in_year;
    // 719,468 days from 0000-03-01 to 1970-01-01.
    Some(days - 719_468)
}

/// A time with its zone, by RFC 3339 (a space may stand for the `T`), as
/// microseconds since 1970. Digits beyond microseconds must be zeros.
#[must_use]
#[inline]
pub fn timestamp(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if b.len() < 20 || !matches!(b[10], b'T' | b't' | b' ') || b[13] != b':' || b[16] != b':' {
        return None;
    }
    let days = date(text.get(..10)?)?;
    let (hour, minute, second) = (two(b, 11)?, two(b, 14)?, two(b, 17)?);
    // A leap second is written as the last second of its minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = fraction(&b[19..])?;
    let offset = zone(rest)?;
    let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second.min(59)) - offset;
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

/// The fraction of a second in microseconds, and what follows it.
#[inline]
fn fraction(b: &[u8]) -> Option<(i64, &[u8])> {
    let Some(body) = b.strip_prefix(b".") else {
        return Some((0, b));
    };
    let len = body.iter().take_while(|d| d.is_ascii_digit()).count();
    if len == 0 || body[..len].iter().skip(6).any(|d| *d != b'0') {
        return None;
    }
    let mut micros = 0;
    for place in 0..6 {
        micros = micros * 10 + body[..len].get(place).map_or(0, |d| i64::from(d - b'0'));
    }
    Some((micros, &body[len..]))
}

/// A zone's offset in seconds.
#[inline]
fn zone(b: &[u8]) -> Option<i64> {
    match b {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(&[*h1, *h2], 0)?, two(&[*m1, *m2], 0)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3600 + minutes * 60);
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Two digits at `at`.
#[inline]
fn two(b: &[u8], at: usize) -> Option<u32> {
    let tens = b.get(at)?.wrapping_sub(b'0');
    let ones = b.get(at + 1)?.wrapping_sub(b'0');
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact() {
        for (text, n) in [
            ("0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("517.0", Some(517)),
            ("517.", None),
            ("517.5", None),
            ("1,234", None),
            ("", None),
            ("-", None),
            ("1e3", None),
            (" 1", None),
            ("00000000000000000000012", Some(12)),
        ] {
            assert_eq!(int(text), n, "{text}");
        }
    }

    #[test]
    fn numbers_are_finite_and_decimal() {
        assert_eq!(float("1e3"), Some(1000.0));
        assert_eq!(float("-.5"), Some(-0.5));
        for bad in ["nan", "inf", "-infinity", "", "1,5", "1e999", "0x10"] {
            assert_eq!(float(bad), None, "{bad}");
        }
    }

    #[test]
    fn decimals_are_never_rounded() {
        assert_eq!(decimal("1.23", 18, 2), Ok(123));
        assert_eq!(decimal("-1.2300", 18, 2), Ok(-123));
        assert_eq!(decimal("1.239", 18, 2), Err(NotDecimal::TooPrecise));
        assert_eq!(decimal("1e3", 18, 2), Ok(100_000));
        assert_eq!(decimal("12e-1", 18, 2), Ok(120));
        assert_eq!(decimal("1000", 5, 2), Err(NotDecimal::TooLarge));
        assert_eq!(decimal("999.99", 5, 2), Ok(99_999));
        assert_eq!(decimal("1e2000000000", 5, 2), Err(NotDecimal::TooLarge));
        assert_eq!(decimal("0e-2000000000", 5, 2), Ok(0));
        for bad in ["", "-", ".", "1.2.3", "x"] {
            assert_eq!(decimal(bad, 9, 2), Err(NotDecimal::NotANumber), "{bad}");
        }
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(decimal_text(12345, 2), "123.45");
    }

    #[test]
    fn times_need_a_zone_and_keep_microseconds() {
        let ten = 1_357_034_400_000_000;
        assert_eq!(timestamp("2013-01-01T10:00:00Z"), Some(ten));
        assert_eq!(timestamp("2013-01-01 12:00:00.000001+02:00"), Some(ten + 1));
        assert_eq!(
            timestamp("2013-01-01T10:00:00.123456000Z"),
            Some(ten + 123_456)
        );
        for bad in [
            "2013-01-01T10:00:00",
            "2013-01-01",
            "2013-02-30T10:00:00Z",
            "2013-01-01T25:00:00Z",
            "2013-01-01T10:00:00.1234567Z",
            "2013-01-01T10:00:00é",
            "1/2/2013 10:00:00 AM Z",
        ] {
            assert_eq!(timestamp(bad), None, "{bad}");
        }
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("2013-02-29"), None);
        for days in (-719_162..2_932_896).step_by(17) {
            let text = day_text(days);
            assert_eq!(date(&text), Some(days), "{text}");
        }
        assert_eq!(day_text(1), "1970-01-02");
    }
}
