//! Handlers: how they are fed and what they do.

use super::ends;
use crate::config::raw::{NO_LIMIT, RawHandler, RawKind};
use crate::config::read::{At, Field, Table};
use crate::config::yaml::shorten;
use crate::config::{fields, schemas};
use crate::delivery::{BatchOptions, DeliveryOptions};
use crate::error::{Code, Diagnostic, codes};
use crate::handlers::load::{LoadOptions, Mode};
use crate::handlers::transform::{
    Format, Input, ReadOptions, RejectLimit, TransformOptions, WriteOptions,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Longest time that a batch is waited for.
const MAX_WINDOW: Duration = Duration::from_secs(15 * 60);

pub(in crate::config) fn handler(field: &Field<'_>) -> Option<RawHandler> {
    let table = field.table(&fields::HANDLER)?;
    let default = DeliveryOptions::default();
    let from = table
        .get("from")
        .and_then(|f| f.one_or_more())
        .unwrap_or_default();
    let notify = table.get("notify").and_then(|f| f.table(&fields::NOTIFY));
    let topic = |name: &str| {
        let field = notify.as_ref()?.get(name)?;
        field.string().map(|topic| field.at(topic))
    };
    let concurrency = table.get("concurrency").and_then(|f| f.integer(1..=16_384));
    let timeout = table.get("timeout").and_then(|f| {
        let timeout = f.duration()?;
        if timeout.is_zero() {
            f.report(f.error(&codes::BAD_VALUE, "`timeout` must be above 0"));
            return None;
        }
        Some(timeout)
    });
    Some(RawHandler {
        from: from
            .iter()
            .filter_map(|f| f.string().map(|name| f.at(name)))
            .collect(),
        batch: batch(table.get("batch")),
        concurrency: concurrency
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default.concurrency),
        timeout: timeout.unwrap_or(default.timeout),
        rate: table.get("rate").and_then(|f| f.positive()),
        retry: super::retry(table.get("retry")),
        success: topic("success"),
        failure: topic("failure"),
        kind: table.one_of(&fields::HANDLER_KINDS).and_then(|f| kind(&f)),
    })
}

fn kind(field: &Field<'_>) -> Option<RawKind> {
    match field.name.as_str() {
        "transform" => transform(field).map(|t| RawKind::Transform(Box::new(t))),
        "load" => load(field).map(RawKind::Load),
        "exec" => ends::exec(field).map(RawKind::Exec),
        _ => ends::webhook(field).map(RawKind::Http),
    }
}

fn batch(field: Option<Field<'_>>) -> BatchOptions {
    let mut batch = BatchOptions::default();
    let Some(table) = field.and_then(|f| f.table(&fields::BATCH)) else {
        return batch;
    };
    let number = |n: u64| usize::try_from(n).ok();
    if let Some(size) = table
        .get("size")
        .and_then(|f| f.integer(1..=10_000))
        .and_then(number)
    {
        batch.size = size;
    }
    if let Some(field) = table.get("bytes") {
        match field.size() {
            Some(0) => field.report(field.error(&codes::BAD_VALUE, "`bytes` must be above 0")),
            Some(bytes) => batch.bytes = number(bytes).unwrap_or(batch.bytes),
            None => {}
        }
    }
    if let Some(field) = table.get("window") {
        match field.duration() {
            Some(window) if window > MAX_WINDOW => {
                field.report(field.error(&codes::BAD_VALUE, "`window` must be at most `15m`"));
            }
            Some(window) => batch.window = window,
            None => {}
        }
    }
    batch
}

fn transform(field: &Field<'_>) -> Option<TransformOptions> {
    let table = field.table(&fields::TRANSFORM)?;
    let read = read(table.get("read"));
    let tables = table.get("tables").map(|f| tables(&f)).unwrap_or_default();
    let sql = table.string("sql");
    let write = table.need("write").and_then(|f| write(&f));
    let options = TransformOptions {
        read,
        tables,
        sql,
        write: write?,
    };
    check_partitions(&table, &options);
    Some(options)
}

fn read(field: Option<Field<'_>>) -> ReadOptions {
    let mut read = ReadOptions {
        input: Input::Object,
        format: None,
        delimiter: b',',
        quote: b'"',
        header: true,
        null: Vec::new(),
        schema: None,
        reject_limit: NO_LIMIT,
    };
    let Some(table) = field.and_then(|f| f.table(&fields::READ)) else {
        return read;
    };
    if let Some(field) = table.get("input") {
        read.input = field
            .choice(&[("object", Input::Object), ("events", Input::Events)])
            .unwrap_or(read.input);
    }
    read.format = table.get("format").and_then(|f| {
        f.choice(&[
            ("csv", Format::Csv),
            ("ndjson", Format::Ndjson),
            ("json", Format::JsonArray),
            ("parquet", Format::Parquet),
        ])
    });
    let byte = |name: &str, default: u8| {
        table
            .get(name)
            .and_then(|f| one_byte(&f))
            .unwrap_or(default)
    };
    read.delimiter = byte("delimiter", read.delimiter);
    read.quote = byte("quote", read.quote);
    read.header = table.bool_or("header", read.header);
    read.null = null_texts(&table);
    read.schema = table.get("schema").and_then(|f| schemas::named(&f));
    read.reject_limit = table
        .get("reject_limit")
        .and_then(|f| reject_limit(&f))
        .unwrap_or(NO_LIMIT);
    check_read(&table, &read);
    read
}

