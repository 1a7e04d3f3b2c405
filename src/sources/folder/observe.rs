//! What becomes of a file that was told of, listed, or is due: is it known, is
//! it another's new name, is it finished?

use super::engine::Engine;
use super::finished::{Candidate, How, Verdict, Wait, is_link, patience, verdict};
use super::hints::Hint;
use super::ledger::{Row, Stage};
use super::look::{Key, Look, kind, split};
use super::options::Start;
use super::pending::Entry;
use super::probe::{Content, Question, ends_in_a_hole, readable};
use super::record::Op;
use super::submit::Ready;
use crate::state::StateError;
use rustix::fs::{FileType, Stat, lstat, stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::time::Duration;

/// How soon a file that could not be read is tried again, besides every scan.
const RETRY: Duration = Duration::from_secs(5);

/// How the ledger's row and the file compare.
enum Known {
    /// Nothing to do but to bring the row up to date, if so.
    Same { refresh: bool },
    /// It was on its way to the bus when the program stopped.
    Resend,
    /// It has to be taken.
    New,
}

impl Engine {
    pub(super) fn read_hints(&mut self, hints: HashMap<Key, Hint>) -> Result<(), StateError> {
        // What came is looked at before what went, so that a file that was
        // renamed is known by its new name before its old one is missed.
        let (gone, there): (Vec<_>, Vec<_>) = hints.into_iter().partition(|(_, h)| h.gone);
        for (key, hint) in there.into_iter().chain(gone) {
            self.read_hint(key, hint)?;
        }
        Ok(())
    }

    fn read_hint(&mut self, key: Key, hint: Hint) -> Result<(), StateError> {
        if key.is_empty() {
            if hint.gone {
                // A folder made in its place may even have its inode.
                self.watches.forget(b"");
                self.restart_full();
            }
            return Ok(());
        }
        if let Some(base) = self.names.marked(&key).map(<[u8]>::to_vec) {
            self.look_again(base, Hint::default())?;
        }
        self.look_again(key, hint)
    }

    /// Looks at what a path names now.
    fn look_again(&mut self, key: Key, hint: Hint) -> Result<(), StateError> {
        if !self.names.enters(split(&key).0) {
            return Ok(());
        }
        match lstat(self.path(&key)) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.missing(&key),
            Err(error) => {
                self.fail(&key, &error.into());
                Ok(())
            }
            Ok(stat) => self.place(key, &stat, hint),
        }
    }

    fn place(&mut self, key: Key, stat: &Stat, hint: Hint) -> Result<(), StateError> {
        match kind(stat) {
            FileType::RegularFile if self.names.takes(&key) => {
                let row = self.ledger.row(&key)?;
                self.observe(key, Look::of(stat), row, hint)
            }
            FileType::Directory if self.names.enters(&key) => {
                if hint.gone || hint.moved_in || hint.created {
                    // The watch may be on the folder that had this name before.
                    self.watches.forget(&key);
                }
                self.targeted.add(key);
                Ok(())
            }
            FileType::Symlink => match self.through_link(&key) {
                Some(stat) => self.place(key, &stat, hint),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What a symbolic link leads to, if links are followed and it stays
    /// inside the root and leads to no folder that it lies in.
    pub(super) fn through_link(&self, key: &[u8]) -> Option<Stat> {
        let path = self.path(key);
        let inside = self.options.follow_symlinks
            && path.canonicalize().is_ok_and(|p| p.starts_with(&self.root));
        if !inside {
            return None;
        }
        let target = stat(&path).ok()?;
        if kind(&target) == FileType::Directory {
            let id = Look::of(&target).id();
            let mut above = split(key).0;
            loop {
                if stat(self.path(above)).is_ok_and(|s| Look::of(&s).id() == id) {
                    return None;
                }
                if above.is_empty() {
                    break;
                }
                above = split(above).0;
            }
        }
        Some(target)
    }

    /// Compares a file that is there with the ledger's row.
    pub(super) fn observe(
        &mut self,
        key: Key,
        look: Look,
        row: Option<Row>,
        hint: Hint,
    ) -> Result<(), StateError> {
        if let Some(entry) = self.pending.remove(&key) {
            return self.judge(key, self.seen_again(entry, look, hint), row);
        }
        match self.compare(&look, row.as_ref()) {
            Known::Same { refresh } => {
                if refresh {
                    self.ops.push(Op::Refresh(key, look, None));
                }
                Ok(())
            }
            Known::Resend => {
                let file = self.candidate(look);
                let ready = Ready::new(key, &file, row, How::Quiet, None);
                self.push_ready(Ready {
                    resend: true,
                    ..ready
                })
            }
            Known::New => {
                if self.is_noted(&look, row.as_ref()) {
                    self.ops.push(Op::Put(key, noted(look)));
                    return Ok(());
                }
                if let Some(from) = self.old_name(&key, &look, row.as_ref())? {
                    self.board.count(|c| c.renames += 1);
                    self.pending.remove(&from);
                    if self.options.moves {
                        self.note_move(&from, &key, &look)?;
                    }
                    self.ops.push(Op::Rename(from, key, look));
                    return Ok(());
                }
                let entry = self.first_seen(look, hint);
                self.judge(key, entry, row)
            }
        }
    }

    fn compare(&self, look: &Look, row: Option<&Row>) -> Known {
        let Some(row) = row else {
            return Known::New;
        };
        if matches!(row.stage, Stage::Deleted | Stage::Forgotten) || !row.look.same_version(look) {
            return Known::New;
        }
        let moved = row.look.id() != look.id();
        let touched = moved || row.look.ctime_ns != look.ctime_ns;
        if row.stage == Stage::Stable {
            return Known::Resend;
        }
        if self.options.content_hash && row.hash.is_some() && touched {
            // Somebody may have set the time back: the hash will tell.
            return Known::New;
        }
        Known::Same {
            refresh: moved || row.gone_ms.is_some(),
        }
    }

    /// Whether `start` says that this file is not to be taken.
    fn is_noted(&self, look: &Look, row: Option<&Row>) -> bool {
        let came_later = look.ctime_ms() > self.ledger.first_start_ms;
        if row.is_some() || self.ledger.baseline_done || came_later {
            return false;
        }
        match self.options.start {
            Start::All => false,
            Start::Now => true,
            Start::Since(ms) => look.mtime_ms() < ms,
        }
    }

    /// The name under which the ledger knows this very file, if it has it no more.
    fn old_name(
        &self,
        key: &Key,
        look: &Look,
        row: Option<&Row>,
    ) -> Result<Option<Key>, StateError> {
        // A file that takes the place of another is a new version of that name.
        if row.is_some_and(|r| r.gone_ms.is_none()) {
            return Ok(None);
        }
        for (other, known) in self.ledger.by_inode(look)? {
            let settled = !matches!(
                known.stage,
                Stage::Stable | Stage::Deleted | Stage::Forgotten
            );
            if settled && other != *key && known.look.same_version(look) {
                let still_there =
                    lstat(self.path(&other)).is_ok_and(|s| Look::of(&s).id() == look.id());
                if !still_there {
                    return Ok(Some(other));
                }
            }
        }
        Ok(None)
    }

    fn first_seen(&self, look: Look, hint: Hint) -> Entry {
        let mut file = self.candidate(look);
        match self.pending.on_inode(look.id()) {
            // A file that is being written was given another name: that does
            // not finish it.
            Some(same) if hint.moved_in => {
                file.since_ms = same.file.since_ms;
                if same.file.look.same_version(&look) {
                    file.changed = same.file.changed;
                }
                file.writing = same.file.writing;
            }
            _ => file.moved_in = hint.moved_in,
        }
        tell(&mut file, hint);
        file.linked_in = is_link(hint.created, hint.opened, &look);
        Entry {
            file,
            why: Wait::Quiet,
            due: None,
            content: None,
            asked: None,
        }
    }

    fn seen_again(&self, mut entry: Entry, look: Look, hint: Hint) -> Entry {
        let file = &mut entry.file;
        if hint.moved_in || file.look.ino != look.ino {
            // Another file has taken the name.
            let fresh = self.first_seen(look, hint);
            return Entry {
                file: Candidate {
                    since_ms: file.since_ms,
                    ..fresh.file
                },
                ..fresh
            };
        }
        if file.look != look {
            file.changed = self.now();
            if !file.look.same_version(&look) {
                // What was said of the whole file that came does not hold for
                // what was written into it afterwards.
                (file.moved_in, file.linked_in) = (false, false);
            }
            file.look = look;
        }
        tell(file, hint);
        entry
    }

    pub(super) fn look_at_due(&mut self) -> Result<(), StateError> {
        let now = self.now();
        while let Some((key, entry)) = self.pending.pop_due(now) {
            self.look_at(key, entry)?;
        }
        Ok(())
    }

    fn look_at(&mut self, key: Key, entry: Entry) -> Result<(), StateError> {
        let found = match self.options.follow_symlinks {
            true => stat(self.path(&key)),
            false => lstat(self.path(&key)),
        };
        match found {
            Ok(found) if kind(&found) == FileType::RegularFile => {
                let entry = self.seen_again(entry, Look::of(&found), Hint::default());
                let row = self.ledger.row(&key)?;
                self.judge(key, entry, row)
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => self.missing(&key),
            Err(error) => {
                self.fail(&key, &error.into());
                self.wait_for(key, entry, Wait::Unreadable, Some(self.now() + RETRY));
                Ok(())
            }
        }
    }

    /// Applies the rule of finished files.
    fn judge(&mut self, key: Key, entry: Entry, row: Option<Row>) -> Result<(), StateError> {
        match verdict(&self.options.finished, &entry.file, self.moment()) {
            Verdict::Wait(why, until) => {
                self.wait_for(key, entry, why, until);
                Ok(())
            }
            Verdict::Finished(how) => self.look_inside(key, entry, row, how),
        }
    }

    /// What looks and times cannot tell.
    fn look_inside(
        &mut self,
        key: Key,
        mut entry: Entry,
        row: Option<Row>,
        how: How,
    ) -> Result<(), StateError> {
        if !self.is_marked(&key, &entry.file.look) {
            self.wait_for(key, entry, Wait::Marker, None);
            return Ok(());
        }
        let path = self.path(&key);
        if let Err(error) = readable(&path) {
            self.fail(&key, &error);
            self.wait_for(key, entry, Wait::Unreadable, Some(self.now() + RETRY));
            return Ok(());
        }
        let size = entry.file.look.size;
        if how == How::Quiet
            && self.is_fresh(&entry.file)
            && ends_in_a_hole(&path, size).unwrap_or(false)
        {
            let until = entry.file.changed + patience(&self.options.finished);
            self.wait_for(key, entry, Wait::Hole, Some(until));
            return Ok(());
        }
        let Some(content) = self.content_of(&key, &mut entry) else {
            self.wait_for(key, entry, Wait::Checking, None);
            return Ok(());
        };
        if let Some(broken) = content.broken {
            tracing::debug!(source = %self.options.name, path = %super::look::show(&key), broken, "not finished");
            self.wait_for(key, entry, Wait::Trailer, None);
            return Ok(());
        }
        self.finished(key, &entry.file, row, how, content.hash)
    }

    fn finished(
        &mut self,
        key: Key,
        file: &Candidate,
        row: Option<Row>,
        how: How,
        hash: Option<Vec<u8>>,
    ) -> Result<(), StateError> {
        let look = file.look;
        self.board.clear(&key);
        let touch = row.as_ref().is_some_and(|row| {
            let settled = !matches!(row.stage, Stage::Stable | Stage::Deleted | Stage::Forgotten);
            settled && hash.is_some() && row.hash == hash && row.look.size == look.size
        });
        if touch {
            self.board.count(|c| c.touches += 1);
            self.ops.push(Op::Refresh(key, look, hash));
            return Ok(());
        }
        self.push_ready(Ready::new(key, file, row, how, hash))
    }

    fn is_marked(&self, key: &[u8], look: &Look) -> bool {
        let Some(marker) = self.names.marker(key) else {
            return true;
        };
        // A marker that is older than the file speaks of the version before.
        lstat(self.path(&marker)).is_ok_and(|stat| {
            let marker = Look::of(&stat);
            marker.mtime_ns.max(marker.ctime_ns) >= look.mtime_ns.min(look.ctime_ns)
        })
    }

    /// Whether the file changed so lately that its writer may still be at it.
    fn is_fresh(&self, file: &Candidate) -> bool {
        let now = self.moment();
        let patience = patience(&self.options.finished);
        let limit = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        let seen_long = now.monotonic.saturating_sub(file.changed) >= patience;
        let known_long = now.own_times && now.wall_ms.saturating_sub(file.look.ctime_ms()) >= limit;
        !seen_long && !known_long
    }

    /// What the content has shown, or `None` while it is being read.
    fn content_of(&self, key: &Key, entry: &mut Entry) -> Option<Content> {
        let (hash, trailer) = (self.options.content_hash, self.options.finished.trailer);
        if !hash && !trailer {
            return Some(Content::default());
        }
        let look = entry.file.look;
        if let Some((then, content)) = &entry.content
            && *then == look
        {
            return Some(content.clone());
        }
        if entry.asked != Some(look) {
            let question = Question {
                key: key.clone(),
                look,
                path: self.path(key),
                hash,
                trailer,
            };
            // The reader lives as long as its sender; were it dead, the file
            // would stay among those that wait, where people see it.
            if self.content.send(question).is_ok() {
                entry.asked = Some(look);
            }
        }
        None
    }

    pub(super) fn content_read(
        &mut self,
        key: Key,
        look: Look,
        content: io::Result<Content>,
    ) -> Result<(), StateError> {
        let Some(mut entry) = self.pending.remove(&key) else {
            return Ok(());
        };
        entry.asked = None;
        match content {
            Ok(content) => entry.content = Some((look, content)),
            Err(error) => {
                self.fail(&key, &error);
                self.wait_for(key, entry, Wait::Unreadable, Some(self.now() + RETRY));
                return Ok(());
            }
        }
        self.look_at(key, entry)
    }

    pub(super) fn wait_for(
        &mut self,
        key: Key,
        mut entry: Entry,
        why: Wait,
        due: Option<Duration>,
    ) {
        // Those that nothing but a change can finish are found again when that
        // comes; they must not keep out the others.
        let half = self.limits.candidates / 2;
        if why.is_passive() && self.pending.passive() >= half {
            return;
        }
        if !why.is_passive() && self.pending.active() >= half {
            self.crowded = true;
            return;
        }
        (entry.why, entry.due) = (why, due);
        self.pending.insert(key, entry);
    }

    pub(super) fn push_ready(&mut self, ready: Ready) -> Result<(), StateError> {
        self.ready.push(ready);
        if self.ready.len() >= self.limits.batch {
            self.write_ops()?;
            self.submit()?;
        }
        Ok(())
    }

    pub(super) fn fail(&self, key: &[u8], error: &io::Error) {
        self.board
            .fail(key, &error.to_string(), self.clock.now_ms());
    }
}

fn tell(file: &mut Candidate, hint: Hint) {
    if hint.writing {
        file.writing = true;
    } else if hint.closed || hint.moved_in {
        file.writing = false;
    } else if hint.created && hint.opened {
        // Created by `open`, and not closed yet.
        file.writing = true;
    }
}

fn noted(look: Look) -> Row {
    Row {
        look,
        hash: None,
        stage: Stage::Noted,
        salt: 0,
        sequencer: look.mtime_ns.max(0),
        event: None,
        gone_ms: None,
        told: false,
    }
}
