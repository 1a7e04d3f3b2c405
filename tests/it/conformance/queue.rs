//! What every queue does, wherever its messages wait.

use super::backing::{Backing, unique};
use crate::support::proxy::Proxy;
use crate::support::{Project, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// Notes each message that it is given, and does as the message's `detail.do` says.
const HANDLER: &str = r#"
import fcntl, json, os, signal, sys, time
failures = []
for line in sys.stdin:
    event = json.loads(line)
    detail = event["detail"]
    note = {"id": event["id"], "n": detail.get("n"), "key": detail.get("key"),
            "at": time.time(), "pid": os.getpid(), "event": event}
    what = detail.get("do", "")
    def told(name):
        with open(name, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(note) + "\n")
    told("tried.ndjson")
    once = os.path.join("once", event["id"].replace("/", "_"))
    if what == "fail once" and not os.path.exists(once):
        os.makedirs("once", exist_ok=True)
        open(once, "w").close()
        failures.append(event["id"])
        continue
    if what == "fail" and not os.path.exists("mended"):
        failures.append(event["id"])
        continue
    if what == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if what.startswith("sleep "):
        time.sleep(float(what[6:]))
    told("done.ndjson")
print(json.dumps({"batchItemFailures": [{"itemIdentifier": id} for id in failures]}))
"#;

/// A rule that sends everything to one queue, and the handler that reads it.
/// `queue`: fields of the queue, each ending with a comma; `handler`: fields of the
/// handler, in lines.
fn project(backing: Backing, queue: &str, handler: &str) -> Project {
    let name = unique("suite");
    let queue = backing.queue(&name, queue);
    let project = backing.project(&format!(
        r#"
queues:
  work: {queue}
rules:
  all:
    pattern: {{ source: [suite] }}
    targets: [{{ queue: work }}]
handlers:
  worker:
    from: work
    timeout: 30s
    exec: {{ command: [python3, handler.py] }}
{handler}
"#
    ));
    project.write("handler.py", HANDLER);
    project
}

fn event(id: &str, detail: &Value) -> String {
    json!({ "id": id, "source": "suite", "detail-type": "T", "detail": detail }).to_string()
}

fn send(project: &Project, events: &[String]) {
    let output = project.run_with(&["send", "-"], events.join("\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Makes the data folder, so that events can be sent while no node runs.
fn made(project: &Project) {
    assert_eq!(project.start().stop(), 0);
}

fn notes(project: &Project, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(project.path(file)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parsed = whole.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().expect("notes")
}

fn ids(notes: &[Value]) -> BTreeSet<String> {
    let id = |note: &Value| note["id"].as_str().expect("an id").to_owned();
    notes.iter().map(id).collect()
}

fn wait_done(project: &Project, wanted: &BTreeSet<String>) {
    project.wait("every message", || {
        ids(&notes(project, "done.ndjson")).is_superset(wanted)
    });
}

fn balanced(project: &Project) {
    project.ok(&["audit"]);
}

fn every_message_arrives(backing: Backing) {
    let project = project(backing, "", "    batch: { size: 50, window: 100ms }");
    let node = project.start();
    let events: Vec<String> = (0..300)
        .map(|n| {
            event(
                &format!("e-{n}"),
                &json!({ "n": n, "text": "Zürich 🚆 \u{1} \"quoted\"" }),
            )
        })
        .collect();
    send(&project, &events);
    wait_done(&project, &(0..300).map(|n| format!("e-{n}")).collect());
    project.wait_idle();
    let done = notes(&project, "done.ndjson");
    assert_eq!(done.len(), 300, "some were handled twice");
    for note in &done {
        assert_eq!(
            note["event"]["detail"]["text"],
            "Zürich 🚆 \u{1} \"quoted\""
        );
    }
    balanced(&project);
    assert_eq!(node.stop(), 0);
}

fn failures_are_retried_and_then_dead_lettered(backing: Backing) {
    let retry =
        "    retry: { attempts: 3, base: 10ms, cap: 20ms }\n    batch: { size: 5, window: 50ms }";
    let project = project(backing, "", retry);
    let node = project.start();
    let events: Vec<String> = (0..20)
        .map(|n| {
            let what = match n {
                7 => "fail",
                8 => "fail once",
                _ => "",
            };
            event(&format!("e-{n}"), &json!({ "n": n, "do": what }))
        })
        .collect();
    send(&project, &events);
    let fine: BTreeSet<String> = (0..20)
        .filter(|n| *n != 7)
        .map(|n| format!("e-{n}"))
        .collect();
    wait_done(&project, &fine);
    project.wait("a dead letter", || {
        project.json_lines(&["dlq", "list", "--json"]).len() == 1
    });
    let tried = notes(&project, "tried.ndjson");
    let tries = |id: &str| tried.iter().filter(|note| note["id"] == id).count();
    assert_eq!((tries("e-7"), tries("e-8"), tries("e-9")), (3, 2, 1));
    let letter = &project.json_lines(&["dlq", "list", "--json"])[0];
    assert_eq!(
        letter["errors"].as_array().map(Vec::len),
        Some(3),
        "{letter}"
    );
    balanced(&project);

    project.write("mended", "");
    project.ok(&["dlq", "redrive", "--all"]);
    wait_done(&project, &(0..20).map(|n| format!("e-{n}")).collect());
    project.wait_idle();
    assert_eq!(notes(&project, "done.ndjson").len(), 20);
    balanced(&project);
    assert_eq!(node.stop(), 0);
}

/// Notes of a key, in the order of their handling.
fn of_key(notes: &[Value], key: u64) -> Vec<u64> {
    let mine = notes.iter().filter(|note| note["key"] == key);
    mine.map(|note| note["n"].as_u64().expect("a number"))
        .collect()
}

fn order_holds_within_a_key_and_through_retries(backing: Backing) {
    let retry =
        "    retry: { attempts: 4, base: 300ms, cap: 300ms }\n    batch: { size: 4, window: 20ms }";
    let project = project(backing, "order_by: detail.key,", retry);
    let node = project.start();
    let events: Vec<String> = (0..60)
        .map(|n| {
            let what = if n == 11 || n == 24 { "fail once" } else { "" };
            event(
                &format!("e-{n}"),
                &json!({ "n": n, "key": n % 4, "do": what }),
            )
        })
        .collect();
    send(&project, &events);
    wait_done(&project, &(0..60).map(|n| format!("e-{n}")).collect());
    let done = notes(&project, "done.ndjson");
    for key in 0..4 {
        let wanted: Vec<u64> = (0..60).filter(|n| n % 4 == key).collect();
        assert_eq!(of_key(&done, key), wanted, "key {key}");
    }
    project.wait_idle();
    balanced(&project);
    assert_eq!(node.stop(), 0);
}

fn a_crash_brings_back_what_was_not_done(backing: Backing) {
    let project = project(backing, "", "    batch: { size: 5 }");
    let node = project.start();
    let mut events: Vec<String> = (0..10)
        .map(|n| event(&format!("e-{n}"), &json!({ "n": n, "do": "sleep 1" })))
        .collect();
    send(&project, &events);
    project.wait("some to be tried", || {
        !notes(&project, "tried.ndjson").is_empty()
    });
    node.kill();
    let node = project.start();
    events.truncate(0);
    wait_done(&project, &(0..10).map(|n| format!("e-{n}")).collect());
    project.wait_idle();
    balanced(&project);
    assert_eq!(node.stop(), 0);
}

fn a_delay_holds_messages_back(backing: Backing) {
    let project = project(backing, "delay: 2s,", "");
    let node = project.start();
    let sent = std::time::SystemTime::now();
    let sent = sent.duration_since(std::time::UNIX_EPOCH).expect("a time");
    send(&project, &[event("late", &json!({ "n": 1 }))]);
    wait_done(&project, &BTreeSet::from(["late".to_owned()]));
    let at = notes(&project, "done.ndjson")[0]["at"].as_f64();
    assert!(at.expect("a time") >= sent.as_secs_f64() + 2.0);
    assert_eq!(node.stop(), 0);
}

fn large_messages_pass_whole(backing: Backing) {
    // Larger than what the queue takes at the broker, so it goes by a file.
    let project = project(backing, "", "");
    let name = project.path("rules/pipeline.yaml");
    let rules = fs::read_to_string(&name).expect("the rules");
    fs::write(
        &name,
        rules.replace("queue: suite", "max_message_size: 64KiB, queue: suite"),
    )
    .expect("the rules");
    let node = project.start();
    let text = "Grüße 🚆 ".repeat(40_000);
    send(
        &project,
        &[event("large", &json!({ "n": 1, "text": text }))],
    );
    wait_done(&project, &BTreeSet::from(["large".to_owned()]));
    assert_eq!(
        notes(&project, "done.ndjson")[0]["event"]["detail"]["text"],
        text.as_str()
    );
    project.wait("its file to go", || {
        fs::read_dir(project.path("data/claims")).map_or(0, Iterator::count) == 0
    });
    assert_eq!(node.stop(), 0);
}

fn a_handler_that_works_longer_than_the_visibility_keeps_its_message(backing: Backing) {
    let project = project(backing, "visibility: 10s,", "    batch: { size: 1 }");
    let node = project.start();
    send(&project, &[event("slow", &json!({ "do": "sleep 16" }))]);
    wait_done(&project, &BTreeSet::from(["slow".to_owned()]));
    project.wait_idle();
    assert_eq!(
        notes(&project, "tried.ndjson").len(),
        1,
        "it was handed out again"
    );
    assert_eq!(notes(&project, "done.ndjson").len(), 1);
    balanced(&project);
    assert_eq!(node.stop(), 0);
}

fn a_message_that_kills_the_process_is_dead_lettered_after_its_cap(backing: Backing) {
    let handler = "    retry: { lost: 3 }\n    batch: { size: 1 }\n    concurrency: 1";
    let project = project(backing, "visibility: 4s,", handler);
    let rules = project.path("rules/pipeline.yaml");
    let text = fs::read_to_string(&rules).expect("the rules");
    fs::write(&rules, text.replace("timeout: 30s", "timeout: 3s")).expect("the rules");
    let events = [
        event("before", &json!({})),
        event("poison", &json!({ "do": "kill" })),
        event("after", &json!({})),
    ];
    made(&project);
    send(&project, &events);
    let mut deaths = 0;
    let node = loop {
        let mut node = project.start_unchecked(&[]);
        let mut ended = false;
        project.wait("a death, or a dead letter", || {
            ended = node.has_ended();
            ended || node.log().contains("dead-lettered")
        });
        if !ended {
            break node;
        }
        deaths += 1;
        assert!(deaths <= 6, "it is tried again and again:\n{}", node.log());
    };
    assert!(deaths >= 1);
    let fine = ["before", "after"].map(str::to_owned);
    wait_done(&project, &BTreeSet::from(fine));
    project.wait("the dead letter", || {
        project.json_lines(&["dlq", "list", "--json"]).len() == 1
    });
    let letter = &project.json_lines(&["dlq", "list", "--json"])[0];
    assert_eq!(letter["event"]["id"], "poison");
    assert!(
        letter["errors"].to_string().contains("NeverSettled"),
        "{letter}"
    );
    project.wait_idle();
    balanced(&project);
    assert_eq!(node.stop(), 0);
}

fn a_run_until_idle_ends_when_the_last_message_is_done(backing: Backing) {
    let handler = "    batch: { size: 1 }\n    concurrency: 1";
    let project = project(backing, "", handler);
    let events: Vec<String> = (0..6)
        .map(|n| event(&format!("e-{n}"), &json!({ "n": n, "do": "sleep 0.6" })))
        .collect();
    made(&project);
    send(&project, &events);
    project.ok(&["run", "--until-idle", "0.2"]);
    assert_eq!(notes(&project, "done.ndjson").len(), 6);
    balanced(&project);
}

fn what_waits_is_counted_wherever_it_is(backing: Backing) {
    let name = unique("counted");
    let queue = backing.queue(&name, "");
    let project = backing.project(&format!(
        "queues: {{ work: {queue} }}\nrules: {{ all: {{ pattern: {{ source: [suite] }}, targets: [{{ queue: work }}] }} }}\n"
    ));
    let node = project.start();
    let events: Vec<String> = (0..7)
        .map(|n| event(&format!("e-{n}"), &json!({ "n": n })))
        .collect();
    send(&project, &events);
    project.wait("all of them to be counted", || {
        let routes = project.json(&["queues", "--json"]);
        let routes = routes.as_array().expect("routes");
        let of = |name: &str| routes.iter().find(|route| route["route"] == name);
        match backing {
            Backing::Embedded => of("all/work").expect("the route")["pending"] == 7,
            _ => {
                let work = of("queue/work").expect("the queue's route");
                work["broker"]["ready"] == 7 && of("all/work").expect("it")["pending"] == 0
            }
        }
    });
    // Nobody here reads it, so there is nothing to wait for.
    let table = project.ok(&["queues"]);
    if backing != Backing::Embedded {
        let line = table.lines().find(|line| line.starts_with("queue/work"));
        assert!(line.expect("its line").contains(" 7 "), "{table}");
    }
    assert_eq!(node.stop(), 0);
    project.ok(&["run", "--until-idle", "0.2"]);
}

fn a_cut_connection_is_made_again(backing: Backing) {
    // What SQS has handed into a cut comes again after the visibility timeout.
    let handler = "    batch: { size: 20, window: 20ms }";
    let project = project(backing, "visibility: 8s,", handler);
    let proxy = backing.address().map(Proxy::start);
    if let Some(proxy) = &proxy {
        project.write(
            "rules/connections.yaml",
            backing.reached_at(proxy.address()),
        );
    }
    let node = project.start();
    for chunk in 0..6 {
        let events: Vec<String> = (chunk * 50..(chunk + 1) * 50)
            .map(|n| event(&format!("e-{n}"), &json!({ "n": n })))
            .collect();
        send(&project, &events);
        proxy.iter().for_each(Proxy::cut);
    }
    wait_done(&project, &(0..300).map(|n| format!("e-{n}")).collect());
    project.wait_idle();
    assert!(project.json_lines(&["dlq", "list", "--json"]).is_empty());
    balanced(&project);
    assert_eq!(node.stop(), 0);
}

/// The suite, against one system.
macro_rules! suite {
    ($system:ident, $backing:expr, $($test:ident)*) => {
        mod $system {
            use super::Backing;
            $(
                #[test]
                fn $test() {
                    super::$test($backing);
                }
            )*
        }
    };
}

macro_rules! suites {
    ($($test:ident)*) => {
        suite!(embedded, Backing::Embedded, $($test)*);
        suite!(rabbitmq, Backing::RabbitMq, $($test)*);
        suite!(sqs, Backing::Sqs, $($test)*);
    };
}

suites! {
    a_crash_brings_back_what_was_not_done
    a_cut_connection_is_made_again
    a_delay_holds_messages_back
    a_handler_that_works_longer_than_the_visibility_keeps_its_message
    a_message_that_kills_the_process_is_dead_lettered_after_its_cap
    a_run_until_idle_ends_when_the_last_message_is_done
    what_waits_is_counted_wherever_it_is
    every_message_arrives
    large_messages_pass_whole
    order_holds_within_a_key_and_through_retries
    failures_are_retried_and_then_dead_lettered
}
