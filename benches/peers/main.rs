//! The same work through Pointsman, RabbitMQ and NATS JetStream on this machine, one
//! after the other: four publishers with batches of 100 messages of 1 KiB, each batch
//! confirmed before the next; two consumers that each get every message and acknowledge
//! it.
//!
//! `cargo bench --bench peers -- [--seconds N] [--dir FOLDER] [--only pointsman|rabbitmq|nats]`.
//! Needs Debian's `rabbitmq-server` and `nats-server`. What a confirmation means:
//!
//! - Pointsman: synced, with its two deliveries. Beyond the others it parses the events,
//!   checks them, remembers their ids and matches them against 1,000 rules; over HTTP.
//! - RabbitMQ: a fanout exchange, two quorum queues with one member; a confirmation comes
//!   when the queue's log is synced. Equal durability.
//! - NATS JetStream, file storage, one replica. Debian's version (2.9) cannot sync before
//!   it acknowledges (`sync_interval: always` came later): weaker, lost with the power.

mod nats;
mod rabbit;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const SIZE: usize = 1024;
const BATCH: usize = 100;
const PUBLISHERS: usize = 4;
const CONSUMERS: usize = 2;

/// What a peer reached.
struct Reached {
    events: u64,
    took: Duration,
    /// Of the server and of the clients, in seconds.
    cpu: [f64; 2],
    /// From sending a batch to its last confirmation.
    confirms: Vec<Duration>,
}

/// A server that ends with the benchmark.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1).cloned()
    };
    let seconds = value("--seconds").map_or(5.0, |s| s.parse().expect("a number"));
    let time = Duration::from_secs_f64(seconds);
    let base = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a folder");
    let only = value("--only");
    let wanted = |name: &str| only.as_deref().is_none_or(|o| o == name);
    println!(
        "load average {}",
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default()
    );
    println!(
        "| | events/s end to end | confirm of 100, p50 / p99 ms | CPU µs an event, server + clients |"
    );
    println!("|---|---|---|---|");
    if wanted("pointsman") {
        pointsman(seconds, folder.path());
    }
    if wanted("rabbitmq") {
        told(
            "RabbitMQ, quorum queues (synced)",
            rabbit::run(folder.path(), time),
        );
    }
    if wanted("nats") {
        told(
            "NATS JetStream, file (not synced)",
            nats::run(folder.path(), time),
        );
    }
}

fn told(name: &str, mut reached: Reached) {
    reached.confirms.sort_unstable();
    let ms = |q: f64| {
        let at = ((reached.confirms.len() - 1) as f64 * q) as usize;
        reached.confirms[at].as_secs_f64() * 1e3
    };
    let cpu = reached.cpu.map(|s| s * 1e6 / reached.events as f64);
    println!(
        "| {name} | {:.0} | {:.1} / {:.1} | {:.1} + {:.1} |",
        reached.events as f64 / reached.took.as_secs_f64(),
        ms(0.5),
        ms(0.99),
        cpu[0],
        cpu[1],
    );
}

/// The program's own benchmark, as a process like the others.
fn pointsman(seconds: f64, folder: &Path) {
    let out = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["bench", "bus", "--json", "--seconds", &seconds.to_string()])
        .args(["--batch", &BATCH.to_string(), "--size", &SIZE.to_string()])
        .args(["--publishers", &PUBLISHERS.to_string()])
        .args(["--routes", &CONSUMERS.to_string(), "--at"])
        .arg(folder)
        .output()
        .expect("the program runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let full = &report["full"];
    let ms = |i: usize| full["accept_us"][i].as_f64().unwrap_or(0.0) / 1e3;
    println!(
        "| Pointsman, HTTP, 1,000 rules (synced) | {} | {:.1} / {:.1} | {} together |",
        full["events_per_second"],
        ms(0),
        ms(1),
        full["cpu_us_per_event"],
    );
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Processor time of a process so far, in seconds.
fn cpu_of(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let times = after_name.split_whitespace().skip(11).take(2);
    times.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Tries until it works, for a minute at most.
fn patiently<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        if let Some(done) = attempt() {
            return done;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what} took longer than a minute");
}
