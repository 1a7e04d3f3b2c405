//! A queue on SQS (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/>).

use super::batch::{Answer, ENCODING, ENTRIES, calls, digest, in_calls, malformed, place, text};
use super::client::{AwsOptions, entry_refused, refused, sdk_config};
use crate::queues::{
    Broker, BrokerError, Depth, Handle, Headers, Inbound, Limits, Outbound, Publisher, Pull,
};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, Message, MessageAttributeValue, MessageSystemAttributeName,
    QueueAttributeName, SendMessageBatchRequestEntry,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// Most bytes of all messages in one call, attributes included: 1 MiB.
const CALL_BYTES: usize = 1024 * 1024;

/// What attributes may take of a message's size.
const ATTRIBUTE_BYTES: usize = 16 * 1024;

/// Messages that are sent at the same time, in calls of ten.
const BATCH: usize = 100;

/// Longest wait on a FIFO queue: a poll under way need not see the messages of
/// a group that is freed meanwhile.
const FIFO_WAIT: Duration = Duration::from_secs(1);

/// Longest time in which further messages are asked for, ten at a time.
const GATHERING: Duration = Duration::from_secs(1);

/// Longest time that SQS waits for a message.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Longest visibility timeout.
const LONGEST_VISIBILITY: Duration = Duration::from_secs(12 * 60 * 60);

/// A queue, and how it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Its name, or its URL. A name that ends with `.fifo` is a FIFO queue's.
    pub queue: String,
    /// Whether it is made when it is missing.
    pub declare: bool,
    /// Received messages that wait for a handler at most, from 1.
    pub prefetch: usize,
    /// Largest body in bytes; a larger one is kept in a file.
    pub max_message_bytes: usize,
}

impl QueueOptions {
    /// Largest body that SQS takes beside its attributes, in bytes.
    pub const MAX_BODY: usize = CALL_BYTES - ATTRIBUTE_BYTES;

    fn fifo(&self) -> bool {
        self.queue.ends_with(".fifo")
    }
}

/// A queue on SQS.
pub struct SqsQueue {
    label: String,
    options: QueueOptions,
    aws: AwsOptions,
    /// The client and the queue's URL.
    open: OnceCell<(Client, String)>,
    receipts: Mutex<HashMap<Handle, String>>,
    last_handle: AtomicU64,
}

impl SqsQueue {
    /// The queue behind a connection; it connects when it is first used.
    #[must_use]
    pub fn new(options: QueueOptions, aws: AwsOptions) -> Self {
        Self {
            label: format!("sqs {}/{}", aws.name, options.queue),
            options,
            aws,
            open: OnceCell::new(),
            receipts: Mutex::default(),
            last_handle: AtomicU64::new(0),
        }
    }

