//! The table of a load: its columns, which of our types they hold, and how it
//! is made and widened. `docs/loading.md` has the types for people.

use super::explain::told;
use super::sql::Names;
use crate::drivers::postgres::encode::is_nested;
use crate::drivers::postgres::table::{list, quoted};
use crate::drivers::postgres::types::{self, Wire, misfit, sent};
use crate::handlers::Failure;
use crate::handlers::load::LoadOptions;
use arrow::datatypes::{DataType, Field, Schema};
use tokio_postgres::{Client, SimpleQueryMessage};

/// Most bytes of text that a staged column holds, the longest `varchar` of old
/// (<https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html>).
pub(super) const TEXT_BYTES: usize = 65_535;

/// A column of the table.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    shown: String,
    wire: Option<Wire>,
    /// Most bytes of text.
    limit: Option<usize>,
    required: bool,
}

impl Column {
    /// A column by the type that `format_type` tells.
    pub(super) fn of(name: &str, shown: &str, required: bool) -> Self {
        let (wire, limit) = match held(shown) {
            Some((wire, limit)) => (Some(wire), limit),
            None => (None, None),
        };
        Self {
            name: name.to_owned(),
            shown: shown.to_owned(),
            wire,
            limit,
            required,
        }
    }
}

/// What a column of a type holds, and how many bytes of text at most.
fn held(shown: &str) -> Option<(Wire, Option<usize>)> {
    let (base, limits) = match shown.split_once('(') {
        None => (shown, None),
        Some((base, rest)) => (base.trim(), rest.split_once(')').map(|(inner, _)| inner)),
    };
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let bytes = limits
        .and_then(number)
        .unwrap_or(TEXT_BYTES)
        .min(TEXT_BYTES);
    Some(match base {
        "boolean" => (Wire::Bool, None),
        "smallint" => (Wire::Int2, None),
        "integer" => (Wire::Int4, None),
        "bigint" => (Wire::Int8, None),
        "real" => (Wire::Float4, None),
        "double precision" => (Wire::Float8, None),
        "numeric" => match limits.map(|l| l.split_once(',').unwrap_or((l, "0"))) {
            None => (Wire::Numeric(None), None),
            Some((precision, scale)) => {
                let precision = u8::try_from(number(precision)?).ok()?;
                let scale = i8::try_from(number(scale)?).ok()?;
                (Wire::Numeric(Some((precision, scale))), None)
            }
        },
        "character varying" | "character" | "text" => (Wire::Text, Some(bytes)),
        "date" => (Wire::Date, None),
        "timestamp without time zone" => (Wire::Timestamp, None),
        "timestamp with time zone" => (Wire::TimestampTz, None),
        "super" => (Wire::Jsonb, Some(TEXT_BYTES)),
        _ => return None,
    })
}

/// A type as a table of Redshift takes it: as one of Postgres does, without bytes.
pub(super) fn normal(column: &str, kind: &DataType) -> Result<DataType, Failure> {
    let kind = types::normal(column, kind)?;
    if kind == DataType::Binary {
        let message = format!(
            "column `{column}` is binary, which cannot be copied into Redshift; cast it in the SQL, like `encode({column}, 'hex')`"
        );
        return Err(Failure::permanent("SchemaConflict", message));
    }
    Ok(kind)
}

/// The type that a column is made with.
fn made(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(p, s) => format!("numeric({p},{s})"),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        other if is_nested(other) => "super".to_owned(),
        _ => format!("varchar({TEXT_BYTES})"),
    }
}

/// The columns that are loaded.
#[derive(Debug)]
pub(super) struct Plan {
    /// Names as the table has them, and the types that values are cast to.
    pub(super) schema: Schema,
    checks: Vec<Check>,
    /// The outputs have every column of the table.
    pub(super) complete: bool,
}

/// What a table's column asks of each value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) wire: Wire,
    /// Most bytes of text.
    pub(super) limit: Option<usize>,
    pub(super) required: bool,
}

