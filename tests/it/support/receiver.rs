//! An HTTP server that notes what it gets and answers as it is told.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A request.
#[derive(Clone, Debug)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
    pub at: Instant,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub after: Duration,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            after: Duration::ZERO,
        }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }
}

type Answer = dyn Fn(&Got, usize) -> Reply + Send + Sync;

struct Inner {
    got: Mutex<Vec<Got>>,
    counts: Mutex<HashMap<String, usize>>,
    answer: Box<Answer>,
}

/// A server on a free port; gone when dropped.
pub struct Receiver {
    inner: Arc<Inner>,
    base: String,
    _runtime: Runtime,
}

impl Receiver {
    /// Answers each request with what `answer` says, given the request and how many
    /// came to the same path before it.
    pub fn start(answer: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static) -> Self {
        let inner = Arc::new(Inner {
            got: Mutex::default(),
            counts: Mutex::default(),
            answer: Box::new(answer),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = Router::new().fallback(take).with_state(Arc::clone(&inner));
        runtime.spawn(serve(listener, routes));
        Self {
            inner,
            base,
            _runtime: runtime,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What came to `path`, oldest first.
    pub fn got(&self, path: &str) -> Vec<Got> {
        let got = self.inner.got.lock().expect("the list");
        got.iter().filter(|got| got.path == path).cloned().collect()
    }
}

/// Serves what connects.
pub(super) async fn serve(listener: tokio::net::TcpListener, routes: Router) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        stream.set_nodelay(true).ok();
        let service = hyper_util::service::TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

async fn take(
    State(inner): State<Arc<Inner>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap) {
    let got = Got {
        path: uri.path().to_owned(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        at: Instant::now(),
    };
    let before = {
        let mut counts = inner.counts.lock().expect("the counts");
        let count = counts.entry(got.path.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let reply = (inner.answer)(&got, before);
    inner.got.lock().expect("the list").push(got);
    tokio::time::sleep(reply.after).await;
    let mut headers = HeaderMap::new();
    for (name, value) in reply.headers {
        headers.insert(HeaderName::from_static(name), value.parse().expect("text"));
    }
    (
        StatusCode::from_u16(reply.status).expect("a status"),
        headers,
    )
}
