//! An HTTP endpoint as a handler: one POST per event (a webhook).
//!
//! What a request looks like is its [`Shape`]'s business. Signed in the shape of
//! Standard Webhooks (<https://www.standardwebhooks.com>) when a secret is given.
//! Redirects are not followed, and addresses of this machine and of private
//! networks are refused unless allowed, since a rule file should not be able to
//! reach what its author cannot.

pub(super) mod address;

use super::circuit::{Circuit, Permit};
use super::{Class, Context, Done, Failure, Handler, Message, Outcome};
use crate::clock::SharedClock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::DateTime;
use futures::future::{BoxFuture, join_all};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Idle connections that are kept to one host.
const IDLE_PER_HOST: usize = 4;

/// What can be said of a webhook, as it is used.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// `http` or `https`.
    pub url: String,
    /// Signs in the shape of Standard Webhooks (`whsec_` and base64).
    pub secret: Option<String>,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
    /// Longest time for one request.
    pub timeout: Duration,
    /// Allow addresses of private networks and of this machine.
    pub allow_private: bool,
    /// Most requests at the same time, at least 1.
    pub concurrency: usize,
}

/// What is sent for a message, besides the headers of Standard Webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shaped {
    /// What identifies it to the receiver; the same for every retry.
    pub id: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// What requests look like.
pub trait Shape: Send + Sync {
    /// The request for a message.
    ///
    /// # Errors
    /// When there is none, or none yet.
    fn shape(&self, message: &Message) -> Result<Shaped, Failure>;
}

/// The message itself, as JSON.
pub struct Plain;

impl Shape for Plain {
    fn shape(&self, message: &Message) -> Result<Shaped, Failure> {
        Ok(Shaped {
            id: message.event.id().to_owned(),
            headers: vec![("content-type", "application/json".to_owned())],
            body: message.payload().clone(),
        })
    }
}

/// A client for webhooks, shared by all of them: it follows no redirects and
/// uses no proxy.
///
/// # Errors
/// When the system gives no TLS roots.
pub fn client() -> Result<Client, Failure> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .tcp_nodelay(true)
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Failure::permanent("NoClient", "no HTTP client").caused_by(&e))
}

/// Posts each event to a URL.
pub struct WebhookHandler {
    options: WebhookOptions,
    key: Option<Vec<u8>>,
    url: reqwest::Url,
    shape: Arc<dyn Shape>,
    circuit: Arc<Circuit>,
    slots: Semaphore,
    client: Client,
    clock: SharedClock,
}

impl WebhookHandler {
    /// A handler that posts to `options.url`, while `circuit` lets it.
    ///
    /// # Errors
    /// When the URL or the secret cannot be used.
    pub fn new(
        options: WebhookOptions,
        shape: Arc<dyn Shape>,
        circuit: Arc<Circuit>,
        client: Client,
        clock: SharedClock,
    ) -> Result<Self, Failure> {
        let url = reqwest::Url::parse(&options.url).map_err(|e| {
            Failure::permanent("BadUrl", "the webhook's URL is not valid").caused_by(&e)
        })?;
        let key = options.secret.as_deref().map(key_of).transpose()?;
        Ok(Self {
            circuit,
            slots: Semaphore::new(options.concurrency.max(1)),
            options,
            key,
            url,
            shape,
            client,
            clock,
        })
    }

    async fn post(&self, message: &Message) -> Result<Done, Failure> {
        let shaped = self.shape.shape(message)?;
        // The semaphore is never closed, so a slot is only waited for.
        let _slot = self.slots.acquire().await;
        let Some(permit) = self.circuit.admit() else {
            let message = "the endpoint's circuit is open: nothing is sent for a while";
            return Err(Failure::held("CircuitOpen", message));
        };
        let answer = self.send(shaped).await;
        tell(permit, &answer);
        answer.map(|()| Done::default())
    }

