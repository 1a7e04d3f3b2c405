//! Buckets of S3, and of what speaks its protocol. Objects are read and written
//! through `object_store`, the client that the SQL engine uses, too; listings
//! are asked for here, because that client knows no versions and refuses keys
//! like `a//b`.

mod credentials;
mod rest;
mod xml;

pub use rest::S3Listing;

use super::{Driver, Role};
use credentials::{Chain, Fixed};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredentialProvider};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

/// The driver of buckets.
pub const DRIVER: Driver = Driver {
    name: "s3",
    summary: "objects of a bucket in S3, or in what speaks its protocol",
    connection: Some("aws"),
    roles: &[Role::Source],
};

/// The region where none is named and none is needed.
const ANY_REGION: &str = "us-east-1";

/// How a bucket is reached.
#[derive(Clone, Default)]
pub struct S3Options {
    /// The region; `None`: `AWS_REGION`, `AWS_DEFAULT_REGION`, or `us-east-1`.
    pub region: Option<String>,
    /// Base URL instead of AWS's own.
    pub endpoint: Option<String>,
    /// Access key and its secret; `None`: as AWS's own tools find them.
    pub keys: Option<(String, String)>,
    /// Token of temporary credentials.
    pub session_token: Option<String>,
    /// Profile in AWS's configuration files.
    pub profile: Option<String>,
    /// Buckets in the path, not in the host name.
    pub path_style: bool,
}

/// Why a bucket cannot be reached at all.
#[derive(Debug, thiserror::Error)]
#[error("bucket `{bucket}`: {reason}")]
pub struct S3Error {
    bucket: String,
    reason: String,
}

/// A bucket, ready to be read, written and listed.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Reads and writes objects.
    pub store: Arc<AmazonS3>,
    /// Lists them.
    pub listing: S3Listing,
}

impl Bucket {
    /// Prepares for talking to a bucket; nothing is sent yet.
    ///
    /// # Errors
    /// When the endpoint is none.
    pub fn open(name: &str, options: &S3Options) -> Result<Self, S3Error> {
        let failed = |reason: String| S3Error {
            bucket: name.to_owned(),
            reason,
        };
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let region = options
            .region
            .clone()
            .or_else(|| set("AWS_REGION"))
            .or_else(|| set("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| ANY_REGION.to_owned());
        let credentials: AwsCredentialProvider = match &options.keys {
            Some((key, secret)) => {
                Arc::new(Fixed::new(key, secret, options.session_token.as_deref()))
            }
            None => Arc::new(Chain::new(region.clone(), options.profile.clone())),
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(&region)
            .with_credentials(Arc::clone(&credentials))
            .with_virtual_hosted_style_request(!options.path_style)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 6,
                retry_timeout: Duration::from_secs(60),
            })
            .with_client_options(
                ClientOptions::new()
                    .with_connect_timeout(Duration::from_secs(10))
                    .with_timeout(Duration::from_secs(120)),
            );
        if let Some(endpoint) = &options.endpoint {
            // With the bucket in the host name, the client wants it in the endpoint.
            let endpoint = match options.path_style {
                true => endpoint.clone(),
                false => rest::with_host(endpoint, name).map_err(&failed)?,
            };
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|e| failed(e.to_string()))?;
        let base = rest::base(name, options, &region).map_err(failed)?;
        let listing = S3Listing::new(base, region, credentials)
            .map_err(|e| failed(format!("no HTTP client: {e}")))?;
        Ok(Self {
            store: Arc::new(store),
            listing,
        })
    }
}
