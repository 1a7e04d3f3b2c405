//! The scan: every folder is watched, listed and compared with the ledger.
//!
//! A walk takes small steps, so that hints are answered while it lasts. Names
//! are compared in order with the ledger's rows of the same folder: a row
//! without a name is a file that is gone. A folder of any size is listed in
//! parts, so that memory has a bound.

use super::engine::Engine;
use super::hints::Hint;
use super::ledger::Row;
use super::look::{Key, Look, join, kind};
use super::mounts::mount_of;
use super::status::{ScanReport, millis};
use crate::state::StateError;
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, stat, statat,
};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::Duration;

/// Names that are looked at in one step.
const STEP: usize = 1000;

/// Rows that are read at a time.
const PAGE: usize = 4096;

/// Folders that are to be visited, the last one first: those below a folder
/// come right after it, so few wait at a time.
#[derive(Default)]
pub struct Walk {
    folders: BTreeSet<Key>,
    listing: Option<Listing>,
}

/// A folder that is being compared.
struct Listing {
    dir: Key,
    /// Its number in the ledger.
    number: Option<i64>,
    dev: u64,
    folder: OwnedFd,
    names: std::vec::IntoIter<(Vec<u8>, FileType)>,
    /// There are more names than were listed.
    more: bool,
    /// The last name that has been compared.
    after: Vec<u8>,
}

/// A walk through the whole tree.
pub struct Full {
    walk: Walk,
    report: ScanReport,
    began: Duration,
    /// Time spent on it, without that for the bus and the ledger.
    busy: Duration,
    /// Folders of the ledger that were found.
    visited: HashSet<i64>,
}

/// What a name turned out to be.
enum Met {
    /// A file that is taken.
    File,
    /// A link that is not followed, a pipe, a socket or a device.
    Other,
    /// A folder, a name that is left out, or nothing any more.
    Nothing,
}

impl Walk {
    /// Adds a folder.
    pub fn add(&mut self, dir: Key) {
        self.folders.insert(dir);
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.folders.is_empty() && self.listing.is_none()
    }
}

impl Engine {
    pub(super) fn begin_full(&mut self) {
        self.full_waiters.append(&mut self.scan_waiters);
        if let Err(error) = self.find_root() {
            self.fail(b"", &error);
            self.scans += 1;
            self.next_full = self.now() + self.until_next_full();
            self.answers_due.append(&mut self.full_waiters);
            return;
        }
        self.board.clear(b"");
        self.watches.retry();
        self.mount = mount_of(&self.root);
        self.scans += 1;
        self.full = Some(Full {
            walk: Walk {
                folders: BTreeSet::from([Key::new()]),
                listing: None,
            },
            report: ScanReport {
                number: self.scans,
                began_ms: self.clock.now_ms(),
                ..ScanReport::default()
            },
            began: self.now(),
            busy: Duration::ZERO,
            visited: HashSet::new(),
        });
    }

    /// Begins a scan of all that forgets what the one under way has seen.
    pub(super) fn restart_full(&mut self) {
        self.full = None;
        self.scan_waiters.append(&mut self.full_waiters);
        self.next_full = self.now();
    }

    fn find_root(&mut self) -> io::Result<()> {
        let found = stat(&self.root)
            .map_err(io::Error::from)
            .and_then(|stat| match kind(&stat) {
                FileType::Directory => Ok(Look::of(&stat).id()),
                _ => Err(Errno::NOTDIR.into()),
            });
        let before = self.root_id;
        self.root_id = found.as_ref().ok().copied();
        let id = found?;
        if before.is_some_and(|b| b != id) {
            tracing::warn!(source = %self.options.name, root = %self.root.display(), "the folder was replaced");
        }
        if before != Some(id) {
            self.watches.rebuild();
        }
        Ok(())
    }

    /// Does one step of what is to be walked; folders that were told of go first.
    pub(super) fn step(&mut self) -> Result<(), StateError> {
        if !self.targeted.is_done() {
            let mut walk = std::mem::take(&mut self.targeted);
            let done = self.step_walk(&mut walk, None);
            // Folders that were told of meanwhile.
            walk.folders.append(&mut self.targeted.folders);
            self.targeted = walk;
            return done;
        }
        let Some(mut full) = self.full.take() else {
            return Ok(());
        };
        let mut walk = std::mem::take(&mut full.walk);
        let (began, handing) = (self.now(), self.handing);
        self.step_walk(&mut walk, Some(&mut full))?;
        let others = self.handing.saturating_sub(handing);
        full.busy += self.now().saturating_sub(began + others);
        full.walk = walk;
        if full.walk.is_done() {
            return self.end_full(full);
        }
        self.full = Some(full);
        Ok(())
    }

