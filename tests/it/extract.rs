//! Extracts by the real program: an API in pages, with all that goes wrong with
//! one, into a table that equals what the API has.

use crate::support::pages::{Answer, Api, Asked};
use crate::support::{Project, copy, repo, text};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A project with one extract into `customers`, loaded by upsert.
fn project(http: &str) -> Project {
    let project = Project::new();
    project.write(
        "pointsman.yaml",
        format!(
            "node: {{ listen: 127.0.0.1:0 }}
rules:
  tick: {{ pattern: {{ detail-type: [Sync] }}, targets: [{{ handler: sync, retry: {{ base: 10ms, cap: 100ms }} }}] }}
  ready: {{ pattern: {{ detail-type: [Analytics Ready] }}, targets: [{{ handler: load }}] }}
handlers:
  sync:
    extract:
      http:
{}
      read: {{ schema: schema.json }}
      sql: select id, name, credit, updated_at from input
      write: {{ table: customers }}
  load: {{ load: {{ table: customers, mode: upsert, key: id, newer_by: updated_at }} }}
",
            http.trim_end()
                .lines()
                .map(|line| format!("        {line}"))
                .collect::<Vec<_>>()
                .join("\n")
        ),
    );
    let schema = json!({ "type": "object", "required": ["id"], "properties": {
        "id": { "type": "integer" }, "name": { "type": "string" },
        "credit": { "type": ["number", "null"], "multipleOf": 0.01 },
        "updated_at": { "type": "string", "format": "date-time" },
    }});
    project.write("schema.json", schema.to_string());
    project
}

fn tick(project: &Project, id: &str) {
    let event = json!({ "id": id, "source": "test", "detail-type": "Sync", "detail": {} });
    let sent = project.run_with(&["send"], event.to_string().as_bytes());
    assert!(sent.status.success(), "{sent:?}");
}

/// Customers `ids`, as of a version that grows with time.
fn customers(ids: std::ops::Range<usize>, version: usize) -> Vec<Value> {
    let one = |id: usize| {
        json!({
            "id": id, "name": format!("customer {id}, version {version}"), "credit": 0.1,
            "updated_at": format!("2026-01-{:02}T00:{:02}:{:02}Z", version + 1, id / 60, id % 60),
        })
    };
    ids.map(one).collect()
}

