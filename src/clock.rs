//! Time and randomness: the seam through which tests pause and seed both.
//!
//! Wall-clock time is Unix milliseconds (`i64`); durations are measured with a
//! monotonic reading, so that a clock that jumps never shortens a timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the program reads the time and draws randomness.
pub trait Clock: Send + Sync {
    /// Wall-clock time in milliseconds since 1970-01-01T00:00:00Z. It may jump.
    fn now_ms(&self) -> i64;
    /// Time since an arbitrary start; it never goes back.
    fn monotonic(&self) -> Duration;
    /// A pseudo-random number; only for jitter and ids, never for secrets.
    fn random(&self) -> u64;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[must_use]
pub fn system() -> SharedClock {
    Arc::new(System {
        start: Instant::now(),
    })
}

struct System {
    start: Instant,
}

impl Clock for System {
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A clock set before 1970 still has to order events.
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn random(&self) -> u64 {
        uuid::Uuid::new_v4().as_u64_pair().0
    }
}

/// A clock that stands still until it is moved, with a seeded generator.
pub struct Manual {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
    seed: AtomicU64,
}

impl Manual {
    /// A clock at `wall_ms`, drawing from `seed`.
    #[must_use]
    pub fn new(wall_ms: i64, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            wall_ms: AtomicI64::new(wall_ms),
            monotonic_ms: AtomicU64::new(0),
            seed: AtomicU64::new(seed),
        })
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        self.wall_ms
            .fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Moves the wall clock alone, as an administrator or NTP would.
    pub fn jump(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for Manual {
    fn now_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }

    fn random(&self) -> u64 {
        // SplitMix64: one addition and a mix, so that every seed gives a full period.
        let mut z = self
            .seed
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_jumps_without_moving_its_monotonic_reading() {
        let clock = Manual::new(1_000, 7);
        clock.jump(-5_000);
        assert_eq!(clock.now_ms(), -4_000);
        assert_eq!(clock.monotonic(), Duration::ZERO);
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now_ms(), -2_000);
        assert_eq!(clock.monotonic(), Duration::from_secs(2));
    }

    #[test]
    fn equal_seeds_draw_equal_numbers() {
        let (a, b) = (Manual::new(0, 42), Manual::new(0, 42));
        let drawn: Vec<u64> = (0..4).map(|_| a.random()).collect();
        assert_eq!(drawn, (0..4).map(|_| b.random()).collect::<Vec<_>>());
        assert_ne!(drawn[0], drawn[1]);
    }
}
