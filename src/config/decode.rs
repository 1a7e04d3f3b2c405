//! From trees to what was written: sections, names, the node, sources, queues,
//! topics and schedules. Rules and handlers have files of their own.

use super::fields;
use super::model::{
    DEFAULT_BUS, DiskQuota, Exec, Schedule, Subscription, SubscriptionProtocol, Topic, Webhook, When,
};
use super::raw::{Named, Raw, RawQueue, RawRetry};
use super::read::{At, Field, Table, check_name};
use super::{decode_handlers, decode_rules, folder, pattern};
use crate::error::{Diagnostic, Place, codes};
use base64::Engine as _;
use chrono::{DateTime, Utc};
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Longest event that the log can be told to take.
const MAX_EVENT_BYTES: u64 = 16 << 20;
/// Most bytes of a program's output that are kept.
const EXEC_OUTPUT_BYTES: usize = 64 * 1024;

/// Reads one file into `raw`.
pub(super) fn file(top: &Field<'_>, raw: &mut Raw) {
    let Some(table) = top.table(&fields::CONFIG) else { return };
    if let Some(field) = table.get("node") {
        read_node(&field, raw);
    }
    if let Some(field) = table.get("connections") {
        refuse_connections(&field);
    }
    section(&table, "sources", "source", &mut raw.sources, folder::source);
    section(&table, "queues", "queue", &mut raw.queues, queue);
    section(&table, "rules", "rule", &mut raw.rules, decode_rules::rule);
    section(&table, "handlers", "handler", &mut raw.handlers, decode_handlers::handler);
    section(&table, "topics", "topic", &mut raw.topics, topic);
    section(&table, "schedules", "schedule", &mut raw.schedules, schedule);
}

/// Reads the names of a section; each must be new in all files.
fn section<'a, T>(
    table: &Table<'a>,
    name: &str,
    what: &str,
    into: &mut Vec<Named<T>>,
    read: impl Fn(&Field<'a>) -> Option<T>,
) {
    let Some(entries) = table.get(name).and_then(|f| f.entries()) else { return };
    let firsts: BTreeMap<String, Place> = into.iter().map(|known| (known.name.clone(), known.place.clone())).collect();
    for field in entries {
        check_name(&field, what);
        let place = field.key_place();
        if let Some(first) = firsts.get(&field.name) {
            let message = format!("the {what} `{}` is declared twice: in {first} and in {place}", field.name);
            let diagnostic = Diagnostic::error(&codes::DUPLICATE_NAME, message).at(place);
            field.report(diagnostic.related(first.clone(), "the first is here"));
            continue;
        }
        let value = read(&field);
        into.push(Named { name: field.name.clone(), place, value });
    }
}

fn refuse_connections(field: &Field<'_>) {
    for connection in field.entries().unwrap_or_default() {
        check_name(&connection, "connection");
        for kind in connection.entries().unwrap_or_default() {
            let message = format!("no driver of this build is called `{}`", kind.name);
            let diagnostic = Diagnostic::error(&codes::NO_CONNECTIONS, message).at(kind.key_place());
            field.report(diagnostic.hint("`pointsman drivers` lists the drivers that are built in"));
        }
    }
}

fn read_node(field: &Field<'_>, raw: &mut Raw) {
    if let Some(first) = &raw.node {
        let message = format!("`node` is set twice: in {} and in {}", first.place, field.key_place());
        let diagnostic = Diagnostic::error(&codes::DUPLICATE_NAME, message).at(field.key_place());
        field.report(diagnostic.related(first.place.clone(), "the first is here"));
        return;
    }
    let Some(table) = field.table(&fields::NODE) else { return };
    let mut node = super::default_node(field.cx.root);
    let duration = |name: &str, into: &mut Duration| *into = table.duration_or(name, *into);
    duration("retention", &mut node.retention);
    duration("dedupe_window", &mut node.dedupe);
    duration("dead_letter_retention", &mut node.dead_letter_retention);
    duration("shutdown", &mut node.shutdown);
    if let Some(data) = table.get("data").and_then(|f| f.path()) {
        node.data = data;
    }
    if let Some(address) = table.get("listen").and_then(|f| listen(&f)) {
        node.listen = address;
    }
    if let Some(bytes) = table.get("max_event_size").and_then(|f| size_within(&f, 1024, MAX_EVENT_BYTES)) {
        node.max_event_bytes = bytes;
    }
    if let Some(bytes) = table.get("query_memory").and_then(|f| size_within(&f, 16 << 20, 1 << 46)) {
        node.query_memory_bytes = bytes;
    }
    if let Some(disk) = table.get("disk").and_then(|f| f.table(&fields::DISK)) {
        node.disk = disk_quota(&disk);
    }
    node.account = table.string_or("account", &node.account);
    node.region = table.string_or("region", &node.region);
    raw.node = Some(At { value: node, place: field.key_place() });
}

