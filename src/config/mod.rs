//! Spanned YAML -> as written -> as used.
//!
//! `yaml` makes a tree in which every value knows its place; `decode` reads it
//! by the tables of `fields` into `raw`, where each value is sound in itself;
//! `resolve` looks up names and makes the [`Config`] that the rest of the
//! program uses; `checks` look at the whole. No step stops at a mistake: all of
//! them are reported at once, with their places.

mod buckets;
mod checks;
mod connection;
#[cfg(test)]
mod connection_tests;
mod decode;
mod diff;
mod extract;
mod fields;
mod files;
mod handler;
mod loops;
mod marks;
mod model;
mod pattern;
mod plan;
mod plan_connections;
mod publish;
mod raw;
mod read;
mod references;
mod resolve;
mod routes;
mod rule_tests;
mod schema;
mod schemas;
mod sources;
#[cfg(test)]
mod tests;
mod units;
mod yaml;

pub use checks::Checker;
pub use connection::{
    AmqpConnection, AwsConnection, Connection, PostgresConnection, PostgresTls, RedshiftConnection,
    Tls,
};
pub use diff::{Change, Diff, diff, same_secrets};
pub use marks::{DiskQuota, MemoryMarks};
pub use model::{
    Backing, Backlog, Config, DEFAULT_BUS, EventSchema, Exec, Handler, HandlerKind, Load, Node,
    Queue, Route, Rule, RuleStart, Schedule, SchemaPolicy, Subscription, Target, TargetInput, To,
    Topic, Webhook, WebhookFormat, When,
};
pub use publish::{Publish, PublishTo};
pub use rule_tests::{RuleTest, run_tests};
pub use schema::{json_schema, reference};
pub use sources::{Notifications, QueueSource, S3Source, Source};
pub use units::{format_duration, format_size, moment, parse_duration};

use crate::error::{Diagnostic, Lines, Place, Severity, Sources, codes};
use read::{Cx, Field, File};
use references::References;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Looks up an environment variable.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What was read.
pub struct Loaded {
    /// The configuration, unless there are errors.
    pub config: Option<Config>,
    /// The data folder, as far as the files could be read.
    pub data: PathBuf,
    /// All that is wrong or odd, ordered by place.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that the diagnostics point into.
    pub sources: Sources,
    /// The tests beside the rules (`rules/*.test.yaml`); broken ones are left
    /// out, and reported by [`Loaded::test_diagnostics`].
    pub tests: Vec<RuleTest>,
    /// What is wrong with the tests; a node runs all the same.
    pub test_diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether something is wrong that nothing can start with.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.config.is_none()
    }

    /// Runs further checks on a sound configuration.
    pub fn check(&mut self, checkers: &[&dyn Checker]) {
        let Some(config) = &self.config else { return };
        for checker in checkers {
            self.diagnostics.extend(checker.check(config));
        }
        tidy(&mut self.diagnostics);
        if self
            .diagnostics
            .iter()
            .any(|d| d.severity == Severity::Error)
        {
            self.config = None;
        }
    }
}

impl Config {
    /// Reads `pointsman.yaml`, `rules/*.yaml` and `schemas/*.json` below `root`,
    /// and the tests beside the rules. Never panics, whatever the files hold.
    #[must_use]
    pub fn load(root: &Path, env: &Env<'_>) -> Loaded {
        let cx = Cx {
            root,
            references: References { env, root },
            diagnostics: RefCell::default(),
            sources: RefCell::default(),
            places: RefCell::default(),
            shown: RefCell::default(),
        };
        let found = Found::below(&cx);
        let tests = rule_tests::read(&cx, &found.tests);
        let test_diagnostics = cx.diagnostics.take();
        let config = read_all(&cx, &found);
        let data = config.as_ref().map(|config| config.node.data.clone());
        let mut diagnostics = cx.diagnostics.take();
        diagnostics.extend(found.diagnostics);
        tidy(&mut diagnostics);
        let sound = diagnostics.iter().all(|d| d.severity != Severity::Error);
        Loaded {
            config: config.filter(|_| sound),
            data: data.unwrap_or_else(|| default_node(root).data),
            diagnostics,
            sources: cx.sources.take(),
            tests,
            test_diagnostics,
        }
    }
}

/// Orders by place, and leaves out what was found twice.
fn tidy(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| {
        let place = |d: &Diagnostic| d.place.as_ref().map(|p| (p.file.clone(), p.start));
        place(a).cmp(&place(b)).then(a.code.id.cmp(b.code.id))
    });
    diagnostics.dedup();
}

/// The files of a configuration.
struct Found {
    yaml: Vec<PathBuf>,
    tests: Vec<PathBuf>,
    schemas: Vec<PathBuf>,
    diagnostics: Vec<Diagnostic>,
}

