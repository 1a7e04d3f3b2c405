//! Bodies that are larger than a broker takes: they are kept in files, and the
//! message refers to its own (the claim-check pattern,
//! <https://www.enterpriseintegrationpatterns.com/StoreInLibrary.html>).
//!
//! The file is on disk before its message is published, and goes when its
//! message was acknowledged. Whoever receives such a message must see the folder.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

/// A folder of bodies.
#[derive(Clone, Debug)]
pub struct Claims {
    folder: PathBuf,
}

/// Refers to a body: the file's name, and what the content must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    name: String,
    digest: String,
}

impl Claims {
    /// Bodies are kept in `folder`, which is made when it is first needed.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a body, durably, under a name made from `delivery`: a message that is
    /// published again has the same file.
    pub(super) async fn keep(&self, delivery: &str, body: Bytes) -> io::Result<Claim> {
        let claim = Claim {
            name: hex(delivery.as_bytes()),
            digest: hex(&body),
        };
        let (folder, name) = (self.folder.clone(), claim.name.clone());
        blocking(move || {
            fs::create_dir_all(&folder)?;
            let staged = folder.join(format!(".{name}"));
            let mut file = fs::File::create(&staged)?;
            file.write_all(&body)?;
            file.sync_all()?;
            fs::rename(&staged, folder.join(&name))?;
            fs::File::open(&folder)?.sync_all()
        })
        .await?;
        Ok(claim)
    }

    /// The body that a claim refers to.
    pub(super) async fn read(&self, claim: &Claim) -> io::Result<Bytes> {
        let path = self.folder.join(&claim.name);
        let body = blocking(move || fs::read(path)).await?;
        if hex(&body) != claim.digest {
            return Err(io::Error::other("it is not the body that was kept"));
        }
        Ok(Bytes::from(body))
    }

    /// Lets go of a body; one that is gone already is no mistake.
    pub(super) async fn release(&self, claim: &Claim) {
        let path = self.folder.join(&claim.name);
        let gone = blocking(move || fs::remove_file(path)).await;
        if let Err(error) = gone
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(claim = claim.name, %error, "a body that is done stays on disk");
        }
    }

    /// Removes bodies older than `age`, whose messages are long gone; how many.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn sweep(&self, age: Duration) -> io::Result<u64> {
        let folder = self.folder.clone();
        blocking(move || {
            let entries = match fs::read_dir(&folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
                entries => entries?,
            };
            let mut gone = 0;
            for entry in entries {
                let entry = entry?;
                let modified = entry.metadata()?.modified()?;
                if modified.elapsed().is_ok_and(|since| since > age) {
                    fs::remove_file(entry.path())?;
                    gone += 1;
                }
            }
            Ok(gone)
        })
        .await
    }
}

impl Claim {
    /// As it stands in the message's header.
    pub(super) fn header(&self) -> String {
        format!("{} {}", self.name, self.digest)
    }

    /// What a header refers to. A header is data from outside: only a name of our
    /// own making is taken, so that none leads out of the folder.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (name, digest) = header.split_once(' ')?;
        let ours = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        (ours(name) && ours(digest)).then(|| Self {
            name: name.to_owned(),
            digest: digest.to_owned(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_kept_found_and_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::new(folder.path().join("claims"));
        let body = Bytes::from_static(b"\x00\xff large");
        let claim = claims.keep("node/route/7", body.clone()).await.unwrap();
        let claim = Claim::parse(&claim.header()).unwrap();
        assert_eq!(claims.read(&claim).await.unwrap(), body);
        claims.keep("node/route/8", body).await.unwrap();
        claims.release(&claim).await;
        claims.release(&claim).await;
        assert!(claims.read(&claim).await.is_err());
        assert_eq!(claims.sweep(Duration::from_secs(3600)).await.unwrap(), 0);
        assert_eq!(claims.sweep(Duration::ZERO).await.unwrap(), 1);
    }

    #[test]
    fn no_header_leads_out_of_the_folder() {
        let digest = "0".repeat(64);
        for name in ["../../etc/passwd", "", "a/b", &"g".repeat(64)] {
            assert_eq!(Claim::parse(&format!("{name} {digest}")), None);
        }
    }
}
