//! A small key-value table for parts that keep little: cursors, settings.

use super::{State, StateError};
use rusqlite::{Connection, OptionalExtension, params};

impl State {
    /// The value under `key`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let key = key.to_owned();
        self.read(move |db| {
            db.prepare_cached("SELECT value FROM kv WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
        .await
    }

    /// Puts `value` under `key`; `Ok` means that it is on disk.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        self.put_all(vec![(key.to_owned(), value.to_vec())]).await
    }

    /// Puts several values, all or none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn put_all(&self, entries: Vec<(String, Vec<u8>)>) -> Result<(), StateError> {
        self.write(move |db| {
            let mut put = db.prepare_cached(
                "INSERT INTO kv VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
            )?;
            for (key, value) in entries {
                put.execute(params![key, value])?;
            }
            Ok(())
        })
        .await
    }

    /// Takes out what is under `key` and says whether there was something.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn delete(&self, key: &str) -> Result<bool, StateError> {
        let key = key.to_owned();
        self.write(move |db| {
            let gone = db
                .prepare_cached("DELETE FROM kv WHERE key = ?1")?
                .execute([key])?;
            Ok(gone > 0)
        })
        .await
    }

    /// Everything whose key begins with `prefix`, ordered by key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let prefix = prefix.to_owned();
        self.read(move |db| list(db, &prefix)).await
    }
}

fn list(db: &Connection, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, rusqlite::Error> {
    let mut select = db.prepare_cached("SELECT key, value FROM kv WHERE key >= ?1 ORDER BY key")?;
    let mut rows = select.query([prefix])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        if !key.starts_with(prefix) {
            break;
        }
        found.push((key, row.get(1)?));
    }
    Ok(found)
}
