//! Webhooks in SNS's shape.

use super::{assert_balanced, order, orders, send, standing};
use crate::support::receiver::{Got, Receiver, Reply};
use crate::support::{Project, Running, python};
use serde_json::Value;

/// Checks a message with a certificate, by Amazon's recipe, in another language:
/// <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html>
const VERIFY: &str = r#"
import base64, json, sys, urllib.request
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives import hashes
message = json.loads(sys.argv[1])
names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
if message["Type"] != "Notification":
    names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
text = "".join(f"{n}\n{message[n]}\n" for n in names if n in message)
assert message["SignatureVersion"] == "2"
pem = urllib.request.urlopen(message["SigningCertURL"]).read()
key = x509.load_pem_x509_certificate(pem).public_key()
key.verify(base64.b64decode(message["Signature"]), text.encode(), padding.PKCS1v15(), hashes.SHA256())
try:
    key.verify(base64.b64decode(message["Signature"]), (text + "x").encode(), padding.PKCS1v15(), hashes.SHA256())
    sys.exit("a changed text was taken")
except Exception:
    print("good")
"#;

const FETCH: &str =
    "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())";

fn subscribed(receiver: &Receiver, more: &str) -> Project {
    let url = receiver.url("/hook");
    orders(&format!(
        "      partner: {{ webhook: {{ url: '{url}', allow_private: true{more} }} }}\n"
    ))
}

/// Waits for the request to confirm that comes after `before` others.
fn asked(project: &Project, receiver: &Receiver, before: usize) -> Got {
    let confirmations = || -> Vec<Got> {
        let got = receiver.got("/hook");
        got.into_iter()
            .filter(|got| got.header("x-amz-sns-message-type") == "SubscriptionConfirmation")
            .collect()
    };
    project.wait("a request to confirm", || confirmations().len() > before);
    confirmations().swap_remove(before)
}

fn started(receiver: &Receiver, more: &str) -> (Project, Running) {
    let project = subscribed(receiver, more);
    let node = project.start();
    (project, node)
}

/// A message with what changes from run to run left out.
fn shown(message: &Value, node: &Running) -> String {
    let mut message = message.clone();
    for (name, mark) in [
        ("Signature", "[signature]"),
        ("Token", "[token]"),
        ("Timestamp", "[time]"),
    ] {
        if message[name].is_string() {
            message[name] = mark.into();
        }
    }
    if message["Type"] == "SubscriptionConfirmation" {
        message["MessageId"] = "[id]".into();
    }
    for name in ["SubscribeURL", "UnsubscribeURL", "SigningCertURL"] {
        if let Some(url) = message[name].as_str() {
            let url = url.replace(&node.url(), "[node]");
            let cut = url.find("token=").map(|at| at + 6).or(url.rfind('-'));
            message[name] = format!("{}[secret]", &url[..cut.expect("a mark")]).into();
        }
    }
    serde_json::to_string_pretty(&message).expect("JSON")
}

