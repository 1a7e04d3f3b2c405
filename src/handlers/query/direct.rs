//! One object as a table: `from 'inbox/2013/flights.csv'`, `from 's3://raw/x.parquet'`,
//! what S3 Select did. Only what is declared as a source can be reached.

use crate::handlers::objects::{Place, Places};
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{
    CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext,
};
use std::path::Path;
use std::sync::Arc;

/// Whether a table's name is that of an object.
pub(super) fn is_object(name: &str) -> bool {
    name.contains('/')
}

/// The object as a table. Its columns and types are found in its first rows.
///
/// # Errors
/// When it is not declared, is not there, or is of a format that is not known.
pub(super) async fn table(
    name: &str,
    places: &Places,
    runtime: Arc<RuntimeEnv>,
) -> Result<Arc<dyn TableProvider>> {
    let url = located(name, places)?;
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    let (stem, compression) = match name {
        n if n.ends_with(".gz") => (&name[..n.len() - 3], FileCompressionType::GZIP),
        n if n.ends_with(".zst") => (&name[..n.len() - 4], FileCompressionType::ZSTD),
        _ => (name, FileCompressionType::UNCOMPRESSED),
    };
    let extension = &name[stem.rfind('.').unwrap_or(0)..];
    let frame = match stem.rsplit('.').next().unwrap_or_default() {
        "csv" | "tsv" => {
            let options = CsvReadOptions::new()
                .file_extension(extension)
                .file_compression_type(compression)
                .delimiter(if stem.ends_with(".tsv") { b'\t' } else { b',' })
                .newlines_in_values(true);
            context.read_csv(url, options).await?
        }
        "ndjson" | "jsonl" | "json" => {
            let options = JsonReadOptions::default()
                .file_extension(extension)
                .file_compression_type(compression);
            context.read_json(url, options).await?
        }
        "parquet" => {
            let options = ParquetReadOptions::default().file_extension(extension);
            context.read_parquet(url, options).await?
        }
        _ => {
            return Err(DataFusionError::Plan(format!(
                "`{name}` is no table and no object that can be read: objects end in .csv, .tsv, \
                 .ndjson, .jsonl, .json or .parquet, some of them with .gz or .zst"
            )));
        }
    };
    Ok(frame.into_view())
}

/// The address of the object for the engine.
fn located(name: &str, places: &Places) -> Result<String> {
    let refused = |message: String| DataFusionError::Plan(message);
    let place = match name.split_once("://") {
        Some(_) => places.address(Path::new("/"), name),
        None => {
            let (source, key) = name.split_once('/').unwrap_or((name, ""));
            places.file(source, key)
        }
    };
    match place.map_err(|failure| refused(failure.message))? {
        Place::Stored { url, .. } => Ok(url),
        Place::File(path) => {
            let path = std::fs::canonicalize(&path)
                .map_err(|e| refused(format!("`{name}` cannot be read: {e}")))?;
            // Characters of names are not wildcards here.
            reqwest::Url::from_file_path(&path)
                .map(String::from)
                .map_err(|()| refused(format!("`{name}` has no address")))
        }
    }
}
