//! Varints and length-prefixed text: the alphabet of every file of the log.

use std::fmt;

/// Bytes that do not decode; says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undecodable(pub &'static str);

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// LEB128 in exactly `N` bytes, so that it can be filled in later; what does not fit in
/// `7 * N` bits is cut off.
pub(crate) fn padded_varint<const N: usize>(mut v: u64) -> [u8; N] {
    let mut out = [0x80; N];
    for byte in &mut out {
        *byte |= (v & 0x7F) as u8;
        v >>= 7;
    }
    out[N - 1] &= 0x7F;
    out
}

/// Small numbers of either sign as small numbers.
pub(crate) fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// Writes the log's primitives at the end of a buffer.
pub(crate) trait Put {
    fn put_u8(&mut self, v: u8);
    fn put_u32(&mut self, v: u32);
    fn put_u64(&mut self, v: u64);
    /// LEB128, 1 to 10 bytes.
    fn put_varint(&mut self, v: u64);
    /// Zigzag LEB128.
    fn put_signed(&mut self, v: i64);
    fn put_bytes(&mut self, v: &[u8]);
    fn put_str(&mut self, v: &str);
    /// Ascending or not, each as the signed step from the one before.
    fn put_seqs(&mut self, v: impl ExactSizeIterator<Item = u64>);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, v: u8) {
        self.push(v);
    }

    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }

    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }

    fn put_varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.push((v as u8) | 0x80);
            v >>= 7;
        }
        self.push(v as u8);
    }

    fn put_signed(&mut self, v: i64) {
        self.put_varint(zigzag(v));
    }

    fn put_bytes(&mut self, v: &[u8]) {
        self.put_varint(v.len() as u64);
        self.extend_from_slice(v);
    }

    fn put_str(&mut self, v: &str) {
        self.put_bytes(v.as_bytes());
    }

    fn put_seqs(&mut self, v: impl ExactSizeIterator<Item = u64>) {
        self.put_varint(v.len() as u64);
        let mut last = 0_u64;
        for seq in v {
            self.put_signed(seq.wrapping_sub(last) as i64);
            last = seq;
        }
    }
}

/// Reads the log's primitives; never panics and never reads past the end.
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, pos: 0 }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn remaining(&self) -> usize {
        self.data.len() - self.pos
    }

    pub(crate) fn is_done(&self) -> bool {
        self.remaining() == 0
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Undecodable> {
        let end = self
            .pos
            .checked_add(n)
            .ok_or(Undecodable("a length within the record"))?;
        let slice = self
            .data
            .get(self.pos..end)
            .ok_or(Undecodable("more bytes"))?;
        self.pos = end;
        Ok(slice)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Undecodable> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Undecodable> {
        let mut raw = [0; 4];
        raw.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(raw))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Undecodable> {
        let mut raw = [0; 8];
        raw.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(raw))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Undecodable> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7F);
            if shift == 63 && part > 1 {
                return Err(Undecodable("a number of at most 64 bits"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Undecodable("a number of at most 64 bits"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, Undecodable> {
        u32::try_from(self.varint()?).map_err(|_| Undecodable("a number of at most 32 bits"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Undecodable> {
        let v = self.varint()?;
        Ok(((v >> 1) as i64) ^ -((v & 1) as i64))
    }

    pub(crate) fn len(&mut self) -> Result<usize, Undecodable> {
        let n = usize::try_from(self.varint()?).map_err(|_| Undecodable("a length in memory"))?;
        // Every element is at least one byte, so a longer list cannot be here; this
        // also keeps a broken length from asking for all memory.
        if n > self.remaining() {
            return Err(Undecodable("a length within the record"));
        }
        Ok(n)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Undecodable> {
        let n = self.len()?;
        self.take(n)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, Undecodable> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Undecodable("text in UTF-8"))
    }

    pub(crate) fn string(&mut self) -> Result<String, Undecodable> {
        Ok(self.str()?.to_owned())
    }

    pub(crate) fn seqs(&mut self) -> Result<Vec<u64>, Undecodable> {
        let n = self.len()?;
        let mut seqs = Vec::with_capacity(n);
        let mut last = 0_u64;
        for _ in 0..n {
            last = last.wrapping_add(self.signed()? as u64);
            seqs.push(last);
        }
        Ok(seqs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_lists_come_back(a: u64, b: i64, seqs: Vec<u64>, text: String) {
            let mut out = Vec::new();
            out.put_varint(a);
            out.put_signed(b);
            out.put_seqs(seqs.iter().copied());
            out.put_str(&text);
            let mut r = Reader::new(&out);
            prop_assert_eq!(r.varint().unwrap(), a);
            prop_assert_eq!(r.signed().unwrap(), b);
            prop_assert_eq!(r.seqs().unwrap(), seqs);
            prop_assert_eq!(r.string().unwrap(), text);
            prop_assert!(r.is_done());
        }

        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>) {
            let mut r = Reader::new(&data);
            while r.varint().is_ok() {}
            let _ = Reader::new(&data).seqs();
            let _ = Reader::new(&data).str();
        }
    }

    #[test]
    fn a_padded_number_reads_like_any_other() {
        for v in [0, 1, 127, 128, 300, (1 << 56) - 1] {
            let raw = padded_varint::<8>(v);
            let mut r = Reader::new(&raw);
            assert_eq!((r.varint(), r.is_done()), (Ok(v), true));
        }
    }

    #[test]
    fn an_overlong_number_is_refused() {
        assert!(Reader::new(&[0xFF; 10]).varint().is_err());
        assert_eq!(
            Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]).varint(),
            Ok(u64::MAX)
        );
    }

    #[test]
    fn a_huge_length_asks_for_no_memory() {
        let mut out = Vec::new();
        out.put_varint(u64::MAX / 2);
        assert!(Reader::new(&out).seqs().is_err());
    }
}
