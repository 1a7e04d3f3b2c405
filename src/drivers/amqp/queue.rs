//! A queue on an AMQP broker.

use super::link::{Link, broke};
use crate::queues::{Broker, BrokerError, Depth, Handle, Inbound, Limits, Outbound, Pull};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, BasicProperties, Channel, Confirmation, Consumer};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;

/// Publishes this many messages at most before it looks at the confirms.
const BATCH: usize = 1_000;

/// How often a wait for a confirm looks whether the channel is still open.
const LOOK: Duration = Duration::from_secs(1);

/// How long an acknowledgement may take to leave.
const SETTLE: Duration = Duration::from_secs(10);

/// Persistent, as AMQP numbers it: the message is written to disk.
const PERSISTENT: u8 = 2;

/// A queue, and how it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Its name at the broker, at most 255 bytes.
    pub queue: String,
    /// Whether it is made when it is missing.
    pub declare: Declare,
    /// Its kind, where we make it.
    pub kind: Kind,
    /// Whether only one consumer at a time gets messages, where we make it: an
    /// ordered queue keeps its order over several nodes that way.
    pub single_active: bool,
    /// Messages that are on their way to handlers at most, from 1.
    pub prefetch: u16,
    /// How often the broker hands a message out before it takes it away; `None`:
    /// as the broker has it.
    pub delivery_limit: Option<u32>,
    /// Exchange that gets what the broker takes away.
    pub dead_letter_exchange: Option<String>,
    /// Routing key that it gets there.
    pub dead_letter_routing_key: Option<String>,
    /// Largest body in bytes; a larger one is kept in a file.
    pub max_message_bytes: usize,
}

/// Whether something at the broker is made when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declare {
    /// It is made; one that is there must be as it would have been made.
    Active,
    /// It must be there, however it was made.
    Passive,
}

/// Kinds of queues (<https://www.rabbitmq.com/docs/quorum-queues>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Replicated; counts deliveries.
    Quorum,
    /// On one node.
    Classic,
}

/// A queue on an AMQP broker.
pub struct AmqpQueue {
    label: String,
    options: QueueOptions,
    link: Link,
    publisher: AsyncMutex<Option<Channel>>,
    consumer: AsyncMutex<Option<(Channel, Consumer)>>,
    ackers: Mutex<HashMap<Handle, Acker>>,
    last_handle: AtomicU64,
}

impl AmqpQueue {
    /// The queue behind a link; to publish and to receive in one process, make two.
    #[must_use]
    pub fn new(options: QueueOptions, link: Link) -> Self {
        Self {
            label: format!("amqp {}/{}", link.name(), options.queue),
            options,
            link,
            publisher: AsyncMutex::new(None),
            consumer: AsyncMutex::new(None),
            ackers: Mutex::default(),
            last_handle: AtomicU64::new(0),
        }
    }

