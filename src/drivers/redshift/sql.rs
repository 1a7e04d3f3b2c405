//! The SQL that Redshift gets, in words that PostgreSQL knows as well, but for
//! `COPY` from a bucket and `json_parse`. Redshift knows no `ctid`, no
//! `ON CONFLICT` and no alias for the table that is changed.

use super::Credentials;
use super::table::{Plan, TEXT_BYTES};
use crate::drivers::postgres::table::{list, quoted};
use crate::drivers::postgres::types::Wire;
use crate::handlers::Failure;
use crate::handlers::load::Mode;
use crate::handlers::load::source::ORDER;
use arrow::datatypes::DataType;

/// The staging table; each session has its own.
const STAGE: &str = "pointsman_stage";
/// The partitions that the staged rows are in.
const PARTITIONS: &str = "pointsman_partitions";

/// The names of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// `schema`, as it is.
    pub(super) schema: String,
    /// `table`, as it is.
    pub(super) name: String,
    /// `"schema"."table"`
    pub(super) table: String,
    /// `"schema".pointsman_loads`
    pub(super) receipts: String,
}

impl Names {
    /// The names of `TABLE` or `SCHEMA.TABLE`.
    ///
    /// # Errors
    /// When it is no name. One with a quote or backslash is none here, since
    /// names are looked up as text, too.
    pub(super) fn of(table: &str) -> Result<Self, Failure> {
        let parts: Vec<&str> = table.split('.').collect();
        let (schema, name) = match parts[..] {
            [name] => ("public", name),
            [schema, name] => (schema, name),
            _ => ("", ""),
        };
        if schema.is_empty() || name.is_empty() || table.contains(['"', '\'', '\\', '\0']) {
            let message =
                format!("`{table}` is not a table's name; write `TABLE` or `SCHEMA.TABLE`");
            return Err(Failure::permanent("BadOptions", message));
        }
        Ok(Self {
            schema: schema.to_owned(),
            name: name.to_owned(),
            table: format!("{}.{}", quoted(schema), quoted(name)),
            receipts: format!("{}.pointsman_loads", quoted(schema)),
        })
    }

    /// Makes the table of receipts.
    pub(super) fn create_receipts(&self) -> String {
        format!(
            "create table if not exists {} (
  target varchar(300) not null, publication varchar(200) not null, cause varchar(1024) not null,
  rows bigint not null, loaded_at timestamp not null,
  primary key (target, publication))",
            self.receipts
        )
    }

    /// A column of the table, where a statement changes it.
    fn column(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.name), quoted(name))
    }
}

/// Makes the staging table: the columns of the staged files, in their order.
pub(super) fn create_stage(plan: &Plan) -> String {
    let mut columns: Vec<String> = plan
        .columns()
        .map(|(name, kind, _)| format!("{} {}", quoted(name), staged_as(kind)))
        .collect();
    columns.push(format!("{} bigint", quoted(ORDER)));
    format!(
        "create temp table {STAGE} (\n  {}\n)",
        columns.join(",\n  ")
    )
}

/// The type of a staged column: what a `COPY` of Parquet can fill.
fn staged_as(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(p, s) => format!("numeric({p},{s})"),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        _ => format!("varchar({TEXT_BYTES})"),
    }
}

/// Copies the staged files that a manifest names into the staging table.
pub(super) fn copy(manifest: &str, credentials: &Credentials) -> String {
    let access = match credentials {
        Credentials::Role(role) if role == "default" => "iam_role default".to_owned(),
        Credentials::Role(role) => format!("iam_role {}", literal(role)),
        Credentials::Keys(key, secret, token) => {
            let token = token.as_ref().map_or_else(String::new, |token| {
                format!("\nsession_token {}", literal(token))
            });
            format!(
                "access_key_id {}\nsecret_access_key {}{token}",
                literal(key),
                literal(secret)
            )
        }
    };
    format!(
        "copy {STAGE} from {}\n{access}\nformat as parquet\nmanifest",
        literal(manifest)
    )
}

/// Text as SQL takes it. Redshift reads a backslash in it as an escape.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The statements that bring the staged rows into the table.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    names: &'a Names,
    plan: &'a Plan,
    /// In their order.
    pub(super) statements: Vec<String>,
}

