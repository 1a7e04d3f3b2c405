//! IP addresses and CIDR blocks, read as EventBridge reads them.
//!
//! What counts as an address is decided by two loose forms (four dotted
//! numbers; hex digits and colons), then by a strict reading: "010.0.0.1" is
//! 10.0.0.1, "::ffff:a00:1" is the IPv4 address it maps, and "::ffff:10.0.0.1"
//! is not an address, because it has both dots and colons.

use std::fmt;

/// An IPv4 or IPv6 address. The families never equal each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ip {
    /// An IPv4 address as a number.
    V4(u32),
    /// An IPv6 address as a number.
    V6(u128),
}

/// A block of addresses: all that share the first `mask` bits of `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The lowest address of the block (host bits are zero).
    pub base: Ip,
    /// The number of leading bits that must agree: 0..=31 for IPv4, 0..=127
    /// for IPv6.
    pub mask: u8,
}

/// The outcome of looking at a string as an address.
pub(crate) enum Looks {
    /// It does not have the form of an address at all.
    Unlike,
    /// It has the form, but no such address exists ("300.1.1.1").
    Invalid,
    Address(Ip),
}

impl Ip {
    /// Reads an address; `None` if the text is not one.
    pub(crate) fn parse(text: &[u8]) -> Option<Ip> {
        match Ip::look(text) {
            Looks::Address(ip) => Some(ip),
            Looks::Unlike | Looks::Invalid => None,
        }
    }

    pub(crate) fn look(text: &[u8]) -> Looks {
        let found = if is_v4_form(text) {
            parse_v4(text).map(Ip::V4)
        } else if is_v6_form(text) {
            parse_v6(text).map(unmap)
        } else {
            return Looks::Unlike;
        };
        found.map_or(Looks::Invalid, Looks::Address)
    }

    /// The first `mask` bits, the others zero.
    pub(crate) fn masked(self, mask: u8) -> Ip {
        match self {
            Ip::V4(bits) => Ip::V4(bits & u32::MAX.checked_shl(32 - u32::from(mask)).unwrap_or(0)),
            Ip::V6(bits) => {
                Ip::V6(bits & u128::MAX.checked_shl(128 - u32::from(mask)).unwrap_or(0))
            }
        }
    }
}

impl Cidr {
    /// Reads `address/bits`. The error is EventBridge's reason.
    pub(crate) fn parse(text: &str) -> Result<Cidr, String> {
        // Empty parts at the end do not count, as with Java's split.
        let mut parts: Vec<&str> = text.split('/').collect();
        while parts.len() > 1 && parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
        let [address, bits] = parts[..] else {
            return Err("Malformed CIDR, one '/' required".to_owned());
        };
        let Ok(bits) = bits.parse::<i32>() else {
            return Err("Malformed CIDR, mask bits must be an integer".to_owned());
        };
        if bits < 0 {
            return Err("Malformed CIDR, mask bits must not be negative".to_owned());
        }
        let base = match Ip::look(address.as_bytes()) {
            Looks::Address(ip) => ip,
            Looks::Invalid => return Err(format!("Invalid IP address: {address}")),
            Looks::Unlike => return Err(format!("Nonstandard IP address: {address}")),
        };
        let (limit, family) = match base {
            Ip::V4(_) => (32, 4),
            Ip::V6(_) => (128, 6),
        };
        match u8::try_from(bits) {
            Ok(mask) if mask < limit => Ok(Cidr {
                base: base.masked(mask),
                mask,
            }),
            _ => Err(format!("IPv{family} mask bits must be < {limit}")),
        }
    }

    pub(crate) fn contains(&self, ip: Ip) -> bool {
        match (self.base, ip) {
            (Ip::V4(_), Ip::V4(_)) | (Ip::V6(_), Ip::V6(_)) => ip.masked(self.mask) == self.base,
            _ => false,
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ip::V4(bits) => std::net::Ipv4Addr::from(*bits).fmt(f),
            Ip::V6(bits) => std::net::Ipv6Addr::from(*bits).fmt(f),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.mask)
    }
}

/// Four numbers with dots between them.
fn is_v4_form(text: &[u8]) -> bool {
    let mut parts = 0;
    for part in text.split(|byte| *byte == b'.') {
        if part.is_empty() || !part.iter().all(u8::is_ascii_digit) {
            return false;
        }
        parts += 1;
    }
    parts == 4
}

