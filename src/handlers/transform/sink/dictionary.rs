//! Columns that a dictionary would not make smaller. An encoder tries one for
//! every column and gives up when it is full; for ids, times and free text that
//! is a tenth of the work of writing a file. So a sample of the first rows says
//! for which columns it is not tried.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;
use std::collections::HashSet;

/// Rows that are looked at.
const SAMPLE: usize = 2_048;
/// Of fewer rows than this a sample says nothing.
const ENOUGH: usize = 8 * SAMPLE;
/// Of a hundred values so many are different where a dictionary does not help: a
/// column with more than about 100,000 values.
const DIFFERENT: usize = 99;

/// Whether there are rows enough to tell.
pub(super) fn can_tell(rows: &[RecordBatch]) -> bool {
    rows.iter().map(RecordBatch::num_rows).sum::<usize>() >= ENOUGH
}

/// Leaves dictionaries out where they do not help.
pub(super) fn without(
    mut properties: WriterPropertiesBuilder,
    schema: &SchemaRef,
    rows: &[RecordBatch],
) -> WriterPropertiesBuilder {
    for name in diverse(schema, rows) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::new(vec![name]), false);
    }
    properties
}

fn diverse(schema: &Schema, rows: &[RecordBatch]) -> Vec<String> {
    let total: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let step = (total / SAMPLE).max(1);
    let mut places = Vec::with_capacity(SAMPLE + 1);
    let (mut batch, mut before) = (0, 0);
    for row in (0..total).step_by(step) {
        while row - before >= rows[batch].num_rows() {
            before += rows[batch].num_rows();
            batch += 1;
        }
        places.push((batch, row - before));
    }
    let columns = schema.fields().iter().enumerate();
    // Nested columns have leaves with names of their own; they stay as they are.
    let flat = columns.filter(|(_, field)| !field.data_type().is_nested());
    flat.filter(|(at, _)| {
        let arrays: Vec<&dyn Array> = rows.iter().map(|b| b.column(*at).as_ref()).collect();
        let sample = interleave(&arrays, &places);
        sample.is_ok_and(|sample| is_diverse(&sample).unwrap_or(false))
    })
    .map(|(_, field)| field.name().clone())
    .collect()
}

fn is_diverse(sample: &ArrayRef) -> Result<bool, ArrowError> {
    let valued = sample.len() - sample.null_count();
    if valued < SAMPLE / 2 {
        return Ok(false);
    }
    let converter = RowConverter::new(vec![SortField::new(sample.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(sample))?;
    let different: HashSet<&[u8]> = (0..sample.len())
        .filter(|row| sample.is_valid(*row))
        .map(|row| rows.row(row).data())
        .collect();
    Ok(different.len() * 100 >= valued * DIFFERENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    #[test]
    fn ids_are_told_from_words() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("word", DataType::Utf8, true),
            Field::new("rare", DataType::Int64, true),
        ]));
        let batch = |from: i64| {
            let ids: Vec<i64> = (from..from + 9_000).collect();
            let rare = ids.iter().map(|n| (n % 100 == 0).then_some(*n));
            let words = ids.iter().map(|n| format!("w{}", n % 1_000));
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(ids.clone())),
                Arc::new(StringArray::from_iter_values(words)),
                Arc::new(rare.collect::<Int64Array>()),
            ];
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        };
        let rows = [batch(0), batch(9_000), batch(18_000)];
        assert!(can_tell(&rows) && !can_tell(&rows[..1]));
        assert_eq!(diverse(&schema, &rows), ["id"]);
    }
}
