//! The first look at an event: 64 bytes at a time, where are the quotes and
//! the brackets?
//!
//! The result says, one bit a byte, which quotes begin or end a string and
//! which brackets are outside of strings. It lets the scan jump over strings
//! and whole containers without looking at their bytes again.

/// What is where in 64 bytes; bit n stands for byte n.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Block {
    /// Quotes that are not escaped.
    pub quotes: u64,
    /// `{` and `[` outside of strings.
    pub opens: u64,
    /// `}` and `]` outside of strings.
    pub closes: u64,
    /// How many of both there are: counting is done while the processor's own
    /// instruction for it may be used.
    opened: u32,
    closed: u32,
}

/// The raw findings in 64 bytes, strings and escapes not yet considered.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Found {
    quotes: u64,
    backslashes: u64,
    opens: u64,
    closes: u64,
    /// Bytes below 0x20.
    controls: u64,
}

/// What carries over from one block to the next.
#[derive(Debug, Default)]
struct Carry {
    /// 1 if the first byte of the next block is escaped.
    escaped: u64,
    /// All ones if the next block begins inside a string.
    inside: u64,
    /// All that was seen of backslashes, and of controls inside strings.
    backslashes: u64,
    controls: u64,
}

/// What a text looks like at first sight.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub blocks: Vec<Block>,
    /// There is a backslash somewhere.
    pub backslashes: bool,
    /// There is a control character inside a string.
    pub controls: bool,
}

/// Maps a text; the last block is padded.
pub(super) fn index(text: &[u8], map: &mut Map) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("popcnt")
        {
            // SAFETY: the processor has what the function asks for.
            unsafe { x86::index_avx512(text, map) };
            return;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
            // SAFETY: as above.
            unsafe { x86::index_avx2(text, map) };
            return;
        }
        // SAFETY: every x86-64 has SSE2.
        unsafe { x86::index_sse2(text, map) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    index_with(text, map, find_portable, prefix_xor);
}

#[inline(always)]
fn index_with(
    text: &[u8],
    map: &mut Map,
    find: impl Fn(&[u8; 64]) -> Found,
    prefix_xor: impl Fn(u64) -> u64,
) {
    let blocks = &mut map.blocks;
    // All of them are overwritten.
    blocks.resize(text.len().div_ceil(64), Block::default());
    let mut carry = Carry::default();
    let (whole, rest) = text.as_chunks::<64>();
    for (bytes, block) in whole.iter().zip(blocks.iter_mut()) {
        *block = resolve(find(bytes), &mut carry, &prefix_xor);
    }
    if let Some(block) = blocks.last_mut().filter(|_| !rest.is_empty()) {
        let mut padded = [b' '; 64];
        padded[..rest.len()].copy_from_slice(rest);
        *block = resolve(find(&padded), &mut carry, &prefix_xor);
    }
    map.backslashes = carry.backslashes != 0;
    map.controls = carry.controls != 0;
}

/// Drops escaped quotes and everything inside strings.
#[inline(always)]
fn resolve(found: Found, carry: &mut Carry, prefix_xor: impl Fn(u64) -> u64) -> Block {
    let quotes = if found.backslashes == 0 {
        // Only the first byte can be escaped, by the block before.
        let escaped = std::mem::take(&mut carry.escaped);
        found.quotes & !escaped
    } else {
        found.quotes & !escaped(found.backslashes, &mut carry.escaped)
    };
    // From every opening quote (included) to its closing one (excluded).
    let inside = prefix_xor(quotes) ^ carry.inside;
    carry.inside = ((inside as i64) >> 63) as u64;
    carry.backslashes |= found.backslashes;
    carry.controls |= found.controls & inside;
    let (opens, closes) = (found.opens & !inside, found.closes & !inside);
    Block {
        quotes,
        opens,
        closes,
        opened: opens.count_ones(),
        closed: closes.count_ones(),
    }
}

