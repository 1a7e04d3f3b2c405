//! The outputs of publications as one table: their files one after the other,
//! with the partition columns' values, in the types that are written. A hidden
//! column numbers the rows, so that of two rows with one key the last wins.

use super::incoming::Incoming;
use super::layout::{self, Layout};
use super::options::Mode;
use crate::handlers::Failure;
use crate::handlers::objects::Place;
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::Decimal128Type;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// The hidden column that numbers the rows.
pub const ORDER: &str = "__pointsman_order";

/// Columns that are shown of a row at fault, when it has no key.
const SHOWN: usize = 8;
/// Characters that are shown of a value.
const SHOWN_CHARS: usize = 60;

/// A file with the partition values of its rows.
#[derive(Debug)]
struct Part {
    place: Place,
    layout: Layout,
    rows: u64,
    /// The object that it was made of, where known.
    object: Option<String>,
    values: Vec<(String, DataType, Option<String>)>,
}

/// All rows of some publications.
#[derive(Debug)]
pub struct Outputs {
    parts: Vec<Part>,
    schema: SchemaRef,
    key: Vec<String>,
    failure: Mutex<Option<Failure>>,
    cancel: CancellationToken,
}

/// The columns of each publication's outputs, from the files themselves.
///
/// # Errors
/// `OutputGone` when a file is not there, `CorruptInput` when it is of another format.
pub fn schemas(incoming: &[&Incoming]) -> Result<Vec<Schema>, Failure> {
    let mut schemas: Vec<Schema> = Vec::new();
    for one in incoming {
        for file in &one.files {
            let found = one.layout.schema(&file.place)?;
            let partition = one
                .partition
                .iter()
                .map(|(n, k)| Arc::new(Field::new(n, k.clone(), true)));
            let fields: Vec<_> = found.fields().iter().cloned().chain(partition).collect();
            let schema = Schema::new(fields);
            if !schemas.contains(&schema) {
                schemas.push(schema);
            }
        }
    }
    Ok(schemas)
}

impl Outputs {
    /// The rows of publications, in their order, as columns of `schema`; with
    /// `ordered`, the column [`ORDER`] numbers them.
    pub fn new(
        incoming: &[&Incoming],
        schema: &Schema,
        key: &[String],
        ordered: bool,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let mut parts = Vec::new();
        for one in incoming {
            for file in &one.files {
                let values = one.partition.iter().zip(&file.values);
                let values =
                    values.map(|((name, kind), value)| (name.clone(), kind.clone(), value.clone()));
                parts.push(Part {
                    place: file.place.clone(),
                    layout: one.layout.clone(),
                    rows: file.rows,
                    object: one.object.clone(),
                    values: values.collect(),
                });
            }
        }
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        if ordered {
            fields.push(Arc::new(Field::new(ORDER, DataType::Int64, false)));
        }
        Arc::new(Self {
            parts,
            schema: Arc::new(Schema::new(fields)),
            key: key.to_vec(),
            failure: Mutex::default(),
            cancel,
        })
    }

    /// What reading failed with.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The columns of the rows.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Hands on all rows, batch by batch, until `take` has had enough. Blocks.
    ///
    /// # Errors
    /// What `take` says; `SchemaConflict` or `NullKey` names a row, `CorruptInput`
    /// a file.
    pub fn each(
        &self,
        take: &mut dyn FnMut(RecordBatch) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut order = 0_i64;
        for part in &self.parts {
            let blob = layout::open(&part.place)?;
            let batches = part.layout.rows(&part.place, &blob, 0)?;
            let mut before = 0;
            for batch in batches {
                if self.cancel.is_cancelled() {
                    return Err(crate::handlers::transform::cancelled());
                }
                let batch = batch.map_err(|e| layout::unsound(&part.place, &blob, &e))?;
                let batch = self.columns(part, &batch, &mut order, before)?;
                before += batch.num_rows();
                if !take(batch)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Names a row, from 0, for people: its key (or first columns), and where it
    /// came from. `None` when there is no such row, or it cannot be read again.
    #[must_use]
    pub fn name(&self, row: u64) -> Option<String> {
        let mut left = usize::try_from(row).ok()?;
        for part in &self.parts {
            let rows = part.layout.count(&part.place, part.rows).ok()?;
            if left >= rows {
                left -= rows;
                continue;
            }
            let blob = layout::open(&part.place).ok()?;
            let mut found = part.layout.rows(&part.place, &blob, left).ok()?;
            let batch = found.next()?.ok()?.slice(0, 1);
            let batch = self.columns(part, &batch, &mut 0, left).unwrap_or(batch);
            return Some(self.called(part, &batch, 0, left, None));
        }
        None
    }

    /// Words for a row of a batch.
    fn called(
        &self,
        part: &Part,
        batch: &RecordBatch,
        row: usize,
        in_file: usize,
        column: Option<&str>,
    ) -> String {
        let schema = batch.schema();
        let mut names: Vec<&str> = self.key.iter().map(String::as_str).collect();
        if names.is_empty() {
            let all = schema.fields().iter().map(|f| f.name().as_str());
            names.extend(all.filter(|n| *n != ORDER).take(SHOWN));
        }
        if let Some(column) = column.filter(|c| !names.contains(c)) {
            names.push(column);
        }
        let values: Vec<String> = names
            .iter()
            .filter_map(|name| {
                Some(format!(
                    "{name}={}",
                    shown(batch.column_by_name(name)?, row)
                ))
            })
            .collect();
        let file = part.place.name();
        let of = match &part.object {
            Some(object) => format!(" of {object}"),
            None => String::new(),
        };
        format!("({}), row {} in {file}{of}", values.join(", "), in_file + 1)
    }

    fn columns(
        &self,
        part: &Part,
        batch: &RecordBatch,
        order: &mut i64,
        before: usize,
    ) -> Result<RecordBatch, Failure> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let name = field.name().as_str();
            let partition = part.values.iter().find(|(n, _, _)| n == name);
            let array = match (batch.column_by_name(name), partition) {
                _ if name == ORDER => {
                    let first = *order;
                    *order += i64::try_from(rows).unwrap_or(0);
                    Arc::new(Int64Array::from_iter_values(first..*order)) as ArrayRef
                }
                (Some(array), _) => {
                    let called = |row| self.called(part, batch, row, before + row, Some(name));
                    exact(name, array, field.data_type(), &called)?
                }
                (None, Some((_, kind, Some(text)))) => {
                    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
                        std::iter::repeat_n(text, rows),
                    ));
                    let called = |_| format!("of partition {name}={text}");
                    let typed = exact(name, &texts, kind, &called)?;
                    exact(name, &typed, field.data_type(), &called)?
                }
                (None, _) => new_null_array(field.data_type(), rows),
            };
            if self.key.iter().any(|k| k == name) && array.null_count() > 0 {
                return Err(Failure::permanent(
                    "NullKey",
                    format!(
                        "{} rows have no value in the key column `{name}`",
                        array.null_count()
                    ),
                ));
            }
            columns.push(array);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| {
            Failure::permanent(
                "CorruptInput",
                format!("{} has nulls where it must not", part.place),
            )
            .caused_by(&e)
        })
    }
}

