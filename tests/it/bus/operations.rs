//! The operations that the model test draws, each booked in the model.

use std::time::Duration;

use bytes::Bytes;
use pointsman::bus::{
    Accepted, AttemptError, BusError, Durability, Leased, NewDelivery, NewEvent, Outcome, Receive,
    RouteId, Settlement,
};
use pointsman::clock::Clock;

use super::model::{ROUTES, Verdict, World, verdict};
use super::world::{DEAD, GONE, Held, PENDING, check_content, payload_of};

/// A settlement that was asked for.
struct Settling {
    held: Held,
    state: u8,
    release: bool,
    live: bool,
}

impl World {
    pub(super) fn new_event(&mut self, bus: &str) -> NewEvent {
        let id = format!("event-{}", self.next_id);
        self.next_id += 1;
        let mut event = NewEvent::new(bus, id.clone(), payload_of(&id));
        for i in 0..self.routes.len() {
            if self.rng.chance(2) {
                continue;
            }
            let key = (!self.rng.chance(4)).then(|| format!("key-{}", self.rng.below(3)));
            let wait = self.rng.below(20_000) as i64;
            let not_before_ms = self.rng.chance(5).then(|| self.clock.now_ms() + wait);
            event.deliveries.push(NewDelivery {
                route: self.routes[i],
                key,
                not_before_ms,
            });
        }
        event
            .deliveries
            .retain(|d| !self.model.retired.contains(&d.route));
        event
    }

    fn new_events(&mut self) -> Vec<NewEvent> {
        let n = 1 + self.rng.below(6);
        (0..n)
            .map(|_| {
                let bus = if self.rng.chance(2) {
                    "default"
                } else {
                    "topic/done"
                };
                self.new_event(bus)
            })
            .collect()
    }

    pub(super) async fn accept(&mut self) {
        let events = self.new_events();
        let result = self.bus().accept(events.clone()).await;
        self.book_accepted(&result, events);
        self.book(verdict(&result), Vec::new()).await;
    }

    fn book_accepted(&mut self, result: &Result<Vec<Accepted>, BusError>, events: Vec<NewEvent>) {
        match result {
            Ok(accepted) => {
                let now = self.clock.now_ms();
                for (answer, event) in accepted.iter().zip(&events) {
                    assert!(!answer.duplicate, "{}: {} is new", self.story, event.id);
                    self.note_accepted(answer.seq, now, event);
                }
            }
            Err(e) if e.is_temporary() => {}
            Err(_) => self.doubtful.extend(events),
        }
    }

    /// Sends an event again that is known.
    pub(super) async fn repeat(&mut self) {
        let n = self.model.events.len() as u64;
        let Some((&seq, known)) = self
            .model
            .events
            .iter()
            .nth(self.rng.below(n.max(1)) as usize)
        else {
            return;
        };
        // A start with a clock that is ahead forgets ids; while it runs, it would not.
        let forgot = self
            .starts
            .iter()
            .any(|&(next, jumped)| next > seq && jumped > known.jumped);
        let age = if forgot {
            60_000
        } else {
            self.now() - known.mono
        };
        let newest = self
            .model
            .events
            .values()
            .filter(|k| k.id == known.id)
            .count()
            == 1;
        if age >= 60_000 || self.options.retention_bytes.is_some() || !newest {
            return;
        }
        let again = NewEvent::new(known.bus.clone(), known.id.clone(), payload_of(&known.id));
        let result = self.bus().accept(vec![again]).await;
        if let Ok(answer) = &result {
            assert!(
                answer[0].duplicate && answer[0].seq == seq,
                "{}: {answer:?} for {seq}",
                self.story
            );
        }
        // Nothing was written, so nothing else became durable by it.
        if verdict(&result) == Verdict::Doubt {
            self.restart().await;
        }
    }

    pub(super) async fn receive(&mut self) {
        let n = 1 + self.rng.below(self.routes.len() as u64) as usize;
        let routes: Vec<RouteId> = (0..n)
            .map(|_| self.routes[self.rng.below(self.routes.len() as u64) as usize])
            .collect();
        let visibility = 1_000 + self.rng.below(30_000);
        let receive = Receive {
            max: 1 + self.rng.below(8) as usize,
            max_bytes: 1 + self.rng.below(5_000) as usize,
            visibility: Duration::from_millis(visibility),
        };
        let result = self.bus().receive(&routes, receive);
        let verdict = verdict(&result);
        for leased in result.unwrap_or_default() {
            let until = self.now() + visibility;
            self.check_leased(&leased, until);
        }
        if verdict == Verdict::Doubt {
            let all: Vec<_> = self.model.deliveries.keys().copied().collect();
            self.model.attempts_fuzzy.extend(all);
            self.restart().await;
        }
    }

