//! Splits rows by the values of the partition columns.

use crate::handlers::Failure;
use arrow::array::{Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sha2::Digest as _;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

/// What readers of hive partitions take for null.
pub const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The values of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Folder, relative to the table's; empty without partition columns.
    pub folder: String,
    /// Values by column.
    pub values: BTreeMap<String, Option<String>>,
}

/// Assigns rows to partitions.
pub struct Splitter {
    by: Vec<usize>,
    rest: Vec<usize>,
    file_schema: SchemaRef,
    converter: Option<RowConverter>,
    known: HashMap<Box<[u8]>, usize>,
    partitions: Vec<Partition>,
}

impl Splitter {
    /// A splitter by the named columns.
    ///
    /// # Errors
    /// When a column is not there or cannot be partitioned by.
    pub fn new(schema: &Schema, partition_by: &[String]) -> Result<Self, Failure> {
        let bad = |e: &dyn std::error::Error| {
            Failure::permanent(
                "BadPartition",
                "the result cannot be partitioned as declared",
            )
            .caused_by(e)
        };
        let by: Vec<usize> = partition_by
            .iter()
            .map(|name| schema.index_of(name).map_err(|e| bad(&e)))
            .collect::<Result<_, _>>()?;
        let rest: Vec<usize> = (0..schema.fields().len())
            .filter(|i| !by.contains(i))
            .collect();
        let file_schema = Arc::new(schema.project(&rest).map_err(|e| bad(&e))?);
        let fields = by
            .iter()
            .map(|i| SortField::new(schema.field(*i).data_type().clone()));
        let converter = match by.is_empty() {
            true => None,
            false => Some(RowConverter::new(fields.collect()).map_err(|e| bad(&e))?),
        };
        let partitions = match by.is_empty() {
            true => vec![Partition::default()],
            false => Vec::new(),
        };
        Ok(Self {
            by,
            rest,
            file_schema,
            converter,
            known: HashMap::new(),
            partitions,
        })
    }

    /// The columns that go into files.
    #[must_use]
    pub fn file_schema(&self) -> SchemaRef {
        Arc::clone(&self.file_schema)
    }

    /// A partition's values.
    #[must_use]
    pub fn partition(&self, index: usize) -> &Partition {
        &self.partitions[index]
    }

    /// The rows of each partition, without the partition columns, in their order.
    ///
    /// # Errors
    /// When values cannot be compared or written as text.
    pub fn split(&mut self, chunk: Vec<RecordBatch>) -> Result<Vec<(usize, RecordBatch)>, Failure> {
        if self.by.is_empty() {
            return Ok(chunk.into_iter().map(|batch| (0, batch)).collect());
        }
        self.by_value(&chunk).map_err(|e| {
            Failure::permanent("BadPartition", "the rows cannot be partitioned").caused_by(&e)
        })
    }

