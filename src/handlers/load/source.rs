//! The outputs of publications as one table: their files one after the other,
//! with the partition columns' values, in the types that are written. A hidden
//! column numbers the rows, so that of two rows with one key the last wins.

use super::incoming::Incoming;
use crate::handlers::Failure;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// The hidden column that numbers the rows.
pub const ORDER: &str = "__pointsman_order";

/// A file with the partition values of its rows.
#[derive(Debug)]
struct Part {
    path: PathBuf,
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
/// `OutputGone` when a file is not there, `CorruptInput` when it is no Parquet.
pub fn schemas(incoming: &[&Incoming]) -> Result<Vec<Schema>, Failure> {
    let mut schemas: Vec<Schema> = Vec::new();
    for one in incoming {
        for file in &one.files {
            let found = reader(&file.path)?.schema().as_ref().clone();
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

fn reader(path: &std::path::Path) -> Result<ParquetRecordBatchReaderBuilder<File>, Failure> {
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::permanent(
            "OutputGone",
            format!(
                "{} is gone: the lake's file was removed before it was loaded",
                path.display()
            ),
        ),
        _ => Failure::transient("ReadFailed", format!("{} cannot be read", path.display()))
            .caused_by(&e),
    })?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| {
        Failure::permanent(
            "CorruptInput",
            format!("{} is not a sound Parquet file", path.display()),
        )
        .caused_by(&e)
    })
}

impl Outputs {
    /// The rows of publications, in their order, as columns of `schema`.
    pub fn new(
        incoming: &[&Incoming],
        schema: &Schema,
        key: &[String],
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let mut parts = Vec::new();
        for one in incoming {
            for file in &one.files {
                let values = one.partition.iter().zip(&file.values);
                let values =
                    values.map(|((name, kind), value)| (name.clone(), kind.clone(), value.clone()));
                parts.push(Part {
                    path: file.path.clone(),
                    values: values.collect(),
                });
            }
        }
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        if !key.is_empty() {
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

    fn read(
        &self,
        out: &mpsc::Sender<Result<RecordBatch, DataFusionError>>,
    ) -> Result<(), Failure> {
        let mut order = 0_i64;
        for part in &self.parts {
            let unsound = |e: &ArrowError| {
                Failure::permanent(
                    "CorruptInput",
                    format!("{} cannot be read to its end", part.path.display()),
                )
                .caused_by(e)
            };
            let batches = reader(&part.path)?
                .build()
                .map_err(|e| unsound(&e.into()))?;
            for batch in batches {
                if self.cancel.is_cancelled() {
                    return Err(crate::handlers::transform::cancelled());
                }
                let batch = batch.map_err(|e| unsound(&e))?;
                let batch = self.columns(part, &batch, &mut order)?;
                if out.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn columns(
        &self,
        part: &Part,
        batch: &RecordBatch,
        order: &mut i64,
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
                (Some(array), _) => exact(name, array, field.data_type())?,
                (None, Some((_, kind, Some(text)))) => {
                    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
                        std::iter::repeat_n(text, rows),
                    ));
                    exact(name, &exact(name, &texts, kind)?, field.data_type())?
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
                format!("{} has nulls where it must not", part.path.display()),
            )
            .caused_by(&e)
        })
    }
}

/// Casts without losing a value.
fn exact(column: &str, array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, Failure> {
    if array.data_type() == kind {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, kind, &options).map_err(|e| {
        Failure::permanent(
            "SchemaConflict",
            format!("column `{column}` has a value that is not of type {kind}"),
        )
        .caused_by(&e)
    })
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
            if let Err(failure) = outputs.read(&sender) {
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
