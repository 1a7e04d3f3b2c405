//! A real process on a real disk, killed with `kill -9` while it works.
//!
//! `BUS_CRASH_ROUNDS` says how often (default 30; the long form is 1000),
//! `BUS_CRASH_SEED` seeds the moments.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::bus::{
    AttemptError, Bus, BusOptions, Durability, Leased, NewEvent, Outcome, Receive, RouteId,
    RouteOptions,
};
use pointsman::clock;
use pointsman::storage::Real;

use super::setting;
use super::world::{Rng, payload_of};

const DIR: &str = "BUS_CRASH_DIR";
/// What a whole line of the diary ends with.
const END: &str = " .";

#[test]
fn a_killed_process_loses_nothing_acknowledged_and_repeats_nothing_settled() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng(setting("BUS_CRASH_SEED", 1));
    let rounds = setting("BUS_CRASH_ROUNDS", 30);
    let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(DIR, dir.path())
            .env("BUS_CRASH_ROUND", round.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + rng.below(250)));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            ended.is_none(),
            "round {round}: the child ended by itself: {said}"
        );
        assert!(!said.contains("panicked"), "round {round}: {said}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(check(dir.path()));
}

/// What the processes wrote down, line by line, before or after each step.
struct Diary {
    accepted: HashMap<String, u64>,
    settled: HashSet<(String, u64)>,
    /// Received again after its settlement was answered.
    repeated: Vec<String>,
    /// The highest count of attempts that was seen per delivery.
    attempts: HashMap<(String, u64), u32>,
}

fn read_diary(dir: &Path) -> Diary {
    let text = std::fs::read_to_string(dir.join("diary")).unwrap();
    let mut diary = Diary {
        accepted: HashMap::new(),
        settled: HashSet::new(),
        repeated: Vec::new(),
        attempts: HashMap::new(),
    };
    let mut torn = 0;
    for line in text.lines().filter(|line| !line.is_empty()) {
        // A kill can cut the line that is being written; what it told is not known.
        let Some(line) = line.strip_suffix(END) else {
            torn += 1;
            continue;
        };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["accepted", id, seq] => {
                let seq = seq.parse().unwrap();
                let before = diary.accepted.insert(id.to_owned(), seq);
                assert!(
                    before.is_none_or(|b| b == seq),
                    "{id} was accepted as {before:?} and {seq}"
                );
            }
            ["received", route, seq, attempts] => {
                let key = (route.to_owned(), seq.parse().unwrap());
                let attempts: u32 = attempts.parse().unwrap();
                let before = diary.attempts.insert(key.clone(), attempts).unwrap_or(0);
                assert!(
                    attempts > before,
                    "{key:?}: attempt {attempts} after {before}"
                );
                if diary.settled.contains(&key) {
                    diary.repeated.push(line.to_owned());
                }
            }
            ["settled", route, seq] => {
                diary
                    .settled
                    .insert((route.to_owned(), seq.parse().unwrap()));
            }
            _ => panic!("{line}"),
        }
    }
    assert!(torn <= setting("BUS_CRASH_ROUNDS", 30), "{torn} torn lines");
    diary
}

async fn check(dir: &Path) {
    let diary = read_diary(dir);
    assert!(
        diary.accepted.len() > 50 && diary.settled.len() > 50,
        "too little happened"
    );
    assert_eq!(diary.repeated, Vec::<String>::new());
    let (bus, report) = Bus::open(options(dir), Real::shared(), clock::system()).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    let routes: Vec<(RouteId, String)> = bus.routes().into_iter().map(|r| (r.id, r.name)).collect();
    for (id, &seq) in &diary.accepted {
        let event = bus
            .get(seq)
            .unwrap()
            .unwrap_or_else(|| panic!("{id} is gone"));
        assert_eq!((&event.id, &event.payload[..]), (id, &payload_of(id)[..]));
    }
    let ledger = bus.audit();
    assert!(ledger.balanced(), "{ledger:#?}");
    assert!(bus.verify().await.unwrap().agrees);
    let mut pending: HashSet<(String, u64)> = HashSet::new();
    for (route, name) in &routes {
        loop {
            let leased = bus
                .receive(
                    &[*route],
                    Receive {
                        max: 1000,
                        ..Receive::default()
                    },
                )
                .unwrap();
            if leased.is_empty() {
                break;
            }
            pending.extend(leased.iter().map(|l| (name.clone(), l.seq)));
            let all = leased
                .iter()
                .map(|l| l.settle(Outcome::Delivered))
                .collect();
            bus.settle(all, Vec::new(), Durability::Synced)
                .await
                .unwrap();
        }
    }
    let again: Vec<_> = pending.intersection(&diary.settled).collect();
    assert!(again.is_empty(), "settled, and pending again: {again:?}");
    for ledger in bus.audit().routes {
        assert!(
            ledger.balanced() && ledger.pending() == ledger.delayed,
            "{ledger:#?}"
        );
    }
    bus.close().await.unwrap();
}