impl Found {
    fn below(cx: &Cx<'_>) -> Self {
        let mut found = Self {
            yaml: Vec::new(),
            tests: Vec::new(),
            schemas: Vec::new(),
            diagnostics: Vec::new(),
        };
        let is_yaml = |name: &str| name.ends_with(".yaml") || name.ends_with(".yml");
        let is_test = |name: &str| name.ends_with(".test.yaml") || name.ends_with(".test.yml");
        let main = cx.root.join("pointsman.yaml");
        if main.exists() {
            found.yaml.push(main);
        }
        let mut rules = found.list(cx, "rules", is_yaml);
        found.tests = rules
            .extract_if(.., |path| is_test(&path.to_string_lossy()))
            .collect();
        found.yaml.append(&mut rules);
        found.schemas = found.list(cx, "schemas", |name| name.ends_with(".json"));
        if found.yaml.is_empty() && found.diagnostics.is_empty() {
            let message = format!("`{}` holds no configuration", cx.root.display());
            let diagnostic = Diagnostic::error(&codes::NO_CONFIG, message);
            found.diagnostics.push(diagnostic.hint("start in a folder with `pointsman.yaml` or `rules/*.yaml`, or name it: `pointsman run DIR`"));
        }
        found
    }

    fn list(&mut self, cx: &Cx<'_>, folder: &str, keep: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        files::list(&cx.root.join(folder), keep).unwrap_or_else(|error| {
            let message = format!(
                "the folder `{folder}` cannot be read: {}",
                files::reason(&error)
            );
            self.diagnostics
                .push(Diagnostic::error(&codes::FILE_UNREADABLE, message).at(Place::file(folder)));
            Vec::new()
        })
    }
}

/// A file that was read and parsed.
struct Opened {
    shown: PathBuf,
    text: Arc<str>,
    lines: Lines,
    item: yaml::Item,
}

impl Opened {
    /// The whole file, to be read.
    fn top<'a>(&'a self, cx: &'a Cx<'a>) -> Field<'a> {
        let name = self.shown.display().to_string();
        Field {
            cx,
            file: File {
                path: &self.shown,
                text: &self.text,
                lines: &self.lines,
            },
            item: &self.item,
            name,
            key_span: 0..0,
            path: String::new(),
        }
    }
}

/// Reads a YAML file: its name, its text and its tree. `None` when it is
/// broken (reported) or empty.
fn open(cx: &Cx<'_>, path: &Path) -> Result<Option<Opened>, ()> {
    let shown = cx.shown_path(path);
    let text: Arc<str> = match files::read_text(path) {
        Ok(text) => text.into(),
        Err(error) => {
            let message = format!("`{}` cannot be read: {error}", shown.display());
            cx.report(Diagnostic::error(&codes::FILE_UNREADABLE, message).at(Place::file(shown)));
            return Err(());
        }
    };
    cx.sources.borrow_mut().add(shown.clone(), text.clone());
    let (item, diagnostics) = yaml::parse(&shown, &text);
    let broken = item.is_none() && !diagnostics.is_empty();
    cx.diagnostics.borrow_mut().extend(diagnostics);
    match broken {
        true => Err(()),
        false => Ok(item.map(|item| Opened {
            lines: Lines::of(&text),
            shown,
            text,
            item,
        })),
    }
}

fn read_all(cx: &Cx<'_>, found: &Found) -> Option<Config> {
    let opened: Vec<_> = found.yaml.iter().map(|path| open(cx, path)).collect();
    let whole = opened.iter().all(Result::is_ok);
    let files: Vec<_> = opened.into_iter().flatten().flatten().collect();
    let mut raw = raw::Raw::default();
    for file in &files {
        decode::file(&file.top(cx), &mut raw);
    }
    let node = raw
        .node
        .take()
        .map_or_else(|| default_node(cx.root), |node| node.value);
    let sections = resolve::resolve(raw, cx, whole);
    let mut config = Config {
        root: cx.root.to_path_buf(),
        node,
        connections: sections.connections,
        sources: sections.sources,
        queues: sections.queues,
        rules: sections.rules,
        handlers: sections.handlers,
        topics: sections.topics,
        schedules: sections.schedules,
        event_schemas: schemas::folder(cx, &found.schemas),
        rules_version: 0,
        places: cx.places.take(),
        shown: cx.shown.take(),
        texts: cx.sources.borrow().clone(),
    };
    config.rules_version = plan::rules_version(&config);
    let broken = |cx: &Cx<'_>| {
        cx.diagnostics
            .borrow()
            .iter()
            .any(|d| d.severity == Severity::Error)
    };
    cx.diagnostics.borrow_mut().extend(checks::errors(&config));
    if !broken(cx) {
        cx.diagnostics.borrow_mut().extend(checks::lints(&config));
    }
    Some(config)
}

/// The node's settings when nothing is said.
fn default_node(root: &Path) -> Node {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let event = crate::event::Defaults::default();
    Node {
        data: root.join("data"),
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 7070)),
        max_event_bytes: event.max_bytes,
        retention: DAY * 7,
        retention_bytes: None,
        dedupe: DAY,
        dead_letter_retention: DAY * 30,
        warehouse: None,
        disk: DiskQuota::default(),
        memory: MemoryMarks::default(),
        shutdown: Duration::from_secs(30),
        query_memory_bytes: 256 << 20,
        account: event.account,
        region: event.region,
        public_url: None,
    }
}
