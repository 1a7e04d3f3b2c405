//! `pointsman dlq`

use super::args::{At, DlqArgs, DlqCommand, Meant};
use super::client::{Client, connect};
use super::edit::{self, Letter};
use super::table::{short, table};
use super::{Answer, CliError, say, talk};
use crate::api::Which;
use serde_json::{Value, json};

pub(super) async fn run(at: &At, args: DlqArgs) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let answer = match args.what {
        DlqCommand::List {
            meant,
            group_by,
            limit,
            json,
        } => list(&client, meant, group_by.is_some(), limit, json).await,
        DlqCommand::Show { seq, route, json } => show(&client, seq, route, json).await,
        DlqCommand::Redrive {
            meant,
            all,
            to,
            rate,
        } => redrive(&client, meant, all, to, rate).await,
        DlqCommand::Edit {
            seq,
            route,
            detail,
            event,
            to,
        } => {
            let letter = Letter { seq, route, to };
            edit::edit(&client, &letter, detail.as_deref(), event.as_deref()).await
        }
        DlqCommand::Purge { meant, all, why } => purge(&client, meant, all, why).await,
    };
    client.close().await;
    answer
}

fn which(meant: Meant, limit: Option<usize>) -> Which {
    Which {
        route: meant.route,
        seq: meant.seq,
        filter: meant.filter,
        cause: meant.cause,
        limit,
    }
}

fn params(which: Which) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    query.extend(which.route.map(|v| ("route", v)));
    query.extend(which.seq.map(|v| ("seq", v.to_string())));
    query.extend(which.filter.map(|v| ("filter", v)));
    query.extend(which.cause.map(|v| ("cause", v)));
    query.extend(which.limit.map(|v| ("limit", v.to_string())));
    query
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn list(
    client: &Client,
    meant: Meant,
    grouped: bool,
    limit: usize,
    json: bool,
) -> Result<Answer, CliError> {
    let query = params(which(meant, (!grouped).then_some(limit)));
    let path = if grouped { "/dlq/groups" } else { "/dlq" };
    let found: Vec<Value> = client.get_json(path, &query).await?;
    if json {
        for letter in found {
            say(&letter.to_string())?;
        }
        return Ok(Answer::Yes);
    }
    for soon in client.get_json::<Vec<Value>>("/dlq/expiring", &[]).await? {
        talk(&format!(
            "warning: {} dead letters of {} expire soon, the first at {}",
            soon["count"],
            text(&soon["route"]),
            text(&soon["first_at"])
        ));
    }
    if found.is_empty() {
        say("no dead letters")?;
        return Ok(Answer::Yes);
    }
    let lines = if grouped {
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|g| {
                let example = format!("{}: {}", g["seq"], short(&text(&g["example"]), 100));
                vec![
                    g["count"].to_string(),
                    text(&g["route"]),
                    text(&g["cause"]),
                    example,
                ]
            })
            .collect();
        table(&["count", "route", "cause", "example"], &rows)
    } else {
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        table(
            &["seq", "failed at", "route", "tries", "about", "last error"],
            &rows,
        )
    };
    for line in lines {
        say(&line)?;
    }
    Ok(Answer::Yes)
}

fn row(letter: &Value) -> Vec<String> {
    let detail = &letter["event"]["detail"];
    let about = match &detail["object"]["key"] {
        Value::String(key) => key.clone(),
        _ => text(&letter["event"]["detail-type"]),
    };
    let last = letter["errors"]
        .as_array()
        .and_then(|errors| errors.last())
        .map_or_else(String::new, |e| text(&e["message"]));
    vec![
        letter["seq"].to_string(),
        text(&letter["failed_at"]),
        text(&letter["route"]),
        letter["attempts"].to_string(),
        short(&about, 40),
        short(&last, 120),
    ]
}

async fn show(
    client: &Client,
    seq: u64,
    route: Option<String>,
    json: bool,
) -> Result<Answer, CliError> {
    let meant = Meant {
        route,
        seq: Some(seq),
        ..Meant::default()
    };
    let found: Vec<Value> = client.get_json("/dlq", &params(which(meant, None))).await?;
    if found.is_empty() {
        return Err(
            CliError::new(format!("event {seq} is not among the dead letters"))
                .hint("`pointsman dlq list` shows them"),
        );
    }
    for letter in found {
        if json {
            say(&letter.to_string())?;
        } else {
            describe(&letter)?;
        }
    }
    Ok(Answer::Yes)
}

fn describe(letter: &Value) -> Result<(), CliError> {
    say(&format!(
        "event {} ({}) failed on route {} at {} after {} attempts",
        letter["seq"],
        text(&letter["id"]),
        text(&letter["route"]),
        text(&letter["failed_at"]),
        letter["attempts"]
    ))?;
    for (number, error) in letter["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        say(&format!(
            "  {}. {}  {}  [{}] {}",
            number + 1,
            text(&error["at"]),
            text(&error["handler"]),
            text(&error["class"]),
            text(&error["message"])
        ))?;
        for cause in error["chain"].as_array().into_iter().flatten() {
            say(&format!("       because: {}", text(cause)))?;
        }
    }
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    say(&format!("context: {}", pretty(&letter["context"])))?;
    say(&format!("event: {}", pretty(&letter["event"])))
}

/// A selection that does something must be meant.
fn chosen(meant: Meant, all: bool) -> Result<Which, CliError> {
    let which = which(meant, None);
    let some = which.route.is_some()
        || which.seq.is_some()
        || which.filter.is_some()
        || which.cause.is_some();
    if some == all {
        return Err(CliError::new(
            "say which: --route, --seq, --filter, --cause, or --all alone",
        ));
    }
    Ok(which)
}

async fn redrive(
    client: &Client,
    meant: Meant,
    all: bool,
    to: String,
    rate: Option<String>,
) -> Result<Answer, CliError> {
    let rate = rate.as_deref().map(per_second).transpose()?;
    let to = Some(to).filter(|to| to != "SAME");
    let request = json!({ "which": chosen(meant, all)?, "to": to, "rate": rate });
    done(client, "/dlq/redrive", &request, "redriven").await
}

/// `10/s`, `600/m`, `3600/h` or a number a second, as a number a second.
fn per_second(text: &str) -> Result<f64, CliError> {
    let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit.trim() {
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let count = count
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|n| n.is_finite() && *n > 0.0);
    match (count, seconds) {
        (Some(count), Some(seconds)) => Ok(count / seconds),
        _ => Err(CliError::new(format!("--rate: `{text}` is not a rate"))
            .hint("write `10/s`, `600/m` or `10`")),
    }
}

async fn purge(client: &Client, meant: Meant, all: bool, why: String) -> Result<Answer, CliError> {
    let request = json!({ "which": chosen(meant, all)?, "why": why });
    done(client, "/dlq/purge", &request, "purged").await
}

/// Posts a request and tells how many letters it was about; none is a no.
async fn done(
    client: &Client,
    path: &str,
    request: &Value,
    what: &str,
) -> Result<Answer, CliError> {
    let answer = client.post(path, request.to_string().into_bytes()).await?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let count = answer[what].as_u64().unwrap_or_default();
    say(&format!("{what}: {count}"))?;
    Ok(if count == 0 { Answer::No } else { Answer::Yes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let rate = |text| per_second(text).ok();
        assert_eq!(
            (rate("10/s"), rate("600/m"), rate("0.5")),
            (Some(10.0), Some(10.0), Some(0.5))
        );
        assert_eq!((rate("0"), rate("ten"), rate("5/day")), (None, None, None));
    }
}
