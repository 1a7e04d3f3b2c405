//! The few things that make a publication durable.

use std::fs::File;
use std::io;
use std::path::Path;

/// Above this many files, one sync of the whole file system is cheaper.
const MANY_FILES: usize = 64;

/// Makes the entries of a folder durable.
///
/// # Errors
/// When the disk refuses.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the entries of many folders in (or below) `root` durable.
///
/// # Errors
/// When the disk refuses.
pub fn sync_dirs<'a>(
    root: &Path,
    folders: impl ExactSizeIterator<Item = &'a Path>,
) -> io::Result<()> {
    sync_files(root, folders)
}

/// Makes the contents of files in (or below) `folder` durable.
///
/// # Errors
/// When the disk refuses.
pub fn sync_files<'a>(
    folder: &Path,
    files: impl ExactSizeIterator<Item = &'a Path>,
) -> io::Result<()> {
    if files.len() > MANY_FILES && sync_file_system(folder)? {
        return Ok(());
    }
    for file in files {
        File::open(file)?.sync_all()?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &Path) -> io::Result<bool> {
    rustix::fs::syncfs(File::open(folder)?)?;
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Writes a small file so that it is there whole or not at all, durably.
///
/// # Errors
/// When the disk refuses.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.tmp", uuid::Uuid::new_v4().simple()));
    let written = std::fs::write(&temporary, bytes)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| sync_dir(folder));
    if written.is_err() {
        // The error that counts is the first; a leftover is hidden by its name.
        drop(std::fs::remove_file(&temporary));
    }
    written
}
