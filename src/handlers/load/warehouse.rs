//! Where the Delta tables of the warehouse lie: folders of this machine, or of a
//! bucket. In a bucket a commit is created with a conditional request
//! (`If-None-Match: *`), so that of two writers one wins, as on a disk. A store
//! that takes such a request and overlooks its condition would lose commits, so
//! it is tried before the first write.

use crate::handlers::Failure;
use crate::handlers::objects::{S3_SCHEME, waited_for};
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::{DeltaTable, DeltaTableError};
use futures::StreamExt;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use object_store::{Error as StoreError, ObjectStore, PutMode};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The folder of a table that makes it one.
const LOG: &str = "_delta_log";
/// An object that a store is asked to create twice.
const TRIED: &str = "_pointsman_conditional";

/// The place of the warehouse. Clones share it.
#[derive(Clone, Debug)]
pub struct Warehouse(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Folder(PathBuf),
    Bucket(Arc<Bucket>),
}

#[derive(Debug)]
struct Bucket {
    store: Arc<dyn ObjectStore>,
    name: String,
    /// Without slashes at its ends; may be empty.
    prefix: String,
    /// Set when the store was found to keep to conditions.
    keeps_conditions: OnceCell<()>,
}

impl From<PathBuf> for Warehouse {
    fn from(folder: PathBuf) -> Self {
        Self(Kind::Folder(folder))
    }
}

impl Warehouse {
    /// A folder of a bucket, which may be the bucket itself. `prefix` has no
    /// slashes at its ends.
    #[must_use]
    pub fn in_bucket(store: Arc<dyn ObjectStore>, name: String, prefix: String) -> Self {
        Self(Kind::Bucket(Arc::new(Bucket {
            store,
            name,
            prefix,
            keeps_conditions: OnceCell::new(),
        })))
    }

    /// Opens a table to write to it; one that does not exist has no version.
    ///
    /// # Errors
    /// When it is there and is no sound table, or cannot be reached, or the
    /// bucket's store overlooks conditions (`NoConditionalPut`, permanent).
    pub async fn open(&self, table: &str) -> Result<DeltaTable, Failure> {
        match &self.0 {
            Kind::Folder(root) => open_folder(&root.join(table)).await,
            Kind::Bucket(bucket) => {
                bucket
                    .keeps_conditions
                    .get_or_try_init(|| bucket.try_conditions())
                    .await?;
                bucket.open(table).await
            }
        }
    }

    /// Opens a table to read it; `None` when there is none.
    ///
    /// # Errors
    /// When it is no sound table or cannot be reached.
    pub async fn existing(&self, table: &str) -> Result<Option<DeltaTable>, Failure> {
        let found = match &self.0 {
            Kind::Folder(root) if !root.join(table).join(LOG).is_dir() => return Ok(None),
            Kind::Folder(root) => open_folder(&root.join(table)).await?,
            Kind::Bucket(bucket) => bucket.open(table).await?,
        };
        Ok(found.version().is_some().then_some(found))
    }

    /// Names of the tables, sorted.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub async fn names(&self) -> Result<Vec<String>, Failure> {
        let mut names = match &self.0 {
            Kind::Folder(root) => folders(root),
            Kind::Bucket(bucket) => {
                let listed = bucket.names().await;
                listed.map_err(|e| failed(&bucket.url(""), "listed", &e))?
            }
        };
        names.retain(|name| !name.starts_with(['.', '_']));
        names.sort_unstable();
        Ok(names)
    }

    /// [`Warehouse::names`], from where nothing can be awaited. Blocks.
    ///
    /// # Errors
    /// When the bucket cannot be listed.
    pub fn names_now(&self) -> Result<Vec<String>, Failure> {
        let asked = self.clone();
        let names = waited_for(async move { asked.names().await });
        names.map_err(|e| Failure::transient("WarehouseFailed", e.to_string()))?
    }

    /// What a table's writers in this process wait for each other by.
    #[must_use]
    pub fn place(&self, table: &str) -> PathBuf {
        match &self.0 {
            Kind::Folder(root) => root.join(table),
            Kind::Bucket(bucket) => PathBuf::from(bucket.url(table)),
        }
    }
}

impl Bucket {
    fn key(&self, name: &str) -> String {
        match self.prefix.is_empty() {
            true => name.to_owned(),
            false => format!("{}/{name}", self.prefix),
        }
    }

    fn url(&self, name: &str) -> String {
        format!("{S3_SCHEME}{}/{}", self.name, self.key(name))
    }

    async fn open(&self, table: &str) -> Result<DeltaTable, Failure> {
        let url = self.url(table);
        let location = reqwest::Url::parse(&format!("{url}/"));
        let location = location.map_err(|e| failed(&url, "opened", &e))?;
        let folder = StorePath::from(self.key(table));
        let inside = PrefixStore::new(Arc::clone(&self.store), folder);
        let config = StorageConfig::default();
        let root = Arc::clone(&self.store);
        let log = default_logstore(Arc::new(inside), root, &location, &config);
        let mut table = DeltaTable::new(log);
        match table.load().await {
            Ok(()) | Err(DeltaTableError::NotATable(_)) => Ok(table),
            Err(e) => Err(failed(&url, "opened", &e)),
        }
    }

    /// Creates an object that is there already.
    async fn try_conditions(&self) -> Result<(), Failure> {
        let key = StorePath::from(self.key(TRIED));
        for _ in 0..2 {
            let put = self.store.put_opts(&key, "".into(), PutMode::Create.into());
            match put.await {
                Ok(_) => {}
                Err(StoreError::AlreadyExists { .. }) => return Ok(()),
                Err(e) => return Err(failed(&self.url(TRIED), "written", &e)),
            }
        }
        Err(Failure::permanent(
            "NoConditionalPut",
            format!(
                "the store of bucket `{}` overlooks `If-None-Match`, so of two writers of a table one would overwrite the other; use a store (or a version of it) that keeps to it",
                self.name
            ),
        ))
    }

    async fn names(&self) -> Result<Vec<String>, StoreError> {
        let root = StorePath::from(self.prefix.as_str());
        let found = self.store.list_with_delimiter(Some(&root)).await?;
        let mut names = Vec::new();
        for folder in found.common_prefixes {
            let log = folder.clone().join(LOG);
            if self
                .store
                .list(Some(&log))
                .next()
                .await
                .transpose()?
                .is_some()
            {
                names.extend(folder.filename().map(str::to_owned));
            }
        }
        Ok(names)
    }
}

async fn open_folder(folder: &Path) -> Result<DeltaTable, Failure> {
    let failed = |e: &dyn Error| failed(&folder.display().to_string(), "opened", e);
    std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    let absolute = std::path::absolute(folder).map_err(|e| failed(&e))?;
    let url = deltalake::ensure_table_uri(absolute.to_string_lossy()).map_err(|e| failed(&e))?;
    DeltaTable::try_from_url(url).await.map_err(|e| failed(&e))
}

fn folders(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().join(LOG).is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn failed(place: &str, what: &str, e: &dyn Error) -> Failure {
    let message = format!("{place} of the warehouse cannot be {what}");
    Failure::transient("WarehouseFailed", message).caused_by(e)
}
