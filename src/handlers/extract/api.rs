//! The API: one page after the other, with patience.

use super::auth::Signer;
use super::link;
use super::options::{ApiOptions, Pages};
use super::run::{Next, Page, later};
use crate::clock::SharedClock;
use crate::handlers::http::address::refuse_private;
use crate::handlers::http::{self, retry_after};
use crate::handlers::{Class, Failure};
use crate::text::Text;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How often a request is made before the run is put off: trouble that passes
/// soon is waited out here, where nothing is lost of what was fetched before.
const TRIES: u32 = 5;
/// The pause before the second try; doubles from there, with jitter.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest time that the API may make us wait here; for more, the run is put off.
const PATIENCE: Duration = Duration::from_secs(60);
/// Characters that are shown of an answer.
const SHOWN: usize = 200;

fn revealed(texts: &BTreeMap<String, Text>) -> BTreeMap<&str, &str> {
    let texts = texts.iter();
    texts.map(|(name, t)| (&**name, t.reveal())).collect()
}

/// An API, ready to be asked.
pub(super) struct Api {
    options: ApiOptions,
    url: Url,
    identity: String,
    client: Client,
    signer: Signer,
    clock: SharedClock,
    /// When the next request may go out.
    slot: Mutex<Instant>,
}

/// What a request for a page came to.
pub(super) enum Fetched {
    /// The page.
    Page(Page),
    /// The API does not know the place of the page any more.
    Lost(String),
}

/// What one try came to.
enum Answer {
    Page(Response),
    Lost(String),
    /// To be tried again, after the time that the API asks for.
    Again(Failure),
}

impl Api {
    pub(super) fn new(options: ApiOptions, clock: SharedClock) -> Result<Self, Failure> {
        let url = Url::parse(options.url.reveal()).map_err(|e| {
            Failure::permanent("BadUrl", "the API's URL is not valid").caused_by(&e)
        })?;
        let about = format!(
            "{:?}",
            (
                options.url.reveal(),
                revealed(&options.params),
                &options.pages,
                &options.since
            )
        );
        let hash = Sha256::digest(about.as_bytes());
        Ok(Self {
            identity: hash.iter().take(8).map(|b| format!("{b:02x}")).collect(),
            client: http::client()?,
            signer: Signer::new(options.auth.clone()),
            slot: Mutex::new(Instant::now()),
            options,
            url,
            clock,
        })
    }

    /// Changes with what is asked for: places and watermarks of another request
    /// mean nothing to this one.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// What the first run asks for the news since.
    pub(super) fn start(&self) -> Option<String> {
        self.options.since.as_ref()?.start.clone()
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// When the API refuses, or does not answer soundly however often it is asked.
    pub(super) async fn page(&self, next: &Next, since: Option<&str>) -> Result<Fetched, Failure> {
        let url = self.address(next, since)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.ask(&url, next).await? {
                Answer::Lost(reason) => return Ok(Fetched::Lost(reason)),
                Answer::Again(failure) => failure,
                Answer::Page(response) => match self.read(response, next, &url).await {
                    Ok(page) => return Ok(Fetched::Page(page)),
                    Err(failure) if failure.class == Class::Permanent => return Err(failure),
                    Err(failure) => failure,
                },
            };
            let asked = failure.retry_after;
            if tries >= TRIES || asked.is_some_and(|time| time > PATIENCE) {
                return Err(failure);
            }
            let jitter = 0.5 + (self.clock.random() % 1_000) as f64 / 2_000.0;
            let pause = (PAUSE * 2_u32.pow(tries - 1)).mul_f64(jitter);
            let pause = asked.map_or(pause, |time| time + PAUSE.mul_f64(jitter));
            tracing::debug!(%url, code = failure.code, pause_ms = pause.as_millis(), "asks again");
            tokio::time::sleep(pause).await;
        }
    }

