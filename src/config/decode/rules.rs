//! Rules and their targets.

use super::{ends, publishers};
use crate::config::model::{DEFAULT_BUS, RuleStart, TargetInput};
use crate::config::raw::{RawRule, RawTarget, RawTo};
use crate::config::read::{Field, Table, bus_name};
use crate::config::yaml::shorten;
use crate::config::{fields, pattern, units};
use crate::error::{Diagnostic, codes};
use crate::rules::input::{Input, InputError, RESERVED};

pub(in crate::config) fn rule(field: &Field<'_>) -> Option<RawRule> {
    let table = field.table(&fields::RULE)?;
    let bus = table
        .bus()
        .map_or_else(|| DEFAULT_BUS.to_owned(), |bus| bus.value);
    let enabled = table.bool_or("enabled", true);
    let targets = match table.get("targets") {
        Some(field) => field.list(),
        None => Some(Vec::new()),
    };
    if enabled && targets.as_ref().is_some_and(Vec::is_empty) {
        let message = format!("the rule `{}` has no targets", field.name);
        let place = table
            .get("targets")
            .map_or_else(|| field.key_place(), |f| f.key_place());
        let diagnostic = Diagnostic::error(&codes::NO_TARGETS, message).at(place);
        field.report(diagnostic.hint("write `targets: [ { queue: NAME } ]`"));
    }
    let start = table.get("start").and_then(|f| start(&f));
    Some(RawRule {
        start: start.unwrap_or(RuleStart::Now),
        description: table
            .get("description")
            .and_then(|f| f.text())
            .map(|t| t.reveal().to_owned()),
        bus,
        enabled,
        pattern: table.need("pattern").and_then(|f| pattern::read(&f)),
        targets: targets
            .unwrap_or_default()
            .iter()
            .filter_map(target)
            .collect(),
    })
}

fn start(field: &Field<'_>) -> Option<RuleStart> {
    let text = field.string()?;
    match text.as_str() {
        "now" => Some(RuleStart::Now),
        "earliest" => Some(RuleStart::Earliest),
        _ => {
            let time = units::time(&text);
            if time.is_none() {
                let message = format!("`{text}` is neither `now`, nor `earliest`, nor a time");
                let diagnostic = field.error(&codes::BAD_TIME, message);
                field.report(
                    diagnostic.hint("times are written `2013-01-01T00:00:00Z` or `2013-01-01`"),
                );
            }
            time.map(RuleStart::Since)
        }
    }
}

fn target(field: &Field<'_>) -> Option<RawTarget> {
    let table = field.table(&fields::TARGET)?;
    let id = table.get("id").and_then(|f| id(&f));
    let input = input(&table);
    let retry = super::retry(table.get("retry"));
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
        "bus" => RawTo::Bus(bus_name(&kind)?.value),
        name if fields::PUBLISHERS.contains(&name) => RawTo::Publish(publishers::publisher(&kind)?),
        _ => RawTo::Webhook(ends::webhook(&kind)?),
    };
    Some(RawTarget {
        place: kind.key_place(),
        id,
        to,
        input,
        retry,
    })
}

fn id(field: &Field<'_>) -> Option<String> {
    let id = field.string()?;
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.len() > 64 || !id.chars().all(fit) {
        let diagnostic = field.error(
            &codes::BAD_NAME,
            format!("`{}` cannot be the id of a target", shorten(&id)),
        );
        field.report(
            diagnostic
                .hint("ids have letters, digits, `-`, `_` and `.`, and at most 64 characters"),
        );
        return None;
    }
    Some(id)
}

pub(super) fn input(table: &Table<'_>) -> TargetInput {
    let given: Vec<Field<'_>> = fields::INPUT_KINDS
        .iter()
        .filter_map(|name| table.get(name))
        .collect();
    if given.len() > 1 {
        // Says which; `one_of` would also report when there is none.
        table.one_of(&fields::INPUT_KINDS);
    }
    let Some(field) = given.first() else {
        return TargetInput::Event;
    };
    let input = match field.name.as_str() {
        "input" => field
            .json()
            .map(|json| TargetInput::Constant(json.to_string())),
        "input_path" => field.string().map(TargetInput::Path),
        _ => transformer(field),
    };
    let input = input.unwrap_or(TargetInput::Event);
    for error in Input::check(&input.spec()) {
        report(&error, field);
    }
    input
}

fn transformer(field: &Field<'_>) -> Option<TargetInput> {
    let table = field.table(&fields::TRANSFORMER)?;
    let entries = table.get("paths").and_then(|f| f.entries());
    // A path that cannot be read still defines its variable.
    let path = |entry: &Field<'_>| entry.string().unwrap_or_else(|| "$".to_owned());
    let paths = entries.unwrap_or_default();
    Some(TargetInput::Transformer {
        paths: paths
            .iter()
            .map(|entry| (entry.name.clone(), path(entry)))
            .collect(),
        template: table.need("template")?.filled()?.reveal().to_owned(),
    })
}

/// Puts an error of the engine where its field was written.
fn report(error: &InputError, field: &Field<'_>) {
    let (at, reason) = match error {
        InputError::Refused { field, reason, .. } => (field.as_str(), reason.clone()),
        InputError::Unknown { name, .. } => (
            "template",
            format!("the template uses `<{name}>`, which `paths` does not define"),
        ),
        // These come from events, and there is none yet.
        InputError::Event { .. } | InputError::NoMatch { .. } => return,
    };
    let mut steps = at.split('.').filter(|_| at != field.name);
    let inner = steps.try_fold(field.clone(), |field, name| {
        let entries = field.entries_if_table()?;
        entries.into_iter().find(|entry| entry.name == name)
    });
    let inner = inner.unwrap_or_else(|| field.clone());
    let mut diagnostic = Diagnostic::error(&codes::BAD_INPUT, reason);
    diagnostic = diagnostic.at(inner.place_at(error.offset().unwrap_or(0)));
    if let InputError::Unknown { name, .. } = error {
        let paths = field.entries_if_table().unwrap_or_default();
        let paths = paths.iter().find(|entry| entry.name == "paths");
        let known = paths.and_then(Field::entries_if_table).unwrap_or_default();
        let known = known.iter().map(|entry| entry.name.as_str());
        diagnostic = diagnostic.suggest(name, known.chain(RESERVED));
    }
    field.report(diagnostic);
}
