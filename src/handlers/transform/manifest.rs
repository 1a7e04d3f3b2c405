//! What was published: one manifest per cause and handler. A file of the lake
//! exists for readers only if a manifest names it.

use super::drift::Changes;
use crate::handlers::Failure;
use arrow::datatypes::{DataType, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The folder of manifests in a table's folder.
pub const FOLDER: &str = "_manifests";
/// The folder of unfinished work in the lake.
pub const STAGING: &str = ".staging";

/// Most objects that an announcement names; the manifest has all.
const MOST_TOLD: usize = 100;

/// A publication: all that one cause brought into a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub version: u32,
    /// Computed from handler, table and cause; names the manifest and the files.
    pub publication: String,
    /// The table.
    pub table: String,
    /// The handler that published it.
    pub handler: String,
    /// Id of the causing event (of a batch of events: computed from their ids).
    pub cause: String,
    /// How often this cause was published anew because the transform had changed.
    #[serde(default)]
    pub revision: u32,
    /// A hash of what the transform was when it made this.
    #[serde(default)]
    pub definition: String,
    /// When it was published, Unix milliseconds.
    #[serde(default)]
    pub published_ms: i64,
    /// Files of other publications that the outputs stand for, after a compaction.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub replaces: Vec<String>,
    /// The object that was read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<ObjectRef>,
    /// The objects, where they are several.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub objects: Vec<Member>,
    /// The publication whose rows were read, where it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input: Option<InputRef>,
    /// Format of the files: `parquet`, `ndjson` or `csv`.
    pub format: String,
    /// The files.
    pub outputs: Vec<Output>,
    /// Partition columns, outermost first.
    pub partition_by: Vec<String>,
    /// The columns, partition columns included.
    pub schema: Vec<ColumnInfo>,
    /// Records read, bad ones included.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Records set aside.
    pub rejects: Rejects,
    /// Members or columns that were left out because none is declared for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub ignored: BTreeMap<String, u64>,
    /// Size of the object in bytes.
    pub bytes_in: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// How the columns differed from the known ones, as far as it was news.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub changes: Option<Changes>,
    /// For a batch of events: which.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub events: Option<Events>,
}

/// An object, as events speak of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Bucket or folder source.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// What identifies the content.
    pub etag: Option<String>,
}

/// One of several objects of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The object.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// The id of the event that named it.
    pub event: String,
    /// Its records, bad ones included.
    pub rows_in: u64,
    /// Its bad records.
    pub rejects: Rejects,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A publication that another one was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRef {
    /// Its table.
    pub table: String,
    /// Its id.
    pub publication: String,
    /// How often it was published before.
    pub revision: u32,
}

/// A file of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Path relative to the lake.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Values of the partition columns as text; null is null.
    pub partition: BTreeMap<String, Option<String>>,
}

/// A column's name and type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// Name.
    pub name: String,
    /// Type, as [`type_name`] writes it.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Records that were set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejects {
    /// How many.
    pub count: u64,
    /// Their file, if there are any.
    pub path: Option<String>,
}

/// The events of a batch that was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// How many.
    pub count: u64,
    /// File of their ids, relative to the table's folder of manifests.
    pub ids: String,
    /// First and last hour (since 1970) in which the bus accepted them.
    pub hours: (i64, i64),
    /// The event whose outcome carries `Analytics Ready`.
    pub carrier: String,
}

/// The name of a publication.
#[must_use]
pub fn publication_id(handler: &str, table: &str, cause: &str) -> String {
    let mut hash = Sha256::new();
    for part in [handler, table, cause] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()[..16]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

impl Manifest {
    /// Where the manifest of a publication lies.
    #[must_use]
    pub fn path(lake: &Path, table: &str, publication: &str) -> PathBuf {
        lake.join(table)
            .join(FOLDER)
            .join(format!("{publication}.json"))
    }

    /// The manifest of a publication, if it was published.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(lake: &Path, table: &str, publication: &str) -> Result<Option<Self>, Failure> {
        let path = Self::path(lake, table, publication);
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(unreadable(&path, &e)),
            Ok(bytes) => {
                let mut manifest: Self =
                    serde_json::from_slice(&bytes).map_err(|e| unreadable(&path, &e))?;
                if manifest.published_ms == 0 {
                    // One of before the time was kept: its file has it.
                    manifest.published_ms =
                        modified_ms(&path).map_err(|e| unreadable(&path, &e))?;
                }
                Ok(Some(manifest))
            }
        }
    }

    /// All manifests of a table, by name.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn all(lake: &Path, table: &str) -> Result<Vec<Self>, Failure> {
        let folder = lake.join(table).join(FOLDER);
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(unreadable(&folder, &e)),
            Ok(entries) => entries,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| unreadable(&folder, &e))?.file_name();
            if let Some(publication) = name.to_string_lossy().strip_suffix(".json")
                && !publication.starts_with('.')
            {
                names.push(publication.to_owned());
            }
        }
        names.sort_unstable();
        let mut manifests = Vec::with_capacity(names.len());
        for name in names {
            manifests.extend(Self::load(lake, table, &name)?);
        }
        Ok(manifests)
    }

    /// All manifests of a table; files that others stand for are not in them.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn visible(lake: &Path, table: &str) -> Result<Vec<Self>, Failure> {
        let mut manifests = Self::all(lake, table)?;
        let replaced: std::collections::HashSet<String> =
            manifests.iter().flat_map(|m| m.replaces.clone()).collect();
        for manifest in &mut manifests {
            manifest.outputs.retain(|o| !replaced.contains(&o.path));
        }
        Ok(manifests)
    }

    /// What the publication is known by to those who load it: another name for
    /// each time that it was published anew.
    #[must_use]
    pub fn name(&self) -> String {
        match self.revision {
            0 => self.publication.clone(),
            n => format!("{}-r{n}", self.publication),
        }
    }

    /// The `detail` of `Analytics Ready`.
    #[must_use]
    pub fn detail(&self) -> Value {
        let mut detail = json!({
            "table": self.table,
            "cause": self.cause,
            "publication": self.name(),
            "format": self.format,
            "outputs": self.outputs,
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "rejects": self.rejects,
            "bytes_in": self.bytes_in,
            "duration_ms": self.duration_ms,
            "schema": self.schema,
            "partition_by": self.partition_by,
        });
        if let Some(object) = &self.object {
            detail["object"] = json!(object);
        }
        if !self.objects.is_empty() {
            let told = &self.objects[..self.objects.len().min(MOST_TOLD)];
            detail["objects"] = json!({ "count": self.objects.len(), "first": told });
        }
        if let Some(input) = &self.input {
            detail["input"] = json!(input);
        }
        if self.revision > 0 {
            detail["revision"] = json!(self.revision);
        }
        if let Some(events) = &self.events {
            detail["events"] = json!({ "count": events.count });
        }
        if !self.ignored.is_empty() {
            detail["ignored"] = json!(self.ignored);
        }
        detail
    }
}

