//! The files of a publication as batches, in whatever format a transform wrote
//! them. Parquet tells its columns itself; text is read with the columns that the
//! publication declares, so a value that is not of its column's type is an error
//! of the file and is never guessed at.

use crate::handlers::Failure;
use crate::handlers::objects::{Blob, Place};
use crate::handlers::transform::manifest::{ColumnInfo, named_type};
use arrow::array::RecordBatch;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::io::BufReader;
use std::sync::Arc;

/// Rows of a batch that is read from text.
const ROWS: usize = 4_096;

/// The rows of a file.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// How the files of a publication are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Parquet.
    Parquet,
    /// CSV with a header and these columns. An empty field is null.
    Csv(SchemaRef),
    /// A JSON document a line, with these columns.
    Ndjson(SchemaRef),
}

impl Layout {
    /// The layout of a format (Parquet without one), whose columns text needs.
    /// Partition columns are not in the files.
    ///
    /// # Errors
    /// `WrongFormat`, permanent: another format, columns that are not declared,
    /// or a type that cannot be read back from CSV.
    pub fn of(
        format: Option<&str>,
        columns: &[ColumnInfo],
        partition_by: &[String],
    ) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::permanent("WrongFormat", message);
        let format = format.unwrap_or("parquet");
        if format == "parquet" {
            return Ok(Self::Parquet);
        }
        let own = columns.iter().filter(|c| !partition_by.contains(&c.name));
        let fields: Vec<Field> = own
            .map(|c| Field::new(&c.name, named_type(&c.kind), true))
            .collect();
        let hidden = fields.iter().find(|f| in_no_csv(f.data_type()));
        match (format, hidden) {
            ("csv" | "ndjson", _) if fields.is_empty() => Err(wrong(format!(
                "the outputs are {format}, and the event does not tell their columns in `detail.schema`"
            ))),
            ("csv", Some(field)) => Err(wrong(format!(
                "column `{}` of type {} cannot be read back from CSV; encode it in the SQL, or write Parquet",
                field.name(),
                field.data_type()
            ))),
            ("csv", None) => Ok(Self::Csv(Arc::new(Schema::new(fields)))),
            ("ndjson", _) => Ok(Self::Ndjson(Arc::new(Schema::new(fields)))),
            _ => Err(wrong(format!(
                "a load reads Parquet, CSV and NDJSON, the outputs are {format}"
            ))),
        }
    }

    /// The columns of a file.
    ///
    /// # Errors
    /// `OutputGone` when it is not there, `CorruptInput` when it is of no such format.
    pub fn schema(&self, place: &Place) -> Result<SchemaRef, Failure> {
        match self {
            Self::Parquet => Ok(Arc::clone(parquet(place, &open(place)?)?.schema())),
            Self::Csv(schema) => {
                header(place, &open(place)?, schema)?;
                Ok(Arc::clone(schema))
            }
            Self::Ndjson(schema) => Ok(Arc::clone(schema)),
        }
    }

    /// The rows of an open file, after the first `from`.
    ///
    /// # Errors
    /// `CorruptInput` when it is of no such format.
    pub fn rows(&self, place: &Place, blob: &Blob, from: usize) -> Result<Batches, Failure> {
        let bad = |e: ArrowError| unsound(place, blob, &e);
        let all: Batches = match self {
            Self::Parquet => {
                let file = parquet(place, blob)?.with_offset(from);
                return Ok(Box::new(file.build().map_err(|e| bad(e.into()))?));
            }
            Self::Csv(schema) => {
                let reader = arrow::csv::ReaderBuilder::new(Arc::clone(schema))
                    .with_header(true)
                    .with_batch_size(ROWS)
                    .build(blob.reader(0));
                Box::new(reader.map_err(bad)?)
            }
            Self::Ndjson(schema) => {
                let reader = arrow::json::ReaderBuilder::new(Arc::clone(schema))
                    .with_batch_size(ROWS)
                    .build(BufReader::new(blob.reader(0)));
                Box::new(reader.map_err(bad)?)
            }
        };
        let mut left = from;
        Ok(Box::new(all.filter_map(move |batch| {
            let Ok(batch) = batch else {
                return Some(batch);
            };
            let skipped = left.min(batch.num_rows());
            left -= skipped;
            let rest = batch.num_rows() - skipped;
            (rest > 0).then(|| Ok(batch.slice(skipped, rest)))
        })))
    }

    /// How many rows a file has, of which the publication tells `told`.
    ///
    /// # Errors
    /// As [`Layout::schema`].
    pub fn count(&self, place: &Place, told: u64) -> Result<usize, Failure> {
        let rows = match self {
            Self::Parquet => {
                let file = parquet(place, &open(place)?)?;
                u64::try_from(file.metadata().file_metadata().num_rows()).unwrap_or(told)
            }
            Self::Csv(_) | Self::Ndjson(_) => told,
        };
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }
}

