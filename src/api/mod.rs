//! The HTTP interface. The command line talks to it, too: over a Unix socket to
//! a running node, or in the same process when none runs.

mod admin;
mod dlq;
mod edit;
mod error;
mod events;
mod query;
mod queues;
mod reload;
mod replays;
mod rules;
mod serve;
mod sources;
mod stream;
mod subscriptions;
mod trace;
mod websocket;

pub use dlq::Which;
pub use error::ApiError;
pub use serve::{ServeError, Server, socket_path};
pub use trace::TraceNode;

use crate::app::Node;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use std::sync::Arc;

/// Largest request body in bytes; a batch of events shares it.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The bus of a request that names none.
fn default_bus() -> String {
    crate::config::DEFAULT_BUS.to_owned()
}

/// All routes over a node.
pub fn routes(node: Arc<Node>) -> Router {
    Router::new()
        .route("/events", post(events::post).get(events::list))
        .route("/events/tail", get(stream::tail))
        .route("/events/{id}", get(events::show))
        .route("/trace/{id}", get(trace::trace))
        .route("/topics", get(subscriptions::topics))
        .route("/topics/{topic}/messages", get(stream::subscribe))
        .route("/topics/{topic}/websocket", get(websocket::subscribe))
        .route(
            "/topics/{topic}/subscriptions/{name}/confirm",
            get(subscriptions::confirm),
        )
        .route(
            "/topics/{topic}/subscriptions/{name}/unsubscribe",
            get(subscriptions::unsubscribe).post(subscriptions::unsubscribe),
        )
        .route(
            "/topics/{topic}/subscriptions/{name}/enable",
            post(subscriptions::enable),
        )
        .route(
            "/topics/{topic}/subscriptions/{name}/disable",
            post(subscriptions::disable),
        )
        .route("/sns/{file}", get(subscriptions::certificate))
        .route("/dlq", get(dlq::list))
        .route("/dlq/groups", get(dlq::groups))
        .route("/dlq/redrive", post(dlq::redrive))
        .route("/dlq/purge", post(dlq::purge))
        .route("/dlq/edit", post(edit::edit))
        .route("/dlq/expiring", get(dlq::expiring))
        .route("/audit", get(admin::audit))
        .route("/routes", get(queues::list))
        .route("/queues/places", get(admin::places))
        .route("/routes/pause", post(queues::pause))
        .route("/routes/resume", post(queues::resume))
        .route("/replays", get(replays::list).post(replays::begin))
        .route("/replays/cancel", post(replays::cancel))
        .route("/sources", get(sources::list))
        .route("/sources/{name}/rescan", post(sources::rescan))
        .route("/sources/{name}/forget", post(sources::forget))
        .route("/sources/{name}/notifications", post(sources::notify))
        .route("/query", post(query::query))
        .route("/maintain", post(query::maintain))
        .route("/match", post(rules::explain))
        .route("/schema/infer", get(rules::infer))
        .route("/plan", get(admin::plan))
        .route("/reload", post(reload::reload))
        .route("/metrics", get(admin::metrics))
        .route("/healthz", get(admin::healthz))
        .fallback(error::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(node)
}
