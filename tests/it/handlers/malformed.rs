//! Files that are not as they should be: each ends as rows, as rejects with
//! the right line and reason, or as a failure that says why.

use super::world::{World, handle, options, schema};
use pointsman::event::Event;
use pointsman::handlers::transform::options::{RejectLimit, TransformOptions};
use pointsman::handlers::{Class, Done, Failure};
use serde_json::{Value, json};
use std::io::Write;

/// Three columns, the first one an integer.
pub fn typed() -> TransformOptions {
    let mut options = options();
    options.read.schema = schema(
        json!({
            "id": {"type": "integer"},
            "name": {"type": ["string", "null"]},
            "amount": {"type": ["number", "null"], "x-precision": 18, "x-scale": 2}
        }),
        &["id"],
    );
    options
}

pub async fn run(world: &World, options: TransformOptions, event: Event) -> Result<Done, Failure> {
    handle(&world.transform(options), event).await
}

/// Rows, and the rejects as `line code`.
pub async fn read(world: &World, options: TransformOptions, event: Event) -> (u64, Vec<String>) {
    let done = run(world, options, event).await.unwrap();
    let rejects = match done.summary["rejects"]["path"].as_str() {
        None => Vec::new(),
        Some(path) => std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap())
            .map(|r| {
                format!(
                    "{} {}",
                    r["line"].as_u64().unwrap_or(0),
                    r["code"].as_str().unwrap()
                )
            })
            .collect(),
    };
    assert_eq!(done.summary["rejects"]["count"], rejects.len());
    (done.summary["rows_out"].as_u64().unwrap(), rejects)
}

async fn csv(content: impl AsRef<[u8]>) -> (u64, Vec<String>) {
    let world = World::new();
    let event = world.file("x.csv", content);
    read(&world, typed(), event).await
}

async fn refused(key: &str, content: impl AsRef<[u8]>) -> Failure {
    let world = World::new();
    let event = world.file(key, content);
    let failure = run(&world, typed(), event).await.unwrap_err();
    assert_eq!(failure.class, Class::Permanent, "{failure:?}");
    assert_eq!(world.files("lake"), Vec::<String>::new());
    failure
}

/// 1,000 good lines around a fault on line 502.
fn around(fault: &[u8]) -> Vec<u8> {
    let mut text = b"id,name,amount\n".to_vec();
    for id in 0..1000 {
        if id == 500 {
            text.extend_from_slice(fault);
        }
        writeln!(text, "{id},name {id},{id}.25").unwrap();
    }
    text
}

