//! The load on a node: publishers over HTTP, consumers that acknowledge.

use super::super::CliError;
use super::super::args::BenchBusArgs;
use super::client::{Client, request};
use super::quantiles;
use crate::api::Server;
use crate::app::{Mode, Node};
use crate::bus::NewEvent;
use crate::queues::{Fate, Feed, Gate, LogQueue, Queue, Want};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Different bodies that each publisher sends in turn.
const BODIES: usize = 8;
/// No delivery takes longer, or the benchmark has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node under load.
pub(super) struct Load {
    node: Arc<Node>,
    server: JoinHandle<()>,
    stop: CancellationToken,
    address: SocketAddr,
    queues: Vec<Arc<LogQueue>>,
    /// Of each publisher, what it sends in turn.
    requests: Arc<Vec<Vec<Vec<u8>>>>,
    batch: usize,
    size: usize,
}

/// What one run measured.
pub(super) struct Measured {
    pub per_second: f64,
    cpu_us: f64,
    bytes_per_byte: f64,
    accept_us: [u64; 3],
    delivery_us: [u64; 3],
    sent_to_delivery_us: [u64; 3],
}

impl Measured {
    pub(super) fn json(&self) -> Value {
        let short = |v: f64| (v * 1000.0).round() / 1000.0;
        json!({
            "events_per_second": self.per_second.round(),
            "cpu_us_per_event": short(self.cpu_us),
            "bytes_per_byte": short(self.bytes_per_byte),
            "accept_us": self.accept_us,
            "delivery_us": self.delivery_us,
            "sent_to_delivery_us": self.sent_to_delivery_us,
        })
    }
}

/// A request: its first event's number, and when it was sent and answered, in
/// microseconds of the run.
struct Sent {
    first_seq: u64,
    sent: u64,
    answered: u64,
}

/// The event of a kind with so much padding, as a sender writes it.
pub(super) fn body_of(kind: usize, padding: usize) -> String {
    format!(
        r#"{{"source":"bench","detail-type":"Kind {kind}","detail":{{"pad":"{}"}}}}"#,
        "x".repeat(padding)
    )
}

/// A request's body: a batch of events, of all kinds in turn.
fn batch_of(from: usize, args: &BenchBusArgs) -> String {
    let event = |i: usize| {
        let kind = (from + i) % args.rules;
        body_of(kind, args.size.saturating_sub(body_of(kind, 0).len()))
    };
    (0..args.batch).map(event).collect::<Vec<_>>().join("\n")
}

impl Load {
    /// Starts a node with the configuration in `dir`.
    pub(super) async fn start(dir: &Path, args: &BenchBusArgs) -> Result<Self, CliError> {
        let loaded = crate::app::load(dir);
        let Some(config) = loaded.config.map(Arc::new) else {
            return Err(CliError::new("the benchmark's configuration does not load"));
        };
        let failed = |e: &dyn std::fmt::Display| CliError::new(e.to_string());
        let node = Node::open(Arc::clone(&config), Mode::Run, crate::clock::system())
            .await
            .map_err(|e| failed(&e))?;
        let node = Arc::new(node);
        let bound = Server::bind(config.node.listen, &config.node.data).await;
        let server = bound.map_err(|e| failed(&e))?;
        let address = server.address()?;
        let stop = CancellationToken::new();
        let server = tokio::spawn(server.serve(Arc::clone(&node), stop.clone()));
        let queues = (0..args.routes).map(|q| queue(&node, &format!("q{q}")));
        let requests = (0..args.publishers * BODIES)
            .map(|i| request(address, &batch_of(i * args.batch, args)))
            .collect::<Vec<_>>();
        Ok(Self {
            server,
            stop,
            address,
            queues: queues.collect(),
            requests: Arc::new(requests.chunks(BODIES).map(<[_]>::to_vec).collect()),
            batch: args.batch,
            size: args.size,
            node,
        })
    }

