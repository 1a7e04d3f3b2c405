//! YAML as a tree in which every key and value knows its place.
//!
//! Built from the events of serde-saphyr's parser and not through serde: a
//! derived type stops at the first mistake, and a tree lets every one be found.

mod parse;

pub(super) use parse::parse;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// A node and its place, as bytes of the file's text.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub node: Node,
    pub span: Range<usize>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A scalar: its text, and whether it was written without quotes.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Arc<Vec<Item>>),
    /// A table, in the order of the file, no key twice.
    Table(Arc<Vec<Entry>>),
}

/// One line of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub item: Item,
}

/// What a plain scalar means in YAML's core schema.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    /// A number, spelt as JSON spells numbers.
    Number(&'a str),
    /// A number in a spelling that JSON does not have: `0x1F`, `+5`, `007`, `.inf`.
    OddNumber(&'a str),
    Text(&'a str),
}

impl Item {
    /// Whether this is nothing: `key:` alone, `null` or `~`.
    pub fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Null))
    }

    /// What a scalar means; `None` for lists and tables.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.node {
            Node::Scalar { text, plain: true } => Some(plain_scalar(text)),
            Node::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            Node::List(_) | Node::Table(_) => None,
        }
    }

    /// What this is, for a message.
    pub fn describe(&self) -> Cow<'static, str> {
        match (&self.node, self.scalar()) {
            (Node::List(_), _) => "a list".into(),
            (Node::Table(_), _) => "a table".into(),
            (_, Some(Scalar::Null)) => "nothing".into(),
            (_, Some(Scalar::Bool(b))) => format!("`{b}`").into(),
            (Node::Scalar { text, .. }, _) => format!("`{}`", shorten(text)).into(),
        }
    }
}

/// A text cut to what fits into a message.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None if line.len() < text.trim_end().len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

fn plain_scalar(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    // Numbers as in YAML's core schema; 1.1's `yes`, `1_000` and `1:30` are text.
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let special =
        matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    let radix = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix)
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)))
    };
    if special || radix("0x", 16) || radix("0o", 8) {
        return Scalar::OddNumber(text);
    }
    if !is_core_number(unsigned) {
        return Scalar::Text(text);
    }
    // A JSON number is what serde_json takes as one; raw, so that its spelling stays.
    let json = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    if json {
        Scalar::Number(text)
    } else {
        Scalar::OddNumber(text)
    }
}

/// `[0-9]* (. [0-9]*)? ([eE] [-+]? [0-9]+)?` with a digit somewhere.
fn is_core_number(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_ok
}

/// The bytes of the word (or of the `<variable>`) that begins at `at`; at least
/// one character.
pub(super) fn word_length(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let word = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    match rest.find(|c: char| !word(c)) {
        Some(0) if rest.starts_with('<') => rest.find('>').map_or(1, |end| end + 1),
        Some(0) => rest.chars().next().map_or(0, char::len_utf8),
        Some(end) => end,
        None => rest.len(),
    }
}

