//! Which files some process holds open for writing, as far as `/proc` tells.
//!
//! A process of another user is seen by root only, and one of another
//! container or machine never. So this can say that a file is being written,
//! and never that it is not.

use super::look::Look;
use crate::clock::SharedClock;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A round that takes longer than this is used again for a while.
const CHEAP: Duration = Duration::from_millis(5);

/// How much of the time a dear round may take: one part in this.
const SHARE: u32 = 10;

/// The files that are open for writing.
pub struct Openers {
    clock: SharedClock,
    files: HashSet<(u64, u64)>,
    /// When the last round began, on the monotonic clock and the wall clock.
    taken: Option<(Duration, i64)>,
    cost: Duration,
    /// Rounds are at least so far apart.
    every: Duration,
}

impl Openers {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(clock: SharedClock, every: Duration) -> Self {
        Self {
            clock,
            files: HashSet::new(),
            taken: None,
            cost: Duration::ZERO,
            every,
        }
    }

    /// When the next round is allowed, on the monotonic clock.
    #[must_use]
    pub fn next(&self) -> Duration {
        let pause = match self.cost > CHEAP {
            true => self.cost * SHARE,
            false => Duration::ZERO,
        };
        self.taken
            .map_or(Duration::ZERO, |(taken, _)| taken + pause.max(self.every))
    }

    /// When the last round began: what was opened later is not known. On the
    /// monotonic clock, and as Unix milliseconds.
    #[must_use]
    pub fn taken(&self) -> (Duration, i64) {
        self.taken.unwrap_or((Duration::ZERO, 0))
    }

    /// Goes through the processes, unless that was done just now at great cost.
    pub fn refresh(&mut self) {
        let now = self.clock.monotonic();
        if now < self.next() {
            return;
        }
        self.taken = Some((now, self.clock.now_ms()));
        self.files = open_for_writing();
        self.cost = self.clock.monotonic().saturating_sub(now);
    }

    /// Whether some process holds the file open for writing.
    #[must_use]
    pub fn holds(&self, look: &Look) -> bool {
        self.files.contains(&look.id())
    }
}

fn open_for_writing() -> HashSet<(u64, u64)> {
    let mut found = HashSet::new();
    // Processes come and go while this runs, and many may not be looked into.
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    for process in processes.flatten() {
        let is_process = process
            .file_name()
            .as_encoded_bytes()
            .first()
            .is_some_and(u8::is_ascii_digit);
        if !is_process {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            // The link's own mode tells how the file was opened.
            let writes = descriptor.metadata().is_ok_and(|m| m.mode() & 0o200 != 0);
            if writes
                && let Ok(file) = fs::metadata(descriptor.path())
                && file.is_file()
            {
                found.insert((file.dev(), file.ino()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_this_process_writes_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let look = |path| Look::of(&rustix::fs::lstat(path).unwrap());
        let writer = fs::File::create(&path).unwrap();
        let mut openers = Openers::new(crate::clock::system(), Duration::ZERO);
        openers.refresh();
        assert!(openers.holds(&look(&path)));
        drop(writer);
        let _reader = fs::File::open(&path).unwrap();
        let mut openers = Openers::new(crate::clock::system(), Duration::ZERO);
        openers.refresh();
        assert!(!openers.holds(&look(&path)));
    }
}