    fn step_walk(&mut self, walk: &mut Walk, full: Option<&mut Full>) -> Result<(), StateError> {
        let mut full = full;
        let mut listing = match walk.listing.take() {
            Some(listing) => listing,
            None => {
                let Some(dir) = walk.folders.pop_last() else {
                    return Ok(());
                };
                let Some(listing) = self.enter(dir, full.as_deref_mut())? else {
                    return Ok(());
                };
                listing
            }
        };
        let names: Vec<_> = listing.names.by_ref().take(STEP).collect();
        let last = listing.names.len() == 0 && !listing.more;
        let known = self.rows_of(&listing, &names, last)?;
        if let Some((name, _)) = names.last() {
            listing.after.clone_from(name);
        }
        let mut counted = ScanReport::default();
        for ((name, kind), row) in names.into_iter().zip(known) {
            let key = join(&listing.dir, &name);
            match self.meet(walk, &listing.folder, key, &name, kind, row)? {
                Met::File => counted.files += 1,
                Met::Other => counted.others += 1,
                Met::Nothing => {}
            }
        }
        if let Some(full) = full {
            full.report.files += counted.files;
            full.report.others += counted.others;
        }
        if listing.names.len() == 0 && listing.more {
            match names_after(&listing.folder, &listing.after, self.limits.listed) {
                Ok((names, more)) => (listing.names, listing.more) = (names.into_iter(), more),
                Err(error) => {
                    self.fail(&listing.dir, &error);
                    return Ok(());
                }
            }
        }
        if !last {
            walk.listing = Some(listing);
        }
        Ok(())
    }

    /// Watches a folder and lists it. A folder that cannot be read is noted,
    /// and nothing is concluded of its files.
    fn enter(&mut self, dir: Key, full: Option<&mut Full>) -> Result<Option<Listing>, StateError> {
        let number = self.ledger.dir(&dir)?;
        if let Some(full) = full {
            full.report.folders += 1;
            full.visited.extend(number);
        }
        let listed = self.open_watched(&dir).and_then(|(folder, dev)| {
            let (names, more) = names_after(&folder, b"", self.limits.listed)?;
            Ok((folder, dev, names, more))
        });
        match listed {
            Ok((folder, dev, names, more)) => {
                self.board.clear(&dir);
                Ok(Some(Listing {
                    dir,
                    number,
                    dev,
                    folder,
                    names: names.into_iter(),
                    more,
                    after: Vec::new(),
                }))
            }
            Err(error) => {
                let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
                if !gone.contains(&error.kind()) {
                    self.fail(&dir, &error);
                }
                Ok(None)
            }
        }
    }

    /// Opens a folder once it is watched: what comes into it from now on is
    /// told of, what came before is listed.
    fn open_watched(&mut self, dir: &[u8]) -> io::Result<(OwnedFd, u64)> {
        for _ in 0..4 {
            let folder = self.open_dir(dir)?;
            let id = Look::of(&fstat(&folder)?).id();
            if self.root_id.is_some_and(|(dev, _)| dev != id.0) {
                let below = mount_of(&self.path(dir));
                if below.polled().is_some() {
                    self.mount = below;
                }
            }
            if !self.watches.ensure(dir, id) {
                return Ok((folder, id.0));
            }
            // The watch is on whatever had the name just now.
            let now = self.open_dir(dir)?;
            if Look::of(&fstat(&now)?).id() == id {
                return Ok((now, id.0));
            }
            self.watches.forget(dir);
        }
        Err(io::Error::other("it is replaced all the time"))
    }

