//! Which folders are watched, one by one: a watch is set before its folder is
//! listed, so that what comes in between is seen by one or by both.

use super::hints::{Inbox, Reader};
use super::look::{Key, full, is_below};
use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The watches of one tree.
pub struct Watches {
    root: PathBuf,
    inbox: Arc<Inbox>,
    watcher: Option<RecommendedWatcher>,
    /// Watched folders, with the device and inode that the watch is on.
    dirs: BTreeMap<Key, (u64, u64)>,
    /// No more than this many, for tests; the kernel has limits of its own.
    limit: Option<usize>,
    /// Why not everything is watched.
    short: Option<String>,
}

impl Watches {
    /// Starts watching nothing.
    #[must_use]
    pub fn new(root: PathBuf, inbox: Arc<Inbox>, limit: Option<usize>) -> Self {
        let mut watches = Self {
            root,
            inbox,
            watcher: None,
            dirs: BTreeMap::new(),
            limit,
            short: None,
        };
        watches.rebuild();
        watches
    }

    /// Lets go of every watch and starts anew: after a loss nobody knows which
    /// folders the kernel's watches still speak of.
    pub fn rebuild(&mut self) {
        self.dirs.clear();
        self.short = None;
        // The old one first: their number is limited.
        self.watcher = None;
        let reader = Reader::new(self.root.clone(), self.inbox.clone());
        match RecommendedWatcher::new(reader, Config::default()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => self.short = Some(format!("no notifications: {error}")),
        }
    }

    /// Watches a folder, unless it is watched already. Says whether the watch is new.
    pub fn ensure(&mut self, dir: &[u8], id: (u64, u64)) -> bool {
        match self.dirs.get(dir) {
            Some(known) if *known == id => return false,
            // Another folder has taken the place of the watched one.
            Some(_) => self.forget(dir),
            None => {}
        }
        let Some(watcher) = self.watcher.as_mut() else {
            return false;
        };
        if self.limit.is_some_and(|most| self.dirs.len() >= most) {
            self.short = Some(format!("no more than {} watches", self.dirs.len()));
            return false;
        }
        match watcher.watch(&full(&self.root, dir), RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.dirs.insert(dir.to_vec(), id);
                true
            }
            Err(error) => {
                // A folder that is gone, or may not be read, is the scan's to tell.
                if is_exhausted(&error) {
                    self.short = Some(format!(
                        "no more than {} folders can be watched: {error}; raise fs.inotify.max_user_watches",
                        self.dirs.len()
                    ));
                }
                false
            }
        }
    }

    /// Forgets a folder that is gone, and those below it.
    pub fn forget(&mut self, dir: &[u8]) {
        let gone: Vec<Key> = self
            .dirs
            .range(dir.to_vec()..)
            // Between `a` and `a/b` may stand `a-b`; nothing else begins alike.
            .take_while(|(key, _)| key.starts_with(dir))
            .filter(|(key, _)| is_below(key, dir))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.dirs.remove(&key);
            if let Some(watcher) = self.watcher.as_mut() {
                // The kernel drops the watch of a deleted folder itself, and
                // then this fails, as it should.
                watcher.unwatch(&full(&self.root, &key)).ok();
            }
        }
    }

    /// Whether a folder is watched.
    #[must_use]
    pub fn has(&self, dir: &[u8]) -> bool {
        self.dirs.contains_key(dir)
    }

    /// How many folders are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dirs.len()
    }

    /// Why not everything is watched, if so.
    #[must_use]
    pub fn short(&self) -> Option<&str> {
        self.short.as_deref()
    }

    /// Tries again what the limit forbade.
    pub fn retry(&mut self) {
        if self.watcher.is_none() {
            self.rebuild();
        }
        self.short = match self.watcher {
            Some(_) => None,
            None => self.short.take(),
        };
    }
}

fn is_exhausted(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => {
            let code = error.raw_os_error();
            [
                rustix::io::Errno::NOSPC,
                rustix::io::Errno::MFILE,
                rustix::io::Errno::NFILE,
            ]
            .iter()
            .any(|errno| code == Some(errno.raw_os_error()))
        }
        _ => false,
    }
}