    fn receipts(&self) -> MutexGuard<'_, HashMap<Handle, String>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn doing(&self, what: &str) -> String {
        format!("{what} `{}`", self.options.queue)
    }

    async fn client(&self) -> Result<&(Client, String), BrokerError> {
        self.open.get_or_try_init(|| self.connect()).await
    }

    /// Finds the queue; `None` when it is still to be made.
    pub(super) async fn find(&self) -> Result<Option<(Client, String)>, BrokerError> {
        let client = Client::new(&sdk_config(&self.aws).await);
        let name = &self.options.queue;
        if name.contains("://") {
            return Ok(Some((client, name.clone())));
        }
        let found = client.get_queue_url().queue_name(name).send().await;
        match found {
            Ok(found) => Ok(Some((client, found.queue_url.unwrap_or_default()))),
            Err(error) => match refused(&error, &self.doing("finding the queue")) {
                BrokerError::Refused {
                    code: "NoSuchQueue",
                    ..
                } if self.options.declare => Ok(None),
                missing => Err(missing),
            },
        }
    }

    /// Finds the queue, and makes it where it is missing and that is wanted.
    async fn connect(&self) -> Result<(Client, String), BrokerError> {
        if let Some(found) = self.find().await? {
            return Ok(found);
        }
        let client = Client::new(&sdk_config(&self.aws).await);
        let name = &self.options.queue;
        let mut create = client.create_queue().queue_name(name);
        if self.options.fifo() {
            create = create.attributes(QueueAttributeName::FifoQueue, "true");
        }
        let made = create.send().await;
        let made = made.map_err(|e| refused(&e, &self.doing("making the queue")))?;
        Ok((client, made.queue_url.unwrap_or_default()))
    }

    async fn publish_all(&self, batch: Vec<Outbound>) -> Vec<Answer> {
        let (client, url) = match self.client().await {
            Ok(open) => open,
            Err(error) => return vec![Err(error); batch.len()],
        };
        let calls = calls(batch.len(), CALL_BYTES, |n| size(&batch[n]));
        let send = |call: std::ops::Range<usize>| self.send(client, url, &batch[call]);
        in_calls(calls, self.options.fifo(), send).await
    }

    /// One call: an answer for each message.
    async fn send(&self, client: &Client, url: &str, messages: &[Outbound]) -> Vec<Answer> {
        let what = self.doing("sending to the queue");
        let entries = messages.iter().enumerate().map(|(n, m)| self.entry(n, m));
        let entries: Result<Vec<_>, BrokerError> = entries.collect();
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return vec![Err(error); messages.len()],
        };
        let sent = client
            .send_message_batch()
            .queue_url(url)
            .set_entries(Some(entries))
            .send()
            .await;
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => return vec![Err(refused(&error, &what)); messages.len()],
        };
        // What is named neither here nor there is not known to have arrived.
        let unknown = BrokerError::Unavailable(format!("{what}: no answer for this message"));
        let mut answers = vec![Err(unknown); messages.len()];
        for done in &sent.successful {
            if let Some(answer) = place(&mut answers, &done.id) {
                *answer = Ok(());
            }
        }
        for failed in &sent.failed {
            if let Some(answer) = place(&mut answers, &failed.id) {
                *answer = Err(told(failed, &what));
            }
        }
        answers
    }

    fn entry(
        &self,
        index: usize,
        message: &Outbound,
    ) -> Result<SendMessageBatchRequestEntry, BrokerError> {
        let (body, encoded) = text(&message.body);
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(index.to_string())
            .message_body(body);
        let headers = message
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()));
        let encoding = encoded.then_some((ENCODING, "base64"));
        for (name, value) in headers.chain(encoding) {
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

    async fn receive_some(&self, pull: Pull) -> Result<Vec<Inbound>, BrokerError> {
        let (client, url) = self.client().await?;
        let mut all = Vec::new();
        let mut begun = None;
        let longest = if self.options.fifo() {
            FIFO_WAIT
        } else {
            LONGEST_WAIT
        };
        let mut wait = pull.wait.min(longest);
        loop {
            let max = (pull.max - all.len().min(pull.max)).min(ENTRIES);
            let received = client
                .receive_message()
                .queue_url(url)
                .max_number_of_messages(i32::try_from(max.max(1)).unwrap_or(1))
                .wait_time_seconds(seconds(wait))
                .visibility_timeout(seconds(pull.visibility.min(LONGEST_VISIBILITY)))
                .message_attribute_names("All")
                .message_system_attribute_names(MessageSystemAttributeName::All)
                .send()
                .await;
            let messages = match received {
                Ok(received) => received.messages.unwrap_or_default(),
                // What was received before is not lost for that.
                Err(_) if !all.is_empty() => return Ok(all),
                Err(error) => {
                    return Err(refused(&error, &self.doing("receiving from the queue")));
                }
            };
            let full = messages.len() == ENTRIES;
            let begun = *begun.get_or_insert_with(Instant::now);
            all.extend(messages.into_iter().map(|message| self.lend(message)));
            // The first must not wait for the last until it comes into sight again.
            let late = begun.elapsed() >= GATHERING.min(pull.visibility / 4);
            if !full || late || all.len() >= pull.max {
                return Ok(all);
            }
            wait = Duration::ZERO;
        }
    }

    fn lend(&self, message: Message) -> Inbound {
        let handle = self.last_handle.fetch_add(1, Ordering::Relaxed) + 1;
        let system = |name| {
            let attributes = message.attributes.as_ref()?;
            attributes.get(&name).cloned()
        };
        let count = system(MessageSystemAttributeName::ApproximateReceiveCount);
        let sent = system(MessageSystemAttributeName::SentTimestamp);
        let group = system(MessageSystemAttributeName::MessageGroupId);
        let attributes: BTreeMap<String, MessageAttributeValue> =
            (message.message_attributes.into_iter().flatten()).collect();
        let mut headers: Headers = attributes
            .iter()
            .filter_map(|(name, value)| {
                let bytes = || value.binary_value.as_ref().map(|b| STANDARD.encode(b));
                Some((name.as_str(), value.string_value.clone().or_else(bytes)?))
            })
            .collect();
        let body = message.body.unwrap_or_default();
        let body = match headers.remove(ENCODING).as_deref() {
            Some("base64") => STANDARD.decode(&body).unwrap_or_else(|_| body.into_bytes()),
            _ => body.into_bytes(),
        };
        if let Some(receipt) = message.receipt_handle {
            self.receipts().insert(handle, receipt);
        }
        Inbound {
            handle,
            identity: message.message_id.clone(),
            id: message.message_id,
            body: Bytes::from(body),
            content_type: None,
            sent_ms: sent.and_then(|ms| ms.parse().ok()),
            headers,
            order_key: group,
            receive_count: count.and_then(|n| n.parse().ok()).unwrap_or(1),
        }
    }

    /// The receipts behind handles that are still good, in calls of ten.
    fn known(&self, handles: &[Handle]) -> Vec<Vec<(Handle, String)>> {
        let receipts = self.receipts();
        let known: Vec<(Handle, String)> = handles
            .iter()
            .filter_map(|handle| Some((*handle, receipts.get(handle)?.clone())))
            .collect();
        known.chunks(ENTRIES).map(<[_]>::to_vec).collect()
    }

    async fn delete(&self, handles: Vec<Handle>) -> Answer {
        let (client, url) = self.client().await?;
        let what = self.doing("deleting from the queue");
        let mut worst = Ok(());
        for call in self.known(&handles) {
            let mut request = client.delete_message_batch().queue_url(url);
            for (handle, receipt) in &call {
                let entry = DeleteMessageBatchRequestEntry::builder()
                    .id(handle.to_string())
                    .receipt_handle(receipt)
                    .build();
                request = request.entries(entry.map_err(|e| malformed(&e))?);
            }
            match request.send().await {
                Err(error) => worst = Err(refused(&error, &what)),
                Ok(done) => {
                    let mut receipts = self.receipts();
                    let mut forget = |id: &str| id.parse().ok().map(|id| receipts.remove(&id));
                    for done in &done.successful {
                        forget(&done.id);
                    }
                    for failed in &done.failed {
                        // A receipt that is too old: the message comes again, and is known.
                        if failed.sender_fault {
                            forget(&failed.id);
                        } else {
                            worst = Err(told(failed, &what));
                        }
                    }
                }
            }
        }
        worst
    }

    async fn hide(&self, handles: Vec<Handle>, time: Duration, forget: bool) -> Answer {
        let (client, url) = self.client().await?;
        let what = self.doing("changing visibility in the queue");
        let seconds = seconds(time.min(LONGEST_VISIBILITY));
        let mut worst = Ok(());
        for call in self.known(&handles) {
            let mut request = client.change_message_visibility_batch().queue_url(url);
            for (handle, receipt) in &call {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(handle.to_string())
                    .receipt_handle(receipt)
                    .visibility_timeout(seconds)
                    .build();
                request = request.entries(entry.map_err(|e| malformed(&e))?);
            }
            match request.send().await {
                Err(error) => worst = Err(refused(&error, &what)),
                Ok(done) => {
                    let failed = done.failed.iter().find(|failed| !failed.sender_fault);
                    if let Some(failed) = failed {
                        worst = Err(told(failed, &what));
                    }
                }
            }
            if forget {
                let mut receipts = self.receipts();
                call.iter()
                    .for_each(|(handle, _)| drop(receipts.remove(handle)));
            }
        }
        worst
    }

    /// One that is still to be made holds nothing.
    async fn count(&self) -> Result<Depth, BrokerError> {
        let found = match self.open.get() {
            Some(open) => Some(open.clone()),
            None => self.find().await?,
        };
        let Some((client, url)) = found else {
            return Ok(Depth::default());
        };
        let asked = client
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
            .send()
            .await;
        let told = asked.map_err(|e| refused(&e, &self.doing("asking about the queue")))?;
        let attributes = told.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|n: &String| n.parse().ok());
        Ok(Depth {
            ready: number(QueueAttributeName::ApproximateNumberOfMessages).unwrap_or(0),
            unsettled: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        })
    }
}

