//! Loads into a real PostgreSQL server: types, modes, receipts, refusals.

use super::load::{TYPED, published};
use super::world::{World, cx, handle, message};
use crate::support::postgres::{Database, PASSWORD, shared};
use pointsman::drivers::postgres::{PostgresLoader, PostgresOptions, PostgresTls};
use pointsman::event::Event;
use pointsman::handlers::load::{LoadHandler, LoadOptions, Mode};
use pointsman::handlers::{Class, Context, Failure, Handler};
use std::sync::Arc;
use std::time::Duration;

pub fn server(database: &Database<'_>) -> PostgresOptions {
    PostgresOptions {
        host: "127.0.0.1".to_owned(),
        port: database.server.port,
        user: "postgres".to_owned(),
        password: Some(PASSWORD.to_owned()),
        database: Some(database.name.clone()),
        tls: PostgresTls::Disable,
        ca: None,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(60),
    }
}

fn by_id() -> Mode {
    Mode::upsert(vec!["id".to_owned()])
}

pub fn options(mode: Mode, create: bool, widen: bool) -> LoadOptions {
    LoadOptions {
        create,
        widen,
        ..LoadOptions::new("w", mode)
    }
}

pub fn loader(world: &World, options: LoadOptions, server: PostgresOptions) -> LoadHandler {
    let loader = PostgresLoader::new(options.clone(), server).unwrap();
    LoadHandler::into(options, world.path("lake"), Arc::new(loader)).unwrap()
}

fn load(world: &World, database: &Database<'_>, mode: Mode) -> LoadHandler {
    loader(world, options(mode, false, false), server(database))
}

