//! A disk that takes its time: what waits for it, and what must not.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::bus::core::lock;
use crate::storage::{Entry, File, Lock, LockError, Mode};

/// Holds up whoever comes while it is closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
    passed: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let closed = lock(&self.closed);
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.passed.fetch_add(1, Ordering::SeqCst);
    }

    fn close(&self, closed: bool) {
        *lock(&self.closed) = closed;
        self.opened.notify_all();
    }

    /// Waits until somebody stands before it.
    async fn held(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// A disk in memory whose syncs and reads go through a gate each.
#[derive(Clone)]
struct Slow {
    disk: Memory,
    syncs: Arc<Gate>,
    reads: Arc<Gate>,
}

struct SlowFile {
    file: Arc<dyn File>,
    slow: Slow,
}

impl File for SlowFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.slow.reads.pass();
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.slow.syncs.pass();
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

impl FileSystem for Slow {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let (file, slow) = (self.disk.open(path, mode)?, self.clone());
        Ok(Arc::new(SlowFile { file, slow }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_space(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        self.disk.lock(path)
    }
}

fn start(cache_bytes: usize) -> (Bus, Slow) {
    let bench = Bench::new();
    let slow = Slow {
        disk: bench.fs.clone(),
        syncs: Arc::default(),
        reads: Arc::default(),
    };
    let mut options = bench.options.clone();
    options.cache_bytes = cache_bytes;
    let opened = Bus::open(options, Arc::new(slow.clone()), bench.clock.clone());
    (opened.unwrap().0, slow)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_during_a_sync_shares_the_next() {
    let (bus, slow) = start(1 << 20);
    let r = route(&bus, "r").await;
    slow.syncs.close(true);
    let accept = |i: usize| {
        let (bus, event) = (bus.clone(), event(&format!("e{i}"), &[r]));
        tokio::spawn(async move { bus.accept(vec![event]).await })
    };
    let first = accept(0);
    slow.syncs.held().await;
    let others: Vec<_> = (1..=200).map(accept).collect();
    while lock(&bus.handle.core().queue).requests.len() < 200 {
        tokio::task::yield_now().await;
    }
    let before = slow.syncs.passed.load(Ordering::SeqCst);
    slow.syncs.close(false);
    for one in others.into_iter().chain([first]) {
        one.await.unwrap().unwrap();
    }
    // One for the first, and one for all that came meanwhile.
    assert_eq!(slow.syncs.passed.load(Ordering::SeqCst) - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_waits_for_the_disk_holds_up_nobody() {
    let (bus, slow) = start(0);
    let r = route(&bus, "r").await;
    for i in 0..3 {
        let event = event(&format!("e{i}"), &[]);
        bus.accept(vec![event]).await.unwrap();
    }
    slow.reads.close(true);
    let reader = bus.clone();
    let reading = tokio::task::spawn_blocking(move || reader.read(1, 3));
    slow.reads.held().await;
    for i in 3..200 {
        let event = event(&format!("e{i}"), &[r]);
        bus.accept(vec![event]).await.unwrap();
    }
    bus.pause(r).await.unwrap();
    assert_eq!(bus.audit().routes[0].pending(), 197);
    assert!(!reading.is_finished());
    slow.reads.close(false);
    assert_eq!(reading.await.unwrap().unwrap().len(), 3);
}
