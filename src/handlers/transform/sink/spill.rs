//! Rows of small partitions, put on disk until there are enough for a good
//! row group. Thousands of partitions would otherwise be written in as many
//! tiny row groups at every turn, and their metadata alone would fill memory.

use crate::handlers::Failure;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Where some rows lie in the spill file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    offset: u64,
    length: usize,
}

/// One file of rows of many partitions.
pub(super) struct Spill {
    path: PathBuf,
    schema: SchemaRef,
    file: Option<File>,
    end: u64,
}

impl Spill {
    /// A spill at `path`; the file is made when it is needed.
    pub(super) fn new(path: PathBuf, schema: SchemaRef) -> Self {
        Self {
            path,
            schema,
            file: None,
            end: 0,
        }
    }

    /// Writes the rows of several partitions; tells each one's place.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [RecordBatch]>,
    ) -> Result<Vec<Segment>, Failure> {
        self.append(parts).map_err(|e| {
            Failure::transient("WriteFailed", "rows could not be put aside on disk").caused_by(&e)
        })
    }

    fn append<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [RecordBatch]>,
    ) -> Result<Vec<Segment>, ArrowError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                if let Some(folder) = self.path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                let mut options = OpenOptions::new();
                let file = options.create(true).truncate(true).read(true).write(true);
                none.insert(file.open(&self.path)?)
            }
        };
        file.seek(SeekFrom::Start(self.end))?;
        let mut out = BufWriter::with_capacity(256 << 10, &mut *file);
        let mut segments = Vec::new();
        let mut bytes = Vec::new();
        for rows in parts {
            bytes.clear();
            let mut writer = StreamWriter::try_new(&mut bytes, &self.schema)?;
            writer.write(&concat_batches(&self.schema, rows)?)?;
            writer.finish()?;
            drop(writer);
            out.write_all(&bytes)?;
            segments.push(Segment {
                offset: self.end,
                length: bytes.len(),
            });
            self.end += bytes.len() as u64;
        }
        out.flush()?;
        Ok(segments)
    }

    /// Reads rows back.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn read(&self, segments: &[Segment]) -> Result<Vec<RecordBatch>, Failure> {
        let mut rows = Vec::with_capacity(segments.len());
        for segment in segments {
            let batch = self.segment(*segment).map_err(|e| {
                Failure::transient("ReadFailed", "rows put aside on disk could not be read")
                    .caused_by(&e)
            })?;
            rows.extend(batch);
        }
        Ok(rows)
    }

    fn segment(&self, segment: Segment) -> Result<Vec<RecordBatch>, ArrowError> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let mut bytes = vec![0; segment.length];
        let file = self.file.as_ref().ok_or_else(missing)?;
        file.read_exact_at(&mut bytes, segment.offset)?;
        StreamReader::try_new(bytes.as_slice(), None)?.collect()
    }
}
