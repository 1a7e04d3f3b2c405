//! Tests of the whole way from files to a configuration.

use super::fields::{self, Kind, Shape};
use super::*;
use crate::delivery::RetryPolicy;
use crate::handlers::load::Mode;
use crate::sources::folder::{After, Start};
use proptest::prelude::*;
use std::fs;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn env(name: &str) -> Option<String> {
    match name {
        "HOOK" => Some("https://user:hunter2@example.com/hook".to_owned()),
        "KEY" => Some("whsec_aHVudGVyMg==".to_owned()),
        "INBOX" => Some("hidden-inbox".to_owned()),
        _ => None,
    }
}

fn load_with(yaml: &str, env: &Env<'_>) -> (Config, Vec<Diagnostic>) {
    let loaded = loaded(yaml, env);
    let said = crate::error::render_all(&loaded.diagnostics, &loaded.sources, false);
    (
        loaded.config.unwrap_or_else(|| panic!("{said}")),
        loaded.diagnostics,
    )
}

/// What comes of this text, mistakes and all.
pub(super) fn loaded(yaml: &str, env: &Env<'_>) -> Loaded {
    let folder = folder(&[
        ("pointsman.yaml", yaml.as_bytes()),
        (
            "schemas/flight.json",
            br#"{"type": "object", "properties": {"month": {"type": "integer"}}}"#,
        ),
        ("airlines.csv", b"carrier,name\n"),
    ]);
    Config::load(folder.path(), env)
}

pub(super) fn load(yaml: &str) -> Config {
    load_with(yaml, &env).0
}

