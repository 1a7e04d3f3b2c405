//! The systems that the suites run against.

use crate::support::{Project, aws, rabbitmq};

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
        match self {
            Self::Embedded => "connections: {}\n".to_owned(),
            Self::RabbitMq => format!(
                "connections: {{ broker: {{ amqp: {{ url: \"{}\" }} }} }}\n",
                rabbitmq::shared().url()
            ),
            Self::Sqs => format!(
                "connections: {{ broker: {} }}\n",
                aws::shared().connection()
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
