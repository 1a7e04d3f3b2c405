//! Parquet: batches as they come, or cast to the declared columns and checked
//! there, row by row only where a column has something to check.

use super::csv::typed;
use super::open::{Opened, trouble};
use super::rescue::Rescued;
use super::{Expected, Reader, Started, map_columns};
use crate::handlers::Failure;
use crate::handlers::objects::Blob;
use crate::handlers::transform::batch::{Broken, Builder, Feed, check_whole};
use crate::handlers::transform::cell::Cell;
use crate::handlers::transform::check::Violation;
use crate::handlers::transform::drift::{self, Changes};
use crate::handlers::transform::options::ReadOptions;
use crate::handlers::transform::schema::{Column, Extra, Kind, RecordSchema};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray,
    new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, nullif};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float64Type, Int64Type, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct ParquetReader {
    key: String,
    blob: Blob,
    batches: ParquetRecordBatchReader,
    declared: Option<(Arc<RecordSchema>, Vec<Option<usize>>)>,
    /// Columns of the file that are rescued.
    spare: Vec<usize>,
    opened: Arc<super::open::Meter>,
    bytes_per_row: u64,
}

/// Starts to read Parquet.
///
/// # Errors
/// `CorruptInput` for what is no Parquet file, `SchemaMismatch` for columns that do not fit.
pub fn start(
    opened: Opened,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<Started, Failure> {
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
    let what = format!("`{key}`");
    let (target, changes) = match (options.drift, &expected.declared) {
        (None, declared) => (declared.clone(), Changes::default()),
        (Some(policy), _) => {
            let columns = found.fields().iter().map(|f| drift::Found {
                name: f.name().clone(),
                kind: kind_of(f.data_type()),
            });
            let columns: Vec<drift::Found> = columns.collect();
            let known = expected.known.as_ref();
            let decision = drift::decide(policy, options, known, &columns, (false, &what))?;
            (Some(decision.schema), decision.changes)
        }
    };
    let mut ignored = Vec::new();
    let mut spare = Vec::new();
    let declared = match target {
        None => None,
        Some(schema) => {
            let mapping = map_columns(&names, &schema, &what)?;
            let mut from = vec![None; schema.columns.len()];
            for (at, to) in mapping.to.iter().enumerate() {
                match to {
                    Some(to) => from[*to] = Some(at),
                    None => spare.push(at),
                }
            }
            match schema.rescue {
                Some(_) => {}
                None => {
                    ignored = mapping.ignored;
                    spare.clear();
                }
            }
            Some((schema, from))
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
            spare,
            opened: meter,
            bytes_per_row: size / rows.max(1),
        }),
        schema,
        arrow,
        ignored,
        changes,
    })
}

/// The type of a column, as far as a schema can say it.
fn kind_of(kind: &DataType) -> Option<Kind> {
    match kind {
        DataType::Null => None,
        kind if kind.is_string() => Some(Kind::Text),
        kind if kind.is_integer() => Some(Kind::Int),
        kind if kind.is_floating() => Some(Kind::Float),
        DataType::Decimal128(precision, scale) if *scale >= 0 => Some(Kind::Decimal {
            precision: *precision,
            scale: *scale,
        }),
        DataType::Boolean => Some(Kind::Bool),
        DataType::Timestamp(..) => Some(Kind::Timestamp),
        DataType::Date32 | DataType::Date64 => Some(Kind::Date),
        _ => Some(Kind::Json),
    }
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
                let kept = checked(schema, (from, &self.spare), &batch, before, feed)?;
                feed.pass(kept.map_err(|e| failed(&e))?);
            }
        }
        Ok(true)
    }
}

