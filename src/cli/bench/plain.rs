//! What the disk gives: a plain file, appended to and synced once per batch.

use super::super::CliError;
use super::quantiles;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that any log needs beside the payload: length, checksum, number, two routes.
const BESIDE: usize = 32;

/// What a plain file reached.
pub(super) struct Plain {
    pub per_second: f64,
    /// p50, p99 and p999 of a batch, in microseconds.
    pub sync_us: [u64; 3],
}

/// Appends batches for `time`.
pub(super) fn run(
    dir: &Path,
    batch: usize,
    size: usize,
    time: Duration,
) -> Result<Plain, CliError> {
    let path = dir.join("plain");
    let failed = |e: std::io::Error| CliError::new(format!("{}: {e}", path.display()));
    let file = File::create(&path).map_err(failed)?;
    let started = Instant::now();
    let (mut batches, mut offset, mut times) = (0_u64, 0, Vec::new());
    let mut record = Vec::new();
    while started.elapsed() < time {
        let began = Instant::now();
        record.clear();
        for i in 0..batch as u64 {
            let mut body = vec![b'x'; size];
            body[..8].copy_from_slice(&(batches * batch as u64 + i).to_le_bytes());
            let crc = crc32c::crc32c(&body);
            record.extend_from_slice(&crc.to_le_bytes());
            record.extend_from_slice(&[0; BESIDE - 4]);
            record.extend_from_slice(&body);
        }
        file.write_all_at(&record, offset).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        offset += record.len() as u64;
        batches += 1;
        times.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    let per_second = (batches * batch as u64) as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(&path).map_err(failed)?;
    Ok(Plain {
        per_second,
        sync_us: quantiles(times),
    })
}
