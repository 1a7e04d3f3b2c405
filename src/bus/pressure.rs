//! The marks: when intake is refused, when somebody is warned, what is forgotten.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::{Core, lock};
use super::types::Pressure;
use super::{dedupe, recover};

impl Core {
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn pressure(&self) -> Pressure {
        if let Err(e) = self.check_open() {
            return Pressure::Refuse {
                reason: e.to_string(),
                retry_after: Duration::from_secs(60),
                overloaded: false,
            };
        }
        let options = &self.options;
        let (log, free) = (self.disk_bytes(), self.free.load(Ordering::Relaxed));
        let refuse = |reason, secs| Pressure::Refuse {
            reason,
            retry_after: Duration::from_secs(secs),
            overloaded: false,
        };
        if options.disk_refuse.is_some_and(|mark| log >= mark) {
            return refuse(format!("the log holds {log} bytes, its quota"), 30);
        }
        if free < options.free_refuse {
            return refuse(format!("only {free} bytes are free on the disk"), 30);
        }
        let queued = self.queued.load(Ordering::Relaxed);
        if queued >= options.queue_bytes {
            return refuse(format!("what waits takes {queued} bytes of memory"), 30);
        }
        let waiting = lock(&self.queue).bytes;
        if waiting >= options.intake_bytes {
            return Pressure::Refuse {
                reason: format!("{waiting} bytes wait to be written"),
                retry_after: Duration::from_secs(1),
                overloaded: true,
            };
        }
        if options.disk_warn.is_some_and(|mark| log >= mark) {
            return Pressure::Warn {
                reason: format!("the log holds {log} bytes"),
            };
        }
        if free < options.free_warn {
            return Pressure::Warn {
                reason: format!("{free} bytes are free on the disk"),
            };
        }
        if self.ids_cut.load(Ordering::Relaxed) {
            return Pressure::Warn {
                reason: format!(
                    "only the newest {} event ids are remembered, less than the dedupe window",
                    dedupe::most(options.ids_bytes)
                ),
            };
        }
        Pressure::Ok
    }

    /// Says in the log when a mark is passed, in either direction.
    pub(crate) fn note_pressure(&self) {
        let (level, reason) = match self.pressure() {
            Pressure::Ok => (0, String::new()),
            Pressure::Warn { reason } => (1, reason),
            // That comes and goes with every burst, and senders are told.
            Pressure::Refuse {
                overloaded: true, ..
            } => return,
            Pressure::Refuse { reason, .. } => (2, reason),
        };
        let before = self.pressed.swap(level, Ordering::Relaxed);
        if level == before {
            return;
        }
        match level {
            0 => tracing::info!("below all marks again"),
            1 => tracing::warn!(reason, "the log is near its limits"),
            _ => tracing::warn!(reason, "events are refused"),
        }
    }

    /// Forgets ids that are out of every window, and the oldest that memory is too small for.
    pub(crate) fn forget_ids(&self) {
        let horizon = self
            .steady_ms()
            .saturating_sub(recover::longest_window(&self.options));
        let over = {
            let segments = self.table.read();
            let over = segments
                .closed
                .values()
                .take_while(|c| c.meta.newest_ms < horizon);
            over.map(|c| c.meta.next_seq).max().unwrap_or(0)
        };
        let most = dedupe::most(self.options.ids_bytes);
        let too_many = self.next_seq().saturating_sub(most);
        self.ids_cut
            .store(too_many > over.max(1), Ordering::Relaxed);
        lock(&self.dedupe).forget(over.max(too_many));
    }
}