    /// The address of a page.
    fn address(&self, next: &Next, since: Option<&str>) -> Result<Url, Failure> {
        if let Next::Url(address) = next {
            return self.followed(address);
        }
        let mut url = self.url.clone();
        let mut pairs = url.query_pairs_mut();
        pairs.extend_pairs(revealed(&self.options.params));
        if let (Some(options), Some(since)) = (&self.options.since, since) {
            pairs.append_pair(&options.param, since);
        }
        match (&self.options.pages, next) {
            (Pages::Cursor { param, .. }, Next::Value(value)) => {
                pairs.append_pair(param, value);
            }
            (Pages::Number { param, first, size }, next) => {
                let number = match next {
                    Next::Count(number) => *number,
                    _ => *first,
                };
                pairs.append_pair(param, &number.to_string());
                if let Some((name, size)) = size {
                    pairs.append_pair(name, &size.to_string());
                }
            }
            (Pages::Offset { param, size }, next) => {
                let offset = match next {
                    Next::Count(offset) => *offset,
                    _ => 0,
                };
                pairs.append_pair(param, &offset.to_string());
                if let Some((name, size)) = size {
                    pairs.append_pair(name, &size.to_string());
                }
            }
            _ => {}
        }
        drop(pairs);
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(url)
    }

    /// An address that a page names: of the same server, since we show it who we are.
    fn followed(&self, address: &str) -> Result<Url, Failure> {
        let url = self.url.join(address).map_err(|e| {
            Failure::permanent("BadUrl", "the address of the next page is none").caused_by(&e)
        })?;
        let server = |url: &Url| {
            let host = url.host_str().map(str::to_owned);
            (url.scheme().to_owned(), host, url.port_or_known_default())
        };
        if server(&url) == server(&self.url) {
            return Ok(url);
        }
        let message = format!(
            "the next page is said to be at `{}`, another server than `{}`",
            url.host_str().unwrap_or_default(),
            self.url.host_str().unwrap_or_default()
        );
        Err(Failure::permanent("ForeignLink", message))
    }

    /// Waits until the next request may go out.
    async fn turn(&self) {
        let Some(rate) = self.options.rate else {
            return;
        };
        let wait = {
            let mut slot = self.slot.lock().await;
            let at = (*slot).max(Instant::now());
            *slot = at + Duration::from_secs_f64(1.0 / rate);
            at
        };
        tokio::time::sleep_until(wait.into()).await;
    }

    async fn ask(&self, url: &Url, next: &Next) -> Result<Answer, Failure> {
        self.turn().await;
        if !self.options.allow_private {
            let token = self.signer.token_url().and_then(|t| Url::parse(t).ok());
            for url in std::iter::once(url).chain(&token) {
                if let Err(failure) = refuse_private(url).await {
                    return again(failure);
                }
            }
        }
        let mut request = self.client.get(url.clone()).timeout(self.options.timeout);
        for (name, value) in &self.options.headers {
            request = request.header(name, value.reveal());
        }
        let signed = self
            .signer
            .sign(&self.client, self.options.timeout, request)
            .await;
        let request = match signed {
            Ok(request) => request,
            Err(failure) => return again(failure),
        };
        match request.send().await {
            Ok(response) => self.judge(response, next).await,
            Err(e) => {
                let what = match e.is_timeout() {
                    true => "the API did not answer in time",
                    false => "the API could not be reached",
                };
                let failure = Failure::transient("Unreachable", what);
                Ok(Answer::Again(failure.caused_by(&e.without_url())))
            }
        }
    }

