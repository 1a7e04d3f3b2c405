//! When a file is finished: the part of the rule that looks and times decide.
//! It is pure, so that it can be tested against every order of things.

use super::look::Look;
use super::options::Finished;
use serde::Serialize;
use std::time::Duration;

/// How many quiet times a file is waited for that looks quiet, but of which
/// something says that it is still being written.
const PATIENCE: u32 = 15;

/// A file that is known and not taken yet.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// How it looked last.
    pub look: Look,
    /// When it was first seen, Unix milliseconds.
    pub since_ms: i64,
    /// When its look was last seen to change, on the monotonic clock.
    pub changed: Duration,
    /// It was renamed here, from outside or from a name that is not taken.
    pub moved_in: bool,
    /// It was linked here.
    pub linked_in: bool,
    /// It was written to, and no close was told since.
    pub writing: bool,
}

/// The time, as the rule needs it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock.
    pub monotonic: Duration,
    /// The wall clock, never ahead of what it was when the program started plus
    /// the time since: a clock that jumps must not make files older.
    pub wall_ms: i64,
    /// Whether times of files are this machine's.
    pub own_times: bool,
}

/// How a file became finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Renamed into place.
    Renamed,
    /// Linked into place.
    Linked,
    /// Nothing changed for the quiet time.
    Quiet,
}

/// What a file waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// It is smaller than `min_size`.
    Small,
    /// It is younger than `min_age`.
    Young,
    /// It was written to and not closed.
    Writing,
    /// A process holds it open for writing.
    Open,
    /// It has changed within the quiet time.
    Quiet,
    /// Its last byte has not been written.
    Hole,
    /// Its done marker is missing, or older than itself.
    Marker,
    /// It may not be read.
    Unreadable,
    /// Its content is being read.
    Checking,
    /// Its format's trailer is missing or wrong.
    Trailer,
}

impl Wait {
    /// Whether only a change of the file, or of its marker, can end it.
    #[must_use]
    pub fn is_passive(self) -> bool {
        matches!(self, Self::Small | Self::Marker | Self::Trailer)
    }
}

/// What the rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is finished.
    Finished(How),
    /// It is not, and may be at this time; never without a change when `None`.
    Wait(Wait, Option<Duration>),
}

/// How long to wait for a file that something says is still being written.
#[must_use]
pub fn patience(rule: &Finished) -> Duration {
    rule.quiet.saturating_mul(PATIENCE)
}

/// Whether a link was set, and no file created by `open`: nobody opened it, it
/// has a content, and something other than a write was the last to touch it.
#[must_use]
pub fn is_link(created: bool, opened: bool, look: &Look) -> bool {
    created && !opened && look.size > 0 && look.mtime_ns != look.ctime_ns
}

/// Applies the rule.
#[must_use]
pub fn verdict(rule: &Finished, file: &Candidate, now: Moment) -> Verdict {
    if file.look.size < rule.min_size {
        return Verdict::Wait(Wait::Small, None);
    }
    if let Some(left) = left_of_min_age(rule, &file.look, now) {
        return Verdict::Wait(Wait::Young, Some(now.monotonic + left));
    }
    if rule.renamed_in && !file.writing {
        if file.moved_in {
            return Verdict::Finished(How::Renamed);
        }
        if file.linked_in {
            return Verdict::Finished(How::Linked);
        }
    }
    let seen_quiet = now.monotonic.saturating_sub(file.changed);
    if file.writing && seen_quiet < patience(rule) {
        return Verdict::Wait(Wait::Writing, Some(file.changed + patience(rule)));
    }
    let age = match now.own_times {
        // `ctime` moves with every change and nobody can set it: a file that
        // has not changed for long need not be watched for that long again.
        true => age(file.look.ctime_ms(), now.wall_ms),
        false => Duration::ZERO,
    };
    let quiet = seen_quiet.max(age);
    if quiet >= rule.quiet {
        return Verdict::Finished(How::Quiet);
    }
    Verdict::Wait(Wait::Quiet, Some(now.monotonic + (rule.quiet - quiet)))
}

fn left_of_min_age(rule: &Finished, look: &Look, now: Moment) -> Option<Duration> {
    if rule.min_age.is_zero() {
        return None;
    }
    // A time in the future says nothing; then it counts when the file came.
    let written = look.mtime_ms().min(look.ctime_ms());
    rule.min_age
        .checked_sub(age(written, now.wall_ms))
        .filter(|left| !left.is_zero())
}

