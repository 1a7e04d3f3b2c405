//! The loop of one folder source, on a thread of its own.
//!
//! Each turn takes the hints, does one step of a scan, looks at the files whose
//! time has come, and hands in what is finished. While the bus takes nothing,
//! the loop stands; hints then gather in the inbox, which has a bound.

use super::Limits;
use super::finished::{Candidate, Moment};
use super::hints::{Command, Inbox, Mail};
use super::ledger::Ledger;
use super::look::{Key, full};
use super::mounts::{Mount, mount_of};
use super::names::Names;
use super::openers::Openers;
use super::options::FolderOptions;
use super::pending::Pending;
use super::probe::Question;
use super::record::Op;
use super::rest::wait_at_most;
use super::status::{Board, Mode};
use super::submit::Ready;
use super::walk::{Full, Walk};
use super::watches::Watches;
use crate::clock::SharedClock;
use crate::sources::{Incoming, Intake};
use crate::state::StateError;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long after a failure of the ledger the tree is scanned again.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// How often a missing root is looked for.
const ROOT_EVERY: Duration = Duration::from_secs(1);

/// Polling takes at most one part in this of the time.
const POLL_SHARE: u32 = 20;

/// How often the status is brought up to date, at most.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

/// Everything that one source needs.
pub struct Engine {
    pub(super) options: FolderOptions,
    pub(super) limits: Limits,
    pub(super) names: Names,
    /// Without symbolic links.
    pub(super) root: PathBuf,
    pub(super) clock: SharedClock,
    pub(super) inbox: Arc<Inbox>,
    pub(super) watches: Watches,
    pub(super) ledger: Ledger,
    pub(super) board: Board,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) runtime: Handle,
    pub(super) cancel: CancellationToken,
    pub(super) openers: Openers,
    pub(super) content: mpsc::Sender<Question>,
    pub(super) pending: Pending,
    pub(super) ready: Vec<Ready>,
    pub(super) ops: Vec<Op>,
    /// Told before the ledger has the new names.
    pub(super) moves: Vec<Incoming>,
    pub(super) targeted: Walk,
    pub(super) full: Option<Full>,
    pub(super) scans: u64,
    /// A candidate found no room; a scan is due when there is.
    pub(super) crowded: bool,
    /// The root's file system, or a polled one below it.
    pub(super) mount: Mount,
    /// When to tell of files that are gone.
    pub(super) sweep_at: Option<Duration>,
    pub(super) next_full: Duration,
    pub(super) root_id: Option<(u64, u64)>,
    /// Time that the last scan of all took for itself,
    pub(super) last_busy: Duration,
    /// and time spent with the bus and the ledger since the start.
    pub(super) handing: Duration,
    /// They wait for a scan that has not begun,
    pub(super) scan_waiters: Vec<oneshot::Sender<()>>,
    /// for the one under way,
    pub(super) full_waiters: Vec<oneshot::Sender<()>>,
    /// and no more.
    pub(super) answers_due: Vec<oneshot::Sender<()>>,
    idle_waiters: Vec<oneshot::Sender<()>>,
    /// The least that the wall clock was ahead of the monotonic one.
    wall_offset_ms: i64,
    published: Option<Duration>,
    mode: Mode,
}

/// What an engine is made of.
pub struct Parts {
    pub options: FolderOptions,
    pub limits: Limits,
    pub names: Names,
    pub root: PathBuf,
    pub clock: SharedClock,
    pub inbox: Arc<Inbox>,
    pub ledger: Ledger,
    pub board: Board,
    pub intake: Arc<dyn Intake>,
    pub runtime: Handle,
    pub cancel: CancellationToken,
    pub content: mpsc::Sender<Question>,
}

