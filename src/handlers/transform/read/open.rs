//! Opens an object: is it still the one that the event speaks of, and what is
//! it packed with?

use crate::handlers::Failure;
use crate::handlers::objects::{Blob, BlobReader, Object, Place, Superseded};
use std::fs::Metadata;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far a reader has come, shared with whoever tells the progress.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes read from the file.
    pub bytes: AtomicU64,
    /// The file itself could not be read (as opposed to: it is corrupt).
    broken: AtomicBool,
}

/// An object opened for reading.
pub struct Opened {
    /// Its key.
    pub key: String,
    /// The object, for formats that need to seek.
    pub file: Blob,
    /// Its size in bytes.
    pub size: u64,
    /// How far it was read.
    pub meter: Arc<Meter>,
}

/// What tells two versions of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    mtime_ns: i128,
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.len(),
            mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        }
    }

    /// The etag that the folder source computes of it.
    #[must_use]
    pub fn etag(self) -> String {
        format!("{:x}-{:x}", self.size, self.mtime_ns)
    }
}

/// Looks whether the object is there and is the one that the event speaks of.
/// An object in a bucket is asked when it is opened, and at every read.
///
/// # Errors
/// `ObjectGone`, `ObjectChanged` (permanent), or a transient failure to look.
pub fn stamp(object: &Object) -> Result<Option<Stamp>, Failure> {
    let Place::File(path) = &object.place else {
        return Ok(None);
    };
    let meta = std::fs::metadata(path).map_err(|e| unreadable(&object.key, &e))?;
    if !meta.is_file() {
        return Err(Failure::permanent(
            "NotAFile",
            format!("`{}` is not a file", object.key),
        ));
    }
    let stamp = Stamp::of(&meta);
    let size_differs = object.size.is_some_and(|size| size != stamp.size);
    // Another kind of etag (a bucket's, a hash) says nothing that can be seen here.
    let etag_differs = object
        .etag
        .as_deref()
        .is_some_and(|etag| is_stamp(etag) && etag != stamp.etag());
    match size_differs || etag_differs {
        true => Err(changed(object, stamp.size)),
        false => Ok(Some(stamp)),
    }
}

fn changed(object: &Object, size: u64) -> Failure {
    let then = object
        .size
        .map_or_else(|| "?".to_owned(), |s| s.to_string());
    Failure::permanent(
        "ObjectChanged",
        format!(
            "`{}` is not what it was when the event was sent ({then} bytes then, {size} now); a newer event speaks of the new content",
            object.key
        ),
    )
}

/// Looks whether the object stayed as it was while it was read.
///
/// # Errors
/// `ObjectChanging`, transient: a retry sees what became of it.
pub fn unchanged(object: &Object, before: Option<Stamp>) -> Result<(), Failure> {
    let (Place::File(path), Some(before)) = (&object.place, before) else {
        return Ok(());
    };
    match std::fs::metadata(path) {
        Ok(meta) if Stamp::of(&meta) == before => Ok(()),
        _ => Err(Failure::transient(
            "ObjectChanging",
            format!("`{}` changed while it was being read", object.key),
        )),
    }
}

fn is_stamp(etag: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    etag.split_once('-')
        .is_some_and(|(size, time)| hex(size) && hex(time) && time.len() > 10)
}

/// What reading from a bucket has failed with: a format's reader may call it
/// corrupt content.
#[must_use]
pub fn trouble(key: &str, blob: &Blob) -> Option<Failure> {
    blob.trouble().map(|e| unreadable(key, e))
}

fn unreadable(key: &str, e: &io::Error) -> Failure {
    if e.get_ref().is_some_and(|cause| cause.is::<Superseded>()) {
        let message = format!(
            "`{key}` was replaced while it was being read; a newer event speaks of the new content"
        );
        return Failure::permanent("ObjectChanged", message);
    }
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::permanent(
            "ObjectGone",
            format!("`{key}` is gone: it was deleted or moved before it was read"),
        ),
        ErrorKind::PermissionDenied => Failure::permanent(
            "ObjectForbidden",
            format!("`{key}` may not be read by this program"),
        ),
        _ => Failure::transient("ReadFailed", format!("`{key}` could not be read")),
    }
    .caused_by(e)
}

/// Opens an object.
///
/// # Errors
/// When it is not there or may not be read.
pub fn open(object: &Object) -> Result<Opened, Failure> {
    let file = object
        .place
        .open()
        .map_err(|e| unreadable(&object.key, &e))?;
    let etag_differs =
        matches!((file.etag(), object.etag.as_deref()), (Some(is), Some(was)) if is != was);
    let stored = matches!(object.place, Place::Stored { .. });
    let size_differs = stored && object.size.is_some_and(|size| size != file.size());
    if etag_differs || size_differs {
        return Err(changed(object, file.size()));
    }
    Ok(Opened {
        key: object.key.clone(),
        size: file.size(),
        file,
        meter: Arc::default(),
    })
}

