//! Decimals in Postgres' binary form: digits of base 10,000, the place of the
//! first one, the sign, and how many decimal digits are shown (`numeric_send` in
//! `src/backend/utils/adt/numeric.c` of PostgreSQL).

use bytes::{BufMut, BytesMut};

/// Decimal digits of one digit of base 10,000.
const GROUP: u32 = 4;
/// Ten to the power of 38 has 39 digits: no more than this many groups on both
/// sides of the point, one of them split by it.
const MOST: usize = 12;

/// Writes `value / 10^scale` as a field: its length and its bytes.
pub(super) fn put(value: i128, scale: u32, out: &mut BytesMut) {
    let mut digits = [0_u16; MOST];
    let mut count = 0;
    let power = 10_u128.pow(scale.min(38));
    let whole = value.unsigned_abs() / power;
    let mut part = value.unsigned_abs() % power;

    // Groups before the point, most significant first.
    let mut before = 0_u32;
    let mut rest = whole;
    while rest > 0 {
        before += 1;
        rest /= 10_000;
    }
    let mut rest = whole;
    for at in (0..before as usize).rev() {
        digits[at] = (rest % 10_000) as u16;
        rest /= 10_000;
    }
    count += before as usize;

    // Groups after the point; the last one is filled up with zeros.
    let mut left = scale;
    while left > 0 && part > 0 {
        let digit = if left >= GROUP {
            let unit = 10_u128.pow(left - GROUP);
            let digit = part / unit;
            part %= unit;
            left -= GROUP;
            digit
        } else {
            let digit = part * 10_u128.pow(GROUP - left);
            part = 0;
            left = 0;
            digit
        };
        digits[count] = digit as u16;
        count += 1;
    }

    let first = digits[..count]
        .iter()
        .position(|d| *d != 0)
        .unwrap_or(count);
    let last = digits[..count]
        .iter()
        .rposition(|d| *d != 0)
        .map_or(first, |l| l + 1);
    let kept = &digits[first..last];
    let weight = match kept.is_empty() {
        true => 0,
        false => before as i16 - 1 - first as i16,
    };
    out.put_i32(8 + 2 * kept.len() as i32);
    out.put_i16(kept.len() as i16);
    out.put_i16(weight);
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    for digit in kept {
        out.put_u16(*digit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field read back: digits, weight, sign, shown digits.
    fn fields(value: i128, scale: u32) -> (Vec<u16>, i16, bool, u16) {
        let mut out = BytesMut::new();
        put(value, scale, &mut out);
        let word = |at: usize| u16::from_be_bytes([out[at], out[at + 1]]);
        assert_eq!(word(2) as usize, out.len() - 4);
        let digits = (0..word(4) as usize).map(|i| word(12 + 2 * i)).collect();
        (digits, word(6) as i16, word(8) == 0x4000, word(10))
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(fields(0, 2), (vec![], 0, false, 2));
        assert_eq!(fields(123_456, 2), (vec![1234, 5600], 0, false, 2));
        assert_eq!(fields(-1, 2), (vec![100], -1, true, 2));
        assert_eq!(fields(1, 6), (vec![100], -2, false, 6));
        assert_eq!(fields(100_000_000, 0), (vec![1], 2, false, 0));
        assert_eq!(fields(100_010_000, 4), (vec![1, 1], 1, false, 4));
        assert_eq!(fields(12_345, 5), (vec![1234, 5000], -1, false, 5));
        let (digits, weight, ..) = fields(10_i128.pow(38) - 1, 0);
        assert_eq!((digits.len(), digits[0], weight), (10, 99, 9));
        let (digits, weight, ..) = fields(10_i128.pow(38) - 1, 37);
        assert_eq!((digits[0], digits[1], weight), (9, 9999, 0));
        assert_eq!(*digits.last().unwrap(), 9000);
        let (digits, weight, ..) = fields(10_i128.pow(38) - 1, 38);
        assert_eq!(
            (digits.len(), weight, *digits.last().unwrap()),
            (10, -1, 9900)
        );
    }
}
