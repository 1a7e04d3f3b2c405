//! `pointsman audit`

use super::args::{At, JsonArgs};
use super::client::connect;
use super::table::table;
use super::{Answer, CliError, say, talk};
use serde_json::Value;

pub(super) async fn audit(at: &At, args: &JsonArgs) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let found = client.get_json::<Value>("/audit", &[]).await;
    client.close().await;
    let audit = found?;
    let balanced = audit["balanced"] == true;
    if args.json {
        say(&audit.to_string())?;
    } else {
        print(&audit, balanced)?;
    }
    Ok(if balanced { Answer::Yes } else { Answer::No })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn print(audit: &Value, balanced: bool) -> Result<(), CliError> {
    let ledger = &audit["ledger"];
    let buses: Vec<Vec<String>> = ledger["buses"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, counts)| {
            row(
                name,
                counts,
                &["accepted", "matched", "unmatched", "duplicates"],
            )
        })
        .collect();
    for line in table(
        &["bus", "accepted", "matched", "unmatched", "duplicates"],
        &buses,
    ) {
        say(&line)?;
    }
    say("")?;
    let columns = [
        "enqueued",
        "replayed",
        "moved_in",
        "delivered",
        "dead",
        "purged",
        "expired",
        "moved_out",
        "ready",
        "leased",
        "delayed",
        "retried",
    ];
    let routes: Vec<Vec<String>> = ledger["routes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|route| row(route["name"].as_str().unwrap_or_default(), route, &columns))
        .collect();
    let header: Vec<&str> = std::iter::once("route").chain(columns).collect();
    for line in table(&header, &routes) {
        say(&line)?;
    }
    say("")?;
    say(&text(&audit["equation"]).replace('_', " "))?;
    for damage in audit["damage"].as_array().into_iter().flatten() {
        talk(&format!("damage: {}", text(&damage["note"])));
    }
    say(if balanced {
        "the ledger adds up"
    } else {
        "THE LEDGER DOES NOT ADD UP"
    })
}

fn row(name: &str, counts: &Value, columns: &[&str]) -> Vec<String> {
    std::iter::once(name.to_owned())
        .chain(columns.iter().map(|column| counts[*column].to_string()))
        .collect()
}
