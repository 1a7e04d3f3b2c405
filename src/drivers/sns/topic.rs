//! A topic on SNS (<https://docs.aws.amazon.com/sns/latest/api/>), published to.

use crate::drivers::Finding;
use crate::drivers::sqs::batch::{
    Answer, ENCODING, calls, digest, in_calls, malformed, place, text,
};
use crate::drivers::sqs::{AwsOptions, entry_refused, permitted, refused, sdk_config};
use crate::queues::{BrokerError, Limits, Outbound, Publisher};
use aws_sdk_sns::Client;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::ops::Range;
use tokio::sync::OnceCell;

/// Most bytes of a message with its attributes, and of all messages in one call
/// (<https://docs.aws.amazon.com/general/latest/gr/sns.html#limits_sns>).
const MAX_BYTES: usize = 256 * 1024;

/// Headers of queues' messages that say nothing to a subscriber.
const NO_ATTRIBUTES: [&str; 2] = ["pointsman-accepted", "pointsman-key"];

/// Messages that are published at the same time, in calls of ten.
const BATCH: usize = 100;

/// A topic, and how it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOptions {
    /// Its name, or its ARN. A name that ends with `.fifo` is a FIFO topic's.
    pub topic: String,
    /// Whether it is made when it is missing; never where the ARN is given.
    pub declare: bool,
}

impl TopicOptions {
    fn fifo(&self) -> bool {
        self.topic.ends_with(".fifo")
    }
}

/// A topic on SNS.
pub struct SnsTopic {
    label: String,
    options: TopicOptions,
    aws: AwsOptions,
    /// The client and the topic's ARN.
    open: OnceCell<(Client, String)>,
}

impl SnsTopic {
    /// The topic behind a connection; it connects when it is first used.
    #[must_use]
    pub fn new(options: TopicOptions, aws: AwsOptions) -> Self {
        Self {
            label: format!("sns {}/{}", aws.name, options.topic),
            options,
            aws,
            open: OnceCell::new(),
        }
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} `{}`", self.options.topic)
    }

    async fn client(&self) -> Result<&(Client, String), BrokerError> {
        self.open.get_or_try_init(|| self.connect()).await
    }

    /// Finds the topic, or makes it where that is wanted.
    async fn connect(&self) -> Result<(Client, String), BrokerError> {
        let client = Client::new(&sdk_config(&self.aws).await);
        let name = &self.options.topic;
        if name.starts_with("arn:") {
            return Ok((client, name.clone()));
        }
        if !self.options.declare {
            let arn = self.find(&client).await?;
            return Ok((client, arn));
        }
        // Making a topic that is there answers with its ARN.
        let mut create = client.create_topic().name(name);
        if self.options.fifo() {
            create = create.attributes("FifoTopic", "true");
        }
        let made = create.send().await;
        let made = made.map_err(|e| refused(&e, &self.doing("making the topic")))?;
        Ok((client, made.topic_arn.unwrap_or_default()))
    }

    async fn find(&self, client: &Client) -> Result<String, BrokerError> {
        let suffix = format!(":{}", self.options.topic);
        let mut pages = client.list_topics().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| refused(&e, &self.doing("looking for the topic")))?;
            let mut arns = page.topics.unwrap_or_default().into_iter();
            if let Some(arn) = arns.find_map(|t| t.topic_arn.filter(|a| a.ends_with(&suffix))) {
                return Ok(arn);
            }
        }
        Err(BrokerError::Refused {
            code: "NoSuchTopic",
            reason: format!(
                "there is no topic `{}`; make it, or let it be made with `declare: true`",
                self.options.topic
            ),
            permanent: false,
        })
    }

    /// Looks whether the topic is there and can be published to. Makes nothing, and
    /// publishes nothing.
    pub async fn check(&self) -> Vec<Finding> {
        let client = Client::new(&sdk_config(&self.aws).await);
        let arn = match self.options.topic.starts_with("arn:") {
            true => Ok(self.options.topic.clone()),
            false => self.find(&client).await,
        };
        let arn = match arn {
            Ok(arn) => arn,
            Err(BrokerError::Refused {
                code: "NoSuchTopic",
                ..
            }) if self.options.declare => {
                return vec![Ok("the topic is made at the start".to_owned())];
            }
            Err(error) => return vec![Err(error.to_string())],
        };
        let asked = client.get_topic_attributes().topic_arn(&arn).send().await;
        let there = match asked {
            Ok(_) => Ok("the topic is there".to_owned()),
            Err(error) => Err(refused(&error, &self.doing("asking about the topic")).to_string()),
        };
        let publish = client.publish_batch().topic_arn(&arn);
        let publish = publish.set_publish_batch_request_entries(Some(Vec::new()));
        let written = permitted(publish.send().await, &self.doing("publishing to the topic"));
        let written = written.map(|()| "it can be published to".to_owned());
        vec![there, written.map_err(|error| error.to_string())]
    }

    async fn publish_all(&self, batch: Vec<Outbound>) -> Vec<Answer> {
        let (client, arn) = match self.client().await {
            Ok(open) => open,
            Err(error) => return vec![Err(error); batch.len()],
        };
        let calls = calls(batch.len(), MAX_BYTES, |n| size(&batch[n]));
        let send = |call: Range<usize>| self.send(client, arn, &batch[call]);
        in_calls(calls, self.options.fifo(), send).await
    }

    /// One call: an answer for each message.
    async fn send(&self, client: &Client, arn: &str, messages: &[Outbound]) -> Vec<Answer> {
        if let [large] = messages
            && size(large) > MAX_BYTES
        {
            return vec![Err(too_large(size(large)))];
        }
        let what = self.doing("publishing to the topic");
        let entries = messages.iter().enumerate().map(|(n, m)| self.entry(n, m));
        let entries: Result<Vec<_>, BrokerError> = entries.collect();
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return vec![Err(error); messages.len()],
        };
        let sent = client
            .publish_batch()
            .topic_arn(arn)
            .set_publish_batch_request_entries(Some(entries))
            .send()
            .await;
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => return vec![Err(refused(&error, &what)); messages.len()],
        };
        // What is named neither here nor there is not known to have arrived.
        let unknown = BrokerError::Unavailable(format!("{what}: no answer for this message"));
        let mut answers = vec![Err(unknown); messages.len()];
        for done in sent.successful.unwrap_or_default() {
            if let Some(answer) = place(&mut answers, done.id.as_deref().unwrap_or_default()) {
                *answer = Ok(());
            }
        }
        for failed in sent.failed.unwrap_or_default() {
            let told = entry_refused(failed.code(), failed.message(), failed.sender_fault, &what);
            if let Some(answer) = place(&mut answers, &failed.id) {
                *answer = Err(told);
            }
        }
        answers
    }

    fn entry(
        &self,
        index: usize,
        message: &Outbound,
    ) -> Result<PublishBatchRequestEntry, BrokerError> {
        let (body, encoded) = text(&message.body);
        let mut entry = PublishBatchRequestEntry::builder()
            .id(index.to_string())
            .message(body);
        for (name, value) in attributes(message, encoded) {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                .map_err(|e| malformed(&e))?;
            entry = entry.message_attributes(name, value);
        }
        if self.options.fifo() {
            // Without a key each message is a group of its own: no order is kept.
            let group = message.order_key.as_ref().unwrap_or(&message.delivery);
            entry = entry
                .message_group_id(digest(group))
                .message_deduplication_id(digest(&message.delivery));
        }
        entry.build().map_err(|e| malformed(&e))
    }
}