    pub(super) fn check_leased(&mut self, leased: &Leased, until: u64) {
        let (route, seq, story) = (leased.route, leased.seq, self.story.clone());
        assert_eq!(
            self.model.state(route, seq),
            PENDING,
            "{story}: event {seq} on {route:?} was not to be had"
        );
        assert!(
            !self.model.paused.contains(&route),
            "{story}: {route:?} is paused"
        );
        check_content(&leased.event, &story);
        let tried = self.model.attempts.get(&(route, seq)).copied().unwrap_or(0);
        if !self.model.attempts_fuzzy.contains(&(route, seq)) {
            assert_eq!(
                leased.attempts,
                tried + 1,
                "{story}: attempts of {seq} on {route:?}"
            );
        }
        self.model.attempts_fuzzy.remove(&(route, seq));
        self.model.attempts.insert((route, seq), leased.attempts);
        let ordered = self
            .routes
            .iter()
            .position(|r| *r == route)
            .is_some_and(|i| ROUTES[i].1);
        let key = self
            .model
            .keys
            .get(&(route, seq))
            .cloned()
            .filter(|_| ordered);
        let now = self.now();
        for held in self
            .model
            .held
            .iter()
            .filter(|h| h.leased.route == route && h.until > now)
        {
            assert_ne!(held.leased.seq, seq, "{story}: event {seq} is in two hands");
            assert!(
                key.is_none() || held.key != key,
                "{story}: two of {key:?} are in flight"
            );
        }
        self.model
            .held
            .retain(|h| (h.leased.route, h.leased.seq) != (route, seq));
        self.model.held.push(Held {
            leased: leased.clone(),
            until,
            key,
            grace: false,
        });
    }

    fn outcome(&mut self) -> (Outcome, u8) {
        let error = AttemptError {
            class: "transient".into(),
            message: format!("failure {}", self.rng.below(1000)),
            chain: vec!["because".into(); self.rng.below(3) as usize],
            at_ms: 0,
            handler: "test".into(),
        };
        let later = self.clock.now_ms() + self.rng.below(30_000) as i64;
        match self.rng.below(12) {
            0..=5 => (Outcome::Delivered, GONE),
            6..=7 => (
                Outcome::Retry {
                    not_before_ms: later,
                    error,
                },
                PENDING,
            ),
            8..=9 => (
                Outcome::Dead {
                    error,
                    context: Bytes::from_static(b"{}"),
                },
                DEAD,
            ),
            10 => (Outcome::Release, PENDING),
            _ => (
                Outcome::Expired {
                    policy: "age".into(),
                },
                GONE,
            ),
        }
    }

    /// Ends about half of what is held, at random.
    fn draw_settlements(&mut self) -> (Vec<Settlement>, Vec<Settling>) {
        let (mut settlements, mut effects) = (Vec::new(), Vec::new());
        for held in std::mem::take(&mut self.model.held) {
            if self.rng.chance(2) {
                self.model.held.push(held);
                continue;
            }
            let (outcome, state) = self.outcome();
            let release = outcome == Outcome::Release;
            settlements.push(held.leased.settle(outcome));
            effects.push(Settling {
                live: held.until > self.now(),
                held,
                state,
                release,
            });
        }
        (settlements, effects)
    }

    pub(super) async fn settle(&mut self) {
        let (settlements, effects) = self.draw_settlements();
        if settlements.is_empty() {
            return;
        }
        let emits = if self.rng.chance(4) {
            self.new_events()
        } else {
            Vec::new()
        };
        let relaxed = self.rng.chance(2);
        let durability = if relaxed {
            Durability::Relaxed
        } else {
            Durability::Synced
        };
        let result = self
            .bus()
            .settle(settlements, emits.clone(), durability)
            .await;
        let emitted = result
            .as_ref()
            .map(|s| s.emitted.clone())
            .map_err(Clone::clone);
        self.book_accepted(&emitted, emits.clone());
        let waits = !relaxed || !emits.is_empty();
        let mut sure = Vec::new();
        for (i, one) in effects.into_iter().enumerate() {
            let (key, state) = ((one.held.leased.route, one.held.leased.seq), one.state);
            match &result {
                Ok(settled) if !settled.applied[i] => {
                    assert!(!one.live, "{}: {key:?} was refused", self.story)
                }
                Ok(_) => {
                    if one.release {
                        let attempts = self.model.attempts.entry(key).or_insert(1);
                        *attempts = attempts.saturating_sub(1);
                    }
                    if waits {
                        sure.push((key, state))
                    } else {
                        self.model.set_unsynced(key.0, key.1, state)
                    }
                }
                Err(e) if e.is_temporary() => self.model.held.push(Held {
                    until: self.now(),
                    grace: true,
                    ..one.held
                }),
                Err(_) => sure.push((key, state)),
            }
        }
        match verdict(&result) {
            // A settlement that is all stale or relaxed makes nothing durable.
            Verdict::Done if !waits || sure.is_empty() && emits.is_empty() => {}
            verdict => self.book(verdict, sure).await,
        }
    }

    pub(super) fn extend(&mut self) {
        let (bus, now) = (self.bus(), self.now());
        let Some(held) = self.model.held.last_mut() else {
            return;
        };
        let (route, seq, receipt) = (held.leased.route, held.leased.seq, held.leased.receipt);
        let extended = bus.extend(route, seq, receipt, Duration::from_secs(20));
        assert!(
            held.grace || extended == (held.until > now),
            "{}: extending {seq}",
            self.story
        );
        if extended {
            held.until = now + 20_000;
        }
    }

    pub(super) fn pass_time(&mut self) {
        match self.rng.below(8) {
            kind @ 0..=1 => {
                let by = if kind == 0 { 3_600_000 } else { -3_600_000 };
                self.jumped += by;
                self.clock.jump(by);
            }
            2 => self.clock.advance(Duration::from_secs(120)),
            _ => self
                .clock
                .advance(Duration::from_millis(self.rng.below(20_000))),
        }
    }
}
