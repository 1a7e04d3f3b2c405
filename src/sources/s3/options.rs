//! What can be said of a bucket source, as it is used.

use crate::event::Defaults;
use crate::sources::folder::Start;
use std::time::Duration;

/// Keys of one page of a listing, as S3 gives them.
pub const PAGE_KEYS: u64 = 1000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A bucket that is looked through.
#[derive(Clone, Debug)]
pub struct S3SourceOptions {
    /// Name of the source.
    pub name: String,
    /// Bus that its events go to.
    pub bus: String,
    /// The bucket; `detail.bucket.name` of its events.
    pub bucket: String,
    /// Only keys that begin so.
    pub prefix: String,
    /// Globs of what is taken, on the key after the prefix; empty: everything.
    pub include: Vec<String>,
    /// Globs of what is left out.
    pub exclude: Vec<String>,
    /// Time between two looks, at least.
    pub every: Duration,
    /// The time grows up to this while nothing new comes.
    pub every_idle: Duration,
    /// How often everything is listed, where not every look lists everything.
    pub reconcile: Duration,
    /// New keys come behind the old ones in the order of keys, so that a look
    /// begins a page before the last one known.
    pub ordered: bool,
    /// Each version of a versioned bucket is an event.
    pub versions: bool,
    /// What happens with objects that are there at the very first start.
    pub start: Start,
    /// Also send `Object Deleted`.
    pub deletes: bool,
    /// Ledger entries of objects that are gone are forgotten after this time.
    pub forget_after: Duration,
    /// Notifications come in, so looks are for what they lost.
    pub notified: bool,
    /// Account and region of the events.
    pub defaults: Defaults,
}

impl S3SourceOptions {
    /// How often a day a listing is begun: those of everything, and those that
    /// are shorter.
    #[must_use]
    pub fn walks_a_day(&self) -> (u64, u64) {
        let a_day = |every: Duration| (DAY.as_secs() / every.as_secs().max(1)).max(1);
        match (self.notified, self.ordered) {
            (true, _) => (a_day(self.reconcile), 0),
            (false, true) => (a_day(self.reconcile), a_day(self.every)),
            (false, false) => (a_day(self.every), 0),
        }
    }

    /// The most calls a day that listing `keys` keys takes.
    #[must_use]
    pub fn calls_a_day(&self, keys: u64) -> u64 {
        let (full, short) = self.walks_a_day();
        full * keys.div_ceil(PAGE_KEYS).max(1) + short * 2
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Options of a source for tests.
    pub fn options() -> S3SourceOptions {
        S3SourceOptions {
            name: "raw".to_owned(),
            bus: "default".to_owned(),
            bucket: "bucket".to_owned(),
            prefix: String::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            every: Duration::from_secs(30),
            every_idle: Duration::from_secs(30),
            reconcile: Duration::from_secs(3600),
            ordered: false,
            versions: false,
            start: Start::All,
            deletes: false,
            forget_after: DAY,
            notified: false,
            defaults: Defaults::default(),
        }
    }

    #[test]
    fn the_cost_is_known_beforehand() {
        let mut options = options();
        assert_eq!(options.calls_a_day(1), 2880);
        assert_eq!(options.calls_a_day(1_000_000), 2_880_000);
        options.ordered = true;
        assert_eq!(options.calls_a_day(1_000_000), 24 * 1000 + 2 * 2880);
        options.notified = true;
        assert_eq!(options.calls_a_day(1_000_000), 24_000);
    }
}
