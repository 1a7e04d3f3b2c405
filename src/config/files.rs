//! Reading the files of a configuration: bounded, and as text.

use std::io::Read;
use std::path::{Path, PathBuf};

/// No configuration file is larger than this; a mistaken path to a data file
/// should be an error and not a full memory.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why a file could not be read as text.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{}", reason(.0))]
    Io(#[from] std::io::Error),
    #[error("it is not UTF-8 text (byte {0} is not)")]
    NotUtf8(usize),
    #[error("it is a {0}")]
    NotAFile(&'static str),
    #[error("it has more than {} bytes", MAX_BYTES)]
    TooLarge,
}

/// The system's reason without its number.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => {
            let said = error.to_string();
            let end = said.find(" (os error").unwrap_or(said.len());
            said[..end].to_lowercase()
        }
    }
}

/// A file's text.
pub(super) fn read_text(path: &Path) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    // Opening a named pipe would wait for its other end.
    let kind = std::fs::metadata(path)?;
    if !kind.is_file() {
        return Err(ReadError::NotAFile(if kind.is_dir() {
            "folder"
        } else {
            "device or pipe"
        }));
    }
    let file = std::fs::File::open(path)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => Err(ReadError::NotUtf8(error.utf8_error().valid_up_to())),
    }
}

/// The files of a folder whose names `keep` takes, by name; empty when the
/// folder does not exist.
pub(super) fn list(folder: &Path, keep: impl Fn(&str) -> bool) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // Editors leave hidden files beside the ones that they edit.
        if !name.starts_with('.') && keep(name) && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
