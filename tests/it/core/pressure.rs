//! Too much, or too little room: refused over HTTP with a time to come back, and
//! nothing that was accepted is lost.

use super::{http, ledger, send_numbered, shop};
use crate::support::{Project, Running};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub(super) fn order(n: u64) -> String {
    let padding = "x".repeat(4_000);
    format!(
        "{{\"source\":\"shop\",\"detail-type\":\"Order\",\"detail\":{{\"n\":{n},\"padding\":\"{padding}\"}}}}"
    )
}

/// Sends orders until one is refused; how many were accepted, and the refusal.
fn until_refused(node: &Running) -> (u64, String) {
    for n in 0..10_000 {
        let answer = http(node, "POST", "/events", &order(n));
        if !answer.starts_with("HTTP/1.1 202") {
            return (n, answer);
        }
    }
    panic!("never refused");
}

#[test]
fn at_the_mark_intake_is_refused_with_a_time_and_sources_pause() {
    let project = shop(&["book"], "");
    let quota = |bytes: &str| {
        let node = format!("node: {{ listen: 127.0.0.1:0, disk: {{ refuse: {bytes} }} }}\n");
        project.write("pointsman.yaml", node);
    };
    quota("256KiB");
    project.write(
        "rules/files.yaml",
        "
sources: { inbox: { folder: { path: inbox } } }
rules:
  files: { pattern: { detail-type: [Object Created] }, targets: [ { handler: count } ] }
handlers:
  count: { exec: { command: [sh, -c, cat >> files.ndjson] } }
",
    );
    let node = project.start();
    let (accepted, refused) = until_refused(&node);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.to_lowercase().contains("\r\nretry-after: 30\r\n"),
        "{refused}"
    );
    assert!(refused.contains("its quota"), "{refused}");
    assert!(http(&node, "GET", "/healthz", "").starts_with("HTTP/1.1 503"));
    // What was accepted is delivered all the same.
    project.wait("what was accepted", || {
        ledger(&project, "book/book")["delivered"] == accepted
    });
    project.drop_in("inbox/late.csv", "1\n");
    project.wait("the source to pause", || {
        project
            .json(&["sources", "--json"])
            .to_string()
            .contains("its quota")
            || node.log().contains("its quota")
    });
    assert_eq!(ledger(&project, "files/count")["enqueued"], 0);
    assert_eq!(node.stop(), 0);

    quota("1GiB");
    let node = project.start();
    project.wait("the file", || {
        ledger(&project, "files/count")["delivered"] == 1
    });
    send_numbered(&project, 0..1);
    project.wait_idle();
    assert_eq!(ledger(&project, "book/book")["delivered"], accepted + 1);
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    assert_eq!(node.stop(), 0);
}

/// Starts the program on a file system of its own with this many MiB, which only
/// it sees; and the folder of its data as others see it.
fn on_a_small_disk(project: &Project, mib: u32) -> (Running, PathBuf) {
    let data = project.path("data");
    fs::create_dir_all(&data).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size={mib}m tmpfs {} && exec {} run",
        data.display(),
        env!("CARGO_BIN_EXE_pointsman")
    );
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
        .args(["sh", "-c", &script])
        .current_dir(project.root());
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    let node = project.start_command(command);
    let inside = PathBuf::from(format!("/proc/{}/root", node.pid()));
    (
        node,
        inside.join(data.strip_prefix("/").expect("an absolute path")),
    )
}

#[test]
fn a_disk_that_fills_refuses_and_one_that_is_freed_goes_on() {
    let project = shop(&["book"], "");
    let (node, data) = on_a_small_disk(&project, 320);
    let mut accepted = 0;
    let mut take = |n: u64| {
        let answer = http(&node, "POST", "/events", &order(n));
        accepted += u64::from(answer.starts_with("HTTP/1.1 202"));
        answer
    };
    assert!(take(0).starts_with("HTTP/1.1 202"));
    let mut filler = fs::File::create(data.join("filler")).expect("a file");
    let block = vec![0_u8; 1 << 20];
    while filler.write_all(&block).is_ok() {}
    let refused = take(1);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.to_lowercase().contains("\r\nretry-after: "),
        "{refused}"
    );
    drop(filler);
    fs::remove_file(data.join("filler")).expect("it is there");
    project.wait("room", || take(2).starts_with("HTTP/1.1 202"));
    project.wait("the deliveries", || {
        let metrics = http(&node, "GET", "/metrics", "");
        let delivered = "pointsman_deliveries_total{route=\"book/book\",what=\"delivered\"} ";
        metrics.contains(&format!("{delivered}{accepted}\n"))
            && metrics.contains("pointsman_ledger_balanced 1\n")
    });
    assert_eq!(accepted, 2);
    assert_eq!(node.stop(), 0);
}
