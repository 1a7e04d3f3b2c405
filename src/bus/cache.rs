//! The newest events, in memory, so that consumers at the tail read no files.

use std::collections::VecDeque;
use std::sync::Arc;

use super::types::StoredEvent;

/// A window over the end of the log, bounded by bytes.
pub(crate) struct Cache {
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
    limit: usize,
}

impl Cache {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    /// Adds the next event; a gap in the numbers empties the window first.
    pub(crate) fn push(&mut self, event: Arc<StoredEvent>) {
        if self
            .events
            .back()
            .is_some_and(|last| last.seq + 1 != event.seq)
        {
            self.events.clear();
            self.bytes = 0;
        }
        self.bytes += event.footprint();
        self.events.push_back(event);
    }

    /// Takes the oldest out until the window is within its bounds, if it is over them by
    /// more than `slack` bytes; whoever drops them frees their memory.
    pub(crate) fn trim(&mut self, slack: usize) -> Vec<Arc<StoredEvent>> {
        let mut over = 0;
        if self.bytes <= self.limit.saturating_add(slack) {
            return Vec::new();
        }
        for old in &self.events {
            if self.bytes <= self.limit {
                break;
            }
            self.bytes -= old.footprint();
            over += 1;
        }
        self.events.drain(..over).collect()
    }

    /// Lets go of what is before `seq`: it may not be kept any more.
    pub(crate) fn forget(&mut self, seq: u64) {
        while self.events.front().is_some_and(|e| e.seq < seq) {
            let Some(old) = self.events.pop_front() else {
                break;
            };
            self.bytes -= old.footprint();
        }
    }

    pub(crate) fn get(&self, seq: u64) -> Option<Arc<StoredEvent>> {
        let first = self.events.front()?.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.events.get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::NewEvent;
    use super::*;

    fn event(seq: u64, size: usize) -> Arc<StoredEvent> {
        let new = NewEvent::new("default", format!("e{seq}"), vec![0; size]);
        Arc::new(StoredEvent {
            seq,
            accepted_ms: 0,
            bus: new.bus,
            id: new.id,
            cause: None,
            root_id: None,
            hops: 0,
            cursor: None,
            rules_version: 0,
            deliveries: Vec::new(),
            payload: new.payload,
            reading: Default::default(),
        })
    }

    #[test]
    fn the_oldest_go_when_the_window_is_full() {
        let mut cache = Cache::new(5_000);
        for seq in 1..=10 {
            cache.push(event(seq, 1_000));
            cache.trim(0);
        }
        assert!(cache.get(1).is_none());
        assert_eq!(cache.get(10).unwrap().seq, 10);
        assert!(cache.get(11).is_none());
        assert!(cache.bytes <= 5_000);
    }

    #[test]
    fn a_gap_never_gives_the_wrong_event() {
        let mut cache = Cache::new(1 << 20);
        cache.push(event(1, 10));
        cache.push(event(5, 10));
        assert!(cache.get(2).is_none());
        assert_eq!(cache.get(5).unwrap().seq, 5);
    }
}
