//! Upkeep of a lake table: small files are put together, old publications go,
//! and files that nobody needs any more are removed after a time of grace.
//!
//! Compaction writes a publication of its own, whose manifest names the files
//! that it stands for; from the rename of that manifest on, readers see the new
//! files and not the old ones. Only publications of one day are put together,
//! so that retention stays exact to the day.

use super::disk;
use super::manifest::{self, FOLDER, Manifest, Output, inside};
use super::options::{Format, WriteOptions};
use super::publish::Staging;
use super::sink::{Limits, Sink};
use super::{ledger, locks, run};
use crate::handlers::Failure;
use crate::handlers::objects::S3_SCHEME;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

const DAY_MS: i64 = 24 * 3_600_000;
/// The list of files that are not needed any more, and since when.
const GONE: &str = ".gone";
/// The handler's name in the manifests of compacted files.
const COMPACTED: &str = ".compaction";

/// What is kept of a table, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// Parquet files smaller than this are put together.
    pub small: u64,
    /// Into files of about this size, in bytes.
    pub target: u64,
    /// Publications older than this go; `None`: they stay.
    pub keep: Option<Duration>,
    /// Files that nobody needs are removed after this time: until then, queries
    /// that are running and loads that wait find them.
    pub grace: Duration,
}

/// What the upkeep of a table did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Files that were put together.
    pub compacted: u64,
    /// Files that they became.
    pub written: u64,
    /// Publications that went.
    pub expired: u64,
    /// Files that were removed.
    pub removed: u64,
}

/// Does the upkeep of `table` at the time `now_ms`.
///
/// # Errors
/// When the table cannot be read or the disk refuses; what was done until then stays.
pub async fn maintain(
    lake: &Path,
    table: &str,
    upkeep: &Upkeep,
    now_ms: i64,
) -> Result<Kept, Failure> {
    let _held = lock(lake, table).await;
    let mut kept = Kept::default();
    let (root, name, keep) = (lake.to_path_buf(), table.to_owned(), upkeep.keep);
    kept.expired = run::blocking(move || expire(&root, &name, keep, now_ms)).await?;
    let (root, name) = (lake.to_path_buf(), table.to_owned());
    let manifests = run::blocking(move || Manifest::visible(&root, &name)).await?;
    for group in groups(&manifests, upkeep.small) {
        let (old, new) = compact(lake, table, &group, upkeep).await?;
        kept.compacted += old;
        kept.written += new;
    }
    let (root, name, grace) = (lake.to_path_buf(), table.to_owned(), upkeep.grace);
    kept.removed = run::blocking(move || vacuum(&root, &name, grace, now_ms)).await?;
    Ok(kept)
}

/// Waits until no upkeep of the table is under way, and keeps others out.
pub(super) async fn lock(lake: &Path, table: &str) -> OwnedMutexGuard<()> {
    locks::lock(&lake.join(table).join(GONE)).await
}

/// Whether files of other publications stand for some of this one's.
pub(super) fn stands_for(lake: &Path, published: &Manifest) -> Result<bool, Failure> {
    let mine: BTreeSet<&str> = published.outputs.iter().map(|o| o.path.as_str()).collect();
    let all = Manifest::all(lake, &published.table)?;
    let mut replaced = all.iter().flat_map(|m| &m.replaces);
    Ok(replaced.any(|path| mine.contains(path.as_str())))
}

fn failed(what: &str, path: &Path, e: &dyn std::error::Error) -> Failure {
    Failure::transient("WriteFailed", format!("{what} ({})", path.display())).caused_by(e)
}

