//! The rarer operations of the model test: keeping, redriving, replaying, retiring, breaking.

use pointsman::bus::{Backlog, DeadFilter, Ledger, Redelivery, RouteId, RouteOptions};
use pointsman::clock::Clock;
use pointsman::storage::{Faults, FileSystem};

use super::model::{ROUTES, Verdict, World, verdict};
use super::world::{DEAD, GONE, PENDING};

impl World {
    pub(super) async fn maintain(&mut self) {
        let keep = self.options.dead_letter_retention.as_millis() as i64;
        let horizon = self.clock.now_ms() - keep + 1;
        // A machine that has stopped lists nothing; the next operation meets it.
        let (Some(over), Some(before)) = (self.dead(Some(horizon)), self.dead(None)) else {
            return;
        };
        let result = self.bus().maintain();
        if result.is_err() {
            return self
                .book(
                    verdict(&result),
                    over.into_iter().map(|k| (k, GONE)).collect(),
                )
                .await;
        }
        let Some(after) = self.dead(None) else {
            return self
                .book(
                    Verdict::Doubt,
                    over.into_iter().map(|k| (k, GONE)).collect(),
                )
                .await;
        };
        let expired: Vec<_> = before.into_iter().filter(|d| !after.contains(d)).collect();
        assert!(
            expired.iter().all(|d| over.contains(d)),
            "{}: {expired:?} of {over:?} expired",
            self.story
        );
        // Without anything to expire nothing may have been written.
        if !expired.is_empty() {
            self.book(
                Verdict::Done,
                expired.into_iter().map(|k| (k, GONE)).collect(),
            )
            .await;
        }
        let ledger = self.bus().audit();
        assert!(ledger.balanced(), "{}: {ledger:#?}", self.story);
    }

    fn dead(&self, before_ms: Option<i64>) -> Option<Vec<(RouteId, u64)>> {
        let filter = DeadFilter {
            before_ms,
            limit: 100_000,
            ..DeadFilter::default()
        };
        let page = self.bus().dead(&filter).ok()?;
        Some(page.letters.iter().map(|l| (l.route, l.seq)).collect())
    }

    pub(super) async fn redrive_or_purge(&mut self) {
        let dead = self.model.with_state(DEAD);
        let Some(&(route, _)) = dead.first() else {
            return;
        };
        let mut seqs: Vec<u64> = dead.iter().filter(|d| d.0 == route).map(|d| d.1).collect();
        seqs.truncate(1 + self.rng.below(5) as usize);
        if self.rng.chance(3) {
            let result = self.bus().purge(route, &seqs, "by the test").await;
            let effects = seqs.iter().map(|&s| ((route, s), GONE)).collect();
            return self.book(verdict(&result), effects).await;
        }
        let to = if self.rng.chance(3) {
            self.routes[self.rng.below(4) as usize]
        } else {
            route
        };
        if self.model.retired.contains(&to) {
            return;
        }
        let result = self.bus().redrive(route, &seqs, Some(to)).await;
        let mut effects = Vec::new();
        for seq in seqs {
            if to != route && self.model.state(to, seq) != GONE {
                continue;
            }
            effects.push(((route, seq), GONE));
            effects.push(((to, seq), PENDING));
            if result.is_ok() {
                self.model.attempts.remove(&(to, seq));
            }
            if to != route {
                self.model.keys.remove(&(to, seq));
            }
        }
        let changed = !effects.is_empty();
        if verdict(&result) != Verdict::Done || changed {
            self.book(verdict(&result), effects).await;
        }
    }

    pub(super) async fn redeliver(&mut self) {
        let route = self.routes[self.rng.below(4) as usize];
        if self.model.retired.contains(&route) {
            return;
        }
        let replay = format!("replay-{}-{}", self.replays, self.rng.below(3));
        let seqs: Vec<u64> = self
            .model
            .events
            .keys()
            .copied()
            .filter(|_| self.rng.chance(3))
            .collect();
        let kept: Vec<u64> = seqs
            .into_iter()
            .filter(|&s| self.bus().get(s).ok().flatten().is_some())
            .collect();
        let deliveries = kept
            .iter()
            .map(|&seq| Redelivery { seq, key: None })
            .collect();
        let result = self.bus().redeliver(route, deliveries, &replay).await;
        let mut effects = Vec::new();
        let mut new = Vec::new();
        for seq in kept {
            if self.model.state(route, seq) == GONE
                && !self.model.replayed.contains(&(route, seq, replay.clone()))
            {
                effects.push(((route, seq), PENDING));
                self.model.keys.remove(&(route, seq));
                new.push((route, seq, replay.clone()));
            }
        }
        match &result {
            Ok(answer) => {
                assert_eq!(
                    answer.enqueued,
                    new.len() as u64,
                    "{}: {answer:?}",
                    self.story
                );
                effects.iter().for_each(|(key, _)| {
                    self.model.attempts.remove(key);
                });
                self.model.replayed.extend(new);
            }
            // Whether it was given is not known, so the next replays have other ids.
            Err(_) => self.replays += 1,
        }
        if verdict(&result) != Verdict::Done || !effects.is_empty() {
            self.book(verdict(&result), effects).await;
        }
    }

