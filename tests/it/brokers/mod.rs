//! Real brokers under the whole program: faults, moves, sources, and what is said
//! before anything runs.

mod blocked;
mod connect;
mod exchanges;
mod faults;
mod flights;
mod moves;
mod outside;
mod secure;
mod sources;

use crate::support::PATIENCE;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

/// Does something with a channel of a broker, as any other program would.
pub fn with_channel<T>(url: &str, work: impl AsyncFnOnce(Channel) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.expect("confirms");
        work(channel).await
    })
}

/// Makes a queue that survives restarts.
pub async fn declare(channel: &Channel, queue: &str, kind: &str) {
    let mut arguments = FieldTable::default();
    let kind = AMQPValue::LongString(kind.into());
    arguments.insert("x-queue-type".into(), kind);
    let declared = channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments);
    declared.await.expect("a queue");
}

/// Publishes, and waits until the broker has it. A quorum queue that was just made
/// refuses until it has a leader.
pub async fn publish(channel: &Channel, queue: &str, body: &[u8], properties: BasicProperties) {
    let begun = std::time::Instant::now();
    loop {
        let sent = channel.basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            body,
            properties.clone(),
        );
        let confirm = sent.await.expect("a publish").await.expect("a confirm");
        if confirm.is_ack() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no queue takes it");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
