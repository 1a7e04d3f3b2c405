//! CSV: a header, then records, each checked and typed on its way into columns.

use super::blocks::{Next, Records, TextReader, too_long};
use super::layout::Layout;
use super::lines::{Found, Lines, Span};
use super::open::{Content, looks_binary, mostly_binary};
use super::rescue::Rescued;
use super::split::{Field, Splitter, Step};
use super::{Expected, Started, layout};
use crate::handlers::Failure;
use crate::handlers::transform::batch::{Broken, Feed, Place, absent, recycle};
use crate::handlers::transform::cell::{self, Cell, NotDecimal};
use crate::handlers::transform::check::{Violation, shorten};
use crate::handlers::transform::options::{Ragged, ReadOptions};
use crate::handlers::transform::schema::{Column, Kind, RecordSchema};
use std::borrow::Cow;
use std::sync::Arc;

/// The longest record that goes over several lines.
const MAX_QUOTED: usize = 16 << 20;

/// What all threads know that read a file.
struct Shape {
    schema: Arc<RecordSchema>,
    null: Vec<String>,
    dialect: Dialect,
    /// Names of the file's columns, where it has some.
    names: Vec<String>,
    /// Per field of the file, the column that takes it.
    to: Vec<Option<usize>>,
}

struct CsvRecords {
    shape: Arc<Shape>,
    splitter: Splitter,
    cells: Vec<Cell<'static>>,
}

/// What makes a record, besides delimiters and quotes.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    comment: Option<u8>,
    fill: bool,
}

impl Dialect {
    /// The dialect of some options.
    pub fn of(options: &ReadOptions) -> Self {
        Self {
            comment: options.comment,
            fill: options.ragged == Ragged::Fill,
        }
    }

    /// Whether a line is no record: blank, or a comment.
    #[inline]
    pub fn passes_over(self, line: &[u8]) -> bool {
        match line.first() {
            None => true,
            first => self.comment.is_some() && first == self.comment.as_ref(),
        }
    }
}

