//! The durable ledger of one source: the last version of every file that was
//! taken, or is on its way.
//!
//! Reads go through a connection of the engine's own; writes are collected as
//! [`Op`]s and handed to the side state in one transaction. Changes that may
//! cross with those of the handle (`mark_done`, `forget`) touch only the
//! columns that they are about.

use super::look::{Key, Look, join, split};
use super::record::{Op, dir_id, run};
use super::status::{Files, RefusedFile};
use crate::state::{Safety, State, StateError};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use uuid::Uuid;

/// How far a version has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Stage {
    /// There at the first start and not to be taken.
    Noted = 1,
    /// Finished; the bus may have it or not.
    Stable = 2,
    /// The bus has it.
    Accepted = 3,
    /// Its deliveries are settled.
    Done = 4,
    /// The bus refused it.
    Refused = 5,
    /// Gone, and the bus was told.
    Deleted = 6,
    /// To be taken again.
    Forgotten = 7,
}

impl Stage {
    const ALL: [Self; 7] = [
        Self::Noted,
        Self::Stable,
        Self::Accepted,
        Self::Done,
        Self::Refused,
        Self::Deleted,
        Self::Forgotten,
    ];

    fn from_sql(value: i64) -> Self {
        let known = Self::ALL.into_iter().find(|stage| *stage as i64 == value);
        // An unknown stage is taken again: late is better than never, and the
        // bus absorbs what it has.
        known.unwrap_or(Self::Forgotten)
    }
}

/// What the ledger knows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// How the file looked (without blocks).
    pub look: Look,
    /// SHA-256 of its content, where that was asked for.
    pub hash: Option<Vec<u8>>,
    /// How far it has come.
    pub stage: Stage,
    /// Counts how often the same version was let in again.
    pub salt: i64,
    /// Orders the versions of this name; never goes back.
    pub sequencer: i64,
    /// Id of its event.
    pub event: Option<Uuid>,
    /// When the file was found to be gone.
    pub gone_ms: Option<i64>,
    /// Nobody needs to be told that it is gone.
    pub told: bool,
}

/// The ledger of one source.
pub struct Ledger {
    state: State,
    reader: Connection,
    /// The source's number in the database.
    pub source: i64,
    /// When this source was first started, Unix milliseconds.
    pub first_start_ms: i64,
    /// Whether the first scan of all has been completed.
    pub baseline_done: bool,
    /// The source was used for another folder before.
    pub root_changed: bool,
}

const COLUMNS: &str = "f.dev, f.ino, f.size, f.mtime_ns, f.ctime_ns, f.hash, f.state, f.salt, \
                       f.sequencer, f.event, f.gone_ms, f.told";

impl Ledger {
    /// Opens the ledger of the source `name`; makes it at the first start.
    ///
    /// # Errors
    /// When the side state cannot be read or written.
    pub fn open(state: State, name: &str, root: &[u8], now_ms: i64) -> Result<Self, StateError> {
        let reader = state.reader()?;
        let (name, root) = (name.to_owned(), root.to_vec());
        let (source, first_start_ms, baseline_done, root_changed) =
            state.write_blocking(Safety::Synced, move |db| {
                db.execute(
                    "INSERT INTO folder_sources (name, root, first_start_ms) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO NOTHING",
                    params![name, root, now_ms],
                )?;
                let (id, first, done, before): (i64, i64, bool, Vec<u8>) = db.query_row(
                    "SELECT id, first_start_ms, baseline_done, root FROM folder_sources
                     WHERE name = ?1",
                    [&name],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )?;
                db.execute(
                    "UPDATE folder_sources SET root = ?2 WHERE id = ?1",
                    params![id, root],
                )?;
                Ok((id, first, done, before != root))
            })?;
        Ok(Self {
            state,
            reader,
            source,
            first_start_ms,
            baseline_done,
            root_changed,
        })
    }

    /// Notes that the first scan of all has been completed.
    ///
    /// # Errors
    /// When the side state cannot be written.
    pub fn finish_baseline(&mut self) -> Result<(), StateError> {
        let source = self.source;
        self.state.write_blocking(Safety::Synced, move |db| {
            db.execute(
                "UPDATE folder_sources SET baseline_done = 1 WHERE id = ?1",
                [source],
            )
        })?;
        self.baseline_done = true;
        Ok(())
    }

