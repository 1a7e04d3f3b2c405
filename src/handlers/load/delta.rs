//! Delta tables of the built-in warehouse. One commit: the rows and the receipts
//! of the publications they came in.

use super::incoming::Incoming;
use super::loader::{Loaded, Loader};
use super::options::{LoadEnv, LoadOptions, Mode};
use super::source::{self, ORDER, Outputs, Rows};
use super::{RECEIPTS_KEPT, columns};
use crate::handlers::query::engine;
use crate::handlers::transform::{locks, manifest};
use crate::handlers::{Context, Failure};
use arrow::datatypes::Schema;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::execution::SessionStateBuilder;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use deltalake::delta_datafusion::planner::DeltaPlanner;
use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::{CommitProperties, TransactionError};
use deltalake::operations::write::SchemaMode;
use deltalake::protocol::SaveMode;
use deltalake::{DeltaTable, DeltaTableError};
use futures::future::BoxFuture;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How often a load that lost a race is tried again at once.
const RACES: usize = 5;
/// Version of a receipt's application transaction; there is only one.
const RECEIPT: i64 = 1;

/// Loads into a Delta table in a folder of the warehouse.
pub struct DeltaLoader {
    table: String,
    mode: Mode,
    env: LoadEnv,
}

/// What one try came to.
enum Try {
    Loaded(Option<u64>, Vec<String>),
    /// Another writer was faster.
    Lost(Failure),
}

impl Loader for DeltaLoader {
    fn load<'a>(
        &'a self,
        incoming: &'a [&'a Incoming],
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Loaded, Failure>> {
        Box::pin(async move {
            let _held = locks::lock(&self.env.warehouse.place(&self.table)).await;
            let mut lost =
                Failure::transient("CommitConflict", "other writers kept changing the table");
            for _ in 0..RACES {
                match self.once(incoming, cx).await? {
                    Try::Loaded(version, fresh) => return Ok(Loaded { fresh, version }),
                    Try::Lost(failure) => lost = failure,
                }
            }
            Err(lost)
        })
    }
}

impl DeltaLoader {
    /// A loader into the table of `options`.
    ///
    /// # Errors
    /// When the table's name is none.
    pub fn new(options: LoadOptions, env: LoadEnv) -> Result<Self, Failure> {
        if manifest::inside(Path::new(""), &options.table).is_none() {
            let message = format!("`{}` is not a table's name", options.table);
            return Err(Failure::permanent("BadOptions", message));
        }
        Ok(Self {
            table: options.table,
            mode: options.mode,
            env,
        })
    }

    async fn once(&self, incoming: &[&Incoming], cx: &Context) -> Result<Try, Failure> {
        let table = self.env.warehouse.open(&self.table).await?;
        let mut fresh: Vec<&Incoming> = Vec::new();
        for one in incoming {
            let twice = fresh.iter().any(|f| f.id == one.id);
            if !one.files.is_empty() && !twice && !has(&table, &one.id).await? {
                fresh.push(one);
            }
        }
        let version = table.version();
        if fresh.is_empty() {
            return Ok(Try::Loaded(version, Vec::new()));
        }
        let there = match version {
            None => None,
            Some(_) => Some(columns_of(&table).ok_or_else(|| {
                let message = format!("the columns of table `{}` cannot be read", self.table);
                Failure::transient("WarehouseFailed", message)
            })?),
        };
        let outputs = columns::union(&source::schemas(&fresh)?, columns::delta_type)?;
        let fitted = columns::fit(&outputs, there.as_ref())?;
        let mut written = self.write(&table, &fresh, &fitted, true, cx).await;
        if let Err(Refused::Memory(_)) = written {
            // A hash join does not spill; a merge join does, and is slower.
            written = self.write(&table, &fresh, &fitted, false, cx).await;
        }
        match written {
            Ok(version) => Ok(Try::Loaded(
                version,
                fresh.iter().map(|f| f.id.clone()).collect(),
            )),
            Err(Refused::Race(failure)) => Ok(Try::Lost(failure)),
            Err(Refused::Memory(failure) | Refused::Other(failure)) => Err(failure),
        }
    }