impl Opened {
    /// The content as a stream, unpacked.
    ///
    /// # Errors
    /// When it cannot be read, or is packed in a way that is not understood.
    pub fn unpacked(self) -> Result<Content, Failure> {
        let Self {
            key, file, meter, ..
        } = self;
        let mut counted = BufReader::with_capacity(
            256 << 10,
            Counted {
                inner: file.reader(0),
                meter: Arc::clone(&meter),
            },
        );
        let mut magic = [0_u8; 6];
        let got = read_full(&mut counted, &mut magic)
            .map_err(|e| trouble(&key, &file).unwrap_or_else(|| unreadable(&key, &e)))?;
        let head = Cursor::new(magic[..got].to_vec());
        let whole = head.chain(counted);
        let reader: Box<dyn Read + Send> = match &magic[..got] {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Box::new(zstd::stream::read::Decoder::new(whole).map_err(|e| unreadable(&key, &e))?)
            }
            [b'P', b'K', 3, 4, ..] => return Err(packed(&key, "a zip archive")),
            [b'B', b'Z', b'h', ..] => return Err(packed(&key, "packed with bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(packed(&key, "packed with xz")),
            [b'P', b'A', b'R', b'1', ..] => {
                return Err(Failure::permanent(
                    "WrongFormat",
                    format!("`{key}` is a Parquet file, not text; set `read.format: parquet`"),
                ));
            }
            _ => Box::new(whole),
        };
        Ok(Content {
            key,
            reader,
            meter,
            file: Some(file),
        })
    }
}

/// The unpacked content of an object.
pub struct Content {
    /// The object's key.
    pub key: String,
    reader: Box<dyn Read + Send>,
    meter: Arc<Meter>,
    /// What it is read from.
    file: Option<Blob>,
}

impl Content {
    /// Content from memory.
    #[cfg(test)]
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            key: "test".to_owned(),
            reader: Box::new(Cursor::new(bytes.into())),
            meter: Arc::default(),
            file: None,
        }
    }

    /// Reads some bytes; 0 at the end.
    ///
    /// # Errors
    /// Permanent when the content is corrupt, transient when the file cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.reader.read(buffer) {
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failure(&e)),
            }
        }
    }

    fn failure(&self, e: &io::Error) -> Failure {
        if self.meter.broken.load(Ordering::Relaxed) {
            let trouble = self.file.as_ref().and_then(|file| trouble(&self.key, file));
            return trouble.unwrap_or_else(|| unreadable(&self.key, e));
        }
        let what = match e.kind() {
            ErrorKind::UnexpectedEof => "is cut short: its packed content ends too early",
            _ => "is corrupt: it cannot be unpacked",
        };
        Failure::permanent("CorruptInput", format!("`{}` {what}", self.key)).caused_by(e)
    }
}

fn packed(key: &str, what: &str) -> Failure {
    Failure::permanent(
        "WrongFormat",
        format!("`{key}` is {what}; gzip and zstd are understood"),
    )
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

struct Counted {
    inner: BlobReader,
    meter: Arc<Meter>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(n) => {
                self.meter.bytes.fetch_add(n as u64, Ordering::Relaxed);
                Ok(n)
            }
            Err(e) => {
                if e.kind() != ErrorKind::Interrupted {
                    self.meter.broken.store(true, Ordering::Relaxed);
                }
                Err(e)
            }
        }
    }
}

/// Whether so many bytes of the start are control characters that this is no
/// text at all: about one in ten is in packed or random bytes.
#[must_use]
pub fn mostly_binary(head: &[u8]) -> bool {
    let head = &head[..head.len().min(4096)];
    let odd = |b: &&u8| b.is_ascii_control() && !b.is_ascii_whitespace();
    head.iter().filter(odd).count() * 33 > head.len()
}

/// Whether the first line (or what is there of it) is no text: a record with
/// odd bytes further down is that record's fault, not the file's.
#[must_use]
pub fn looks_binary(head: &[u8]) -> bool {
    let first = head.trim_ascii_start();
    let first = first.split(|b| *b == b'\n').next().unwrap_or_default();
    let valid = match std::str::from_utf8(first) {
        Ok(_) => true,
        // A character that the end of the sample cuts through is no fault.
        Err(e) => e.error_len().is_none(),
    };
    let odd = |b: &u8| b.is_ascii_control() && !b.is_ascii_whitespace();
    !valid || first.iter().any(odd)
}
