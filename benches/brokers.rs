//! Publishing with confirms to RabbitMQ and consuming from it with acknowledgements,
//! through Pointsman and through a program that does nothing else, by turns in one run
//! on one broker of its own. Prints a table.
//!
//! ```text
//! cargo bench --bench brokers                    # 50,000 messages, three rounds
//! cargo bench --bench brokers -- 10000 1
//! ```
//!
//! - A durable quorum queue, persistent messages of 1.2 kB with the properties and headers
//!   that Pointsman gives them, at most 1,000 of them unconfirmed or unacknowledged in the
//!   bare program.
//! - **bare**: publishes a window, waits for its confirms, publishes the next; consumes
//!   and acknowledges every hundredth message with all before it.
//! - **Pointsman, publish**: the events wait in its log, on a paused route; from the
//!   moment that it is resumed until the last is confirmed and settled in the log.
//! - **Pointsman, consume**: from the moment that the node runs until all messages are
//!   handled and acknowledged; each message is parsed, and handed in batches to a program
//!   that reads it.

use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::rabbitmq::RabbitMq;

/// What the broker of the tests needs of the tests.
// The tests use more of it than the bench does.
#[allow(dead_code)]
mod support {
    #[path = "../../tests/it/support/rabbitmq.rs"]
    pub mod rabbitmq;

    pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

    pub fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// Messages that are on their way at a time in the bare program.
const WINDOW: usize = 1_000;

/// Messages of one acknowledgement of the bare program.
const ACKED: usize = 100;

/// The metric of messages that a handler is done with.
const HANDLED: &str = "pointsman_handler_messages_total{handler=\"sink\"}";

/// Events of one request.
const SENT: usize = 1_000;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let messages = numbers.first().copied().unwrap_or(50_000);
    let rounds = numbers.get(1).copied().unwrap_or(3);
    let broker = RabbitMq::start();
    let mut all: [Vec<f64>; 4] = Default::default();
    let mut used: [Vec<f64>; 4] = Default::default();
    for round in 0..rounds {
        let bare = bare(&broker, &format!("bare{round}"), messages);
        let ours = ours(&broker, &format!("ours{round}"), messages);
        for (at, took) in [bare[0], ours[0], bare[1], ours[1]].into_iter().enumerate() {
            all[at].push(messages as f64 / took.time.as_secs_f64());
            used[at].push(took.cpu.as_secs_f64() * 1e6 / messages as f64);
        }
    }
    println!("{messages} messages a round, {rounds} rounds; messages/s, medians (all)\n");
    println!("| | bare | Pointsman | share |\n|---|---|---|---|");
    let told = |figures: &[f64]| {
        let all: Vec<String> = figures.iter().map(|f| format!("{f:.0}")).collect();
        format!("{:.0} ({})", median(figures), all.join(", "))
    };
    for (what, at) in [("publish with confirms", 0), ("consume with acks", 2)] {
        let (bare, ours) = (&all[at], &all[at + 1]);
        let share = 100.0 * median(ours) / median(bare);
        println!(
            "| {what} | {} | {} | {share:.0} % |",
            told(bare),
            told(ours)
        );
    }
    println!("\nCPU time of the program, µs a message, medians:\n");
    println!("| | bare | Pointsman |\n|---|---|---|");
    for (what, at) in [("publish", 0), ("consume", 2)] {
        let (bare, ours) = (median(&used[at]), median(&used[at + 1]));
        println!("| {what} | {bare:.1} | {ours:.1} |");
    }
}

/// What a part took.
#[derive(Clone, Copy)]
struct Took {
    time: Duration,
    /// Of the program, without its children and without the broker.
    cpu: Duration,
}

impl Took {
    fn since(begun: Instant, process: u32, cpu: Duration) -> Self {
        Self {
            time: begun.elapsed(),
            cpu: cpu_of(process).saturating_sub(cpu),
        }
    }
}

