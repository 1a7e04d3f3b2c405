//! The configuration with every default visible, in the YAML's own shape, and
//! every reference as it was written.

mod sources;

use super::model::{
    Backing, Config, Exec, Handler, HandlerKind, Load, Node, Queue, Rule, RuleStart, Schedule,
    SchemaPolicy, Subscription, Target, TargetInput, To, Webhook, When,
};
use super::plan_connections::connection;
use super::publish::plan_circuit;
use super::units::{format_duration, format_size};
use crate::delivery::RetryPolicy;
use crate::drivers::amqp::{Declare, Kind as QueueKind};
use crate::handlers::load::Mode;
use crate::handlers::maintain::{MaintainOptions, TableRef};
use crate::handlers::objects::BucketFolder;
use crate::handlers::transform::{
    Duplicates, Format, Input, Ragged, Reference, RejectLimit, TransformOptions,
};
use crate::topics::FilterOn;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        plan(self).serialize(serializer)
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config {}", plan(self))
    }
}

/// A hash of the rules and handlers, as they are shown. It changes when their
/// meaning may have changed, and is the same on every machine.
pub(super) fn rules_version(config: &Config) -> u32 {
    let all = plan(config);
    let digest = Sha256::digest(format!("{}{}", all["rules"], all["handlers"]));
    digest
        .iter()
        .take(4)
        .fold(0, |hash, byte| (hash << 8) | u32::from(*byte))
}

/// The whole configuration as JSON.
pub(super) fn plan(config: &Config) -> Value {
    let paths = Paths { root: &config.root };
    let mut value = json!({
        "node": node(&config.node, &paths),
        "connections": each(&config.connections, |c| connection(c, &paths)),
        "sources": each(&config.sources, |s| sources::source(s, &paths)),
        "queues": each(&config.queues, queue),
        "rules": each(&config.rules, |r| rule(r, &paths)),
        "handlers": each(&config.handlers, |h| handler(h, &paths)),
        "topics": each(&config.topics, |t| json!({
            "subscriptions": each(&t.subscriptions, |s| subscription(s, &paths)),
        })),
        "schedules": each(&config.schedules, schedule),
        "schemas": config.event_schemas.iter().map(|schema| json!({
            "source": schema.source,
            "detail-type": schema.detail_type,
            "policy": match schema.policy {
                SchemaPolicy::Reject => "reject",
                SchemaPolicy::DeadLetter => "dead-letter",
                SchemaPolicy::Warn => "warn",
            },
            "file": paths.show(&schema.file),
        })).collect::<Vec<_>>(),
    });
    redact(config, &mut value);
    value
}

/// Puts references back in the place of their values: by path, and, where the
/// value went to another path, wherever the value stands.
fn redact(config: &Config, value: &mut Value) {
    for (path, text) in &config.shown {
        let pointer = format!(
            "/{}",
            path.replace('~', "~0").replace('/', "~1").replace('.', "/")
        );
        if let Some(leaf) = value.pointer_mut(&pointer)
            && !leaf.is_object()
            && !leaf.is_array()
        {
            *leaf = Value::from(text.shown());
        } else if !text.reveal().is_empty() {
            replace(value, text.reveal(), text.shown());
        }
    }
}

fn replace(value: &mut Value, secret: &str, shown: &str) {
    match value {
        Value::String(text) if text == secret => shown.clone_into(text),
        // A short value inside a longer text would be found everywhere.
        Value::String(text) if secret.len() >= 8 => *text = text.replace(secret, shown),
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| replace(item, secret, shown)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|item| replace(item, secret, shown)),
        _ => {}
    }
}

pub(super) struct Paths<'a> {
    root: &'a Path,
}

impl Paths<'_> {
    pub(super) fn show(&self, path: &Path) -> String {
        let shown = path.strip_prefix(self.root).unwrap_or(path);
        match shown.as_os_str().is_empty() {
            true => ".".to_owned(),
            false => shown.display().to_string(),
        }
    }
}

