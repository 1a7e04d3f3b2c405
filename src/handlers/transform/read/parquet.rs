//! Parquet: batches as they come, or cast to the declared columns and checked
//! there, row by row only where a column has something to check.

use super::csv::typed;
use super::open::{Opened, trouble};
use super::{Reader, Started, map_columns};
use crate::handlers::Failure;
use crate::handlers::objects::Blob;
use crate::handlers::transform::batch::{Broken, Builder, Feed, check_whole};
use crate::handlers::transform::cell::Cell;
use crate::handlers::transform::check::Violation;
use crate::handlers::transform::schema::{Column, Extra, Kind, RecordSchema};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct ParquetReader {
    key: String,
    blob: Blob,
    batches: ParquetRecordBatchReader,
    declared: Option<(Arc<RecordSchema>, Vec<Option<usize>>)>,
    opened: Arc<super::open::Meter>,
    bytes_per_row: u64,
}

/// Starts to read Parquet.
///
/// # Errors
/// `CorruptInput` for what is no Parquet file, `SchemaMismatch` for columns that do not fit.
pub fn start(opened: Opened, declared: Option<&Arc<RecordSchema>>) -> Result<Started, Failure> {
    let Opened {
        key,
        file,
        size,
        meter,
        ..
    } = opened;
    let blob = file.clone();
    let corrupt = |e: &dyn std::error::Error| {
        trouble(&key, &blob).unwrap_or_else(|| {
            Failure::permanent(
                "CorruptInput",
                format!("`{key}` is not a sound Parquet file"),
            )
            .caused_by(e)
        })
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| corrupt(&e))?;
    let found = Arc::clone(builder.schema());
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let names: Vec<String> = found.fields().iter().map(|f| f.name().clone()).collect();
    let mut ignored = Vec::new();
    let declared = match declared {
        None => None,
        Some(schema) => {
            let mapping = map_columns(&names, schema, &format!("`{key}`"))?;
            ignored = mapping.ignored;
            let mut from = vec![None; schema.columns.len()];
            for (at, to) in mapping.to.iter().enumerate() {
                if let Some(to) = to {
                    from[*to] = Some(at);
                }
            }
            Some((Arc::clone(schema), from))
        }
    };
    let batches = builder
        .with_batch_size(4096)
        .build()
        .map_err(|e| corrupt(&e))?;
    let (schema, arrow) = match &declared {
        Some((schema, _)) => (Arc::clone(schema), Arc::clone(schema.arrow())),
        None => {
            let columns = names.iter().map(|name| Column::text(name)).collect();
            (
                Arc::new(RecordSchema::from_columns(columns, Extra::Ignored)),
                found,
            )
        }
    };
    Ok(Started {
        reader: Box::new(ParquetReader {
            key,
            blob,
            batches,
            declared,
            opened: meter,
            bytes_per_row: size / rows.max(1),
        }),
        schema,
        arrow,
        ignored,
    })
}

impl Reader for ParquetReader {
    fn fill(&mut self, feed: &mut Feed<'_>) -> Result<bool, Failure> {
        let Some(batch) = self.batches.next() else {
            return Ok(false);
        };
        let failed = |e: &ArrowError| {
            trouble(&self.key, &self.blob).unwrap_or_else(|| {
                Failure::permanent(
                    "CorruptInput",
                    format!("`{}` cannot be read to its end", self.key),
                )
                .caused_by(e)
            })
        };
        let batch = batch.map_err(|e| failed(&e))?;
        let before = feed.records;
        feed.records += batch.num_rows() as u64;
        self.opened.bytes.fetch_add(
            self.bytes_per_row * batch.num_rows() as u64,
            Ordering::Relaxed,
        );
        match &self.declared {
            None => feed.pass(batch),
            Some((schema, from)) => {
                let kept = checked(schema, from, &batch, before, feed)?;
                feed.pass(kept.map_err(|e| failed(&e))?);
            }
        }
        Ok(true)
    }
}

