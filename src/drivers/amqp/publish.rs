//! Publishing with confirms, to a queue or to an exchange.

use super::link::broke;
use crate::queues::{BrokerError, Outbound};
use futures::FutureExt;
use futures::future::BoxFuture;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use std::collections::BTreeMap;
use std::future::Future;
use std::task::Poll;
use std::time::Duration;

/// Publishes this many messages at most before it looks at the confirms.
pub(super) const BATCH: usize = 1_000;

/// How often a wait for a confirm looks whether the channel is still open.
const LOOK: Duration = Duration::from_secs(1);

/// Persistent, as AMQP numbers it: the message is written to disk.
const PERSISTENT: u8 = 2;

/// No queue is bound for the message.
pub(super) const UNROUTABLE: &str = "Unroutable";

/// The broker took the message and did not keep it.
pub(super) const NOT_CONFIRMED: &str = "NotConfirmed";

/// What became of a message.
pub(super) type Answer = Result<(), BrokerError>;

/// Has the broker confirm what is published on this channel from now on.
pub(super) async fn confirms(channel: &Channel) -> Result<(), BrokerError> {
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    select.await.map_err(|e| broke(&e))
}

/// Publishes messages, and waits for the confirms of all of them. `key`: what the
/// exchange sorts a message by.
pub(super) async fn publish(
    channel: &Channel,
    exchange: &ShortString,
    batch: &[Outbound],
    key: impl Fn(&Outbound) -> Result<ShortString, BrokerError>,
) -> Vec<Answer> {
    let mut sent = Vec::with_capacity(batch.len());
    for message in batch {
        sent.push(match key(message) {
            Ok(key) => Ok(send(channel, exchange, key, message).await),
            Err(error) => Err(error),
        });
    }
    let mut answers = Vec::with_capacity(batch.len());
    for sent in sent {
        answers.push(match sent {
            Ok(sent) => confirmed(channel, sent).await,
            Err(error) => Err(error),
        });
    }
    answers
}

/// A message in the line to the broker.
enum Sent<'a> {
    /// It has not left yet.
    Waits(BoxFuture<'a, lapin::Result<PublisherConfirm>>),
    Left(lapin::Result<PublisherConfirm>),
}

/// Puts a message into the line. What the library does before it first waits for the
/// network is to take its place there, so messages leave in the order of these calls,
/// many at a time.
async fn send<'a>(
    channel: &'a Channel,
    exchange: &ShortString,
    key: ShortString,
    message: &'a Outbound,
) -> Sent<'a> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = properties(message);
    let exchange = exchange.clone();
    let mut sent = channel
        .basic_publish(exchange, key, options, &message.body, properties)
        .boxed();
    match futures::poll!(&mut sent) {
        Poll::Ready(left) => Sent::Left(left),
        Poll::Pending => Sent::Waits(sent),
    }
}

async fn confirmed(channel: &Channel, sent: Sent<'_>) -> Answer {
    let left = match sent {
        Sent::Left(left) => left.map_err(|e| broke(&e)),
        Sent::Waits(sent) => while_open(channel, sent).await,
    };
    while_open(channel, left?).await.and_then(answer)
}

fn properties(message: &Outbound) -> BasicProperties {
    let headers: BTreeMap<ShortString, AMQPValue> = message
        .headers
        .iter()
        .filter_map(|(name, value)| {
            let name = ShortString::try_new(name.as_str()).ok()?;
            Some((name, AMQPValue::LongString(value.as_str().into())))
        })
        .collect();
    let mut properties = BasicProperties::default()
        .with_content_type(message.content_type.into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(message.timestamp_ms / 1_000).unwrap_or(0))
        .with_app_id("pointsman".into())
        .with_headers(headers.into());
    // Longer ones stand in the headers alone.
    if let Ok(id) = ShortString::try_new(message.id.as_str()) {
        properties = properties.with_message_id(id);
    }
    if let Ok(kind) = ShortString::try_new(message.kind.as_str()) {
        properties = properties.with_type(kind);
    }
    properties
}

/// Waits for the broker's answer for as long as the channel is open: what was on
/// its way when a connection broke may never be answered.
async fn while_open<T>(
    channel: &Channel,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            answer = &mut work => return answer.map_err(|e| broke(&e)),
            () = tokio::time::sleep(LOOK) => {}
        }
        if !channel.status().connected() {
            let reason = "the channel was closed without an answer";
            return Err(BrokerError::Unavailable(reason.to_owned()));
        }
    }
}

/// What a confirm says. A message that no queue takes comes back beside an ack.
fn answer(confirmation: Confirmation) -> Result<(), BrokerError> {
    let nacked = confirmation.is_nack();
    match confirmation.take_message() {
        Some(returned) => Err(BrokerError::Refused {
            code: UNROUTABLE,
            reason: format!(
                "the broker returned the message: {} {}",
                returned.reply_code, returned.reply_text
            ),
            permanent: false,
        }),
        None if nacked => Err(BrokerError::Refused {
            code: NOT_CONFIRMED,
            reason: "the broker does not confirm: a queue is full, or a replica is missing"
                .to_owned(),
            permanent: false,
        }),
        None => Ok(()),
    }
}

pub(super) fn short(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|e| BrokerError::Refused {
        code: "BadName",
        reason: format!("`{text}` is longer than AMQP allows: {e}"),
        permanent: true,
    })
}
