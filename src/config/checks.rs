//! Checks that look at the whole configuration. Errors first: what cannot work.
//! Then, only when there are none, what hardly can be meant: on a broken
//! configuration those would mostly repeat the mistakes above them.

use super::model::{Config, DEFAULT_BUS, EventSchema, HandlerKind, TargetInput, To};
use super::pattern::Overlap;
use super::sources::Source;
use super::{loops, pattern};
use crate::error::{Diagnostic, codes, nearest};
use crate::sources::folder::{After, FolderOptions};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Component, Path, PathBuf};

/// A check that needs more than this module knows, such as planning SQL.
pub trait Checker {
    /// What is wrong with `config`.
    fn check(&self, config: &Config) -> Vec<Diagnostic>;
}

/// What cannot work.
pub(super) fn errors(config: &Config) -> Vec<Diagnostic> {
    let mut found = folders(config);
    found.extend(super::buckets::check(config));
    found.extend(loops::check(config));
    found.extend(unwatched(config));
    found
}

/// Sources that move or delete files once they are done, where nobody here knows
/// when that is.
fn unwatched(config: &Config) -> Vec<Diagnostic> {
    let on_broker = |to: &To| match to {
        To::Queue(name) => config.queues.get(name).is_some_and(|q| q.on.is_broker()),
        _ => false,
    };
    let queue = targets(config).find(|to| on_broker(to));
    let Some(To::Queue(queue)) = queue else {
        return Vec::new();
    };
    let tidying = folder_sources(config).filter(|(_, folder)| folder.after != After::Keep);
    tidying
        .map(|(name, _)| {
            let message = format!(
                "the source `{name}` tidies its files up once they are done, and the queue `{queue}` is on a broker: when its messages are done is not known here"
            );
            let diagnostic = Diagnostic::error(&codes::UNWATCHED_QUEUE, message);
            let hint = "keep the files (`after: keep`), or keep the queue in the log";
            diagnostic
                .at(config.place(&format!("sources.{name}.folder.after")))
                .hint(hint)
        })
        .collect()
}

/// Inputs of targets that read the event itself.
fn unused_inputs(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for route in config.routes() {
        if route.target.input == TargetInput::Event {
            continue;
        }
        let reads_event = route.handlers.iter().find(|name| {
            matches!(
                config.handlers.get(**name).map(|handler| &handler.kind),
                Some(HandlerKind::Transform(_) | HandlerKind::Extract(_) | HandlerKind::Load(_))
            )
        });
        if let Some(handler) = reads_event {
            let message = format!(
                "route `{}` has an input, but handler `{handler}` reads the event itself",
                route.target.route
            );
            let mut diagnostic = Diagnostic::warning(&codes::BAD_INPUT, message);
            diagnostic.place = config.place(&route.declared);
            found.push(
                diagnostic.hint("leave the input out: transforms and loads need the whole event"),
            );
        }
    }
    found
}

/// What hardly can be meant.
pub(super) fn lints(config: &Config) -> Vec<Diagnostic> {
    let mut found = queues(config);
    found.extend(unused_inputs(config));
    found.extend(idle_handlers(config));
    found.extend(topics(config));
    found.extend(buses(config));
    found.extend(patterns(config));
    found.extend(twins(config));
    found
}

/// Members of every event.
const ENVELOPE: [&str; 9] = [
    "version",
    "id",
    "source",
    "detail-type",
    "account",
    "time",
    "region",
    "resources",
    "replay-name",
];

fn patterns(config: &Config) -> Vec<Diagnostic> {
    let schemas: Vec<(&EventSchema, Vec<String>)> = config
        .event_schemas
        .iter()
        .map(|schema| (schema, paths_of(&schema.document, "detail")))
        .collect();
    let mut found = Vec::new();
    for (name, rule) in &config.rules {
        let mut known: Vec<&str> = Vec::new();
        for (schema, paths) in &schemas {
            let event = [
                ("source", schema.source.as_str()),
                ("detail-type", schema.detail_type.as_str()),
            ];
            if pattern::overlap(&rule.pattern, &event) > Overlap::Never {
                known.extend(paths.iter().map(String::as_str));
            }
        }
        if !known.is_empty() {
            known.extend(ENVELOPE);
        }
        for (code, path, message) in pattern::lint(&rule.pattern, &known) {
            let place = match path.is_empty() {
                true => config.place(&format!("rules.{name}.pattern")),
                false => config.place(&format!("rules.{name}.pattern.{path}")),
            };
            found.push(Diagnostic::warning(code, message).at(place));
        }
    }
    found
}

