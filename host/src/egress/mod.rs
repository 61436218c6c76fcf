//! The only way from a component to the network: an allow-list by name, a check of every resolved address, a pooled client with
//! limits on everything. No redirects are followed and nothing is sent twice.

mod connect;
mod policy;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod upstream;

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;

pub use policy::{EgressPolicy, PolicyError};

use connect::Connector;

use crate::resolve::Resolve;

/// The largest body in either direction (our choice; the contract promises 1 MiB for an invoice).
pub const BODY_MAX: usize = 1024 * 1024;
/// The largest head in either direction, the request's address included.
pub const HEAD_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 100;
/// Connections kept open for one profile while nobody uses them.
const IDLE_MAX: usize = 8;

/// Limits in time, and whom to trust.
#[derive(Debug, Clone)]
pub struct EgressOptions {
    /// For name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the whole request sent to the answer's head.
    pub first_byte_timeout: Duration,
    /// Between two pieces of the answer's body.
    pub between_bytes_timeout: Duration,
    /// For everything together.
    pub total_timeout: Duration,
    /// How long an unused connection stays open.
    pub idle_timeout: Duration,
    /// Certificate authorities besides the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for EgressOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(30),
            between_bytes_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_secs(30),
            extra_roots: Vec::new(),
        }
    }
}

/// Why there is no answer. [`EgressError::sent`] tells whether the other side can have acted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EgressError {
    /// A place that the policy does not list, without what stood before an `@`.
    #[error("`{0}` is not among the hosts of this profile")]
    HostDenied(String),
    /// A method that is no request to a resource.
    #[error("the method {0} is not allowed")]
    MethodDenied(Method),
    /// A name that resolves to an address out of bounds.
    #[error("the address {0} is out of bounds for this profile")]
    AddressDenied(IpAddr),
    /// The request's head is too large.
    #[error("the request's head is larger than {HEAD_MAX} bytes")]
    RequestHead,
    /// The request's body is too large.
    #[error("the request's body is larger than {BODY_MAX} bytes")]
    RequestBody,
    /// The sender gave up within the request's body.
    #[error("the request's body was not finished")]
    RequestUnfinished,
    /// The name does not resolve.
    #[error("name resolution: {0}")]
    Dns(String),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// TCP failed.
    #[error("connection: {0}")]
    Connect(io::ErrorKind),
    /// Resolution, TCP and TLS took too long.
    #[error("no connection in time")]
    ConnectTimeout,
    /// The certificate does not prove the name.
    #[error("certificate: {0}")]
    Certificate(String),
    /// TLS failed otherwise.
    #[error("TLS: {0}")]
    Tls(String),
    /// A kept connection had gone before the request was written.
    #[error("the connection closed before the request was written")]
    Unwritten,
    /// The connection broke within or after the request.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer's head in time.
    #[error("no answer in time")]
    FirstByteTimeout,
    /// The answer's body stopped coming.
    #[error("the answer's body stalled")]
    Stalled,
    /// The answer's head breaks HTTP or is larger than [`HEAD_MAX`].
    #[error("the answer's head is malformed or larger than {HEAD_MAX} bytes: {0}")]
    ResponseHead(String),
    /// The answer's body is too large.
    #[error("the answer's body is larger than {BODY_MAX} bytes")]
    ResponseBody,
    /// The answer's body broke off.
    #[error("the answer's body broke off: {0}")]
    ResponseBroken(String),
    /// Everything together took too long; the request may have been sent.
    #[error("the exchange took too long")]
    TotalTimeout,
}

impl EgressError {
    /// Whether the request can have reached the other side.
    pub fn sent(&self) -> bool {
        match self {
            Self::Broken(_)
            | Self::FirstByteTimeout
            | Self::Stalled
            | Self::ResponseHead(_)
            | Self::ResponseBody
            | Self::ResponseBroken(_)
            | Self::TotalTimeout => true,
            Self::HostDenied(_)
            | Self::MethodDenied(_)
            | Self::AddressDenied(_)
            | Self::RequestHead
            | Self::RequestBody
            | Self::RequestUnfinished
            | Self::Dns(_)
            | Self::NoAddress
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Certificate(_)
            | Self::Tls(_)
            | Self::Unwritten => false,
        }
    }
}