/// Removes the manifests of old publications. Those whose files another one
/// stands for go first: they would come back to life without it.
fn expire(lake: &Path, table: &str, keep: Option<Duration>, now_ms: i64) -> Result<u64, Failure> {
    let Some(keep) = keep else { return Ok(0) };
    let oldest = now_ms.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
    let mut old = Manifest::all(lake, table)?;
    old.retain(|m| m.published_ms < oldest);
    old.sort_by_key(|m| !m.replaces.is_empty());
    for manifest in &old {
        let path = Manifest::path(lake, table, &manifest.publication);
        let folder = lake.join(table).join(FOLDER);
        let ids = folder.join(ledger::ids_file(&manifest.publication));
        let causes = folder.join(ledger::causes_file(&manifest.publication));
        for path in [path, ids, causes] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("an old publication could not be removed", &path, &e));
                }
                _ => {}
            }
        }
    }
    Ok(old.len() as u64)
}

/// Small files that belong together.
struct Group<'a> {
    like: &'a Manifest,
    day: i64,
    published_ms: i64,
    files: Vec<&'a Output>,
}

/// Files of one day, one partition and the same columns, two or more.
fn groups(manifests: &[Manifest], small: u64) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for manifest in manifests.iter().filter(|m| m.format == "parquet") {
        let day = manifest.published_ms.div_euclid(DAY_MS);
        // What lies in a bucket is left as it is.
        let here = |o: &&Output| o.bytes < small && !o.path.starts_with(S3_SCHEME);
        for file in manifest.outputs.iter().filter(here) {
            let same = |group: &&mut Group<'_>| {
                group.day == day
                    && group.files[0].partition == file.partition
                    && group.like.schema == manifest.schema
                    && group.like.partition_by == manifest.partition_by
            };
            match groups.iter_mut().find(same) {
                Some(group) => {
                    group.files.push(file);
                    group.published_ms = group.published_ms.max(manifest.published_ms);
                }
                None => groups.push(Group {
                    like: manifest,
                    day,
                    published_ms: manifest.published_ms,
                    files: vec![file],
                }),
            }
        }
    }
    groups.retain(|group| group.files.len() > 1);
    groups
}

/// Puts the files of a group together; how many they were and are.
async fn compact(
    lake: &Path,
    table: &str,
    group: &Group<'_>,
    upkeep: &Upkeep,
) -> Result<(u64, u64), Failure> {
    let replaced: Vec<String> = group.files.iter().map(|o| o.path.clone()).collect();
    let cause = replaced.join("\n");
    let publication = manifest::publication_id(COMPACTED, table, &cause);
    let (root, id) = (lake.to_path_buf(), publication.clone());
    let staging = run::blocking(move || Staging::begin(&root, &id)).await?;
    let within = Path::new(&group.files[0].path)
        .parent()
        .unwrap_or(Path::new(table));
    let folder = within
        .strip_prefix(table)
        .unwrap_or(Path::new(""))
        .to_path_buf();
    let write = WriteOptions {
        table: table.to_owned(),
        format: Format::Parquet,
        partition_by: Vec::new(),
        target_file_bytes: upkeep.target,
        max_open_writers: 1,
        s3: None,
    };
    let into = staging.folder.join(table).join(&folder);
    let files = rewrite(lake, &replaced, &write, into, &publication[..16]).await?;
    let outputs: Vec<Output> = files
        .into_iter()
        .map(|file| Output {
            path: Path::new(table)
                .join(&folder)
                .join(&file.name)
                .display()
                .to_string(),
            rows: file.rows,
            bytes: file.bytes,
            partition: group.files[0].partition.clone(),
        })
        .collect();
    let count = (replaced.len() as u64, outputs.len() as u64);
    let rows: u64 = outputs.iter().map(|o| o.rows).sum();
    let expected: u64 = group.files.iter().map(|o| o.rows).sum();
    if rows != expected {
        return Err(Failure::transient(
            "Internal",
            format!("{expected} rows were to be put together, {rows} were written"),
        ));
    }
    let manifest = Manifest {
        publication,
        handler: COMPACTED.to_owned(),
        cause: String::new(),
        object: None,
        objects: Vec::new(),
        input: None,
        outputs,
        replaces: replaced,
        published_ms: group.published_ms,
        rows_in: rows,
        rows_out: rows,
        rejects: manifest::Rejects::default(),
        ignored: BTreeMap::new(),
        changes: None,
        events: None,
        revision: 0,
        definition: String::new(),
        ..group.like.clone()
    };
    run::blocking(move || staging.publish(&manifest)).await?;
    Ok(count)
}