impl Plan {
    /// Name, type and demands of each column, in the order of the staged files.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, &DataType, Check)> {
        let fields = self.schema.fields().iter().zip(&self.checks);
        fields.map(|(f, check)| (f.name().as_str(), f.data_type(), *check))
    }

    /// What the table's column holds.
    pub(super) fn wire(&self, column: &str) -> Option<Wire> {
        let mut columns = self.columns();
        columns
            .find(|(name, ..)| *name == column)
            .map(|(.., check)| check.wire)
    }
}

/// Whether a table is there.
///
/// # Errors
/// When the server does not tell.
pub(super) async fn exists(client: &Client, schema: &str, name: &str) -> Result<bool, Failure> {
    // As text, because Redshift has not all that the types of these columns need.
    let sql = format!(
        "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = '{schema}' and c.relname = '{name}'"
    );
    let rows = client.simple_query(&sql).await;
    let rows = rows.map_err(|e| told(&e, &format!("{schema}.{name} cannot be looked up")))?;
    Ok(rows
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(_))))
}

async fn columns(client: &Client, names: &Names) -> Result<Vec<Column>, Failure> {
    let sql = format!(
        "select a.attname as name, format_type(a.atttypid, a.atttypmod) as shown,
           case when a.attnotnull then 'yes' else 'no' end as required
         from pg_attribute a
         join pg_class c on c.oid = a.attrelid
         join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = '{}' and c.relname = '{}' and a.attnum > 0 and not a.attisdropped
         order by a.attnum",
        names.schema, names.name
    );
    let rows = client.simple_query(&sql).await;
    let what = || format!("the columns of {} cannot be read", names.table);
    let rows = rows.map_err(|e| told(&e, &what()))?;
    let column = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(Column::of(
            row.get("name")?,
            row.get("shown")?,
            row.get("required") == Some("yes"),
        )),
        _ => None,
    };
    Ok(rows.iter().filter_map(column).collect())
}

/// How the outputs go into the table, which is made or widened first where the
/// options say so. Redshift changes no table inside a transaction that also
/// loads, so a change stays even if the load fails; it does no harm.
///
/// # Errors
/// Permanent: no such table, or a column that does not fit.
pub(super) async fn plan(
    client: &Client,
    names: &Names,
    options: &LoadOptions,
    outputs: &Schema,
) -> Result<Plan, Failure> {
    let mut there = columns(client, names).await?;
    if there.is_empty() {
        if !options.create {
            let message = format!(
                "there is no table {}; make it, or set `create: true`",
                names.table
            );
            return Err(Failure::permanent("NoTable", message));
        }
        let sql = create(names, options.mode.key(), outputs)?;
        let made = client.batch_execute(&sql).await;
        there = columns(client, names).await?;
        // Another load may have made it at the same time.
        if let Err(e) = made
            && there.is_empty()
        {
            let what = format!("the table {} cannot be made", names.table);
            return Err(told(&e, &what));
        }
    }
    for sql in changes(&there, names, options, outputs)? {
        tracing::info!(table = names.table, sql, "widens");
        let done = client.batch_execute(&sql).await;
        there = columns(client, names).await?;
        // Another load may have added the column at the same time.
        if let Err(e) = done
            && changes(&there, names, options, outputs)?.contains(&sql)
        {
            let what = format!("the table {} cannot be widened", names.table);
            return Err(told(&e, &what));
        }
    }
    fit(&there, outputs)
}

/// Makes the table.
///
/// # Errors
/// When two columns have the same name in Redshift's eyes.
pub(super) fn create(names: &Names, key: &[String], outputs: &Schema) -> Result<String, Failure> {
    let mut lines: Vec<String> = Vec::new();
    for (at, field) in outputs.fields().iter().enumerate() {
        let same = |f: &&std::sync::Arc<Field>| f.name().eq_ignore_ascii_case(field.name());
        if outputs.fields()[..at].iter().any(|f| same(&f)) {
            let message = format!(
                "column `{}` stands twice in the outputs: Redshift knows no capitals",
                field.name()
            );
            return Err(Failure::permanent("SchemaConflict", message));
        }
        let required = key.iter().any(|k| k == field.name());
        let required = if required { " not null" } else { "" };
        lines.push(format!(
            "{} {}{required}",
            quoted(field.name()),
            made(field.data_type())
        ));
    }
    if !key.is_empty() {
        // Not enforced, but the planner and people know by it what a row is.
        let key = list(key.iter().map(String::as_str));
        lines.push(format!("primary key ({key})"));
    }
    Ok(format!(
        "create table if not exists {} (\n  {}\n)",
        names.table,
        lines.join(",\n  ")
    ))
}

