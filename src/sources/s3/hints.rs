//! Notifications: keys to look at now. What the bucket says of them counts.

use super::engine::{Engine, Halt};
use super::ledger::Standing;
use super::listing::{ListError, Listed};
use super::submit::Candidate;
use super::walk::Verdict;
use crate::sources::{IntakeError, Taken};
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Objects that are asked for at once.
const AT_ONCE: usize = 16;
/// When a sender of hints may come again while the bucket does not answer.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// What a notification speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The key.
    pub key: String,
    /// The version, where the notification tells one.
    pub version: Option<String>,
    /// The etag that it tells.
    pub etag: Option<String>,
    /// What orders the versions of the key.
    pub sequencer: Option<String>,
    /// It tells of a deletion.
    pub deleted: bool,
    /// When it happened, Unix milliseconds.
    pub time_ms: i64,
}

/// The answers to hints: one per hint, when all of it is durable.
pub type Answer = oneshot::Sender<Result<Vec<Taken>, IntakeError>>;

type Place = (String, Option<String>);

impl Engine {
    /// Looks at what hints speak of; answers when the bus has all of it.
    pub(super) async fn hints(&mut self, hints: Vec<Hint>, answer: Answer) -> Result<(), Halt> {
        let count = hints.len() as u64;
        self.board.count(|counts| counts.hints += count);
        let done = self.look_at(&hints).await;
        let (answered, halt) = match done {
            Ok(taken) => {
                let absorbed = taken.iter().filter(|t| matches!(t, Taken::Duplicate(_)));
                let absorbed = absorbed.count() as u64;
                self.board.count(|counts| counts.absorbed += absorbed);
                (Ok(taken), Ok(()))
            }
            // Another may take its place.
            Err(Halt::End) => (Err(busy(&Halt::End)), Err(Halt::End)),
            Err(halt) => {
                self.board.fail(&halt.to_string(), self.clock.now_ms());
                (Err(busy(&halt)), Ok(()))
            }
        };
        // Whoever sent the hints may have gone; they come again.
        answer.send(answered).ok();
        halt
    }

    async fn look_at(&mut self, hints: &[Hint]) -> Result<Vec<Taken>, Halt> {
        // Hints of one key are one look; the last one in order speaks for it.
        let mut wanted: BTreeMap<Place, &Hint> = BTreeMap::new();
        for hint in hints.iter().filter(|h| self.keys.takes(&h.key, u64::MAX)) {
            let known = wanted.entry(self.place(hint)).or_insert(hint);
            if later(hint, known) {
                *known = hint;
            }
        }
        let found = self.heads(wanted.keys().cloned().collect()).await?;
        let mut fresh = Vec::new();
        let mut places = Vec::new();
        for (place, hint) in wanted {
            let now = found.get(&place).cloned().flatten();
            if let Some(candidate) = self.weigh(hint, now).await? {
                fresh.push(candidate);
                places.push(place);
            }
        }
        let taken = self.submit(fresh, "notified").await?;
        let mut taken: BTreeMap<Place, Taken> = places.into_iter().zip(taken).collect();
        // The first hint of a place gets its answer, the others told nothing new.
        Ok(hints
            .iter()
            .map(|hint| {
                taken
                    .remove(&self.place(hint))
                    .unwrap_or(Taken::Duplicate(0))
            })
            .collect())
    }

    fn place(&self, hint: &Hint) -> Place {
        let version = hint.version.clone().filter(|_| self.options.versions);
        (hint.key.clone(), version)
    }

