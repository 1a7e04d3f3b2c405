//! Where objects lie. Events name a bucket and a key; only what is declared
//! as a source (or as the lake) can be reached, and a key never leads out of it.

mod blob;
pub mod matching;

pub use blob::{Blob, BlobReader, Superseded, waited_for};

use super::Failure;
use crate::event::Event;
use base64::Engine as _;
use object_store::ObjectStore;
use object_store::path::Path as StorePath;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// `source` of events about files of a folder source.
const FOLDER_EVENTS: &str = "pointsman.folder";
/// `source` of events about objects of a bucket.
const BUCKET_EVENTS: &str = "aws.s3";
/// How the address of an object in a bucket begins.
pub const S3_SCHEME: &str = "s3://";

/// The declared places, by the name that events use as `detail.bucket.name`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    folders: BTreeMap<String, PathBuf>,
    buckets: BTreeMap<String, Arc<dyn ObjectStore>>,
}

/// An object that an event speaks of.
#[derive(Clone, Debug)]
pub struct Object {
    /// `detail.bucket.name`.
    pub bucket: String,
    /// `detail.object.key`.
    pub key: String,
    /// Where it lies.
    pub place: Place,
    /// `detail.object.size` in bytes, where given.
    pub size: Option<u64>,
    /// `detail.object.etag`, where given, without quotes.
    pub etag: Option<String>,
}

/// A folder in a bucket, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketFolder {
    /// The connection; `None`: as AWS's own tools find region and credentials.
    pub connection: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// The folder, without slashes at its ends; may be empty.
    pub prefix: String,
}

/// Where an object lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file of this machine.
    File(PathBuf),
    /// An object in a bucket.
    Stored {
        /// The bucket's store.
        store: Arc<dyn ObjectStore>,
        /// The bucket.
        bucket: String,
        /// Its key.
        path: StorePath,
        /// The version that is meant, in a versioned bucket.
        version: Option<String>,
        /// As people write it: `s3://BUCKET/KEY`.
        url: String,
    },
}

impl Place {
    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> String {
        let whole = self.to_string();
        whole.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stored { url, .. } => f.write_str(url),
        }
    }
}

impl Object {
    /// A file of this machine that no event speaks of.
    #[must_use]
    pub fn of_file(path: &Path, key: impl Into<String>) -> Self {
        Self {
            bucket: String::new(),
            key: key.into(),
            place: Place::File(path.to_path_buf()),
            size: None,
            etag: None,
        }
    }
}

impl Places {
    /// Declares a folder.
    pub fn add_folder(&mut self, name: &str, root: PathBuf) {
        self.folders.insert(name.to_owned(), root);
    }

    /// Declares a bucket.
    pub fn add_bucket(&mut self, name: &str, store: Arc<dyn ObjectStore>) {
        self.buckets.insert(name.to_owned(), store);
    }

    /// The root of a declared folder.
    #[must_use]
    pub fn folder(&self, name: &str) -> Option<&Path> {
        self.folders.get(name).map(PathBuf::as_path)
    }

    /// The store of a bucket that must be declared.
    ///
    /// # Errors
    /// `UnknownBucket`, permanent.
    pub fn declared_bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
        self.bucket(name).ok_or_else(|| self.unknown(name))
    }

    /// The store of a declared bucket.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Option<Arc<dyn ObjectStore>> {
        self.buckets.get(name).cloned()
    }

    /// Every declared bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (&str, &Arc<dyn ObjectStore>)> {
        self.buckets
            .iter()
            .map(|(name, store)| (name.as_str(), store))
    }

    /// The place that an address names: `s3://BUCKET/KEY` of a declared bucket,
    /// or a path below `root`.
    ///
    /// # Errors
    /// `BadPath` for what leads out of `root`, `UnknownBucket` for a bucket that
    /// nothing declares; both permanent.
    pub fn address(&self, root: &Path, address: &str) -> Result<Place, Failure> {
        let bad = || Failure::permanent("BadPath", format!("`{address}` leads out of the lake"));
        let Some(rest) = address.strip_prefix(S3_SCHEME) else {
            return inside(root, address.as_bytes())
                .map(Place::File)
                .ok_or_else(bad);
        };
        let (bucket, key) = rest.split_once('/').ok_or_else(bad)?;
        self.stored(bucket, key, None)
    }

    /// The file that a key of a declared folder names.
    ///
    /// # Errors
    /// `UnknownBucket` or `BadKey`, both permanent.
    pub fn file(&self, source: &str, key: &str) -> Result<Place, Failure> {
        let root = self
            .folders
            .get(source)
            .ok_or_else(|| self.unknown(source))?;
        inside(root, key.as_bytes())
            .map(Place::File)
            .ok_or_else(|| {
                let message = format!("key `{key}` leads out of source `{source}`");
                Failure::permanent("BadKey", message)
            })
    }

    fn stored(&self, bucket: &str, key: &str, version: Option<String>) -> Result<Place, Failure> {
        let store = self.declared_bucket(bucket)?;
        let path = StorePath::parse(key).map_err(|e| {
            let message =
                format!("key `{key}` of bucket `{bucket}` cannot be addressed by this client");
            Failure::permanent("BadKey", message).caused_by(&e)
        })?;
        let url = format!("{S3_SCHEME}{bucket}/{key}");
        Ok(Place::Stored {
            store,
            bucket: bucket.to_owned(),
            path,
            version,
            url,
        })
    }

    fn unknown(&self, bucket: &str) -> Failure {
        let known: Vec<&str> = self
            .folders
            .keys()
            .chain(self.buckets.keys())
            .map(String::as_str)
            .collect();
        Failure::permanent(
            "UnknownBucket",
            format!(
                "no source is named `{bucket}`; declared: {}",
                known.join(", ")
            ),
        )
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
        let size = detail.pointer("/object/size").and_then(|v| v.as_u64());
        let etag = text("/object/etag").map(|etag| etag.trim_matches('"').to_owned());
        // A folder source may bear the name of a bucket; its events tell.
        let folder = match event.source() {
            BUCKET_EVENTS if self.buckets.contains_key(bucket) => None,
            FOLDER_EVENTS => Some(
                self.folders
                    .get(bucket)
                    .ok_or_else(|| self.unknown(bucket))?,
            ),
            _ => self.folders.get(bucket),
        };
        let Some(root) = folder else {
            let version = text("/object/version-id").map(str::to_owned);
            return Ok(Object {
                place: self.stored(bucket, key, version)?,
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                size,
                etag,
            });
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
        let path = inside(root, &bytes).ok_or_else(|| {
            let message = format!("key `{key}` leads out of source `{bucket}`");
            Failure::permanent("BadKey", message)
        })?;
        Ok(Object {
            place: Place::File(path),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size,
            etag,
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
