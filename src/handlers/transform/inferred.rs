//! Columns of JSON records that no schema is declared for, from the first of them.

use super::schema::{Column, Kind};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// How many records are looked at.
pub const RECORDS: usize = 1_000;

/// The columns in the order in which their names first appear. Numbers with a
/// fraction make a column of doubles; objects, lists and mixtures make JSON text.
#[must_use]
pub fn columns(records: &[Map<String, Value>]) -> Vec<Column> {
    let mut order: Vec<&str> = Vec::new();
    let mut kinds: HashMap<&str, Option<Kind>> = HashMap::new();
    for (name, value) in records.iter().flatten() {
        let seen = kinds.entry(name).or_insert_with(|| {
            order.push(name);
            None
        });
        *seen = merge(*seen, kind(value));
    }
    order
        .into_iter()
        .map(|name| {
            let kind = kinds.get(name).copied().flatten();
            Column::plain(name, kind.unwrap_or(Kind::Json))
        })
        .collect()
}

fn kind(value: &Value) -> Option<Kind> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some(Kind::Bool),
        Value::Number(n) if n.is_i64() => Some(Kind::Int),
        Value::Number(_) => Some(Kind::Float),
        Value::String(_) => Some(Kind::Text),
        Value::Array(_) | Value::Object(_) => Some(Kind::Json),
    }
}

/// The narrowest type that holds values of both.
#[must_use]
pub fn merge(a: Option<Kind>, b: Option<Kind>) -> Option<Kind> {
    match (a, b) {
        (None, other) | (other, None) => other,
        (Some(a), Some(b)) if a == b => Some(a),
        (Some(Kind::Int | Kind::Float), Some(Kind::Int | Kind::Float)) => Some(Kind::Float),
        _ => Some(Kind::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(lines: &[&str]) -> Vec<(String, Kind)> {
        let records: Vec<Map<String, Value>> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        columns(&records)
            .into_iter()
            .map(|c| (c.name, c.kind))
            .collect()
    }

    #[test]
    fn types_widen_over_the_first_records() {
        let found = kinds(&[
            r#"{"i":1,"f":1,"s":"x","b":true,"m":1,"n":null}"#,
            r#"{"i":2,"f":1.5,"m":"x","late":{"a":1}}"#,
        ]);
        let expected = [
            ("i", Kind::Int),
            ("f", Kind::Float),
            ("s", Kind::Text),
            ("b", Kind::Bool),
            ("m", Kind::Json),
            ("n", Kind::Json),
            ("late", Kind::Json),
        ];
        let mut found_sorted = found;
        let mut expected: Vec<_> = expected.map(|(n, k)| (n.to_owned(), k)).to_vec();
        found_sorted.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found_sorted, expected);
    }
}
