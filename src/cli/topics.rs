//! `pointsman topics`: subscriptions and how they stand.

use super::args::{At, TopicsArgs, TopicsCommand};
use super::client::{connect, encode};
use super::table::{short, table};
use super::{Answer, CliError, say};
use serde_json::{Value, json};

pub(super) async fn run(at: &At, args: &TopicsArgs) -> Result<Answer, CliError> {
    match &args.command {
        None => list(at, args.list.json).await,
        Some(TopicsCommand::Enable { subscription }) => {
            change(at, subscription, "enable", &json!({})).await
        }
        Some(TopicsCommand::Disable { subscription, why }) => {
            change(at, subscription, "disable", &json!({ "why": why })).await
        }
    }
}

async fn change(at: &At, name: &str, what: &str, body: &Value) -> Result<Answer, CliError> {
    let (topic, subscription) = name.split_once('/').ok_or_else(|| {
        CliError::new(format!("`{name}` is no subscription")).hint("write TOPIC/NAME")
    })?;
    let client = connect(at).await?;
    let path = format!(
        "/topics/{}/subscriptions/{}/{what}",
        encode(topic),
        encode(subscription)
    );
    let answer = client.post(&path, body.to_string().into_bytes()).await;
    client.close().await;
    let answer: Value = serde_json::from_slice(&answer?).unwrap_or_default();
    say(&format!(
        "{name}: {}",
        answer["state"].as_str().unwrap_or_default()
    ))?;
    Ok(Answer::Yes)
}

/// Heads of the columns of [`rows`].
const HEADER: [&str; 8] = [
    "topic",
    "subscription",
    "by",
    "state",
    "circuit",
    "pending",
    "dead",
    "",
];

async fn list(at: &At, as_json: bool) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let found = client.get_json::<Value>("/topics", &[]).await;
    client.close().await;
    let topics = found?;
    if as_json {
        return say(&topics.to_string()).map(|()| Answer::Yes);
    }
    for line in table(&HEADER, &rows(&topics)) {
        say(&line)?;
    }
    Ok(Answer::Yes)
}

fn rows(topics: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (topic, told) in topics.as_object().into_iter().flatten() {
        let all = told["subscriptions"].as_object();
        for (name, one) in all.into_iter().flatten() {
            rows.push(row(topic, name, one));
        }
        if all.is_none_or(serde_json::Map::is_empty) {
            let mut row = vec![String::new(); 8];
            topic.clone_into(&mut row[0]);
            "no durable subscriptions".clone_into(&mut row[7]);
            rows.push(row);
        }
    }
    rows
}

fn row(topic: &str, name: &str, one: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let circuit = &one["circuit"];
    let why = [&one["reason"], &circuit["error"]]
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or_default();
    vec![
        topic.to_owned(),
        name.to_owned(),
        text(&one["by"]),
        text(&one["state"]),
        text(&circuit["state"]),
        one["pending"].to_string(),
        one["dead"].to_string(),
        short(why, 80),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_why_nothing_flows() {
        let topics = json!({
            "orders": { "subscriptions": {
                "gone": { "by": "webhook", "state": "disabled", "reason": "its endpoint answered 410 Gone", "pending": 3, "dead": 0, "circuit": { "state": "closed" } },
                "kept": { "by": "pull", "state": "active", "pending": 1, "dead": 0 },
                "sick": { "by": "webhook", "state": "active", "pending": 9, "dead": 1, "circuit": { "state": "open", "error": "the webhook answered 503 Service Unavailable" } },
            } },
            "quiet": { "subscriptions": {} },
        });
        insta::assert_snapshot!(table(&HEADER, &rows(&topics)).join("\n"), @r"
        topic   subscription  by       state     circuit  pending  dead
        orders  gone          webhook  disabled  closed   3        0     its endpoint answered 410 Gone
        orders  kept          pull     active    -        1        0
        orders  sick          webhook  active    open     9        1     the webhook answered 503 Service Unavailable
        quiet                                                            no durable subscriptions
        ");
    }
}
