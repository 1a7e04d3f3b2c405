//! The commands, against a running and a stopped node.

use crate::support::{Project, text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::mpsc;

const ORDER: &str =
    r#"{"source":"shop","detail-type":"Order Placed","detail":{"id":1,"total":12.5}}"#;

/// Orders go to a program that fails until a file says that it may succeed.
fn shop(retry: &str) -> Project {
    let project = Project::new();
    project.write(
        "rules/shop.yaml",
        format!(
            r#"
queues: {{ orders: {{}} }}
rules:
  placed:
    pattern: {{ source: [shop], detail-type: [Order Placed] }}
    targets: [ {{ queue: orders }} ]
handlers:
  book:
    from: orders
    batch: {{ size: 10 }}
    retry: {retry}
    exec: {{ command: [sh, book.sh] }}
    notify: {{ success: booked, failure: not-booked }}
topics:
  booked: {{ subscriptions: {{ later: {{ pull: {{}} }} }} }}
  not-booked: {{}}
"#
        ),
    );
    project.write(
        "book.sh",
        "cat >> seen.ndjson; test -e open || { echo 'the shop is closed' >&2; exit 3; }\n",
    );
    project
}

const ONCE: &str = "{ attempts: 1 }";
const QUICK: &str = "{ attempts: 3, base: 20ms, cap: 40ms }";

#[test]
fn what_fails_is_retried_dead_lettered_and_redriven_on_a_running_node() {
    let project = shop(QUICK);
    let node = project.start();
    project.run_with(&["send"], ORDER.as_bytes());
    project.wait("a dead letter", || {
        project.json_lines(&["dlq", "list", "--json"]).len() == 1
    });

    let letters = project.json_lines(&["dlq", "list", "--json"]);
    let letter = &letters[0];
    assert_eq!(letter["route"], "placed/orders");
    assert_eq!(letter["attempts"], 3);
    assert_eq!(letter["errors"].as_array().expect("errors").len(), 3);
    assert!(
        letter["errors"][2]["chain"]
            .to_string()
            .contains("the shop is closed"),
        "{letter}"
    );
    assert_eq!(letter["event"]["detail"]["total"], 12.5);
    assert_eq!(letter["context"]["handler"], "book");
    let groups = project.ok(&["dlq", "list", "--group-by", "cause"]);
    assert!(groups.contains("ExitCode"), "{groups}");
    let failures = project.json_lines(&["events", "list", "--bus", "topic/not-booked", "--json"]);
    assert_eq!(failures[0]["event"]["detail"]["error"]["code"], "ExitCode");

    project.write("open", "");
    assert_eq!(
        project
            .ok(&["dlq", "redrive", "--filter", r#"{"source":["shop"]}"#])
            .trim(),
        "redriven: 1"
    );
    project.wait("success", || {
        !project
            .json_lines(&["events", "list", "--bus", "topic/booked", "--json"])
            .is_empty()
    });
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
    let audit = project.json(&["audit", "--json"]);
    assert_eq!(audit["balanced"], true, "{audit}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn dead_letters_are_shown_redriven_and_purged_on_a_stopped_node() {
    let project = shop(ONCE);
    let node = project.start();
    project.run_with(&["send"], format!("{ORDER}\n{ORDER}\n").as_bytes());
    project.wait("dead letters", || {
        project.json_lines(&["dlq", "list", "--json"]).len() == 2
    });
    assert_eq!(node.stop(), 0);

    let letters = project.json_lines(&["dlq", "list", "--json"]);
    assert_eq!(letters.len(), 2);
    let seq = letters[0]["seq"].to_string();
    let shown = project.ok(&["dlq", "show", &seq]);
    assert!(
        shown.contains("after 1 attempts") && shown.contains("Order Placed"),
        "{shown}"
    );
    assert_eq!(
        project
            .ok(&["dlq", "purge", "--seq", &seq, "--why", "a test order"])
            .trim(),
        "purged: 1"
    );
    assert_eq!(
        project.ok(&["dlq", "redrive", "--all"]).trim(),
        "redriven: 1"
    );
    assert_eq!(
        project.run(&["dlq", "redrive", "--all"]).status.code(),
        Some(1),
        "nothing is left: no"
    );
    assert_eq!(
        project.run(&["dlq", "redrive"]).status.code(),
        Some(2),
        "nothing was named"
    );

    project.write("open", "");
    project.ok(&["run", "--until-idle", "0.5"]);
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
    let audit = project.json(&["audit", "--json"]);
    let route = &audit["ledger"]["routes"][0];
    assert_eq!(
        (&route["delivered"], &route["purged"]),
        (&json!(1), &json!(1)),
        "{route}"
    );
}

#[test]
fn one_poison_message_does_not_hold_up_its_batch() {
    let project = shop(ONCE);
    project.write("open", "");
    project.write("book.sh", "! grep -q poison\n");
    let mut batch = String::new();
    for n in 0..10 {
        let what = if n == 6 { "poison" } else { "fine" };
        batch.push_str(&format!(
            "{{\"source\":\"shop\",\"detail-type\":\"Order Placed\",\"detail\":{{\"n\":{n},\"what\":\"{what}\"}}}}\n"
        ));
    }
    project.run_with(&["run", "--until-idle", "0.2"], b"");
    let sent = project.run_with(&["send"], batch.as_bytes());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    project.ok(&["run", "--until-idle", "1"]);
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["event"]["detail"]["n"], 6);
}

#[test]
fn a_message_that_kills_the_process_ends_in_the_dead_letter_queue() {
    let project = shop("{ attempts: 5, lost: 2 }");
    project.write("book.sh", "kill -9 $PPID\n");
    project.run_with(&["run", "--until-idle", "0.2"], b"");
    project.run_with(&["send"], ORDER.as_bytes());
    for _ in 0..2 {
        let node = project.start_unchecked(&["--until-idle", "5"]);
        assert_ne!(node.wait(), 0, "it was killed");
    }
    project.ok(&["run", "--until-idle", "1"]);
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0].to_string().contains("NeverSettled"),
        "{}",
        letters[0]
    );
}

#[test]
fn a_subscriber_in_another_terminal_hears_each_notice() {
    let project = shop(ONCE);
    project.write("open", "");
    let node = project.start();
    let mut listening = project
        .command(&["subscribe", "booked", "--count", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut talk = BufReader::new(listening.stderr.take().expect("a pipe"));
    let mut line = String::new();
    talk.read_line(&mut line).expect("a line");
    assert!(line.starts_with("listening"), "{line}");
    project.run_with(&["send"], format!("{ORDER}\n{ORDER}\n").as_bytes());
    let heard = listening.wait_with_output().expect("it ends");
    let heard = text(&heard.stdout);
    assert_eq!(heard.lines().count(), 2, "{heard}");
    assert!(heard.contains("handler=book"), "{heard}");

    // A durable subscription has kept both.
    let later = project.ok(&[
        "subscribe",
        "booked",
        "--name",
        "later",
        "--count",
        "2",
        "--json",
    ]);
    assert_eq!(later.lines().count(), 2, "{later}");
    let typo = project.run(&["subscribe", "bookd"]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(
        text(&typo.stderr).contains("did you mean `booked`?"),
        "{}",
        text(&typo.stderr)
    );
    assert_eq!(node.stop(), 0);
}

/// A server that answers each request in turn with one of `statuses`, the last for ever.
fn receiver(statuses: Vec<u16>) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (send, received) = mpsc::channel();
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let status = statuses[index.min(statuses.len() - 1)];
            let answer =
                format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).ok();
            if send.send((head, text(&body))).is_err() {
                return;
            }
        }
    });
    (url, received)
}

