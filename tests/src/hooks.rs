//! A receiver of webhooks that answers as a test tells it, and keeps what it was sent.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::faults::connection;

/// Far longer than a delivery takes: whoever waits so long waits for something that does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Path and query.
    pub path: String,
    /// The head.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
}

impl Received {
    /// A header's value.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The event's type.
    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// The event's id.
    pub fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }
}

/// What a receiver does with a delivery.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers with a status.
    Status(u16),
    /// Answers with a status and one header.
    With(u16, &'static str, String),
    /// Never answers.
    Hang,
}

/// A running receiver, ended when it is dropped.
pub struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    received: Vec<Received>,
}

/// How a connection is accepted before HTTP is spoken on it.
pub trait Accept: Clone + Send + Sync + 'static {
    /// What HTTP is spoken on.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// `None` when the caller gave up.
    fn accept(&self, stream: tokio::net::TcpStream) -> impl Future<Output = Option<Self::Stream>> + Send;
}

/// As it is.
#[derive(Clone)]
pub struct Plain;

impl Accept for Plain {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self, stream: tokio::net::TcpStream) -> Option<Self::Stream> {
        Some(stream)
    }
}

impl Receiver {
    /// Answers all with 200.
    pub async fn start() -> Self {
        Self::answering(|_, _| Reply::Status(200)).await
    }

    /// Answers as told: what came, and how many came before it.
    pub async fn answering(answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::accepting(Plain, answer).await
    }

    /// The same behind something else than plain TCP.
    pub async fn accepting(accept: impl Accept, answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (shared, answer) = (Arc::clone(&seen), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let stream = connection(&listener).await;
                shared.lock().unwrap().connections += 1;
                let (seen, answer, accept) = (Arc::clone(&shared), Arc::clone(&answer), accept.clone());
                tokio::spawn(async move {
                    let Some(stream) = accept.accept(stream).await else { return };
                    let service = service_fn(move |request| serve(request, Arc::clone(&seen), Arc::clone(&answer)));
                    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen, task }
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where events are to be sent.
    pub fn url(&self) -> String {
        format!("http://{}/hook?tenant=7", self.address)
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Received> {
        self.seen.lock().unwrap().received.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Waits until so many came.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        until(|| self.received().len() >= count, || format!("{count} deliveries, there are {:?}", self.received())).await;
        self.received()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until something holds.
pub async fn until(holds: impl Fn() -> bool, what: impl Fn() -> String) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {}", what());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(
    request: Request<Incoming>,
    seen: Arc<Mutex<Seen>>,
    answer: Arc<impl Fn(&Received, usize) -> Reply>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let received = Received { path: head.uri.to_string(), headers: head.headers, body };
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.received.push(received.clone());
        seen.received.len() - 1
    };
    let response = Response::builder();
    let response = match answer(&received, before) {
        Reply::Status(status) => response.status(status),
        Reply::With(status, name, value) => response.status(status).header(name, value),
        Reply::Hang => std::future::pending().await,
    };
    Ok(response.body(Full::default()).unwrap())
}
