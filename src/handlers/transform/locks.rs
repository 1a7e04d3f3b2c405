//! Locks by name within this process, so that two attempts at one publication
//! (or two loads of one table) wait for each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Held = Mutex<HashMap<PathBuf, Weak<AsyncMutex<()>>>>;

static LOCKS: LazyLock<Held> = LazyLock::new(Mutex::default);

/// Waits for the lock of a path.
pub async fn lock(path: &Path) -> OwnedMutexGuard<()> {
    named(path).lock_owned().await
}

fn named(path: &Path) -> Arc<AsyncMutex<()>> {
    let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = locks.get(path).and_then(Weak::upgrade) {
        return known;
    }
    if locks.len() > 1_000 {
        locks.retain(|_, lock| lock.strong_count() > 0);
    }
    let made = Arc::new(AsyncMutex::new(()));
    locks.insert(path.to_path_buf(), Arc::downgrade(&made));
    made
}