/// CPU time that a process has had, to 10 ms.
fn cpu_of(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process");
    let (_, fields) = stat.rsplit_once(") ").expect("the name");
    // https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: utime and stime.
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn event(n: usize) -> String {
    let detail = json!({ "n": n, "text": "x".repeat(900) });
    json!({ "id": format!("e-{n}"), "source": "bench", "detail-type": "T", "detail": detail })
        .to_string()
}

/// How long the bare program takes to publish, and to consume.
fn bare(broker: &RabbitMq, queue: &str, messages: usize) -> [Took; 2] {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let connection = Connection::connect(&broker.url(), ConnectionProperties::default())
            .await
            .expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        declare(&channel, queue).await;
        let published = publish(&channel, queue, messages).await;
        let channel = connection.create_channel().await.expect("a channel");
        [published, consume(&channel, queue, messages).await]
    })
}

async fn declare(channel: &Channel, queue: &str) {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let declared = channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments);
    declared.await.expect("a queue");
}

async fn publish(channel: &Channel, queue: &str, messages: usize) -> Took {
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    select.await.expect("confirms");
    // As large as what Pointsman sends: it completes events.
    let body = format!("{}{}", event(0), " ".repeat(150)).into_bytes();
    let properties = properties();
    let (begun, cpu) = (Instant::now(), cpu_of(std::process::id()));
    let mut left = messages;
    while left > 0 {
        let window = left.min(WINDOW);
        let mut confirms = Vec::with_capacity(window);
        for _ in 0..window {
            let options = BasicPublishOptions::default();
            let same = properties.clone();
            let sent = channel.basic_publish("".into(), queue.into(), options, &body, same);
            confirms.push(sent.await.expect("a message"));
        }
        for confirm in confirms {
            // A quorum queue that was just made refuses until it has a leader.
            left -= usize::from(confirm.await.expect("a confirm").is_ack());
        }
    }
    Took::since(begun, std::process::id(), cpu)
}

/// What Pointsman sends beside the body.
fn properties() -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("accepted", "1700000000000"),
        ("bus", "default"),
        (
            "delivery",
            "4be0643f-1d98-573b-97cd-ca98a65347dd/all/out/12345",
        ),
        ("hops", "0"),
        ("root", "e-12345"),
        ("route", "all/out"),
    ] {
        let value = AMQPValue::LongString(value.into());
        headers.insert(format!("pointsman-{name}").into(), value);
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_timestamp(1_700_000_000)
        .with_app_id("pointsman".into())
        .with_message_id("e-12345".into())
        .with_type("T".into())
        .with_headers(headers)
}

async fn consume(channel: &Channel, queue: &str, messages: usize) -> Took {
    let (begun, cpu) = (Instant::now(), cpu_of(std::process::id()));
    let prefetch = u16::try_from(WINDOW).expect("a small number");
    let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
    qos.await.expect("a prefetch");
    let options = BasicConsumeOptions::default();
    let consumer =
        channel.basic_consume(queue.into(), "bench".into(), options, FieldTable::default());
    let mut consumer = consumer.await.expect("a consumer");
    for n in 1..=messages {
        let delivery = consumer
            .next()
            .await
            .expect("a message")
            .expect("a message");
        if n % ACKED == 0 || n == messages {
            let all_before = BasicAckOptions { multiple: true };
            delivery.ack(all_before).await.expect("an ack");
        }
    }
    Took::since(begun, std::process::id(), cpu)
}

/// A node in a folder; killed when dropped.
struct Node<'a> {
    folder: &'a Path,
    child: Child,
}

