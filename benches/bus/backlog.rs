//! Large backlogs: the memory they take, and how long a start with them takes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pointsman::bus::{
    AttemptError, Bus, BusError, BusOptions, Durability, NewEvent, Outcome, Receive, RouteId,
    RouteOptions,
};
use pointsman::clock;
use pointsman::storage::Real;

use super::figures::{memory, runtime};

/// Kinds of backlog; see the head of the program.
pub const PARTS: [&str; 5] = ["restart", "memory", "ordered", "retried", "both"];

/// Runs a part in a process of its own, so that its memory is its own.
pub fn in_child(part: &str, dir: &Path, scale: usize) -> String {
    let me = std::env::current_exe().expect("this program");
    let mut command = std::process::Command::new(me);
    command.args(["--child", part, "--dir"]).arg(dir);
    if scale > 1 {
        command.arg("--quick");
    }
    let out = command.output().expect("a child process");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (table, json) = text
        .trim()
        .rsplit_once('\n')
        .expect("a table and a line of JSON");
    println!("\n{table}");
    json.to_owned()
}

/// Fills a log in one process and opens it in another, so that each one's memory is its own.
pub fn child(part: &str, dir: &Path, scale: usize) {
    if part == "open" {
        return open_again(dir);
    }
    let dir = dir.join(format!("backlog-{}", std::process::id()));
    let (events, size) = if part == "restart" {
        (500_000 / scale, 1024)
    } else {
        (5_000_000 / scale, 100)
    };
    let runtime = runtime();
    let kind = Kind {
        ordered: matches!(part, "ordered" | "both"),
        retried: matches!(part, "retried" | "both"),
    };
    let loaded = runtime.block_on(fill(BusOptions::new(&dir), events, size, kind));
    let me = std::env::current_exe().expect("this program");
    let out = std::process::Command::new(me)
        .args(["--child", "open", "--dir"])
        .arg(&dir)
        .output()
        .expect("a child");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [pending, disk, ms, records, rss, peak] = fields[..] else {
        panic!("{text}")
    };
    println!(
        "| {part}: pending | event bytes | log MiB | restart ms | records read | RSS loaded MiB | RSS restarted MiB | its peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    println!("| {pending} | {size} | {disk} | {ms} | {records} | {loaded} | {rss} | {peak} |");
    println!(
        "{{\"bench\":\"{part}\",\"pending\":{pending},\"restart_ms\":{ms},\"rss_loaded_mib\":{loaded},\"rss_mib\":{rss},\"peak_mib\":{peak}}}"
    );
    std::fs::remove_dir_all(&dir).expect("a removal");
}

fn open_again(dir: &Path) {
    let started = Instant::now();
    let (bus, report) = Bus::open(BusOptions::new(dir), Real::shared(), clock::system())
        .expect("the log opens again");
    let ms = started.elapsed().as_millis();
    let pending: u64 = bus.routes().iter().map(|r| r.pending).sum();
    let (rss, peak) = (memory("VmRSS:"), memory("VmHWM:"));
    println!(
        "{pending} {} {ms} {} {rss} {peak}",
        bus.disk_bytes() >> 20,
        report.records
    );
}

#[derive(Clone, Copy)]
struct Kind {
    ordered: bool,
    retried: bool,
}

/// Leaves a backlog of two deliveries an event, without closing properly; the memory then.
async fn fill(options: BusOptions, events: usize, size: usize, kind: Kind) -> u64 {
    let (bus, _) = Bus::open(options, Real::shared(), clock::system()).expect("a new log");
    let mut routes = Vec::new();
    for name in ["r/a", "r/b"] {
        let ordered = RouteOptions {
            ordered: kind.ordered,
        };
        routes.push(bus.route(name, ordered).await.expect("a route"));
    }
    let label: Arc<str> = "default".into();
    let body = Bytes::from(vec![b'x'; size]);
    for from in (0..events).step_by(1000) {
        let batch = (from..from + 1000)
            .map(|i| {
                let event = NewEvent::new(label.clone(), format!("event-{i:016}"), body.clone());
                let mut event = routes
                    .iter()
                    .fold(event, |event, &route| event.deliver(route));
                if kind.ordered {
                    let keys = event.deliveries.iter_mut();
                    keys.for_each(|d| d.key = Some(format!("key-{i}")));
                }
                event
            })
            .collect();
        match bus.accept(batch).await {
            Ok(_) => {}
            // As much as may wait: the bound on memory holds.
            Err(BusError::Refused { .. }) => break,
            Err(e) => panic!("{e}"),
        }
        if kind.retried {
            for &route in &routes {
                fail_once(&bus, route, from).await;
            }
        }
    }
    bus.flush().await.expect("a flush");
    memory("VmRSS:")
}

/// Lets what is ready on a route fail; it comes again after one to two hours.
async fn fail_once(bus: &Bus, route: RouteId, from: usize) {
    let receive = Receive {
        max: 1000,
        max_bytes: 4 << 20,
        visibility: Duration::from_secs(30),
    };
    let leased = bus.receive(&[route], receive).expect("a receive");
    let now = clock::system().now_ms();
    let error = AttemptError {
        class: "transient".to_owned(),
        message: "the target did not answer".to_owned(),
        ..AttemptError::default()
    };
    let settle = leased.iter().enumerate().map(|(i, one)| {
        // Spread as jitter spreads it, so that hardly two are due together.
        let spread = ((from + i) as i64).wrapping_mul(7_919) % 3_600_000;
        one.settle(Outcome::Retry {
            not_before_ms: now + 3_600_000 + spread,
            error: error.clone(),
        })
    });
    bus.settle(settle.collect(), Vec::new(), Durability::Relaxed)
        .await
        .expect("a settlement");
}
