//! A network that breaks and a broker that goes away, under load: nothing is lost.
//!
//! `POINTSMAN_FAULT_EVENTS` asks for more events than the short form has, and
//! `POINTSMAN_FAULT_SECONDS` for a longer absence of the broker.

use crate::conformance::unique;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{Project, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::time::Duration;

const EVENTS: usize = 6_000;
const CHUNK: usize = 500;

fn variable(name: &str, otherwise: usize) -> usize {
    let set = std::env::var(name).ok();
    set.and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn project(broker: SocketAddr) -> Project {
    let project = Project::new();
    let queue = unique("faults");
    project.write(
        "rules/pipeline.yaml",
        format!(
            r#"
connections:
  broker: {{ amqp: {{ hosts: "{broker}", heartbeat: 1s }} }}
queues:
  work: {{ amqp: {{ connection: broker, queue: {queue}, prefetch: 1000 }} }}
rules:
  all:
    pattern: {{ source: [suite] }}
    targets: [{{ queue: work }}]
handlers:
  worker:
    from: work
    batch: {{ size: 200, window: 20ms }}
    exec: {{ command: [sh, -c, "cat >> done.ndjson"] }}
"#
        ),
    );
    project
}

/// Sends the events from `from` on, as many as a chunk has.
fn send(project: &Project, from: usize, to: usize) {
    let lines: Vec<String> = (from..to)
        .map(|n| {
            let event = json!({ "id": format!("e-{n}"), "source": "suite", "detail-type": "T", "detail": { "n": n } });
            event.to_string()
        })
        .collect();
    let output = project.run_with(&["send", "-"], lines.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// How often each event was handled, read as it grows.
#[derive(Default)]
struct Handled {
    read: usize,
    times: BTreeMap<String, usize>,
}

impl Handled {
    /// How many events were handled at least once.
    fn count(&mut self, project: &Project) -> usize {
        let Ok(mut file) = fs::File::open(project.path("done.ndjson")) else {
            return 0;
        };
        let mut new = String::new();
        file.seek(SeekFrom::Start(self.read as u64))
            .expect("a place");
        file.read_to_string(&mut new).expect("text");
        let whole = new.rfind('\n').map_or("", |end| &new[..=end]);
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line).expect("an event");
            let id = event["id"].as_str().expect("an id").to_owned();
            *self.times.entry(id).or_default() += 1;
        }
        self.read += whole.len();
        self.times.len()
    }
}

fn pending(project: &Project, route: &str) -> u64 {
    let routes = project.json(&["queues", "--json"]);
    let found = routes.as_array().expect("routes").iter();
    let found = found.clone().find(|r| r["route"] == route);
    found.and_then(|r| r["pending"].as_u64()).unwrap_or(0)
}

fn all_handled(project: &Project, count: usize) {
    let mut handled = Handled::default();
    project.wait_for_count("events that were handled", count, || handled.count(project));
    project.wait_idle();
    handled.count(project);
    let twice = handled.times.values().filter(|times| **times > 1).count();
    eprintln!("{count} events, {twice} handled more than once");
    // All that the broker handed out again was told by its identity.
    assert_eq!(twice, 0, "handled more than once");
    assert!(project.json_lines(&["dlq", "list", "--json"]).is_empty());
    project.ok(&["audit"]);
}

#[test]
fn cuts_silence_and_a_broker_that_stops_lose_nothing() {
    let events = variable("POINTSMAN_FAULT_EVENTS", EVENTS);
    let mut broker = RabbitMq::start();
    let proxy = Proxy::start(broker.address());
    let project = project(proxy.address());
    let node = project.start();
    let chunks = events / CHUNK;
    for chunk in 0..chunks {
        send(&project, chunk * CHUNK, (chunk + 1) * CHUNK);
        match chunk % 12 {
            1 | 7 => proxy.cut(),
            3 => {
                proxy.silence(true);
                std::thread::sleep(Duration::from_secs(4));
                proxy.silence(false);
            }
            4 => proxy.delay(Duration::from_millis(20)),
            5 => proxy.delay(Duration::ZERO),
            8 => proxy.throttle(200_000),
            9 => {
                proxy.throttle(0);
                proxy.refuse(true);
                proxy.cut();
            }
            10 => proxy.refuse(false),
            11 if chunk % 60 == 11 => {
                broker.kill();
                broker.boot();
            }
            _ => {}
        }
    }
    all_handled(&project, chunks * CHUNK);
    assert_eq!(node.stop(), 0);
}

#[test]
fn while_the_broker_is_away_the_log_holds_the_backlog() {
    let seconds = variable("POINTSMAN_FAULT_SECONDS", 5);
    let mut broker = RabbitMq::start();
    let project = project(broker.address());
    let node = project.start();
    send(&project, 0, 500);
    all_handled(&project, 500);

    broker.stop();
    for chunk in 1..6 {
        send(&project, chunk * 500, (chunk + 1) * 500);
        std::thread::sleep(Duration::from_millis(200 * seconds as u64));
    }
    assert_eq!(pending(&project, "all/work"), 2_500, "the log holds them");
    project.ok(&["audit"]);
    // A node that is restarted meanwhile still has them.
    assert_eq!(node.stop(), 0);
    let node = project.start();
    broker.boot();
    all_handled(&project, 3_000);
    assert_eq!(node.stop(), 0);
}
