//! Marks: all that one running part was built from, as text. A reload leaves a
//! part alone whose mark is the same.

use super::sources::Bringer;
use crate::config::{Config, Route, To};

/// The marks of one configuration. What all of them have in common is worked out
/// once: there may be thousands of parts.
pub(super) struct Marks<'a> {
    config: &'a Config,
    /// Connections as they are shown; parts that use one are built anew with it.
    connections: String,
    routes: Vec<Route<'a>>,
}

impl<'a> Marks<'a> {
    /// The marks of `config`.
    pub fn of(config: &'a Config) -> Self {
        Self {
            config,
            connections: serde_json::json!(config)["connections"].to_string(),
            routes: config.routes(),
        }
    }

    /// The mark of the consumer `name`: a handler, or the route of a target or
    /// subscription that needs no handler. Values behind references are not in it.
    pub fn consumer(&self, name: &str) -> String {
        let config = self.config;
        let mut mark = self.connections.clone();
        if let Some(handler) = config.handlers.get(name) {
            mark.push_str(&format!("{handler:?}"));
            if handler.kind.transform().is_some() {
                // Events name objects by the source that they came from.
                mark.push_str(&format!("{:?}", config.sources));
            }
            for queue in &handler.from {
                mark.push_str(&format!("{:?}", config.queues.get(queue)));
            }
        }
        let feeds =
            |route: &&Route<'_>| route.target.route == name || route.handlers.contains(&name);
        for route in self.routes.iter().filter(feeds) {
            mark.push_str(&format!("{}{}{:?}", route.rule, route.bus, route.target));
            if let To::Queue(queue) = &route.target.to {
                mark.push_str(&format!("{:?}", config.queues.get(queue)));
            }
        }
        mark
    }

    /// The mark of a source or schedule.
    pub fn bringer(&self, what: Bringer<'_>) -> String {
        let own = match what {
            Bringer::Source(source) => format!("{source:?}"),
            Bringer::Schedule(schedule) => format!("{schedule:?}"),
        };
        own + &self.connections
    }
}
