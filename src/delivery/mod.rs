//! Queue -> handler -> outcome. The only place that settles messages.
//!
//! Each [`Consumer`] is an event-source mapping: it gathers batches from its
//! queue, runs its handler, and turns the answer into acks, retries and dead
//! letters, committed together with what the handler emits.

mod keyed;
mod options;
mod retry;
mod run;
mod worker;

pub use options::{BatchOptions, DeliveryOptions, RetryPolicy};
pub use run::{Consumer, Delivery, RunningConsumer};

/// Notices of what the delivery loops do, for people and metrics.
pub trait Watch: Send + Sync {
    /// A batch was handled: handler, messages, failures, seconds.
    fn handled(&self, handler: &str, messages: usize, failed: usize, seconds: f64);
}
