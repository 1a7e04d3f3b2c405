//! Topics over WebSockets.

use super::{assert_balanced, order, orders, send, standing};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(url: &str, query: &str) -> Socket {
    let url = format!(
        "{}/topics/orders/websocket{query}",
        url.replace("http://", "ws://")
    );
    connect_async(url).await.expect("a connection").0
}

/// The next message that is no ping.
async fn heard(socket: &mut Socket) -> Value {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), socket.next());
        match next.await.expect("in time").expect("a message") {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).expect("JSON"),
            Ok(Message::Close(frame)) => {
                return json!({ "closed": frame.map(|f| f.reason.to_string()) });
            }
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn id(message: &Value) -> &str {
    message["event"]["id"].as_str().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_subscriber_acknowledges_each_message_and_gets_the_others_again() {
    let project = orders("      kept: { pull: {} }\n");
    let node = project.start();
    let all: Vec<String> = (0..5).map(|n| order(&format!("o{n}"), n)).collect();
    send(&project, &all);
    project.wait("the messages", || {
        standing(&project, "kept")["pending"] == 5
    });

    let mut socket = connect(&node.url(), "?name=kept&prefetch=3").await;
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(heard(&mut socket).await);
    }
    assert_eq!(first.iter().map(id).collect::<Vec<_>>(), ["o0", "o1", "o2"]);
    let ack = json!({ "ack": first[1]["seq"] }).to_string();
    socket.send(Message::text(ack)).await.expect("a send");
    assert_eq!(id(&heard(&mut socket).await), "o3", "one more has room");
    drop(socket);
    project.wait("what was lent to come back", || {
        let routes = project.json(&["queues", "--json"]);
        let route = &routes.as_array().expect("routes")[1];
        route["route"] == "topic/orders/kept" && route["pending"] == 4
    });

    let mut socket = connect(&node.url(), "?name=kept").await;
    for expected in ["o0", "o2", "o3", "o4"] {
        let message = heard(&mut socket).await;
        assert_eq!(id(&message), expected);
        let ack = json!({ "ack": message["seq"] }).to_string();
        socket.send(Message::text(ack)).await.expect("a send");
    }
    project.wait("all acks", || standing(&project, "kept")["pending"] == 0);
    let ack = json!({ "ack": 1_000_000 }).to_string();
    socket.send(Message::text(ack)).await.expect("a send");
    let closed = heard(&mut socket).await;
    assert_eq!(
        closed["closed"], "no such message is waiting for its ack",
        "{closed}"
    );
    assert_balanced(&project);
    assert_eq!(node.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passer_by_hears_what_comes_from_now_on_through_a_filter() {
    let project = orders("      kept: { pull: {} }\n");
    let node = project.start();
    send(&project, &[order("before", 1)]);
    let filter = "?filter=%7B%22total%22%3A%5B2%5D%7D";
    let mut socket = connect(&node.url(), filter).await;
    let mut attributes = connect(
        &node.url(),
        "?filter_on=attributes&filter=%7B%22source%22%3A%5B%22shop%22%5D%7D",
    )
    .await;
    send(&project, &[order("a", 1), order("b", 2)]);
    assert_eq!(id(&heard(&mut socket).await), "b");
    assert_eq!(id(&heard(&mut attributes).await), "a");
    let foreign = TcpStream::connect(node.url().replace("http://", "")).await;
    let request = "GET /topics/orders/websocket HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: https://evil.example\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut foreign = foreign.expect("a connection");
    tokio::io::AsyncWriteExt::write_all(&mut foreign, request.as_bytes())
        .await
        .expect("a write");
    let mut start = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut foreign, &mut start)
        .await
        .expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 403");
    // A stop does not wait for those who listen.
    assert_eq!(node.stop(), 0);
}
