//! Taking values out of the tree. Nothing here stops at a mistake: it is noted
//! in [`Cx`], the value counts as absent, and reading goes on.

mod table;

pub(super) use table::Table;

use super::fields::Shape;
use super::references::{RefError, References};
use super::units::{self, UnitError};
use super::yaml::{Entry, Item, Node, Scalar, shorten, word_length, written_at};
use crate::error::{Code, Diagnostic, Lines, Place, Sources, codes};
use crate::text::Text;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What all readers of one run share.
pub(super) struct Cx<'a> {
    /// The folder of the configuration.
    pub root: &'a Path,
    pub references: References<'a>,
    pub diagnostics: RefCell<Vec<Diagnostic>>,
    pub sources: RefCell<Sources>,
    /// Dotted path -> where it was written.
    pub places: RefCell<BTreeMap<String, Place>>,
    /// Dotted path -> text with references.
    pub shown: RefCell<BTreeMap<String, Text>>,
}

impl Cx<'_> {
    pub fn report(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    /// A path as people know it: below the folder of the configuration, where it is.
    pub fn shown_path(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root).unwrap_or(path).to_path_buf()
    }
}

/// A file that is being read.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub path: &'a Path,
    pub text: &'a str,
    pub lines: &'a Lines,
}

impl File<'_> {
    pub fn place(&self, span: Range<usize>) -> Place {
        self.lines.place(self.path, self.text, span)
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
}

/// A value that is to be read, and how to speak of it.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub cx: &'a Cx<'a>,
    pub file: File<'a>,
    pub item: &'a Item,
    /// The name that it has in its table.
    pub name: String,
    pub key_span: Range<usize>,
    /// Dotted path from the top of the configuration.
    pub path: String,
}

impl<'a> Field<'a> {
    pub fn place(&self) -> Place {
        self.file.place(self.item.span.clone())
    }

    pub fn key_place(&self) -> Place {
        self.file.place(self.key_span.clone())
    }

    /// An error at the value.
    pub fn error(&self, code: &'static Code, message: impl Into<String>) -> Diagnostic {
        // An empty value has no characters to point at; its key has.
        let place = match self.item.is_null() {
            true => self.key_place(),
            false => self.place(),
        };
        Diagnostic::error(code, message).at(place)
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.cx.report(diagnostic);
    }

    fn wrong_type(&self, wanted: &str) {
        let message = format!(
            "`{}` must be {wanted}, not {}",
            self.name,
            self.item.describe()
        );
        self.report(self.error(&codes::WRONG_TYPE, message));
    }

    pub fn at<T>(&self, value: T) -> At<T> {
        At {
            value,
            place: self.place(),
        }
    }

    /// Any scalar as text, references resolved. `wanted` is for the message.
    fn scalar_text(&self, wanted: &str) -> Option<Text> {
        let Node::Scalar { text, .. } = &self.item.node else {
            self.wrong_type(wanted);
            return None;
        };
        match self.cx.references.resolve(text) {
            Ok(text) => {
                if text.is_secret() {
                    self.cx
                        .shown
                        .borrow_mut()
                        .insert(self.path.clone(), text.clone());
                }
                Some(text)
            }
            Err(error) => {
                let mut diagnostic = self.error(&codes::BAD_REFERENCE, error.to_string());
                diagnostic = match &error {
                    RefError::Unset(name) => diagnostic
                        .hint(format!("set it before the start, or write `${{env:{name}:-default}}`")),
                    RefError::Unknown(_) => diagnostic.hint(
                        "references are `${env:NAME}` and `${file:PATH}`; write `$${` for the text `${`",
                    ),
                    _ => diagnostic,
                };
                self.report(diagnostic);
                None
            }
        }
    }

    /// Text; numbers and booleans without quotes are taken by their spelling.
    pub fn text(&self) -> Option<Text> {
        self.scalar_text("text")
    }

    /// Text that must not be empty.
    pub fn filled(&self) -> Option<Text> {
        let text = self.text()?;
        if text.reveal().trim().is_empty() {
            let message = format!("`{}` must not be empty", self.name);
            self.report(self.error(&codes::BAD_VALUE, message));
            return None;
        }
        Some(text)
    }

    /// Text that must not be empty and is never shown, even when it was written
    /// without a reference.
    pub fn secret(&self) -> Option<Text> {
        self.hidden(|_| "***".to_owned())
    }

    /// Text that must not be empty and is shown as `mask` makes it, unless it was
    /// written with a reference.
    pub fn hidden(&self, mask: impl Fn(&str) -> String) -> Option<Text> {
        let text = self.filled()?;
        if text.is_secret() {
            return Some(text);
        }
        let mask = mask(text.reveal());
        let hidden = text.shown_as(mask);
        let mut shown = self.cx.shown.borrow_mut();
        shown.insert(self.path.clone(), hidden.clone());
        Some(hidden)
    }

