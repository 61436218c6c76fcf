//! A machine in front of a server that does to chosen requests what networks, gateways and broken providers do.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Whether the server gets it, and commits, before anything goes wrong.
    pub reaches: bool,
    /// What the caller gets.
    pub answer: Answer,
}

/// What the caller gets instead of the server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// None: the connection ends.
    Cut,
    /// The server's own, but so much later.
    Late(Duration),
    /// The server's own, after the request was so long on its way.
    Held(Duration),
    /// The server's own, to the same request sent a second time.
    Twice,
    /// 429 with this many seconds to wait.
    TooMany(u64),
    /// This status with a gateway's page.
    Status(u16),
    /// The first half of the server's answer, at its status, as if it were whole.
    Half,
    /// A web page with status 200.
    Html,
    /// Nothing, with status 200.
    Empty,
    /// The server's own with each `status` in the other letter case.
    OtherCase,
    /// The server's own with blanks around each `status`.
    Spaced,
    /// This status with this JSON.
    Json(u16, &'static str),
    /// This status with the request repeated in every text of a JSON body.
    Echo(u16),
}

/// A fault and the requests it befalls.
struct Rule {
    /// `METHOD /path`, whole or in part.
    target: String,
    fault: Fault,
    left: usize,
}

struct Plan {
    server: SocketAddr,
    rules: Vec<Rule>,
    seen: Vec<String>,
    injected: usize,
}

/// The machine in front. It closes when dropped.
pub struct Upstream {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// While it is closed: bound, so that no other server is given the port, and not listening.
    reserved: Mutex<Option<TcpSocket>>,
}

