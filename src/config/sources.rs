//! Sources, checked and with every default filled in.

use super::model::Backing;
use crate::sources::folder::FolderOptions;
use crate::sources::queue::Format;
use crate::sources::s3::S3SourceOptions;
use std::time::Duration;

/// Where events come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A watched folder.
    Folder(FolderOptions),
    /// A bucket.
    S3(S3Source),
    /// A queue on a broker.
    Queue(QueueSource),
}

/// A queue on a broker as a source.
#[derive(Clone, Debug)]
pub struct QueueSource {
    /// The bus that its events go to.
    pub bus: String,
    /// The queue.
    pub on: Backing,
    /// What its messages are (default: events).
    pub format: Format,
    /// How long received messages are hidden from others while they are handed
    /// in, where the broker has such a time (default 60 s).
    pub visibility: Duration,
}

/// How the notifications of a bucket come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notifications {
    /// They are posted to `/sources/NAME/notifications`.
    Webhook,
    /// By this source.
    From(String),
}

/// A bucket as a source.
#[derive(Clone, Debug)]
pub struct S3Source {
    /// The connection; `None`: as AWS's own tools find region and credentials.
    pub connection: Option<String>,
    /// What is looked for, and how.
    pub options: S3SourceOptions,
    /// How notifications come, if they do.
    pub notifications: Option<Notifications>,
}

impl Source {
    /// The bus that its events go to.
    #[must_use]
    pub fn bus(&self) -> &str {
        match self {
            Self::Folder(folder) => &folder.bus,
            Self::S3(s3) => &s3.options.bus,
            Self::Queue(queue) => &queue.bus,
        }
    }
}
