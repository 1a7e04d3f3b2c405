//! The SQL engine as everything here uses it: bounded memory that spills, no
//! way to change anything, errors that know their place in the text.

use super::functions;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in the SQL text, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SqlProblem {
    /// What is wrong, for people.
    pub message: String,
    /// Where, if the engine says so.
    pub position: Option<Position>,
    /// The view that it is in, and its SQL, if it is not the query itself.
    pub view: Option<(String, String)>,
}

impl fmt::Display for SqlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = &self.view {
            write!(f, "in the view `{name}`: ")?;
        }
        match self.position {
            None => f.write_str(&self.message),
            Some(at) => write!(
                f,
                "{} (line {}, column {})",
                self.message, at.line, at.column
            ),
        }
    }
}

impl SqlProblem {
    /// A problem without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            position: None,
            view: None,
        }
    }

    /// What the engine complains about.
    #[must_use]
    pub fn of(error: &DataFusionError) -> Self {
        let position = error
            .diagnostic()
            .and_then(|d| d.span)
            .map(|span| Position {
                line: span.start.line,
                column: span.start.column,
            });
        let said = error.strip_backtrace();
        let said = said.lines().next().unwrap_or_default();
        let mut message = said;
        for prefix in [
            "SQL error: ",
            "Error during planning: ",
            "Schema error: ",
            "This feature is not implemented: ",
            "Execution error: ",
            "External error: ",
            "type_coercion\ncaused by\n",
        ] {
            message = message.strip_prefix(prefix).unwrap_or(message);
        }
        let (message, in_text) = split_place(message);
        Self {
            message,
            position: position.or(in_text),
            view: None,
        }
    }

    /// The message with the line of SQL that it is about, and a caret.
    #[must_use]
    pub fn shown_in(&self, sql: &str) -> String {
        let sql = self.view.as_ref().map_or(sql, |(_, text)| text);
        let line = self.position.and_then(|at| {
            let index = usize::try_from(at.line).ok()?.checked_sub(1)?;
            Some((at, sql.lines().nth(index)?))
        });
        match line {
            None => self.message.clone(),
            Some((at, line)) => {
                let number = at.line.to_string();
                let before = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
                let pad: String = line
                    .chars()
                    .take(before)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                format!(
                    "{}\n {number} | {line}\n {:width$} | {pad}^",
                    self.message,
                    "",
                    width = number.len()
                )
            }
        }
    }
}

/// The parser tells the place at the end of its message.
fn split_place(message: &str) -> (String, Option<Position>) {
    let trimmed = message
        .strip_prefix("ParserError(\"")
        .and_then(|m| m.strip_suffix("\")"))
        .map_or_else(|| message.to_owned(), |m| m.replace("\\\"", "\""));
    let found = trimmed.rfind(" at Line: ").and_then(|at| {
        let (line, column) = trimmed[at + " at Line: ".len()..].split_once(", Column: ")?;
        let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
        let place = Position {
            line: line.parse().ok()?,
            column: digits.parse().ok()?,
        };
        Some((trimmed[..at].to_owned(), Some(place)))
    });
    found.unwrap_or((trimmed, None))
}

/// A thread of a sort or an aggregation needs about this many bytes. Two sorts that
/// merge what they spilled take memory from each other: with 39 MiB each, one of
/// them was refused on 6 million rows; with 79 MiB each, or alone with 39, none was.
const PARTITION: usize = 64 << 20;

/// On how many threads a heavy query of so much memory runs.
#[must_use]
pub fn threads(memory: usize) -> usize {
    cores().min((memory / PARTITION).max(1))
}

/// A session whose queries use about `memory` bytes and spill to `scratch` above that.
///
/// # Errors
/// When the scratch folder cannot be used.
pub fn session(memory: usize, scratch: &Path, partitions: usize) -> Result<SessionContext> {
    std::fs::create_dir_all(scratch)?;
    let spill = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![scratch.to_path_buf()]));
    let runtime = RuntimeEnvBuilder::new()
        // The greedy pool fails where this one makes sorts and aggregations spill.
        .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
        .with_disk_manager_builder(spill)
        .build_arc()?;
    let mut config = config(partitions.min(threads(memory)));
    // With little memory, a batch of wide rows and what a sort keeps back for merging
    // would be more than there is.
    config = config.with_batch_size((memory >> 15).clamp(512, 8_192));
    let kept = (memory / 16).clamp(512 << 10, 10 << 20);
    config.options_mut().execution.sort_spill_reservation_bytes = kept;
    let mut context = SessionContext::new_with_config_rt(config, runtime);
    functions::register(&mut context)?;
    Ok(context)
}

/// A session for planning only.
#[must_use]
pub fn planner() -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_config(config(1))
        .with_default_features()
        .build();
    let mut context = SessionContext::new_with_state(state);
    // Names that are new can be taken.
    drop(functions::register(&mut context));
    context
}

fn config(partitions: usize) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions.max(1))
        .with_information_schema(false);
    config.options_mut().sql_parser.collect_spans = true;
    config
        .options_mut()
        .execution
        .parquet
        .schema_force_view_types = false;
    config
}

/// How many threads a heavy query may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Plans one query that only reads.
///
/// # Errors
/// Says what is wrong with it, and where.
pub async fn plan(context: &SessionContext, sql: &str) -> Result<LogicalPlan, SqlProblem> {
    let plan = context
        .state()
        .create_logical_plan(sql)
        .await
        .map_err(|e| SqlProblem::of(&e))?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)
        .map_err(|e| {
            let said = SqlProblem::of(&e).message;
            SqlProblem::new(format!("only queries are allowed here: {said}"))
        })?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(sql: &str) -> SqlProblem {
        futures::executor::block_on(plan(&planner(), sql)).unwrap_err()
    }

    #[test]
    fn errors_know_their_place() {
        let sql = "select 1,\n  nope\nfrom (select 1 as a)";
        let p = problem(sql);
        assert_eq!(p.position, Some(Position { line: 2, column: 3 }), "{p}");
        assert!(
            p.shown_in(sql).contains(" 2 |   nope\n   |   ^"),
            "{}",
            p.shown_in(sql)
        );
        let p = problem("select from where");
        assert_eq!(p.position.map(|at| at.line), Some(1), "{p:?}");
    }

    #[test]
    fn nothing_can_be_changed() {
        for sql in [
            "create table t as select 1",
            "drop table t",
            "copy (select 1) to '/tmp/x.csv'",
            "set datafusion.execution.batch_size = 1",
            "create external table t stored as csv location '/etc/passwd'",
        ] {
            let p = problem(sql);
            assert!(
                p.message.starts_with("only queries are allowed here"),
                "{sql}: {p}"
            );
        }
        problem("select * from '/etc/passwd'");
    }
}
