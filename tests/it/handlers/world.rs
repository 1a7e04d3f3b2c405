//! A folder with an inbox, a lake and a warehouse, and handlers on it.

use arc_swap::ArcSwap;
use pointsman::event::{Defaults, Event, EventBuilder, ObjectEvent};
use pointsman::handlers::load::options::{LoadEnv, LoadOptions, Mode};
use pointsman::handlers::load::{LoadHandler, Warehouse};
use pointsman::handlers::objects::Places;
use pointsman::handlers::query::{Output, Query, QueryEnv, Style};
use pointsman::handlers::transform::TransformHandler;
use pointsman::handlers::transform::options::{
    Format, ReadOptions, TransformEnv, TransformOptions, WriteOptions,
};
use pointsman::handlers::{Context, Done, Failure, Handler, Message};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A world of its own for one test.
pub struct World {
    pub dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inbox")).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file into the inbox and tells the event that announces it.
    pub fn file(&self, key: &str, content: impl AsRef<[u8]>) -> Event {
        let path = self.path("inbox").join(key);
        std::fs::write(&path, content).unwrap();
        self.created(key)
    }

    /// The event that announces a file of the inbox.
    pub fn created(&self, key: &str) -> Event {
        let meta = std::fs::metadata(self.path("inbox").join(key)).unwrap();
        let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        ObjectEvent {
            id: format!("event-{key}-{mtime}"),
            source: "pointsman.folder".to_owned(),
            detail_type: "Object Created".to_owned(),
            bucket: "inbox".to_owned(),
            key: key.to_owned(),
            key_bytes: None,
            size: Some(meta.len()),
            etag: Some(format!("{:x}-{mtime:x}", meta.len())),
            version_id: None,
            sequencer: None,
            reason: "test".to_owned(),
            deletion_type: None,
            time_ms: 0,
        }
        .build(&Defaults::default())
        .unwrap()
    }

    pub fn env(&self) -> TransformEnv {
        TransformEnv {
            lake: self.path("lake"),
            warehouse: self.path("warehouse").into(),
            rejects: self.path("rejects"),
            quarantine: self.path("quarantine"),
            scratch: self.path("scratch"),
            memory_bytes: 64 << 20,
            progress_every: Duration::from_millis(1),
        }
    }

    pub fn transform(&self, options: TransformOptions) -> TransformHandler {
        let mut places = Places::default();
        places.add_folder("inbox", self.path("inbox"));
        TransformHandler::new("clean", options, self.env(), places).unwrap()
    }

    pub fn load(&self, table: &str, mode: Mode) -> LoadHandler {
        self.load_into(self.path("warehouse").into(), table, mode)
    }

    pub fn load_into(&self, warehouse: Warehouse, table: &str, mode: Mode) -> LoadHandler {
        let env = LoadEnv {
            lake: self.path("lake"),
            warehouse,
            memory_bytes: 64 << 20,
            scratch: self.path("scratch"),
        };
        LoadHandler::new(LoadOptions::new(table, mode), env).unwrap()
    }

    pub fn query(&self) -> Query {
        Query::new(QueryEnv {
            lake: self.path("lake"),
            warehouse: std::sync::Arc::new(ArcSwap::from_pointee(self.path("warehouse").into())),
            rejects: self.path("rejects"),
            scratch: self.path("scratch"),
            memory_bytes: 64 << 20,
            places: std::sync::Arc::default(),
        })
    }

    /// The answer to a query as CSV, without its header.
    pub async fn csv(&self, sql: &str) -> String {
        let answer = self
            .query()
            .run(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let mut text = Vec::new();
        let output = Output::new(Style::Csv, answer.schema.clone(), &mut text);
        output
            .all(answer)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let text = String::from_utf8(text).unwrap();
        text.split_once('\n')
            .map_or(String::new(), |(_, rows)| rows.trim_end().to_owned())
    }

    /// All files below a folder, relative to it.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let root = self.path(folder);
        let mut found = Vec::new();
        walk(&root, &root, &mut found);
        found.sort();
        found
    }
}

fn walk(root: &Path, at: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => walk(root, &entry.path(), found),
            false => found.push(
                entry
                    .path()
                    .strip_prefix(root)
                    .unwrap()
                    .display()
                    .to_string(),
            ),
        }
    }
}

pub fn cx() -> Context {
    Context {
        handler: "test".to_owned(),
        cancel: tokio_util::sync::CancellationToken::new(),
        progress: Arc::new(|_| {}),
    }
}

pub fn message(event: Event) -> Message {
    Message {
        input: None,
        event: Arc::new(event),
        seq: 1,
        attempt: 1,
        accepted_ms: 1_700_000_000_000,
    }
}

/// Options that read CSV into table `t`, no SQL.
pub fn options() -> TransformOptions {
    TransformOptions {
        read: ReadOptions {
            null: vec!["NA".to_owned()],
            ..ReadOptions::default()
        },
        tables: BTreeMap::new(),
        views: Vec::new(),
        params: BTreeMap::new(),
        sql: None,
        write: WriteOptions {
            table: "t".to_owned(),
            format: Format::Parquet,
            partition_by: Vec::new(),
            target_file_bytes: 128 << 20,
            max_open_writers: 64,
            s3: None,
        },
    }
}

/// A schema for [`options`].
pub fn schema(properties: Value, required: &[&str]) -> Option<(Value, PathBuf)> {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    Some((schema, PathBuf::from("schema.json")))
}

/// Handles one event.
pub async fn handle(handler: &dyn Handler, event: Event) -> Result<Done, Failure> {
    let mut results = handler.handle(&[message(event)], &cx()).await.results;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

/// The event that a handler's first emit becomes.
pub fn emitted(done: &Done, id: &str) -> Event {
    let emit = &done.emits[0];
    EventBuilder {
        id: id.to_owned(),
        source: "pointsman".to_owned(),
        detail_type: emit.detail_type.clone(),
        time_ms: 0,
        resources: Vec::new(),
        detail: emit.detail.clone(),
    }
    .build(&Defaults::default())
    .unwrap()
}
