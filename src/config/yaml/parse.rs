//! From the parser's events to a tree.

use super::{Entry, Item, Node, shorten};
use crate::error::{Code, Diagnostic, Place, codes};
use serde_saphyr::granit_parser::{
    ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag, options,
};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Most nodes of one file, aliases expanded: far above any configuration, and
/// an end to aliases of aliases of aliases.
const MAX_NODES: usize = 2_000_000;

/// A file's tree. `None` with diagnostics when it is not YAML; `None` without
/// when it is empty.
pub(in crate::config) fn parse(file: &Path, text: &str) -> (Option<Item>, Vec<Diagnostic>) {
    let mut builder = Builder {
        file,
        text,
        diagnostics: Vec::new(),
        anchors: HashMap::new(),
        stack: Vec::new(),
        nodes: 0,
        root: None,
    };
    let options = options! {
        emit_unresolved_aliases: true,
        emit_comments: false,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => Err(builder.syntax(&error)),
        };
        if let Err(diagnostic) = step {
            builder.diagnostics.push(*diagnostic);
            return (None, builder.diagnostics);
        }
    }
    (builder.root, builder.diagnostics)
}

/// A collection that is still being read.
struct Open {
    start: usize,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Item>),
    Table {
        entries: Vec<Entry>,
        /// Key -> place, so that a table of many keys is not searched for each.
        seen: HashMap<String, Range<usize>>,
        key: Option<(String, Range<usize>)>,
        merges: Vec<Item>,
    },
}

struct Builder<'a> {
    file: &'a Path,
    text: &'a str,
    diagnostics: Vec<Diagnostic>,
    anchors: HashMap<usize, (Item, usize)>,
    stack: Vec<Open>,
    nodes: usize,
    root: Option<Item>,
}

type Step = Result<(), Box<Diagnostic>>;

