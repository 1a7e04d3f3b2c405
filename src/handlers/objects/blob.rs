//! The bytes of an object, wherever it lies: read from any place, or from
//! front to back with some parts on the way. What lies in a bucket is read in
//! ranges, each of them only if the object is still the one that was opened
//! (`If-Match`), so an object that is replaced meanwhile is never read half old
//! and half new. Memory is bounded by the parts under way, whatever the size.

use super::Place;
use bytes::{Buf as _, Bytes};
use object_store::path::Path as StorePath;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectStore};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// Bytes of one ranged read.
const PART: u64 = 4 << 20;
/// Ranged reads under way ahead of the reader.
const AHEAD: usize = 3;
/// How often a ranged read that broke off is begun again, beyond what the
/// store's client does by itself.
const TRIES: u32 = 5;

/// The object is not the one that was opened any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it was replaced by another version")]
pub struct Superseded;

/// An object that can be read. Clones share it.
#[derive(Clone, Debug)]
pub struct Blob {
    size: u64,
    inner: Inner,
}

#[derive(Clone, Debug)]
enum Inner {
    File(Arc<File>),
    Stored(Arc<Stored>),
}

/// An object in a bucket.
#[derive(Debug)]
struct Stored {
    store: Arc<dyn ObjectStore>,
    path: StorePath,
    version: Option<String>,
    etag: Option<String>,
    runtime: Handle,
    /// What a read failed with first; libraries above may not hand it on.
    trouble: OnceLock<Arc<io::Error>>,
}

impl Place {
    /// Opens the object as it is now. Blocks.
    ///
    /// # Errors
    /// When it is not there (`NotFound`) or cannot be read.
    pub fn open(&self) -> io::Result<Blob> {
        match self {
            Self::File(path) => {
                let file = File::open(path)?;
                Ok(Blob {
                    size: file.metadata()?.len(),
                    inner: Inner::File(Arc::new(file)),
                })
            }
            Self::Stored { .. } => {
                let place = self.clone();
                let runtime = runtime()?;
                let (sender, receiver) = sync_channel(1);
                // Nobody waits for the answer of a reader that is gone.
                runtime.spawn(async move { drop(sender.send(place.open_stored().await)) });
                answer(&receiver)
            }
        }
    }

    async fn open_stored(&self) -> io::Result<Blob> {
        let Self::Stored {
            store,
            path,
            version,
            ..
        } = self
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let options = GetOptions {
            head: true,
            version: version.clone(),
            ..GetOptions::default()
        };
        let meta = store.get_opts(path, options).await.map_err(failed)?.meta;
        Ok(Blob {
            size: meta.size,
            inner: Inner::Stored(Arc::new(Stored {
                store: Arc::clone(store),
                path: path.clone(),
                version: version.clone(),
                etag: meta.e_tag,
                runtime: runtime()?,
                trouble: OnceLock::new(),
            })),
        })
    }
}

/// The runtime that reads from buckets. It is one of its own, because whoever
/// reads blocks a thread: were that a thread of the runtime that does the
/// reading, it could wait for itself.
fn runtime() -> io::Result<Handle> {
    static READING: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket-read")
            .enable_all()
            .build()
    });
    match &*READING {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

/// Waits for what is read from a bucket, wherever that is asked for. Blocks.
///
/// # Errors
/// When it is not read.
pub fn waited_for<T: Send + 'static>(
    reading: impl Future<Output = T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = sync_channel(1);
    // Nobody waits for the answer of a reader that is gone.
    runtime()?.spawn(async move { drop(sender.send(Ok(reading.await))) });
    answer(&receiver)
}

fn answer<T>(receiver: &Receiver<io::Result<T>>) -> io::Result<T> {
    receiver
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the read was given up")))
}

/// What a store failed with, in the words of the file system.
fn failed(error: StoreError) -> io::Error {
    match error {
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            io::Error::other(Superseded)
        }
        StoreError::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, error),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            io::Error::new(io::ErrorKind::PermissionDenied, error)
        }
        other => io::Error::other(other),
    }
}

