//! An exchange on an AMQP broker, published to.

use super::link::{Link, answered};
use super::publish::{
    Answer, BATCH, Channels, NOT_CONFIRMED, UNROUTABLE, confirms, publish, short,
};
use super::queue::Declare;
use crate::drivers::Finding;
use crate::queues::{BrokerError, Limits, Outbound, Publisher};
use futures::future::BoxFuture;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};
use std::sync::Arc;

/// An exchange, and how it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeOptions {
    /// Its name at the broker, at most 255 bytes.
    pub exchange: String,
    /// Whether it is made when it is missing; made durable.
    pub declare: Declare,
    /// Its type, where we make it.
    pub kind: Type,
    /// Largest body in bytes; a larger one is refused.
    pub max_message_bytes: usize,
}

/// Types of exchanges
/// (<https://www.rabbitmq.com/tutorials/amqp-concepts#exchanges>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Queues are bound by patterns of the routing key.
    Topic,
    /// Queues are bound by routing keys.
    Direct,
    /// All bound queues get everything.
    Fanout,
}

impl Type {
    /// The words of `kind`.
    pub const WORDS: [(&'static str, Self); 3] = [
        ("topic", Self::Topic),
        ("direct", Self::Direct),
        ("fanout", Self::Fanout),
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Direct => "direct",
            Self::Fanout => "fanout",
        }
    }
}

/// An exchange on an AMQP broker.
pub struct AmqpExchange {
    label: String,
    options: ExchangeOptions,
    link: Arc<Link>,
    channels: Channels,
}

impl AmqpExchange {
    /// The exchange behind a link, which others may use, too.
    #[must_use]
    pub fn new(options: ExchangeOptions, link: Arc<Link>) -> Self {
        Self {
            label: format!("amqp {}/{}", link.name(), options.exchange),
            options,
            link,
            channels: Channels::default(),
        }
    }

    /// Makes the exchange, or looks whether it is there.
    async fn declare(&self, channel: &Channel, passive: bool) -> Result<(), BrokerError> {
        let kind = match self.options.kind {
            Type::Topic => ExchangeKind::Topic,
            Type::Direct => ExchangeKind::Direct,
            Type::Fanout => ExchangeKind::Fanout,
        };
        let options = ExchangeDeclareOptions {
            passive,
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let name = short(&self.options.exchange)?;
        let declared = channel.exchange_declare(name, kind, options, FieldTable::default());
        answered(declared).await
    }

    fn passive(&self) -> bool {
        self.options.declare == Declare::Passive
    }

    async fn channel(&self) -> Result<Channel, BrokerError> {
        if let Some(channel) = self.channels.take() {
            return Ok(channel);
        }
        let channel = self.link.channel().await?;
        self.declare(&channel, self.passive()).await?;
        confirms(&channel).await?;
        Ok(channel)
    }

    async fn publish_all(&self, batch: Vec<Outbound>) -> Vec<Answer> {
        let count = batch.len();
        if let Some(blocked) = self.link.refusal() {
            return vec![Err(blocked); count];
        }
        let prepared = self.channel().await;
        let prepared = prepared.and_then(|c| Ok((c, short(&self.options.exchange)?)));
        let (channel, exchange) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return vec![Err(self.waits(error)); count],
        };
        let limit = self.options.max_message_bytes;
        let key = |message: &Outbound| match message.body.len() {
            bytes if bytes > limit => Err(BrokerError::Refused {
                code: "MessageTooLarge",
                reason: format!(
                    "the message has {bytes} bytes; `max_message_size` lets {limit} through"
                ),
                permanent: true,
            }),
            _ => routing_key(message),
        };
        let answers = publish(&channel, &exchange, &batch, key).await;
        self.channels.put(channel);
        let waits = |answer: Answer| answer.map_err(|error| self.waits(error));
        answers.into_iter().map(waits).collect()
    }

    /// An exchange that is not there, or not as it should be, is no fault of the
    /// messages: they wait.
    fn waits(&self, error: BrokerError) -> BrokerError {
        match error {
            BrokerError::Refused {
                code,
                permanent: false,
                reason,
            } if code != UNROUTABLE && code != NOT_CONFIRMED => {
                BrokerError::Unavailable(reason + self.hint(code))
            }
            error => error,
        }
    }

    fn hint(&self, code: &str) -> &'static str {
        match (code, self.passive()) {
            ("NotFound", true) => " (`declare: true` makes the exchange)",
            ("PreconditionFailed", false) => {
                " (the exchange is there and differs; `declare: passive` takes it as it is)"
            }
            _ => "",
        }
    }

    /// Looks whether the exchange is there and as it should be, and whether it can
    /// be written. Makes nothing, and no message reaches anybody.
    pub async fn check(&self) -> Vec<Finding> {
        let told = |error: BrokerError| Err(self.waits(error).to_string());
        match self.look().await {
            Err(BrokerError::Refused { code, .. }) if code == "NotFound" && !self.passive() => {
                return vec![Ok("the exchange is made at the start".to_owned())];
            }
            Err(error) => return vec![told(error)],
            Ok(()) => {}
        }
        let there = match self.compare().await {
            Ok(()) => Ok("the exchange is there".to_owned()),
            Err(error) => told(error),
        };
        let written = match self.write().await {
            Ok(()) => Ok("it can be written".to_owned()),
            Err(error) => told(error),
        };
        vec![there, written]
    }

    async fn look(&self) -> Result<(), BrokerError> {
        let channel = self.link.channel().await?;
        self.declare(&channel, true).await
    }

    /// It is there: making it now only compares.
    async fn compare(&self) -> Result<(), BrokerError> {
        let channel = self.link.channel().await?;
        self.declare(&channel, self.passive()).await
    }

    /// Publishes in a transaction that is taken back: the permission is asked for,
    /// and no queue sees the message.
    async fn write(&self) -> Result<(), BrokerError> {
        let channel = self.link.channel().await?;
        let select = channel.tx_select();
        answered(select).await?;
        let sent = channel.basic_publish(
            short(&self.options.exchange)?,
            short("pointsman.check")?,
            BasicPublishOptions::default(),
            &[],
            BasicProperties::default(),
        );
        answered(sent).await?;
        let back = channel.tx_rollback();
        answered(back).await
    }
}

fn routing_key(message: &Outbound) -> Result<lapin::types::ShortString, BrokerError> {
    let key = message.routing_key.as_deref().unwrap_or_default();
    short(key).map_err(|_| BrokerError::Refused {
        code: "RoutingKeyTooLong",
        reason: format!(
            "the routing key has {} bytes; AMQP allows 255: `{key}`",
            key.len()
        ),
        permanent: true,
    })
}

impl Publisher for AmqpExchange {
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
        Box::pin(self.link.close())
    }
}
