//! `pointsman bench bus`: how fast a whole node takes, routes and hands out events on
//! this machine, beside a plain file that is synced as often.
//!
//! Everything is the real thing: events come over HTTP in batches, are checked and
//! matched, are durable with their deliveries when the request is answered, wait in
//! queues, and are received and acknowledged. Producers, node and consumers share one
//! process and its processors.

mod client;
mod load;
mod plain;

use super::args::BenchBusArgs;
use super::run::tell_allocator;
use super::{Answer, CliError, say, talk};
use load::{Load, Measured};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder that goes when the benchmark ends.
struct Folder(PathBuf);

impl Folder {
    fn new(at: Option<&Path>) -> Result<Self, CliError> {
        let base = at.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = base.join(format!("pointsman-bench-{}", std::process::id()));
        let made = std::fs::create_dir_all(path.join("rules"));
        made.map_err(|e| CliError::new(format!("cannot create {}: {e}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            talk(&format!("{} is left behind: {error}", self.0.display()));
        }
    }
}

pub(super) async fn bus(args: &BenchBusArgs) -> Result<Answer, CliError> {
    // As a node does.
    tell_allocator();
    if args.routes == 0 || args.rules == 0 || args.batch == 0 || args.publishers == 0 {
        return Err(CliError::new(
            "--routes, --rules, --batch and --publishers are at least 1",
        ));
    }
    let least = load::body_of(0, 0).len();
    if !(least..=1 << 20).contains(&args.size) {
        return Err(CliError::new(format!(
            "--size is between {least} and {} bytes",
            1 << 20
        )));
    }
    let folder = Folder::new(args.at.as_deref())?;
    let time = Duration::from_secs_f64(args.seconds.clamp(0.1, 3600.0));
    let plain = args
        .durable
        .then(|| plain::run(&folder.0, args.batch, args.size, time))
        .transpose()?;
    std::fs::write(folder.0.join("pointsman.yaml"), configuration(args))?;
    let load = Load::start(&folder.0, args).await?;
    let full = load.run(time, None).await?;
    let half = load.run(time, Some(full.per_second / 2.0)).await?;
    let audit = load.stop().await?;
    let report = report(args, plain.as_ref(), &full, &half, audit);
    if args.json {
        return say(&report.to_string()).map(|()| Answer::Yes);
    }
    for line in told(&report) {
        say(&line)?;
    }
    Ok(Answer::Yes)
}

/// As many rules as asked for, each of which matches one kind of event and sends it to
/// every queue. Nobody but the benchmark reads the queues.
fn configuration(args: &BenchBusArgs) -> String {
    use std::fmt::Write;
    let mut text = String::from("node: { listen: \"127.0.0.1:0\", data: data }\nqueues:\n");
    let mut targets = String::new();
    for queue in 0..args.routes {
        // Writing into a string does not fail.
        writeln!(text, "  q{queue}: {{}}").ok();
        write!(targets, "{{queue: q{queue}}},").ok();
    }
    text.push_str("rules:\n");
    for rule in 0..args.rules {
        let pattern = format!("{{source: [bench], detail-type: [\"Kind {rule}\"]}}");
        writeln!(
            text,
            "  kind-{rule}: {{pattern: {pattern}, targets: [{targets}]}}"
        )
        .ok();
    }
    text
}

fn report(
    args: &BenchBusArgs,
    plain: Option<&plain::Plain>,
    full: &Measured,
    half: &Measured,
    balanced: bool,
) -> Value {
    let mut report = json!({
        "size": args.size,
        "routes": args.routes,
        "rules": args.rules,
        "batch": args.batch,
        "publishers": args.publishers,
        "load_average": load_average(),
        "full": full.json(),
        "half": half.json(),
        "ledger_balanced": balanced,
    });
    if let Some(plain) = plain {
        report["plain"] = json!({
            "events_per_second": plain.per_second.round(),
            "sync_us": plain.sync_us,
        });
        report["ratio"] = json!((full.per_second / plain.per_second * 1000.0).round() / 1000.0);
    }
    report
}

/// The machine's load over the last minute, all processes; `null` when it is not told.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|v| v.parse::<f64>().ok());
    json!(first)
}

fn told(report: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} rules, {} routes an event, events of {} bytes, {} publishers with batches of {}; load average {}",
        report["rules"],
        report["routes"],
        report["size"],
        report["publishers"],
        report["batch"],
        report["load_average"],
    )];
    if !report["plain"].is_null() {
        lines.push(format!(
            "plain file, one sync per batch: {} events/s; a batch takes p50 {} / p99 {} / p999 {} µs",
            report["plain"]["events_per_second"],
            report["plain"]["sync_us"][0],
            report["plain"]["sync_us"][1],
            report["plain"]["sync_us"][2],
        ));
    }
    for (name, part) in [
        ("full load", &report["full"]),
        ("half load", &report["half"]),
    ] {
        lines.push(format!(
            "{name}: {} events/s end to end, {} µs of processor time an event, {} bytes written per byte",
            part["events_per_second"], part["cpu_us_per_event"], part["bytes_per_byte"],
        ));
        for (what, times) in [
            ("durable accept, request to answer", &part["accept_us"]),
            ("accepted to delivered", &part["delivery_us"]),
            ("sent to delivered", &part["sent_to_delivery_us"]),
        ] {
            lines.push(format!(
                "  {what}: p50 {} / p99 {} / p999 {} µs",
                times[0], times[1], times[2]
            ));
        }
    }
    if !report["ratio"].is_null() {
        lines.push(format!("of the plain file: {}", report["ratio"]));
    }
    lines.push(format!("the ledger adds up: {}", report["ledger_balanced"]));
    lines
}

/// p50, p99 and p999.
fn quantiles(mut times: Vec<u64>) -> [u64; 3] {
    times.sort_unstable();
    [0.5, 0.99, 0.999].map(|q| {
        let at = (times.len().saturating_sub(1) as f64 * q) as usize;
        times.get(at).copied().unwrap_or(0)
    })
}
