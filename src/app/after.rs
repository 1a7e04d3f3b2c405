//! What happens to a file once all that its event caused is done: a source that
//! moves or deletes its files asks the books, not the handlers.

use crate::bus::{Bus, BusError};
use crate::sources::folder::FolderHandle;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the books are asked.
const EVERY: Duration = Duration::from_secs(2);

/// Events that are asked about at a time.
const PAGE: usize = 200;

/// Marks the files of a source as done, until `stop`.
pub(super) async fn run(
    name: String,
    folder: Arc<FolderHandle>,
    bus: Bus,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = round(&folder, &bus).await {
            tracing::warn!(source = name, %error, "files that are done wait for their turn");
        }
    }
}

async fn round(
    folder: &FolderHandle,
    bus: &Bus,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut after: Option<String> = None;
    loop {
        let open = folder.open_events(after.as_deref(), PAGE).await?;
        let Some(last) = open.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for id in &open {
            if settled(bus, id)? {
                folder.mark_done(id).await?;
            }
        }
    }
}

/// Whether nothing that began with this event waits or lies among the dead letters.
fn settled(bus: &Bus, root: &str) -> Result<bool, BusError> {
    let events = bus.by_root(root)?;
    for event in &events {
        if !bus.history(event.seq)?.now.is_empty() {
            return Ok(false);
        }
    }
    Ok(!events.is_empty())
}