#[test]
fn a_webhook_subscription_gets_what_its_filter_lets_through_signed_and_retried() {
    let (url, received) = receiver(vec![503, 200]);
    let project = Project::new();
    project.write(
        "rules/topics.yaml",
        r#"
rules:
  all: { pattern: { source: [shop] }, targets: [ { topic: orders } ] }
topics:
  orders:
    subscriptions:
      ops:
        webhook: { url: "${env:OPS_HOOK}", secret: "${env:OPS_SECRET}", allow_private: true }
        filter: { total: [ { numeric: [ ">", 10 ] } ] }
        retry: { attempts: 5, base: 10ms, cap: 20ms }
"#,
    );
    let mut command = project.command(&["run", "--until-idle", "1.5"]);
    command
        .env("OPS_HOOK", &url)
        .env("OPS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let mut node = command.spawn().expect("it starts");
    project.wait("the node", || project.path("data/pointsman.sock").exists());
    let small = ORDER.replace("12.5", "3");
    let body = format!("{ORDER}\n{small}\n");
    let mut send = project.command(&["send"]);
    send.env("OPS_HOOK", &url)
        .env("OPS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let mut sending = send.stdin(Stdio::piped()).spawn().expect("it starts");
    sending
        .stdin
        .take()
        .expect("a pipe")
        .write_all(body.as_bytes())
        .expect("a write");
    assert!(sending.wait().expect("an end").success());
    assert!(node.wait().expect("an end").success());

    let got: Vec<(String, String)> = received.try_iter().collect();
    assert_eq!(got.len(), 2, "one message, tried twice: {got:?}");
    for (head, body) in &got {
        assert!(
            head.to_ascii_lowercase().contains("webhook-signature: v1,"),
            "{head}"
        );
        let message: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(message["detail"]["total"], 12.5);
    }
}

#[test]
fn http_takes_one_event_an_array_or_lines_and_names_what_is_wrong() {
    let project = shop(ONCE);
    project.write("open", "");
    let node = project.start();
    let sent = |body: &str| {
        let output = project.run_with(&["send", "--json"], body.as_bytes());
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    assert_eq!(sent(ORDER).0, Some(0));
    let (code, out, _) = sent(&format!("[{ORDER},{ORDER}]"));
    assert_eq!((code, out.matches("seq").count()), (Some(0), 2), "{out}");
    let (code, _, err) = sent(r#"{"source":"shop","detail-type":"T","detail":7}"#);
    assert_eq!(code, Some(2));
    assert!(err.contains("detail: must be a JSON object"), "{err}");
    let (_, _, err) = sent(&format!("{ORDER}\n{{\"source\":\"\"}}\n"));
    assert!(
        err.contains("1 of 2 events are wrong, none was taken"),
        "{err}"
    );
    let (_, _, err) = sent("");
    assert!(
        err.contains("the body has no event") && err.contains("hint:"),
        "{err}"
    );
    let (_, _, err) = sent("{oops");
    assert!(err.contains("the body is not JSON"), "{err}");
    let large = ORDER.replace("12.5", &format!("\"{}\"", "x".repeat(1 << 20)));
    let (_, _, err) = sent(&large);
    assert!(
        err.contains("more than the limit of 1048576 bytes"),
        "{err}"
    );
    let nowhere = project.run_with(&["send", "--bus", "defalt"], ORDER.as_bytes());
    assert!(
        text(&nowhere.stderr).contains("did you mean `default`?"),
        "{}",
        text(&nowhere.stderr)
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn metrics_and_health_answer_on_the_same_port() {
    let project = shop(ONCE);
    project.write("open", "");
    let node = project.start();
    project.run_with(&["send"], ORDER.as_bytes());
    project.wait_idle();
    let url = node
        .log()
        .lines()
        .find_map(|line| {
            line.split_once("http=")
                .map(|(_, rest)| rest.split_whitespace().next().unwrap_or("").to_owned())
        })
        .expect("the address in the log");
    let get = |path: &str| {
        let script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())";
        crate::support::python(script, &[&format!("{url}{path}")])
    };
    assert_eq!(get("/healthz").trim(), "ok");
    let metrics = get("/metrics");
    assert!(
        metrics.contains(r#"pointsman_events_accepted_total{bus="default"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"pointsman_deliveries_total{route="placed/orders",what="delivered"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains("pointsman_handler_duration_seconds_bucket"),
        "{metrics}"
    );
    assert_eq!(metrics.matches("# EOF").count(), 1);
    // The command line finds it by its address, too.
    assert!(
        project
            .ok(&["--url", &url, "audit"])
            .contains("the ledger adds up")
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_second_node_on_the_same_data_is_refused_and_says_who_is_there() {
    let project = shop(ONCE);
    let node = project.start();
    let second = project.run(&["run"]);
    assert_eq!(second.status.code(), Some(2));
    let said = text(&second.stderr);
    assert!(
        said.contains(&format!("in use by pid {}", node.pid())),
        "{said}"
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn match_answers_by_its_exit_code_and_in_batches_by_lines() {
    let project = Project::new();
    let matched = |pattern: &str| {
        project
            .run(&["match", "--pattern", pattern, "--event", ORDER])
            .status
            .code()
    };
    assert_eq!(matched(r#"{"source":["shop"]}"#), Some(0));
    assert_eq!(matched(r#"{"source":["mill"]}"#), Some(1));
    assert_eq!(matched(r#"{"source":"shop"}"#), Some(2));
    let lines = format!(
        "{}\n{}\n{}\n",
        r#"{"id":"a","pattern":{"x":[1]},"event":{"x":1}}"#,
        r#"{"id":"b","pattern":{"x":[2]},"event":{"x":1}}"#,
        r#"{"id":"c","pattern":{"x":2},"event":{"x":1}}"#
    );
    let output = project.run_with(&["match", "--batch"], lines.as_bytes());
    let answers: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(answers[0], json!({ "id": "a", "match": true }));
    assert_eq!(answers[1], json!({ "id": "b", "match": false }));
    assert_eq!(answers[2]["id"], "c");
    assert!(answers[2]["invalid"].is_string(), "{}", answers[2]);
}

#[test]
fn every_command_explains_itself() {
    let project = Project::new();
    let help = project.ok(&["--help"]);
    for command in [
        "run",
        "check",
        "send",
        "match",
        "subscribe",
        "dlq",
        "events",
        "trace",
        "audit",
        "query",
    ] {
        assert!(help.contains(&format!("  {command} ")), "{command}: {help}");
        assert!(
            project.ok(&[command, "--help"]).contains("Usage:"),
            "{command}"
        );
    }
    assert_eq!(project.run(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn drivers_are_listed_with_what_they_can_be() {
    let project = Project::new();
    let drivers = project.json(&["drivers", "--json"]);
    let drivers = drivers.as_array().expect("a list");
    let folder = drivers.iter().find(|d| d["name"] == "folder");
    let folder = folder.expect("the folder driver");
    assert_eq!(folder["roles"], serde_json::json!(["source"]));
    assert!(
        project
            .ok(&["drivers"])
            .contains("files of a watched folder")
    );
}
