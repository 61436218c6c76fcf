//! The outside world for a provider's client: loopback, a clock, the operating system's randomness.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use provisor::clock::{Clock, System};
use provisor_providers::message::{Request, Response};
use provisor_providers::outside::{Outside, SendError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The largest answer that is read.
const BODY_BYTES: usize = 1 << 20;

/// Plain http to loopback, one connection per request, so that each failure belongs to the request that meets it.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    started: Instant,
}

impl World {
    /// With this wall clock; ticks and sleeps are the machine's.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, started: Instant::now() }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new(Arc::new(System))
    }
}

#[async_trait(?Send)]
impl Outside for World {
    async fn send(&self, request: Request, timeout: Duration) -> Result<Response, SendError> {
        let until = Instant::now() + timeout;
        let (authority, request) = outgoing(request)?;
        let connecting = timeout_at(until, TcpStream::connect(authority)).await;
        let stream = connecting.map_err(|_| not_sent(&"no connection in time"))?.map_err(|error| not_sent(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| not_sent(&error))?;
        let driver = tokio::spawn(connection);
        let answer = timeout_at(until, async { read(sender.send_request(request).await.map_err(|error| broken(&error))?).await });
        let answer = answer.await.unwrap_or_else(|_| Err(SendError::Lost("no whole answer in time".to_owned())));
        driver.abort();
        answer
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn ticks(&self) -> Duration {
        self.started.elapsed()
    }

    fn random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }
}

fn not_sent(why: &impl ToString) -> SendError {
    SendError::NotSent(why.to_string())
}

fn outgoing(request: Request) -> Result<(String, hyper::Request<Full<Bytes>>), SendError> {
    let refused = |why: &str| SendError::Refused(why.to_owned());
    let rest = request.target.strip_prefix("http://").ok_or_else(|| refused("only plain http"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut outgoing = hyper::Request::builder().method(request.method.as_str()).uri(path).header("host", authority);
    for (name, value) in request.headers.iter() {
        outgoing = outgoing.header(name, value);
    }
    let outgoing = outgoing.body(Full::new(request.body.into())).map_err(|error| SendError::Refused(error.to_string()))?;
    Ok((authority.to_owned(), outgoing))
}

/// An answer that came and breaks HTTP shows that the request was read; a connection that broke shows nothing.
fn broken(error: &hyper::Error) -> SendError {
    if error.is_parse() { SendError::Unreadable(error.to_string()) } else { SendError::Lost(error.to_string()) }
}

async fn read(response: hyper::Response<Incoming>) -> Result<Response, SendError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return SendError::Unreadable(format!("more than {BODY_BYTES} bytes"));
        }
        error.downcast_ref().map_or_else(|| SendError::Lost(error.to_string()), broken)
    })?;
    let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    Ok(Response { status: head.status.as_u16(), headers, body: body.to_bytes().into() })
}
