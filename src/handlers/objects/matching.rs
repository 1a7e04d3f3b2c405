//! Objects that a pattern names: `2026/*/sales-*.csv`. `*` and `?` stay within one
//! folder, `**` does not.

use crate::handlers::Failure;
use futures::StreamExt;
use globset::{GlobBuilder, GlobMatcher};
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStore};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most objects that one pattern may name.
pub const MOST: usize = 10_000;

/// What makes a key a pattern.
const WILD: [char; 5] = ['*', '?', '[', '{', '\\'];

/// A pattern of keys.
#[derive(Clone, Debug)]
pub struct Pattern {
    glob: GlobMatcher,
    /// The folder that all that match lie in; may be empty.
    folder: String,
}

impl Pattern {
    /// Whether a key has characters that a pattern gives a meaning.
    #[must_use]
    pub fn is_one(key: &str) -> bool {
        key.contains(WILD)
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// `BadGlob`, permanent.
    pub fn new(text: &str) -> Result<Self, Failure> {
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let glob = glob.map_err(|e| {
            Failure::permanent("BadGlob", format!("`{text}` is not a glob")).caused_by(&e)
        })?;
        let plain = text.split(WILD).next().unwrap_or_default();
        let folder = plain.rsplit_once('/').map_or("", |(folder, _)| folder);
        Ok(Self {
            glob: glob.compile_matcher(),
            folder: folder.to_owned(),
        })
    }

    /// The files below `root` that match, as paths relative to it, sorted; hidden
    /// ones do not match. `go_on` is asked before each folder. Blocks.
    ///
    /// # Errors
    /// `ReadFailed`, `TooManyObjects`, and what `go_on` says.
    pub fn files(
        &self,
        root: &Path,
        go_on: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<Vec<PathBuf>, Failure> {
        let mut found = Vec::new();
        let inside = super::inside(root, self.folder.as_bytes());
        let folder = match self.folder.is_empty() {
            true => root.to_path_buf(),
            false => match inside.filter(|folder| folder.is_dir()) {
                Some(folder) => folder,
                None => return Ok(found),
            },
        };
        self.below(root, &folder, go_on, &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    fn below(
        &self,
        root: &Path,
        folder: &Path,
        go_on: &dyn Fn() -> Result<(), Failure>,
        found: &mut Vec<PathBuf>,
    ) -> Result<(), Failure> {
        let unread = |e: std::io::Error| {
            let message = format!("{} cannot be listed", folder.display());
            Failure::transient("ReadFailed", message).caused_by(&e)
        };
        go_on()?;
        for entry in std::fs::read_dir(folder).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            if entry.file_name().as_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if entry.file_type().map_err(unread)?.is_dir() {
                self.below(root, &path, go_on, found)?;
                continue;
            }
            let relative = path.strip_prefix(root).unwrap_or(&path);
            if self.glob.is_match(relative) {
                room(found.len())?;
                found.push(relative.to_path_buf());
            }
        }
        Ok(())
    }

    /// The objects of a bucket that match, sorted.
    ///
    /// # Errors
    /// `ReadFailed`, `TooManyObjects`.
    pub async fn objects(&self, store: &dyn ObjectStore) -> Result<Vec<ObjectMeta>, Failure> {
        let unread = |e: &dyn std::error::Error| {
            Failure::transient("ReadFailed", "the bucket cannot be listed").caused_by(e)
        };
        let prefix = StorePath::parse(&self.folder).map_err(|e| unread(&e))?;
        let mut listed = store.list(Some(&prefix));
        let mut found = Vec::new();
        while let Some(meta) = listed.next().await {
            let meta = meta.map_err(|e| unread(&e))?;
            if self.glob.is_match(meta.location.as_ref()) {
                room(found.len())?;
                found.push(meta);
            }
        }
        found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }
}

fn room(found: usize) -> Result<(), Failure> {
    match found < MOST {
        true => Ok(()),
        false => Err(Failure::permanent(
            "TooManyObjects",
            format!("more than {MOST} objects match; name them with several patterns"),
        )),
    }
}