    pub(super) async fn pause(&mut self) {
        let route = self.routes[self.rng.below(4) as usize];
        let paused = self.model.paused.contains(&route);
        let result = if paused {
            self.bus().resume(route).await
        } else {
            self.bus().pause(route).await
        };
        if result.is_ok() {
            if paused {
                self.model.paused.remove(&route);
            } else {
                self.model.paused.insert(route);
            }
        }
        self.book(verdict(&result), Vec::new()).await;
    }

    pub(super) async fn retire(&mut self) {
        let i = self.rng.below(8) as usize;
        if i >= 4 || self.model.retired.contains(&self.routes[i]) {
            return;
        }
        let (route, name) = (self.routes[i], ROUTES[i].0);
        let to = self.routes[(i + 1) % 4];
        let pending: Vec<u64> = self
            .model
            .with_state(PENDING)
            .into_iter()
            .filter(|d| d.0 == route)
            .map(|d| d.1)
            .collect();
        let moves = self.rng.chance(2) && !self.model.retired.contains(&to);
        let backlog = if moves {
            Backlog::MoveTo(to)
        } else {
            Backlog::Purge {
                why: "by the test".into(),
            }
        };
        let result = self.bus().retire_route(name, backlog).await;
        let mut effects = Vec::new();
        for seq in pending {
            effects.push(((route, seq), GONE));
            if moves && self.model.state(to, seq) == GONE {
                effects.push(((to, seq), PENDING));
                self.model.keys.remove(&(to, seq));
                if result.is_ok() {
                    self.model.attempts.remove(&(to, seq));
                }
            }
        }
        if result.is_ok() {
            self.model.held.retain(|h| h.leased.route != route);
            self.model.retired.insert(route);
        }
        self.book(verdict(&result), effects).await;
        if self.model.retired.contains(&route) && self.rng.chance(2) {
            let result = self
                .bus()
                .route(
                    name,
                    RouteOptions {
                        ordered: ROUTES[i].1,
                    },
                )
                .await;
            if result.is_ok() {
                self.model.retired.remove(&route);
            }
            self.book(verdict(&result), Vec::new()).await;
        }
    }

    pub(super) fn break_something(&mut self) {
        match self.rng.below(5) {
            0 => self.fs.stop_after(self.rng.below(40)),
            1 => self.fs.set_faults(Faults {
                write_error: 10,
                ..Faults::default()
            }),
            2 => self.fs.set_faults(Faults {
                sync_error: 10,
                ..Faults::default()
            }),
            3 => self.fs.set_faults(Faults {
                name_error: 3,
                ..Faults::default()
            }),
            _ => {
                let room = self.rng.below(20_000);
                let used =
                    u64::MAX / 2 - FileSystem::free_space(&self.fs, "/".as_ref()).unwrap_or(0);
                self.fs.set_capacity(Some(used.min(1 << 40) + room));
            }
        }
    }

    pub(super) async fn close(&mut self) {
        let flushed = self.bus().flush().await;
        let before = self.bus().audit();
        let result = if flushed.is_ok() {
            self.bus().close().await
        } else {
            flushed
        };
        let sure = result.is_ok();
        self.bus = None;
        if sure {
            self.model.synced();
        }
        self.fs.kill();
        self.fs.set_capacity(None);
        let doubtful: Vec<_> = self.model.unsynced.iter().map(|u| u.0).collect();
        self.model.attempts_fuzzy.extend(doubtful);
        self.model.in_doubt();
        self.open().await;
        if sure {
            let totals = |l: &Ledger| {
                l.routes
                    .iter()
                    .map(|r| {
                        (
                            r.enqueued,
                            r.replayed,
                            r.retried,
                            r.dead_lettered,
                            r.dead,
                            r.redriven,
                        )
                    })
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                totals(&before),
                totals(&self.bus().audit()),
                "{}",
                self.story
            );
        }
    }
}
