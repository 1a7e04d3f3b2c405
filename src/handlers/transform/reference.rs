//! Reference tables: what the SQL joins with. Files, CSV or Parquet, are small:
//! they are read whole, and their columns' types are told by all of their values.
//! Tables of the lake and the warehouse are read as they are when a run begins.

use super::Inner;
use super::batch::Feed;
use super::cell;
use super::manifest::Manifest;
use super::options::{Format, ReadOptions, Reference, RejectLimit};
use super::read::{self, Expected, open};
use super::rejects::{Reject, RejectSink};
use super::run::blocking;
use super::schema::Kind;
use crate::handlers::Failure;
use crate::handlers::objects::Object;
use crate::handlers::query::LakeTable;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Tables that were read, kept as long as their files stay as they are.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<PathBuf, (String, Arc<MemTable>)>>);

impl Cache {
    /// The table of a file, read again if the file changed.
    ///
    /// # Errors
    /// `BadReferenceTable` when the file is not a sound table.
    pub fn get(&self, path: &Path) -> Result<Arc<dyn TableProvider>, Failure> {
        let stamp = open::stamp(&object(path))
            .map_err(|e| bad(path, &e))?
            .map(open::Stamp::etag)
            .unwrap_or_default();
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, table)) = cached.get(path)
            && *known == stamp
        {
            return Ok(Arc::clone(table) as Arc<dyn TableProvider>);
        }
        let table = read_table(path).map_err(|e| bad(path, &e))?;
        cached.insert(path.to_path_buf(), (stamp, Arc::clone(&table)));
        Ok(table)
    }
}

/// A reference table, for one run.
pub(super) async fn open(
    inner: &Arc<Inner>,
    reference: &Reference,
) -> Result<Arc<dyn TableProvider>, Failure> {
    let missing = |what: &str, name: &str| {
        let message = format!("the {what} has no table `{name}` yet, which the SQL reads");
        Failure::transient("ReferenceTableMissing", message)
    };
    match reference {
        Reference::File(path) => {
            let (inner, path) = (Arc::clone(inner), path.clone());
            blocking(move || inner.references.get(&path)).await
        }
        Reference::Lake(name) => {
            let (inner, name) = (Arc::clone(inner), name.clone());
            blocking(move || {
                let lake = &inner.env.lake;
                let manifests = Manifest::visible(lake, &name)?;
                if manifests.is_empty() {
                    return Err(missing("lake", &name));
                }
                let table = LakeTable::of(lake, &name, &manifests, &inner.places)?;
                Ok(Arc::new(table) as Arc<dyn TableProvider>)
            })
            .await
        }
        Reference::Warehouse(name) => {
            let Some(table) = inner.env.warehouse.existing(name).await? else {
                return Err(missing("warehouse", name));
            };
            table.table_provider().await.map_err(|e| {
                let message = format!("the table `{name}` of the warehouse cannot be read");
                Failure::transient("ReadFailed", message).caused_by(&e)
            })
        }
    }
}

/// Reads a table once.
///
/// # Errors
/// `BadReferenceTable` when the file is not a sound table.
pub fn load(path: &Path) -> Result<Arc<dyn TableProvider>, Failure> {
    read_table(path)
        .map(|table| table as Arc<dyn TableProvider>)
        .map_err(|e| bad(path, &e))
}

fn bad(path: &Path, e: &Failure) -> Failure {
    let mut failure = e.clone();
    failure.code = "BadReferenceTable".to_owned();
    failure.message = format!("reference table {}: {}", path.display(), e.message);
    failure
}

fn object(path: &Path) -> Object {
    let name = path.file_name().unwrap_or_default();
    Object::of_file(path, name.to_string_lossy())
}

/// A reference table has no bad records.
struct Strict;

impl RejectSink for Strict {
    fn put(&mut self, reject: &Reject<'_>) -> Result<(), Failure> {
        Err(Failure::permanent(
            "BadReferenceTable",
            format!("line {}: {}", reject.line, reject.message),
        ))
    }
}

fn read_table(path: &Path) -> Result<Arc<MemTable>, Failure> {
    let options = ReadOptions {
        delimiter: if path.to_string_lossy().ends_with(".tsv") {
            b'\t'
        } else {
            b','
        },
        reject_limit: RejectLimit::Count(0),
        ..ReadOptions::default()
    };
    let opened = open::open(&object(path))?;
    let mut started = read::start(opened, &options, &Expected::default())?;
    let mut strict = Strict;
    let mut feed = Feed::new(Arc::clone(&started.schema), &mut strict);
    let mut batches: Vec<RecordBatch> = Vec::new();
    loop {
        let more = started.reader.fill(&mut feed)?;
        batches.extend(feed.take()?);
        if !more {
            break;
        }
    }
    let internal = |e: &dyn std::error::Error| {
        Failure::permanent("BadReferenceTable", "it cannot be made into a table").caused_by(e)
    };
    let mut schema = Arc::clone(&started.arrow);
    if !matches!(super::read::format_of(path), Some(Format::Parquet)) {
        (schema, batches) = typed(&schema, &batches).map_err(|e| internal(&e))?;
    }
    MemTable::try_new(schema, vec![batches])
        .map(Arc::new)
        .map_err(|e| internal(&e))
}

/// Gives columns of text the narrowest type that all their values have.
fn typed(
    schema: &Schema,
    batches: &[RecordBatch],
) -> Result<(Arc<Schema>, Vec<RecordBatch>), arrow::error::ArrowError> {
    let kinds: Vec<DataType> = (0..schema.fields().len())
        .map(|i| narrowest(batches.iter().map(|b| b.column(i))))
        .collect();
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(&kinds)
        .map(|(f, kind)| Field::new(f.name(), kind.clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batches = batches
        .iter()
        .map(|batch| {
            let columns = batch.columns().iter().zip(&kinds);
            let columns: Result<Vec<ArrayRef>, _> =
                columns.map(|(c, kind)| cast(c, kind)).collect();
            RecordBatch::try_new(Arc::clone(&schema), columns?)
        })
        .collect::<Result<_, _>>()?;
    Ok((schema, batches))
}

fn narrowest<'a>(arrays: impl Iterator<Item = &'a ArrayRef>) -> DataType {
    type Test = fn(&str) -> bool;
    // A number with a leading zero is a code, not a number.
    let code = |t: &str| t.len() > 1 && t.starts_with('0') && !t.starts_with("0.");
    let mut open: Vec<(Kind, Test)> = vec![
        (Kind::Int, |t| t.parse::<i64>().is_ok()),
        (Kind::Float, |t| cell::float(t).is_some()),
        (Kind::Bool, |t| cell::boolean(t).is_some()),
        (Kind::Date, |t| cell::date(t).is_some()),
        (Kind::Timestamp, |t| cell::timestamp(t).is_some()),
    ];
    let mut seen = false;
    for array in arrays {
        let Some(texts) = array.as_string_opt::<i32>() else {
            return array.data_type().clone();
        };
        for text in texts.iter().flatten() {
            seen = true;
            let coded = code(text);
            open.retain(|(kind, test)| {
                test(text) && !(coded && matches!(kind, Kind::Int | Kind::Float))
            });
            if open.is_empty() {
                return DataType::Utf8;
            }
        }
    }
    match open.first() {
        Some((kind, _)) if seen => kind.arrow(),
        _ => DataType::Utf8,
    }
}
