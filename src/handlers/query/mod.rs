//! SQL over the lake and the warehouse, for people and programs: read only.
//!
//! `NAME` and `warehouse.NAME` are the warehouse's tables, `lake.NAME` those of
//! the lake (only what its manifests name), `rejects` (or `lake.rejects`) the
//! records that were set aside. A name with a `/` is an object of a declared
//! source: `'SOURCE/KEY'` or `'s3://BUCKET/KEY'`.

mod direct;
pub mod engine;
mod functions;
mod lake;
mod output;
mod rejects;
mod tables;

pub use engine::{Position, SqlProblem};
pub use lake::LakeTable;
pub use output::{Output, Style};

use super::load::Warehouse;
use super::objects::{Places, S3_SCHEME};
use arc_swap::ArcSwap;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::common::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, displayable};
use datafusion::prelude::SessionContext;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What is told of the tables that a query reads, a line a table.
type Scans = Arc<Mutex<Vec<String>>>;

/// The places and limits of queries.
#[derive(Clone, Debug)]
pub struct QueryEnv {
    /// Root of the lake.
    pub lake: PathBuf,
    /// The warehouse.
    pub warehouse: Arc<ArcSwap<Warehouse>>,
    /// Root of the files of rejects.
    pub rejects: PathBuf,
    /// Scratch space for spills.
    pub scratch: PathBuf,
    /// Memory for one query, in bytes.
    pub memory_bytes: usize,
    /// The buckets that files of the lake may lie in.
    pub places: Arc<ArcSwap<Places>>,
}

impl QueryEnv {
    fn places(&self) -> Arc<Places> {
        self.places.load_full()
    }

    fn warehouse(&self) -> Arc<Warehouse> {
        self.warehouse.load_full()
    }
}

/// The URL that the engine knows the store of a bucket by.
fn bucket_url(bucket: &str) -> Result<ObjectStoreUrl, DataFusionError> {
    ObjectStoreUrl::parse(format!("{S3_SCHEME}{bucket}"))
}

/// Lets a session's queries read files that lie in buckets.
///
/// # Errors
/// When a bucket's name cannot be that of a host.
pub fn register_buckets(session: &SessionContext, places: &Places) -> Result<(), DataFusionError> {
    for (bucket, store) in places.buckets() {
        let url = bucket_url(bucket)?;
        let runtime = session.runtime_env();
        runtime.register_object_store(url.as_ref(), Arc::clone(store));
    }
    Ok(())
}

/// Answers queries.
#[derive(Clone, Debug)]
pub struct Query {
    env: QueryEnv,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The SQL is wrong; the message shows where.
    #[error("{shown}")]
    Sql {
        /// The message with the line of SQL and a caret.
        shown: String,
        /// What is wrong, and where.
        problem: SqlProblem,
    },
    /// It could not be run.
    #[error("the query could not be run: {0}")]
    Run(#[from] DataFusionError),
}

/// The answer to a query.
pub struct Answer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub rows: SendableRecordBatchStream,
}

impl Query {
    /// Queries over a lake and a warehouse.
    #[must_use]
    pub fn new(env: QueryEnv) -> Self {
        Self { env }
    }

    /// Sets the folders and buckets whose objects can be asked and that files of
    /// the lake may lie in, and the warehouse.
    pub fn set_places(&self, places: Places, warehouse: Warehouse) {
        self.env.places.store(Arc::new(places));
        self.env.warehouse.store(Arc::new(warehouse));
    }

    /// The warehouse that is asked.
    #[must_use]
    pub fn warehouse(&self) -> Arc<Warehouse> {
        self.env.warehouse()
    }

    /// Runs a query.
    ///
    /// # Errors
    /// When the SQL is wrong or would change something, or cannot be run.
    pub async fn run(&self, sql: &str) -> Result<Answer, QueryError> {
        let context = self.context(&Scans::default())?;
        let plan = self.plan(&context, sql).await?;
        let schema = plan.schema();
        let rows = datafusion::physical_plan::execute_stream(plan, context.task_ctx())?;
        Ok(Answer { schema, rows })
    }

