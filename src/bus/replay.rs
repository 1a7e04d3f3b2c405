//! Replay and late rules: deliveries for events that are already in the log.

use std::sync::Arc;

use super::audit::Verified;
use super::core::{Core, lock};
use super::error::BusError;
use super::item::Item;
use super::rebuild;
use super::route::At;
use super::types::{Redelivered, Redelivery, RouteId};

const MAX_REPLAY_ID: usize = 256;

impl Core {
    pub(crate) async fn redeliver(
        &self,
        route: RouteId,
        deliveries: Vec<Redelivery>,
        replay_id: &str,
    ) -> Result<Redelivered, BusError> {
        if replay_id.is_empty() || replay_id.len() > MAX_REPLAY_ID {
            let limit = MAX_REPLAY_ID as u64;
            return Err(BusError::TooLarge {
                what: "replay id",
                size: replay_id.len() as u64,
                limit,
            });
        }
        let mut answer = Redelivered::default();
        let mut wanted = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            if self.is_kept(delivery.seq)? {
                wanted.push(delivery);
            } else {
                answer.not_kept += 1;
            }
        }
        wanted.sort_by_key(|d| d.seq);
        wanted.dedup_by_key(|d| d.seq);
        let replay_id = replay_id.to_owned();
        self.plan(move |state| {
            let target = state.route(route).ok_or(BusError::UnknownRoute(route))?;
            if target.retired {
                return Err(BusError::RetiredRoute(target.name.clone()));
            }
            let seen = target
                .replays
                .iter()
                .find(|r| *r.id == *replay_id)
                .map(|r| &r.seen);
            let mut go = Vec::with_capacity(wanted.len());
            for Redelivery { seq, key } in wanted {
                if seen.is_some_and(|s| s.contains(seq)) {
                    answer.already_replayed += 1;
                } else if target.dead.contains_key(&seq) {
                    answer.dead += 1;
                } else if target.is_pending(seq) {
                    answer.already_pending += 1;
                } else {
                    answer.enqueued += 1;
                    go.push((seq, state.key_hash(key.as_deref())));
                }
            }
            let items = match go.is_empty() {
                true => Vec::new(),
                false => vec![Item::Replayed {
                    route,
                    replay_id,
                    deliveries: go,
                }],
            };
            Ok((items, answer))
        })
        .await
    }

    pub(crate) fn replay_pending(&self, route: RouteId, replay_id: &str) -> u64 {
        let state = lock(&self.state);
        let route = state.route(route);
        route.map_or(0, |route| route.pending_of(replay_id).len())
    }

    pub(crate) async fn withdraw_replay(
        &self,
        route: RouteId,
        replay_id: &str,
        why: &str,
    ) -> Result<u64, BusError> {
        let (replay_id, why) = (replay_id.to_owned(), why.to_owned());
        self.plan(move |state| {
            let target = state.route(route).ok_or(BusError::UnknownRoute(route))?;
            let free = |seq: &u64| {
                let entry = target.entries.get(*seq);
                entry.is_none_or(|e| !matches!(e.at, At::Leased { .. } | At::Settling))
            };
            let seqs: Vec<u64> = target.pending_of(&replay_id).iter().filter(free).collect();
            let count = seqs.len() as u64;
            let items = match seqs.is_empty() {
                true => Vec::new(),
                false => vec![Item::Purged { route, seqs, why }],
            };
            Ok((items, count))
        })
        .await
    }

    fn is_kept(&self, seq: u64) -> Result<bool, BusError> {
        Ok(self.table.segment_of(seq)?.is_some())
    }

    pub(crate) async fn verify(self: Arc<Self>) -> Result<Verified, BusError> {
        let (say, hear) = tokio::sync::oneshot::channel();
        let core = self.clone();
        // Between two commits, so that state and log are at the same place.
        let plan = move |state: &super::state::State| {
            let appender = lock(&core.appender);
            let _ = say.send((state.ledger(), appender.id, appender.len));
            Ok((Vec::new(), ()))
        };
        self.plan(plan).await?;
        let (kept, id, len) = hear.await.map_err(|_| BusError::Closed)?;
        let core = self.clone();
        let recount = tokio::task::spawn_blocking(move || rebuild::recount(&core, id, len)).await;
        let (recounted, from_segment, records, damaged) =
            recount.map_err(|_| BusError::Closed)??;
        let agrees = !damaged && same_totals(&recounted, &kept);
        Ok(Verified {
            recounted,
            kept,
            from_segment,
            records,
            agrees,
        })
    }
}

/// Whether two ledgers agree in all that the log decides; leases and due times are
/// the running process's own.
fn same_totals(a: &super::audit::Ledger, b: &super::audit::Ledger) -> bool {
    let totals = |ledger: &super::audit::Ledger| {
        let mut ledger = ledger.clone();
        // Counted in memory until the next commit.
        ledger.buses.values_mut().for_each(|b| b.duplicates = 0);
        for route in &mut ledger.routes {
            route.ready = route.pending();
            (route.leased, route.delayed) = (0, 0);
        }
        ledger
    };
    totals(a) == totals(b)
}
