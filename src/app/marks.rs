//! Marks: all that one running part was built from, as text. A reload leaves a
//! part alone whose mark is the same.

use super::sources::Bringer;
use crate::config::{Config, HandlerKind, Route, To};

/// The mark of the consumer `name`: a handler, or the route of a target or
/// subscription that needs no handler. Values behind references are not in it.
pub(super) fn consumer(config: &Config, name: &str) -> String {
    let mut mark = connections(config);
    if let Some(handler) = config.handlers.get(name) {
        mark.push_str(&format!("{handler:?}"));
        if matches!(handler.kind, HandlerKind::Transform(_)) {
            // Events name objects by the source that they came from.
            mark.push_str(&format!("{:?}", config.sources));
        }
        for queue in &handler.from {
            mark.push_str(&format!("{:?}", config.queues.get(queue)));
        }
    }
    let feeds = |route: &Route<'_>| route.target.route == name || route.handlers.contains(&name);
    for route in config.routes().into_iter().filter(feeds) {
        mark.push_str(&format!("{}{}{:?}", route.rule, route.bus, route.target));
        if let To::Queue(queue) = &route.target.to {
            mark.push_str(&format!("{:?}", config.queues.get(queue)));
        }
    }
    mark
}

/// The mark of a source or schedule.
pub(super) fn bringer(config: &Config, what: Bringer<'_>) -> String {
    let own = match what {
        Bringer::Source(source) => format!("{source:?}"),
        Bringer::Schedule(schedule) => format!("{schedule:?}"),
    };
    own + &connections(config)
}

/// Connections as they are shown; parts that use one are built anew with it.
fn connections(config: &Config) -> String {
    serde_json::json!(config)["connections"].to_string()
}
