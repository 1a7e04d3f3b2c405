//! The JSON Schema that editors complete and check the YAML with, and the
//! reference of all fields for people: both from the tables of `fields`.

use super::fields::{CONFIG, FieldSpec, Kind, Shape};
use serde_json::{Map, Value, json};

/// JSON Schema of a configuration file.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = shape(&CONFIG);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Pointsman configuration");
    schema
}

fn shape(of: &Shape) -> Value {
    let properties: Map<String, Value> = of
        .fields
        .iter()
        .map(|f| (f.name.to_owned(), property(f)))
        .collect();
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties })
}

fn property(field: &FieldSpec) -> Value {
    let mut value = kind(&field.kind);
    let doc = match field.default {
        "" => field.doc.to_owned(),
        default => format!("{} (default `{default}`)", field.doc),
    };
    value["description"] = json!(doc);
    value
}

/// A text that holds a reference may stand for any scalar.
fn or_reference(value: Value) -> Value {
    json!({ "anyOf": [value, { "type": "string", "pattern": "\\$\\{(env|file):" }, { "type": "null" }] })
}

fn kind(of: &Kind) -> Value {
    match of {
        Kind::Text => json!({ "type": ["string", "number", "boolean", "null"] }),
        Kind::Bool => or_reference(json!({ "type": "boolean" })),
        Kind::Integer(min, max) => match *max {
            u64::MAX => or_reference(json!({ "type": "integer", "minimum": min })),
            max => or_reference(json!({ "type": "integer", "minimum": min, "maximum": max })),
        },
        Kind::Number => or_reference(json!({ "type": "number", "exclusiveMinimum": 0 })),
        Kind::Duration => or_reference(json!({ "anyOf": [
            { "type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d|w))+$|^0$" },
            { "const": 0 },
        ]})),
        Kind::Size => or_reference(json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?([kMGT]?B|[KMGT]iB)?$" },
        ]})),
        Kind::Choice(words) => or_reference(json!({ "enum": words })),
        Kind::Table(table) => shape(table),
        Kind::Names(table) => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$" },
            "additionalProperties": shape(table),
        }),
        Kind::Texts => {
            json!({ "type": ["object", "null"], "additionalProperties": kind(&Kind::Text) })
        }
        Kind::List(element) => json!({ "type": ["array", "null"], "items": kind(element) }),
        Kind::OneOf(kinds) => json!({ "anyOf": kinds.iter().map(kind).collect::<Vec<_>>() }),
        Kind::Any => json!({}),
    }
}

/// Every field as a Markdown table per section (`docs/configuration.md`).
#[must_use]
pub fn reference() -> String {
    let mut out = String::from("# Configuration\n\nWritten from `src/config/fields.rs`.\n");
    let mut done: Vec<&str> = Vec::new();
    let mut next: Vec<(&Shape, String)> = vec![(&CONFIG, String::new())];
    while !next.is_empty() {
        let (shape, path) = next.remove(0);
        if done.contains(&shape.title) || shape.fields.is_empty() {
            continue;
        }
        done.push(shape.title);
        out.push_str(&format!("\n## {}\n\n", heading(shape.title)));
        if !path.is_empty() {
            out.push_str(&format!("`{path}`\n\n"));
        }
        out.push_str("| field | takes | default | meaning |\n|---|---|---|---|\n");
        for field in shape.fields {
            let default = match field.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            out.push_str(&format!(
                "| `{}` | {} | {default} | {} |\n",
                field.name,
                takes(&field.kind),
                field.doc
            ));
            below(
                &field.kind,
                &format!("{path}{}", if path.is_empty() { "" } else { "." }),
                field.name,
                &mut next,
            );
        }
    }
    out
}

fn heading(title: &str) -> String {
    let plain = title.trim_start_matches("a ").trim_start_matches("the ");
    let mut chars = plain.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Tables inside a field.
fn below<'a>(kind: &'a Kind, prefix: &str, name: &str, next: &mut Vec<(&'a Shape, String)>) {
    match kind {
        Kind::Table(shape) => next.push((shape, format!("{prefix}{name}"))),
        Kind::Names(shape) => next.push((shape, format!("{prefix}{name}.NAME"))),
        Kind::List(element) => below(element, prefix, &format!("{name}[]"), next),
        Kind::OneOf(kinds) => kinds
            .iter()
            .for_each(|kind| below(kind, prefix, name, next)),
        _ => {}
    }
}

fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Bool => "`true`, `false`".to_owned(),
        Kind::Integer(min, u64::MAX) => format!("number from {min}"),
        Kind::Integer(min, max) => format!("number, {min} to {max}"),
        Kind::Number => "number".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::Choice(words) => crate::error::quoted(words),
        Kind::Table(_) => "table".to_owned(),
        Kind::Names(_) => "names".to_owned(),
        Kind::Texts => "names to texts".to_owned(),
        Kind::List(element) => format!("list of {}", takes(element)),
        Kind::OneOf(kinds) => kinds.iter().map(takes).collect::<Vec<_>>().join(" or "),
        Kind::Any => "any value".to_owned(),
    }
}