impl<'a> Node<'a> {
    fn start(folder: &'a Path) -> Self {
        let log = fs::File::create(folder.join("node.log")).expect("a log");
        let child = command(folder, &["run"])
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program");
        let node = Self { folder, child };
        node.until(|| node.log().contains("runs; Ctrl-C stops it"));
        node
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("node.log")).unwrap_or_default()
    }

    fn until(&self, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < 3 * support::PATIENCE, "{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What its HTTP interface says: cheaper than a command, which would take much of
    /// the machine that is measured.
    fn ask(&self, path: &str) -> String {
        let log = self.log();
        let (_, after) = log.split_once("http=http://").expect("an address");
        let address = after.split_whitespace().next().expect("an address");
        let mut stream = TcpStream::connect(address).expect("a connection");
        let head = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(head.contains(" 200 "), "{answer}");
        body.to_owned()
    }

    /// Messages that the handler is done with.
    fn handled(&self) -> usize {
        let metrics = self.ask("/metrics");
        let mut lines = metrics.lines();
        let found = lines.find_map(|line| line.strip_prefix(HANDLED));
        found.map_or(0, |count| count.trim().parse().expect("a number"))
    }

    fn route(&self, name: &str) -> Value {
        let routes: Value = serde_json::from_str(&self.ask("/routes")).expect("JSON");
        let found = routes.as_array().expect("routes").iter();
        found
            .clone()
            .find(|r| r["route"] == name)
            .expect("it")
            .clone()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, args: &[&str]) -> Command {
    // Another build's, where that is to be measured.
    let program = std::env::var("POINTSMAN_PROGRAM");
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_pointsman").to_owned());
    let mut command = Command::new(program);
    command.current_dir(folder).args(args).env("NO_COLOR", "1");
    command.env("POINTSMAN_LOG", "warn,pointsman::cli=info");
    command
}

fn run(mut command: Command) -> String {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{}", support::text(&output.stderr));
    support::text(&output.stdout)
}

/// A project with the queue, and with a handler that reads it or without.
fn project(broker: &RabbitMq, queue: &str, reads: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let url = broker.url();
    let handler = match reads {
        true => {
            "handlers: { sink: { from: out, batch: { size: 1000, window: 20ms }, concurrency: 2, exec: { command: [sh, -c, 'cat > /dev/null'] } } }\n"
        }
        false => "",
    };
    fs::create_dir(folder.path().join("rules")).expect("a folder");
    fs::write(
        folder.path().join("pointsman.yaml"),
        "node: { listen: 127.0.0.1:0 }\n",
    )
    .expect("a file");
    fs::write(
        folder.path().join("rules/a.yaml"),
        format!(
            "connections: {{ rabbit: {{ amqp: {{ url: \"{url}\" }} }} }}\nqueues: {{ out: {{ amqp: {{ connection: rabbit, queue: {queue} }} }} }}\nrules: {{ all: {{ pattern: {{ source: [bench] }}, targets: [{{ queue: out }}] }} }}\n{handler}"
        ),
    )
    .expect("a file");
    folder
}

/// How long Pointsman takes to publish, and to consume.
fn ours(broker: &RabbitMq, queue: &str, messages: usize) -> [Took; 2] {
    let folder = project(broker, queue, false);
    let node = Node::start(folder.path());
    run(command(folder.path(), &["queues", "pause", "all/out"]));
    let numbers: Vec<usize> = (0..messages).collect();
    for chunk in numbers.chunks(SENT) {
        let lines: Vec<String> = chunk.iter().map(|n| event(*n)).collect();
        let file = folder.path().join("events.ndjson");
        fs::write(&file, lines.join("\n")).expect("a file");
        let mut send = command(folder.path(), &["send", "-"]);
        send.stdin(Stdio::from(fs::File::open(&file).expect("the file")));
        run(send);
    }
    let (begun, cpu) = (Instant::now(), cpu_of(node.child.id()));
    run(command(folder.path(), &["queues", "resume", "all/out"]));
    node.until(|| node.route("all/out")["pending"] == 0);
    let published = Took::since(begun, node.child.id(), cpu);
    assert_eq!(node.route("queue/out")["broker"]["ready"], messages);
    drop(node);

    let folder = project(broker, queue, true);
    let node = Node::start(folder.path());
    let (begun, cpu) = (Instant::now(), cpu_of(node.child.id()));
    node.until(|| node.handled() == messages);
    let consumed = Took::since(begun, node.child.id(), cpu);
    let broker = &node.route("queue/out")["broker"];
    assert_eq!((&broker["ready"], &broker["here"]), (&json!(0), &json!(0)));
    [published, consumed]
}