/// The bytes that follow a backslash which is not escaped itself.
fn escaped(backslashes: u64, carry: &mut u64) -> u64 {
    let mut escaped = *carry;
    *carry = 0;
    let mut left = backslashes & !escaped;
    while left != 0 {
        let at = left.trailing_zeros();
        if at == 63 {
            *carry = 1;
            break;
        }
        escaped |= 1 << (at + 1);
        // The escaped byte, if it is a backslash, escapes nothing.
        left &= !(0b11 << at);
    }
    escaped
}

/// Bit n of the result is the xor of bits 0..=n.
#[inline(always)]
pub(super) fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

/// `{` and `[` differ in this bit only, and so do `}` and `]`.
const CASE: u8 = 0x20;
/// The last control character.
pub(super) const CONTROL: u8 = 0x1F;

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set_epi64x, _mm_set1_epi8, _mm256_cmpeq_epi8, _mm256_min_epu8, _mm256_movemask_epi8,
        _mm256_or_si256, _mm256_set_epi64x, _mm256_set1_epi8, _mm512_castsi256_si512,
        _mm512_cmpeq_epi8_mask, _mm512_cmple_epu8_mask, _mm512_inserti64x4, _mm512_or_si512,
        _mm512_set1_epi8,
    };
    use std::arch::x86_64::{_mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set1_epi8 as all_ones};

    use super::{CASE, CONTROL, Found, Map, index_with, prefix_xor};

    #[target_feature(enable = "avx512bw,pclmulqdq,popcnt")]
    pub(super) fn index_avx512(text: &[u8], map: &mut Map) {
        index_with(
            text,
            map,
            |bytes| find_avx512(bytes),
            |bits| prefix_clmul(bits),
        );
    }

    /// [`prefix_xor`] as one multiplication without carries.
    #[target_feature(enable = "pclmulqdq")]
    #[inline]
    pub(in super::super) fn prefix_clmul(bits: u64) -> u64 {
        let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), all_ones(-1));
        _mm_cvtsi128_si64(product) as u64
    }

    #[target_feature(enable = "avx512bw")]
    #[inline]
    pub(super) fn find_avx512(bytes: &[u8; 64]) -> Found {
        let all = load(bytes);
        let cased = _mm512_or_si512(all, _mm512_set1_epi8(CASE as i8));
        Found {
            quotes: _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8(b'"' as i8)),
            backslashes: _mm512_cmpeq_epi8_mask(all, _mm512_set1_epi8(b'\\' as i8)),
            opens: _mm512_cmpeq_epi8_mask(cased, _mm512_set1_epi8(b'{' as i8)),
            closes: _mm512_cmpeq_epi8_mask(cased, _mm512_set1_epi8(b'}' as i8)),
            controls: _mm512_cmple_epu8_mask(all, _mm512_set1_epi8(CONTROL as i8)),
        }
    }

    #[target_feature(enable = "avx512bw")]
    #[inline]
    pub(in super::super) fn load(bytes: &[u8; 64]) -> __m512i {
        let halves = bytes.as_chunks::<32>().0;
        let (low, high) = (load_half(&halves[0]), load_half(&halves[1]));
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn load_half(bytes: &[u8; 32]) -> __m256i {
        let words = bytes.as_chunks::<8>().0;
        let word = |at: usize| i64::from_le_bytes(words[at]);
        _mm256_set_epi64x(word(3), word(2), word(1), word(0))
    }

    #[target_feature(enable = "avx2,popcnt")]
    pub(super) fn index_avx2(text: &[u8], map: &mut Map) {
        index_with(text, map, |bytes| find_avx2(bytes), prefix_xor);
    }

    #[target_feature(enable = "sse2")]
    pub(super) fn index_sse2(text: &[u8], map: &mut Map) {
        index_with(text, map, |bytes| find_sse2(bytes), prefix_xor);
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) fn find_avx2(bytes: &[u8; 64]) -> Found {
        let mut found = Found::default();
        for (i, part) in bytes.as_chunks::<32>().0.iter().enumerate() {
            let part = load_half(part);
            let cased = _mm256_or_si256(part, _mm256_set1_epi8(CASE as i8));
            let bits = |value, byte: u8| {
                let equal = _mm256_cmpeq_epi8(value, _mm256_set1_epi8(byte as i8));
                u64::from(_mm256_movemask_epi8(equal) as u32) << (32 * i)
            };
            found.quotes |= bits(part, b'"');
            found.backslashes |= bits(part, b'\\');
            found.opens |= bits(cased, b'{');
            found.closes |= bits(cased, b'}');
            let low = _mm256_min_epu8(part, _mm256_set1_epi8(CONTROL as i8));
            let controls = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, part));
            found.controls |= u64::from(controls as u32) << (32 * i);
        }
        found
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    pub(super) fn find_sse2(bytes: &[u8; 64]) -> Found {
        let mut found = Found::default();
        for (i, part) in bytes.as_chunks::<16>().0.iter().enumerate() {
            let words = part.as_chunks::<8>().0;
            let word = |at: usize| i64::from_le_bytes(words[at]);
            let part = _mm_set_epi64x(word(1), word(0));
            let cased = _mm_or_si128(part, _mm_set1_epi8(CASE as i8));
            let bits = |value, byte: u8| {
                let equal = _mm_cmpeq_epi8(value, _mm_set1_epi8(byte as i8));
                u64::from(_mm_movemask_epi8(equal) as u16) << (16 * i)
            };
            found.quotes |= bits(part, b'"');
            found.backslashes |= bits(part, b'\\');
            found.opens |= bits(cased, b'{');
            found.closes |= bits(cased, b'}');
            let low = _mm_min_epu8(part, _mm_set1_epi8(CONTROL as i8));
            let controls = _mm_movemask_epi8(_mm_cmpeq_epi8(low, part));
            found.controls |= u64::from(controls as u16) << (16 * i);
        }
        found
    }
}

