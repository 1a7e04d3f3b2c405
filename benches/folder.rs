//! What the folder source costs. Each part prints one line of JSON.
//!
//! `cargo bench --bench folder -- [latency|burst|start|idle]...`; sizes come from
//! `FILES_IDLE` (100,000), `FILES_START` (1,000,000) and `IDLE_SECONDS` (180).
//! The bus is a file that is synced once per batch, as the real one is.

use futures::FutureExt;
use futures::future::BoxFuture;
use pointsman::clock;
use pointsman::sources::folder::{
    After, Finished, FolderHandle, FolderOptions, FolderSource, Start,
};
use pointsman::sources::{Incoming, Intake, IntakeError, Taken};
use pointsman::state::State;
use serde_json::json;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

struct Bus {
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    /// When each key was durable; only its number when nobody asks.
    at: Option<HashMap<String, Instant>>,
    taken: usize,
    /// How long each batch took to be durable.
    syncs: Vec<f64>,
}

impl Bus {
    fn new(path: &Path, remember: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                file: File::create(path).unwrap(),
                at: remember.then(HashMap::new),
                taken: 0,
                syncs: Vec::new(),
            }),
        })
    }

    fn taken(&self) -> usize {
        self.inner.lock().unwrap().taken
    }

    fn put(&self, batch: &[Incoming]) -> Vec<Taken> {
        let mut inner = self.inner.lock().unwrap();
        let record: Vec<u8> = batch.iter().flat_map(|i| i.event.text().to_vec()).collect();
        let begun = Instant::now();
        inner.file.write_all(&record).unwrap();
        inner.file.sync_data().unwrap();
        let now = Instant::now();
        inner.syncs.push((now - begun).as_secs_f64() * 1e3);
        if let Some(at) = &mut inner.at {
            for incoming in batch {
                let detail = incoming.event.detail();
                let key = detail["object"]["key"].as_str().unwrap().to_owned();
                at.insert(key, now);
            }
        }
        inner.taken += batch.len();
        let last = inner.taken as u64;
        batch.iter().map(|_| Taken::Accepted(last)).collect()
    }
}

impl Intake for Bus {
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>> {
        async move { Ok(self.put(&batch)) }.boxed()
    }
}

struct Home {
    folder: tempfile::TempDir,
    quiet: Duration,
}

impl Home {
    fn new(quiet: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inbox")).unwrap();
        Self { folder, quiet }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bus(&self, remember: bool) -> Arc<Bus> {
        Bus::new(&self.path("bus"), remember)
    }

    async fn start(&self, bus: &Arc<Bus>) -> FolderHandle {
        let options = FolderOptions {
            name: "inbox".to_owned(),
            bus: "default".to_owned(),
            root: self.path("inbox"),
            include: Vec::new(),
            exclude: Vec::new(),
            hidden: false,
            recursive: true,
            follow_symlinks: false,
            finished: Finished {
                renamed_in: true,
                quiet: self.quiet,
                done_marker: None,
                min_age: Duration::ZERO,
                min_size: 1,
                trailer: false,
            },
            reconcile: Duration::from_secs(60),
            start: Start::All,
            content_hash: false,
            deletes: false,
            moves: false,
            forget_after: Duration::from_secs(86_400),
            after: After::Keep,
            defaults: pointsman::event::Defaults::default(),
        };
        let state = State::open(&self.path("side.db")).unwrap();
        let bus: Arc<dyn Intake> = bus.clone();
        FolderSource::start(
            options,
            bus,
            state,
            clock::system(),
            CancellationToken::new(),
        )
        .await
        .unwrap()
    }
}

async fn reach(bus: &Bus, files: usize) {
    while bus.taken() < files {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn percentiles(mut millis: Vec<f64>) -> serde_json::Value {
    millis.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let n = ((millis.len() - 1) as f64 * part).round() as usize;
        (millis[n] * 100.0).round() / 100.0
    };
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0), "of": millis.len() })
}

fn since(begun: &[(String, Instant)], bus: &Bus, less: Duration) -> Vec<f64> {
    let inner = bus.inner.lock().unwrap();
    let at = inner.at.as_ref().unwrap();
    begun
        .iter()
        .map(|(key, begun)| (at[key] - *begun).as_secs_f64() * 1e3 - less.as_secs_f64() * 1e3)
        .collect()
}

