//! Handing events in, and writing down what became of them.

use super::engine::{Engine, Halt};
use super::events::Version;
use super::ledger::{Entry, Standing, version_of};
use super::listing::Listed;
use super::status::Mode;
use crate::event::EventError;
use crate::sources::{Incoming, IntakeError, Taken};
use std::time::Duration;

/// Events that are handed in together.
const BATCH: usize = 500;
/// The longest pause before the bus is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is told of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is there.
    Created,
    /// It is gone.
    Deleted,
}

/// An object of which the bus is to be told.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The object.
    pub listed: Listed,
    /// What is told.
    pub kind: Kind,
    /// How often it was let in again.
    pub salt: i64,
    /// What orders the versions of the key, where a notification told it.
    pub sequencer: Option<String>,
}

impl Candidate {
    /// What a listing tells.
    pub fn of(listed: Listed, salt: i64) -> Self {
        Self {
            kind: match listed.deleted {
                true => Kind::Deleted,
                false => Kind::Created,
            },
            listed,
            salt,
            sequencer: None,
        }
    }

    fn entry(self, standing: Standing, reason: Option<String>) -> Entry {
        Entry {
            listed: self.listed,
            standing,
            salt: self.salt,
            reason,
        }
    }
}

impl Engine {
    /// Hands events in; returns when the bus has them and the ledger knows.
    pub(super) async fn submit(
        &mut self,
        mut candidates: Vec<Candidate>,
        how: &str,
    ) -> Result<Vec<Taken>, Halt> {
        let mut answers = Vec::with_capacity(candidates.len());
        while !candidates.is_empty() {
            let rest = candidates.split_off(candidates.len().min(BATCH));
            let batch = std::mem::replace(&mut candidates, rest);
            answers.extend(self.part(batch, how).await?);
        }
        Ok(answers)
    }

    async fn part(&mut self, batch: Vec<Candidate>, how: &str) -> Result<Vec<Taken>, Halt> {
        let mut events = Vec::with_capacity(batch.len());
        let mut places = Vec::with_capacity(batch.len());
        for candidate in &batch {
            // A mark of deletion that nobody wants to hear of is only noted.
            let silent = candidate.kind == Kind::Deleted && !self.options.deletes;
            places.push(match silent {
                true => Err(Taken::Duplicate(0)),
                false => match self.event(candidate, how) {
                    Ok(event) => {
                        events.push(event);
                        Ok(events.len() - 1)
                    }
                    Err(error) => Err(Taken::Refused(error.to_string())),
                },
            });
        }
        let taken = match events.is_empty() {
            true => Vec::new(),
            false => self.hand_in(events).await?,
        };
        let answers: Vec<Taken> = places
            .into_iter()
            .map(|place| match place {
                Ok(n) => taken[n].clone(),
                Err(answer) => answer,
            })
            .collect();
        let mut entries = Vec::with_capacity(batch.len());
        for (candidate, answer) in batch.into_iter().zip(&answers) {
            let deleted = candidate.kind == Kind::Deleted;
            self.board.count(|counts| match answer {
                Taken::Accepted(_) => {
                    counts.accepted += 1;
                    counts.deletes += u64::from(deleted);
                }
                Taken::Duplicate(0) => {}
                Taken::Duplicate(_) => counts.duplicates += 1,
                Taken::Refused(_) => counts.refused += 1,
            });
            let entry = match answer {
                Taken::Refused(reason) => {
                    tracing::warn!(source = %self.options.name, key = %candidate.listed.key, reason, "refused");
                    candidate.entry(Standing::Refused, Some(reason.clone()))
                }
                _ => candidate.entry(Standing::Accepted, None),
            };
            entries.push(entry);
        }
        self.ledger.put(entries, self.clock.now_ms()).await?;
        Ok(answers)
    }

    fn event(&self, candidate: &Candidate, how: &str) -> Result<Incoming, EventError> {
        let listed = &candidate.listed;
        let version = Version {
            listed,
            version: version_of(self.options.versions, listed),
            salt: candidate.salt,
            sequencer: candidate.sequencer.as_deref(),
        };
        match candidate.kind {
            Kind::Created => version.created(&self.options, how),
            Kind::Deleted => {
                let at = match listed.deleted {
                    true => listed.modified_ms,
                    false => self.clock.now_ms(),
                };
                version.deleted(&self.options, at, how)
            }
        }
    }

    /// Waits while the bus takes nothing: what changes meanwhile is in the
    /// bucket, and is found later.
    async fn hand_in(&mut self, batch: Vec<Incoming>) -> Result<Vec<Taken>, Halt> {
        let mut before = None;
        let taken = loop {
            let answered = tokio::select! {
                () = self.cancel.cancelled() => return Err(Halt::End),
                answered = self.intake.take(batch.clone()) => answered,
            };
            match answered {
                Ok(taken) => break taken,
                Err(IntakeError::Stopped(why)) => {
                    self.board.fail(&why, self.clock.now_ms());
                    return Err(Halt::End);
                }
                Err(IntakeError::Busy {
                    reason,
                    retry_after,
                    ..
                }) => {
                    if before.is_none() {
                        tracing::warn!(source = %self.options.name, reason, "paused");
                        let paused = Mode::Paused {
                            why: reason,
                            since_ms: self.clock.now_ms(),
                        };
                        self.board.update(|status| {
                            before = Some(std::mem::replace(&mut status.mode, paused));
                        });
                    }
                    self.sleep(retry_after.min(PAUSE_MAX)).await?;
                }
            }
        };
        if let Some(before) = before {
            self.board.update(|status| status.mode = before);
        }
        Ok(taken)
    }
}
