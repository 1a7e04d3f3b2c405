//! Records become columns: a record goes in whole or is set aside whole.

use super::cell::Cell;
use super::check::{Violation, shorten};
use super::rejects::{Kept, Reject, RejectSink};
use super::schema::{Column, Kind, RecordSchema, as_json};
use crate::handlers::Failure;
use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder,
    RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most rows of a batch.
pub const BATCH_ROWS: usize = 8192;
/// A batch is closed when its values have about this many bytes.
pub const BATCH_BYTES: usize = 4 << 20;

/// Takes records in, gives batches and rejects out.
pub struct Feed<'r> {
    /// What the records must look like.
    pub schema: Arc<RecordSchema>,
    /// Records seen, good and bad.
    pub records: u64,
    /// Members or columns that none is declared for, and how often they were seen.
    pub ignored: BTreeMap<String, u64>,
    /// The member of an archive that is being read.
    pub member: Option<String>,
    rejects: &'r mut dyn RejectSink,
    /// A batch that came ready-made.
    made: Option<RecordBatch>,
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

/// What was found in a part of an object, besides its good records.
#[derive(Debug, Default)]
pub struct Part {
    /// Records seen, good and bad.
    pub records: u64,
    /// Members that no column is declared for.
    pub ignored: BTreeMap<String, u64>,
    /// The bad records; their places are counted from the part's start.
    pub rejects: Vec<Kept>,
}

/// Where a record lies in its object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Line on which it starts, from 1; 0 where the format has no lines.
    pub line: u64,
    /// Its first byte, after decompression and decoding.
    pub offset: u64,
}

/// A record that is not taken: which column, if one, and why.
#[derive(Debug)]
pub struct Broken {
    /// The column concerned.
    pub column: Option<String>,
    /// What is wrong.
    pub violation: Violation,
}

impl Broken {
    /// The record as a whole is broken.
    #[inline]
    pub fn record(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            column: None,
            violation: Violation::new(code, message),
        }
    }

    /// One column's value is broken.
    #[must_use]
    pub fn column(column: &Column, violation: Violation) -> Self {
        Self {
            column: Some(column.name.clone()),
            violation,
        }
    }
}

impl<'r> Feed<'r> {
    /// An empty feed.
    pub fn new(schema: Arc<RecordSchema>, rejects: &'r mut dyn RejectSink) -> Self {
        Self {
            builders: builders(&schema),
            schema,
            records: 0,
            ignored: BTreeMap::new(),
            member: None,
            rejects,
            made: None,
            rows: 0,
            bytes: 0,
        }
    }

    /// Whether a batch is ready to be taken.
    #[must_use]
    #[inline]
    pub fn full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES || self.made.is_some()
    }

    /// Takes a checked batch as it is.
    pub fn pass(&mut self, batch: RecordBatch) {
        self.made = Some(batch);
    }

    /// Adds what was found in a part of the object that lies behind so many lines
    /// and bytes of it.
    ///
    /// # Errors
    /// When rejects cannot be written, or there are too many of them.
    pub fn add(&mut self, part: Part, lines: u64, bytes: u64) -> Result<(), Failure> {
        let before = self.records;
        self.records += part.records;
        for (name, count) in part.ignored {
            count_ignored(&mut self.ignored, name.into(), count);
        }
        for reject in &part.rejects {
            let member = self.member.as_deref();
            self.rejects
                .put(&reject.behind(member, lines, before, bytes))?;
        }
        Ok(())
    }

    /// Sets a record aside that is already counted among the records.
    ///
    /// # Errors
    /// When rejects cannot be written, or there are too many of them.
    pub fn aside(&mut self, broken: &Broken, record: u64, raw: &[u8]) -> Result<(), Failure> {
        self.put(broken, record, Place::default(), raw)
    }

    /// Takes a record's cells in, or sets the record aside.
    ///
    /// # Errors
    /// When rejects cannot be written, or there are too many of them.
    pub fn record(
        &mut self,
        cells: Result<&[Cell<'_>], Broken>,
        place: Place,
        raw: &[u8],
    ) -> Result<(), Failure> {
        self.records += 1;
        let cells = match cells.and_then(|cells| check_whole(&self.schema, cells).map(|()| cells)) {
            Ok(cells) => cells,
            Err(broken) => return self.reject(&broken, place, raw),
        };
        for (cell, builder) in cells.iter().zip(&mut self.builders) {
            self.bytes += builder.push(cell);
        }
        self.rows += 1;
        Ok(())
    }

    fn reject(&mut self, broken: &Broken, place: Place, raw: &[u8]) -> Result<(), Failure> {
        self.put(broken, self.records, place, raw)
    }

    fn put(
        &mut self,
        broken: &Broken,
        record: u64,
        place: Place,
        raw: &[u8],
    ) -> Result<(), Failure> {
        self.rejects.put(&Reject {
            member: self.member.as_deref(),
            line: place.line,
            record,
            offset: place.offset,
            column: broken.column.as_deref(),
            code: broken.violation.code,
            message: &broken.violation.message,
            raw,
        })
    }

    /// The rows so far as a batch; `None` if there are none.
    ///
    /// # Errors
    /// When the columns do not make a batch, which would be a bug here.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, Failure> {
        if let Some(made) = self.made.take() {
            return Ok(Some(made));
        }
        if self.rows == 0 {
            return Ok(None);
        }
        let fresh = builders(&self.schema);
        let columns: Vec<ArrayRef> = std::mem::replace(&mut self.builders, fresh)
            .into_iter()
            .map(Builder::finish)
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new_with_options(Arc::clone(self.schema.arrow()), columns, &options)
            .map(Some)
            .map_err(|e| {
                Failure::permanent("Internal", "the records do not fit their columns").caused_by(&e)
            })
    }
}

