//! Dead letters are kept for a stated time; before it is over, somebody is told.

use super::Node;
use crate::bus::{Bus, Expiring};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(60);

/// The last part of the time that dead letters are kept; 3 days of 30.
pub(super) fn last_part(kept: Duration) -> Duration {
    kept / 10
}

impl Node {
    /// Dead letters that are in the last tenth of their time, by route.
    #[must_use]
    pub fn expiring(&self) -> Vec<Expiring> {
        let kept = self.config().node.dead_letter_retention;
        self.bus.expiring(last_part(kept))
    }
}

/// Warns of dead letters that expire soon, once for each change, until `stop`.
pub(super) async fn warn(bus: Bus, kept: Duration, stop: CancellationToken) {
    let within = last_part(kept);
    let look = (within / 4).clamp(Duration::from_millis(100), LOOK);
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let soon = bus.expiring(within);
        for one in &soon {
            if told.get(&one.name).is_none_or(|count| *count < one.count) {
                tracing::warn!(
                    route = one.name,
                    count = one.count,
                    first_at = crate::event::rfc3339(one.first_at_ms),
                    "dead letters expire soon; redrive them, or they are dropped by policy"
                );
            }
        }
        told = soon.into_iter().map(|one| (one.name, one.count)).collect();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(look) => {}
        }
    }
}
