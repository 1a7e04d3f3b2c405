//! Where the interface is served: a TCP address, and a socket in the data folder.

use crate::app::Node;
use crate::tasks::Tasks;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// A request's headers must have come within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Name of the socket in the data folder.
const SOCKET: &str = "pointsman.sock";

/// Longest path that fits into a Unix socket's address on Linux.
const SOCKET_PATH_MAX: usize = 107;

/// Why the interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {error}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on the socket {}: {error}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It would be open to the network without protection.
    #[error(
        "refusing to listen on {0}: it is reachable from the network, and this version has no access tokens"
    )]
    Open(SocketAddr),
}

/// The interface, bound and not yet served.
pub struct Server {
    tcp: TcpListener,
    unix: UnixListener,
    socket: PathBuf,
}

/// Where the socket of a data folder lies. A path that is too long for a socket
/// address is replaced by one in the folder for temporary files.
#[must_use]
pub fn socket_path(data: &Path) -> PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let path = absolute.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return path;
    }
    let id = crate::event::derived_id(&absolute.to_string_lossy(), "socket", 0);
    std::env::temp_dir().join(format!("pointsman-{id}.sock"))
}

impl Server {
    /// Binds to `listen` and to the socket of the data folder. The caller holds
    /// the data folder's lock, so a socket that is there is a dead one's.
    ///
    /// # Errors
    /// When one of the two cannot be bound, or `listen` is not a loopback address.
    pub async fn bind(listen: SocketAddr, data: &Path) -> Result<Self, ServeError> {
        if !listen.ip().is_loopback() {
            return Err(ServeError::Open(listen));
        }
        let tcp = TcpListener::bind(listen)
            .await
            .map_err(|error| ServeError::Address {
                address: listen,
                error,
            })?;
        let socket = socket_path(data);
        let error = |error| ServeError::Socket {
            path: socket.clone(),
            error,
        };
        match std::fs::remove_file(&socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
            _ => {}
        }
        let unix = UnixListener::bind(&socket).map_err(error)?;
        Ok(Self { tcp, unix, socket })
    }

    /// The address that it is bound to; the port is chosen when `listen` said 0.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `stop`; open connections get a moment to finish.
    pub async fn serve(self, node: Arc<Node>, stop: CancellationToken) {
        let routes = super::routes(node);
        let connections = Tasks::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok((stream, _)) = self.tcp.accept() => {
                    // Small answers should not wait for the network's batching.
                    stream.set_nodelay(true).ok();
                    connections.spawn(connection(stream, routes.clone(), stop.clone()));
                }
                Ok((stream, _)) = self.unix.accept() => {
                    connections.spawn(connection(stream, routes.clone(), stop.clone()));
                }
            }
        }
        tokio::time::timeout(Duration::from_secs(5), connections.wait())
            .await
            .ok();
        std::fs::remove_file(&self.socket).ok();
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(routes);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            // A stream that never ends by itself must not hold up the stop.
            tokio::select! {
                ended = &mut served => ended,
                () = tokio::time::sleep(Duration::from_secs(2)) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection");
    }
}