impl Stored {
    /// Some bytes, if the object is still the same.
    async fn range(self: Arc<Self>, from: u64, to: u64) -> io::Result<Bytes> {
        let mut tries = 0;
        loop {
            tries += 1;
            let read = async {
                let options = GetOptions {
                    if_match: self.etag.clone(),
                    range: Some(GetRange::Bounded(from..to)),
                    version: self.version.clone(),
                    ..GetOptions::default()
                };
                self.store
                    .get_opts(&self.path, options)
                    .await?
                    .bytes()
                    .await
            };
            match read.await {
                Ok(bytes) => return Ok(bytes),
                Err(StoreError::Generic { .. }) if tries < TRIES => {
                    tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn begin(self: &Arc<Self>, from: u64, to: u64) -> Receiver<io::Result<Bytes>> {
        let (sender, receiver) = sync_channel(1);
        let this = Arc::clone(self);
        self.runtime
            .spawn(async move { drop(sender.send(this.range(from, to).await)) });
        receiver
    }

    /// The answer of a read, and a note if it is none.
    fn answer(&self, receiver: &Receiver<io::Result<Bytes>>) -> io::Result<Bytes> {
        answer(receiver).map_err(|error| {
            let error = Arc::new(error);
            // The first one counts.
            drop(self.trouble.set(Arc::clone(&error)));
            io::Error::new(error.kind(), error)
        })
    }
}

impl Blob {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The etag of an object in a bucket, without quotes.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        match &self.inner {
            Inner::File(_) => None,
            Inner::Stored(stored) => stored.etag.as_deref().map(|etag| etag.trim_matches('"')),
        }
    }

    /// The open file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        match &self.inner {
            Inner::File(file) => Some(file),
            Inner::Stored(_) => None,
        }
    }

    /// What a read from a bucket has failed with, if one has.
    #[must_use]
    pub fn trouble(&self) -> Option<&io::Error> {
        match &self.inner {
            Inner::File(_) => None,
            Inner::Stored(stored) => stored.trouble.get().map(AsRef::as_ref),
        }
    }

    /// Reads `length` bytes from `offset` on. Blocks.
    ///
    /// # Errors
    /// When they are not there or cannot be read.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let to = offset + length as u64;
        if to > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.inner {
            Inner::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes.into())
            }
            Inner::Stored(_) if length == 0 => Ok(Bytes::new()),
            Inner::Stored(stored) => stored.answer(&stored.begin(offset, to)),
        }
    }

    /// A reader from `offset` to the end.
    #[must_use]
    pub fn reader(&self, offset: u64) -> BlobReader {
        BlobReader {
            blob: self.clone(),
            at: offset,
            asked: offset,
            part: Bytes::new(),
            coming: VecDeque::new(),
        }
    }
}

/// Reads an object from front to back.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    /// Where the next byte comes from.
    at: u64,
    /// Up to where parts were asked for.
    asked: u64,
    part: Bytes,
    coming: VecDeque<Receiver<io::Result<Bytes>>>,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stored = match &self.blob.inner {
            Inner::File(file) => {
                let got = file.read_at(buffer, self.at)?;
                self.at += got as u64;
                return Ok(got);
            }
            Inner::Stored(stored) => Arc::clone(stored),
        };
        if self.part.is_empty() {
            while self.coming.len() < AHEAD && self.asked < self.blob.size {
                let to = (self.asked + PART).min(self.blob.size);
                self.coming.push_back(stored.begin(self.asked, to));
                self.asked = to;
            }
            let Some(next) = self.coming.pop_front() else {
                return Ok(0);
            };
            self.part = stored.answer(&next)?;
        }
        let got = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..got]);
        self.at += got as u64;
        Ok(got)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.blob.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let place = place.ok_or(io::ErrorKind::InvalidInput)?;
        if place != self.at {
            self.at = place;
            self.asked = place;
            self.part = Bytes::new();
            self.coming.clear();
        }
        Ok(place)
    }
}

impl Length for Blob {
    fn len(&self) -> u64 {
        self.size
    }
}

/// Either a whole chunk in memory or a stream; Parquet's pages are chunks.
impl ChunkReader for Blob {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        // Page headers are read from here: small, from one small range.
        let near = (self.size.saturating_sub(start)).min(64 << 10);
        let head = self.get_bytes(start, usize::try_from(near).unwrap_or(0))?;
        Ok(Box::new(Read::chain(
            Cursor::new(head),
            self.reader(start + near),
        )))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.read_at(start, length)
            .map_err(|e| ParquetError::External(Box::new(e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    async fn stored(bytes: Vec<u8>) -> (Arc<InMemory>, Place) {
        let store = Arc::new(InMemory::new());
        let path = StorePath::from("a.bin");
        store.put(&path, bytes.into()).await.unwrap();
        let place = Place::Stored {
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            bucket: "b".to_owned(),
            path,
            version: None,
            url: "s3://b/a.bin".to_owned(),
        };
        (store, place)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stored_object_reads_as_a_file_does() {
        let bytes: Vec<u8> = (0..PART * 2 + 77).map(|n| (n % 251) as u8).collect();
        let (_, place) = stored(bytes.clone()).await;
        let read = tokio::task::spawn_blocking(move || {
            let blob = place.open().unwrap();
            let mut reader = blob.reader(0);
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            reader.seek(SeekFrom::End(-5)).unwrap();
            let mut tail = Vec::new();
            reader.read_to_end(&mut tail).unwrap();
            (all, tail, blob.read_at(PART - 1, 3).unwrap(), blob.size())
        });
        let (all, tail, middle, size) = read.await.unwrap();
        assert!(all == bytes);
        assert_eq!(tail, bytes[bytes.len() - 5..]);
        let from = usize::try_from(PART).unwrap() - 1;
        assert_eq!(middle, bytes[from..from + 3]);
        assert_eq!(size, bytes.len() as u64);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_that_is_replaced_is_not_read_further() {
        let size = usize::try_from(PART).unwrap() * (AHEAD + 2);
        let (store, place) = stored(vec![1; size]).await;
        let blob = tokio::task::spawn_blocking(move || place.open().unwrap());
        let blob = blob.await.unwrap();
        store
            .put(&StorePath::from("a.bin"), vec![2; size].into())
            .await
            .unwrap();
        let read = tokio::task::spawn_blocking(move || {
            blob.reader(0).read_to_end(&mut Vec::new()).unwrap_err();
            blob
        });
        let blob = read.await.unwrap();
        let cause = blob.trouble().and_then(io::Error::get_ref);
        assert!(cause.is_some_and(|e| e.is::<Superseded>()), "{cause:?}");
    }
}