/// `null: NA`, `null: [NA, ""]`; here `null: null` means the word, since a
/// field that says nothing would not be written.
fn null_texts(table: &Table<'_>) -> Vec<String> {
    let Some(field) = table.written("null") else {
        return Vec::new();
    };
    let fields = field.one_or_more().unwrap_or_default();
    fields
        .iter()
        .filter_map(|f| f.text().map(|t| t.reveal().to_owned()))
        .collect()
}

fn check_read(table: &Table<'_>, read: &ReadOptions) {
    if read.input == Input::Events {
        for name in ["format", "delimiter", "quote", "header", "null"] {
            if let Some(field) = table.get(name) {
                let message = format!("`{name}` has no effect with `input: events`");
                field.report(Diagnostic::warning(&codes::NO_EFFECT, message).at(field.key_place()));
            }
        }
    }
    if !read.header && read.schema.is_none() && table.get("schema").is_none() {
        let place = table.get("header").map(|f| f.key_place());
        let diagnostic =
            Diagnostic::error(&codes::MISSING_FIELD, "`header: false` needs `schema`").at(place);
        table.field.report(
            diagnostic.hint(
                "without a header line, the order of the schema's properties names the columns",
            ),
        );
    }
    if read.delimiter == read.quote {
        let place = table
            .get("quote")
            .or(table.get("delimiter"))
            .map(|f| f.place());
        let message = "`delimiter` and `quote` must differ";
        table
            .field
            .report(Diagnostic::error(&codes::BAD_VALUE, message).at(place));
    }
}

fn one_byte(field: &Field<'_>) -> Option<u8> {
    let text = field.text()?;
    match text.reveal().as_bytes() {
        b"\\t" => Some(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Some(*byte),
        _ => {
            let message = format!(
                "`{}` must be one character, not `{}`",
                field.name,
                shorten(text.shown())
            );
            field.report(
                field
                    .error(&codes::BAD_VALUE, message)
                    .hint("write `\"\\t\"` for tabs"),
            );
            None
        }
    }
}

fn reject_limit(field: &Field<'_>) -> Option<RejectLimit> {
    let text = field.text()?;
    let share = text
        .reveal()
        .strip_suffix('%')
        .map(|number| number.trim().parse::<f64>());
    match share {
        Some(Ok(percent)) if (0.0..=100.0).contains(&percent) => {
            return Some(RejectLimit::Share(percent / 100.0));
        }
        None => {
            if let Ok(count) = text.reveal().parse() {
                return Some(RejectLimit::Count(count));
            }
        }
        Some(_) => {}
    }
    let message = format!("`{}` is not a limit of rejects", shorten(text.shown()));
    field.report(
        field
            .error(&codes::BAD_VALUE, message)
            .hint("write a number of records, like `100`, or a share, like `1%`"),
    );
    None
}

fn tables(field: &Field<'_>) -> BTreeMap<String, PathBuf> {
    let mut tables = BTreeMap::new();
    for entry in field.entries().unwrap_or_default() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if entry.name == "input" || entry.name.is_empty() || !entry.name.chars().all(word) {
            let diagnostic = Diagnostic::error(
                &codes::BAD_NAME,
                format!("`{}` cannot be the name of a table", entry.name),
            );
            let hint = match entry.name.as_str() {
                "input" => "`input` is the table of the records that are read",
                _ => "names of tables have letters, digits and `_`",
            };
            field.report(diagnostic.at(entry.key_place()).hint(hint));
        }
        let Some(path) = entry.path() else { continue };
        if let Err(error) = std::fs::File::open(&path) {
            let reason = crate::config::files::reason(&error);
            let message = format!("the table `{}` cannot be read: {reason}", entry.name);
            field.report(
                entry
                    .error(&codes::TABLE_MISSING, message)
                    .hint(paths_hint()),
            );
        }
        tables.insert(entry.name.clone(), path);
    }
    tables
}

pub(in crate::config) fn paths_hint() -> &'static str {
    "paths start at the folder of `pointsman.yaml`"
}

