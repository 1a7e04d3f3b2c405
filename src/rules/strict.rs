//! Strict checking, 64 bytes at a time.
//!
//! Says of most well-formed events that they are, without visiting their
//! tokens: what may follow what is decided for all bytes of a block at once,
//! and only brackets are looked at one by one. It never errs on that side, but
//! it gives up on whatever is not simple (space between tokens, escapes,
//! control characters), and on what is wrong; then `validate` decides.

use super::classes::{self, Classes};
use super::scan;
use super::validate::Stack;

/// Whether `event` is surely one well-formed JSON object and nothing else.
/// False means nothing.
pub(super) fn is_well_formed(event: &[u8], stack: &mut Stack) -> bool {
    let text = event.trim_ascii();
    let space_only =
        event.len() == text.len() || event.iter().all(|byte| !matches!(byte, 0x0B | 0x0C));
    if !space_only || text.first() != Some(&b'{') || text.last() != Some(&b'}') {
        return false;
    }
    classes::classify(text, Check::new(text, stack))
}

/// What has to be known of the block before: whether its last byte was one of
/// these, as bit 0.
#[derive(Default)]
struct Last {
    opens_object: u64,
    opens_array: u64,
    colon: u64,
    comma: u64,
    quote: u64,
    close: u64,
    scalar: u64,
    digit: u64,
    minus: u64,
    dot: u64,
    leading_zero: u64,
}

/// The state of a check between two blocks.
pub(super) struct Check<'c> {
    text: &'c [u8],
    stack: &'c mut Stack,
    /// Where the current block begins.
    base: usize,
    last: Last,
    /// All ones inside a string.
    inside: u64,
    /// A comma or an opening brace waits for the structural byte behind it.
    pending: u64,
    /// The block begins in the digits behind a point.
    fraction: u64,
    /// Where the last number or word began.
    scalar_at: usize,
    /// There are bytes outside of ASCII.
    wide: bool,
}

/// The bytes behind those of a set, and whether the last byte was one.
#[inline(always)]
fn behind(set: u64, last: &mut u64) -> u64 {
    let behind = set << 1 | *last;
    *last = set >> 63;
    behind
}

impl<'c> Check<'c> {
    fn new(text: &'c [u8], stack: &'c mut Stack) -> Self {
        stack.clear();
        Check {
            text,
            stack,
            base: 0,
            last: Last::default(),
            inside: 0,
            pending: 0,
            fraction: 0,
            scalar_at: 0,
            wide: false,
        }
    }

    /// Whether the text was well-formed, when all blocks were.
    pub fn finish(self) -> bool {
        self.stack.is_empty() && (!self.wide || std::str::from_utf8(self.text).is_ok())
    }

    /// Checks the next block, of which the bytes in `valid` belong to the text.
    #[inline(always)]
    pub fn block(&mut self, found: &Classes, valid: u64, prefix_xor: impl Fn(u64) -> u64) -> bool {
        let inside = prefix_xor(found.quotes) ^ self.inside;
        self.inside = ((inside as i64) >> 63) as u64;
        self.wide |= found.wide != 0;
        let outside = !inside;
        let complicated = found.backslashes | found.controls & inside | found.spaces & outside;
        if complicated & valid != 0 {
            return false;
        }
        let (opening, closing) = (found.quotes & inside, found.quotes & outside);
        let [objects, object_ends] = [found.objects & outside, found.object_ends & outside];
        let [arrays, array_ends] = [found.arrays & outside, found.array_ends & outside];
        let (commas, colons) = (found.commas & outside, found.colons & outside);
        let ends = object_ends | array_ends;
        let structural = objects | arrays | ends | commas | colons;
        let scalars = valid & outside & !(closing | structural);

        let last = &mut self.last;
        let after_scalar = behind(scalars, &mut last.scalar);
        let starts = scalars & !after_scalar;
        let values = opening | starts | objects | arrays;
        let after_quote = behind(closing, &mut last.quote);
        let after_object = behind(objects, &mut last.opens_object);
        let after_comma = behind(commas, &mut last.comma);
        let separators = commas | ends;
        let mut bad = after_object & !(opening | object_ends);
        bad |= behind(arrays, &mut last.opens_array) & !(values | array_ends);
        bad |= (behind(colons, &mut last.colon) | after_comma) & !values;
        bad |= behind(ends, &mut last.close) & !separators;
        bad |= after_quote & !(separators | colons);
        bad |= colons & !after_quote;
        bad |= after_scalar & !(scalars | separators);

        // The structural byte behind every comma, and behind every brace that
        // opens an object with something in it: the sum carries a bit from the
        // start over all that is not structural.
        let starting = after_comma | after_object & !object_ends | self.pending;
        let (sum, carried) = (starting & !structural).overflowing_add(!structural);
        self.pending = u64::from(carried);
        let followers = (sum | starting) & structural;
        bad |= colons & !followers;

        bad |= self.numbers(found, scalars, starts);
        bad & valid == 0
            && self.brackets(objects, arrays, object_ends, ends, colons, followers)
            && self.words(found, scalars, starts, after_scalar & 1 != 0)
    }

