//! Endpoints that are dead, gone or ask for patience.

use super::{assert_balanced, ids, order, orders, send, standing};
use crate::support::receiver::{Receiver, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_dead_endpoint_opens_its_circuit_and_its_messages_keep_their_attempts() {
    let alive = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&alive);
    let receiver = Receiver::start(move |_, _| {
        Reply::status(if seen.load(Ordering::SeqCst) {
            200
        } else {
            503
        })
    });
    let url = receiver.url("/hook");
    let project = orders(&format!(
        "      hook:\n        webhook: {{ url: '{url}', allow_private: true, concurrency: 1, circuit: {{ failures: 3, pause: 300ms, max_pause: 300ms }} }}\n        retry: {{ attempts: 3, base: 1ms, cap: 1ms }}\n"
    ));
    let node = project.start();
    let all: Vec<String> = (0..40).map(|n| order(&format!("o{n:02}"), n)).collect();
    send(&project, &all);
    project.wait("the circuit to open", || {
        standing(&project, "hook")["circuit"]["state"] != "closed"
    });
    // Several probes fail; what waits behind them is not tried meanwhile.
    project.wait("some probes", || receiver.got("/hook").len() >= 6);
    let told = standing(&project, "hook");
    assert!(told["pending"].as_u64().expect("a number") >= 36, "{told}");
    assert!(
        told["circuit"]["error"]
            .as_str()
            .expect("an error")
            .contains("503"),
        "{told}"
    );
    let metrics = metrics(&node.url());
    let line = "pointsman_endpoint_circuit{endpoint=\"topic/orders/hook\"}";
    let open = [format!("{line} 1"), format!("{line} 2")];
    assert!(
        metrics.lines().any(|l| open.iter().any(|o| o == l)),
        "{metrics}"
    );
    let listed = project.ok(&["topics"]);
    assert!(
        listed.contains("open") && listed.contains("503"),
        "{listed}"
    );

    alive.store(true, Ordering::SeqCst);
    project.wait_idle();
    let told = standing(&project, "hook");
    assert_eq!(told["circuit"]["state"], "closed", "{told}");
    let dead = told["dead"].as_u64().expect("a number");
    // Only what failed three times itself is given up; waiting costs no attempt.
    let failures = receiver.got("/hook").len() as u64 - (40 - dead);
    assert!(dead * 3 <= failures, "{failures} failures: {told}");
    let mut got = ids(&receiver, "/hook");
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 40);
    assert_balanced(&project);
    assert_eq!(node.stop(), 0);
}

fn metrics(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let answer = reqwest::get(format!("{url}/metrics")).await;
        answer.expect("an answer").text().await.expect("a text")
    })
}

#[test]
fn retry_after_is_honoured_for_the_message_and_for_those_behind_it() {
    let receiver = Receiver::start(|_, before| match before {
        0 => Reply::status(429).with("retry-after", "2"),
        _ => Reply::status(200),
    });
    let url = receiver.url("/hook");
    let project = orders(&format!(
        "      hook:\n        webhook: {{ url: '{url}', allow_private: true, concurrency: 1 }}\n        retry: {{ base: 1ms, cap: 1ms }}\n"
    ));
    let node = project.start();
    send(&project, &[order("a", 1), order("b", 2), order("c", 3)]);
    project.wait("the first", || !receiver.got("/hook").is_empty());
    project.wait_idle();
    let got = receiver.got("/hook");
    assert_eq!(got.len(), 4, "one was tried twice: {got:?}");
    let waited = got[1].at.duration_since(got[0].at);
    // The timestamps are the receiver's, so a little less than two seconds may show.
    assert!(waited >= Duration::from_millis(1_900), "{waited:?}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn gone_disables_the_subscription_durably_and_loses_nothing() {
    let back = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&back);
    let receiver = Receiver::start(move |_, _| {
        Reply::status(if seen.load(Ordering::SeqCst) {
            200
        } else {
            410
        })
    });
    let url = receiver.url("/hook");
    let project = orders(&format!(
        "      hook: {{ webhook: {{ url: '{url}', allow_private: true, concurrency: 1 }} }}\n      kept: {{ pull: {{}} }}\n"
    ));
    let node = project.start();
    send(&project, &[order("a", 1), order("b", 2)]);
    project.wait("it to be disabled", || {
        standing(&project, "hook")["state"] == "disabled"
    });
    let tried = receiver.got("/hook").len();
    node.kill();

    let node = project.start();
    send(&project, &[order("c", 3)]);
    let told = standing(&project, "hook");
    assert_eq!(told["state"], "disabled", "{told}");
    project.wait("all to wait", || standing(&project, "hook")["pending"] == 3);
    assert_eq!(standing(&project, "hook")["dead"], 0);
    assert_eq!(receiver.got("/hook").len(), tried, "nothing more was sent");
    insta::assert_snapshot!(project.ok(&["topics"]));

    back.store(true, Ordering::SeqCst);
    assert_eq!(
        project.ok(&["topics", "enable", "orders/hook"]),
        "orders/hook: active\n"
    );
    project.wait_idle();
    let mut got = ids(&receiver, "/hook").split_off(tried);
    got.sort();
    assert_eq!(got, ["a", "b", "c"]);

    // By hand, too, on a node that does not run.
    assert_eq!(node.stop(), 0);
    let said = project.ok(&["topics", "disable", "orders/hook", "--why", "they move"]);
    assert_eq!(said, "orders/hook: disabled\n");
    assert_eq!(standing(&project, "hook")["reason"], "they move");
    let none = project.run(&["topics", "disable", "orders/kept", "--why", "x"]);
    assert_eq!(none.status.code(), Some(2));
    assert_balanced(&project);
}
