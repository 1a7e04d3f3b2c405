//! The files of rejects as one table.

use crate::handlers::Failure;
use crate::handlers::objects::Object;
use crate::handlers::transform::batch::Feed;
use crate::handlers::transform::options::{Format, ReadOptions};
use crate::handlers::transform::read::{self, Expected, open};
use crate::handlers::transform::rejects::Known;
use crate::handlers::transform::schema::{Column, Extra, Kind, RecordSchema};
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const COLUMNS: [(&str, Kind); 12] = [
    ("bucket", Kind::Text),
    ("key", Kind::Text),
    ("etag", Kind::Text),
    ("member", Kind::Text),
    ("line", Kind::Int),
    ("record", Kind::Int),
    ("offset", Kind::Int),
    ("column", Kind::Text),
    ("code", Kind::Text),
    ("message", Kind::Text),
    ("raw", Kind::Text),
    ("raw_bytes", Kind::Int),
];

#[derive(Debug)]
struct Rejects {
    /// Table and file, sorted.
    files: Vec<(String, PathBuf)>,
    schema: SchemaRef,
}

/// All rejects under `root`: a folder a table, a file a cause.
///
/// # Errors
/// When the table cannot be made, which would be a bug here.
pub fn table(root: &Path) -> Result<Arc<dyn TableProvider>> {
    let mut files = Vec::new();
    for table in super::folders(root) {
        for entry in std::fs::read_dir(root.join(&table))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".ndjson") && !name.starts_with('.') {
                files.push((table.clone(), entry.path()));
            }
        }
    }
    files.sort_unstable();
    let own = Field::new("table", DataType::Utf8, false);
    let rest = COLUMNS
        .iter()
        .map(|(name, kind)| Field::new(*name, kind.arrow(), true));
    let schema = Arc::new(Schema::new(
        std::iter::once(own).chain(rest).collect::<Vec<_>>(),
    ));
    let rejects = Rejects {
        files,
        schema: Arc::clone(&schema),
    };
    Ok(Arc::new(StreamingTable::try_new(
        schema,
        vec![Arc::new(rejects)],
    )?))
}

type Sender = mpsc::Sender<Result<RecordBatch, DataFusionError>>;

/// Sends one file's rows; `false` when nobody listens any more.
fn send(table: &str, path: &Path, schema: &SchemaRef, out: &Sender) -> Result<bool, Failure> {
    let object = Object::of_file(path, path.display().to_string());
    let columns = COLUMNS
        .iter()
        .map(|(name, kind)| Column::plain(name, *kind))
        .collect();
    let records = Arc::new(RecordSchema::from_columns(columns, Extra::Ignored));
    let options = ReadOptions {
        format: Some(Format::Ndjson),
        ..ReadOptions::default()
    };
    let mut started = read::start(open::open(&object)?, &options, &Expected::of(&records))?;
    let mut none = Known;
    let mut feed = Feed::new(records, &mut none);
    loop {
        let more = started.reader.fill(&mut feed)?;
        if let Some(batch) = feed.take()? {
            let own = StringArray::from_iter_values(std::iter::repeat_n(table, batch.num_rows()));
            let mut all: Vec<arrow::array::ArrayRef> = vec![Arc::new(own)];
            all.extend(batch.columns().iter().cloned());
            let batch = RecordBatch::try_new(Arc::clone(schema), all).map_err(Into::into);
            if out.blocking_send(batch).is_err() {
                return Ok(false);
            }
        }
        if !more {
            return Ok(true);
        }
    }
}

impl PartitionStream for Rejects {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (sender, receiver) = mpsc::channel(2);
        let (files, schema) = (self.files.clone(), Arc::clone(&self.schema));
        tokio::task::spawn_blocking(move || {
            for (table, path) in &files {
                match send(table, path, &schema, &sender) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(failure) => {
                        // Nobody may be listening any more; then nobody misses it.
                        drop(
                            sender.blocking_send(Err(DataFusionError::External(Box::new(failure)))),
                        );
                        return;
                    }
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            ReceiverStream::new(receiver),
        ))
    }
}