impl Publisher for SqsQueue {
    fn label(&self) -> &str {
        &self.label
    }

    fn limits(&self) -> Limits {
        Limits {
            body_bytes: self.options.max_message_bytes.min(QueueOptions::MAX_BODY),
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

impl Broker for SqsQueue {
    fn prefetch(&self) -> usize {
        self.options.prefetch
    }

    fn receive(&self, pull: Pull) -> BoxFuture<'_, Result<Vec<Inbound>, BrokerError>> {
        self.receive_some(pull).boxed()
    }

    fn ack(&self, handles: Vec<Handle>) -> BoxFuture<'_, Answer> {
        self.delete(handles).boxed()
    }

    fn give_back(&self, handles: Vec<Handle>) -> BoxFuture<'_, Answer> {
        self.hide(handles, Duration::ZERO, true).boxed()
    }

    fn extend(&self, handles: Vec<Handle>, visibility: Duration) -> BoxFuture<'_, Answer> {
        self.hide(handles, visibility, false).boxed()
    }

    fn depth(&self) -> BoxFuture<'_, Result<Depth, BrokerError>> {
        self.count().boxed()
    }
}

fn told(failed: &BatchResultErrorEntry, what: &str) -> BrokerError {
    entry_refused(failed.code(), failed.message(), failed.sender_fault, what)
}

fn seconds(time: Duration) -> i32 {
    // A part of a second counts as one, or a short visibility would be none.
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

/// What a message counts, about.
fn size(message: &Outbound) -> usize {
    let headers = message.headers.iter().map(|(n, v)| n.len() + v.len() + 6);
    text(&message.body).0.len() + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_of_visibility_is_a_second() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::from_millis(1_500)), 2);
    }
}
