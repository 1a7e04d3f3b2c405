//! What a source needs of a bucket: pages of a listing, and one object's state.

use futures::future::BoxFuture;

/// A version of an object, or the mark of its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// Size in bytes; 0 for a deletion.
    pub size: u64,
    /// The etag, without quotes; empty for a deletion.
    pub etag: String,
    /// When it was written, Unix milliseconds; S3 tells whole seconds.
    pub modified_ms: i64,
    /// Its version, where versions are listed and the bucket keeps them.
    pub version: Option<String>,
    /// It marks that the object was deleted.
    pub deleted: bool,
    /// Its storage class, where that is not the standard one.
    pub class: Option<String>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What it lists, in the order of the server.
    pub entries: Vec<Listed>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the first key.
    Start,
    /// After this key, in the order of keys.
    After(String),
    /// Where another page ended.
    Token(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The listing has to begin anew: the server does not know the place any more.
    #[error("the place in the listing is no longer known: {0}")]
    Token(String),
    /// The server says no: no such bucket, or no right to it.
    #[error("{0}")]
    Refused(String),
    /// The server does not answer, or not now.
    #[error("{0}")]
    Unavailable(String),
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Each object as it is now.
    Objects,
    /// Each version of each object, and deletions.
    Versions,
}

/// Lists a bucket.
pub trait Listing: Send + Sync {
    /// A page of what begins with `prefix`.
    fn page<'a>(
        &'a self,
        prefix: &'a str,
        what: What,
        from: &'a Begin,
    ) -> BoxFuture<'a, Result<Page, ListError>>;

    /// An object as it is now, or one version of it; `None` if there is none.
    fn head<'a>(
        &'a self,
        key: &'a str,
        version: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Listed>, ListError>>;
}