/// Dotted paths of the properties of a schema.
fn paths_of(schema: &serde_json::Value, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, property) in schema
        .get("properties")
        .and_then(|p| p.as_object())
        .into_iter()
        .flatten()
    {
        let path = format!("{prefix}.{name}");
        paths.extend(paths_of(property, &path));
        paths.push(path);
    }
    paths
}

/// Rules with the same pattern and a target in common.
fn twins(config: &Config) -> Vec<Diagnostic> {
    let mut seen: BTreeMap<(&str, String, String), &str> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, rule) in config.rules.iter().filter(|(_, rule)| rule.enabled) {
        let pattern = pattern::canonical(&rule.pattern);
        for target in &rule.targets {
            let to = match &target.to {
                To::Queue(to) => format!("the queue `{to}`"),
                To::Handler(to) => format!("the handler `{to}`"),
                To::Topic(to) => format!("the topic `{to}`"),
                To::Bus(to) => format!("the bus `{to}`"),
                To::Publish(to) => format!("`{}`", to.address()),
                To::Webhook(_) | To::Exec(_) | To::Pull => continue,
            };
            let message = |first: &str| {
                format!("the rules `{first}` and `{name}` both send the same events to {to}")
            };
            match seen.entry((&rule.bus, pattern.clone(), to.clone())) {
                Entry::Vacant(entry) => {
                    entry.insert(name);
                }
                Entry::Occupied(entry) if *entry.get() != name => {
                    let first = *entry.get();
                    let place = |rule: &str| config.place(&format!("rules.{rule}"));
                    let diagnostic = Diagnostic::warning(&codes::REDUNDANT_PATTERN, message(first));
                    found.push(
                        diagnostic
                            .at(place(name))
                            .related(place(first), "the first is here"),
                    );
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    found
}

fn folder_sources(config: &Config) -> impl Iterator<Item = (&String, &FolderOptions)> {
    config
        .sources
        .iter()
        .filter_map(|(name, source)| match source {
            Source::Folder(folder) => Some((name, folder)),
            _ => None,
        })
}

/// A path without `.` and `..`, as far as the text alone tells.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

fn folders(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let data = plain(&config.node.data);
    let all: Vec<_> = folder_sources(config)
        .map(|(name, folder)| (name, folder, plain(&folder.root)))
        .collect();
    for (index, (name, folder, root)) in all.iter().enumerate() {
        let place = config.place(&format!("sources.{name}.folder.path"));
        if root.starts_with(&data) || taken_inside(folder, root, &data).is_some() {
            let message = format!("the source `{name}` watches the node's own `data` folder");
            let diagnostic = Diagnostic::error(&codes::SOURCE_OVERLAP, message).at(place.clone());
            found.push(
                diagnostic
                    .hint("watch a folder beside it, exclude it, or set `node.data` elsewhere"),
            );
        }
        if let After::Move(to) = &folder.after
            && let Some(inside) = taken_inside(folder, root, &plain(to))
        {
            let message =
                format!("files of `{name}` are moved to a folder where they are found again");
            let place = config.place(&format!("sources.{name}.folder.after.move"));
            let diagnostic = Diagnostic::error(&codes::SOURCE_OVERLAP, message).at(place);
            found.push(diagnostic.hint(match inside.as_os_str().is_empty() {
                true => "move them to another folder".to_owned(),
                false => format!("exclude it: `exclude: [\"{}/**\"]`", inside.display()),
            }));
        }
        for (other_name, other, other_root) in &all[..index] {
            let within = (other.recursive && root.starts_with(other_root))
                || (folder.recursive && other_root.starts_with(root));
            if (root == other_root || within)
                && folder.include == other.include
                && folder.exclude == other.exclude
            {
                let message = format!(
                    "the sources `{other_name}` and `{name}` take the same files, each on its own"
                );
                let diagnostic =
                    Diagnostic::warning(&codes::SOURCE_OVERLAP, message).at(place.clone());
                let first = config.place(&format!("sources.{other_name}.folder.path"));
                found.push(
                    diagnostic
                        .related(first, "and here")
                        .hint("watch separate folders, or separate `include` globs"),
                );
            }
        }
    }
    found
}

/// The part of `to` below the source, if files there would be taken.
fn taken_inside(folder: &FolderOptions, root: &Path, to: &Path) -> Option<PathBuf> {
    let inside = to.strip_prefix(root).ok()?;
    let sample = inside.join("x");
    let excluded = folder
        .exclude
        .iter()
        .filter_map(|glob| globset::Glob::new(glob).ok())
        .any(|glob| glob.compile_matcher().is_match(&sample));
    let hidden = !folder.hidden
        && inside
            .components()
            .any(|c| c.as_os_str().to_string_lossy().starts_with('.'));
    let found = (folder.recursive || inside.as_os_str().is_empty()) && !excluded && !hidden;
    found.then(|| inside.to_path_buf())
}

fn targets(config: &Config) -> impl Iterator<Item = &To> {
    config.targets().map(|target| &target.to)
}

fn queues(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for name in config.queues.keys() {
        let place = config.place(&format!("queues.{name}"));
        let read = config
            .handlers
            .values()
            .any(|handler| handler.from.contains(name));
        let written = targets(config).any(|to| matches!(to, To::Queue(queue) if queue == name));
        // Others may read and write what is on a broker.
        if config.queues.get(name).is_some_and(|q| q.on.is_broker()) {
            continue;
        }
        if !read {
            let diagnostic = Diagnostic::warning(
                &codes::UNREAD_QUEUE,
                format!("nobody reads the queue `{name}`"),
            );
            let hint = format!("add `from: {name}` to a handler, or remove the queue");
            found.push(diagnostic.at(place.clone()).hint(hint));
        }
        if !written {
            let message = format!("no rule sends to the queue `{name}`");
            found.push(Diagnostic::warning(&codes::UNUSED_QUEUE, message).at(place));
        }
    }
    found
}

fn idle_handlers(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, handler) in &config.handlers {
        let named = targets(config).any(|to| matches!(to, To::Handler(handler) if handler == name));
        if handler.from.is_empty() && !named {
            let diagnostic = Diagnostic::warning(
                &codes::IDLE_HANDLER,
                format!("the handler `{name}` gets nothing"),
            );
            let hint = "add `from: QUEUE`, or make it a target of a rule";
            found.push(
                diagnostic
                    .at(config.place(&format!("handlers.{name}")))
                    .hint(hint),
            );
        }
    }
    found
}

fn topics(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for name in config.topics.keys() {
        let notified = config.handlers.values().any(|handler| {
            [&handler.notify.success, &handler.notify.failure]
                .into_iter()
                .flatten()
                .any(|topic| topic == name)
        });
        let targeted = targets(config).any(|to| matches!(to, To::Topic(topic) if topic == name));
        if !notified && !targeted {
            let message = format!("nothing is published to the topic `{name}`");
            let place = config.place(&format!("topics.{name}"));
            found.push(Diagnostic::warning(&codes::UNUSED_TOPIC, message).at(place));
        }
    }
    found
}

fn buses(config: &Config) -> Vec<Diagnostic> {
    let heard: Vec<&str> = config
        .rules
        .values()
        .map(|rule| rule.bus.as_str())
        .chain([DEFAULT_BUS])
        .collect();
    let mut senders: Vec<(String, &str)> = Vec::new();
    senders.extend(
        config
            .sources
            .iter()
            .map(|(name, s)| (format!("sources.{name}.bus"), s.bus())),
    );
    senders.extend(
        config
            .schedules
            .iter()
            .map(|(name, s)| (format!("schedules.{name}.bus"), s.bus.as_str())),
    );
    for (name, rule) in &config.rules {
        for (index, target) in rule.targets.iter().enumerate() {
            if let To::Bus(bus) = &target.to {
                senders.push((format!("rules.{name}.targets.{index}.bus"), bus));
            }
        }
    }
    for (topic, options) in &config.topics {
        for (name, subscription) in &options.subscriptions {
            if let To::Bus(bus) = &subscription.target.to {
                senders.push((format!("topics.{topic}.subscriptions.{name}.bus"), bus));
            }
        }
    }
    let mut found = Vec::new();
    for (path, bus) in &senders {
        if !heard.contains(bus) {
            let message = format!("no rule listens on the bus `{bus}`");
            let diagnostic =
                Diagnostic::warning(&codes::UNHEARD_BUS, message).at(config.place(path));
            found.push(diagnostic.suggest(bus, heard.iter().copied()));
        }
    }
    // Events can be sent to any bus over HTTP, so a rule on a bus without a
    // sender is only odd when its name looks like a slip.
    for (name, rule) in &config.rules {
        let others: Vec<&str> = senders
            .iter()
            .map(|(_, bus)| *bus)
            .chain([DEFAULT_BUS])
            .collect();
        if !others.contains(&rule.bus.as_str())
            && let Some(near) = nearest(&rule.bus, &others)
        {
            let message = format!("nothing here sends to the bus `{}`", rule.bus);
            let diagnostic = Diagnostic::warning(&codes::UNHEARD_BUS, message);
            let place = config.place(&format!("rules.{name}.bus"));
            found.push(diagnostic.at(place).hint(format!("did you mean `{near}`?")));
        }
    }
    found
}
