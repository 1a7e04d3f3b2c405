//! Drivers: what speaks with other systems. A driver is data: its name, what it
//! is for, the kind of connection that it needs and the roles that it can play.
//!
//! One file per driver, with a `pub const DRIVER: Driver`, and one line in
//! [`DRIVERS`]. The parts know traits (`queues::Broker`, `handlers::Handler`,
//! `sources::Intake`), never a driver; `app` puts the two together.

pub mod amqp;
pub mod postgres;
pub mod redshift;
pub mod s3;
pub mod sns;
pub mod sqs;

/// What was found when something outside was looked at: what is well, or what is
/// wrong.
pub type Finding = Result<String, String>;

/// What a driver can be in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Brings events onto a bus.
    Source,
    /// Holds messages between a rule and a handler.
    Queue,
    /// Sends messages to the subscribers of another system.
    Publisher,
    /// Brings files into a table.
    Loader,
}

impl Role {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Queue => "queue",
            Self::Publisher => "publisher",
            Self::Loader => "loader",
        }
    }
}

/// A driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name in the YAML.
    pub name: &'static str,
    /// What it speaks with, in one line.
    pub summary: &'static str,
    /// The kind of connection that it needs, as in `connections:`.
    pub connection: Option<&'static str>,
    /// What it can be.
    pub roles: &'static [Role],
}

/// Every driver, those that need nothing outside first.
pub const DRIVERS: &[Driver] = &[
    Driver {
        name: "embedded",
        summary: "queues and topics in the node's own log, tables in Delta Lake",
        connection: None,
        roles: &[Role::Queue, Role::Publisher, Role::Loader],
    },
    Driver {
        name: "folder",
        summary: "files of a watched folder",
        connection: None,
        roles: &[Role::Source],
    },
    postgres::DRIVER,
    redshift::DRIVER,
    amqp::DRIVER,
    s3::DRIVER,
    sns::DRIVER,
    sqs::DRIVER,
];