/// What a table that equals the customers answers to [`ROWS`].
fn expected(customers: &[Value]) -> String {
    let mut all: Vec<_> = customers.iter().collect();
    all.sort_by_key(|c| c["id"].as_u64());
    let line = |c: &&Value| format!("{},\"{}\"", c["id"], c["name"].as_str().unwrap_or_default());
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

const ROWS: &str = "select id, name from customers order by id";

fn rows(project: &Project) -> String {
    let answer = project.ok(&["query", ROWS, "--format", "csv"]);
    let rows = answer.split_once('\n').map_or("", |(_, rows)| rows);
    rows.trim_end().to_owned()
}

/// A page behind a cursor, the number of the first customer in it; only those
/// from `since` on.
fn page(all: &[Value], asked: &Asked, since: &str, size: usize) -> Value {
    let since = asked.param(since).unwrap_or_default();
    let news: Vec<&Value> = all
        .iter()
        .filter(|c| c["updated_at"].as_str().unwrap_or_default() >= since)
        .collect();
    let from = asked.number("cursor", 0);
    let to = (from + size).min(news.len());
    let next = (to < news.len()).then(|| to.to_string());
    json!({ "data": news[from..to], "paging": { "next": next } })
}

const CURSOR: &str = "records: $.data[*]
allow_private: true
pages: { cursor: { at: $.paging.next, param: cursor } }
since: { at: $.updated_at, param: updated_since }
";

#[test]
fn a_sync_goes_through_limits_and_errors_and_asks_for_news_the_next_time() {
    let crm = Arc::new(Mutex::new(customers(0..95, 0)));
    let server = Arc::clone(&crm);
    let api = Api::start(move |asked, before| {
        if asked.header("authorization") != "Bearer secret-token" {
            return Answer::status(401);
        }
        match before {
            // Every page is refused at least once, in one way or the other.
            n if n % 3 == 0 => Answer::status(429).with("retry-after", "0"),
            n if n % 5 == 1 => Answer::status(500),
            n if n % 7 == 2 => Answer {
                body: "{\"data\": [{\"id\": 1".to_owned(),
                ..Answer::status(200)
            },
            _ => Answer::json(&page(
                &server.lock().expect("a lock"),
                asked,
                "updated_since",
                10,
            )),
        }
    });
    let http = format!(
        "url: \"{}\"\nparams: {{ limit: \"10\" }}\nauth: {{ bearer: secret-token }}\n{CURSOR}",
        api.url("/v1/customers?sort=updated_at")
    );
    let project = project(&http);
    let node = project.start();
    tick(&project, "first");
    project.wait("the first sync", || {
        project.count("select count(*) from customers") == Some(95)
    });
    project.wait_idle();
    let all = crm.lock().expect("a lock").clone();
    assert_eq!(rows(&project), expected(&all));
    let first = api.asked();
    assert!(first.iter().all(|a| a.param("updated_since").is_none()));
    assert!(
        first
            .iter()
            .all(|a| a.param("limit") == Some("10") && a.param("sort").is_some())
    );
    // Some change, some come; what did not change is not asked for again.
    let changed = customers(10..13, 1);
    {
        let mut crm = crm.lock().expect("a lock");
        for customer in customers(95..100, 1).into_iter().chain(changed) {
            crm.retain(|c| c["id"] != customer["id"]);
            crm.push(customer);
        }
    }
    tick(&project, "second");
    project.wait("the second sync", || {
        project.count("select count(*) from customers") == Some(100)
    });
    project.wait_idle();
    let all = crm.lock().expect("a lock").clone();
    assert_eq!(rows(&project), expected(&all));
    let second = &api.asked()[first.len()..];
    let since = "2026-01-01T00:01:34Z";
    assert!(
        second
            .iter()
            .all(|a| a.param("updated_since") == Some(since)),
        "{second:?}"
    );
    assert_eq!(
        project.count("select count(*) from lake.customers"),
        Some(95 + 9),
        "the last of the first sync comes again, with the eight that changed"
    );
    // A run that finds nothing publishes nothing; the same cause runs once.
    tick(&project, "second");
    project.wait_idle();
    assert_eq!(
        project.count("select count(*) from lake.customers"),
        Some(104)
    );
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
    let log = node.log();
    assert!(!log.contains("secret-token"), "{log}");
    let plan = project.ok(&["plan", "--json"]);
    assert!(plan.contains("$.paging.next"), "{plan}");
    node.stop();
}

#[test]
fn a_run_that_is_killed_goes_on_with_the_page_that_it_missed() {
    let all = customers(0..60, 0);
    let served = all.clone();
    let held = Arc::new(AtomicBool::new(true));
    let hold = Arc::clone(&held);
    let api = Api::start(move |asked, _| {
        let begun = Instant::now();
        // The fourth page keeps the run waiting until it was killed.
        while asked.param("cursor") == Some("30")
            && hold.load(Ordering::Relaxed)
            && begun.elapsed() < Duration::from_secs(240)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        Answer::json(&page(&served, asked, "updated_since", 10))
    });
    let project = project(&format!(
        "url: \"{}\"\ntimeout: 5m\n{CURSOR}",
        api.url("/customers")
    ));
    let node = project.start();
    tick(&project, "once");
    let asked = |cursor: Option<&str>| {
        let all = api.asked();
        all.iter().filter(|a| a.param("cursor") == cursor).count()
    };
    project.wait("the fourth page to be asked for", || asked(Some("30")) == 1);
    node.kill();
    held.store(false, Ordering::Relaxed);
    let node = project.start();
    project.wait("the sync", || {
        project.count("select count(*) from customers") == Some(60)
    });
    project.wait_idle();
    assert_eq!(rows(&project), expected(&all));
    assert_eq!(
        project.count("select count(*) from lake.customers"),
        Some(60)
    );
    assert_eq!(asked(None), 1, "the first page was durable");
    assert_eq!((asked(Some("20")), asked(Some("30"))), (1, 2));
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
    // Nothing is left of the run but what the next one begins with.
    let left = std::fs::read_dir(project.path("data/extracts/sync")).expect("the extract");
    let left: Vec<_> = left.map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left, ["state.json"]);
    node.stop();
}

