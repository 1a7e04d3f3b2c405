//! A bucket as a source of events.
//!
//! The listing and a durable ledger are the truth, notifications are hints. A
//! walk asks for the listing page by page and compares each object with what
//! the ledger has of its key: not with a time, because lists are in the order
//! of keys, times have whole seconds, an upload in parts bears the time at
//! which it began, and copies bring what times they like. A hint is a key to
//! look at now: the object is asked for (`HEAD`), and what it is counts,
//! whatever the hint said. So notifications may be lost, doubled and shuffled.
//!
//! # What a version is
//! A key with its etag and the second in which it was written; where versions
//! are listed, a key with its version id. A version is accepted once: the id of
//! its event is computed from it, the bus knows ids, and the ledger is written
//! after the bus has answered. An object that is overwritten twice between two
//! looks is told of once, unless versions are listed.
//!
//! # What is not an object
//! Keys of no bytes that end with `/`, which consoles make as folders. Uploads
//! in parts that are not complete are in no listing.
//!
//! # What it costs
//! A walk asks once per 1,000 keys. It never takes more than a quarter of the
//! time; `every_idle` lets the pause grow while nothing comes; with `ordered`
//! keys only the end is listed at each turn, and all of it every `reconcile`.
//! With notifications, there is a walk every `reconcile` and no other.

mod engine;
mod events;
mod handle;
mod hints;
mod ledger;
mod listing;
mod options;
mod status;
mod submit;
mod walk;

pub use handle::S3Handle;
pub use listing::{Begin, ListError, Listed, Listing, Page, What};
pub use options::S3SourceOptions;
pub use status::S3Status;

use super::folder::names::Globs;
use crate::clock::SharedClock;
use crate::sources::Intake;
use crate::state::{State, StateError};
use engine::{Engine, Parts};
use ledger::Ledger;
use status::Board;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Commands that may wait for the engine.
const COMMANDS: usize = 64;

/// Why a bucket source could not be started, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum S3SourceError {
    /// A glob is none.
    #[error("{0}")]
    Glob(#[from] globset::Error),
    /// The ledger could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The source has ended.
    #[error("the bucket source has ended")]
    Ended,
}

/// Which keys are taken.
#[derive(Debug)]
struct Keys {
    prefix: String,
    include: Option<Globs>,
    exclude: Globs,
}

impl Keys {
    fn new(options: &S3SourceOptions) -> Result<Self, globset::Error> {
        Ok(Self {
            prefix: options.prefix.clone(),
            include: match options.include.is_empty() {
                true => None,
                false => Some(Globs::new(&options.include)?),
            },
            exclude: Globs::new(&options.exclude)?,
        })
    }

    /// Whether an object of this key and size is taken.
    fn takes(&self, key: &str, size: u64) -> bool {
        let Some(below) = key.strip_prefix(&self.prefix) else {
            return false;
        };
        let below = below.trim_start_matches('/').as_bytes();
        let folder = size == 0 && key.ends_with('/');
        !folder
            && self.include.as_ref().is_none_or(|g| g.matches(below))
            && !self.exclude.matches(below)
    }
}

/// Prepares a bucket source; it runs while the second part of the answer is
/// awaited, until `cancel` is cancelled.
///
/// # Errors
/// When a glob is none or the ledger cannot be opened. That the bucket cannot
/// be listed is no reason: it is in the status, and tried again.
pub async fn start(
    options: S3SourceOptions,
    listing: Arc<dyn Listing>,
    intake: Arc<dyn Intake>,
    state: State,
    clock: SharedClock,
    cancel: CancellationToken,
) -> Result<(S3Handle, impl Future<Output = ()> + Send + use<>), S3SourceError> {
    let keys = Keys::new(&options)?;
    let ledger = Ledger::open(state, &options, clock.now_ms()).await?;
    let board = Board::new(&options);
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let handle = S3Handle::new(handle::Shared {
        name: options.name.clone(),
        bus: options.bus.clone(),
        bucket: options.bucket.clone(),
        prefix: options.prefix.clone(),
        ledger: ledger.clone(),
        board: board.clone(),
        commands,
        intake: Arc::clone(&intake),
    });
    let engine = Engine::new(Parts {
        options,
        keys,
        listing,
        intake,
        ledger,
        clock,
        board,
        inbox,
        cancel,
    });
    Ok((handle, engine.run()))
}