/// From rename and from close to the event being durable.
async fn latency() {
    let home = Home::new(Duration::from_secs(2));
    let bus = home.bus(true);
    let handle = home.start(&bus).await;
    handle.rescan().await.unwrap();
    let mut renamed = Vec::new();
    for n in 0..1000 {
        let name = format!("r{n}");
        fs::write(home.path("coming"), "some content").unwrap();
        renamed.push((name.clone(), Instant::now()));
        fs::rename(home.path("coming"), home.path("inbox").join(name)).unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let mut closed = Vec::new();
    for n in 0..300 {
        let name = format!("c{n}");
        fs::write(home.path("inbox").join(&name), "some content").unwrap();
        closed.push((name, Instant::now()));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    reach(&bus, 1300).await;
    handle.stop().await;
    println!(
        "{}",
        json!({
            "bench": "folder/latency",
            "rename_ms": percentiles(since(&renamed, &bus, Duration::ZERO)),
            "of_which_the_bus_ms": percentiles(bus.inner.lock().unwrap().syncs.clone()),
            "close_ms_after_the_quiet_time": percentiles(since(&closed, &bus, home.quiet)),
        })
    );
}

/// As many files as fast as one thread can write them.
async fn burst() {
    let home = Home::new(Duration::from_secs(2));
    let bus = home.bus(false);
    let handle = home.start(&bus).await;
    handle.rescan().await.unwrap();
    let (files, inbox) = (20_000, home.path("inbox"));
    let begun = Instant::now();
    let write = move || {
        for n in 0..files {
            fs::write(inbox.join(format!("{n:05}")), "some content").unwrap();
        }
    };
    tokio::task::spawn_blocking(write).await.unwrap();
    let written = begun.elapsed();
    reach(&bus, files).await;
    let taken = begun.elapsed();
    handle.wait_idle().await.unwrap();
    assert_eq!(bus.taken(), files);
    let status = handle.status().await.unwrap();
    handle.stop().await;
    println!(
        "{}",
        json!({
            "bench": "folder/burst",
            "files": files,
            "written_s": written.as_secs_f64(),
            "all_taken_s": taken.as_secs_f64(),
            "quiet_s": home.quiet.as_secs_f64(),
            "losses": status.counts.losses,
            "notifications": status.counts.notifications,
        })
    );
}

fn grow(root: &Path, files: usize, per_folder: usize) -> Duration {
    let begun = Instant::now();
    for n in 0..files {
        let folder = root.join(format!("{:04}", n / per_folder));
        if n % per_folder == 0 {
            fs::create_dir(&folder).unwrap();
        }
        fs::write(folder.join(format!("flights-{n:07}.csv")), "x").unwrap();
    }
    begun.elapsed()
}

/// The first scan of a large tree, and the scan at every start after that.
async fn start() {
    let files = from_env("FILES_START", 1_000_000);
    let home = Home::new(Duration::from_secs(2));
    let grown = grow(&home.path("inbox"), files, 1000);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let bus = home.bus(false);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let handle = home.start(&bus).await;
    handle.rescan().await.unwrap();
    reach(&bus, files).await;
    handle.wait_idle().await.unwrap();
    let (first, first_cpu) = (begun.elapsed(), cpu_seconds() - cpu);
    assert_eq!(bus.taken(), files);
    handle.stop().await;
    drop(handle);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let handle = home.start(&bus).await;
    handle.rescan().await.unwrap();
    let (again, again_cpu) = (begun.elapsed(), cpu_seconds() - cpu);
    assert_eq!(bus.taken(), files);
    let status = handle.status().await.unwrap();
    assert_eq!(status.files.accepted, files as u64);
    println!(
        "{}",
        json!({
            "bench": "folder/start",
            "files": files,
            "tree_written_s": grown.as_secs_f64(),
            "first_scan_s": first.as_secs_f64(),
            "first_scan_cpu_s": first_cpu,
            "scan_at_a_restart_s": again.as_secs_f64(),
            "scan_at_a_restart_cpu_s": again_cpu,
            "rss_mib": memory_mib("VmRSS"),
            "peak_rss_mib": memory_mib("VmHWM"),
            "ledger_mib": fs::metadata(home.path("side.db")).unwrap().len() >> 20,
        })
    );
    handle.stop().await;
}

/// What a watcher costs while nothing happens.
async fn idle() {
    let files = from_env("FILES_IDLE", 100_000);
    let seconds = from_env("IDLE_SECONDS", 180);
    let home = Home::new(Duration::from_secs(2));
    grow(&home.path("inbox"), files, 100);
    let bus = home.bus(false);
    let handle = home.start(&bus).await;
    reach(&bus, files).await;
    handle.wait_idle().await.unwrap();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let used = cpu_seconds() - cpu;
    let status = handle.status().await.unwrap();
    println!(
        "{}",
        json!({
            "bench": "folder/idle",
            "files": files,
            "folders": status.watched,
            "seconds": seconds,
            "cpu_s": used,
            "cpu_percent": used / begun.elapsed().as_secs_f64() * 100.0,
            "scans": status.last_scan.map(|s| s.number),
            "last_scan_ms": status.last_scan.map(|s| s.took_ms),
            "notifications": status.counts.notifications,
            "rss_mib": memory_mib("VmRSS"),
        })
    );
    handle.stop().await;
}

fn from_env(name: &str, or: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(or)
}

/// CPU time of this process: user and system, of all threads.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The second field, the name, may hold blanks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn memory_mib(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(what)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

fn main() {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wants = |part: &str| asked.is_empty() || asked.iter().any(|a| a == part);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        if wants("latency") {
            latency().await;
        }
        if wants("burst") {
            burst().await;
        }
        if wants("idle") {
            idle().await;
        }
        if wants("start") {
            start().await;
        }
    });
}
