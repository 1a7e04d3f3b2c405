//! A circuit breaker for an endpoint: after several failures in a row it opens,
//! and nothing is sent for a while; then one request goes out as a probe
//! (half-open), and its answer closes the circuit or opens it again, for longer.
//! A message that waits meanwhile uses up none of its attempts.
//!
//! The pattern is Nygard's (<https://martinfowler.com/bliki/CircuitBreaker.html>).

use crate::clock::SharedClock;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest rest that an endpoint's `Retry-After` is given.
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);

/// When a circuit opens, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitOptions {
    /// Failures in a row that open it; 0: it never opens.
    pub failures: u32,
    /// How long it is open the first time; doubles with each probe that fails.
    pub pause: Duration,
    /// Longest time that it is open.
    pub max_pause: Duration,
}

impl Default for CircuitOptions {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(10),
            max_pause: Duration::from_secs(5 * 60),
        }
    }
}

/// What a circuit lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Light {
    /// Everything.
    Closed,
    /// Nothing.
    Open,
    /// One request, whose answer decides.
    HalfOpen,
}

impl Light {
    /// The name, as people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// How a circuit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CircuitStatus {
    /// What it lets through.
    pub state: Light,
    /// Failures since the last success.
    pub failures: u32,
    /// Nothing is sent for this long, because the circuit is open or because the
    /// endpoint asked for patience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_ms: Option<u64>,
    /// The last failure, until the next success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A circuit breaker. Times are read from the clock's monotonic side.
pub struct Circuit {
    options: CircuitOptions,
    clock: SharedClock,
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    state: State,
    failures: u32,
    error: Option<String>,
    /// The endpoint asked for patience until then.
    rest_until: Option<Duration>,
}

#[derive(Clone, Copy)]
enum State {
    Closed,
    Open { until: Duration, pause: Duration },
    Probing { pause: Duration },
}

/// What stands between a request and the endpoint.
enum Bar {
    /// Time.
    For(Duration),
    /// The answer to a probe that is under way.
    Probe,
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(options: CircuitOptions, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            options,
            clock,
            inner: Mutex::new(Inner {
                state: State::Closed,
                failures: 0,
                error: None,
                rest_until: None,
            }),
            changed: Notify::new(),
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &CircuitOptions {
        &self.options
    }

    /// Resolves once a request may be tried.
    pub async fn open(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let bar = self.inner().bar(self.clock.monotonic());
            match bar {
                None => return,
                Some(Bar::Probe) => changed.await,
                Some(Bar::For(time)) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(time) => {}
                },
            }
        }
    }

