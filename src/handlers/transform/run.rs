//! Runs the SQL over `input` and writes its result into a staging folder.

use super::manifest::{self, Manifest, Output, Rejects};
use super::options::Format;
use super::publish::Staging;
use super::sink::{Limits, Sink};
use super::stream::cancelled;
use super::{Inner, reference, sql};
use crate::handlers::query;
use crate::handlers::query::engine::{self, SqlProblem};
use crate::handlers::{Context, Failure};
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Instant;

/// What a query wrote.
#[derive(Debug, Default)]
pub(super) struct Written {
    outputs: Vec<Output>,
    columns: Vec<manifest::ColumnInfo>,
    rows: u64,
}

/// Does blocking work on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Failure::transient("Internal", "work stopped unexpectedly").caused_by(&e))?
}

/// Milliseconds since `began`.
pub(super) fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The files' common name within their table: one for each publication, and one
/// for each time that it is published anew.
pub(super) fn file_id(publication: &str, revision: u32) -> String {
    match revision {
        0 => publication[..16].to_owned(),
        n => format!("{}-r{n}", &publication[..16]),
    }
}

/// What a query is given.
pub(super) struct Given<'a> {
    /// The records.
    pub input: Arc<dyn TableProvider>,
    /// Values of the parameters.
    pub params: &'a sql::Params,
    /// Bytes of the query's memory that the records take already.
    pub taken: usize,
}

/// Runs the transform's SQL over `input`; files go under the staging folder.
pub(super) async fn query(
    inner: &Arc<Inner>,
    given: Given<'_>,
    staging: &Staging,
    id: &str,
    cx: &Context,
) -> Result<Written, Failure> {
    let (context, plan) = physical(inner, given).await?;
    let output = sql::written(&plan.schema());
    sql::check_partitions(&output, &inner.options.write.partition_by)
        .map_err(|p| Failure::permanent("BadSql", p.message))?;
    let folder = staging.folder.join(&inner.options.write.table);
    let write = &inner.options.write;
    let sink = Sink::new(
        Arc::clone(&output),
        write,
        folder,
        id,
        Limits::within(inner.env.memory_bytes),
    )?;
    let (outputs, rows) = drain(inner, &context, plan, sink, cx).await?;
    Ok(Written {
        outputs,
        columns: manifest::columns(&output),
        rows,
    })
}

/// Plans the SQL for execution.
async fn physical(
    inner: &Arc<Inner>,
    given: Given<'_>,
) -> Result<(SessionContext, Arc<dyn ExecutionPlan>), Failure> {
    let (env, options) = (&inner.env, &inner.options);
    let memory = Limits::rest(env.memory_bytes).saturating_sub(given.taken);
    let context = engine::session(memory, &env.scratch, 1).map_err(|e| sql_failure(inner, &e))?;
    // Files of the lake may lie in buckets.
    query::register_buckets(&context, &inner.places).map_err(|e| sql_failure(inner, &e))?;
    for (name, reference) in &options.tables {
        let table = reference::open(inner, reference).await?;
        sql::register(&context, name, table).map_err(|p| problem(inner_sql(&options.sql), &p))?;
    }
    let text = inner_sql(&options.sql);
    let logical = sql::planned(&context, options, given.input, given.params)
        .await
        .map_err(|p| problem(text, &p))?;
    if sql::is_heavy(&logical) {
        let state = context.state_ref();
        let mut state = state.write();
        state.config_mut().options_mut().execution.target_partitions = engine::threads(memory);
    }
    let plan = context
        .state()
        .create_physical_plan(&logical)
        .await
        .map_err(|e| sql_failure(inner, &e))?;
    Ok((context, plan))
}

fn inner_sql(sql: &Option<String>) -> &str {
    sql.as_deref().unwrap_or("select * from input")
}

async fn drain(
    inner: &Arc<Inner>,
    context: &SessionContext,
    plan: Arc<dyn ExecutionPlan>,
    mut sink: Sink,
    cx: &Context,
) -> Result<(Vec<Output>, u64), Failure> {
    let mut stream =
        execute_stream(plan, context.task_ctx()).map_err(|e| sql_failure(inner, &e))?;
    loop {
        let next = tokio::select! {
            biased;
            () = cx.cancel.cancelled() => return Err(cancelled()),
            next = stream.next() => next,
        };
        match next {
            None => break,
            Some(batch) => {
                sink.push(&batch.map_err(|e| sql_failure(inner, &e))?)
                    .await?
            }
        }
    }
    let rows = sink.rows;
    let table = &inner.options.write.table;
    let files = sink.finish().await?;
    let outputs = files.into_iter().map(|file| Output {
        path: match file.folder.is_empty() {
            true => format!("{table}/{}", file.name),
            false => format!("{table}/{}/{}", file.folder, file.name),
        },
        rows: file.rows,
        bytes: file.bytes,
        partition: file.values,
    });
    Ok((outputs.collect(), rows))
}

fn problem(sql: &str, problem: &SqlProblem) -> Failure {
    Failure::permanent("BadSql", problem.shown_in(sql))
}

/// What the engine failed with, classed.
pub(super) fn sql_failure(inner: &Inner, error: &DataFusionError) -> Failure {
    let said = SqlProblem::of(error);
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => Failure::transient("OutOfMemory", said.message),
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => {
            Failure::transient("ReadFailed", said.message)
        }
        DataFusionError::ExecutionJoin(_) | DataFusionError::Internal(_) => {
            Failure::transient("Internal", said.message)
        }
        _ => Failure::permanent("SqlFailed", said.shown_in(inner_sql(&inner.options.sql))),
    }
}

/// The manifest of what was written.
pub(super) fn manifest(
    inner: &Inner,
    cause: &str,
    publication: &str,
    written: Written,
) -> Manifest {
    let write = &inner.options.write;
    Manifest {
        version: 1,
        publication: publication.to_owned(),
        table: write.table.clone(),
        handler: inner.name.clone(),
        cause: cause.to_owned(),
        revision: 0,
        definition: inner.definition.clone(),
        published_ms: chrono::Utc::now().timestamp_millis(),
        replaces: Vec::new(),
        object: None,
        objects: Vec::new(),
        input: None,
        format: format_name(write.format).to_owned(),
        outputs: written.outputs,
        partition_by: write.partition_by.clone(),
        schema: written.columns,
        rows_in: 0,
        rows_out: written.rows,
        rejects: Rejects::default(),
        ignored: std::collections::BTreeMap::new(),
        bytes_in: 0,
        duration_ms: 0,
        changes: None,
        events: None,
    }
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Parquet => "parquet",
        Format::Csv => "csv",
        Format::Ndjson | Format::JsonArray => "ndjson",
    }
}
