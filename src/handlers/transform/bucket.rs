//! Publications in a bucket. Files are uploaded under names of their attempt
//! (a large one in parts, so it is there whole or not at all), and exist for
//! readers from the moment on in which the manifest is created, which happens
//! once per cause, whoever tries. The node keeps a copy of the manifest in its
//! lake: that is where retries, loads and queries look.
//!
//! ```text
//! PREFIX/TABLE/.../PUBLICATION-N-ATTEMPT.parquet   the files
//! PREFIX/TABLE/_manifests/PUBLICATION.json         what was published; -r1, -r2: anew,
//!                                                  by a transform that was changed
//! PREFIX/TABLE/_attempts/PUBLICATION-ATTEMPT.json  what an attempt uploads
//! ```
//!
//! An attempt that dies leaves its files and its list; both are removed a day
//! later. What is left of an upload in parts that was cut off is the bucket's
//! to clear away (`AbortIncompleteMultipartUpload` in its lifecycle rules).

use super::manifest::{FOLDER, Manifest};
use super::publish::{Staging, commit};
use super::{Inner, LEFTOVER_AGE, run};
use crate::handlers::Failure;
use crate::handlers::objects::{BucketFolder, S3_SCHEME};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::Path as StorePath;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Files up to this size are uploaded in one request, larger ones in parts of it.
const PART: usize = 8 << 20;
/// Parts under way at once, and files.
const PARTS: usize = 3;
const FILES: usize = 4;
/// The folder of lists of what attempts upload.
const ATTEMPTS: &str = "_attempts";

/// Where a transform's publications go, if that is a bucket.
pub(super) struct Target<'a> {
    inner: &'a Arc<Inner>,
    store: Arc<dyn ObjectStore>,
    folder: &'a BucketFolder,
}

impl<'a> Target<'a> {
    /// The bucket of a transform; `None` if it writes into the lake.
    pub fn of(inner: &'a Arc<Inner>) -> Result<Option<Self>, Failure> {
        let Some(folder) = &inner.options.write.s3 else {
            return Ok(None);
        };
        let store = inner.places.bucket(&folder.bucket).ok_or_else(|| {
            let message = format!("no bucket `{}` is declared", folder.bucket);
            Failure::permanent("UnknownBucket", message)
        })?;
        Ok(Some(Self {
            inner,
            store,
            folder,
        }))
    }

    fn key(&self, below: &str) -> String {
        match self.folder.prefix.is_empty() {
            true => below.to_owned(),
            false => format!("{}/{below}", self.folder.prefix),
        }
    }

    fn path(&self, below: &str) -> Result<StorePath, Failure> {
        let key = self.key(below);
        StorePath::parse(&key).map_err(|e| {
            Failure::permanent("BadPath", format!("`{key}` cannot be a key")).caused_by(&e)
        })
    }

    fn manifest_path(&self, table: &str, name: &str) -> Result<StorePath, Failure> {
        self.path(&format!("{table}/{FOLDER}/{name}.json"))
    }

    /// The manifest of a publication that the bucket has, if it has one by the
    /// same definition from `revision` on; the lake gets its copy. Without one,
    /// `revision` becomes the next that is free.
    pub async fn published(
        &self,
        table: &str,
        publication: &str,
        revision: &mut u32,
    ) -> Result<Option<Manifest>, Failure> {
        let current = |found: &Manifest| found.definition == self.inner.definition;
        self.published_as(table, publication, revision, &current)
            .await
    }

    /// The same, where it takes more than the definition to be what is wanted.
    pub async fn published_as(
        &self,
        table: &str,
        publication: &str,
        revision: &mut u32,
        current: &(dyn Fn(&Manifest) -> bool + Sync),
    ) -> Result<Option<Manifest>, Failure> {
        while let Some(found) = self.fetch(table, &named(publication, *revision)).await? {
            if current(&found) {
                self.copy(&found).await?;
                return Ok(Some(found));
            }
            *revision += 1;
        }
        Ok(None)
    }

