//! `pointsman dlq edit`

use super::client::Client;
use super::{Answer, CliError, say};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which dead letter is edited, and where it goes.
pub(super) struct Letter {
    pub seq: u64,
    pub route: Option<String>,
    pub to: String,
}

pub(super) async fn edit(
    client: &Client,
    letter: &Letter,
    detail: Option<&str>,
    event: Option<&str>,
) -> Result<Answer, CliError> {
    let mut request = json!({ "seq": letter.seq, "route": letter.route });
    if letter.to != "SAME" {
        request["to"] = json!(letter.to);
    }
    let (field, text) = match (detail, event) {
        (Some(detail), _) => ("detail", read(detail)?),
        (None, Some(event)) => ("event", read(event)?),
        (None, None) => match by_hand(client, letter).await? {
            Some(text) => ("event", text),
            None => {
                say("nothing was changed, so nothing was sent")?;
                return Ok(Answer::No);
            }
        },
    };
    // As it was written: numbers keep their spelling.
    let raw: Box<RawValue> = serde_json::from_str(&text)
        .map_err(|e| CliError::new(format!("what was given as `{field}` is not JSON: {e}")))?;
    let mut body = request.to_string();
    body.truncate(body.len() - 1);
    body.push_str(&format!(",\"{field}\":{}}}", raw.get()));
    let answer = client.post("/dlq/edit", body.into_bytes()).await?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    say(&format!(
        "event {} was sent again as event {} ({})",
        letter.seq,
        answer["seq"],
        answer["id"].as_str().unwrap_or_default()
    ))?;
    Ok(Answer::Yes)
}

/// The text itself, or what the file after `@` holds.
fn read(text: &str) -> Result<String, CliError> {
    match text.strip_prefix('@') {
        None => Ok(text.to_owned()),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| CliError::new(format!("cannot read {path}: {e}"))),
    }
}

/// Lets somebody edit the event in their editor; `None` when they change nothing.
async fn by_hand(client: &Client, letter: &Letter) -> Result<Option<String>, CliError> {
    let editor = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let editor = editor
        .filter(|editor| !editor.trim().is_empty())
        .ok_or_else(|| {
            CliError::new("neither $VISUAL nor $EDITOR names an editor")
                .hint("or give the contents: --detail JSON, --event @FILE")
        })?;
    let mut query = vec![("seq", letter.seq.to_string())];
    query.extend(letter.route.clone().map(|route| ("route", route)));
    let letters: Vec<Value> = client.get_json("/dlq", &query).await?;
    let event = letters.first().map(|letter| &letter["event"]);
    let event = event.filter(|event| event.is_object()).ok_or_else(|| {
        CliError::new(format!(
            "event {} is not among the dead letters",
            letter.seq
        ))
    })?;
    let before = serde_json::to_string_pretty(event).map_err(|e| CliError::new(e.to_string()))?;
    let name = format!("pointsman-{}-{}.json", std::process::id(), letter.seq);
    let path = std::env::temp_dir().join(name);
    let edited = in_editor(&editor, &path, &before);
    std::fs::remove_file(&path).ok();
    let after = edited?;
    Ok((after.trim() != before.trim()).then_some(after))
}

fn in_editor(editor: &str, path: &PathBuf, text: &str) -> Result<String, CliError> {
    let failed = |what: &str, path: &Path, e: std::io::Error| {
        CliError::new(format!("cannot {what} {}: {e}", path.display()))
    };
    // Nobody else's business, and nobody else's file.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| failed("write", path, e))?;
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or_default();
    let ended = Command::new(program).args(words).arg(path).status();
    let ended = ended.map_err(|e| failed("run", Path::new(program), e))?;
    if !ended.success() {
        return Err(CliError::new(format!(
            "the editor ended with {ended}; nothing was sent"
        )));
    }
    std::fs::read_to_string(path).map_err(|e| failed("read", path, e))
}
