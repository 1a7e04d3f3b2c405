//! Credentials: given ones, or those that AWS's own chain finds (environment,
//! profile, single sign-on, container and instance roles).

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::ProvideCredentials;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Error, Result};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, OnceCell};

/// Credentials are found anew this long before they end.
const EARLY: Duration = Duration::from_secs(300);
/// Those that tell no end are found anew after this time.
const UNTOLD: Duration = Duration::from_secs(900);

/// Credentials from the configuration.
#[derive(Debug)]
pub struct Fixed(Arc<AwsCredential>);

impl Fixed {
    /// These keys.
    pub fn new(key: &str, secret: &str, token: Option<&str>) -> Self {
        Self(Arc::new(AwsCredential {
            key_id: key.to_owned(),
            secret_key: secret.to_owned(),
            token: token.map(str::to_owned),
        }))
    }
}

#[async_trait]
impl CredentialProvider for Fixed {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        Ok(Arc::clone(&self.0))
    }
}

/// Credentials from AWS's chain, kept until shortly before they end.
#[derive(Debug)]
pub struct Chain {
    region: String,
    profile: Option<String>,
    chain: OnceCell<SdkConfig>,
    kept: Mutex<Option<(Arc<AwsCredential>, SystemTime)>>,
}

impl Chain {
    /// Looks where AWS's tools look, when the first credentials are wanted.
    pub fn new(region: String, profile: Option<String>) -> Self {
        Self {
            region,
            profile,
            chain: OnceCell::new(),
            kept: Mutex::default(),
        }
    }

    async fn load(&self) -> SdkConfig {
        let region = Region::new(self.region.clone());
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region);
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        loader.load().await
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        let now = SystemTime::now();
        if let Some((credential, until)) = kept.as_ref()
            && now < *until
        {
            return Ok(Arc::clone(credential));
        }
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic {
            store: "S3",
            source,
        };
        let chain = self.chain.get_or_init(|| self.load()).await;
        let provider = chain
            .credentials_provider()
            .ok_or_else(|| failed("no credentials are configured".into()))?;
        let found = provider
            .provide_credentials()
            .await
            .map_err(|e| failed(e.into()))?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        let until = match found.expiry() {
            Some(end) => end.checked_sub(EARLY).unwrap_or(now),
            None => now + UNTOLD,
        };
        *kept = Some((Arc::clone(&credential), until));
        Ok(credential)
    }
}
