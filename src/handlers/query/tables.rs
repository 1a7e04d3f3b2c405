//! The schemas of the catalog: tables are found when they are asked for.

use super::{QueryEnv, Scans, direct, lake, rejects};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use std::sync::Arc;

/// The table of records that were set aside.
pub const REJECTS: &str = "rejects";

/// The warehouse: a Delta table a folder.
#[derive(Debug)]
pub struct Warehouse {
    env: Arc<QueryEnv>,
    runtime: Arc<RuntimeEnv>,
}

/// The lake: a folder of manifests a table.
#[derive(Debug)]
pub struct Lake {
    env: Arc<QueryEnv>,
    scans: Scans,
}

impl Warehouse {
    /// The warehouse of `env`, and the objects of its places.
    pub fn new(env: Arc<QueryEnv>, runtime: Arc<RuntimeEnv>) -> Self {
        Self { env, runtime }
    }
}

impl Lake {
    /// The lake of `env`; what is read of it is told to `scans`.
    pub fn new(env: Arc<QueryEnv>, scans: Scans) -> Self {
        Self { env, scans }
    }
}

/// A name that is one folder's.
fn plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn external(e: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

#[async_trait]
impl SchemaProvider for Warehouse {
    fn table_names(&self) -> Vec<String> {
        // Nothing but names can be told here; a query of one tells what is wrong.
        let mut names = self.env.warehouse().names_now().unwrap_or_default();
        names.push(REJECTS.to_owned());
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if direct::is_object(name) {
            let runtime = Arc::clone(&self.runtime);
            return direct::table(name, &self.env.places(), runtime)
                .await
                .map(Some);
        }
        let found = match plain(name) {
            true => {
                let warehouse = self.env.warehouse();
                warehouse.existing(name).await.map_err(external)?
            }
            false => None,
        };
        let Some(table) = found else {
            return match name == REJECTS {
                true => rejects::table(&self.env.rejects).map(Some),
                false => Ok(None),
            };
        };
        let provider = table.table_provider().await.map_err(external)?;
        Ok(Some(provider))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == REJECTS
            || direct::is_object(name)
            || (plain(name) && self.table_names().iter().any(|known| known == name))
    }
}

#[async_trait]
impl SchemaProvider for Lake {
    fn table_names(&self) -> Vec<String> {
        let mut names = lake::names(&self.env.lake);
        names.push(REJECTS.to_owned());
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if !plain(name) || !lake::exists(&self.env.lake, name) {
            return match name == REJECTS {
                true => rejects::table(&self.env.rejects).map(Some),
                false => Ok(None),
            };
        }
        let (root, name) = (self.env.lake.clone(), name.to_owned());
        let places = self.env.places();
        let open = move || lake::LakeTable::open(&root, &name, &places);
        let table = tokio::task::spawn_blocking(open);
        let table = table.await.map_err(external)?.map_err(external)?;
        Ok(Some(Arc::new(table.told_to(Arc::clone(&self.scans)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == REJECTS || (plain(name) && lake::exists(&self.env.lake, name))
    }
}
