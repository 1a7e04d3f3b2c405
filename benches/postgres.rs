//! A million rows from a Parquet file of the lake into Postgres, beside
//! `psql \copy` of the same rows as CSV into the same table. Starts a server of
//! its own. Prints one line of JSON a run.
//!
//! ```text
//! cargo bench --bench postgres                # 1,000,000 rows, three rounds
//! cargo bench --bench postgres -- 100000 1
//! ```

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use pointsman::drivers::postgres::{PostgresLoader, PostgresOptions, PostgresTls};
use pointsman::event::{Defaults, EventBuilder};
use pointsman::handlers::load::{LoadHandler, LoadOptions, Mode};
use pointsman::handlers::{Context, Handler, Message};
use serde_json::json;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::postgres::{PASSWORD, Postgres};

/// What the server of the tests needs of the tests.
// The tests use more of it than the bench does.
#[allow(dead_code)]
mod support {
    #[path = "../../tests/it/support/postgres.rs"]
    pub mod postgres;

    pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

    pub fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// Rows of a batch.
const BATCH: i64 = 10_000;

const COLUMNS: &str = "id bigint, customer integer, amount numeric(12,2), price double precision,
    country text, note text, at timestamptz, day date, paid boolean, seq bigint";

fn batch(first: i64) -> RecordBatch {
    let rows = first..first + BATCH;
    let mapped = |f: fn(i64) -> i64| rows.clone().map(f);
    let columns: [(&str, ArrayRef); 10] = [
        ("id", Arc::new(Int64Array::from_iter_values(rows.clone()))),
        (
            "customer",
            Arc::new(Int32Array::from_iter_values(
                rows.clone().map(|n| (n % 50_000) as i32),
            )),
        ),
        (
            "amount",
            Arc::new(
                Decimal128Array::from_iter_values(
                    rows.clone().map(|n| i128::from(n * 7_919 % 1_000_000)),
                )
                .with_precision_and_scale(12, 2)
                .expect("a decimal"),
            ),
        ),
        (
            "price",
            Arc::new(Float64Array::from_iter_values(
                rows.clone().map(|n| n as f64 / 3.0),
            )),
        ),
        (
            "country",
            Arc::new(StringArray::from_iter_values(
                rows.clone().map(|n| ["DE", "FR", "US"][(n % 3) as usize]),
            )),
        ),
        (
            "note",
            Arc::new(StringArray::from_iter(
                rows.clone()
                    .map(|n| (n % 5 != 0).then(|| format!("order {n}, shipped"))),
            )),
        ),
        (
            "at",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(mapped(|n| {
                    1_700_000_000_000_000 + n * 1_000_001
                }))
                .with_timezone("UTC"),
            ),
        ),
        (
            "day",
            Arc::new(Date32Array::from_iter_values(
                rows.clone().map(|n| 19_000 + (n % 365) as i32),
            )),
        ),
        (
            "paid",
            Arc::new(BooleanArray::from_iter(
                rows.clone().map(|n| Some(n % 2 == 0)),
            )),
        ),
        (
            "seq",
            Arc::new(Int64Array::from_iter_values(mapped(|n| n % 1_000))),
        ),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

/// The rows as a file of the lake, and as CSV.
fn write(folder: &Path, rows: i64) {
    let first = batch(0);
    std::fs::create_dir_all(folder.join("lake")).expect("a folder");
    let file = File::create(folder.join("lake/rows.parquet")).expect("a file");
    let mut parquet = ArrowWriter::try_new(file, first.schema(), None).expect("a writer");
    let csv = File::create(folder.join("rows.csv")).expect("a file");
    let mut csv = arrow::csv::WriterBuilder::new()
        .with_header(false)
        .build(csv);
    for first in (0..rows).step_by(BATCH as usize) {
        let batch = batch(first);
        parquet.write(&batch).expect("rows");
        csv.write(&batch).expect("rows");
    }
    parquet.close().expect("an end");
}

fn message(rows: i64, id: &str) -> Message {
    let event = EventBuilder {
        id: id.to_owned(),
        source: "bench".to_owned(),
        detail_type: "Analytics Ready".to_owned(),
        time_ms: 0,
        resources: Vec::new(),
        detail: json!({"outputs": [{"path": "rows.parquet", "rows": rows, "bytes": 1, "partition": {}}]}),
    };
    Message {
        event: Arc::new(event.build(&Defaults::default()).expect("an event")),
        input: None,
        seq: 1,
        attempt: 1,
        accepted_ms: 0,
    }
}

fn context() -> Context {
    Context {
        handler: "bench".to_owned(),
        cancel: tokio_util::sync::CancellationToken::new(),
        progress: Arc::new(|_| {}),
    }
}

fn report(what: &str, rows: i64, took: Duration) {
    let seconds = took.as_secs_f64();
    let rate = (rows as f64 / seconds).round();
    println!(
        "{}",
        json!({"what": what, "rows": rows, "seconds": seconds, "rows_per_second": rate})
    );
}

fn main() {
    let numbers: Vec<i64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(1_000_000) / BATCH * BATCH;
    let rounds = numbers.get(1).copied().unwrap_or(3);
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), rows);
    let server = Postgres::start();
    let database = server.database();
    let options = PostgresOptions {
        host: "127.0.0.1".to_owned(),
        port: server.port,
        user: "postgres".to_owned(),
        password: Some(PASSWORD.to_owned()),
        database: Some(database.name.clone()),
        tls: PostgresTls::Disable,
        ca: None,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(600),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let load = |mode: Mode, id: &str| {
        let load = LoadOptions::new("w", mode);
        let loader = PostgresLoader::new(load.clone(), options.clone()).expect("a loader");
        let handler = LoadHandler::into(load, folder.path().join("lake"), Arc::new(loader));
        let handler = handler.expect("a handler");
        let began = Instant::now();
        let outcome = runtime.block_on(handler.handle(&[message(rows, id)], &context()));
        outcome
            .results
            .into_iter()
            .for_each(|r| drop(r.expect("a load")));
        began.elapsed()
    };
    // A sum of floats would depend on the order of the rows.
    let sums = "select count(*), sum(id), sum(amount), sum(hashfloat8(price)), count(note), max(at), max(day), sum(seq) from w";
    for round in 0..rounds {
        database.sql(&format!(
            "drop table if exists w; create table w ({COLUMNS})"
        ));
        let csv = folder.path().join("rows.csv");
        let copy = format!("\\copy w from '{}' with (format csv)", csv.display());
        let began = Instant::now();
        database.sql(&copy);
        report("psql \\copy", rows, began.elapsed());
        let expected = database.sql(sums);

        database.sql("truncate w; checkpoint");
        report("append", rows, load(Mode::Append, &format!("a{round}")));
        assert_eq!(database.sql(sums), expected);

        database.sql("truncate w; alter table w add primary key (id); checkpoint");
        let key = || Mode::upsert(vec!["id".to_owned()]);
        report(
            "upsert of new rows",
            rows,
            load(key(), &format!("b{round}")),
        );
        database.sql("checkpoint");
        report(
            "upsert of known rows",
            rows,
            load(key(), &format!("c{round}")),
        );
        assert_eq!(database.sql(sums), expected);
    }
}
