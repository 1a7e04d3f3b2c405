//! Answers as text: a table for people, CSV and JSON lines for programs.

use super::{Answer, QueryError};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::io::{self, Write};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Aligned columns, for people.
    Table,
    /// CSV with a header.
    Csv,
    /// A JSON object a line.
    Json,
    /// A Parquet file, compressed with zstd.
    Parquet,
}

/// Rows of a table that are looked at to find the columns' widths.
const MEASURED: usize = 1_000;
/// The widest a column of a table gets.
const WIDEST: usize = 60;

/// Writes answers.
pub struct Output<W: Write> {
    style: Style,
    to: W,
    schema: SchemaRef,
    widths: Option<Vec<usize>>,
    waiting: Vec<Vec<Cell>>,
    /// Rows written.
    pub rows: u64,
    header: bool,
    parquet: Option<ArrowWriter<Vec<u8>>>,
}

struct Cell {
    text: String,
    right: bool,
}

impl<W: Write> Output<W> {
    /// A writer of rows with the columns of `schema`.
    pub fn new(style: Style, schema: SchemaRef, to: W) -> Self {
        Self {
            style,
            to,
            schema,
            widths: None,
            waiting: Vec::new(),
            rows: 0,
            header: true,
            parquet: None,
        }
    }

    /// Writes a whole answer; returns its number of rows.
    ///
    /// # Errors
    /// When the query fails on the way, or the rows cannot be written.
    pub async fn all(mut self, answer: Answer) -> Result<u64, QueryError> {
        let mut rows = answer.rows;
        while let Some(batch) = rows.next().await {
            self.batch(&batch?)?;
        }
        self.finish()?;
        Ok(self.rows)
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<(), DataFusionError> {
        self.rows += batch.num_rows() as u64;
        match self.style {
            Style::Csv => self.csv(batch)?,
            Style::Json => {
                let mut writer = arrow::json::LineDelimitedWriter::new(&mut self.to);
                writer.write(batch)?;
                writer.finish()?;
            }
            Style::Parquet => self.file()?.write(batch)?,
            Style::Table => {
                self.waiting.append(&mut cells(batch)?);
                if self.widths.is_some() || self.waiting.len() >= MEASURED {
                    self.flush_table()?;
                }
            }
        }
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&mut self) -> Result<(), DataFusionError> {
        match self.style {
            Style::Table => self.flush_table()?,
            Style::Csv if self.header => {
                let empty = RecordBatch::new_empty(self.schema.clone());
                self.csv(&empty)?;
            }
            Style::Parquet => {
                self.file()?;
                if let Some(file) = self.parquet.take() {
                    self.to.write_all(&file.into_inner()?)?;
                }
            }
            Style::Csv | Style::Json => {}
        }
        self.to.flush()?;
        Ok(())
    }

    fn file(&mut self) -> Result<&mut ArrowWriter<Vec<u8>>, ParquetError> {
        if self.parquet.is_none() {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .build();
            let schema = self.schema.clone();
            self.parquet = Some(ArrowWriter::try_new(Vec::new(), schema, Some(properties))?);
        }
        let none = || ParquetError::General("no file was begun".to_owned());
        self.parquet.as_mut().ok_or_else(none)
    }

    fn csv(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let header = std::mem::take(&mut self.header);
        let mut writer = arrow::csv::WriterBuilder::new()
            .with_header(header)
            .build(&mut self.to);
        writer.write(batch)
    }

    fn flush_table(&mut self) -> io::Result<()> {
        let names: Vec<String> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        let rows = std::mem::take(&mut self.waiting);
        let first = self.widths.is_none();
        let widths = self.widths.get_or_insert_with(|| {
            let width = |i: usize| rows.iter().map(|r| length(&r[i].text)).max().unwrap_or(0);
            names
                .iter()
                .enumerate()
                .map(|(i, n)| length(n).max(width(i)).min(WIDEST))
                .collect()
        });
        if first {
            let heads = names.iter().map(|n| Cell {
                text: n.clone(),
                right: false,
            });
            line(&mut self.to, &heads.collect::<Vec<_>>(), widths)?;
            let rules: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
            writeln!(self.to, "{}", rules.join("  "))?;
        }
        rows.iter()
            .try_for_each(|row| line(&mut self.to, row, widths))
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<Cell>>, ArrowError> {
    let options = FormatOptions::default()
        .with_null("")
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.fZ"));
    let columns: Vec<(ArrayFormatter<'_>, bool)> = batch
        .columns()
        .iter()
        .map(|c| {
            Ok((
                ArrayFormatter::try_new(c.as_ref(), &options)?,
                c.data_type().is_numeric(),
            ))
        })
        .collect::<Result<_, ArrowError>>()?;
    let row = |row: usize| {
        let cell = |(f, right): &(ArrayFormatter<'_>, bool)| Cell {
            text: one_line(&f.value(row).to_string()),
            right: *right,
        };
        columns.iter().map(cell).collect()
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

/// A text that cannot disturb the table or the terminal.
fn one_line(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match shown.char_indices().nth(WIDEST) {
        None => shown,
        Some(_) => shown.chars().take(WIDEST - 1).chain(['…']).collect(),
    }
}

fn line(to: &mut impl Write, cells: &[Cell], widths: &[usize]) -> io::Result<()> {
    let mut text = String::new();
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if i > 0 {
            text.push_str("  ");
        }
        let pad = " ".repeat(width.saturating_sub(length(&cell.text)));
        match cell.right {
            true => text.extend([pad.as_str(), &cell.text]),
            false => text.extend([cell.text.as_str(), &pad]),
        }
    }
    writeln!(to, "{}", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn written(style: Style) -> String {
        let schema = Arc::new(Schema::new(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("Zoë\n"), None])),
            Arc::new(Int64Array::from(vec![1, 200])),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut text = Vec::new();
        let mut output = Output::new(style, schema, &mut text);
        output.batch(&batch).unwrap();
        output.finish().unwrap();
        drop(output);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn rows_are_written_for_people_and_programs() {
        assert_eq!(
            written(Style::Table),
            "name  n\n----  ---\nZoë     1\n      200\n"
        );
        assert_eq!(written(Style::Csv), "name,n\n\"Zoë\n\",1\n,200\n");
        assert_eq!(
            written(Style::Json),
            "{\"name\":\"Zoë\\n\",\"n\":1}\n{\"n\":200}\n"
        );
    }
}