/// Casts a batch to the declared columns and sets rows aside that do not fit.
fn checked(
    schema: &RecordSchema,
    from: &[Option<usize>],
    batch: &RecordBatch,
    before: u64,
    feed: &mut Feed<'_>,
) -> Result<Result<RecordBatch, ArrowError>, Failure> {
    let mut columns = Vec::with_capacity(from.len());
    let mut broken: Vec<Option<Broken>> = Vec::new();
    broken.resize_with(batch.num_rows(), || None);
    for (column, from) in schema.columns.iter().zip(from) {
        let array = match from {
            None => new_null_array(&column.kind.arrow(), batch.num_rows()),
            Some(at) => match converted(column, batch.column(*at), &mut broken) {
                Ok(array) => array,
                Err(e) => return Ok(Err(e)),
            },
        };
        test(column, &array, &mut broken);
        columns.push(array);
    }
    if schema.whole.is_some() {
        for (row, fault) in broken.iter_mut().enumerate().filter(|(_, b)| b.is_none()) {
            let pairs = schema.columns.iter().zip(&columns);
            let cells: Vec<Cell<'_>> = pairs.map(|(c, a)| cell_at(c.kind, a, row)).collect();
            *fault = check_whole(schema, &cells).err();
        }
    }
    for (row, fault) in broken.iter().enumerate() {
        if let Some(fault) = fault {
            feed.aside(
                fault,
                before + row as u64 + 1,
                row_text(batch, row).as_bytes(),
            )?;
        }
    }
    let keep = BooleanArray::from_iter(broken.iter().map(|b| Some(b.is_none())));
    // A null in a column that needs a value is only in rows that are set aside,
    // so the batch takes its nullable form until they are gone.
    let loose = arrow::datatypes::Schema::new(
        schema
            .arrow()
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect::<Vec<_>>(),
    );
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(
        RecordBatch::try_new_with_options(Arc::new(loose), columns, &options)
            .and_then(|all| filter_record_batch(&all, &keep))
            .and_then(|kept| {
                let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
                let strict = Arc::clone(schema.arrow());
                RecordBatch::try_new_with_options(strict, kept.columns().to_vec(), &options)
            }),
    )
}

/// Casts a column; marks the rows whose value would be lost or changed.
fn converted(
    column: &Column,
    array: &ArrayRef,
    broken: &mut [Option<Broken>],
) -> Result<ArrayRef, ArrowError> {
    let target = column.kind.arrow();
    if array.data_type() == &target {
        return Ok(Arc::clone(array));
    }
    if array.data_type().is_string() && target != DataType::Utf8 {
        return parsed(column, array, broken);
    }
    let options = CastOptions::default();
    let cast = cast_with_options(array, &target, &options)?;
    let back = cast_with_options(&cast, array.data_type(), &options)?;
    let same = not_distinct(&back, array)?;
    for (row, fault) in broken.iter_mut().enumerate().filter(|(_, b)| b.is_none()) {
        if !same.value(row) {
            let message = format!("the value is not {} as it stands", column.kind.expected());
            *fault = Some(Broken::column(column, Violation::new("WrongType", message)));
        }
    }
    Ok(cast)
}

/// Text is parsed as it is in CSV.
fn parsed(
    column: &Column,
    array: &ArrayRef,
    broken: &mut [Option<Broken>],
) -> Result<ArrayRef, ArrowError> {
    let texts = cast_with_options(array, &DataType::Utf8, &CastOptions::default())?;
    let mut builder = Builder::of(column, array.len());
    for (text, fault) in texts.as_string::<i32>().iter().zip(broken) {
        let cell = text.map_or(Ok(Cell::Null), |text| typed(column, Cow::Borrowed(text)));
        let cell = cell.unwrap_or_else(|violation| {
            fault.get_or_insert_with(|| Broken::column(column, violation));
            Cell::Null
        });
        builder.push(&cell);
    }
    Ok(builder.finish())
}

/// Checks the values of a column.
fn test(column: &Column, array: &ArrayRef, broken: &mut [Option<Broken>]) {
    let nulls = !column.nullable() && array.null_count() > 0;
    if !nulls && !column.check.any() {
        return;
    }
    for (row, fault) in broken.iter_mut().enumerate().filter(|(_, b)| b.is_none()) {
        let result = match array.is_null(row) {
            true if !column.nullable() => Err(Violation::new(
                "Missing",
                format!("a value is needed, {}", column.kind.expected()),
            )),
            true => Ok(()),
            false => column
                .check
                .test(&cell_at(column.kind, array, row), column.kind),
        };
        *fault = result.err().map(|v| Broken::column(column, v));
    }
}

/// A value of an array of the kind's type.
fn cell_at(kind: Kind, array: &ArrayRef, row: usize) -> Cell<'_> {
    if array.is_null(row) {
        return Cell::Null;
    }
    match kind {
        Kind::Text | Kind::Json => Cell::Text(Cow::Borrowed(array.as_string::<i32>().value(row))),
        Kind::Int => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        Kind::Float => Cell::Float(array.as_primitive::<Float64Type>().value(row)),
        Kind::Decimal { .. } => Cell::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        Kind::Bool => Cell::Bool(array.as_boolean().value(row)),
        Kind::Timestamp => Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        Kind::Date => Cell::Int(i64::from(array.as_primitive::<Date32Type>().value(row))),
    }
}

/// A row as text, for the file of rejects.
fn row_text(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let mut parts = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let value = ArrayFormatter::try_new(column.as_ref(), &options)
            .map_or_else(|e| e.to_string(), |f| f.value(row).to_string());
        parts.push(format!("{}={value}", field.name()));
    }
    parts.join(", ")
}
