//! The model: what must be true of a bus after every step, kept in plain maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pointsman::bus::{Bus, BusOptions, Leased, RouteId, Standing, StoredEvent};

/// Settled or never there.
pub const GONE: u8 = 1;
/// Waiting, in somebody's hands, or delayed.
pub const PENDING: u8 = 2;
/// A dead letter.
pub const DEAD: u8 = 4;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// An event that the model knows of.
#[derive(Clone, Debug)]
pub struct Known {
    pub bus: Arc<str>,
    pub id: String,
    pub accepted_ms: i64,
    /// By the clock that does not jump, and how far the other had jumped by then.
    pub mono: u64,
    pub jumped: i64,
    pub deliveries: Vec<(RouteId, Option<String>)>,
    /// `false`: its acceptance failed or was cut off, so it may or may not be there.
    pub sure: bool,
}

/// A lease that the test holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub leased: Leased,
    pub until: u64,
    pub key: Option<String>,
    /// Its settlement failed on a full disk: it lasts a little longer than the model says.
    pub grace: bool,
}

/// All that the model believes.
#[derive(Default)]
pub struct Model {
    pub events: BTreeMap<u64, Known>,
    /// Per delivery, which of the three it may be; one bit while nothing is in doubt.
    pub deliveries: BTreeMap<(RouteId, u64), u8>,
    /// What was done without a sync: what each delivery was before.
    pub unsynced: Vec<((RouteId, u64), u8)>,
    pub attempts: BTreeMap<(RouteId, u64), u32>,
    /// Ordering keys of deliveries as they were accepted; those that a replay or another
    /// route gave have none.
    pub keys: BTreeMap<(RouteId, u64), String>,
    /// After power was cut, counts of leases may be lower than the model's.
    pub attempts_fuzzy: BTreeSet<(RouteId, u64)>,
    pub held: Vec<Held>,
    pub replayed: BTreeSet<(RouteId, u64, String)>,
    pub retired: BTreeSet<RouteId>,
    pub paused: BTreeSet<RouteId>,
}

impl Model {
    pub fn state(&self, route: RouteId, seq: u64) -> u8 {
        self.deliveries.get(&(route, seq)).copied().unwrap_or(GONE)
    }

    pub fn set(&mut self, route: RouteId, seq: u64, state: u8) {
        self.deliveries.insert((route, seq), state);
    }

    /// Changes a delivery in a way that is lost if the machine stops now.
    pub fn set_unsynced(&mut self, route: RouteId, seq: u64, state: u8) {
        let before = self.state(route, seq);
        self.unsynced.push(((route, seq), before));
        self.set(route, seq, state);
    }

    /// A commit that was asked for has succeeded: all before it is safe too.
    pub fn synced(&mut self) {
        self.unsynced.clear();
    }

    /// The machine or the process ends: what was not synced is in doubt.
    pub fn in_doubt(&mut self) {
        for (key, before) in std::mem::take(&mut self.unsynced) {
            *self.deliveries.entry(key).or_insert(GONE) |= before;
        }
        self.held.clear();
    }

    pub fn with_state(&self, state: u8) -> Vec<(RouteId, u64)> {
        self.deliveries
            .iter()
            .filter(|(_, s)| **s == state)
            .map(|(k, _)| *k)
            .collect()
    }

    /// Compares the model with a bus that was just opened, and takes over what it says
    /// where the model was in doubt.
    pub fn reconcile(&mut self, bus: &Bus, options: &BusOptions, now_ms: i64, story: &str) {
        self.reconcile_events(bus, options, now_ms, story);
        let routes: Vec<RouteId> = bus.routes().iter().map(|r| r.id).collect();
        for (&seq, known) in &self.events.clone() {
            let history = bus
                .history(seq)
                .unwrap_or_else(|e| panic!("{story}: history of {seq}: {e}"));
            for &route in &routes {
                let found = history.now.iter().find(|n| n.0 == route);
                let is = match found {
                    None => GONE,
                    Some((_, Standing::Dead, _)) => DEAD,
                    Some(_) => PENDING,
                };
                let may = self.state(route, seq);
                assert!(
                    may & is != 0,
                    "{story}: event {seq} ({}) on route {route:?} is {is}, may be {may}",
                    known.id
                );
                self.set(route, seq, is);
                if let Some((_, standing, attempts)) = found
                    && *standing != Standing::Dead
                {
                    self.check_attempts(route, seq, *attempts, story);
                }
            }
        }
        let ledger = bus.audit();
        assert!(ledger.balanced(), "{story}: {ledger:#?}");
    }

    fn check_attempts(&mut self, route: RouteId, seq: u64, attempts: u32, story: &str) {
        let expected = self.attempts.get(&(route, seq)).copied().unwrap_or(0);
        if self.attempts_fuzzy.contains(&(route, seq)) {
            assert!(
                attempts <= expected + 1,
                "{story}: event {seq} on {route:?} was tried {attempts} times, not {expected}"
            );
        } else {
            assert_eq!(
                attempts, expected,
                "{story}: attempts of event {seq} on {route:?}"
            );
        }
        self.attempts.insert((route, seq), attempts);
        self.attempts_fuzzy.remove(&(route, seq));
    }

    fn reconcile_events(&mut self, bus: &Bus, options: &BusOptions, now_ms: i64, story: &str) {
        for (seq, known) in self.events.clone() {
            let found = bus
                .get(seq)
                .unwrap_or_else(|e| panic!("{story}: event {seq}: {e}"));
            let same = found
                .as_ref()
                .is_some_and(|e| e.id == known.id && e.bus == known.bus);
            if same {
                if let Some(event) = found {
                    check_content(&event, story);
                }
                if let Some(known) = self.events.get_mut(&seq) {
                    known.sure = true;
                }
                continue;
            }
            if known.sure {
                let needed = known
                    .deliveries
                    .iter()
                    .any(|d| self.state(d.0, seq) & GONE == 0);
                assert!(
                    !needed,
                    "{story}: event {seq} ({}) is gone while it is needed",
                    known.id
                );
                let age = now_ms - known.accepted_ms;
                let by_age = age > i64::try_from(options.retention.as_millis()).unwrap();
                assert!(
                    by_age || options.retention_bytes.is_some(),
                    "{story}: event {seq} is gone at the age of {age} ms"
                );
            }
            self.forget(seq);
        }
    }

    /// The event is not there and leaves no trace.
    pub fn forget(&mut self, seq: u64) {
        self.events.remove(&seq);
        self.deliveries.retain(|(_, s), _| *s != seq);
        self.attempts.retain(|(_, s), _| *s != seq);
    }
}

/// The payload that belongs to an id.
pub fn payload_of(id: &str) -> Vec<u8> {
    let seed = id
        .bytes()
        .fold(7_u64, |a, b| a.wrapping_mul(31).wrapping_add(u64::from(b)));
    let mut rng = Rng(seed);
    let len = rng.below(1500) as usize;
    (0..len).map(|_| rng.draw() as u8).collect()
}

/// The bytes that come out are the bytes that went in.
pub fn check_content(event: &StoredEvent, story: &str) {
    assert_eq!(
        event.payload,
        payload_of(&event.id),
        "{story}: payload of {}",
        event.id
    );
}