    /// The number of a folder, when the ledger knows it.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub fn dir(&self, path: &[u8]) -> Result<Option<i64>, StateError> {
        Ok(dir_id(&self.reader, self.source, path)?)
    }

    /// What is known of one file.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub fn row(&self, key: &[u8]) -> Result<Option<Row>, StateError> {
        let (dir, name) = split(key);
        let Some(dir) = self.dir(dir)? else {
            return Ok(None);
        };
        let sql = format!("SELECT {COLUMNS} FROM folder_files f WHERE dir = ?1 AND name = ?2");
        let mut select = self.reader.prepare_cached(&sql)?;
        Ok(select
            .query_row(params![dir, name], |row| read_row(row, 0))
            .optional()?)
    }

    /// The files of one folder whose names are after `after` and not after
    /// `upto` (to the end when `None`), by name.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub fn rows(
        &self,
        dir: i64,
        after: &[u8],
        upto: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Row)>, StateError> {
        let sql = format!(
            "SELECT {COLUMNS}, f.name FROM folder_files f
             WHERE dir = ?1 AND name > ?2 AND (?3 IS NULL OR name <= ?3)
             ORDER BY name LIMIT ?4"
        );
        let mut select = self.reader.prepare_cached(&sql)?;
        let rows = select.query_map(params![dir, after, upto, count(limit)], |row| {
            Ok((row.get(12)?, read_row(row, 0)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Files that were on this inode.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub fn by_inode(&self, look: &Look) -> Result<Vec<(Key, Row)>, StateError> {
        let sql = format!(
            "SELECT {COLUMNS}, f.name, d.path FROM folder_files f JOIN folder_dirs d ON d.id = f.dir
             WHERE f.source = ?1 AND f.ino = ?2 AND f.dev = ?3 LIMIT 16"
        );
        self.keyed(
            &sql,
            vec![
                self.source.into(),
                look.ino.cast_signed().into(),
                look.dev.cast_signed().into(),
            ],
        )
    }

    /// Files that were gone before `before_ms`, of which the bus has to be told.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub fn untold(&self, before_ms: i64, limit: usize) -> Result<Vec<(Key, Row)>, StateError> {
        let sql = format!(
            "SELECT {COLUMNS}, f.name, d.path FROM folder_files f JOIN folder_dirs d ON d.id = f.dir
             WHERE f.source = ?1 AND f.gone_ms < ?2 AND f.told = 0 AND f.state IN (3, 4) LIMIT ?3"
        );
        self.keyed(
            &sql,
            vec![self.source.into(), before_ms.into(), count(limit).into()],
        )
    }

    fn keyed(&self, sql: &str, values: Vec<Value>) -> Result<Vec<(Key, Row)>, StateError> {
        let mut select = self.reader.prepare_cached(sql)?;
        let rows = select.query_map(rusqlite::params_from_iter(values), |row| {
            let (name, path): (Vec<u8>, Vec<u8>) = (row.get(12)?, row.get(13)?);
            Ok((join(&path, &name), read_row(row, 0)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Folders of the ledger whose number is above `after`, by number.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub fn dirs(&self, after: i64, limit: usize) -> Result<Vec<(i64, Key)>, StateError> {
        let mut select = self.reader.prepare_cached(
            "SELECT id, path FROM folder_dirs WHERE +source = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
        )?;
        let rows = select.query_map(params![self.source, after, count(limit)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Folders of the ledger at or below `dir`.
    ///
    /// # Errors
    /// When the side state cannot be read.
    pub fn dirs_below(&self, dir: &[u8]) -> Result<Vec<(i64, Key)>, StateError> {
        let mut select = self.reader.prepare_cached(
            "SELECT id, path FROM folder_dirs WHERE source = ?1 AND path = ?2
             UNION ALL
             SELECT id, path FROM folder_dirs WHERE source = ?1 AND path > ?3 AND path < ?4",
        )?;
        // `0` is the byte after `/`.
        let (first, end) = ([dir, b"/"].concat(), [dir, b"0"].concat());
        let rows = select.query_map(params![self.source, dir, first, end], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Writes changes, all or none. What the bus has answered is on disk then;
    /// the rest, which a scan can find out again, survives a kill.
    ///
    /// # Errors
    /// When the side state cannot be written.
    pub fn write(&self, ops: Vec<Op>, now_ms: i64) -> Result<(), StateError> {
        if ops.is_empty() {
            return Ok(());
        }
        let source = self.source;
        let safety = match ops.iter().any(Op::is_final) {
            true => Safety::Synced,
            false => Safety::Written,
        };
        self.state.write_blocking(safety, move |db| {
            ops.iter().try_for_each(|op| run(db, source, op, now_ms))
        })
    }

    /// Forgets files that were gone before `before_ms`; says how many.
    ///
    /// # Errors
    /// When the side state cannot be written.
    pub fn expire(&self, before_ms: i64, limit: usize) -> Result<usize, StateError> {
        let source = self.source;
        self.state.write_blocking(Safety::Synced, move |db| {
            let mut select = db.prepare_cached(
                "SELECT dir, name FROM folder_files WHERE source = ?1 AND gone_ms < ?2 LIMIT ?3",
            )?;
            let old = select
                .query_map(params![source, before_ms, count(limit)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect::<Result<Vec<(i64, Vec<u8>)>, _>>()?;
            let mut delete =
                db.prepare_cached("DELETE FROM folder_files WHERE dir = ?1 AND name = ?2")?;
            for (dir, name) in &old {
                delete.execute(params![dir, name])?;
            }
            Ok(old.len())
        })
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn read_row(row: &SqlRow<'_>, at: usize) -> Result<Row, rusqlite::Error> {
    let unsigned = |n: usize| row.get::<_, i64>(at + n).map(i64::cast_unsigned);
    Ok(Row {
        look: Look {
            dev: unsigned(0)?,
            ino: unsigned(1)?,
            size: unsigned(2)?,
            mtime_ns: row.get(at + 3)?,
            ctime_ns: row.get(at + 4)?,
            blocks: 0,
        },
        hash: row.get(at + 5)?,
        stage: Stage::from_sql(row.get(at + 6)?),
        salt: row.get(at + 7)?,
        sequencer: row.get(at + 8)?,
        event: row
            .get::<_, Option<Vec<u8>>>(at + 9)?
            .and_then(|bytes| Uuid::from_slice(&bytes).ok()),
        gone_ms: row.get(at + 10)?,
        told: row.get(at + 11)?,
    })
}

/// Files by state.
///
/// # Errors
/// When the side state cannot be read.
pub fn counts(db: &Connection, source: i64) -> Result<Files, rusqlite::Error> {
    let mut select =
        db.prepare_cached("SELECT state, files FROM folder_counts WHERE source = ?1")?;
    let mut rows = select.query([source])?;
    let mut files = Files::default();
    while let Some(row) = rows.next()? {
        let place = match Stage::from_sql(row.get(0)?) {
            Stage::Noted => &mut files.noted,
            Stage::Stable => &mut files.stable,
            Stage::Accepted => &mut files.accepted,
            Stage::Done => &mut files.done,
            Stage::Refused => &mut files.refused,
            Stage::Deleted => &mut files.deleted,
            Stage::Forgotten => &mut files.forgotten,
        };
        *place = row.get::<_, i64>(1)?.max(0).cast_unsigned();
    }
    Ok(files)
}

/// The files that the bus refused, the newest first.
///
/// # Errors
/// When the side state cannot be read.
pub fn refused(
    db: &Connection,
    source: i64,
    limit: usize,
) -> Result<Vec<RefusedFile>, rusqlite::Error> {
    let mut select = db.prepare_cached(
        "SELECT d.path, f.name, f.reason, f.at_ms FROM folder_files f
         JOIN folder_dirs d ON d.id = f.dir
         WHERE f.source = ?1 AND f.state = 5 ORDER BY f.at_ms DESC LIMIT ?2",
    )?;
    let rows = select.query_map(params![source, count(limit)], |row| {
        let (path, name): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        Ok(RefusedFile {
            path: super::look::show(&join(&path, &name)),
            reason: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
            at_ms: row.get(3)?,
        })
    })?;
    rows.collect()
}