    async fn judge(&self, response: Response, next: &Next) -> Result<Answer, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(Answer::Page(response));
        }
        let header = response.headers().get(RETRY_AFTER);
        let wait = header.and_then(|value| retry_after(value, self.clock.now_ms()));
        let code = format!("Http{}", status.as_u16());
        let said = shown(response).await;
        let message = format!("the API answered {status}{said}");
        let first = matches!(next, Next::First);
        let class = match status {
            StatusCode::TOO_MANY_REQUESTS => Class::Throttled,
            StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => Class::Throttled,
            StatusCode::REQUEST_TIMEOUT => Class::Transient,
            StatusCode::UNAUTHORIZED if self.signer.renew().await => Class::Transient,
            // The first page has no place that could be forgotten.
            StatusCode::GONE
            | StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::UNPROCESSABLE_ENTITY
                if !first && self.forgets() =>
            {
                return Ok(Answer::Lost(message));
            }
            s if s.is_client_error() || s.is_redirection() => Class::Permanent,
            _ => Class::Transient,
        };
        let mut failure = Failure::transient(&code, message);
        failure.class = class;
        failure.retry_after = wait;
        match class {
            Class::Permanent => Err(failure),
            _ => Ok(Answer::Again(failure)),
        }
    }

    /// Whether places are the API's own, which it may forget.
    fn forgets(&self) -> bool {
        matches!(
            self.options.pages,
            Pages::Next(_) | Pages::Link | Pages::Cursor { .. }
        )
    }

    /// Reads a page to its end.
    async fn read(&self, response: Response, at: &Next, url: &Url) -> Result<Page, Failure> {
        let linked = link::next(response.headers());
        let body = self.body(response).await?;
        let bad = |reason: &str| {
            let message = format!("the answer of {} is no page: {reason}", url.path());
            Failure::permanent("BadPage", message)
        };
        let root: &RawValue = serde_json::from_slice(&body).map_err(|e| {
            // A gateway's page of HTML, say, or half an answer.
            let message = format!("the answer of {} is not JSON", url.path());
            Failure::transient("BadAnswer", message).caused_by(&e)
        })?;
        let found = self
            .options
            .records
            .find(root)
            .map_err(|e| bad(&format!("at `{}`, {e}", self.options.records)))?;
        let mut page = Page::default();
        for record in &found {
            if !record.get().starts_with('{') {
                return Err(bad("its records are no objects"));
            }
            let text = record.get().bytes();
            // Outside of strings, and so in JSON, line ends are as good as blanks.
            page.lines.extend(text.map(|b| match b {
                b'\n' | b'\r' => b' ',
                other => other,
            }));
            page.lines.push(b'\n');
            if let Some(since) = &self.options.since
                && let Some(value) = since.at.text(record)
                && page.watermark.as_ref().is_none_or(|w| later(&value, w))
            {
                page.watermark = Some(value);
            }
        }
        page.records = found.len() as u64;
        page.next = self.next(root, at, linked, page.records);
        Ok(page)
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|e| {
                let message = "the answer of the API broke off";
                Failure::transient("BadAnswer", message).caused_by(&e.without_url())
            })?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > self.options.max_page_bytes {
                let message = format!(
                    "a page has more than {} bytes; ask for smaller ones, or raise `max_page`",
                    self.options.max_page_bytes
                );
                return Err(Failure::permanent("PageTooLarge", message));
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// Where the next page is.
    fn next(
        &self,
        root: &RawValue,
        at: &Next,
        linked: Option<String>,
        records: u64,
    ) -> Option<Next> {
        let full = |size: &Option<(String, u64)>| {
            records > 0 && size.as_ref().is_none_or(|(_, size)| records >= *size)
        };
        match &self.options.pages {
            Pages::One => None,
            Pages::Next(path) => path.text(root).filter(|n| !n.is_empty()).map(Next::Url),
            Pages::Link => linked.map(Next::Url),
            Pages::Cursor { at, .. } => {
                let value = at.text(root).filter(|v| !v.is_empty() && v != "false");
                value.map(Next::Value)
            }
            Pages::Number { first, size, .. } => full(size).then(|| match at {
                Next::Count(number) => Next::Count(number + 1),
                _ => Next::Count(first + 1),
            }),
            Pages::Offset { size, .. } => full(size).then(|| match at {
                Next::Count(offset) => Next::Count(offset + records),
                _ => Next::Count(records),
            }),
        }
    }
}

fn again(failure: Failure) -> Result<Answer, Failure> {
    match failure.class {
        Class::Permanent => Err(failure),
        _ => Ok(Answer::Again(failure)),
    }
}

/// The beginning of an answer that is an error, for people.
async fn shown(mut response: Response) -> String {
    let Ok(Some(chunk)) = response.chunk().await else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&chunk);
    let text: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(SHOWN)
        .collect();
    match text.is_empty() {
        true => text,
        false => format!(": {text}"),
    }
}
