//! What can be said of a transform, as it is used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A transform: read, check, compute, write.
#[derive(Clone, Debug)]
pub struct TransformOptions {
    /// Where the records come from.
    pub read: ReadOptions,
    /// Reference tables for the SQL: name -> CSV or Parquet file.
    pub tables: BTreeMap<String, PathBuf>,
    /// The query; `None` passes the records on as they are.
    pub sql: Option<String>,
    /// Where the result goes.
    pub write: WriteOptions,
}

/// Where a transform's records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Each event names an object whose records are read.
    Object,
    /// The `detail` of each event of the batch is a record.
    Events,
}

/// How records are read and checked.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Objects, or the events themselves.
    pub input: Input,
    /// `None`: by the key's ending.
    pub format: Option<Format>,
    /// Field delimiter of CSV.
    pub delimiter: u8,
    /// Quote of CSV.
    pub quote: u8,
    /// Whether CSV has a header line; without one the schema's order names the columns.
    pub header: bool,
    /// Texts that mean null in CSV, besides the empty field.
    pub null: Vec<String>,
    /// The JSON Schema that each record must meet (the parsed document), and its file.
    pub schema: Option<(serde_json::Value, PathBuf)>,
    /// More rejects than this fail the whole object.
    pub reject_limit: RejectLimit,
}

/// Format of a file of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values, RFC 4180.
    Csv,
    /// A JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    JsonArray,
    /// Apache Parquet.
    Parquet,
}

/// How many records of an object may be set aside before it fails whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RejectLimit {
    /// At most this many.
    Count(u64),
    /// At most this share, 0 to 1, judged at the end of the object.
    Share(f64),
}

/// Where the result goes.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Name of the table in the lake; its folder.
    pub table: String,
    /// Format of the files.
    pub format: Format,
    /// Hive partition columns, outermost first.
    pub partition_by: Vec<String>,
    /// A file is closed when it has about this many bytes.
    pub target_file_bytes: u64,
    /// Most files open at once; the least used is closed first.
    pub max_open_writers: usize,
}

/// The runtime's part in a transform: folders and limits.
#[derive(Clone, Debug)]
pub struct TransformEnv {
    /// Root of the lake (`data/lake`); tables are folders in it.
    pub lake: PathBuf,
    /// Root of the files of rejects (`data/rejects`).
    pub rejects: PathBuf,
    /// Scratch space for spills, on the same file system as `data`.
    pub scratch: PathBuf,
    /// Memory for one query, in bytes; sorts and aggregations spill above it.
    pub memory_bytes: usize,
    /// How often progress is told.
    pub progress_every: Duration,
}
