//! Publishing with confirms, to a queue or to an exchange.

use super::link::{answered, broke};
use crate::queues::{BrokerError, DELIVERY, Outbound};
use futures::FutureExt;
use futures::future::BoxFuture;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    answered(select).await
}

/// Channels that are published on, each by one batch at a time: the library counts a
/// message before it puts it into the line, so two batches on one channel could take each
/// other's confirms, and what comes back could be taken for another batch's.
#[derive(Default)]
pub(super) struct Channels {
    idle: Mutex<Vec<Channel>>,
}

impl Channels {
    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel that nobody uses; `None` when one has to be made.
    pub fn take(&self) -> Option<Channel> {
        let mut idle = self.idle();
        while let Some(channel) = idle.pop() {
            if channel.status().connected() {
                return Some(channel);
            }
        }
        None
    }

    /// All confirms of the batch have come, so the next one may use the channel.
    pub fn put(&self, channel: Channel) {
        if channel.status().connected() {
            self.idle().push(channel);
        }
    }
}

/// Publishes messages, and waits for the confirms of all of them. Nobody else may use
/// the channel meanwhile. `key`: what the exchange sorts a message by.
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
    let mut returned = Vec::new();
    for sent in sent {
        let confirmed = match sent {
            Ok(sent) => confirmed(channel, sent).await,
            Err(error) => Err(error),
        };
        answers.push(confirmed.and_then(|confirmation| {
            let answer = answer(&confirmation);
            returned.extend(confirmation.take_message());
            answer
        }));
    }
    came_back(batch, &returned, &mut answers);
    answers
}

/// Tells which messages no queue took. One confirm may stand for many messages, and what
/// came back is found beside any of them, so it is known by what it carries.
fn came_back(batch: &[Outbound], returned: &[BasicReturnMessage], answers: &mut [Answer]) {
    for message in returned {
        let headers = message.properties.headers().as_ref();
        let delivery = headers.and_then(|headers| headers.inner().get(DELIVERY));
        let mine = |out: &Outbound| match delivery {
            Some(AMQPValue::LongString(text)) => text.as_bytes() == out.delivery.as_bytes(),
            _ => false,
        };
        let reason = format!(
            "the broker returned the message: {} {}",
            message.reply_code, message.reply_text
        );
        match batch.iter().position(mine).and_then(|n| answers.get_mut(n)) {
            Some(answer) => {
                *answer = Err(BrokerError::Refused {
                    code: UNROUTABLE,
                    reason,
                    permanent: false,
                });
            }
            // It may be any of them, so all are published again.
            None => answers.fill(Err(BrokerError::Unavailable(reason))),
        }
    }
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

async fn confirmed(channel: &Channel, sent: Sent<'_>) -> Result<Confirmation, BrokerError> {
    let left = match sent {
        Sent::Left(left) => left.map_err(|e| broke(&e)),
        Sent::Waits(sent) => while_open(channel, sent).await,
    };
    while_open(channel, left?).await
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

/// What a confirm says, apart from what came back beside it.
fn answer(confirmation: &Confirmation) -> Answer {
    match confirmation {
        Confirmation::Ack(_) => Ok(()),
        Confirmation::Nack(_) => Err(BrokerError::Refused {
            code: NOT_CONFIRMED,
            reason: "the broker does not confirm: a queue is full, or a replica is missing"
                .to_owned(),
            permanent: false,
        }),
        Confirmation::NotRequested => Err(BrokerError::Unavailable(
            "the channel does not confirm".to_owned(),
        )),
    }
}

pub(super) fn short(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|e| BrokerError::Refused {
        code: "BadName",
        reason: format!("`{text}` is longer than AMQP allows: {e}"),
        permanent: true,
    })
}