/// The attributes of a message: subscribers' filter policies look at them. With more
/// than ten, SNS drops the message on its way to a queue that gets it raw.
fn attributes(message: &Outbound, encoded: bool) -> impl Iterator<Item = (&str, &str)> {
    let headers = message.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
    let named = [("source", &message.source), ("detail-type", &message.kind)];
    let named = named
        .into_iter()
        .map(|(name, value)| (name, value.as_str()));
    let encoding = encoded.then_some((ENCODING, "base64"));
    headers
        .filter(|(name, _)| !NO_ATTRIBUTES.contains(name))
        .chain(named.filter(|(_, value)| !value.is_empty()))
        .chain(encoding)
}

/// What a message counts: its body, and names, types and values of its attributes.
fn size(message: &Outbound) -> usize {
    let (body, encoded) = text(&message.body);
    let attributes = attributes(message, encoded);
    body.len()
        + attributes
            .map(|(n, v)| n.len() + v.len() + 6)
            .sum::<usize>()
}

fn too_large(bytes: usize) -> BrokerError {
    BrokerError::Refused {
        code: "MessageTooLarge",
        reason: format!(
            "the message has {bytes} bytes with its attributes; SNS takes {MAX_BYTES} (publish a part of it with `input_path`, or a reference to it)"
        ),
        permanent: true,
    }
}

impl Publisher for SnsTopic {
    fn label(&self) -> &str {
        &self.label
    }

    fn limits(&self) -> Limits {
        Limits {
            body_bytes: MAX_BYTES,
            batch: BATCH,
        }
    }

    fn publish(&self, batch: Vec<Outbound>) -> BoxFuture<'_, Vec<Answer>> {
        self.publish_all(batch).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // There is no session; idle connections go with the client.
        std::future::ready(()).boxed()
    }
}
