//! SQS: queues, and sources.

mod client;
mod queue;

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