fn rejected(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_quote_costs_one_record() {
    let (rows, rejects) = csv(around(b"7,\"open,1\n")).await;
    assert_eq!((rows, rejects), (1000, rejected(&["502 OpenQuote"])));
    let two = [
        &around(b"7,\"open,1\n8,\"open,2\n")[..],
        b"9,\"open at the end",
    ]
    .concat();
    let (rows, rejects) = csv(two).await;
    assert_eq!(rows, 1000);
    assert_eq!(
        rejects,
        rejected(&["502 OpenQuote", "503 OpenQuote", "1004 OpenQuote"])
    );
    let before_quoted = b"7,\"open,1\n8,\"fine\",2\n";
    assert_eq!(
        csv(around(before_quoted)).await,
        (1001, rejected(&["502 OpenQuote"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newline_in_quotes_is_part_of_its_field() {
    let world = World::new();
    let event = world.file(
        "x.csv",
        around(b"7,\"two\nlines, \"\"quoted\"\"\r\nthree\",1\n"),
    );
    let (rows, rejects) = read(&world, typed(), event).await;
    assert_eq!((rows, rejects.len()), (1001, 0));
    let name = world
        .csv("select name from lake.t where id = 7 and amount = 1")
        .await;
    assert_eq!(name, "\"two\nlines, \"\"quoted\"\"\r\nthree\"");
    // The lines after it are counted on.
    let (_, rejects) = csv(around(b"7,\"two\nlines\",1\nx,y,1\n")).await;
    assert_eq!(rejects, rejected(&["504 WrongType"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_record_is_set_aside_with_its_reason() {
    for (fault, code) in [
        (&b"7,a\n"[..], "TooFewFields"),
        (b"7,a,1,2\n", "TooManyFields"),
        (b"seven,a,1\n", "WrongType"),
        (b",a,1\n", "Missing"),
        (b"NA,a,1\n", "Missing"),
        (b"7,a,1.239\n", "WouldRound"),
        (b"7,a,\"1,000.00\"\n", "WrongType"),
        (b"7,a,12345678901234567.00\n", "OutOfRange"),
        (b"99999999999999999999,a,1\n", "WrongType"),
        (b"7,\xff\xfe,1\n", "InvalidUtf8"),
        (b"7,\"a\"b,1\n", "TextAfterQuote"),
        (b"7,\xff\0\0,1\n", "InvalidUtf8"),
    ] {
        let (rows, rejects) = csv(around(fault)).await;
        let shown = String::from_utf8_lossy(fault);
        assert_eq!(
            (rows, rejects),
            (1000, rejected(&[&format!("502 {code}")])),
            "{shown}"
        );
    }
    for fine in [
        &b"7,a\"b,1\n"[..],
        b"7,a\0b,1\n",
        b"7.0,NA,NA\n",
        b"7,,\n",
        b"7,a,1e3\n",
        b"\"7\",\"a\",\"1.5\"\n",
        b"7,\xc3\xa4,1\r\n",
        b"\n\r\n7,a,1\n",
    ] {
        let (rows, rejects) = csv(around(fine)).await;
        assert_eq!(
            (rows, rejects.len()),
            (1001, 0),
            "{}",
            String::from_utf8_lossy(fine)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reject_says_where_it_was() {
    let world = World::new();
    let event = world.file("x.csv", "id,name,amount\n1,a,1\nx,b,2\n");
    let done = run(&world, typed(), event).await.unwrap();
    let path = done.summary["rejects"]["path"].as_str().unwrap().to_owned();
    let line: Value = serde_json::from_str(std::fs::read_to_string(path).unwrap().trim()).unwrap();
    let etag = line["etag"].as_str().unwrap().to_owned();
    assert_eq!(
        line,
        json!({
            "bucket": "inbox", "key": "x.csv", "etag": etag, "line": 3, "record": 2, "offset": 21,
            "column": "id", "code": "WrongType", "message": "`x` is not an integer", "raw": "x,b,2"
        })
    );
    assert_eq!(
        world.csv("select \"table\", line, code from rejects").await,
        "t,3,WrongType"
    );
    assert_eq!(world.csv("select count(*) from lake.rejects").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_newline_and_packing_will_do() {
    let plain = String::from_utf8(around(b"")).unwrap();
    assert_eq!(csv(plain.replace('\n', "\r\n")).await, (1000, vec![]));
    assert_eq!(csv(plain.replace('\n', "\r")).await, (1000, vec![]));
    assert_eq!(csv(format!("\u{feff}{plain}")).await, (1000, vec![]));
    assert_eq!(csv(plain.trim_end()).await, (1000, vec![]));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(plain.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(plain.as_bytes(), 1).unwrap();
    for (key, packed) in [("x.csv.gz", &gz), ("x.csv.zst", &zst), ("x.csv", &gz)] {
        let world = World::new();
        let event = world.file(key, packed);
        assert_eq!(read(&world, typed(), event).await, (1000, vec![]), "{key}");
    }
    let cut = refused("x.csv.gz", &gz[..gz.len() / 2]).await;
    assert_eq!(cut.code, "CorruptInput");
    assert!(cut.message.contains("is cut short"), "{cut:?}");
    assert_eq!(
        refused("x.csv.zst", &zst[..zst.len() / 2]).await.code,
        "CorruptInput"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_csv_is_refused_whole() {
    let noise: Vec<u8> = (0..100_000_u64)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .collect();
    assert_eq!(refused("x.csv", &noise).await.code, "NotCsv");
    assert_eq!(refused("x.csv", b"i\0d,name\n").await.code, "NotCsv");
    assert_eq!(refused("x.csv", b"i\0d\0,\0n\0").await.code, "NotCsv");
    assert_eq!(
        refused("x.csv", b"PK\x03\x04rest").await.code,
        "CorruptInput"
    );
    assert_eq!(refused("x.csv", b"PAR1rest").await.code, "CorruptInput");
    assert_eq!(
        refused("x.parquet", b"PAR1 with a bad footer").await.code,
        "CorruptInput"
    );
    assert_eq!(refused("x.dat", b"id\n").await.code, "UnknownFormat");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_fit_is_refused_by_name() {
    let failure = refused("x.csv", "Id,name,amount\n1,a,2\n").await;
    assert_eq!(failure.code, "SchemaMismatch");
    assert_eq!(
        failure.message,
        "the columns of `x.csv` do not fit the schema: missing `id`; unexpected `Id`"
    );
    let twice = refused("x.csv", "id,name,name\n1,a,b\n").await;
    assert_eq!(
        twice.message,
        "`x.csv` has columns of the same name: `name`"
    );
    // Columns that are not declared are left out, and told.
    let world = World::new();
    let event = world.file("x.csv", "amount,extra,id\n1,x,7\n");
    let done = run(&world, typed(), event).await.unwrap();
    assert_eq!(done.summary["ignored"], json!({"extra": 1}));
    assert_eq!(
        world.csv("select id, name, amount from lake.t").await,
        "7,,1.00"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_is_a_success_without_rows() {
    for content in ["", "\n\n", "id,name,amount\n", "id,name,amount"] {
        assert_eq!(csv(content).await, (0, vec![]), "{content:?}");
    }
    let world = World::new();
    let event = world.file("x.csv", "");
    assert_eq!(read(&world, options(), event).await, (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_rejects_publish_nothing() {
    let world = World::new();
    let event = world.file("x.csv", "id,name,amount\n1,a,1\nx,b,2\ny,b,2\n");
    let mut count = typed();
    count.read.reject_limit = RejectLimit::Count(1);
    let failure = run(&world, count, event.clone()).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("TooManyRejects", Class::Permanent)
    );
    assert_eq!(
        failure.chain[0],
        "line 3, column `id`: `x` is not an integer (WrongType)"
    );
    let mut share = typed();
    share.read.reject_limit = RejectLimit::Share(0.5);
    let failure = run(&world, share, event).await.unwrap_err();
    assert!(
        failure.message.starts_with("2 of 3 records were set aside"),
        "{failure:?}"
    );
    assert_eq!(
        (world.files("lake"), world.files("rejects")),
        (vec![], vec![])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_and_long_records_are_taken() {
    let world = World::new();
    let header: Vec<String> = (0..5000).map(|i| format!("c{i}")).collect();
    let row: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
    let mut text = header.join(",") + "\n";
    for _ in 0..50 {
        text += &(row.join(",") + "\n");
    }
    let event = world.file("wide.csv", text);
    assert_eq!(read(&world, options(), event).await, (50, vec![]));
    let mut long = format!("id,name,amount\n1,{},1\n", "x".repeat(1 << 20));
    long += &format!(
        "2,\"{}\n{}\",1\n3,short,1\n",
        "y".repeat(1 << 20),
        "z".repeat(1 << 20)
    );
    let world = World::new();
    let event = world.file("long.csv", long);
    assert_eq!(read(&world, typed(), event).await, (3, vec![]));
    let lengths = world
        .csv("select length(name) from lake.t order by id")
        .await;
    assert_eq!(lengths, "1048576\n2097153\n5");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_and_arrays_are_read_record_by_record() {
    let world = World::new();
    let lines = "{\"id\":1,\"name\":\"a\\n\",\"amount\":1.10}\nnonsense\n{\"id\":1.5}\n\n{\"name\":\"x\"}\n{\"id\":2,\"more\":{}}\n[1]\n";
    let event = world.file("x.ndjson", lines);
    let (rows, rejects) = read(&world, typed(), event).await;
    assert_eq!(rows, 2);
    assert_eq!(
        rejects,
        rejected(&["2 NotJson", "3 WrongType", "5 Missing", "7 NotAnObject"])
    );
    assert_eq!(
        world.csv("select id, amount from lake.t order by id").await,
        "1,1.10\n2,"
    );
    let world = World::new();
    let array = "[\n {\"id\":1, \"name\":\"},]\\\"\"},\n {\"id\":tru},\n {\"id\": 3,\n  \"amount\": 0.125}, {\"id\":4}\n]\n";
    let event = world.file("x.json", array);
    let (rows, rejects) = read(&world, typed(), event).await;
    assert_eq!(
        (rows, rejects),
        (2, rejected(&["3 NotJson", "4 WouldRound"]))
    );
    assert_eq!(
        refused("x.json", "[{\"id\":1},{\"id\":2").await.code,
        "CorruptInput"
    );
    assert_eq!(
        refused("x.json", "[{\"id\":1}] and more").await.code,
        "CorruptInput"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_json_are_found_when_none_are_declared() {
    let world = World::new();
    let event = world.file(
        "x.ndjson",
        "{\"b\":1,\"a\":\"x\",\"o\":{\"k\":[1]}}\n{\"b\":2.5}\n{\"b\":\"no\"}\n",
    );
    let (rows, rejects) = read(&world, options(), event).await;
    assert_eq!((rows, rejects.len()), (3, 0));
    let rows = world.csv("select a, b, o from lake.t").await;
    assert_eq!(rows, "x,1,\"{\"\"k\"\":[1]}\"\n,2.5,\n,\"\"\"no\"\"\",");
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_is_cast_and_checked_too() {
    let world = World::new();
    let event = world.file(
        "x.csv",
        "id,name,amount\n1,a,1.5\n2,b,\nx7,c,2.125\n4,d,8\n",
    );
    read(&world, options(), event).await;
    let file = world
        .files("lake")
        .into_iter()
        .find(|f| f.ends_with(".parquet"))
        .unwrap();
    let copy = std::fs::read(world.path("lake").join(file)).unwrap();
    let event = world.file("again.parquet", copy);
    let mut checked = typed();
    checked.write.table = "u".to_owned();
    let (rows, rejects) = read(&world, checked, event).await;
    assert_eq!((rows, rejects), (3, rejected(&["0 WouldRound"])));
    assert_eq!(
        world
            .csv("select id, name, amount from lake.u order by id")
            .await,
        "1,a,1.50\n2,b,\n4,d,8.00"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_gone_or_changed_is_not_read() {
    let world = World::new();
    let event = world.file("x.csv", "id,name,amount\n1,a,1\n");
    std::fs::write(world.path("inbox/x.csv"), "id,name,amount\n1,a,1\n2,b,2\n").unwrap();
    let failure = run(&world, typed(), event.clone()).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("ObjectChanged", Class::Permanent)
    );
    std::fs::remove_file(world.path("inbox/x.csv")).unwrap();
    let failure = run(&world, typed(), event).await.unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("ObjectGone", Class::Permanent)
    );
    assert_eq!(world.files("lake"), Vec::<String>::new());
}
