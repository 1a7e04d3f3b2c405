//! Replays over HTTP.

use super::ApiError;
use crate::app::Node;
use crate::config::moment;
use crate::event::rfc3339;
use crate::replay::{Replay, ReplayError, Stage, Wanted};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A replay, for people and programs.
#[derive(Serialize)]
pub(super) struct Shown {
    name: String,
    route: String,
    /// Whether it is a new rule's share of the past.
    late: bool,
    stage: Stage,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    from: Option<String>,
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    /// How much of the range is read, from 0 to 100.
    percent: u64,
    read: u64,
    given: u64,
    /// Of those given: not settled yet.
    waiting: u64,
    passed: u64,
    withdrawn: u64,
    begun_at: String,
    ended_at: Option<String>,
}

impl Shown {
    fn new(node: &Node, replay: Replay) -> Self {
        let done = replay.next_seq.saturating_sub(replay.from_seq);
        let all = replay.to_seq.map(|to| to.saturating_sub(replay.from_seq));
        Self {
            waiting: node.replays.waiting(&replay),
            percent: match (all, replay.stage) {
                (_, Stage::Done) | (Some(0), _) => 100,
                (Some(all), _) => done.saturating_mul(100) / all,
                (None, _) => 0,
            },
            name: replay.name,
            route: replay.route,
            late: replay.late,
            stage: replay.stage,
            reason: replay.reason,
            from: (replay.from_ms > i64::MIN).then(|| rfc3339(replay.from_ms)),
            to: replay.to_ms.map(rfc3339),
            filter: replay.filter,
            read: replay.read,
            given: replay.given,
            passed: replay.passed,
            withdrawn: replay.withdrawn,
            begun_at: rfc3339(replay.begun_ms),
            ended_at: replay.ended_ms.map(rfc3339),
        }
    }
}

/// `GET /replays`: all of them, the newest first.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Json<Vec<Shown>>, ApiError> {
    let replays = node.replays.list().await.map_err(ReplayError::from)?;
    let shown = replays.into_iter().map(|replay| Shown::new(&node, replay));
    Ok(Json(shown.collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    route: String,
    /// A moment: a time, a duration ago, `earliest` or `now`.
    from: String,
    #[serde(default = "now")]
    to: String,
    filter: Option<String>,
    name: Option<String>,
}

fn now() -> String {
    "now".to_owned()
}

/// `POST /replays`: begins one.
pub(super) async fn begin(
    State(node): State<Arc<Node>>,
    Json(asked): Json<Begin>,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    let now = node.clock.now_ms();
    let at = |name: &str, text: &str| {
        moment(text, now).map_err(|e| ApiError::bad("BadTime", format!("`{name}`: {e}")))
    };
    let wanted = Wanted {
        from_ms: at("from", &asked.from)?,
        // What came in this very millisecond is meant, too.
        to_ms: match asked.to.as_str() {
            "now" => now.saturating_add(1),
            time => at("to", time)?,
        },
        name: asked.name,
        route: asked.route,
        filter: asked.filter,
    };
    let begun = node.replays.begin(wanted).await;
    let begun = begun.map_err(|error| match error {
        ReplayError::NoRoute(route) => {
            let table = node.router.table();
            ApiError::missing("route of a rule in force", &route, &table.route_names())
        }
        other => other.into(),
    })?;
    Ok((StatusCode::ACCEPTED, Json(Shown::new(&node, begun))))
}

#[derive(Deserialize)]
pub(super) struct Named {
    name: String,
}

/// `POST /replays/cancel`
pub(super) async fn cancel(
    State(node): State<Arc<Node>>,
    Json(asked): Json<Named>,
) -> Result<Json<Shown>, ApiError> {
    let cancelled = node.replays.cancel(&asked.name).await?;
    Ok(Json(Shown::new(&node, cancelled)))
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        let said = error.to_string();
        match error {
            ReplayError::BadName(_) => Self::bad("BadName", said),
            ReplayError::BadFilter(_) => Self::bad("InvalidPattern", said),
            ReplayError::Empty => Self::bad("BadTime", said),
            ReplayError::Taken(_) | ReplayError::Ended(_) => {
                Self::new(StatusCode::CONFLICT, "Conflict", said)
            }
            ReplayError::NoRoute(_) => Self::new(StatusCode::NOT_FOUND, "NotFound", said),
            ReplayError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "NotFound", said)
                .hint("`pointsman replay list` shows them"),
            ReplayError::Bus(error) => error.into(),
            ReplayError::State(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "State", said),
        }
    }
}
