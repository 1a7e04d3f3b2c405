//! What an `Analytics Ready` event says.

use super::layout::Layout;
use crate::event::Event;
use crate::handlers::Failure;
use crate::handlers::objects::{Place, Places};
use crate::handlers::transform::manifest::{ColumnInfo, ObjectRef, Output, named_type};
use arrow::datatypes::DataType;
use serde::Deserialize;
use std::path::Path;

/// A publication that is to be loaded.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What it is known by in the table: the publication's id.
    pub id: String,
    /// The causing event's id.
    pub cause: String,
    /// Its files.
    pub files: Vec<DataFile>,
    /// How they are read.
    pub layout: Layout,
    /// Names and types of the partition columns.
    pub partition: Vec<(String, DataType)>,
    /// Rows in all files.
    pub rows: u64,
    /// The object that they were made of, as `BUCKET/KEY`, where known.
    pub object: Option<String>,
}

/// A file of a publication.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// Where it lies.
    pub place: Place,
    /// Rows in it.
    pub rows: u64,
    /// Values of the partition columns, in their order.
    pub values: Vec<Option<String>>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    publication: Option<String>,
    #[serde(default)]
    cause: Option<String>,
    #[serde(default)]
    format: Option<String>,
    outputs: Vec<Output>,
    #[serde(default)]
    schema: Vec<ColumnInfo>,
    #[serde(default)]
    partition_by: Vec<String>,
    #[serde(default)]
    object: Option<ObjectRef>,
}

impl Incoming {
    /// Reads an event.
    ///
    /// # Errors
    /// Permanent failures: another kind of event, a format that cannot be read, a
    /// path that leads out of the lake, or a bucket that nothing declares.
    pub fn of(event: &Event, lake: &Path, places: &Places) -> Result<Self, Failure> {
        let detail: Detail = serde_json::from_str(event.detail_text()).map_err(|e| {
            Failure::permanent(
                "NotAnalyticsReady",
                format!(
                    "event `{}` of type `{}` names no outputs to load",
                    event.id(),
                    event.detail_type()
                ),
            )
            .caused_by(&e)
        })?;
        let layout = Layout::of(
            detail.format.as_deref(),
            &detail.schema,
            &detail.partition_by,
        )?;
        let partition: Vec<(String, DataType)> = detail
            .partition_by
            .iter()
            .map(|name| {
                let kind = detail.schema.iter().find(|c| c.name == *name);
                (
                    name.clone(),
                    kind.map_or(DataType::Utf8, |c| named_type(&c.kind)),
                )
            })
            .collect();
        let mut files = Vec::with_capacity(detail.outputs.len());
        for output in &detail.outputs {
            let values = partition
                .iter()
                .map(|(name, _)| output.partition.get(name).cloned().flatten());
            files.push(DataFile {
                place: places.address(lake, &output.path)?,
                rows: output.rows,
                values: values.collect(),
            });
        }
        Ok(Self {
            // An announcement that names no publication is its own: its id is
            // computed from its cause, too.
            id: detail.publication.unwrap_or_else(|| event.id().to_owned()),
            cause: detail.cause.unwrap_or_else(|| event.id().to_owned()),
            rows: detail.outputs.iter().map(|o| o.rows).sum(),
            files,
            layout,
            partition,
            object: detail.object.map(|o| format!("{}/{}", o.bucket, o.key)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(detail: &Value) -> Result<Incoming, Failure> {
        let text =
            json!({"source": "s", "detail-type": "Analytics Ready", "id": "e1", "detail": detail});
        let event = Event::complete(
            text.to_string().as_bytes(),
            &crate::event::Defaults::default(),
            0,
        )
        .unwrap();
        Incoming::of(&event, Path::new("/lake"), &Places::default())
    }

    #[test]
    fn outputs_stay_inside_the_lake() {
        let output =
            |path: &str| json!({"path": path, "rows": 3, "bytes": 1, "partition": {"m": "1"}});
        let good = read(&json!({
            "outputs": [output("t/m=1/a.parquet")], "partition_by": ["m"],
            "schema": [{"name": "m", "type": "bigint"}], "publication": "p"
        }))
        .unwrap();
        assert_eq!(good.files[0].place.to_string(), "/lake/t/m=1/a.parquet");
        assert_eq!(good.partition, [("m".to_owned(), DataType::Int64)]);
        assert_eq!((good.id.as_str(), good.rows), ("p", 3));
        let elsewhere = read(&json!({"outputs": [output("s3://b/x.parquet")]})).unwrap_err();
        assert_eq!(elsewhere.code, "UnknownBucket");
        for bad in ["../x.parquet", "/etc/passwd", "t/../../x"] {
            let failure = read(&json!({"outputs": [output(bad)]})).unwrap_err();
            assert_eq!(
                (failure.code.as_str(), failure.class),
                ("BadPath", Class::Permanent),
                "{bad}"
            );
        }
        assert_eq!(
            read(&json!({"x": 1})).unwrap_err().code,
            "NotAnalyticsReady"
        );
    }

    use crate::handlers::Class;
}
