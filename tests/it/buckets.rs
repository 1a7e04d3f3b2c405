//! The flights, from bucket to bucket, by the real program: the same as from
//! folder to folder, with nothing but the source and the `write` changed.

use crate::support::seaweedfs::{self, SeaweedFs};
use crate::support::{Project, aws, repo};
use std::fs;
use std::process::Command;

const FLIGHTS: &str =
    "select carrier, flight, tailnum, origin, dest, sched_dep, dep_delay, arr_delay, airline
    from flights order by sched_dep, carrier, flight, origin";

/// The shipped project; `inbox` and `samples` make room for `source`.
fn project(source: &str, write: &str, connection: &str) -> Project {
    let project = Project::shipped();
    let rules = fs::read_to_string(project.path("rules/flights.yaml")).expect("rules");
    let (head, rest) = rules.split_once("sources:\n").expect("sources");
    let (_, rest) = rest.split_once("queues:\n").expect("queues");
    let rest = rest.replace(
        "        table: flights\n        partition_by: month\n",
        &format!("        table: flights\n        partition_by: month\n{write}"),
    );
    project.write(
        "rules/flights.yaml",
        format!("{head}sources:\n{source}\nqueues:\n{rest}"),
    );
    project.write(
        "pointsman.yaml",
        format!("node: {{ listen: 127.0.0.1:0 }}\n{connection}"),
    );
    project
}

fn in_buckets(server: &SeaweedFs, raw: &str, lake: &str, more: &str) -> Project {
    project(
        &format!(
            "  raw: {{ s3: {{ connection: weed, bucket: {raw}, prefix: in/, every: 1s{more} }} }}\n"
        ),
        &format!("        s3: {{ connection: weed, bucket: {lake}, prefix: clean }}\n"),
        &format!("connections:\n  weed: {}\n", server.connection()),
    )
}

/// Uploads the sample's files.
fn upload(server: &SeaweedFs, bucket: &str) -> i64 {
    let script = "
import glob, os
files = sorted(f for f in glob.glob(sys.argv[3] + '/flights-*.csv') if 'broken' not in f)
for f in files:
    s3.upload_file(f, sys.argv[2], 'in/' + os.path.basename(f))
print(len(files))
";
    let inbox = repo().join("examples/flights/inbox");
    let said = server.boto(script, &[bucket, inbox.to_str().expect("a path")]);
    said.trim().parse().expect("a number")
}

#[test]
fn the_flights_go_from_bucket_to_bucket_as_from_folder_to_folder() {
    let server = seaweedfs::shared();
    let (raw, lake) = (server.bucket("raw"), server.bucket("lake"));
    let folders = project(
        "  samples: { folder: { path: examples/flights/inbox, include: [\"flights-*.csv\"], exclude: [\"*broken*\"] } }\n",
        "",
        "",
    );
    let from_folders = folders.start();
    let files = upload(server, &raw);
    let buckets = in_buckets(server, &raw, &lake, "");
    let from_buckets = buckets.start();
    for project in [&folders, &buckets] {
        project.wait("all rows", || {
            project.count("select count(*) from flights") == Some(7968)
        });
        project.wait_idle();
    }
    let rows = |project: &Project| project.ok(&["query", FLIGHTS, "--format", "csv"]);
    assert!(rows(&folders) == rows(&buckets), "the tables differ");
    assert_eq!(
        buckets.count("select count(*) from lake.flights"),
        Some(7968)
    );
    // What was published lies in the bucket, each file named by a manifest, and
    // nothing else does.
    let script = "
keys = [o['Key'] for p in s3.get_paginator('list_objects_v2').paginate(Bucket=sys.argv[2]) for o in p.get('Contents', [])]
named = set()
for k in keys:
    if '/_manifests/' in k:
        named |= {o['path'] for o in json.load(s3.get_object(Bucket=sys.argv[2], Key=k)['Body'])['outputs']}
data = {'s3://%s/%s' % (sys.argv[2], k) for k in keys if k.endswith('.parquet')}
assert data == named, (data ^ named)
assert all(k.startswith('clean/flights/') for k in keys), keys
print(sum('/_manifests/' in k for k in keys), sum('/_attempts/' in k for k in keys))
";
    let said = server.boto(script, &[&lake]);
    assert_eq!(said.trim(), format!("{files} 0"));
    assert_eq!(buckets.json(&["audit", "--json"])["balanced"], true);
    // Killed, and started again: everything is known.
    from_buckets.kill();
    let again = buckets.start();
    buckets.ok(&["sources", "rescan", "raw"]);
    buckets.wait_idle();
    let sources = buckets.json(&["sources", "--json"]);
    assert_eq!(sources["raw"]["objects"]["accepted"], files, "{sources}");
    assert_eq!(sources["raw"]["counts"]["accepted"], 0, "{sources}");
    assert_eq!(buckets.count("select count(*) from flights"), Some(7968));
    drop((again, from_folders));
}

