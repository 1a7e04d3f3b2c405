//! The SQL of a transform: planned when the rules are loaded, run per cause.

use super::drift::{Policy, RESCUED};
use super::events::event_columns;
use super::options::{Input, ReadOptions, Reference, TransformOptions};
use super::schema::RecordSchema;
use crate::handlers::query::engine::{self, SqlProblem};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::ViewTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The name of the records in the SQL.
pub const INPUT: &str = "input";

/// Plans a transform's SQL against the declared schema and tells the columns
/// of its result. Without a declared schema, or with tables whose columns are not
/// known yet, only the syntax can be checked and the result has no columns.
///
/// # Errors
/// Says what is wrong, and where in the SQL if the engine knows.
pub fn check_sql(options: &TransformOptions) -> Result<Schema, SqlProblem> {
    let sql = options.sql.as_deref().unwrap_or("select * from input");
    let declared = declared(&options.read).map_err(SqlProblem::new)?;
    // What columns a table of the lake or the warehouse has is known when it is read.
    let of_files = |reference: &Reference| matches!(reference, Reference::File(_));
    let known = options.tables.values().all(of_files);
    let Some(declared) = declared.filter(|_| known) else {
        for (name, view) in &options.views {
            parsed(view).map_err(|e| in_view(e, name, view))?;
        }
        return parsed(sql).map(|()| Schema::empty());
    };
    let context = engine::planner();
    let columns = match options.read.input {
        Input::Object => as_read(options, declared),
        Input::Publication => Arc::clone(declared.arrow()),
        Input::Events => event_columns(declared.arrow()),
    };
    let output = futures::executor::block_on(async {
        for (name, reference) in &options.tables {
            let Reference::File(path) = reference else {
                continue;
            };
            let table = super::reference::load(path)
                .map_err(|e| SqlProblem::new(format!("table `{name}`: {}", e.message)))?;
            register(&context, name, table)?;
        }
        let params = options.params.keys().map(|name| (name.clone(), None));
        let input = Arc::new(EmptyTable::new(columns));
        let plan = planned(&context, options, input, &params.collect()).await?;
        let optimized = context
            .state()
            .optimize(&plan)
            .map_err(|e| SqlProblem::of(&e))?;
        Ok(optimized.schema().as_arrow().clone())
    })?;
    check_partitions(&output, &options.write.partition_by)?;
    Ok(output)
}

/// The compiled schema of the records, if one is declared.
///
/// # Errors
/// Says what is wrong with the schema.
pub fn declared(options: &ReadOptions) -> Result<Option<RecordSchema>, String> {
    let Some((schema, path)) = &options.schema else {
        return Ok(None);
    };
    let mut compiled =
        RecordSchema::compile(schema).map_err(|e| format!("{}: {e}", path.display()))?;
    if let Some(order) = super::schema_order::of_file(path) {
        compiled.reorder(&order);
    }
    Ok(Some(compiled))
}

/// # Errors
/// Says what is wrong with the text.
fn parsed(sql: &str) -> Result<(), SqlProblem> {
    let dialect = datafusion::sql::sqlparser::dialect::GenericDialect {};
    datafusion::sql::parser::DFParser::parse_sql_with_dialect(sql, &dialect)
        .map(|_| ())
        .map_err(|e| SqlProblem::of(&e))
}

fn in_view(problem: SqlProblem, name: &str, sql: &str) -> SqlProblem {
    SqlProblem {
        view: Some((name.to_owned(), sql.to_owned())),
        ..problem
    }
}

/// The columns of `input`: the declared ones, and the one that rescues.
fn as_read(options: &TransformOptions, mut declared: RecordSchema) -> SchemaRef {
    if options.read.drift == Some(Policy::Rescue) {
        declared.rescue_into(RESCUED);
    }
    Arc::clone(declared.arrow())
}

/// Values of the parameters; a path that leads nowhere gives null.
pub type Params = BTreeMap<String, Option<String>>;

