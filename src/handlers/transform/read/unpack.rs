//! What an object is packed with, told by its first bytes and never by its
//! name: gzip (all members), zstd, bzip2, xz; tar and zip archives.

use super::encoding::decoded;
use super::members::{self, Members};
use super::open::{Content, Meter, Opened};
use crate::handlers::Failure;
use crate::handlers::objects::BlobReader;
use crate::handlers::transform::options::ReadOptions;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::sync::Arc;

/// Memory that unpacking xz may take; its largest preset takes 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// As much of the start as tells a tar archive.
const HEAD: usize = 512;

/// An object, unpacked.
pub enum Unpacked {
    /// A stream of text (or of what is none).
    Text(Content),
    /// A Parquet file.
    Parquet(Opened),
    /// An archive.
    Members(Members),
}

/// A stream of bytes on its way.
pub type Bytes = Box<dyn Read + Send>;

/// Unpacks an object.
///
/// # Errors
/// When it cannot be read.
pub fn unpack(opened: Opened, options: &ReadOptions) -> Result<Unpacked, Failure> {
    let mut head = [0; HEAD];
    let got = read_full(&mut opened.file.reader(0), &mut head)
        .map_err(|e| failure(&opened.key, &opened.meter, &e))?;
    match &head[..got] {
        [b'P', b'A', b'R', b'1', ..] => return Ok(Unpacked::Parquet(opened)),
        // An archive with members, without any, and one that is split.
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..] => {
            return members::zip(opened, options).map(Unpacked::Members);
        }
        _ => {}
    }
    let Opened {
        key, file, meter, ..
    } = opened;
    let counted = Counted {
        inner: file.reader(0),
        meter: Arc::clone(&meter),
    };
    let failed = |e: &io::Error| failure(&key, &meter, e);
    let raw: Bytes = Box::new(BufReader::with_capacity(256 << 10, counted));
    let plain = decompressed(raw, &key, options.max_unpacked).map_err(|e| failed(&e))?;
    let (head, plain) = peeked(plain).map_err(|e| failed(&e))?;
    if is_tar(&head) {
        return members::tar(key, meter, plain, options).map(Unpacked::Members);
    }
    let text = decoded(&head, plain, options.encoding).map_err(|e| failed(&e))?;
    Ok(Unpacked::Text(Content::new(key, text, meter)))
}

/// The content of a stream that may be compressed, at most `limit` bytes of it then.
pub fn decompressed(reader: Bytes, key: &str, limit: u64) -> io::Result<Bytes> {
    let (head, whole) = peeked(reader)?;
    let unpacked: Bytes = match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        // The block's magic, too: a text may well begin with `BZh`.
        [
            b'B',
            b'Z',
            b'h',
            b'1'..=b'9',
            0x31,
            0x41,
            0x59,
            0x26,
            0x53,
            0x59,
            ..,
        ]
        | [
            b'B',
            b'Z',
            b'h',
            b'1'..=b'9',
            0x17,
            0x72,
            0x45,
            0x38,
            0x50,
            0x90,
            ..,
        ] => Box::new(bzip2::read::MultiBzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            use liblzma::stream::{CONCATENATED, Stream};
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(liblzma::read::XzDecoder::new_stream(whole, stream))
        }
        _ => return Ok(whole),
    };
    Ok(Box::new(Limited {
        inner: unpacked,
        left: limit,
        limit,
        key: key.to_owned(),
    }))
}

/// The first bytes of a stream, and the whole stream.
pub fn peeked(mut reader: Bytes) -> io::Result<(Vec<u8>, Bytes)> {
    let mut head = vec![0; HEAD];
    let got = read_full(&mut reader, &mut head)?;
    head.truncate(got);
    let whole = Box::new(Cursor::new(head.clone()).chain(reader));
    Ok((head, whole))
}

/// Whether these are the first bytes of a tar archive.
pub fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// What reading failed with: the file, the packing, or a limit.
pub fn failure(key: &str, meter: &Meter, e: &io::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = e
        .get_ref()
        .map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Failure>() {
            return ours.clone();
        }
        cause = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    if let Some(trouble) = meter.trouble(key, e) {
        return trouble;
    }
    let what = match e.kind() {
        ErrorKind::UnexpectedEof => "is cut short: its packed content ends too early",
        _ => "is corrupt: it cannot be unpacked",
    };
    Failure::permanent("CorruptInput", format!("`{key}` {what}")).caused_by(e)
}

/// A stream that fails when it is longer than allowed.
pub struct Limited {
    pub inner: Bytes,
    pub left: u64,
    pub limit: u64,
    pub key: String,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => {
                self.left = left;
                Ok(n)
            }
            None => Err(io::Error::other(too_large(&self.key, self.limit))),
        }
    }
}

/// An object unpacks to more than is allowed.
pub fn too_large(key: &str, limit: u64) -> Failure {
    Failure::permanent(
        "TooLarge",
        format!("`{key}` unpacks to more than {limit} bytes; `read.max_unpacked` allows no more"),
    )
}

struct Counted {
    inner: BlobReader,
    meter: Arc<Meter>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        self.meter.note(&result);
        result
    }
}
