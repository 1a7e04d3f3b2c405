//! What is known of a bucket's objects: a row per key (per version, where
//! versions are listed), in the side state.

use super::listing::Listed;
use super::options::S3SourceOptions;
use crate::state::{State, StateError};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use serde::Serialize;
use std::collections::HashMap;

/// A version of an unversioned object, in buckets that keep versions.
const NULL_VERSION: &str = "null";

/// How far an object has come. The numbers are in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There at the first start, and not to be taken.
    Noted = 1,
    /// Taken by the bus.
    Accepted = 2,
    /// Refused by the bus.
    Refused = 3,
    /// Not in the bucket any more.
    Gone = 4,
    /// To be taken again.
    Forgotten = 5,
}

impl Standing {
    fn of(number: i64) -> Self {
        match number {
            1 => Self::Noted,
            3 => Self::Refused,
            4 => Self::Gone,
            5 => Self::Forgotten,
            _ => Self::Accepted,
        }
    }
}

/// What the ledger has of an object.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its number.
    pub id: i64,
    /// The key.
    pub key: String,
    /// The version; empty where versions are not listed.
    pub version: String,
    /// The etag.
    pub etag: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was written, Unix milliseconds.
    pub modified_ms: i64,
    /// How far it has come.
    pub standing: Standing,
    /// How often it was let in again.
    pub salt: i64,
}

/// What is written of an object.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The object.
    pub listed: Listed,
    /// How far it has come.
    pub standing: Standing,
    /// How often it was let in again.
    pub salt: i64,
    /// Why it was refused.
    pub reason: Option<String>,
}

/// Objects by how far they have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Objects {
    /// There at the first start, and not to be taken.
    pub noted: u64,
    /// Taken by the bus.
    pub accepted: u64,
    /// Refused by the bus.
    pub refused: u64,
    /// Not in the bucket any more.
    pub gone: u64,
    /// To be taken again.
    pub forgotten: u64,
}

/// The ledger of one source.
#[derive(Clone)]
pub struct Ledger {
    state: State,
    source: i64,
    versions: bool,
    /// When the source was started for the first time, Unix milliseconds.
    pub first_start_ms: i64,
}

/// The part of the key that tells versions apart.
pub fn version_of(versions: bool, listed: &Listed) -> &str {
    match versions {
        true => listed.version.as_deref().unwrap_or(NULL_VERSION),
        false => "",
    }
}

/// What tells a version from all others of its key.
pub fn identity(version: &str, etag: &str, modified_ms: i64, salt: i64) -> String {
    let mut identity = match version {
        "" | NULL_VERSION => format!("{etag}@{}", modified_ms.div_euclid(1000)),
        version => version.to_owned(),
    };
    if salt > 0 {
        identity.push_str(&format!("#{salt}"));
    }
    identity
}

impl Row {
    /// See [`identity`].
    pub fn identity(&self) -> String {
        identity(&self.version, &self.etag, self.modified_ms, self.salt)
    }
}

impl Ledger {
    /// The ledger of a source; a source whose bucket has changed begins anew.
    pub async fn open(
        state: State,
        options: &S3SourceOptions,
        now_ms: i64,
    ) -> Result<Self, StateError> {
        let (name, bucket) = (options.name.clone(), options.bucket.clone());
        let found = state
            .write(move |db| open(db, &name, &bucket, now_ms))
            .await?;
        Ok(Self {
            state,
            source: found.0,
            versions: options.versions,
            first_start_ms: found.1,
        })
    }

    /// The rows of these objects, by key and version.
    pub async fn rows(
        &self,
        listed: &[Listed],
    ) -> Result<HashMap<(String, String), Row>, StateError> {
        let (source, versions) = (self.source, self.versions);
        let wanted: Vec<(String, String)> = listed
            .iter()
            .map(|l| (l.key.clone(), version_of(versions, l).to_owned()))
            .collect();
        let read = self.state.read(move |db| {
            let mut select = db.prepare_cached(
                "SELECT id, key, version, etag, size, modified_ms, state, salt FROM s3_objects
                 WHERE source = ?1 AND key = ?2 AND version = ?3",
            )?;
            let mut found = HashMap::with_capacity(wanted.len());
            for (key, version) in wanted {
                let row = select
                    .query_row(params![source, key, version], row)
                    .optional()?;
                found.extend(row.map(|row| ((key, version), row)));
            }
            Ok(found)
        });
        read.await
    }