#[test]
fn an_object_that_is_gone_or_replaced_before_it_is_read_is_superseded() {
    let server = seaweedfs::shared();
    let (raw, lake) = (server.bucket("raw"), server.bucket("lake"));
    let project = in_buckets(server, &raw, &lake, "");
    // Taken while nobody works on the queue.
    let running = project.start();
    project.ok(&["queues", "pause", "csv-arrived/to-transform"]);
    let header = fs::read_to_string(repo().join("examples/flights/inbox/flights-2013-01-01.csv"));
    let header = header.expect("a sample");
    let two: String = header.lines().take(2).map(|l| format!("{l}\n")).collect();
    let put = "s3.put_object(Bucket=sys.argv[2], Key=sys.argv[3], Body=sys.argv[4].encode())";
    server.boto(put, &[&raw, "in/gone.csv", &two]);
    server.boto(put, &[&raw, "in/changed.csv", &format!("{two}x")]);
    let accepted = |n: i64| {
        project.wait("objects", || {
            project.json(&["sources", "--json"])["raw"]["counts"]["accepted"] == n
        });
    };
    accepted(2);
    let delete = "s3.delete_object(Bucket=sys.argv[2], Key=sys.argv[3])";
    server.boto(delete, &[&raw, "in/gone.csv"]);
    server.boto(put, &[&raw, "in/changed.csv", &two]);
    accepted(3);
    project.ok(&["queues", "resume", "csv-arrived/to-transform"]);
    project.wait("the row", || {
        project.count("select count(*) from flights") == Some(1)
    });
    project.wait_idle();
    let events = project.json_lines(&["events", "list", "--json", "--limit", "100"]);
    let text = serde_json::json!(events).to_string();
    assert_eq!(text.matches("\"Object Superseded\"").count(), 2, "{text}");
    assert!(
        text.contains("ObjectGone") && text.contains("ObjectChanged"),
        "{text}"
    );
    assert_eq!(project.ok(&["dlq", "list", "--json"]), "");
    assert_eq!(project.json(&["audit", "--json"])["balanced"], true);
    running.stop();
}

#[test]
fn notifications_that_are_posted_bring_objects_at_once() {
    let server = seaweedfs::shared();
    let (raw, lake) = (server.bucket("raw"), server.bucket("lake"));
    let project = in_buckets(server, &raw, &lake, ", notifications: webhook");
    let running = project.start();
    project.ok(&["sources", "rescan", "raw"]);
    let put = "s3.put_object(Bucket=sys.argv[2], Key='in/a.txt', Body=b'x')";
    server.boto(put, &[&raw]);
    let body = serde_json::json!({ "EventName": "s3:ObjectCreated:Put", "Key": format!("{raw}/in/a.txt"), "Records": [{
        "eventName": "s3:ObjectCreated:Put", "eventTime": "2026-01-02T03:04:05Z",
        "s3": { "bucket": { "name": raw }, "object": { "key": "in%2Fa.txt", "sequencer": "17" } },
    }]});
    let post = "
import http.client, socket
class Node(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[2])
for _ in range(2):
    node = Node('node')
    node.request('POST', '/sources/raw/notifications', sys.argv[3], {'content-type': 'application/json'})
    print(node.getresponse().read().decode())
node = Node('node')
node.request('POST', '/sources/raw/notifications', '{}')
print(node.getresponse().status)
";
    let socket = project.path("data/pointsman.sock");
    let said = server.boto(post, &[socket.to_str().expect("a path"), &body.to_string()]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            r#"{"accepted":1,"told":1}"#,
            r#"{"accepted":0,"told":1}"#,
            "400"
        ]
    );
    running.stop();
}

#[test]
fn the_shipped_example_is_sound_and_tells_what_listing_costs() {
    let project = Project::shipped();
    let checked = project.ok(&["check", "examples/buckets"]);
    assert!(!checked.contains("warning"), "{checked}");
    let plan = project.json(&["plan", "examples/buckets", "--json"]);
    let calls = &plan["sources"]["raw"]["s3"]["list_calls_a_day"];
    assert_eq!(calls["up_to_1000_keys"], 2880);
    assert_eq!(calls["1000000_keys"], 2_880_000);
}

