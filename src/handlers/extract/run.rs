//! A run on disk: the records so far, the place of the next page, and, beside
//! all runs, the watermark.
//!
//! ```text
//! NAME/state.json             what the next run begins with
//! NAME/RUN/records.ndjson     the records, synced page by page
//! NAME/RUN/progress.json      how many bytes of them count, and the next page
//! ```

use crate::handlers::Failure;
use crate::handlers::transform::disk;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const RECORDS: &str = "records.ndjson";
const PROGRESS: &str = "progress.json";
const STATE: &str = "state.json";
/// Runs that nobody has gone on with for this long are removed: dead letters are
/// kept for 30 days, if nothing else is said.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where a page is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Next {
    /// The first one.
    First,
    /// At an address.
    Url(String),
    /// Behind a cursor.
    Value(String),
    /// A number of a page, or of records before it.
    Count(u64),
}

/// A page as it is kept.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Its records, a line each.
    pub(super) lines: Vec<u8>,
    pub(super) records: u64,
    /// The greatest time or number in it.
    pub(super) watermark: Option<String>,
    pub(super) next: Option<Next>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Progress {
    /// What is asked for, and of whom.
    identity: String,
    since: Option<String>,
    bytes: u64,
    records: u64,
    pages: u64,
    restarts: u32,
    watermark: Option<String>,
    next: Option<Next>,
}

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    folder: PathBuf,
    progress: Progress,
}

/// The key of a cause's records, below the folder of the extract.
pub(super) fn key(cause: &str) -> String {
    format!("{}/{RECORDS}", folder_name(cause))
}

/// Causes are ids of events, and those may be any text.
fn folder_name(cause: &str) -> String {
    let hash = Sha256::digest(cause.as_bytes());
    hash.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

fn failed(what: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::transient("WriteFailed", format!("{what} ({})", path.display())).caused_by(e)
}

async fn blocking(
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Failure::transient("Internal", "work stopped unexpectedly").caused_by(&e))?
}

/// Reads a file of ours; `None` where there is none, or one of another kind.
fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("the state of the extract cannot be read", path, &e)),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let what = "the state of the extract cannot be written";
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| failed(what, path, &e.into()))?;
    disk::write_atomic(path, &bytes).map_err(|e| failed(what, path, &e))
}

impl Run {
    /// The run of a cause, if there is one that asks for the same.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn known(root: &Path, cause: &str, identity: &str) -> Result<Option<Self>, Failure> {
        let folder = root.join(folder_name(cause));
        let progress: Option<Progress> = read(&folder.join(PROGRESS))?;
        let progress = progress.filter(|p| p.identity == identity);
        Ok(progress.map(|progress| Self { folder, progress }))
    }

    /// The run of a cause, begun if there is none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn open(
        root: &Path,
        cause: &str,
        identity: &str,
        since: Option<String>,
    ) -> Result<Self, Failure> {
        if let Some(known) = Self::known(root, cause, identity)? {
            return Ok(known);
        }
        let folder = root.join(folder_name(cause));
        let run = Self {
            progress: Progress {
                identity: identity.to_owned(),
                since,
                bytes: 0,
                records: 0,
                pages: 0,
                restarts: 0,
                watermark: None,
                next: Some(Next::First),
            },
            folder,
        };
        let made = fs::create_dir_all(&run.folder)
            .and_then(|()| File::create(run.folder.join(RECORDS)))
            .and_then(|_| disk::sync_dir(root));
        made.map_err(|e| failed("a run cannot be begun", &run.folder, &e))?;
        write(&run.folder.join(PROGRESS), &run.progress)?;
        Ok(run)
    }

    /// Where the next page is; `None` when all are there.
    pub(super) fn next(&self) -> Option<Next> {
        self.progress.next.clone()
    }

    /// What the run asks for the news since.
    pub(super) fn since(&self) -> Option<&str> {
        self.progress.since.as_deref()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.progress.bytes
    }

    pub(super) fn records(&self) -> u64 {
        self.progress.records
    }

    pub(super) fn pages(&self) -> u64 {
        self.progress.pages
    }

    pub(super) fn restarts(&self) -> u32 {
        self.progress.restarts
    }

    /// The greatest time or number in what was fetched.
    pub(super) fn watermark(&self) -> Option<&str> {
        self.progress.watermark.as_deref()
    }

    /// For people and the completion topic.
    pub(super) fn told(&self) -> Value {
        json!({
            "pages": self.progress.pages,
            "records": self.progress.records,
            "since": self.progress.since,
            "watermark": self.progress.watermark,
            "restarts": self.progress.restarts,
        })
    }

    /// Takes a page in: its records first, then the place of the next one.
    ///
    /// # Errors
    /// When the disk refuses; then the page is fetched again.
    pub(super) async fn add(&mut self, page: Page) -> Result<(), Failure> {
        let mut progress = self.progress.clone();
        progress.bytes += page.lines.len() as u64;
        progress.records += page.records;
        progress.pages += 1;
        progress.next = page.next;
        if let Some(watermark) = page.watermark
            && progress
                .watermark
                .as_ref()
                .is_none_or(|w| later(&watermark, w))
        {
            progress.watermark = Some(watermark);
        }
        self.keep(page.lines, progress).await
    }

    /// Begins again with the first page.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) async fn restart(&mut self) -> Result<(), Failure> {
        let progress = Progress {
            bytes: 0,
            records: 0,
            pages: 0,
            restarts: self.progress.restarts + 1,
            watermark: None,
            next: Some(Next::First),
            ..self.progress.clone()
        };
        self.keep(Vec::new(), progress).await
    }

    async fn keep(&mut self, lines: Vec<u8>, progress: Progress) -> Result<(), Failure> {
        let (folder, at) = (self.folder.clone(), progress.bytes - lines.len() as u64);
        let noted = progress.clone();
        blocking(move || {
            let path = folder.join(RECORDS);
            let append = || -> io::Result<()> {
                let mut file = File::options().write(true).open(&path)?;
                // What was written and not noted is a page that comes again.
                file.set_len(at)?;
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&lines)?;
                file.sync_all()
            };
            append().map_err(|e| failed("a page cannot be kept", &path, &e))?;
            write(&folder.join(PROGRESS), &noted)
        })
        .await?;
        self.progress = progress;
        Ok(())
    }

    /// Removes the run, whose records are published.
    pub(super) fn remove(self) {
        // What cannot be removed now is swept later.
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Removes runs that nobody has gone on with for long, but not that of `cause`.
pub(super) fn sweep(root: &Path, cause: &str) {
    let own = folder_name(cause);
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let touched = fs::metadata(entry.path().join(PROGRESS)).and_then(|m| m.modified());
        let old = touched.is_ok_and(|t| {
            SystemTime::now()
                .duration_since(t)
                .is_ok_and(|age| age > KEPT)
        });
        if old && entry.file_name().to_string_lossy() != own {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// What the next run begins with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    identity: String,
    /// The greatest time or number that was published.
    pub(super) watermark: Option<String>,
    #[serde(skip)]
    path: PathBuf,
}

impl State {
    /// The state of an extract, or that of the first run.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn load(root: &Path, identity: &str) -> Result<Self, Failure> {
        let path = root.join(STATE);
        let known: Option<Self> = read(&path)?;
        Ok(match known.filter(|known| known.identity == identity) {
            Some(known) => Self { path, ..known },
            None => Self {
                identity: identity.to_owned(),
                watermark: None,
                path,
            },
        })
    }

    /// Moves the watermark, never back.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn advance(&mut self, to: Option<&str>) -> Result<(), Failure> {
        let Some(to) = to else { return Ok(()) };
        if self.watermark.as_ref().is_some_and(|w| !later(to, w)) {
            return Ok(());
        }
        self.watermark = Some(to.to_owned());
        write(&self.path, self)
    }
}

