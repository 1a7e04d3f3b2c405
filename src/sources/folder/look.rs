//! What the file system says of one file, and the paths that name it.

use rustix::fs::{FileType, Stat};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path relative to the root, as bytes: names need not be UTF-8.
pub type Key = Vec<u8>;

/// The members of a `stat` that tell a version of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of content or metadata; nobody can set it.
    pub ctime_ns: i64,
    /// Blocks of 512 bytes that are allotted.
    pub blocks: u64,
}

impl Look {
    /// Reads a `stat`.
    #[must_use]
    pub fn of(stat: &Stat) -> Self {
        Self {
            dev: wide(stat.st_dev),
            ino: wide(stat.st_ino),
            size: wide(stat.st_size),
            mtime_ns: nanos(wide_signed(stat.st_mtime), wide(stat.st_mtime_nsec)),
            ctime_ns: nanos(wide_signed(stat.st_ctime), wide(stat.st_ctime_nsec)),
            blocks: wide(stat.st_blocks),
        }
    }

    /// Whether both are the same version, as far as size and time tell.
    #[must_use]
    pub fn same_version(&self, other: &Self) -> bool {
        self.size == other.size && self.mtime_ns == other.mtime_ns
    }

    /// Device and inode.
    #[must_use]
    pub fn id(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// `mtime` in milliseconds.
    #[must_use]
    pub fn mtime_ms(&self) -> i64 {
        self.mtime_ns.div_euclid(1_000_000)
    }

    /// `ctime` in milliseconds.
    #[must_use]
    pub fn ctime_ms(&self) -> i64 {
        self.ctime_ns.div_euclid(1_000_000)
    }
}

/// Whether a `stat` is of a regular file, a folder, a link or something else.
#[must_use]
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

// The members' types differ between processors.
fn wide<T: TryInto<u64>>(value: T) -> u64 {
    value.try_into().unwrap_or(0)
}

fn wide_signed<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(0)
}

fn nanos(seconds: i64, nanos: u64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::try_from(nanos).unwrap_or(0))
}

/// The path of `key` below `root`.
#[must_use]
pub fn full(root: &Path, key: &[u8]) -> PathBuf {
    if key.is_empty() {
        return root.to_owned();
    }
    root.join(OsStr::from_bytes(key))
}

/// Folder and name of a key; the root's folder is empty.
#[must_use]
pub fn split(key: &[u8]) -> (&[u8], &[u8]) {
    match key.iter().rposition(|b| *b == b'/') {
        Some(at) => (&key[..at], &key[at + 1..]),
        None => (&[], key),
    }
}

/// The key of `name` in `dir`.
#[must_use]
pub fn join(dir: &[u8], name: &[u8]) -> Key {
    if dir.is_empty() {
        return name.to_vec();
    }
    let mut key = Vec::with_capacity(dir.len() + 1 + name.len());
    key.extend_from_slice(dir);
    key.push(b'/');
    key.extend_from_slice(name);
    key
}

/// Whether `key` is `dir` or below it.
#[must_use]
pub fn is_below(key: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || (key.starts_with(dir) && (key.len() == dir.len() || key[dir.len()] == b'/'))
}

/// A key for people.
#[must_use]
pub fn show(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
