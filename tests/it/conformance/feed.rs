//! What brings messages to a node: a queue at a broker, or HTTP.

use super::unique;
use crate::brokers::{declare, publish, with_channel};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, Project, Running, aws, rabbitmq};
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// By what messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    RabbitMq,
    Sqs,
    Http,
}

/// A message on its way to a source.
#[derive(Clone, Debug)]
pub struct Message {
    /// What the sender calls it, where the broker carries a name.
    pub id: String,
    pub body: Vec<u8>,
}

/// A project whose source `feed` brings messages, and who sends them.
pub struct Feed {
    pub by: By,
    pub project: Project,
    queue: String,
    /// Stands between the node and the broker.
    pub proxy: Proxy,
}

/// An envelope with an id.
pub fn envelope(id: &str, detail: &Value) -> Message {
    let event = json!({ "id": id, "source": "suite", "detail-type": "T", "detail": detail });
    Message {
        id: id.to_owned(),
        body: event.to_string().into_bytes(),
    }
}

impl Feed {
    /// `more`: further fields of the source, each ending with a comma.
    pub fn new(by: By, more: &str) -> Self {
        let (project, queue) = (Project::new(), unique("feed"));
        let broker = match by {
            By::RabbitMq => rabbitmq::shared().address(),
            By::Sqs | By::Http => aws::shared().address(),
        };
        let proxy = Proxy::start(broker);
        let at = proxy.address();
        let yaml = match by {
            By::RabbitMq => format!(
                "connections: {{ broker: {{ amqp: {{ hosts: \"{at}\", heartbeat: 2s }} }} }}\nsources: {{ feed: {{ amqp: {{ {more} connection: broker, queue: {queue} }} }} }}\n"
            ),
            By::Sqs => format!(
                "connections: {{ broker: {} }}\nsources: {{ feed: {{ sqs: {{ {more} connection: broker, queue: {queue}, visibility: 3s }} }} }}\n",
                aws::shared().connection_by(&format!("http://{at}"))
            ),
            By::Http => "sources: {}\n".to_owned(),
        };
        project.write("rules/feed.yaml", yaml);
        // Somebody takes what comes, so that the books have something to say.
        project.write(
            "rules/all.yaml",
            "rules: { all: { pattern: { source: [suite, pointsman.message, aws.s3] }, targets: [{ handler: note }] } }\nhandlers: { note: { exec: { command: [sh, -c, 'cat >> got.ndjson'] } } }\n",
        );
        let feed = Self {
            by,
            project,
            queue,
            proxy,
        };
        feed.make_queue();
        feed
    }

    /// Sets fields of `node`.
    pub fn node(&self, fields: &str) {
        let text = format!("node: {{ listen: 127.0.0.1:0, {fields} }}\n");
        self.project.write("pointsman.yaml", text);
    }

    fn make_queue(&self) {
        match self.by {
            By::RabbitMq => with_channel(&rabbitmq::shared().url(), async |channel| {
                declare(&channel, &self.queue, "quorum").await;
            }),
            By::Sqs => {
                drop(aws::shared().boto("sqs.create_queue(QueueName=args[0])", &[&self.queue]))
            }
            By::Http => {}
        }
    }

    /// Puts messages into the queue; by HTTP, posts them until each is answered with
    /// 202, as a sender does that wants to be sure.
    pub fn send(&self, node: Option<&Running>, messages: &[Message]) {
        match (self.by, node) {
            (By::RabbitMq, _) => with_channel(&rabbitmq::shared().url(), async |channel| {
                for message in messages {
                    let properties =
                        BasicProperties::default().with_message_id(message.id.as_str().into());
                    publish(&channel, &self.queue, &message.body, properties).await;
                }
            }),
            (By::Sqs, _) => self.send_by_sqs(messages),
            (By::Http, Some(node)) => {
                for message in messages {
                    let answer = post(node, &message.body).expect("an answer");
                    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
                }
            }
            (By::Http, None) => panic!("there is nobody to post to"),
        }
    }