    async fn write(
        &self,
        table: &DeltaTable,
        fresh: &[&Incoming],
        schema: &Schema,
        hash_join: bool,
        cx: &Context,
    ) -> Result<Option<u64>, Refused> {
        for column in self.mode.columns() {
            if schema.field_with_name(column).is_err() {
                return Err(Refused::Other(source::lacks(column, &self.mode)));
            }
        }
        let key = self.mode.key();
        let outputs = Outputs::new(fresh, schema, key, !key.is_empty(), cx.cancel.clone());
        let context = self
            .session(hash_join)
            .map_err(|e| self.refused(&e.into(), &outputs))?;
        let existing = table.version().is_some();
        let receipts = receipts(fresh);
        let work = async {
            let rows = dataframe(&context, &outputs, schema, &self.mode)?;
            match &self.mode {
                Mode::Upsert { key, newer_by } if existing => {
                    let by = newer_by.as_deref();
                    merge(table, &context, rows, (key, by), receipts).await
                }
                Mode::ReplacePartition { by } if existing => {
                    let replaced = partitions(&rows, by).await?;
                    write(table, &context, rows, Some(replaced), receipts).await
                }
                _ => write(table, &context, rows, None, receipts).await,
            }
        };
        let done = tokio::select! {
            biased;
            () = cx.cancel.cancelled() => return Err(Refused::Other(crate::handlers::transform::cancelled())),
            done = work => done,
        };
        done.map(|table| table.version())
            .map_err(|e| self.refused(&e, &outputs))
    }

    fn session(&self, hash_join: bool) -> Result<SessionContext, DataFusionError> {
        let session = engine::session(self.env.memory_bytes, &self.env.scratch, engine::cores())?;
        let mut config = session.copied_config();
        let options = config.options_mut();
        options.optimizer.prefer_hash_join = hash_join;
        // As Delta's own sessions have it: lists of keys that a join pushes into
        // a scan have made the engine panic when a key is a dictionary.
        options.optimizer.hash_join_inlist_pushdown_max_size = 0;
        options
            .optimizer
            .hash_join_inlist_pushdown_max_distinct_values = 0;
        // Column names are taken as they are written.
        options.sql_parser.enable_ident_normalization = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(session.runtime_env())
            .with_default_features()
            .with_query_planner(DeltaPlanner::new())
            .build();
        Ok(SessionContext::new_with_state(state))
    }

    /// Why a write failed: what the reader of the outputs says comes first.
    fn refused(&self, error: &DeltaTableError, outputs: &Outputs) -> Refused {
        if let Some(failure) = outputs.failure() {
            return Refused::Other(failure);
        }
        let what = format!("table `{}` could not be written", self.table);
        match error {
            DeltaTableError::Transaction {
                source:
                    TransactionError::CommitConflict(_)
                    | TransactionError::VersionAlreadyExists(_)
                    | TransactionError::MaxCommitAttempts(_),
            }
            | DeltaTableError::VersionAlreadyExists(_) => {
                Refused::Race(told("CommitConflict", what, error))
            }
            other if other.to_string().contains("Resources exhausted") => {
                Refused::Memory(told("OutOfMemory", what, error))
            }
            _ => Refused::Other(told("WarehouseFailed", what, error)),
        }
    }
}

/// The columns of a table that exists and can be read.
fn columns_of(table: &DeltaTable) -> Option<Schema> {
    use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
    let snapshot = table.snapshot().ok()?;
    snapshot.schema().as_ref().try_into_arrow().ok()
}

enum Refused {
    Race(Failure),
    Memory(Failure),
    Other(Failure),
}

/// A failure with the engine's error, which may spell out whole plans, cut short.
fn told(code: &str, what: String, error: &DeltaTableError) -> Failure {
    let mut failure = Failure::transient(code, what).caused_by(error);
    for cause in &mut failure.chain {
        if let Some((end, _)) = cause.char_indices().nth(600) {
            cause.truncate(end);
            cause.push_str("...");
        }
    }
    failure
}

/// Whether a publication is in the table.
async fn has(table: &DeltaTable, id: &str) -> Result<bool, Failure> {
    if table.version().is_none() {
        return Ok(false);
    }
    let failed = |e: &DeltaTableError| {
        Failure::transient("WarehouseFailed", "the table's receipts cannot be read").caused_by(e)
    };
    let snapshot = table.snapshot().map_err(|e| failed(&e))?;
    let found = snapshot
        .transaction_version(table.log_store().as_ref(), app_id(id))
        .await;
    Ok(found.map_err(|e| failed(&e))?.is_some_and(|v| v >= RECEIPT))
}

fn app_id(id: &str) -> String {
    format!("pointsman:{id}")
}

/// The receipts that are committed with the rows.
fn receipts(fresh: &[&Incoming]) -> CommitProperties {
    // The age of a receipt counts from here; a clock before 1970 makes it old.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let transactions = fresh
        .iter()
        .map(|one| Transaction::new_with_last_update(app_id(&one.id), RECEIPT, Some(now)))
        .collect();
    let causes: Vec<_> = fresh
        .iter()
        .map(|one| json!({"publication": one.id, "cause": one.cause, "rows": one.rows}))
        .collect();
    CommitProperties::default()
        .with_metadata([("pointsman".to_owned(), json!({ "loaded": causes }))])
        .with_application_transactions(transactions)
        // A conflict is looked at here: the other writer may have loaded the same.
        .with_max_retries(0)
}

