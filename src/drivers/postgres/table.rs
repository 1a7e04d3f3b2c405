//! The table of a load: its columns, and how it is made and widened.

use super::connect::told;
use super::types::{Wire, made, misfit, sent, widened, wire};
use crate::handlers::Failure;
use crate::handlers::load::LoadOptions;
use arrow::datatypes::{DataType, Field, Schema};
use tokio_postgres::Transaction;

/// The table of receipts, in the schema of the table that is loaded.
const RECEIPTS: &str = "pointsman_loads";

/// The names of a table, quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// `"schema"."table"`
    pub(super) table: String,
    /// `"schema"."pointsman_loads"`
    pub(super) receipts: String,
    /// The schema, not quoted.
    pub(super) schema: String,
}

impl Names {
    /// The names of `TABLE` or `SCHEMA.TABLE`, taken as they are written.
    ///
    /// # Errors
    /// When it is no name.
    pub(super) fn of(table: &str) -> Result<Self, Failure> {
        let parts: Vec<&str> = table.split('.').collect();
        let (schema, name) = match parts[..] {
            [name] => ("public", name),
            [schema, name] => (schema, name),
            _ => ("", ""),
        };
        if schema.is_empty() || name.is_empty() || table.contains('\0') {
            let message =
                format!("`{table}` is not a table's name; write `TABLE` or `SCHEMA.TABLE`");
            return Err(Failure::permanent("BadOptions", message));
        }
        Ok(Self {
            table: format!("{}.{}", quoted(schema), quoted(name)),
            receipts: format!("{}.{RECEIPTS}", quoted(schema)),
            schema: schema.to_owned(),
        })
    }
}

/// A name as SQL takes it.
pub(in crate::drivers) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names, quoted and with commas.
pub(in crate::drivers) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// A column of the table.
struct Column {
    name: String,
    shown: String,
    wire: Option<Wire>,
}

/// The columns that are loaded: how their values are sent, and as what.
pub(super) struct Plan {
    pub(super) schema: Schema,
    pub(super) wires: Vec<Wire>,
}

impl Plan {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|f| f.name().as_str())
    }
}

/// Makes the table of receipts where it is missing.
///
/// # Errors
/// When the server refuses.
pub(super) async fn receipts(tx: &Transaction<'_>, names: &Names) -> Result<(), Failure> {
    if exists(tx, &names.receipts).await? {
        return Ok(());
    }
    serialise(tx, &names.receipts).await?;
    let sql = format!(
        "create table if not exists {} (
           target text not null, publication text not null, cause text not null,
           rows bigint not null, loaded_at timestamptz not null default now(),
           primary key (target, publication))",
        names.receipts
    );
    let what = format!("the table of receipts {} cannot be made", names.receipts);
    tx.batch_execute(&sql).await.map_err(|e| told(&e, &what))
}

async fn exists(tx: &Transaction<'_>, name: &str) -> Result<bool, Failure> {
    let row = tx
        .query_one("select to_regclass($1) is not null", &[&name])
        .await;
    row.and_then(|r| r.try_get(0))
        .map_err(|e| told(&e, &format!("{name} cannot be looked up")))
}

/// Two that make or widen one table wait for each other.
async fn serialise(tx: &Transaction<'_>, name: &str) -> Result<(), Failure> {
    let sql = "select pg_advisory_xact_lock(hashtext('pointsman'), hashtext($1))";
    tx.execute(sql, &[&name])
        .await
        .map(drop)
        .map_err(|e| told(&e, "the lock of a table cannot be taken"))
}

/// How the outputs go into the table, which is made or widened first where the
/// options say so.
///
/// # Errors
/// Permanent: no such table, or a column that does not fit.
pub(super) async fn plan(
    tx: &Transaction<'_>,
    names: &Names,
    options: &LoadOptions,
    outputs: &Schema,
) -> Result<Plan, Failure> {
    if options.create && !exists(tx, &names.table).await? {
        serialise(tx, &names.table).await?;
        let sql = create(names, options.mode.key(), outputs);
        let what = format!("the table {} cannot be made", names.table);
        tx.batch_execute(&sql).await.map_err(|e| told(&e, &what))?;
    }
    let there = columns(tx, names).await?;
    let Some(changes) = changes(&there, names, options, outputs)? else {
        return fit(&there, outputs);
    };
    // Whoever was faster may have made the same changes.
    serialise(tx, &names.table).await?;
    if let Some(sql) = self::changes(&columns(tx, names).await?, names, options, outputs)? {
        tracing::info!(table = names.table, sql, "widens");
        let what = format!("the table {} cannot be widened", names.table);
        tx.batch_execute(&sql).await.map_err(|e| told(&e, &what))?;
    }
    drop(changes);
    fit(&columns(tx, names).await?, outputs)
}

