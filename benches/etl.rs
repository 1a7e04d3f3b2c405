//! Large files through the transform: checked record by record, bad ones set
//! aside, zstd Parquet partitioned. Prints one line of JSON with the wall and
//! CPU time and the peak memory of the process.
//!
//! ```text
//! cargo bench --bench etl -- generate /tmp/etl.csv 25000000    # about 2 GiB
//! cargo bench --bench etl -- generate /tmp/etl.ndjson 1500000  # about 300 MB
//! cargo bench --bench etl -- run /tmp/etl.csv country          # 13 partitions
//! cargo bench --bench etl -- run /tmp/etl.csv country,day      # 4,745 partitions
//! cargo bench --bench etl -- sort /tmp/etl.csv                 # a sort that spills
//! cargo bench --bench etl -- group /tmp/etl.csv                # an aggregation that spills
//! cargo bench --bench etl -- read /tmp/etl.csv                 # reading and checking alone
//! cargo bench --bench etl -- unchecked /tmp/etl.csv            # the same without a schema
//! ```
//!
//! `ETL_MEMORY_MIB` is the memory for a query (default 256). The tasks beside
//! DuckDB and Polars, in one run: `benches/etl_compare.py`.

use pointsman::event::{Defaults, ObjectEvent};
use pointsman::handlers::objects::Places;
use pointsman::handlers::transform::TransformHandler;
use pointsman::handlers::transform::options::{
    Format, ReadOptions, RejectLimit, TransformEnv, TransformOptions, WriteOptions,
};
use pointsman::handlers::{Context, Handler, Message};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const COUNTRIES: [&str; 13] = [
    "AU", "BR", "CA", "CH", "DE", "ES", "FR", "GB", "IN", "IT", "JP", "SE", "US",
];

/// The program's (src/main.rs).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["generate", path, rows] => {
            generate(Path::new(path), rows.parse().expect("a number of rows"))
        }
        ["run", path, by] => run(Path::new(path), None, by, true),
        ["read", path] => run(Path::new(path), Some(SUM), "", true),
        ["unchecked", path] => run(Path::new(path), Some(COUNT), "", false),
        ["sort", path] => run(
            Path::new(path),
            Some("select * from input order by sku, id"),
            "",
            true,
        ),
        ["group", path] => run(Path::new(path), Some(GROUP), "", true),
        _ => eprintln!("generate PATH ROWS | run PATH COLUMNS | read|unchecked|sort|group PATH"),
    }
}

const SUM: &str = "select count(*) as n, sum(amount) as total from input";
const COUNT: &str = "select count(*) as n, max(length(amount)) as longest from input";
/// About as many groups as there are rows.
const GROUP: &str = "select id, sku, count(*) as n, sum(amount) as total, max(ts) as last from input group by id, sku";

/// SplitMix64, so that every run writes the same file.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn generate(path: &Path, rows: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file"));
    let mut random = Random(42);
    let json = path.extension().is_some_and(|e| e == "ndjson");
    if !json {
        let header = "id,ts,day,country,store,sku,quantity,amount,currency,note";
        writeln!(out, "{header}").expect("disk space");
    }
    for id in 0..rows {
        let (day, second) = (random.below(365), random.below(86_400));
        let country = COUNTRIES[usize::try_from(random.below(13)).expect("small")];
        let (store, sku) = (random.below(500), random.below(200_000));
        let (quantity, cents) = (random.below(20) + 1, random.below(5_000_000));
        let (month, dom) = (day / 31 + 1, day % 28 + 1);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        let note = random.next() & 0xff_ffff;
        // One record in a thousand is bad, in four ways by turns.
        let (quantity, tail) = match (random.below(1000), id % 4) {
            (0, 0) => ("many".to_owned(), ""),
            (0, 1) => ("-5".to_owned(), ""),
            (0, 2) => (quantity.to_string(), ",one,more"),
            (0, 3) => (format!("{quantity}\"x"), ""),
            _ => (quantity.to_string(), ""),
        };
        if json {
            let quantity = if quantity == "many" {
                "\"many\"".to_owned()
            } else {
                quantity
            };
            let quantity = quantity.trim_end_matches("\"x").to_owned();
            writeln!(
                out,
                "{{\"id\":{id},\"ts\":\"2025-{month:02}-{dom:02}T{h:02}:{m:02}:{s:02}Z\",\"day\":{day},\"country\":\"{country}\",\"store\":{store},\"sku\":\"SKU-{sku:06}\",\"quantity\":{quantity},\"amount\":{}.{:02},\"currency\":\"EUR\",\"note\":\"note {note:06x}\"}}",
                cents / 100,
                cents % 100
            )
            .expect("disk space");
            continue;
        }
        writeln!(
            out,
            "{id},2025-{month:02}-{dom:02}T{h:02}:{m:02}:{s:02}Z,{day},{country},{store},SKU-{sku:06},{quantity},{}.{:02},EUR,note {note:06x}{tail}",
            cents / 100,
            cents % 100
        )
        .expect("disk space");
    }
    out.flush().expect("disk space");
    println!(
        "{}",
        json!({"rows": rows, "bytes": std::fs::metadata(path).expect("the file").len()})
    );
}