/// A node that brings the CSV files of a bucket into the table `t`.
fn loading(bucket: &str, connection: &str) -> Project {
    let project = Project::new();
    project.write(
        "rules/load.yaml",
        format!(
            "connections: {{ weed: {{ aws: {{ region: us-east-1, {connection} }} }} }}\nsources: {{ raw: {{ s3: {{ connection: weed, bucket: {bucket}, every: 1s }} }} }}\nrules: {{ files: {{ pattern: {{ detail-type: [Object Created] }}, targets: [{{ handler: clean }}] }} }}\nhandlers: {{ clean: {{ transform: {{ write: {{ table: t }} }} }} }}\n"
        ),
    );
    project
}

fn without_keys(project: &Project) -> Command {
    let mut command = project.command(&["run"]);
    aws::without_keys(&mut command, &project.path("nowhere"));
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    command
}

fn put_a_table(server: &SeaweedFs, bucket: &str) {
    server.boto(
        "s3.put_object(Bucket=sys.argv[2], Key='a.csv', Body=b'n\\n1\\n2\\n3\\n')",
        &[bucket],
    );
}

#[test]
fn buckets_stand_in_the_host_name_and_keys_come_from_the_environment() {
    let server = seaweedfs::shared();
    let bucket = server.bucket("hosted");
    put_a_table(server, &bucket);
    let project = loading(&bucket, "endpoint: \"http://s3.test\", path_style: false");
    let mut command = without_keys(&project);
    // Nobody resolves that name; the server itself is the proxy that requests go by.
    command
        .env("HTTP_PROXY", server.endpoint())
        .env("http_proxy", server.endpoint())
        .env("AWS_ACCESS_KEY_ID", seaweedfs::KEY)
        .env("AWS_SECRET_ACCESS_KEY", seaweedfs::SECRET);
    let node = project.start_command(command);
    project.wait("the rows", || {
        project.count("select count(*) from lake.t") == Some(3)
    });
    assert_eq!(node.stop(), 0);
}

#[test]
fn keys_come_from_a_profile_and_without_any_the_source_says_so() {
    let server = seaweedfs::shared();
    let bucket = server.bucket("profile");
    put_a_table(server, &bucket);
    let endpoint = server.endpoint();
    let project = loading(&bucket, &format!("endpoint: \"{endpoint}\", profile: etl"));
    let node = project.start_command(without_keys(&project));
    let status = || project.json(&["sources", "--json"])["raw"].clone();
    project.wait("the source to say so", || {
        status()["mode"]["state"] == "unreachable" && status()["errors"][0]["error"].is_string()
    });
    assert_eq!(node.stop(), 0);
    let keys = project.write(
        "credentials",
        format!(
            "[etl]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            seaweedfs::KEY,
            seaweedfs::SECRET
        ),
    );
    let mut command = without_keys(&project);
    command.env("AWS_SHARED_CREDENTIALS_FILE", keys);
    let node = project.start_command(command);
    project.wait("the rows", || {
        project.count("select count(*) from lake.t") == Some(3)
    });
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_run_until_idle_waits_for_the_first_listing() {
    let server = seaweedfs::shared();
    let bucket = server.bucket("once");
    put_a_table(server, &bucket);
    let (endpoint, key, secret) = (server.endpoint(), seaweedfs::KEY, seaweedfs::SECRET);
    let project = loading(
        &bucket,
        &format!("endpoint: \"{endpoint}\", access_key_id: {key}, secret_access_key: {secret}"),
    );
    let ran = project.run(&["run", "--until-idle", "0.2"]);
    assert!(
        ran.status.success(),
        "{}",
        crate::support::text(&ran.stderr)
    );
    assert_eq!(project.count("select count(*) from lake.t"), Some(3));
}

#[test]
fn a_bucket_is_tried_before_anything_runs() {
    let server = seaweedfs::shared();
    let bucket = server.bucket("tried");
    put_a_table(server, &bucket);
    let (endpoint, key, secret) = (server.endpoint(), seaweedfs::KEY, seaweedfs::SECRET);
    let by = |bucket: &str, secret: &str| {
        let keys = format!("access_key_id: {key}, secret_access_key: {secret}");
        let project = loading(bucket, &format!("endpoint: \"{endpoint}\", {keys}"));
        let output = project.run(&["check", "--connect"]);
        let said = [output.stdout, output.stderr].map(|text| crate::support::text(&text));
        (output.status.code(), said.concat())
    };
    let (_, said) = by(&bucket, secret);
    assert!(said.contains("the bucket can be listed; 1 keys"), "{said}");
    let (code, said) = by(&format!("{bucket}-not-there"), secret);
    assert!(said.contains("NoSuchBucket"), "{said}");
    assert_eq!(code, Some(1));
    let (code, said) = by(&bucket, "wrong");
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    assert_eq!(code, Some(1));
}