/// The byte of the file that byte `offset` of a scalar's `text` was written as:
/// exact where the text stands in the file as it is (in quotes, or line by line
/// in a `|` block), otherwise `None`. `span` is the scalar's place in `source`.
pub(super) fn written_at(
    source: &str,
    span: &Range<usize>,
    text: &str,
    offset: usize,
) -> Option<usize> {
    let written = source.get(span.clone())?;
    if written == text {
        return Some(span.start + offset);
    }
    let unquoted = written.get(1..written.len().checked_sub(1)?);
    if written.starts_with(['"', '\'']) && unquoted == Some(text) {
        return Some(span.start + 1 + offset);
    }
    let before = text.get(..offset)?;
    let number = before.matches('\n').count();
    let column = offset - before.rfind('\n').map_or(0, |at| at + 1);
    let first = source[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let mut start = first;
    let mut lines = source[first..]
        .split_inclusive('\n')
        .zip(text.split_inclusive('\n'));
    for (index, (line, wanted)) in lines.by_ref().enumerate() {
        let content = line.trim_end_matches(['\r', '\n']);
        let indent = content.strip_suffix(wanted.trim_end_matches('\n'))?.len();
        if index == number {
            return Some(start + indent + column);
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn tree(text: &str) -> Item {
        let (item, diagnostics) = parse(Path::new("f"), text);
        item.unwrap_or_else(|| panic!("{diagnostics:?}"))
    }

    fn entries(item: &Item) -> &[Entry] {
        match &item.node {
            Node::Table(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spans_cut_keys_and_values_out_of_the_text() {
        let text =
            "a: 1\nlong key:\n  - ä\n  - {b: 'c d', e: [f,\n      g]}\nlast: |\n  one\n  two\n";
        let item = tree(text);
        let cut = |span: &Range<usize>| &text[span.clone()];
        let top = entries(&item);
        assert_eq!(cut(&top[0].key_span), "a");
        assert_eq!(cut(&top[0].item.span), "1");
        let Node::List(list) = &top[1].item.node else {
            panic!()
        };
        assert_eq!(cut(&list[0].span), "ä");
        assert_eq!(cut(&list[1].span), "{b: 'c d', e: [f,\n      g]}");
        assert_eq!(cut(&entries(&list[1])[0].item.span), "'c d'");
        assert!(
            cut(&top[2].item.span).trim_end().ends_with("two"),
            "{}",
            cut(&top[2].item.span)
        );
    }

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        let cases = [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("TRUE", Scalar::Bool(true)),
            ("yes", Scalar::Text("yes")),
            ("12", Scalar::Number("12")),
            ("-1.50e3", Scalar::Number("-1.50e3")),
            ("007", Scalar::OddNumber("007")),
            ("+5", Scalar::OddNumber("+5")),
            (".5", Scalar::OddNumber(".5")),
            ("0x1F", Scalar::OddNumber("0x1F")),
            ("-.inf", Scalar::OddNumber("-.inf")),
            (".nan", Scalar::OddNumber(".nan")),
            ("1_000", Scalar::Text("1_000")),
            ("1:30", Scalar::Text("1:30")),
            ("2013-01-01", Scalar::Text("2013-01-01")),
            (".", Scalar::Text(".")),
            ("e5", Scalar::Text("e5")),
            ("-", Scalar::Text("-")),
        ];
        for (text, meaning) in cases {
            assert_eq!(plain_scalar(text), meaning, "{text:?}");
        }
    }

    #[test]
    fn quotes_and_tags_decide_what_is_text() {
        for (text, quoted) in [
            ("'5'", true),
            ("\"5\"", true),
            ("!!str 5", true),
            ("5", false),
            ("!!int 5", false),
        ] {
            let meaning = if quoted {
                Scalar::Text("5")
            } else {
                Scalar::Number("5")
            };
            assert_eq!(tree(text).scalar(), Some(meaning), "{text}");
        }
        let (none, diagnostics) = parse(Path::new("f"), "a: !secret x\n");
        assert!(none.is_none());
        assert_eq!(
            diagnostics[0].message,
            "the tag `!secret` has no meaning here"
        );
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
        let text = "\u{feff}a: 1\r\nb:\r\n  - x\r\n";
        let item = tree(text);
        let top = entries(&item);
        assert_eq!(top[0].key, "a");
        assert_eq!(&text[top[0].item.span.clone()], "1");
        let Node::List(list) = &top[1].item.node else {
            panic!()
        };
        assert_eq!(&text[list[0].span.clone()], "x");
    }

    #[test]
    fn places_inside_a_block_are_found_by_line() {
        let source = "sql: |\n    select\n      x\n\n    from y\n";
        let item = tree(source);
        let block = &entries(&item)[0].item;
        let Node::Scalar { text, .. } = &block.node else {
            panic!()
        };
        for word in ["select", "x", "from", "y"] {
            let at = written_at(source, &block.span, text, text.find(word).unwrap()).unwrap();
            assert!(
                source[at..].starts_with(word),
                "{word}: {:?}",
                &source[at..]
            );
        }
    }

    #[test]
    fn places_inside_quotes_are_found_unless_there_are_escapes() {
        let source = "a: 'x y'\nb: \"x\\ty\"\n";
        let item = tree(source);
        let [plain, escaped] = entries(&item) else {
            panic!()
        };
        assert_eq!(written_at(source, &plain.item.span, "x y", 2), Some(6));
        assert_eq!(written_at(source, &escaped.item.span, "x\ty", 2), None);
    }
}
