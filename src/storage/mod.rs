//! The file system, as a seam: the real one, and a twin in memory that fails on demand.
//!
//! Only what a log needs: positioned reads and writes, explicit syncs of files and of
//! folders, atomic rename, locks. Nothing here syncs by itself.

pub mod faulty;
mod gated;
mod real;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use faulty::{Faults, Memory};
pub use gated::{Gate, Gated};
pub use real::Real;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It must exist; read only.
    Read,
    /// It must exist; read and write.
    Write,
    /// Created when missing; read and write, contents kept.
    Create,
    /// Created or emptied; read and write.
    Truncate,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name without its folder. Names that are not Unicode are left out of listings.
    pub name: String,
    /// Size in bytes; 0 for a folder.
    pub len: u64,
}

/// Why a lock was not got.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it; what the file says about them, trimmed.
    Held(String),
    /// The operating system failed.
    Io(io::Error),
}

/// Keeps a lock until it is dropped.
pub trait Lock: Send + Sync {}

/// An open file. All methods take `&self`, so that readers share a handle.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; 0 means the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `data` at `offset`. After an error any part may be written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Writes all of `parts`, one behind the other, at `offset`. After an error any part
    /// may be written.
    fn write_parts_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_at(offset, &parts.concat())
    }
    /// Makes data and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// The size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Writes `data` at the end and returns where it begins. Only for a single writer.
    fn append(&self, data: &[u8]) -> io::Result<u64> {
        let at = self.len()?;
        self.write_at(at, data)?;
        Ok(at)
    }

    /// Fills `buf` from `offset`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(offset + done as u64, &mut buf[done..]) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("{} of {} bytes at {offset}", done, buf.len()),
                    ));
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Files by path.
pub trait FileSystem: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>>;
    /// Creates a folder and its parents; no error when it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// What a folder holds, by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Replaces `to` by `from` atomically. Durable after [`FileSystem::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`FileSystem::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that an unprivileged process may still write on the disk of `path`.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock `path` without waiting, and writes the process id
    /// into it.
    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError>;
}

/// Reads a whole file.
pub fn read_all(fs: &dyn FileSystem, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path, Mode::Read)?;
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut data = vec![0; len];
    file.read_exact_at(0, &mut data)?;
    Ok(data)
}
