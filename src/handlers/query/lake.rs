//! A lake table as its manifests have it: files that no manifest names do not
//! exist, partition columns have their types, and files of partitions that a
//! query does not want are not opened.

use super::{Scans, folders};
use crate::handlers::Failure;
use crate::handlers::objects::{Place, Places};
use crate::handlers::transform::manifest::{FOLDER, Manifest, named_type};
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::CsvOptions;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::path::Path as StorePath;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Names of the lake's tables.
#[must_use]
pub fn names(root: &Path) -> Vec<String> {
    let mut names = folders(root);
    names.retain(|name| exists(root, name));
    names
}

/// Whether the lake has a table of this name.
#[must_use]
pub fn exists(root: &Path, name: &str) -> bool {
    root.join(name).join(FOLDER).is_dir()
}

/// A table of the lake, as it was when it was opened.
#[derive(Debug)]
pub struct LakeTable {
    schema: SchemaRef,
    file_schema: SchemaRef,
    partition: Vec<FieldRef>,
    /// Files by format.
    files: Vec<(String, Vec<LakeFile>)>,
    name: String,
    scans: Scans,
}

#[derive(Debug)]
struct LakeFile {
    /// The store that it lies in.
    store: ObjectStoreUrl,
    /// Where it lies there.
    location: StorePath,
    bytes: u64,
    values: Vec<ScalarValue>,
}

impl LakeTable {
    /// Reads the manifests of a table.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(root: &Path, name: &str, places: &Places) -> Result<Self, Failure> {
        Self::of(root, name, &Manifest::visible(root, name)?, places)
    }

    /// The files of some publications of a table.
    ///
    /// # Errors
    /// When one names a file that cannot be addressed.
    pub fn of(
        root: &Path,
        name: &str,
        manifests: &[Manifest],
        places: &Places,
    ) -> Result<Self, Failure> {
        let by: Vec<String> = manifests
            .last()
            .map(|m| m.partition_by.clone())
            .unwrap_or_default();
        let partition: Vec<FieldRef> = by
            .iter()
            .map(|n| Arc::new(Field::new(n, kind_of(manifests, n), true)))
            .collect();
        let file_schema = file_schema(root, manifests, &by, places);
        let all: Vec<FieldRef> = file_schema
            .fields()
            .iter()
            .cloned()
            .chain(partition.iter().cloned())
            .collect();
        let mut files: Vec<(String, Vec<LakeFile>)> = Vec::new();
        for manifest in manifests {
            let found = files_of(root, manifest, &partition, places)?;
            match files
                .iter_mut()
                .find(|(format, _)| *format == manifest.format)
            {
                Some((_, known)) => known.extend(found),
                None => files.push((manifest.format.clone(), found)),
            }
        }
        Ok(Self {
            schema: Arc::new(Schema::new(all)),
            file_schema,
            partition,
            files,
            name: name.to_owned(),
            scans: Scans::default(),
        })
    }

    /// The same; what is read of it is told to `scans`.
    #[must_use]
    pub(super) fn told_to(self, scans: Scans) -> Self {
        Self { scans, ..self }
    }

    /// Tells how many of the files are read.
    fn tell(&self, read: usize) {
        let all: usize = self.files.iter().map(|(_, files)| files.len()).sum();
        let by: Vec<&str> = self.partition.iter().map(|f| f.name().as_str()).collect();
        let by = match by.is_empty() {
            true => "not partitioned".to_owned(),
            false => format!("partitioned by {}", by.join(", ")),
        };
        let line = format!("lake.{}: {read} of {all} files are read ({by})", self.name);
        let mut scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        scans.push(line);
    }

    /// Whether the filter speaks of partition columns only.
    fn of_partitions(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        let known = |name: &str| self.partition.iter().any(|f| f.name() == name);
        !columns.is_empty() && columns.iter().all(|c| known(&c.name)) && !filter.is_volatile()
    }

    /// The files whose partitions the filters let through.
    fn wanted<'a>(
        &self,
        state: &dyn Session,
        files: &'a [LakeFile],
        filters: &[Expr],
    ) -> Result<Vec<&'a LakeFile>> {
        let filters: Vec<&Expr> = filters.iter().filter(|f| self.of_partitions(f)).collect();
        if filters.is_empty() || files.is_empty() {
            return Ok(files.iter().collect());
        }
        let schema = Arc::new(Schema::new(self.partition.clone()));
        let columns: Vec<ArrayRef> = (0..self.partition.len())
            .map(|i| ScalarValue::iter_to_array(files.iter().map(|f| f.values[i].clone())))
            .collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(files.len()));
        let values = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
        let schema = DFSchema::try_from(schema)?;
        let mut keep = vec![true; files.len()];
        for filter in filters {
            let test = state.create_physical_expr(unqualified(filter.clone())?, &schema)?;
            let result = test.evaluate(&values)?.into_array(files.len())?;
            let passes: &BooleanArray = result.as_boolean();
            for (keep, passes) in keep.iter_mut().zip(passes) {
                *keep &= passes.unwrap_or(false);
            }
        }
        Ok(files
            .iter()
            .zip(keep)
            .filter_map(|(file, keep)| keep.then_some(file))
            .collect())
    }

    fn source(&self, format: &str) -> Arc<dyn FileSource> {
        let schema = TableSchema::builder(Arc::clone(&self.file_schema))
            .with_table_partition_cols(self.partition.clone())
            .build();
        match format {
            "ndjson" => Arc::new(JsonSource::new(schema)),
            "csv" => Arc::new(CsvSource::new(schema).with_csv_options(CsvOptions {
                has_header: Some(true),
                newlines_in_values: Some(true),
                ..CsvOptions::default()
            })),
            _ => Arc::new(ParquetSource::new(schema)),
        }
    }
}

