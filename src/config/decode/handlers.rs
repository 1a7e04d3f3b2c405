//! Handlers: how they are fed and what they do.

use super::{ends, extract, load, transform};
use crate::config::fields;
use crate::config::raw::{RawHandler, RawKind};
use crate::config::read::{At, Field};
use crate::config::yaml::shorten;
use crate::delivery::{BatchOptions, DeliveryOptions};
use crate::error::{Code, Diagnostic, codes};
use crate::handlers::maintain::{MaintainOptions, TableRef};
use crate::handlers::transform::upkeep::Upkeep;
use std::time::Duration;

/// Longest time that a batch is waited for.
const MAX_WINDOW: Duration = Duration::from_secs(15 * 60);

pub(in crate::config) fn handler(field: &Field<'_>) -> Option<RawHandler> {
    let table = field.table(&fields::HANDLER)?;
    let default = DeliveryOptions::default();
    let from = table
        .get("from")
        .and_then(|f| f.one_or_more())
        .unwrap_or_default();
    let notify = table.get("notify").and_then(|f| f.table(&fields::NOTIFY));
    let topic = |name: &str| {
        let field = notify.as_ref()?.get(name)?;
        field.string().map(|topic| field.at(topic))
    };
    let concurrency = table.get("concurrency").and_then(|f| f.integer(1..=16_384));
    let timeout = table.get("timeout").and_then(|f| {
        let timeout = f.duration()?;
        if timeout.is_zero() {
            f.report(f.error(&codes::BAD_VALUE, "`timeout` must be above 0"));
            return None;
        }
        Some(timeout)
    });
    Some(RawHandler {
        from: from
            .iter()
            .filter_map(|f| f.string().map(|name| f.at(name)))
            .collect(),
        batch: batch(table.get("batch")),
        concurrency: concurrency
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default.concurrency),
        timeout: timeout.unwrap_or(default.timeout),
        rate: table.get("rate").and_then(|f| f.positive()),
        retry: super::retry(table.get("retry")),
        success: topic("success"),
        failure: topic("failure"),
        kind: table.one_of(&fields::HANDLER_KINDS).and_then(|f| kind(&f)),
    })
}

fn kind(field: &Field<'_>) -> Option<RawKind> {
    match field.name.as_str() {
        "transform" => transform::transform(field).map(|t| RawKind::Transform(Box::new(t))),
        "extract" => extract::extract(field).map(|e| RawKind::Extract(Box::new(e))),
        "load" => load::load(field).map(RawKind::Load),
        "maintain" => maintain(field).map(RawKind::Maintain),
        "exec" => ends::exec(field).map(RawKind::Exec),
        _ => ends::webhook(field).map(RawKind::Http),
    }
}

fn batch(field: Option<Field<'_>>) -> BatchOptions {
    let mut batch = BatchOptions::default();
    let Some(table) = field.and_then(|f| f.table(&fields::BATCH)) else {
        return batch;
    };
    let number = |n: u64| usize::try_from(n).ok();
    if let Some(size) = table
        .get("size")
        .and_then(|f| f.integer(1..=10_000))
        .and_then(number)
    {
        batch.size = size;
    }
    if let Some(field) = table.get("bytes") {
        match field.size() {
            Some(0) => field.report(field.error(&codes::BAD_VALUE, "`bytes` must be above 0")),
            Some(bytes) => batch.bytes = number(bytes).unwrap_or(batch.bytes),
            None => {}
        }
    }
    batch.by = table.get("by").and_then(|f| super::path(&f));
    if let Some(field) = table.get("window") {
        match field.duration() {
            Some(window) if window > MAX_WINDOW => {
                field.report(field.error(&codes::BAD_VALUE, "`window` must be at most `15m`"));
            }
            Some(window) => batch.window = window,
            None => {}
        }
    }
    batch
}

/// Whether a table can be called so.
pub(super) fn is_table_name(name: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(fit)
}

/// Tables are folders, and names in SQL.
pub(super) fn table_name(field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    if is_table_name(&name) {
        return Some(name);
    }
    let diagnostic = field.error(
        &codes::BAD_NAME,
        format!("`{}` cannot be the name of a table", shorten(&name)),
    );
    field.report(diagnostic.hint(
        "names of tables have letters, digits, `-` and `_`, and start with a letter or digit",
    ));
    None
}

/// Names of columns, each once.
pub(super) fn columns(field: &Field<'_>, code: &'static Code) -> Vec<String> {
    let fields = field.one_or_more().unwrap_or_default();
    let mut seen: Vec<At<String>> = Vec::new();
    for column in fields
        .iter()
        .filter_map(|f| f.string().map(|name| f.at(name)))
    {
        if column.value.contains(['/', '=', '\\']) || column.value.starts_with('.') {
            let message = format!(
                "`{}` cannot be a column of `{}`",
                shorten(&column.value),
                field.name
            );
            field.report(Diagnostic::error(code, message).at(column.place.clone()));
        } else if let Some(first) = seen.iter().find(|known| known.value == column.value) {
            let message = format!(
                "the column `{}` stands twice in `{}`",
                column.value, field.name
            );
            let diagnostic = Diagnostic::error(code, message).at(column.place.clone());
            field.report(diagnostic.related(first.place.clone(), "the first is here"));
        } else {
            seen.push(column);
        }
    }
    seen.into_iter().map(|column| column.value).collect()
}

fn maintain(field: &Field<'_>) -> Option<MaintainOptions> {
    let table = field.table(&fields::MAINTAIN)?;
    let name = table.one_of(&["lake", "warehouse"])?;
    let named = table_name(&name)?;
    let table_ref = match name.name.as_str() {
        "lake" => TableRef::Lake(named),
        _ => TableRef::Warehouse(named),
    };
    let size = |name: &str, default: u64| table.get(name).and_then(|f| f.size()).unwrap_or(default);
    let days = |n: u64| Duration::from_secs(n * 24 * 3600);
    Some(MaintainOptions {
        table: table_ref,
        upkeep: Upkeep {
            small: size("small", 32 << 20),
            target: size("target_size", 128 << 20).max(1),
            keep: table.get("keep").and_then(|f| f.duration()),
            grace: table
                .get("grace")
                .and_then(|f| grace(&f))
                .unwrap_or(days(7)),
        },
    })
}

/// A publication moves its files before it names them, so they must be safe
/// from the upkeep for some time.
fn grace(field: &Field<'_>) -> Option<Duration> {
    let grace = field.duration()?;
    if grace < Duration::from_secs(3600) {
        field.report(field.error(&codes::BAD_VALUE, "`grace` must be at least `1h`"));
        return None;
    }
    Some(grace)
}