fn size_within(field: &Field<'_>, min: u64, max: u64) -> Option<usize> {
    let bytes = field.size()?;
    if (min..=max).contains(&bytes) {
        return usize::try_from(bytes).ok();
    }
    let (min, max) = (super::format_size(min), super::format_size(max));
    let message = format!("`{}` must be between `{min}` and `{max}`", field.name);
    field.report(field.error(&codes::BAD_VALUE, message));
    None
}

fn disk_quota(table: &Table<'_>) -> DiskQuota {
    let size = |name: &str| table.get(name).and_then(|f| f.size());
    let quota = DiskQuota { warn_bytes: size("warn"), refuse_bytes: size("refuse") };
    if let (Some(warn), Some(refuse), Some(field)) = (quota.warn_bytes, quota.refuse_bytes, table.get("warn"))
        && warn >= refuse
    {
        let message = "`warn` must be below `refuse`, or nobody is warned";
        field.report(field.error(&codes::BAD_VALUE, message));
    }
    quota
}

fn listen(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.filled()?;
    let written = text.reveal();
    let address = match written.parse::<u16>() {
        Ok(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => written.replace("localhost:", "127.0.0.1:").parse().ok(),
    };
    let Some(address) = address else {
        let message = format!("`{}` is not an address to listen on", text.shown());
        let diagnostic = field.error(&codes::BAD_LISTEN, message);
        field.report(diagnostic.hint("write an IP address and a port, like `127.0.0.1:7070`, or a port alone"));
        return None;
    };
    if !address.ip().is_loopback() {
        let message = format!("`{}` can be reached by other machines, and asks nobody who they are", text.shown());
        let warning = Diagnostic::warning(&codes::OPEN_LISTEN, message).at(field.place());
        field.report(warning.hint("use `127.0.0.1`, and a proxy that asks for a password"));
    }
    Some(address)
}

fn queue(field: &Field<'_>) -> Option<RawQueue> {
    let table = field.table(&fields::QUEUE)?;
    let visibility = table.get("visibility").and_then(|f| f.duration().map(|d| f.at(d)));
    let order_by = table.get("order_by").and_then(|f| {
        let path = f.string()?;
        if path.split('.').any(str::is_empty) {
            let diagnostic = f.error(&codes::BAD_VALUE, format!("`{path}` is not a path into the event"));
            f.report(diagnostic.hint("write the names with dots between, like `detail.customer`"));
            return None;
        }
        Some(path)
    });
    Some(RawQueue {
        visibility,
        delay: table.duration_or("delay", Duration::ZERO),
        order_by,
        retry: retry(table.get("retry")),
    })
}

/// A retry policy as far as it is written.
pub(super) fn retry(field: Option<Field<'_>>) -> RawRetry {
    let Some(table) = field.and_then(|f| f.table(&fields::RETRY)) else {
        return RawRetry::default();
    };
    let duration = |name: &str| table.get(name).and_then(|f| f.duration());
    let retry = RawRetry {
        attempts: table.get("attempts").and_then(|f| f.integer(1..=1_000)).and_then(|n| u32::try_from(n).ok()),
        base: duration("base"),
        cap: duration("cap"),
        max_age: duration("max_age"),
    };
    if let (Some(base), Some(cap), Some(field)) = (retry.base, retry.cap, table.get("cap"))
        && cap < base
    {
        field.report(field.error(&codes::BAD_VALUE, "`cap` must not be shorter than `base`"));
    }
    retry
}

fn topic(field: &Field<'_>) -> Option<Topic> {
    let table = field.table(&fields::TOPIC)?;
    let mut topic = Topic::default();
    for entry in table.get("subscriptions").and_then(|f| f.entries()).unwrap_or_default() {
        check_name(&entry, "subscription");
        if let Some(subscription) = subscription(&entry) {
            topic.subscriptions.insert(entry.name.clone(), subscription);
        }
    }
    Some(topic)
}

fn subscription(field: &Field<'_>) -> Option<Subscription> {
    let table = field.table(&fields::SUBSCRIPTION)?;
    let (filter, filter_text) = match table.get("filter") {
        Some(filter) => pattern::read(&filter).unzip(),
        None => (None, None),
    };
    let retry = retry(table.get("retry")).policy();
    let kind = table.one_of(&fields::PROTOCOLS)?;
    let protocol = match kind.name.as_str() {
        "webhook" => SubscriptionProtocol::Webhook(webhook(&kind)?),
        "exec" => SubscriptionProtocol::Exec(exec(&kind)?),
        _ => {
            kind.table(&fields::PULL)?;
            SubscriptionProtocol::Pull
        }
    };
    Some(Subscription { filter, filter_text, protocol, retry })
}

/// An HTTP endpoint.
pub(super) fn webhook(field: &Field<'_>) -> Option<Webhook> {
    let table = field.table(&fields::WEBHOOK)?;
    let url = table.need("url").and_then(|f| {
        let url = f.filled()?;
        match url_reason(url.reveal()) {
            None => Some(url),
            Some(reason) => {
                let diagnostic = f.error(&codes::BAD_URL, format!("`{}` is not a URL: {reason}", url.shown()));
                f.report(diagnostic.hint("write the whole address, like `https://example.com/hook`"));
                None
            }
        }
    });
    let headers = table.get("headers").and_then(|f| headers(&f));
    let webhook = Webhook {
        url: url?,
        secret: table.get("secret").and_then(|f| secret(&f)),
        headers: headers.unwrap_or_default(),
        timeout: table.duration_or("timeout", Duration::from_secs(10)),
        allow_private: table.bool_or("allow_private", false),
    };
    Some(webhook)
}

fn url_reason(url: &str) -> Option<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("`http://` or `https://` is missing".to_owned());
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Some("it is neither `http://` nor `https://`".to_owned());
    }
    if rest.split(['/', '?', '#']).next().is_none_or(str::is_empty) {
        return Some("the host is missing".to_owned());
    }
    url.parse::<http::Uri>().err().map(|error| error.to_string())
}

