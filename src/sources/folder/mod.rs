//! A watched folder as a source of events.
//!
//! Notifications are hints, the scan and a durable ledger are the truth. A
//! thread reads notifications and does nothing else; an engine on a thread of
//! its own looks at what was told, scans the tree at the start, whenever
//! notifications were lost, and every `reconcile`. Each folder is watched
//! before it is listed. Where notifications do not tell everything (network
//! and layered file systems, too few watches), the tree is polled.
//!
//! # When a file is finished
//! All of this must hold, at the moment of a last look before it is handed in:
//!
//! 1. It has at least `min_size` bytes, and is at least `min_age` old (by the
//!    earlier of its `mtime` and `ctime`).
//! 2. With `done_marker`, the marker is there and is no older than the file.
//! 3. It was renamed or linked into place (`renamed_in`), from outside or from
//!    a name that is not taken; or size, times and blocks have not changed for
//!    `quiet`. A rename of a file that is itself waiting does not finish it.
//! 4. No process that can be seen holds it open for writing: one that can be
//!    seen in `/proc` is waited for however long it pauses; one that was only
//!    seen to write and not to close, for fifteen times `quiet`.
//! 5. Its last byte has been written: a size that was set ahead (`truncate`,
//!    `fallocate`) leaves a hole at the end, and is waited for as long.
//!    Files that were renamed or linked in are not asked.
//! 6. With `trailer`, gzip unpacks to its checksum, and Parquet has its footer.
//!
//! What this cannot know: whether a writer that was killed, or closed the file
//! and will open it again later than `quiet`, meant to go on; and a writer on
//! another machine that pauses longer than `quiet`. For those there are
//! renaming, the done marker and the trailer. A file that changes after it was
//! taken is a new version, so even then nothing is lost.
//!
//! # What a version is
//! A key with its size and `mtime` (nanoseconds). With `content_hash` also the
//! SHA-256: then a touch is no new version, and a change that set size and time
//! back is one. Without it a new `mtime` is a new version, whatever the size. A
//! version is accepted once: its event's id is computed from it, the bus knows
//! ids, and the ledger goes `stable` → `accepted` → `done` around the bus's
//! answer. A file that is renamed within the tree keeps its row and is no news.

mod after;
mod engine;
mod events;
mod finished;
mod gone;
mod handle;
mod hints;
mod ledger;
mod look;
mod mounts;
mod moves;
pub(super) mod names;
mod observe;
mod openers;
pub mod options;
mod pending;
mod probe;
mod record;
mod rest;
pub mod status;
mod submit;
mod walk;
mod watches;

pub use after::Done;
pub use finished::Wait;
pub use handle::FolderHandle;
pub use options::{After, Finished, FolderOptions, Start};
pub use status::{FolderStatus, Mode};

use crate::clock::SharedClock;
use crate::sources::Intake;
use crate::state::{State, StateError};
use engine::{Engine, Parts};
use hints::Inbox;
use ledger::Ledger;
use names::Names;
use status::Board;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Why a folder source could not be started, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A glob is none.
    #[error("{0}")]
    Glob(#[from] globset::Error),
    /// The folder cannot be made or read.
    #[error("the folder {path}: {error}")]
    Root {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What should happen to a finished file could not be done.
    #[error("{path}: {error}")]
    After {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The ledger could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system has no thread to give.
    #[error("no thread for the folder source: {0}")]
    Thread(io::Error),
    /// The source has ended.
    #[error("the folder source has ended")]
    Ended,
}

/// Bounds of a source.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Events that are handed in together.
    pub batch: usize,
    /// Paths that hints are kept of; more are a loss, and a scan follows.
    pub hints: usize,
    /// Files that wait in memory to be finished; others are found by a later scan.
    pub candidates: usize,
    /// Names of one folder that are listed at a time.
    pub listed: usize,
    /// Folders that are watched, besides the kernel's limit.
    pub watches: Option<usize>,
    /// Poll as if the folder were on this file system.
    pub polled: Option<&'static str>,
    /// Looks at who has files open for writing are at least so far apart.
    pub openers_every: std::time::Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 500,
            hints: 65_536,
            candidates: 50_000,
            listed: 100_000,
            watches: None,
            polled: None,
            openers_every: std::time::Duration::ZERO,
        }
    }
}