/// Eight bytes at a time in a 64-bit word.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn find_portable(bytes: &[u8; 64]) -> Found {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const SEVEN: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    let mut found = Found::default();
    let (words, _) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let bits = |word: u64, byte: u8| {
            let differ = word ^ (LOW * u64::from(byte));
            // The high bit of every byte that is zero, without carries.
            let zero = !(((differ & SEVEN) + SEVEN) | differ | SEVEN);
            // Gather the eight high bits in the top byte.
            ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i)
        };
        let cased = word | (LOW * u64::from(CASE));
        found.controls |= bits(word & !(LOW * u64::from(CONTROL)), 0);
        found.quotes |= bits(word, b'"');
        found.backslashes |= bits(word, b'\\');
        found.opens |= bits(cased, b'{');
        found.closes |= bits(cased, b'}');
    }
    found
}

/// The position of the first quote at or after `from`.
#[inline]
pub(super) fn next_quote(blocks: &[Block], from: usize) -> Option<usize> {
    let mut at = from / 64;
    let mut bits = blocks.get(at)?.quotes >> (from % 64) << (from % 64);
    while bits == 0 {
        at += 1;
        bits = blocks.get(at)?.quotes;
    }
    Some(at * 64 + bits.trailing_zeros() as usize)
}

/// The position of the bracket that closes the container whose opening bracket
/// is just before `from`. Kinds of brackets are not compared.
#[inline]
pub(super) fn matching_close(blocks: &[Block], from: usize) -> Option<usize> {
    let mut at = from / 64;
    let keep = u64::MAX << (from % 64);
    let first = blocks.get(at)?;
    let mut depth = 1;
    if let Some(close) = close_within(first.opens & keep, first.closes & keep, &mut depth) {
        return Some(at * 64 + close as usize);
    }
    loop {
        at += 1;
        let block = blocks.get(at)?;
        if block.closed < depth {
            depth = depth + block.opened - block.closed;
        } else if let Some(close) = close_within(block.opens, block.closes, &mut depth) {
            return Some(at * 64 + close as usize);
        }
    }
}

