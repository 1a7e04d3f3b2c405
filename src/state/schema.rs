//! The database's layout, as the steps that lead to it. A step that has been
//! released is never changed: a new one goes behind it.

use super::StateError;
use rusqlite::Connection;

/// Step `n` leads from `user_version` n to n + 1.
const STEPS: &[&str] = &[
    // A row per file and not per version: what was taken before is in the log,
    // the ledger only has to know the last. Folders have rows of their own,
    // so that a million files do not repeat a long path a million times.
    "CREATE TABLE kv (
         key   TEXT NOT NULL PRIMARY KEY,
         value BLOB NOT NULL
     ) WITHOUT ROWID;

     CREATE TABLE folder_sources (
         id               INTEGER PRIMARY KEY,
         name             TEXT NOT NULL UNIQUE,
         root             BLOB NOT NULL,
         first_start_ms   INTEGER NOT NULL,
         baseline_done    INTEGER NOT NULL DEFAULT 0
     );
     CREATE TABLE folder_dirs (
         id      INTEGER PRIMARY KEY,
         source  INTEGER NOT NULL,
         path    BLOB NOT NULL,
         UNIQUE (source, path)
     );
     CREATE TABLE folder_files (
         dir        INTEGER NOT NULL,
         name       BLOB NOT NULL,
         source     INTEGER NOT NULL,
         dev        INTEGER NOT NULL,
         ino        INTEGER NOT NULL,
         size       INTEGER NOT NULL,
         mtime_ns   INTEGER NOT NULL,
         ctime_ns   INTEGER NOT NULL,
         hash       BLOB,
         state      INTEGER NOT NULL,
         salt       INTEGER NOT NULL DEFAULT 0,
         sequencer  INTEGER NOT NULL DEFAULT 0,
         event      BLOB,
         at_ms      INTEGER NOT NULL,
         gone_ms    INTEGER,
         told       INTEGER NOT NULL DEFAULT 0,
         reason     TEXT,
         PRIMARY KEY (dir, name)
     ) WITHOUT ROWID;
     CREATE INDEX folder_files_by_inode ON folder_files (source, ino);
     CREATE INDEX folder_files_open ON folder_files (event) WHERE state IN (2, 3);
     CREATE INDEX folder_files_gone ON folder_files (source, gone_ms)
         WHERE gone_ms IS NOT NULL;
     CREATE INDEX folder_files_refused ON folder_files (source, at_ms) WHERE state = 5;

     CREATE TABLE folder_counts (
         source  INTEGER NOT NULL,
         state   INTEGER NOT NULL,
         files   INTEGER NOT NULL,
         PRIMARY KEY (source, state)
     ) WITHOUT ROWID;
     CREATE TRIGGER folder_files_added AFTER INSERT ON folder_files BEGIN
         INSERT INTO folder_counts VALUES (NEW.source, NEW.state, 1)
             ON CONFLICT DO UPDATE SET files = files + 1;
     END;
     CREATE TRIGGER folder_files_removed AFTER DELETE ON folder_files BEGIN
         UPDATE folder_counts SET files = files - 1
             WHERE source = OLD.source AND state = OLD.state;
     END;
     CREATE TRIGGER folder_files_moved AFTER UPDATE OF state ON folder_files
         WHEN OLD.state <> NEW.state BEGIN
         UPDATE folder_counts SET files = files - 1
             WHERE source = OLD.source AND state = OLD.state;
         INSERT INTO folder_counts VALUES (NEW.source, NEW.state, 1)
             ON CONFLICT DO UPDATE SET files = files + 1;
     END;",
    // Buckets: a row per key, or per version where versions are listed. The
    // number is what a walk keeps of a row that it has seen.
    "CREATE TABLE s3_sources (
         id              INTEGER PRIMARY KEY AUTOINCREMENT,
         name            TEXT NOT NULL UNIQUE,
         bucket          TEXT NOT NULL,
         first_start_ms  INTEGER NOT NULL,
         baseline_done   INTEGER NOT NULL DEFAULT 0
     );
     CREATE TABLE s3_objects (
         id           INTEGER PRIMARY KEY AUTOINCREMENT,
         source       INTEGER NOT NULL,
         key          TEXT NOT NULL,
         version      TEXT NOT NULL DEFAULT '',
         etag         TEXT NOT NULL,
         size         INTEGER NOT NULL,
         modified_ms  INTEGER NOT NULL,
         state        INTEGER NOT NULL,
         salt         INTEGER NOT NULL DEFAULT 0,
         at_ms        INTEGER NOT NULL,
         reason       TEXT,
         UNIQUE (source, key, version)
     );
     CREATE INDEX s3_objects_refused ON s3_objects (source, at_ms) WHERE state = 3;
     CREATE INDEX s3_objects_gone ON s3_objects (source, at_ms) WHERE state = 4;
     CREATE TABLE s3_counts (
         source   INTEGER NOT NULL,
         state    INTEGER NOT NULL,
         objects  INTEGER NOT NULL,
         PRIMARY KEY (source, state)
     ) WITHOUT ROWID;
     CREATE TRIGGER s3_objects_added AFTER INSERT ON s3_objects BEGIN
         INSERT INTO s3_counts VALUES (NEW.source, NEW.state, 1)
             ON CONFLICT DO UPDATE SET objects = objects + 1;
     END;
     CREATE TRIGGER s3_objects_removed AFTER DELETE ON s3_objects BEGIN
         UPDATE s3_counts SET objects = objects - 1
             WHERE source = OLD.source AND state = OLD.state;
     END;
     CREATE TRIGGER s3_objects_moved AFTER UPDATE OF state ON s3_objects
         WHEN OLD.state <> NEW.state BEGIN
         UPDATE s3_counts SET objects = objects - 1
             WHERE source = OLD.source AND state = OLD.state;
         INSERT INTO s3_counts VALUES (NEW.source, NEW.state, 1)
             ON CONFLICT DO UPDATE SET objects = objects + 1;
     END;",
];

/// Brings the database to the newest layout; every step is one transaction.
pub fn migrate(connection: &mut Connection) -> Result<(), StateError> {
    let known = STEPS.len();
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let at = usize::try_from(found).unwrap_or(usize::MAX);
    if at > known {
        return Err(StateError::Newer { found, known });
    }
    for (step, sql) in (1_i64..).zip(STEPS).skip(at) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
    }
    Ok(())
}