/// Starts folder sources.
pub struct FolderSource;

impl FolderSource {
    /// Starts a source; it runs until `cancel` is cancelled. The first scan is
    /// under way when this returns.
    ///
    /// # Errors
    /// When the options are wrong, the folder cannot be made, or the ledger
    /// cannot be opened. Whatever goes wrong later is in the status.
    pub async fn start(
        options: FolderOptions,
        intake: Arc<dyn Intake>,
        state: State,
        clock: SharedClock,
        cancel: CancellationToken,
    ) -> Result<FolderHandle, SourceError> {
        Self::start_within(Limits::default(), options, intake, state, clock, cancel).await
    }

    /// [`FolderSource::start`] with other bounds.
    ///
    /// # Errors
    /// As [`FolderSource::start`].
    pub async fn start_within(
        limits: Limits,
        options: FolderOptions,
        intake: Arc<dyn Intake>,
        state: State,
        clock: SharedClock,
        cancel: CancellationToken,
    ) -> Result<FolderHandle, SourceError> {
        let inbox = Inbox::new(limits.hints);
        let runtime = Handle::current();
        let (started, outcome) = oneshot::channel();
        let setup = {
            let (options, state, clock) = (options.clone(), state.clone(), clock.clone());
            let (inbox, cancel) = (inbox.clone(), cancel.clone());
            move || -> Result<(Engine, Board, i64), SourceError> {
                let (root, names) = open_root(&options)?;
                let name = root.as_os_str().as_bytes();
                let ledger = Ledger::open(state, &options.name, name, clock.now_ms())?;
                let (source, board) = (ledger.source, Board::new(&options.name, root.clone()));
                let content = probe::start(inbox.clone()).map_err(SourceError::Thread)?;
                let engine = Engine::new(Parts {
                    options,
                    limits,
                    names,
                    root,
                    clock,
                    inbox,
                    ledger,
                    board: board.clone(),
                    intake,
                    runtime,
                    cancel,
                    content,
                });
                Ok((engine, board, source))
            }
        };
        // Setting up and running both block, so they have the thread together.
        let thread = std::thread::Builder::new()
            .name(format!("folder-{}", options.name))
            .spawn(move || match setup() {
                Ok((engine, board, source)) => {
                    if started.send(Ok((board, source))).is_ok() {
                        engine.run();
                    }
                }
                // Whoever started us may have gone; then nobody wants to know.
                Err(error) => drop(started.send(Err(error))),
            })
            .map_err(SourceError::Thread)?;
        let (board, source) = outcome.await.map_err(|_| SourceError::Ended)??;
        let after = absolute(options.after)?;
        Ok(FolderHandle::new(
            handle::Shared {
                board,
                inbox,
                state,
                clock,
                source,
                after,
                cancel,
            },
            thread,
        ))
    }
}

/// Makes the folder, and compiles the rules for names.
fn open_root(options: &FolderOptions) -> Result<(PathBuf, Names), SourceError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |error| SourceError::Root { path, error }
    };
    std::fs::create_dir_all(&options.root).map_err(fail(&options.root))?;
    let root = options.root.canonicalize().map_err(fail(&options.root))?;
    let mut set_aside = None;
    if let After::Move(folder) = absolute(options.after.clone())? {
        std::fs::create_dir_all(&folder).map_err(fail(&folder))?;
        let folder = folder.canonicalize().map_err(fail(&folder))?;
        set_aside = folder
            .strip_prefix(&root)
            .ok()
            .map(|below| below.as_os_str().as_bytes().to_vec())
            .filter(|below| !below.is_empty());
    }
    let names = Names::new(options, set_aside)?;
    Ok((root, names))
}

fn absolute(after: After) -> Result<After, SourceError> {
    let After::Move(folder) = after else {
        return Ok(after);
    };
    match std::path::absolute(&folder) {
        Ok(folder) => Ok(After::Move(folder)),
        Err(error) => Err(SourceError::Root {
            path: folder,
            error,
        }),
    }
}
