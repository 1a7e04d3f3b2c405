//! What people do to a node that runs, and what happens to it: reload, replay,
//! late rules, dead letters, back-pressure, damage, shutdown.

mod dead;
mod ends;
mod flow;
mod pressure;
mod reload;
mod replay;
mod slow;

use crate::support::{Project, Running, text};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;

/// Rules of a shop: each handler `name` gets every event of it, by the route
/// `name/name`, and notes them in `name.ndjson`. `more`: fields of the handlers.
fn rules(names: &[&str], more: &str) -> String {
    let mut text = "rules:\n".to_owned();
    for name in names {
        text.push_str(&format!(
            "  {name}: {{ pattern: {{ source: [shop] }}, targets: [ {{ handler: {name} }} ] }}\n"
        ));
    }
    text.push_str("handlers:\n");
    for name in names {
        text.push_str(&format!("  {name}:\n"));
        for line in more.lines() {
            text.push_str(&format!("    {line}\n"));
        }
        text.push_str(&format!(
            "    exec: {{ command: [sh, -c, \"cat >> {name}.ndjson\"] }}\n"
        ));
    }
    text
}

fn shop(names: &[&str], more: &str) -> Project {
    let project = Project::new();
    project.write("rules/shop.yaml", rules(names, more));
    project
}

fn send(project: &Project, events: &str) {
    let sent = project.run_with(&["send"], events.as_bytes());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
}

/// Sends orders with these numbers in one call.
fn send_numbered(project: &Project, numbers: Range<u64>) {
    let order =
        |n| format!("{{\"source\":\"shop\",\"detail-type\":\"Order\",\"detail\":{{\"n\":{n}}}}}\n");
    send(project, &numbers.map(order).collect::<String>());
}

/// The account of one route.
fn ledger(project: &Project, route: &str) -> Value {
    let audit = project.json(&["audit", "--json"]);
    let routes = audit["ledger"]["routes"]
        .as_array()
        .expect("routes")
        .clone();
    let found = routes.into_iter().find(|r| r["name"] == route);
    found.unwrap_or_else(|| panic!("no route {route}: {audit}"))
}

/// A request over real HTTP; the whole answer as text.
fn http(node: &Running, method: &str, path: &str, body: &str) -> String {
    let log = node.log();
    let address = log.rsplit("http://").next().expect("an address");
    let address: String = address
        .chars()
        .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
        .collect();
    http_at(&address, method, path, body)
}

/// The same at an address that is known.
fn http_at(address: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(body.as_bytes()).expect("a body");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn metrics(node: &Running) -> String {
    http(node, "GET", "/metrics", "")
}