/// A filter as it applies to the bare partition columns.
fn unqualified(filter: Expr) -> Result<Expr> {
    use datafusion::common::Column;
    use datafusion::common::tree_node::{Transformed, TreeNode};
    filter
        .transform(|e| {
            Ok(match e {
                Expr::Column(c) => Transformed::yes(Expr::Column(Column::new_unqualified(c.name))),
                other => Transformed::no(other),
            })
        })
        .map(|t| t.data)
}

fn kind_of(manifests: &[Manifest], name: &str) -> DataType {
    let columns = manifests.iter().rev().flat_map(|m| &m.schema);
    columns
        .filter(|c| c.name == *name)
        .map(|c| named_type(&c.kind))
        .next()
        .unwrap_or(DataType::Utf8)
}

/// The columns in the files: those of the newest file first, then older ones
/// that it has no more.
fn file_schema(root: &Path, manifests: &[Manifest], by: &[String], places: &Places) -> SchemaRef {
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut seen: Vec<&Vec<_>> = Vec::new();
    for manifest in manifests.iter().rev() {
        if seen.contains(&&manifest.schema) {
            continue;
        }
        seen.push(&manifest.schema);
        let declared = || -> Vec<FieldRef> {
            let columns = manifest.schema.iter();
            columns
                .map(|c| Arc::new(Field::new(&c.name, named_type(&c.kind), true)))
                .collect()
        };
        let exact = manifest
            .outputs
            .first()
            .filter(|_| manifest.format == "parquet");
        let found = exact
            .and_then(|o| parquet_fields(&places.address(root, &o.path).ok()?))
            .unwrap_or_else(declared);
        for field in found {
            if by.contains(field.name()) {
                continue;
            }
            match fields.iter_mut().find(|f| f.name() == field.name()) {
                None => fields.push(Arc::new(field.as_ref().clone().with_nullable(true))),
                Some(known) if known.data_type() == field.data_type() => {}
                Some(known) => {
                    let kind = common(known.data_type(), field.data_type());
                    *known = Arc::new(known.as_ref().clone().with_data_type(kind));
                }
            }
        }
    }
    Arc::new(Schema::new(fields))
}

