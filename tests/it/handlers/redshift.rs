//! Loads into Redshift, as far as it is PostgreSQL: connection, staging through a
//! real bucket, merge, receipts and refusals. The SQL that only Redshift knows
//! is looked at in the snapshots of `src/drivers/redshift`.

use super::load::published;
use super::world::{World, handle};
use crate::support::postgres::{Database, PASSWORD, shared};
use crate::support::redshift::{Redshift, keys};
use crate::support::seaweedfs::{self, KEY, SECRET, SeaweedFs};
use crate::support::{Project, text};
use object_store::aws::AmazonS3Builder;
use pointsman::drivers::postgres::{PostgresOptions, PostgresTls};
use pointsman::drivers::redshift::{Credentials, RedshiftLoader, Staging};
use pointsman::handlers::load::{LoadHandler, LoadOptions, Mode};
use pointsman::handlers::{Class, Failure};
use std::sync::Arc;
use std::time::Duration;

/// A database that looks like a cluster, and a bucket before it.
pub struct Cluster {
    pub database: Database<'static>,
    proxy: Redshift,
    buckets: &'static SeaweedFs,
    bucket: String,
    pub world: World,
}

impl Cluster {
    pub fn new() -> Self {
        let (database, buckets) = (shared().database(), seaweedfs::shared());
        // What Redshift has of its own.
        database.sql(
            "create domain super as jsonb;
             create function json_parse(text) returns jsonb language sql as 'select $1::jsonb'",
        );
        Self {
            proxy: Redshift::start(database.server.port, buckets),
            bucket: buckets.bucket("stage"),
            world: World::new(),
            database,
            buckets,
        }
    }

    pub fn load(&self, options: LoadOptions) -> LoadHandler {
        let server = PostgresOptions {
            host: "127.0.0.1".to_owned(),
            port: self.proxy.port,
            user: "postgres".to_owned(),
            password: Some(PASSWORD.to_owned()),
            database: Some(self.database.name.clone()),
            tls: PostgresTls::Disable,
            ca: None,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
        };
        let store = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region("us-east-1")
            .with_endpoint(self.buckets.endpoint())
            .with_allow_http(true)
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
            .build()
            .unwrap();
        let staging = Staging {
            store: Arc::new(store),
            bucket: self.bucket.clone(),
            prefix: "loads".to_owned(),
            credentials: Credentials::Role("default".to_owned()),
            scratch: self.world.path("scratch"),
        };
        let loader = RedshiftLoader::new(options.clone(), server, staging).unwrap();
        LoadHandler::into(options, self.world.path("lake"), Arc::new(loader)).unwrap()
    }

    async fn refused(&self, handler: &LoadHandler, key: &str, csv: &str, sql: &str) -> Failure {
        let event = published(&self.world, key, csv, sql).await;
        handle(handler, event).await.unwrap_err()
    }

    /// What is left in the bucket.
    fn left(&self) -> Vec<String> {
        // Asked from another thread, because a runtime cannot wait inside another.
        std::thread::scope(|s| {
            let asked = s.spawn(|| keys(self.buckets, &self.bucket));
            asked.join().unwrap()
        })
    }
}

pub fn options(mode: Mode) -> LoadOptions {
    LoadOptions {
        create: true,
        widen: true,
        ..LoadOptions::new("w", mode)
    }
}