fn options(sql: Option<&str>, by: &str, checked: bool) -> TransformOptions {
    let schema = json!({
        "type": "object",
        "required": ["id", "ts", "day", "country", "store", "sku", "quantity", "amount", "currency"],
        "properties": {
            "id": {"type": "integer", "minimum": 0},
            "ts": {"type": "string", "format": "date-time"},
            "day": {"type": "integer", "minimum": 0, "maximum": 366},
            "country": {"type": "string", "enum": COUNTRIES},
            "store": {"type": "integer"},
            "sku": {"type": "string", "minLength": 5, "maxLength": 20},
            "quantity": {"type": "integer", "minimum": 0},
            "amount": {"type": "number", "x-precision": 18, "x-scale": 2, "minimum": 0},
            "currency": {"type": "string"},
            "note": {"type": ["string", "null"]}
        }
    });
    TransformOptions {
        read: ReadOptions {
            schema: checked.then(|| (schema, PathBuf::from("bench.json"))),
            reject_limit: RejectLimit::Share(0.01),
            ..ReadOptions::default()
        },
        tables: BTreeMap::new(),
        views: Vec::new(),
        params: BTreeMap::new(),
        sql: sql.map(str::to_owned),
        write: WriteOptions {
            table: "bench".to_owned(),
            format: Format::Parquet,
            partition_by: by
                .split(',')
                .filter(|c| !c.is_empty())
                .map(str::to_owned)
                .collect(),
            target_file_bytes: 256 << 20,
            max_open_writers: 10_000,
            s3: None,
        },
    }
}

fn run(path: &Path, sql: Option<&str>, by: &str, checked: bool) {
    let memory =
        std::env::var("ETL_MEMORY_MIB").map_or(256, |m| m.parse().expect("a number of MiB"));
    let path = std::path::absolute(path).expect("a path");
    let (folder, name) = (
        path.parent().expect("a folder"),
        path.file_name().expect("a file"),
    );
    let out = folder.join(format!("etl-bench-{}", std::process::id()));
    let mut places = Places::default();
    places.add_folder("bench", folder.to_path_buf());
    let env = TransformEnv {
        lake: out.join("lake"),
        warehouse: out.join("warehouse").into(),
        rejects: out.join("rejects"),
        quarantine: out.join("quarantine"),
        scratch: out.join("scratch"),
        memory_bytes: memory << 20,
        progress_every: Duration::from_secs(1),
    };
    let handler = TransformHandler::new("bench", options(sql, by, checked), env, places)
        .expect("sound options");
    let event = ObjectEvent {
        id: "bench".to_owned(),
        source: "pointsman.folder".to_owned(),
        detail_type: "Object Created".to_owned(),
        bucket: "bench".to_owned(),
        key: name.to_string_lossy().into_owned(),
        key_bytes: None,
        size: None,
        etag: None,
        version_id: None,
        sequencer: None,
        reason: "bench".to_owned(),
        deletion_type: None,
        time_ms: 0,
    };
    let message = Message {
        input: None,
        event: Arc::new(event.build(&Defaults::default()).expect("an event")),
        seq: 0,
        attempt: 1,
        accepted_ms: 0,
    };
    let cx = Context {
        handler: "bench".to_owned(),
        cancel: tokio_util::sync::CancellationToken::new(),
        progress: Arc::new(|_| {}),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let began = Instant::now();
    let outcome = runtime.block_on(handler.handle(&[message], &cx));
    let wall = began.elapsed().as_secs_f64();
    match &outcome.results[0] {
        Err(failure) => println!("{}", json!({"failed": failure})),
        Ok(done) => println!(
            "{}",
            json!({
                "wall_s": (wall * 100.0).round() / 100.0,
                "cpu_s": cpu_seconds(),
                "peak_rss_mb": peak_rss_mb(),
                "rows_in": done.summary["rows_in"],
                "rows_out": done.summary["rows_out"],
                "rejects": done.summary["rejects"]["count"],
                "files": done.summary["outputs"].as_array().map_or(0, Vec::len),
                "bytes_out": done.summary["outputs"].as_array().map_or(0, |o| o.iter().filter_map(|o| o["bytes"].as_u64()).sum::<u64>()),
            })
        ),
    }
    std::fs::remove_dir_all(out).expect("the bench's own folder");
}

/// CPU time of this process, from the kernel's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<f64> = after.split(' ').map(|f| f.parse().unwrap_or(0.0)).collect();
    (fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)) / 100.0
}

fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .unwrap_or_default();
    let kb: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    kb / 1024
}
