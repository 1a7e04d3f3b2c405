//! Random work, random faults, random ends; after each the bus must agree with the model.
//!
//! `BUS_MODEL_SEEDS` says how many seeds (default 150), `BUS_MODEL_FROM` the first of them;
//! `BUS_MODEL_SEED` runs one alone, and `BUS_MODEL_TRACE=1` tells its steps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman::bus::{
    Bus, BusError, BusOptions, DamageKind, Durability, NewEvent, Outcome, Receive, RouteId,
    RouteOptions,
};
use pointsman::clock::{Clock, Manual};
use pointsman::storage::Memory;

use super::setting;
use super::world::{GONE, Known, Model, PENDING, Rng};

pub(super) const ROUTES: [(&str, bool); 4] =
    [("a", false), ("b", false), ("ordered", true), ("c", false)];

/// Seeds that found defects; they are run again each time.
const FOUND: [u64; 2] = [21_072, 31_919];

#[test]
fn whatever_breaks_nothing_acknowledged_is_lost_and_nothing_settled_returns() {
    let one = std::env::var("BUS_MODEL_SEED")
        .ok()
        .and_then(|v| v.parse().ok());
    let seeds: Vec<u64> = match one {
        Some(seed) => vec![seed],
        None => {
            let from = setting("BUS_MODEL_FROM", 0);
            let seeds = from..from + setting("BUS_MODEL_SEEDS", 150);
            FOUND.into_iter().chain(seeds).collect()
        }
    };
    let failing: Vec<u64> = seeds
        .into_iter()
        .filter(|&seed| std::panic::catch_unwind(|| run(seed)).is_err())
        .collect();
    assert!(
        failing.is_empty(),
        "failing seeds: {failing:?}; run one alone with BUS_MODEL_SEED=N"
    );
}

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed).await;
        let steps = 60 + world.rng.below(140);
        for step in 0..steps {
            world.story = format!("seed {seed} step {step}");
            world.step().await;
        }
        world.finish().await;
    });
}

pub(super) struct World {
    pub rng: Rng,
    pub fs: Memory,
    pub clock: Arc<Manual>,
    pub options: BusOptions,
    pub bus: Option<Bus>,
    pub routes: Vec<RouteId>,
    pub model: Model,
    /// Events whose acceptance failed: they may be there or not.
    pub doubtful: Vec<NewEvent>,
    pub next_id: u64,
    pub replays: u64,
    /// How far the wall clock has been moved, and how far it was at each start.
    pub jumped: i64,
    pub starts: Vec<(u64, i64)>,
    pub story: String,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Undone,
    Doubt,
}

