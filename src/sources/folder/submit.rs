//! Finished files are handed to the bus, and the ledger before and after.
//!
//! The row is written as `stable`, with the event's id, before the bus sees the
//! event, and as `accepted` once the bus has answered: whenever the program
//! dies, the next start knows what may have been sent and sends it again under
//! the same id.

use super::engine::Engine;
use super::events::Version;
use super::finished::{Candidate, How, Wait};
use super::ledger::{Row, Stage};
use super::look::{Key, Look};
use super::pending::Entry;
use super::record::Op;
use super::status::Mode;
use crate::sources::{Incoming, IntakeError, Taken};
use crate::state::StateError;
use rustix::fs::{lstat, stat};
use std::time::Duration;
use uuid::Uuid;

/// The first pause after the bus took nothing; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Bounds of the pause before a file that is open for writing is looked at again.
const OPEN_MIN: Duration = Duration::from_millis(50);
const OPEN_MAX: Duration = Duration::from_secs(2);

/// Times of files may be that far behind the clock, in milliseconds: a tick of a
/// kernel with 100 of them a second.
const CTIME_STEP_MS: i64 = 10;

/// How often a version that came back gets another id until the bus knows none.
const SALTS_MAX: usize = 16;

/// A finished file.
pub struct Ready {
    /// Its key.
    pub key: Key,
    /// How it looked when it was found to be finished.
    pub look: Look,
    /// When its look was last seen to change, on the monotonic clock.
    pub changed: Duration,
    /// What the ledger knew.
    pub row: Option<Row>,
    /// How it became finished.
    pub how: How,
    /// The hash of its content.
    pub hash: Option<Vec<u8>>,
    /// It may have been sent before the program was stopped.
    pub resend: bool,
}

/// A finished file on its way.
struct Sending {
    ready: Ready,
    row: Row,
    event: Incoming,
}

impl Ready {
    /// A file that is to be sent for the first time.
    #[must_use]
    pub fn new(
        key: Key,
        file: &Candidate,
        row: Option<Row>,
        how: How,
        hash: Option<Vec<u8>>,
    ) -> Self {
        Self {
            key,
            look: file.look,
            changed: file.changed,
            row,
            how,
            hash,
            resend: false,
        }
    }
}

impl Engine {
    /// Hands in one batch.
    pub(super) fn submit(&mut self) -> Result<(), StateError> {
        let began = self.now();
        let done = self.submit_batch();
        self.handing += self.now().saturating_sub(began);
        done
    }

    fn submit_batch(&mut self) -> Result<(), StateError> {
        let rest = self
            .ready
            .split_off(self.ready.len().min(self.limits.batch));
        let batch = std::mem::replace(&mut self.ready, rest);
        self.openers.refresh();
        let mut sending = Vec::with_capacity(batch.len());
        for ready in batch {
            if let Some(ready) = self.last_look(ready)? {
                sending.extend(self.prepare(ready, 0));
            }
        }
        for _ in 0..SALTS_MAX {
            if sending.is_empty() {
                return Ok(());
            }
            sending = self.send(sending)?;
        }
        Ok(())
    }

    /// A file that has changed meanwhile, or is open for writing, waits again.
    fn last_look(&mut self, ready: Ready) -> Result<Option<Ready>, StateError> {
        let path = self.path(&ready.key);
        let found = match self.options.follow_symlinks {
            true => stat(&path),
            false => lstat(&path),
        };
        let Ok(found) = found else {
            self.missing(&ready.key)?;
            return Ok(None);
        };
        let look = Look::of(&found);
        if look != ready.look && !(ready.resend && look.same_version(&ready.look)) {
            let entry = self.entry(&ready, look);
            self.wait_for(ready.key, entry, Wait::Quiet, Some(self.now()));
            return Ok(None);
        }
        let held = !ready.resend && self.openers.holds(&look);
        if held || !(ready.resend || self.knows_writers(&ready)) {
            let again = match held {
                true => self.now() + self.options.finished.quiet.clamp(OPEN_MIN, OPEN_MAX),
                false => self.openers.next().max(self.now()),
            };
            let mut entry = self.entry(&ready, look);
            if let Some(content) = &ready.hash {
                let content = super::probe::Content {
                    hash: Some(content.clone()),
                    broken: None,
                };
                entry.content = Some((look, content));
            }
            self.wait_for(ready.key, entry, Wait::Open, Some(again));
            return Ok(None);
        }
        Ok(Some(ready))
    }

    /// Whether it was looked up after the file's last change who has files open for
    /// writing: then a writer that pauses in the middle of a file that looks quiet
    /// was seen. One that opens it later changes it first.
    fn knows_writers(&self, ready: &Ready) -> bool {
        let (at, at_ms) = self.openers.taken();
        let by_ctime = || {
            let changed_ms = ready.look.ctime_ms() + CTIME_STEP_MS;
            self.mount.own_times() && at_ms >= changed_ms
        };
        ready.how != How::Quiet || at >= ready.changed || by_ctime()
    }

    fn entry(&self, ready: &Ready, look: Look) -> Entry {
        let mut file = self.candidate(look);
        if look == ready.look {
            file.changed = ready.changed;
        }
        file.moved_in = ready.how != How::Quiet && look.same_version(&ready.look);
        Entry {
            file,
            why: Wait::Quiet,
            due: None,
            content: None,
            asked: None,
        }
    }

