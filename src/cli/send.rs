//! `pointsman send`

use super::args::{At, SendArgs};
use super::client::{connect, with_query};
use super::{Answer, CliError, say};
use serde_json::Value;
use std::io::Read;

pub(super) async fn send(at: &At, args: &SendArgs) -> Result<Answer, CliError> {
    let body = read(args)?;
    let client = connect(at).await?;
    let path = with_query("/events", &[("bus", args.bus.clone())]);
    let answered = client.post(&path, body).await;
    client.close().await;
    let answer: Value = serde_json::from_slice(&answered?)
        .map_err(|e| CliError::new(format!("the node's answer is not understood: {e}")))?;
    if args.json {
        say(&answer.to_string())?;
        return Ok(Answer::Yes);
    }
    for event in answer["accepted"].as_array().into_iter().flatten() {
        let note = if event["duplicate"] == true {
            "  (the bus had it already)"
        } else {
            ""
        };
        say(&format!(
            "{}  {}{note}",
            event["seq"],
            event["id"].as_str().unwrap_or_default()
        ))?;
    }
    Ok(Answer::Yes)
}

fn read(args: &SendArgs) -> Result<Vec<u8>, CliError> {
    match args.file.as_deref() {
        Some(path) if path.as_os_str() != "-" => std::fs::read(path)
            .map_err(|e| CliError::new(format!("cannot read {}: {e}", path.display()))),
        _ => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            Ok(body)
        }
    }
}