    /// Asks for several objects at once.
    async fn heads(&self, places: Vec<Place>) -> Result<BTreeMap<Place, Option<Listed>>, Halt> {
        let count = places.len() as u64;
        self.board.count(|counts| counts.head_calls += count);
        let mut asking = Vec::with_capacity(places.len());
        for place in places {
            let listing = Arc::clone(&self.listing);
            let ask = async move {
                let asked = listing.head(&place.0, place.1.as_deref()).await;
                (place, asked)
            };
            asking.push(ask.boxed());
        }
        let asked: Vec<_> = futures::stream::iter(asking)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut found = BTreeMap::new();
        for (place, asked) in asked {
            match asked {
                Ok(now) => drop(found.insert(place, now)),
                // One object that we may not see does not hold up the others;
                // whether it should be seen, a walk will tell.
                Err(ListError::Refused(why)) => {
                    let why = format!("{}: {why}", place.0);
                    self.board.fail(&why, self.clock.now_ms());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// What there is to tell of an object, as it is now.
    async fn weigh(&mut self, hint: &Hint, now: Option<Listed>) -> Result<Option<Candidate>, Halt> {
        let Some(now) = now else {
            return self.missing(hint).await;
        };
        if !self.keys.takes(&now.key, now.size) {
            return Ok(None);
        }
        let row = self.row(&now).await?;
        let (etag, sequencer) = (now.etag.clone(), hint.sequencer.clone());
        match self.judge(now, row.as_ref()).await? {
            Verdict::Known => Ok(None),
            Verdict::Quiet(entry) => {
                self.ledger.put(vec![entry], self.clock.now_ms()).await?;
                Ok(None)
            }
            Verdict::New(mut candidate) => {
                let same = hint.etag.as_deref() == Some(etag.as_str());
                candidate.sequencer = sequencer.filter(|_| same);
                Ok(Some(candidate))
            }
        }
    }

    async fn row(&self, listed: &Listed) -> Result<Option<super::ledger::Row>, Halt> {
        let rows = self.ledger.rows(std::slice::from_ref(listed)).await?;
        Ok(rows.into_values().next())
    }

    /// A hint of an object that is not there: it was deleted, now or since.
    async fn missing(&mut self, hint: &Hint) -> Result<Option<Candidate>, Halt> {
        let place = Listed {
            key: hint.key.clone(),
            size: 0,
            etag: String::new(),
            modified_ms: hint.time_ms,
            version: hint.version.clone(),
            deleted: true,
            class: None,
        };
        let row = self.row(&place).await?;
        match row {
            Some(row) if row.standing != Standing::Gone => {
                self.gone(vec![row]).await?;
                Ok(None)
            }
            // A mark of deletion, in a bucket whose versions are told of.
            None if self.options.versions && hint.deleted && hint.version.is_some() => {
                Ok(Some(Candidate::of(place, 0)))
            }
            _ => Ok(None),
        }
    }
}

fn busy(halt: &Halt) -> IntakeError {
    IntakeError::Busy {
        reason: format!("notifications are not looked at: {halt}"),
        retry_after: COME_AGAIN,
        overloaded: false,
    }
}

/// Whether `one` tells of something later than `other`: sequencers are
/// hexadecimal numbers, padded on the right to one length
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>).
pub fn later(one: &Hint, other: &Hint) -> bool {
    match (&one.sequencer, &other.sequencer) {
        (Some(one), Some(other)) => {
            let width = one.len().max(other.len());
            let padded = |text: &str| format!("{:0<width$}", text.to_ascii_uppercase());
            padded(one) > padded(other)
        }
        _ => one.time_ms > other.time_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequencers_order_hints() {
        let hint = |sequencer: &str, time_ms| Hint {
            key: "k".to_owned(),
            version: None,
            etag: None,
            sequencer: (!sequencer.is_empty()).then(|| sequencer.to_owned()),
            deleted: false,
            time_ms,
        };
        assert!(later(
            &hint("0055AED6DCD90281E6", 0),
            &hint("0055AED6DCD90281E5", 9)
        ));
        // A shorter one is padded with zeros on the right.
        assert!(later(&hint("0055B", 0), &hint("0055AED6DCD90281E5", 9)));
        assert!(!later(&hint("0055", 9), &hint("00550000", 0)));
        assert!(later(&hint("", 2), &hint("00", 1)));
    }
}
