//! JSON records: one object a line (NDJSON), or one array of objects, read
//! element by element. Numbers keep their spelling until they are typed, so
//! that decimals stay exact.

use super::blocks::{self, Next, TextReader, too_long};
use super::csv::typed;
use super::lines::{Found, Lines, MAX_RECORD};
use super::object::members;
use super::open::{Content, looks_binary, mostly_binary};
use super::rescue::Rescued;
use super::scan::Scan;
use super::{Expected, Reader, Started};
use crate::handlers::Failure;
use crate::handlers::transform::batch::{Broken, Feed, Place, count_ignored, recycle};
use crate::handlers::transform::cell::{self, Cell};
use crate::handlers::transform::check::{Violation, shorten};
use crate::handlers::transform::drift::{self, Changes};
use crate::handlers::transform::inferred;
use crate::handlers::transform::options::{Format, ReadOptions};
use crate::handlers::transform::schema::{Column, Extra, Kind, RecordSchema, infer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much is looked at to find the columns.
const SAMPLE: usize = 1 << 20;

/// Starts to read JSON records. An array is told by its first character.
///
/// # Errors
/// `NotJson` for what is no text.
pub fn start(
    content: Content,
    format: Format,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<Started, Failure> {
    let mut lines = Lines::new(content)?;
    let head = lines.peek(64 << 10)?;
    // A file that begins like a record is taken record by record.
    let record = head.trim_ascii_start().starts_with(b"{");
    if mostly_binary(head) || (!record && looks_binary(head)) {
        return Err(Failure::permanent(
            "NotJson",
            format!(
                "`{}` is no JSON: it is no text in UTF-8; `read.encoding` names another encoding",
                lines.key()
            ),
        ));
    }
    let array = head.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    if format == Format::JsonArray && !array && !head.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::permanent(
            "NotJson",
            format!(
                "`{}` is no JSON array: it does not start with `[`",
                lines.key()
            ),
        ));
    }
    let (schema, changes) = columns(&mut lines, array, options, expected)?;
    let reader: Box<dyn Reader> = match array {
        true => Box::new(ArrayReader {
            lines,
            records: Records::of(&schema),
            open: false,
            done: false,
        }),
        false => Box::new(TextReader::new(
            lines,
            records(&schema),
            Arc::clone(&schema),
        )),
    };
    Ok(Started {
        reader,
        arrow: Arc::clone(schema.arrow()),
        schema,
        ignored: Vec::new(),
        changes,
    })
}

