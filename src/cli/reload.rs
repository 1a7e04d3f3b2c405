//! `pointsman reload`

use super::args::{At, ReloadArgs};
use super::client::connect_running;
use super::{Answer, CliError, say, talk};
use crate::app::{BacklogTo, Reload};
use serde_json::{Value, json};

pub(super) async fn reload(at: &At, args: &ReloadArgs) -> Result<Answer, CliError> {
    let mut told = Reload::default();
    for text in &args.backlog {
        let (route, to) = backlog(text)?;
        told.backlog.insert(route, to);
    }
    let client = connect_running(at).await?;
    let body = json!(told).to_string().into_bytes();
    let response = client.send("POST", "/reload", Some(body)).await?;
    let status = response.status().as_u16();
    let body = response.bytes().await;
    let body = body.map_err(|e| CliError::new(format!("the node does not answer: {e}")))?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if args.json {
        say(&answer.to_string())?;
    }
    if status != 200 {
        if !args.json {
            refused(&answer["error"]);
        }
        return Ok(Answer::No);
    }
    if !args.json {
        print(&answer)?;
    }
    let failed = answer["failed"].as_array().is_some_and(|f| !f.is_empty());
    Ok(if failed { Answer::No } else { Answer::Yes })
}

/// `ROUTE=drop` or `ROUTE=move-to:OTHER`.
fn backlog(text: &str) -> Result<(String, BacklogTo), CliError> {
    let parsed = text.rsplit_once('=').and_then(|(route, to)| {
        let to = match to.split_once(':') {
            None if to == "drop" => BacklogTo::Drop,
            Some(("move-to", other)) if !other.is_empty() => BacklogTo::MoveTo(other.to_owned()),
            _ => return None,
        };
        Some((route.to_owned(), to))
    });
    parsed.ok_or_else(|| {
        CliError::new(format!(
            "--backlog: `{text}` does not say where a backlog goes"
        ))
        .hint("write ROUTE=drop or ROUTE=move-to:OTHER")
    })
}

fn refused(error: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rendered = text(&error["details"]["rendered"]);
    if !rendered.is_empty() {
        talk(rendered.trim_end());
    }
    talk(&format!("refused: {}", text(&error["message"])));
    if let Some(hint) = error["hint"].as_str() {
        talk(&format!("  hint: {hint}"));
    }
}

fn print(answer: &Value) -> Result<(), CliError> {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for change in list("changes") {
        let fields: Vec<String> = change["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect();
        let of = match fields.is_empty() {
            true => String::new(),
            false => format!(" ({})", fields.join(", ")),
        };
        say(&format!(
            "{} {} {}{of}",
            text(&change["change"]),
            text(&change["section"]),
            text(&change["name"])
        ))?;
    }
    for (route, count) in answer["retired"].as_object().into_iter().flatten() {
        say(&format!(
            "retired {route}: {count} messages moved or dropped"
        ))?;
    }
    for field in list("at_restart") {
        talk(&format!(
            "node.{} is used from the next start on",
            text(&field)
        ));
    }
    for failed in list("failed") {
        talk(&format!("error: {}", text(&failed)));
    }
    if list("changes").is_empty() {
        say("nothing changed")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_says_where_it_goes() {
        let to = |text| backlog(text).map(|(_, to)| to).ok();
        assert_eq!(to("a/b=drop"), Some(BacklogTo::Drop));
        assert_eq!(to("a/b=move-to:c/d"), Some(BacklogTo::MoveTo("c/d".into())));
        assert_eq!(to("a/b=move-to:"), None);
        assert_eq!(to("a/b"), None);
    }
}
