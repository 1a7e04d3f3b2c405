//! Objects as a table: `from 'inbox/2013/flights.csv'`, `from 's3://raw/x.parquet'`,
//! what S3 Select did; and `from 's3://raw/2013/*.csv'`. Only what is declared as a
//! source can be reached.

use super::lake::common;
use crate::handlers::objects::matching::Pattern;
use crate::handlers::objects::{Place, Places, S3_SCHEME};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{
    CsvReadOptions, DataFrame, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext,
};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Objects whose first rows are looked at at the same time.
const AT_ONCE: usize = 16;

/// Whether a table's name is that of an object, or of several.
pub(super) fn is_object(name: &str) -> bool {
    name.contains('/')
}

/// The objects as a table. Columns and types are found in the first rows of each:
/// the table has the columns of all of them, in types that hold the values of all.
///
/// # Errors
/// When something is not declared, is not there, or is of a format that is not known.
pub(super) async fn table(
    name: &str,
    places: &Places,
    runtime: Arc<RuntimeEnv>,
) -> Result<Arc<dyn TableProvider>> {
    let urls = located(name, places).await?;
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    let context = &context;
    let looked_at = futures::stream::iter(urls).map(|(name, url)| async move {
        let form = Form::of(&name)?;
        let frame = form.read(context, vec![url.clone()], None).await?;
        Ok::<_, DataFusionError>((form, url, frame))
    });
    let mut objects: Vec<(Form, String, DataFrame)> =
        looked_at.buffered(AT_ONCE).try_collect().await?;
    if objects.len() == 1 {
        return Ok(objects.remove(0).2.into_view());
    }
    let mut kinds: BTreeMap<String, DataType> = BTreeMap::new();
    let mut alike: BTreeMap<(Form, Vec<String>), Vec<String>> = BTreeMap::new();
    for (form, url, frame) in objects {
        let fields = frame.schema().fields();
        for field in fields {
            let kind = kinds.entry(field.name().clone());
            let kind = kind.or_insert_with(|| field.data_type().clone());
            *kind = both(kind, field.data_type());
        }
        let names = fields.iter().map(|f| f.name().clone()).collect();
        alike.entry((form, names)).or_default().push(url);
    }
    let mut all: Option<DataFrame> = None;
    // Empty files have nothing to say.
    alike.retain(|(_, names), _| !names.is_empty());
    for ((form, names), urls) in alike {
        let fields = names.iter().map(|n| Field::new(n, kinds[n].clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let frame = form.read(context, urls, Some(&schema)).await?;
        all = Some(match all {
            None => frame,
            Some(others) => others.union_by_name(frame)?,
        });
    }
    let none = || DataFusionError::Plan(format!("no object matches `{name}`"));
    Ok(all.ok_or_else(none)?.into_view())
}

/// A type that holds the values of both.
fn both(a: &DataType, b: &DataType) -> DataType {
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        _ if a == b => a.clone(),
        _ => common(a, b),
    }
}

/// How an object is read, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// With its delimiter.
    Csv(u8, Packed),
    Ndjson(Packed),
    Parquet,
}