    fn ackers(&self) -> MutexGuard<'_, HashMap<Handle, Acker>> {
        self.ackers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self) -> &QueueOptions {
        &self.options
    }

    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        self.link.channel().await
    }

    pub(super) fn name(&self) -> Result<ShortString, BrokerError> {
        short(&self.options.queue)
    }

    /// Makes the queue, or looks whether it is there. How many messages are ready.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<u64, BrokerError> {
        let options = &self.options;
        let passive = options.declare == Declare::Passive;
        let declared = channel.queue_declare(
            self.name()?,
            QueueDeclareOptions {
                passive,
                durable: true,
                ..QueueDeclareOptions::default()
            },
            match passive {
                true => FieldTable::default(),
                false => options.arguments(),
            },
        );
        let queue = declared.await.map_err(|e| broke(&e))?;
        Ok(u64::from(queue.message_count()))
    }

    async fn publisher(&self) -> Result<Channel, BrokerError> {
        let mut publisher = self.publisher.lock().await;
        if let Some(channel) = publisher.as_ref().filter(|c| c.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.link.channel().await?;
        self.declare(&channel).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.map_err(|e| broke(&e))?;
        *publisher = Some(channel.clone());
        Ok(channel)
    }

    async fn publish_all(&self, batch: Vec<Outbound>) -> Vec<Result<(), BrokerError>> {
        let count = batch.len();
        if let Some(reason) = self.link.blocked() {
            let reason = format!("the broker has blocked the connection: {reason}");
            return vec![Err(BrokerError::Unavailable(reason)); count];
        }
        let prepared = self.publisher().await.and_then(|c| Ok((c, self.name()?)));
        let (channel, queue) = match prepared {
            Ok(prepared) => prepared,
            // A queue that cannot be declared is no fault of these messages: they wait.
            Err(error) => return vec![Err(BrokerError::Unavailable(error.to_string())); count],
        };
        let mut confirms = Vec::with_capacity(count);
        for message in &batch {
            if !channel.status().connected() {
                break;
            }
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let sent = channel.basic_publish(
                ShortString::default(),
                queue.clone(),
                options,
                &message.body,
                properties(message),
            );
            confirms.push(sent.await);
        }
        let mut answers = Vec::with_capacity(count);
        for confirm in confirms {
            let confirmed = match confirm {
                Ok(confirm) => while_open(&channel, confirm).await,
                Err(error) => Err(broke(&error)),
            };
            answers.push(confirmed.and_then(answer));
        }
        let unsent = || Err(BrokerError::Unavailable("the channel is closed".to_owned()));
        answers.resize_with(count, unsent);
        answers
    }

    async fn consume(&self) -> Result<(Channel, Consumer), BrokerError> {
        let channel = self.link.channel().await?;
        self.declare(&channel).await?;
        let qos = channel.basic_qos(self.options.prefetch, BasicQosOptions::default());
        qos.await.map_err(|e| broke(&e))?;
        let consumer = channel.basic_consume(
            self.name()?,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = consumer.await.map_err(|e| broke(&e))?;
        Ok((channel, consumer))
    }

    async fn pull(&self, pull: Pull) -> Result<Vec<Inbound>, BrokerError> {
        let mut current = self.consumer.lock().await;
        if current.is_none() {
            *current = Some(self.consume().await?);
        }
        let Some((_, consumer)) = current.as_mut() else {
            return Ok(Vec::new());
        };
        let mut received = Vec::new();
        let mut next = match tokio::time::timeout(pull.wait, consumer.next()).await {
            Err(_) => return Ok(received),
            Ok(next) => next,
        };
        loop {
            match next {
                Some(Ok(delivery)) => received.push(self.inbound(delivery)),
                ended => {
                    // What was received before is lost with the rest.
                    *current = None;
                    self.ackers().clear();
                    let why = ended.and_then(Result::err).map_or_else(
                        || "the broker ended the consumer".to_owned(),
                        |error| error.to_string(),
                    );
                    return Err(BrokerError::Lost(why));
                }
            }
            if received.len() >= pull.max {
                return Ok(received);
            }
            // Only what is here already.
            next = match consumer.next().now_or_never() {
                Some(next) => next,
                None => return Ok(received),
            };
        }
    }

    fn inbound(&self, delivery: Delivery) -> Inbound {
        let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
        let properties = &delivery.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        let headers = properties.headers().as_ref();
        let counted = headers
            .and_then(|headers| headers.inner().get("x-delivery-count"))
            .and_then(number);
        let again = u32::from(delivery.redelivered);
        let id = text(properties.message_id()).filter(|id| !id.is_empty());
        let inbound = Inbound {
            handle,
            identity: id.clone(),
            id,
            content_type: text(properties.content_type()),
            sent_ms: properties
                .timestamp()
                .and_then(|s| i64::try_from(s).ok()?.checked_mul(1_000)),
            headers: headers.map(texts).unwrap_or_default(),
            order_key: None,
            receive_count: counted.unwrap_or(again).max(again).saturating_add(1),
            body: Bytes::from(delivery.data),
        };
        self.ackers().insert(handle, delivery.acker);
        inbound
    }

    /// Gives out the ackers of these handles; those of a lost connection are gone.
    fn take(&self, handles: &[Handle]) -> Vec<Acker> {
        let mut ackers = self.ackers();
        let taken = handles.iter().filter_map(|handle| ackers.remove(handle));
        taken.collect()
    }
}

impl QueueOptions {
    fn arguments(&self) -> FieldTable {
        let mut arguments = BTreeMap::new();
        let mut put = |name: &str, value: AMQPValue| {
            arguments.insert(ShortString::from(name), value);
        };
        let text = |text: &str| AMQPValue::LongString(text.into());
        let kind = match self.kind {
            Kind::Quorum => "quorum",
            Kind::Classic => "classic",
        };
        put("x-queue-type", text(kind));
        if self.single_active {
            put("x-single-active-consumer", AMQPValue::Boolean(true));
        }
        if let Some(limit) = self.delivery_limit {
            put("x-delivery-limit", AMQPValue::LongLongInt(limit.into()));
        }
        if let Some(exchange) = &self.dead_letter_exchange {
            put("x-dead-letter-exchange", text(exchange));
            if self.kind == Kind::Quorum {
                // Otherwise what is dead-lettered may be lost on the way.
                put("x-dead-letter-strategy", text("at-least-once"));
                put("x-overflow", text("reject-publish"));
            }
        }
        if let Some(key) = &self.dead_letter_routing_key {
            put("x-dead-letter-routing-key", text(key));
        }
        arguments.into()
    }
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

/// What a confirm says. A message that no queue takes comes back beside an ack.
fn answer(confirmation: Confirmation) -> Result<(), BrokerError> {
    let nacked = confirmation.is_nack();
    match confirmation.take_message() {
        Some(returned) => Err(BrokerError::Refused {
            code: "Unroutable",
            reason: format!(
                "the broker returned the message: {} {}",
                returned.reply_code, returned.reply_text
            ),
            permanent: false,
        }),
        None if nacked => Err(BrokerError::Unavailable(
            "the broker does not confirm: the queue is full, or a replica is missing".to_owned(),
        )),
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

fn number(value: &AMQPValue) -> Option<u32> {
    match value {
        AMQPValue::LongLongInt(n) => u32::try_from(*n).ok(),
        AMQPValue::LongInt(n) => u32::try_from(*n).ok(),
        AMQPValue::LongUInt(n) => Some(*n),
        _ => None,
    }
}

/// Headers as text; tables and arrays are left out.
fn texts(headers: &FieldTable) -> BTreeMap<String, String> {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::Boolean(yes) => Some(yes.to_string()),
        AMQPValue::ShortShortInt(n) => Some(n.to_string()),
        AMQPValue::ShortShortUInt(n) => Some(n.to_string()),
        AMQPValue::ShortInt(n) => Some(n.to_string()),
        AMQPValue::ShortUInt(n) => Some(n.to_string()),
        AMQPValue::LongInt(n) => Some(n.to_string()),
        AMQPValue::LongUInt(n) => Some(n.to_string()),
        AMQPValue::LongLongInt(n) => Some(n.to_string()),
        AMQPValue::Timestamp(n) => Some(n.to_string()),
        AMQPValue::Float(n) => Some(n.to_string()),
        AMQPValue::Double(n) => Some(n.to_string()),
        _ => None,
    };
    headers
        .inner()
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
        .collect()
}

impl Broker for AmqpQueue {
    fn label(&self) -> &str {
        &self.label
    }

    fn limits(&self) -> Limits {
        Limits {
            body_bytes: self.options.max_message_bytes,
            batch: BATCH,
            prefetch: self.options.prefetch.into(),
        }
    }

    fn publish(&self, batch: Vec<Outbound>) -> BoxFuture<'_, Vec<Result<(), BrokerError>>> {
        Box::pin(self.publish_all(batch))
    }

    fn receive(&self, pull: Pull) -> BoxFuture<'_, Result<Vec<Inbound>, BrokerError>> {
        Box::pin(self.pull(pull))
    }

    fn ack(&self, handles: Vec<Handle>) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            for acker in self.take(&handles) {
                in_time(acker.ack(BasicAckOptions::default())).await?;
            }
            Ok(())
        })
    }

    fn give_back(&self, handles: Vec<Handle>) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            let requeue = BasicNackOptions {
                requeue: true,
                multiple: false,
            };
            // The last first, so that they are in order again at the head.
            for acker in self.take(&handles).iter().rev() {
                in_time(acker.nack(requeue)).await?;
            }
            Ok(())
        })
    }

    fn extend(&self, _: Vec<Handle>, _: Duration) -> BoxFuture<'_, Result<(), BrokerError>> {
        // AMQP knows no such time: a message is ours while the channel is open.
        Box::pin(std::future::ready(Ok(())))
    }

    fn depth(&self) -> BoxFuture<'_, Result<Depth, BrokerError>> {
        Box::pin(async move {
            let channel = self.link.channel().await?;
            let ready = self.declare(&channel).await?;
            Ok(Depth {
                ready,
                unsettled: None,
            })
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.link.close())
    }
}