    /// Sends one request, whatever the circuit says.
    ///
    /// # Errors
    /// When there is no answer, or one that is not a success.
    pub async fn send(&self, shaped: Shaped) -> Result<(), Failure> {
        if !self.options.allow_private {
            address::refuse_private(&self.url).await?;
        }
        let Shaped { id, headers, body } = shaped;
        let stamp = (self.clock.now_ms() / 1000).to_string();
        let mut request = self
            .client
            .post(self.url.clone())
            .timeout(self.options.timeout)
            .header("webhook-id", &id)
            .header("webhook-timestamp", &stamp);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", sign(key, &id, &stamp, &body));
        }
        let given = |name: &str| {
            let mut given = self.options.headers.keys();
            given.any(|own| own.eq_ignore_ascii_case(name))
        };
        for (name, value) in headers.into_iter().filter(|(name, _)| !given(name)) {
            request = request.header(name, value);
        }
        for (name, value) in &self.options.headers {
            request = request.header(name, value);
        }
        let response = request.body(body).send().await.map_err(|e| {
            let what = match e.is_timeout() {
                true => "the webhook did not answer in time",
                false => "the webhook could not be reached",
            };
            Failure::transient("Unreachable", what).caused_by(&e.without_url())
        })?;
        judge(&response, self.clock.now_ms())
    }
}

impl Handler for WebhookHandler {
    fn open(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.circuit.open())
    }

    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let posts = join_all(batch.iter().map(|message| self.post(message)));
            tokio::select! {
                results = posts => Outcome::each(results),
                () = cx.cancel.cancelled() => Outcome::all_failed(
                    batch.len(),
                    &Failure::transient("Cancelled", "stopped before the webhook answered"),
                ),
            }
        })
    }
}

/// The key of a secret of Standard Webhooks.
fn key_of(secret: &str) -> Result<Vec<u8>, Failure> {
    let text = secret.strip_prefix("whsec_").unwrap_or(secret);
    STANDARD.decode(text).map_err(|_| {
        Failure::permanent(
            "BadSecret",
            "the webhook's secret must be `whsec_` and base64",
        )
    })
}

/// Tells the circuit what an answer says about the endpoint. An endpoint that
/// refuses one message is alive.
fn tell(permit: Permit, answer: &Result<(), Failure>) {
    match answer {
        Ok(()) => permit.succeeded(),
        Err(failure) => match (failure.class, failure.retry_after) {
            (Class::Throttled, Some(time)) => permit.rest(time),
            (Class::Transient, _) => permit.failed(failure.to_string()),
            _ => permit.succeeded(),
        },
    }
}

fn judge(response: &reqwest::Response, now_ms: i64) -> Result<(), Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let header = response.headers().get(RETRY_AFTER);
    let retry_after = header.and_then(|value| retry_after(value, now_ms));
    let class = match status {
        StatusCode::TOO_MANY_REQUESTS => Class::Throttled,
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => Class::Throttled,
        StatusCode::REQUEST_TIMEOUT => Class::Transient,
        // What the receiver calls our mistake will be our mistake tomorrow, too.
        s if s.is_client_error() || s.is_redirection() => Class::Permanent,
        _ => Class::Transient,
    };
    Err(Failure {
        class,
        code: format!("Http{}", status.as_u16()),
        message: format!("the webhook answered {status}"),
        chain: Vec::new(),
        retry_after,
    })
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn retry_after(value: &HeaderValue, now_ms: i64) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    let left = date.timestamp_millis().saturating_sub(now_ms);
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

/// The signature of Standard Webhooks: `v1,` and HMAC-SHA256 over `id.timestamp.body`.
fn sign(key: &[u8], id: &str, stamp: &str, body: &[u8]) -> String {
    // HMAC takes keys of any length, so this cannot fail; an empty signature
    // would be refused by every receiver.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(format!("{id}.{stamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        // The example of the specification's reference implementations.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            sign(
                &key,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "1614265330",
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap(), 784_111_770_000);
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(read(date), Some(Duration::from_secs(7)));
        let past = "Sat, 05 Nov 1994 08:49:37 GMT";
        assert_eq!(read(past), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
