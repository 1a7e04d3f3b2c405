//! From trees to what was written: sections, names, the node. The
//! other sections have files of their own.

mod connections;
mod ends;
mod extract;
mod folder;
mod handlers;
mod load;
mod outputs;
mod publishers;
mod queues;
mod rules;
mod s3;
mod transform;

pub(super) use transform::paths_hint;

use super::fields;
use super::marks::{DiskQuota, MemoryMarks};
use super::raw::{Named, Raw, RawRetry};
use super::read::{At, Field, Table, check_name};
use crate::error::{Diagnostic, Place, codes};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Longest event that the log can be told to take.
const MAX_EVENT_BYTES: u64 = 16 << 20;

/// Reads one file into `raw`.
pub(super) fn file(top: &Field<'_>, raw: &mut Raw) {
    let Some(table) = top.table(&fields::CONFIG) else {
        return;
    };
    if let Some(field) = table.get("node") {
        read_node(&field, raw);
    }
    section(
        &table,
        "connections",
        "connection",
        &mut raw.connections,
        connections::connection,
    );
    section(
        &table,
        "sources",
        "source",
        &mut raw.sources,
        folder::source,
    );
    section(&table, "queues", "queue", &mut raw.queues, queues::queue);
    section(&table, "rules", "rule", &mut raw.rules, rules::rule);
    section(
        &table,
        "handlers",
        "handler",
        &mut raw.handlers,
        handlers::handler,
    );
    section(&table, "topics", "topic", &mut raw.topics, outputs::topic);
    section(
        &table,
        "schedules",
        "schedule",
        &mut raw.schedules,
        outputs::schedule,
    );
}

/// Reads the names of a section; each must be new in all files.
fn section<'a, T>(
    table: &Table<'a>,
    name: &str,
    what: &str,
    into: &mut Vec<Named<T>>,
    read: impl Fn(&Field<'a>) -> Option<T>,
) {
    let Some(entries) = table.get(name).and_then(|f| f.entries()) else {
        return;
    };
    let firsts: BTreeMap<String, Place> = into
        .iter()
        .map(|known| (known.name.clone(), known.place.clone()))
        .collect();
    for field in entries {
        check_name(&field, what);
        let place = field.key_place();
        if let Some(first) = firsts.get(&field.name) {
            let message = format!(
                "the {what} `{}` is declared twice: in {first} and in {place}",
                field.name
            );
            let diagnostic = Diagnostic::error(&codes::DUPLICATE_NAME, message).at(place);
            field.report(diagnostic.related(first.clone(), "the first is here"));
            continue;
        }
        let value = read(&field);
        into.push(Named {
            name: field.name.clone(),
            place,
            value,
        });
    }
}

fn read_node(field: &Field<'_>, raw: &mut Raw) {
    if let Some(first) = &raw.node {
        let message = format!(
            "`node` is set twice: in {} and in {}",
            first.place,
            field.key_place()
        );
        let diagnostic = Diagnostic::error(&codes::DUPLICATE_NAME, message).at(field.key_place());
        field.report(diagnostic.related(first.place.clone(), "the first is here"));
        return;
    }
    let Some(table) = field.table(&fields::NODE) else {
        return;
    };
    let mut node = crate::config::default_node(field.cx.root);
    let duration = |name: &str, into: &mut Duration| *into = table.duration_or(name, *into);
    duration("retention", &mut node.retention);
    duration("dedupe_window", &mut node.dedupe);
    duration("dead_letter_retention", &mut node.dead_letter_retention);
    duration("shutdown", &mut node.shutdown);
    if let Some(warehouse) = table
        .get("warehouse")
        .and_then(|f| f.table(&fields::WAREHOUSE))
    {
        node.warehouse = warehouse.need("s3").and_then(|f| s3::folder(&f));
    }
    if let Some(data) = table.get("data").and_then(|f| f.path()) {
        node.data = data;
    }
    if let Some(address) = table.get("listen").and_then(|f| listen(&f)) {
        node.listen = address;
    }
    if let Some(bytes) = table
        .get("max_event_size")
        .and_then(|f| size_within(&f, 1024, MAX_EVENT_BYTES))
    {
        node.max_event_bytes = bytes;
    }
    if let Some(bytes) = table
        .get("query_memory")
        .and_then(|f| size_within(&f, 16 << 20, 1 << 46))
    {
        node.query_memory_bytes = bytes;
    }
    if let Some(disk) = table.get("disk").and_then(|f| f.table(&fields::DISK)) {
        node.disk = disk_quota(&disk);
    }
    node.retention_bytes = table
        .get("retention_size")
        .and_then(|f| size_within(&f, 1 << 20, 1 << 50))
        .map(|bytes| bytes as u64);
    if let Some(memory) = table.get("memory").and_then(|f| f.table(&fields::MEMORY)) {
        memory_marks(&memory, &mut node.memory);
    }
    node.account = table.string_or("account", &node.account);
    node.region = table.string_or("region", &node.region);
    node.public_url = table.get("public_url").and_then(|f| ends::url(&f));
    raw.node = Some(At {
        value: node,
        place: field.key_place(),
    });
}