/// Most members without a column that are told by name.
const MOST_IGNORED: usize = 1_000;

/// Counts a member that no column is declared for. A record can name its members
/// as it likes: only so many are listed.
pub fn count_ignored(ignored: &mut BTreeMap<String, u64>, name: Cow<'_, str>, count: u64) {
    let room = ignored.len() < MOST_IGNORED;
    match ignored.get_mut(&*name) {
        Some(known) => *known += count,
        None if room => drop(ignored.insert(name.into_owned(), count)),
        None => {}
    }
}

/// What only the whole record can break.
///
/// # Errors
/// Says what is broken.
#[inline]
pub fn check_whole(schema: &RecordSchema, cells: &[Cell<'_>]) -> Result<(), Broken> {
    let Some(validator) = &schema.whole else {
        return Ok(());
    };
    let value = as_json(&schema.columns, cells);
    validator.validate(&value).map_err(|e| {
        let path = e.instance_path().to_string();
        Broken {
            column: path.strip_prefix('/').map(str::to_owned),
            violation: Violation::new("SchemaViolation", shorten(&e.to_string())),
        }
    })
}

/// A column's null, if it may have one.
///
/// # Errors
/// When a value is needed.
pub fn absent(column: &Column) -> Result<Cell<'static>, Violation> {
    match column.nullable() {
        true => Ok(Cell::Null),
        false => Err(Violation::new(
            "Missing",
            format!("a value is needed, {}", column.kind.expected()),
        )),
    }
}

/// Empties a list of cells and keeps its memory for the next record.
#[must_use]
pub fn recycle<'b>(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'b>> {
    cells.clear();
    // Collecting an emptied list in place reuses its allocation.
    cells.into_iter().map(|_| Cell::Null).collect()
}

/// Builds a column's array.
pub enum Builder {
    /// Text, or the text of JSON.
    Text(StringBuilder),
    /// Integers.
    Int(Int64Builder),
    /// Doubles.
    Float(Float64Builder),
    /// Decimals.
    Decimal(Decimal128Builder),
    /// Booleans.
    Bool(BooleanBuilder),
    /// Times.
    Timestamp(TimestampMicrosecondBuilder),
    /// Days.
    Date(Date32Builder),
}

/// Builders sized so that thousands of columns do not reserve what few rows need.
fn builders(schema: &RecordSchema) -> Vec<Builder> {
    let rows = (BATCH_BYTES / 16 / schema.columns.len().max(1)).clamp(1, BATCH_ROWS);
    schema
        .columns
        .iter()
        .map(|column| Builder::of(column, rows))
        .collect()
}

impl Builder {
    /// A builder for a column, with room for some rows.
    #[must_use]
    pub fn of(column: &Column, rows: usize) -> Self {
        let kind = column.kind.arrow();
        match column.kind {
            Kind::Text | Kind::Json => Self::Text(StringBuilder::with_capacity(rows, rows * 8)),
            Kind::Int => Self::Int(Int64Builder::with_capacity(rows)),
            Kind::Float => Self::Float(Float64Builder::with_capacity(rows)),
            Kind::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(kind))
            }
            Kind::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Kind::Timestamp => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(kind),
            ),
            Kind::Date => Self::Date(Date32Builder::with_capacity(rows)),
        }
    }

    /// Appends a cell and tells about how many bytes it takes. A cell of
    /// another type cannot come here: it was parsed for this column.
    #[inline]
    pub fn push(&mut self, cell: &Cell<'_>) -> usize {
        match (self, cell) {
            (Self::Text(b), Cell::Text(text)) => {
                b.append_value(text);
                return text.len() + 4;
            }
            (Self::Int(b), Cell::Int(n)) => b.append_value(*n),
            (Self::Float(b), Cell::Float(x)) => b.append_value(*x),
            (Self::Decimal(b), Cell::Decimal(n)) => b.append_value(*n),
            (Self::Bool(b), Cell::Bool(v)) => b.append_value(*v),
            (Self::Timestamp(b), Cell::Int(n)) => b.append_value(*n),
            (Self::Date(b), Cell::Int(n)) => b.append_option(i32::try_from(*n).ok()),
            (Self::Text(b), _) => b.append_null(),
            (Self::Int(b), _) => b.append_null(),
            (Self::Float(b), _) => b.append_null(),
            (Self::Decimal(b), _) => b.append_null(),
            (Self::Bool(b), _) => b.append_null(),
            (Self::Timestamp(b), _) => b.append_null(),
            (Self::Date(b), _) => b.append_null(),
        }
        8
    }

    /// The array.
    #[must_use]
    pub fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Int(mut b) => Arc::new(b.finish()),
            Self::Float(mut b) => Arc::new(b.finish()),
            Self::Decimal(mut b) => Arc::new(b.finish()),
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Timestamp(mut b) => Arc::new(b.finish()),
            Self::Date(mut b) => Arc::new(b.finish()),
        }
    }
}