fn find<'a>(there: &'a [Column], name: &str) -> Option<&'a Column> {
    let exact = there.iter().find(|c| c.name == name);
    // Redshift writes names in small letters, unless it was told otherwise.
    exact.or_else(|| there.iter().find(|c| c.name.eq_ignore_ascii_case(name)))
}

/// What has to change in the table before the outputs fit, a statement each:
/// Redshift adds one column at a time, and has no wider types for those there are.
///
/// # Errors
/// When a column is missing and must not be added.
pub(super) fn changes(
    there: &[Column],
    names: &Names,
    options: &LoadOptions,
    outputs: &Schema,
) -> Result<Vec<String>, Failure> {
    let mut changes = Vec::new();
    for field in outputs.fields() {
        let name = field.name();
        match find(there, name) {
            None if options.widen => changes.push(format!(
                "alter table {} add column {} {}",
                names.table,
                quoted(name),
                made(field.data_type())
            )),
            None => {
                let message = format!(
                    "{} has no column `{name}`; add it, leave it out in the SQL, or set `widen: true`",
                    names.table
                );
                return Err(Failure::permanent("SchemaConflict", message));
            }
            Some(_) => {}
        }
    }
    Ok(changes)
}

/// How the outputs go into the table's columns.
///
/// # Errors
/// When one does not fit.
pub(super) fn fit(there: &[Column], outputs: &Schema) -> Result<Plan, Failure> {
    let mut fields: Vec<Field> = Vec::new();
    let mut checks = Vec::new();
    for field in outputs.fields() {
        let (name, kind) = (field.name(), field.data_type());
        let Some(column) = find(there, name) else {
            let message = format!("column `{name}` is not in the table");
            return Err(Failure::permanent("SchemaConflict", message));
        };
        let as_sent = column.wire.and_then(|w| Some((w, sent(w, kind)?)));
        let (wire, as_sent) = as_sent.ok_or_else(|| misfit(name, &column.shown, kind))?;
        // Values are found by the name that they have in the outputs.
        fields.push(Field::new(name, as_sent, true));
        checks.push(Check {
            wire,
            limit: column.limit,
            required: column.required,
        });
    }
    Ok(Plan {
        complete: fields.len() == there.len(),
        schema: Schema::new(fields),
        checks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_their_names() {
        let wire = |shown| held(shown).map(|(wire, _)| wire);
        assert_eq!(wire("numeric(18,2)"), Some(Wire::Numeric(Some((18, 2)))));
        assert_eq!(wire("timestamp with time zone"), Some(Wire::TimestampTz));
        assert_eq!(held("character varying(12)"), Some((Wire::Text, Some(12))));
        assert_eq!(held("text"), Some((Wire::Text, Some(TEXT_BYTES))));
        assert_eq!(held("geometry"), None);
    }

    #[test]
    fn names_differ_in_capitals_only_for_us() {
        let names = Names::of("t").unwrap();
        let two = |a: &str, b: &str| {
            let field = |name: &str| Field::new(name, DataType::Int64, true);
            create(&names, &[], &Schema::new(vec![field(a), field(b)]))
        };
        assert!(two("a", "b").is_ok());
        assert_eq!(two("Id", "id").unwrap_err().code, "SchemaConflict");
        let there = [Column::of("id", "bigint", true)];
        let outputs = Schema::new(vec![Field::new("Id", DataType::Int32, true)]);
        assert!(fit(&there, &outputs).unwrap().complete);
    }
}
