//! Which bytes of an event are what, 64 at a time, for strict checking.

use super::blocks::CONTROL;
use super::strict::Check;

/// Which bytes of a block are what, strings not considered.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Classes {
    pub quotes: u64,
    pub backslashes: u64,
    pub objects: u64,
    pub object_ends: u64,
    pub arrays: u64,
    pub array_ends: u64,
    pub commas: u64,
    pub colons: u64,
    pub digits: u64,
    pub zeros: u64,
    pub minuses: u64,
    pub points: u64,
    pub spaces: u64,
    /// Bytes below 0x20.
    pub controls: u64,
    /// Bytes outside of ASCII.
    pub wide: u64,
}

impl Classes {
    /// From the places of a byte, and from those of bytes up to some value,
    /// less another one.
    #[inline(always)]
    fn new(equal: impl Fn(u8) -> u64, within: impl Fn(u8, u8) -> u64) -> Self {
        Classes {
            quotes: equal(b'"'),
            backslashes: equal(b'\\'),
            objects: equal(b'{'),
            object_ends: equal(b'}'),
            arrays: equal(b'['),
            array_ends: equal(b']'),
            commas: equal(b','),
            colons: equal(b':'),
            digits: within(b'0', b'9'),
            zeros: equal(b'0'),
            minuses: equal(b'-'),
            points: equal(b'.'),
            spaces: equal(b' ') | equal(b'\t') | equal(b'\n') | equal(b'\r'),
            controls: within(0, CONTROL),
            wide: within(0x80, 0xFF),
        }
    }
}

/// Whether all blocks of a text stand up to a check. Without the instructions
/// that make it quick it is not tried.
pub(super) fn classify(text: &[u8], check: Check<'_>) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("pclmulqdq") {
            // SAFETY: the processor has what the function asks for.
            return unsafe { x86::classify_avx512(text, check) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { x86::classify_avx2(text, check) };
        }
    }
    let _ = (text, check);
    false
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn classify_with(
    text: &[u8],
    mut check: Check<'_>,
    classes: impl Fn(&[u8; 64]) -> Classes,
    prefix_xor: impl Fn(u64) -> u64,
) -> bool {
    let (whole, rest) = text.as_chunks::<64>();
    for bytes in whole {
        if !check.block(&classes(bytes), u64::MAX, &prefix_xor) {
            return false;
        }
    }
    if !rest.is_empty() {
        let mut padded = [b' '; 64];
        padded[..rest.len()].copy_from_slice(rest);
        let valid = !(u64::MAX << rest.len());
        if !check.block(&classes(&padded), valid, &prefix_xor) {
            return false;
        }
    }
    check.finish()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_cmpeq_epi8, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_set1_epi8,
        _mm256_sub_epi8, _mm512_cmpeq_epi8_mask, _mm512_cmple_epu8_mask, _mm512_set1_epi8,
        _mm512_sub_epi8,
    };

    use super::super::blocks::prefix_xor;
    use super::super::blocks::x86::{load, load_half, prefix_clmul};
    use super::{Check, Classes, classify_with};

    #[target_feature(enable = "avx512bw,pclmulqdq")]
    pub(super) fn classify_avx512(text: &[u8], check: Check<'_>) -> bool {
        let classes = |bytes: &[u8; 64]| {
            let all = load(bytes);
            Classes::new(
                |byte| _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8(byte as i8)),
                |low, high| {
                    let from = _mm512_sub_epi8(all, _mm512_set1_epi8(low as i8));
                    _mm512_cmple_epu8_mask(from, _mm512_set1_epi8((high - low) as i8))
                },
            )
        };
        classify_with(text, check, classes, |bits| prefix_clmul(bits))
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn classify_avx2(text: &[u8], check: Check<'_>) -> bool {
        let classes = |bytes: &[u8; 64]| {
            let halves = bytes.as_chunks::<32>().0;
            let all = [load_half(&halves[0]), load_half(&halves[1])];
            let join = |low: i32, high: i32| u64::from(low as u32) | u64::from(high as u32) << 32;
            let equal = |byte: u8| {
                let wanted = _mm256_set1_epi8(byte as i8);
                let bits = |half| _mm256_movemask_epi8(_mm256_cmpeq_epi8(half, wanted));
                join(bits(all[0]), bits(all[1]))
            };
            let within = |low: u8, high: u8| {
                let most = _mm256_set1_epi8((high - low) as i8);
                let bits = |half| {
                    let from = _mm256_sub_epi8(half, _mm256_set1_epi8(low as i8));
                    _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(from, most), from))
                };
                join(bits(all[0]), bits(all[1]))
            };
            Classes::new(equal, within)
        };
        classify_with(text, check, classes, prefix_xor)
    }
}