impl Engine {
    pub fn new(parts: Parts) -> Self {
        let watches = Watches::new(
            parts.root.clone(),
            parts.inbox.clone(),
            parts.limits.watches,
        );
        let wall_offset_ms = wall_offset(&parts.clock);
        Self {
            openers: Openers::new(parts.clock.clone(), parts.limits.openers_every),
            mount: mount_of(&parts.root),
            options: parts.options,
            limits: parts.limits,
            names: parts.names,
            root: parts.root,
            next_full: parts.clock.monotonic(),
            clock: parts.clock,
            inbox: parts.inbox,
            watches,
            ledger: parts.ledger,
            board: parts.board,
            intake: parts.intake,
            runtime: parts.runtime,
            cancel: parts.cancel,
            content: parts.content,
            pending: Pending::default(),
            ready: Vec::new(),
            ops: Vec::new(),
            moves: Vec::new(),
            targeted: Walk::default(),
            full: None,
            scans: 0,
            crowded: false,
            sweep_at: None,
            root_id: None,
            last_busy: Duration::ZERO,
            handing: Duration::ZERO,
            scan_waiters: Vec::new(),
            full_waiters: Vec::new(),
            answers_due: Vec::new(),
            idle_waiters: Vec::new(),
            wall_offset_ms,
            published: None,
            mode: Mode::Starting,
        }
    }

    /// Runs until it is cancelled.
    pub fn run(mut self) {
        let _ended = Ended(self.board.clone());
        while !self.cancel.is_cancelled() {
            self.wait();
            if let Err(error) = self.turn() {
                self.trouble(&error);
            }
            // Whoever gets an answer finds the status as it is by then.
            self.publish();
            self.answer();
        }
    }

    fn turn(&mut self) -> Result<(), StateError> {
        self.wall_offset_ms = self.wall_offset_ms.min(wall_offset(&self.clock));
        let mail = self.inbox.take();
        self.read(mail)?;
        self.flush()?;
        if self.full.is_none() && self.now() >= self.next_full {
            self.begin_full();
        }
        self.step()?;
        self.flush()?;
        self.look_at_due()?;
        self.flush()?;
        self.make_room();
        if self.is_quiet() && self.sweep_at.is_some_and(|at| self.now() >= at) {
            self.sweep()?;
        }
        if self.is_idle() {
            self.answers_due.append(&mut self.idle_waiters);
        }
        Ok(())
    }

    fn answer(&mut self) {
        for answer in self.answers_due.drain(..) {
            // Whoever asked may have gone.
            answer.send(()).ok();
        }
    }

    fn read(&mut self, mail: Mail) -> Result<(), StateError> {
        if mail.told > 0 {
            self.board.count(|c| c.notifications += mail.told);
        }
        for command in mail.commands {
            match command {
                Command::Rescan(answer) => {
                    self.scan_waiters.push(answer);
                    self.next_full = self.now();
                }
                Command::Idle(answer) => self.idle_waiters.push(answer),
                Command::Content(key, look, content) => self.content_read(key, look, content)?,
            }
        }
        if mail.lost {
            tracing::warn!(source = %self.options.name, "notifications were lost, scanning the folder");
            self.board.count(|c| c.losses += 1);
            self.watches.rebuild();
            // One that is under way has passed by folders that nobody watches now.
            self.restart_full();
        }
        self.read_hints(mail.hints)
    }

    /// Blocks until there is something to do.
    fn wait(&self) {
        if self.is_walking() || !self.inbox.is_empty() {
            return;
        }
        let next = [Some(self.next_full), self.pending.next_due(), self.sweep_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_full);
        let rest = next.saturating_sub(self.now());
        if rest.is_zero() {
            return;
        }
        let something = async {
            tokio::select! {
                () = self.inbox.filled() => {}
                () = self.cancel.cancelled() => {}
            }
        };
        wait_at_most(something, rest);
    }

    /// Blocks for that long, or until the program is to stop.
    pub(super) fn rest(&self, rest: Duration) {
        let until = self.now() + rest;
        while !self.cancel.is_cancelled() && self.now() < until {
            wait_at_most(self.cancel.cancelled(), until.saturating_sub(self.now()));
        }
    }

    /// The ledger could not be read or written: nothing is concluded from what
    /// was seen since, a scan will see it again.
    fn trouble(&mut self, error: &StateError) {
        self.board
            .fail(b"", &error.to_string(), self.clock.now_ms());
        self.ops.clear();
        self.moves.clear();
        self.ready.clear();
        self.restart_full();
        self.targeted = Walk::default();
        self.next_full = self.now() + AFTER_TROUBLE;
        self.rest(AFTER_TROUBLE);
    }

    /// Writes and hands in what has gathered.
    pub(super) fn flush(&mut self) -> Result<(), StateError> {
        self.write_ops()?;
        while !self.ready.is_empty() && !self.cancel.is_cancelled() {
            self.submit()?;
        }
        Ok(())
    }

