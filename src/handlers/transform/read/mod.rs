//! Objects become batches: opening, unpacking, and a reader per format. The
//! readers never fail a file for one record: they set it aside and go on.

mod archive;
pub mod blocks;
pub mod csv;
pub mod encoding;
pub mod json;
mod layout;
pub mod lines;
mod members;
mod object;
pub mod open;
pub mod parquet;
mod rescue;
mod scan;
mod split;
mod unpack;

use super::batch::Feed;
use super::drift::{Changes, Known};
use super::options::{Format, ReadOptions};
use super::schema::{Column, RecordSchema};
use crate::handlers::Failure;
use arrow::datatypes::SchemaRef;
use open::{Content, Opened};
use std::sync::Arc;
use unpack::{Unpacked, unpack};

/// Reads records of one object.
pub trait Reader: Send {
    /// Reads until the feed has a full batch (`true`) or the object ends (`false`).
    ///
    /// # Errors
    /// When the object as a whole cannot be read, or rejects cannot be taken.
    fn fill(&mut self, feed: &mut Feed<'_>) -> Result<bool, Failure>;
}

/// A reader over an object and the columns of its records.
pub struct Started {
    /// Reads the records.
    pub reader: Box<dyn Reader>,
    /// The columns, declared or found.
    pub schema: Arc<RecordSchema>,
    /// The columns' types; those of a Parquet file may be more than a schema can say.
    pub arrow: SchemaRef,
    /// Columns of a header that none is declared for.
    pub ignored: Vec<String>,
    /// How the columns differ from the known ones, if anybody wants to know.
    pub changes: Changes,
}

/// The columns that records are expected to have.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The declared ones.
    pub declared: Option<Arc<RecordSchema>>,
    /// Those that were seen before, for the policy of schema drift.
    pub known: Option<Known>,
}

impl Expected {
    /// These columns.
    #[must_use]
    pub fn of(schema: &Arc<RecordSchema>) -> Self {
        Self {
            declared: Some(Arc::clone(schema)),
            known: None,
        }
    }
}

/// Starts to read an object: unpacks it, finds its format, its header and its columns.
///
/// # Errors
/// Permanent failures for what is not of the format or does not fit the schema.
pub fn start(
    opened: Opened,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<Started, Failure> {
    match unpack(opened, options)? {
        Unpacked::Text(content) => text(content, options, expected),
        Unpacked::Members(members) => archive::start(members, options, expected),
        // What the name says is a guess, what the file says is not.
        Unpacked::Parquet(opened) => match options.format {
            None | Some(Format::Parquet) => parquet::start(opened, options, expected),
            Some(_) => Err(Failure::permanent(
                "WrongFormat",
                format!(
                    "`{}` is a Parquet file, not text; set `read.format: parquet`",
                    opened.key
                ),
            )),
        },
    }
}

/// Starts to read text.
fn text(content: Content, options: &ReadOptions, expected: &Expected) -> Result<Started, Failure> {
    let format = options.format.or_else(|| by_ending(&content.key));
    match format {
        Some(Format::Csv) => csv::start(content, options, expected),
        Some(format @ (Format::Ndjson | Format::JsonArray)) => {
            json::start(content, format, options, expected)
        }
        Some(Format::Parquet) => Err(Failure::permanent(
            "CorruptInput",
            format!(
                "`{}` is not a sound Parquet file: it does not begin as one",
                content.key
            ),
        )),
        None => Err(Failure::permanent(
            "UnknownFormat",
            format!(
                "the name of `{}` says nothing of its format; set `read.format`",
                content.key
            ),
        )),
    }
}

/// The format that a file's name tells.
#[must_use]
pub fn format_of(path: &std::path::Path) -> Option<Format> {
    by_ending(&path.to_string_lossy())
}

/// The format that a key's ending names. `.json` is told by its first character.
fn by_ending(key: &str) -> Option<Format> {
    let lower = key.to_ascii_lowercase();
    let packings = [".gz", ".zst", ".bz2", ".xz"];
    let plain = packings
        .iter()
        .find_map(|ending| lower.strip_suffix(ending))
        .unwrap_or(&lower);
    match plain.rsplit_once('.')?.1 {
        "csv" | "tsv" | "txt" => Some(Format::Csv),
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// How the columns found in a header (or a Parquet file) meet the declared ones.
struct Mapping {
    /// Per found column, the place of the declared one.
    to: Vec<Option<usize>>,
    /// Found columns without a declared one.
    ignored: Vec<String>,
}

/// Maps found columns to declared ones.
///
/// # Errors
/// `SchemaMismatch` naming all that is missing, unexpected or there twice.
fn map_columns(found: &[String], schema: &RecordSchema, what: &str) -> Result<Mapping, Failure> {
    let to: Vec<Option<usize>> = found.iter().map(|name| schema.position(name)).collect();
    let unexpected: Vec<String> = found
        .iter()
        .zip(&to)
        .filter(|(_, to)| to.is_none())
        .map(|(name, _)| name.clone())
        .collect();
    let missing: Vec<&Column> = schema
        .columns
        .iter()
        .filter(|c| c.required && !found.contains(&c.name))
        .collect();
    refuse_twice(found, what)?;
    let rescued = schema.rescue.is_some();
    let refused =
        !rescued && schema.extra == super::schema::Extra::Refused && !unexpected.is_empty();
    if missing.is_empty() && !refused {
        return Ok(Mapping {
            to,
            ignored: unexpected,
        });
    }
    let mut said = Vec::new();
    if !missing.is_empty() {
        said.push(format!(
            "missing {}",
            names(missing.iter().map(|c| c.name.as_str()))
        ));
    }
    if !unexpected.is_empty() {
        said.push(format!(
            "unexpected {}",
            names(unexpected.iter().map(String::as_str))
        ));
    }
    Err(Failure::permanent(
        "SchemaMismatch",
        format!(
            "the columns of {what} do not fit the schema: {}",
            said.join("; ")
        ),
    ))
}

/// # Errors
/// `SchemaMismatch` when a column's name is there twice.
fn refuse_twice(found: &[String], what: &str) -> Result<(), Failure> {
    let mut seen = std::collections::HashSet::new();
    let twice: Vec<&str> = found
        .iter()
        .filter(|name| !seen.insert(name.as_str()))
        .map(String::as_str)
        .collect();
    match twice.is_empty() {
        true => Ok(()),
        false => Err(Failure::permanent(
            "SchemaMismatch",
            format!(
                "{what} has columns of the same name: {}",
                names(twice.into_iter())
            ),
        )),
    }
}

/// Quoted names, at most 20 of them.
pub fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<String> = names
        .map(|n| format!("`{}`", super::check::shorten(n)))
        .collect();
    match all.len() {
        0..=20 => all.join(", "),
        n => format!("{} and {} more", all[..20].join(", "), n - 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_ending() {
        assert_eq!(by_ending("a/b.CSV.gz"), Some(Format::Csv));
        assert_eq!(by_ending("b.jsonl.zst"), Some(Format::Ndjson));
        assert_eq!(by_ending("b.parquet"), Some(Format::Parquet));
        assert_eq!(by_ending("a.zip!b.csv.bz2"), Some(Format::Csv));
        assert_eq!(by_ending("b.xlsx"), None);
        assert_eq!(by_ending("b"), None);
    }
}
