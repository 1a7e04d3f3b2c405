//! Connections, TLS, and what an error of the server means.

use crate::handlers::{Class, Failure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A broken line is noticed after about this long without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How a server is reached.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Name or address of the server, or the folder of its socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we are.
    pub user: String,
    /// The password.
    pub password: Option<String>,
    /// The database; without it, the one called like the user.
    pub database: Option<String>,
    /// How TLS is used.
    pub tls: PostgresTls,
    /// A file of certificates (PEM) that servers are trusted by, besides those of
    /// the system.
    pub ca: Option<PathBuf>,
    /// Longest time for making a connection.
    pub connect_timeout: Duration,
    /// Longest time for one statement.
    pub statement_timeout: Duration,
}

/// How TLS is used, in the words of libpq's `sslmode`
/// (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresTls {
    /// Never.
    Disable,
    /// Where the server offers it; its certificate is not checked.
    Prefer,
    /// Always; the certificate is not checked.
    Require,
    /// Always; the certificate and its name are checked.
    VerifyFull,
}

impl PostgresTls {
    /// The words of `tls`.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-full", Self::VerifyFull),
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// A connection, and the way to stop what it does.
pub(in crate::drivers) struct Session {
    pub(in crate::drivers) client: Client,
    pub(in crate::drivers) stop: Stop,
}

/// Stops the statement that runs.
pub(in crate::drivers) struct Stop {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
}

impl Stop {
    /// Asks the server to stop; it may be done, or gone.
    pub(in crate::drivers) async fn stop(&self) {
        let asked = match &self.tls {
            Some(tls) => self.token.cancel_query(tls.clone()).await,
            None => self.token.cancel_query(NoTls).await,
        };
        if let Err(error) = asked {
            tracing::debug!(%error, "a statement could not be stopped");
        }
    }
}

fn config(options: &PostgresOptions) -> Config {
    let mut config = Config::new();
    config
        .host(&options.host)
        .port(options.port)
        .user(&options.user)
        .application_name("pointsman")
        .connect_timeout(options.connect_timeout)
        .keepalives_idle(KEEPALIVE)
        .ssl_mode(match options.tls {
            PostgresTls::Disable => SslMode::Disable,
            PostgresTls::Prefer => SslMode::Prefer,
            PostgresTls::Require | PostgresTls::VerifyFull => SslMode::Require,
        });
    if let Some(password) = &options.password {
        config.password(password);
    }
    if let Some(database) = &options.database {
        config.dbname(database);
    }
    config
}

/// Connects, and sets the session up with `more` statements.
///
/// # Errors
/// Transient failures, unless the certificates cannot be used.
pub(in crate::drivers) async fn connect(
    options: &PostgresOptions,
    more: &str,
) -> Result<Session, Failure> {
    let config = config(options);
    let tls = match options.tls {
        PostgresTls::Disable => None,
        _ => Some(tls(options)?),
    };
    let what = format!(
        "the Postgres server {}:{} cannot be reached",
        options.host, options.port
    );
    let failed = |e: tokio_postgres::Error| told(&e, &what);
    let client = match &tls {
        Some(tls) => {
            let (client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
            tokio::spawn(until_closed(connection));
            client
        }
        None => {
            let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
            tokio::spawn(until_closed(connection));
            client
        }
    };
    let token = client.cancel_token();
    let milliseconds = options.statement_timeout.as_millis().min(i32::MAX as u128);
    let set = format!("set statement_timeout = {milliseconds}; {more}");
    client
        .batch_execute(&set)
        .await
        .map_err(|e| told(&e, "the Postgres session cannot be set up"))?;
    Ok(Session {
        client,
        stop: Stop { token, tls },
    })
}

async fn until_closed<F>(connection: F)
where
    F: std::future::Future<Output = Result<(), tokio_postgres::Error>>,
{
    // Who waits for an answer is told, too.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a Postgres connection ended");
    }
}

fn tls(options: &PostgresOptions) -> Result<MakeRustlsConnect, Failure> {
    let bad = |e: &dyn std::error::Error| {
        Failure::permanent(
            "BadCertificates",
            "the certificates for Postgres cannot be used",
        )
        .caused_by(e)
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?;
    if options.tls != PostgresTls::VerifyFull {
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
            .with_no_client_auth();
        return Ok(MakeRustlsConnect::new(config));
    }
    let mut roots = RootCertStore::empty();
    // Certificates of the system that are not sound are left out, as browsers do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &options.ca {
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| bad(&e))? {
            let certificate = certificate.map_err(|e| bad(&e))?;
            roots.add(certificate).map_err(|e| bad(&e))?;
        }
    }
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Takes any certificate, as `sslmode=require` of libpq does: who listens on the
/// line learns nothing, who sits in it is not found out.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A failure for an error of the driver or the server.
pub(in crate::drivers) fn told(error: &tokio_postgres::Error, what: &str) -> Failure {
    let Some(said) = error.as_db_error() else {
        return Failure::transient("ConnectionFailed", what).caused_by(error);
    };
    let (class, code) = class(said.code());
    let message = format!("{what}: {}", said.message());
    let mut failure = match class {
        Class::Permanent => Failure::permanent(code, message),
        Class::Transient | Class::Throttled | Class::Held => Failure::transient(code, message),
    };
    failure.chain = notes(said);
    failure
}

/// What the server adds to its message.
fn notes(said: &DbError) -> Vec<String> {
    let mut notes = vec![format!("SQLSTATE {}", said.code().code())];
    let more = [
        ("detail", said.detail()),
        ("hint", said.hint()),
        ("constraint", said.constraint()),
        ("where", said.where_()),
    ];
    for (name, text) in more {
        notes.extend(text.map(|text| format!("{name}: {text}")));
    }
    notes
}

/// How to go on after an error, by its class in Appendix A of PostgreSQL's manual.
fn class(state: &SqlState) -> (Class, &'static str) {
    match state.code() {
        "57014" => (Class::Transient, "StatementTimeout"),
        "42P01" | "3F000" => (Class::Permanent, "NoTable"),
        "42501" => (Class::Permanent, "NotPermitted"),
        code => match &code[..2] {
            "23" => (Class::Permanent, "ConstraintFailed"),
            "22" => (Class::Permanent, "BadValue"),
            "42" | "0A" | "44" | "P0" => (Class::Permanent, "Refused"),
            "40" | "55" => (Class::Transient, "Conflict"),
            "08" | "57" => (Class::Transient, "ConnectionFailed"),
            "28" | "3D" => (Class::Transient, "LoginFailed"),
            "53" => (Class::Transient, "ServerFull"),
            _ => (Class::Transient, "ServerFailed"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_retry_mends_is_tried_again() {
        let of = |state| class(&SqlState::from_code(state));
        assert_eq!(of("23505"), (Class::Permanent, "ConstraintFailed"));
        assert_eq!(of("22001"), (Class::Permanent, "BadValue"));
        assert_eq!(of("57P01"), (Class::Transient, "ConnectionFailed"));
        assert_eq!(of("40P01").0, Class::Transient);
        assert_eq!(of("57014"), (Class::Transient, "StatementTimeout"));
    }
}
