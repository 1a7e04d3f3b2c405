//! `pointsman replay`

use super::args::{At, ReplayArgs, ReplayCommand};
use super::client::{Client, connect};
use super::table::{short, table};
use super::{Answer, CliError, say, talk};
use serde_json::{Value, json};
use std::time::Duration;

/// How often progress is asked for.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn run(at: &At, args: ReplayArgs) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let answer = match &args.what {
        None => begin(&client, &args).await,
        Some(ReplayCommand::List { json }) => list(&client, *json).await,
        Some(ReplayCommand::Cancel { name, json }) => cancel(&client, name, *json).await,
    };
    client.close().await;
    answer
}

async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, CliError> {
    let answer = client.post(path, body.to_string().into_bytes()).await?;
    serde_json::from_slice(&answer)
        .map_err(|e| CliError::new(format!("the node's answer is not understood: {e}")))
}

async fn begin(client: &Client, args: &ReplayArgs) -> Result<Answer, CliError> {
    let mut wanted = json!({ "route": args.route, "from": args.from, "to": args.to });
    if let Some(filter) = &args.filter {
        wanted["filter"] = json!(filter);
    }
    if let Some(name) = &args.name {
        wanted["name"] = json!(name);
    }
    let mut replay = post(client, "/replays", &wanted).await?;
    let name = text(&replay["name"]);
    if !args.detach {
        replay = follow(client, &name).await?;
    }
    if args.json {
        say(&replay.to_string())?;
    } else if args.detach {
        say(&name)?;
    } else {
        say(&format!(
            "{name}: {} of {} events read were given to {}",
            replay["given"],
            replay["read"],
            text(&replay["route"])
        ))?;
    }
    if let Some(reason) = replay["reason"].as_str() {
        talk(&format!("error: {reason}"));
    }
    let well = args.detach || replay["stage"] == "done";
    Ok(if well { Answer::Yes } else { Answer::No })
}

/// Tells how far it is until it ends.
async fn follow(client: &Client, name: &str) -> Result<Value, CliError> {
    let mut told = Value::Null;
    loop {
        let all: Vec<Value> = client.get_json("/replays", &[]).await?;
        let found = all.into_iter().find(|replay| replay["name"] == name);
        let replay = found.ok_or_else(|| CliError::new(format!("the replay {name} is gone")))?;
        if replay["stage"] != "running" {
            return Ok(replay);
        }
        if told != replay["percent"] {
            talk(&format!(
                "{name}: {} %, {} events given",
                replay["percent"], replay["given"]
            ));
            told = replay["percent"].clone();
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn list(client: &Client, json: bool) -> Result<Answer, CliError> {
    let replays: Vec<Value> = client.get_json("/replays", &[]).await?;
    if json {
        for replay in replays {
            say(&replay.to_string())?;
        }
        return Ok(Answer::Yes);
    }
    if replays.is_empty() {
        say("no replays")?;
        return Ok(Answer::Yes);
    }
    let rows: Vec<Vec<String>> = replays.iter().map(row).collect();
    let header = [
        "name", "route", "stage", "read", "", "given", "waiting", "begun", "",
    ];
    for line in table(&header, &rows) {
        say(&line)?;
    }
    Ok(Answer::Yes)
}

fn row(replay: &Value) -> Vec<String> {
    vec![
        text(&replay["name"]),
        text(&replay["route"]),
        text(&replay["stage"]),
        replay["read"].to_string(),
        format!("{} %", replay["percent"]),
        replay["given"].to_string(),
        replay["waiting"].to_string(),
        text(&replay["begun_at"]),
        short(&text(&replay["reason"]), 80),
    ]
}

async fn cancel(client: &Client, name: &str, json: bool) -> Result<Answer, CliError> {
    let replay = post(client, "/replays/cancel", &json!({ "name": name })).await?;
    if json {
        say(&replay.to_string())?;
    } else {
        say(&format!(
            "cancelled: {} given before, {} of them withdrawn",
            replay["given"], replay["withdrawn"]
        ))?;
    }
    Ok(Answer::Yes)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
