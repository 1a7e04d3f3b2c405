//! An event that names objects by a pattern (`detail.object.glob` instead of
//! `detail.object.key`): each object that is there becomes an `Object Created`
//! event of its own, so that each has its own outcome, its own rejects and its
//! own dead letter, and batches put them together again.

use super::Inner;
use super::read::open;
use super::stream::cancelled;
use crate::event::Event;
use crate::handlers::objects::{Object, matching};
use crate::handlers::{Context, Done, Emit, Failure};
use base64::Engine as _;
use object_store::ObjectMeta;
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// `detail-type` of the events that name one object each.
const CREATED: &str = "Object Created";

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
    let glob = matching::Pattern::new(&pattern.glob)?;
    let found = match inner.places.folder(&pattern.bucket) {
        Some(root) => {
            let (root, cx) = (root.to_path_buf(), cx.clone());
            super::run::blocking(move || in_folder(&root, &glob, &cx)).await?
        }
        None => {
            let store = inner.places.declared_bucket(&pattern.bucket)?;
            let found = glob.objects(store.as_ref()).await?;
            found.into_iter().map(in_bucket).collect()
        }
    };
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

/// The files below a folder that match.
fn in_folder(root: &Path, glob: &matching::Pattern, cx: &Context) -> Result<Vec<Value>, Failure> {
    let go_on = || match cx.cancel.is_cancelled() {
        true => Err(cancelled()),
        false => Ok(()),
    };
    let mut found = Vec::new();
    for relative in glob.files(root, &go_on)? {
        let key = relative.to_string_lossy().into_owned();
        let stamp = match open::stamp(&Object::of_file(&root.join(&relative), key.as_str())) {
            Ok(stamp) => stamp,
            // It went away meanwhile, or is no file.
            Err(failure) if matches!(failure.code.as_str(), "ObjectGone" | "NotAFile") => continue,
            Err(failure) => return Err(failure),
        };
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
    Ok(found)
}

fn in_bucket(meta: ObjectMeta) -> Value {
    let mut object = json!({ "key": meta.location.as_ref(), "size": meta.size });
    if let Some(etag) = &meta.e_tag {
        object["etag"] = json!(etag.trim_matches('"'));
    }
    object
}