impl<'a> Merge<'a> {
    pub(super) fn of(names: &'a Names, plan: &'a Plan, mode: &Mode) -> Self {
        let mut merge = Self {
            names,
            plan,
            statements: Vec::new(),
        };
        match mode {
            Mode::Append => merge.insert(None),
            Mode::Upsert { key, newer_by } => merge.upsert(key, newer_by.as_deref()),
            Mode::ReplacePartition { by } => merge.replace(by),
        }
        merge
    }

    /// A staged value, in the type of the table's column.
    fn staged(&self, column: &str) -> String {
        let plain = format!("{STAGE}.{}", quoted(column));
        match self.plan.wire(column) {
            Some(Wire::TimestampTz) => format!("({plain} at time zone 'UTC')"),
            Some(Wire::Jsonb) => format!("json_parse({plain})"),
            _ => plain,
        }
    }

    fn insert(&mut self, condition: Option<&str>) {
        let columns: Vec<&str> = self.plan.columns().map(|(name, ..)| name).collect();
        let values: Vec<String> = columns.iter().map(|c| self.staged(c)).collect();
        let condition = condition.map_or_else(String::new, |c| format!("\nwhere {c}"));
        self.statements.push(format!(
            "insert into {} ({})\nselect {}\nfrom {STAGE}{condition}",
            self.names.table,
            list(columns.iter().copied()),
            values.join(", ")
        ));
    }

    fn upsert(&mut self, key: &[String], newer_by: Option<&str>) {
        let table = &self.names.table;
        let same: Vec<String> = key
            .iter()
            .map(|k| format!("{} = {}", self.names.column(k), self.staged(k)))
            .collect();
        let same = same.join(" and ");
        self.last_of_each_key(key, newer_by);
        if let Some(newer_by) = newer_by {
            let (there, staged) = (self.names.column(newer_by), self.staged(newer_by));
            self.statements.push(format!(
                "delete from {STAGE} using {table}\nwhere {same}\n  and {there} is not null and ({staged} is null or {staged} < {there})"
            ));
        }
        let set: Vec<String> = self
            .plan
            .columns()
            .map(|(name, ..)| name)
            .filter(|name| !key.iter().any(|k| k == name))
            .map(|name| format!("{} = {}", quoted(name), self.staged(name)))
            .collect();
        if self.plan.complete {
            // Nothing of the old row stays.
            self.statements
                .push(format!("delete from {table} using {STAGE}\nwhere {same}"));
            self.insert(None);
            return;
        }
        if !set.is_empty() {
            self.statements.push(format!(
                "update {table} set {}\nfrom {STAGE}\nwhere {same}",
                set.join(", ")
            ));
        }
        self.insert(Some(&format!(
            "not exists (select 1 from {table} where {same})"
        )));
    }