/// Starts to read CSV.
///
/// # Errors
/// `NotCsv` for what is no text, `SchemaMismatch` for a header that does not fit.
pub fn start(
    content: Content,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<Started, Failure> {
    let mut lines = Lines::new(content)?;
    refuse_binary(&mut lines, options.header)?;
    let (records, layout) = records(&mut lines, options, expected)?;
    let schema = layout.schema;
    Ok(Started {
        reader: Box::new(TextReader::new(lines, records, Arc::clone(&schema))),
        arrow: Arc::clone(schema.arrow()),
        schema,
        ignored: layout.ignored,
        changes: layout.changes,
    })
}

/// Finds the columns; the lines then start with the first record.
pub(super) fn records(
    lines: &mut Lines,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<(Box<dyn Records>, Layout), Failure> {
    let mut splitter = Splitter::new(options.delimiter, options.quote, options.escape);
    let layout = layout::find(lines, &mut splitter, options, expected)?;
    let shape = Shape {
        schema: Arc::clone(&layout.schema),
        null: options.null.clone(),
        dialect: Dialect::of(options),
        names: layout.names.clone(),
        to: layout.to.clone(),
    };
    let records = CsvRecords {
        shape: Arc::new(shape),
        splitter,
        cells: Vec::new(),
    };
    Ok((Box::new(records), layout))
}

/// Something that is no text at all is refused whole, before its bytes make rejects.
fn refuse_binary(lines: &mut Lines, header: bool) -> Result<(), Failure> {
    let head = lines.peek(64 << 10)?;
    let head = &head[..head.len().min(64 << 10)];
    let what = match head {
        head if header && looks_binary(head) => "its first line is no text in UTF-8",
        head if !header && mostly_binary(head) => "it is no text",
        _ => return Ok(()),
    };
    Err(Failure::permanent(
        "NotCsv",
        format!(
            "`{}` is no CSV: {what}; `read.encoding` names another encoding",
            lines.key()
        ),
    ))
}

/// Splits the record at the window's start (after blank lines) and tells its
/// span and how many lines it has; `None` at the end, or if it is broken.
pub fn record(
    lines: &mut Lines,
    splitter: &mut Splitter,
    dialect: Dialect,
) -> Result<Option<(Span, u64)>, Failure> {
    loop {
        let Found::Line(span) = lines.find(0)? else {
            return Ok(None);
        };
        if dialect.passes_over(lines.text(span.end)) {
            lines.consume(span.next, 1);
            continue;
        }
        return Ok(match splitter.split(lines.text(span.end)) {
            Step::Done => Some((span, 1)),
            Step::Open => match extend(lines, splitter, span, None)? {
                Extended::Whole(span, count) => Some((span, count)),
                Extended::Broken | Extended::Cut => None,
            },
            Step::TextAfterQuote => None,
        });
    }
}

/// What became of a record whose quoted field is open at its line's end.
enum Extended {
    /// It ends here, after so many lines.
    Whole(Span, u64),
    /// No further lines make a flawless record of it.
    Broken,
    /// The block ends before that is known.
    Cut,
}

/// Lets an open quoted field go on over further lines, if that makes a
/// flawless record.
fn extend(
    lines: &mut Lines,
    splitter: &mut Splitter,
    first: Span,
    expected: Option<usize>,
) -> Result<Extended, Failure> {
    let (mut span, mut count) = (first, 1);
    while span.end < MAX_QUOTED && !splitter.stray_quote {
        let searched = lines.text(span.end).len();
        span = match lines.find(span.next)? {
            Found::Line(next) => next,
            Found::End if lines.goes_on() => return Ok(Extended::Cut),
            Found::TooLong | Found::End => return Ok(Extended::Broken),
        };
        count += 1;
        match splitter.resume(lines.text(span.end), searched) {
            Step::Open => {}
            Step::TextAfterQuote => return Ok(Extended::Broken),
            Step::Done => {
                let fits = expected.is_none_or(|n| n == splitter.fields.len());
                return Ok(match fits && !splitter.stray_quote {
                    true => Extended::Whole(span, count),
                    false => Extended::Broken,
                });
            }
        }
    }
    Ok(Extended::Broken)
}

impl Records for CsvRecords {
    fn one(&mut self, lines: &mut Lines, feed: &mut Feed<'_>) -> Result<Next, Failure> {
        let place = Place {
            line: lines.line,
            offset: lines.offset,
        };
        let first = match lines.find(0)? {
            Found::End => return Ok(Next::End),
            Found::Line(span) => span,
            Found::TooLong => {
                too_long(feed, place, lines.window())?;
                lines.skip_line()?;
                return Ok(Next::Record);
            }
        };
        let text = lines.text(first.end);
        if self.shape.dialect.passes_over(text) {
            lines.consume(first.next, 1);
            return Ok(Next::Record);
        }
        let (span, count, fault) = match self.splitter.split(text) {
            Step::Done => (first, 1, None),
            Step::TextAfterQuote => (
                first,
                1,
                Some(Broken::record(
                    "TextAfterQuote",
                    "text follows a closing quote; a quote inside a field must be doubled",
                )),
            ),
            Step::Open => {
                let expected = Some(self.shape.to.len());
                match extend(lines, &mut self.splitter, first, expected)? {
                    Extended::Whole(span, count) => (span, count, None),
                    Extended::Cut => return Ok(Next::Cut),
                    Extended::Broken => (
                        first,
                        1,
                        Some(Broken::record(
                            "OpenQuote",
                            "a quote is opened and never closed in a way that makes a record",
                        )),
                    ),
                }
            }
        };
        let raw = lines.text(span.end);
        let mut cells = recycle(std::mem::take(&mut self.cells));
        let result = match fault {
            Some(broken) => Err(broken),
            None => self.shape.cells(&self.splitter, raw, &mut cells),
        };
        feed.record(result.map(|()| cells.as_slice()), place, raw)?;
        self.cells = recycle(cells);
        lines.consume(span.next, count);
        Ok(Next::Record)
    }

    fn again(&self) -> Box<dyn Records> {
        Box::new(Self {
            shape: Arc::clone(&self.shape),
            splitter: self.splitter.again(),
            cells: Vec::new(),
        })
    }

    fn quote(&self) -> Option<u8> {
        Some(self.splitter.quote())
    }
}

impl Shape {
    /// Parses and checks the fields.
    fn cells<'a>(
        &self,
        splitter: &Splitter,
        raw: &'a [u8],
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), Broken> {
        let (found, expected) = (splitter.fields.len(), self.to.len());
        let surplus = || splitter.fields.iter().skip(expected).all(Field::is_empty);
        let fills = self.dialect.fill && (found < expected || surplus());
        if found != expected && !fills {
            let code = if found < expected {
                "TooFewFields"
            } else {
                "TooManyFields"
            };
            return Err(Broken::record(
                code,
                format!("{found} fields, {expected} are expected"),
            ));
        }
        let text = std::str::from_utf8(raw).map_err(|e| {
            let at = e.valid_up_to();
            Broken::record(
                "InvalidUtf8",
                format!("byte {at} of the record is not UTF-8"),
            )
        })?;
        cells.resize(self.schema.columns.len(), Cell::Null);
        let mut rescued = Rescued::default();
        for (at, (field, to)) in splitter.fields.iter().zip(&self.to).enumerate() {
            let value = splitter.value(text, *field);
            let Some(to) = *to else {
                rescued.put(&self.schema, self.names.get(at), &value);
                continue;
            };
            let column = &self.schema.columns[to];
            let spare = self.schema.rescue.map(|_| value.clone());
            if let Err(violation) = self.cell(column, value, *field, &mut cells[to]) {
                if !rescued.takes(&self.schema, column, &violation) {
                    return Err(Broken::column(column, violation));
                }
                cells[to] = Cell::Null;
                let text = spare.unwrap_or_default();
                rescued.put(&self.schema, Some(&column.name), &text);
            }
        }
        for to in self.to.iter().skip(found).flatten() {
            let column = &self.schema.columns[*to];
            absent(column).map_err(|violation| Broken::column(column, violation))?;
        }
        rescued.finish(&self.schema, cells);
        Ok(())
    }

    /// A field's value: empty and the null markers are null, except that quoted
    /// text is always text.
    #[inline]
    fn cell<'a>(
        &self,
        column: &Column,
        text: Cow<'a, str>,
        field: Field,
        out: &mut Cell<'a>,
    ) -> Result<(), Violation> {
        let is_text = column.kind == Kind::Text;
        let null = text.is_empty() || self.null.iter().any(|n| **n == *text);
        let is_empty_text = is_text && !column.nullable() && text.is_empty();
        if null && !(field.quoted && is_text) && !is_empty_text {
            *out = absent(column)?;
            return Ok(());
        }
        typed_into(column, text, out)
    }
}

