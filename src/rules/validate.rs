//! Strict checking of a whole event.

use super::blocks::{self, Map};
use super::error::EventFault;
use super::scan::{self, Fault};
use super::strict;
use super::text;

/// The open containers, one bit each (1: object); kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Stack {
    words: Vec<u64>,
    depth: usize,
}

impl Stack {
    pub fn clear(&mut self) {
        self.words.clear();
        self.depth = 0;
    }

    pub fn push(&mut self, object: bool) {
        if self.depth.is_multiple_of(64) {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word = *word << 1 | u64::from(object);
        }
        self.depth += 1;
    }

    /// Closes the innermost container.
    pub fn pop(&mut self) {
        self.depth -= 1;
        if self.depth.is_multiple_of(64) {
            self.words.pop();
        } else if let Some(word) = self.words.last_mut() {
            *word >>= 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.depth == 0
    }

    /// Whether the innermost container is an object.
    pub fn in_object(&self) -> bool {
        self.words.last().is_some_and(|word| word & 1 == 1)
    }
}

/// Checks that `event`, whose map is given, is one well-formed JSON object and
/// nothing else.
pub(super) fn check(event: &[u8], map: &Map, stack: &mut Stack) -> Result<(), Fault> {
    if strict::is_well_formed(event, stack) {
        return Ok(());
    }
    if let Err(error) = std::str::from_utf8(event) {
        return Err((EventFault::BadUtf8, error.valid_up_to()));
    }
    stack.clear();
    let mut check = Check { event, map, at: 0 };
    match check.peek() {
        Some(b'{') => check.at += 1,
        Some(_) => return Err((EventFault::NotAnObject, check.at)),
        None => return Err((EventFault::Truncated, check.at)),
    }
    stack.push(true);
    check.containers(stack)?;
    match check.peek() {
        None => Ok(()),
        Some(_) => Err((EventFault::TrailingText, check.at)),
    }
}

struct Check<'e> {
    event: &'e [u8],
    map: &'e Map,
    at: usize,
}

impl Check<'_> {
    /// The next byte that is not space.
    #[inline(always)]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.event.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn expect(&mut self) -> Result<u8, Fault> {
        self.peek().ok_or((EventFault::Truncated, self.at))
    }

    /// Reads to the end of the outermost container.
    fn containers(&mut self, stack: &mut Stack) -> Result<(), Fault> {
        let mut fresh = true;
        while stack.depth > 0 {
            let object = stack.in_object();
            let mut byte = self.expect()?;
            if byte == if object { b'}' } else { b']' } {
                self.at += 1;
                stack.pop();
                fresh = false;
                continue;
            }
            if !fresh {
                match byte {
                    b',' => self.at += 1,
                    b'}' | b']' => return Err((EventFault::MismatchedBracket, self.at)),
                    _ => return Err((EventFault::ExpectedComma, self.at)),
                }
                byte = self.expect()?;
            }
            fresh = false;
            if object {
                self.key(byte)?;
                byte = self.expect()?;
            }
            match byte {
                b'{' | b'[' => {
                    stack.push(byte == b'{');
                    self.at += 1;
                    fresh = true;
                }
                b'"' => self.string()?,
                _ => self.scalar()?,
            }
        }
        Ok(())
    }

    #[inline]
    fn key(&mut self, byte: u8) -> Result<(), Fault> {
        if byte != b'"' {
            return Err((EventFault::ExpectedKey, self.at));
        }
        self.string()?;
        if self.expect()? != b':' {
            return Err((EventFault::ExpectedColon, self.at));
        }
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn string(&mut self) -> Result<(), Fault> {
        let start = self.at + 1;
        if self.map.controls {
            return self.careful_string();
        }
        let Some(end) = blocks::next_quote(&self.map.blocks, start) else {
            return Err((EventFault::Truncated, self.event.len()));
        };
        if self.map.backslashes && memchr::memchr(b'\\', &self.event[start..end]).is_some() {
            return self.careful_string();
        }
        self.at = end + 1;
        Ok(())
    }

    /// Byte for byte, to check escapes and to find a control character.
    fn careful_string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            let rest = &self.event[self.at..];
            let plain = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            let Some(plain) = plain else {
                return Err((EventFault::Truncated, self.event.len()));
            };
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at +=
                        text::escape_len(&rest[plain..]).ok_or((EventFault::BadEscape, self.at))?;
                }
                _ => return Err((EventFault::ControlCharacter, self.at)),
            }
        }
    }

    #[inline(always)]
    fn scalar(&mut self) -> Result<(), Fault> {
        let (len, _) = scan::scalar(&self.event[self.at..]).map_err(|fault| (fault, self.at))?;
        self.at += len;
        Ok(())
    }
}
