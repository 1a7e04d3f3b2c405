//! A queue on an AMQP broker.

use super::acks::Acks;
use super::check::close;
use super::link::{Link, answered};
use super::publish::{Answer, BATCH, Channels, NOT_CONFIRMED, confirms, publish, short};
use crate::queues::{
    Broker, BrokerError, Depth, Handle, Headers, Inbound, Limits, Outbound, Publisher, Pull,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;

/// What most bodies are.
const JSON: &str = "application/json";

/// So many messages at once are a flow: more are on their way.
const FLOW: usize = 16;

/// How long a flow is left alone, so that many messages come at once: each time
/// somebody is waked for one costs more than the message.
const NAP: Duration = Duration::from_millis(2);

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
    channels: Channels,
    consumer: AsyncMutex<Option<(Channel, Consumer)>>,
    acks: Arc<Acks>,
    /// Whether many came when it was last asked.
    flows: AtomicBool,
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
            channels: Channels::default(),
            consumer: AsyncMutex::new(None),
            acks: Arc::default(),
            flows: AtomicBool::new(false),
            last_handle: AtomicU64::new(0),
        }
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
        let queue = answered(declared).await?;
        Ok(u64::from(queue.message_count()))
    }

    async fn publisher(&self) -> Result<Channel, BrokerError> {
        if let Some(channel) = self.channels.take() {
            return Ok(channel);
        }
        let channel = self.link.channel().await?;
        self.declare(&channel).await?;
        confirms(&channel).await?;
        Ok(channel)
    }

    async fn publish_all(&self, batch: Vec<Outbound>) -> Vec<Answer> {
        if let Some(blocked) = self.link.refusal() {
            return vec![Err(blocked); batch.len()];
        }
        let prepared = self.publisher().await.and_then(|c| Ok((c, self.name()?)));
        match prepared {
            Ok((channel, queue)) => {
                let to = |_: &Outbound| Ok(queue.clone());
                let answers = publish(&channel, &ShortString::default(), &batch, to).await;
                self.channels.put(channel);
                answers.into_iter().map(wait_while_full).collect()
            }
            // A queue that cannot be declared is no fault of these messages: they wait.
            Err(error) => vec![Err(BrokerError::Unavailable(error.to_string())); batch.len()],
        }
    }

    async fn consume(&self) -> Result<(Channel, Consumer), BrokerError> {
        let channel = self.link.channel().await?;
        self.declare(&channel).await?;
        let qos = channel.basic_qos(self.options.prefetch, BasicQosOptions::default());
        answered(qos).await?;
        let consumer = channel.basic_consume(
            self.name()?,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answered(consumer).await?;
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
        if self.flows.swap(false, Ordering::Relaxed) {
            tokio::time::sleep(NAP).await;
        }
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
                    self.acks.unsettled().clear();
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
                None => {
                    self.flows.store(received.len() >= FLOW, Ordering::Relaxed);
                    return Ok(received);
                }
            };
        }
    }

    fn inbound(&self, delivery: Delivery) -> Inbound {
        let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
        let properties = &delivery.properties;
        let text =
            |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
        let headers = properties.headers().as_ref();
        let counted = headers
            .and_then(|headers| headers.inner().get("x-delivery-count"))
            .and_then(number);
        // A classic queue does not count: it may have been handed out often.
        let again = match counted {
            Some(_) => u32::from(delivery.redelivered),
            None => 2 * u32::from(delivery.redelivered),
        };
        let id = text(properties.message_id()).filter(|id| !id.is_empty());
        let inbound = Inbound {
            handle,
            identity: id.clone(),
            id,
            content_type: properties
                .content_type()
                .as_ref()
                .map(|said| match said.as_str() {
                    JSON => JSON.into(),
                    other => other.to_owned().into(),
                }),
            sent_ms: properties
                .timestamp()
                .and_then(|s| i64::try_from(s).ok()?.checked_mul(1_000)),
            headers: headers.map(texts).unwrap_or_default(),
            order_key: None,
            receive_count: counted.unwrap_or(again).max(again).saturating_add(1),
            body: Bytes::from(delivery.data),
        };
        self.acks.unsettled().insert(handle, delivery.acker);
        inbound
    }
}

/// A queue that is full takes messages later.
fn wait_while_full(answer: Answer) -> Answer {
    match answer {
        Err(BrokerError::Refused { code, reason, .. }) if code == NOT_CONFIRMED => {
            Err(BrokerError::Unavailable(reason))
        }
        answer => answer,
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

fn number(value: &AMQPValue) -> Option<u32> {
    match value {
        AMQPValue::LongLongInt(n) => u32::try_from(*n).ok(),
        AMQPValue::LongInt(n) => u32::try_from(*n).ok(),
        AMQPValue::LongUInt(n) => Some(*n),
        _ => None,
    }
}

/// Headers as text; tables and arrays are left out.
fn texts(headers: &FieldTable) -> Headers {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => Some(match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => text.to_string(),
        }),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
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
        .filter_map(|(name, value)| Some((name.as_str(), text(value)?)))
        .collect()
}

impl Publisher for AmqpQueue {
    fn label(&self) -> &str {
        &self.label
    }

    fn limits(&self) -> Limits {
        Limits {
            body_bytes: self.options.max_message_bytes,
            batch: BATCH,
        }
    }

    fn publish(&self, batch: Vec<Outbound>) -> BoxFuture<'_, Vec<Answer>> {
        Box::pin(self.publish_all(batch))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.acks.flush().await {
                // Their messages come again, to whoever reads the queue next.
                tracing::debug!(queue = self.label, %error, "not acknowledged");
            }
            self.link.close().await;
        })
    }
}

impl Broker for AmqpQueue {
    fn prefetch(&self) -> usize {
        self.options.prefetch.into()
    }

    fn receive(&self, pull: Pull) -> BoxFuture<'_, Result<Vec<Inbound>, BrokerError>> {
        Box::pin(self.pull(pull))
    }

    fn ack(&self, handles: Vec<Handle>) -> BoxFuture<'_, Answer> {
        Box::pin(async move { self.acks.acknowledge(&handles).await })
    }

    fn give_back(&self, handles: Vec<Handle>) -> BoxFuture<'_, Answer> {
        Box::pin(async move { self.acks.hand_back(&handles).await })
    }

    fn extend(&self, _: Vec<Handle>, _: Duration) -> BoxFuture<'_, Answer> {
        // AMQP knows no such time: a message is ours while the channel is open.
        Box::pin(std::future::ready(Ok(())))
    }

    fn depth(&self) -> BoxFuture<'_, Result<Depth, BrokerError>> {
        Box::pin(async move {
            let channel = self.link.channel().await?;
            let passive = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let asked = channel.queue_declare(self.name()?, passive, FieldTable::default());
            let ready = match answered(asked).await {
                Ok(queue) => queue.message_count().into(),
                // One that is still to be made holds nothing.
                Err(BrokerError::Refused {
                    code: "NotFound", ..
                }) => 0,
                Err(error) => return Err(error),
            };
            close(&channel).await;
            Ok(Depth {
                ready,
                unsettled: None,
            })
        })
    }
}