/// Standard Webhooks: `whsec_` and base64, or base64 alone.
fn secret(field: &Field<'_>) -> Option<super::Text> {
    let secret = field.filled()?;
    let key = secret.reveal().strip_prefix("whsec_").unwrap_or(secret.reveal());
    if base64::engine::general_purpose::STANDARD.decode(key).is_ok() {
        return Some(secret);
    }
    let diagnostic = field.error(&codes::BAD_VALUE, "`secret` must be `whsec_` and base64");
    field.report(diagnostic.hint("make one with: printf 'whsec_%s' \"$(head -c 24 /dev/urandom | base64)\""));
    None
}

fn headers(field: &Field<'_>) -> Option<BTreeMap<String, super::Text>> {
    for entry in field.entries()? {
        if http::HeaderName::try_from(&entry.name).is_err() {
            let message = format!("`{}` is not the name of an HTTP header", entry.name);
            field.report(Diagnostic::error(&codes::BAD_VALUE, message).at(entry.key_place()));
        }
    }
    field.texts()
}

/// A program.
pub(super) fn exec(field: &Field<'_>) -> Option<Exec> {
    let table = field.table(&fields::EXEC)?;
    let env = table.get("env").and_then(|f| f.texts()).unwrap_or_default();
    let cwd = table.get("cwd").and_then(|f| f.path());
    let command = table.need("command")?;
    if matches!(command.item.scalar(), Some(super::yaml::Scalar::Text(_))) {
        let diagnostic = command.error(&codes::WRONG_TYPE, "`command` must be a list: there is no shell to split it");
        command.report(diagnostic.hint("write the program and each argument by itself: `[python3, load.py]`"));
        return None;
    }
    let fields = command.list()?;
    let words: Vec<_> = fields.iter().filter_map(Field::text).collect();
    if words.first().is_none_or(|program| program.reveal().is_empty()) {
        command.report(command.error(&codes::BAD_VALUE, "`command` needs a program"));
        return None;
    }
    Some(Exec {
        command: words,
        env,
        cwd: Some(cwd.unwrap_or_else(|| field.cx.root.to_path_buf())),
        max_output: EXEC_OUTPUT_BYTES,
    })
}

fn schedule(field: &Field<'_>) -> Option<Schedule> {
    let table = field.table(&fields::SCHEDULE)?;
    let timezone = table.get("timezone").and_then(|f| timezone(&f)).unwrap_or(chrono_tz::UTC);
    let when = table.one_of(&["cron", "every"]).and_then(|f| match f.name.as_str() {
        "cron" => cron(&f, timezone),
        _ => every(&f),
    });
    let bus = table.string_or("bus", DEFAULT_BUS);
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
    Some(Schedule { when: when?, bus, source, detail_type: detail_type?, detail })
}

fn timezone(field: &Field<'_>) -> Option<chrono_tz::Tz> {
    let name = field.string()?;
    match name.parse() {
        Ok(zone) => Some(zone),
        Err(_) => {
            let diagnostic = field.error(&codes::BAD_TIMEZONE, format!("`{name}` is not a time zone"));
            let zones = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
            field.report(diagnostic.suggest(&name, zones));
            None
        }
    }
}

fn cron(field: &Field<'_>, timezone: chrono_tz::Tz) -> Option<When> {
    let text = field.string()?;
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let reason = match parser.parse(&text) {
        // Any start will do to see that it is due at all; `0 0 30 2 *` never is.
        Ok(cron) => match cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, false) {
            Ok(_) => return Some(When::Cron { text, cron: Box::new(cron), timezone }),
            Err(_) => "it is never due".to_owned(),
        },
        Err(error) => cron_reason(&error, &text),
    };
    let diagnostic = field.error(&codes::BAD_CRON, format!("`{text}` is not a cron line: {reason}"));
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
            chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
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
