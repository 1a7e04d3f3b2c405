//! An event that names objects by a pattern (`detail.object.glob` instead of
//! `detail.object.key`): each object that is there becomes an `Object Created`
//! event of its own, so that each has its own outcome, its own rejects and its
//! own dead letter, and batches put them together again.

use super::Inner;
use super::read::open;
use super::stream::cancelled;
use crate::event::Event;
use crate::handlers::objects::Object;
use crate::handlers::{Context, Done, Emit, Failure};
use base64::Engine as _;
use futures::StreamExt;
use globset::{GlobBuilder, GlobMatcher};
use object_store::ObjectStore;
use object_store::path::Path as StorePath;
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// `detail-type` of the events that name one object each.
const CREATED: &str = "Object Created";
/// Most objects that one event may name.
const MOST: usize = 10_000;

/// A bucket (or folder) and the objects in it that are meant.
pub(super) struct Pattern {
    bucket: String,
    glob: String,
}

/// The pattern that an event has, if it has one.
pub(super) fn pattern(event: &Event) -> Option<Pattern> {
    // Most events have none, and are not parsed to see that.
    if !event.detail_text().contains("\"glob\"") {
        return None;
    }
    let detail = event.detail();
    let text = |pointer: &str| detail.pointer(pointer)?.as_str().map(str::to_owned);
    match text("/object/key") {
        Some(_) => None,
        None => Some(Pattern {
            bucket: text("/bucket/name")?,
            glob: text("/object/glob")?,
        }),
    }
}

/// Names each object that matches.
///
/// # Errors
/// Permanent: a bucket that nothing declares, what is no glob, or too many objects.
pub(super) async fn handle(
    inner: &Arc<Inner>,
    pattern: Pattern,
    cx: &Context,
) -> Result<Done, Failure> {
    let glob = GlobBuilder::new(&pattern.glob)
        .literal_separator(true)
        .build()
        .map_err(|e| {
            let message = format!("`{}` is not a glob", pattern.glob);
            Failure::permanent("BadGlob", message).caused_by(&e)
        })?
        .compile_matcher();
    let mut found = match inner.places.folder(&pattern.bucket) {
        Some(root) => {
            let (root, cx) = (root.to_path_buf(), cx.clone());
            super::run::blocking(move || {
                let mut found = Vec::new();
                in_folder(&root, &root, &glob, &mut found, &cx)?;
                Ok(found)
            })
            .await?
        }
        None => {
            let store = inner.places.declared_bucket(&pattern.bucket)?;
            in_bucket(store.as_ref(), &pattern.glob, &glob).await?
        }
    };
    found.sort_by(|a, b| a["key"].as_str().cmp(&b["key"].as_str()));
    let count = found.len();
    tracing::info!(
        bucket = pattern.bucket,
        glob = pattern.glob,
        objects = count,
        "named"
    );
    let emits = found.into_iter().map(|object| Emit {
        detail_type: CREATED.to_owned(),
        detail: json!({
            "version": "0",
            "bucket": { "name": pattern.bucket },
            "object": object,
            "reason": "glob",
        }),
        resources: Vec::new(),
    });
    Ok(Done {
        emits: emits.collect(),
        summary: json!({ "bucket": pattern.bucket, "glob": pattern.glob, "objects": count }),
        ..Done::default()
    })
}

fn room(found: &[Value]) -> Result<(), Failure> {
    match found.len() < MOST {
        true => Ok(()),
        false => Err(Failure::permanent(
            "TooManyObjects",
            format!("more than {MOST} objects match; name them with several events"),
        )),
    }
}

/// The files below a folder that match; hidden ones do not.
fn in_folder(
    root: &Path,
    folder: &Path,
    glob: &GlobMatcher,
    found: &mut Vec<Value>,
    cx: &Context,
) -> Result<(), Failure> {
    let unread = |e: std::io::Error| {
        let message = format!("{} cannot be listed", folder.display());
        Failure::transient("ReadFailed", message).caused_by(&e)
    };
    for entry in std::fs::read_dir(folder).map_err(unread)? {
        if cx.cancel.is_cancelled() {
            return Err(cancelled());
        }
        let entry = entry.map_err(unread)?;
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(unread)?.is_dir() {
            in_folder(root, &path, glob, found, cx)?;
            continue;
        }
        let relative = path.strip_prefix(root).unwrap_or(&path);
        if !glob.is_match(relative) {
            continue;
        }
        let key = relative.to_string_lossy().into_owned();
        let stamp = match open::stamp(&Object::of_file(&path, key.as_str())) {
            Ok(stamp) => stamp,
            // It went away meanwhile, or is no file.
            Err(failure) if matches!(failure.code.as_str(), "ObjectGone" | "NotAFile") => continue,
            Err(failure) => return Err(failure),
        };
        room(found)?;
        let mut object = json!({ "key": key });
        if let Some(stamp) = stamp {
            object["size"] = json!(stamp.size());
            object["etag"] = json!(stamp.etag());
        }
        if relative.to_str().is_none() {
            let bytes = relative.as_os_str().as_bytes();
            object["key-bytes"] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
        }
        found.push(object);
    }
    Ok(())
}

/// The objects of a bucket that match.
async fn in_bucket(
    store: &dyn ObjectStore,
    text: &str,
    glob: &GlobMatcher,
) -> Result<Vec<Value>, Failure> {
    let unread = |e: &dyn std::error::Error| {
        Failure::transient("ReadFailed", "the bucket cannot be listed").caused_by(e)
    };
    // Up to the last folder that has no wildcard.
    let plain = text
        .split(['*', '?', '[', '{', '\\'])
        .next()
        .unwrap_or_default();
    let prefix = plain.rsplit_once('/').map(|(folder, _)| folder);
    let prefix = prefix
        .map(StorePath::parse)
        .transpose()
        .map_err(|e| unread(&e))?;
    let mut listed = store.list(prefix.as_ref());
    let mut found = Vec::new();
    while let Some(meta) = listed.next().await {
        let meta = meta.map_err(|e| unread(&e))?;
        let key = meta.location.as_ref();
        if !glob.is_match(key) {
            continue;
        }
        room(&found)?;
        let mut object = json!({ "key": key, "size": meta.size });
        if let Some(etag) = &meta.e_tag {
            object["etag"] = json!(etag.trim_matches('"'));
        }
        found.push(object);
    }
    Ok(found)
}
