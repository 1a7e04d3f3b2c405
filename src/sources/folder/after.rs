//! What happens to a file once all deliveries of its event are settled.
//!
//! The file is first renamed to a hidden name beside it, then looked at: only
//! the very version that the event told of is moved or deleted, one that took
//! its place meanwhile is put back. A step that was interrupted is found by
//! that hidden name when it is repeated.

use super::SourceError;
use super::look::{Key, Look, full, join, split};
use super::names::HELD;
use super::options::After;
use crate::state::State;
use rusqlite::{OptionalExtension, params};
use rustix::fs::{
    CWD, Mode, OFlags, RenameFlags, XattrFlags, fsetxattr, fstat, lstat, open, renameat_with,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The attribute that a file bears that is done; its value is its event's id.
const ATTRIBUTE: &str = "user.pointsman.done";

/// Names that are tried for a file whose name is taken where it is moved to.
const SUFFIXES_MAX: u32 = 100_000;

/// What became of a file whose deliveries are settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// No file of this source has this event, or it was marked before.
    Unknown,
    /// It stays where it is.
    Kept,
    /// It was moved here.
    Moved(PathBuf),
    /// It was deleted.
    Deleted,
    /// It stays where it is, and bears a mark.
    Tagged,
    /// A newer version has taken its place, and stays.
    Superseded,
    /// It was gone already.
    Vanished,
}

struct Settled {
    key: Key,
    look: Look,
}

/// Marks the file of an event as done.
pub async fn mark_done(
    state: &State,
    source: i64,
    root: PathBuf,
    after: &After,
    event: Uuid,
    now_ms: i64,
) -> Result<Done, SourceError> {
    let found = state.read(move |db| find(db, source, event)).await?;
    let Some(file) = found else {
        return Ok(Done::Unknown);
    };
    // A mark changes the time of the file's last change, and nothing else.
    let mut ctime_ns = None;
    let done = match after.clone() {
        After::Keep => Done::Kept,
        After::Tag => {
            let acted = tokio::task::spawn_blocking(move || tag(&root, &file, event)).await;
            let acted = acted.map_err(|_| SourceError::Ended).and_then(|done| done);
            let (done, ctime) = acted?;
            ctime_ns = ctime;
            done
        }
        after => {
            // What we take away ourselves is not told of as deleted; noted
            // first, because moving to another device takes as long as it takes.
            state
                .write(move |db| set_told(db, source, event, true))
                .await?;
            let acted = tokio::task::spawn_blocking(move || act(&root, &file, &after, event)).await;
            let done = acted.map_err(|_| SourceError::Ended).and_then(|done| done);
            if done.is_err() {
                state
                    .write(move |db| set_told(db, source, event, false))
                    .await?;
            }
            done?
        }
    };
    let away = matches!(done, Done::Moved(_) | Done::Deleted);
    state
        .write(move |db| {
            db.prepare_cached(
                "UPDATE folder_files SET state = 4, at_ms = ?3,
                     ctime_ns = COALESCE(?5, ctime_ns),
                     gone_ms = CASE WHEN ?4 THEN COALESCE(gone_ms, ?3) ELSE gone_ms END,
                     told = told OR ?4
                 WHERE event = ?1 AND state IN (2, 3) AND source = ?2",
            )?
            .execute(params![event.as_bytes(), source, now_ms, away, ctime_ns])
        })
        .await?;
    Ok(done)
}

fn set_told(
    db: &rusqlite::Connection,
    source: i64,
    event: Uuid,
    told: bool,
) -> Result<usize, rusqlite::Error> {
    db.prepare_cached(
        "UPDATE folder_files SET told = ?3 WHERE event = ?1 AND state IN (2, 3) AND source = ?2",
    )?
    .execute(params![event.as_bytes(), source, told])
}

fn find(
    db: &rusqlite::Connection,
    source: i64,
    event: Uuid,
) -> Result<Option<Settled>, rusqlite::Error> {
    db.prepare_cached(
        "SELECT d.path, f.name, f.size, f.mtime_ns FROM folder_files f
         JOIN folder_dirs d ON d.id = f.dir
         WHERE f.event = ?1 AND f.state IN (2, 3) AND f.source = ?2",
    )?
    .query_row(params![event.as_bytes(), source], |row| {
        let (path, name): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        Ok(Settled {
            key: join(&path, &name),
            look: Look {
                size: row.get::<_, i64>(2)?.cast_unsigned(),
                mtime_ns: row.get(3)?,
                ..Look::default()
            },
        })
    })
    .optional()
}

fn act(root: &Path, file: &Settled, after: &After, event: Uuid) -> Result<Done, SourceError> {
    let path = full(root, &file.key);
    let fail = |error: io::Error| SourceError::After {
        path: path.clone(),
        error,
    };
    let hidden = [HELD, event.simple().to_string().as_bytes()].concat();
    let held = path.with_file_name(OsStr::from_bytes(&hidden));
    match hold(&path, &held, &file.look).map_err(fail)? {
        Held::Is => {}
        Held::Other => return Ok(Done::Superseded),
        Held::None => return Ok(Done::Vanished),
    }
    match after {
        After::Keep | After::Tag => Ok(Done::Kept),
        After::Delete => {
            fs::remove_file(&held).map_err(fail)?;
            Ok(Done::Deleted)
        }
        After::Move(folder) => match move_into(&held, folder, &file.key) {
            Ok(moved) => Ok(Done::Moved(moved)),
            Err(error) => {
                // As it was; should that fail, the repetition finds it.
                rename_new(&held, &path).ok();
                Err(fail(error))
            }
        },
    }
}

