//! An HTTP API that gives records in pages: it notes what it is asked, and
//! answers as it is told.

use super::receiver::serve;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: String,
}

impl Asked {
    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str, default: usize) -> usize {
        let given = self.param(name);
        given.map_or(default, |text| text.parse().expect("a number"))
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("text"))
    }
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(body: &Value) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_string(),
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: format!("this is a {status}"),
        }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

type Answers = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

struct Inner {
    asked: Mutex<Vec<Asked>>,
    answers: Box<Answers>,
}

/// A server on a free port; gone when dropped.
pub struct Api {
    inner: Arc<Inner>,
    base: String,
    _runtime: Runtime,
}

impl Api {
    /// Answers each request with what `answers` says, given the request and how
    /// many came before it. It may block.
    pub fn start(answers: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let inner = Arc::new(Inner {
            asked: Mutex::default(),
            answers: Box::new(answers),
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

    /// What was asked, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().expect("the list").clone()
    }

    /// What was asked of one path.
    pub fn asked_of(&self, path: &str) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.path == path);
        asked
    }
}

async fn take(
    State(inner): State<Arc<Inner>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let url = reqwest::Url::parse(&format!("http://api{uri}")).expect("a URL");
    let asked = Asked {
        path: uri.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let before = {
        let mut all = inner.asked.lock().expect("the list");
        all.push(asked.clone());
        all.len() - 1
    };
    let answering = Arc::clone(&inner);
    let answer = tokio::task::spawn_blocking(move || (answering.answers)(&asked, before));
    let answer = answer.await.expect("an answer");
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers {
        let value: HeaderValue = value.parse().expect("text");
        headers.append(HeaderName::from_static(name), value);
    }
    let status = StatusCode::from_u16(answer.status).expect("a status");
    (status, headers, answer.body)
}
