//! The machine's file system.

use std::fs;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Entry, File, FileSystem, Lock, LockError, Mode};

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

impl Real {
    /// The machine's file system, ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn FileSystem> {
        Arc::new(Self)
    }
}

struct RealFile(fs::File);

/// Linux takes no more parts in one call (`IOV_MAX`).
const MOST_PARTS: usize = 1024;

impl File for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn write_parts_at(&self, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let some = &left[..left.len().min(MOST_PARTS)];
            let written = match rustix::io::pwritev(&self.0, some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

struct RealLock {
    // The lock is the operating system's and goes with the descriptor.
    _file: fs::File,
}

impl Lock for RealLock {}

impl FileSystem for Real {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            Mode::Read => &mut options,
            Mode::Write => options.write(true),
            Mode::Create => options.write(true).create(true),
            Mode::Truncate => options.write(true).create(true).truncate(true),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Removed between the listing and the look.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let len = if meta.is_file() { meta.len() } else { 0 };
            entries.push(Entry { name, len });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is only for the message; the lock itself is the fact.
                let _ = file.read_to_string(&mut holder);
                return Err(LockError::Held(holder.trim().to_owned()));
            }
            Err(fs::TryLockError::Error(e)) => return Err(LockError::Io(e)),
        }
        let write_pid = |file: &mut fs::File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())
        };
        // A full disk must not keep the program from opening its log to free some.
        if let Err(e) = write_pid(&mut file) {
            tracing::warn!(path = %path.display(), error = %e, "the lock file does not name this process");
        }
        Ok(Box::new(RealLock { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = Real.lock(&path).unwrap();
        match Real.lock(&path) {
            Err(LockError::Held(pid)) => assert_eq!(pid, std::process::id().to_string()),
            Err(LockError::Io(e)) => panic!("{e}"),
            Ok(_) => panic!("locked twice"),
        }
        drop(held);
        assert!(Real.lock(&path).is_ok());
    }

    #[test]
    fn what_is_written_is_read_back_and_listed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = Real.open(&dir.path().join("b"), Mode::Create).unwrap();
        assert_eq!(file.append(b"hello").unwrap(), 0);
        assert_eq!(file.append(b" world").unwrap(), 5);
        let mut buf = [0; 5];
        file.read_exact_at(6, &mut buf).unwrap();
        assert_eq!(&buf, b"world");
        let past = file.read_exact_at(8, &mut buf).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        Real.open(&dir.path().join("a"), Mode::Create).unwrap();
        let names: Vec<_> = Real.list(dir.path()).unwrap();
        assert_eq!(
            names,
            vec![
                Entry {
                    name: "a".into(),
                    len: 0
                },
                Entry {
                    name: "b".into(),
                    len: 11
                }
            ]
        );
        assert!(Real.free_space(dir.path()).unwrap() > 0);
    }

    #[test]
    fn any_number_of_parts_is_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = Real.open(&dir.path().join("p"), Mode::Create).unwrap();
        let parts: Vec<Vec<u8>> = (0..3_000_u32)
            .map(|i| i.to_le_bytes()[..(i % 5) as usize % 4].to_vec())
            .collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        file.write_at(0, b"ab").unwrap();
        file.write_parts_at(2, &slices).unwrap();
        let whole = parts.concat();
        let mut buf = vec![0; whole.len()];
        file.read_exact_at(2, &mut buf).unwrap();
        assert_eq!(buf, whole);
        assert_eq!(file.len().unwrap(), 2 + whole.len() as u64);
    }

    #[test]
    fn opening_for_reading_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("x");
        let error = Real.open(&missing, Mode::Read).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!missing.exists());
    }
}
