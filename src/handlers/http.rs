//! An HTTP endpoint as a handler: one POST per event (a webhook).
//!
//! Signed in the shape of Standard Webhooks (<https://www.standardwebhooks.com>)
//! when a secret is given. Redirects are not followed, and addresses of this
//! machine and of private networks are refused unless allowed, since a rule
//! file should not be able to reach what its author cannot.

use super::{Class, Context, Done, Failure, Handler, Message, Outcome};
use crate::clock::SharedClock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, join_all};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
}

/// Posts each event to a URL.
pub struct WebhookHandler {
    options: WebhookOptions,
    key: Option<Vec<u8>>,
    url: reqwest::Url,
    client: reqwest::Client,
    clock: SharedClock,
}

impl WebhookHandler {
    /// A handler that posts to `options.url`.
    ///
    /// # Errors
    /// When the URL or the secret cannot be used.
    pub fn new(options: WebhookOptions, clock: SharedClock) -> Result<Self, Failure> {
        let url = reqwest::Url::parse(&options.url).map_err(|e| {
            Failure::permanent("BadUrl", "the webhook's URL is not valid").caused_by(&e)
        })?;
        let key = match &options.secret {
            None => None,
            Some(secret) => Some(
                STANDARD
                    .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
                    .map_err(|_| {
                        Failure::permanent(
                            "BadSecret",
                            "the webhook's secret must be `whsec_` and base64",
                        )
                    })?,
            ),
        };
        let client = reqwest::Client::builder()
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Failure::permanent("NoClient", "no HTTP client").caused_by(&e))?;
        Ok(Self {
            options,
            key,
            url,
            client,
            clock,
        })
    }

    async fn post(&self, message: &Message) -> Result<Done, Failure> {
        if !self.options.allow_private {
            self.refuse_private().await?;
        }
        let body = message.payload().clone();
        let id = message.event.id();
        let stamp = (self.clock.now_ms() / 1000).to_string();
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", &stamp);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", sign(key, id, &stamp, &body));
        }
        for (name, value) in &self.options.headers {
            request = request.header(name, value);
        }
        let response = request.body(body).send().await.map_err(|e| {
            Failure::transient("Unreachable", "the webhook could not be reached")
                .caused_by(&e.without_url())
        })?;
        judge(&response)
    }

    /// Looks the host up and refuses addresses that are not public.
    async fn refuse_private(&self) -> Result<(), Failure> {
        let host = self
            .url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().unwrap_or(80);
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|e| {
                Failure::transient("Unresolved", format!("host `{host}` has no address"))
                    .caused_by(&e)
            })?
            .collect();
        match addresses.iter().find(|a| !is_public(a.ip())) {
            None => Ok(()),
            Some(address) => Err(Failure::permanent(
                "PrivateAddress",
                format!(
                    "`{host}` is {}, an address of a private network; set `allow_private: true` to allow it",
                    address.ip()
                ),
            )),
        }
    }
}

impl Handler for WebhookHandler {
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

fn judge(response: &reqwest::Response) -> Result<Done, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(Done::default());
    }
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .map(Duration::from_secs);
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

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public(IpAddr::V4(v4)),
            None => {
                let first = v6.segments()[0];
                !(v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || (first & 0xfe00) == 0xfc00
                    || (first & 0xffc0) == 0xfe80)
            }
        },
    }
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
    fn addresses_of_private_networks_are_not_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        assert!(is_public("93.184.216.34".parse().unwrap()));
        assert!(is_public("2606:2800:220:1::1".parse().unwrap()));
    }
}
