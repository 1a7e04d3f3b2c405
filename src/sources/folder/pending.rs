//! The files that are known and not taken yet: the only ones kept in memory.

use super::finished::{Candidate, Wait};
use super::look::{Key, Look};
use super::probe::Content;
use super::status::Waiting;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// A file that waits.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is known of it.
    pub file: Candidate,
    /// What it waits for.
    pub why: Wait,
    /// When to look again; without a change never when `None`.
    pub due: Option<Duration>,
    /// What its content has shown, and how the file looked then.
    pub content: Option<(Look, Content)>,
    /// How the file looked when its content was asked for.
    pub asked: Option<Look>,
}

/// All that wait.
#[derive(Default)]
pub struct Pending {
    entries: HashMap<Key, Entry>,
    due: BTreeSet<(Duration, Key)>,
    inodes: HashMap<(u64, u64), Key>,
    passive: usize,
}

impl Pending {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them wait for a change.
    #[must_use]
    pub fn passive(&self) -> usize {
        self.passive
    }

    /// How many of them wait for time to pass, or for an answer.
    #[must_use]
    pub fn active(&self) -> usize {
        self.entries.len() - self.passive
    }

    /// The one that waits on this inode, by another name.
    #[must_use]
    pub fn on_inode(&self, id: (u64, u64)) -> Option<&Entry> {
        self.entries.get(self.inodes.get(&id)?)
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.passive -= usize::from(entry.why.is_passive());
        if self.inodes.get(&entry.file.look.id()) == Some(&key) {
            self.inodes.remove(&entry.file.look.id());
        }
        if let Some(due) = entry.due {
            self.due.remove(&(due, key));
        }
        Some(entry)
    }

    /// Puts one in that is not there.
    pub fn insert(&mut self, key: Key, entry: Entry) {
        self.passive += usize::from(entry.why.is_passive());
        if let Some(due) = entry.due {
            self.due.insert((due, key.clone()));
        }
        self.inodes.insert(entry.file.look.id(), key.clone());
        self.entries.insert(key, entry);
    }

    /// When the next has to be looked at.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes out one that is due.
    pub fn pop_due(&mut self, now: Duration) -> Option<(Key, Entry)> {
        let (_, key) = self.due.first().filter(|(due, _)| *due <= now)?.clone();
        let entry = self.remove(&key)?;
        Some((key, entry))
    }

    /// The one that has waited longest.
    #[must_use]
    pub fn oldest(&self) -> Option<Waiting> {
        let (key, entry) = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| entry.file.since_ms)?;
        Some(Waiting {
            path: super::look::show(key),
            since_ms: entry.file.since_ms,
            why: entry.why,
        })
    }
}
