//! The bus against a plain append-only file with one `fdatasync` per batch, on the same
//! disk in the same run; then a restart and memory with a large backlog.
//!
//! `cargo bench --bench bus` prints Markdown, then one line of JSON. Options after `--`:
//! `--quick` (a tenth of everything), `--dir PATH` (default: the system's temporary
//! folder), `--only throughput|latency|restart|memory|ordered|retried|both|soak` (the
//! soak, 50 M events through retention, only when asked for), `--batch 1|10|100|1000`.
//! `memory` is a backlog on plain routes, `ordered` one with a key of its own for every
//! event, `retried` one that has failed once and waits, `both` one that is both.

mod backlog;
mod figures;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pointsman::bus::{
    Bus, BusOptions, Durability, NewEvent, Outcome, Receive, RouteId, RouteOptions,
};
use pointsman::clock;
use pointsman::storage::Real;

use figures::{cpu_time, memory, runtime, written};

const SIZE: usize = 1024;
const ROUNDS: usize = 3;

/// The program's (src/main.rs).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        args.iter()
            .position(|a| a == name)
            .and_then(|i| args.get(i + 1))
            .cloned()
    };
    let dir = value("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    let scale = if args.iter().any(|a| a == "--quick") {
        10
    } else {
        1
    };
    if let Some(part) = value("--child") {
        return backlog::child(&part, &dir, scale);
    }
    let only = value("--only");
    let wanted = |name: &str| only.as_deref().is_none_or(|o| o == name);
    let mut json = Vec::new();
    if wanted("throughput") {
        let only = value("--batch").and_then(|b| b.parse().ok());
        throughput(&dir, scale, only, &mut json);
    }
    if wanted("latency") {
        crowd(&dir, scale, &mut json);
    }
    for part in backlog::PARTS {
        if wanted(part) {
            json.push(backlog::in_child(part, &dir, scale));
        }
    }
    if only.as_deref() == Some("soak") {
        json.push(soak(&dir, 50_000_000 / scale as u64));
    }
    println!("\n[{}]", json.join(","));
}

// ---- throughput ----

/// What one run measured.
#[derive(Default, Clone)]
struct Run {
    per_second: f64,
    cpu_us: f64,
    bytes_per_byte: f64,
    latencies: Vec<Duration>,
}

fn throughput(dir: &Path, scale: usize, only: Option<usize>, json: &mut Vec<String>) {
    println!(
        "| batch | plain log, events/s | bus, 1 publisher | ratio | bus, 4 publishers | ratio | bus CPU µs/event (1, 4) | bytes/byte | accept p50 / p99 / p999 µs, 1 publisher (plain p50) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 10, 100, 1000] {
        if only.is_some_and(|o| o != batch) {
            continue;
        }
        let time = Duration::from_millis(3000 / scale as u64);
        let (mut plain, mut one, mut four) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(plain_log(dir, batch, time));
            one.push(bus_run(dir, batch, 1, time));
            four.push(bus_run(dir, batch, 4, time));
        }
        let (plain, one, four) = (median(plain), median(one), median(four));
        let (r1, r4) = (
            one.per_second / plain.per_second,
            four.per_second / plain.per_second,
        );
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| quantile(&one.latencies, q));
        println!(
            "| {batch} | {:.0} | {:.0} | {r1:.2} | {:.0} | {r4:.2} | {:.1}, {:.1} | {:.3} | {p50} / {p99} / {p999} ({}) |",
            plain.per_second,
            one.per_second,
            four.per_second,
            one.cpu_us,
            four.cpu_us,
            one.bytes_per_byte,
            quantile(&plain.latencies, 0.5),
        );
        json.push(format!(
            "{{\"bench\":\"throughput\",\"batch\":{batch},\"plain\":{:.0},\"bus1\":{:.0},\"ratio1\":{r1:.3},\"bus4\":{:.0},\"ratio4\":{r4:.3},\"cpu_us\":{:.2},\"bytes_per_byte\":{:.3},\"p50_us\":{p50},\"p99_us\":{p99},\"p999_us\":{p999}}}",
            plain.per_second, one.per_second, four.per_second, one.cpu_us, one.bytes_per_byte,
        ));
    }
}

