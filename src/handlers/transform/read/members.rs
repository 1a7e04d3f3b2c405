//! Archives: each member has records of its own. Nothing is written to disk,
//! so a member's name is only a name; what is unpacked is counted and limited.
//!
//! The libraries lend a member while they hold the archive, so the archive is
//! walked on a thread that hands over names and bytes through a short channel.

use super::encoding::decoded;
use super::open::{Content, Meter, Opened};
use super::unpack::{Bytes, decompressed, failure, is_tar, peeked, too_large};
use crate::handlers::Failure;
use crate::handlers::objects::Blob;
use crate::handlers::transform::options::ReadOptions;
use encoding_rs::Encoding;
use globset::GlobMatcher;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Most members of an archive.
const MOST: usize = 100_000;
/// Bytes handed over at a time, and how many such pieces may wait.
const PIECE: usize = 128 << 10;
const AHEAD: usize = 2;

/// What comes through the channel.
enum Part {
    Member(String),
    Bytes(Vec<u8>),
    Failed(Failure),
}

/// The members of an archive, one after the other.
pub struct Members {
    key: String,
    meter: Arc<Meter>,
    wanted: Vec<GlobMatcher>,
    encoding: Option<&'static Encoding>,
    limit: u64,
    pipe: Arc<Mutex<Pipe>>,
}

struct Pipe {
    parts: Receiver<Part>,
    /// The name of the member that comes next.
    next: Option<String>,
}

/// A zip archive.
///
/// # Errors
/// When no thread can be started.
pub fn zip(opened: Opened, options: &ReadOptions) -> Result<Members, Failure> {
    let Opened {
        key, file, meter, ..
    } = opened;
    let (limit, named) = (options.max_unpacked, key.clone());
    Members::new(key, meter, options, move |out| {
        walk_zip(&file, &named, limit, out)
    })
}

/// A tar archive, already decompressed.
///
/// # Errors
/// When no thread can be started.
pub fn tar(
    key: String,
    meter: Arc<Meter>,
    plain: Bytes,
    options: &ReadOptions,
) -> Result<Members, Failure> {
    Members::new(key, meter, options, move |out| walk_tar(plain, out))
}

impl Members {
    fn new(
        key: String,
        meter: Arc<Meter>,
        options: &ReadOptions,
        walk: impl FnOnce(&Out) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (sender, parts) = sync_channel(AHEAD);
        let (named, noted) = (key.clone(), Arc::clone(&meter));
        let work = move || {
            let out = Out {
                sender,
                meter: Arc::clone(&noted),
            };
            if let Err(e) = walk(&out) {
                out.send(Part::Failed(failure(&named, &noted, &e)));
            }
        };
        std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(work)
            .map_err(|e| {
                Failure::transient("Internal", "no thread for an archive").caused_by(&e)
            })?;
        Ok(Self {
            key,
            meter,
            wanted: options.members.clone(),
            encoding: options.encoding,
            limit: options.max_unpacked,
            pipe: Arc::new(Mutex::new(Pipe { parts, next: None })),
        })
    }

    /// The next member that is wanted, with its name.
    ///
    /// # Errors
    /// When the archive cannot be read, or the member is one itself.
    pub fn next(&mut self) -> Result<Option<(String, Content)>, Failure> {
        loop {
            let Some(name) = self.name()? else {
                return Ok(None);
            };
            if is_wanted(&self.wanted, &name) {
                let key = format!("{}!{name}", self.key);
                return self.content(key).map(|content| Some((name, content)));
            }
        }
    }

