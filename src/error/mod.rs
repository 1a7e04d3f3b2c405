//! What is wrong, where, and the way out.
//!
//! A [`Diagnostic`] is what `check` prints and what stops `run` before it
//! starts: a stable [`Code`] with a page of its own, one sentence, the place in
//! a file, and hints. Messages start in lower case, have no full stop at the
//! end and put backticks round what the user wrote.

pub mod codes;
mod render;

pub use codes::{Code, find, markdown};
pub use render::{render, render_all};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The program did what it was asked.
pub const EXIT_DONE: u8 = 0;
/// The answer is no: a check failed, nothing matched, the ledger does not add up.
pub const EXIT_NO: u8 = 1;
/// The program could not run: bad arguments, a broken configuration, no node.
pub const EXIT_UNABLE: u8 = 2;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing starts with this.
    Error,
    /// It works, but hardly as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A range in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as people know it, relative to the folder of the configuration.
    pub file: PathBuf,
    /// First line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// First column in characters, from 1; 0 when the whole file is meant.
    pub column: usize,
    /// Bytes of the file's text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Place {
    /// A whole file, for what cannot be pinned to a line.
    #[must_use]
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            start: 0,
            end: 0,
        }
    }

    /// The place of `range` in `text`, which is the content of `file`. Ranges
    /// that leave the text or cut a character are moved to the nearest sound one.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>, text: &str, range: Range<usize>) -> Self {
        Lines::of(text).place(file, text, range)
    }

    /// The bytes of the file's text.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Where the lines of a text begin, for many places in one text.
#[derive(Clone, Debug)]
pub struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    /// The lines of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let after = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            starts: std::iter::once(0).chain(after).collect(),
        }
    }

    /// As [`Place::new`]; `text` is the text that the lines were made of.
    #[must_use]
    pub fn place(&self, file: impl Into<PathBuf>, text: &str, range: Range<usize>) -> Place {
        let start = text.floor_char_boundary(range.start.min(text.len()));
        let end = text.floor_char_boundary(range.end.clamp(start, text.len()));
        let line = self.starts.partition_point(|at| *at <= start);
        let line_start = self
            .starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        Place {
            file: file.into(),
            line,
            column: text
                .get(line_start..start)
                .unwrap_or_default()
                .chars()
                .count()
                + 1,
            start,
            end,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 {
            write!(f, "{}", self.file.display())
        } else {
            write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
        }
    }
}

/// One mistake, or one thing that is hardly meant so.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: &'static Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where; `None` when no file is to blame.
    pub place: Option<Place>,
    /// A few words at the carets.
    pub label: Option<String>,
    /// Other places that have to do with it, with a few words each.
    pub related: Vec<(Place, String)>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// The way out.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// An error.
    #[must_use]
    pub fn error(code: &'static Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message.into())
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: &'static Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message.into())
    }

    fn new(code: &'static Code, severity: Severity, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            place: None,
            label: None,
            related: Vec::new(),
            notes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: impl Into<Option<Place>>) -> Self {
        self.place = place.into();
        self
    }

    /// Puts a few words at the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Shows another place that has to do with it.
    #[must_use]
    pub fn related(mut self, place: impl Into<Option<Place>>, label: impl Into<String>) -> Self {
        if let Some(place) = place.into() {
            self.related.push((place, label.into()));
        }
        self
    }

    /// Adds something worth knowing.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the names that may have been meant, nearest first; where none is
    /// near, all of them if there are few.
    #[must_use]
    pub fn suggest<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(written, &known) {
            Some(near) => self.hint(format!("did you mean `{near}`?")),
            None if known.is_empty() => self,
            None if known.len() <= 24 => self.hint(format!("known: {}", quoted(&known))),
            None => self,
        }
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", self.code.id)?;
        map.serialize_entry("severity", self.severity.name())?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("place", &self.place.as_ref().map(place_json))?;
        map.serialize_entry("label", &self.label)?;
        let related: Vec<_> = self
            .related
            .iter()
            .map(|(place, label)| serde_json::json!({"place": place_json(place), "label": label}))
            .collect();
        map.serialize_entry("related", &related)?;
        map.serialize_entry("notes", &self.notes)?;
        map.serialize_entry("hints", &self.hints)?;
        map.end()
    }
}

fn place_json(place: &Place) -> serde_json::Value {
    let mut value = serde_json::json!({ "file": place.file.display().to_string() });
    if place.line > 0 {
        value["line"] = place.line.into();
        value["column"] = place.column.into();
        value["start"] = place.start.into();
        value["end"] = place.end.into();
    }
    value
}

/// Names in backticks, separated by commas.
#[must_use]
pub fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    names.join(", ")
}

/// The name that was probably meant.
#[must_use]
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(written);
    // A name of three letters may be off by one, one of ten by three.
    let allowed = (wanted.chars().count() / 3).max(1);
    known
        .iter()
        .map(|name| (strsim::osa_distance(&wanted, &plain(name)), *name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The texts that diagnostics point into, by [`Place::file`].
#[derive(Clone, Debug, Default)]
pub struct Sources {
    texts: BTreeMap<PathBuf, Arc<str>>,
}

impl Sources {
    /// Adds a file's text.
    pub fn add(&mut self, file: impl Into<PathBuf>, text: impl Into<Arc<str>>) {
        self.texts.insert(file.into(), text.into());
    }

    /// A file's text.
    #[must_use]
    pub fn get(&self, file: &Path) -> Option<&Arc<str>> {
        self.texts.get(file)
    }

    /// The files, in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.texts.keys().map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "a: 1\nä: zwei\n";
        let place = Place::new("f.yaml", text, text.find("zwei").unwrap()..text.len() - 1);
        assert_eq!(place.to_string(), "f.yaml:2:4");
        assert_eq!(&text[place.range()], "zwei");
    }

    #[test]
    fn ranges_outside_the_text_are_moved_into_it() {
        let place = Place::new("f.yaml", "ä", 1..99);
        assert_eq!((place.start, place.end, place.column), (0, 2, 1));
        assert_eq!(Place::new("f", "", 3..3).to_string(), "f:1:1");
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known = ["include", "exclude", "follow_symlinks", "path"];
        assert_eq!(nearest("inculde", &known), Some("include"));
        assert_eq!(nearest("followSymlinks", &known), Some("follow_symlinks"));
        assert_eq!(nearest("paht", &known), Some("path"));
        assert_eq!(nearest("bucket", &known), None);
    }

    #[test]
    fn diagnostics_serialise_with_their_place() {
        let text = "nod: {}\n";
        let diagnostic = Diagnostic::error(&codes::UNKNOWN_FIELD, "unknown field `nod`")
            .at(Place::new("p.yaml", text, 0..3))
            .hint("did you mean `node`?");
        let json = serde_json::to_value(&diagnostic).unwrap();
        assert_eq!(json["code"], "P0102");
        assert_eq!(json["place"]["line"], 1);
        assert_eq!(json["hints"][0], "did you mean `node`?");
    }
}