    fn by_value(
        &mut self,
        chunk: &[RecordBatch],
    ) -> Result<Vec<(usize, RecordBatch)>, arrow::error::ArrowError> {
        let mut rows_of: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.partitions.len()];
        let mut total = 0;
        for (number, batch) in chunk.iter().enumerate() {
            total += batch.num_rows();
            self.assign(number, batch, &mut rows_of)?;
        }
        let bare: Vec<RecordBatch> = chunk
            .iter()
            .map(|b| b.project(&self.rest))
            .collect::<Result<_, _>>()?;
        let refs: Vec<&RecordBatch> = bare.iter().collect();
        let mut out = Vec::new();
        for (partition, rows) in rows_of.into_iter().enumerate() {
            match rows.len() {
                0 => {}
                // All rows are of one partition: nothing to copy.
                n if n == total => out.extend(bare.iter().map(|b| (partition, b.clone()))),
                _ => out.push((partition, interleave_record_batch(&refs, &rows)?)),
            }
        }
        Ok(out)
    }

    fn assign(
        &mut self,
        number: usize,
        batch: &RecordBatch,
        rows_of: &mut Vec<Vec<(usize, usize)>>,
    ) -> Result<(), arrow::error::ArrowError> {
        let Some(converter) = &self.converter else {
            return Ok(());
        };
        let keys: Vec<_> = self
            .by
            .iter()
            .map(|i| Arc::clone(batch.column(*i)))
            .collect();
        let rows = converter.convert_columns(&keys)?;
        let mut last: Option<(usize, usize)> = None;
        for row in 0..batch.num_rows() {
            let key = rows.row(row);
            let key: &[u8] = key.as_ref();
            let same = last.filter(|(before, _)| rows.row(*before).as_ref() == key);
            let partition = match same
                .map(|(_, p)| p)
                .or_else(|| self.known.get(key).copied())
            {
                Some(partition) => partition,
                None => {
                    let made = self.describe(batch, row)?;
                    self.partitions.push(made);
                    rows_of.push(Vec::new());
                    self.known.insert(key.into(), self.partitions.len() - 1);
                    self.partitions.len() - 1
                }
            };
            last = Some((row, partition));
            rows_of[partition].push((number, row));
        }
        Ok(())
    }

    fn describe(
        &self,
        batch: &RecordBatch,
        row: usize,
    ) -> Result<Partition, arrow::error::ArrowError> {
        let schema = batch.schema();
        let mut partition = Partition::default();
        for column in &self.by {
            let (name, array) = (schema.field(*column).name(), batch.column(*column));
            let value = match array.is_null(row) || array.data_type() == &DataType::Null {
                true => None,
                false => {
                    let options = FormatOptions::default();
                    Some(
                        ArrayFormatter::try_new(array.as_ref(), &options)?
                            .value(row)
                            .to_string(),
                    )
                }
            };
            if !partition.folder.is_empty() {
                partition.folder.push('/');
            }
            encode(name, &mut partition.folder);
            partition.folder.push('=');
            match &value {
                None => partition.folder.push_str(NULL),
                Some(text) => partition.folder.push_str(&named(text)),
            }
            partition.values.insert(name.clone(), value);
        }
        Ok(partition)
    }
}

/// A value as a folder's name. One that is too long for a name is cut and told
/// apart by a hash; its whole text is in the manifest.
fn named(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut name = String::new();
    encode(text, &mut name);
    if name.len() > LONGEST {
        let hash = sha2::Sha256::digest(text.as_bytes());
        name.truncate(LONGEST);
        name.push('~');
        name.extend(hash.iter().take(8).map(|b| format!("{b:02x}")));
    }
    name
}

/// Writes a text so that it is one harmless part of a path.
fn encode(text: &str, out: &mut String) {
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b' ' | b'+' | b',' | b'@' => {
                out.push(char::from(b))
            }
            // A dot is harmless, unless the whole part is dots; `=` ends the name.
            b'.' if !text.bytes().all(|b| b == b'.') => out.push('.'),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{b:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Field;

    #[test]
    fn rows_go_to_the_folder_of_their_values() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("c", DataType::Utf8, true),
        ]));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
                Arc::new(StringArray::from(vec![
                    Some("a/b"),
                    None,
                    Some("a/b"),
                    Some(""),
                ])),
            ],
        )
        .unwrap();
        let mut splitter = Splitter::new(&schema, &["c".to_owned()]).unwrap();
        let parts = splitter.split(vec![batch]).unwrap();
        let shown: Vec<(String, usize)> = parts
            .iter()
            .map(|(p, rows)| (splitter.partition(*p).folder.clone(), rows.num_rows()))
            .collect();
        let null = format!("c={NULL}");
        assert_eq!(
            shown,
            [("c=a%2Fb".to_owned(), 2), (null, 1), ("c=".to_owned(), 1)]
        );
        assert_eq!(splitter.file_schema().fields().len(), 1);
    }

    #[test]
    fn values_cannot_leave_the_folder() {
        let mut out = String::new();
        encode("../..", &mut out);
        assert_eq!(out, "..%2F..");
        out.clear();
        encode("..", &mut out);
        assert_eq!(out, "%2E%2E");
    }
}
