//! The folder source on a real file system.

mod bursts;
mod names;
mod restarts;
mod settled;
mod traps;
mod trouble;
mod versions;

use futures::FutureExt;
use futures::future::BoxFuture;
use pointsman::clock;
use pointsman::sources::folder::{
    After, Finished, FolderHandle, FolderOptions, FolderSource, FolderStatus, Limits, Mode, Start,
};
use pointsman::sources::{Incoming, Intake, IntakeError, Taken};
use pointsman::state::State;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Quiet time of most tests.
pub const QUIET: Duration = Duration::from_millis(150);

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(150);

/// What the bus of a test does with the next batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    Take,
    Busy,
    /// Takes it and never says so, as if the program died then.
    TakeAndDie,
    /// Dies before it takes it.
    Die,
    Refuse,
}

/// A bus that keeps what it is given, and knows ids.
pub struct Bus {
    inner: Mutex<Inner>,
}

struct Inner {
    mood: Mood,
    ids: HashMap<String, u64>,
    events: Vec<Value>,
    at: Vec<Instant>,
    batches: usize,
    duplicates: usize,
    deaths: usize,
}

impl Bus {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                mood: Mood::Take,
                ids: HashMap::new(),
                events: Vec::new(),
                at: Vec::new(),
                batches: 0,
                duplicates: 0,
                deaths: 0,
            }),
        })
    }

    pub fn mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    pub fn len(&self) -> usize {
        self.inner.lock().unwrap().events.len()
    }

    pub fn batches(&self) -> usize {
        self.inner.lock().unwrap().batches
    }

    pub fn duplicates(&self) -> usize {
        self.inner.lock().unwrap().duplicates
    }

    /// Batches that were taken and never answered.
    pub fn deaths(&self) -> usize {
        self.inner.lock().unwrap().deaths
    }

    pub fn events(&self) -> Vec<Value> {
        self.inner.lock().unwrap().events.clone()
    }

    pub fn taken_at(&self, n: usize) -> Instant {
        self.inner.lock().unwrap().at[n]
    }

    /// Keys of the events of this kind, sorted.
    pub fn keys_of(&self, kind: &str) -> Vec<String> {
        let events = self.events();
        let of_kind = events.iter().filter(|e| e["detail-type"] == kind);
        let mut keys: Vec<String> = of_kind.map(key).collect();
        keys.sort();
        keys
    }

    pub fn created(&self) -> Vec<String> {
        self.keys_of("Object Created")
    }

    fn answer(&self, batch: Vec<Incoming>) -> Result<Vec<Taken>, Option<IntakeError>> {
        let mut inner = self.inner.lock().unwrap();
        match inner.mood {
            Mood::Busy => {
                return Err(Some(IntakeError::Busy {
                    reason: "the disk is full".to_owned(),
                    retry_after: Duration::from_millis(20),
                    overloaded: false,
                }));
            }
            Mood::Die => return Err(None),
            Mood::Refuse => {
                return Ok(batch
                    .iter()
                    .map(|_| Taken::Refused("too odd".into()))
                    .collect());
            }
            Mood::Take | Mood::TakeAndDie => {}
        }
        inner.batches += 1;
        let mut answers = Vec::new();
        for incoming in batch {
            let next = inner.ids.len() as u64 + 1;
            let id = incoming.event.id().to_owned();
            if let Some(seq) = inner.ids.get(&id) {
                answers.push(Taken::Duplicate(*seq));
                inner.duplicates += 1;
                continue;
            }
            inner.ids.insert(id, next);
            inner.events.push(incoming.event.value());
            inner.at.push(Instant::now());
            answers.push(Taken::Accepted(next));
        }
        match inner.mood {
            Mood::TakeAndDie => {
                inner.deaths += 1;
                Err(None)
            }
            _ => Ok(answers),
        }
    }
}

impl Intake for Bus {
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>> {
        async move {
            match self.answer(batch) {
                Ok(answers) => Ok(answers),
                Err(Some(error)) => Err(error),
                Err(None) => futures::future::pending().await,
            }
        }
        .boxed()
    }
}

pub fn key(event: &Value) -> String {
    event["detail"]["object"]["key"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Options that take everything, with a short quiet time.
pub fn options(root: &Path) -> FolderOptions {
    FolderOptions {
        name: "inbox".to_owned(),
        bus: "default".to_owned(),
        root: root.to_owned(),
        include: Vec::new(),
        exclude: Vec::new(),
        hidden: false,
        recursive: true,
        follow_symlinks: false,
        finished: Finished {
            renamed_in: true,
            quiet: QUIET,
            done_marker: None,
            min_age: Duration::ZERO,
            min_size: 0,
            trailer: false,
        },
        reconcile: Duration::from_secs(3600),
        start: Start::All,
        content_hash: false,
        deletes: false,
        moves: false,
        forget_after: Duration::from_secs(86_400),
        after: After::Keep,
        defaults: pointsman::event::Defaults::default(),
    }
}

/// A folder, a bus and a side state, and what runs over them.
pub struct Nest {
    folder: tempfile::TempDir,
    pub bus: Arc<Bus>,
    pub options: FolderOptions,
    pub limits: Limits,
}

impl Nest {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder.path().join("inbox"));
        fs::create_dir(&options.root).unwrap();
        Self {
            folder,
            bus: Bus::new(),
            options,
            limits: Limits::default(),
        }
    }

    pub fn with(edit: impl FnOnce(&mut FolderOptions)) -> Self {
        let mut nest = Self::new();
        edit(&mut nest.options);
        nest
    }

    /// A path in the watched folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.options.root.join(name)
    }

    /// A path beside the watched folder, on the same file system.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Writes outside and renames in.
    pub fn drop_in(&self, name: &str, content: &str) {
        let there = self.outside("coming");
        fs::write(&there, content).unwrap();
        fs::rename(there, self.path(name)).unwrap();
    }

    pub async fn start(&self) -> FolderHandle {
        let state = State::open(&self.outside("state/side.db")).unwrap();
        let bus: Arc<dyn Intake> = self.bus.clone();
        let handle = FolderSource::start_within(
            self.limits.clone(),
            self.options.clone(),
            bus,
            state,
            clock::system(),
            CancellationToken::new(),
        );
        handle.await.unwrap()
    }

    /// Starts, and waits until the first scan is done.
    pub async fn started(&self) -> FolderHandle {
        let handle = self.start().await;
        handle.rescan().await.unwrap();
        handle
    }

    /// Waits for exactly these keys, each in one event, and makes sure that a
    /// scan of everything finds no more.
    pub async fn expect(&self, handle: &FolderHandle, keys: &[&str]) {
        self.wait_for(handle, keys.len()).await;
        handle.rescan().await.unwrap();
        handle.wait_idle().await.unwrap();
        let mut keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
        keys.sort();
        assert_eq!(self.bus.created(), keys);
    }

    /// Waits until the bus has that many events.
    pub async fn wait_for(&self, handle: &FolderHandle, events: usize) {
        let begun = Instant::now();
        while self.bus.len() < events {
            if begun.elapsed() > SOON {
                let said = serde_json::to_string_pretty(&status(handle).await).unwrap();
                panic!("{} of {events} events; {said}", self.bus.len());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < SOON, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets time pass in which nothing must happen.
pub async fn pass(quiet_times: u32) {
    tokio::time::sleep(QUIET * quiet_times).await;
}

pub async fn status(handle: &FolderHandle) -> FolderStatus {
    handle.status().await.unwrap()
}
