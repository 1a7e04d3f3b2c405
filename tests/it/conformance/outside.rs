//! Subscribers outside: what a publisher sends, as another program gets it.

use super::unique;
use crate::brokers::with_channel;
use crate::support::proxy::Proxy;
use crate::support::receiver::{Receiver, Reply};
use crate::support::{aws, rabbitmq};
use lapin::ExchangeKind;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where messages are published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Webhook,
    RabbitMq,
    Sns,
}

/// A message as it arrived.
#[derive(Clone, Debug)]
pub struct Got {
    pub body: String,
    pub headers: BTreeMap<String, String>,
    /// What the exchange sorted it by.
    pub routing_key: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// A subscriber of a system.
pub struct Outside {
    system: System,
    /// Of the exchange or topic, and of the queue that gets all of it.
    pub name: String,
    receiver: Option<Receiver>,
    is_open: Arc<AtomicBool>,
    got: Vec<Got>,
}

/// A topic with a queue that gets its messages as they are.
const SUBSCRIBE: &str = r#"
fifo = {"FifoTopic": "true"} if args[0].endswith(".fifo") else {}
topic = sns.create_topic(Name=args[0], Attributes=fifo)["TopicArn"]
queue = sqs.create_queue(QueueName=args[0], Attributes={"FifoQueue": "true"} if fifo else {})["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
"#;

/// Takes all that waits in a queue.
const TAKE: &str = r#"
url = sqs.get_queue_url(QueueName=args[0])["QueueUrl"]
while True:
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"],
                              AttributeNames=["All"]).get("Messages", [])
    if not got:
        break
    for m in got:
        attributes = {k: v["StringValue"] for k, v in m.get("MessageAttributes", {}).items()}
        attributes["group"] = m.get("Attributes", {}).get("MessageGroupId", "")
        print(json.dumps({"body": m["Body"], "headers": attributes}))
    sqs.delete_message_batch(QueueUrl=url, Entries=[
        {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(got)])
"#;

impl Outside {
    /// A subscriber that is ready for messages.
    pub fn new(system: System) -> Self {
        let outside = Self::closed(system, &unique("outside"));
        outside.open();
        outside
    }

    /// A subscriber that refuses messages until it is opened.
    pub fn closed(system: System, name: &str) -> Self {
        let is_open = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&is_open);
        let receiver = move || {
            Receiver::start(move |_, _| {
                Reply::status(if open.load(Ordering::Relaxed) {
                    200
                } else {
                    404
                })
            })
        };
        Self {
            system,
            name: name.to_owned(),
            receiver: (system == System::Webhook).then(receiver),
            is_open,
            got: Vec::new(),
        }
    }

    /// From now on it takes messages.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        match self.system {
            System::Webhook => {}
            System::RabbitMq => with_channel(&rabbitmq::shared().url(), async |channel| {
                let name = self.name.as_str();
                let durable = ExchangeDeclareOptions {
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                let none = FieldTable::default;
                channel
                    .exchange_declare(name.into(), ExchangeKind::Topic, durable, none())
                    .await
                    .expect("an exchange");
                channel
                    .queue_declare(name.into(), QueueDeclareOptions::durable(), none())
                    .await
                    .expect("a queue");
                let options = QueueBindOptions::default();
                channel
                    .queue_bind(name.into(), name.into(), "#".into(), options, none())
                    .await
                    .expect("a binding");
            }),
            System::Sns => drop(aws::shared().boto(SUBSCRIBE, &[&self.name])),
        }
    }

    /// Where it really is.
    pub fn address(&self) -> SocketAddr {
        let parse = |url: String| url["http://".len()..].parse().expect("an address");
        match (self.system, &self.receiver) {
            (_, Some(receiver)) => parse(receiver.url("")),
            (System::Sns, _) => parse(aws::shared().url()),
            _ => rabbitmq::shared().address(),
        }
    }

