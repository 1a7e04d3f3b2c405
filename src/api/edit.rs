//! A dead letter with other contents, sent again.

use super::ApiError;
use crate::app::Node;
use crate::bus::{NewDelivery, NewEvent, StoredEvent};
use crate::dlq;
use crate::event::{Event, EventError, random_id};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// Routes that lead nowhere but to the dead-letter queue, for events that do not
/// meet their schema; an edited one goes where the rules say.
const SCHEMA: &str = "schema/";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    /// Sequence number of the event.
    seq: u64,
    /// The route, where the event lies on several.
    route: Option<String>,
    /// The new `detail` ...
    detail: Option<Box<RawValue>>,
    /// ... or the whole new event.
    event: Option<Box<RawValue>>,
    /// The route that it goes to, instead of its own.
    to: Option<String>,
}

/// `POST /dlq/edit`: the edited event is a new one, caused by the first, which
/// stays in the log as it came; its dead letter is closed. All in one commit.
pub(super) async fn edit(
    State(node): State<Arc<Node>>,
    Json(asked): Json<Edit>,
) -> Result<Json<Value>, ApiError> {
    let (route, dead) = dlq::one(&node.bus, asked.seq, asked.route.as_deref())?;
    let Some(first) = dead.event else {
        let message = format!("the bytes of event {} cannot be read any more", asked.seq);
        return Err(ApiError::new(StatusCode::CONFLICT, "Unreadable", message));
    };
    let event = edited(&node, &first, &asked)?;
    let table = node.router.table();
    if let Some(breach) = table.breach(&event) {
        let message = format!("{}: {}", breach.path, breach.reason);
        return Err(ApiError::bad("SchemaMismatch", message));
    }
    let deliveries = match &asked.to {
        None if route.starts_with(SCHEMA) => table
            .deliveries(&first.bus, &event)
            .map_err(|e| ApiError::bad("InvalidEvent", e.to_string()))?,
        to => {
            let name = to.as_deref().unwrap_or(&route);
            let id = super::queues::route_id(&node, name)?;
            let key = table.route(name).and_then(|rule| rule.key(&event));
            vec![NewDelivery {
                key,
                ..NewDelivery::to(id)
            }]
        }
    };
    let id = event.id().to_owned();
    let new = NewEvent {
        cause: Some(first.id.clone()),
        root: Some(first.root().to_owned()),
        hops: first.hops.saturating_add(1),
        rules_version: table.version(),
        deliveries,
        ..NewEvent::new(Arc::clone(&first.bus), id.clone(), event.text().clone())
    };
    let why = format!("edited, and sent again as event {id}");
    let accepted = node
        .bus
        .replace_dead(dead.route, asked.seq, new, &why)
        .await?;
    Ok(Json(
        json!({ "seq": accepted.seq, "id": id, "instead_of": asked.seq }),
    ))
}

fn edited(node: &Node, first: &StoredEvent, asked: &Edit) -> Result<Event, ApiError> {
    let wrong = |e: EventError| ApiError::bad("InvalidEvent", e.to_string());
    let base = match (&asked.event, &asked.detail) {
        (Some(text), None) => {
            let defaults = node.config().node.event_defaults();
            Event::complete(text.get().as_bytes(), &defaults, node.clock.now_ms()).map_err(wrong)?
        }
        (None, Some(_)) => Event::parse(first.payload.clone()).map_err(wrong)?,
        _ => return Err(ApiError::bad("BadEdit", "give either `detail` or `event`")),
    };
    let detail = asked.detail.as_deref().map(RawValue::get);
    base.edited(&random_id(), detail).map_err(wrong)
}