/// Casts a batch to the declared columns and sets rows aside that do not fit.
fn checked(
    schema: &RecordSchema,
    (from, spare): (&[Option<usize>], &[usize]),
    batch: &RecordBatch,
    before: u64,
    feed: &mut Feed<'_>,
) -> Result<Result<RecordBatch, ArrowError>, Failure> {
    let mut columns = Vec::with_capacity(from.len());
    let mut broken: Vec<Option<Broken>> = Vec::new();
    broken.resize_with(batch.num_rows(), || None);
    let mut rescued = match rescued(schema, spare, batch) {
        Ok(rescued) => rescued,
        Err(e) => return Ok(Err(e)),
    };
    for (column, from) in schema.columns.iter().zip(from) {
        let array = match from {
            None => new_null_array(&column.kind.arrow(), batch.num_rows()),
            Some(at) => match converted(column, batch.column(*at), &mut broken) {
                Ok(array) => array,
                Err(e) => return Ok(Err(e)),
            },
        };
        let array = match (from, rescued.is_empty()) {
            (Some(at), false) => {
                let lost = save(schema, column, batch.column(*at), &mut broken, &mut rescued);
                match nullif(&array, &lost) {
                    Ok(array) => array,
                    Err(e) => return Ok(Err(e)),
                }
            }
            _ => array,
        };
        test(column, &array, &mut broken);
        columns.push(array);
    }
    if let Some(at) = schema.rescue {
        let texts = rescued.into_iter().map(Rescued::text);
        columns[at] = Arc::new(StringArray::from_iter(texts));
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

/// What each row has in columns that none is there for; empty, if nothing is rescued.
fn rescued(
    schema: &RecordSchema,
    spare: &[usize],
    batch: &RecordBatch,
) -> Result<Vec<Rescued>, ArrowError> {
    if schema.rescue.is_none() {
        return Ok(Vec::new());
    }
    let mut rows: Vec<Rescued> = Vec::new();
    rows.resize_with(batch.num_rows(), Rescued::default);
    if spare.is_empty() {
        return Ok(rows);
    }
    for (row, members) in rows.iter_mut().zip(json_rows(&batch.project(spare)?)?) {
        for (name, value) in members {
            row.put_json(&name, value);
        }
    }
    Ok(rows)
}

/// The rows as JSON; nulls are left out.
fn json_rows(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, ArrowError> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let text = writer.into_inner();
    let lines = text.split(|b| *b == b'\n').take(batch.num_rows());
    lines
        .map(|line| serde_json::from_slice(line).map_err(|e| ArrowError::JsonError(e.to_string())))
        .collect()
}

/// Rescues the values that the column does not take, and tells which; their rows
/// are sound then.
fn save(
    schema: &RecordSchema,
    column: &Column,
    array: &ArrayRef,
    broken: &mut [Option<Broken>],
    rescued: &mut [Rescued],
) -> BooleanArray {
    let mut lost = vec![false; rescued.len()];
    for (row, (fault, rescued)) in broken.iter_mut().zip(rescued).enumerate() {
        let mine = fault.as_ref().filter(|b| {
            b.column.as_ref() == Some(&column.name) && rescued.takes(schema, column, &b.violation)
        });
        if mine.is_some() {
            let text = value_text(array.as_ref(), row);
            rescued.put_json(&column.name, Value::String(text));
            *fault = None;
            lost[row] = true;
        }
    }
    lost.into()
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
    if column.kind == Kind::Json && array.data_type().is_nested() {
        let field = Field::new("v", array.data_type().clone(), true);
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
        let rows = json_rows(&RecordBatch::try_new(schema, vec![Arc::clone(array)])?)?;
        let texts = rows
            .into_iter()
            .map(|row| row.get("v").map(Value::to_string));
        return Ok(Arc::new(StringArray::from_iter(texts)));
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
    let mut parts = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let value = value_text(column.as_ref(), row);
        parts.push(format!("{}={value}", field.name()));
    }
    parts.join(", ")
}

fn value_text(array: &dyn Array, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    ArrayFormatter::try_new(array, &options)
        .map_or_else(|e| e.to_string(), |f| f.value(row).to_string())
}
