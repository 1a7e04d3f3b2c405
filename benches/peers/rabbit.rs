//! RabbitMQ: a fanout exchange and quorum queues.

use super::{BATCH, CONSUMERS, PUBLISHERS, Reached, SIZE, Server, cpu_of, free_port, patiently};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Erlang's name service, which the server starts and leaves behind.
struct Names(u16);

impl Drop for Names {
    fn drop(&mut self) {
        let mut command = Command::new("epmd");
        command.args(["-port", &self.0.to_string(), "-kill"]);
        // It may have ended by itself.
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn start(folder: &Path) -> (Names, Server, u16) {
    let dir = folder.join("rabbitmq");
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("plugins"), "[].\n").expect("a file");
    let (port, names) = (free_port(), free_port());
    let conf = format!("listeners.tcp.local = 127.0.0.1:{port}\nloopback_users = none\n");
    std::fs::write(dir.join("rabbitmq.conf"), conf).expect("a file");
    let child = Command::new(PROGRAM)
        .env("HOME", &dir)
        // The server itself and not a shell around it, so that it ends when it is killed.
        .env("RUNNING_UNDER_SYSTEMD", "1")
        .env("RABBITMQ_NODENAME", "bench@localhost")
        .env("RABBITMQ_DIST_PORT", free_port().to_string())
        .env("ERL_EPMD_PORT", names.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}",
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rabbitmq-server is installed");
    (Names(names), Server(child), port)
}

pub(super) fn run(folder: &Path, time: Duration) -> Reached {
    // The server ends before the name service, which keeps running while it is used.
    let (_names, server, port) = start(folder);
    let pid = server.0.id().to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let uri = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let connect = || runtime.block_on(Connection::connect(&uri, ConnectionProperties::default()));
    let connections: Vec<Connection> = (0..PUBLISHERS + CONSUMERS)
        .map(|_| patiently("rabbitmq-server", || connect().ok()))
        .collect();
    runtime.block_on(measure(&connections, &pid, time))
}

async fn measure(connections: &[Connection], pid: &str, time: Duration) -> Reached {
    let channel = connections[0].create_channel().await.expect("a channel");
    channel
        .exchange_declare(
            "bench".into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions {
                durable: true,
                ..Default::default()
            },
            FieldTable::default(),
        )
        .await
        .expect("an exchange");
    let acked = Arc::new(AtomicU64::new(0));
    for c in 0..CONSUMERS {
        let queue = format!("q{c}");
        declare(&channel, &queue).await;
        let channel = connections[PUBLISHERS + c].create_channel().await;
        let channel = channel.expect("a channel");
        tokio::spawn(consume(channel, queue, acked.clone()));
    }
    let cpu = [cpu_of(pid), cpu_of("self")];
    let started = Instant::now();
    let mut publishers = Vec::new();
    for connection in &connections[..PUBLISHERS] {
        let channel = connection.create_channel().await.expect("a channel");
        publishers.push(tokio::spawn(publish(channel, started, time)));
    }
    let mut confirms = Vec::new();
    for publisher in publishers {
        confirms.extend(publisher.await.expect("a publisher"));
    }
    let events = (confirms.len() * BATCH) as u64;
    while acked.load(Ordering::Relaxed) < events * CONSUMERS as u64 {
        assert!(started.elapsed() < time * 20, "delivery takes too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Reached {
        events,
        took: started.elapsed(),
        cpu: [cpu_of(pid) - cpu[0], cpu_of("self") - cpu[1]],
        confirms,
    }
}

async fn declare(channel: &Channel, queue: &str) {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .expect("a queue");
    channel
        .queue_bind(
            queue.into(),
            "bench".into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("a binding");
}

async fn publish(channel: Channel, started: Instant, time: Duration) -> Vec<Duration> {
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirmations");
    let body = vec![b'x'; SIZE];
    let mut confirms = Vec::new();
    while started.elapsed() < time {
        let began = Instant::now();
        let mut waiting = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let durable = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let sent = channel
                .basic_publish("bench".into(), "".into(), options, &body, durable)
                .await;
            waiting.push(sent.expect("a message"));
        }
        for confirm in waiting {
            assert!(confirm.await.expect("a confirmation").is_ack());
        }
        confirms.push(began.elapsed());
    }
    confirms
}

async fn consume(channel: Channel, queue: String, acked: Arc<AtomicU64>) {
    channel
        .basic_qos(1_000, BasicQosOptions::default())
        .await
        .expect("a prefetch");
    let mut messages = channel
        .basic_consume(
            queue.as_str().into(),
            "bench".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("a consumer");
    let mut count = 0;
    while let Some(Ok(message)) = messages.next().await {
        count += 1;
        if count == BATCH as u64 {
            // One acknowledgement for all of them: what costs it least.
            let multiple = BasicAckOptions { multiple: true };
            message.ack(multiple).await.expect("an acknowledgement");
            acked.fetch_add(count, Ordering::Relaxed);
            count = 0;
        }
    }
}
