//! Schema drift: an object whose columns are not those that are known.
//!
//! Known are the columns of the declared schema or, without one, those that the
//! handler saw before. What is known, and which changes were told already, lies
//! in a small file beside the table's manifests, so each change is one event.

use super::schema::{Column, Extra, Kind, RecordSchema};
use super::{disk, inferred, manifest, options::ReadOptions, sql};
use crate::handlers::Failure;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The column that takes what no column is known for, as one JSON object.
pub const RESCUED: &str = "_rescued";
/// `detail-type` of the event that tells what changed.
pub const CHANGED: &str = "Schema Changed";
/// `code` of the failure that has an object set aside whole.
pub const QUARANTINED: &str = "Quarantined";

/// What happens when columns change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The object fails.
    Fail,
    /// New columns are added; without a declared schema, types widen.
    Widen,
    /// What is not known, or not of the known type, goes into [`RESCUED`].
    Rescue,
    /// The object is set aside whole.
    Quarantine,
}

/// A column as it was found in an object.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its type, where its values show one.
    pub kind: Option<Kind>,
}

/// A column's name and type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typed {
    /// Name.
    pub name: String,
    /// Type, as [`Kind::name`] has it.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A column that seems to have a new name: one is gone, and one is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The known name.
    pub from: String,
    /// The name in the object.
    pub to: String,
}

/// A column whose values are of another type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retyped {
    /// Name.
    pub name: String,
    /// The known type.
    pub from: String,
    /// The type of most of the first values.
    pub to: String,
}

/// How an object's columns differ from the known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Columns that are not known.
    #[serde(default)]
    pub added: Vec<Typed>,
    /// Known columns that are not there.
    #[serde(default)]
    pub missing: Vec<String>,
    /// What of the above looks like a new name.
    #[serde(default)]
    pub renamed: Vec<Renamed>,
    /// Columns of another type.
    #[serde(default)]
    pub retyped: Vec<Retyped>,
}

/// What a handler knows of its objects' columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The columns, as far as they were seen.
    pub columns: Vec<Typed>,
    /// Changes that were told.
    pub told: Vec<String>,
}

/// How an object with these columns is read.
pub struct Decision {
    /// The columns of its records.
    pub schema: Arc<RecordSchema>,
    /// How they differ.
    pub changes: Changes,
}

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.missing.is_empty() && self.retyped.is_empty()
    }

    /// The changes for people, in one line.
    #[must_use]
    pub fn said(&self) -> String {
        let mut parts = Vec::new();
        let names = |names: Vec<&str>| super::read::names(names.into_iter());
        if !self.added.is_empty() {
            let added = self.added.iter().map(|c| c.name.as_str()).collect();
            parts.push(format!("added {}", names(added)));
        }
        if !self.missing.is_empty() {
            let missing = self.missing.iter().map(String::as_str).collect();
            parts.push(format!("missing {}", names(missing)));
        }
        for renamed in &self.renamed {
            parts.push(format!(
                "perhaps renamed `{}` to `{}`",
                renamed.from, renamed.to
            ));
        }
        for retyped in self.retyped.iter().take(20) {
            let Retyped { name, from, to } = retyped;
            parts.push(format!("`{name}` is {to}, not {from}"));
        }
        parts.join("; ")
    }

    fn keys(&self) -> Vec<String> {
        let added = self
            .added
            .iter()
            .map(|c| format!("added {} {}", c.name, c.kind));
        let missing = self.missing.iter().map(|name| format!("missing {name}"));
        let retyped = self
            .retyped
            .iter()
            .map(|r| format!("retyped {} {}", r.name, r.to));
        added.chain(missing).chain(retyped).collect()
    }

    /// Those that were not told yet.
    #[must_use]
    pub fn untold(&self, known: &Known) -> Option<Self> {
        let told = |key: String| known.told.contains(&key);
        let mut fresh = self.clone();
        fresh
            .added
            .retain(|c| !told(format!("added {} {}", c.name, c.kind)));
        fresh
            .missing
            .retain(|name| !told(format!("missing {name}")));
        fresh
            .retyped
            .retain(|r| !told(format!("retyped {} {}", r.name, r.to)));
        fresh.renamed.retain(|r| fresh.missing.contains(&r.from));
        (!fresh.is_empty()).then_some(fresh)
    }
}