/// Many publishers of single events: group commit decides.
fn crowd(dir: &Path, scale: usize, json: &mut Vec<String>) {
    println!("\n| publishers of single events | events/s | accept p50 / p99 / p999 µs |");
    println!("|---|---|---|");
    for publishers in [1, 16, 128] {
        let time = Duration::from_millis(3000 / scale as u64);
        let run = median(
            (0..ROUNDS)
                .map(|_| bus_run(dir, 1, publishers, time))
                .collect(),
        );
        let (p50, p99, p999) = (
            quantile(&run.latencies, 0.5),
            quantile(&run.latencies, 0.99),
            quantile(&run.latencies, 0.999),
        );
        println!(
            "| {publishers} | {:.0} | {p50} / {p99} / {p999} |",
            run.per_second
        );
        json.push(format!(
            "{{\"bench\":\"crowd\",\"publishers\":{publishers},\"bus\":{:.0},\"p50_us\":{p50},\"p99_us\":{p99},\"p999_us\":{p999}}}",
            run.per_second
        ));
    }
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    runs.swap_remove(runs.len() / 2)
}

fn quantile(latencies: &[Duration], q: f64) -> u128 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 - 1.0).max(0.0) * q) as usize;
    sorted.get(at).map_or(0, Duration::as_micros)
}

fn payload(i: u64) -> Bytes {
    let mut data = vec![b'x'; SIZE];
    data[..8].copy_from_slice(&i.to_le_bytes());
    Bytes::from(data)
}

fn plain_log(dir: &Path, batch: usize, time: Duration) -> Run {
    let path = dir.join(format!("plain-{}", std::process::id()));
    let file = std::fs::File::create(&path).expect("the bench folder is writable");
    let start = Instant::now();
    let (mut events, mut offset, mut latencies) = (0_u64, 0_u64, Vec::new());
    let mut record = Vec::new();
    while start.elapsed() < time {
        let began = Instant::now();
        record.clear();
        for i in 0..batch as u64 {
            // What any log needs beside the payload: length, checksum, id, two routes.
            let body = payload(events + i);
            record.extend_from_slice(&(body.len() as u32).to_le_bytes());
            record.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            record.extend_from_slice(&[0; 24]);
            record.extend_from_slice(&body);
        }
        file.write_all_at(&record, offset).expect("a write");
        file.sync_data().expect("a sync");
        offset += record.len() as u64;
        events += batch as u64;
        latencies.push(began.elapsed());
    }
    let per_second = events as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path).expect("a removal");
    Run {
        per_second,
        latencies,
        ..Run::default()
    }
}