    /// Writes what has become of objects. What is lost by a power cut is found
    /// again by the next walk, and the bus knows it.
    pub async fn put(&self, entries: Vec<Entry>, now_ms: i64) -> Result<(), StateError> {
        let (source, versions) = (self.source, self.versions);
        if entries.is_empty() {
            return Ok(());
        }
        let write = self.state.write(move |db| {
            let mut put = db.prepare_cached(
                "INSERT INTO s3_objects
                     (source, key, version, etag, size, modified_ms, state, salt, at_ms, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (source, key, version) DO UPDATE SET
                     etag = ?4, size = ?5, modified_ms = ?6, state = ?7, salt = ?8, at_ms = ?9,
                     reason = ?10",
            )?;
            for entry in entries {
                let listed = &entry.listed;
                put.execute(params![
                    source,
                    listed.key,
                    version_of(versions, listed),
                    listed.etag,
                    listed.size.cast_signed(),
                    listed.modified_ms,
                    entry.standing as i64,
                    entry.salt,
                    now_ms,
                    entry.reason,
                ])?;
            }
            Ok(())
        });
        write.await
    }

    /// The highest number of a row.
    pub async fn last_id(&self) -> Result<i64, StateError> {
        let read = self.state.read(move |db| {
            db.query_row("SELECT COALESCE(MAX(id), 0) FROM s3_objects", [], |r| {
                r.get(0)
            })
        });
        read.await
    }

    /// Rows of objects that were there when last seen, by number.
    pub async fn present(
        &self,
        after: i64,
        upto: i64,
        most: usize,
    ) -> Result<Vec<Row>, StateError> {
        let source = self.source;
        let read = self.state.read(move |db| {
            db.prepare_cached(
                "SELECT id, key, version, etag, size, modified_ms, state, salt FROM s3_objects
                 WHERE id > ?2 AND id <= ?3 AND source = ?1 AND state <> 4 ORDER BY id LIMIT ?4",
            )?
            .query_map(params![source, after, upto, most as i64], row)?
            .collect()
        });
        read.await
    }

    /// Changes how far objects have come, by number.
    pub async fn stand(
        &self,
        ids: Vec<i64>,
        standing: Standing,
        now_ms: i64,
    ) -> Result<(), StateError> {
        if ids.is_empty() {
            return Ok(());
        }
        let write = self.state.write(move |db| {
            let mut set =
                db.prepare_cached("UPDATE s3_objects SET state = ?2, at_ms = ?3 WHERE id = ?1")?;
            for id in ids {
                set.execute(params![id, standing as i64, now_ms])?;
            }
            Ok(())
        });
        write.await
    }

    /// The key that is `back` before the last one, in the order of keys.
    pub async fn near_the_end(
        &self,
        prefix: &str,
        back: u64,
    ) -> Result<Option<String>, StateError> {
        let (source, prefix) = (self.source, prefix.to_owned());
        let read = self.state.read(move |db| {
            db.prepare_cached(
                "SELECT key FROM s3_objects WHERE source = ?1 AND key >= ?2 AND state <> 4
                 ORDER BY key DESC LIMIT 1 OFFSET ?3",
            )?
            .query_row(params![source, prefix, back.cast_signed()], |r| r.get(0))
            .optional()
        });
        read.await
    }

    /// Whether a walk of all has been done.
    pub async fn baseline_done(&self) -> Result<bool, StateError> {
        let source = self.source;
        let read = self.state.read(move |db| {
            db.query_row(
                "SELECT baseline_done <> 0 FROM s3_sources WHERE id = ?1",
                [source],
                |r| r.get(0),
            )
        });
        read.await
    }

    /// Notes that a walk of all has been done.
    pub async fn finish_baseline(&self) -> Result<(), StateError> {
        let source = self.source;
        let write = self.state.write(move |db| {
            db.execute(
                "UPDATE s3_sources SET baseline_done = 1 WHERE id = ?1",
                [source],
            )?;
            Ok(())
        });
        write.await
    }

    /// Forgets rows of objects that have been gone since before `before_ms`.
    pub async fn expire(&self, before_ms: i64) -> Result<usize, StateError> {
        let source = self.source;
        let write = self.state.write(move |db| {
            db.execute(
                "DELETE FROM s3_objects WHERE source = ?1 AND state = 4 AND at_ms < ?2",
                params![source, before_ms],
            )
        });
        write.await
    }

    /// Lets rows in again whose keys match, and forgets those of objects that
    /// are gone; says how many there were.
    pub async fn forget(
        &self,
        matches: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<usize, StateError> {
        let source = self.source;
        let write = self.state.write(move |db| {
            let mut found: Vec<(i64, i64)> = Vec::new();
            let mut select =
                db.prepare("SELECT id, key, state FROM s3_objects WHERE source = ?1")?;
            let mut rows = select.query([source])?;
            while let Some(row) = rows.next()? {
                if matches(&row.get::<_, String>(1)?) {
                    found.push((row.get(0)?, row.get(2)?));
                }
            }
            for (id, state) in &found {
                match Standing::of(*state) {
                    Standing::Gone => db.execute("DELETE FROM s3_objects WHERE id = ?1", [id])?,
                    Standing::Forgotten => 0,
                    _ => db.execute(
                        "UPDATE s3_objects SET state = 5, salt = salt + 1 WHERE id = ?1",
                        [id],
                    )?,
                };
            }
            Ok(found.len())
        });
        write.await
    }

    /// Objects by how far they have come, and the newest that were refused.
    pub async fn counts(
        &self,
        refused: usize,
    ) -> Result<(Objects, Vec<(String, String, i64)>), StateError> {
        let source = self.source;
        let read = self.state.read(move |db| {
            let mut objects = Objects::default();
            let mut select =
                db.prepare_cached("SELECT state, objects FROM s3_counts WHERE source = ?1")?;
            let mut rows = select.query([source])?;
            while let Some(row) = rows.next()? {
                let count: i64 = row.get(1)?;
                let into = match Standing::of(row.get(0)?) {
                    Standing::Noted => &mut objects.noted,
                    Standing::Accepted => &mut objects.accepted,
                    Standing::Refused => &mut objects.refused,
                    Standing::Gone => &mut objects.gone,
                    Standing::Forgotten => &mut objects.forgotten,
                };
                *into = count.cast_unsigned();
            }
            let refused = db
                .prepare_cached(
                    "SELECT key, COALESCE(reason, ''), at_ms FROM s3_objects
                     WHERE source = ?1 AND state = 3 ORDER BY at_ms DESC LIMIT ?2",
                )?
                .query_map(params![source, refused as i64], |r| {
                    Ok((r.get(0)?, r.get(1)?, r.get(2)?))
                })?
                .collect::<Result<_, _>>()?;
            Ok((objects, refused))
        });
        read.await
    }
}

fn open(
    db: &Connection,
    name: &str,
    bucket: &str,
    now_ms: i64,
) -> Result<(i64, i64), rusqlite::Error> {
    let known = db
        .query_row(
            "SELECT id, first_start_ms, bucket FROM s3_sources WHERE name = ?1",
            [name],
            |r| Ok((r.get(0)?, r.get(1)?, r.get::<_, String>(2)?)),
        )
        .optional()?;
    if let Some((id, first, was)) = known {
        if was == bucket {
            return Ok((id, first));
        }
        db.execute("DELETE FROM s3_objects WHERE source = ?1", [id])?;
        db.execute("DELETE FROM s3_sources WHERE id = ?1", [id])?;
    }
    db.execute(
        "INSERT INTO s3_sources (name, bucket, first_start_ms) VALUES (?1, ?2, ?3)",
        params![name, bucket, now_ms],
    )?;
    Ok((db.last_insert_rowid(), now_ms))
}

fn row(row: &SqlRow<'_>) -> Result<Row, rusqlite::Error> {
    Ok(Row {
        id: row.get(0)?,
        key: row.get(1)?,
        version: row.get(2)?,
        etag: row.get(3)?,
        size: row.get::<_, i64>(4)?.cast_unsigned(),
        modified_ms: row.get(5)?,
        standing: Standing::of(row.get(6)?),
        salt: row.get(7)?,
    })
}