fn each<T>(all: &BTreeMap<String, T>, show: impl Fn(&T) -> Value) -> Value {
    all.iter()
        .map(|(name, one)| (name.clone(), show(one)))
        .collect::<Map<_, _>>()
        .into()
}

fn node(node: &Node, paths: &Paths<'_>) -> Value {
    json!({
        "data": paths.show(&node.data),
        "listen": node.listen.to_string(),
        "max_event_size": format_size(node.max_event_bytes as u64),
        "retention": format_duration(node.retention),
        "retention_size": node.retention_bytes.map(format_size),
        "dedupe_window": format_duration(node.dedupe),
        "dead_letter_retention": format_duration(node.dead_letter_retention),
        "warehouse": node.warehouse.as_ref().map(|folder| json!({ "s3": s3_folder(folder) })),
        "disk": {
            "warn": node.disk.warn_bytes.map(format_size),
            "refuse": node.disk.refuse_bytes.map(format_size),
        },
        "memory": {
            "intake": format_size(node.memory.intake_bytes as u64),
            "waiting": format_size(node.memory.waiting_bytes as u64),
            "ids": format_size(node.memory.ids_bytes as u64),
        },
        "shutdown": format_duration(node.shutdown),
        "query_memory": format_size(node.query_memory_bytes as u64),
        "account": node.account,
        "region": node.region,
        "public_url": node.public_url,
    })
}

pub(super) fn s3_folder(folder: &BucketFolder) -> Value {
    json!({
        "connection": folder.connection,
        "bucket": folder.bucket,
        "prefix": folder.prefix,
    })
}

fn queue(queue: &Queue) -> Value {
    let mut value = json!({
        "visibility": format_duration(queue.visibility),
        "delay": format_duration(queue.delay),
        "order_by": queue.order_by,
        "retry": retry(&queue.retry),
        "drain_from": queue.drain_from.as_ref().map(|from| {
            let mut value = json!({});
            backing(from, &mut value);
            value
        }),
    });
    if queue.on.is_broker() {
        value["backlog"] = json!(queue.backlog.name());
    }
    backing(&queue.on, &mut value);
    value
}

fn backing(backing: &Backing, value: &mut Value) {
    let (connection, options) = match backing {
        Backing::Log => return,
        Backing::Amqp {
            connection,
            options,
        } => (connection, options),
        Backing::Sqs {
            connection,
            options,
        } => {
            value["sqs"] = json!({
                "connection": connection,
                "queue": options.queue,
                "declare": if options.declare { json!(true) } else { json!("passive") },
                "prefetch": options.prefetch,
                "max_message_size": format_size(options.max_message_bytes as u64),
            });
            return;
        }
    };
    value["amqp"] = json!({
        "connection": connection,
        "queue": options.queue,
        "declare": match options.declare {
            Declare::Active => json!(true),
            Declare::Passive => json!("passive"),
        },
        "kind": match options.kind {
            QueueKind::Quorum => "quorum",
            QueueKind::Classic => "classic",
        },
        "prefetch": options.prefetch,
        "delivery_limit": options.delivery_limit,
        "dead_letter_exchange": options.dead_letter_exchange,
        "dead_letter_routing_key": options.dead_letter_routing_key,
        "max_message_size": format_size(options.max_message_bytes as u64),
    });
}

fn retry(retry: &RetryPolicy) -> Value {
    json!({
        "attempts": retry.attempts,
        "lost": retry.lost,
        "base": format_duration(retry.base),
        "cap": format_duration(retry.cap),
        "max_age": format_duration(retry.max_age),
    })
}

/// JSON text as a tree; what is not JSON stays text.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn rule(rule: &Rule, paths: &Paths<'_>) -> Value {
    json!({
        "description": rule.description,
        "bus": rule.bus,
        "enabled": rule.enabled,
        "start": match rule.start {
            RuleStart::Now => "now".to_owned(),
            RuleStart::Earliest => "earliest".to_owned(),
            RuleStart::Since(ms) => crate::event::rfc3339(ms),
        },
        "pattern": parsed(&rule.pattern_text),
        "wildcard_complexity": rule.pattern.complexity(),
        "targets": rule.targets.iter().map(|t| target(t, paths)).collect::<Vec<_>>(),
    })
}