/// Hex digits and at least one colon.
fn is_v6_form(text: &[u8]) -> bool {
    text.contains(&b':')
        && text
            .iter()
            .all(|byte| *byte == b':' || byte.is_ascii_hexdigit())
}

fn parse_v4(text: &[u8]) -> Option<u32> {
    // Longer spellings are taken for host names.
    if text.len() > 15 {
        return None;
    }
    text.split(|byte| *byte == b'.')
        .try_fold(0_u32, |bits, part| {
            let number = part
                .iter()
                .fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            (number <= 255).then_some(bits << 8 | number as u32)
        })
}

/// Groups of hex digits (any number of leading zeros), `::` at most once and
/// for at least one group.
fn parse_v6(text: &[u8]) -> Option<u128> {
    let text = std::str::from_utf8(text).ok()?;
    let (head, tail) = match text.split_once("::") {
        Some((head, tail)) => (head, Some(tail)),
        None => (text, None),
    };
    let mut groups = [0_u16; 8];
    let before = parse_groups(head, &mut groups)?;
    let Some(tail) = tail else {
        return (before == 8).then(|| join(&groups));
    };
    let mut last = [0_u16; 8];
    let after = parse_groups(tail, &mut last)?;
    if before + after > 7 {
        return None;
    }
    groups[8 - after..].copy_from_slice(&last[..after]);
    Some(join(&groups))
}

/// Reads colon-separated groups; `None` if one is empty, too large or a ninth.
fn parse_groups(text: &str, groups: &mut [u16; 8]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    let mut count = 0;
    for part in text.split(':') {
        let digits = part.trim_start_matches('0');
        let group = match (part.is_empty(), digits.is_empty()) {
            (true, _) => return None,
            (false, true) => 0,
            (false, false) => u16::from_str_radix(digits, 16).ok()?,
        };
        *groups.get_mut(count)? = group;
        count += 1;
    }
    Some(count)
}

fn join(groups: &[u16; 8]) -> u128 {
    groups
        .iter()
        .fold(0, |bits, group| bits << 16 | u128::from(*group))
}

/// An IPv4-mapped address is the IPv4 address.
fn unmap(bits: u128) -> Ip {
    if bits >> 32 == 0xFFFF {
        Ip::V4(bits as u32)
    } else {
        Ip::V6(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let v4 = |text: &str| Ip::parse(text.as_bytes());
        assert_eq!(v4("10.0.0.1"), Some(Ip::V4(0x0A00_0001)));
        assert_eq!(v4("010.0.0.001"), Some(Ip::V4(0x0A00_0001)));
        assert_eq!(v4("2001:0DB8:0:0:0:0:0:1"), v4("2001:db8::1"));
        assert_eq!(v4("::ffff:a00:1"), v4("10.0.0.1"));
        for text in [
            "300.1.1.1",
            "1.2.3",
            "::ffff:10.0.0.1",
            ":",
            "1:",
            ":1",
            "1:::2",
            "",
            "1::2::3",
        ] {
            assert_eq!(v4(text), None, "{text}");
        }
        assert_eq!(v4("::"), Some(Ip::V6(0)));
        assert_eq!(
            v4("1:2:3:4:5:6:7::"),
            Some(Ip::V6(0x0001_0002_0003_0004_0005_0006_0007_0000))
        );
        assert_eq!(v4("1:2:3:4:5:6:7:8::"), None);
    }

    #[test]
    fn blocks() {
        let block = Cidr::parse("10.0.0.77/24").unwrap();
        assert!(block.contains(Ip::V4(0x0A00_00FF)));
        assert!(!block.contains(Ip::V4(0x0A00_0100)));
        assert!(!block.contains(Ip::V6(0x0A00_0001)));
        assert!(Cidr::parse("::/0").unwrap().contains(Ip::V6(u128::MAX)));
        assert_eq!(
            Cidr::parse("10.0.0.0/32").unwrap_err(),
            "IPv4 mask bits must be < 32"
        );
        assert_eq!(
            Cidr::parse("10.0.0.0/").unwrap_err(),
            "Malformed CIDR, one '/' required"
        );
    }
}