impl Upstream {
    /// In front of a server, on a port of its own.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan { server, rules: Vec::new(), seen: Vec::new(), injected: 0 }));
        let accepting = Mutex::new(Some(tokio::spawn(accept(listener, Arc::clone(&plan)))));
        Self { address, plan, accepting, reserved: Mutex::new(None) }
    }

    /// Stands in front of another server from now on.
    pub fn point_at(&self, server: SocketAddr) {
        lock(&self.plan).server = server;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets a fault befall the next `times` requests whose `METHOD /path` contains `target`.
    pub fn inject(&self, target: &str, fault: Fault, times: usize) {
        lock(&self.plan).rules.push(Rule { target: target.to_owned(), fault, left: times });
    }

    /// Passes on everything again.
    pub fn heal(&self) {
        lock(&self.plan).rules.clear();
    }

    /// How many requests a fault befell.
    pub fn injected(&self) -> usize {
        lock(&self.plan).injected
    }

    /// The requests that came, as `METHOD /path`, and whose text contains `target`.
    pub fn seen(&self, target: &str) -> usize {
        lock(&self.plan).seen.iter().filter(|seen| seen.contains(target)).count()
    }

    /// Refuses connections and ends those there are.
    pub async fn close(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(task) = accepting {
            task.abort();
            // Only then is the port closed.
            let _aborted = task.await;
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(self.address).unwrap();
            *self.reserved.lock().unwrap() = Some(socket);
        }
    }

    /// Takes connections again, on the same port.
    pub fn open(&self) {
        let listener = self.reserved.lock().unwrap().take().unwrap().listen(1024).unwrap();
        let task = tokio::spawn(accept(listener, Arc::clone(&self.plan)));
        *self.accepting.lock().unwrap() = Some(task);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
        }
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, plan: Arc<Mutex<Plan>>) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let stream = connection(&listener).await;
        let plan = Arc::clone(&plan);
        let service = service_fn(move |request| pass(Arc::clone(&plan), request));
        connections.spawn(async move {
            // A cut connection is one that ends with an error.
            let _ended = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The next connection. One that was gone before it was taken is none; and where there is no room for one, there soon is.
pub async fn connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn pass(plan: Arc<Mutex<Plan>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let fault = judge(&plan, &format!("{} {}", head.method, head.uri));
    let echo = String::from_utf8_lossy(&body).into_owned();
    let request = Request::from_parts(head, Full::new(body));
    let server = || lock(&plan).server;
    let Some(fault) = fault else { return forward(server(), request).await };
    match fault.answer {
        Answer::Held(delay) => tokio::time::sleep(delay).await,
        Answer::Twice => drop(forward(server(), request.clone()).await?),
        _ => {}
    }
    let answer = if fault.reaches { Some(forward(server(), request).await?) } else { None };
    distort(fault.answer, answer, &echo).await
}

fn judge(plan: &Mutex<Plan>, target: &str) -> Option<Fault> {
    let mut plan = lock(plan);
    plan.seen.push(target.to_owned());
    let rule = plan.rules.iter_mut().find(|rule| rule.left > 0 && target.contains(&rule.target))?;
    rule.left -= 1;
    let fault = rule.fault;
    plan.injected += 1;
    Some(fault)
}

async fn forward(server: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, io::Error> {
    let stream = TcpStream::connect(server).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    Ok(Response::from_parts(head, Full::new(body)))
}

async fn distort(answer: Answer, served: Option<Response<Full<Bytes>>>, echo: &str) -> Result<Response<Full<Bytes>>, io::Error> {
    let html = || Bytes::from_static(b"<!doctype html><title>Hello</title><p>Something else entirely.");
    let made = |status: u16, content_type: &str, body: Bytes| {
        let response = Response::builder().status(status).header(CONTENT_TYPE, content_type);
        response.body(Full::new(body)).map_err(io::Error::other)
    };
    match answer {
        Answer::Cut => Err(io::Error::other("cut on purpose")),
        Answer::Late(delay) => {
            tokio::time::sleep(delay).await;
            served.ok_or_else(|| io::Error::other("nothing to send late"))
        }
        Answer::Held(_) | Answer::Twice => served.ok_or_else(|| io::Error::other("nothing to pass on")),
        Answer::TooMany(seconds) => {
            let mut response = made(429, "text/html", html())?;
            response.headers_mut().insert("retry-after", seconds.into());
            Ok(response)
        }
        Answer::Status(status) => made(status, "text/html", html()),
        Answer::Half => reshape(served, |body| body.slice(..body.len() / 2)).await,
        Answer::Html => made(200, "text/html", html()),
        Answer::Empty => made(200, "application/json", Bytes::new()),
        Answer::OtherCase => reshape(served, |body| with_each_status(&body, flipped)).await,
        Answer::Spaced => reshape(served, |body| with_each_status(&body, |status| format!(" {status}\t"))).await,
        Answer::Json(status, body) => made(status, "application/json", Bytes::from_static(body.as_bytes())),
        Answer::Echo(status) => {
            let body = json!({
                "type": format!("https://example.com/problems/{echo}"), "title": echo, "status": echo, "detail": echo,
                "reason": echo, "request_id": echo, "errors": [{"field": echo, "code": echo, "message": echo}],
            });
            made(status, "application/problem+json", body.to_string().into())
        }
    }
}

async fn reshape(
    served: Option<Response<Full<Bytes>>>,
    change: impl FnOnce(Bytes) -> Bytes,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (mut head, body) = served.ok_or_else(|| io::Error::other("nothing to change"))?.into_parts();
    let body = body.collect().await.map_or_else(|never: Infallible| match never {}, http_body_util::Collected::to_bytes);
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(TRANSFER_ENCODING);
    Ok(Response::from_parts(head, Full::new(change(body))))
}

fn with_each_status(body: &[u8], change: fn(&str) -> String) -> Bytes {
    let Ok(mut told) = serde_json::from_slice::<Value>(body) else { return Bytes::copy_from_slice(body) };
    change_each(&mut told, change);
    told.to_string().into()
}

fn change_each(told: &mut Value, change: fn(&str) -> String) {
    match told {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "status" => *text = change(text),
                    value => change_each(value, change),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| change_each(item, change)),
        _ => {}
    }
}

fn flipped(text: &str) -> String {
    let flip = |char: char| if char.is_ascii_lowercase() { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() };
    text.chars().map(flip).collect()
}
