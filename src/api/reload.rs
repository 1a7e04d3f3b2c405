//! `POST /reload`: the files again, in force at once or refused whole.

use super::ApiError;
use crate::app::{Node, Reload, ReloadError, Reloaded};
use crate::error::render_all;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// `POST /reload`, with nothing or `{"backlog": {"ROUTE": "drop" | {"move-to": "ROUTE"}}}`.
pub(super) async fn reload(
    State(node): State<Arc<Node>>,
    body: Bytes,
) -> Result<Json<Reloaded>, ApiError> {
    let told: Reload = match body.is_empty() {
        true => Reload::default(),
        false => serde_json::from_slice(&body)
            .map_err(|e| ApiError::bad("InvalidJson", e.to_string()))?,
    };
    // A caller that goes away must not leave the half of it done.
    let reloading = tokio::spawn(async move { node.reload(&told).await });
    let done = reloading.await.map_err(|e| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Reload",
            format!("the reload did not end: {e}"),
        )
    })?;
    Ok(Json(done?))
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let said = error.to_string();
        let refused = |code| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, said.clone());
        match error {
            ReloadError::Files {
                diagnostics,
                sources,
            } => refused("BadConfiguration").with(json!({
                "rendered": render_all(&diagnostics, &sources, false),
                "diagnostics": diagnostics,
            })),
            ReloadError::Backlog(routes) => {
                let routes: Vec<_> = routes
                    .into_iter()
                    .map(|route| json!({ "route": route.name, "pending": route.pending }))
                    .collect();
                Self::new(StatusCode::CONFLICT, "Backlog", said)
                    .with(json!({ "routes": routes }))
                    .hint("say where they go: `pointsman reload --backlog ROUTE=drop`, or `--backlog ROUTE=move-to:OTHER`")
            }
            ReloadError::BadBacklog(_) => refused("BadBacklog"),
            ReloadError::Rules(_) => refused("BadRules"),
            ReloadError::Handler(_) => refused("BadHandler"),
            ReloadError::Endpoints(_) => refused("BadEndpoint"),
            ReloadError::Offline => Self::new(StatusCode::CONFLICT, "NotRunning", said),
            ReloadError::Bus(error) => error.into(),
            ReloadError::State(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "State", said),
        }
    }
}