fn target(target: &Target, paths: &Paths<'_>) -> Value {
    let mut value = json!({ "route": target.route, "retry": retry(&target.retry) });
    let (kind, to) = match &target.to {
        To::Queue(name) => ("queue", json!(name)),
        To::Handler(name) => ("handler", json!(name)),
        To::Topic(name) => ("topic", json!(name)),
        To::Bus(name) => ("bus", json!(name)),
        To::Webhook(hook) => ("webhook", webhook(hook)),
        To::Exec(program) => ("exec", exec(program, paths)),
        To::Publish(to) => (to.kind(), to.plan()),
        To::Pull => ("pull", json!({})),
    };
    value[kind] = to;
    match &target.input {
        TargetInput::Event => {}
        TargetInput::Constant(text) => value["input"] = parsed(text),
        TargetInput::Path(path) => value["input_path"] = json!(path),
        TargetInput::Transformer { paths, template } => {
            value["input_transformer"] = json!({ "paths": paths, "template": template });
        }
    }
    value
}

fn webhook(hook: &Webhook) -> Value {
    json!({
        "url": hook.url,
        "secret": hook.secret.as_ref().map(|secret| match secret.is_secret() {
            true => secret.shown(),
            // Written into the file itself; that is no reason to repeat it.
            false => "***",
        }),
        "headers": hook.headers,
        "timeout": format_duration(hook.timeout),
        "allow_private": hook.allow_private,
        "concurrency": hook.concurrency,
        "circuit": plan_circuit(&hook.circuit),
    })
}

fn exec(exec: &Exec, paths: &Paths<'_>) -> Value {
    json!({
        "command": exec.command,
        "env": exec.env,
        "cwd": exec.cwd.as_deref().map(|cwd| paths.show(cwd)),
    })
}

fn subscription(subscription: &Subscription, paths: &Paths<'_>) -> Value {
    let mut value = target(&subscription.target, paths);
    value["filter"] = json!(subscription.filter_text.as_deref().map(parsed));
    value["filter_on"] = json!(match subscription.filter_on {
        FilterOn::Body => "body",
        FilterOn::Attributes => "attributes",
    });
    if let To::Webhook(hook) = &subscription.target.to {
        value["webhook"]["format"] = json!(hook.format.name());
        value["webhook"]["confirm"] = json!(hook.confirm);
    }
    value
}

fn handler(handler: &Handler, paths: &Paths<'_>) -> Value {
    let mut value = json!({
        "from": handler.from,
        "batch": {
            "size": handler.delivery.batch.size,
            "bytes": format_size(handler.delivery.batch.bytes as u64),
            "window": format_duration(handler.delivery.batch.window),
            "by": handler.delivery.batch.by,
        },
        "concurrency": handler.delivery.concurrency,
        "timeout": format_duration(handler.delivery.timeout),
        "rate": handler.delivery.rate,
        "retry": retry(&handler.delivery.retry),
        "notify": { "success": handler.notify.success, "failure": handler.notify.failure },
    });
    value[handler.kind.name()] = match &handler.kind {
        HandlerKind::Transform(options) => transform(options, paths),
        HandlerKind::Extract(extract) => {
            let mut value = transform(&extract.transform, paths);
            value["http"] = super::extract::shown(&extract.http);
            value
        }
        HandlerKind::Load(options) => load(options),
        HandlerKind::Maintain(options) => maintain(options),
        HandlerKind::Exec(program) => exec(program, paths),
        HandlerKind::Http(hook) => webhook(hook),
    };
    value
}

