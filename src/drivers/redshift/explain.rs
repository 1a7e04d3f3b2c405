//! What an error of Redshift means, and what its system views add to it.

use crate::drivers::postgres::connect;
use crate::handlers::{Class, Failure};
use tokio_postgres::{Client, SimpleQueryMessage};

/// Lines that are told of a `COPY` that failed.
const TOLD: usize = 3;

/// Where Redshift keeps what a `COPY` stumbled on: the view that clusters and
/// serverless workgroups have, then the one that only clusters have
/// (<https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_ERROR_DETAIL.html>,
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_STL_LOAD_ERRORS.html>).
const VIEWS: [&str; 2] = [
    "select trim(file_name) as file, line_number as line, trim(column_name) as name,
       trim(error_message) as reason
     from sys_load_error_detail where session_id = pg_backend_pid()
     order by start_time desc limit 3",
    "select trim(filename) as file, line_number as line, trim(colname) as name,
       trim(err_reason) as reason
     from stl_load_errors where session = pg_backend_pid()
     order by starttime desc limit 3",
];

/// A failure for an error of the server. Redshift tells of transactions that
/// cannot be put in an order by an error of no class of its own.
pub(super) fn told(error: &tokio_postgres::Error, what: &str) -> Failure {
    let mut failure = connect::told(error, what);
    if let Some(detail) = error.as_db_error().and_then(|e| e.detail()) {
        let detail = detail.trim().trim_end_matches('.');
        failure.message = format!("{} ({detail})", failure.message);
    }
    let unordered = |text: &str| text.contains("Serializable isolation violation");
    if unordered(&failure.message) || failure.chain.iter().any(|line| unordered(line)) {
        failure.class = Class::Transient;
        "Conflict".clone_into(&mut failure.code);
    }
    failure
}

/// A failure for a `COPY` that failed, with what the system views say of it.
pub(super) async fn copy(client: &Client, error: &tokio_postgres::Error, table: &str) -> Failure {
    let mut failure = told(
        error,
        &format!("the staged files for {table} cannot be copied"),
    );
    if error.as_db_error().is_none() {
        return failure;
    }
    let found = details(client).await;
    if let Some(first) = found.first() {
        failure.message = format!("{}: {first}", failure.message);
        // Another try finds the same values.
        failure.class = Class::Permanent;
        "CopyFailed".clone_into(&mut failure.code);
    }
    failure.chain.extend(found);
    failure
}

async fn details(client: &Client) -> Vec<String> {
    for view in VIEWS {
        let Ok(answer) = client.simple_query(view).await else {
            continue;
        };
        let found: Vec<String> = answer
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    let text = |name: &str| row.get(name).unwrap_or_default();
                    let line = match text("line") {
                        "" | "0" => String::new(),
                        line => format!(", line {line}"),
                    };
                    Some(format!(
                        "column `{}` in {}{line}: {}",
                        text("name"),
                        text("file"),
                        text("reason")
                    ))
                }
                _ => None,
            })
            .take(TOLD)
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}