fn age(then_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    const SECOND: i64 = 1_000_000_000;

    fn rule() -> Finished {
        let mut rule = super::super::options::tests::options(Path::new("/")).finished;
        rule.quiet = Duration::from_secs(2);
        rule
    }

    fn file(ctime_s: i64) -> Candidate {
        Candidate {
            look: Look {
                size: 10,
                mtime_ns: ctime_s * SECOND,
                ctime_ns: ctime_s * SECOND,
                ..Look::default()
            },
            since_ms: 0,
            changed: Duration::from_secs(100),
            moved_in: false,
            linked_in: false,
            writing: false,
        }
    }

    fn at(monotonic_s: u64, wall_s: i64) -> Moment {
        Moment {
            monotonic: Duration::from_secs(monotonic_s),
            wall_ms: wall_s * 1000,
            own_times: true,
        }
    }

    #[test]
    fn quiet_is_seen_or_known_from_ctime() {
        let quiet = Verdict::Finished(How::Quiet);
        let wait = |s| Verdict::Wait(Wait::Quiet, Some(Duration::from_secs(s)));
        assert_eq!(verdict(&rule(), &file(1000), at(100, 1000)), wait(102));
        assert_eq!(verdict(&rule(), &file(1000), at(101, 1001)), wait(102));
        assert_eq!(verdict(&rule(), &file(1000), at(102, 1002)), quiet);
        assert_eq!(verdict(&rule(), &file(900), at(100, 1000)), quiet);
        let mut remote = at(100, 1000);
        remote.own_times = false;
        assert_eq!(verdict(&rule(), &file(900), remote), wait(102));
        // A clock that is behind the file's makes nothing older.
        assert_eq!(verdict(&rule(), &file(2000), at(101, 1000)), wait(102));
    }

    #[test]
    fn what_is_renamed_or_linked_in_is_finished_at_once() {
        let mut renamed = file(1000);
        renamed.moved_in = true;
        let now = at(100, 1000);
        assert_eq!(
            verdict(&rule(), &renamed, now),
            Verdict::Finished(How::Renamed)
        );
        renamed.writing = true;
        assert!(matches!(
            verdict(&rule(), &renamed, now),
            Verdict::Wait(Wait::Writing, _)
        ));
        let mut off = rule();
        off.renamed_in = false;
        renamed.writing = false;
        assert!(matches!(
            verdict(&off, &renamed, now),
            Verdict::Wait(Wait::Quiet, _)
        ));
        let link = Look {
            size: 1,
            mtime_ns: 1,
            ctime_ns: 2,
            ..Look::default()
        };
        assert!(is_link(true, false, &link));
        assert!(!is_link(true, true, &link));
        assert!(!is_link(
            true,
            false,
            &Look {
                ctime_ns: 1,
                ..link
            }
        ));
    }

    #[test]
    fn a_writer_that_has_not_closed_is_waited_for() {
        let mut writing = file(1000);
        writing.writing = true;
        assert_eq!(
            verdict(&rule(), &writing, at(110, 1010)),
            Verdict::Wait(Wait::Writing, Some(Duration::from_secs(130)))
        );
        assert_eq!(
            verdict(&rule(), &writing, at(130, 1030)),
            Verdict::Finished(How::Quiet)
        );
    }

    #[test]
    fn size_and_age_are_minimums() {
        let mut strict = rule();
        strict.min_size = 11;
        assert_eq!(
            verdict(&strict, &file(1), at(500, 1000)),
            Verdict::Wait(Wait::Small, None)
        );
        strict.min_size = 0;
        strict.min_age = Duration::from_secs(60);
        assert_eq!(
            verdict(&strict, &file(970), at(500, 1000)),
            Verdict::Wait(Wait::Young, Some(Duration::from_secs(530)))
        );
        let mut future = file(900);
        future.look.mtime_ns = 5000 * SECOND;
        assert_eq!(
            verdict(&strict, &future, at(500, 1000)),
            Verdict::Finished(How::Quiet)
        );
    }

    proptest! {
        /// Whatever the times, a file that changed within the quiet time by
        /// both clocks is taken only when it was renamed or linked in, and a
        /// wait that names a time names one that is still to come.
        #[test]
        fn nothing_is_taken_within_the_quiet_time(
            changed in 0_u64..200, mono in 0_u64..200, ctime in 0_i64..200,
            wall in 0_i64..200, moved in any::<bool>(), writing in any::<bool>(),
            own_times in any::<bool>(),
        ) {
            let mut file = file(ctime);
            file.changed = Duration::from_secs(changed);
            (file.moved_in, file.writing) = (moved, writing);
            let now = Moment { own_times, ..at(mono, wall) };
            match verdict(&rule(), &file, now) {
                Verdict::Finished(How::Renamed) => prop_assert!(moved && !writing),
                Verdict::Finished(_) => {
                    let seen = mono.saturating_sub(changed) >= 2;
                    prop_assert!(seen || (own_times && wall - ctime >= 2));
                    prop_assert!(!writing || mono.saturating_sub(changed) >= 30);
                }
                Verdict::Wait(_, Some(until)) => prop_assert!(until > now.monotonic),
                Verdict::Wait(_, None) => prop_assert!(false, "waits for ever"),
            }
        }
    }
}
