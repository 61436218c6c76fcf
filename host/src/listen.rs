//! Listening for HTTP/1.1, on an address or a unix socket, with limits that hold before a request is understood.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::config::Listen;

/// How long a connection may take to send a request's head (spec/kernelhost 2.22).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller may leave an answer unread: past that the kernel ends the connection, where it can.
#[cfg(target_os = "linux")]
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stopping listener waits for answers under way.
const GRACE: Duration = Duration::from_secs(20);
/// Connections at a time; more wait in the kernel's queue.
pub(crate) const CONNECTIONS: usize = 10_000;
/// Heads larger than this are refused by the parser.
const HEAD_BYTES: usize = 16 * 1024;

/// Where a listener is: with port 0 asked for, the port it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

/// A listener that takes no connections yet.
pub struct Listener {
    socket: Socket,
    address: Address,
}

enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: RemoveOnDrop },
}

/// A unix socket's file does not go with the process that made it.
struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Gone already is as good.
        let _gone = std::fs::remove_file(&self.0);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Listens. A unix socket that nobody answers at any more is replaced, one that somebody does is not; what is made may be used by
    /// its owner and group.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Self::of(TcpListener::bind(address).await?),
            Listen::Unix(path) => {
                use std::os::unix::fs::PermissionsExt as _;

                if tokio::net::UnixStream::connect(path).await.is_ok() {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody answers at this socket"));
                }
                if std::fs::symlink_metadata(path)
                    .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
                {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                let socket = Socket::Unix { listener, _file: RemoveOnDrop(path.clone()) };
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(Self { socket, address: Address::Unix(path.clone()) })
            }
        }
    }

    /// Of a socket that listens already.
    pub fn of(listener: TcpListener) -> io::Result<Self> {
        let address = Address::Tcp(listener.local_addr()?);
        Ok(Self { socket: Socket::Tcp(listener), address })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Serves until it is told to stop, then lets answers under way finish for up to 20 s. The service is given the caller's address;
    /// whoever comes through a unix socket counts as loopback.
    pub(crate) async fn serve<S, F>(self, service: S, mut stopped: watch::Receiver<bool>)
    where
        S: Fn(Request<Incoming>, IpAddr) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let graceful = GracefulShutdown::new();
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stopped.changed() => break,
            };
            let (stream, peer) = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: closing ones will free some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let service = service.clone();
            let service = service_fn(move |request| {
                let answer = service(request, peer);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, %peer, "connection ended early");
                }
                drop(slot);
            });
        }
        drop(self.socket);
        if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
            tracing::warn!("some answers did not finish within {GRACE:?}");
        }
    }
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Socket {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, IpAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole; waiting to fill a packet would only add a delay.
                let _best_effort = stream.set_nodelay(true);
                #[cfg(target_os = "linux")]
                let _best_effort = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
                Ok((Box::new(stream), peer.ip()))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Ipv4Addr::LOCALHOST.into()))
            }
        }
    }
}

/// Why a body is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is larger than allowed.
    TooLarge,
    /// It did not come in time.
    Timeout,
    /// The connection broke, or it is no HTTP.
    Broken,
}

/// A request's body, whole.
pub(crate) async fn read_body(body: Incoming, limit: usize) -> Result<Vec<u8>, BodyError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    match collected.map_err(|_| BodyError::Timeout)? {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Err(_) => Err(BodyError::Broken),
    }
}