    pub fn string(&self) -> Option<String> {
        self.filled().map(|text| text.reveal().to_owned())
    }

    pub fn bool(&self) -> Option<bool> {
        let text = self.scalar_text("`true` or `false`")?;
        match text.reveal() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            other => {
                let mut diagnostic = self.error(
                    &codes::WRONG_TYPE,
                    format!(
                        "`{}` must be `true` or `false`, not `{}`",
                        self.name,
                        shorten(text.shown())
                    ),
                );
                match other.to_lowercase().as_str() {
                    "yes" | "on" | "y" | "1" => diagnostic = diagnostic.hint("write `true`"),
                    "no" | "off" | "n" | "0" => diagnostic = diagnostic.hint("write `false`"),
                    _ => {}
                }
                self.report(diagnostic);
                None
            }
        }
    }

    /// A whole number within `range`.
    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.scalar_text("a whole number")?;
        match text.reveal().parse::<u64>() {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(_) => {
                let message = match *range.end() {
                    u64::MAX => format!("`{}` must be at least {}", self.name, range.start()),
                    end => format!(
                        "`{}` must be between {} and {end}",
                        self.name,
                        range.start()
                    ),
                };
                self.report(self.error(&codes::BAD_VALUE, message));
                None
            }
            Err(_) => {
                let shown = shorten(text.shown());
                let message = format!("`{}` must be a whole number, not `{shown}`", self.name);
                self.report(self.error(&codes::WRONG_TYPE, message));
                None
            }
        }
    }

    /// A number above 0.
    pub fn positive(&self) -> Option<f64> {
        let text = self.scalar_text("a number")?;
        match text.reveal().parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Some(number),
            _ => {
                let shown = shorten(text.shown());
                let message = format!("`{}` must be a number above 0, not `{shown}`", self.name);
                self.report(self.error(&codes::BAD_VALUE, message));
                None
            }
        }
    }

    pub fn duration(&self) -> Option<Duration> {
        let text = self.scalar_text("a duration like `5s`")?;
        self.unit(&codes::BAD_DURATION, &text, units::duration(text.reveal()))
    }

    pub fn size(&self) -> Option<u64> {
        let text = self.scalar_text("a size like `64MiB`")?;
        self.unit(&codes::BAD_SIZE, &text, units::size(text.reveal()))
    }

    fn unit<T>(&self, code: &'static Code, text: &Text, read: Result<T, UnitError>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(_) if text.is_secret() => {
                let message = format!(
                    "`{}` has a value that `{}` cannot take",
                    text.shown(),
                    self.name
                );
                self.report(self.error(code, message));
                None
            }
            Err(error) => {
                self.report(self.error(code, error.message).hint(error.hint));
                None
            }
        }
    }

    /// One of several words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.scalar_text("a word")?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.reveal()) {
            return Some(*value);
        }
        let message = format!(
            "`{}` is not a value of `{}`",
            shorten(text.shown()),
            self.name
        );
        let diagnostic = self
            .error(&codes::BAD_VALUE, message)
            .suggest(text.shown(), choices.iter().map(|(word, _)| *word));
        self.report(diagnostic);
        None
    }

    /// A path; relative ones start at the folder of the configuration.
    pub fn path(&self) -> Option<PathBuf> {
        self.filled().map(|text| self.cx.root.join(text.reveal()))
    }

    /// A table with a known set of fields.
    pub fn table(&self, shape: &'static Shape) -> Option<Table<'a>> {
        let table = self.open_table()?;
        Some(Table::new(self.clone(), table, shape))
    }

    /// A table whose keys are names.
    pub fn entries(&self) -> Option<Vec<Field<'a>>> {
        let entries = self.open_table()?;
        Some(entries.iter().map(|entry| self.child(entry)).collect())
    }

    /// As [`Field::entries`], without a report when it is not a table.
    pub fn entries_if_table(&self) -> Option<Vec<Field<'a>>> {
        matches!(&self.item.node, Node::Table(_)).then(|| self.entries())?
    }

    /// The place from byte `offset` of a text on, to the end of the word there;
    /// the whole value where the text is not in the file as it is.
    pub fn place_at(&self, offset: usize) -> Place {
        let exact = || {
            let Node::Scalar { text, .. } = &self.item.node else {
                return None;
            };
            let at = written_at(self.file.text, &self.item.span, text, offset)?;
            let end = self.item.span.end.min(at + word_length(self.file.text, at));
            (offset > 0 && at < end).then(|| self.file.place(at..end))
        };
        exact().unwrap_or_else(|| self.place())
    }

    fn open_table(&self) -> Option<&'a [Entry]> {
        match &self.item.node {
            Node::Table(entries) => Some(entries),
            // `to-transform:` alone is a table without fields.
            _ if self.item.is_null() => Some(&[]),
            _ => {
                self.wrong_type("a table");
                None
            }
        }
    }

    fn child(&self, entry: &'a Entry) -> Field<'a> {
        let path = match self.path.is_empty() {
            true => entry.key.clone(),
            false => format!("{}.{}", self.path, entry.key),
        };
        let field = Field {
            cx: self.cx,
            file: self.file,
            item: &entry.item,
            name: entry.key.clone(),
            key_span: entry.key_span.clone(),
            path,
        };
        let place = match &field.item.node {
            Node::Scalar { .. } if !field.item.is_null() => field.place(),
            _ => field.key_place(),
        };
        self.cx
            .places
            .borrow_mut()
            .insert(field.path.clone(), place);
        field
    }

    /// The elements of a list.
    pub fn list(&self) -> Option<Vec<Field<'a>>> {
        let Node::List(items) = &self.item.node else {
            self.wrong_type("a list");
            return None;
        };
        let element = |(index, item): (usize, &'a Item)| Field {
            cx: self.cx,
            file: self.file,
            item,
            name: self.name.clone(),
            key_span: item.span.clone(),
            path: format!("{}.{index}", self.path),
        };
        Some(items.iter().enumerate().map(element).collect())
    }

    /// The elements of a list, or a single one without brackets.
    pub fn one_or_more(&self) -> Option<Vec<Field<'a>>> {
        match &self.item.node {
            Node::Scalar { .. } => Some(vec![self.clone()]),
            _ => self.list(),
        }
    }

    /// Texts in a list; those that are wrong are reported and left out.
    pub fn strings(&self) -> Option<Vec<At<String>>> {
        let fields = self.list()?;
        Some(
            fields
                .iter()
                .filter_map(|f| f.string().map(|s| f.at(s)))
                .collect(),
        )
    }

    /// A table of texts.
    pub fn texts(&self) -> Option<BTreeMap<String, Text>> {
        let fields = self.entries()?;
        Some(
            fields
                .iter()
                .filter_map(|f| Some((f.name.clone(), f.text()?)))
                .collect(),
        )
    }

    /// Any value as JSON, references resolved in its texts.
    pub fn json(&self) -> Option<serde_json::Value> {
        use serde_json::Value;
        match &self.item.node {
            Node::List(_) => self
                .list()?
                .iter()
                .map(Field::json)
                .collect::<Option<Vec<_>>>()
                .map(Value::from),
            Node::Table(_) => {
                let pairs = self
                    .entries()?
                    .into_iter()
                    .map(|f| Some((f.name.clone(), f.json()?)));
                pairs
                    .collect::<Option<serde_json::Map<_, _>>>()
                    .map(Value::from)
            }
            Node::Scalar { .. } => match self.item.scalar() {
                Some(Scalar::Null) => Some(Value::Null),
                Some(Scalar::Bool(value)) => Some(value.into()),
                Some(Scalar::Number(text)) => serde_json::from_str(text).ok(),
                Some(Scalar::OddNumber(text)) => {
                    self.report(odd_number(self.error(&codes::AMBIGUOUS_SCALAR, ""), text));
                    None
                }
                _ => self.text().map(|text| Value::from(text.reveal())),
            },
        }
    }
}

