//! SNS: topics that others subscribe to.

mod topic;

pub use topic::{SnsTopic, TopicOptions};

use super::{Driver, Role};

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "sns",
    summary: "Amazon SNS, and what speaks its protocol",
    connection: Some("aws"),
    roles: &[Role::Publisher],
};