    fn open_dir(&self, dir: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = self.path(dir);
        if dir.is_empty() {
            return Ok(open(&path, flags, Mode::empty())?);
        }
        if self.options.follow_symlinks {
            if !path.canonicalize()?.starts_with(&self.root) {
                return Err(io::Error::other("it lies outside of the folder"));
            }
            return Ok(open(&path, flags, Mode::empty())?);
        }
        // Nobody can lead us out by putting a link where a folder was.
        let root = open(
            &self.root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&root, dir, flags, Mode::empty(), strict) {
            // Old kernels, and containers that forbid the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                Ok(open(&path, flags | OFlags::NOFOLLOW, Mode::empty())?)
            }
            opened => Ok(opened?),
        }
    }

    /// The ledger's rows for these names, in their order. Rows in between are
    /// of files that are gone.
    fn rows_of(
        &mut self,
        listing: &Listing,
        names: &[(Vec<u8>, FileType)],
        last: bool,
    ) -> Result<Vec<Option<Row>>, StateError> {
        let mut known = vec![None; names.len()];
        let Some(dir) = listing.number else {
            return Ok(known);
        };
        let upto = match last {
            true => None,
            false => names.last().map(|(name, _)| name.as_slice()),
        };
        let mut after = listing.after.clone();
        loop {
            let rows = self.ledger.rows(dir, &after, upto, PAGE)?;
            let full_page = rows.len() == PAGE;
            if let Some((name, _)) = rows.last() {
                after.clone_from(name);
            }
            for (name, row) in rows {
                match names.binary_search_by(|(listed, _)| listed.cmp(&name)) {
                    Ok(at) => known[at] = Some(row),
                    Err(_) => self.vanish_from(join(&listing.dir, &name), &row, listing.dev),
                }
            }
            if !full_page {
                return Ok(known);
            }
            self.write_ops()?;
        }
    }

    /// Looks at one name of a listing.
    fn meet(
        &mut self,
        walk: &mut Walk,
        folder: &OwnedFd,
        key: Key,
        name: &[u8],
        listed: FileType,
        row: Option<Row>,
    ) -> Result<Met, StateError> {
        let (takes, enters) = match listed {
            FileType::RegularFile => (self.names.takes(&key), false),
            FileType::Directory => (false, self.names.enters(&key)),
            _ => (self.names.takes(&key), self.names.enters(&key)),
        };
        if !takes && !enters {
            return Ok(Met::Nothing);
        }
        if listed == FileType::Directory {
            walk.add(key);
            return Ok(Met::Nothing);
        }
        let mut found = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // It went while we listed; a hint or the next scan will tell.
            Err(Errno::NOENT) => return Ok(Met::Nothing),
            Err(error) => {
                self.fail(&key, &error.into());
                return Ok(Met::Nothing);
            }
        };
        if kind(&found) == FileType::Symlink {
            match self.through_link(&key) {
                Some(target) => found = target,
                None => return Ok(Met::Other),
            }
        }
        match kind(&found) {
            FileType::RegularFile if takes => {
                self.observe(key, Look::of(&found), row, Hint::default())?;
                Ok(Met::File)
            }
            FileType::Directory if enters => {
                walk.add(key);
                Ok(Met::Nothing)
            }
            FileType::RegularFile | FileType::Directory => Ok(Met::Nothing),
            _ => Ok(Met::Other),
        }
    }

    fn end_full(&mut self, full: Full) -> Result<(), StateError> {
        self.flush()?;
        self.vanish_unvisited(&full.visited)?;
        if !self.ledger.baseline_done {
            self.ledger.finish_baseline()?;
        }
        self.ledger.root_changed = false;
        self.expire()?;
        self.last_busy = full.busy;
        let report = ScanReport {
            took_ms: millis(self.now().saturating_sub(full.began)),
            ..full.report
        };
        self.board.update(|status| status.last_scan = Some(report));
        self.answers_due.append(&mut self.full_waiters);
        self.next_full = match self.scan_waiters.is_empty() {
            true => self.now() + self.until_next_full(),
            false => self.now(),
        };
        Ok(())
    }
}

type Names = Vec<(Vec<u8>, FileType)>;

/// The first `most` names after `after`, in order, and whether there are more.
fn names_after(folder: &OwnedFd, after: &[u8], most: usize) -> io::Result<(Names, bool)> {
    let mut names = Names::new();
    let mut more = false;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name <= after || name == b"." || name == b".." {
            continue;
        }
        names.push((name.to_vec(), entry.file_type()));
        if names.len() >= most.saturating_mul(2) {
            names.select_nth_unstable_by(most, |a, b| a.0.cmp(&b.0));
            names.truncate(most);
            more = true;
        }
    }
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if names.len() > most {
        names.truncate(most);
        more = true;
    }
    Ok((names, more))
}
