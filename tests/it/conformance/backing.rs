//! The systems that the suites run against.

use crate::support::{Project, aws, rabbitmq};
use std::net::SocketAddr;

/// Where a queue's messages wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    Embedded,
    RabbitMq,
    Sqs,
}

impl Backing {
    /// The connections that its queues need, as YAML.
    pub fn connections(self) -> String {
        self.address()
            .map_or_else(|| "connections: {}\n".to_owned(), |at| self.reached_at(at))
    }

    /// Where its server is, if it has one.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Embedded => None,
            Self::RabbitMq => Some(rabbitmq::shared().address()),
            Self::Sqs => {
                let url = aws::shared().url();
                Some(url["http://".len()..].parse().expect("an address"))
            }
        }
    }

    /// The connections that its queues need, by another address.
    pub fn reached_at(self, address: SocketAddr) -> String {
        match self {
            Self::Embedded => "connections: {}\n".to_owned(),
            Self::RabbitMq => {
                format!("connections: {{ broker: {{ amqp: {{ hosts: \"{address}\" }} }} }}\n")
            }
            Self::Sqs => format!(
                "connections: {{ broker: {{ aws: {{ endpoint: \"http://{address}\", region: eu-west-1, access_key_id: test, secret_access_key: test }} }} }}\n"
            ),
        }
    }

    /// The fields of a queue, in braces; `more` are further fields, each ending with
    /// a comma. `name` is the queue's name at the broker.
    pub fn queue(self, name: &str, more: &str) -> String {
        match self {
            Self::Embedded => format!("{{ {more} }}"),
            Self::RabbitMq => {
                format!("{{ {more} amqp: {{ connection: broker, queue: {name} }} }}")
            }
            // SQS keeps order in FIFO queues alone.
            Self::Sqs if more.contains("order_by") => {
                format!("{{ {more} sqs: {{ connection: broker, queue: {name}.fifo }} }}")
            }
            Self::Sqs => format!("{{ {more} sqs: {{ connection: broker, queue: {name} }} }}"),
        }
    }

    /// A project with this configuration and the connections that it needs.
    pub fn project(self, yaml: &str) -> Project {
        let project = Project::new();
        project.write("rules/connections.yaml", self.connections());
        project.write("rules/pipeline.yaml", yaml);
        project
    }
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{count}", std::process::id())
}
