//! Transforms: what is read, how it is checked and computed, where it goes.

use super::handlers;
use crate::config::raw::NO_LIMIT;
use crate::config::read::{Field, Table};
use crate::config::yaml::shorten;
use crate::config::{fields, schemas};
use crate::error::{Diagnostic, codes};
use crate::handlers::transform::drift::Policy;
use crate::handlers::transform::{
    Duplicates, Format, Input, MAX_UNPACKED, Ragged, ReadOptions, Reference, RejectLimit,
    TransformOptions, WriteOptions,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Fields of `read` that are about files only.
pub(super) const FILE_FIELDS: [&str; 15] = [
    "format",
    "encoding",
    "delimiter",
    "quote",
    "escape",
    "comment",
    "skip",
    "header",
    "names",
    "duplicates",
    "ragged",
    "null",
    "members",
    "max_unpacked",
    "drift",
];

pub(super) fn transform(field: &Field<'_>) -> Option<TransformOptions> {
    transform_of(&field.table(&fields::TRANSFORM)?)
}

/// A transform whose fields stand in a table, perhaps beside others.
pub(super) fn transform_of(table: &Table<'_>) -> Option<TransformOptions> {
    let read = read(table.get("read"));
    let tables = table.get("tables").map(|f| tables(&f)).unwrap_or_default();
    let views = table.get("views").map(|f| views(&f)).unwrap_or_default();
    let params = table.get("params").map(|f| params(&f)).unwrap_or_default();
    let sql = table.string("sql");
    if let (Input::Events, Some(field)) = (read.input, table.get("params")) {
        let message =
            "`params` needs one event per run, and `input: events` has many; use its columns";
        field.report(Diagnostic::error(&codes::BAD_VALUE, message).at(field.key_place()));
    }
    let write = table.need("write").and_then(|f| write(&f));
    let options = TransformOptions {
        read,
        tables,
        views,
        params,
        sql,
        write: write?,
    };
    check_partitions(table, &options);
    Some(options)
}

fn read(field: Option<Field<'_>>) -> ReadOptions {
    let mut read = ReadOptions {
        reject_limit: NO_LIMIT,
        ..ReadOptions::default()
    };
    let Some(table) = field.and_then(|f| f.table(&fields::READ)) else {
        return read;
    };
    if let Some(field) = table.get("input") {
        read.input = field
            .choice(&[
                ("object", Input::Object),
                ("events", Input::Events),
                ("publication", Input::Publication),
            ])
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
    let optional = |name: &str| table.get(name).and_then(|f| one_byte(&f));
    read.escape = optional("escape");
    read.comment = optional("comment");
    read.encoding = table.get("encoding").and_then(|f| encoding(&f));
    read.skip = table
        .get("skip")
        .and_then(|f| f.integer(0..=1_000_000))
        .unwrap_or(0);
    read.names = table
        .get("names")
        .map(|f| handlers::columns(&f, &codes::BAD_COLUMNS))
        .unwrap_or_default();
    read.duplicates = table
        .get("duplicates")
        .and_then(|f| {
            f.choice(&[
                ("refuse", Duplicates::Refuse),
                ("rename", Duplicates::Rename),
            ])
        })
        .unwrap_or(read.duplicates);
    read.ragged = table
        .get("ragged")
        .and_then(|f| f.choice(&[("reject", Ragged::Reject), ("fill", Ragged::Fill)]))
        .unwrap_or(read.ragged);
    read.members = table.get("members").map(|f| globs(&f)).unwrap_or_default();
    read.max_unpacked = table
        .get("max_unpacked")
        .and_then(|f| f.size())
        .unwrap_or(MAX_UNPACKED);
    read.drift = table.get("drift").and_then(|f| {
        f.choice(&[
            ("fail", Policy::Fail),
            ("widen", Policy::Widen),
            ("rescue", Policy::Rescue),
            ("quarantine", Policy::Quarantine),
        ])
    });
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
    let input = match read.input {
        Input::Object => None,
        Input::Events => Some("events"),
        Input::Publication => Some("publication"),
    };
    if let Some(input) = input {
        for name in FILE_FIELDS {
            if let Some(field) = table.get(name) {
                let message = format!("`{name}` has no effect with `input: {input}`");
                field.report(Diagnostic::warning(&codes::NO_EFFECT, message).at(field.key_place()));
            }
        }
    }
    let named = table.get("schema").is_some() || !read.names.is_empty();
    if !read.header && read.schema.is_none() && !named {
        let place = table.get("header").map(|f| f.key_place());
        let diagnostic = Diagnostic::error(
            &codes::MISSING_FIELD,
            "`header: false` needs `schema` or `names`",
        )
        .at(place);
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

/// A label of an encoding, as the web has them.
fn encoding(field: &Field<'_>) -> Option<&'static encoding_rs::Encoding> {
    let label = field.string()?;
    let found = encoding_rs::Encoding::for_label(label.as_bytes());
    if found.is_none() {
        let message = format!("`{}` is not an encoding that is known", shorten(&label));
        let known = [
            "utf-8",
            "latin1",
            "windows-1252",
            "utf-16le",
            "utf-16be",
            "shift_jis",
            "gbk",
        ];
        let diagnostic = field
            .error(&codes::BAD_VALUE, message)
            .suggest(&label, known);
        field.report(
            diagnostic.hint(
                "labels are those of the WHATWG Encoding Standard, like `latin1` or `utf-16le`",
            ),
        );
    }
    found
}

/// Globs for the names of an archive's members.
fn globs(field: &Field<'_>) -> Vec<globset::GlobMatcher> {
    let mut globs = Vec::new();
    for entry in field.one_or_more().unwrap_or_default() {
        let Some(text) = entry.string() else { continue };
        match globset::Glob::new(&text) {
            Ok(glob) => globs.push(glob.compile_matcher()),
            Err(e) => {
                let message = format!("`{}` is not a glob: {}", shorten(&text), e.kind());
                entry.report(entry.error(&codes::BAD_VALUE, message));
            }
        }
    }
    globs
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

/// Whether a name can be used in SQL as it is; reported if not.
fn sql_name(field: &Field<'_>, entry: &Field<'_>, what: &str) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if entry.name == "input" || entry.name.is_empty() || !entry.name.chars().all(word) {
        let diagnostic = Diagnostic::error(
            &codes::BAD_NAME,
            format!("`{}` cannot be the name of a {what}", entry.name),
        );
        let hint = match entry.name.as_str() {
            "input" => "`input` is the table of the records that are read".to_owned(),
            _ => format!("names of {what}s have letters, digits and `_`"),
        };
        field.report(diagnostic.at(entry.key_place()).hint(hint));
    }
}

/// Named steps, in their order.
fn views(field: &Field<'_>) -> Vec<(String, String)> {
    let mut views = Vec::new();
    for entry in field.entries().unwrap_or_default() {
        sql_name(field, &entry, "view");
        if let Some(sql) = entry.string() {
            views.push((entry.name.clone(), sql));
        }
    }
    views
}

/// Parameters: name -> JSONPath into the event.
fn params(field: &Field<'_>) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    for entry in field.entries().unwrap_or_default() {
        sql_name(field, &entry, "parameter");
        let Some(path) = entry.string() else { continue };
        if let Err(e) = jsonpath_rust::parser::parse_json_path(&path) {
            let first = e.to_string().lines().next().unwrap_or_default().to_owned();
            let message = format!("`{}` is not a JSONPath: {}", shorten(&path), first.trim());
            entry.report(
                entry
                    .error(&codes::BAD_VALUE, message)
                    .hint("paths start at the event, like `$.detail.object.key`"),
            );
            continue;
        }
        params.insert(entry.name.clone(), path);
    }
    params
}

/// Reference tables: a file, or a table of the lake or the warehouse.
fn tables(field: &Field<'_>) -> BTreeMap<String, Reference> {
    let mut tables = BTreeMap::new();
    for entry in field.entries().unwrap_or_default() {
        sql_name(field, &entry, "table");
        let Some(text) = entry.string() else { continue };
        let named = |name: &str| handlers::is_table_name(name).then(|| name.to_owned());
        let reference = match text.split_once(':') {
            Some(("lake", name)) => named(name).map(Reference::Lake),
            Some(("warehouse", name)) => named(name).map(Reference::Warehouse),
            _ => file(&entry).map(Reference::File),
        };
        match reference {
            Some(reference) => drop(tables.insert(entry.name.clone(), reference)),
            None => entry.report(entry.error(
                &codes::BAD_NAME,
                format!("`{}` names no table", shorten(&text)),
            )),
        }
    }
    tables
}

fn file(entry: &Field<'_>) -> Option<PathBuf> {
    let path = entry.path()?;
    if let Err(error) = std::fs::File::open(&path) {
        let reason = crate::config::files::reason(&error);
        let message = format!("the table `{}` cannot be read: {reason}", entry.name);
        entry.report(
            entry
                .error(&codes::TABLE_MISSING, message)
                .hint(paths_hint()),
        );
    }
    Some(path)
}

pub(in crate::config) fn paths_hint() -> &'static str {
    "paths start at the folder of `pointsman.yaml`"
}

fn write(field: &Field<'_>) -> Option<WriteOptions> {
    let table = field.table(&fields::WRITE)?;
    let name = table.need("table").and_then(|f| handlers::table_name(&f));
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
            .map(|f| handlers::columns(&f, &codes::BAD_COLUMNS))
            .unwrap_or_default(),
        target_file_bytes: target_file_bytes.unwrap_or(128 << 20),
        max_open_writers: open.and_then(|n| usize::try_from(n).ok()).unwrap_or(1_024),
        s3: table.get("s3").and_then(|f| super::s3::folder(&f)),
    })
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
