//! Rules that begin in the past: each of their routes gets it once.

use super::{PREFIX, Replay, ReplayError, Replays, read};
use crate::bus::BusError;
use crate::queues::LATE_RULE;
use crate::router::Table;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A route whose rule says `start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRule {
    /// The route.
    pub route: String,
    /// Events accepted since (Unix milliseconds); `None`: all that are kept.
    pub since_ms: Option<i64>,
}

impl Replays {
    /// Begins the share of the past of every late rule that has not had it, and
    /// forgets those of routes that are no longer among `routes`, so that a rule
    /// that comes back gets what it missed. Durable when this returns.
    ///
    /// `before`: the rules that were in force before, where events may still come
    /// in by them.
    ///
    /// # Errors
    /// When the log or the side state does not answer.
    pub async fn begin_late(
        &self,
        rules: Vec<LateRule>,
        routes: &BTreeSet<String>,
        before: Option<&Arc<Table>>,
    ) -> Result<(), ReplayError> {
        let shared = &self.shared;
        for (key, kept) in shared.state.list(&format!("{PREFIX}{LATE_RULE}")).await? {
            if read(&kept).is_none_or(|replay| !routes.contains(&replay.route)) {
                self.halt(key.trim_start_matches(PREFIX)).await;
                shared.state.delete(&key).await?;
            }
        }
        for LateRule { route, since_ms } in rules {
            let name = format!("{LATE_RULE}{route}");
            if shared.state.get(&super::key(&name)).await?.is_some() {
                continue;
            }
            let bus = shared.bus.clone();
            let from = tokio::task::spawn_blocking(move || match since_ms {
                Some(ms) => bus.first_seq_at(ms),
                None => Ok(bus.first_seq()),
            });
            let from_seq = from.await.map_err(|_| BusError::Closed)??;
            let mut replay = Replay::new(name, route, from_seq, shared.clock.now_ms());
            replay.from_ms = since_ms.unwrap_or(i64::MIN);
            if before.is_none() {
                replay.to_seq = Some(shared.bus.next_seq());
            }
            self.keep(&replay).await?;
            tracing::info!(
                route = replay.route,
                from = from_seq,
                "the rule gets its past"
            );
            self.spawn(replay, before.cloned());
        }
        Ok(())
    }
}