    /// A permit for one request, unless the circuit lets none through now.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        let mut inner = self.inner();
        if inner.bar(self.clock.monotonic()).is_some() {
            return None;
        }
        if let State::Open { pause, .. } = inner.state {
            inner.state = State::Probing { pause };
        }
        Some(Permit {
            circuit: Arc::clone(self),
            answered: false,
        })
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> CircuitStatus {
        let now = self.clock.monotonic();
        let inner = self.inner();
        let state = match inner.state {
            State::Closed => Light::Closed,
            State::Open { until, .. } if until > now => Light::Open,
            State::Open { .. } | State::Probing { .. } => Light::HalfOpen,
        };
        let waits = match inner.bar(now) {
            Some(Bar::For(time)) => u64::try_from(time.as_millis()).ok(),
            _ => None,
        };
        CircuitStatus {
            state,
            failures: inner.failures,
            waits_ms: waits,
            error: inner.error.clone(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self) {
        let mut inner = self.inner();
        inner.state = State::Closed;
        inner.failures = 0;
        inner.error = None;
        drop(inner);
        self.changed.notify_waiters();
    }

    fn failed(&self, error: String) {
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        inner.failures = inner.failures.saturating_add(1);
        inner.error = Some(error);
        let limit = self.options.failures;
        let opened = |pause: Duration| State::Open {
            until: now + pause,
            pause,
        };
        inner.state = match inner.state {
            State::Probing { pause } => opened((pause * 2).min(self.options.max_pause)),
            State::Closed if limit > 0 && inner.failures >= limit => opened(self.options.pause),
            // Requests that were under way when it opened change nothing.
            other => other,
        };
        drop(inner);
        self.changed.notify_waiters();
    }

    fn rest(&self, time: Duration) {
        let until = self.clock.monotonic() + time.min(LONGEST_REST);
        let mut inner = self.inner();
        inner.rest_until = inner.rest_until.max(Some(until));
    }

    /// A probe ended without an answer: the next one may go at once.
    fn abandoned(&self) {
        let now = self.clock.monotonic();
        let mut inner = self.inner();
        if let State::Probing { pause } = inner.state {
            inner.state = State::Open { until: now, pause };
        }
        drop(inner);
        self.changed.notify_waiters();
    }
}

impl Inner {
    fn bar(&self, now: Duration) -> Option<Bar> {
        let left = |until: Duration| until.checked_sub(now).filter(|left| !left.is_zero());
        let rest = self.rest_until.and_then(left);
        match self.state {
            State::Probing { .. } => Some(Bar::Probe),
            State::Open { until, .. } => left(until).max(rest).map(Bar::For),
            State::Closed => rest.map(Bar::For),
        }
    }
}

/// Leave to send one request; its answer is told to the circuit. Dropped without
/// an answer, it says nothing about the endpoint.
pub struct Permit {
    circuit: Arc<Circuit>,
    answered: bool,
}

impl Permit {
    /// The endpoint is alive.
    pub fn succeeded(mut self) {
        self.answered = true;
        self.circuit.succeeded();
    }

    /// The endpoint did not do its work.
    pub fn failed(mut self, error: String) {
        self.answered = true;
        self.circuit.failed(error);
    }

    /// The endpoint is alive, and asks for nothing more during `time` (at most an
    /// hour is granted).
    pub fn rest(self, time: Duration) {
        self.circuit.rest(time);
        self.succeeded();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.answered {
            self.circuit.abandoned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Manual;

    const SECOND: Duration = Duration::from_secs(1);

    fn circuit() -> (Arc<Circuit>, Arc<Manual>) {
        let clock = Manual::new(0, 1);
        let options = CircuitOptions {
            failures: 3,
            pause: SECOND * 10,
            max_pause: SECOND * 30,
        };
        (Circuit::new(options, clock.clone()), clock)
    }

    fn fail(circuit: &Arc<Circuit>, times: usize) {
        for _ in 0..times {
            circuit.admit().expect("it is closed").failed("503".into());
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_starts_anew() {
        let (circuit, _) = circuit();
        fail(&circuit, 2);
        circuit.admit().unwrap().succeeded();
        fail(&circuit, 2);
        assert_eq!(circuit.status().state, Light::Closed);
        fail(&circuit, 1);
        let status = circuit.status();
        assert_eq!((status.state, status.waits_ms), (Light::Open, Some(10_000)));
        assert_eq!(status.error.as_deref(), Some("503"));
        assert!(circuit.admit().is_none());
    }

    #[test]
    fn one_probe_decides_and_failed_probes_double_the_pause_up_to_its_limit() {
        let (circuit, clock) = circuit();
        fail(&circuit, 3);
        for pause in [20, 30, 30] {
            clock.advance(SECOND * 30);
            assert_eq!(circuit.status().state, Light::HalfOpen);
            let probe = circuit.admit().expect("a probe");
            assert!(circuit.admit().is_none(), "one at a time");
            probe.failed("503".into());
            assert_eq!(circuit.status().waits_ms, Some(pause * 1_000));
        }
        clock.advance(SECOND * 30);
        circuit.admit().expect("a probe").succeeded();
        assert_eq!(circuit.status().state, Light::Closed);
        assert_eq!(circuit.status().error, None);
    }

    #[test]
    fn a_probe_without_an_answer_leaves_the_next_one_free() {
        let (circuit, clock) = circuit();
        fail(&circuit, 3);
        clock.advance(SECOND * 10);
        drop(circuit.admit().expect("a probe"));
        assert!(circuit.admit().is_some());
    }

    #[test]
    fn a_wish_for_patience_holds_every_request_and_counts_as_no_failure() {
        let (circuit, clock) = circuit();
        circuit.admit().unwrap().rest(SECOND * 7);
        let status = circuit.status();
        assert_eq!(
            (status.state, status.waits_ms),
            (Light::Closed, Some(7_000))
        );
        assert!(circuit.admit().is_none());
        clock.advance(SECOND * 7);
        assert!(circuit.admit().is_some());
    }

    #[test]
    fn without_a_limit_it_never_opens() {
        let clock = Manual::new(0, 1);
        let options = CircuitOptions {
            failures: 0,
            ..CircuitOptions::default()
        };
        let circuit = Circuit::new(options, clock);
        fail(&circuit, 100);
        assert_eq!(circuit.status().state, Light::Closed);
    }

    #[tokio::test]
    async fn whoever_waits_for_it_goes_on_when_the_probe_has_succeeded() {
        let (circuit, clock) = circuit();
        fail(&circuit, 3);
        clock.advance(SECOND * 10);
        let probe = circuit.admit().expect("a probe");
        let waiting = tokio::spawn({
            let circuit = Arc::clone(&circuit);
            async move { circuit.open().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        probe.succeeded();
        waiting.await.unwrap();
    }
}
