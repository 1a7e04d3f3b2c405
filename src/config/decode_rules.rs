//! Rules and their targets.

use super::model::{DEFAULT_BUS, TargetInput};
use super::raw::{RawRule, RawTarget, RawTo};
use super::read::{At, Field, Table};
use super::yaml::shorten;
use super::{decode, fields, pattern};
use crate::error::{Diagnostic, codes};
use std::collections::BTreeMap;

/// Variables that every template may use without a path.
const RESERVED: [&str; 5] = [
    "aws.events.rule-arn",
    "aws.events.rule-name",
    "aws.events.event.ingestion-time",
    "aws.events.event",
    "aws.events.event.json",
];
/// Most variables of one transformer, as in EventBridge.
const MAX_PATHS: usize = 100;
/// Longest template in bytes, as in EventBridge.
const MAX_TEMPLATE: usize = 8192;

pub(super) fn rule(field: &Field<'_>) -> Option<RawRule> {
    let table = field.table(&fields::RULE)?;
    let bus = match table.get("bus").and_then(|f| f.string().map(|bus| f.at(bus))) {
        Some(bus) => bus,
        None => At { value: DEFAULT_BUS.to_owned(), place: field.key_place() },
    };
    let enabled = table.bool_or("enabled", true);
    let targets = match table.get("targets") {
        Some(field) => field.list(),
        None => Some(Vec::new()),
    };
    if enabled && targets.as_ref().is_some_and(Vec::is_empty) {
        let message = format!("the rule `{}` has no targets", field.name);
        let place = table.get("targets").map_or_else(|| field.key_place(), |f| f.key_place());
        let diagnostic = Diagnostic::error(&codes::NO_TARGETS, message).at(place);
        field.report(diagnostic.hint("write `targets: [ { queue: NAME } ]`"));
    }
    Some(RawRule {
        description: table.get("description").and_then(|f| f.text()).map(|t| t.reveal().to_owned()),
        bus,
        enabled,
        pattern: table.need("pattern").and_then(|f| pattern::read(&f)),
        targets: targets.unwrap_or_default().iter().filter_map(target).collect(),
    })
}

fn target(field: &Field<'_>) -> Option<RawTarget> {
    let table = field.table(&fields::TARGET)?;
    let id = table.get("id").and_then(|f| id(&f));
    let input = input(&table);
    let retry = decode::retry(table.get("retry"));
    let kind = table.one_of(&fields::TARGET_KINDS)?;
    let name = || kind.string().map(|name| kind.at(name));
    if kind.item.is_null() {
        let message = format!("`{}` needs a name", kind.name);
        field.report(kind.error(&codes::MISSING_FIELD, message));
        return None;
    }
    let to = match kind.name.as_str() {
        "queue" => RawTo::Queue(name()?),
        "handler" => RawTo::Handler(name()?),
        "topic" => RawTo::Topic(name()?),
        "bus" => RawTo::Bus(name()?),
        _ => RawTo::Webhook(decode::webhook(&kind)?),
    };
    Some(RawTarget { place: kind.key_place(), id, to, input, retry })
}

fn id(field: &Field<'_>) -> Option<String> {
    let id = field.string()?;
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.len() > 64 || !id.chars().all(fit) {
        let diagnostic = field.error(&codes::BAD_NAME, format!("`{}` cannot be the id of a target", shorten(&id)));
        field.report(diagnostic.hint("ids have letters, digits, `-`, `_` and `.`, and at most 64 characters"));
        return None;
    }
    Some(id)
}

fn input(table: &Table<'_>) -> TargetInput {
    let given: Vec<Field<'_>> = fields::INPUT_KINDS.iter().filter_map(|name| table.get(name)).collect();
    if given.len() > 1 {
        // Says which; `one_of` would also report when there is none.
        table.one_of(&fields::INPUT_KINDS);
    }
    let Some(field) = given.first() else { return TargetInput::Event };
    let input = match field.name.as_str() {
        "input" => field.json().map(|json| TargetInput::Constant(json.to_string())),
        "input_path" => field.string().filter(|path| check_path(field, path)).map(TargetInput::Path),
        _ => transformer(field),
    };
    input.unwrap_or(TargetInput::Event)
}

fn transformer(field: &Field<'_>) -> Option<TargetInput> {
    let table = field.table(&fields::TRANSFORMER)?;
    let mut paths = BTreeMap::new();
    for entry in table.get("paths").and_then(|f| f.entries()).unwrap_or_default() {
        let fit = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if entry.name.is_empty() || !entry.name.chars().all(fit) || entry.name.to_lowercase().starts_with("aws") {
            let message = format!("`{}` cannot be the name of a variable", shorten(&entry.name));
            let diagnostic = Diagnostic::error(&codes::BAD_INPUT, message).at(entry.key_place());
            field.report(diagnostic.hint("variables have letters, digits, `-` and `_`, and do not start with `aws`"));
        }
        if let Some(path) = entry.string().filter(|path| check_path(&entry, path)) {
            paths.insert(entry.name.clone(), path);
        }
    }
    if paths.len() > MAX_PATHS {
        let message = format!("`paths` has {} variables, and {MAX_PATHS} are the most", paths.len());
        field.report(field.error(&codes::BAD_INPUT, message));
    }
    let declared: Vec<String> = match table.get("paths").and_then(|f| f.entries()) {
        Some(entries) => entries.into_iter().map(|entry| entry.name).collect(),
        None => Vec::new(),
    };
    let template = table.need("template")?;
    let text = template.filled()?.reveal().to_owned();
    check_template(&template, &text, &declared);
    Some(TargetInput::Transformer { paths, template: text })
}

fn check_path(field: &Field<'_>, path: &str) -> bool {
    let parsed = jsonpath_rust::parser::parse_json_path(path);
    let fault = match parsed {
        Err(_) => "it does not parse",
        Ok(_) if !path.starts_with('$') => "it must start with `$`",
        Ok(_) => return true,
    };
    let diagnostic = field.error(&codes::BAD_INPUT, format!("`{}` is not a JSONPath: {fault}", shorten(path)));
    field.report(diagnostic.hint("write it like `$.detail.object.key`"));
    false
}

fn check_template(field: &Field<'_>, text: &str, declared: &[String]) {
    if text.len() > MAX_TEMPLATE {
        let message = format!("the template has {} bytes, and {MAX_TEMPLATE} are the most", text.len());
        field.report(field.error(&codes::BAD_INPUT, message));
    }
    for name in variables(text) {
        if declared.iter().any(|known| known == name) || RESERVED.contains(&name) {
            continue;
        }
        let message = format!("the template uses `<{name}>`, which `paths` does not define");
        let known = declared.iter().map(String::as_str).chain(RESERVED);
        field.report(field.error(&codes::BAD_INPUT, message).suggest(name, known));
    }
}

/// The names between `<` and `>`; `\<` is text.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split('<').enumerate().filter_map(move |(index, part)| {
        let was_escaped = std::mem::replace(&mut escaped, part.ends_with('\\'));
        let (name, _) = part.split_once('>')?;
        let fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        (index > 0 && !was_escaped && !name.is_empty() && name.chars().all(fit)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::variables;

    #[test]
    fn variables_are_what_stands_in_angle_brackets() {
        let names: Vec<&str> = variables(r#"{"a": "<one>", "b": <two.x>, "c": "1 < 2 > 0", "d": "\<no>"}"#).collect();
        assert_eq!(names, ["one", "two.x"]);
    }
}