#[test]
fn nothing_flows_until_the_endpoint_has_confirmed_and_then_everything_does() {
    let receiver = Receiver::start(|_, _| Reply::status(200));
    let (project, node) = started(&receiver, ", format: sns");
    send(&project, &[order("a", 1)]);
    let confirmation = asked(&project, &receiver, 0);
    assert_eq!(
        confirmation.header("content-type"),
        "text/plain; charset=UTF-8"
    );
    let message = confirmation.json();
    insta::assert_snapshot!("confirmation", shown(&message, &node));
    assert_eq!(python(VERIFY, &[&message.to_string()]), "good\n");
    project.wait("the message to wait", || {
        standing(&project, "partner")["pending"] == 1
    });
    assert_eq!(standing(&project, "partner")["state"], "pending");
    assert_eq!(receiver.got("/hook").len(), 1, "only the request came");

    let link = message["SubscribeURL"].as_str().expect("a link");
    let wrong = link.replace("token=", "token=0");
    let refused = std::panic::catch_unwind(|| python(FETCH, &[&wrong]));
    assert!(refused.is_err(), "a wrong token was taken");
    let answer = python(FETCH, &[link]);
    assert!(
        answer.contains(
            "<SubscriptionArn>arn:aws:sns:local:000000000000:orders:partner</SubscriptionArn>"
        ),
        "{answer}"
    );
    project.wait("the message", || receiver.got("/hook").len() == 2);
    let got = receiver.got("/hook").swap_remove(1);
    let notification = got.json();
    insta::assert_snapshot!("notification", shown(&notification, &node));
    assert_eq!(python(VERIFY, &[&notification.to_string()]), "good\n");
    assert_eq!(got.header("x-amz-sns-message-type"), "Notification");
    assert_eq!(got.header("x-amz-sns-message-id"), "a");
    assert_eq!(
        got.header("x-amz-sns-topic-arn"),
        "arn:aws:sns:local:000000000000:orders"
    );
    let event: Value =
        serde_json::from_str(notification["Message"].as_str().expect("text")).expect("JSON");
    assert_eq!(event["detail"]["total"], 1);
    assert_eq!(node.stop(), 0);

    // Confirmed once is confirmed, until the endpoint leaves.
    let node = project.start();
    send(&project, &[order("b", 2)]);
    project.wait("the next message", || receiver.got("/hook").len() == 3);
    let third = receiver.got("/hook")[2].json();
    assert_eq!(third["MessageId"], "b");
    python(FETCH, &[third["UnsubscribeURL"].as_str().expect("a link")]);
    let told = standing(&project, "partner");
    assert_eq!(told["state"], "disabled", "{told}");
    assert_eq!(
        project.ok(&["topics", "enable", "orders/partner"]),
        "orders/partner: pending\n"
    );
    asked(&project, &receiver, 1);
    assert_balanced(&project);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_request_to_confirm_that_fails_is_repeated_and_the_reason_is_shown() {
    let receiver = Receiver::start(|_, before| Reply::status(if before == 0 { 500 } else { 200 }));
    let (project, node) = started(&receiver, ", format: sns");
    project.wait("the reason", || {
        let told = standing(&project, "partner");
        told["reason"]
            .as_str()
            .is_some_and(|why| why.contains("500"))
    });
    let first = asked(&project, &receiver, 0).json();
    let second = asked(&project, &receiver, 1).json();
    assert_eq!(first["Token"], second["Token"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn raw_delivery_is_the_message_itself_with_the_headers_of_sns() {
    let receiver = Receiver::start(|_, _| Reply::status(200));
    let (project, node) = started(&receiver, ", format: raw");
    send(&project, &[order("a", 7)]);
    project.wait("the message", || receiver.got("/hook").len() == 1);
    let got = receiver.got("/hook").swap_remove(0);
    assert_eq!(got.json()["detail"]["total"], 7);
    assert_eq!(got.header("x-amz-sns-rawdelivery"), "true");
    assert_eq!(
        got.header("x-amz-sns-subscription-arn"),
        "arn:aws:sns:local:000000000000:orders:partner"
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn links_lead_where_the_node_is_said_to_be() {
    let receiver = Receiver::start(|_, _| Reply::status(200));
    let project = subscribed(&receiver, ", format: sns");
    project.write(
        "pointsman.yaml",
        "node: { listen: 127.0.0.1:0, public_url: 'https://events.example.com/bus/' }\n",
    );
    let node = project.start();
    let message = asked(&project, &receiver, 0).json();
    let link = message["SubscribeURL"].as_str().expect("a link");
    assert!(
        link.starts_with(
            "https://events.example.com/bus/topics/orders/subscriptions/partner/confirm?token="
        ),
        "{link}"
    );
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_reload_brings_subscriptions_and_leaves_those_alone_that_stay() {
    let receiver =
        Receiver::start(|got, _| Reply::status(if got.path == "/dead" { 503 } else { 200 }));
    let dead = format!(
        "      dead: {{ webhook: {{ url: '{}', allow_private: true, concurrency: 1, circuit: {{ failures: 2, pause: 10m }} }}, retry: {{ base: 1ms, cap: 1ms }} }}\n",
        receiver.url("/dead")
    );
    let project = orders(&dead);
    let node = project.start();
    send(&project, &[order("a", 1)]);
    let circuit = || standing(&project, "dead")["circuit"]["state"].clone();
    project.wait("the circuit to open", || circuit() == "open");

    let more = format!(
        "{dead}      partner: {{ webhook: {{ url: '{}', allow_private: true, format: sns }} }}\n",
        receiver.url("/hook")
    );
    let rules = std::fs::read_to_string(project.path("rules/topics.yaml")).expect("rules");
    project.write("rules/topics.yaml", rules.replace(&dead, &more));
    project.ok(&["reload"]);
    let link = asked(&project, &receiver, 0).json();
    python(FETCH, &[link["SubscribeURL"].as_str().expect("a link")]);
    send(&project, &[order("b", 2)]);
    project.wait("the message", || receiver.got("/hook").len() == 2);
    assert_eq!(circuit(), "open", "it is the one from before");
    assert_eq!(receiver.got("/dead").len(), 2);

    project.write("rules/topics.yaml", rules);
    project.ok(&["reload"]);
    assert!(standing(&project, "partner").is_null());
    let listed = project.json(&["topics", "--json"]);
    assert_eq!(listed["orders"]["subscriptions"]["dead"]["pending"], 2);
    assert_eq!(node.stop(), 0);
}