fn in_no_csv(kind: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    kind.is_nested() || matches!(kind, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// Opens a file.
///
/// # Errors
/// `OutputGone` when it is not there.
pub fn open(place: &Place) -> Result<Blob, Failure> {
    place.open().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::permanent(
            "OutputGone",
            format!("{place} is gone: the lake's file was removed before it was loaded"),
        ),
        _ => unreadable(place, &e),
    })
}

fn parquet(place: &Place, blob: &Blob) -> Result<ParquetRecordBatchReaderBuilder<Blob>, Failure> {
    ParquetRecordBatchReaderBuilder::try_new(blob.clone()).map_err(|e| match blob.trouble() {
        Some(trouble) => unreadable(place, trouble),
        None => Failure::permanent(
            "CorruptInput",
            format!("{place} is not a sound Parquet file"),
        )
        .caused_by(&e),
    })
}

/// Looks at the names in the header: values go by their position.
fn header(place: &Place, blob: &Blob, schema: &Schema) -> Result<(), Failure> {
    let format = Format::default().with_header(true);
    let found = format.infer_schema(blob.reader(0), Some(0));
    let (found, _) = found.map_err(|e| unsound(place, blob, &e))?;
    let names = |schema: &Schema| -> Vec<String> {
        schema.fields().iter().map(|f| f.name().clone()).collect()
    };
    let (declared, found) = (names(schema), names(&found));
    if declared == found {
        return Ok(());
    }
    Err(Failure::permanent(
        "CorruptInput",
        format!(
            "the header of {place} is `{}`, and the columns are declared as `{}`",
            found.join(","),
            declared.join(",")
        ),
    ))
}

fn unreadable(place: &Place, e: &std::io::Error) -> Failure {
    Failure::transient("ReadFailed", format!("{place} cannot be read")).caused_by(e)
}

/// Why a file could not be read to its end.
#[must_use]
pub fn unsound(place: &Place, blob: &Blob, e: &ArrowError) -> Failure {
    if let Some(trouble) = blob.trouble() {
        return unreadable(place, trouble);
    }
    let message = format!("{place} cannot be read to its end");
    Failure::permanent("CorruptInput", message).caused_by(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: &str) -> ColumnInfo {
        ColumnInfo {
            name: name.to_owned(),
            kind: kind.to_owned(),
        }
    }

    #[test]
    fn text_needs_columns_that_it_can_hold() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
        let columns = [
            column("m", "bigint"),
            column("x", "Dictionary(Int32, Utf8)"),
            column("l", &list.to_string()),
        ];
        let by = ["m".to_owned()];
        let Ok(Layout::Ndjson(schema)) = Layout::of(Some("ndjson"), &columns, &by) else {
            panic!("no layout");
        };
        let kinds: Vec<_> = schema.fields().iter().map(|f| f.data_type()).collect();
        assert_eq!(kinds, [&DataType::Utf8, &list]);
        for (format, columns, said) in [
            (
                "csv",
                &columns[..],
                "column `l` of type List(Int64) cannot be read back from CSV",
            ),
            (
                "csv",
                &columns[..1],
                "the event does not tell their columns",
            ),
            ("avro", &columns[..], "the outputs are avro"),
        ] {
            let failure = Layout::of(Some(format), columns, &by).unwrap_err();
            assert_eq!(failure.code, "WrongFormat");
            assert!(failure.message.contains(said), "{failure:?}");
        }
    }
}