    fn name(&mut self) -> Result<Option<String>, Failure> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = pipe.next.take() {
            return Ok(Some(name));
        }
        loop {
            match pipe.parts.recv() {
                Ok(Part::Member(name)) => return Ok(Some(name)),
                Ok(Part::Failed(failure)) => return Err(failure),
                Ok(Part::Bytes(_)) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    fn content(&self, key: String) -> Result<Content, Failure> {
        let failed = |e: io::Error| failure(&key, &self.meter, &e);
        let raw = Member {
            pipe: Arc::clone(&self.pipe),
            piece: Vec::new(),
            at: 0,
            ended: false,
        };
        let plain = decompressed(Box::new(raw), &key, self.limit).map_err(failed)?;
        let (head, plain) = peeked(plain).map_err(failed)?;
        let what = match head.as_slice() {
            [b'P', b'K', 3, 4, ..] => Some("an archive in an archive"),
            [b'P', b'A', b'R', b'1', ..] => Some("a Parquet file in an archive"),
            head if is_tar(head) => Some("an archive in an archive"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(Failure::permanent(
                "WrongFormat",
                format!("`{key}` is {what}, which is not read; `read.members` chooses others"),
            ));
        }
        let text = decoded(&head, plain, self.encoding).map_err(failed)?;
        Ok(Content::new(key, text, Arc::clone(&self.meter)))
    }
}

/// Without a choice, all files but those that packing programs add for themselves.
fn is_wanted(wanted: &[GlobMatcher], name: &str) -> bool {
    if !wanted.is_empty() {
        return wanted.iter().any(|glob| glob.is_match(name));
    }
    let hidden = |part: &str| part.starts_with('.') && part != "." && part != "..";
    !name.starts_with("__MACOSX/") && !name.split('/').any(hidden)
}

/// The bytes of one member.
struct Member {
    pipe: Arc<Mutex<Pipe>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.ended {
            let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
            match pipe.parts.recv() {
                Ok(Part::Bytes(bytes)) => (self.piece, self.at) = (bytes, 0),
                Ok(Part::Member(name)) => {
                    pipe.next = Some(name);
                    self.ended = true;
                }
                Ok(Part::Failed(failure)) => return Err(io::Error::other(failure)),
                Err(_) => self.ended = true,
            }
        }
        let ready = &self.piece[self.at..];
        let n = ready.len().min(buffer.len());
        buffer[..n].copy_from_slice(&ready[..n]);
        self.at += n;
        Ok(n)
    }
}

/// Where an archive's members go.
struct Out {
    sender: SyncSender<Part>,
    meter: Arc<Meter>,
}

impl Out {
    /// `false` when nobody listens any more.
    fn send(&self, part: Part) -> bool {
        self.sender.send(part).is_ok()
    }

    /// Hands over a member's bytes; `false` when nobody listens any more.
    fn copy(&self, from: &mut impl Read) -> io::Result<bool> {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            from.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Ok(true);
            }
            if !self.send(Part::Bytes(piece)) {
                return Ok(false);
            }
        }
    }
}

fn too_many() -> io::Error {
    let message = format!("the archive has more than {MOST} members");
    io::Error::other(Failure::permanent("TooLarge", message))
}

fn walk_tar(plain: Bytes, out: &Out) -> io::Result<()> {
    let mut archive = tar::Archive::new(plain);
    for (number, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if number >= MOST {
            return Err(too_many());
        }
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.size();
        if !out.send(Part::Member(name)) {
            return Ok(());
        }
        let mut counted = Whole {
            inner: &mut entry,
            left: size,
        };
        if !out.copy(&mut counted)? {
            return Ok(());
        }
    }
    Ok(())
}

/// A member that must be as long as its header says.
struct Whole<'a, R> {
    inner: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

fn walk_zip(file: &Blob, key: &str, limit: u64, out: &Out) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file.reader(0)))?;
    if archive.len() > MOST {
        return Err(too_many());
    }
    let mut left = limit;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        if !entry.is_file() {
            continue;
        }
        if !out.send(Part::Member(entry.name()?.into_owned())) {
            return Ok(());
        }
        out.meter.add(entry.compressed_size());
        let mut counted = Counting {
            inner: &mut entry,
            left,
            key,
            limit,
        };
        let listens = out.copy(&mut counted)?;
        left = counted.left;
        if !listens {
            return Ok(());
        }
    }
    Ok(())
}

/// Counts what all members unpack to.
struct Counting<'a, R> {
    inner: &'a mut R,
    left: u64,
    key: &'a str,
    limit: u64,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let left = self.left.checked_sub(n as u64);
        self.left = left.ok_or_else(|| io::Error::other(too_large(self.key, self.limit)))?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_chosen_by_name() {
        assert!(is_wanted(&[], "a/b.csv"));
        assert!(is_wanted(&[], "./b.csv"));
        assert!(!is_wanted(&[], "__MACOSX/._b.csv"));
        assert!(!is_wanted(&[], "a/.DS_Store"));
        let csv = vec![globset::Glob::new("*.csv").unwrap().compile_matcher()];
        assert!(is_wanted(&csv, "a/b.csv") && !is_wanted(&csv, "README.md"));
    }
}