    async fn fetch(&self, table: &str, publication: &str) -> Result<Option<Manifest>, Failure> {
        let path = self.manifest_path(table, publication)?;
        let read = async { self.store.get(&path).await?.bytes().await };
        match read.await {
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("the manifest cannot be read", &e)),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                let message = format!("{}/{path} is no manifest", self.folder.bucket);
                Failure::transient("ManifestUnreadable", message).caused_by(&e)
            }),
        }
    }

    async fn copy(&self, manifest: &Manifest) -> Result<(), Failure> {
        let (lake, manifest) = (self.inner.env.lake.clone(), manifest.clone());
        run::blocking(move || commit(&lake, &manifest)).await
    }

    /// Uploads the staged files and creates the manifest; answers with the one
    /// that counts, which is another attempt's if that was faster.
    pub async fn publish(
        &self,
        staging: &Staging,
        mut manifest: Manifest,
    ) -> Result<Manifest, Failure> {
        self.inner
            .swept
            .get_or_init(|| async {
                if let Err(failure) = self.sweep(&manifest.table).await {
                    tracing::warn!(error = %failure, "leftovers in the bucket could not be removed");
                }
            })
            .await;
        let attempt = uuid::Uuid::new_v4().simple().to_string();
        let staged: Vec<String> = manifest.outputs.iter().map(|o| o.path.clone()).collect();
        let named: Vec<String> = staged.iter().map(|p| with_attempt(p, &attempt)).collect();
        for (output, named) in manifest.outputs.iter_mut().zip(&named) {
            output.path = format!("{S3_SCHEME}{}/{}", self.folder.bucket, self.key(named));
        }
        let list = self.path(&format!(
            "{}/{ATTEMPTS}/{}-{attempt}.json",
            manifest.table,
            manifest.name().replace('-', "_")
        ))?;
        if !named.is_empty() {
            let text = serde_json::to_vec(&named).map_err(|e| self.unwritten(&e))?;
            self.store
                .put(&list, text.into())
                .await
                .map_err(|e| self.failed("the list of files cannot be written", &e))?;
        }
        let uploaded = self.upload(&staging.folder, &staged, &named).await;
        let committed = match uploaded {
            Ok(()) => self.create(&manifest).await,
            Err(failure) => Err(failure),
        };
        match committed {
            Ok(None) => {}
            Ok(Some(other)) => {
                self.discard(&named, &list).await;
                manifest = other;
            }
            Err(failure) => {
                // Nobody knows whether a manifest was created whose answer was
                // lost; if so, its files must stay.
                if failure.code != UNSURE {
                    self.discard(&named, &list).await;
                }
                return Err(failure);
            }
        }
        // A list that stays is found by a sweep, which keeps what was published.
        self.store.delete(&list).await.ok();
        self.copy(&manifest).await?;
        Ok(manifest)
    }

    async fn upload(
        &self,
        folder: &Path,
        staged: &[String],
        named: &[String],
    ) -> Result<(), Failure> {
        let mut files: Vec<BoxFuture<'_, Result<(), Failure>>> = Vec::new();
        for (staged, named) in staged.iter().zip(named) {
            let (file, path) = (folder.join(staged), self.path(named)?);
            files.push(self.put_file(file, path).boxed());
        }
        let mut uploads = futures::stream::iter(files).buffer_unordered(FILES);
        while let Some(done) = uploads.next().await {
            done?;
        }
        Ok(())
    }

    async fn put_file(&self, file: PathBuf, path: StorePath) -> Result<(), Failure> {
        let unread = |e: std::io::Error| {
            let message = format!("{} cannot be read", file.display());
            Failure::transient("ReadFailed", message).caused_by(&e)
        };
        let mut content = File::open(&file).await.map_err(unread)?;
        let failed = |e: StoreError| self.failed("a file cannot be uploaded", &e);
        let first = part(&mut content).await.map_err(unread)?;
        if first.len() < PART {
            self.store.put(&path, first.into()).await.map_err(failed)?;
            return Ok(());
        }
        let upload = self.store.put_multipart(&path).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut next = first;
        while !next.is_empty() {
            if let Err(e) = upload.wait_for_capacity(PARTS).await {
                upload.abort().await.ok();
                return Err(failed(e));
            }
            upload.put(next);
            next = match part(&mut content).await {
                Ok(next) => next,
                Err(e) => {
                    upload.abort().await.ok();
                    return Err(unread(e));
                }
            };
        }
        upload.finish().await.map_err(failed)?;
        Ok(())
    }

    /// Creates the manifest; the one that is there, if another attempt was faster.
    async fn create(&self, manifest: &Manifest) -> Result<Option<Manifest>, Failure> {
        let path = self.manifest_path(&manifest.table, &manifest.name())?;
        let text = serde_json::to_vec_pretty(manifest).map_err(|e| self.unwritten(&e))?;
        let created = self
            .store
            .put_opts(&path, text.into(), PutMode::Create.into())
            .await;
        match created {
            Ok(_) => Ok(None),
            Err(StoreError::AlreadyExists { .. }) => {
                let there = self.fetch(&manifest.table, &manifest.name()).await?;
                let gone =
                    || Failure::transient("ManifestUnreadable", "the manifest is gone again");
                let there = there.ok_or_else(gone)?;
                // Ours, if the answer to an earlier try was lost.
                Ok((there.outputs != manifest.outputs).then_some(there))
            }
            Err(e) => {
                let mut failure = self.failed("the manifest cannot be written", &e);
                UNSURE.clone_into(&mut failure.code);
                Err(failure)
            }
        }
    }

    /// Removes an attempt's files, as far as that can be done now.
    async fn discard(&self, named: &[String], list: &StorePath) {
        for path in named.iter().filter_map(|n| self.path(n).ok()) {
            self.store.delete(&path).await.ok();
        }
        self.store.delete(list).await.ok();
    }

    /// Removes what attempts left that died a day ago or earlier.
    async fn sweep(&self, table: &str) -> Result<(), Failure> {
        let failed = |e: StoreError| self.failed("attempts cannot be listed", &e);
        let folder = self.path(&format!("{table}/{ATTEMPTS}"))?;
        let mut lists = self.store.list(Some(&folder));
        while let Some(list) = lists.next().await {
            let list = list.map_err(failed)?;
            let age = chrono::Utc::now().signed_duration_since(list.last_modified);
            if age.to_std().is_ok_and(|age| age > LEFTOVER_AGE) {
                self.remove_leftover(table, &list.location).await?;
            }
        }
        Ok(())
    }

    async fn remove_leftover(&self, table: &str, list: &StorePath) -> Result<(), Failure> {
        let failed = |e: StoreError| self.failed("leftovers cannot be read", &e);
        let name = list.filename().unwrap_or_default();
        let published = name.split('-').next().unwrap_or_default();
        let kept = self.fetch(table, &published.replace('_', "-")).await?;
        let bytes = self.store.get(list).await.map_err(failed)?;
        let bytes = bytes.bytes().await.map_err(failed)?;
        let named: Vec<String> = serde_json::from_slice(&bytes).unwrap_or_default();
        let is_kept = |named: &String| {
            let url = format!("{S3_SCHEME}{}/{}", self.folder.bucket, self.key(named));
            kept.as_ref()
                .is_some_and(|m| m.outputs.iter().any(|o| o.path == url))
        };
        let leftover: Vec<String> = named.into_iter().filter(|n| !is_kept(n)).collect();
        self.discard(&leftover, list).await;
        Ok(())
    }

    fn failed(&self, what: &str, e: &StoreError) -> Failure {
        let message = format!("{what} (bucket `{}`)", self.folder.bucket);
        match e {
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                Failure::permanent("BucketForbidden", message)
            }
            _ => Failure::transient("WriteFailed", message),
        }
        .caused_by(e)
    }

    fn unwritten(&self, e: &serde_json::Error) -> Failure {
        Failure::transient("Internal", "the manifest is no JSON").caused_by(e)
    }
}

/// The name of a publication's manifest; see [`Manifest::name`].
fn named(publication: &str, revision: u32) -> String {
    match revision {
        0 => publication.to_owned(),
        n => format!("{publication}-r{n}"),
    }
}

/// The manifest may be there or not.
const UNSURE: &str = "CommitUnsure";

/// The next part of a file; short or empty at its end.
async fn part(file: &mut File) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.take(PART as u64).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

/// `a/b.parquet` becomes `a/b-ATTEMPT.parquet`.
fn with_attempt(path: &str, attempt: &str) -> String {
    let short = &attempt[..8];
    match path.rsplit_once('.') {
        Some((stem, ending)) if !ending.contains('/') => format!("{stem}-{short}.{ending}"),
        _ => format!("{path}-{short}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_names_of_its_own() {
        let attempt = "0123456789abcdef";
        assert_eq!(
            with_attempt("t/m=1/p-0.parquet", attempt),
            "t/m=1/p-0-01234567.parquet"
        );
        assert_eq!(with_attempt("t/m=1.5/p", attempt), "t/m=1.5/p-01234567");
    }
}
