//! How changes are written into the ledger.

use super::ledger::{Row, Stage};
use super::look::{Key, Look, split};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

/// A change of the ledger.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a row, whatever was there.
    Put(Key, Row),
    /// The bus has answered for this event.
    Settle {
        /// The file.
        key: Key,
        /// Its event; nothing happens when the row is of another, or is done
        /// or forgotten by now: deliveries may be faster than this.
        event: Uuid,
        /// What it becomes.
        stage: Stage,
        /// Why it was refused.
        reason: Option<String>,
    },
    /// The same version looks different: another inode, device or time.
    Refresh(Key, Look, Option<Vec<u8>>),
    /// The file is gone.
    Gone {
        /// The file.
        key: Key,
        /// Nobody needs to be told.
        told: bool,
    },
    /// The row is of no use.
    Drop(Key),
    /// The file has another name now.
    Rename(Key, Key, Look),
}

impl Op {
    /// Whether it says what the bus has answered.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Settle { .. } => true,
            Self::Put(_, row) => row.stage == Stage::Deleted,
            _ => false,
        }
    }
}

/// The number of a folder, when the ledger knows it.
///
/// # Errors
/// When the side state cannot be read.
pub fn dir_id(db: &Connection, source: i64, path: &[u8]) -> Result<Option<i64>, rusqlite::Error> {
    db.prepare_cached("SELECT id FROM folder_dirs WHERE source = ?1 AND path = ?2")?
        .query_row(params![source, path], |row| row.get(0))
        .optional()
}

fn ensure_dir(db: &Connection, source: i64, path: &[u8]) -> Result<i64, rusqlite::Error> {
    if let Some(id) = dir_id(db, source, path)? {
        return Ok(id);
    }
    db.prepare_cached("INSERT INTO folder_dirs (source, path) VALUES (?1, ?2)")?
        .execute(params![source, path])?;
    Ok(db.last_insert_rowid())
}

/// Makes one change.
///
/// # Errors
/// When the side state cannot be written.
pub fn run(db: &Connection, source: i64, op: &Op, now_ms: i64) -> Result<(), rusqlite::Error> {
    match op {
        Op::Put(key, row) => return put(db, source, key, row, now_ms),
        Op::Rename(from, to, look) => return rename(db, source, from, to, look),
        _ => {}
    }
    let (Op::Settle { key, .. } | Op::Refresh(key, ..) | Op::Gone { key, .. } | Op::Drop(key)) = op
    else {
        return Ok(());
    };
    let (dir, name) = split(key);
    let Some(dir) = dir_id(db, source, dir)? else {
        return Ok(());
    };
    match op {
        Op::Settle {
            event,
            stage,
            reason,
            ..
        } => db
            .prepare_cached(
                "UPDATE folder_files SET state = ?4, reason = ?5, at_ms = ?6
                 WHERE dir = ?1 AND name = ?2 AND event = ?3 AND state = 2",
            )?
            .execute(params![
                dir,
                name,
                event.as_bytes(),
                *stage as i64,
                reason,
                now_ms
            ])?,
        Op::Refresh(_, look, hash) => db
            .prepare_cached(
                "UPDATE folder_files SET dev = ?3, ino = ?4, mtime_ns = ?5, ctime_ns = ?6,
                 hash = COALESCE(?7, hash), gone_ms = NULL, told = 0 WHERE dir = ?1 AND name = ?2",
            )?
            .execute(params![
                dir,
                name,
                look.dev.cast_signed(),
                look.ino.cast_signed(),
                look.mtime_ns,
                look.ctime_ns,
                hash
            ])?,
        Op::Gone { told, .. } => db
            .prepare_cached(
                "UPDATE folder_files SET gone_ms = ?3, told = told OR ?4
                 WHERE dir = ?1 AND name = ?2 AND gone_ms IS NULL",
            )?
            .execute(params![dir, name, now_ms, told])?,
        _ => db
            .prepare_cached("DELETE FROM folder_files WHERE dir = ?1 AND name = ?2")?
            .execute(params![dir, name])?,
    };
    Ok(())
}

fn put(
    db: &Connection,
    source: i64,
    key: &[u8],
    row: &Row,
    now_ms: i64,
) -> Result<(), rusqlite::Error> {
    let (dir, name) = split(key);
    let dir = ensure_dir(db, source, dir)?;
    db.prepare_cached(
        "INSERT INTO folder_files (dir, name, source, dev, ino, size, mtime_ns, ctime_ns, hash,
             state, salt, sequencer, event, at_ms, gone_ms, told)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
         ON CONFLICT DO UPDATE SET dev = ?4, ino = ?5, size = ?6, mtime_ns = ?7, ctime_ns = ?8,
             hash = ?9, state = ?10, salt = ?11, sequencer = ?12, event = ?13, at_ms = ?14,
             gone_ms = ?15, told = ?16, reason = NULL",
    )?
    .execute(params![
        dir,
        name,
        source,
        row.look.dev.cast_signed(),
        row.look.ino.cast_signed(),
        row.look.size.cast_signed(),
        row.look.mtime_ns,
        row.look.ctime_ns,
        row.hash,
        row.stage as i64,
        row.salt,
        row.sequencer,
        row.event.map(|id| id.as_bytes().to_vec()),
        now_ms,
        row.gone_ms,
        row.told,
    ])?;
    Ok(())
}

fn rename(
    db: &Connection,
    source: i64,
    from: &[u8],
    to: &[u8],
    look: &Look,
) -> Result<(), rusqlite::Error> {
    let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
    let Some(from_dir) = dir_id(db, source, from_dir)? else {
        return Ok(());
    };
    let to_dir = ensure_dir(db, source, to_dir)?;
    db.prepare_cached(
        "DELETE FROM folder_files WHERE dir = ?1 AND name = ?2 AND EXISTS (
             SELECT 1 FROM folder_files WHERE dir = ?3 AND name = ?4 AND ino = ?5)",
    )?
    .execute(params![
        to_dir,
        to_name,
        from_dir,
        from_name,
        look.ino.cast_signed()
    ])?;
    db.prepare_cached(
        "UPDATE folder_files SET dir = ?3, name = ?4, ctime_ns = ?5, gone_ms = NULL, told = 0
         WHERE dir = ?1 AND name = ?2 AND ino = ?6",
    )?
    .execute(params![
        from_dir,
        from_name,
        to_dir,
        to_name,
        look.ctime_ns,
        // The name may be another file's by now.
        look.ino.cast_signed()
    ])?;
    Ok(())
}
