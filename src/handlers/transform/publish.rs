//! Publishing: files are staged, moved into the table's folders, and exist for
//! readers from the moment on in which the manifest is renamed into place.
//!
//! What is left of an attempt that died is found again by its plan: the list
//! of final paths, written before the first file is moved. The next attempt of
//! the same publication removes it.

use super::disk;
use super::manifest::{FOLDER, Manifest, STAGING};
use crate::handlers::Failure;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file in a staging folder that lists where its files are moved to.
const PLAN: &str = "plan.json";

/// The scratch folder of one attempt; gone when dropped.
#[derive(Debug)]
pub struct Staging {
    /// The folder.
    pub folder: PathBuf,
    lake: PathBuf,
}

impl Staging {
    /// Makes a folder for an attempt, and clears away what earlier attempts of
    /// the same publication left.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(lake: &Path, publication: &str) -> Result<Self, Failure> {
        let root = lake.join(STAGING);
        let attempt = format!("{publication}-{}", uuid::Uuid::new_v4().simple());
        let folder = root.join(attempt);
        fs::create_dir_all(&root)
            .and_then(|()| clear_earlier(lake, &root, publication))
            .and_then(|()| fs::create_dir(&folder))
            .map_err(|e| failed("a staging folder could not be made", &folder, &e))?;
        Ok(Self {
            folder,
            lake: lake.to_path_buf(),
        })
    }

    /// Moves the manifest's files (staged under the same relative path) into
    /// the table and commits the manifest.
    ///
    /// # Errors
    /// When the disk refuses; readers see nothing then.
    pub fn publish(&self, manifest: &Manifest) -> Result<(), Failure> {
        let step = |what: &'static str| move |e: io::Error| failed(what, &self.folder, &e);
        let staged: Vec<PathBuf> = manifest
            .outputs
            .iter()
            .map(|o| self.folder.join(&o.path))
            .collect();
        disk::sync_files(&self.folder, staged.iter().map(PathBuf::as_path))
            .map_err(step("the staged files could not be made durable"))?;
        let paths: Vec<&str> = manifest.outputs.iter().map(|o| o.path.as_str()).collect();
        let plan = serde_json::to_vec(&paths)
            .map_err(|e| failed("the plan could not be written", &self.folder, &e.into()))?;
        disk::write_atomic(&self.folder.join(PLAN), &plan)
            .and_then(|()| disk::sync_dir(&self.lake.join(STAGING)))
            .map_err(step("the plan could not be written"))?;
        self.move_files(&paths)
            .map_err(step("the files could not be moved into the table"))?;
        commit(&self.lake, manifest)
    }

    fn move_files(&self, paths: &[&str]) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for path in paths {
            let target = self.lake.join(path);
            let mut above = target.parent();
            // A new folder's own entry has to be durable, too.
            while let Some(folder) = above.filter(|f| f.starts_with(&self.lake)) {
                if !folders.insert(folder.to_path_buf()) {
                    break;
                }
                above = folder.parent();
            }
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::rename(self.folder.join(path), &target)?;
        }
        disk::sync_dirs(&self.lake, folders.iter().map(PathBuf::as_path))
    }
}

/// Commits a manifest whose files are where they belong.
///
/// # Errors
/// When the disk refuses; readers see nothing then.
pub fn commit(lake: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let path = Manifest::path(lake, &manifest.table, &manifest.publication);
    let folder = lake.join(&manifest.table).join(FOLDER);
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|e| failed("the manifest could not be written", &path, &e.into()))?;
    fs::create_dir_all(&folder)
        .and_then(|()| disk::sync_dir(&lake.join(&manifest.table)))
        .and_then(|()| disk::write_atomic(&path, &text))
        .map_err(|e| failed("the manifest could not be written", &path, &e))
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is found and removed by the next attempt.
        drop(clear(&self.lake, &self.folder));
    }
}

fn failed(what: &str, path: &Path, e: &io::Error) -> Failure {
    let full = matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let code = if full { "DiskFull" } else { "WriteFailed" };
    Failure::transient(code, format!("{what} ({})", path.display())).caused_by(e)
}

/// Removes the folders of earlier attempts, and the files that one of them
/// moved into the table without committing.
fn clear_earlier(lake: &Path, root: &Path, publication: &str) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .to_string_lossy()
            .starts_with(&format!("{publication}-"))
        {
            clear(lake, &entry.path())?;
        }
    }
    Ok(())
}

/// Removes an attempt's folder and, unless it was committed, what it moved out of it.
fn clear(lake: &Path, folder: &Path) -> io::Result<()> {
    let plan = match committed(lake, folder) {
        true => Vec::new(),
        false => planned(folder),
    };
    for path in plan {
        let Some(target) = super::manifest::inside(lake, &path) else {
            continue;
        };
        match fs::remove_file(target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Removes staging folders that nobody has touched for `age`, with what they
/// moved into tables, unless that was committed.
///
/// # Errors
/// When the disk refuses.
pub fn sweep(lake: &Path, age: Duration) -> io::Result<()> {
    let root = lake.join(STAGING);
    let entries = match fs::read_dir(&root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let touched = entry.metadata()?.modified()?;
        let old = SystemTime::now()
            .duration_since(touched)
            .is_ok_and(|d| d > age);
        if old {
            clear(lake, &entry.path())?;
        }
    }
    Ok(())
}

/// The final paths of an attempt's files, if it got as far as moving them.
fn planned(folder: &Path) -> Vec<String> {
    let plan = fs::read(folder.join(PLAN)).ok();
    plan.and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Whether the attempt of a staging folder (or another one of the same
/// publication) got as far as its manifest.
fn committed(lake: &Path, folder: &Path) -> bool {
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let publication = name.split('-').next().unwrap_or_default();
    let planned = planned(folder);
    let Some(first) = planned.first() else {
        return false;
    };
    let table = first.split('/').next().unwrap_or_default();
    match Manifest::load(lake, table, publication) {
        // An earlier revision's manifest names other files.
        Ok(Some(manifest)) => manifest.outputs.iter().any(|o| o.path == *first),
        Ok(None) => false,
        // Nothing is removed that may be named.
        Err(_) => true,
    }
}
