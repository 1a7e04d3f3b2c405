//! The few requests of S3's REST interface that listings need
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>,
//! `ListObjectVersions`, `HeadObject`), signed with AWS Signature Version 4.

use super::{S3Options, xml};
use crate::sources::s3::{Begin, ListError, Listed, Listing, Page, What};
use chrono::DateTime;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::HttpRequestBody;
use std::fmt::Write as _;
use std::time::Duration;

/// How often a request that was not answered, or refused for now, is repeated.
const TRIES: u32 = 4;

/// Lists a bucket.
#[derive(Clone, Debug)]
pub struct S3Listing {
    /// The bucket's URL, without a slash at the end.
    base: String,
    region: String,
    credentials: AwsCredentialProvider,
    client: reqwest::Client,
}

/// `https://host` with the bucket in front of the host.
pub(super) fn with_host(endpoint: &str, bucket: &str) -> Result<String, String> {
    let endpoint = endpoint.trim_end_matches('/');
    let (scheme, host) = endpoint
        .split_once("://")
        .ok_or_else(|| format!("`{endpoint}` is no URL"))?;
    Ok(format!("{scheme}://{bucket}.{host}"))
}

/// The URL of a bucket.
pub(super) fn base(bucket: &str, options: &S3Options, region: &str) -> Result<String, String> {
    let aws = format!("https://s3.{region}.amazonaws.com");
    let endpoint = options.endpoint.as_deref().unwrap_or(&aws);
    match options.path_style {
        true => Ok(format!("{}/{bucket}", endpoint.trim_end_matches('/'))),
        false => with_host(endpoint, bucket),
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl S3Listing {
    pub(super) fn new(
        base: String,
        region: String,
        credentials: AwsCredentialProvider,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            // A page is answered in a second or two; a server that hangs is asked again.
            .timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            base,
            region,
            credentials,
            client,
        })
    }

    /// Asks, and asks again where the server may answer later.
    async fn ask(&self, method: Method, url: &str) -> Result<Answer, ListError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let asked = self.once(method.clone(), url).await;
            let later = match &asked {
                Ok(answer) => {
                    answer.status.is_server_error()
                        || answer.status == StatusCode::TOO_MANY_REQUESTS
                }
                Err(ListError::Unavailable(_)) => true,
                Err(_) => false,
            };
            match later && tries < TRIES {
                true => tokio::time::sleep(Duration::from_millis(100 << tries)).await,
                false => return asked,
            }
        }
    }

    async fn once(&self, method: Method, url: &str) -> Result<Answer, ListError> {
        let away = |e: &dyn std::error::Error| ListError::Unavailable(with_causes(e));
        let mut request = http::Request::builder()
            .method(method)
            .uri(url)
            .body(HttpRequestBody::empty())
            .map_err(|e| ListError::Refused(e.to_string()))?;
        let credentials = self.credentials.get_credential().await;
        let credentials = credentials.map_err(|e| away(&e))?;
        AwsAuthorizer::new(&credentials, "s3", &self.region).authorize(&mut request, None);
        let (head, _) = request.into_parts();
        let response = self
            .client
            .request(head.method, url)
            .headers(head.headers)
            .send()
            .await
            .map_err(|e| away(&e))?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await.map_err(|e| away(&e))?.to_vec(),
        })
    }

    fn list_url(&self, prefix: &str, what: What, from: &Begin) -> String {
        let mut query: Vec<(&str, &str)> = vec![("encoding-type", "url"), ("prefix", prefix)];
        query.push(match what {
            What::Objects => ("list-type", "2"),
            What::Versions => ("versions", ""),
        });
        match (what, from) {
            (_, Begin::Start) => {}
            (What::Objects, Begin::After(key)) => query.push(("start-after", key)),
            (What::Versions, Begin::After(key)) => query.push(("key-marker", key)),
            (What::Objects, Begin::Token(token)) => query.push(("continuation-token", token)),
            (What::Versions, Begin::Token(place)) => {
                let (version, key) = place.split_once('/').unwrap_or(("", place));
                query.push(("key-marker", key));
                if !version.is_empty() {
                    query.push(("version-id-marker", version));
                }
            }
        }
        query.sort_unstable();
        let mut url = format!("{}/?", self.base);
        for (n, (name, value)) in query.iter().enumerate() {
            if n > 0 {
                url.push('&');
            }
            url.push_str(name);
            url.push('=');
            encode(value, false, &mut url);
        }
        url
    }

    async fn listed(&self, prefix: &str, what: What, from: &Begin) -> Result<Page, ListError> {
        let url = self.list_url(prefix, what, from);
        let answer = self.ask(Method::GET, &url).await?;
        if answer.status.is_success() {
            return xml::page(&answer.body, what).map_err(|e| {
                ListError::Unavailable(format!("the listing is not understood: {e}"))
            });
        }
        let said = xml::error(&answer.body);
        let text = match said.code.is_empty() {
            true => format!("the server answered {}", answer.status),
            false => format!("{}: {}", said.code, said.message),
        };
        let page_gone = matches!(from, Begin::Token(_))
            && answer.status == StatusCode::BAD_REQUEST
            && ["InvalidArgument", "InvalidToken", "ExpiredToken"].contains(&said.code.as_str());
        Err(match answer.status {
            _ if page_gone => ListError::Token(text),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                ListError::Unavailable(text)
            }
            _ => ListError::Refused(text),
        })
    }

    async fn headed(&self, key: &str, version: Option<&str>) -> Result<Option<Listed>, ListError> {
        // URLs know these names, and would lead elsewhere.
        if key.split('/').any(|part| part == "." || part == "..") {
            return Err(ListError::Refused("the key cannot be addressed".to_owned()));
        }
        let mut url = format!("{}/", self.base);
        encode(key, true, &mut url);
        if let Some(version) = version {
            url.push_str("?versionId=");
            encode(version, false, &mut url);
        }
        let answer = self.ask(Method::HEAD, &url).await?;
        match answer.status {
            status if status.is_success() => Ok(Some(of_headers(key, &answer.headers))),
            // A mark of deletion, asked for by its version, may not be read.
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Err(
                ListError::Unavailable(format!("the server answered {status}")),
            ),
            status => Err(ListError::Refused(format!("the server answered {status}"))),
        }
    }
}

