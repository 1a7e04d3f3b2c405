//! One connection to a broker, made when it is needed and again when it is lost.
//!
//! Publishing and consuming have a link each: a broker that is short of memory or
//! disk blocks connections that publish, and acknowledgements must go on
//! (<https://www.rabbitmq.com/docs/connection-blocked>).

use crate::queues::BrokerError;
use futures::StreamExt;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::ReplyCode;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the broker may take to answer a request. One that was on its way when a
/// connection broke may never be answered.
const ANSWER: Duration = Duration::from_secs(30);

/// AMQP's reply code for an orderly end.
const REPLY_SUCCESS: ReplyCode = 200;

/// How a broker is reached.
#[derive(Clone)]
pub struct LinkOptions {
    /// Name of the connection in the configuration.
    pub name: String,
    /// Hosts and ports, tried in turn; at least one.
    pub hosts: Vec<(String, u16)>,
    /// Who we are.
    pub user: String,
    /// The password.
    pub password: String,
    /// The virtual host.
    pub vhost: String,
    /// TLS, with these files; `None`: no TLS.
    pub tls: Option<TlsFiles>,
    /// How often a sign of life is sent and expected.
    pub heartbeat: Duration,
}

/// PEM files for TLS; what is left out is the machine's own.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificates to trust.
    pub ca: Option<PathBuf>,
    /// Our own certificate, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A connection to a broker.
pub struct Link {
    options: LinkOptions,
    /// What it is for; the broker shows it.
    purpose: &'static str,
    current: Mutex<Option<Connection>>,
    /// Which host is tried first.
    turn: AtomicUsize,
    /// Why the broker takes nothing now.
    blocked: Arc<RwLock<Option<String>>>,
}

impl Link {
    /// A link that connects when it is first used.
    #[must_use]
    pub fn new(options: LinkOptions, purpose: &'static str) -> Self {
        Self {
            options,
            purpose,
            current: Mutex::new(None),
            turn: AtomicUsize::new(0),
            blocked: Arc::default(),
        }
    }

    /// Name of the connection in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// A new channel, on a new connection where the old one is gone.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when no host can be reached, and
    /// [`BrokerError::Refused`] when the broker does not let us in.
    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|c| c.status().connected())
            && let Ok(channel) = answered(connection.create_channel()).await
        {
            return Ok(channel);
        }
        let connection = self.connect().await?;
        let channel = answered(connection.create_channel()).await;
        *current = Some(connection);
        channel
    }

    /// Why the broker takes nothing now, if it does not.
    #[must_use]
    pub(super) fn refusal(&self) -> Option<BrokerError> {
        let blocked = self.blocked.read().map_or(None, |reason| reason.clone());
        blocked.map(|reason| {
            let said = format!("the broker has blocked the connection: {reason}");
            BrokerError::Unavailable(said)
        })
    }

    /// Closes the connection in good order.
    pub async fn close(&self) {
        let Some(connection) = self.current.lock().await.take() else {
            return;
        };
        let closing = connection.close(REPLY_SUCCESS, "done".into());
        // A broker that does not answer is left alone.
        let closed = tokio::time::timeout(Duration::from_secs(2), closing).await;
        tracing::debug!(?closed, connection = self.options.name, "closed");
    }

    async fn connect(&self) -> Result<Connection, BrokerError> {
        let hosts = &self.options.hosts;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut failed = Vec::new();
        for (host, port) in (0..hosts.len()).filter_map(|i| hosts.get((first + i) % hosts.len())) {
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.open(host, *port));
            let reason = match connecting.await {
                Ok(Ok(connection)) => {
                    tracing::info!(
                        connection = self.options.name,
                        purpose = self.purpose,
                        host,
                        port,
                        "connected"
                    );
                    return Ok(connection);
                }
                Ok(Err(refused @ BrokerError::Refused { .. })) => return Err(refused),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
            };
            failed.push(format!("{host}:{port}: {reason}"));
        }
        Err(BrokerError::Unavailable(failed.join("; ")))
    }

    async fn open(&self, host: &str, port: u16) -> Result<Connection, BrokerError> {
        let tls = self.tls().await?;
        let heartbeat = self.options.heartbeat.as_secs().clamp(1, u16::MAX.into());
        let uri = AMQPUri {
            scheme: match self.options.tls {
                Some(_) => AMQPScheme::AMQPS,
                None => AMQPScheme::AMQP,
            },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.options.user.clone(),
                    password: self.options.password.clone(),
                },
                host: host.to_owned(),
                port,
            },
            vhost: self.options.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: u16::try_from(heartbeat).ok(),
                ..AMQPQueryString::default()
            },
        };
        let name = format!("pointsman {} ({})", self.options.name, self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|e| broke(&e))?;
        let connection = Connection::connect_uri_with_config(uri, properties, tls, runtime)
            .await
            .map_err(|e| broke(&e))?;
        self.watch(&connection);
        Ok(connection)
    }

    /// Keeps track of whether the broker blocks us.
    fn watch(&self, connection: &Connection) {
        let set = |blocked: &RwLock<Option<String>>, reason: Option<String>| {
            if let Ok(mut blocked) = blocked.write() {
                *blocked = reason;
            }
        };
        // What an earlier connection was told holds no longer.
        set(&self.blocked, None);
        let mut events = Box::pin(connection.events_listener());
        let (blocked, name) = (Arc::clone(&self.blocked), self.options.name.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(connection = name, reason, "blocked by the broker");
                        set(&blocked, Some(reason));
                    }
                    Event::ConnectionUnblocked => {
                        tracing::info!(connection = name, "no longer blocked");
                        set(&blocked, None);
                    }
                    _ => {}
                }
            }
        });
    }

    async fn tls(&self) -> Result<OwnedTLSConfig, BrokerError> {
        let Some(files) = &self.options.tls else {
            return Ok(OwnedTLSConfig::default());
        };
        let cert_chain = match &files.ca {
            None => None,
            Some(path) => Some(String::from_utf8_lossy(&read(path).await?).into_owned()),
        };
        let identity = match &files.identity {
            None => None,
            Some((cert, key)) => Some(OwnedIdentity::PKCS8 {
                pem: read(cert).await?,
                key: read(key).await?,
            }),
        };
        Ok(OwnedTLSConfig {
            identity,
            cert_chain,
        })
    }
}

async fn read(path: &std::path::Path) -> Result<Vec<u8>, BrokerError> {
    tokio::fs::read(path)
        .await
        .map_err(|e| BrokerError::Refused {
            code: "BadCertificate",
            reason: format!("{} cannot be read: {e}", path.display()),
            permanent: false,
        })
}

/// The broker's answer to a request, within [`ANSWER`].
pub(super) async fn answered<T>(
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|e| broke(&e)),
        Err(_) => Err(BrokerError::Unavailable(format!(
            "the broker has not answered for {} s",
            ANSWER.as_secs()
        ))),
    }
}

/// What an error of the library means to us.
pub(super) fn broke(error: &lapin::Error) -> BrokerError {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return BrokerError::Unavailable(error.to_string());
    };
    let text = said.get_message().to_string();
    // https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants
    let code = match said.get_id() {
        311 => "ContentTooLarge",
        403 => "AccessRefused",
        404 => "NotFound",
        405 => "ResourceLocked",
        406 => "PreconditionFailed",
        530 => "NotAllowed",
        _ => return BrokerError::Unavailable(text),
    };
    BrokerError::Refused {
        code,
        reason: text,
        permanent: false,
    }
}
