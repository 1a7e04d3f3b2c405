//! TLS with certificates of one's own, and clusters of which a node is down.

use crate::conformance::unique;
use crate::support::rabbitmq::{self, RabbitMq, free_port};
use crate::support::{Project, text};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::path::Path;

/// An authority in `folder` (`NAME.pem`), and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("a file");
        let issuer = Issuer::new(params, key);
        Self { issuer }
    }

    /// A certificate and its key, for a server at `localhost` and for clients.
    fn sign(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(folder.join(format!("{name}.pem")), signed.pem()).expect("a file");
        fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).expect("a file");
    }
}

fn project(connection: &str) -> Project {
    let project = Project::new();
    let queue = unique("secure");
    project.write(
        "rules/a.yaml",
        format!(
            "connections: {{ rabbit: {{ amqp: {{ {connection} }} }} }}\nqueues: {{ work: {{ amqp: {{ connection: rabbit, queue: {queue} }} }} }}\nrules: {{ all: {{ pattern: {{ source: [s] }}, targets: [{{ queue: work }}] }} }}\nhandlers: {{ note: {{ from: work, exec: {{ command: [sh, -c, 'cat >> done.ndjson'] }} }} }}\n"
        ),
    );
    project
}

/// Sends an event through the queue and waits until it is handled.
fn flows(project: &Project) {
    let node = project.start();
    let event = json!({ "id": "a", "source": "s", "detail-type": "T", "detail": {} });
    let sent = project.run_with(&["send"], event.to_string().as_bytes());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    project.wait("the event", || {
        fs::read_to_string(project.path("done.ndjson")).is_ok_and(|t| t.contains("\"a\""))
    });
    project.wait_idle();
    project.ok(&["audit"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_broker_with_a_certificate_of_ones_own_is_reached_and_others_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new(folder.path(), "ca");
    authority.sign(folder.path(), "server");
    authority.sign(folder.path(), "client");
    Authority::new(folder.path(), "other").sign(folder.path(), "stranger");
    let port = free_port();
    let _broker = RabbitMq::start_with(&format!(
        "listeners.ssl.local = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true",
        at("ca.pem"),
        at("server.pem"),
        at("server-key.pem"),
    ));
    let tls = |ca: &str, who: &str| {
        format!(
            "hosts: \"localhost:{port}\", tls: {{ ca: {}, cert: {}, key: {} }}",
            at(&format!("{ca}.pem")),
            at(&format!("{who}.pem")),
            at(&format!("{who}-key.pem")),
        )
    };
    let good = project(&tls("ca", "client"));
    let said = good.ok(&["check", "--connect"]);
    assert!(said.contains("connection rabbit: connected"), "{said}");
    flows(&good);

    let refused = |connection: &str| {
        let output = project(connection).run(&["check", "--connect"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    };
    // A server whose authority we do not know, and a client whose authority it does not.
    let said = refused(&tls("other", "client"));
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    refused(&tls("ca", "stranger"));
    let said = refused(&tls("nowhere", "client"));
    assert!(said.contains("nowhere.pem cannot be read"), "{said}");
    refused(&format!("hosts: \"localhost:{port}\""));
}

#[test]
fn a_node_of_the_cluster_that_is_down_is_passed_over() {
    let (dead, alive) = (free_port(), rabbitmq::shared().address());
    let hosts = format!("hosts: [\"127.0.0.1:{dead}\", \"{alive}\"]");
    let project = project(&hosts);
    let said = project.ok(&["check", "--connect"]);
    assert!(said.contains("connection rabbit: connected"), "{said}");
    flows(&project);
}
