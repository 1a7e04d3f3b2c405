//! Who we are, for an API.

use super::options::Auth;
use crate::handlers::Failure;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A token is fetched again this long before it ends.
const EARLY: Duration = Duration::from_secs(30);
/// How long a token is used that tells no end.
const UNTOLD: Duration = Duration::from_secs(300);

/// Adds to each request what shows who we are.
pub(super) struct Signer {
    auth: Auth,
    token: Mutex<Option<(String, Instant)>>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: Option<u64>,
}

impl Signer {
    pub(super) fn new(auth: Auth) -> Self {
        Self {
            auth,
            token: Mutex::default(),
        }
    }

    /// The request, signed.
    ///
    /// # Errors
    /// When no token is given to us.
    pub(super) async fn sign(
        &self,
        client: &Client,
        timeout: Duration,
        request: RequestBuilder,
    ) -> Result<RequestBuilder, Failure> {
        Ok(match &self.auth {
            Auth::None => request,
            Auth::Bearer(token) => request.bearer_auth(token.reveal()),
            Auth::Basic(user, password) => {
                request.basic_auth(user.reveal(), Some(password.reveal()))
            }
            Auth::Header(name, value) => request.header(name, value.reveal()),
            Auth::OAuth2 { .. } => request.bearer_auth(self.token(client, timeout).await?),
        })
    }

    /// The API refuses the token: another one is fetched. False where there is
    /// no other.
    pub(super) async fn renew(&self) -> bool {
        self.token.lock().await.take().is_some()
    }

    /// Where tokens are given, if they are.
    pub(super) fn token_url(&self) -> Option<&str> {
        match &self.auth {
            Auth::OAuth2 { token_url, .. } => Some(token_url.reveal()),
            _ => None,
        }
    }

    async fn token(&self, client: &Client, timeout: Duration) -> Result<String, Failure> {
        let mut kept = self.token.lock().await;
        if let Some((token, until)) = kept.as_ref()
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let token = self.fetch(client, timeout).await?;
        let lasts = token.expires_in.map_or(UNTOLD, Duration::from_secs);
        let until = Instant::now() + lasts.saturating_sub(EARLY);
        *kept = Some((token.access_token.clone(), until));
        Ok(token.access_token)
    }

    async fn fetch(&self, client: &Client, timeout: Duration) -> Result<Token, Failure> {
        let Auth::OAuth2 {
            token_url,
            client_id,
            client_secret,
            scope,
        } = &self.auth
        else {
            return Err(Failure::permanent("BadOptions", "no tokens are used"));
        };
        let transient = |e: reqwest::Error| {
            let message = "no token could be fetched";
            Failure::transient("NoToken", message).caused_by(&e.without_url())
        };
        let answer = client
            .post(token_url.reveal())
            .timeout(timeout)
            .basic_auth(client_id.reveal(), Some(client_secret.reveal()))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(scope.as_deref()))
            .send()
            .await
            .map_err(transient)?;
        let status = answer.status();
        if status.is_client_error() && status.as_u16() != 429 {
            let message = format!("the server of tokens answered {status}");
            return Err(Failure::permanent("NotPermitted", message));
        }
        if !status.is_success() {
            let message = format!("the server of tokens answered {status}");
            return Err(Failure::transient("NoToken", message));
        }
        let body = answer.bytes().await.map_err(transient)?;
        serde_json::from_slice(&body).map_err(|_| {
            // The answer may hold a token, so it is not repeated.
            Failure::transient("NoToken", "the server of tokens gave no `access_token`")
        })
    }
}

fn form(scope: Option<&str>) -> String {
    // Any URL will do: its query is in the form's encoding.
    let Ok(mut url) = Url::parse("http://form") else {
        return String::new();
    };
    let mut pairs = url.query_pairs_mut();
    pairs.append_pair("grant_type", "client_credentials");
    if let Some(scope) = scope {
        pairs.append_pair("scope", scope);
    }
    drop(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_encoded() {
        assert_eq!(
            form(Some("a b&c")),
            "grant_type=client_credentials&scope=a+b%26c"
        );
    }
}
