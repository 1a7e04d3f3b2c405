//! The writing end of the log: one file, one end, and what of it is synced.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::BusError;
use super::record::{self, Sum};
use super::segment;
use super::siphash::LogKey;
use crate::storage::{File, FileSystem, Mode};

/// Appends records to the active segment.
pub(crate) struct Appender {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    pub key: LogKey,
    pub id: u32,
    pub salt: u64,
    pub file: Arc<dyn File>,
    /// Where the next record begins.
    pub len: u64,
    /// All before this offset is durable.
    pub synced: u64,
    /// The two newest segments that begin with the whole state, older first; 0 for none.
    pub checkpoints: [u32; 2],
    /// Bytes written since the last full checkpoint began.
    pub since_checkpoint: u64,
    /// All bytes ever written through this appender.
    pub written: u64,
}

/// A write that failed.
pub(crate) enum WriteFailure {
    /// The disk is full; nothing was written and the log is as it was.
    Full(BusError),
    /// The end of the log is no longer known.
    Broken(BusError),
}

impl Appender {
    /// Takes over `file`, whose sound and synced end is `len`.
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        key: LogKey,
        id: u32,
        file: Arc<dyn File>,
        len: u64,
    ) -> Self {
        let salt = segment::salt(key, id);
        Self {
            fs,
            dir,
            key,
            id,
            salt,
            file,
            len,
            synced: len,
            checkpoints: [0, 0],
            since_checkpoint: len,
            written: 0,
        }
    }

    /// Path of the active segment.
    pub(crate) fn path(&self) -> PathBuf {
        segment::path(&self.dir, self.id)
    }

    /// Writes a record begun with [`record::begin`]; returns where it stands. Not synced.
    pub(crate) fn append(&mut self, record: &mut [u8]) -> Result<u64, WriteFailure> {
        let sum = Sum::new(self.salt, self.len, record);
        self.append_parts(record, &[], sum)
    }

    /// The same for a record that begins with `head` and goes on with `parts`, all of
    /// which `sum` has seen.
    pub(crate) fn append_parts(
        &mut self,
        head: &mut [u8],
        parts: &[&[u8]],
        sum: Sum,
    ) -> Result<u64, WriteFailure> {
        let offset = self.len;
        let len = sum.len as u64;
        if offset + len > u64::from(u32::MAX) {
            let too_large = BusError::TooLarge {
                what: "segment",
                size: offset + len,
                limit: u64::from(u32::MAX),
            };
            return Err(WriteFailure::Full(too_large));
        }
        sum.finish(head, parts, offset);
        let written = if parts.is_empty() {
            self.file.write_at(offset, head)
        } else {
            let mut all: Vec<&[u8]> = Vec::with_capacity(1 + parts.len());
            all.push(head);
            all.extend_from_slice(parts);
            self.file.write_parts_at(offset, &all)
        };
        if let Err(e) = written {
            return Err(self.after_failed_write(offset, &e));
        }
        self.len += len;
        self.since_checkpoint += len;
        self.written += len;
        Ok(offset)
    }

    fn after_failed_write(&self, offset: u64, error: &io::Error) -> WriteFailure {
        let failed = BusError::io("write", self.path(), error);
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        // A full disk refuses before it takes; cutting off what it took of this record
        // leaves the log as it was. After anything else the end is not known.
        if full && self.file.truncate(offset).is_ok() {
            WriteFailure::Full(failed)
        } else {
            WriteFailure::Broken(failed)
        }
    }

    /// Goes on in a new segment, which begins with `first` (a checkpoint record).
    /// Neither the old file nor the new one is synced; the folder is. Returns the old
    /// file and its length.
    pub(crate) fn roll(
        &mut self,
        first: &mut [u8],
        full: bool,
        now_ms: i64,
    ) -> Result<(Arc<dyn File>, u64), WriteFailure> {
        let id = self.id + 1;
        let path = segment::path(&self.dir, id);
        let header = segment::Header {
            id,
            key: self.key,
            created_ms: now_ms,
        };
        let salt = header.salt();
        record::finish(first, salt, segment::HEADER as u64);
        let mut head = header.encode().to_vec();
        head.extend_from_slice(first);
        let file = self.create(&path, &head).map_err(|(action, e)| {
            let failed = BusError::io(action, path.clone(), &e);
            let full = matches!(
                e.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            if full && self.fs.remove(&path).is_ok() {
                WriteFailure::Full(failed)
            } else {
                WriteFailure::Broken(failed)
            }
        })?;
        let old = (std::mem::replace(&mut self.file, file), self.len);
        self.id = id;
        self.salt = salt;
        self.len = head.len() as u64;
        self.written += self.len;
        self.synced = 0;
        if full {
            self.checkpoints = [self.checkpoints[1], id];
        }
        self.since_checkpoint = if full {
            0
        } else {
            self.since_checkpoint + self.len
        };
        Ok(old)
    }

    fn create(
        &self,
        path: &std::path::Path,
        head: &[u8],
    ) -> Result<Arc<dyn File>, (&'static str, io::Error)> {
        let file = self
            .fs
            .open(path, Mode::Truncate)
            .map_err(|e| ("create", e))?;
        file.write_at(0, head).map_err(|e| ("write", e))?;
        self.fs.sync_dir(&self.dir).map_err(|e| ("sync", e))?;
        Ok(file)
    }
}

/// Writes the first segment of a new log, or one after a start that found none to go
/// on with, and syncs it.
pub(crate) fn create_segment(
    fs: &dyn FileSystem,
    dir: &std::path::Path,
    header: segment::Header,
    first: &mut [u8],
) -> Result<(Arc<dyn File>, u64), BusError> {
    let path = segment::path(dir, header.id);
    record::finish(first, header.salt(), segment::HEADER as u64);
    let mut head = header.encode().to_vec();
    head.extend_from_slice(first);
    let failed =
        |action| move |e: io::Error| BusError::io(action, segment::path(dir, header.id), &e);
    let file = fs.open(&path, Mode::Truncate).map_err(failed("create"))?;
    file.write_at(0, &head).map_err(failed("write"))?;
    file.sync_data().map_err(failed("sync"))?;
    fs.sync_dir(dir)
        .map_err(|e| BusError::io("sync", dir, &e))?;
    Ok((file, head.len() as u64))
}