/// Says that YAML takes `text` as a number and JSON does not.
pub(super) fn odd_number(mut diagnostic: Diagnostic, text: &str) -> Diagnostic {
    diagnostic.message =
        format!("`{text}` is a number to YAML, in a spelling that JSON does not have");
    diagnostic.hint(format!(
        "write `\"{text}\"` for the text, or the plain number"
    ))
}

/// Names become parts of paths, routes and metrics.
pub(super) fn check_name(field: &Field<'_>, what: &str) {
    check_word(&field.name, what, field.key_place(), field);
}

/// The name of a bus; buses are not declared, so it is checked where it is used.
pub(super) fn bus_name(field: &Field<'_>) -> Option<At<String>> {
    let name = field.string()?;
    check_word(&name, "bus", field.place(), field).then(|| field.at(name))
}

fn check_word(name: &str, what: &str, place: Place, field: &Field<'_>) -> bool {
    let letters = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let starts = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if letters && starts && name.len() <= 64 {
        return true;
    }
    let message = format!("`{}` cannot be the name of a {what}", shorten(name));
    let diagnostic = Diagnostic::error(&codes::BAD_NAME, message).at(place).hint(
        "names have letters, digits, `-` and `_`, start with a letter or digit, and have at most 64 characters",
    );
    field.report(diagnostic);
    false
}
