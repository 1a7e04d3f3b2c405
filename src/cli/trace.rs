//! `pointsman trace`

use super::args::{At, TraceArgs};
use super::client::{connect, encode};
use super::{Answer, CliError, say};
use crate::api::TraceNode;

pub(super) async fn trace(at: &At, args: &TraceArgs) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let found = client
        .get(&format!("/trace/{}", encode(&args.id)), &[])
        .await;
    client.close().await;
    let body = found?;
    if args.json {
        say(&String::from_utf8_lossy(&body))?;
        return Ok(Answer::Yes);
    }
    let tree: Vec<TraceNode> = serde_json::from_slice(&body)
        .map_err(|e| CliError::new(format!("the node's answer is not understood: {e}")))?;
    let mut lines = Vec::new();
    for node in &tree {
        draw(node, "", "", &mut lines);
    }
    for line in lines {
        say(&line)?;
    }
    Ok(Answer::Yes)
}

/// Draws a node and what it caused; `first` leads its own line, `rest` the others.
fn draw(node: &TraceNode, first: &str, rest: &str, lines: &mut Vec<String>) {
    let about = node
        .about
        .as_ref()
        .map_or(String::new(), |a| format!("  {a}"));
    let asked = if node.asked { "  <- asked" } else { "" };
    lines.push(format!(
        "{first}{} {}{about}  [{}]  {}  {}{asked}",
        node.seq, node.detail_type, node.bus, node.accepted_at, node.id
    ));
    let more = !node.caused.is_empty();
    for route in &node.routes {
        let bar = if more { "│ " } else { "  " };
        lines.push(format!("{rest}{bar}  {} : {}", route.route, route.state));
        for step in &route.steps {
            lines.push(format!("{rest}{bar}      {step}"));
        }
    }
    for (index, child) in node.caused.iter().enumerate() {
        let last = index + 1 == node.caused.len();
        let (branch, bar) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        draw(
            child,
            &format!("{rest}{branch}"),
            &format!("{rest}{bar}"),
            lines,
        );
    }
}