/// Every section, every field, nothing at its default.
const FULL: &str = r#"
connections:
  rabbit: { amqp: { hosts: ["a:1", b], user: me, password: in-the-file, vhost: etl, heartbeat: 5s, tls: { ca: ca.pem, cert: c.pem, key: k.pem } } }
  cloud: { aws: { region: eu-west-1, endpoint: http://127.0.0.1:9000, access_key_id: AK, secret_access_key: in-the-file, session_token: in-the-file, profile: p, path_style: false } }
  warehouse: { postgres: { host: db, port: 5433, user: me, password: in-the-file, database: dw, tls: require, ca: ca.pem, connect_timeout: 3s } }
  red: { redshift: { host: c.redshift.amazonaws.com, port: 5440, user: me, password: in-the-file, database: dw, tls: require, ca: ca.pem, connect_timeout: 3s, iam_role: "arn:aws:iam::123456789012:role/load", staging: { connection: cloud, bucket: stage, prefix: loads } } }
  shift: { redshift: { url: "postgres://me:in-the-file@c:5439/dw", credentials: cloud, staging: { connection: cloud, bucket: stage } } }
  url: { postgres: { url: "postgres://me:in-the-file@db:5434/dw?sslmode=disable" } }
node:
  data: var
  listen: 7171
  max_event_size: 2MiB
  retention: 1d
  dedupe_window: 1h
  dead_letter_retention: 2d
  disk: { warn: 1GB, refuse: 2GB }
  warehouse: { s3: { connection: cloud, bucket: lake, prefix: warehouse } }
  shutdown: 5s
  query_memory: 64MiB
  memory: { intake: 8MiB, waiting: 256MiB, ids: 64MiB }
  account: "123456789012"
  region: here
  public_url: https://events.example.com
sources:
  raw:
    bus: files
    s3: { connection: cloud, bucket: raw, prefix: in/, include: "*.csv", exclude: [x], every: 10s, every_idle: 1m, reconcile: 2h, ordered: true, versions: true, start: now, deletes: true, forget_after: 1d, notifications: { from: told } }
  told: { bus: files, sqs: { connection: cloud, queue: raw-events, format: notification, declare: passive, prefetch: 50, visibility: 2m } }
  shop: { bus: files, amqp: { connection: rabbit, queue: shop, format: event, declare: passive, kind: classic, prefetch: 7, delivery_limit: 5, dead_letter_exchange: dlx, dead_letter_routing_key: dead } }
  inbox:
    bus: files
    folder:
      path: ${env:INBOX}
      include: ["*.csv"]
      exclude: ["tmp/**"]
      hidden: true
      recursive: false
      follow_symlinks: true
      finished: { renamed_in: false, quiet: 5s, done_marker: .done, min_age: 1m, min_size: 2KiB, trailer: true }
      reconcile: 5m
      start: 2013-01-01
      content_hash: true
      deletes: true
      moves: true
      forget_after: 1d
      after: { move: done }
queues:
  q: { visibility: 20m, delay: 1s, order_by: detail.customer, retry: { cap: 1m } }
  b: { backlog: drain, amqp: { connection: rabbit, queue: etl.b, declare: passive, kind: classic, prefetch: 7, delivery_limit: 5, dead_letter_exchange: dlx, dead_letter_routing_key: dead, max_message_size: 1MiB }, drain_from: { amqp: { connection: rabbit } } }
  s: { order_by: detail.customer, sqs: { connection: cloud, queue: etl.fifo, declare: passive, prefetch: 7, max_message_size: 64KiB } }
rules:
  r:
    description: everything
    bus: files
    enabled: true
    pattern: { source: [{ prefix: "" }], detail: { n: [1.50, "007", true, null] } }
    targets:
      - { queue: q, retry: { attempts: 3 } }
      - { id: direct, handler: load, input: { a: [1, "x"] } }
      - { topic: done, input_path: $.detail }
      - bus: other
        input_transformer:
          paths: { key: $.detail.object.key }
          template: '{"text": "<key> by <aws.events.rule-name>"}'
      - webhook: { url: "${env:HOOK}", secret: "${env:KEY}", headers: { X-A: b }, timeout: 1s, allow_private: true, concurrency: 2, circuit: { failures: 3, pause: 1s, max_pause: 1m } }
  other: { bus: other, pattern: { source: [x] }, targets: [ { handler: http } ] }
handlers:
  clean:
    from: [q]
    batch: { size: 10, bytes: 1MiB, window: 5s }
    concurrency: 2
    timeout: 1m
    rate: 2.5
    retry: { attempts: 5, base: 2s, cap: 3m, max_age: 1h }
    notify: { success: done, failure: done }
    transform:
      read:
        input: object
        format: csv
        delimiter: ";"
        quote: "'"
        header: false
        null: [NA, ""]
        schema: schemas/flight.json
        reject_limit: 1%
      tables: { airlines: airlines.csv }
      sql: |
        select *
        from input
      write: { table: flights, format: csv, partition_by: month, target_size: 1MiB, max_open_files: 8, s3: { connection: cloud, bucket: lake, prefix: clean } }
  load: { load: { table: flights, mode: upsert, key: [month] } }
  exec: { from: q, exec: { command: [cat, "${env:HOOK}"], env: { A: "${env:KEY}" }, cwd: sub } }
  http: { http: { url: http://example.com } }
  tidy: { maintain: { lake: flights, small: 1MiB, target_size: 8MiB, keep: 30d, grace: 2d } }
  vacuum: { maintain: { warehouse: flights } }
  sync: { extract: { http: { url: "http://crm/v1", params: { limit: "10" }, headers: { accept: a/b }, auth: { bearer: in-the-file }, records: "$.data[*]", pages: { next: $.next }, since: { at: $.at, param: from, start: "2026-01-01" }, rate: 5, timeout: 3s, max_page: 1MiB, allow_private: true }, read: { reject_limit: 1 }, tables: {}, views: {}, params: {}, sql: "select * from input", write: { table: crm } } }
  basic: { extract: { http: { url: "http://crm/v1", auth: { basic: { user: me, password: in-the-file } }, pages: { link: true } }, write: { table: crm2 } } }
  header: { extract: { http: { url: "http://crm/v1", auth: { header: { name: x-key, value: in-the-file } }, pages: { cursor: { at: $.c, param: after } } }, write: { table: crm3 } } }
  oauth2: { extract: { http: { url: "http://crm/v1", auth: { oauth2: { token_url: "http://crm/token", client_id: me, client_secret: in-the-file, scope: read } }, pages: { number: { param: p, first: 0, size_param: n, size: 7 } } }, write: { table: crm4 } } }
  offset: { extract: { http: { url: "http://crm/v1", pages: { offset: { param: o, size_param: n, size: 7 } } }, write: { table: crm5 } } }
topics:
  done:
    subscriptions:
      a: { webhook: { url: "${env:HOOK}", format: raw, confirm: true, secret: "${env:KEY}", headers: { A: b }, timeout: 1s, allow_private: true, concurrency: 2, circuit: {} }, filter: { table: [flights] }, retry: { attempts: 2 } }
      b: { exec: { command: [cat] }, filter_on: attributes, filter: { source: [x] }, input: 1 }
      d: { queue: q, input_path: $.detail }
      e: { bus: other, input_transformer: { template: "{}" } }
      f: { amqp: { connection: rabbit, exchange: e, declare: passive, kind: fanout, routing_key: "<detail.a>", order_by: detail.a, max_message_size: 1MiB, circuit: { failures: 3, pause: 2s, max_pause: 1m } } }
      g: { sns: { connection: cloud, topic: t.fifo, declare: passive, order_by: detail.a, circuit: {} } }
      c: { pull: {} }
schedules:
  cron: { cron: "0 2 * * *", timezone: Europe/Paris, bus: files, emit: { source: s, detail-type: T, detail: { a: 1 } } }
  every: { every: 5m, emit: { detail-type: T } }
"#;

#[test]
fn every_field_of_the_tables_is_read_and_documented() {
    load(FULL);
    let reads = fields::reads();
    let mut shapes: Vec<&Shape> = vec![&fields::CONFIG];
    let mut unread = Vec::new();
    while let Some(shape) = shapes.pop() {
        for field in shape.fields {
            assert!(!field.doc.is_empty(), "{} of {}", field.name, shape.title);
            if !reads.contains(&(shape.title, field.name.to_owned())) {
                unread.push(format!("`{}` of {}", field.name, shape.title));
            }
            collect(&field.kind, &mut shapes);
        }
    }
    assert!(unread.is_empty(), "never read: {unread:?}");
}

fn collect<'a>(kind: &'a Kind, shapes: &mut Vec<&'a Shape>) {
    match kind {
        Kind::Table(shape) | Kind::Names(shape) => shapes.push(shape),
        Kind::List(kind) => collect(kind, shapes),
        Kind::OneOf(kinds) => kinds.iter().for_each(|kind| collect(kind, shapes)),
        _ => {}
    }
}

#[test]
fn the_json_schema_takes_what_the_parser_takes() {
    let schema = json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let as_json = |yaml: &str| {
        let (item, _) = yaml::parse(Path::new("f"), yaml);
        to_json(&item.unwrap())
    };
    let full = as_json(FULL);
    let errors: Vec<String> = validator
        .iter_errors(&full)
        .map(|e| e.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    for wrong in [
        "nod: {}",
        "node: { retention: 7 }",
        "queues: { q: { delay: soon } }",
        "handlers: { h: { form: q } }",
    ] {
        assert!(!validator.is_valid(&as_json(wrong)), "{wrong}");
    }
}

fn to_json(item: &yaml::Item) -> serde_json::Value {
    match &item.node {
        yaml::Node::List(items) => items.iter().map(to_json).collect(),
        yaml::Node::Table(entries) => {
            let members = entries.iter().map(|e| (e.key.clone(), to_json(&e.item)));
            members.collect::<serde_json::Map<_, _>>().into()
        }
        yaml::Node::Scalar { .. } => match item.scalar().unwrap() {
            yaml::Scalar::Null => serde_json::Value::Null,
            yaml::Scalar::Bool(value) => value.into(),
            yaml::Scalar::Number(text) => serde_json::from_str(text).unwrap(),
            yaml::Scalar::OddNumber(text) | yaml::Scalar::Text(text) => text.into(),
        },
    }
}

/// The default of every field, where it is a value and not a description.
#[test]
fn the_defaults_in_the_tables_are_the_ones_that_hold() {
    let config = load(
        "connections: { c: { aws: {} }, r: { amqp: { url: amqp://r } } }
sources: { s: { folder: { path: in } }, sqs: { sqs: { connection: c } }, amqp: { amqp: { connection: r } } }
queues: { q: {} }
rules: { r: { pattern: { source: [a] }, targets: [ { queue: q } ] } }
handlers: { h: { from: q, transform: { write: { table: t } } }, x: { extract: { http: { url: http://a }, write: { table: t } } } }
topics: { t: { subscriptions: { s: { webhook: { url: http://a } }, x: { amqp: { connection: r, exchange: e } }, y: { sns: { connection: c, topic: t } } } } }
schedules: { s: { cron: '0 0 * * *', emit: { detail-type: T } } }
",
    );
    let shown = serde_json::to_value(&config).unwrap();
    let at = |pointer: &str| {
        shown
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer}: {shown:#}"))
    };
    let shapes: [(&str, &Shape); 22] = [
        ("/node", &fields::NODE),
        ("/sources/s", &fields::SOURCE),
        ("/sources/s/folder", &fields::FOLDER),
        ("/sources/s/folder/finished", &fields::FINISHED),
        ("/sources/sqs/sqs", &fields::SQS_SOURCE),
        ("/sources/amqp/amqp", &fields::AMQP_SOURCE),
        ("/queues/q", &fields::QUEUE),
        ("/rules/r", &fields::RULE),
        ("/rules/r/targets/0/retry", &fields::RETRY),
        ("/handlers/h", &fields::HANDLER),
        ("/handlers/h/batch", &fields::BATCH),
        ("/handlers/h/retry", &fields::RETRY),
        ("/handlers/h/transform/read", &fields::READ),
        ("/handlers/h/transform/write", &fields::WRITE),
        ("/handlers/x/extract/http", &fields::API),
        ("/topics/t/subscriptions/s/webhook", &fields::WEBHOOK),
        (
            "/topics/t/subscriptions/s/webhook/circuit",
            &fields::CIRCUIT,
        ),
        ("/topics/t/subscriptions/x/amqp", &fields::AMQP_EXCHANGE),
        ("/topics/t/subscriptions/y/sns", &fields::SNS_TOPIC),
        (
            "/topics/t/subscriptions/y/sns/circuit",
            &fields::PUBLISHER_CIRCUIT,
        ),
        ("/schedules/s", &fields::SCHEDULE),
        ("/schedules/s/emit", &fields::EMIT),
    ];
    for (pointer, shape) in shapes {
        for field in shape
            .fields
            .iter()
            .filter(|f| !f.default.is_empty() && f.default != "{}")
        {
            let (item, _) = yaml::parse(Path::new("f"), field.default);
            let (stated, held) = (
                to_json(&item.unwrap()),
                at(&format!("{pointer}/{}", field.name)),
            );
            assert!(
                same(&field.kind, &stated, held),
                "{pointer}/{}: {stated} is not {held}",
                field.name
            );
        }
    }
}

/// Equal, with durations and sizes by value.
fn same(kind: &Kind, stated: &serde_json::Value, held: &serde_json::Value) -> bool {
    let text = |value: &serde_json::Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    match kind {
        Kind::Duration => units::duration(&text(stated)) == units::duration(&text(held)),
        Kind::Size => units::size(&text(stated)) == units::size(&text(held)),
        _ => stated == held,
    }
}

#[test]
fn values_arrive_where_they_belong() {
    let config = load(FULL);
    let Source::Folder(inbox) = &config.sources["inbox"] else {
        panic!("`inbox` is a folder");
    };
    assert!(inbox.root.ends_with("hidden-inbox"));
    assert_eq!(inbox.start, Start::Since(1_356_998_400_000));
    assert_eq!(inbox.after, After::Move(config.root.join("done")));
    assert_eq!(config.node.listen.to_string(), "127.0.0.1:7171");
    assert_eq!(
        config.rules["r"].pattern_text,
        r#"{"source":[{"prefix":""}],"detail":{"n":[1.50,"007",true,null]}}"#
    );
    let HandlerKind::Transform(transform) = &config.handlers["clean"].kind else {
        panic!()
    };
    assert_eq!(transform.sql.as_deref(), Some("select *\nfrom input\n"));
    assert_eq!(transform.read.null, ["NA", ""]);
    let HandlerKind::Load(load) = &config.handlers["load"].kind else {
        panic!()
    };
    assert_eq!(load.options.mode, Mode::upsert(vec!["month".to_owned()]));
    let buses: Vec<&str> = config.buses().into_iter().collect();
    assert_eq!(buses, ["default", "files", "other"]);
}

#[test]
fn routes_are_named_and_know_their_handlers_and_retries() {
    let config = load(FULL);
    let routes = config.routes();
    let named: Vec<(&str, Vec<&str>)> = routes
        .iter()
        .map(|r| (&*r.target.route, r.handlers.clone()))
        .collect();
    let expected = [
        ("other/http", vec!["http"]),
        ("r/q", vec!["clean", "exec"]),
        ("r/direct", vec!["load"]),
        ("r/done", vec![]),
        ("r/other", vec![]),
        ("r/webhook", vec![]),
        ("topic/done/a", vec![]),
        ("topic/done/b", vec![]),
        ("topic/done/c", vec![]),
        ("topic/done/d", vec!["clean", "exec"]),
        ("topic/done/e", vec![]),
        ("topic/done/f", vec![]),
        ("topic/done/g", vec![]),
    ];
    assert_eq!(named, expected);
    // Attempts from the target, the cap from the queue, the rest from the handler.
    let seconds = Duration::from_secs;
    let expected = RetryPolicy {
        attempts: 3,
        lost: 16,
        base: seconds(2),
        cap: seconds(60),
        max_age: seconds(3600),
    };
    assert_eq!(routes[1].target.retry, expected);
    assert_eq!(routes[2].target.retry, RetryPolicy::default());
}

#[test]
fn visibility_defaults_to_the_longest_timeout_and_a_margin() {
    let yaml = "queues: { q: {} }
rules: { r: { pattern: { source: [a] }, targets: [ { queue: q } ] } }
handlers:
  a: { from: q, timeout: 2m, exec: { command: [cat] } }
  b: { from: q, timeout: 1h, exec: { command: [cat] } }
";
    assert_eq!(load(yaml).queues["q"].visibility, Duration::from_secs(3630));
}

#[test]
fn secrets_are_never_printed_and_arrive_all_the_same() {
    let config = load(FULL);
    let printed = format!(
        "{config:?}{}{:?}",
        serde_json::to_string(&config).unwrap(),
        config.rules
    );
    for secret in ["hunter2", "aHVudGVyMg", "hidden-inbox", "in-the-file"] {
        assert!(!printed.contains(secret), "{secret}: {printed}");
    }
    assert!(printed.contains("${env:HOOK}") && printed.contains("${env:INBOX}"));
    let hook = &config.topics["done"].subscriptions["a"].target.to;
    let To::Webhook(hook) = hook else { panic!() };
    assert_eq!(hook.options().url, "https://user:hunter2@example.com/hook");
}

#[test]
fn the_rules_version_follows_rules_and_handlers_alone() {
    let version = |yaml: &str| load(yaml).rules_version;
    let full = version(FULL);
    assert_eq!(full, version(&format!("# a comment\n{FULL}")));
    assert_eq!(
        full,
        version(&FULL.replace("region: here", "region: there"))
    );
    assert_ne!(full, version(&FULL.replace("\"007\"", "\"008\"")));
    assert_ne!(full, version(&FULL.replace("size: 10", "size: 11")));
}

#[test]
fn a_diff_names_what_changed() {
    let old = load(FULL);
    assert_eq!(diff(&old, &load(FULL)), []);
    let new = FULL
        .replace("size: 10", "size: 11")
        .replace("  every: {", "  each: {")
        .replace("7171", "7272");
    let found: Vec<String> = diff(&old, &load(&new))
        .iter()
        .map(|d| format!("{:?} {}.{} {:?}", d.change, d.section, d.name, d.fields))
        .collect();
    let expected = [
        "Changed node.listen []",
        "Changed handlers.clean [\"batch.size\"]",
        "Added schedules.each []",
        "Removed schedules.every []",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_diff_sees_a_changed_secret_without_showing_it() {
    let (old, _) = load_with(FULL, &env);
    let (new, _) = load_with(FULL, &|name| {
        env(name).map(|value| value.replace("hunter2", "hunter3"))
    });
    let found = diff(&old, &new);
    assert!(
        found
            .iter()
            .any(|d| d.section == "topics" && d.fields == ["subscriptions.a.webhook.url"]),
        "{found:?}"
    );
    assert!(!format!("{found:?}").contains("hunter"));
}

#[test]
fn aliases_and_merges_are_taken() {
    let yaml = "queues:
  a: &base { delay: 5s, retry: { attempts: 2 } }
  b: { <<: *base, delay: 7s }
  c: *base
rules: { r: { pattern: { source: [a] }, targets: [ { queue: a }, { queue: b }, { queue: c } ] } }
handlers: { h: { from: [a, b, c], exec: { command: [cat] } } }
";
    let config = load(yaml);
    assert_eq!(config.queues["b"].delay, Duration::from_secs(7));
    assert_eq!(config.queues["c"].delay, Duration::from_secs(5));
    assert!(
        config
            .routes()
            .iter()
            .all(|route| route.target.retry.attempts == 2)
    );
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        yaml.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    let folder = folder(&[("pointsman.yaml", yaml.as_bytes())]);
    let loaded = Config::load(folder.path(), &env);
    assert!(
        loaded.diagnostics[0]
            .message
            .contains("more than 2000000 values"),
        "{:?}",
        loaded.diagnostics
    );
}

#[test]
fn places_lead_back_into_the_yaml() {
    let config = load(FULL);
    let sql = "select *\nfrom input\n";
    let place = config
        .place_within("handlers.clean.transform.sql", sql, 2, 6)
        .unwrap();
    let lines: Vec<&str> = FULL.lines().collect();
    assert!(
        lines[place.line - 1][place.column - 1..].starts_with("input"),
        "{place}"
    );
    assert_eq!(place.end - place.start, "input".len());
    // A field that was left out has the place of what is around it.
    let around = config.place("handlers.load.transform.sql").unwrap();
    assert_eq!(around, config.place("handlers.load").unwrap());
    assert_eq!(config.place("handlers.nobody"), config.place("handlers"));
}

#[test]
fn a_checker_can_refuse_a_sound_configuration() {
    struct No;
    impl Checker for No {
        fn check(&self, config: &Config) -> Vec<Diagnostic> {
            vec![Diagnostic::error(&codes::BAD_SQL, "no").at(config.place("node"))]
        }
    }
    let folder = folder(&[("pointsman.yaml", b"node: {}\n")]);
    let mut loaded = Config::load(folder.path(), &env);
    assert!(!loaded.has_errors());
    loaded.check(&[&No]);
    assert!(loaded.has_errors());
    assert_eq!(loaded.diagnostics.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(main in any::<Vec<u8>>(), rules in ".{0,200}", schema in ".{0,60}") {
        let folder = folder(&[
            ("pointsman.yaml", &main),
            ("rules/a.yaml", rules.as_bytes()),
            ("rules/a.test.yaml", rules.as_bytes()),
            ("schemas/a.json", schema.as_bytes()),
        ]);
        let loaded = Config::load(folder.path(), &env);
        let _ = crate::error::render_all(&loaded.diagnostics, &loaded.sources, true);
    }

    /// Texts that other libraries parse for us.
    #[test]
    fn no_cron_line_glob_path_or_address_makes_it_panic(
        cron in "[0-9*,/?LW#@+A-Za-z -]{0,24}",
        glob in "[a-z*?!^{},\\[\\]\\\\/-]{0,16}",
        path in "[$.@a-z0-9*:?()\\[\\]'\"<>=&|!, -]{0,24}",
        url in "(https?://)?[a-z@:/?#\\[\\]%. 0-9-]{0,24}",
    ) {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let yaml = format!(
            "schedules: {{ s: {{ cron: {cron}, timezone: {glob}, emit: {{ detail-type: T }} }} }}
node: {{ listen: {url} }}
sources: {{ s: {{ folder: {{ path: in, include: {glob} }} }} }}
rules: {{ r: {{ pattern: {{ source: [{{ wildcard: {glob} }}] }}, targets: [ {{ bus: b, input_path: {path} }} ] }} }}
topics: {{ t: {{ subscriptions: {{ s: {{ webhook: {{ url: {url} }} }} }} }} }}
",
            cron = quoted(&cron), glob = quoted(&glob), path = quoted(&path), url = quoted(&url),
        );
        let folder = folder(&[("pointsman.yaml", yaml.as_bytes())]);
        let loaded = Config::load(folder.path(), &env);
        prop_assert!(loaded.diagnostics.iter().all(|d| d.code != &codes::YAML_SYNTAX), "{}", yaml);
    }

    /// Cuts, swaps and doubles pieces of a sound configuration.
    #[test]
    fn no_damage_to_a_sound_file_makes_it_panic(
        cuts in proptest::collection::vec((0usize..FULL.len(), 0usize..30, "[-:{}\\[\\]&*\"'#|<$ \n\t0aé]{0,3}"), 1..6)
    ) {
        let mut text = FULL.to_owned();
        for (start, length, put) in cuts {
            let start = text.floor_char_boundary(start.min(text.len()));
            let end = text.floor_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &put);
        }
        let folder = folder(&[("pointsman.yaml", text.as_bytes())]);
        let loaded = Config::load(folder.path(), &env);
        prop_assert_eq!(loaded.has_errors(), loaded.diagnostics.iter().any(|d| d.severity == Severity::Error));
        for diagnostic in &loaded.diagnostics {
            prop_assert!(!diagnostic.message.ends_with('.'), "{}", diagnostic.message);
        }
        let said = crate::error::render_all(&loaded.diagnostics, &loaded.sources, false);
        prop_assert!(!said.contains("hunter2"), "{}", said);
    }
}
