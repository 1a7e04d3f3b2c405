//! The dead letters: listing, reading, redriving, purging.

use std::time::Duration;

use super::batch::prepare;
use super::core::{Core, Ended, Work, lock};
use super::error::BusError;
use super::item::Item;
use super::route::DeadRef;
use super::types::{Accepted, DeadFilter, DeadLetter, DeadPage, NewEvent, Redriven, RouteId};

/// Dead letters of one route that are about to expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// The route.
    pub route: RouteId,
    /// Its name.
    pub name: String,
    /// How many.
    pub count: u64,
    /// When the first of them expires (Unix milliseconds).
    pub first_at_ms: i64,
}

const DEFAULT_PAGE: usize = 100;

impl Core {
    pub(crate) fn dead(&self, filter: &DeadFilter) -> Result<DeadPage, BusError> {
        let limit = if filter.limit == 0 {
            DEFAULT_PAGE
        } else {
            filter.limit
        };
        let mut found = self.dead_refs(filter, limit + 1);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = more.then(|| found.last().map(|f| (f.0, f.1))).flatten();
        let mut page = DeadPage {
            letters: Vec::with_capacity(found.len()),
            next,
        };
        for (route, seq, letter) in found {
            page.letters.push(self.letter(route, seq, letter)?);
        }
        Ok(page)
    }

    fn dead_refs(&self, filter: &DeadFilter, limit: usize) -> Vec<(RouteId, u64, DeadRef)> {
        let state = lock(&self.state);
        let mut found = Vec::new();
        for route in &state.routes {
            if !filter.routes.is_empty() && !filter.routes.contains(&route.id) {
                continue;
            }
            let from = match filter.after {
                Some((id, _)) if route.id < id => continue,
                Some((id, seq)) if route.id == id => seq + 1,
                _ => 0,
            };
            for (&seq, letter) in route.dead.range(from..) {
                let since = filter.since_ms.is_none_or(|ms| letter.dead_at_ms >= ms);
                let before = filter.before_ms.is_none_or(|ms| letter.dead_at_ms < ms);
                if since && before {
                    found.push((route.id, seq, *letter));
                }
                if found.len() >= limit {
                    return found;
                }
            }
        }
        found
    }

    pub(crate) fn dead_letter(&self, route: RouteId, seq: u64) -> Result<DeadLetter, BusError> {
        let letter = {
            let state = lock(&self.state);
            let found = state.route(route).ok_or(BusError::UnknownRoute(route))?;
            found
                .dead
                .get(&seq)
                .copied()
                .ok_or(BusError::NoDeadLetter { route, seq })?
        };
        self.letter(route, seq, letter)
    }

    fn letter(&self, route: RouteId, seq: u64, letter: DeadRef) -> Result<DeadLetter, BusError> {
        // A dead letter whose bytes are damaged is still one that somebody must see.
        let sound = |e: &BusError| matches!(e, BusError::Corrupt { .. });
        let event = match self.fetch(seq) {
            Ok(event) => event,
            Err(e) if sound(&e) => None,
            Err(e) => return Err(e),
        };
        let account = match self.errors_at(route, seq, letter.pos) {
            Ok(account) => account,
            Err(e) if sound(&e) => super::read::Account::default(),
            Err(e) => return Err(e),
        };
        Ok(DeadLetter {
            route,
            seq,
            event,
            attempts: letter.attempts,
            errors: account.errors,
            dead_at_ms: letter.dead_at_ms,
            context: account.context,
        })
    }

    pub(crate) async fn redrive(
        &self,
        route: RouteId,
        seqs: &[u64],
        to: Option<RouteId>,
    ) -> Result<Redriven, BusError> {
        let to = to.unwrap_or(route);
        let mut seqs = seqs.to_vec();
        seqs.sort_unstable();
        seqs.dedup();
        self.plan(move |state| {
            let from = state.route(route).ok_or(BusError::UnknownRoute(route))?;
            let target = state.route(to).ok_or(BusError::UnknownRoute(to))?;
            if target.retired {
                return Err(BusError::RetiredRoute(target.name.clone()));
            }
            let goes = |seq: &u64| {
                from.dead.contains_key(seq) && (to == route || state.can_take(to, *seq))
            };
            let (go, skipped): (Vec<u64>, Vec<u64>) = seqs.iter().partition(|s| goes(s));
            let answer = Redriven {
                redriven: go.len() as u64,
                skipped,
            };
            let items = if go.is_empty() {
                Vec::new()
            } else {
                vec![Item::Redriven {
                    from: route,
                    to,
                    seqs: go,
                }]
            };
            Ok((items, answer))
        })
        .await
    }

    pub(crate) async fn replace_dead(
        &self,
        route: RouteId,
        seq: u64,
        event: NewEvent,
        why: &str,
    ) -> Result<Accepted, BusError> {
        self.check_open()?;
        let dead = lock(&self.state)
            .route(route)
            .is_some_and(|route| route.dead.contains_key(&seq));
        if !dead {
            return Err(BusError::NoDeadLetter { route, seq });
        }
        let bytes = self.check_events(std::slice::from_ref(&event))?;
        let purged = Item::Purged {
            route,
            seqs: vec![seq],
            why: why.to_owned(),
        };
        let ended = Ended {
            items: vec![purged],
            ..Ended::default()
        };
        let events = prepare(self, vec![event]);
        let accepted = self.commit(Work::Commit { ended, events }, bytes).await?;
        accepted.first().copied().ok_or(BusError::Closed)
    }

    pub(crate) async fn purge(
        &self,
        route: RouteId,
        seqs: &[u64],
        why: &str,
    ) -> Result<u64, BusError> {
        let why = why.to_owned();
        let mut seqs = seqs.to_vec();
        seqs.sort_unstable();
        seqs.dedup();
        self.plan(move |state| {
            let from = state.route(route).ok_or(BusError::UnknownRoute(route))?;
            seqs.retain(|seq| from.dead.contains_key(seq));
            let count = seqs.len() as u64;
            let items = if count == 0 {
                Vec::new()
            } else {
                vec![Item::Purged { route, seqs, why }]
            };
            Ok((items, count))
        })
        .await
    }

    pub(crate) fn expiring(&self, within: Duration) -> Vec<Expiring> {
        let keep = super::settle::millis(self.options.dead_letter_retention) as i64;
        let horizon = self
            .steady_ms()
            .saturating_add(super::settle::millis(within) as i64);
        let state = lock(&self.state);
        let mut expiring = Vec::new();
        for route in &state.routes {
            let ends = route
                .dead
                .values()
                .map(|d| d.dead_at_ms.saturating_add(keep));
            let soon: Vec<i64> = ends.filter(|&end| end <= horizon).collect();
            if let Some(&first_at_ms) = soon.iter().min() {
                let count = soon.len() as u64;
                expiring.push(Expiring {
                    route: route.id,
                    name: route.name.clone(),
                    count,
                    first_at_ms,
                });
            }
        }
        expiring
    }
}
