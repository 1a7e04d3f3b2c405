//! What reaches a running node from outside its interface: signals, and files
//! that change.

use super::{colour, talk};
use crate::app::{Node, Reload, ReloadError};
use crate::error::render_all;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// SIGINT and SIGTERM, listened to from the beginning: one that comes while
/// nobody asks is not lost.
pub(super) struct Interrupts {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Interrupts {
    /// Listens from now on.
    pub fn listen() -> Self {
        Self {
            interrupt: listen(SignalKind::interrupt()),
            terminate: listen(SignalKind::terminate()),
        }
    }

    /// Resolves on the next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.terminate) => {}
        }
    }
}

/// SIGHUP, listened to from now on; without that it would end the process.
pub(super) fn hangups() -> Option<Signal> {
    listen(SignalKind::hangup())
}

/// Without a handler a signal keeps its usual meaning, so `None` is all right.
fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind).ok()
}

async fn next(signals: &mut Option<Signal>) {
    if let Some(signals) = signals {
        signals.recv().await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Reloads on SIGHUP, and with `watch` when a file of the configuration has
/// changed. Never resolves.
pub(super) async fn reloads(node: Arc<Node>, watch: bool, mut hangups: Option<Signal>) {
    let root = node.config().root.clone();
    let mut seen = look(&root).await;
    loop {
        tokio::select! {
            () = next(&mut hangups) => {}
            () = tokio::time::sleep(LOOK), if watch => {
                let now = look(&root).await;
                // An editor may write in steps: a set that still moves is waited for.
                if now == seen || look_again(&root).await != now {
                    continue;
                }
                seen = now;
            }
        }
        reload(&node).await;
    }
}

async fn look_again(root: &Path) -> Files {
    tokio::time::sleep(Duration::from_millis(100)).await;
    look(root).await
}

async fn reload(node: &Node) {
    match node.reload(&Reload::default()).await {
        Ok(done) => {
            for failed in done.failed {
                tracing::error!(failed, "reload");
            }
        }
        Err(error) => {
            if let ReloadError::Files {
                diagnostics,
                sources,
            } = &error
            {
                talk(&render_all(diagnostics, sources, colour()));
            }
            tracing::error!(%error, "reload refused");
        }
    }
}

type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// The files of a configuration, each with its time and size.
async fn look(root: &Path) -> Files {
    let root = root.to_path_buf();
    let files = tokio::task::spawn_blocking(move || {
        let mut files = Files::new();
        for folder in [root.clone(), root.join("rules"), root.join("schemas")] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let ending = path.extension().unwrap_or_default();
                let Ok(about) = entry.metadata() else {
                    continue;
                };
                if about.is_file() && ["yaml", "yml", "json"].iter().any(|e| ending == *e) {
                    files.insert(path, (about.modified().ok(), about.len()));
                }
            }
        }
        files
    });
    files.await.unwrap_or_default()
}
