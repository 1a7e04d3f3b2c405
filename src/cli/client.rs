//! How a command reaches a node: over its socket, by URL, or by opening the
//! data folder in this process when nothing runs there.

use super::args::At;
use super::{CliError, talk};
use crate::api::{self, socket_path};
use crate::app::{Mode, Node};
use crate::config::{Config, Loaded};
use crate::error::render_all;
use axum::body::Body;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tower::ServiceExt;

/// A node to ask.
pub(super) enum Client {
    /// One that runs.
    Remote {
        client: reqwest::Client,
        base: String,
    },
    /// One that was opened for this command.
    Local {
        routes: axum::Router,
        node: Arc<Node>,
    },
}

/// Connects to the node that `at` names.
pub(super) async fn connect(at: &At) -> Result<Client, CliError> {
    if let Some(url) = &at.url {
        let base = url.trim_end_matches('/').to_owned();
        let client = reqwest::Client::builder().no_proxy().build();
        return Ok(Client::Remote {
            client: client.map_err(|e| CliError::new(e.to_string()))?,
            base,
        });
    }
    let loaded = read(&at.dir);
    if let Some(client) = running(&loaded.data).await? {
        return Ok(client);
    }
    let config = Arc::new(sound(loaded)?);
    if !config.node.data.join("bus").exists() {
        return Err(CliError::new(format!(
            "no node runs here, and there is no data in {}",
            config.node.data.display()
        ))
        .hint("start one with `pointsman run`, or name another folder with --dir"));
    }
    let node = Node::open(config, Mode::Offline, crate::clock::system())
        .await
        .map_err(|e| CliError::new(e.to_string()))?;
    let node = Arc::new(node);
    Ok(Client::Local {
        routes: api::routes(Arc::clone(&node)),
        node,
    })
}

/// Connects to a node that must run.
pub(super) async fn connect_running(at: &At) -> Result<Client, CliError> {
    if at.url.is_some() {
        return connect(at).await;
    }
    let loaded = read(&at.dir);
    if let Some(client) = running(&loaded.data).await? {
        return Ok(client);
    }
    sound(loaded)?;
    Err(CliError::new("no node runs here")
        .hint("start one with `pointsman run` in another terminal"))
}

/// Loads a configuration for a command that only needs it to find the data; its
/// mistakes are told.
pub(super) fn load(root: &Path) -> Result<Config, CliError> {
    sound(read(root))
}

fn read(root: &Path) -> Loaded {
    Config::load(root, &|name| std::env::var(name).ok())
}

/// A node that runs can be asked whatever is wrong with the files; without one
/// they must be sound.
fn sound(loaded: Loaded) -> Result<Config, CliError> {
    match loaded.config {
        Some(config) => Ok(config),
        None => {
            talk(&render_all(
                &loaded.diagnostics,
                &loaded.sources,
                super::colour(),
            ));
            Err(CliError::Told)
        }
    }
}

/// The node that runs on this data folder, if one does.
async fn running(data: &Path) -> Result<Option<Client>, CliError> {
    let socket = socket_path(data);
    if tokio::net::UnixStream::connect(&socket).await.is_err() {
        return Ok(None);
    }
    let client = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .build()
        .map_err(|e| CliError::new(e.to_string()))?;
    Ok(Some(Client::Remote {
        client,
        base: "http://localhost".to_owned(),
    }))
}

impl Client {
    /// `GET` with query parameters.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Vec<u8>, CliError> {
        self.call("GET", &with_query(path, query), None).await
    }

    /// `GET`, read as JSON.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, CliError> {
        let body = self.get(path, query).await?;
        serde_json::from_slice(&body)
            .map_err(|e| CliError::new(format!("the node's answer is not understood: {e}")))
    }

    /// `POST` of a body.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Vec<u8>, CliError> {
        self.call("POST", path, Some(body)).await
    }

    /// Closes a node that was opened for this command. A log that is not closed
    /// in good order is only slower to open, so a failure is told and no more.
    pub async fn close(self) {
        if let Self::Local { node, .. } = self
            && let Err(error) = node.shutdown().await
        {
            talk(&format!("warning: {error}"));
        }
    }

    async fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, CliError> {
        let unreachable =
            |e: &dyn std::error::Error| CliError::new(format!("the node does not answer: {e}"));
        match self {
            Self::Remote { .. } => {
                let response = self.send(method, path, body).await?;
                let status = response.status().as_u16();
                let bytes = response.bytes().await.map_err(|e| unreachable(&e))?;
                answer(status, bytes.to_vec())
            }
            Self::Local { routes, .. } => {
                let request = http::Request::builder()
                    .method(method)
                    .uri(path)
                    .header("content-type", "application/json")
                    .body(Body::from(body.unwrap_or_default()))
                    .map_err(|e| unreachable(&e))?;
                // The router's error type has no values, so this match is whole.
                let response = match routes.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let status = response.status().as_u16();
                let body = response.into_body().collect().await;
                answer(
                    status,
                    body.map_err(|e| unreachable(&e))?.to_bytes().to_vec(),
                )
            }
        }
    }

    /// Sends to a running node and leaves the body to the caller.
    pub async fn send(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<reqwest::Response, CliError> {
        let Self::Remote { client, base } = self else {
            return Err(CliError::new("this needs a node that runs"));
        };
        let url = format!("{base}{path}");
        let request = match (method, body) {
            ("POST", body) => client
                .post(url)
                .header("content-type", "application/json")
                .body(body.unwrap_or_default()),
            _ => client.get(url),
        };
        request.send().await.map_err(|e| {
            CliError::new(format!("the node does not answer: {}", e.without_url()))
                .hint("does it run? `pointsman run` starts it")
        })
    }
}

/// A path with query parameters.
pub(super) fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    if pairs.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", pairs.join("&"))
}

/// Percent-encodes everything but letters, digits and `-._~` (RFC 3986).
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The body of a success; an error in the node's words otherwise.
pub(super) fn answer(status: u16, body: Vec<u8>) -> Result<Vec<u8>, CliError> {
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| parsed["error"][name].as_str().map(str::to_owned);
    let message = text("message").unwrap_or_else(|| {
        format!(
            "the node answered {status}: {}",
            String::from_utf8_lossy(&body)
        )
    });
    let mut error = CliError::new(message);
    if let Some(hint) = text("hint") {
        error = error.hint(hint);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_encoded() {
        let path = with_query(
            "/dlq",
            &[
                ("route", "a/b".to_owned()),
                ("filter", "{\"x\":1}".to_owned()),
            ],
        );
        assert_eq!(path, "/dlq?route=a%2Fb&filter=%7B%22x%22%3A1%7D");
    }
}