fn modified_ms(path: &Path) -> std::io::Result<i64> {
    let since = std::fs::metadata(path)?
        .modified()?
        .duration_since(std::time::UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Ok(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn unreadable(path: &Path, e: &dyn std::error::Error) -> Failure {
    Failure::transient(
        "ManifestUnreadable",
        format!("{} cannot be read", path.display()),
    )
    .caused_by(e)
}

/// A path of the lake, if it is one: relative, without `..`.
#[must_use]
pub fn inside(lake: &Path, relative: &str) -> Option<PathBuf> {
    let path = Path::new(relative);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && !relative.is_empty() && !relative.contains('\0')).then(|| lake.join(path))
}

/// The columns of a schema.
#[must_use]
pub fn columns(schema: &Schema) -> Vec<ColumnInfo> {
    let one = |f: &arrow::datatypes::FieldRef| ColumnInfo {
        name: f.name().clone(),
        kind: type_name(f.data_type()),
    };
    schema.fields().iter().map(one).collect()
}

/// A type by the name that SQL knows it by, where it has one.
#[must_use]
pub fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 => "tinyint".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Utf8 => "varchar".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
        other => other.to_string(),
    }
}

/// The type of a name that [`type_name`] wrote; text where it is another.
#[must_use]
pub fn named_type(name: &str) -> DataType {
    use arrow::datatypes::TimeUnit::Microsecond;
    match name {
        "boolean" => DataType::Boolean,
        "tinyint" => DataType::Int8,
        "smallint" => DataType::Int16,
        "integer" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double" => DataType::Float64,
        "date" => DataType::Date32,
        "timestamptz" => DataType::Timestamp(Microsecond, Some("UTC".into())),
        "timestamp" => DataType::Timestamp(Microsecond, None),
        // What SQL has no name for is written as the engine writes it.
        other => decimal_named(other)
            .or_else(|| other.parse().ok().map(of_values))
            .unwrap_or(DataType::Utf8),
    }
}

/// The type of the values, however they are kept in memory.
fn of_values(kind: DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => of_values(*values),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        other => other,
    }
}

fn decimal_named(name: &str) -> Option<DataType> {
    let (precision, scale) = name
        .strip_prefix("decimal(")?
        .strip_suffix(')')?
        .split_once(',')?;
    Some(DataType::Decimal128(
        precision.parse().ok()?,
        scale.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn types_survive_their_names() {
        for kind in [
            DataType::Boolean,
            DataType::Int32,
            DataType::Int64,
            DataType::Float64,
            DataType::Utf8,
            DataType::Date32,
            DataType::Decimal128(18, 2),
            DataType::UInt64,
            DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            DataType::Struct(vec![Field::new("a b", DataType::Int64, true)].into()),
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into())),
        ] {
            assert_eq!(named_type(&type_name(&kind)), kind);
        }
    }

    #[test]
    fn paths_stay_inside_the_lake() {
        let lake = Path::new("/lake");
        assert_eq!(
            inside(lake, "t/a.parquet"),
            Some(PathBuf::from("/lake/t/a.parquet"))
        );
        for bad in ["", "/etc/passwd", "../x", "t/../../x", "t/\0"] {
            assert_eq!(inside(lake, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn publications_differ_by_every_part() {
        assert_ne!(
            publication_id("ab", "c", "d"),
            publication_id("a", "bc", "d")
        );
        assert_eq!(publication_id("a", "b", "c").len(), 32);
    }
}
