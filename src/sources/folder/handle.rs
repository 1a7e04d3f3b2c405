//! What the rest of the program does with a running folder source.

use super::SourceError;
use super::after::{self, Done};
use super::hints::{Command, Inbox};
use super::ledger::{counts, refused};
use super::look::join;
use super::names::Globs;
use super::options::After;
use super::status::{Board, FolderStatus};
use crate::clock::SharedClock;
use crate::state::State;
use rusqlite::params;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Refused files that the status names.
const REFUSED_MAX: usize = 50;

/// Rows that `forget` goes through at a time.
const PAGE: i64 = 2000;

/// A running folder source.
pub struct FolderHandle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Shared {
    pub(super) board: Board,
    pub(super) inbox: Arc<Inbox>,
    pub(super) state: State,
    pub(super) clock: SharedClock,
    pub(super) source: i64,
    pub(super) after: After,
    pub(super) cancel: CancellationToken,
}

impl FolderHandle {
    pub(super) fn new(shared: Shared, thread: JoinHandle<()>) -> Self {
        Self {
            shared: Arc::new(shared),
            thread: Mutex::new(Some(thread)),
        }
    }

    /// How the source is doing.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn status(&self) -> Result<FolderStatus, SourceError> {
        let source = self.shared.source;
        let (files, refused) = self
            .shared
            .state
            .read(move |db| Ok((counts(db, source)?, refused(db, source, REFUSED_MAX)?)))
            .await?;
        let mut status = self.shared.board.read();
        let seen = status.files.seen;
        status.files = super::status::Files { seen, ..files };
        status.refused = refused;
        Ok(status)
    }

    /// Scans the whole tree and returns when that is done.
    ///
    /// # Errors
    /// When the source has ended.
    pub async fn rescan(&self) -> Result<(), SourceError> {
        self.ask(Command::Rescan).await
    }

    /// Returns when nothing is to be done: every file that was told of is
    /// handed in, and no scan is under way.
    ///
    /// # Errors
    /// When the source has ended.
    pub async fn wait_idle(&self) -> Result<(), SourceError> {
        self.ask(Command::Idle).await
    }

    async fn ask(
        &self,
        wish: impl FnOnce(oneshot::Sender<()>) -> Command,
    ) -> Result<(), SourceError> {
        let (answer, answered) = oneshot::channel();
        self.shared.inbox.command(wish(answer));
        tokio::select! {
            done = answered => done.map_err(|_| SourceError::Ended),
            () = self.shared.cancel.cancelled() => Err(SourceError::Ended),
        }
    }

    /// Forgets files by path or glob, so that those that are there are taken
    /// again, as new versions; says how many. A glob without `/` speaks of
    /// names, as in `include`.
    ///
    /// # Errors
    /// When the glob is none, or the ledger cannot be written.
    pub async fn forget(&self, which: &str) -> Result<usize, SourceError> {
        let globs = Globs::new(&[which.to_owned()])?;
        let (source, exact) = (self.shared.source, which.as_bytes().to_vec());
        let matches = move |key: &[u8]| key == exact.as_slice() || globs.matches(key);
        let matches = Arc::new(matches);
        let mut from = (0, Vec::new());
        let mut forgotten = 0;
        loop {
            let (after, matches) = (from.clone(), matches.clone());
            let (page, last) = self
                .shared
                .state
                .read(move |db| read_page(db, source, &after, &*matches))
                .await?;
            forgotten += page.len();
            if !page.is_empty() {
                self.shared
                    .state
                    .write(move |db| page.iter().try_for_each(|row| forget_row(db, row)))
                    .await?;
            }
            match last {
                Some(last) => from = last,
                None => break,
            }
        }
        self.rescan().await?;
        Ok(forgotten)
    }

    /// All deliveries of this event are settled: does what is to be done with
    /// its file. May be repeated.
    ///
    /// # Errors
    /// When the file cannot be moved or deleted, or the ledger cannot be
    /// written; the file is then as it was, and this can be tried again.
    pub async fn mark_done(&self, event_id: &str) -> Result<Done, SourceError> {
        let Ok(id) = Uuid::parse_str(event_id) else {
            return Ok(Done::Unknown);
        };
        let root = self.shared.board.read().root;
        let shared = &self.shared;
        after::mark_done(
            &shared.state,
            shared.source,
            root,
            &shared.after,
            id,
            shared.clock.now_ms(),
        )
        .await
    }

    /// Ids of events that were accepted and not marked done, after `after`, in
    /// order: what to ask the bus about after a restart.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open_events(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, SourceError> {
        let source = self.shared.source;
        let after = after
            .and_then(|id| Uuid::parse_str(id).ok())
            .map(|id| id.as_bytes().to_vec())
            .unwrap_or_default();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = self.shared.state.read(move |db| {
            db.prepare_cached(
                "SELECT event FROM folder_files INDEXED BY folder_files_open
                 WHERE state IN (2, 3) AND event > ?2 AND source = ?1 AND state = 3
                 ORDER BY event LIMIT ?3",
            )?
            .query_map(params![source, after, limit], |row| {
                row.get::<_, Vec<u8>>(0)
            })?
            .collect::<Result<Vec<_>, _>>()
        });
        let ids = found.await?;
        Ok(ids
            .iter()
            .filter_map(|id| Uuid::from_slice(id).ok())
            .map(|id| id.to_string())
            .collect())
    }

    /// Stops the source and returns when its thread has ended.
    pub async fn stop(&self) {
        self.shared.cancel.cancel();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("a folder source ended in a panic");
            }
        }
    }
}

type Place = (i64, Vec<u8>);

/// The rows of one page that match, and where the next page begins.
fn read_page(
    db: &rusqlite::Connection,
    source: i64,
    after: &Place,
    matches: &(dyn Fn(&[u8]) -> bool + Send + Sync),
) -> Result<(Vec<Place>, Option<Place>), rusqlite::Error> {
    let mut select = db.prepare_cached(
        "SELECT f.dir, f.name, d.path, f.source FROM folder_files f
         JOIN folder_dirs d ON d.id = f.dir
         WHERE (f.dir, f.name) > (?1, ?2) ORDER BY f.dir, f.name LIMIT ?3",
    )?;
    let mut rows = select.query(params![after.0, after.1, PAGE])?;
    let (mut found, mut last, mut seen) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let place: Place = (row.get(0)?, row.get(1)?);
        let (path, of): (Vec<u8>, i64) = (row.get(2)?, row.get(3)?);
        if of == source && matches(&join(&path, &place.1)) {
            found.push(place.clone());
        }
        seen += 1;
        last = Some(place);
    }
    Ok((found, last.filter(|_| seen == PAGE)))
}

fn forget_row(db: &rusqlite::Connection, row: &Place) -> Result<(), rusqlite::Error> {
    // What is there no more is forgotten for good.
    db.prepare_cached(
        "DELETE FROM folder_files WHERE dir = ?1 AND name = ?2 AND gone_ms IS NOT NULL",
    )?
    .execute(params![row.0, row.1])?;
    db.prepare_cached("UPDATE folder_files SET state = 7 WHERE dir = ?1 AND name = ?2")?
        .execute(params![row.0, row.1])?;
    Ok(())
}