    /// Of the staged rows of one key the last one stays, or the newest.
    fn last_of_each_key(&mut self, key: &[String], newer_by: Option<&str>) {
        let order = quoted(ORDER);
        let newest =
            newer_by.map_or_else(String::new, |n| format!("{} desc nulls last, ", quoted(n)));
        self.statements.push(format!(
            "delete from {STAGE} where {order} in (
  select {order} from (
    select {order}, row_number() over (partition by {} order by {newest}{order} desc) as place
    from {STAGE}) ranked
  where place > 1)",
            list(key.iter().map(String::as_str))
        ));
    }

    fn replace(&mut self, by: &[String]) {
        let values: Vec<String> = by
            .iter()
            .map(|c| format!("{} as {}", self.staged(c), quoted(c)))
            .collect();
        self.statements.push(format!(
            "create temp table {PARTITIONS} as select distinct {} from {STAGE}",
            values.join(", ")
        ));
        let same: Vec<String> = by
            .iter()
            .map(|c| {
                let (there, here) = (self.names.column(c), format!("{PARTITIONS}.{}", quoted(c)));
                format!("({there} = {here} or ({there} is null and {here} is null))")
            })
            .collect();
        self.statements.push(format!(
            "delete from {} using {PARTITIONS}\nwhere {}",
            self.names.table,
            same.join("\n  and ")
        ));
        self.insert(None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{self, Column};
    use super::*;
    use crate::handlers::load::LoadOptions;
    use arrow::datatypes::{Field, Schema, TimeUnit};
    use std::sync::Arc;

    fn outputs() -> Schema {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let tags = Arc::new(Field::new("item", DataType::Utf8, true));
        Schema::new(
            [
                ("id", DataType::Int64),
                ("day", DataType::Date32),
                ("amount", DataType::Decimal128(12, 2)),
                ("paid", DataType::Boolean),
                ("note", DataType::Utf8),
                ("at", utc),
                ("tags", DataType::List(tags)),
            ]
            .map(|(name, kind)| Field::new(name, kind, true))
            .to_vec(),
        )
    }

    fn plan(more: &[&str]) -> Plan {
        let shown = [
            ("id", "bigint"),
            ("day", "date"),
            ("amount", "numeric(12,2)"),
            ("paid", "boolean"),
            ("note", "character varying(65535)"),
            ("at", "timestamp with time zone"),
            ("tags", "super"),
        ];
        let more = more.iter().map(|name| (*name, "integer"));
        let there: Vec<Column> = shown
            .into_iter()
            .chain(more)
            .map(|(name, shown)| Column::of(name, shown, false))
            .collect();
        table::fit(&there, &outputs()).unwrap()
    }

    fn merged(plan: &Plan, mode: &Mode) -> String {
        let names = Names::of("sales.orders").unwrap();
        Merge::of(&names, plan, mode).statements.join(";\n\n")
    }

    #[test]
    fn the_copy_names_the_manifest_and_the_role() {
        let manifest = "s3://staging/loads/sales.orders/0123/manifest.json";
        let role = "arn:aws:iam::123456789012:role/load".to_owned();
        let keys = Credentials::Keys("AKIA".to_owned(), "it's\\".to_owned(), Some("t".to_owned()));
        let all = [
            create_stage(&plan(&[])),
            copy(manifest, &Credentials::Role(role)),
            copy(manifest, &Credentials::Role("default".to_owned())),
            copy(manifest, &keys),
        ];
        insta::assert_snapshot!(all.join(";\n\n"));
    }

    #[test]
    fn an_upsert_takes_the_place_of_whole_rows() {
        let mode = Mode::upsert(vec!["id".to_owned(), "day".to_owned()]);
        insta::assert_snapshot!(merged(&plan(&[]), &mode));
    }

    #[test]
    fn an_upsert_by_time_leaves_newer_rows_and_other_columns() {
        let mode = Mode::Upsert {
            key: vec!["id".to_owned()],
            newer_by: Some("at".to_owned()),
        };
        insta::assert_snapshot!(merged(&plan(&["stock"]), &mode));
    }

    #[test]
    fn an_append_adds_rows() {
        insta::assert_snapshot!(merged(&plan(&[]), &Mode::Append));
    }

    #[test]
    fn partitions_are_replaced() {
        let by = vec!["day".to_owned(), "paid".to_owned()];
        insta::assert_snapshot!(merged(&plan(&[]), &Mode::ReplacePartition { by }));
    }

    #[test]
    fn tables_are_made_and_widened() {
        let names = Names::of("sales.orders").unwrap();
        let mut options = LoadOptions::new("sales.orders", Mode::upsert(vec!["id".to_owned()]));
        options.widen = true;
        let known = [
            Column::of("id", "bigint", true),
            Column::of("note", "character varying(10)", false),
        ];
        let changes = table::changes(&known, &names, &options, &outputs()).unwrap();
        let made = table::create(&names, options.mode.key(), &outputs()).unwrap();
        let all = [names.create_receipts(), made, changes.join(";\n")];
        insta::assert_snapshot!(all.join(";\n\n"));
    }

    #[test]
    fn names_that_would_need_quotes_are_refused() {
        for bad in ["", "a.b.c", ".t", "s.", "a'b", "a\"b", "a\\b"] {
            assert!(Names::of(bad).is_err(), "{bad}");
        }
        assert_eq!(Names::of("t").unwrap().table, r#""public"."t""#);
    }
}