/// Whether `a` comes after `b`: as numbers, as times, or as text.
pub(super) fn later(a: &str, b: &str) -> bool {
    if let (Ok(a), Ok(b)) = (a.parse::<i128>(), b.parse::<i128>()) {
        return a > b;
    }
    if let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) {
        return a > b;
    }
    let time = |text| DateTime::parse_from_rfc3339(text);
    match (time(a), time(b)) {
        (Ok(a), Ok(b)) => a > b,
        _ => a > b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_compared_by_what_they_are() {
        assert!(later("10", "9"));
        assert!(later("1.5", "1"));
        assert!(later("2026-01-01T00:30:00Z", "2026-01-01T01:00:00+02:00"));
        assert!(later("b", "a"));
        assert!(!later("9", "9"));
    }

    fn page(lines: &str, next: Option<Next>) -> Page {
        Page {
            lines: lines.as_bytes().to_vec(),
            records: lines.lines().count() as u64,
            watermark: Some("5".to_owned()),
            next,
        }
    }

    #[tokio::test]
    async fn a_run_goes_on_with_the_page_that_it_missed() {
        let root = tempfile::tempdir().unwrap();
        let open = || Run::open(root.path(), "cause", "same", Some("1".to_owned())).unwrap();
        let mut run = open();
        let second = Next::Value("two".to_owned());
        run.add(page("{\"a\":1}\n", Some(second.clone())))
            .await
            .unwrap();
        // Died after the records of a page, and before its place was noted.
        let records = root.path().join(key("cause"));
        let mut file = File::options().append(true).open(&records).unwrap();
        file.write_all(b"{\"half").unwrap();
        let mut again = open();
        assert_eq!(again.next(), Some(second));
        again.add(page("{\"a\":2}\n", None)).await.unwrap();
        assert_eq!(again.next(), None);
        assert_eq!((again.records(), again.pages()), (2, 2));
        assert_eq!(
            fs::read_to_string(&records).unwrap(),
            "{\"a\":1}\n{\"a\":2}\n"
        );
        assert_eq!(again.bytes(), 16);
        // Another request is another run.
        assert!(Run::known(root.path(), "cause", "other").unwrap().is_none());
        again.remove();
        assert!(Run::known(root.path(), "cause", "same").unwrap().is_none());
    }

    #[tokio::test]
    async fn the_watermark_moves_forward_only() {
        let root = tempfile::tempdir().unwrap();
        let mut state = State::load(root.path(), "same").unwrap();
        state.advance(Some("10")).unwrap();
        state.advance(Some("9")).unwrap();
        state.advance(None).unwrap();
        let watermark = |identity| State::load(root.path(), identity).unwrap().watermark;
        assert_eq!(watermark("same").as_deref(), Some("10"));
        assert_eq!(watermark("other"), None);
    }
}