fn bus_run(dir: &Path, batch: usize, publishers: usize, time: Duration) -> Run {
    let dir = dir.join(format!("bus-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let runtime = runtime();
    let run = runtime.block_on(async {
        let (bus, _) =
            Bus::open(BusOptions::new(&dir), Real::shared(), clock::system()).expect("a new log");
        let mut routes = Vec::new();
        for name in ["r/a", "r/b"] {
            routes.push(
                bus.route(name, RouteOptions::default())
                    .await
                    .expect("a route"),
            );
        }
        let stop = Arc::new(AtomicBool::new(false));
        let settled = Arc::new(AtomicU64::new(0));
        let consumers: Vec<_> = routes
            .iter()
            .map(|&route| tokio::spawn(consume(bus.clone(), route, stop.clone(), settled.clone())))
            .collect();
        let (cpu, written) = (cpu_time(), written());
        let start = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..publishers)
            .map(|_| {
                tokio::spawn(publish(
                    bus.clone(),
                    routes.clone(),
                    batch,
                    start + time,
                    next.clone(),
                ))
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.expect("a publisher"));
        }
        let events = (latencies.len() * batch) as u64;
        while settled.load(Ordering::Relaxed) < events * 2 {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        bus.flush().await.expect("a flush");
        let took = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for consumer in consumers {
            consumer.await.expect("a consumer");
        }
        let ledger = bus.audit();
        assert!(
            ledger.balanced() && ledger.routes.iter().all(|r| r.pending() == 0),
            "{ledger:#?}"
        );
        Run {
            per_second: events as f64 / took,
            cpu_us: (cpu_time() - cpu) * 1e6 / events as f64,
            bytes_per_byte: (figures::written() - written) as f64 / (events as f64 * SIZE as f64),
            latencies,
        }
    });
    std::fs::remove_dir_all(&dir).expect("a removal");
    run
}

async fn publish(
    bus: Bus,
    routes: Vec<RouteId>,
    batch: usize,
    until: Instant,
    next: Arc<AtomicU64>,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let label: Arc<str> = "default".into();
    while Instant::now() < until {
        let from = next.fetch_add(batch as u64, Ordering::Relaxed);
        let began = Instant::now();
        let events = (from..from + batch as u64)
            .map(|i| {
                let event = NewEvent::new(label.clone(), format!("event-{i:016}"), payload(i));
                routes
                    .iter()
                    .fold(event, |event, &route| event.deliver(route))
            })
            .collect();
        bus.accept(events).await.expect("an accepted batch");
        latencies.push(began.elapsed());
    }
    latencies
}

async fn consume(bus: Bus, route: RouteId, stop: Arc<AtomicBool>, settled: Arc<AtomicU64>) {
    let receive = Receive {
        max: 1000,
        max_bytes: 4 << 20,
        visibility: Duration::from_secs(30),
    };
    while !stop.load(Ordering::Relaxed) {
        let leased = bus.receive(&[route], receive).expect("a receive");
        if leased.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(20), bus.ready(&[route])).await;
            continue;
        }
        let n = leased.len() as u64;
        let all = leased
            .iter()
            .map(|l| l.settle(Outcome::Delivered))
            .collect();
        bus.settle(all, Vec::new(), Durability::Relaxed)
            .await
            .expect("a settlement");
        settled.fetch_add(n, Ordering::Relaxed);
    }
}

/// Many events through a short retention: memory and disk must stay flat.
fn soak(dir: &Path, events: u64) -> String {
    let dir = dir.join(format!("soak-{}", std::process::id()));
    let keep = Duration::from_secs(5);
    let options = BusOptions {
        retention: keep,
        dedupe_window: keep,
        ..BusOptions::new(&dir)
    };
    println!("\n| soak: events | seconds | RSS MiB | log MiB |");
    println!("|---|---|---|---|");
    let (mut rss, mut disk) = (Vec::new(), Vec::new());
    let start = Instant::now();
    runtime().block_on(async {
        let (bus, _) = Bus::open(options, Real::shared(), clock::system()).expect("a new log");
        let route = bus
            .route("r", RouteOptions::default())
            .await
            .expect("a route");
        let (stop, settled) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let consumer = tokio::spawn(consume(bus.clone(), route, stop.clone(), settled.clone()));
        let label: Arc<str> = "default".into();
        let body = Bytes::from(vec![b'x'; 100]);
        for part in 0..20 {
            for from in (part * events / 20..(part + 1) * events / 20).step_by(1000) {
                let new =
                    |i| NewEvent::new(label.clone(), format!("e{i}"), body.clone()).deliver(route);
                let batch = (from..from + 1000).map(new).collect();
                bus.accept(batch).await.expect("an accepted batch");
            }
            rss.push(memory("VmRSS:"));
            disk.push(bus.disk_bytes() >> 20);
            println!(
                "| {} | {:.0} | {} | {} |",
                bus.next_seq() - 1,
                start.elapsed().as_secs_f64(),
                rss[rss.len() - 1],
                disk[disk.len() - 1]
            );
        }
        stop.store(true, Ordering::Relaxed);
        consumer.await.expect("a consumer");
        bus.flush().await.expect("a flush");
        assert!(bus.audit().balanced());
        bus.close().await.expect("a proper end");
    });
    std::fs::remove_dir_all(&dir).expect("a removal");
    let last = |v: &[u64]| v[v.len() / 2..].iter().copied().max().unwrap_or(0);
    format!(
        "{{\"bench\":\"soak\",\"events\":{events},\"seconds\":{:.0},\"rss_mib_max_first_half\":{},\"rss_mib_max_second_half\":{},\"log_mib_max\":{}}}",
        start.elapsed().as_secs_f64(),
        rss[..rss.len() / 2].iter().max().unwrap_or(&0),
        last(&rss),
        disk.iter().max().unwrap_or(&0)
    )
}