fn size_within(field: &Field<'_>, min: u64, max: u64) -> Option<usize> {
    let bytes = field.size()?;
    if (min..=max).contains(&bytes) {
        return usize::try_from(bytes).ok();
    }
    let (min, max) = (
        crate::config::format_size(min),
        crate::config::format_size(max),
    );
    let message = format!("`{}` must be between `{min}` and `{max}`", field.name);
    field.report(field.error(&codes::BAD_VALUE, message));
    None
}

fn disk_quota(table: &Table<'_>) -> DiskQuota {
    let size = |name: &str| table.get(name).and_then(|f| f.size());
    let quota = DiskQuota {
        warn_bytes: size("warn"),
        refuse_bytes: size("refuse"),
    };
    if let (Some(warn), Some(refuse), Some(field)) =
        (quota.warn_bytes, quota.refuse_bytes, table.get("warn"))
        && warn >= refuse
    {
        let message = "`warn` must be below `refuse`, or nobody is warned";
        field.report(field.error(&codes::BAD_VALUE, message));
    }
    quota
}

fn memory_marks(table: &Table<'_>, marks: &mut MemoryMarks) {
    let mark = |name: &str, into: &mut usize| {
        let given = table
            .get(name)
            .and_then(|f| size_within(&f, 4 << 10, 1 << 46));
        *into = given.unwrap_or(*into);
    };
    mark("intake", &mut marks.intake_bytes);
    mark("waiting", &mut marks.waiting_bytes);
    mark("ids", &mut marks.ids_bytes);
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
        field.report(
            diagnostic
                .hint("write an IP address and a port, like `127.0.0.1:7070`, or a port alone"),
        );
        return None;
    };
    if !address.ip().is_loopback() {
        let message = format!(
            "`{}` can be reached by other machines, and asks nobody who they are",
            text.shown()
        );
        let warning = Diagnostic::warning(&codes::OPEN_LISTEN, message).at(field.place());
        field.report(warning.hint("use `127.0.0.1`, and a proxy that asks for a password"));
    }
    Some(address)
}

/// A dotted path into the event.
fn path(field: &Field<'_>) -> Option<String> {
    let path = field.string()?;
    if path.split('.').any(str::is_empty) {
        let diagnostic = field.error(
            &codes::BAD_VALUE,
            format!("`{path}` is not a path into the event"),
        );
        field.report(diagnostic.hint("write the names with dots between, like `detail.customer`"));
        return None;
    }
    Some(path)
}

/// A retry policy as far as it is written.
pub(super) fn retry(field: Option<Field<'_>>) -> RawRetry {
    let Some(table) = field.and_then(|f| f.table(&fields::RETRY)) else {
        return RawRetry::default();
    };
    let duration = |name: &str| table.get(name).and_then(|f| f.duration());
    let retry = RawRetry {
        attempts: table
            .get("attempts")
            .and_then(|f| f.integer(1..=1_000))
            .and_then(|n| u32::try_from(n).ok()),
        lost: table
            .get("lost")
            .and_then(|f| f.integer(1..=1_000))
            .and_then(|n| u32::try_from(n).ok()),
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