/// The parameters' values in an event. They are bound to the plan as text, and
/// never become part of the SQL.
///
/// # Errors
/// When a path is not one.
pub fn params(options: &TransformOptions, event: &Value) -> Result<Params, String> {
    use jsonpath_rust::JsonPath;
    let mut values = Params::new();
    for (name, path) in &options.params {
        let found = event.query(path).map_err(|e| format!("`{path}`: {e}"))?;
        let text = found.first().and_then(|value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        values.insert(name.clone(), text);
    }
    Ok(values)
}

/// Plans a text with the parameters bound.
async fn bound(
    context: &SessionContext,
    sql: &str,
    params: &Params,
) -> Result<LogicalPlan, SqlProblem> {
    let plan = engine::plan(context, sql).await?;
    let values = params.iter();
    let values = values.map(|(name, text)| (name.clone(), ScalarValue::Utf8(text.clone())));
    let values: HashMap<String, ScalarValue> = values.collect();
    plan.with_param_values(values).map_err(|e| {
        let mut problem = SqlProblem::of(&e);
        let known: Vec<&str> = params.keys().map(String::as_str).collect();
        if problem.message.contains("placeholder") {
            problem.message = format!("{}; `params` has: {}", problem.message, known.join(", "));
        }
        problem
    })
}

/// Plans the SQL over `input`, which it must read.
///
/// # Errors
/// Says what is wrong with it, and where.
pub async fn planned(
    context: &SessionContext,
    options: &TransformOptions,
    input: Arc<dyn TableProvider>,
    params: &Params,
) -> Result<LogicalPlan, SqlProblem> {
    register(context, INPUT, input)?;
    for (name, sql) in &options.views {
        let plan = bound(context, sql, params).await;
        let plan = plan.map_err(|e| in_view(e, name, sql))?;
        let view = Arc::new(ViewTable::new(plan, None));
        register(context, name, view)?;
    }
    let sql = options.sql.as_deref().unwrap_or("select * from input");
    let plan = bound(context, sql, params).await?;
    let mut reads = false;
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            reads |= scan.table_name.table() == INPUT;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(|e| SqlProblem::of(&e))?;
    match reads {
        true => Ok(plan),
        false => Err(SqlProblem::new(
            "the query does not read `input`, the records of the object",
        )),
    }
}

/// Makes a table known by its name.
///
/// # Errors
/// When the name cannot be used.
pub fn register(
    context: &SessionContext,
    name: &str,
    table: Arc<dyn TableProvider>,
) -> Result<(), SqlProblem> {
    let bare = datafusion::common::TableReference::bare(name);
    context
        .register_table(bare, table)
        .map(|_| ())
        .map_err(|e| SqlProblem::of(&e))
}

/// Whether the plan sorts or groups, so that several threads are worth it.
/// Other plans keep the order of the records, on one thread.
#[must_use]
pub fn is_heavy(plan: &LogicalPlan) -> bool {
    let heavy = |node: &LogicalPlan| {
        matches!(
            node,
            LogicalPlan::Aggregate(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Window(_)
                | LogicalPlan::Distinct(_)
        )
    };
    plan.exists(|node| Ok(heavy(node))).unwrap_or(true)
}

/// # Errors
/// When a partition column is not in the result, or nothing else is.
pub fn check_partitions(output: &Schema, partition_by: &[String]) -> Result<(), SqlProblem> {
    let names: Vec<&str> = output.fields().iter().map(|f| f.name().as_str()).collect();
    if let Some(missing) = partition_by.iter().find(|c| !names.contains(&c.as_str())) {
        return Err(SqlProblem::new(format!(
            "partition column `{missing}` is not in the result; it has: {}",
            names.join(", ")
        )));
    }
    let twice = names
        .iter()
        .enumerate()
        .find(|(i, n)| names[..*i].contains(n));
    if let Some((_, name)) = twice {
        return Err(SqlProblem::new(format!(
            "the result has two columns named `{name}`; rename one with `as`"
        )));
    }
    match names.len() > partition_by.len() {
        true => Ok(()),
        false => Err(SqlProblem::new(
            "the result has no columns besides the partition columns",
        )),
    }
}

/// The result's columns with the types that files are written with: plain
/// text for views and dictionaries.
#[must_use]
pub fn written(output: &Schema) -> SchemaRef {
    use arrow::datatypes::DataType;
    let plain = |kind: &DataType| match kind {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => match values.as_ref() {
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            other => other.clone(),
        },
        // A column of nulls has to be of some type in a file.
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    };
    let fields: Vec<Field> = output
        .fields()
        .iter()
        .map(|f| {
            Field::new(
                f.name(),
                plain(f.data_type()),
                f.is_nullable() || f.data_type().is_null(),
            )
        })
        .collect();
    Arc::new(Schema::new(fields))
}
