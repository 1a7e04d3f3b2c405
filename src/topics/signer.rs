//! Signs messages in SNS's shape with a key of the node's own.
//!
//! A key and a self-signed certificate are made once and kept in the side state.
//! What the signature is worth: whoever has pinned the certificate, or fetched it
//! over a connection that it trusts, knows that the message comes from this node.
//! It is not a signature of Amazon's, and clients that insist on a certificate
//! from `sns.*.amazonaws.com` refuse it, as they should.

use crate::state::{State, StateError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, SigningKey, date_time_ymd};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Where the key is kept.
const KEY: &str = "sns/signer";

/// Signatures that are remembered: a message goes to many subscribers, and its
/// signature is the same for all of them.
const REMEMBERED: usize = 1024;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The side state cannot be read or written.
    #[error("the signing key cannot be kept: {0}")]
    State(#[from] StateError),
    /// The key cannot be made or used.
    #[error("the signing key: {0}")]
    Key(#[from] rcgen::Error),
    /// What is kept is not a key.
    #[error("the signing key in the side state is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    certificate: String,
}

/// A key, its certificate and the signatures of late.
pub struct Signer {
    key: KeyPair,
    certificate: String,
    file: String,
    made: Mutex<HashMap<[u8; 32], String>>,
}

impl Signer {
    /// The node's signer; its key is made when there is none.
    ///
    /// # Errors
    /// When the key cannot be read, made or kept.
    pub async fn open(state: &State) -> Result<Self, SignerError> {
        let kept: Kept = match state.get(KEY).await? {
            Some(bytes) => serde_json::from_slice(&bytes)?,
            None => {
                let made = make()?;
                state.put(KEY, &serde_json::to_vec(&made)?).await?;
                made
            }
        };
        let digest = hex(&Sha256::digest(kept.certificate.as_bytes()));
        let print = digest.get(..32).unwrap_or(&digest);
        Ok(Self {
            key: KeyPair::from_pem(&kept.key)?,
            certificate: kept.certificate,
            file: format!("SimpleNotificationService-{print}.pem"),
            made: Mutex::default(),
        })
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The certificate's file name, as Amazon builds it; it changes with the key.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The signature of a text, base64: RSA with PKCS #1 v1.5 and SHA-256, SNS's
    /// `SignatureVersion` 2. Takes about a millisecond when it is new.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn sign(&self, text: &str) -> Result<String, SignerError> {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made().get(&digest) {
            return Ok(known.clone());
        }
        let signature = STANDARD.encode(self.key.sign(text.as_bytes())?);
        let mut made = made();
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(digest, signature.clone());
        Ok(signature)
    }
}

fn make() -> Result<Kept, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Pointsman topics");
    params.not_before = date_time_ymd(2020, 1, 1);
    // It is pinned, not chained, so an end would only surprise.
    params.not_after = date_time_ymd(2120, 1, 1);
    Ok(Kept {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