impl Known {
    fn path(lake: &Path, table: &str, handler: &str) -> PathBuf {
        let folder = lake.join(table).join(manifest::FOLDER);
        folder.join(format!(
            "{}.columns",
            manifest::publication_id(handler, table, "columns")
        ))
    }

    /// What a handler knows; nothing before its first object.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(lake: &Path, table: &str, handler: &str) -> Result<Option<Self>, Failure> {
        let path = Self::path(lake, table, handler);
        let failed = |e: &dyn std::error::Error| {
            Failure::transient(
                "ManifestUnreadable",
                format!("{} cannot be read", path.display()),
            )
            .caused_by(e)
        };
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&e)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| failed(&e)),
        }
    }

    /// Keeps what was learned from an object.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn learn(
        lake: &Path,
        table: &str,
        handler: &str,
        schema: &RecordSchema,
        changes: &Changes,
    ) -> Result<(), Failure> {
        let before = Self::load(lake, table, handler)?;
        let mut known = before.clone().unwrap_or_default();
        for column in schema.columns.iter().filter(|c| c.name != RESCUED) {
            let kind = column.kind.name();
            match known.columns.iter_mut().find(|c| c.name == column.name) {
                Some(seen) => seen.kind = kind,
                None => known.columns.push(Typed {
                    name: column.name.clone(),
                    kind,
                }),
            }
        }
        for key in changes.keys() {
            if !known.told.contains(&key) {
                known.told.push(key);
            }
        }
        if before.as_ref() == Some(&known) {
            return Ok(());
        }
        let path = Self::path(lake, table, handler);
        let write = || -> std::io::Result<()> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            disk::write_atomic(&path, &serde_json::to_vec(&known)?)
        };
        write().map_err(|e| {
            Failure::transient("WriteFailed", "the known columns could not be written")
                .caused_by(&e)
        })
    }

    fn kinds(&self) -> Vec<(String, Kind)> {
        let kind = |c: &Typed| (c.name.clone(), Kind::named(&c.kind).unwrap_or(Kind::Text));
        self.columns.iter().map(kind).collect()
    }
}

/// The columns that an object's are held against: the declared ones, or those
/// that were seen before.
#[must_use]
pub fn base(declared: Option<&RecordSchema>, known: Option<&Known>) -> Option<Vec<(String, Kind)>> {
    match declared {
        Some(schema) => Some(
            schema
                .columns
                .iter()
                .map(|c| (c.name.clone(), c.kind))
                .collect(),
        ),
        None => known.filter(|k| !k.columns.is_empty()).map(Known::kinds),
    }
}

/// Whether values of one type are fine in a column of another.
fn fits(column: Kind, found: Kind) -> bool {
    let number = matches!(found, Kind::Int | Kind::Float | Kind::Decimal { .. });
    match column {
        Kind::Json => true,
        Kind::Float | Kind::Decimal { .. } => number,
        // A type of text in formats that have no other.
        Kind::Timestamp | Kind::Date => found == column || found == Kind::Text,
        other => found == other,
    }
}