/// Goes from close to close; where the depth comes to 0. Otherwise the depth
/// is what it is at the end.
#[inline(always)]
fn close_within(mut opens: u64, mut closes: u64, depth: &mut u32) -> Option<u32> {
    while closes != 0 {
        let close = closes.trailing_zeros();
        let before = (1_u64 << close) - 1;
        *depth += (opens & before).count_ones();
        *depth -= 1;
        if *depth == 0 {
            return Some(close);
        }
        opens &= !before;
        closes &= closes - 1;
    }
    *depth += opens.count_ones();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, one byte after the other.
    fn slowly(text: &[u8]) -> Vec<Block> {
        let mut blocks = vec![Block::default(); text.len().div_ceil(64)];
        let (mut inside, mut escaped) = (false, false);
        for (i, byte) in text.iter().enumerate() {
            let block = &mut blocks[i / 64];
            let bit = 1 << (i % 64);
            if std::mem::take(&mut escaped) {
                if matches!(byte, b'{' | b'[') && !inside {
                    block.opens |= bit;
                }
                if matches!(byte, b'}' | b']') && !inside {
                    block.closes |= bit;
                }
                block.opened = block.opens.count_ones();
                block.closed = block.closes.count_ones();
                continue;
            }
            match byte {
                b'\\' => escaped = true,
                b'"' => {
                    inside = !inside;
                    block.quotes |= bit;
                }
                b'{' | b'[' if !inside => block.opens |= bit,
                b'}' | b']' if !inside => block.closes |= bit,
                _ => {}
            }
            block.opened = block.opens.count_ones();
            block.closed = block.closes.count_ones();
        }
        blocks
    }

    /// Texts of the bytes that matter, from a small linear generator.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        let mut seed = 1_u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        (0..2_000).map(move |_| {
            let len = next() % 300;
            (0..len)
                .map(|_| b"\"\\{}[]ab:, \"\n\\"[next() % 14])
                .collect()
        })
    }

    #[test]
    fn fast_and_slow_agree() {
        let mut map = Map::default();
        for text in texts() {
            index(&text, &mut map);
            assert_eq!(
                map.blocks,
                slowly(&text),
                "{}",
                String::from_utf8_lossy(&text)
            );
            assert_eq!(map.backslashes, text.contains(&b'\\'));
        }
    }

    #[test]
    fn all_searches_agree() {
        for text in texts() {
            for chunk in text.as_chunks::<64>().0 {
                let expected = find_portable(chunk);
                #[cfg(target_arch = "x86_64")]
                {
                    // SAFETY: every x86-64 has SSE2, and AVX2 was looked for.
                    assert_eq!(unsafe { x86::find_sse2(chunk) }, expected);
                    if is_x86_feature_detected!("avx2") {
                        // SAFETY: as above.
                        assert_eq!(unsafe { x86::find_avx2(chunk) }, expected);
                    }
                    if is_x86_feature_detected!("avx512bw") {
                        // SAFETY: as above.
                        assert_eq!(unsafe { x86::find_avx512(chunk) }, expected);
                    }
                    if is_x86_feature_detected!("pclmulqdq") {
                        // SAFETY: as above.
                        let product = unsafe { x86::prefix_clmul(expected.quotes) };
                        assert_eq!(product, prefix_xor(expected.quotes));
                    }
                }
                let slow = chunk.iter().filter(|byte| **byte == b'"').count();
                assert_eq!(expected.quotes.count_ones() as usize, slow);
            }
        }
    }

    #[test]
    fn closing_brackets_are_found() {
        let text = format!("{}{}{}  x", "[{".repeat(50), "\"]\"", "}]".repeat(50));
        let mut map = Map::default();
        index(text.as_bytes(), &mut map);
        let blocks = map.blocks;
        assert_eq!(matching_close(&blocks, 1), Some(202));
        assert_eq!(matching_close(&blocks, 2), Some(201));
        assert_eq!(matching_close(&blocks, 100), Some(103));
        assert_eq!(next_quote(&blocks, 0), Some(100));
        assert_eq!(next_quote(&blocks, 103), None);
    }
}
