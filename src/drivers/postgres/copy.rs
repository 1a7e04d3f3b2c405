//! Rows into a table by `COPY`: read and encoded on a thread of their own, sent
//! as they come.

use super::connect::told;
use super::table::{Plan, list};
use super::types::Wire;
use super::{blame, encode};
use crate::handlers::Failure;
use crate::handlers::load::source::{ORDER, Outputs};
use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_postgres::Transaction;

/// Bytes that are sent at once, about.
const CHUNK: usize = 256 * 1024;

/// Copies all rows; tells how many there were.
///
/// # Errors
/// Permanent failures name the row.
pub(super) async fn copy(
    tx: &Transaction<'_>,
    table: &str,
    plan: &Plan,
    outputs: &Arc<Outputs>,
) -> Result<u64, Failure> {
    let ordered = outputs.schema().fields().len() > plan.wires.len();
    let names = plan.names().chain(ordered.then_some(ORDER));
    let sql = format!(
        "copy {table} ({}) from stdin with (format binary)",
        list(names)
    );
    let begun = tx.copy_in::<_, Bytes>(&sql).await;
    let sink = begun.map_err(|e| told(&e, &format!("rows cannot be copied into {table}")))?;
    let mut sink = std::pin::pin!(sink);

    let (sender, mut receiver) = mpsc::channel(4);
    let mut wires = plan.wires.clone();
    wires.extend(ordered.then_some(Wire::Int8));
    let rows = Arc::clone(outputs);
    let reader = tokio::task::spawn_blocking(move || encoded(&rows, &wires, &sender));
    while let Some(chunk) = receiver.recv().await {
        // A server that refuses says why at the end.
        if sink.send(chunk).await.is_err() {
            break;
        }
    }
    drop(receiver);
    let gone = |_| Failure::transient("Internal", "the rows were not read to their end");
    // Dropped before its end, the copy is undone by the server.
    reader.await.map_err(gone)??;
    sink.finish()
        .await
        .map_err(|e| blame::told(&e, table, outputs))
}

/// Reads and encodes; stops when nobody listens any more.
fn encoded(rows: &Outputs, wires: &[Wire], out: &mpsc::Sender<Bytes>) -> Result<(), Failure> {
    let mut buffer = BytesMut::with_capacity(CHUNK + CHUNK / 4);
    encode::begin(&mut buffer);
    let mut before = 0_u64;
    rows.each(&mut |batch| {
        let mut at = 0;
        // Pieces of a batch, so that wide rows do not fill the memory.
        while at < batch.num_rows() {
            let piece = batch.slice(at, (batch.num_rows() - at).min(1_024));
            encode::batch(&piece, wires, &mut buffer).map_err(|(row, mut failure)| {
                let row = before + (at + row) as u64;
                if let Some(name) = rows.name(row) {
                    failure.message = format!("{}, in the row {name}", failure.message);
                }
                failure
            })?;
            at += piece.num_rows();
            if buffer.len() >= CHUNK && out.blocking_send(buffer.split().freeze()).is_err() {
                return Ok(false);
            }
        }
        before += batch.num_rows() as u64;
        Ok(true)
    })?;
    encode::end(&mut buffer);
    // Who does not listen has its own failure.
    drop(out.blocking_send(buffer.freeze()));
    Ok(())
}