/// Compares and decides. `sparse`: records may leave columns out, so one that
/// is not among the first of them is not missing, unless it is required.
///
/// # Errors
/// By the policies `fail` and `quarantine`, if anything changed.
pub fn decide(
    policy: Policy,
    options: &ReadOptions,
    known: Option<&Known>,
    found: &[Found],
    (sparse, what): (bool, &str),
) -> Result<Decision, Failure> {
    let declared = sql::declared(options).map_err(|e| Failure::permanent("BadSchema", e))?;
    let Some(base) = base(declared.as_ref(), known) else {
        let columns = found
            .iter()
            .map(|f| Column::plain(&f.name, f.kind.unwrap_or(Kind::Json)));
        let mut schema = RecordSchema::from_columns(columns.collect(), Extra::Ignored);
        finish(policy, &mut schema, &[]);
        return Ok(Decision {
            schema: Arc::new(schema),
            changes: Changes::default(),
        });
    };
    let needed = |name: &str| {
        declared
            .as_ref()
            .is_some_and(|d| d.position(name).is_some_and(|at| d.columns[at].required))
    };
    let changes = compare(&base, found, &|name| !sparse || needed(name));
    if !changes.is_empty() && matches!(policy, Policy::Fail | Policy::Quarantine) {
        let code = if policy == Policy::Fail {
            "SchemaDrift"
        } else {
            QUARANTINED
        };
        let message = format!("the columns of {what} changed: {}", changes.said());
        let mut failure = Failure::permanent(code, message);
        failure.chain = serde_json::to_string(&changes).into_iter().collect();
        return Err(failure);
    }
    let mut schema = match declared {
        Some(schema) => schema,
        None => {
            let retyped = |name: &str, kind: Kind| {
                let seen = found.iter().find(|f| f.name == *name).and_then(|f| f.kind);
                let widens = policy == Policy::Widen && seen.is_some_and(|seen| !fits(kind, seen));
                if widens {
                    inferred::merge(Some(kind), seen).unwrap_or(kind)
                } else {
                    kind
                }
            };
            let columns = base
                .iter()
                .map(|(name, kind)| Column::plain(name, retyped(name, *kind)));
            RecordSchema::from_columns(columns.collect(), Extra::Ignored)
        }
    };
    let earlier = known.map(Known::kinds).unwrap_or_default();
    let added: Vec<(String, Kind)> = changes
        .added
        .iter()
        .map(|c| {
            let kind = Kind::named(&c.kind);
            let before = earlier
                .iter()
                .find(|(name, _)| *name == c.name)
                .map(|(_, kind)| *kind);
            (
                c.name.clone(),
                inferred::merge(before, kind).unwrap_or(Kind::Json),
            )
        })
        .collect();
    finish(policy, &mut schema, &added);
    Ok(Decision {
        schema: Arc::new(schema),
        changes,
    })
}

/// Gives the schema the columns that the policy adds.
fn finish(policy: Policy, schema: &mut RecordSchema, added: &[(String, Kind)]) {
    match policy {
        Policy::Widen => {
            schema.extend(
                added
                    .iter()
                    .map(|(name, kind)| Column::plain(name, *kind))
                    .collect(),
            );
        }
        Policy::Rescue => schema.rescue_into(RESCUED),
        Policy::Fail | Policy::Quarantine => {}
    }
}

fn compare(base: &[(String, Kind)], found: &[Found], counts: &dyn Fn(&str) -> bool) -> Changes {
    let is_known = |name: &str| base.iter().any(|(known, _)| known == name);
    let kind_name = |kind: Option<Kind>| kind.unwrap_or(Kind::Json).name();
    let mut changes = Changes::default();
    for column in found.iter().filter(|f| !is_known(&f.name)) {
        changes.added.push(Typed {
            name: column.name.clone(),
            kind: kind_name(column.kind),
        });
    }
    for (name, kind) in base {
        if let Some(column) = found.iter().find(|f| f.name == *name) {
            if let Some(is) = column.kind.filter(|is| !fits(*kind, *is)) {
                let (from, to) = (kind.name(), is.name());
                changes.retyped.push(Retyped {
                    name: name.clone(),
                    from,
                    to,
                });
            }
        } else if counts(name) {
            changes.missing.push(name.clone());
        }
    }
    if let ([from], [to]) = (changes.missing.as_slice(), changes.added.as_slice()) {
        changes.renamed.push(Renamed {
            from: from.clone(),
            to: to.name.clone(),
        });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(columns: &[(&str, Kind)]) -> Vec<Found> {
        let one = |(name, kind): &(&str, Kind)| Found {
            name: (*name).to_owned(),
            kind: Some(*kind),
        };
        columns.iter().map(one).collect()
    }

    #[test]
    fn changes_are_told_apart() {
        let base = [
            ("id".to_owned(), Kind::Int),
            ("name".to_owned(), Kind::Text),
        ];
        let all = |_: &str| true;
        let same = compare(
            &base,
            &found(&[("name", Kind::Text), ("id", Kind::Int)]),
            &all,
        );
        assert!(same.is_empty());
        let renamed = compare(
            &base,
            &found(&[("id", Kind::Text), ("title", Kind::Text)]),
            &all,
        );
        assert_eq!(
            renamed.said(),
            "added `title`; missing `name`; perhaps renamed `name` to `title`; `id` is text, not integer"
        );
        let wider = compare(
            &base,
            &found(&[("id", Kind::Int), ("name", Kind::Text), ("x", Kind::Bool)]),
            &all,
        );
        assert_eq!(wider.said(), "added `x`");
        let known = Known {
            columns: Vec::new(),
            told: vec!["added x boolean".to_owned()],
        };
        assert_eq!(wider.untold(&known), None);
        assert!(renamed.untold(&known).is_some());
    }
}
