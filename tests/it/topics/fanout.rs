//! Many subscribers, of which some are slow and some are dead: the others get
//! everything, each message once, while nothing of the rest is lost.

use super::{assert_balanced, order, orders, send};
use crate::support::receiver::{Receiver, Reply};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

const SUBSCRIBERS: usize = 120;
const SLOW: usize = 6;
const DEAD: usize = 3;
const MESSAGES: usize = 25;

fn path(n: usize) -> String {
    match n {
        n if n < SLOW => format!("/slow{n:03}"),
        n if n < SLOW + DEAD => format!("/dead{n:03}"),
        n => format!("/good{n:03}"),
    }
}

#[test]
fn slow_and_dead_subscribers_keep_nothing_from_the_others() {
    // The slow ones do not answer within this test, the dead ones never well.
    let receiver = Receiver::start(|got, _| match &got.path[..5] {
        "/slow" => Reply::status(200).after(Duration::from_secs(600)),
        "/dead" => Reply::status(503),
        _ => Reply::status(200),
    });
    let mut subscriptions = String::new();
    for n in 0..SUBSCRIBERS {
        let (url, name) = (receiver.url(&path(n)), path(n)[1..].to_owned());
        writeln!(
            subscriptions,
            "      {name}: {{ webhook: {{ url: '{url}', allow_private: true, timeout: 10m, circuit: {{ pause: 10m }} }} }}"
        )
        .expect("a line");
    }
    let project = orders(&subscriptions);
    let node = project.start();
    let all: Vec<String> = (0..MESSAGES)
        .map(|n| order(&format!("o{n:03}"), i64::try_from(n).expect("small")))
        .collect();
    send(&project, &all);
    let good = || (SLOW + DEAD..SUBSCRIBERS).map(|n| receiver.got(&path(n)));
    project.wait("all messages at all good subscribers", || {
        good().all(|got| got.len() >= MESSAGES)
    });
    project.wait("the good ones' books", || {
        let routes = project.json(&["queues", "--json"]);
        let routes = routes.as_array().expect("routes");
        let good = routes.iter().filter(|r| {
            let name = r["route"].as_str().expect("a name");
            name.starts_with("topic/orders/good")
        });
        good.clone().count() == SUBSCRIBERS - SLOW - DEAD && good.clone().all(|r| r["pending"] == 0)
    });

    let wanted: BTreeSet<String> = (0..MESSAGES).map(|n| format!("o{n:03}")).collect();
    for got in good() {
        let ids: Vec<String> = got
            .iter()
            .map(|got| got.json()["id"].as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(ids.len(), MESSAGES, "each came once: {ids:?}");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), wanted);
    }
    let topics = project.json(&["topics", "--json"]);
    let told = &topics["orders"]["subscriptions"];
    for n in 0..SLOW + DEAD {
        let one: &Value = &told[&path(n)[1..]];
        assert_eq!(one["pending"], MESSAGES, "all of {} wait: {one}", path(n));
        assert_eq!(one["dead"], 0, "{one}");
    }
    for n in SLOW..SLOW + DEAD {
        let one = &told[&path(n)[1..]];
        assert_eq!(one["circuit"]["state"], "open", "{one}");
        // Those under way when it opened, and no more.
        assert!(receiver.got(&path(n)).len() <= 5 + 10, "{one}");
    }
    assert_balanced(&project);
    drop(node);
}