    /// Publishes for `time`, at most `rate` events per second if given, and waits until
    /// all is acknowledged.
    pub(super) async fn run(
        &self,
        time: Duration,
        rate: Option<f64>,
    ) -> Result<Measured, CliError> {
        let (cpu, log) = (cpu_seconds(), self.node.bus.disk_bytes());
        let started = Instant::now();
        let done = CancellationToken::new();
        let settled = Arc::new(AtomicU64::new(0));
        let consumers: Vec<_> = self
            .queues
            .iter()
            .map(|queue| {
                let (queue, done) = (Arc::clone(queue), done.clone());
                tokio::spawn(consume(queue, done, started, Arc::clone(&settled)))
            })
            .collect();
        let pause = rate.map(|rate| {
            let each = self.requests.len() as f64 * self.batch as f64 / rate;
            Duration::from_secs_f64(each)
        });
        let publishers: Vec<_> = (0..self.requests.len())
            .map(|i| {
                let (requests, address) = (Arc::clone(&self.requests), self.address);
                tokio::spawn(publish(requests, i, address, started, time, pause))
            })
            .collect();
        let mut sent = Vec::new();
        for publisher in publishers {
            sent.extend(
                publisher
                    .await
                    .map_err(|e| CliError::new(e.to_string()))??,
            );
        }
        let events = (sent.len() * self.batch) as u64;
        let deliveries = events * self.queues.len() as u64;
        while settled.load(Ordering::Relaxed) < deliveries {
            if started.elapsed() > time + PATIENCE {
                return Err(CliError::new("not everything was delivered in time"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = started.elapsed().as_secs_f64();
        let cpu = cpu_seconds() - cpu;
        done.cancel();
        let mut received = Vec::new();
        for consumer in consumers {
            received.extend(consumer.await.map_err(|e| CliError::new(e.to_string()))??);
        }
        let written = self.node.bus.disk_bytes().saturating_sub(log) as f64;
        sent.sort_unstable_by_key(|s| s.first_seq);
        let after = |from: fn(&Sent) -> u64| {
            let one = |&(seq, at): &(u64, u64)| {
                let its = sent
                    .partition_point(|s| s.first_seq <= seq)
                    .checked_sub(1)?;
                Some(at.saturating_sub(from(&sent[its])))
            };
            quantiles(received.iter().filter_map(one).collect())
        };
        Ok(Measured {
            per_second: events as f64 / took,
            cpu_us: cpu * 1e6 / events as f64,
            bytes_per_byte: written / (events as f64 * self.size as f64),
            accept_us: quantiles(sent.iter().map(|s| s.answered - s.sent).collect()),
            delivery_us: after(|s| s.answered),
            sent_to_delivery_us: after(|s| s.sent),
        })
    }

    /// Stops the node; whether its ledger adds up and nothing is left.
    pub(super) async fn stop(self) -> Result<bool, CliError> {
        let failed = |e: crate::bus::BusError| CliError::new(e.to_string());
        self.node.bus.flush().await.map_err(failed)?;
        let ledger = self.node.bus.audit();
        let balanced = ledger.balanced() && ledger.routes.iter().all(|r| r.pending() == 0);
        self.stop.cancel();
        self.node.shutdown().await.map_err(failed)?;
        self.server.await.ok();
        Ok(balanced)
    }
}

/// The queue `name`, to be read here.
fn queue(node: &Node, name: &str) -> Arc<LogQueue> {
    let end = format!("/{name}");
    let routes = node.bus.routes().into_iter();
    let feeds = routes.filter(|r| r.name.ends_with(&end)).map(|r| Feed {
        id: r.id,
        name: r.name.into(),
        input: None,
        home: None,
        gate: Gate::None,
    });
    Arc::new(LogQueue::new(
        name.to_owned(),
        "bench".to_owned(),
        node.bus.clone(),
        feeds.collect(),
        // Consumers that only acknowledge emit nothing.
        Arc::new(|out| NewEvent::new(out.bus, out.event.id(), out.event.text().clone())),
        node.clock.clone(),
    ))
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn publish(
    requests: Arc<Vec<Vec<Vec<u8>>>>,
    number: usize,
    address: SocketAddr,
    started: Instant,
    time: Duration,
    pause: Option<Duration>,
) -> Result<Vec<Sent>, CliError> {
    let failed = |e: std::io::Error| CliError::new(format!("publishing: {e}"));
    let mut client = Client::connect(address).await.map_err(failed)?;
    let share = number as u32;
    let mut all = Vec::new();
    // Publishers with a pace begin one after the other.
    let mut due = started + pause.map_or(Duration::ZERO, |p| p * share / requests.len() as u32);
    for request in requests[number].iter().cycle() {
        if started.elapsed() >= time {
            break;
        }
        if let Some(pause) = pause {
            tokio::time::sleep_until(due.into()).await;
            due += pause;
        }
        let sent = micros(started);
        let (status, answer) = client.send(request).await.map_err(failed)?;
        let answered = micros(started);
        if status == 429 || status == 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let first_seq = first_seq(answer)
            .ok_or_else(|| CliError::new(format!("the node answered {status}: {answer}")))?;
        all.push(Sent {
            first_seq,
            sent,
            answered,
        });
    }
    Ok(all)
}

/// The first sequence number that an answer names. Parsing the whole of it would cost
/// the processors that are measured.
fn first_seq(answer: &str) -> Option<u64> {
    let (_, rest) = answer.split_once("\"seq\":")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

async fn consume(
    queue: Arc<LogQueue>,
    done: CancellationToken,
    started: Instant,
    settled: Arc<AtomicU64>,
) -> Result<Vec<(u64, u64)>, CliError> {
    let failed = |e: crate::queues::QueueError| CliError::new(e.to_string());
    let want = Want {
        messages: 1000,
        bytes: 4 << 20,
        visibility: Duration::from_secs(60),
    };
    let mut received = Vec::new();
    while !done.is_cancelled() {
        let lent = queue.receive(want).await.map_err(failed)?;
        if lent.is_empty() {
            tokio::select! {
                () = queue.ready() => {}
                () = done.cancelled() => {}
            }
            continue;
        }
        let at = micros(started);
        received.extend(lent.iter().map(|m| (m.receipt.seq, at)));
        let count = lent.len() as u64;
        let fates = lent.iter().map(|m| (m.receipt, Fate::Delivered)).collect();
        queue.settle(fates, Vec::new()).await.map_err(failed)?;
        settled.fetch_add(count, Ordering::Relaxed);
    }
    Ok(received)
}

/// Processor time of this process so far, in seconds; 0 when the system does not tell.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let times = after_name.split_whitespace().skip(11).take(2);
    // The unit is the clock tick, a hundredth of a second on Linux.
    times.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}
