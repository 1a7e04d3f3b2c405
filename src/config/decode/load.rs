//! Loads: into which table, and how rows meet those that are there.

use super::handlers::{columns, table_name};
use crate::config::fields;
use crate::config::raw::RawLoad;
use crate::config::read::{Field, Table};
use crate::config::yaml::shorten;
use crate::error::{Diagnostic, codes};
use crate::handlers::load::{LoadOptions, Mode};
use std::time::Duration;

/// Longest time for one statement, unless said otherwise: that of a handler.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What `mode` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Append,
    Upsert,
    ReplacePartition,
}

const WORDS: [(&str, Word); 3] = [
    ("append", Word::Append),
    ("upsert", Word::Upsert),
    ("replace-partition", Word::ReplacePartition),
];

pub(super) fn load(field: &Field<'_>) -> Option<RawLoad> {
    let table = field.table(&fields::LOAD)?;
    let to = table
        .get("to")
        .and_then(|f| f.string().map(|name| f.at(name)));
    let name = table.need("table").and_then(|f| match to {
        None => table_name(&f),
        Some(_) => name_in_postgres(&f),
    });
    let mode = mode(&table);
    let mut options = LoadOptions::new(name?, mode?);
    options.create = table.bool_or("create", false);
    options.widen = table.bool_or("widen", false);
    let statement_timeout = table.duration_or("statement_timeout", STATEMENT_TIMEOUT);
    if to.is_none() {
        for name in ["create", "widen", "statement_timeout"] {
            if let Some(field) = table.written(name) {
                let message = format!("`{name}` has no effect without `to`");
                let diagnostic = Diagnostic::warning(&codes::NO_EFFECT, message);
                field.report(diagnostic.at(field.key_place()).hint(
                    "tables of the built-in warehouse are made and get new columns as needed",
                ));
            }
        }
    }
    Some(RawLoad {
        options,
        to,
        statement_timeout,
    })
}

fn mode(table: &Table<'_>) -> Option<Mode> {
    let written = table.get("mode");
    let word = match &written {
        None => Word::Append,
        Some(field) => field.choice(&WORDS)?,
    };
    let name = WORDS
        .iter()
        .find(|(_, w)| *w == word)
        .map_or("", |(n, _)| n);
    let wanted = [
        ("key", Word::Upsert),
        ("newer_by", Word::Upsert),
        ("partition_by", Word::ReplacePartition),
    ];
    for (other, of) in wanted {
        if let Some(field) = table.get(other).filter(|_| of != word) {
            let fitting = WORDS.iter().find(|(_, w)| *w == of).map_or("", |(n, _)| n);
            let message = format!("`{other}` has no effect with `mode: {name}`");
            let diagnostic = Diagnostic::error(&codes::BAD_KEY, message).at(field.key_place());
            field.report(diagnostic.hint(format!("write `mode: {fitting}`, or remove `{other}`")));
            return None;
        }
    }
    let listed = |name: &str| {
        let field = table.get(name);
        let found = field.as_ref().map(|f| columns(f, &codes::BAD_COLUMNS));
        (found.unwrap_or_default(), field)
    };
    let missing = |field: Option<Field<'_>>, what: &str, hint: &str| {
        let place = field.or(table.get("mode")).map(|f| f.place());
        let message = format!("`mode: {name}` needs a {what}");
        let diagnostic = Diagnostic::error(&codes::BAD_KEY, message).at(place);
        table.field.report(diagnostic.hint(hint));
    };
    match word {
        Word::Append => Some(Mode::Append),
        Word::Upsert => {
            let (key, field) = listed("key");
            if key.is_empty() {
                let hint = "name the columns that tell rows apart, like `key: [carrier, flight]`";
                missing(field, "`key`", hint);
                return None;
            }
            let newer_by = table.string("newer_by");
            Some(Mode::Upsert { key, newer_by })
        }
        Word::ReplacePartition => {
            let (by, field) = listed("partition_by");
            if by.is_empty() {
                let hint =
                    "name the columns whose rows are replaced together, like `partition_by: day`";
                missing(field, "`partition_by`", hint);
                return None;
            }
            Some(Mode::ReplacePartition { by })
        }
    }
}

/// `TABLE` or `SCHEMA.TABLE`.
fn name_in_postgres(field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    let parts: Vec<&str> = name.split('.').collect();
    // Postgres cuts longer names off.
    let fit = |part: &&str| !part.is_empty() && part.len() <= 63 && !part.contains(['"', '\0']);
    if parts.len() <= 2 && parts.iter().all(fit) {
        return Some(name);
    }
    let message = format!("`{}` cannot be the name of a table", shorten(&name));
    let diagnostic = field.error(&codes::BAD_NAME, message);
    field.report(diagnostic.hint("write `TABLE` or `SCHEMA.TABLE`, as the database has it"));
    None
}
