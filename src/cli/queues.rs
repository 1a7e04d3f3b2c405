//! `pointsman queues`, also known as `routes`

use super::args::{At, QueuesArgs, QueuesCommand};
use super::client::{Client, connect};
use super::table::table;
use super::{Answer, CliError, say};
use serde_json::{Value, json};

pub(super) async fn run(at: &At, args: QueuesArgs) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let answer = match &args.what {
        None => list(&client, args.json).await,
        Some(QueuesCommand::Pause { name }) => set(&client, "pause", "paused", name).await,
        Some(QueuesCommand::Resume { name }) => set(&client, "resume", "resumed", name).await,
    };
    client.close().await;
    answer
}

async fn list(client: &Client, json: bool) -> Result<Answer, CliError> {
    let routes: Vec<Value> = client.get_json("/routes", &[]).await?;
    if json {
        return say(&json!(routes).to_string()).map(|()| Answer::Yes);
    }
    let rows: Vec<Vec<String>> = routes
        .iter()
        .filter(|route| route["retired"] != true || route["dead"] != 0)
        .map(row)
        .collect();
    let header = [
        "route",
        "ready",
        "in flight",
        "delayed",
        "oldest",
        "dead",
        "at the broker",
        "",
    ];
    for line in table(&header, &rows) {
        say(&line)?;
    }
    Ok(Answer::Yes)
}

fn row(route: &Value) -> Vec<String> {
    let oldest = route["oldest_seconds"].as_i64();
    let state = match (route["paused"] == true, route["retired"] == true) {
        (_, true) => "no rule has it any more",
        (true, _) => "paused",
        _ if route["worked"] != true => "nobody reads it here",
        _ => "",
    };
    vec![
        route["route"].as_str().unwrap_or_default().to_owned(),
        route["ready"].to_string(),
        route["in_flight"].to_string(),
        route["delayed"].to_string(),
        oldest.map_or("-".to_owned(), |s| format!("{s} s")),
        route["dead"].to_string(),
        at_broker(&route["broker"]),
        state.to_owned(),
    ]
}

/// What waits in a queue on a broker; `?` where the broker does not answer.
fn at_broker(broker: &Value) -> String {
    if broker.is_null() {
        return "-".to_owned();
    }
    let number = |name: &str| broker[name].as_u64().unwrap_or(0);
    match broker["ready"].as_u64() {
        Some(ready) => (ready + number("unsettled").max(number("here"))).to_string(),
        None => "?".to_owned(),
    }
}

/// Pauses or resumes, and names the routes.
async fn set(client: &Client, verb: &str, done: &str, name: &str) -> Result<Answer, CliError> {
    let body = json!({ "route": name }).to_string().into_bytes();
    let answer = client.post(&format!("/routes/{verb}"), body).await?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    for route in answer[done].as_array().into_iter().flatten() {
        say(&format!("{done} {}", route.as_str().unwrap_or_default()))?;
    }
    Ok(Answer::Yes)
}
