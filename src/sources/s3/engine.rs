//! The loop of one bucket source. It is the only one who writes its ledger, so
//! a page of a listing and a hint never judge a key at once.

use super::Keys;
use super::handle::Command;
use super::ledger::Ledger;
use super::listing::{ListError, Listing};
use super::options::S3SourceOptions;
use super::status::{Board, Mode};
use crate::clock::SharedClock;
use crate::sources::Intake;
use crate::state::StateError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// A walk may take one part in this of the time.
const WALK_SHARE: u32 = 4;
/// Pause after a walk that failed; doubles from there.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);
/// The longest pause after a walk that failed, where walks are not further apart
/// anyway: a server that comes back is not left waiting for long.
const TROUBLE_MAX: Duration = Duration::from_secs(10);
/// And the longest at all.
const TROUBLE_END: Duration = Duration::from_secs(60);

/// Why work stopped in the middle.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// The source is told to end, or the bus has ended.
    #[error("it ends")]
    End,
    /// The bucket cannot be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// The ledger cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What an engine is made of.
pub struct Parts {
    pub options: S3SourceOptions,
    pub keys: Keys,
    pub listing: Arc<dyn Listing>,
    pub intake: Arc<dyn Intake>,
    pub ledger: Ledger,
    pub clock: SharedClock,
    pub board: Board,
    pub inbox: mpsc::Receiver<Command>,
    pub cancel: CancellationToken,
}

/// The loop's state.
pub struct Engine {
    pub(super) options: S3SourceOptions,
    pub(super) keys: Keys,
    pub(super) listing: Arc<dyn Listing>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) ledger: Ledger,
    pub(super) clock: SharedClock,
    pub(super) board: Board,
    inbox: mpsc::Receiver<Command>,
    pub(super) cancel: CancellationToken,
    pub(super) walks: u64,
    pub(super) baseline_done: bool,
    /// They wait for the end of a walk that has not begun.
    waiters: Vec<oneshot::Sender<()>>,
    full_at: Duration,
    pause: Duration,
    trouble: Duration,
}

impl Engine {
    pub fn new(parts: Parts) -> Self {
        Self {
            pause: parts.options.every,
            options: parts.options,
            keys: parts.keys,
            listing: parts.listing,
            intake: parts.intake,
            ledger: parts.ledger,
            clock: parts.clock,
            board: parts.board,
            inbox: parts.inbox,
            cancel: parts.cancel,
            walks: 0,
            baseline_done: false,
            waiters: Vec::new(),
            full_at: Duration::ZERO,
            trouble: AFTER_TROUBLE,
        }
    }

    /// Runs until it is told to end.
    pub async fn run(mut self) {
        loop {
            let pause = match self.turn().await {
                Ok(pause) => {
                    self.trouble = AFTER_TROUBLE;
                    pause
                }
                Err(Halt::End) => break,
                Err(halt) => self.troubled(&halt),
            };
            let at = self.clock.now_ms() + i64::try_from(pause.as_millis()).unwrap_or(0);
            self.board.update(|status| status.next_walk_ms = Some(at));
            if self.rest(pause).await.is_err() {
                break;
            }
        }
        self.board.update(|status| status.mode = Mode::Stopped);
    }

    /// One walk; says how long to rest after it.
    async fn turn(&mut self) -> Result<Duration, Halt> {
        let mut waiters = std::mem::take(&mut self.waiters);
        if !self.baseline_done {
            self.baseline_done = self.ledger.baseline_done().await?;
        }
        let began = self.clock.monotonic();
        let full = !self.options.ordered
            || !self.baseline_done
            || began >= self.full_at
            || !waiters.is_empty();
        self.board.update(|status| status.walking = true);
        let walked = self.walk(full).await;
        self.board.update(|status| status.walking = false);
        let found = match walked {
            Ok(found) => found,
            Err(halt) => {
                self.waiters.append(&mut waiters);
                return Err(halt);
            }
        };
        for waiter in waiters {
            // Whoever waited may have gone.
            waiter.send(()).ok();
        }
        let took = self.clock.monotonic().saturating_sub(began);
        if full {
            self.full_at = began + self.options.reconcile;
        }
        let mode = match self.options.notified {
            true => Mode::Notified,
            false => Mode::Polling,
        };
        self.board.update(|status| status.mode = mode);
        Ok(self.pause_after(found, took))
    }

    /// Something new: the shortest pause. Nothing: twice the last one, up to
    /// the longest. And never so short that walking is all there is.
    fn pause_after(&mut self, found: u64, took: Duration) -> Duration {
        let (shortest, longest) = match self.options.notified {
            true => (self.options.reconcile, self.options.reconcile),
            false => (self.options.every, self.options.every_idle),
        };
        self.pause = match found {
            0 => (self.pause * 2).min(longest).max(shortest),
            _ => shortest,
        };
        self.pause.max(took * (WALK_SHARE - 1))
    }

    fn troubled(&mut self, halt: &Halt) -> Duration {
        let now = self.clock.now_ms();
        self.board.fail(&halt.to_string(), now);
        if let Halt::List(error) = halt {
            let why = error.to_string();
            self.board.update(|status| {
                if !matches!(status.mode, Mode::Unreachable { .. }) {
                    status.mode = Mode::Unreachable { why, since_ms: now };
                }
            });
        }
        let pause = self.trouble;
        let longest = self.options.every.clamp(TROUBLE_MAX, TROUBLE_END);
        self.trouble = (pause * 2).min(longest);
        pause
    }

    /// Rests, and does what is asked meanwhile. A wish for a walk ends the rest.
    async fn rest(&mut self, pause: Duration) -> Result<(), Halt> {
        let end = tokio::time::Instant::now() + pause;
        while self.waiters.is_empty() {
            let command = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Halt::End),
                command = self.inbox.recv() => command.ok_or(Halt::End)?,
                () = tokio::time::sleep_until(end) => return Ok(()),
            };
            self.command(command).await?;
        }
        Ok(())
    }

    /// Does what is asked, if something is, without waiting.
    pub(super) async fn commands(&mut self) -> Result<(), Halt> {
        while let Ok(command) = self.inbox.try_recv() {
            self.command(command).await?;
        }
        match self.cancel.is_cancelled() {
            true => Err(Halt::End),
            false => Ok(()),
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), Halt> {
        match command {
            Command::Rescan(done) => {
                self.waiters.push(done);
                Ok(())
            }
            Command::Hints(hints, answer) => self.hints(hints, answer).await,
        }
    }

    /// Waits, unless the source ends.
    pub(super) async fn sleep(&self, pause: Duration) -> Result<(), Halt> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(Halt::End),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
