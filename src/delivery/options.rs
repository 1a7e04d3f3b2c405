//! How a handler is fed, as it is used.

use std::time::Duration;

/// How a handler is fed from its routes: an event-source mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryOptions {
    /// How messages are put together.
    pub batch: BatchOptions,
    /// Batches handled at the same time, at least 1.
    pub concurrency: usize,
    /// Longest time one batch may take.
    pub timeout: Duration,
    /// Messages per second at most; `None`: as fast as it goes.
    pub rate: Option<f64>,
    /// What happens after a failure.
    pub retry: RetryPolicy,
}

/// How messages are put together into batches.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Most messages, at least 1.
    pub size: usize,
    /// Most payload bytes.
    pub bytes: usize,
    /// How long to wait for a full batch after the first message.
    pub window: Duration,
    /// Dotted path into the event: a batch has messages of one value there.
    pub by: Option<String>,
}

/// What happens after a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1. Only those count that
    /// ended with an answer.
    pub attempts: u32,
    /// Attempts that ended without an answer, because the process died or the
    /// visibility timeout ran out; at least 1. It is higher than `attempts`,
    /// since whatever was under way when a process dies is counted, guilty or not.
    pub lost: u32,
    /// Delay before the second attempt; doubles from there, with full jitter.
    pub base: Duration,
    /// Longest delay.
    pub cap: Duration,
    /// A message older than this is not tried again.
    pub max_age: Duration,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            size: 1,
            bytes: 6 * 1024 * 1024,
            window: Duration::ZERO,
            by: None,
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            lost: 16,
            base: Duration::from_secs(1),
            cap: Duration::from_secs(15 * 60),
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            batch: BatchOptions::default(),
            concurrency: 4,
            timeout: Duration::from_secs(15 * 60),
            rate: None,
            retry: RetryPolicy::default(),
        }
    }
}
