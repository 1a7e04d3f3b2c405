//! Live streams: `pointsman subscribe` and `pointsman events tail`.

use super::args::{At, SubscribeArgs};
use super::client::{Client, connect_running, encode, with_query};
use super::table::short;
use super::{Answer, CliError, say, talk};
use serde_json::Value;
use std::ops::ControlFlow;

pub(super) async fn subscribe(at: &At, args: &SubscribeArgs) -> Result<Answer, CliError> {
    let client = connect_running(at).await?;
    let mut query = Vec::new();
    if let Some(name) = &args.name {
        query.push(("name", name.clone()));
    }
    if let Some(filter) = &args.filter {
        query.push(("filter", filter.clone()));
    }
    let path = with_query(&format!("/topics/{}/messages", encode(&args.topic)), &query);
    let mut left = args.count.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(Answer::Yes);
    }
    follow(&client, &path, |message| {
        if args.json {
            say(&message.to_string())?;
        } else {
            say(&notice(message))?;
        }
        left -= 1;
        Ok(if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })
    .await
}

pub(super) async fn tail(
    at: &At,
    bus: Option<String>,
    pattern: Option<String>,
    json: bool,
) -> Result<Answer, CliError> {
    let client = connect_running(at).await?;
    let mut query = Vec::new();
    if let Some(bus) = bus {
        query.push(("bus", bus));
    }
    if let Some(pattern) = pattern {
        query.push(("pattern", pattern));
    }
    follow(&client, &with_query("/events/tail", &query), |event| {
        if json {
            say(&event.to_string())?;
        } else {
            say(&super::events::line(event))?;
        }
        Ok(ControlFlow::Continue(()))
    })
    .await
}

/// Reads server-sent events until the node ends the stream or `each` breaks.
async fn follow(
    client: &Client,
    path: &str,
    mut each: impl FnMut(&Value) -> Result<ControlFlow<()>, CliError>,
) -> Result<Answer, CliError> {
    let mut response = client.send("GET", path, None).await?;
    let status = response.status().as_u16();
    if status != 200 {
        let body = response.bytes().await.unwrap_or_default();
        super::client::answer(status, body.to_vec())?;
        return Ok(Answer::No);
    }
    talk("listening; Ctrl-C ends it");
    let mut rest = Vec::new();
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(Answer::Yes),
            Err(error) => {
                return Err(CliError::new(format!(
                    "the stream ended: {}",
                    error.without_url()
                )));
            }
        };
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.windows(2).position(|w| w == b"\n\n") {
            let block: Vec<u8> = rest.drain(..end + 2).collect();
            let (kind, data) = parse(&String::from_utf8_lossy(&block));
            if kind == "lagged" {
                talk(&format!(
                    "warning: too slow, {data} messages were not shown"
                ));
            } else if let Ok(value) = serde_json::from_str(&data)
                && each(&value)?.is_break()
            {
                return Ok(Answer::Yes);
            }
        }
    }
}

/// Kind and data of one block of server-sent events.
fn parse(block: &str) -> (String, String) {
    let (mut kind, mut data) = (String::new(), Vec::new());
    for line in block.lines() {
        match line.split_once(':') {
            Some(("event", value)) => value.trim_start().clone_into(&mut kind),
            Some(("data", value)) => data.push(value.strip_prefix(' ').unwrap_or(value)),
            _ => {}
        }
    }
    (kind, data.join("\n"))
}

/// A notice on one line.
fn notice(message: &Value) -> String {
    let event = &message["event"];
    let detail = &event["detail"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut line = format!("{}  {}", text(&event["time"]), text(&event["detail-type"]));
    let mut add = |name: &str, value: &Value| {
        let said = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return,
        };
        line.push_str(&format!("  {name}={}", short(&said, 120)));
    };
    for name in [
        "handler", "table", "rows_in", "rows_out", "rows", "inserted", "updated",
    ] {
        add(name, &detail[name]);
    }
    add("rejects", &detail["rejects"]["count"]);
    add("object", &detail["object"]["key"]);
    add("error", &detail["error"]["message"]);
    add("event", &detail["event"]["id"]);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_server_sent_events_is_read() {
        let block = "event: lagged\nid: 7\ndata: 12\n\n";
        assert_eq!(parse(block), ("lagged".to_owned(), "12".to_owned()));
        assert_eq!(parse(": keep-alive\n\n").1, "");
    }
}
