//! Where objects lie. Events name a bucket and a key; only what is declared
//! as a source (or as the lake) can be reached, and a key never leads out of it.

use super::Failure;
use crate::event::Event;
use base64::Engine as _;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The declared places, by the name that events use as `detail.bucket.name`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    folders: BTreeMap<String, PathBuf>,
}

/// An object that an event speaks of, as a local file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `detail.bucket.name`.
    pub bucket: String,
    /// `detail.object.key`.
    pub key: String,
    /// Where it lies.
    pub path: PathBuf,
    /// `detail.object.size` in bytes, where given.
    pub size: Option<u64>,
    /// `detail.object.etag`, where given.
    pub etag: Option<String>,
}

impl Places {
    /// Declares a folder.
    pub fn add_folder(&mut self, name: &str, root: PathBuf) {
        self.folders.insert(name.to_owned(), root);
    }

    /// The object that an `Object Created` event names.
    ///
    /// # Errors
    /// Permanent failures: not an object event, an undeclared bucket, or a key
    /// that would lead out of it.
    pub fn locate(&self, event: &Event) -> Result<Object, Failure> {
        let detail = event.detail();
        let text = |pointer: &str| detail.pointer(pointer).and_then(|v| v.as_str());
        let (Some(bucket), Some(key)) = (text("/bucket/name"), text("/object/key")) else {
            return Err(Failure::permanent(
                "NotAnObjectEvent",
                format!(
                    "event `{}` of type `{}` names no object: `detail.bucket.name` and `detail.object.key` are needed",
                    event.id(),
                    event.detail_type()
                ),
            ));
        };
        let Some(root) = self.folders.get(bucket) else {
            let known: Vec<&str> = self.folders.keys().map(String::as_str).collect();
            return Err(Failure::permanent(
                "UnknownBucket",
                format!(
                    "no source is named `{bucket}`; declared: {}",
                    known.join(", ")
                ),
            ));
        };
        let bytes = match text("/object/key-bytes") {
            None => key.as_bytes().to_vec(),
            Some(encoded) => base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map_err(|e| {
                    Failure::permanent("BadKey", "`detail.object.key-bytes` is not base64")
                        .caused_by(&e)
                })?,
        };
        Ok(Object {
            path: inside(root, &bytes).ok_or_else(|| {
                Failure::permanent(
                    "BadKey",
                    format!("key `{key}` leads out of source `{bucket}`"),
                )
            })?,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size: detail.pointer("/object/size").and_then(|v| v.as_u64()),
            etag: text("/object/etag").map(str::to_owned),
        })
    }
}

/// `root` joined with a relative path that has no `..`, no root and no NUL.
fn inside(root: &Path, key: &[u8]) -> Option<PathBuf> {
    let relative = Path::new(OsStr::from_bytes(key));
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && !key.is_empty() && !key.contains(&0)).then(|| root.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside_their_folder() {
        let root = Path::new("/data/inbox");
        assert_eq!(
            inside(root, b"a/b.csv"),
            Some(PathBuf::from("/data/inbox/a/b.csv"))
        );
        for bad in [&b"../x"[..], b"/etc/passwd", b"a/../../x", b"", b"a\0b"] {
            assert_eq!(inside(root, bad), None, "{bad:?}");
        }
    }
}
