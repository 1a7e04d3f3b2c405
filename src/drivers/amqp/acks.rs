//! Acknowledging with few words. Batches are done in another order than their messages
//! came, and one word settles only what nothing unsettled stands before; so what is done
//! out of turn waits a little for what came before it.

use super::link::broke;
use super::unsettled::Unsettled;
use crate::queues::{BrokerError, Handle};
use futures::future::join_all;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;

/// How long an acknowledgement may take to leave.
const SETTLE: Duration = Duration::from_secs(10);

/// How long what is done out of turn waits for what came before it.
const LINGER: Duration = Duration::from_millis(50);

/// What a channel has on loan, and how it is given back.
#[derive(Default)]
pub(super) struct Acks {
    unsettled: Mutex<Unsettled<Acker>>,
    /// One acknowledgement after the other: what one settles, no other may.
    turn: AsyncMutex<()>,
    /// Whether somebody waits to acknowledge what is done out of turn.
    lingers: AtomicBool,
}

impl Acks {
    pub fn unsettled(&self) -> MutexGuard<'_, Unsettled<Acker>> {
        let unsettled = self.unsettled.lock();
        unsettled.unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges these, at once or within [`LINGER`]; those of a lost connection are
    /// passed over. Each stays on loan until its word has left, so that none is settled
    /// by another's.
    pub async fn acknowledge(self: &Arc<Self>, handles: &[Handle]) -> Result<(), BrokerError> {
        self.unsettled().settle(handles);
        let _turn = self.turn.lock().await;
        self.together().await?;
        let late = self.unsettled().has_settled();
        if late && !self.lingers.swap(true, Ordering::AcqRel) {
            let acks = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(LINGER).await;
                acks.lingers.store(false, Ordering::Release);
                if let Err(error) = acks.flush().await {
                    tracing::debug!(%error, "not acknowledged");
                }
            });
        }
        Ok(())
    }

    /// Acknowledges all that is done and not acknowledged.
    pub async fn flush(&self) -> Result<(), BrokerError> {
        let _turn = self.turn.lock().await;
        self.together().await?;
        let single = self.unsettled().settled();
        let acks = single.iter().map(|(_, acker)| acker);
        let acks = acks.map(|acker| in_time(acker.ack(BasicAckOptions::default())));
        for ((handle, _), acked) in single.iter().zip(join_all(acks).await) {
            acked?;
            self.unsettled().remove(*handle);
        }
        Ok(())
    }

    /// With one word, all that is done and has nothing unsettled before it.
    async fn together(&self) -> Result<(), BrokerError> {
        let head = self.unsettled().head();
        if let Some((last, acker)) = head {
            in_time(acker.ack(BasicAckOptions { multiple: true })).await?;
            self.unsettled().remove_to(last);
        }
        Ok(())
    }

    /// Hands these back, the last first, so that they are in order again at the head.
    pub async fn hand_back(&self, handles: &[Handle]) -> Result<(), BrokerError> {
        let _turn = self.turn.lock().await;
        let lent = self.unsettled().of(handles);
        for (handle, acker) in lent {
            let requeue = BasicNackOptions {
                requeue: true,
                multiple: false,
            };
            in_time(acker.nack(requeue)).await?;
            self.unsettled().remove(handle);
        }
        Ok(())
    }
}

/// As long as an acknowledgement may take to leave: one that was on its way when
/// the connection broke may never be told of, and its message comes again.
async fn in_time<T>(work: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    match tokio::time::timeout(SETTLE, work).await {
        Ok(done) => done.map_err(|e| broke(&e)),
        Err(_) => Err(BrokerError::Lost(
            "the connection does not answer".to_owned(),
        )),
    }
}
