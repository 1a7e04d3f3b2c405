//! JSON Schemas: those that handlers name, and those that name event types.

use super::decode::paths_hint;
use super::files;
use super::model::{EventSchema, SchemaPolicy};
use super::read::{Cx, Field};
use super::yaml::{self, Item, Node};
use crate::error::{Diagnostic, Place, codes};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Member of a schema that names the event type that it is for.
const MEMBER: &str = "x-pointsman";

/// The schema that a handler names: the document and its file.
pub(super) fn named(field: &Field<'_>) -> Option<(Value, PathBuf)> {
    let path = field.path()?;
    if let Err(error) = std::fs::File::open(&path) {
        let reason = files::reason(&error);
        let written = field.text()?;
        let message = format!("the schema `{}` cannot be read: {reason}", written.shown());
        field.report(
            field
                .error(&codes::SCHEMA_MISSING, message)
                .hint(paths_hint()),
        );
        return None;
    }
    let schema = Schema::open(field.cx, &path)?;
    schema.compile(field.cx)?;
    Some((schema.document, path))
}

/// Compiles every file of the folder, and returns those that name event types.
pub(super) fn folder(cx: &Cx<'_>, files: &[PathBuf]) -> Vec<EventSchema> {
    let mut found: Vec<(EventSchema, Place)> = Vec::new();
    for path in files {
        let Some(schema) = Schema::open(cx, path) else {
            continue;
        };
        let Some(validator) = schema.compile(cx) else {
            continue;
        };
        let Some(event) = schema.event_type(cx, validator) else {
            continue;
        };
        let place = schema.place(&format!("/{MEMBER}"));
        let same = found.iter().find(|(other, _)| {
            (&other.source, &other.detail_type) == (&event.source, &event.detail_type)
        });
        if let Some((_, first)) = same {
            let message = format!(
                "`{}` of `{}` has two schemas: in {first} and in {place}",
                event.detail_type, event.source
            );
            let diagnostic = Diagnostic::error(&codes::DUPLICATE_EVENT_SCHEMA, message).at(place);
            cx.report(diagnostic.related(first.clone(), "the first is here"));
        } else {
            found.push((event, place));
        }
    }
    found.into_iter().map(|(event, _)| event).collect()
}

/// A schema's document and text.
struct Schema {
    path: PathBuf,
    /// As people know it.
    shown: PathBuf,
    text: Arc<str>,
    document: Value,
}

impl Schema {
    fn open(cx: &Cx<'_>, path: &Path) -> Option<Self> {
        let shown = cx.shown_path(path);
        let text: Arc<str> = match files::read_text(path) {
            Ok(text) => text.into(),
            Err(error) => {
                let message = format!("the schema `{}` cannot be read: {error}", shown.display());
                cx.report(
                    Diagnostic::error(&codes::FILE_UNREADABLE, message).at(Place::file(shown)),
                );
                return None;
            }
        };
        cx.sources.borrow_mut().add(shown.clone(), text.clone());
        match serde_json::from_str(&text) {
            Ok(document) => Some(Self {
                path: path.to_path_buf(),
                shown,
                text,
                document,
            }),
            Err(error) => {
                let at = offset(&text, error.line(), error.column());
                let said = error.to_string();
                let reason = said.split(" at line ").next().unwrap_or_default();
                let message = format!("the schema `{}` is not JSON: {reason}", shown.display());
                let place = Place::new(&shown, &text, at..at + 1);
                cx.report(Diagnostic::error(&codes::SCHEMA_NOT_JSON, message).at(place));
                None
            }
        }
    }

