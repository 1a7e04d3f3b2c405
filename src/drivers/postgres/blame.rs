//! Which row a refusal of the server is about.

use super::connect;
use crate::handlers::Failure;
use crate::handlers::load::source::Outputs;

/// A failure of a statement on rows: with the row, where the server tells it.
pub(super) fn told(error: &tokio_postgres::Error, table: &str, outputs: &Outputs) -> Failure {
    let row = error.as_db_error().and_then(|e| line(e.where_()?));
    of_row(error, table, row.and_then(|row| outputs.name(row)))
}

/// A failure about a row that is known.
pub(super) fn of_row(error: &tokio_postgres::Error, table: &str, row: Option<String>) -> Failure {
    let what = match row {
        Some(row) => format!("{table} refuses the row {row}"),
        None => format!("{table} refuses the rows"),
    };
    let mut failure = connect::told(error, &what);
    // What the server says of the values belongs to the message.
    if let Some(detail) = error.as_db_error().and_then(|e| e.detail()) {
        failure.message = format!("{} ({})", failure.message, detail.trim_end_matches('.'));
    }
    failure
}

/// The row, from 0, of a context like `COPY t, line 3, column v: "x"`.
fn line(context: &str) -> Option<u64> {
    let rest = context.strip_prefix("COPY ")?;
    let (_, rest) = rest.split_once(", line ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_in_the_context() {
        assert_eq!(line("COPY t, line 3, column v: \"x\""), Some(2));
        assert_eq!(line("COPY we, line 7"), Some(6));
        assert_eq!(line("SQL statement \"select 1\""), None);
    }
}