fn by_id(newer_by: Option<&str>) -> Mode {
    Mode::Upsert {
        key: vec!["id".to_owned()],
        newer_by: newer_by.map(str::to_owned),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_through_the_bucket() {
    let cluster = Cluster::new();
    let sql = "select cast(id as bigint) as id, cast(id as smallint) as s, cast(id as int) as i,
        cast(n as real) as r, cast(n as double) as d, cast(n as decimal(12,3)) as n, x, id = '1' as o,
        cast(day as date) as day, to_timestamp_micros(cast(b as bigint)) as at,
        arrow_cast(to_timestamp_micros(cast(b as bigint)), 'Timestamp(Microsecond, Some(\"UTC\"))') as atz,
        make_array(id, x) as list
      from input";
    let csv = "id,b,n,x,day\n1,1361000000123456,1.5,\"a\"\"\u{e9},\",2013-02-28\n2,0,-0.25,b,1969-12-31\n3,NA,NA,NA,NA\n";
    let event = published(&cluster.world, "types.csv", csv, sql).await;
    let upsert = cluster.load(options(by_id(None)));
    let done = handle(&upsert, event.clone()).await.unwrap();
    assert_eq!(done.summary["already_loaded"], false);
    let types = cluster.database.sql(
        "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)
         from pg_attribute where attrelid = 'w'::regclass and attnum > 0",
    );
    assert_eq!(
        types,
        "id bigint, s smallint, i integer, r real, d double precision, n numeric(12,3), \
         x character varying(65535), o boolean, day date, at timestamp without time zone, \
         atz timestamp with time zone, list super"
    );
    let rows = "set timezone = 'UTC'; select * from w order by id";
    let expected = "1|1|1|1.5|1.5|1.500|a\"\u{e9},|t|2013-02-28|2013-02-16 07:33:20.123456|2013-02-16 07:33:20.123456+00|[\"1\", \"a\\\"\u{e9},\"]\n\
         2|2|2|-0.25|-0.25|-0.250|b|f|1969-12-31|1970-01-01 00:00:00|1970-01-01 00:00:00+00|[\"2\", \"b\"]\n\
         3|3|3|||||f||||[\"3\", null]";
    assert_eq!(cluster.database.sql(rows), expected);
    // Once per publication, and nothing stays in the bucket.
    let again = handle(&upsert, event).await.unwrap();
    assert_eq!(again.summary["already_loaded"], true);
    assert_eq!(cluster.database.sql(rows), expected);
    assert_eq!(cluster.proxy.copies().len(), 1);
    assert_eq!(cluster.left(), Vec::<String>::new());
    assert_eq!(
        cluster
            .database
            .sql("select target, rows from pointsman_loads"),
        "\"public\".\"w\"|3"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_meet_those_that_are_there_by_mode() {
    let cluster = Cluster::new();
    cluster
        .database
        .sql("create table w (id bigint not null, day varchar(10), v int, stock int default 7)");
    let sql = "select cast(id as bigint) as id, day, cast(v as int) as v from input";
    let load = |key: &'static str, csv: &'static str, mode: Mode| {
        let cluster = &cluster;
        async move {
            let event = published(&cluster.world, key, csv, sql).await;
            handle(&cluster.load(options(mode)), event).await.unwrap();
            cluster.database.sql("select * from w order by id, v")
        }
    };
    // The last row of a key wins; columns that the file lacks keep their values.
    let first = load(
        "1.csv",
        "id,day,v\n1,mon,1\n2,mon,2\n1,mon,3\n",
        by_id(None),
    )
    .await;
    assert_eq!(first, "1|mon|3|7\n2|mon|2|7");
    cluster.database.sql("update w set stock = 1 where id = 1");
    // Older rows do no harm, equal and newer ones replace, null is older than all.
    let newer = "id,day,v\n1,tue,2\n2,tue,2\n3,tue,9\n3,tue,8\n1,wed,NA\n";
    let second = load("2.csv", newer, by_id(Some("v"))).await;
    assert_eq!(second, "1|mon|3|1\n2|tue|2|7\n3|tue|9|7");
    // All rows of the partitions go, also where the partition is null.
    let by = Mode::ReplacePartition {
        by: vec!["day".to_owned()],
    };
    cluster.database.sql("insert into w values (8, null, 8)");
    let third = load("3.csv", "id,day,v\n4,tue,4\n5,NA,5\n", by).await;
    assert_eq!(third, "1|mon|3|1\n4|tue|4|7\n5||5|7");
    let fourth = load("4.csv", "id,day,v\n1,mon,0\n", Mode::Append).await;
    assert_eq!(fourth, "1|mon|0|7\n1|mon|3|1\n4|tue|4|7\n5||5|7");
    // A table that the file fills whole: rows are replaced as wholes.
    cluster.database.sql("alter table w drop column stock");
    let fifth = load(
        "5.csv",
        "id,day,v\n4,sun,1\n4,sun,2\n6,sun,6\n",
        by_id(None),
    )
    .await;
    assert_eq!(fifth, "1|mon|0\n1|mon|3\n4|sun|2\n5||5\n6|sun|6");
    // A column that is new is added.
    let event = published(
        &cluster.world,
        "6.csv",
        "id,extra\n7,x\n",
        "select cast(id as bigint) as id, extra from input",
    )
    .await;
    handle(&cluster.load(options(by_id(None))), event)
        .await
        .unwrap();
    assert_eq!(
        cluster.database.sql("select * from w where id = 7"),
        "7|||x"
    );
    assert_eq!(cluster.left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_table_would_refuse_are_named() {
    let cluster = Cluster::new();
    cluster.database.sql(
        "create table w (id bigint not null, note varchar(5));
         create table public.sys_load_error_detail (session_id int, start_time timestamp,
           file_name text, line_number int, column_name text, error_message text)",
    );
    let sql = "select cast(id as bigint) as id, note from input";
    let append = cluster.load(options(Mode::Append));
    let long = cluster
        .refused(
            &append,
            "1.csv",
            "id,note\n1,abc\n2,\u{e9}\u{e9}\u{e9}\n",
            sql,
        )
        .await;
    assert_eq!(
        (long.class, long.code.as_str()),
        (Class::Permanent, "BadValue")
    );
    assert!(
        long.message.contains("column `note` takes 5 bytes of text, not 6, in the row (id=2, note=\u{e9}\u{e9}\u{e9}), row 2 in")
            && long.message.contains("of inbox/1.csv"),
        "{}",
        long.message
    );
    let null = cluster
        .refused(&append, "2.csv", "id,note\n1,a\nNA,b\n", sql)
        .await;
    assert_eq!(null.code, "ConstraintFailed");
    assert!(
        null.message
            .contains("column `id` must not be null, in the row (id=NULL, note=b), row 2"),
        "{}",
        null.message
    );
    let kind = cluster
        .refused(
            &append,
            "3.csv",
            "id,note\nx,a\n",
            "select id, note from input",
        )
        .await;
    assert_eq!(
        kind.message,
        "column `id` is varchar in the outputs and bigint in the table; cast it in the SQL"
    );
    let bytes = cluster
        .refused(
            &append,
            "4.csv",
            "id,note\n1,a\n",
            "select cast(id as bigint) as id, arrow_cast(note, 'Binary') as note from input",
        )
        .await;
    assert!(
        bytes.message.contains("encode(note, 'hex')"),
        "{}",
        bytes.message
    );
    // What Redshift itself stumbles on is told from its system view.
    cluster.proxy.refuse(true);
    let plain = cluster
        .refused(&append, "5.csv", "id,note\n1,a\n", sql)
        .await;
    assert!(
        plain
            .message
            .contains("the staged files for \"public\".\"w\" cannot be copied: Load into table"),
        "{plain:?}"
    );
    cluster.database.sql(
        "drop table sys_load_error_detail;
         create view sys_load_error_detail as select pg_backend_pid() as session_id, now() as start_time,
           's3://b/part-00000.parquet  ' as file_name, 0 as line_number, 'note' as column_name,
           'has an incompatible Parquet schema' as error_message",
    );
    let told = cluster
        .refused(&append, "6.csv", "id,note\n1,a\n", sql)
        .await;
    assert_eq!(
        (told.class, told.code.as_str()),
        (Class::Permanent, "CopyFailed")
    );
    assert!(
        told.message.contains(
            "column `note` in s3://b/part-00000.parquet: has an incompatible Parquet schema"
        ),
        "{}",
        told.message
    );
    cluster.proxy.refuse(false);
    let good = published(&cluster.world, "7.csv", "id,note\n1,a\n", sql).await;
    handle(&append, good).await.unwrap();
    assert_eq!(cluster.database.sql("select * from w"), "1|a");
    assert_eq!(cluster.left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_attempts_at_once_load_once() {
    let cluster = Cluster::new();
    let sql = "select cast(id as bigint) as id from input";
    let csv: String = std::iter::once("id".to_owned())
        .chain((0..500).map(|n| n.to_string()))
        .collect::<Vec<_>>()
        .join("\n");
    let event = published(&cluster.world, "1.csv", &csv, sql).await;
    let (one, two) = (
        cluster.load(options(Mode::Append)),
        cluster.load(options(Mode::Append)),
    );
    let both = tokio::join!(handle(&one, event.clone()), handle(&two, event.clone()));
    // One of them may have been told to come again; then it finds the work done.
    for answer in [both.0, both.1] {
        if let Err(failure) = answer {
            assert_eq!(failure.class, Class::Transient, "{failure:?}");
        }
    }
    handle(&one, event).await.unwrap();
    assert_eq!(cluster.database.sql("select count(*) from w"), "500");
    assert_eq!(
        cluster.database.sql("select count(*) from pointsman_loads"),
        "1"
    );
}

/// Somebody else's transaction, open until it is told to commit.
struct Open(std::process::Child);

impl Open {
    fn begin(database: &Database<'_>, sql: &str) -> Self {
        use std::io::{BufRead as _, BufReader, Write as _};
        let mut child = database
            .server
            .psql(&database.name)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        writeln!(stdin, "begin; {sql}; select 'begun';").unwrap();
        let mut said = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), "begun");
        Self(child)
    }

    /// Commits once a statement that begins so waits for this transaction.
    fn commit_when_waited_for(mut self, database: &Database<'_>, statement: &str) {
        use std::io::Write as _;
        let waits = format!(
            "select count(*) from pg_stat_activity where datname = '{}' and wait_event_type = 'Lock' and query like '{statement}%'",
            database.name
        );
        let begun = std::time::Instant::now();
        while database.sql(&waits) == "0" {
            assert!(begun.elapsed() < crate::support::PATIENCE, "nobody waits");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut stdin = self.0.stdin.take().unwrap();
        writeln!(stdin, "commit;").unwrap();
        drop(stdin);
        assert!(self.0.wait().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_else_makes_meanwhile_are_taken() {
    let cluster = Cluster::new();
    let database = &cluster.database;
    let sql = "select cast(id as bigint) as id, v from input";
    let event = published(&cluster.world, "1.csv", "id,v\n1,a\n", sql).await;
    let made = [
        (
            "pointsman_loads",
            "create table pointsman_loads (target varchar(300), publication varchar(200), cause varchar(1024), rows bigint, loaded_at timestamp)",
        ),
        ("\"public\".\"w\"", "create table w (id bigint)"),
    ];
    let begun = made.map(|(_, sql)| Open::begin(database, sql));
    let waited = "create table if not exists";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (open, (name, _)) in begun.into_iter().zip(made) {
                open.commit_when_waited_for(database, &format!("{waited}%{name}"));
            }
        });
        let load = cluster.load(options(Mode::Append));
        let handled = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(handle(&load, event))
        });
        handled.unwrap();
    });
    assert_eq!(database.sql("select * from w"), "1|a");
    // A column that somebody adds at the same time.
    let more = "select cast(id as bigint) as id, v as more from input";
    let event = published(&cluster.world, "2.csv", "id,v\n2,b\n", more).await;
    let open = Open::begin(database, "alter table w add column more varchar(10)");
    std::thread::scope(|scope| {
        scope.spawn(|| open.commit_when_waited_for(database, "alter table"));
        let load = cluster.load(options(Mode::Append));
        let handled = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(handle(&load, event))
        });
        handled.unwrap();
    });
    assert_eq!(database.sql("select * from w where id = 2"), "2||b");
}

#[test]
fn a_file_goes_into_redshift_by_the_real_program() {
    let cluster = Cluster::new();
    let project = Project::new();
    project.write(
        "pointsman.yaml",
        format!(
            "node: {{ listen: 127.0.0.1:0 }}
connections:
  weed: {}
  dwh:
    redshift:
      url: \"postgres://postgres:let%20me%2Fin@127.0.0.1:{}/{}?sslmode=disable\"
      staging: {{ connection: weed, bucket: {}, prefix: loads }}
      credentials: weed
sources:
  inbox: {{ folder: {{ path: inbox }} }}
rules:
  files: {{ pattern: {{ detail-type: [Object Created] }}, targets: [{{ handler: clean }}] }}
  ready: {{ pattern: {{ detail-type: [Analytics Ready] }}, targets: [{{ handler: load }}] }}
handlers:
  clean: {{ transform: {{ sql: \"select cast(id as bigint) as id, day from input\", write: {{ table: t, partition_by: day }} }} }}
  load: {{ load: {{ to: dwh, table: public.t, mode: upsert, key: id, create: true }} }}
",
            cluster.buckets.connection(),
            cluster.proxy.port,
            cluster.database.name,
            cluster.bucket
        ),
    );
    project.drop_in("inbox/a.csv", "id,day\n1,mon\n2,tue\n");
    project.drop_in("inbox/b.csv", "id,day\n2,wed\n");
    project.ok(&["run", "--until-idle", "2"]);
    let count = cluster.database.sql("select count(*), sum(id) from t");
    assert_eq!(count, "2|3");
    let copies = cluster.proxy.copies().join("\n");
    assert!(copies.contains(&format!("secret_access_key '{SECRET}'")));
    // The secret is in what Redshift gets, and nowhere else.
    let shown = project.run(&["plan", "--json"]);
    let log = std::fs::read_to_string(project.path("node.log")).unwrap_or_default();
    for said in [text(&shown.stdout), log] {
        assert!(
            !said.contains(SECRET) && !said.contains("let me/in"),
            "{said}"
        );
    }
    assert_eq!(project.ok(&["dlq", "list"]).trim(), "no dead letters");
}

#[test]
fn the_shipped_example_is_sound_and_mistakes_have_a_place() {
    let project = Project::shipped();
    let checked = project.ok(&["check", "examples/databases"]);
    assert!(!checked.contains("warning"), "{checked}");
    project.write(
        "pointsman.yaml",
        "connections:
  aws: { aws: { region: eu-west-1 } }
  rabbit: { amqp: {} }
  one: { redshift: { host: a, iam_role: load, staging: { connection: aws, bucket: stage } } }
  two: { redshift: { host: a, credentials: aws, staging: { connection: rabbit, bucket: stage2 } } }
  three: { redshift: { host: a, staging: { bucket: stage3 } } }
handlers:
  load: { load: { to: rabbit, table: t } }
",
    );
    let output = project.run(&["check"]);
    assert!(!output.status.success());
    insta::assert_snapshot!(text(&output.stdout) + &text(&output.stderr));
}