    /// What is no text goes in as Pointsman itself sends it: in base64, which an
    /// attribute says.
    fn send_by_sqs(&self, messages: &[Message]) {
        use base64::Engine as _;
        let encode = |body: &[u8]| base64::engine::general_purpose::STANDARD.encode(body);
        let all: Vec<Value> = messages
            .iter()
            .map(|message| match std::str::from_utf8(&message.body) {
                // SQS takes the characters that XML 1.0 has.
                Ok(text) if !text.contains('\u{ffff}') => json!({ "body": text }),
                _ => json!({ "base64": encode(&message.body) }),
            })
            .collect();
        let file = self.project.write("sent.json", json!(all).to_string());
        let script = "
url = sqs.get_queue_url(QueueName=args[0])['QueueUrl']
said = {'pointsman-encoding': {'DataType': 'String', 'StringValue': 'base64'}}
def entry(n, m):
    if 'body' in m:
        return {'Id': str(n), 'MessageBody': m['body']}
    return {'Id': str(n), 'MessageBody': m['base64'], 'MessageAttributes': said}
entries = [entry(n, m) for n, m in enumerate(json.load(open(args[1])))]
for n in range(0, len(entries), 10):
    done = sqs.send_message_batch(QueueUrl=url, Entries=entries[n:n + 10])
    assert not done.get('Failed'), done
";
        let file = file.to_str().expect("a path").to_owned();
        aws::shared().boto(script, &[&self.queue, &file]);
    }

    /// Messages that wait at the broker, and those that somebody has, where the
    /// broker tells.
    pub fn left(&self) -> (u64, u64) {
        match self.by {
            By::Http => (0, 0),
            By::RabbitMq => with_channel(&rabbitmq::shared().url(), async |channel| {
                let passive = QueueDeclareOptions {
                    passive: true,
                    ..QueueDeclareOptions::default()
                };
                let name = self.queue.as_str().into();
                let declared = channel.queue_declare(name, passive, FieldTable::default());
                (declared.await.expect("a queue").message_count().into(), 0)
            }),
            By::Sqs => {
                let script = "
url = sqs.get_queue_url(QueueName=args[0])['QueueUrl']
a = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=['All'])['Attributes']
print(a['ApproximateNumberOfMessages'], a['ApproximateNumberOfMessagesNotVisible'])
";
                let said = aws::shared().boto(script, &[&self.queue]);
                let mut numbers = said
                    .split_whitespace()
                    .map(|n| n.parse().expect("a number"));
                (numbers.next().expect("one"), numbers.next().expect("two"))
            }
        }
    }

    /// The events on the bus, as they came, without those of [`Feed::fill`].
    pub fn listed(&self) -> Vec<Value> {
        let all = ["events", "list", "--limit", "10000", "--json"];
        let lines = self.project.json_lines(&all).into_iter();
        lines
            .map(|mut line| line["event"].take())
            .filter(|event| event["source"] != "filler")
            .collect()
    }

    /// Posts events until the bus takes no more; the refusal.
    pub fn fill(node: &Running) -> String {
        let text = "x".repeat(8_192);
        for n in 0..10_000 {
            let event = json!({ "source": "filler", "detail-type": "T", "detail": { "n": n, "text": text } });
            let answer = post(node, event.to_string().as_bytes()).expect("an answer");
            if !answer.starts_with("HTTP/1.1 202") {
                return answer;
            }
        }
        panic!("never full");
    }

    /// The events on the bus, by id, with how often each is there.
    pub fn events(&self) -> BTreeMap<String, (usize, Value)> {
        let mut events: BTreeMap<String, (usize, Value)> = BTreeMap::new();
        for event in self.listed() {
            let id = event["id"].as_str().expect("an id").to_owned();
            events.entry(id).or_insert((0, event)).0 += 1;
        }
        events
    }

    /// Waits until there are that many events, for as long as there is progress; and
    /// until the queue is empty.
    pub fn wait_for(&self, node: &Running, count: usize) -> BTreeMap<String, (usize, Value)> {
        let (mut best, mut since) = (0, Instant::now());
        loop {
            let events = self.events();
            if events.len() >= count && self.left() == (0, 0) {
                return events;
            }
            if events.len() > best {
                (best, since) = (events.len(), Instant::now());
            }
            assert!(
                since.elapsed() < PATIENCE,
                "{best} of {count} events, {:?} left:\n{}",
                self.left(),
                node.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How the source stands.
    pub fn status(&self) -> Value {
        self.project.json(&["sources", "--json"])["feed"].clone()
    }
}

/// Posts an event to a node; the whole answer, or `None` when there is none.
pub fn post(node: &Running, body: &[u8]) -> Option<String> {
    let url = node.url();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}