async fn refused(handler: &LoadHandler, event: Event) -> Failure {
    handle(handler, event).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_exactly() {
    let (world, database) = (World::new(), shared().database());
    let sql = "select
        cast(i as tinyint) as t, cast(i as smallint) as s, cast(i as int) as i, cast(b as bigint) as b,
        cast(b as bigint unsigned) as u, cast(f as real) as r, cast(f as double) as d,
        cast(n as decimal(38,10)) as n, cast(n as decimal(10,2)) as m, x as x, i = '1' as o,
        cast(day as date) as day, to_timestamp_micros(cast(b as bigint)) as at,
        arrow_cast(to_timestamp_micros(cast(b as bigint)), 'Timestamp(Microsecond, Some(\"UTC\"))') as atz,
        make_array(i, x) as list, encode(x, 'hex') as hex, arrow_cast(x, 'Binary') as raw
      from input";
    let csv = "i,b,f,n,x,day\n1,1234567890123456,1.5,12345678.25,\"a\"\"\u{e9}\\,\t\",2013-02-28\n\
               -7,0,-0.1,-0.01,,1969-12-31\nNA,NA,NA,NA,NA,NA\n";
    let event = published(&world, "types.csv", csv, sql).await;
    let made = loader(
        &world,
        options(Mode::Append, true, false),
        server(&database),
    );
    handle(&made, event).await.unwrap();
    let types = database.sql(
        "select string_agg(column_name || ' ' || udt_name || coalesce(numeric_precision::text, ''), ', ' order by ordinal_position)
         from information_schema.columns where table_name = 'w'",
    );
    assert_eq!(
        types,
        "t int216, s int216, i int432, b int864, u numeric20, r float424, d float853, n numeric38, \
         m numeric10, x text, o bool, day date, at timestamp, atz timestamptz, list jsonb, hex text, raw bytea"
    );
    let rows = database.sql("set timezone = 'UTC'; select * from w order by i");
    assert_eq!(
        rows,
        "-7|-7|-7|0|0|-0.1|-0.1|-0.0100000000|-0.01||f|1969-12-31|1970-01-01 00:00:00|1970-01-01 00:00:00+00|[\"-7\", null]||\n\
         1|1|1|1234567890123456|1234567890123456|1.5|1.5|12345678.2500000000|12345678.25|a\"\u{e9}\\,\t|t|2013-02-28|\
         2009-02-13 23:31:30.123456|2009-02-13 23:31:30.123456+00|[\"1\", \"a\\\"\u{e9}\\\\,\\t\"]|6122c3a95c2c09|\\x6122c3a95c2c09\n\
         ||||||||||||||[null, null]||"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_other_types_take_what_fits_them() {
    let (world, database) = (World::new(), shared().database());
    database.sql(
        "create type mood as enum ('sad', 'happy'); create domain short as varchar(3);
         create table w (id smallint, n numeric, m numeric(6,1), u uuid, j json, e mood, s short, v int default 7)",
    );
    let sql = "select cast(id as bigint) as id, cast(id as int) as n, cast(m as decimal(9,3)) as m, u, j, e, s from input";
    let csv = |id: &str, m: &str, s: &str| {
        format!(
            "id,m,u,j,e,s\n{id},{m},936da01f-9abd-4d9d-80c7-02af85c822a8,\"{{\"\"a\"\": 1}}\",happy,{s}\n"
        )
    };
    let append = load(&world, &database, Mode::Append);
    let good = published(&world, "1.csv", &csv("5", "1.200", "abc"), sql).await;
    handle(&append, good).await.unwrap();
    assert_eq!(
        database.sql("select * from w"),
        "5|5|1.2|936da01f-9abd-4d9d-80c7-02af85c822a8|{\"a\": 1}|happy|abc|7"
    );
    // Nothing is rounded or cut.
    let wrong = [
        (
            "2.csv",
            csv("70000", "1", "a"),
            "column `id` has a value that is not of type smallint: 70000 is in the row (id=70000,",
        ),
        (
            "3.csv",
            csv("6", "1.25", "a"),
            "column `m` has a value that is not of type decimal(6,1): 1.250 is in the row (id=6,",
        ),
        ("4.csv", csv("6", "1", "abcd"), "refuses the row (id=6,"),
    ];
    for (key, csv, message) in wrong {
        let event = published(&world, key, &csv, sql).await;
        let failure = refused(&append, event).await;
        assert_eq!(failure.class, Class::Permanent, "{failure:?}");
        assert!(failure.message.contains(message), "{failure:?}");
        assert!(
            failure.message.contains(&format!("of inbox/{key}")),
            "{failure:?}"
        );
    }
    let text = published(&world, "5.csv", &csv("x", "1", "a"), "select id from input").await;
    assert_eq!(
        refused(&append, text).await.message,
        "column `id` is varchar in the outputs and smallint in the table; cast it in the SQL"
    );
    assert_eq!(database.sql("select count(*) from w"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_publication_is_loaded_once() {
    let (world, database) = (World::new(), shared().database());
    let one = published(&world, "1.csv", "id,v\n1,a\n", TYPED).await;
    let two = published(&world, "2.csv", "id,v\n1,b\n", TYPED).await;
    let made = loader(
        &world,
        options(Mode::Append, true, false),
        server(&database),
    );
    for _ in 0..3 {
        // Twice in one batch, too; and by two handlers at once.
        let batch: Vec<_> = [&one, &two, &one].map(|e| message(e.clone())).to_vec();
        let back: Vec<_> = [&two, &one].map(|e| message(e.clone())).to_vec();
        let (a, b) = (cx(), cx());
        let (a, b) = tokio::join!(made.handle(&batch, &a), made.handle(&back, &b));
        for result in a.results.iter().chain(&b.results) {
            assert!(result.is_ok(), "{result:?}");
        }
    }
    assert_eq!(database.sql("select id, v from w order by v"), "1|a\n1|b");
    let receipts = "select target, rows, count(*) from pointsman_loads group by 1, 2";
    assert_eq!(database.sql(receipts), "\"public\".\"w\"|1|2");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_row_of_a_key_wins_and_other_columns_stay() {
    let (world, database) = (World::new(), shared().database());
    database.sql(
        "create table w (id bigint primary key, v text, note text default 'new');
         create table uses (id bigint references w on delete cascade);
         insert into w values (1, 'old', 'mine'); insert into uses values (1)",
    );
    let upsert = load(&world, &database, by_id());
    let one = published(&world, "1.csv", "id,v\n1,a\n2,b\n1,c\n", TYPED).await;
    let two = published(&world, "2.csv", "id,v\n3,x\n2,y\n3,z\n", TYPED).await;
    for event in [one, two] {
        handle(&upsert, event).await.unwrap();
    }
    let rows = database.sql("select * from w order by id");
    assert_eq!(rows, "1|c|mine\n2|y|new\n3|z|new");
    assert_eq!(database.sql("select count(*) from uses"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_row_does_not_replace_a_newer_one() {
    let (world, database) = (World::new(), shared().database());
    let sql = "select cast(id as bigint) as id, v, cast(at as date) as at from input";
    let mode = Mode::Upsert {
        key: vec!["id".to_owned()],
        newer_by: Some("at".to_owned()),
    };
    let rows = |rows: &str| format!("id,v,at\n{rows}");
    let first = rows("1,new,2024-02-01\n2,a,2024-01-01\n3,x,NA\n2,older,2023-01-01\n");
    let second = rows("1,stale,2024-01-01\n2,b,2024-01-02\n3,y,2020-01-01\n4,d,NA\n");
    let expected = "1|new\n2|b\n3|y\n4|d";
    let one = published(&world, "1.csv", &first, sql).await;
    let two = published(&world, "2.csv", &second, sql).await;
    let made = loader(
        &world,
        options(mode.clone(), true, false),
        server(&database),
    );
    let delta = world.load("w", mode);
    for event in [one, two] {
        handle(&made, event.clone()).await.unwrap();
        handle(&delta, event).await.unwrap();
    }
    assert_eq!(database.sql("select id, v from w order by id"), expected);
    let found = world.csv("select id, v from w order by id").await;
    assert_eq!(found, expected.replace('|', ","));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_replaced_whole_and_no_other() {
    let (world, database) = (World::new(), shared().database());
    let sql = "select cast(id as bigint) as id, p from input";
    let mode = Mode::ReplacePartition {
        by: vec!["p".to_owned()],
    };
    let one = published(&world, "1.csv", "id,p\n1,a\n2,a\n3,b\n4,NA\n", sql).await;
    let two = published(&world, "2.csv", "id,p\n5,a\n6,NA\n7,c\n", sql).await;
    let made = loader(
        &world,
        options(mode.clone(), true, false),
        server(&database),
    );
    let delta = world.load("w", mode);
    // In one batch the second replaces the first all the same.
    let batch: Vec<_> = [&one, &two].map(|e| message(e.clone())).to_vec();
    for handler in [&made, &delta] {
        for result in handler.handle(&batch, &cx()).await.results {
            result.unwrap();
        }
        handle(handler, one.clone()).await.unwrap();
    }
    let expected = "3|b\n5|a\n6|\n7|c";
    assert_eq!(database.sql("select id, p from w order by id"), expected);
    let found = world.csv("select id, p from w order by id").await;
    assert_eq!(found, expected.replace('|', ","));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_and_widened_only_when_asked() {
    let (world, database) = (World::new(), shared().database());
    let narrow = "select cast(id as int) as id, v from input";
    let one = published(&world, "1.csv", "id,v\n1,a\n", narrow).await;
    let failure = refused(&load(&world, &database, by_id()), one.clone()).await;
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("NoTable", Class::Permanent)
    );
    assert!(
        failure.message.ends_with("set `create: true`"),
        "{failure:?}"
    );

    let made = loader(&world, options(by_id(), true, false), server(&database));
    handle(&made, one).await.unwrap();
    let more =
        "select cast(id as bigint) as id, v, cast('7.50' as decimal(5,2)) as extra from input";
    let two = published(&world, "2.csv", "id,v\n5000000000,b\n", more).await;
    let failure = refused(&made, two.clone()).await;
    assert!(
        failure.message.contains("has no column `extra`; add it"),
        "{failure:?}"
    );

    let wider = loader(&world, options(by_id(), true, true), server(&database));
    handle(&wider, two).await.unwrap();
    assert_eq!(
        database.sql("select id, v, extra, pg_typeof(id) from w order by id"),
        "1|a||bigint\n5000000000|b|7.50|bigint"
    );
    let index = database.sql("select indexdef from pg_indexes where tablename = 'w'");
    assert!(
        index.contains("UNIQUE") && index.ends_with("(id)"),
        "{index}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_is_named_and_stops_no_other_publication() {
    let (world, database) = (World::new(), shared().database());
    database.sql(
        "create table colours (name text primary key); insert into colours values ('red'), ('blue');
         create table w (id bigint primary key, v text not null, n int check (n > 0),
           c text references colours deferrable initially deferred)",
    );
    let sql = "select cast(id as bigint) as id, v, cast(n as int) as n, c from input";
    let lines: Vec<String> = (0..100).map(|id| format!("{id},v,1,red\n")).collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = format!("{line}\n");
        format!("id,v,n,c\n{}", lines.concat())
    };
    let wrong = [
        (
            "null.csv",
            with(63, "63,NA,1,red"),
            "null value in column \"v\"",
        ),
        (
            "check.csv",
            with(98, "98,v,0,red"),
            "violates check constraint \"w_n_check\"",
        ),
        (
            "key.csv",
            with(17, "17,v,1,green"),
            "Key (c)=(green) is not present",
        ),
    ];
    for mode in [Mode::Append, by_id()] {
        let handler = load(&world, &database, mode.clone());
        for (key, csv, message) in &wrong {
            let event = published(&world, key, csv, sql).await;
            let failure = refused(&handler, event).await;
            assert_eq!(failure.code, "ConstraintFailed", "{failure:?}");
            assert_eq!(failure.class, Class::Permanent);
            assert!(failure.message.contains(message), "{failure:?}");
            // A foreign key is looked at when all rows are in; then its values are named.
            if mode == by_id() || *key != "key.csv" {
                let row = csv
                    .lines()
                    .position(|l| !l.contains(",v,1,red") && !l.starts_with("id"))
                    .unwrap();
                let named = format!("(id={}", row - 1);
                assert!(failure.message.contains(&named), "{failure:?}");
                assert!(
                    failure.message.contains(&format!("row {row} in part-")),
                    "{failure:?}"
                );
                assert!(
                    failure.message.contains(&format!("of inbox/{key}")),
                    "{failure:?}"
                );
            }
        }
    }
    let twice = published(
        &world,
        "twice.csv",
        "id,v,n,c\n1,a,1,red\n2,b,1,red\n1,c,1,red\n",
        sql,
    )
    .await;
    let failure = refused(&load(&world, &database, Mode::Append), twice).await;
    assert!(
        failure
            .message
            .contains("the row (id=1, v=c, n=1, c=red), row 3 in"),
        "{failure:?}"
    );
    assert!(
        failure.message.contains("Key (id)=(1) already exists"),
        "{failure:?}"
    );

    let good = published(&world, "good.csv", "id,v,n,c\n1,a,1,red\n", sql).await;
    let bad = published(&world, "bad.csv", "id,v,n,c\n2,a,-1,red\n", sql).await;
    let also = published(&world, "also.csv", "id,v,n,c\n3,a,1,blue\n", sql).await;
    let batch: Vec<_> = [good, bad, also].map(message).to_vec();
    let results = load(&world, &database, by_id())
        .handle(&batch, &cx())
        .await
        .results;
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(database.sql("select id from w order by id"), "1\n3");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_postgres_cannot_hold_names_its_row() {
    let (world, database) = (World::new(), shared().database());
    database.sql("create table w (id bigint, v text)");
    let sql = "select cast(id as bigint) as id, case when id = '2' then chr(0) else v end as v from input";
    let event = published(&world, "nul.csv", "id,v\n1,a\n2,b\n3,c\n", sql).await;
    let failure = refused(&load(&world, &database, Mode::Append), event).await;
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("BadValue", Class::Permanent)
    );
    assert!(failure.message.contains("row 2 in part-"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_mends_is_transient() {
    let (world, database) = (World::new(), shared().database());
    database.sql("create table w (id bigint primary key, v text)");
    let event = published(&world, "1.csv", "id,v\n1,a\n", TYPED).await;
    let gone = PostgresOptions {
        port: 1,
        ..server(&database)
    };
    let unknown = PostgresOptions {
        password: Some("wrong".to_owned()),
        ..server(&database)
    };
    for (server, code) in [(gone, "ConnectionFailed"), (unknown, "LoginFailed")] {
        let failure = refused(
            &loader(&world, options(by_id(), false, false), server),
            event.clone(),
        )
        .await;
        assert_eq!(
            (failure.code.as_str(), failure.class),
            (code, Class::Transient),
            "{failure:?}"
        );
    }
    // A lock held elsewhere: a statement runs into its time, a connection is cut.
    let mut holder = database.server.psql(&database.name);
    holder.args(["-c", "begin; lock table w; select pg_sleep(60)"]);
    let mut holder = holder.spawn().unwrap();
    let waits = || {
        database.sql("select count(*) from pg_stat_activity where application_name = 'pointsman' and wait_event_type = 'Lock'")
    };
    let locked = "select count(*) from pg_locks where relation = 'w'::regclass and mode = 'AccessExclusiveLock'";
    while database.sql(locked) != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let hurried = PostgresOptions {
        statement_timeout: Duration::from_millis(200),
        ..server(&database)
    };
    let hurried = loader(&world, options(by_id(), false, false), hurried);
    let failure = refused(&hurried, event.clone()).await;
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("StatementTimeout", Class::Transient)
    );

    let (patient, cancelled) = (load(&world, &database, by_id()), cx());
    let batch = [message(event.clone())];
    let cut = async {
        while waits() == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        database.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pointsman' and datname = current_database()");
    };
    let (outcome, ()) = tokio::join!(patient.handle(&batch, &cancelled), cut);
    let failure = outcome.results.into_iter().next().unwrap().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("ConnectionFailed", Class::Transient),
        "{failure:?}"
    );

    // Who is stopped leaves nothing running on the server.
    let stopped: Context = cx();
    let cancel = async {
        while waits() == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stopped.cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(patient.handle(&batch, &stopped), cancel);
    assert_eq!(
        outcome.results[0].as_ref().unwrap_err().class,
        Class::Transient
    );
    while database.sql("select count(*) from pg_stat_activity where application_name = 'pointsman' and datname = current_database()") != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()");
    holder.wait().unwrap();
    handle(&patient, event).await.unwrap();
    assert_eq!(database.sql("select id, v from w"), "1|a");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_is_encrypted_and_the_certificate_checked_as_asked() {
    let (world, database) = (World::new(), shared().database());
    database.sql("create table w (id bigint, v text)");
    let with = |tls: PostgresTls, host: &str, ca: bool| PostgresOptions {
        tls,
        host: host.to_owned(),
        ca: ca.then(|| database.server.certificate()),
        ..server(&database)
    };
    let good = [
        with(PostgresTls::Prefer, "127.0.0.1", false),
        with(PostgresTls::Require, "127.0.0.1", false),
        with(PostgresTls::VerifyFull, "localhost", true),
    ];
    for (n, server) in good.into_iter().enumerate() {
        let event = published(&world, &format!("{n}.csv"), "id,v\n1,a\n", TYPED).await;
        // The table's own word on how the rows came.
        database.sql(
            "create or replace function how() returns trigger language plpgsql as $$ begin
               new.v = (select ssl from pg_stat_ssl where pid = pg_backend_pid()); return new; end $$;
             create or replace trigger how before insert on w for each row execute function how()",
        );
        handle(
            &loader(&world, options(Mode::Append, false, false), server),
            event,
        )
        .await
        .unwrap();
    }
    assert_eq!(
        database.sql("select v, count(*) from w group by v"),
        "true|3"
    );
    let event = published(&world, "x.csv", "id,v\n1,a\n", TYPED).await;
    let unknown = with(PostgresTls::VerifyFull, "localhost", false);
    let failure = refused(
        &loader(&world, options(Mode::Append, false, false), unknown),
        event,
    )
    .await;
    assert_eq!(failure.class, Class::Transient);
    assert!(
        failure.chain.iter().any(|c| c.contains("certificate")),
        "{failure:?}"
    );
}