/// Writes the rows of some files into fewer ones.
async fn rewrite(
    lake: &Path,
    paths: &[String],
    write: &WriteOptions,
    into: PathBuf,
    id: &str,
) -> Result<Vec<super::sink::Finished>, Failure> {
    let unreadable = |path: &str, e: &dyn std::error::Error| {
        Failure::transient("ReadFailed", format!("`{path}` cannot be read")).caused_by(e)
    };
    let mut sink: Option<Sink> = None;
    for relative in paths {
        let bad = || Failure::permanent("BadPath", format!("`{relative}` leads out of the lake"));
        let path = inside(lake, relative).ok_or_else(bad)?;
        let file = File::open(&path).map_err(|e| unreadable(relative, &e))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.build())
            .map_err(|e| unreadable(relative, &e))?;
        for batch in reader {
            let batch = batch.map_err(|e| unreadable(relative, &e))?;
            let sink = match &mut sink {
                Some(sink) => sink,
                none => {
                    let fields = batch
                        .schema()
                        .fields()
                        .iter()
                        .map(|f| f.as_ref().clone().with_nullable(true))
                        .collect::<Vec<_>>();
                    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
                    none.insert(Sink::new(
                        schema,
                        write,
                        into.clone(),
                        id,
                        Limits::default(),
                    )?)
                }
            };
            sink.push(&batch).await?;
        }
    }
    match sink {
        Some(sink) => sink.finish().await,
        None => Ok(Vec::new()),
    }
}

/// Removes files that no manifest names, once they were unneeded for `grace`.
fn vacuum(lake: &Path, table: &str, grace: Duration, now_ms: i64) -> Result<u64, Failure> {
    let root = lake.join(table);
    let needed: BTreeSet<PathBuf> = Manifest::visible(lake, table)?
        .iter()
        .flat_map(|m| m.outputs.iter())
        .filter_map(|o| inside(lake, &o.path))
        .collect();
    let list = root.join(FOLDER).join(GONE);
    let step = |path: &Path, e: &io::Error| failed("unneeded files could not be removed", path, e);
    let before: BTreeMap<PathBuf, i64> = match fs::read(&list) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(e) => return Err(step(&list, &e)),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| step(&list, &e.into()))?,
    };
    let mut found = Vec::new();
    files(&root, &mut found).map_err(|e| step(&root, &e))?;
    let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let (mut gone, mut removed) = (BTreeMap::new(), 0);
    for path in found.into_iter().filter(|path| !needed.contains(path)) {
        let since = before.get(&path).copied().unwrap_or(now_ms);
        if now_ms.saturating_sub(since) < grace {
            gone.insert(path, since);
            continue;
        }
        fs::remove_file(&path).map_err(|e| step(&path, &e))?;
        removed += 1;
        // An empty folder goes with its last file; one that is not empty stays.
        let mut above = path.parent();
        while let Some(folder) = above.filter(|f| *f != root && fs::remove_dir(f).is_ok()) {
            above = folder.parent();
        }
    }
    if gone != before {
        let text = serde_json::to_vec(&gone).map_err(|e| step(&list, &e.into()))?;
        disk::write_atomic(&list, &text).map_err(|e| step(&list, &e))?;
    }
    Ok(removed)
}

/// The files of a table, manifests apart.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name == FOLDER || name.to_string_lossy().starts_with('.') {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => files(&entry.path(), found)?,
            false => found.push(entry.path()),
        }
    }
    Ok(())
}