/// The columns: as declared, as drift makes of them, or those of the first records.
fn columns(
    lines: &mut Lines,
    array: bool,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<(Arc<RecordSchema>, Changes), Failure> {
    if let (None, Some(schema)) = (options.drift, &expected.declared) {
        return Ok((Arc::clone(schema), Changes::default()));
    }
    let first = sample(lines.peek(SAMPLE)?, array);
    let Some(policy) = options.drift else {
        return Ok((Arc::new(infer(&first)), Changes::default()));
    };
    let found: Vec<drift::Found> = inferred::columns(&first)
        .into_iter()
        .map(|column| {
            let valued = |r: &Map<String, Value>| r.get(&column.name).is_some_and(|v| !v.is_null());
            drift::Found {
                kind: first.iter().any(valued).then_some(column.kind),
                name: column.name,
            }
        })
        .collect();
    let what = format!("`{}`", lines.key());
    let sparse = true;
    let known = expected.known.as_ref();
    let decision = match first.is_empty() {
        false => drift::decide(policy, options, known, &found, (sparse, &what))?,
        // Nothing is found in an empty file, and nothing is missed in it.
        true => {
            let base = drift::base(expected.declared.as_deref(), known).unwrap_or_default();
            let same = base.into_iter().map(|(name, kind)| drift::Found {
                name,
                kind: Some(kind),
            });
            let same: Vec<drift::Found> = same.collect();
            drift::decide(policy, options, known, &same, (sparse, &what))?
        }
    };
    Ok((decision.schema, decision.changes))
}

/// The first records that can be read.
fn sample(head: &[u8], array: bool) -> Vec<Map<String, Value>> {
    let parse = |bytes: &[u8]| serde_json::from_slice::<Map<String, Value>>(bytes).ok();
    if !array {
        let lines = head.split(|b| *b == b'\n').take(inferred::RECORDS);
        return lines.filter_map(parse).collect();
    }
    let mut found = Vec::new();
    let mut at = head.iter().position(|b| *b == b'[').map_or(0, |p| p + 1);
    while found.len() < inferred::RECORDS {
        at += head[at..]
            .iter()
            .take_while(|b| b.is_ascii_whitespace() || **b == b',')
            .count();
        let mut scan = Scan::default();
        let Some(len) = scan.end(&head[at..]) else {
            break;
        };
        if len == 0 {
            break;
        }
        found.extend(parse(&head[at..at + len]));
        at += len;
    }
    found
}

struct Records {
    schema: Arc<RecordSchema>,
    cells: Vec<Cell<'static>>,
    order: Order,
}

/// Of the members of the record before, the columns: most records have the same.
#[derive(Default)]
pub struct Order(Vec<usize>);

impl Order {
    /// The column of the member `nth`, which has this name.
    fn column(&mut self, schema: &RecordSchema, nth: usize, name: &str) -> Option<usize> {
        let guess = self.0.get(nth).copied();
        let is_it = |at: &usize| schema.columns.get(*at).is_some_and(|c| c.name == name);
        if let Some(at) = guess.filter(is_it) {
            return Some(at);
        }
        let at = schema.position(name)?;
        if self.0.len() <= nth {
            self.0.resize(nth + 1, 0);
        }
        self.0[nth] = at;
        Some(at)
    }
}

/// Reads a record a line.
pub(super) fn records(schema: &Arc<RecordSchema>) -> Box<dyn blocks::Records> {
    Box::new(Records::of(schema))
}

impl Records {
    fn of(schema: &Arc<RecordSchema>) -> Self {
        Self {
            schema: Arc::clone(schema),
            cells: Vec::new(),
            order: Order::default(),
        }
    }

    /// Takes one record's text into the feed.
    fn take(&mut self, raw: &[u8], place: Place, feed: &mut Feed<'_>) -> Result<(), Failure> {
        let mut cells = recycle(std::mem::take(&mut self.cells));
        let result = std::str::from_utf8(raw)
            .map_err(|e| {
                Broken::record(
                    "InvalidUtf8",
                    format!("byte {} of the record is not UTF-8", e.valid_up_to()),
                )
            })
            .and_then(|text| {
                let (order, ignored) = (&mut self.order, &mut feed.ignored);
                object_cells(&self.schema, text, order, &mut cells, ignored)
            });
        feed.record(result.map(|()| cells.as_slice()), place, raw)?;
        self.cells = recycle(cells);
        Ok(())
    }
}

/// Parses a JSON object into cells.
///
/// # Errors
/// Says what breaks the record.
pub fn object_cells<'a>(
    schema: &RecordSchema,
    text: &'a str,
    order: &mut Order,
    cells: &mut Vec<Cell<'a>>,
    ignored: &mut BTreeMap<String, u64>,
) -> Result<(), Broken> {
    let members = members(text).map_err(|e| {
        let code = if e.is_data() {
            "NotAnObject"
        } else {
            "NotJson"
        };
        Broken::record(code, shorten(&e.to_string()))
    })?;
    cells.clear();
    cells.resize(schema.columns.len(), Cell::Null);
    let mut rescued = Rescued::default();
    let mut present = 0_usize;
    for (nth, (name, raw)) in members.into_iter().enumerate() {
        let Some(at) = order.column(schema, nth, &name) else {
            if schema.rescue.is_some() {
                put(&mut rescued, &name, raw);
                continue;
            }
            if schema.extra == Extra::Refused {
                let message = format!("`{}` is not among the columns", shorten(&name));
                return Err(Broken::record("UnexpectedField", message));
            }
            count_ignored(ignored, name, 1);
            continue;
        };
        let column = &schema.columns[at];
        match value(column, raw) {
            Ok(cell) => cells[at] = cell,
            Err(v) if rescued.takes(schema, column, &v) => put(&mut rescued, &name, raw),
            Err(v) => return Err(Broken::column(column, v)),
        }
        present += 1;
    }
    rescued.finish(schema, cells);
    match present < schema.columns.len() {
        true => required(schema, text),
        false => Ok(()),
    }
}

fn put(rescued: &mut Rescued, name: &str, raw: &str) {
    // A member's value is JSON, or the record would not have been read.
    let value = serde_json::from_str(raw).unwrap_or_else(|_| Value::from(raw));
    rescued.put_json(name, value);
}

/// Looks for the required members of a record that does not have all.
fn required(schema: &RecordSchema, text: &str) -> Result<(), Broken> {
    if !schema.columns.iter().any(|c| c.required) {
        return Ok(());
    }
    // The second parse is for records that leave something out.
    let members = members(text).map_err(|e| Broken::record("NotJson", shorten(&e.to_string())))?;
    let missing = schema
        .columns
        .iter()
        .find(|c| c.required && !members.iter().any(|(name, _)| **name == *c.name));
    match missing {
        None => Ok(()),
        Some(column) => Err(Broken::column(
            column,
            Violation::new("Missing", "the record does not have this member"),
        )),
    }
}