/// The rows; for an upsert only the last one of each key.
fn dataframe(
    context: &SessionContext,
    outputs: &Arc<Outputs>,
    schema: &Schema,
    mode: &Mode,
) -> Result<DataFrame, DataFusionError> {
    let rows = Rows(Arc::clone(outputs));
    let all = Arc::clone(datafusion::physical_plan::streaming::PartitionStream::schema(&rows));
    let table = StreamingTable::try_new(all, vec![Arc::new(rows)])?;
    let frame = context.read_table(Arc::new(table))?;
    let Mode::Upsert { key, newer_by } = mode else {
        return Ok(frame);
    };
    let names = || schema.fields().iter().map(|f| plain(f.name()));
    let newest = newer_by.iter().map(|n| plain(n).sort(false, false));
    let rank = row_number()
        .partition_by(key.iter().map(plain).collect())
        .order_by(newest.chain([plain(ORDER).sort(false, false)]).collect())
        .build()?
        .alias("__pointsman_rank");
    frame
        .select(names().chain([rank]).collect::<Vec<_>>())?
        .filter(plain("__pointsman_rank").eq(lit(1_u64)))?
        .select(names().collect::<Vec<_>>())
}

/// What tells the rows whose partitions are in `rows`.
async fn partitions(rows: &DataFrame, by: &[String]) -> Result<Expr, DataFusionError> {
    let columns: Vec<Expr> = by.iter().map(plain).collect();
    let found = rows.clone().select(columns)?.distinct()?.collect().await?;
    let mut any = lit(false);
    for batch in &found {
        for row in 0..batch.num_rows() {
            let mut all = lit(true);
            for (name, column) in by.iter().zip(batch.columns()) {
                let value = ScalarValue::try_from_array(column, row)?;
                all = all.and(match value.is_null() {
                    true => plain(name).is_null(),
                    false => plain(name).eq(lit(value)),
                });
            }
            any = any.or(all);
        }
    }
    Ok(any)
}

/// A column by its name, as it is written.
fn plain(name: impl AsRef<str>) -> Expr {
    Expr::Column(Column::new_unqualified(name.as_ref()))
}

fn of(side: &str, name: &str) -> Expr {
    Expr::Column(Column::new(Some(side), name))
}

fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build()
}

/// Adds rows, or puts them in the place of those that `replaced` tells.
async fn write(
    table: &DeltaTable,
    context: &SessionContext,
    rows: DataFrame,
    replaced: Option<Expr>,
    receipts: CommitProperties,
) -> Result<DeltaTable, DeltaTableError> {
    let configuration = [
        ("delta.setTransactionRetentionDuration", RECEIPTS_KEPT),
        ("delta.checkpointInterval", "20"),
    ];
    let mut write = table
        .clone()
        .write(Vec::new())
        .with_input_plan(rows.into_unoptimized_plan())
        .with_session_state(Arc::new(context.state()))
        .with_save_mode(SaveMode::Append)
        .with_schema_mode(SchemaMode::Merge)
        .with_configuration(configuration.map(|(k, v)| (k, Some(v))))
        .with_writer_properties(writer_properties())
        .with_commit_properties(receipts);
    if let Some(replaced) = replaced {
        write = write
            .with_save_mode(SaveMode::Overwrite)
            .with_replace_where(replaced);
    }
    write.await
}

async fn merge(
    table: &DeltaTable,
    context: &SessionContext,
    rows: DataFrame,
    (key, newer_by): (&[String], Option<&str>),
    receipts: CommitProperties,
) -> Result<DeltaTable, DeltaTableError> {
    let fields = rows.schema().fields().clone();
    let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
    let same = key
        .iter()
        .map(|k| of("target", k).eq(of("source", k)))
        .reduce(Expr::and);
    let Some(same) = same else {
        return Err(DeltaTableError::Generic("an upsert needs a key".to_owned()));
    };
    // A table that lacks the column has no row that is newer.
    let known = |n: &&str| columns_of(table).is_some_and(|c| c.field_with_name(n).is_ok());
    let newer = newer_by.filter(known).map(|n| {
        let not_older = of("source", n).gt_eq(of("target", n));
        of("target", n).is_null().or(not_older)
    });
    let set = |name: &&str| (Column::new_unqualified(*name), of("source", name));
    let (merged, metrics) = table
        .clone()
        .merge(rows, same)
        .with_source_alias("source")
        .with_target_alias("target")
        .with_merge_schema(true)
        .with_session_state(Arc::new(context.state()))
        .with_writer_properties(writer_properties())
        .with_commit_properties(receipts)
        .when_matched_update(|update| {
            let update = match newer {
                Some(newer) => update.predicate(newer),
                None => update,
            };
            names
                .iter()
                .map(set)
                .fold(update, |u, (c, e)| u.update(c, e))
        })?
        .when_not_matched_insert(|insert| {
            names.iter().map(set).fold(insert, |i, (c, e)| i.set(c, e))
        })?
        .await?;
    tracing::debug!(?metrics, "merged");
    Ok(merged)
}