    fn compile(&self, cx: &Cx<'_>) -> Option<Arc<jsonschema::Validator>> {
        if !self.document.is_object() {
            let message = format!("the schema `{}` is not an object", self.shown.display());
            cx.report(Diagnostic::error(&codes::BAD_SCHEMA, message).at(self.place("")));
            return None;
        }
        match jsonschema::options()
            .should_validate_formats(true)
            .build(&self.document)
        {
            Ok(validator) => Some(Arc::new(validator)),
            Err(error) => {
                let pointer = error.instance_path().to_string();
                let said = error.to_string();
                let reason = match said.split_once(" is not present in a registry") {
                    // Whatever it is, it is not here.
                    Some((resource, _)) => format!(
                        "{} cannot be followed",
                        resource.replacen("Resource", "`$ref` to", 1)
                    ),
                    None => said.lines().next().unwrap_or_default().replace('"', "`"),
                };
                let message = format!(
                    "the schema `{}` is not a JSON Schema: {reason}",
                    self.shown.display()
                );
                cx.report(Diagnostic::error(&codes::BAD_SCHEMA, message).at(self.place(&pointer)));
                None
            }
        }
    }

    /// The place of a value, by its JSON pointer. JSON is YAML too, whose parser knows places.
    fn place(&self, pointer: &str) -> Place {
        let (tree, _) = yaml::parse(&self.shown, &self.text);
        let steps = pointer
            .split('/')
            .skip(1)
            .map(|step| step.replace("~1", "/").replace("~0", "~"));
        let mut span = tree
            .as_ref()
            .map_or(0..0, |item| item.span.start..item.span.start + 1);
        let mut item: Option<&Item> = tree.as_ref();
        for step in steps {
            item = match item.map(|item| &item.node) {
                Some(Node::Table(entries)) => entries.iter().find(|e| e.key == step).map(|entry| {
                    span = entry.key_span.clone();
                    &entry.item
                }),
                Some(Node::List(items)) => step
                    .parse::<usize>()
                    .ok()
                    .and_then(|n| items.get(n))
                    .inspect(|item| {
                        span = item.span.clone();
                    }),
                _ => None,
            };
        }
        // A wrong scalar is shown itself, a wrong table by its name.
        if let Some(Item {
            node: Node::Scalar { .. },
            span: value,
        }) = item
        {
            span = value.clone();
        }
        Place::new(&self.shown, &self.text, span)
    }

    fn event_type(
        &self,
        cx: &Cx<'_>,
        validator: Arc<jsonschema::Validator>,
    ) -> Option<EventSchema> {
        let member = self.document.get(MEMBER)?;
        let wrong = |message: String, pointer: &str| {
            let pointer = format!("/{MEMBER}{pointer}");
            Diagnostic::error(&codes::BAD_EVENT_SCHEMA, message).at(self.place(&pointer))
        };
        let Some(table) = member.as_object() else {
            cx.report(wrong(format!("`{MEMBER}` must be an object"), ""));
            return None;
        };
        let known = ["source", "detail-type", "policy"];
        for name in table.keys().filter(|name| !known.contains(&name.as_str())) {
            let message = format!("unknown member `{name}` in `{MEMBER}`");
            cx.report(wrong(message, &format!("/{name}")).suggest(name, known));
        }
        let text = |name: &str| match table.get(name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => {
                let pointer = if table.contains_key(name) {
                    format!("/{name}")
                } else {
                    String::new()
                };
                cx.report(wrong(
                    format!("`{MEMBER}` needs `{name}`, a text"),
                    &pointer,
                ));
                None
            }
        };
        let (source, detail_type) = (text("source"), text("detail-type"));
        let policy = match table
            .get("policy")
            .map(|policy| policy.as_str().unwrap_or_default())
        {
            None | Some("reject") => SchemaPolicy::Reject,
            Some("dead-letter") => SchemaPolicy::DeadLetter,
            Some("warn") => SchemaPolicy::Warn,
            Some(other) => {
                let diagnostic = wrong(format!("`{other}` is not a policy"), "/policy");
                cx.report(diagnostic.suggest(other, ["reject", "dead-letter", "warn"]));
                return None;
            }
        };
        Some(EventSchema {
            source: source?,
            detail_type: detail_type?,
            policy,
            document: self.document.clone(),
            validator,
            file: self.path.clone(),
        })
    }
}

/// The byte at a line and column as serde_json counts them.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (start + column.saturating_sub(1)).min(text.len())
}
