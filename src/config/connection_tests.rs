//! Connections, from the YAML to what is used.

use super::tests::{load, loaded};
use super::*;
use crate::text::Text;

#[test]
fn connections_are_read_from_urls_and_fields_alike() {
    let config = load(
        r#"
connections:
  url: { amqp: { url: "amqps://me:a%20b@rabbit:5999/et%2Fl" } }
  fields: { amqp: { hosts: ["one", "[::1]:7"], user: me, password: "a b", tls: true } }
  env: { amqp: { url: "${env:RABBIT:-amqp://rabbit}" } }
  db: { postgres: { url: "postgres://me:a%20b@db:5434/dw?sslmode=require" } }
"#,
    );
    let amqp = |name: &str| match &config.connections[name] {
        Connection::Amqp(amqp) => amqp.clone(),
        other => panic!("{other:?}"),
    };
    let url = amqp("url");
    assert_eq!(url.hosts, [("rabbit".to_owned(), 5999)]);
    assert_eq!((url.user.reveal(), url.password.reveal()), ("me", "a b"));
    assert_eq!(
        (url.vhost.as_str(), url.tls),
        ("et/l", Some(Tls::default()))
    );
    let fields = amqp("fields");
    let hosts = [("one".to_owned(), 5671), ("::1".to_owned(), 7)];
    assert_eq!(fields.hosts, hosts);
    assert_eq!(amqp("env").hosts, [("rabbit".to_owned(), 5672)]);
    let Connection::Postgres(db) = &config.connections["db"] else {
        panic!("not a Postgres connection");
    };
    assert_eq!((db.host.as_str(), db.port), ("db", 5434));
    assert_eq!(db.password.as_ref().map(Text::reveal), Some("a b"));
    assert_eq!(db.database.as_deref(), Some("dw"));
    assert_eq!(db.tls, PostgresTls::Require);
    let shown = serde_json::to_string(&config).unwrap();
    let debug = format!("{config:?} {:?}", config.connections);
    for text in [shown, debug] {
        assert!(!text.contains("a b") && !text.contains("a%20b"), "{text}");
        assert!(text.contains("${env:RABBIT:-amqp://rabbit}"), "{text}");
        assert!(text.contains("amqps://me:***@rabbit:5999/et%2Fl"), "{text}");
    }
}

/// What is wrong with the way by which notifications of a bucket come.
fn wrong_notifications(said: &str) -> String {
    let yaml = format!(
        "connections: {{ cloud: {{ aws: {{}} }} }}\nsources:\n  told: {{ sqs: {{ connection: cloud, format: notification }} }}\n  shop: {{ sqs: {{ connection: cloud }} }}\n  raw: {{ s3: {{ bucket: raw, notifications: {said} }} }}\n"
    );
    let shown: Vec<String> = loaded(&yaml, &|_| None)
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .map(|d| d.message.clone())
        .collect();
    shown.join("; ")
}

#[test]
fn notifications_come_from_a_source_that_brings_them() {
    assert_eq!(wrong_notifications("{ from: told }"), "");
    assert_eq!(wrong_notifications("webhook"), "");
    let said = wrong_notifications("{ from: shop }");
    assert!(said.contains("brings events, not notifications"), "{said}");
    let said = wrong_notifications("{ from: raw }");
    assert!(said.contains("brings no notifications"), "{said}");
    let said = wrong_notifications("{ from: tols }");
    assert!(said.contains("`tols` is not declared"), "{said}");
    assert!(wrong_notifications("by-hand").contains("by-hand"));
}
