//! JetStream through its plain text protocol.

use super::{BATCH, CONSUMERS, PUBLISHERS, Reached, SIZE, Server, cpu_of, free_port, patiently};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    line: String,
}

/// A message: where an answer goes, and what it says.
struct Message {
    reply: String,
    body: Vec<u8>,
}

impl Connection {
    fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            reader: BufReader::with_capacity(256 << 10, stream.try_clone()?),
            writer: stream,
            line: String::new(),
        };
        connection.read_line()?;
        connection.write(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n")?;
        Ok(connection)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(bytes)
    }

    fn read_line(&mut self) -> std::io::Result<()> {
        self.line.clear();
        if self.reader.read_line(&mut self.line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// The next message; answers the server's pings on the way.
    fn next(&mut self) -> std::io::Result<Message> {
        loop {
            self.read_line()?;
            if self.line.starts_with("PING") {
                self.write(b"PONG\r\n")?;
            }
            assert!(!self.line.starts_with("-ERR"), "{}", self.line);
            // MSG subject sid [reply] length
            let Some(rest) = self.line.strip_prefix("MSG ") else {
                continue;
            };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let length: usize = words[words.len() - 1].parse().expect("a length");
            let reply = if words.len() == 4 { words[2] } else { "" }.to_owned();
            let mut body = vec![0; length + 2];
            self.reader.read_exact(&mut body)?;
            body.truncate(length);
            return Ok(Message { reply, body });
        }
    }

    fn ask(&mut self, subject: &str, body: &str) {
        let length = body.len();
        let request =
            format!("SUB answer 1\r\nPUB {subject} answer {length}\r\n{body}\r\nUNSUB 1 1\r\n");
        self.write(request.as_bytes()).expect("a request");
        let answer = self.next().expect("an answer");
        let text = String::from_utf8_lossy(&answer.body);
        assert!(!text.contains("\"error\""), "{text}");
    }
}

pub(super) fn run(folder: &Path, time: Duration) -> Reached {
    let port = free_port();
    let child = Command::new("nats-server")
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(folder.join("nats"))
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed");
    let server = Server(child);
    let pid = server.0.id().to_string();
    let mut control = patiently("nats-server", || Connection::open(port).ok());
    control.ask(
        "$JS.API.STREAM.CREATE.BENCH",
        r#"{"name":"BENCH","subjects":["bench"],"storage":"file","retention":"limits","num_replicas":1}"#,
    );
    for c in 0..CONSUMERS {
        control.ask(
            &format!("$JS.API.CONSUMER.DURABLE.CREATE.BENCH.c{c}"),
            &format!(
                r#"{{"stream_name":"BENCH","config":{{"durable_name":"c{c}","deliver_subject":"deliver.{c}","ack_policy":"explicit","deliver_policy":"all","max_ack_pending":10000}}}}"#
            ),
        );
    }
    let acked = Arc::new(AtomicU64::new(0));
    let cpu = [cpu_of(&pid), cpu_of("self")];
    for c in 0..CONSUMERS {
        let (connection, acked) = (Connection::open(port), acked.clone());
        let connection = connection.expect("a connection");
        // It ends with the server.
        std::thread::spawn(move || consume(connection, c, &acked));
    }
    let started = Instant::now();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|p| {
            let connection = Connection::open(port).expect("a connection");
            std::thread::spawn(move || publish(connection, p, started, time))
        })
        .collect();
    let confirms: Vec<Duration> = publishers
        .into_iter()
        .flat_map(|p| p.join().expect("a publisher"))
        .collect();
    let events = (confirms.len() * BATCH) as u64;
    patiently("delivery", || {
        (acked.load(Ordering::Relaxed) >= events * CONSUMERS as u64).then_some(())
    });
    Reached {
        events,
        took: started.elapsed(),
        cpu: [cpu_of(&pid) - cpu[0], cpu_of("self") - cpu[1]],
        confirms,
    }
}

fn publish(mut to: Connection, number: usize, started: Instant, time: Duration) -> Vec<Duration> {
    let inbox = format!("confirm.{number}");
    to.write(format!("SUB {inbox} 2\r\n").as_bytes())
        .expect("a subscription");
    let mut batch = Vec::new();
    for _ in 0..BATCH {
        batch.extend_from_slice(format!("PUB bench {inbox} {SIZE}\r\n").as_bytes());
        batch.extend_from_slice(&[b'x'; SIZE]);
        batch.extend_from_slice(b"\r\n");
    }
    let mut confirms = Vec::new();
    while started.elapsed() < time {
        let began = Instant::now();
        to.write(&batch).expect("a batch");
        for _ in 0..BATCH {
            let answer = to.next().expect("a confirmation");
            let text = String::from_utf8_lossy(&answer.body);
            assert!(text.contains("\"seq\""), "{text}");
        }
        confirms.push(began.elapsed());
    }
    confirms
}

fn consume(mut from: Connection, number: usize, acked: &AtomicU64) {
    let subscribe = format!("SUB deliver.{number} 3\r\n");
    from.write(subscribe.as_bytes()).expect("a subscription");
    let mut acks = Vec::new();
    let mut count = 0;
    while let Ok(message) = from.next() {
        acks.extend_from_slice(format!("PUB {} 4\r\n+ACK\r\n", message.reply).as_bytes());
        count += 1;
        // Acknowledged together when nothing more is at hand.
        if from.reader.buffer().is_empty() || count == BATCH as u64 {
            if from.write(&acks).is_err() {
                return;
            }
            acked.fetch_add(count, Ordering::Relaxed);
            acks.clear();
            count = 0;
        }
    }
}