fn write(field: &Field<'_>) -> Option<WriteOptions> {
    let table = field.table(&fields::WRITE)?;
    let name = table.need("table").and_then(|f| table_name(&f));
    let format = [
        ("parquet", Format::Parquet),
        ("ndjson", Format::Ndjson),
        ("csv", Format::Csv),
    ];
    let target_file_bytes = table.get("target_size").and_then(|f| match f.size() {
        Some(bytes) if bytes < 1024 => {
            f.report(f.error(&codes::BAD_VALUE, "`target_size` must be at least `1KiB`"));
            None
        }
        size => size,
    });
    let open = table
        .get("max_open_files")
        .and_then(|f| f.integer(1..=16_384));
    Some(WriteOptions {
        table: name?,
        format: table
            .get("format")
            .and_then(|f| f.choice(&format))
            .unwrap_or(Format::Parquet),
        partition_by: table
            .get("partition_by")
            .map(|f| columns(&f, &codes::BAD_COLUMNS))
            .unwrap_or_default(),
        target_file_bytes: target_file_bytes.unwrap_or(128 << 20),
        max_open_writers: open.and_then(|n| usize::try_from(n).ok()).unwrap_or(1_024),
    })
}

/// Tables are folders, and names in SQL.
fn table_name(field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(fit)
    {
        return Some(name);
    }
    let diagnostic = field.error(
        &codes::BAD_NAME,
        format!("`{}` cannot be the name of a table", shorten(&name)),
    );
    field.report(diagnostic.hint(
        "names of tables have letters, digits, `-` and `_`, and start with a letter or digit",
    ));
    None
}

/// Names of columns, each once.
fn columns(field: &Field<'_>, code: &'static Code) -> Vec<String> {
    let fields = field.one_or_more().unwrap_or_default();
    let mut seen: Vec<At<String>> = Vec::new();
    for column in fields
        .iter()
        .filter_map(|f| f.string().map(|name| f.at(name)))
    {
        if column.value.contains(['/', '=', '\\']) || column.value.starts_with('.') {
            let message = format!(
                "`{}` cannot be a column of `{}`",
                shorten(&column.value),
                field.name
            );
            field.report(Diagnostic::error(code, message).at(column.place.clone()));
        } else if let Some(first) = seen.iter().find(|known| known.value == column.value) {
            let message = format!(
                "the column `{}` stands twice in `{}`",
                column.value, field.name
            );
            let diagnostic = Diagnostic::error(code, message).at(column.place.clone());
            field.report(diagnostic.related(first.place.clone(), "the first is here"));
        } else {
            seen.push(column);
        }
    }
    seen.into_iter().map(|column| column.value).collect()
}

/// Without SQL, the columns of the result are those of the schema.
fn check_partitions(table: &Table<'_>, options: &TransformOptions) {
    let (None, Some((schema, _))) = (&options.sql, &options.read.schema) else {
        return;
    };
    let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) else {
        return;
    };
    let field = table
        .get("write")
        .and_then(|f| f.table(&fields::WRITE))
        .and_then(|t| t.get("partition_by"));
    for column in field.and_then(|f| f.one_or_more()).unwrap_or_default() {
        let Some(name) = column.string() else {
            continue;
        };
        if !properties.contains_key(&name) {
            let message = format!("the schema has no column `{name}` to partition by");
            let diagnostic = column.error(&codes::BAD_COLUMNS, message);
            column.report(diagnostic.suggest(&name, properties.keys().map(String::as_str)));
        }
    }
}

fn load(field: &Field<'_>) -> Option<LoadOptions> {
    let table = field.table(&fields::LOAD)?;
    let name = table.need("table").and_then(|f| table_name(&f));
    let mode = table.get("mode");
    let upsert = mode
        .as_ref()
        .and_then(|f| f.choice(&[("append", false), ("upsert", true)]));
    let key_field = table.get("key");
    let key = key_field
        .as_ref()
        .map(|f| columns(f, &codes::BAD_COLUMNS))
        .unwrap_or_default();
    let mode = match (upsert, key_field) {
        (Some(true), _) if !key.is_empty() => Mode::Upsert { key },
        (Some(true), key_field) => {
            let place = key_field.or(mode).map(|f| f.place());
            let diagnostic =
                Diagnostic::error(&codes::BAD_KEY, "`mode: upsert` needs a `key`").at(place);
            field.report(
                diagnostic
                    .hint("name the columns that tell rows apart, like `key: [carrier, flight]`"),
            );
            return None;
        }
        (_, Some(key_field)) => {
            let message = "`key` has no effect with `mode: append`";
            let diagnostic = Diagnostic::error(&codes::BAD_KEY, message).at(key_field.key_place());
            field.report(diagnostic.hint("write `mode: upsert`, or remove `key`"));
            return None;
        }
        (_, None) => Mode::Append,
    };
    Some(LoadOptions { table: name?, mode })
}