/// A text as a value of the column's type, checked.
///
/// # Errors
/// Says what is wrong with it.
pub fn typed<'a>(column: &Column, text: Cow<'a, str>) -> Result<Cell<'a>, Violation> {
    let mut cell = Cell::Null;
    typed_into(column, text, &mut cell).map(|()| cell)
}

/// Puts a text into `out` as a value of the column's type, checked.
#[inline]
fn typed_into<'a>(
    column: &Column,
    text: Cow<'a, str>,
    out: &mut Cell<'a>,
) -> Result<(), Violation> {
    let parsed = match column.kind {
        Kind::Text => Some(Cell::Text(text)),
        Kind::Int => cell::int(&text)
            .map(Cell::Int)
            .or_else(|| wrong(&text, out)),
        Kind::Float => cell::float(&text)
            .map(Cell::Float)
            .or_else(|| wrong(&text, out)),
        Kind::Bool => cell::boolean(&text)
            .map(Cell::Bool)
            .or_else(|| wrong(&text, out)),
        Kind::Timestamp => cell::timestamp(&text)
            .map(Cell::Int)
            .or_else(|| wrong(&text, out)),
        Kind::Date => cell::date(&text)
            .map(Cell::Int)
            .or_else(|| wrong(&text, out)),
        Kind::Decimal { precision, scale } => Some(Cell::Decimal(exact(&text, precision, scale)?)),
        Kind::Json => match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
            Ok(_) => Some(Cell::Text(text)),
            Err(_) => wrong(&text, out),
        },
    };
    match parsed {
        Some(cell) => *out = cell,
        None => return Err(wrong_type(column, out)),
    }
    column.check.test(out, column.kind)
}

/// Keeps a text that is of the wrong type, for the message.
#[cold]
fn wrong<'a>(text: &str, out: &mut Cell<'_>) -> Option<Cell<'a>> {
    *out = Cell::Text(Cow::Owned(shorten(text)));
    None
}

#[cold]
fn wrong_type(column: &Column, cell: &Cell<'_>) -> Violation {
    let text = match cell {
        Cell::Text(text) => text,
        _ => "",
    };
    Violation::new(
        "WrongType",
        format!("`{text}` is not {}", column.kind.expected()),
    )
}

/// A decimal that fits as it is.
///
/// # Errors
/// When rounding would change it, or it is no number.
pub fn exact(text: &str, precision: u8, scale: i8) -> Result<i128, Violation> {
    cell::decimal(text, precision, scale).map_err(|e| match e {
        NotDecimal::NotANumber => Violation::new(
            "WrongType",
            format!("`{}` is not a decimal number", shorten(text)),
        ),
        NotDecimal::TooPrecise => Violation::new(
            "WouldRound",
            format!(
                "`{}` has more than {scale} digits after the point",
                shorten(text)
            ),
        ),
        NotDecimal::TooLarge => Violation::new(
            "OutOfRange",
            format!("`{}` has more than {precision} digits", shorten(text)),
        ),
    })
}
