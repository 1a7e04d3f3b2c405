//! What can be said of a folder source, as it is used.

use crate::event::Defaults;
use std::path::PathBuf;
use std::time::Duration;

/// A watched folder.
#[derive(Clone, Debug)]
pub struct FolderOptions {
    /// Name of the source; `detail.bucket.name` of its events.
    pub name: String,
    /// Bus that its events go to.
    pub bus: String,
    /// The folder; created when missing.
    pub root: PathBuf,
    /// Globs of what is taken, relative to the root; empty: everything.
    pub include: Vec<String>,
    /// Globs of what is left out, besides hidden and temporary names.
    pub exclude: Vec<String>,
    /// Take hidden (`.*`) and temporary names (`*.tmp`, `*.part`, `*~`, `*.swp`) too.
    pub hidden: bool,
    /// Look into folders below.
    pub recursive: bool,
    /// Follow symbolic links, as long as they stay inside the root.
    pub follow_symlinks: bool,
    /// When a file is finished.
    pub finished: Finished,
    /// How often the whole tree is compared with the ledger.
    pub reconcile: Duration,
    /// What happens with files that are there at the very first start.
    pub start: Start,
    /// Tell files with equal size and time apart, and touches from changes, by a hash of the content.
    pub content_hash: bool,
    /// Also send `Object Deleted`.
    pub deletes: bool,
    /// Also send `Object Moved` for files that get another name in the folder.
    pub moves: bool,
    /// Ledger entries of files that are gone are forgotten after this time.
    pub forget_after: Duration,
    /// What happens to a file once all its deliveries are done.
    pub after: After,
    /// Account and region of the events.
    pub defaults: Defaults,
}

/// When a file is taken as finished. All conditions must hold.
#[derive(Clone, Debug)]
pub struct Finished {
    /// A file that was renamed or linked into place is taken at once.
    pub renamed_in: bool,
    /// Size, time and blocks must not have changed for this long.
    pub quiet: Duration,
    /// A file `NAME` + this suffix must exist (and is never taken itself).
    pub done_marker: Option<String>,
    /// The file's modification time must be at least this old.
    pub min_age: Duration,
    /// Smallest size in bytes.
    pub min_size: u64,
    /// Check that gzip and Parquet files have their trailer.
    pub trailer: bool,
}

/// What happens with files that are there at the very first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// They are taken.
    All,
    /// They are noted and not taken.
    Now,
    /// Those modified at or after this time (Unix milliseconds) are taken.
    Since(i64),
}

/// What happens to a file once all its deliveries are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Keep,
    /// It is moved into this folder.
    Move(PathBuf),
    /// It is deleted.
    Delete,
    /// It is marked: by an extended attribute, or by a hidden file beside it.
    Tag,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::Path;

    /// Options that take everything, with a short quiet time.
    pub(crate) fn options(root: &Path) -> FolderOptions {
        FolderOptions {
            name: "inbox".to_owned(),
            bus: "default".to_owned(),
            root: root.to_owned(),
            include: Vec::new(),
            exclude: Vec::new(),
            hidden: false,
            recursive: true,
            follow_symlinks: false,
            finished: Finished {
                renamed_in: true,
                quiet: Duration::from_millis(150),
                done_marker: None,
                min_age: Duration::ZERO,
                min_size: 0,
                trailer: false,
            },
            reconcile: Duration::from_secs(60),
            start: Start::All,
            content_hash: false,
            deletes: false,
            moves: false,
            forget_after: Duration::from_secs(86_400),
            after: After::Keep,
            defaults: Defaults::default(),
        }
    }
}