    /// Tells how a query would be run: how many files of each table of the lake
    /// would be read, and the plan, which names them.
    ///
    /// # Errors
    /// When the SQL is wrong or would change something.
    pub async fn explain(&self, sql: &str) -> Result<String, QueryError> {
        let scans = Scans::default();
        let context = self.context(&scans)?;
        let plan = self.plan(&context, sql).await?;
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        let mut lines = scans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.push(shown);
        Ok(lines.join("\n"))
    }

    async fn plan(
        &self,
        context: &SessionContext,
        sql: &str,
    ) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        let plan = match engine::plan(context, sql).await {
            Ok(plan) => plan,
            Err(problem) => {
                let problem = self.hinted(problem).await;
                return Err(QueryError::Sql {
                    shown: problem.shown_in(sql),
                    problem,
                });
            }
        };
        let plan = context.state().create_physical_plan(&plan).await;
        plan.map_err(|e| shown(e, sql))
    }

    /// Names of the tables that can be asked for; those of the warehouse only
    /// while it can be reached.
    pub async fn tables(&self) -> Vec<String> {
        let mut names = self.env.warehouse().names().await.unwrap_or_default();
        names.extend(
            lake::names(&self.env.lake)
                .into_iter()
                .map(|n| format!("lake.{n}")),
        );
        names.push(tables::REJECTS.to_owned());
        names
    }

    fn context(&self, scans: &Scans) -> Result<SessionContext, DataFusionError> {
        let session = engine::session(self.env.memory_bytes, &self.env.scratch, engine::cores())?;
        register_buckets(&session, &self.env.places())?;
        let catalog = MemoryCatalogProvider::new();
        let env = Arc::new(self.env.clone());
        catalog.register_schema(
            "warehouse",
            Arc::new(tables::Warehouse::new(
                Arc::clone(&env),
                session.runtime_env(),
            )),
        )?;
        let lake = tables::Lake::new(env, Arc::clone(scans));
        catalog.register_schema("lake", Arc::new(lake))?;
        let config = session
            .copied_config()
            .with_default_catalog_and_schema("pointsman", "warehouse")
            .with_create_default_catalog_and_schema(false);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(session.runtime_env())
            .with_default_features()
            .build();
        let mut context = SessionContext::new_with_state(state);
        functions::register(&mut context)?;
        context.register_catalog("pointsman", Arc::new(catalog));
        Ok(context)
    }

    /// Names the tables there are, when one is asked for that is not.
    async fn hinted(&self, mut problem: SqlProblem) -> SqlProblem {
        let unknown = problem
            .message
            .strip_prefix("table '")
            .and_then(|m| m.strip_suffix("' not found"));
        if let Some(name) = unknown {
            let name = name.strip_prefix("pointsman.").unwrap_or(name);
            let name = name.strip_prefix("warehouse.").unwrap_or(name);
            let mut known = self.tables().await;
            let in_lake = format!("lake.{name}");
            problem.message = match known.contains(&in_lake) {
                true => format!(
                    "there is no table `{name}` in the warehouse; the lake has one: `{in_lake}`"
                ),
                false => {
                    known.truncate(30);
                    format!(
                        "there is no table `{name}`; there are: {}",
                        known.join(", ")
                    )
                }
            };
        }
        problem
    }
}

fn shown(error: DataFusionError, sql: &str) -> QueryError {
    match error.find_root() {
        DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_) => {
            let problem = SqlProblem::of(&error);
            QueryError::Sql {
                shown: problem.shown_in(sql),
                problem,
            }
        }
        _ => QueryError::Run(error),
    }
}

/// The folders in a folder, sorted; none if it does not exist.
fn folders(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !name.starts_with('_'))
        .collect();
    names.sort_unstable();
    names
}