/// A member's value, typed and checked.
fn value<'a>(column: &Column, raw: &'a str) -> Result<Cell<'a>, Violation> {
    let first = raw.as_bytes().first().copied().unwrap_or_default();
    if first == b'n' {
        return match column.null_allowed {
            true => Ok(Cell::Null),
            false => Err(Violation::new(
                "WrongType",
                format!("null is not {}", column.kind.expected()),
            )),
        };
    }
    let fits = match column.kind {
        Kind::Text | Kind::Timestamp | Kind::Date => first == b'"',
        Kind::Int | Kind::Float | Kind::Decimal { .. } => first == b'-' || first.is_ascii_digit(),
        Kind::Bool => matches!(first, b't' | b'f'),
        Kind::Json => {
            let cell = Cell::Text(Cow::Borrowed(raw));
            column.check.test(&cell, column.kind)?;
            return Ok(cell);
        }
    };
    if !fits {
        return Err(Violation::new(
            "WrongType",
            format!("`{}` is not {}", shorten(raw), column.kind.expected()),
        ));
    }
    if first == b'"' {
        return typed(column, unquoted(raw)?);
    }
    if column.kind == Kind::Int && raw.contains(['e', 'E']) {
        // `1e3` is an integer in JSON Schema.
        let whole = cell::decimal(raw, 19, 0)
            .ok()
            .and_then(|n| i64::try_from(n).ok());
        if let Some(n) = whole {
            let cell = Cell::Int(n);
            column.check.test(&cell, column.kind)?;
            return Ok(cell);
        }
    }
    typed(column, Cow::Borrowed(raw))
}

/// The text of a JSON string.
fn unquoted(raw: &str) -> Result<Cow<'_, str>, Violation> {
    if let Some(plain) = raw.get(1..raw.len() - 1)
        && memchr::memchr(b'\\', plain.as_bytes()).is_none()
    {
        return Ok(Cow::Borrowed(plain));
    }
    serde_json::from_str(raw)
        .map(Cow::Owned)
        .map_err(|e| Violation::new("NotJson", shorten(&e.to_string())))
}

impl blocks::Records for Records {
    fn one(&mut self, lines: &mut Lines, feed: &mut Feed<'_>) -> Result<Next, Failure> {
        let place = Place {
            line: lines.line,
            offset: lines.offset,
        };
        match lines.find(0)? {
            Found::End => return Ok(Next::End),
            Found::TooLong => {
                too_long(feed, place, lines.window())?;
                lines.skip_line()?;
            }
            Found::Line(span) => {
                let raw = lines.text(span.end);
                if !raw.trim_ascii().is_empty() {
                    self.take(raw, place, feed)?;
                }
                lines.consume(span.next, 1);
            }
        }
        Ok(Next::Record)
    }

    fn again(&self) -> Box<dyn blocks::Records> {
        records(&self.schema)
    }

    fn quote(&self) -> Option<u8> {
        None
    }
}

struct ArrayReader {
    lines: Lines,
    records: Records,
    /// The array's bracket was seen.
    open: bool,
    /// Its end was seen.
    done: bool,
}

impl ArrayReader {
    /// Leaves out bytes as long as they are of the given ones.
    fn skip(&mut self, which: impl Fn(u8) -> bool) -> Result<Option<u8>, Failure> {
        loop {
            let window = self.lines.peek(1)?;
            let len = window.iter().take_while(|b| which(**b)).count();
            let next = window.get(len).copied();
            self.step(len);
            if next.is_some() || len == 0 {
                return Ok(next);
            }
        }
    }

    fn step(&mut self, len: usize) {
        let newlines = memchr::memchr_iter(b'\n', &self.lines.window()[..len]).count();
        self.lines.consume(len, newlines as u64);
    }

    fn corrupt(&self, what: &str) -> Failure {
        Failure::permanent(
            "CorruptInput",
            format!(
                "`{}` {what} (line {}, byte {})",
                self.lines.key(),
                self.lines.line,
                self.lines.offset
            ),
        )
    }

    /// The length of the element at the window's start.
    fn element(&mut self) -> Result<usize, Failure> {
        let mut scan = Scan::default();
        let mut wanted = 1;
        loop {
            let window = self.lines.peek(wanted)?;
            if let Some(len) = scan.end(window) {
                return Ok(len);
            }
            let have = window.len();
            if have < wanted || have > MAX_RECORD {
                return Err(
                    self.corrupt("is cut short or broken: the element that starts here has no end")
                );
            }
            wanted = have + 1;
        }
    }
}

impl Reader for ArrayReader {
    fn fill(&mut self, feed: &mut Feed<'_>) -> Result<bool, Failure> {
        if !self.open {
            self.skip(|b| b.is_ascii_whitespace())?;
            self.step(1);
            self.open = true;
        }
        while !feed.full() {
            if self.done {
                return Ok(false);
            }
            match self.skip(|b| b.is_ascii_whitespace() || b == b',')? {
                None => return Err(self.corrupt("is cut short: the array has no end")),
                Some(b']') => {
                    self.step(1);
                    self.done = true;
                    if self.skip(|b| b.is_ascii_whitespace())?.is_some() {
                        return Err(self.corrupt("goes on after its array"));
                    }
                }
                Some(_) => {
                    let place = Place {
                        line: self.lines.line,
                        offset: self.lines.offset,
                    };
                    let len = self.element()?;
                    self.records
                        .take(self.lines.window()[..len].trim_ascii_end(), place, feed)?;
                    self.step(len);
                }
            }
        }
        Ok(true)
    }
}
