//! The torture set: 80 files, each odd in a way that files are. Each ends as
//! rows, as rejects with the right line, or as a failure that says why; what
//! DuckDB and pandas make of the same file stands beside it, and where they
//! differ the index says why. `UPDATE_DOCUMENTS=1` writes the table anew.

use super::world::{World, handle, options, schema};
use crate::support::{python, repo};
use encoding_rs::Encoding;
use pointsman::handlers::Class;
use pointsman::handlers::transform::options::{Duplicates, Ragged, TransformOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// A file of the set.
#[derive(Deserialize)]
struct Entry {
    file: String,
    /// What is odd about it.
    odd: String,
    #[serde(default)]
    options: BTreeMap<String, Value>,
    /// Why others make something else of it.
    #[serde(default)]
    why: String,
}

fn folder() -> PathBuf {
    repo().join("tests/data/torture")
}

fn index() -> Vec<Entry> {
    serde_json::from_str(&fs::read_to_string(folder().join("index.json")).unwrap()).unwrap()
}

/// Files that are too large to keep.
fn generated(name: &str) -> Option<Vec<u8>> {
    let text = match name {
        "wide_field.csv" => format!(
            "id,name,amount\n1,{},1.25\n2,b,2.25\n",
            "x".repeat(1_000_000)
        ),
        "long_record.csv" => format!(
            "id,name,amount\n1,a,1.25\n2,{},2.25\n3,c,3.25\n",
            "x".repeat(33 << 20)
        ),
        "columns_5000.csv" => {
            let row =
                |cell: &dyn Fn(usize) -> String| (0..5000).map(cell).collect::<Vec<_>>().join(",");
            let mut text = row(&|n| format!("c{n}")) + "\n";
            for _ in 0..20 {
                text += &(row(&|n| n.to_string()) + "\n");
            }
            text
        }
        _ => return None,
    };
    Some(text.into_bytes())
}

fn transform(entry: &Entry) -> TransformOptions {
    let mut made = options();
    let text = |name: &str| entry.options.get(name).and_then(Value::as_str);
    let byte = |name: &str| text(name).map(|t| t.as_bytes()[0]);
    let nullable = |kind: &str| json!({"type": [kind, "null"]});
    made.read.schema = match text("schema").unwrap_or("typed") {
        "none" => None,
        "dates" => schema(
            json!({
                "id": {"type": "integer"},
                "day": {"type": ["string", "null"], "format": "date"},
                "at": {"type": ["string", "null"], "format": "date-time"},
            }),
            &["id"],
        ),
        "flags" => schema(
            json!({"id": {"type": "integer"}, "flag": nullable("boolean")}),
            &["id"],
        ),
        _ => schema(
            json!({
                "id": {"type": "integer"},
                "name": nullable("string"),
                "amount": {"type": ["number", "null"], "x-precision": 18, "x-scale": 2},
            }),
            &["id"],
        ),
    };
    let read = &mut made.read;
    read.null = Vec::new();
    if let Some(nulls) = entry.options.get("null") {
        read.null = serde_json::from_value(nulls.clone()).unwrap();
    }
    read.encoding = text("encoding").and_then(|label| Encoding::for_label(label.as_bytes()));
    read.delimiter = byte("delimiter").unwrap_or(b',');
    (read.comment, read.escape) = (byte("comment"), byte("escape"));
    read.skip = entry
        .options
        .get("skip")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    if entry.options.get("header") == Some(&json!(false)) {
        read.header = false;
        read.names = ["id", "name", "amount"].map(str::to_owned).to_vec();
    }
    if text("ragged") == Some("fill") {
        read.ragged = Ragged::Fill;
    }
    if text("duplicates") == Some("rename") {
        read.duplicates = Duplicates::Rename;
    }
    made
}

/// What became of a file: rows and sums, and the rejects or the failure.
async fn outcome(entry: &Entry) -> (String, String) {
    let world = World::new();
    let content =
        generated(&entry.file).unwrap_or_else(|| fs::read(folder().join(&entry.file)).unwrap());
    let event = world.file(&entry.file, content);
    let done = match handle(&world.transform(transform(entry)), event).await {
        Ok(done) => done,
        Err(failure) => {
            assert_eq!(
                failure.class,
                Class::Permanent,
                "{}: {failure:?}",
                entry.file
            );
            assert_eq!(world.files("lake"), Vec::<String>::new(), "{}", entry.file);
            let said = failure.message.replace('|', "\\|");
            return ("refused".to_owned(), format!("`{}`: {said}", failure.code));
        }
    };
    let columns: Vec<&str> = done.summary["schema"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    let sum = |name: &str| match columns.contains(&name) {
        true => format!("sum(cast({name} as decimal(38, 4)))"),
        false => "null".to_owned(),
    };
    let sums = match columns.is_empty() {
        true => "0,,".to_owned(),
        false => {
            world
                .csv(&format!(
                    "select count(*) as n, {} as ids, {} as amounts from lake.t",
                    sum("id"),
                    sum("amount")
                ))
                .await
        }
    };
    let sums: Vec<&str> = sums.split(',').collect();
    let shown = format!(
        "{} rows, ids {}, amounts {}",
        sums[0],
        number(sums[1]),
        number(sums[2])
    );
    let mut rejects = Vec::new();
    if let Some(path) = done.summary["rejects"]["path"].as_str() {
        for line in fs::read_to_string(path).unwrap().lines() {
            let reject: Value = serde_json::from_str(line).unwrap();
            let line = reject["line"].as_u64().unwrap_or(0);
            let member = reject["member"]
                .as_str()
                .map_or(String::new(), |m| format!("{m} "));
            let column = reject["column"]
                .as_str()
                .map_or(String::new(), |c| format!(" ({c})"));
            rejects.push(format!(
                "{member}{line} `{}`{column}",
                reject["code"].as_str().unwrap()
            ));
        }
    }
    let records = done.summary["rows_in"].as_u64().unwrap();
    assert_eq!(
        records,
        done.summary["rows_out"].as_u64().unwrap() + rejects.len() as u64,
        "{}",
        entry.file
    );
    (shown, rejects.join(", "))
}

/// A number without zeros at its end.
fn number(text: &str) -> &str {
    match text {
        "" => "-",
        text if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.'),
        text => text,
    }
}

/// What the others make of the set.
fn others() -> BTreeMap<String, BTreeMap<String, String>> {
    let made = tempfile::tempdir().unwrap();
    for entry in index() {
        if let Some(content) = generated(&entry.file) {
            fs::write(made.path().join(&entry.file), content).unwrap();
        }
    }
    let index = folder().join("index.json");
    let args = [folder(), made.path().to_path_buf(), index].map(|p| p.display().to_string());
    let answer = python(include_str!("torture.py"), &[&args[0], &args[1], &args[2]]);
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_torture_set_ends_as_it_should() {
    let others = tokio::task::spawn_blocking(others);
    let (mut table, mut ours) = (String::from(HEAD), Vec::new());
    for entry in index() {
        let outcome = outcome(&entry).await;
        ours.push((entry, outcome));
    }
    let others = others.await.unwrap();
    let mut unexplained = Vec::new();
    for (entry, (rows, rest)) in &ours {
        let theirs = &others[&entry.file];
        let (duckdb, pandas) = (&theirs["duckdb"], &theirs["pandas"]);
        let same = |said: &str| said == rows || (rows == "refused" && said.starts_with("fails"));
        if !(same(duckdb) && same(pandas)) && entry.why.is_empty() {
            unexplained.push(format!(
                "{}: {rows} ({rest}); DuckDB {duckdb}; pandas {pandas}",
                entry.file
            ));
        }
        let told = |said: &str| {
            if said == rows {
                "the same".to_owned()
            } else {
                said.to_owned()
            }
        };
        let comma = if rest.is_empty() { "" } else { "; " };
        let (duckdb, pandas) = (told(duckdb), told(pandas));
        writeln!(
            table,
            "| `{}` | {} | {rows}{comma}{rest} | {duckdb} | {pandas} | {} |",
            entry.file, entry.odd, entry.why
        )
        .unwrap();
    }
    assert_eq!(
        unexplained,
        Vec::<String>::new(),
        "{}",
        unexplained.join("\n")
    );
    let path = folder().join("OUTCOMES.md");
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, &table).unwrap();
    }
    // Only our own outcomes have to stay: other programs get new versions.
    let ours = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|l| l.starts_with("| `"));
        rows.map(|l| l.split(" | ").take(3).collect::<Vec<_>>().join(" | "))
            .collect()
    };
    assert_eq!(ours(&fs::read_to_string(&path).unwrap()), ours(&table));
    assert!(ours(&table).len() >= 60);
}

const HEAD: &str = "# The torture set

Written by `tests/it/handlers/torture.rs`; `index.json` says how each file is read. Unless it says otherwise, the
columns are `id` (integer, needed), `name` (text) and `amount` (exact decimal with two places). Rejects are told by
line, reason and column. DuckDB reads with the same types, `store_rejects` (JSON: `ignore_errors`); pandas reads
text, skips bad lines, and its sums are taken exactly.

| file | what is odd | Pointsman | DuckDB | pandas | why they differ |
|---|---|---|---|---|---|
";