impl Listing for S3Listing {
    fn page<'a>(
        &'a self,
        prefix: &'a str,
        what: What,
        from: &'a Begin,
    ) -> BoxFuture<'a, Result<Page, ListError>> {
        self.listed(prefix, what, from).boxed()
    }

    fn head<'a>(
        &'a self,
        key: &'a str,
        version: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Listed>, ListError>> {
        self.headed(key, version).boxed()
    }
}

fn of_headers(key: &str, headers: &HeaderMap) -> Listed {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let modified = text("last-modified").and_then(|t| DateTime::parse_from_rfc2822(t).ok());
    Listed {
        key: key.to_owned(),
        size: text("content-length")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0),
        etag: text("etag")
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned(),
        modified_ms: modified.map_or(0, |t| t.timestamp_millis()),
        version: text("x-amz-version-id").map(str::to_owned),
        deleted: text("x-amz-delete-marker") == Some("true"),
        class: text("x-amz-storage-class").map(str::to_owned),
    }
}

/// An error with what is below it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // Writing to a string cannot fail.
        write!(text, ": {cause}").ok();
        next = cause.source();
    }
    text
}

/// As Signature Version 4 encodes: everything but unreserved characters, and
/// in paths the slash.
fn encode(text: &str, path: bool, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if path => out.push('/'),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_stand_in_the_path_or_in_the_host_name() {
        let mut options = S3Options {
            endpoint: Some("http://127.0.0.1:9000/".to_owned()),
            path_style: true,
            ..S3Options::default()
        };
        assert_eq!(base("b", &options, "r").unwrap(), "http://127.0.0.1:9000/b");
        options.path_style = false;
        assert_eq!(base("b", &options, "r").unwrap(), "http://b.127.0.0.1:9000");
        options.endpoint = None;
        assert_eq!(
            base("b", &options, "eu-west-1").unwrap(),
            "https://b.s3.eu-west-1.amazonaws.com"
        );
    }

    #[test]
    fn keys_are_encoded_byte_by_byte() {
        let mut url = String::new();
        encode("a b+c/ü&=", true, &mut url);
        assert_eq!(url, "a%20b%2Bc/%C3%BC%26%3D");
    }
}