pub(super) fn verdict<T>(result: &Result<T, BusError>) -> Verdict {
    match result {
        Ok(_) => Verdict::Done,
        Err(e) if e.is_temporary() => Verdict::Undone,
        Err(BusError::Io { .. } | BusError::Poisoned { .. } | BusError::Closed) => Verdict::Doubt,
        Err(e) => panic!("unexpected: {e}"),
    }
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut options = BusOptions::new(PathBuf::from("/bus"));
        options.segment_bytes = 4096 << rng.below(5);
        options.maintain_every = Duration::ZERO;
        options.relaxed_delay = Duration::from_secs(3600);
        options.relaxed_count = usize::MAX;
        options.free_refuse = 0;
        options.dedupe_window = Duration::from_secs(60);
        options.retention = Duration::from_secs(90 + rng.below(600));
        options.dead_letter_retention = Duration::from_secs(60 + rng.below(600));
        if rng.chance(4) {
            options.retention_bytes = Some(20_000 + rng.below(100_000));
        }
        if rng.chance(2) {
            options.cache_bytes = 4_000;
        }
        let (fs, clock) = (
            Memory::new(rng.draw()),
            Manual::new(1_700_000_000_000, rng.draw()),
        );
        let (story, model) = (format!("seed {seed}"), Model::default());
        let mut world = Self {
            rng,
            fs,
            clock,
            options,
            bus: None,
            routes: Vec::new(),
            model,
            doubtful: Vec::new(),
            next_id: 0,
            replays: 0,
            jumped: 0,
            starts: Vec::new(),
            story,
        };
        world.open().await;
        world
    }

    pub(super) fn bus(&self) -> Bus {
        self.bus.clone().unwrap()
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.monotonic().as_millis() as u64
    }

    pub(super) async fn open(&mut self) {
        let opened = Bus::open(
            self.options.clone(),
            Arc::new(self.fs.clone()),
            self.clock.clone(),
        );
        let (bus, report) = opened.unwrap_or_else(|e| panic!("{}: {e}", self.story));
        self.trace(&format!("opened: {report:?}"));
        let real = report
            .damage
            .iter()
            .filter(|d| d.kind != DamageKind::Gap)
            .count();
        assert_eq!(real, 0, "{}: {:?}", self.story, report.damage);
        self.bus = Some(bus.clone());
        self.starts.push((bus.next_seq(), self.jumped));
        self.adopt(&bus);
        // What was dropped by age was dropped by the latest time the clock ever showed.
        let latest = self.clock.now_ms() + 10 * 3_600_000;
        self.model
            .reconcile(&bus, &self.options, latest, &self.story);
        self.routes.clear();
        for (name, ordered) in ROUTES {
            let route = bus.route(name, RouteOptions { ordered }).await;
            self.routes
                .push(route.unwrap_or_else(|e| panic!("{}: {e}", self.story)));
        }
        self.model.retired.clear();
        self.model.paused = bus
            .routes()
            .iter()
            .filter(|r| r.paused)
            .map(|r| r.id)
            .collect();
    }

    /// Takes over what of the doubtful events is there after all.
    fn adopt(&mut self, bus: &Bus) {
        for event in std::mem::take(&mut self.doubtful) {
            let found = bus
                .find(&event.bus, &event.id)
                .unwrap_or_else(|e| panic!("{}: {e}", self.story));
            if let Some(found) = found.filter(|f| !self.model.events.contains_key(&f.seq)) {
                self.note_accepted(found.seq, found.accepted_ms, &event);
            }
        }
    }

    pub(super) fn note_accepted(&mut self, seq: u64, accepted_ms: i64, event: &NewEvent) {
        let deliveries = event
            .deliveries
            .iter()
            .map(|d| (d.route, d.key.clone()))
            .collect();
        let known = Known {
            bus: event.bus.clone(),
            id: event.id.clone(),
            accepted_ms,
            mono: self.now(),
            jumped: self.jumped,
            deliveries,
            sure: true,
        };
        self.model.events.insert(seq, known);
        for delivery in &event.deliveries {
            self.model.set(delivery.route, seq, PENDING);
            if let Some(key) = &delivery.key {
                self.model.keys.insert((delivery.route, seq), key.clone());
            }
        }
    }

    /// Ends the process or the machine and starts again.
    pub(super) async fn restart(&mut self) {
        let power_cut = self.rng.chance(2);
        self.trace(if power_cut {
            "power is cut"
        } else {
            "the process is killed"
        });
        if power_cut {
            self.fs.crash()
        } else {
            self.fs.kill()
        }
        self.bus = None;
        if power_cut {
            let all: Vec<_> = self.model.attempts.keys().copied().collect();
            self.model.attempts_fuzzy.extend(all);
        }
        let doubtful: Vec<_> = self.model.unsynced.iter().map(|u| u.0).collect();
        self.model.attempts_fuzzy.extend(doubtful);
        self.model.in_doubt();
        self.fs.set_capacity(None);
        self.open().await;
    }

    /// Books what an operation did, and starts again when the log has stopped.
    pub(super) async fn book(&mut self, verdict: Verdict, effects: Vec<((RouteId, u64), u8)>) {
        match verdict {
            Verdict::Done => {
                effects
                    .into_iter()
                    .for_each(|((route, seq), state)| self.model.set(route, seq, state));
                self.model.synced();
            }
            Verdict::Undone => {}
            Verdict::Doubt => {
                for (key, state) in effects {
                    *self.model.deliveries.entry(key).or_insert(GONE) |= state;
                    self.model.attempts_fuzzy.insert(key);
                }
                self.restart().await;
            }
        }
    }

    /// Says what happens when `BUS_MODEL_TRACE` is set.
    fn trace(&self, what: &str) {
        if std::env::var_os("BUS_MODEL_TRACE").is_some() {
            let end = self
                .bus
                .as_ref()
                .map(|b| (b.next_seq(), b.disk_bytes(), b.poisoned()));
            eprintln!("{}: {what} {end:?}", self.story);
        }
    }

    async fn step(&mut self) {
        let kind = self.rng.below(30);
        self.trace(&format!("operation {kind}"));
        match kind {
            0..=6 => self.accept().await,
            7..=12 => self.receive().await,
            13..=18 => self.settle().await,
            19 => self.repeat().await,
            20 => self.pass_time(),
            21 => self.maintain().await,
            22 => self.redrive_or_purge().await,
            23 => self.redeliver().await,
            24 => self.pause().await,
            25 => self.retire().await,
            26 => self.extend(),
            27 => self.restart().await,
            28 => self.break_something(),
            _ => self.close().await,
        }
    }

    /// Everything that is pending arrives once, and then nothing is left.
    async fn finish(&mut self) {
        self.story += " (end)";
        self.restart().await;
        let bus = self.bus();
        for &route in &self.routes {
            bus.resume(route).await.unwrap();
        }
        self.model.paused.clear();
        let mut idle = 0;
        while idle < 3 {
            let receive = Receive {
                max: 50,
                max_bytes: 1 << 20,
                visibility: Duration::from_secs(600),
            };
            let leased = bus.receive(&self.routes, receive).unwrap();
            idle = if leased.is_empty() { idle + 1 } else { 0 };
            let until = self.now() + 600_000;
            leased.iter().for_each(|l| self.check_leased(l, until));
            let all = leased
                .iter()
                .map(|l| l.settle(Outcome::Delivered))
                .collect();
            let settled = bus
                .settle(all, Vec::new(), Durability::Synced)
                .await
                .unwrap();
            assert!(settled.applied.iter().all(|&a| a), "{}", self.story);
            for one in &leased {
                self.model.set(one.route, one.seq, GONE);
            }
            self.model.held.clear();
            if leased.is_empty() {
                self.clock.advance(Duration::from_secs(60));
            }
        }
        assert_eq!(
            self.model.with_state(PENDING),
            [],
            "{}: never received",
            self.story
        );
        let ledger = bus.audit();
        assert!(
            ledger.balanced() && ledger.routes.iter().all(|r| r.pending() == 0),
            "{}: {ledger:#?}",
            self.story
        );
        let verified = bus.verify().await.unwrap();
        assert!(verified.agrees, "{}: {verified:#?}", self.story);
        bus.close().await.unwrap();
        let fs: Arc<dyn pointsman::storage::FileSystem> = Arc::new(self.fs.clone());
        let report = pointsman::bus::doctor("/bus".as_ref(), &fs, false).unwrap();
        assert!(
            report.sound() && report.torn_bytes == 0,
            "{}: {report:#?}",
            self.story
        );
    }
}
