//! Files that are gone: what the ledger notes, and when the bus is told.
//!
//! A file counts as gone only when its own path says so, and never because a
//! folder could not be read. The bus is told (`deletes`) after a time of grace
//! in which nothing was left to look at: a rename is over by then, and its row
//! goes with the file.

use super::engine::Engine;
use super::events::Version;
use super::ledger::{Row, Stage};
use super::look::{Key, Look, join, split};
use super::record::Op;
use crate::state::StateError;
use rustix::fs::lstat;
use rustix::io::Errno;
use std::collections::HashSet;
use std::time::Duration;

/// Rows that are read at a time.
const PAGE: usize = 4096;

/// A file that is gone is told of after this time at the earliest, so that a
/// rename can be seen for what it is.
const GRACE_MIN: Duration = Duration::from_millis(200);

impl Engine {
    /// A path names no file any more.
    pub(super) fn missing(&mut self, key: &Key) -> Result<(), StateError> {
        self.unwait(key);
        if let Some(row) = self.ledger.row(key)? {
            self.vanish(key.clone(), &row);
        }
        if self.watches.has(key) {
            self.watches.forget(key);
        }
        for (dir, path) in self.ledger.dirs_below(key)? {
            self.vanish_all(dir, &path)?;
        }
        Ok(())
    }

    /// Files of folders that were not found.
    pub(super) fn vanish_unvisited(&mut self, visited: &HashSet<i64>) -> Result<(), StateError> {
        let mut after = 0;
        loop {
            let dirs = self.ledger.dirs(after, PAGE)?;
            let Some((last, _)) = dirs.last() else {
                return Ok(());
            };
            after = *last;
            for (number, path) in dirs {
                // One that is there and was left out may come back.
                let gone = || matches!(lstat(self.path(&path)), Err(Errno::NOENT | Errno::NOTDIR));
                if !visited.contains(&number) && gone() {
                    self.vanish_all(number, &path)?;
                }
            }
        }
    }

    /// Every file that the ledger knows in a folder may be gone.
    pub(super) fn vanish_all(&mut self, number: i64, dir: &[u8]) -> Result<(), StateError> {
        let mut after = Vec::new();
        loop {
            let rows = self.ledger.rows(number, &after, None, PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            after.clone_from(last);
            for (name, row) in rows {
                self.vanish(join(dir, &name), &row);
            }
            self.write_ops()?;
        }
    }

    /// A file may be gone from a folder that is still there, or is gone, too.
    pub(super) fn vanish(&mut self, key: Key, row: &Row) {
        let mut above = split(&key).0;
        let dev = loop {
            match lstat(self.path(above)) {
                Ok(stat) => break Look::of(&stat).dev,
                Err(_) if above.is_empty() => return,
                Err(_) => above = split(above).0,
            }
        };
        self.vanish_from(key, row, dev);
    }

    /// A file may be gone from a folder that is on `dev` now.
    pub(super) fn vanish_from(&mut self, key: Key, row: &Row, dev: u64) {
        if row.gone_ms.is_some()
            || !matches!(lstat(self.path(&key)), Err(Errno::NOENT | Errno::NOTDIR))
        {
            return;
        }
        self.unwait(&key);
        if row.stage == Stage::Stable {
            self.ops.push(Op::Drop(key));
            return;
        }
        // When another file system is mounted here, or none any more, the
        // files are out of sight and not deleted.
        let told = self.ledger.root_changed || row.look.dev != dev;
        self.ops.push(Op::Gone { key, told });
        if self.options.deletes && !told && self.sweep_at.is_none() {
            self.sweep_at = Some(self.now() + self.grace());
        }
    }

    fn grace(&self) -> Duration {
        self.options.finished.quiet.max(GRACE_MIN)
    }

    pub(super) fn expire(&mut self) -> Result<(), StateError> {
        let kept = i64::try_from(self.options.forget_after.as_millis()).unwrap_or(i64::MAX);
        let before = self.clock.now_ms().saturating_sub(kept);
        loop {
            let forgotten = self.ledger.expire(before, PAGE)?;
            if forgotten > 0 {
                self.board.count(|c| c.expired += forgotten as u64);
            }
            if forgotten < PAGE {
                return Ok(());
            }
        }
    }

    /// Tells the bus of files that are gone.
    pub(super) fn sweep(&mut self) -> Result<(), StateError> {
        self.sweep_at = None;
        if !self.options.deletes {
            return Ok(());
        }
        let grace = self.grace();
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        loop {
            let now = self.clock.now_ms();
            let gone = self.ledger.untold(now - grace_ms, self.limits.batch)?;
            let mut events = Vec::with_capacity(gone.len());
            let mut ops = Vec::with_capacity(gone.len());
            for (key, row) in gone {
                let version = Version {
                    key: &key,
                    look: &row.look,
                    hash: row.hash.as_deref(),
                    salt: row.salt,
                    sequencer: row.sequencer + 1,
                };
                match version.deleted(&self.options, row.gone_ms.unwrap_or(now)) {
                    Ok(event) => events.push(event),
                    Err(error) => self.board.fail(&key, &error.to_string(), now),
                }
                let stage = Stage::Deleted;
                let sequencer = row.sequencer + 1;
                ops.push(Op::Put(
                    key,
                    Row {
                        stage,
                        sequencer,
                        told: true,
                        ..row
                    },
                ));
            }
            if ops.is_empty() {
                // Some may have gone just now, and may yet turn up elsewhere.
                if !self.ledger.untold(i64::MAX, 1)?.is_empty() {
                    self.sweep_at = Some(self.now() + grace);
                }
                return Ok(());
            }
            let Some(answers) = self.hand_in(&events) else {
                return Ok(());
            };
            for answer in answers {
                self.count_answer(answer, true);
            }
            self.ops.extend(ops);
            self.write_ops()?;
        }
    }
}