/// How an object is compressed, and the ending of its name, as the engine wants it.
type Packed = (Option<&'static str>, String);

impl Form {
    fn of(name: &str) -> Result<Self> {
        let packed = [".gz", ".zst"].into_iter().find(|p| name.ends_with(p));
        let stem = &name[..name.len() - packed.map_or(0, str::len)];
        let at = stem.rfind('.').unwrap_or(0);
        let ending = name[at..].to_owned();
        match &stem[at..] {
            ".csv" => Ok(Self::Csv(b',', (packed, ending))),
            ".tsv" => Ok(Self::Csv(b'\t', (packed, ending))),
            ".ndjson" | ".jsonl" | ".json" => Ok(Self::Ndjson((packed, ending))),
            ".parquet" if packed.is_none() => Ok(Self::Parquet),
            _ => Err(DataFusionError::Plan(format!(
                "`{name}` is no table and no object that can be read: objects end in .csv, .tsv, \
                 .ndjson, .jsonl, .json or .parquet, some of them with .gz or .zst"
            ))),
        }
    }

    /// Objects as rows; with their columns, if they are known.
    async fn read(
        &self,
        context: &SessionContext,
        urls: Vec<String>,
        schema: Option<&Schema>,
    ) -> Result<DataFrame> {
        let compression = |packed: &Option<&str>| match packed {
            Some(".gz") => FileCompressionType::GZIP,
            Some(_) => FileCompressionType::ZSTD,
            None => FileCompressionType::UNCOMPRESSED,
        };
        match self {
            Self::Csv(delimiter, (packed, ending)) => {
                let mut options = CsvReadOptions::new()
                    .file_extension(ending)
                    .file_compression_type(compression(packed))
                    .delimiter(*delimiter)
                    .newlines_in_values(true);
                options.schema = schema;
                context.read_csv(urls, options).await
            }
            Self::Ndjson((packed, ending)) => {
                let mut options = JsonReadOptions::default()
                    .file_extension(ending)
                    .file_compression_type(compression(packed));
                options.schema = schema;
                context.read_json(urls, options).await
            }
            Self::Parquet => {
                let options = ParquetReadOptions {
                    schema,
                    ..ParquetReadOptions::default()
                };
                context.read_parquet(urls, options).await
            }
        }
    }
}

fn refused(message: String) -> DataFusionError {
    DataFusionError::Plan(message)
}

/// The names and addresses of the objects. What lies under the name itself is
/// meant by it, even if it looks like a pattern.
async fn located(name: &str, places: &Places) -> Result<Vec<(String, String)>> {
    let one = address(name, places);
    if !Pattern::is_one(name) || is_there(&one).await {
        let place = one?;
        return Ok(vec![(name.to_owned(), url(name, &place)?)]);
    }
    let named = name.strip_prefix(S3_SCHEME).unwrap_or(name);
    let (root, key) = named.split_once('/').unwrap_or((named, ""));
    let pattern = Pattern::new(key).map_err(|failure| refused(failure.message))?;
    let mut names = Vec::new();
    match (name == named, places.folder(root)) {
        (true, Some(folder)) => {
            let (folder, root) = (folder.to_path_buf(), root.to_owned());
            let listed = tokio::task::spawn_blocking(move || pattern.files(&folder, &|| Ok(())));
            let listed = listed.await.map_err(|e| refused(e.to_string()))?;
            for path in listed.map_err(|failure| refused(failure.message))? {
                let key = path.to_str().ok_or_else(|| {
                    refused(format!("the name of {} is not UTF-8", path.display()))
                })?;
                names.push(format!("{root}/{key}"));
            }
        }
        _ => {
            // What is not declared says so here.
            let store = places.declared_bucket(root);
            let store = store.map_err(|failure| refused(failure.message))?;
            let listed = pattern.objects(store.as_ref()).await;
            let listed = listed.map_err(|failure| refused(failure.message))?;
            names.extend(
                listed
                    .iter()
                    .map(|o| format!("{S3_SCHEME}{root}/{}", o.location)),
            );
        }
    }
    let address = |name: String| {
        let place = address(&name, places)?;
        let url = url(&name, &place)?;
        Ok((name, url))
    };
    names.into_iter().map(address).collect()
}

fn address(name: &str, places: &Places) -> Result<Place> {
    let place = match name.split_once("://") {
        Some(_) => places.address(Path::new("/"), name),
        None => {
            let (source, key) = name.split_once('/').unwrap_or((name, ""));
            places.file(source, key)
        }
    };
    place.map_err(|failure| refused(failure.message))
}

async fn is_there(place: &Result<Place>) -> bool {
    match place {
        Ok(Place::File(path)) => path.exists(),
        Ok(Place::Stored { store, path, .. }) => store.head(path).await.is_ok(),
        Err(_) => false,
    }
}

/// The address of an object for the engine.
fn url(name: &str, place: &Place) -> Result<String> {
    match place {
        Place::Stored { url, .. } => Ok(url.clone()),
        Place::File(path) => {
            let path = std::fs::canonicalize(path)
                .map_err(|e| refused(format!("`{name}` cannot be read: {e}")))?;
            // Characters of names are not wildcards here.
            reqwest::Url::from_file_path(&path)
                .map(String::from)
                .map_err(|()| refused(format!("`{name}` has no address")))
        }
    }
}