fn create(names: &Names, key: &[String], outputs: &Schema) -> String {
    let mut lines: Vec<String> = outputs
        .fields()
        .iter()
        .map(|f| format!("{} {}", quoted(f.name()), made(f.data_type())))
        .collect();
    if !key.is_empty() {
        lines.push(format!(
            "primary key ({})",
            list(key.iter().map(String::as_str))
        ));
    }
    format!(
        "create table if not exists {} ({})",
        names.table,
        lines.join(", ")
    )
}

/// The table's columns, in their order.
async fn columns(tx: &Transaction<'_>, names: &Names) -> Result<Vec<Column>, Failure> {
    if !exists(tx, &names.table).await? {
        let message = format!(
            "there is no table {}; make it, or set `create: true`",
            names.table
        );
        return Err(Failure::permanent("NoTable", message));
    }
    // A domain's values are sent as those of its base.
    let sql = "
        select a.attname, format_type(a.atttypid, a.atttypmod),
          coalesce(b.oid, t.oid), coalesce(b.typtype, t.typtype)::text,
          coalesce(b.typname, t.typname),
          case when b.oid is null then a.atttypmod else t.typtypmod end
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid
        left join pg_type b on t.typtype = 'd' and b.oid = t.typbasetype
        where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
        order by a.attnum";
    let failed = |e: tokio_postgres::Error| {
        told(
            &e,
            &format!("the columns of {} cannot be read", names.table),
        )
    };
    let rows = tx.query(sql, &[&names.table]).await.map_err(failed)?;
    let column = |row: &tokio_postgres::Row| -> Result<Column, tokio_postgres::Error> {
        let kind: String = row.try_get(3)?;
        let name: String = row.try_get(4)?;
        let kind = kind.chars().next().unwrap_or('b');
        Ok(Column {
            name: row.try_get(0)?,
            shown: row.try_get(1)?,
            wire: wire(row.try_get(2)?, kind, row.try_get(5)?, &name),
        })
    };
    rows.iter()
        .map(column)
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// What has to change in the table before the outputs fit, as SQL.
fn changes(
    there: &[Column],
    names: &Names,
    options: &LoadOptions,
    outputs: &Schema,
) -> Result<Option<String>, Failure> {
    let mut changes = Vec::new();
    for field in outputs.fields() {
        let (name, kind) = (field.name(), field.data_type());
        match there.iter().find(|c| c.name == *name) {
            None if options.widen => {
                changes.push(format!("add column {} {}", quoted(name), made(kind)));
            }
            None => {
                let message = format!(
                    "{} has no column `{name}`; add it, leave it out in the SQL, or set `widen: true`",
                    names.table
                );
                return Err(Failure::permanent("SchemaConflict", message));
            }
            Some(column) if options.widen => {
                if let Some(wider) = column.wire.and_then(|w| widened(w, kind)) {
                    let (name, wider) = (quoted(name), made(&wider));
                    changes.push(format!("alter column {name} type {wider}"));
                }
            }
            Some(_) => {}
        }
    }
    Ok(
        (!changes.is_empty())
            .then(|| format!("alter table {} {}", names.table, changes.join(", "))),
    )
}

fn fit(there: &[Column], outputs: &Schema) -> Result<Plan, Failure> {
    let mut fields = Vec::new();
    let mut wires = Vec::new();
    for field in outputs.fields() {
        let (name, kind) = (field.name(), field.data_type());
        let Some(column) = there.iter().find(|c| c.name == *name) else {
            let message = format!("column `{name}` is not in the table");
            return Err(Failure::permanent("SchemaConflict", message));
        };
        let sent = column.wire.and_then(|w| Some((w, sent(w, kind)?)));
        let (wire, sent): (Wire, DataType) =
            sent.ok_or_else(|| misfit(name, &column.shown, kind))?;
        fields.push(Field::new(name, sent, true));
        wires.push(wire);
    }
    Ok(Plan {
        schema: Schema::new(fields),
        wires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::load::Mode;

    #[test]
    fn names_are_quoted() {
        let names = Names::of("sales.Or\"ders").unwrap();
        assert_eq!(names.table, r#""sales"."Or""ders""#);
        assert_eq!(names.receipts, r#""sales".pointsman_loads"#);
        assert_eq!(Names::of("t").unwrap().table, r#""public"."t""#);
        for bad in ["", "a.b.c", ".t", "s."] {
            assert!(Names::of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_is_made_of_what_is_loaded() {
        let outputs = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("amount", DataType::Decimal128(18, 2), true),
        ]);
        let names = Names::of("s.t").unwrap();
        let options = LoadOptions::new("s.t", Mode::upsert(vec!["id".to_owned()]));
        assert_eq!(
            create(&names, options.mode.key(), &outputs),
            r#"create table if not exists "s"."t" ("id" bigint, "amount" numeric(18,2), primary key ("id"))"#
        );
    }
}
