//! SipHash-1-3 with a stored key: event ids are hashed alike at every start, and a
//! sender who does not know the key cannot make ids collide.

/// The key of a log, drawn when it is created.
pub(crate) type LogKey = [u64; 2];

struct Sip {
    v: [u64; 4],
}

impl Sip {
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.v;
        *a = a.wrapping_add(*b);
        *b = b.rotate_left(13) ^ *a;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*d);
        *d = d.rotate_left(16) ^ *c;
        *a = a.wrapping_add(*d);
        *d = d.rotate_left(21) ^ *a;
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    fn word(&mut self, m: u64) {
        self.v[3] ^= m;
        self.round();
        self.v[0] ^= m;
    }
}

/// Hashes `parts` as if each were preceded by its length, so that no two splits agree.
pub(crate) fn hash(key: LogKey, parts: &[&[u8]]) -> u64 {
    let mut sip = Sip {
        v: [
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ],
    };
    for part in parts {
        sip.word(part.len() as u64);
        let mut chunks = part.chunks_exact(8);
        for chunk in &mut chunks {
            let mut raw = [0; 8];
            raw.copy_from_slice(chunk);
            sip.word(u64::from_le_bytes(raw));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut raw = [0; 8];
            raw[..rest.len()].copy_from_slice(rest);
            sip.word(u64::from_le_bytes(raw));
        }
    }
    sip.v[2] ^= 0xff;
    sip.round();
    sip.round();
    sip.round();
    sip.v[0] ^ sip.v[1] ^ sip.v[2] ^ sip.v[3]
}

/// Spreads values that are hashes or counters already; no defence, only speed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread(u64);

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }

    fn write_u64(&mut self, v: u64) {
        let mixed = (self.0 ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Builds [`Spread`].
pub(crate) type BuildSpread = std::hash::BuildHasherDefault<Spread>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fixed_for_ever() {
        // The values are part of the format: side indexes and checkpoints hold them.
        assert_eq!(hash([1, 2], &[b"orders", b"id-1"]), 0xb989_4b9a_6743_665d);
        assert_ne!(
            hash([1, 2], &[b"orders", b"id-1"]),
            hash([1, 3], &[b"orders", b"id-1"])
        );
        assert_ne!(hash([1, 2], &[b"ab", b"c"]), hash([1, 2], &[b"a", b"bc"]));
        assert_ne!(hash([1, 2], &[b"a\0"]), hash([1, 2], &[b"a"]));
    }
}
