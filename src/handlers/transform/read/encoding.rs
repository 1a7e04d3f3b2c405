//! Text in other encodings becomes UTF-8 on its way in.
//!
//! A byte order mark has the last word, as the WHATWG Encoding Standard has it;
//! so do the labels: `latin1` means windows-1252. Bytes that are no character
//! of the encoding become a byte that is no UTF-8, so that they break the one
//! record that they are in and are not taken for something else.

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use std::io::{self, Read};

/// How much is decoded at once.
const CHUNK: usize = 64 << 10;
/// Never part of UTF-8.
const BROKEN: u8 = 0xff;

/// The encoding of a text by its first bytes, and the length of its mark.
#[must_use]
pub fn marked(head: &[u8]) -> Option<(&'static Encoding, usize)> {
    Encoding::for_bom(head)
}

/// Decodes `reader`, whose first bytes are `head`, into UTF-8.
pub fn decoded(
    head: &[u8],
    reader: Box<dyn Read + Send>,
    declared: Option<&'static Encoding>,
) -> io::Result<Box<dyn Read + Send>> {
    let (encoding, mark) = match marked(head) {
        Some((encoding, mark)) if encoding == UTF_16LE || encoding == UTF_16BE => (encoding, mark),
        // The mark of UTF-8 is passed over where lines are counted.
        Some(_) => return Ok(reader),
        None => (declared.unwrap_or(UTF_8), 0),
    };
    if encoding == UTF_8 {
        return Ok(reader);
    }
    let mut reader = reader;
    io::copy(&mut reader.by_ref().take(mark as u64), &mut io::sink())?;
    Ok(Box::new(Decoding {
        inner: reader,
        decoder: encoding.new_decoder_without_bom_handling(),
        raw: vec![0; CHUNK],
        raw_at: (0, 0),
        last: false,
        done: false,
        out: vec![0; CHUNK],
        out_at: (0, 0),
    }))
}

struct Decoding {
    inner: Box<dyn Read + Send>,
    decoder: Decoder,
    raw: Vec<u8>,
    /// Start and end of what is not decoded yet.
    raw_at: (usize, usize),
    /// The inner reader has ended.
    last: bool,
    /// The decoder has ended.
    done: bool,
    out: Vec<u8>,
    /// Start and end of what is not handed out yet.
    out_at: (usize, usize),
}

impl Decoding {
    fn refill(&mut self) -> io::Result<()> {
        if self.raw_at.0 == self.raw_at.1 && !self.last {
            let got = self.inner.read(&mut self.raw)?;
            self.raw_at = (0, got);
            self.last = got == 0;
        }
        let room = self.out.len() - 1;
        let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(
            &self.raw[self.raw_at.0..self.raw_at.1],
            &mut self.out[..room],
            self.last,
        );
        self.raw_at.0 += read;
        self.out_at = (0, written);
        match result {
            DecoderResult::Malformed(..) => {
                self.out[written] = BROKEN;
                self.out_at.1 += 1;
            }
            DecoderResult::InputEmpty => self.done = self.last,
            DecoderResult::OutputFull => {}
        }
        Ok(())
    }
}

impl Read for Decoding {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.out_at.0 == self.out_at.1 {
            if self.done {
                return Ok(0);
            }
            self.refill()?;
        }
        let ready = &self.out[self.out_at.0..self.out_at.1];
        let n = ready.len().min(buffer.len());
        buffer[..n].copy_from_slice(&ready[..n]);
        self.out_at.0 += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], declared: Option<&str>) -> Vec<u8> {
        let declared = declared.and_then(|label| Encoding::for_label(label.as_bytes()));
        let reader = Box::new(io::Cursor::new(bytes.to_vec()));
        let mut out = Vec::new();
        decoded(bytes, reader, declared)
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn a_mark_or_the_label_names_the_encoding() {
        let utf16: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain("aä€\n".encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        assert_eq!(read(&utf16, None), "aä€\n".as_bytes());
        assert_eq!(read(&utf16, Some("latin1")), "aä€\n".as_bytes());
        assert_eq!(read(b"caf\xe9 \x80", Some("latin1")), "café €".as_bytes());
        assert_eq!(read(&utf16[2..], Some("utf-16le")), "aä€\n".as_bytes());
        assert_eq!(read("ä".as_bytes(), None), "ä".as_bytes());
    }

    #[test]
    fn what_is_no_character_stays_broken() {
        // A lone surrogate, then `b`.
        let lone = [0xff, 0xfe, b'a', 0, 0x00, 0xd8, b'b', 0];
        let read = read(&lone, None);
        assert_eq!(read, [b'a', BROKEN, b'b']);
    }

    #[test]
    fn long_texts_are_decoded_in_pieces() {
        let text = "äöü€".repeat(50_000);
        let utf16: Vec<u8> = [0xfe, 0xff]
            .into_iter()
            .chain(text.encode_utf16().flat_map(u16::to_be_bytes))
            .collect();
        assert_eq!(read(&utf16, None), text.as_bytes());
    }
}
