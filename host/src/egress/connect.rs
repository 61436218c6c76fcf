//! Connections: resolve, check every address, connect to a checked one, TLS by the name.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::policy::{EgressPolicy, Target};
use super::{EgressError, EgressOptions};
use crate::resolve::{NoConnection, Resolve, dial};
use crate::tls::client_config;

/// Makes the connections of one profile.
#[derive(Clone)]
pub(super) struct Connector {
    policy: Arc<EgressPolicy>,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        policy: Arc<EgressPolicy>,
        resolver: Arc<dyn Resolve>,
        options: &EgressOptions,
    ) -> Result<Self, rustls::Error> {
        let tls = TlsConnector::from(Arc::new(client_config(&options.extra_roots)?));
        Ok(Self { policy, resolver, tls, timeout: options.connect_timeout })
    }

    /// Connects to a place that the policy admits. One limit stands over DNS, TCP and TLS together.
    async fn connect(self, uri: Uri) -> Result<Stream, EgressError> {
        let target = self.policy.admit(&uri).map_err(EgressError::HostDenied)?.clone();
        tokio::time::timeout(self.timeout, self.open(&target)).await.unwrap_or(Err(EgressError::ConnectTimeout))
    }

    async fn open(&self, target: &Target) -> Result<Stream, EgressError> {
        let tcp = self.dial(target).await?;
        // Requests are written whole: waiting for more to send only delays them.
        tcp.set_nodelay(true).map_err(|error| EgressError::Connect(error.kind()))?;
        if !target.https {
            return Ok(Stream::Plain(tcp));
        }
        let name = match &target.host {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|_| EgressError::Tls("host name".to_owned()))?,
            Host::Ipv4(address) => ServerName::from(IpAddr::from(*address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::from(*address)),
        };
        let stream = self.tls.connect(name, tcp).await.map_err(|error| tls_error(&error))?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// Tries the checked addresses in their order. One forbidden address condemns all: a name that points both outside and
    /// inside is an attack or a mistake.
    async fn dial(&self, target: &Target) -> Result<TcpStream, EgressError> {
        let addresses = match &target.host {
            Host::Domain(name) => self.resolver.resolve(name).await.map_err(|error| EgressError::Dns(error.to_string()))?,
            Host::Ipv4(address) => vec![(*address).into()],
            Host::Ipv6(address) => vec![(*address).into()],
        };
        if let Some(forbidden) = addresses.iter().find(|address| !self.policy.allows(target.https, **address)) {
            return Err(EgressError::AddressDenied(*forbidden));
        }
        Ok(dial(&addresses, target.port, self.timeout).await?)
    }
}

impl From<NoConnection> for EgressError {
    fn from(why: NoConnection) -> Self {
        match why {
            NoConnection::NoAddress => Self::NoAddress,
            NoConnection::Refused(kind) => Self::Connect(kind),
            NoConnection::Timeout => Self::ConnectTimeout,
        }
    }
}

fn tls_error(error: &io::Error) -> EgressError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => EgressError::Certificate(format!("{why:?}")),
        _ => EgressError::Tls(error.to_string()),
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}

/// A connection, with TLS or (in development) without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
