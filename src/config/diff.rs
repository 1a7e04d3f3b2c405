//! What changes between two configurations.

use super::model::Config;
use super::plan;
use serde::Serialize;
use serde_json::Value;

/// What became of one declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is not what it was.
    Changed,
}

/// One declaration that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What became of it.
    pub change: Change,
    /// The section: `rules`, `handlers` ...
    pub section: String,
    /// The name; for `node`, the field.
    pub name: String,
    /// Dotted paths of the fields that differ, below the name; empty for what is
    /// added or removed, and for fields of `node` that are not tables.
    pub fields: Vec<String>,
}

/// What differs, ordered by section and name. A secret whose value changed
/// counts, and is not shown.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Diff> {
    let (before, after) = (plan::plan(old), plan::plan(new));
    let mut found = Vec::new();
    let empty = serde_json::Map::new();
    for section in [
        "node",
        "connections",
        "sources",
        "queues",
        "rules",
        "handlers",
        "topics",
        "schedules",
    ] {
        let side = |value: &Value| value[section].as_object().unwrap_or(&empty).clone();
        let (was, is) = (side(&before), side(&after));
        let mut names: Vec<&String> = was.keys().chain(is.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (change, fields) = match (was.get(name), is.get(name)) {
                (None, _) => (Change::Added, Vec::new()),
                (_, None) => (Change::Removed, Vec::new()),
                (Some(was), Some(is)) => {
                    let mut fields = Vec::new();
                    compare(was, is, "", &mut fields);
                    fields.extend(secrets(old, new, &format!("{section}.{name}")));
                    fields.sort();
                    fields.dedup();
                    (Change::Changed, fields)
                }
            };
            if change != Change::Changed || !fields.is_empty() {
                let fields = fields
                    .into_iter()
                    .filter(|field| !field.is_empty())
                    .collect();
                found.push(Diff {
                    change,
                    section: section.to_owned(),
                    name: name.clone(),
                    fields,
                });
            }
        }
    }
    found
}

fn compare(was: &Value, is: &Value, path: &str, fields: &mut Vec<String>) {
    match (was.as_object(), is.as_object()) {
        (Some(old), Some(new)) => {
            let nothing = Value::Null;
            let keys = old
                .keys()
                .chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(
                    old.get(key).unwrap_or(&nothing),
                    new.get(key).unwrap_or(&nothing),
                    &path,
                    fields,
                );
            }
        }
        _ if was != is => fields.push(path.to_owned()),
        _ => {}
    }
}

/// Whether every reference stands for the value that it stood for.
#[must_use]
pub fn same_secrets(old: &Config, new: &Config) -> bool {
    old.shown.len() == new.shown.len()
        && new.shown.iter().all(|(field, text)| {
            let was = old.shown.get(field);
            was.is_some_and(|was| was.reveal() == text.reveal())
        })
}

/// Fields below `path` whose reference stayed and whose value did not.
fn secrets(old: &Config, new: &Config, path: &str) -> Vec<String> {
    let below = |field: &str| {
        let rest = field.strip_prefix(path)?;
        if rest.is_empty() {
            Some(String::new())
        } else {
            rest.strip_prefix('.').map(str::to_owned)
        }
    };
    new.shown
        .iter()
        .filter(|(field, text)| {
            old.shown
                .get(*field)
                .is_some_and(|was| was.reveal() != text.reveal())
        })
        .filter_map(|(field, _)| below(field))
        .collect()
}
