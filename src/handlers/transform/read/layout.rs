//! The columns of a CSV file: from its header, from given names, from the
//! declared schema, or numbered; and how they meet the columns that are known.

use super::csv::{Dialect, record, typed};
use super::lines::{Found, Lines};
use super::split::Splitter;
use super::{Expected, map_columns, refuse_twice};
use crate::handlers::Failure;
use crate::handlers::transform::cell;
use crate::handlers::transform::drift::{self, Changes};
use crate::handlers::transform::options::{Duplicates, ReadOptions};
use crate::handlers::transform::schema::{Column, Extra, Kind, RecordSchema};
use std::borrow::Cow;
use std::sync::Arc;

/// As much is looked at to see of which type a column's values are.
const SAMPLE: usize = 256 << 10;
const RECORDS: usize = 500;

/// The columns of a file.
pub struct Layout {
    /// The columns of its records.
    pub schema: Arc<RecordSchema>,
    /// Names of the file's columns, where it has some.
    pub names: Vec<String>,
    /// Per column of the file, the one that takes it.
    pub to: Vec<Option<usize>>,
    /// Columns of the file that are left out.
    pub ignored: Vec<String>,
    /// How they differ from the known ones.
    pub changes: Changes,
}

/// Finds the columns of a file; the lines then start with its first record.
///
/// # Errors
/// `NotCsv` without a readable header, `SchemaMismatch` for one that does not
/// fit, and by the policy of schema drift.
pub fn find(
    lines: &mut Lines,
    splitter: &mut Splitter,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<Layout, Failure> {
    let dialect = Dialect::of(options);
    for _ in 0..options.skip {
        lines.skip_line()?;
    }
    let what = format!("`{}`", lines.key());
    let header = match options.header {
        true => header(lines, splitter, dialect)?,
        false => None,
    };
    let declared = expected.declared.as_ref();
    let Some(names) = named(header, options, &what)? else {
        let (schema, count) = match declared {
            Some(schema) => (Arc::clone(schema), schema.columns.len()),
            None => {
                let names = numbered(lines, splitter, dialect)?;
                (texts(&names), names.len())
            }
        };
        return Ok(Layout {
            schema,
            names: Vec::new(),
            to: (0..count).map(Some).collect(),
            ignored: Vec::new(),
            changes: Changes::default(),
        });
    };
    refuse_twice(&names, &what)?;
    let (schema, changes) = match (options.drift, declared) {
        (Some(policy), _) => {
            let known = expected.known.as_ref();
            let base = drift::base(declared.map(Arc::as_ref), known).unwrap_or_default();
            let found = sniff(lines, splitter, dialect, &names, &base)?;
            let decision = drift::decide(policy, options, known, &found, (false, &what))?;
            (decision.schema, decision.changes)
        }
        (None, Some(schema)) => (Arc::clone(schema), Changes::default()),
        (None, None) => (texts(&names), Changes::default()),
    };
    let mapping = map_columns(&names, &schema, &what)?;
    let ignored = if schema.rescue.is_some() {
        Vec::new()
    } else {
        mapping.ignored
    };
    Ok(Layout {
        schema,
        names,
        to: mapping.to,
        ignored,
        changes,
    })
}

/// Columns of text, for files without a declared schema.
fn texts(names: &[String]) -> Arc<RecordSchema> {
    let columns = names.iter().map(|name| Column::text(name)).collect();
    Arc::new(RecordSchema::from_columns(columns, Extra::Refused))
}

/// The names that count: those given, or those of the header.
fn named(
    header: Option<Vec<String>>,
    options: &ReadOptions,
    what: &str,
) -> Result<Option<Vec<String>>, Failure> {
    let given = &options.names;
    let Some(found) = header else {
        return Ok((!given.is_empty() && !options.header).then(|| given.clone()));
    };
    if !given.is_empty() {
        if given.len() == found.len() {
            return Ok(Some(given.clone()));
        }
        let message = format!(
            "{what} has {} columns, but {} names are given",
            found.len(),
            given.len()
        );
        return Err(Failure::permanent("SchemaMismatch", message));
    }
    Ok(Some(match options.duplicates {
        Duplicates::Refuse => found,
        Duplicates::Rename => renamed(found),
    }))
}

/// The names, each once.
fn renamed(found: Vec<String>) -> Vec<String> {
    let mut seen: std::collections::HashSet<String> = found.iter().cloned().collect();
    let mut taken = std::collections::HashSet::new();
    let mut out = Vec::with_capacity(found.len());
    for (at, name) in found.into_iter().enumerate() {
        let mut unique = match name.is_empty() {
            true => format!("column_{}", at + 1),
            false => name.clone(),
        };
        let mut number = 2;
        while !taken.insert(unique.clone()) || (unique != name && seen.contains(&unique)) {
            unique = format!("{name}_{number}");
            number += 1;
        }
        seen.insert(unique.clone());
        out.push(unique);
    }
    out
}

/// The column names; none for an empty file.
fn header(
    lines: &mut Lines,
    splitter: &mut Splitter,
    dialect: Dialect,
) -> Result<Option<Vec<String>>, Failure> {
    let Some((span, count)) = record(lines, splitter, dialect)? else {
        // Without a header, without a record: no columns are missed in an empty file.
        return match lines.find(0)? {
            Found::End => Ok(None),
            _ => Err(Failure::permanent(
                "NotCsv",
                format!(
                    "`{}` does not start with a header: a quote in its first line is not closed as it should be",
                    lines.key()
                ),
            )),
        };
    };
    let bytes = lines.text(span.end);
    let text = std::str::from_utf8(bytes).map_err(|_| {
        Failure::permanent(
            "NotCsv",
            format!("`{}` is no CSV: its header is no text", lines.key()),
        )
    })?;
    let names = splitter
        .fields
        .iter()
        .map(|f| splitter.value(text, *f).into_owned());
    let names: Vec<String> = names.collect();
    lines.consume(span.next, count);
    Ok(Some(names))
}

/// Names for the fields of the first record of a file that has no header.
fn numbered(
    lines: &mut Lines,
    splitter: &mut Splitter,
    dialect: Dialect,
) -> Result<Vec<String>, Failure> {
    let fields = match record(lines, splitter, dialect)? {
        None => 0,
        Some(_) => splitter.fields.len(),
    };
    Ok((1..=fields).map(|n| format!("column_{n}")).collect())
}

/// The columns with the types of their first values. A column whose values are
/// mostly of the known type is of that type; new columns are text.
fn sniff(
    lines: &mut Lines,
    splitter: &mut Splitter,
    dialect: Dialect,
    names: &[String],
    base: &[(String, Kind)],
) -> Result<Vec<drift::Found>, Failure> {
    let plain: Vec<Option<Column>> = names
        .iter()
        .map(|name| {
            let known = base.iter().find(|(known, _)| known == name)?;
            Some(Column::plain(name, known.1))
        })
        .collect();
    let mut samples: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    for line in lines.peek(SAMPLE)?.split(|b| *b == b'\n').take(RECORDS) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Ok(text) = std::str::from_utf8(line) else {
            continue;
        };
        let whole = splitter.split(line) == super::split::Step::Done;
        if dialect.passes_over(line) || !whole || splitter.fields.len() != names.len() {
            continue;
        }
        for (sample, field) in samples.iter_mut().zip(&splitter.fields) {
            let value = splitter.value(text, *field);
            if !value.is_empty() && value.len() < 1_000 {
                sample.push(value.into_owned());
            }
        }
    }
    let found = names
        .iter()
        .zip(&plain)
        .zip(&samples)
        .map(|((name, column), sample)| {
            let kind = match column {
                None => Kind::Text,
                Some(column) => {
                    let fits = |text: &&String| typed(column, Cow::Borrowed(text.as_str())).is_ok();
                    match sample.iter().filter(fits).count() * 2 >= sample.len() {
                        true => column.kind,
                        false => cell::narrowest(sample.iter().map(String::as_str)),
                    }
                }
            };
            drift::Found {
                name: name.clone(),
                kind: Some(kind),
            }
        });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let names = |list: &[&str]| renamed(list.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(names(&["a", "b"]), ["a", "b"]);
        assert_eq!(names(&["a", "a", "", "a"]), ["a", "a_2", "column_3", "a_3"]);
        assert_eq!(names(&["a", "a_2", "a"]), ["a", "a_2", "a_3"]);
    }
}
