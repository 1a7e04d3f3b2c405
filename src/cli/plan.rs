//! What is configured and how it stands: `plan`, `sources`.

use super::args::{At, PlanArgs, SourcesArgs, SourcesCommand};
use super::client::{connect, connect_running, load};
use super::{Answer, CliError, say};
use crate::app::Place;
use crate::config::{Backlog, Config};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) async fn plan(at: &At, args: &PlanArgs) -> Result<Answer, CliError> {
    let mut moves = Vec::new();
    let mut plan: Value = match (&at.url, &args.root) {
        (Some(_), None) => connect_running(at).await?.get_json("/plan", &[]).await?,
        _ => {
            let root = args.root.as_deref().unwrap_or(&at.dir);
            let config = load(root)?;
            moves = moving(at, root, &config).await?;
            json!(config)
        }
    };
    if args.json {
        if !moves.is_empty() {
            plan["moves"] = json!(moves);
        }
        say(&plan.to_string())?;
    } else {
        let mut lines = Vec::new();
        outline(&plan, 0, &mut lines);
        for line in lines {
            say(&line)?;
        }
        for line in moves {
            say(&line)?;
        }
    }
    Ok(Answer::Yes)
}

/// What becomes of queues that are somewhere else than the files say.
async fn moving(at: &At, root: &Path, config: &Config) -> Result<Vec<String>, CliError> {
    if config.queues.is_empty() || !config.node.data.join("bus").exists() {
        return Ok(Vec::new());
    }
    let at = At {
        dir: root.to_path_buf(),
        ..at.clone()
    };
    let client = connect(&at).await?;
    let places = client.get_json("/queues/places", &[]).await;
    client.close().await;
    let places: BTreeMap<String, Place> = places?;
    let mut said = Vec::new();
    for (name, queue) in &config.queues {
        let (Some(place), to) = (places.get(name), queue.on.label()) else {
            continue;
        };
        if place.at == to {
            continue;
        }
        let rest = match (place.backlog, queue.on.is_broker(), queue.backlog) {
            (0, ..) => "none wait in the log".to_owned(),
            (n, true, Backlog::Move) => {
                format!("{n} messages wait in the log; they are published to the broker")
            }
            (n, true, Backlog::Drain) => {
                format!("{n} messages wait in the log; they are handled here")
            }
            (n, false, _) => format!("{n} messages wait in the log; they are handled"),
        };
        let left = match (&queue.drain_from, place.at.as_str()) {
            (_, "embedded") => String::new(),
            (Some(from), was) if from.label() == was => {
                format!("; what is left in {was} is handled, too")
            }
            (_, was) => format!("; what is left in {was} stays there (`drain_from` reads it)"),
        };
        said.push(format!(
            "queue {name} moves from {} to {to}: {rest}{left}",
            place.at
        ));
    }
    Ok(said)
}

/// JSON in the look of YAML, for people.
fn outline(value: &Value, depth: usize, lines: &mut Vec<String>) {
    let pad = "  ".repeat(depth);
    let leaf = |value: &Value| match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.iter().all(|i| !i.is_object() && !i.is_array()),
        _ => true,
    };
    let mut member = |name: &str, value: &Value| {
        let text = match value {
            Value::String(text) if !text.contains('\n') => text.clone(),
            Value::String(text) => {
                lines.push(format!("{pad}{name} |"));
                lines.extend(text.lines().map(|l| format!("{pad}  {l}")));
                return;
            }
            other if leaf(other) => other.to_string(),
            other => {
                lines.push(format!("{pad}{name}"));
                return outline(other, depth + 1, lines);
            }
        };
        lines.push(format!("{pad}{name} {text}"));
    };
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| member(&format!("{name}:"), value)),
        Value::Array(items) => items.iter().for_each(|item| member("-", item)),
        other => lines.push(format!("{pad}{other}")),
    }
}

pub(super) async fn sources(at: &At, args: &SourcesArgs) -> Result<Answer, CliError> {
    let client = connect_running(at).await?;
    match &args.what {
        None => {}
        Some(SourcesCommand::Rescan { source }) => {
            let path = format!("/sources/{source}/rescan");
            client.post(&path, Vec::new()).await?;
            return say(&format!("looked through `{source}`")).map(|()| Answer::Yes);
        }
        Some(SourcesCommand::Forget { source, which }) => {
            let path = format!("/sources/{source}/forget");
            let body = json!({ "which": which }).to_string();
            let answer: Value = serde_json::from_slice(
                &client.post(&path, body.into_bytes()).await?,
            )
            .map_err(|e| CliError::new(format!("the node's answer is not understood: {e}")))?;
            let count = answer["forgotten"].as_u64().unwrap_or(0);
            say(&format!("forgot {count}"))?;
            return Ok(match count {
                0 => Answer::No,
                _ => Answer::Yes,
            });
        }
    }
    let found: Value = client.get_json("/sources", &[]).await?;
    if args.json {
        return say(&found.to_string()).map(|()| Answer::Yes);
    }
    let mut lines = Vec::new();
    outline(&found, 0, &mut lines);
    for line in lines {
        say(&line)?;
    }
    Ok(Answer::Yes)
}
