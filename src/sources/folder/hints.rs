//! Notifications as hints: what the reader's thread leaves for the engine.
//!
//! The reader only folds each notification into a small record per path, so a
//! file that is written in a thousand pieces is one entry, and reading is much
//! faster than any burst. When there are too many paths, or the kernel has
//! dropped some, nothing is kept but the word `lost`: then a scan of the whole
//! tree takes their place.

use super::look::{Key, Look};
use super::probe::Content;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// What was told of one path since the engine last looked, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// It was renamed to this path.
    pub moved_in: bool,
    /// It came to be here, by `open` or by `link`.
    pub created: bool,
    /// It was opened after that: a link is not opened.
    pub opened: bool,
    /// Its content was changed and the writer has not closed it since.
    pub writing: bool,
    /// A writer closed it. A killed one does, too.
    pub closed: bool,
    /// It was deleted or renamed to elsewhere.
    pub gone: bool,
}

enum Told {
    Created,
    Opened,
    Wrote,
    Closed,
    Touched,
    MovedIn,
    Gone,
}

impl Hint {
    fn fold(&mut self, told: &Told) {
        match told {
            Told::Created => {
                *self = Self {
                    created: true,
                    ..Self::default()
                };
            }
            Told::MovedIn => {
                *self = Self {
                    moved_in: true,
                    ..Self::default()
                };
            }
            Told::Gone => {
                *self = Self {
                    gone: true,
                    ..Self::default()
                };
            }
            Told::Opened => self.opened = true,
            Told::Wrote => (self.writing, self.closed) = (true, false),
            Told::Closed => (self.writing, self.closed) = (false, true),
            Told::Touched => {}
        }
    }
}

/// A wish of the handle, or an answer of the content reader.
pub enum Command {
    /// Scan the whole tree and say when a scan that began after this is done.
    Rescan(oneshot::Sender<()>),
    /// Say when nothing waits any more.
    Idle(oneshot::Sender<()>),
    /// The content of a file has been read.
    Content(Key, Look, Result<Content, std::io::Error>),
}

/// What there is to do since the last time.
#[derive(Default)]
pub struct Mail {
    /// Hints by path.
    pub hints: HashMap<Key, Hint>,
    /// Some hints are lost.
    pub lost: bool,
    /// How many notifications this was.
    pub told: u64,
    /// Wishes.
    pub commands: Vec<Command>,
}

/// Between the reader, the handle and the engine.
pub struct Inbox {
    mail: Mutex<Mail>,
    wake: Notify,
    capacity: usize,
}

impl Inbox {
    /// An inbox for at most `capacity` paths.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            mail: Mutex::new(Mail::default()),
            wake: Notify::new(),
            capacity,
        })
    }

    /// Takes everything out.
    #[must_use]
    pub fn take(&self) -> Mail {
        std::mem::take(&mut *self.mail())
    }

    /// Whether there is something to take out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mail = self.mail();
        mail.hints.is_empty() && mail.commands.is_empty() && !mail.lost
    }

    /// Returns when something was put in since the last return.
    pub async fn filled(&self) {
        self.wake.notified().await;
    }

    /// Leaves a wish.
    pub fn command(&self, command: Command) {
        self.mail().commands.push(command);
        self.wake.notify_one();
    }

    /// Says that notifications were lost.
    pub fn lose(&self) {
        let mut mail = self.mail();
        mail.hints = HashMap::new();
        mail.lost = true;
        drop(mail);
        self.wake.notify_one();
    }

    fn put(&self, key: &[u8], told: &Told) {
        let mut mail = self.mail();
        mail.told += 1;
        if mail.lost {
            return;
        }
        if let Some(hint) = mail.hints.get_mut(key) {
            hint.fold(told);
            return;
        }
        // Opening tells nothing by itself, and our own scans open every folder.
        if matches!(told, Told::Opened) {
            return;
        }
        if mail.hints.len() >= self.capacity {
            drop(mail);
            self.lose();
            return;
        }
        let first = mail.hints.is_empty();
        mail.hints.entry(key.to_vec()).or_default().fold(told);
        drop(mail);
        if first {
            self.wake.notify_one();
        }
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        // What is inside is whole after every statement, also after a panic.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes notifications of files below `root` on the reader's thread.
pub struct Reader {
    root: PathBuf,
    inbox: Arc<Inbox>,
}

impl Reader {
    /// A reader for what lies below `root`.
    #[must_use]
    pub fn new(root: PathBuf, inbox: Arc<Inbox>) -> Self {
        Self { root, inbox }
    }
}

impl notify::EventHandler for Reader {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            _ => return self.inbox.lose(),
        };
        let Some(told) = told(&event.kind) else {
            return;
        };
        for path in &event.paths {
            if let Ok(below) = path.strip_prefix(&self.root) {
                self.inbox.put(below.as_os_str().as_bytes(), &told);
            }
        }
    }
}

fn told(kind: &EventKind) -> Option<Told> {
    Some(match kind {
        EventKind::Create(_) => Told::Created,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Told::Gone,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Told::MovedIn,
        // It comes besides `From` and `To`.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return None,
        EventKind::Modify(ModifyKind::Data(_)) => Told::Wrote,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Told::Closed,
        EventKind::Access(AccessKind::Open(_)) => Told::Opened,
        EventKind::Access(_) => return None,
        _ => Told::Touched,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::EventHandler;
    use notify::event::{CreateKind, DataChange, Flag};

    fn reader(capacity: usize) -> (Reader, Arc<Inbox>) {
        let inbox = Inbox::new(capacity);
        (Reader::new(PathBuf::from("/root"), inbox.clone()), inbox)
    }

    fn event(kind: EventKind, path: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(PathBuf::from(path)))
    }

    #[test]
    fn notifications_of_one_path_are_folded_in_order() {
        let (mut reader, inbox) = reader(8);
        let write = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        for kind in [
            EventKind::Create(CreateKind::File),
            open,
            write,
            close,
            write,
        ] {
            reader.handle_event(event(kind, "/root/a"));
        }
        reader.handle_event(event(open, "/root/only-read"));
        let mail = inbox.take();
        assert_eq!(mail.hints.len(), 1);
        let hint = mail.hints[&b"a".to_vec()];
        assert!(hint.created && hint.opened && hint.writing && !hint.closed);
        assert!(inbox.is_empty());
    }

    #[test]
    fn an_overflow_of_the_kernel_or_of_ours_is_a_loss() {
        let (mut reader, inbox) = reader(2);
        for n in 0..3 {
            reader.handle_event(event(
                EventKind::Create(CreateKind::File),
                &format!("/root/{n}"),
            ));
        }
        let mail = inbox.take();
        assert!(mail.lost && mail.hints.is_empty());
        reader.handle_event(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(inbox.take().lost);
    }
}
