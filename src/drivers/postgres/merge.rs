//! From the staging table into the table, by key or by partition.

use super::connect::told;
use super::table::{Names, Plan, list, quoted};
use super::{blame, copy};
use crate::handlers::Failure;
use crate::handlers::load::Mode;
use crate::handlers::load::source::{ORDER, Outputs};
use std::sync::Arc;
use tokio_postgres::Transaction;

/// The staging table; each transaction has its own.
const STAGE: &str = "pg_temp.pointsman_stage";

/// Copies all rows into a staging table that ends with the transaction.
///
/// # Errors
/// Permanent failures name the row.
pub(super) async fn stage(
    tx: &Transaction<'_>,
    names: &Names,
    plan: &Plan,
    outputs: &Arc<Outputs>,
) -> Result<(), Failure> {
    // Made like this it has the types of the columns, and none of their constraints.
    let sql = format!(
        "create temp table pointsman_stage on commit drop as
           select {}, 0::bigint as {ORDER} from {} with no data",
        list(plan.names()),
        names.table
    );
    let made = tx.batch_execute(&sql).await;
    made.map_err(|e| told(&e, "the staging table cannot be made"))?;
    copy::copy(tx, STAGE, plan, outputs).await?;
    let analyzed = tx.batch_execute(&format!("analyze {STAGE}")).await;
    analyzed.map_err(|e| told(&e, "the staging table cannot be analyzed"))
}

/// The statements of a merge.
#[derive(Debug)]
pub(super) struct Merge {
    table: String,
    /// Once, before the rest.
    before: Vec<String>,
    /// For the staged rows from `$1` to before `$2`.
    rows: Vec<String>,
}

impl Merge {
    pub(super) fn new(names: &Names, plan: &Plan, mode: &Mode) -> Self {
        // Writers wait, readers do not; so a row cannot come between two statements.
        let lock = format!("lock table {} in share row exclusive mode", names.table);
        let mut merge = Self {
            table: names.table.clone(),
            before: vec![lock],
            rows: Vec::new(),
        };
        let columns: Vec<&str> = plan.names().collect();
        match mode {
            Mode::Append => {}
            Mode::Upsert { key, newer_by } => merge.upsert(&columns, key, newer_by.as_deref()),
            Mode::ReplacePartition { by } => merge.replace(&columns, by),
        }
        merge
    }

    fn upsert(&mut self, columns: &[&str], key: &[String], newer_by: Option<&str>) {
        let table = &self.table;
        let keys = list(key.iter().map(String::as_str));
        let newest =
            newer_by.map_or_else(String::new, |n| format!("{} desc nulls last, ", quoted(n)));
        // Of the staged rows of one key the last one stays, or the newest.
        self.before.push(format!(
            "delete from {STAGE} s using (
               select ctid as id, row_number() over (partition by {keys} order by {newest}{ORDER} desc) as n
               from {STAGE}) d
             where s.ctid = d.id and d.n > 1"
        ));
        let same = pairs(key.iter().map(String::as_str), "t", "s", " and ");
        let others = columns.iter().filter(|c| !key.iter().any(|k| k == *c));
        let set: Vec<String> = others.map(|c| format!("{0} = s.{0}", quoted(c))).collect();
        if !set.is_empty() {
            let newer = newer_by.map_or_else(String::new, |n| {
                let n = quoted(n);
                format!(" and (t.{n} is null or s.{n} >= t.{n})")
            });
            self.rows.push(format!(
                "update {table} t set {} from {STAGE} s
                 where {same}{newer} and s.{ORDER} >= $1 and s.{ORDER} < $2",
                set.join(", ")
            ));
        }
        self.rows.push(format!(
            "insert into {table} ({0}) select {0} from {STAGE} s
             where not exists (select from {table} t where {same})
               and s.{ORDER} >= $1 and s.{ORDER} < $2",
            list(columns.iter().copied())
        ));
    }

    fn replace(&mut self, columns: &[&str], by: &[String]) {
        let table = &self.table;
        let same = by
            .iter()
            .map(|c| format!("t.{0} is not distinct from s.{0}", quoted(c)))
            .collect::<Vec<_>>()
            .join(" and ");
        self.before.push(format!(
            "delete from {table} t where exists (select from {STAGE} s where {same})"
        ));
        self.rows.push(format!(
            "insert into {table} ({0}) select {0} from {STAGE} s
             where s.{ORDER} >= $1 and s.{ORDER} < $2",
            list(columns.iter().copied())
        ));
    }

    /// Merges all rows. If the table refuses them, they are merged again by
    /// halves, to find the first one that it refuses.
    ///
    /// # Errors
    /// Permanent failures name the row.
    pub(super) async fn run(&self, tx: &Transaction<'_>, outputs: &Outputs) -> Result<(), Failure> {
        for sql in &self.before {
            let done = tx.batch_execute(sql).await;
            done.map_err(|e| blame::told(&e, &self.table, outputs))?;
        }
        let error = match self.range(tx, 0, i64::MAX).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let failure = blame::told(&error, &self.table, outputs);
        if failure.class != crate::handlers::Class::Permanent {
            return Err(failure);
        }
        match self.first_refused(tx).await {
            Ok(Some((row, error))) => {
                let name = u64::try_from(row).ok().and_then(|row| outputs.name(row));
                Err(blame::of_row(&error, &self.table, name))
            }
            // All went in by parts, or the search broke off: it stays with the whole.
            Ok(None) | Err(_) => Err(failure),
        }
    }

    /// Merges the staged rows of a range, or none of them.
    async fn range(
        &self,
        tx: &Transaction<'_>,
        from: i64,
        to: i64,
    ) -> Result<(), tokio_postgres::Error> {
        tx.batch_execute("savepoint pointsman_merge").await?;
        let mut done = Ok(());
        for sql in &self.rows {
            done = tx.execute(sql.as_str(), &[&from, &to]).await.map(drop);
            if done.is_err() {
                break;
            }
        }
        if done.is_ok() {
            done = tx.batch_execute("set constraints all immediate").await;
        }
        match done {
            Ok(()) => tx.batch_execute("release savepoint pointsman_merge").await,
            Err(error) => {
                // When the connection is gone, the first error says so.
                tx.batch_execute("rollback to savepoint pointsman_merge")
                    .await
                    .ok();
                Err(error)
            }
        }
    }

    /// The first row that is refused when rows are merged in their order. Each
    /// row is merged about twice.
    async fn first_refused(
        &self,
        tx: &Transaction<'_>,
    ) -> Result<Option<(i64, tokio_postgres::Error)>, tokio_postgres::Error> {
        let sql = format!("select coalesce(max({ORDER}) + 1, 0) from {STAGE}");
        let mut end: i64 = tx.query_one(&sql, &[]).await?.try_get(0)?;
        let mut begin = 0;
        let mut refused = None;
        // Rows before `begin` are in; one of those before `end` is refused.
        while begin < end {
            let middle = begin + (end - begin + 1) / 2;
            let to = if end - begin == 1 { end } else { middle };
            match self.range(tx, begin, to).await {
                Ok(()) if to == end => return Ok(None),
                Ok(()) => begin = to,
                Err(error) if to - begin == 1 => {
                    refused = Some((begin, error));
                    break;
                }
                Err(_) => end = to,
            }
        }
        Ok(refused)
    }
}

fn pairs<'a>(names: impl Iterator<Item = &'a str>, a: &str, b: &str, between: &str) -> String {
    names
        .map(|n| format!("{a}.{0} = {b}.{0}", quoted(n)))
        .collect::<Vec<_>>()
        .join(between)
}
