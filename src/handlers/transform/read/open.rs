//! Opens an object: is it still the one that the event speaks of?

use crate::handlers::Failure;
use crate::handlers::objects::{Blob, Object, Place, Superseded};
use std::fs::Metadata;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How far a reader has come, shared with whoever tells the progress.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes read from the file.
    pub bytes: AtomicU64,
    /// The file itself could not be read (as opposed to: it is corrupt).
    broken: AtomicBool,
    /// What is read.
    blob: OnceLock<Blob>,
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

    /// The size in bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        self.size
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

/// Why a file cannot be opened or read.
pub fn unreadable(key: &str, e: &io::Error) -> Failure {
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
    let meter = Meter::default();
    // It was just made, so it has none yet.
    drop(meter.blob.set(file.clone()));
    Ok(Opened {
        key: object.key.clone(),
        size: file.size(),
        file,
        meter: Arc::new(meter),
    })
}

impl Meter {
    /// Counts what was read from the file, and notes that it cannot be read.
    pub fn note(&self, result: &io::Result<usize>) {
        match result {
            Ok(n) => self.add(*n as u64),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.broken.store(true, Ordering::Relaxed),
        }
    }

    /// Counts bytes of the file.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What reading the object itself failed with, if it did.
    #[must_use]
    pub fn trouble(&self, key: &str, e: &io::Error) -> Option<Failure> {
        let stored = self.blob.get().and_then(|blob| trouble(key, blob));
        let broken = self.broken.load(Ordering::Relaxed);
        stored.or_else(|| broken.then(|| unreadable(key, e)))
    }
}

/// The unpacked content of an object, or of a member of one.
pub struct Content {
    /// The object's key; a member's name follows after a `!`.
    pub key: String,
    reader: Box<dyn Read + Send>,
    meter: Arc<Meter>,
}

impl Content {
    /// Content of `key`.
    #[must_use]
    pub fn new(key: String, reader: Box<dyn Read + Send>, meter: Arc<Meter>) -> Self {
        Self { key, reader, meter }
    }

    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(String::new(), Box::new(io::empty()), Arc::default())
    }

    /// Content from memory.
    #[cfg(test)]
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        let reader = Box::new(io::Cursor::new(bytes.into()));
        Self::new("test".to_owned(), reader, Arc::default())
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
                Err(e) => return Err(super::unpack::failure(&self.key, &self.meter, &e)),
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
