//! One POST to a place that a reseller named: resolved here, every address checked, connected to a checked one (our choice, 2.14).
//! No redirects, no proxy, nothing sent twice.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use provisor_providers::message::Headers;
use provisor_providers::target::{Refused, Target, TargetRules};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::Options;
use crate::resolve::{NoConnection, Resolve, dial};
use crate::tls::client_config;

/// For name resolution, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer's body is read, so that the receiver can finish it; nobody looks at it.
const ANSWER_BYTES: usize = 4 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest head of an answer.
const HEAD_BYTES: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
const AGENT: &str = concat!("Provisor/", env!("CARGO_PKG_VERSION"), " (webhooks)");

/// Posts events.
pub(crate) struct Postman {
    rules: TargetRules,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    timeout: Duration,
}

/// What is posted.
pub(super) struct Letter<'a> {
    pub(super) url: &'a str,
    pub(super) headers: Headers,
    pub(super) body: &'a str,
}

/// A receiver's answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("the address is refused as {}", .0.code())]
    Target(#[from] Refused),
    #[error("the name does not resolve")]
    Unresolved,
    #[error("no connection: {0}")]
    Connect(io::ErrorKind),
    #[error("no connection within {CONNECT_TIMEOUT:?}")]
    ConnectTimeout,
    #[error("TLS: {0}")]
    Tls(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
}

/// The host of an address, for people. The rest of it may be a secret.
pub(super) fn host(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

impl Postman {
    /// Fails only for an extra root that is no certificate.
    pub(in super::super) fn new(options: &Options) -> Result<Self, rustls::Error> {
        let tls = TlsConnector::from(Arc::new(client_config(&options.extra_roots)?));
        let (rules, resolver) = (options.rules.webhooks.clone(), Arc::clone(&options.resolver));
        Ok(Self { rules, resolver, tls, timeout: options.webhook_timeout })
    }

    /// Posts once, and waits for the answer's head.
    pub(super) async fn post(&self, letter: &Letter<'_>) -> Result<Answer, PostError> {
        tokio::time::timeout(self.timeout, self.try_post(letter)).await.unwrap_or(Err(PostError::Timeout(self.timeout)))
    }

    async fn try_post(&self, letter: &Letter<'_>) -> Result<Answer, PostError> {
        // Checked again: the operator's rules may have changed since it was registered.
        let target = Target::parse(letter.url, &self.rules)?;
        let request = request(&target, letter)?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&target)).await;
        match connected.unwrap_or(Err(PostError::ConnectTimeout))? {
            Connection::Plain(stream) => exchange(stream, request).await,
            Connection::Tls(stream) => exchange(stream, request).await,
        }
    }

    async fn connect(&self, target: &Target) -> Result<Connection, PostError> {
        let addresses = match (target.name(), target.address()) {
            (Some(name), _) => self.resolver.resolve(name).await.map_err(|_| PostError::Unresolved)?,
            (None, address) => address.into_iter().collect(),
        };
        target.admit(&addresses)?;
        let stream = dial(&addresses, target.port(), CONNECT_TIMEOUT).await?;
        if !target.is_https() {
            return Ok(Connection::Plain(stream));
        }
        let name = match (target.name(), target.address()) {
            (None, Some(address)) => ServerName::from(address),
            (name, _) => {
                ServerName::try_from(name.unwrap_or_default().to_owned()).map_err(|error| PostError::Tls(error.to_string()))?
            }
        };
        let stream = self.tls.connect(name, stream).await.map_err(|error| PostError::Tls(error.to_string()))?;
        Ok(Connection::Tls(Box::new(stream)))
    }
}

enum Connection {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl From<NoConnection> for PostError {
    fn from(why: NoConnection) -> Self {
        match why {
            NoConnection::NoAddress => Self::Unresolved,
            NoConnection::Refused(kind) => Self::Connect(kind),
            NoConnection::Timeout => Self::ConnectTimeout,
        }
    }
}

fn request(target: &Target, letter: &Letter<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::post(target.path())
        .header(HOST, target.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, AGENT);
    for (name, value) in letter.headers.iter() {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(letter.body.as_bytes())))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_BYTES).max_headers(HEADERS_MAX);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(async { read(sender.send_request(request).await?).await });
    let connection = pin!(connection);
    // The connection is driven here: it ends when this does, whatever the receiver does.
    tokio::select! {
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    answer.await
}

/// The status decides. The body is read only as a courtesy, and what is wrong with it does not matter.
async fn read(response: Response<Incoming>) -> Result<Answer, PostError> {
    let (head, mut body) = response.into_parts();
    let courtesy = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read >= ANSWER_BYTES {
                break;
            }
        }
    };
    let _in_time = tokio::time::timeout(ANSWER_TIMEOUT, courtesy).await;
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: head.status.as_u16(), retry_after })
}
