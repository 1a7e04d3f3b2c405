//! What can be said of a transform, as it is used.

use super::drift::Policy;
use crate::handlers::load::Warehouse;
use crate::handlers::objects::BucketFolder;
use encoding_rs::Encoding;
use globset::GlobMatcher;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A transform: read, check, compute, write.
#[derive(Clone, Debug)]
pub struct TransformOptions {
    /// Where the records come from.
    pub read: ReadOptions,
    /// Reference tables for the SQL.
    pub tables: BTreeMap<String, Reference>,
    /// Named steps before the query, in their order: name -> SQL over `input`, the
    /// reference tables and the steps before it.
    pub views: Vec<(String, String)>,
    /// Parameters of the SQL, `$name`: the text at a JSONPath of the event.
    pub params: BTreeMap<String, String>,
    /// The query; `None` passes the records on as they are.
    pub sql: Option<String>,
    /// Where the result goes.
    pub write: WriteOptions,
}

impl TransformOptions {
    /// A hash of all that decides what is made of an object: if it is another
    /// one than that of a publication, the cause is worked on again.
    #[must_use]
    pub fn definition(&self) -> String {
        let (read, write) = (&self.read, &self.write);
        let members: Vec<&str> = read.members.iter().map(|m| m.glob().glob()).collect();
        let text = format!(
            "{:?}",
            (
                (
                    read.input,
                    read.format,
                    read.encoding.map(Encoding::name),
                    read.delimiter
                ),
                (
                    read.quote,
                    read.escape,
                    read.comment,
                    read.skip,
                    read.header,
                    &read.names
                ),
                (
                    read.duplicates,
                    read.ragged,
                    &read.null,
                    members,
                    read.drift
                ),
                (
                    read.schema.as_ref().map(|(schema, _)| schema.to_string()),
                    &self.tables
                ),
                (
                    &self.views,
                    &self.params,
                    &self.sql,
                    write.format,
                    &write.partition_by
                ),
            )
        );
        let hash = Sha256::digest(text.as_bytes());
        hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// A table that the SQL joins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A CSV or Parquet file, read again when it changes.
    File(PathBuf),
    /// A table of the lake, as it is when a run begins.
    Lake(String),
    /// A table of the warehouse, as it is when a run begins.
    Warehouse(String),
}

/// Where a transform's records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Each event names an object whose records are read.
    Object,
    /// Each event announces a publication of the lake, whose rows are read.
    Publication,
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
    /// Encoding of text; a byte order mark in the file has the last word. `None`: UTF-8.
    pub encoding: Option<&'static Encoding>,
    /// Field delimiter of CSV.
    pub delimiter: u8,
    /// Quote of CSV.
    pub quote: u8,
    /// Inside quotes, the character after this one is taken as it is; `None`: a
    /// quote is written twice (RFC 4180).
    pub escape: Option<u8>,
    /// Lines that start with this character are no records.
    pub comment: Option<u8>,
    /// Lines that are passed over at the start of a CSV file, before its header.
    pub skip: u64,
    /// Whether CSV has a header line; without one `names` or the schema's order
    /// names the columns.
    pub header: bool,
    /// Names of the columns of CSV, instead of those of the header; none: the header's.
    pub names: Vec<String>,
    /// What happens to a header with the same name twice.
    pub duplicates: Duplicates,
    /// What happens to CSV records with too few or too many fields.
    pub ragged: Ragged,
    /// Texts that mean null in CSV, besides the empty field.
    pub null: Vec<String>,
    /// Members of an archive that are read; none given: all files in it.
    pub members: Vec<GlobMatcher>,
    /// Most bytes that a packed object may unpack to.
    pub max_unpacked: u64,
    /// The JSON Schema that each record must meet (the parsed document), and its file.
    pub schema: Option<(serde_json::Value, PathBuf)>,
    /// What happens when the columns of an object are not those that are known;
    /// `None`: missing ones that are required fail it, others are left out.
    pub drift: Option<Policy>,
    /// More rejects than this fail the whole object.
    pub reject_limit: RejectLimit,
}

/// Most bytes that a packed object may unpack to, if nothing else is said: 1 TiB.
pub const MAX_UNPACKED: u64 = 1 << 40;

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            input: Input::Object,
            format: None,
            encoding: None,
            delimiter: b',',
            quote: b'"',
            escape: None,
            comment: None,
            skip: 0,
            header: true,
            names: Vec::new(),
            duplicates: Duplicates::Refuse,
            ragged: Ragged::Reject,
            null: Vec::new(),
            members: Vec::new(),
            max_unpacked: MAX_UNPACKED,
            schema: None,
            drift: None,
            reject_limit: RejectLimit::Share(1.0),
        }
    }
}

/// What happens to a header with the same name twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// The object fails.
    Refuse,
    /// The second `x` becomes `x_2`; an empty name becomes `column_N`.
    Rename,
}

/// What happens to CSV records with too few or too many fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ragged {
    /// They are set aside.
    Reject,
    /// Missing fields at the end are null, surplus empty ones are left out;
    /// records with other surplus fields are set aside.
    Fill,
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
    /// The bucket that the files go to; `None`: the lake.
    pub s3: Option<BucketFolder>,
}

/// The runtime's part in a transform: folders and limits.
#[derive(Clone, Debug)]
pub struct TransformEnv {
    /// Root of the lake (`data/lake`); tables are folders in it.
    pub lake: PathBuf,
    /// The warehouse, for reference tables.
    pub warehouse: Warehouse,
    /// Root of the files of rejects (`data/rejects`).
    pub rejects: PathBuf,
    /// Root of the objects that were set aside whole (`data/quarantine`).
    pub quarantine: PathBuf,
    /// Scratch space for spills, on the same file system as `data`.
    pub scratch: PathBuf,
    /// Memory for one query, in bytes; sorts and aggregations spill above it.
    pub memory_bytes: usize,
    /// How often progress is told.
    pub progress_every: Duration,
}
