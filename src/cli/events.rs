//! `pointsman events`

use super::args::{At, EventsArgs, EventsCommand};
use super::client::{connect, encode};
use super::table::short;
use super::{Answer, CliError, say, stream};
use serde_json::Value;

pub(super) async fn run(at: &At, args: EventsArgs) -> Result<Answer, CliError> {
    match args.what {
        EventsCommand::Tail { bus, pattern, json } => stream::tail(at, bus, pattern, json).await,
        EventsCommand::Show { id } => show(at, &id).await,
        EventsCommand::List {
            bus,
            from,
            limit,
            detail_type,
            unmatched,
            json,
        } => {
            let mut query = vec![
                ("limit", limit.to_string()),
                ("unmatched", unmatched.to_string()),
            ];
            query.extend(bus.map(|bus| ("bus", bus)));
            query.extend(from.map(|from| ("from", from.to_string())));
            query.extend(detail_type.map(|kind| ("detail_type", kind)));
            list(at, &query, json).await
        }
    }
}

async fn show(at: &At, id: &str) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let found = client
        .get_json::<Value>(&format!("/events/{}", encode(id)), &[])
        .await;
    client.close().await;
    let text = serde_json::to_string_pretty(&found?).map_err(|e| CliError::new(e.to_string()))?;
    say(&text)?;
    Ok(Answer::Yes)
}

async fn list(at: &At, query: &[(&str, String)], json: bool) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let found = client.get_json::<Vec<Value>>("/events", query).await;
    client.close().await;
    for event in found? {
        if json {
            say(&event.to_string())?;
        } else {
            say(&line(&event))?;
        }
    }
    Ok(Answer::Yes)
}

/// An event on one line.
pub(super) fn line(stored: &Value) -> String {
    let event = &stored["event"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let detail = &event["detail"];
    let about = match (&detail["object"]["key"], &detail["table"]) {
        (Value::String(key), _) => format!("{}/{key}", text(&detail["bucket"]["name"])),
        (_, Value::String(table)) => format!("table {table}"),
        _ => short(&detail.to_string(), 60),
    };
    let routes: Vec<String> = stored["routes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    let routes = if routes.is_empty() {
        "no rule".to_owned()
    } else {
        routes.join(", ")
    };
    format!(
        "{:>6}  {}  {}  {}  {}  {about}  -> {routes}",
        stored["seq"],
        text(&stored["accepted_at"]),
        text(&stored["bus"]),
        text(&stored["id"]),
        text(&event["detail-type"]),
    )
}
