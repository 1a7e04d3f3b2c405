//! AMQP 0-9-1, with RabbitMQ in mind: queues, sources and topic exchanges.

mod acks;
mod check;
mod exchange;
mod link;
mod publish;
mod queue;
mod unsettled;

pub use check::check_link;
pub use exchange::{AmqpExchange, ExchangeOptions, Type as ExchangeType};
pub use link::{Link, LinkOptions, TlsFiles};
pub use queue::{AmqpQueue, Declare, Kind, QueueOptions};

use super::{Driver, Role};

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "amqp",
    summary: "brokers that speak AMQP 0-9-1, such as RabbitMQ",
    connection: Some("amqp"),
    roles: &[Role::Source, Role::Queue, Role::Publisher],
};