/// Marks a file, unless a newer version has taken its place. The attribute is set
/// on the file that was looked at, whatever happens to its name meanwhile.
fn tag(root: &Path, file: &Settled, event: Uuid) -> Result<(Done, Option<i64>), SourceError> {
    let path = full(root, &file.key);
    let fail = |error: io::Error| SourceError::After {
        path: path.clone(),
        error,
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let there = match open(&path, flags, Mode::empty()) {
        Ok(there) => there,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok((Done::Vanished, None)),
        Err(Errno::LOOP) => return Ok((Done::Superseded, None)),
        Err(error) => return Err(fail(error.into())),
    };
    let stat = fstat(&there).map_err(|e| fail(e.into()))?;
    if !Look::of(&stat).same_version(&file.look) {
        return Ok((Done::Superseded, None));
    }
    let mark = event.to_string();
    if fsetxattr(&there, ATTRIBUTE, mark.as_bytes(), XattrFlags::empty()).is_err() {
        // A file system that knows none, or a file that may not be changed.
        fs::write(mark_beside(&path), &mark).map_err(fail)?;
    }
    let now = fstat(&there).map_err(|e| fail(e.into()))?;
    Ok((Done::Tagged, Some(Look::of(&now).ctime_ns)))
}

/// The file that marks another as done, where attributes cannot be set.
fn mark_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    path.with_file_name(OsStr::from_bytes(&[HELD, b"done-", name].concat()))
}

enum Held {
    Is,
    Other,
    None,
}

/// Takes the file out of everybody's sight, if it is the version looked for.
fn hold(path: &Path, held: &Path, version: &Look) -> io::Result<Held> {
    let look = |path: &Path| match lstat(path) {
        Ok(stat) => Ok(Some(Look::of(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(io::Error::from(error)),
    };
    if look(held)?.is_some() {
        return Ok(Held::Is);
    }
    match look(path)? {
        None => return Ok(Held::None),
        Some(there) if !there.same_version(version) => return Ok(Held::Other),
        Some(_) => {}
    }
    match rename_new(path, held) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Held::None),
        renamed => renamed?,
    }
    if look(held)?.is_some_and(|there| there.same_version(version)) {
        return Ok(Held::Is);
    }
    // It was replaced at the last moment. Should the name be taken again, the
    // newest stays and this one is superseded.
    match rename_new(held, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(held)?,
        renamed => renamed?,
    }
    Ok(Held::Other)
}

/// Renames, and fails where the new name is taken.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that do not know the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}

fn move_into(held: &Path, folder: &Path, key: &[u8]) -> io::Result<PathBuf> {
    let (dir, name) = split(key);
    let folder = full(folder, dir);
    fs::create_dir_all(&folder)?;
    match place(held, &folder, name) {
        Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {}
        placed => return placed,
    }
    // Across devices: a whole copy is on disk before it gets its name, and has
    // its name before the original goes.
    let copy = folder.join(held.file_name().unwrap_or_default());
    let times = fs::metadata(held)?.modified()?;
    fs::copy(held, &copy)?;
    let file = File::options().write(true).open(&copy)?;
    file.set_modified(times)?;
    file.sync_all()?;
    let moved = place(&copy, &folder, name)?;
    File::open(&folder)?.sync_all()?;
    fs::remove_file(held)?;
    Ok(moved)
}

/// Gives the file its name in `folder`, or the first one that is free.
fn place(file: &Path, folder: &Path, name: &[u8]) -> io::Result<PathBuf> {
    for n in 0..SUFFIXES_MAX {
        let path = folder.join(numbered(name, n));
        match rename_new(file, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            renamed => return renamed.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// `a.csv`, `a-1.csv`, `a-2.csv`, ...
fn numbered(name: &[u8], n: u32) -> OsString {
    if n == 0 {
        return OsString::from_vec(name.to_vec());
    }
    let at = name
        .iter()
        .rposition(|b| *b == b'.')
        .filter(|at| *at > 0)
        .unwrap_or(name.len());
    let number = format!("-{n}");
    OsString::from_vec([&name[..at], number.as_bytes(), &name[at..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_gets_a_number_before_its_ending() {
        assert_eq!(numbered(b"a.tar.gz", 0), "a.tar.gz");
        assert_eq!(numbered(b"a.csv", 2), "a-2.csv");
        assert_eq!(numbered(b".env", 1), ".env-1");
        assert_eq!(numbered(b"plain", 1), "plain-1");
    }

    #[test]
    fn a_mark_lies_beside_its_file_and_is_never_taken_for_one() {
        let mark = mark_beside(Path::new("/in/a.csv"));
        assert_eq!(mark, Path::new("/in/.pointsman-done-a.csv"));
        let options = super::super::options::FolderOptions {
            hidden: true,
            ..super::super::options::tests::options(Path::new("/in"))
        };
        let names = super::super::names::Names::new(&options, None);
        assert!(!names.unwrap().takes(b".pointsman-done-a.csv"));
    }

    #[test]
    fn renaming_never_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        assert_eq!(
            rename_new(&a, &b).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            place(&a, folder.path(), b"b").unwrap(),
            folder.path().join("b-1")
        );
        assert_eq!(fs::read(&b).unwrap(), b"b");
    }
}