#[test]
fn a_cursor_that_expires_lets_the_run_begin_again() {
    let all = customers(0..40, 0);
    let served = all.clone();
    let gone = AtomicUsize::new(0);
    let api = Api::start(move |asked, _| {
        let expired =
            asked.param("cursor") == Some("20") && gone.fetch_add(1, Ordering::Relaxed) < 2;
        match expired {
            true => Answer::status(410),
            false => Answer::json(&page(&served, asked, "updated_since", 10)),
        }
    });
    let project = project(&format!("url: \"{}\"\n{CURSOR}", api.url("/customers")));
    let node = project.start();
    tick(&project, "once");
    project.wait("the sync", || {
        project.count("select count(*) from customers") == Some(40)
    });
    project.wait_idle();
    assert_eq!(rows(&project), expected(&all));
    assert_eq!(
        project.count("select count(*) from lake.customers"),
        Some(40)
    );
    assert!(node.log().contains("the run begins again"));
    node.stop();
}

/// Every way from page to page, and every way to show who we are.
#[test]
fn pages_are_found_by_link_address_number_and_offset() {
    let all = customers(0..25, 0);
    let served = all.clone();
    let tokens = AtomicUsize::new(0);
    let base = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&base);
    let api = Api::start(move |asked, _| {
        let size = 10;
        let cut = |from: usize| served[from.min(25)..(from + size).min(25)].to_vec();
        match asked.path.as_str() {
            "/link" => {
                assert_eq!(asked.header("authorization"), "Basic bWU6cHc=");
                let from = asked.number("from", 0);
                let answer = Answer::json(&json!(cut(from)));
                match from + size < 25 {
                    false => answer.with("link", "</link>; rel=\"first\""),
                    true => {
                        let next = format!(
                            "</link>; rel=\"first\", </link?from={}>; rel=\"next\"",
                            from + size
                        );
                        answer.with("link", &next)
                    }
                }
            }
            "/next" => {
                assert_eq!(asked.header("x-key"), "k");
                let from = asked.number("from", 0);
                let next = format!("{}/next?from={}", own.lock().expect("a lock"), from + size);
                let next = (from + size < 25).then_some(next);
                Answer::json(&json!({ "items": cut(from), "next": next }))
            }
            "/token" => {
                assert_eq!(asked.header("authorization"), "Basic aWQ6c2VjcmV0");
                assert_eq!(asked.body, "grant_type=client_credentials&scope=read");
                let n = tokens.fetch_add(1, Ordering::Relaxed);
                Answer::json(&json!({ "access_token": format!("t{n}"), "expires_in": 3600 }))
            }
            "/number" => {
                // The first token is refused in the middle, as if it were withdrawn.
                let number = asked.number("page", 0);
                if number == 2 && asked.header("authorization") == "Bearer t0" {
                    return Answer::status(401);
                }
                assert!(asked.header("authorization").starts_with("Bearer t"));
                assert_eq!(asked.param("per_page"), Some("10"));
                Answer::json(&json!({ "items": cut((number - 1) * size) }))
            }
            _ => Answer::json(&json!({ "items": cut(asked.number("skip", 0)) })),
        }
    });
    *base.lock().expect("a lock") = api.url("");
    let ways = [
        ("link", "auth: { basic: { user: me, password: pw } }, pages: { link: true }".to_owned()),
        ("next", "auth: { header: { name: X-Key, value: k } }, records: '$.items[*]', pages: { next: $.next }".to_owned()),
        ("number", format!("auth: {{ oauth2: {{ token_url: \"{}\", client_id: id, client_secret: secret, scope: read }} }}, records: '$.items[*]', pages: {{ number: {{ size_param: per_page, size: 10 }} }}", api.url("/token"))),
        ("offset", "records: '$.items[*]', pages: { offset: { param: skip } }".to_owned()),
    ];
    let project = Project::new();
    let (mut targets, mut handlers) = (String::new(), String::new());
    for (name, http) in &ways {
        targets.push_str(&format!("{{ handler: {name} }}, "));
        handlers.push_str(&format!(
            "  {name}: {{ extract: {{ http: {{ url: \"{}\", allow_private: true, {http} }}, write: {{ table: {name} }} }} }}\n",
            api.url(&format!("/{name}"))
        ));
    }
    project.write(
        "pointsman.yaml",
        format!("node: {{ listen: 127.0.0.1:0 }}\nrules:\n  tick: {{ pattern: {{ detail-type: [Sync] }}, targets: [{targets}] }}\nhandlers:\n{handlers}"),
    );
    let node = project.start();
    tick(&project, "once");
    for (name, _) in &ways {
        project.wait(name, || {
            project.count(&format!("select count(distinct id) from lake.{name}")) == Some(25)
        });
        assert_eq!(
            project.count(&format!("select count(*) from lake.{name}")),
            Some(25)
        );
    }
    project.wait_idle();
    assert_eq!(api.asked_of("/token").len(), 2);
    // A page with fewer records than its size is the last; without a size an empty one.
    assert_eq!(api.asked_of("/offset").len(), 4);
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
    node.stop();
}

