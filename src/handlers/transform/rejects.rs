//! Records that are set aside: a line of JSON each, in one file per cause.

use super::options::RejectLimit;
use crate::handlers::Failure;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// At most this much of a record's raw text is kept.
pub const RAW_CAP: usize = 8 << 10;
/// How many rejects are told in a failure's chain.
const TOLD: usize = 5;

/// A record that was set aside, and why.
#[derive(Debug)]
pub struct Reject<'a> {
    /// The member of an archive that it is in.
    pub member: Option<&'a str>,
    /// Line on which it starts, from 1; 0 where the format has no lines.
    pub line: u64,
    /// Its number among the records, from 1.
    pub record: u64,
    /// Its first byte, after decompression and decoding.
    pub offset: u64,
    /// The column concerned, where it is one.
    pub column: Option<&'a str>,
    /// A short, stable name of the reason.
    pub code: &'a str,
    /// The reason, for people.
    pub message: &'a str,
    /// The record as it came.
    pub raw: &'a [u8],
}

/// A reject that waits until it is its turn to be written.
#[derive(Debug)]
pub struct Kept {
    line: u64,
    record: u64,
    offset: u64,
    column: Option<String>,
    code: String,
    message: String,
    raw: Vec<u8>,
}

impl Kept {
    /// Keeps a reject.
    #[must_use]
    pub fn of(reject: &Reject<'_>) -> Self {
        Self {
            line: reject.line,
            record: reject.record,
            offset: reject.offset,
            column: reject.column.map(str::to_owned),
            code: reject.code.to_owned(),
            message: reject.message.to_owned(),
            raw: reject.raw.to_vec(),
        }
    }

    /// The reject, so many lines, records and bytes further on.
    #[must_use]
    pub fn behind<'a>(
        &'a self,
        member: Option<&'a str>,
        lines: u64,
        records: u64,
        bytes: u64,
    ) -> Reject<'a> {
        Reject {
            member,
            line: self.line + lines,
            record: self.record + records,
            offset: self.offset + bytes,
            column: self.column.as_deref(),
            code: &self.code,
            message: &self.message,
            raw: &self.raw,
        }
    }
}

/// Where rejects go.
pub trait RejectSink: Send {
    /// Takes one.
    ///
    /// # Errors
    /// When it cannot be written, or there are too many.
    fn put(&mut self, reject: &Reject<'_>) -> Result<(), Failure>;
}

/// Rejects that another pass over the same object has written already.
pub struct Known;

impl RejectSink for Known {
    fn put(&mut self, _: &Reject<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// One line of a file of rejects.
#[derive(Serialize)]
struct Line<'a> {
    bucket: &'a str,
    key: &'a str,
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    line: u64,
    record: u64,
    offset: u64,
    column: Option<&'a str>,
    code: &'a str,
    message: &'a str,
    raw: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    raw_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Which object the rejects come from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// `detail.bucket.name`.
    pub bucket: String,
    /// `detail.object.key`.
    pub key: String,
    /// `detail.object.etag`.
    pub etag: Option<String>,
}

/// A file of rejects in the making; it appears under its name when it is published.
#[derive(Debug)]
pub struct RejectFile {
    origin: Origin,
    limit: RejectLimit,
    staged: PathBuf,
    target: PathBuf,
    file: Option<BufWriter<File>>,
    count: u64,
    told: Vec<String>,
}

impl RejectFile {
    /// A file that will be `target`; until then it is `staged`.
    #[must_use]
    pub fn new(origin: Origin, limit: RejectLimit, staged: PathBuf, target: PathBuf) -> Self {
        Self {
            origin,
            limit,
            staged,
            target,
            file: None,
            count: 0,
            told: Vec::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Judges the share of rejects, at the end of the object.
    ///
    /// # Errors
    /// `TooManyRejects`.
    pub fn judge(&self, records: u64) -> Result<(), Failure> {
        match self.limit {
            RejectLimit::Share(share) if self.count > 0 => {
                #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
                let is = self.count as f64 / records.max(1) as f64;
                match is > share {
                    true => Err(self.too_many(&format!(
                        "{} of {records} records were set aside, more than the allowed share of {share}",
                        self.count
                    ))),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn too_many(&self, message: &str) -> Failure {
        let mut failure = Failure::permanent("TooManyRejects", message);
        failure.chain.clone_from(&self.told);
        failure
    }

    /// Puts the file in its place, durably, and tells where; a leftover of an
    /// earlier attempt goes away when there are no rejects.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn publish(mut self) -> Result<Option<PathBuf>, Failure> {
        let Some(file) = self.file.take() else {
            return match fs::remove_file(&self.target) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&self.target, &e)),
                _ => Ok(None),
            };
        };
        let sealed = file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error);
        let target = &self.target;
        let folder = target.parent().unwrap_or(Path::new("."));
        sealed
            .and_then(|f| f.sync_all())
            .and_then(|()| fs::create_dir_all(folder))
            .and_then(|()| fs::rename(&self.staged, target))
            .and_then(|()| super::disk::sync_dir(folder))
            .map_err(|e| failed(target, &e))?;
        Ok(Some(self.target.clone()))
    }

    fn write(&mut self, reject: &Reject<'_>) -> std::io::Result<()> {
        let shown = &reject.raw[..reject.raw.len().min(RAW_CAP)];
        let raw = String::from_utf8_lossy(shown);
        let line = Line {
            bucket: &self.origin.bucket,
            key: &self.origin.key,
            etag: self.origin.etag.as_deref(),
            member: reject.member,
            line: reject.line,
            record: reject.record,
            offset: reject.offset,
            column: reject.column,
            code: reject.code,
            message: reject.message,
            raw: &raw,
            raw_bytes: if shown.len() < reject.raw.len() {
                reject.raw.len() as u64
            } else {
                0
            },
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.staged.parent() {
                    fs::create_dir_all(folder)?;
                }
                self.file
                    .insert(BufWriter::new(File::create(&self.staged)?))
            }
        };
        serde_json::to_writer(&mut *file, &line)?;
        file.write_all(b"\n")
    }
}

impl Drop for RejectFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Not published: nobody needs it, and its name hides it.
            drop(fs::remove_file(&self.staged));
        }
    }
}

impl RejectSink for RejectFile {
    fn put(&mut self, reject: &Reject<'_>) -> Result<(), Failure> {
        self.count += 1;
        if self.told.len() < TOLD {
            let at = match reject.line {
                0 => format!("record {}", reject.record),
                line => format!("line {line}"),
            };
            let at = match reject.member {
                None => at,
                Some(member) => format!("{member}, {at}"),
            };
            let column = reject
                .column
                .map(|c| format!(", column `{c}`"))
                .unwrap_or_default();
            self.told.push(format!(
                "{at}{column}: {} ({})",
                reject.message, reject.code
            ));
        }
        if let RejectLimit::Count(most) = self.limit
            && self.count > most
        {
            return Err(self.too_many(&format!(
                "more than {most} records were set aside, up to record {}",
                reject.record
            )));
        }
        self.write(reject).map_err(|e| failed(&self.staged, &e))
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Failure {
    Failure::transient(
        "WriteFailed",
        format!("the rejects could not be written to {}", path.display()),
    )
    .caused_by(e)
}