/// One profile's way out. Clones share its connections; no other profile does.
#[derive(Clone)]
pub struct Egress {
    policy: Arc<EgressPolicy>,
    client: Client<Connector, Full<Bytes>>,
    options: Arc<EgressOptions>,
}

impl Egress {
    /// A way out under a policy. Fails only for an extra root that is no certificate.
    pub fn new(policy: EgressPolicy, options: EgressOptions, resolver: Arc<dyn Resolve>) -> Result<Self, rustls::Error> {
        let policy = Arc::new(policy);
        let connector = Connector::new(Arc::clone(&policy), resolver, &options)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(IDLE_MAX)
            // Whoever may repeat a request decides it with the journal at hand.
            .retry_canceled_requests(false)
            .http1_max_buf_size(HEAD_MAX)
            .http1_max_headers(FIELDS_MAX)
            .build(connector);
        Ok(Self { policy, client, options: Arc::new(options) })
    }

    /// Sends one request and reads the whole answer. `first_byte` can shorten the wait for the answer's head.
    pub async fn send<B>(&self, request: Request<B>, first_byte: Option<Duration>) -> Result<Response<Bytes>, EgressError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let exchange = async {
            let request = self.checked(request).await?;
            let first_byte =
                first_byte.map_or(self.options.first_byte_timeout, |asked| asked.min(self.options.first_byte_timeout));
            self.exchange(request, first_byte).await
        };
        tokio::time::timeout(self.options.total_timeout, exchange).await.unwrap_or(Err(EgressError::TotalTimeout))
    }

    /// The request as it may leave: for an allowed place, spelled our way, and whole, so that a sender that dies within the
    /// body has sent nothing.
    async fn checked<B>(&self, request: Request<B>) -> Result<Request<Full<Bytes>>, EgressError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (mut head, body) = request.into_parts();
        let target = self.policy.admit(&head.uri).map_err(EgressError::HostDenied)?;
        if head.method == Method::CONNECT || head.method == Method::TRACE {
            return Err(EgressError::MethodDenied(head.method));
        }
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if path.len() + fields > HEAD_MAX || head.headers.len() > FIELDS_MAX {
            return Err(EgressError::RequestHead);
        }
        head.uri = target.uri(path).ok_or_else(|| EgressError::HostDenied(String::new()))?;
        // The client writes both, from the address and from the body.
        head.headers.remove(header::HOST);
        head.headers.remove(header::CONTENT_LENGTH);
        let body = match Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(EgressError::RequestBody),
            Err(_) => return Err(EgressError::RequestUnfinished),
        };
        Ok(Request::from_parts(head, Full::new(body)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, first_byte: Duration) -> Result<Response<Bytes>, EgressError> {
        let within = self.options.connect_timeout + first_byte;
        let response = tokio::time::timeout(within, self.client.request(request))
            .await
            .map_err(|_| EgressError::FirstByteTimeout)?
            .map_err(|error| client_error(&error))?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, self.read(body).await?))
    }

    async fn read(&self, mut body: Incoming) -> Result<Bytes, EgressError> {
        if body.size_hint().lower() > BODY_MAX as u64 {
            return Err(EgressError::ResponseBody);
        }
        let mut bytes = Vec::new();
        loop {
            let frame = tokio::time::timeout(self.options.between_bytes_timeout, body.frame()).await;
            let Some(frame) = frame.map_err(|_| EgressError::Stalled)? else { return Ok(bytes.into()) };
            let frame = frame.map_err(|error| EgressError::ResponseBroken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > BODY_MAX {
                return Err(EgressError::ResponseBody);
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// Reads what happened out of the client's chain of causes.
fn client_error(error: &hyper_util::client::legacy::Error) -> EgressError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(ours) = this.downcast_ref::<EgressError>() {
            return ours.clone();
        }
        if let Some(hyper) = this.downcast_ref::<hyper::Error>() {
            return if hyper.is_canceled() {
                EgressError::Unwritten
            } else if hyper.is_parse() {
                EgressError::ResponseHead(hyper.to_string())
            } else {
                EgressError::Broken(hyper.to_string())
            };
        }
        cause = this.source();
    }
    // Nothing certain is known: the request may have been sent.
    EgressError::Broken(error.to_string())
}