/// One run against an API that answers `answer`; the dead letter that it ends as.
fn refused(answer: Answer, more: &str) -> Value {
    let answer = Mutex::new(Some(answer));
    let api = Api::start(move |_, _| {
        let answer = answer.lock().expect("a lock").take();
        answer.unwrap_or_else(|| Answer::status(500))
    });
    let project = project(&format!("url: \"{}\"\n{more}", api.url("/customers")));
    let node = project.start();
    tick(&project, "once");
    project.wait("a dead letter", || {
        !project.ok(&["dlq", "list", "--json"]).trim().is_empty()
    });
    let dead = project.json_lines(&["dlq", "list", "--json"]).remove(0);
    node.stop();
    dead
}

#[test]
fn what_no_retry_mends_is_a_dead_letter_that_says_why() {
    let all = json!({ "data": customers(0..3, 0), "paging": { "next": null } });
    let cases = [
        (
            Answer::status(403),
            CURSOR,
            "Http403",
            "the API answered 403 Forbidden: this is a 403",
        ),
        (
            Answer::json(&json!({ "rows": [] })),
            CURSOR,
            "BadPage",
            "at `$.data[*]`, there is no `data`, but rows",
        ),
        (
            Answer::json(&json!({ "data": [1] })),
            CURSOR,
            "BadPage",
            "its records are no objects",
        ),
        (
            Answer::json(
                &json!({ "data": [], "paging": { "next": "http://elsewhere.example/2" } }),
            ),
            "records: $.data[*]\nallow_private: true\npages: { next: $.paging.next }",
            "ForeignLink",
            "the next page is said to be at `elsewhere.example`",
        ),
        (
            Answer::json(&all),
            "records: $.data[*]\nallow_private: true\nmax_page: 100B",
            "PageTooLarge",
            "more than 100 bytes",
        ),
        (
            Answer::json(&all),
            "records: $.data[*]",
            "PrivateAddress",
            "set `allow_private: true`",
        ),
        (
            Answer::status(302).with("location", "http://elsewhere.example/"),
            CURSOR,
            "Http302",
            "the API answered 302 Found",
        ),
    ];
    std::thread::scope(|scope| {
        for (answer, more, code, message) in cases {
            scope.spawn(move || {
                let dead = refused(answer, more).to_string();
                assert!(
                    dead.contains(code) && dead.contains(message),
                    "{code}: {dead}"
                );
            });
        }
    });
}

