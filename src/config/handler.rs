//! Handlers, as they are used.

use super::model::{Exec, Webhook};
use crate::delivery::DeliveryOptions;
use crate::emit::Notify;
use crate::handlers::extract::ExtractOptions;
use crate::handlers::load::LoadOptions;
use crate::handlers::maintain::MaintainOptions;
use crate::handlers::transform::TransformOptions;
use std::time::Duration;

/// What is done with events.
#[derive(Clone, Debug)]
pub struct Handler {
    /// Queues that it reads; empty when rules name the handler itself.
    pub from: Vec<String>,
    /// How it is fed.
    pub delivery: DeliveryOptions,
    /// What it does.
    pub kind: HandlerKind,
    /// Topics that hear of its work.
    pub notify: Notify,
}

/// Kinds of handlers.
#[derive(Clone, Debug)]
pub enum HandlerKind {
    /// Reads records, checks them, runs SQL, writes files.
    Transform(Box<TransformOptions>),
    /// Fetches records from an API.
    Extract(Box<ExtractOptions>),
    /// Brings files into a table.
    Load(Load),
    /// Keeps a table in order.
    Maintain(MaintainOptions),
    /// Runs a program.
    Exec(Exec),
    /// Calls an HTTP endpoint.
    Http(Webhook),
}

impl HandlerKind {
    /// The kind's name, as in the YAML.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Transform(_) => "transform",
            Self::Extract(_) => "extract",
            Self::Load(_) => "load",
            Self::Maintain(_) => "maintain",
            Self::Exec(_) => "exec",
            Self::Http(_) => "http",
        }
    }

    /// The transform in it, if there is one.
    #[must_use]
    pub fn transform(&self) -> Option<&TransformOptions> {
        match self {
            Self::Transform(options) => Some(options),
            Self::Extract(extract) => Some(&extract.transform),
            _ => None,
        }
    }
}

/// Brings files into a table.
#[derive(Clone, Debug)]
pub struct Load {
    /// The table, and how rows get into it.
    pub options: LoadOptions,
    /// The Postgres or Redshift connection; the built-in warehouse without one.
    pub to: Option<String>,
    /// Longest time for one statement (default 15 min).
    pub statement_timeout: Duration,
}