    /// The row and the event of a file; a file that no event can be made of is
    /// recorded as refused.
    fn prepare(&mut self, ready: Ready, more_salt: i64) -> Option<Sending> {
        let before = ready.row.as_ref();
        let let_in_again =
            before.is_some_and(|r| matches!(r.stage, Stage::Deleted | Stage::Forgotten));
        let salt = match before {
            Some(row) if ready.resend => row.salt,
            Some(row) if let_in_again => row.salt + 1,
            _ => 0,
        } + more_salt;
        let hash = match (ready.resend, before) {
            (true, Some(row)) => row.hash.clone(),
            _ => ready.hash.clone(),
        };
        let sequencer = match before {
            Some(row) if ready.resend => row.sequencer,
            // A time that was set back must not put a version behind the last.
            Some(row) => ready.look.mtime_ns.max(row.sequencer + 1),
            None => ready.look.mtime_ns.max(0),
        };
        let version = Version {
            key: &ready.key,
            look: &ready.look,
            hash: hash.as_deref(),
            salt,
            sequencer,
        };
        let made = version.created(&self.options, ready.how);
        let row = Row {
            look: ready.look,
            hash: hash.clone(),
            stage: Stage::Stable,
            salt,
            sequencer,
            event: Uuid::parse_str(&version.created_id(&self.options)).ok(),
            gone_ms: None,
            told: false,
        };
        match made {
            Ok(event) => Some(Sending { ready, row, event }),
            Err(error) => {
                self.refuse(ready.key, row, error.to_string());
                None
            }
        }
    }

    fn refuse(&mut self, key: Key, row: Row, reason: String) {
        self.board.count(|c| c.refused += 1);
        if let Some(event) = row.event {
            self.ops.push(Op::Put(key.clone(), row));
            self.ops.push(Op::Settle {
                key,
                event,
                stage: Stage::Refused,
                reason: Some(reason),
            });
        }
    }

    /// Sends a batch and settles it; returns what has to be sent under another id.
    fn send(&mut self, sending: Vec<Sending>) -> Result<Vec<Sending>, StateError> {
        self.ops.extend(
            sending
                .iter()
                .map(|s| Op::Put(s.ready.key.clone(), s.row.clone())),
        );
        self.write_ops()?;
        let batch: Vec<_> = sending.iter().map(|s| s.event.clone()).collect();
        let Some(answers) = self.hand_in(&batch) else {
            return Ok(Vec::new());
        };
        let mut again = Vec::new();
        for (sent, answer) in sending.into_iter().zip(answers) {
            if matches!(answer, Taken::Duplicate(_)) && came_back(&sent.ready) {
                let more = sent.row.salt + 1;
                let ready = Ready {
                    row: sent.ready.row.map(|row| Row { salt: 0, ..row }),
                    ..sent.ready
                };
                again.extend(self.prepare(ready, more));
                continue;
            }
            let (stage, reason) = self.count_answer(answer, false);
            if let Some(event) = sent.row.event {
                self.ops.push(Op::Settle {
                    key: sent.ready.key,
                    event,
                    stage,
                    reason,
                });
            }
        }
        self.write_ops()?;
        Ok(again)
    }

    pub(super) fn count_answer(&self, answer: Taken, deletes: bool) -> (Stage, Option<String>) {
        let mut reason = None;
        let stage = match &answer {
            Taken::Accepted(_) | Taken::Duplicate(_) => Stage::Accepted,
            Taken::Refused(why) => {
                reason = Some(why.clone());
                Stage::Refused
            }
        };
        self.board.count(|counts| match answer {
            Taken::Accepted(_) => {
                counts.accepted += 1;
                counts.deletes += u64::from(deletes);
            }
            Taken::Duplicate(_) => counts.duplicates += 1,
            Taken::Refused(_) => counts.refused += 1,
        });
        (stage, reason)
    }

    /// Gives a batch to the bus, however long that takes; `None` when the
    /// program is to stop first.
    pub(super) fn hand_in(&self, batch: &[Incoming]) -> Option<Vec<Taken>> {
        let (intake, cancel) = (self.intake.clone(), self.cancel.clone());
        let mut pause = PAUSE_MIN;
        let mut paused: Option<i64> = None;
        loop {
            let taken = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => None,
                    taken = intake.take(batch.to_vec()) => Some(taken),
                }
            })?;
            let error = match taken {
                Ok(answers) if answers.len() == batch.len() => {
                    if paused.is_some() {
                        tracing::info!(source = %self.options.name, "the bus takes events again");
                    }
                    return Some(answers);
                }
                Ok(answers) => IntakeError::Stopped(format!(
                    "{} answers for {} events",
                    answers.len(),
                    batch.len()
                )),
                Err(error) => error,
            };
            let since_ms = *paused.get_or_insert_with(|| {
                tracing::warn!(source = %self.options.name, %error, "paused");
                self.clock.now_ms()
            });
            self.board.update(|status| {
                let why = error.to_string();
                status.mode = Mode::Paused { why, since_ms };
            });
            let asked = match error {
                IntakeError::Busy { retry_after, .. } => retry_after,
                IntakeError::Stopped(_) => Duration::ZERO,
            };
            // Sources that were refused together must not come back together.
            let jitter = pause.mul_f64(f64::from(self.clock.random() as u8) / 512.0);
            self.rest((pause + jitter).max(asked));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// An older version took the place of a newer one: the bus may have seen it
/// before, and still it is news. A version that is only sent again is older
/// than nothing.
fn came_back(ready: &Ready) -> bool {
    let older = |row: &Row| ready.look.mtime_ns < row.look.mtime_ns;
    !ready.resend && ready.row.as_ref().is_some_and(older)
}