/// Casts without losing a value; `called` names the row that cannot be.
fn exact(
    column: &str,
    array: &ArrayRef,
    kind: &DataType,
    called: &dyn Fn(usize) -> String,
) -> Result<ArrayRef, Failure> {
    if array.data_type() == kind {
        return Ok(Arc::clone(array));
    }
    let conflict = |row: Option<usize>| {
        let said = row.map(|row| format!("{} is in the row {}", shown(array, row), called(row)));
        Failure::permanent(
            "SchemaConflict",
            format!(
                "column `{column}` has a value that is not of type {}: {}",
                crate::handlers::transform::manifest::type_name(kind),
                said.as_deref().unwrap_or("it has another kind of values")
            ),
        )
    };
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    match cast_with_options(array, kind, &options) {
        Ok(cast) => match rounded(array, &cast) {
            None => Ok(cast),
            row => Err(conflict(row)),
        },
        Err(e) => {
            let tried = cast(array, kind).ok();
            let row =
                tried.and_then(|t| (0..t.len()).find(|i| t.is_null(*i) && array.is_valid(*i)));
            Err(conflict(row).caused_by(&e))
        }
    }
}

/// The first decimal that lost digits: casts to fewer of them round.
fn rounded(from: &ArrayRef, to: &ArrayRef) -> Option<usize> {
    let (DataType::Decimal128(_, had), DataType::Decimal128(_, has)) =
        (from.data_type(), to.data_type())
    else {
        return None;
    };
    let lost = u32::try_from(had - has).ok().filter(|d| *d > 0)?;
    let unit = 10_i128.checked_pow(lost)?;
    let values = from.as_primitive_opt::<Decimal128Type>()?;
    (0..values.len()).find(|i| values.is_valid(*i) && values.value(*i) % unit != 0)
}

/// A value for people, cut short.
fn shown(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let Ok(format) = ArrayFormatter::try_new(array.as_ref(), &options) else {
        return "?".to_owned();
    };
    let text = format.value(row).to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// A column that the outputs lack and the mode needs.
#[must_use]
pub fn lacks(column: &str, mode: &Mode) -> Failure {
    let what = match mode {
        Mode::Upsert { key, .. } if key.iter().any(|k| k == column) => "key column",
        Mode::Upsert { .. } => "`newer_by` column",
        Mode::Append | Mode::ReplacePartition { .. } => "`partition_by` column",
    };
    Failure::permanent(
        "SchemaConflict",
        format!("the {what} `{column}` is not in the outputs"),
    )
}

/// The rows as a partition of a table.
#[derive(Debug)]
pub struct Rows(pub Arc<Outputs>);

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (sender, receiver) = mpsc::channel(2);
        let outputs = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            let mut send = |batch| Ok(sender.blocking_send(Ok(batch)).is_ok());
            if let Err(failure) = outputs.each(&mut send) {
                let said = failure.message.clone();
                outputs
                    .failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(failure);
                // The plan may be gone already; the failure is kept either way.
                drop(sender.blocking_send(Err(DataFusionError::Execution(said))));
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.0.schema),
            ReceiverStream::new(receiver),
        ))
    }
}