fn options(dir: &Path) -> BusOptions {
    BusOptions {
        segment_bytes: 256 << 10,
        cache_bytes: 64 << 10,
        maintain_every: Duration::from_millis(20),
        ..BusOptions::new(dir.join("bus"))
    }
}

/// Does nothing unless the test above runs it as a process of its own.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work(&dir, setting("BUS_CRASH_ROUND", 0)));
}

#[derive(Clone)]
struct Pen(Arc<Mutex<std::fs::File>>);

impl Pen {
    /// One `write` per call, so that a killed process leaves at most one line torn.
    fn write(&self, text: &str) {
        let text = text.replace('\n', &format!("{END}\n"));
        self.0.lock().unwrap().write_all(text.as_bytes()).unwrap();
    }
}

async fn work(dir: &Path, round: u64) {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("diary"))
        .unwrap();
    let pen = Pen(Arc::new(Mutex::new(file)));
    // Ends the line that the process before may have been killed in.
    pen.0.lock().unwrap().write_all(b"\n").unwrap();
    let (bus, report) = Bus::open(options(dir), Real::shared(), clock::system()).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    let a = bus.route("a", RouteOptions::default()).await.unwrap();
    let b = bus
        .route("b", RouteOptions { ordered: true })
        .await
        .unwrap();
    let mut tasks = Vec::new();
    for publisher in 0..3 {
        tasks.push(tokio::spawn(publish(
            bus.clone(),
            pen.clone(),
            [a, b],
            round * 10 + publisher,
        )));
    }
    for (route, name) in [(a, "a"), (b, "b"), (a, "a")] {
        tasks.push(tokio::spawn(consume(
            bus.clone(),
            pen.clone(),
            route,
            name,
            round,
        )));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn publish(bus: Bus, pen: Pen, routes: [RouteId; 2], seed: u64) {
    let mut rng = Rng(seed);
    for n in 0.. {
        let events: Vec<NewEvent> = (0..1 + rng.below(20))
            .map(|i| {
                let id = format!("e-{seed}-{n}-{i}");
                let payload = payload_of(&id);
                let mut event = NewEvent::new("default", id, payload)
                    .deliver(routes[0])
                    .deliver(routes[1]);
                event.deliveries[1].key = Some(format!("key-{}", rng.below(5)));
                event
            })
            .collect();
        let ids: Vec<String> = events.iter().map(|e| e.id.clone()).collect();
        let accepted = bus.accept(events).await.unwrap();
        let lines: String = ids
            .iter()
            .zip(accepted)
            .map(|(id, a)| format!("accepted {id} {}\n", a.seq))
            .collect();
        pen.write(&lines);
    }
}

async fn consume(bus: Bus, pen: Pen, route: RouteId, name: &'static str, seed: u64) {
    let mut rng = Rng(seed);
    loop {
        bus.ready(&[route]).await;
        let leased = bus
            .receive(
                &[route],
                Receive {
                    max: 1 + rng.below(30) as usize,
                    ..Receive::default()
                },
            )
            .unwrap();
        let lines: String = leased
            .iter()
            .map(|l| format!("received {name} {} {}\n", l.seq, l.attempts))
            .collect();
        pen.write(&lines);
        let settlements = leased
            .iter()
            .map(|l| l.settle(outcome(&mut rng, l)))
            .collect::<Vec<_>>();
        let ended: Vec<bool> = settlements
            .iter()
            .map(|s| !matches!(s.outcome, Outcome::Retry { .. }))
            .collect();
        let relaxed = rng.chance(3);
        let durability = if relaxed {
            Durability::Relaxed
        } else {
            Durability::Synced
        };
        let settled = bus
            .settle(settlements, Vec::new(), durability)
            .await
            .unwrap();
        if !relaxed {
            let sure = leased
                .iter()
                .zip(settled.applied.iter().zip(ended))
                .filter(|(_, (applied, ended))| **applied && *ended);
            let lines: String = sure
                .map(|(l, _)| format!("settled {name} {}\n", l.seq))
                .collect();
            pen.write(&lines);
        }
    }
}

fn outcome(rng: &mut Rng, leased: &Leased) -> Outcome {
    let error = AttemptError {
        class: "transient".into(),
        message: format!("attempt {}", leased.attempts),
        ..AttemptError::default()
    };
    match rng.below(20) {
        0 => Outcome::Retry {
            not_before_ms: leased.event.accepted_ms + 50,
            error,
        },
        1 => Outcome::Dead {
            error,
            context: bytes::Bytes::new(),
        },
        _ => Outcome::Delivered,
    }
}
