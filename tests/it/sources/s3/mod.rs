//! The bucket source on a real server.

mod hints;
mod long;
mod polling;
mod trouble;
mod versions;

use super::folder::Bus;
use crate::support::seaweedfs::{self, KEY, SECRET, SeaweedFs};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use pointsman::clock;
use pointsman::drivers::s3::{Bucket, S3Options};
use pointsman::event::Defaults;
use pointsman::sources::Intake;
use pointsman::sources::folder::Start;
use pointsman::sources::s3::{self, Listing, S3Handle, S3SourceOptions, S3Status};
use pointsman::state::State;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(300);

/// A bucket, a bus and a side state, and what runs over them.
pub struct Pond {
    folder: TempDir,
    pub bucket: Bucket,
    pub bus: Arc<Bus>,
    pub options: S3SourceOptions,
    /// Asked instead of the bucket itself, where a test stands between.
    pub listing: Option<Arc<dyn Listing>>,
}

/// A source that runs.
pub struct Source {
    pub handle: Arc<S3Handle>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub fn client(server: &SeaweedFs, bucket: &str) -> Bucket {
    let options = S3Options {
        endpoint: Some(server.endpoint()),
        keys: Some((KEY.to_owned(), SECRET.to_owned())),
        path_style: true,
        ..S3Options::default()
    };
    Bucket::open(bucket, &options).expect("a bucket")
}

impl Pond {
    /// An empty bucket of the shared server.
    pub fn new(what: &str) -> Self {
        Self::on(seaweedfs::shared(), what)
    }

    pub fn on(server: &SeaweedFs, what: &str) -> Self {
        let name = server.bucket(what);
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            bucket: client(server, &name),
            bus: Bus::new(),
            options: S3SourceOptions {
                name: "raw".to_owned(),
                bus: "default".to_owned(),
                bucket: name,
                prefix: String::new(),
                include: Vec::new(),
                exclude: Vec::new(),
                every: Duration::from_millis(100),
                every_idle: Duration::from_millis(100),
                reconcile: Duration::from_secs(3600),
                ordered: false,
                versions: false,
                start: Start::All,
                deletes: false,
                forget_after: Duration::from_secs(86_400),
                notified: false,
                defaults: Defaults::default(),
            },
            listing: None,
        }
    }

    pub async fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let content: Vec<u8> = content.into();
        let path = Path::parse(key).expect("a key");
        self.bucket
            .store
            .put(&path, content.into())
            .await
            .expect("a put");
    }

    pub async fn delete(&self, key: &str) {
        let path = Path::parse(key).expect("a key");
        self.bucket.store.delete(&path).await.expect("a delete");
    }

    pub async fn start(&self) -> Source {
        self.start_into(self.bus.clone()).await
    }

    /// Starts it with another bus.
    pub async fn start_into(&self, bus: Arc<dyn Intake>) -> Source {
        let state = State::open(&self.folder.path().join("side.db")).expect("a state");
        let listing: Arc<dyn Listing> = match &self.listing {
            Some(listing) => Arc::clone(listing),
            None => Arc::new(self.bucket.listing.clone()),
        };
        let cancel = CancellationToken::new();
        let (handle, run) = s3::start(
            self.options.clone(),
            listing,
            bus,
            state,
            clock::system(),
            cancel.clone(),
        )
        .await
        .expect("a source");
        Source {
            handle: Arc::new(handle),
            cancel,
            task: tokio::spawn(run),
        }
    }

    /// Waits until the bus has that many events, for as long as more come.
    pub async fn wait_for(&self, source: &Source, events: usize) {
        let (mut begun, mut best) = (Instant::now(), 0);
        while self.bus.len() < events {
            if self.bus.len() > best {
                (begun, best) = (Instant::now(), self.bus.len());
            }
            if begun.elapsed() > SOON {
                let said = serde_json::to_string_pretty(&source.status().await).expect("JSON");
                panic!("{} of {events} events; {said}", self.bus.len());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for exactly these keys, each in one event, and makes sure that a
    /// further walk finds no more.
    pub async fn expect(&self, source: &Source, keys: &[&str]) {
        self.wait_for(source, keys.len()).await;
        source.handle.rescan().await.expect("a walk");
        let mut keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
        keys.sort();
        assert_eq!(self.bus.created(), keys);
        assert_eq!(self.bus.duplicates(), 0);
    }
}

impl Source {
    pub async fn status(&self) -> S3Status {
        self.handle.status().await.expect("a status")
    }

    /// Ends it as the end of the program does.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("an end");
    }
}