    /// Digits, points and signs that are out of place, if no number or word of
    /// the block has anything else.
    #[inline(always)]
    fn numbers(&mut self, found: &Classes, scalars: u64, starts: u64) -> u64 {
        let digits = found.digits & scalars;
        let (signs, points) = (found.minuses & scalars, found.points & scalars);
        let last = &mut self.last;
        let after_sign = behind(signs, &mut last.minus);
        let after_point = behind(points, &mut last.dot);
        let after_digit = behind(digits, &mut last.digit);
        let zeros = found.zeros & scalars & (starts | after_sign);
        let after_zero = behind(zeros, &mut last.leading_zero);
        let fraction = after_point | self.fraction;
        let (sum, carried) = (fraction & digits).overflowing_add(digits);
        self.fraction = u64::from(carried);
        let after_fraction = (sum | fraction) & !digits;
        if scalars & !(digits | signs | points) != 0 {
            return 0;
        }
        (signs & !starts)
            | (after_sign & !digits)
            | (points & !after_digit)
            | (after_point & !digits)
            | (after_fraction & points)
            | (after_zero & digits)
    }

    /// Words, and numbers with exponents, one by one.
    #[inline(always)]
    fn words(&mut self, found: &Classes, scalars: u64, starts: u64, continued: bool) -> bool {
        let plain = found.digits | found.minuses | found.points;
        let mut right = true;
        if scalars & !plain != 0 {
            // What the block before ended with was checked up to there only.
            if continued {
                right &= scan::scalar(&self.text[self.scalar_at..]).is_ok();
            }
            let mut left = starts;
            while left != 0 {
                let at = self.base + left.trailing_zeros() as usize;
                right &= scan::scalar(&self.text[at..]).is_ok();
                left &= left - 1;
            }
        }
        if starts != 0 {
            self.scalar_at = self.base + 63 - starts.leading_zeros() as usize;
        }
        self.base += 64;
        right
    }

    /// Opens and closes containers; between two brackets everything must fit
    /// the container: in an object every comma leads to a colon, in an array
    /// there are no colons.
    #[inline(always)]
    fn brackets(
        &mut self,
        objects: u64,
        arrays: u64,
        object_ends: u64,
        ends: u64,
        colons: u64,
        followers: u64,
    ) -> bool {
        let (mut in_object, mut done) = (self.stack.in_object(), 0_u64);
        let mut left = objects | arrays | ends;
        let not_colons = followers & !colons;
        while left != 0 {
            let bit = left & left.wrapping_neg();
            let until = bit | (bit - 1);
            let wrong = if in_object { not_colons } else { colons };
            if wrong & until & !done != 0 {
                return false;
            }
            if ends & bit == 0 {
                in_object = objects & bit != 0;
                self.stack.push(in_object);
            } else {
                if self.stack.is_empty() || in_object != (object_ends & bit != 0) {
                    return false;
                }
                self.stack.pop();
                if self.stack.is_empty() {
                    // Nothing may follow.
                    let at = self.base + bit.trailing_zeros() as usize;
                    return at + 1 == self.text.len();
                }
                in_object = self.stack.in_object();
            }
            done = until;
            left &= left - 1;
        }
        let wrong = if in_object { not_colons } else { colons };
        wrong & !done == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(text: &str) -> bool {
        is_well_formed(text.as_bytes(), &mut Stack::default())
    }

    fn is_json(text: &str) -> bool {
        text.starts_with('{') && serde_json::from_str::<serde_json::Value>(text).is_ok()
    }

    #[test]
    fn ordinary_events_are_told_at_once() {
        for text in [
            r#"{}"#,
            r#"{"a":{}}"#,
            r#"{"a":[]}"#,
            r#"{"a":1,"b":[1,-2.5,[3,{"c":"é"}],null],"c":{"d":true,"e":1e5}}"#,
        ] {
            assert!(right(text), "{text}");
            for shift in 0..130 {
                let moved = format!("{{\"{}\":{text}}}", "x".repeat(shift));
                assert!(right(&moved), "{moved}");
            }
        }
    }

    #[test]
    fn nothing_malformed_passes() {
        // Mutations of an event, at every place within a block.
        let event = r#"{"a":1,"b":[0,-20.75,[{},{"c":"x"}],[],null],"d":{"e":true,"f":1.5e-7},"g":"","h":{}}"#;
        assert!(right(event));
        let pieces = [
            "", "{", "}", "[", "]", ",", ":", "\"", "0", "1", "-", ".", "e", "+", "t", "null",
            "\"k\"", "\"k\":", "01", "1.", " ", "\u{1}", "\\", "{}", "[]", ",1", ",\"k\":1", "é",
        ];
        for shift in [0, 3, 17, 40, 41, 42, 55, 60, 61, 62, 63] {
            let prefix = format!("{{\"{}\":", "p".repeat(shift));
            for at in 0..event.len() {
                for len in 0..4 {
                    let Some(rest) = event.get(at + len..) else {
                        continue;
                    };
                    for piece in pieces {
                        let text = format!("{prefix}{}{piece}{rest}}}", &event[..at]);
                        assert!(!right(&text) || is_json(&text), "{text}");
                    }
                }
            }
        }
    }
}