/// A type that holds the values of both: files of one column's many lives.
pub(super) fn common(a: &DataType, b: &DataType) -> DataType {
    use DataType::{Decimal128, Float64, Int64, Timestamp};
    match (a, b) {
        (a, b) if a.is_integer() && b.is_integer() => Int64,
        (Decimal128(p, s), Decimal128(q, t)) => {
            let (p, q) = (i16::from(*p) - i16::from(*s), i16::from(*q) - i16::from(*t));
            let scale = *s.max(t);
            match u8::try_from(p.max(q) + i16::from(scale)) {
                Ok(precision) if precision <= 38 => Decimal128(precision, scale),
                _ => DataType::Utf8,
            }
        }
        (a, b) if a.is_numeric() && b.is_numeric() => Float64,
        (Timestamp(unit, zone), Timestamp(..)) => Timestamp(*unit, zone.clone()),
        _ => DataType::Utf8,
    }
}

fn parquet_fields(place: &Place) -> Option<Vec<FieldRef>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(place.open().ok()?).ok()?;
    Some(reader.schema().fields().iter().cloned().collect())
}

fn files_of(
    root: &Path,
    manifest: &Manifest,
    partition: &[FieldRef],
    places: &Places,
) -> Result<Vec<LakeFile>, Failure> {
    let mut files = Vec::with_capacity(manifest.outputs.len());
    for output in &manifest.outputs {
        let values = partition.iter().map(|field| {
            let text = output.partition.get(field.name()).cloned().flatten();
            value(text, field.data_type())
        });
        let (store, location) = stored(&places.address(root, &output.path)?)?;
        files.push(LakeFile {
            store,
            location,
            bytes: output.bytes,
            values: values.collect::<Result<_, _>>()?,
        });
    }
    Ok(files)
}

/// Where the engine finds a file: the store, and the place in it.
fn stored(place: &Place) -> Result<(ObjectStoreUrl, StorePath), Failure> {
    let bad = |e: &dyn std::error::Error| {
        Failure::permanent("BadPath", format!("{place} cannot be read")).caused_by(e)
    };
    match place {
        Place::File(path) => {
            let path = std::path::absolute(path).map_err(|e| bad(&e))?;
            let location = StorePath::from_absolute_path(path).map_err(|e| bad(&e))?;
            Ok((ObjectStoreUrl::local_filesystem(), location))
        }
        Place::Stored { path, bucket, .. } => {
            let store = super::bucket_url(bucket).map_err(|e| bad(&e))?;
            Ok((store, path.clone()))
        }
    }
}

fn value(text: Option<String>, kind: &DataType) -> Result<ScalarValue, Failure> {
    let failed = |e: &dyn std::error::Error| {
        Failure::permanent(
            "BadPartition",
            format!("a partition value is not of type {kind}"),
        )
        .caused_by(e)
    };
    let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let typed = cast(&array, kind).map_err(|e| failed(&e))?;
    ScalarValue::try_from_array(&typed, 0).map_err(|e| failed(&e))
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let how = |filter: &&Expr| match self.of_partitions(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(how).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // A limit below a filter that is not ours to apply would lose rows.
        let limit = limit.filter(|_| filters.iter().all(|f| self.of_partitions(f)));
        let mut scans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let mut read = 0;
        for (format, files) in &self.files {
            let mut stores: BTreeMap<&str, Vec<&LakeFile>> = BTreeMap::new();
            for file in self.wanted(state, files, filters)? {
                stores.entry(file.store.as_str()).or_default().push(file);
            }
            for files in stores.into_values() {
                read += files.len();
                let store = files[0].store.clone();
                let parts = files.into_iter().map(|file| {
                    let mut part = PartitionedFile::new(String::new(), file.bytes);
                    part.object_meta.location = file.location.clone();
                    part.partition_values.clone_from(&file.values);
                    part
                });
                let group: FileGroup = parts.collect::<Vec<_>>().into();
                let groups = group.split_files(state.config().target_partitions());
                let config = FileScanConfigBuilder::new(store, self.source(format))
                    .with_file_groups(groups)
                    .with_limit(limit)
                    .with_projection_indices(projection.cloned())?
                    .build();
                scans.push(DataSourceExec::from_data_source(config));
            }
        }
        self.tell(read);
        let schema = match projection {
            None => Arc::clone(&self.schema),
            Some(columns) => Arc::new(self.schema.project(columns)?),
        };
        match scans.len() {
            0 => Ok(Arc::new(EmptyExec::new(schema))),
            1 => Ok(scans.remove(0)),
            _ => UnionExec::try_new(scans),
        }
    }
}