    pub(super) fn write_ops(&mut self) -> Result<(), StateError> {
        self.tell_moves();
        let ops = std::mem::take(&mut self.ops);
        self.ledger.write(ops, self.clock.now_ms())
    }

    fn make_room(&mut self) {
        if self.crowded && self.full.is_none() && self.pending.active() * 4 < self.limits.candidates
        {
            self.crowded = false;
            self.next_full = self.now();
        }
    }

    fn is_walking(&self) -> bool {
        self.full.is_some() || !self.targeted.is_done()
    }

    fn is_quiet(&self) -> bool {
        !self.is_walking() && self.inbox.is_empty() && self.root_id.is_some()
    }

    fn is_idle(&self) -> bool {
        self.is_quiet()
            && self.pending.active() == 0
            && self.ready.is_empty()
            && !self.crowded
            && self.sweep_at.is_none()
            && self.scan_waiters.is_empty()
    }

    /// The monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The time for the rule of finished files.
    pub(super) fn moment(&self) -> Moment {
        let monotonic = self.now();
        let since = i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX);
        Moment {
            monotonic,
            wall_ms: self.wall_offset_ms.saturating_add(since),
            own_times: self.mount.own_times(),
        }
    }

    pub(super) fn path(&self, key: &[u8]) -> PathBuf {
        full(&self.root, key)
    }

    pub(super) fn candidate(&self, look: super::look::Look) -> Candidate {
        Candidate {
            look,
            since_ms: self.clock.now_ms(),
            changed: self.now(),
            moved_in: false,
            linked_in: false,
            writing: false,
        }
    }

    /// When the next scan of all is due, counted from the end of the last.
    pub(super) fn until_next_full(&self) -> Duration {
        if self.root_id.is_none() {
            return ROOT_EVERY;
        }
        match self.why_polled() {
            None => self.options.reconcile,
            Some(_) => self
                .options
                .finished
                .quiet
                .clamp(Duration::from_millis(100), Duration::from_secs(2))
                .max(self.last_busy * POLL_SHARE)
                .min(self.options.reconcile),
        }
    }

    /// Why notifications do not tell everything, if so.
    pub(super) fn why_polled(&self) -> Option<String> {
        if let Some(error) = self.watches.short() {
            return Some(error.to_owned());
        }
        let name = self.limits.polled.or_else(|| self.mount.polled())?;
        Some(format!("{name} does not tell of every change"))
    }

    /// Brings the status up to date.
    fn publish(&mut self) {
        let now = self.now();
        let busy = self.is_walking() || !self.inbox.is_empty();
        if busy
            && self.answers_due.is_empty()
            && self.published.is_some_and(|at| now < at + PUBLISH_EVERY)
        {
            return;
        }
        self.published = Some(now);
        let mode = match (self.root_id, self.why_polled()) {
            (None, _) if self.scans > 0 => Mode::Polling {
                why: "the folder is missing".to_owned(),
            },
            (None, _) => Mode::Starting,
            (Some(_), None) => Mode::Watching,
            (Some(_), Some(why)) => Mode::Polling { why },
        };
        if self.mode != mode {
            match &mode {
                Mode::Polling { why } => {
                    tracing::warn!(source = %self.options.name, root = %self.root.display(), why, "the folder is polled");
                }
                _ => {
                    tracing::info!(source = %self.options.name, root = %self.root.display(), mode = ?mode, "the folder source");
                }
            }
            self.mode = mode.clone();
        }
        self.board.update(|status| {
            status.mode = mode;
            status.files.seen = self.pending.len() as u64;
            status.oldest_waiting = self.pending.oldest();
            status.scanning = self.full.is_some();
            status.watched = self.watches.len();
        });
    }

    /// Takes a file off the list of those that wait.
    pub(super) fn unwait(&mut self, key: &Key) {
        self.pending.remove(key);
        self.board.clear(key);
    }
}

/// Says that the engine has ended, however it did.
struct Ended(Board);

impl Drop for Ended {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.0.update(|status| {
            status.mode = match panicked {
                true => Mode::Failed,
                false => Mode::Stopped,
            };
        });
    }
}

fn wall_offset(clock: &SharedClock) -> i64 {
    let monotonic = i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX);
    clock.now_ms().saturating_sub(monotonic)
}