fn load(load: &Load) -> Value {
    let options = &load.options;
    let mut value = json!({ "table": options.table });
    let Value::Object(map) = &mut value else {
        return value;
    };
    match &options.mode {
        Mode::Append => {
            map.insert("mode".to_owned(), json!("append"));
        }
        Mode::Upsert { key, newer_by } => {
            map.insert("mode".to_owned(), json!("upsert"));
            map.insert("key".to_owned(), json!(key));
            map.extend(newer_by.as_ref().map(|n| ("newer_by".to_owned(), json!(n))));
        }
        Mode::ReplacePartition { by } => {
            map.insert("mode".to_owned(), json!("replace-partition"));
            map.insert("partition_by".to_owned(), json!(by));
        }
    }
    if let Some(to) = &load.to {
        let timeout = format_duration(load.statement_timeout);
        let more = [
            ("to", json!(to)),
            ("create", json!(options.create)),
            ("widen", json!(options.widen)),
            ("statement_timeout", json!(timeout)),
        ];
        map.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    value
}

fn maintain(options: &MaintainOptions) -> Value {
    let upkeep = &options.upkeep;
    let keep = upkeep.keep.map(format_duration);
    match &options.table {
        TableRef::Lake(table) => json!({
            "lake": table,
            "small": format_size(upkeep.small),
            "target_size": format_size(upkeep.target),
            "keep": keep,
            "grace": format_duration(upkeep.grace),
        }),
        TableRef::Warehouse(table) => json!({ "warehouse": table, "keep": keep }),
    }
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Csv => "csv",
        Format::Ndjson => "ndjson",
        Format::JsonArray => "json",
        Format::Parquet => "parquet",
    }
}

fn transform(options: &TransformOptions, paths: &Paths<'_>) -> Value {
    let tables: BTreeMap<_, _> = options
        .tables
        .iter()
        .map(|(name, reference)| {
            let shown = match reference {
                Reference::File(path) => json!(paths.show(path)),
                Reference::Lake(table) => json!(format!("lake:{table}")),
                Reference::Warehouse(table) => json!(format!("warehouse:{table}")),
            };
            (name, shown)
        })
        .collect();
    json!({
        "read": {
            "input": match options.read.input {
                Input::Object => "object",
                Input::Publication => "publication",
                Input::Events => "events",
            },
            "format": options.read.format.map(format_name),
            "encoding": options.read.encoding.map_or("utf-8".to_owned(), |e| e.name().to_lowercase()),
            "delimiter": char::from(options.read.delimiter),
            "quote": char::from(options.read.quote),
            "escape": options.read.escape.map(char::from),
            "comment": options.read.comment.map(char::from),
            "skip": options.read.skip,
            "header": options.read.header,
            "names": options.read.names,
            "duplicates": match options.read.duplicates {
                Duplicates::Refuse => "refuse",
                Duplicates::Rename => "rename",
            },
            "ragged": match options.read.ragged {
                Ragged::Reject => "reject",
                Ragged::Fill => "fill",
            },
            "null": options.read.null,
            "members": options.read.members.iter().map(|m| m.glob().glob()).collect::<Vec<_>>(),
            "max_unpacked": format_size(options.read.max_unpacked),
            "drift": options.read.drift,
            "schema": options.read.schema.as_ref().map(|(_, path)| paths.show(path)),
            "reject_limit": match options.read.reject_limit {
                RejectLimit::Count(count) => json!(count),
                RejectLimit::Share(share) => json!(format!("{}%", share * 100.0)),
            },
        },
        "tables": tables,
        "views": options.views,
        "params": options.params,
        "sql": options.sql,
        "write": {
            "table": options.write.table,
            "format": format_name(options.write.format),
            "partition_by": options.write.partition_by,
            "target_size": format_size(options.write.target_file_bytes),
            "max_open_files": options.write.max_open_writers,
            "s3": options.write.s3.as_ref().map(s3_folder),
        },
    })
}

fn schedule(schedule: &Schedule) -> Value {
    let mut value = json!({
        "bus": schedule.bus,
        "emit": { "source": schedule.source, "detail-type": schedule.detail_type, "detail": schedule.detail },
    });
    match &schedule.when {
        When::Cron { text, timezone, .. } => {
            value["cron"] = json!(text);
            value["timezone"] = json!(timezone.name());
        }
        When::Every(every) => value["every"] = json!(format_duration(*every)),
    }
    value
}
