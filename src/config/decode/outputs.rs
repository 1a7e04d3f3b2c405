//! Topics, their subscriptions, and schedules.

use super::{ends, publishers, retry, rules};
use crate::config::model::{DEFAULT_BUS, Schedule, When};
use crate::config::raw::{Named, RawSubscription, RawTarget, RawTo};
use crate::config::read::{Field, Table, bus_name, check_name};
use crate::config::{fields, pattern};
use crate::error::{Diagnostic, codes};
use crate::topics::FilterOn;
use chrono::{DateTime, Utc};
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use std::time::Duration;

pub(in crate::config) fn topic(field: &Field<'_>) -> Option<Vec<Named<RawSubscription>>> {
    let table = field.table(&fields::TOPIC)?;
    let entries = table.get("subscriptions").and_then(|f| f.entries());
    let read = |entry: Field<'_>| {
        check_name(&entry, "subscription");
        Named {
            value: subscription(&entry),
            place: entry.key_place(),
            name: entry.name,
        }
    };
    Some(entries.unwrap_or_default().into_iter().map(read).collect())
}

fn subscription(field: &Field<'_>) -> Option<RawSubscription> {
    let table = field.table(&fields::SUBSCRIPTION)?;
    let filter_on = table
        .get("filter_on")
        .and_then(|f| {
            f.choice(&[
                ("body", FilterOn::Body),
                ("attributes", FilterOn::Attributes),
            ])
        })
        .unwrap_or_default();
    let filter = table.get("filter").and_then(|f| {
        if filter_on == FilterOn::Attributes {
            check_attributes(&f);
        }
        pattern::read(&f)
    });
    let retry = retry(table.get("retry"));
    let input = rules::input(&table);
    let kind = table.one_of(&fields::PROTOCOLS)?;
    Some(RawSubscription {
        filter,
        filter_on,
        target: RawTarget {
            place: kind.key_place(),
            id: None,
            to: protocol(&table, &kind)?,
            input,
            retry,
        },
    })
}

fn protocol(table: &Table<'_>, kind: &Field<'_>) -> Option<RawTo> {
    if matches!(kind.name.as_str(), "queue" | "bus") && kind.item.is_null() {
        let message = format!("`{}` needs a name", kind.name);
        table
            .field
            .report(kind.error(&codes::MISSING_FIELD, message));
        return None;
    }
    Some(match kind.name.as_str() {
        "webhook" => RawTo::Webhook(ends::subscribed_webhook(kind)?),
        "exec" => RawTo::Exec(ends::exec(kind)?),
        "queue" => RawTo::Queue(kind.string().map(|name| kind.at(name))?),
        "bus" => RawTo::Bus(bus_name(kind)?.value),
        name if fields::PUBLISHERS.contains(&name) => RawTo::Publish(publishers::publisher(kind)?),
        _ => {
            kind.table(&fields::PULL)?;
            RawTo::Pull
        }
    })
}

/// Members of the envelope that are attributes of a message.
const ATTRIBUTES: [&str; 9] = [
    "account",
    "cloudevent",
    "detail-type",
    "id",
    "region",
    "resources",
    "source",
    "time",
    "version",
];

/// Reports what no message has as an attribute.
fn check_attributes(filter: &Field<'_>) {
    for entry in filter.entries_if_table().unwrap_or_default() {
        let name = entry.name.as_str();
        if ATTRIBUTES.contains(&name) || name.starts_with('$') {
            continue;
        }
        let message = format!("a message has no attribute `{name}`");
        let mut diagnostic = Diagnostic::error(&codes::BAD_PATTERN, message).at(entry.key_place());
        diagnostic = match name {
            "detail" => diagnostic.hint("`detail` is the body: leave `filter_on` out, and `detail` too"),
            _ => diagnostic
                .suggest(name, ATTRIBUTES)
                .hint("attributes are the members of the event's envelope; what is in `detail` is the body"),
        };
        filter.report(diagnostic);
    }
}

pub(in crate::config) fn schedule(field: &Field<'_>) -> Option<Schedule> {
    let table = field.table(&fields::SCHEDULE)?;
    let timezone = table
        .get("timezone")
        .and_then(|f| timezone(&f))
        .unwrap_or(chrono_tz::UTC);
    let when = table
        .one_of(&["cron", "every"])
        .and_then(|f| match f.name.as_str() {
            "cron" => cron(&f, timezone),
            _ => every(&f),
        });
    let bus = table
        .bus()
        .map_or_else(|| DEFAULT_BUS.to_owned(), |bus| bus.value);
    let emit = table.need("emit")?.table(&fields::EMIT)?;
    let source = emit.string_or("source", "pointsman.schedule");
    let detail_type = emit.need("detail-type").and_then(|f| f.string());
    let detail = match emit.get("detail") {
        None => serde_json::json!({}),
        Some(field) => {
            let detail = field.json()?;
            if !detail.is_object() {
                let message = format!("`detail` must be a table, not {}", field.item.describe());
                field.report(field.error(&codes::WRONG_TYPE, message));
                return None;
            }
            detail
        }
    };
    Some(Schedule {
        when: when?,
        bus,
        source,
        detail_type: detail_type?,
        detail,
    })
}

fn timezone(field: &Field<'_>) -> Option<chrono_tz::Tz> {
    let name = field.string()?;
    match name.parse() {
        Ok(zone) => Some(zone),
        Err(_) => {
            let diagnostic =
                field.error(&codes::BAD_TIMEZONE, format!("`{name}` is not a time zone"));
            let zones = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
            field.report(diagnostic.suggest(&name, zones));
            None
        }
    }
}

fn cron(field: &Field<'_>, timezone: chrono_tz::Tz) -> Option<When> {
    let text = field.string()?;
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let reason = match parser.parse(&text) {
        // Any start will do to see that it is due at all; `0 0 30 2 *` never is.
        Ok(cron) => match cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, false) {
            Ok(_) => {
                return Some(When::Cron {
                    text,
                    cron: Box::new(cron),
                    timezone,
                });
            }
            Err(_) => "it is never due".to_owned(),
        },
        Err(error) => cron_reason(&error, &text),
    };
    let diagnostic = field.error(
        &codes::BAD_CRON,
        format!("`{text}` is not a cron line: {reason}"),
    );
    field.report(diagnostic.hint(
        "five fields: minute, hour, day, month, day of the week; `0 2 * * *` is every night at two",
    ));
    None
}

fn cron_reason(error: &CronError, text: &str) -> String {
    let fields = text.split_whitespace().count();
    match error {
        _ if fields != 5 && !text.starts_with('@') => format!("it has {fields} fields, not 5"),
        CronError::InvalidPattern(reason)
        | CronError::IllegalCharacters(reason)
        | CronError::ComponentError(reason) => {
            let reason = reason.trim_end_matches('.');
            let mut chars = reason.chars();
            chars.next().map_or_else(String::new, |first| {
                first.to_lowercase().chain(chars).collect()
            })
        }
        _ => "a field is out of its range".to_owned(),
    }
}

fn every(field: &Field<'_>) -> Option<When> {
    let every = field.duration()?;
    if every < Duration::from_secs(1) {
        field.report(field.error(&codes::BAD_VALUE, "`every` must be at least `1s`"));
        return None;
    }
    Some(When::Every(every))
}