impl Builder<'_> {
    fn place(&self, range: Range<usize>) -> Place {
        Place::new(self.file, self.text, range)
    }

    fn fail(&self, code: &'static Code, message: &str, range: Range<usize>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(code, message).at(self.place(range)))
    }

    fn take(&mut self, event: Event<'_>, span: &Span) -> Step {
        let range = span.byte_range().unwrap_or_default();
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let at = range.start..range.start + 3;
                let message = "the file holds more than one document";
                let hint = "remove the `---`, or put the second document into a file of its own";
                Err(Box::new(
                    self.fail(&codes::YAML_SYNTAX, message, at).hint(hint),
                ))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain =
                    self.tagged_plain(style == ScalarStyle::Plain, tag.as_deref(), &range)?;
                let text = text.into_owned();
                let item = Item {
                    node: Node::Scalar { text, plain },
                    span: range,
                };
                self.add(item, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(range.start, anchor, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => {
                let kind = OpenKind::Table {
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open(range.start, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(range.end),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((mut item, nodes)) => {
                    // Mistakes in it are shown where it is used; its children keep their places.
                    item.span = range;
                    self.add(item, 0, nodes)
                }
                None => Err(self.fail(
                    &codes::YAML_SYNTAX,
                    "an alias stands inside its own anchor",
                    range,
                )),
            },
            Event::UnresolvedAlias(name) => {
                let written = format!("*{name}");
                let message =
                    format!("`{written}` refers to an anchor `&{name}`, and there is none");
                let diagnostic = self.fail(&codes::YAML_SYNTAX, &message, range.clone());
                let hint = format!("text that starts with `*` needs quotes: `\"{written}\"`");
                self.diagnostics.push(diagnostic.hint(hint));
                // Most likely it is meant as text, and then the rest is sound.
                self.add(
                    Item {
                        node: Node::Scalar {
                            text: written,
                            plain: false,
                        },
                        span: range,
                    },
                    0,
                    1,
                )
            }
            _ => Ok(()),
        }
    }

    /// Whether a scalar counts as plain, its tag considered.
    fn tagged_plain(
        &self,
        plain: bool,
        tag: Option<&Tag>,
        range: &Range<usize>,
    ) -> Result<bool, Box<Diagnostic>> {
        let Some(tag) = tag else { return Ok(plain) };
        match (tag.handle(), tag.suffix()) {
            ("tag:yaml.org,2002:", "str") | ("!", "") | ("", "!") => Ok(false),
            ("tag:yaml.org,2002:", "int" | "float" | "bool" | "null") => Ok(true),
            (handle, suffix) => {
                let message = format!("the tag `{handle}{suffix}` has no meaning here");
                Err(Box::new(
                    self.fail(&codes::YAML_SYNTAX, &message, range.clone())
                        .hint("remove the tag"),
                ))
            }
        }
    }

    fn open(&mut self, start: usize, anchor: usize, kind: OpenKind) -> Step {
        self.stack.push(Open {
            start,
            anchor,
            kind,
        });
        Ok(())
    }

    fn close(&mut self, end: usize) -> Step {
        let Some(open) = self.stack.pop() else {
            return Ok(());
        };
        let (node, last, count) = match open.kind {
            OpenKind::List(items) => {
                let last = items.last().map(|item| item.span.end);
                (Node::List(Arc::new(items)), last, 1)
            }
            OpenKind::Table {
                mut entries,
                mut seen,
                merges,
                ..
            } => {
                let last = entries.last().map(|entry| entry.item.span.end);
                for merge in merges {
                    self.merge(&mut entries, &mut seen, merge)?;
                }
                (Node::Table(Arc::new(entries)), last, 1)
            }
        };
        // The end event of a block collection lies where the next thing begins.
        let flow = self.text[..end.min(self.text.len())].ends_with(['}', ']']);
        let end = if flow { end } else { last.unwrap_or(end) };
        let span = open.start..end.max(open.start);
        self.add(Item { node, span }, open.anchor, count)
    }

    /// Puts a finished node where it belongs. `nodes` is how many it counts for.
    fn add(&mut self, item: Item, anchor: usize, nodes: usize) -> Step {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values, aliases included");
            return Err(self.fail(&codes::YAML_SYNTAX, &message, item.span));
        }
        if anchor > 0 {
            let size = count(&item);
            self.anchors.insert(anchor, (item.clone(), size));
        }
        let place = |range: Range<usize>| Place::new(self.file, self.text, range);
        match self.stack.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(item),
            Some(OpenKind::List(items)) => items.push(item),
            Some(OpenKind::Table {
                entries,
                seen,
                key,
                merges,
            }) => match key.take() {
                None => match item.node {
                    Node::Scalar { text, .. } => *key = Some((text, item.span)),
                    Node::List(_) | Node::Table(_) => {
                        let diagnostic =
                            Diagnostic::error(&codes::YAML_SYNTAX, "a key must be text")
                                .at(place(item.span))
                                .hint("did a `{` or `[` get in without quotes?");
                        return Err(Box::new(diagnostic));
                    }
                },
                Some((name, _)) if name == "<<" => merges.push(item),
                Some((name, key_span)) => {
                    if let Some(first) = seen.get(&name) {
                        let message =
                            format!("the key `{}` stands twice in one table", shorten(&name));
                        let diagnostic = Diagnostic::error(&codes::DUPLICATE_KEY, message)
                            .at(place(key_span))
                            .related(place(first.clone()), "the first is here");
                        self.diagnostics.push(diagnostic);
                    } else {
                        seen.insert(name.clone(), key_span.clone());
                        entries.push(Entry {
                            key: name,
                            key_span,
                            item,
                        });
                    }
                }
            },
        }
        Ok(())
    }

    /// `<<: *defaults`: what the table itself does not say comes from there.
    fn merge(
        &mut self,
        entries: &mut Vec<Entry>,
        seen: &mut HashMap<String, Range<usize>>,
        from: Item,
    ) -> Step {
        match &from.node {
            Node::Table(table) => {
                for entry in table.iter() {
                    if !seen.contains_key(&entry.key) {
                        seen.insert(entry.key.clone(), entry.key_span.clone());
                        self.nodes += count(&entry.item);
                        entries.push(entry.clone());
                    }
                }
                Ok(())
            }
            Node::List(tables) => {
                let mut tables = tables.iter().cloned();
                tables.try_for_each(|table| match table.node {
                    Node::Table(_) => self.merge(entries, seen, table),
                    _ => Err(self.fail(&codes::WRONG_TYPE, "`<<` needs a table", table.span)),
                })
            }
            Node::Scalar { .. } => Err(self.fail(
                &codes::WRONG_TYPE,
                "`<<` needs a table, like `<<: *name`",
                from.span,
            )),
        }
    }

    fn syntax(&self, error: &ScanError) -> Box<Diagnostic> {
        let marker = error.marker();
        let at = marker.byte_offset().unwrap_or(self.text.len());
        let at = self.text.floor_char_boundary(at.min(self.text.len()));
        let rest = &self.text[at..];
        let width = rest
            .chars()
            .next()
            .filter(|c| *c != '\n')
            .map_or(0, char::len_utf8);
        let said = error.info().to_string();
        let message = match said.rsplit_once(", ") {
            Some((context, what)) if context.starts_with("while ") => what.to_owned(),
            _ => said,
        };
        let mut diagnostic = self.fail(&codes::YAML_SYNTAX, &lower_first(&message), at..at + width);
        if let Some(hint) = self.syntax_hint(error.kind(), at) {
            *diagnostic = diagnostic.hint(hint);
        }
        diagnostic
    }

    /// What is often wrong when YAML breaks at `at`.
    fn syntax_hint(&self, kind: &ErrorKind, at: usize) -> Option<String> {
        match kind {
            ErrorKind::UnclosedFlowCollection { open } => {
                return Some(format!("the `{open}` is never closed"));
            }
            ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
                return Some(format!("close the `{open}` before the `{close}`"));
            }
            _ => {}
        }
        let line_start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        if indent.contains('\t') {
            return Some("indent with spaces; YAML takes no tabs".to_owned());
        }
        let above = self.text[..line_start]
            .lines()
            .next_back()
            .map(str::trim)
            .unwrap_or_default();
        if !above.is_empty() && !above.contains([':', '#']) && !above.starts_with('-') {
            return Some("is a `:` missing in the line above?".to_owned());
        }
        let value = line.split_once(": ").map(|(_, value)| value.trim());
        match value {
            Some(value) if value.starts_with(['&', '!', '%', '@', '`']) => Some(format!(
                "put quotes round a value that starts with `{}`",
                &value[..1]
            )),
            Some(value) if value.contains(": ") && !value.starts_with(['{', '[', '"', '\'']) => {
                Some("put quotes round a value that contains `: `".to_owned())
            }
            _ if line.matches('"').count() % 2 == 1 => {
                Some("is a quote missing in this line?".to_owned())
            }
            None if !line.contains(':') => Some("is a `:` missing in this line?".to_owned()),
            _ => None,
        }
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn count(item: &Item) -> usize {
    match &item.node {
        Node::Scalar { .. } => 1,
        Node::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Node::Table(entries) => 1 + entries.iter().map(|e| 1 + count(&e.item)).sum::<usize>(),
    }
}