#[test]
fn a_long_wait_puts_the_run_off_and_keeps_its_pages() {
    let all = customers(0..20, 0);
    let served = all.clone();
    let limited = AtomicBool::new(true);
    let api = Api::start(move |asked, _| {
        match asked.param("cursor").is_some() && limited.swap(false, Ordering::Relaxed) {
            true => Answer::status(429).with("retry-after", "61"),
            false => Answer::json(&page(&served, asked, "updated_since", 10)),
        }
    });
    let project = project(&format!("url: \"{}\"\n{CURSOR}", api.url("/customers")));
    let node = project.start();
    tick(&project, "once");
    project.wait("the run to be put off", || node.log().contains("Http429"));
    let log = node.log();
    let line = log.lines().find(|l| l.contains("Http429")).expect("a line");
    let wait = line.split("retry_in_ms=").nth(1).expect("a delay");
    let wait: u64 = wait
        .split_whitespace()
        .next()
        .and_then(|w| w.parse().ok())
        .expect("milliseconds");
    assert!(wait >= 61_000, "{line}");
    // It is tried again at once when somebody says so, here by another word.
    tick(&project, "other");
    project.wait("the sync", || {
        project.count("select count(*) from customers") == Some(20)
    });
    assert_eq!(rows(&project), expected(&all));
    node.kill();
}

#[test]
fn the_shipped_example_syncs_the_customers_of_a_crm() {
    let all = customers(0..150, 0);
    let served = all.clone();
    let api = Api::start(move |asked, _| {
        assert_eq!(asked.header("authorization"), "Bearer from-the-environment");
        Answer::json(&page(
            &served,
            asked,
            "updated_since",
            asked.number("limit", 10),
        ))
    });
    let project = Project::new();
    copy(&repo().join("examples/crm"), project.root());
    let config = std::fs::read_to_string(project.path("pointsman.yaml")).expect("the example");
    project.write(
        "pointsman.yaml",
        config.replace("127.0.0.1:7073", "127.0.0.1:0"),
    );
    let with = |args: &[&str]| {
        let mut command = project.command(args);
        command
            .env("CRM_URL", api.url("/v2/customers"))
            .env("CRM_TOKEN", "from-the-environment");
        command
    };
    let checked = with(&["check"]).output().expect("the program runs");
    assert!(checked.status.success(), "{checked:?}");
    let node = project.start_command(with(&["run"]));
    tick(&project, "now");
    project.wait("the sync", || {
        project.count("select count(*) from customers") == Some(150)
    });
    project.wait_idle();
    assert_eq!(rows(&project), expected(&all));
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
    node.stop();
}

#[test]
fn mistakes_in_an_extract_have_a_place() {
    let project = Project::new();
    project.write(
        "pointsman.yaml",
        "handlers:
  a: { extract: { http: { url: crm.example.com, records: data }, write: { table: a } } }
  b: { extract: { http: { url: http://crm, auth: { bearer: x, basic: {} }, pages: { number: { size: 5 } } }, write: { table: b } } }
  c: { extract: { http: { url: http://crm, pages: { cursor: {} }, since: { at: updated_at } }, read: { input: events, delimiter: ';' }, write: { table: c } } }
  d: { extract: { write: { table: d } } }
",
    );
    let output = project.run(&["check"]);
    assert!(!output.status.success());
    insta::assert_snapshot!(text(&output.stdout) + &text(&output.stderr));
}
