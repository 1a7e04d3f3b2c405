//! A hand on a running bucket source.

use super::S3SourceError;
use super::hints::{Answer, Hint};
use super::ledger::Ledger;
use super::status::{Board, Mode, RefusedObject, S3Status};
use crate::event::Event;
use crate::sources::folder::names::Globs;
use crate::sources::{Incoming, Intake, IntakeError, Taken};
use chrono::DateTime;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Refused objects that are shown.
const REFUSED_MAX: usize = 20;

/// What is asked of an engine.
pub enum Command {
    /// A walk of everything.
    Rescan(oneshot::Sender<()>),
    /// A look at some keys.
    Hints(Vec<Hint>, Answer),
}

/// What the handle shares with its engine.
pub struct Shared {
    pub name: String,
    pub bus: String,
    pub bucket: String,
    pub prefix: String,
    pub ledger: Ledger,
    pub board: Board,
    pub commands: mpsc::Sender<Command>,
    /// Where events go that are none of ours.
    pub intake: Arc<dyn Intake>,
}

/// A running bucket source. As an [`Intake`] it takes notifications: events
/// about objects of its bucket are hints, all others are handed on.
pub struct S3Handle {
    shared: Shared,
}

impl S3Handle {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The bus that its events go to.
    #[must_use]
    pub fn bus(&self) -> &str {
        &self.shared.bus
    }

    /// Whether it has neither listed its bucket yet nor failed to.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.shared.board.read().mode == Mode::Starting
    }

    /// How the source is doing.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn status(&self) -> Result<S3Status, S3SourceError> {
        let (objects, refused) = self.shared.ledger.counts(REFUSED_MAX).await?;
        let mut status = self.shared.board.read();
        status.objects = objects;
        status.refused = refused
            .into_iter()
            .map(|(key, reason, at_ms)| RefusedObject { key, reason, at_ms })
            .collect();
        Ok(status)
    }

    /// Lists everything and returns when that is done.
    ///
    /// # Errors
    /// When the source has ended.
    pub async fn rescan(&self) -> Result<(), S3SourceError> {
        let (done, is_done) = oneshot::channel();
        let sent = self.shared.commands.send(Command::Rescan(done)).await;
        sent.map_err(|_| S3SourceError::Ended)?;
        is_done.await.map_err(|_| S3SourceError::Ended)
    }

    /// Forgets objects by key or glob, so that those that are there are taken
    /// again; says how many.
    ///
    /// # Errors
    /// When the glob is none, or the ledger cannot be written.
    pub async fn forget(&self, which: &str) -> Result<usize, S3SourceError> {
        let globs = Globs::new(&[which.to_owned()])?;
        let (exact, prefix) = (which.to_owned(), self.shared.prefix.clone());
        let matches = move |key: &str| {
            let below = key.strip_prefix(&prefix).unwrap_or(key);
            let below = below.trim_start_matches('/');
            key == exact || below == exact || globs.matches(below.as_bytes())
        };
        let forgotten = self.shared.ledger.forget(matches).await?;
        self.rescan().await?;
        Ok(forgotten)
    }

    /// Whether an event tells of an object of this bucket.
    #[must_use]
    pub fn is_about(&self, event: &Event) -> bool {
        self.hint(event).is_some()
    }

    /// What an event tells of an object of this bucket.
    fn hint(&self, event: &Event) -> Option<Hint> {
        let deleted = match event.detail_type() {
            "Object Created" => false,
            "Object Deleted" => true,
            _ => return None,
        };
        let detail = event.detail();
        let text = |pointer: &str| detail.pointer(pointer).and_then(|v| v.as_str());
        if text("/bucket/name") != Some(&self.shared.bucket) {
            return None;
        }
        let owned = |pointer: &str| text(pointer).map(str::to_owned);
        Some(Hint {
            key: owned("/object/key")?,
            version: owned("/object/version-id"),
            etag: text("/object/etag").map(|e| e.trim_matches('"').to_owned()),
            sequencer: owned("/object/sequencer"),
            deleted,
            time_ms: DateTime::parse_from_rfc3339(event.time())
                .map_or(0, |time| time.timestamp_millis()),
        })
    }

    async fn notified(&self, batch: Vec<Incoming>) -> Result<Vec<Taken>, IntakeError> {
        let (mut hints, mut others, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for incoming in batch {
            match self.hint(&incoming.event) {
                Some(hint) => {
                    places.push(Ok(hints.len()));
                    hints.push(hint);
                }
                None => {
                    places.push(Err(others.len()));
                    others.push(incoming);
                }
            }
        }
        let ended = || IntakeError::Busy {
            reason: format!("source `{}` has ended", self.shared.name),
            retry_after: std::time::Duration::from_secs(1),
            overloaded: false,
        };
        let hinted = match hints.is_empty() {
            true => Vec::new(),
            false => {
                let (answer, answered) = oneshot::channel();
                let sent = self.shared.commands.send(Command::Hints(hints, answer));
                sent.await.map_err(|_| ended())?;
                answered.await.map_err(|_| ended())??
            }
        };
        let handed = match others.is_empty() {
            true => Vec::new(),
            false => self.shared.intake.take(others).await?,
        };
        let missing = || Taken::Refused("there was no answer for it".to_owned());
        Ok(places
            .into_iter()
            .map(|place| match place {
                Ok(n) => hinted.get(n).cloned().unwrap_or_else(missing),
                Err(n) => handed.get(n).cloned().unwrap_or_else(missing),
            })
            .collect())
    }
}

impl Intake for S3Handle {
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>> {
        self.notified(batch).boxed()
    }
}
