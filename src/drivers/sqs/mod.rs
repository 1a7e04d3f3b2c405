//! SQS: queues, and sources.

pub(super) mod batch;
mod check;
mod client;
mod queue;

pub use check::check_account;
pub(super) use check::permitted;
pub(super) use client::entry_refused;
pub use client::{AwsOptions, refused, sdk_config};
pub use queue::{QueueOptions, SqsQueue};

use super::{Driver, Role};

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "sqs",
    summary: "Amazon SQS, and what speaks its protocol",
    connection: Some("aws"),
    roles: &[Role::Source, Role::Queue],
};