    /// The connections that it is reached by, as YAML; through a proxy where there is one.
    pub fn connections(&self, via: Option<&Proxy>) -> String {
        let address = via.map_or_else(|| self.address(), Proxy::address);
        match self.system {
            System::Webhook => "connections: {}\n".to_owned(),
            System::RabbitMq => format!(
                "connections: {{ outside: {{ amqp: {{ hosts: \"{address}\", heartbeat: 2s }} }} }}\n"
            ),
            System::Sns => format!(
                "connections: {{ outside: {{ aws: {{ endpoint: \"http://{address}\", region: eu-west-1, access_key_id: test, secret_access_key: test }} }} }}\n"
            ),
        }
    }

    /// The field of a target or subscription that leads to it; `more`: further fields
    /// of it, each after a comma.
    pub fn target(&self, via: Option<&Proxy>, more: &str) -> String {
        let name = &self.name;
        match self.system {
            System::Webhook => {
                let address = via.map_or_else(|| self.address(), Proxy::address);
                format!(
                    "webhook: {{ url: 'http://{address}/hook', allow_private: true, circuit: {{ failures: 1, pause: 200ms, max_pause: 1s }}{more} }}"
                )
            }
            System::RabbitMq => {
                format!("amqp: {{ connection: outside, exchange: {name}{more} }}")
            }
            System::Sns => format!("sns: {{ connection: outside, topic: {name}{more} }}"),
        }
    }

    /// All that has arrived so far, in the order of arrival.
    pub fn got(&mut self) -> &[Got] {
        let new = match (self.system, &self.receiver) {
            (_, Some(receiver)) => receiver.got("/hook")[self.got.len()..]
                .iter()
                .map(|got| Got {
                    body: got.body.clone(),
                    headers: BTreeMap::new(),
                    routing_key: String::new(),
                })
                .collect(),
            (System::Sns, _) => self.taken_from_sqs(),
            _ => self.taken_from_rabbitmq(),
        };
        self.got.extend::<Vec<Got>>(new);
        &self.got
    }

    fn taken_from_sqs(&self) -> Vec<Got> {
        let said = aws::shared().boto(TAKE, &[&self.name]);
        let line = |line: &str| {
            let message: Value = serde_json::from_str(line).expect("JSON");
            Got {
                body: message["body"].as_str().expect("a body").to_owned(),
                headers: serde_json::from_value(message["headers"].clone()).expect("texts"),
                routing_key: String::new(),
            }
        };
        said.lines().map(line).collect()
    }

    fn taken_from_rabbitmq(&self) -> Vec<Got> {
        with_channel(&rabbitmq::shared().url(), async |channel| {
            let mut got = Vec::new();
            let options = BasicGetOptions { no_ack: true };
            while let Some(message) = channel
                .basic_get(self.name.as_str().into(), options)
                .await
                .expect("an answer")
            {
                got.push(of_amqp(&message.delivery));
            }
            got
        })
    }
}

/// Properties stand among the headers, each under its name in AMQP.
fn of_amqp(delivery: &lapin::message::Delivery) -> Got {
    let properties = &delivery.properties;
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if let AMQPValue::LongString(text) = value {
            headers.insert(name.to_string(), text.to_string());
        }
    }
    let named = [
        ("message-id", properties.message_id()),
        ("content-type", properties.content_type()),
        ("type", properties.kind()),
        ("app-id", properties.app_id()),
    ];
    for (name, value) in named {
        headers.extend(value.as_ref().map(|v| (name.to_owned(), v.to_string())));
    }
    let time = properties.timestamp().map(|t| t.to_string());
    headers.extend(time.map(|t| ("timestamp".to_owned(), t)));
    let mode = properties.delivery_mode().map(|m| m.to_string());
    headers.extend(mode.map(|m| ("delivery-mode".to_owned(), m)));
    Got {
        body: String::from_utf8_lossy(&delivery.data).into_owned(),
        headers,
        routing_key: delivery.routing_key.to_string(),
    }
}
