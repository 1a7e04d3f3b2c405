//! Looking whether a broker will do as it is asked, before anything runs.

use super::link::{Link, answered};
use super::queue::{AmqpQueue, Declare};
use crate::drivers::Finding;
use crate::queues::BrokerError;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};

/// Tries to connect.
pub async fn check_link(link: &Link) -> Finding {
    match link.channel().await {
        Ok(_) => Ok("connected".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl AmqpQueue {
    /// Looks whether the queue is there and as it should be, whether it can be
    /// written and read, and whether its dead letters have somewhere to go. Makes
    /// nothing and takes nothing.
    pub async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let there = self.look().await;
        let ready = match there {
            Ok(ready) => ready,
            Err(finding) => {
                findings.push(finding);
                return findings;
            }
        };
        match ready {
            Some(ready) => findings.push(Ok(format!("the queue is there; {ready} messages wait"))),
            None => findings.push(Ok("the queue is made at the start".to_owned())),
        }
        findings.push(self.told("it can be written", self.write().await));
        if ready == Some(0) {
            // A consumer of a queue with messages would be given some.
            findings.push(self.told("it can be read", self.read().await));
        }
        if let Some(exchange) = &self.options().dead_letter_exchange {
            let said = format!("the dead-letter exchange `{exchange}` is there");
            findings.push(self.told(&said, self.exchange(exchange).await));
        }
        findings
    }

    fn told(&self, well: &str, checked: Result<(), BrokerError>) -> Finding {
        match checked {
            Ok(()) => Ok(well.to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// How many messages wait in the queue; `None` when it is still to be made.
    async fn look(&self) -> Result<Option<u64>, Finding> {
        let wrong = |error: &BrokerError| Err(error.to_string());
        let channel = self.channel().await.map_err(|e| wrong(&e))?;
        let name = self.name().map_err(|e| wrong(&e))?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let active = self.options().declare == Declare::Active;
        let declared = channel.queue_declare(name, options, FieldTable::default());
        match answered(declared).await {
            Ok(queue) if !active => return Ok(Some(queue.message_count().into())),
            Ok(_) => {}
            Err(error) => {
                let missing = matches!(
                    error,
                    BrokerError::Refused {
                        code: "NotFound",
                        ..
                    }
                );
                return match missing && active {
                    true => Ok(None),
                    false => Err(wrong(&error)),
                };
            }
        }
        // It is there: making it now only compares.
        let channel = self.channel().await.map_err(|e| wrong(&e))?;
        let same = self.declare(&channel).await;
        same.map(Some).map_err(|e| {
            Err(format!(
                "the queue is not as it would be made: {e} (`declare: passive` takes it as it is)"
            ))
        })
    }

    /// Publishes something that no queue takes: it comes back.
    async fn write(&self) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        answered(confirms).await?;
        let key = format!("pointsman.check.{}", crate::event::random_id());
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let sent = channel.basic_publish(
            ShortString::default(),
            super::publish::short(&key)?,
            options,
            &[],
            BasicProperties::default(),
        );
        let confirm = answered(sent).await?;
        answered(confirm).await?;
        Ok(())
    }

    async fn read(&self) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let qos = channel.basic_qos(1, BasicQosOptions::default());
        answered(qos).await?;
        let consumer = channel.basic_consume(
            self.name()?,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        answered(consumer).await?;
        close(&channel).await;
        Ok(())
    }

    async fn exchange(&self, name: &str) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let name = super::publish::short(name)?;
        let there =
            channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default());
        answered(there).await
    }
}

pub(super) async fn close(channel: &Channel) {
    // Whatever it still holds goes back to the queue.
    if let Err(error) = answered(channel.close(200, "done".into())).await {
        tracing::debug!(%error, "a channel was not closed in good order");
    }
}
