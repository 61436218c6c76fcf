//! A scripted network for this folder's tests: it answers attempt by attempt and records what was sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::form::Form;
use crate::contract::{self, Call, Order, ServiceRef, Setting};
use crate::message::{Request, Response};
use crate::outside::{Outside, SendError};
use crate::provisioning::Connection;

/// Marked, so that a test can look for it where it must not be.
pub(super) const API_KEY: &str = "MARKEDapikey0123456789abcdefghijklmnopqr";
pub(super) const PASSWORD: &str = "MARKED-S3cure!pass";

type Reply = Result<Response, SendError>;

/// The network and the clock. Time passes only by sleeping, and while an answer that never comes is waited for.
pub(super) struct Net {
    replies: RefCell<VecDeque<Reply>>,
    /// The answer to everything once the script is at its end.
    rest: Option<Reply>,
    pub(super) sent: RefCell<Vec<Request>>,
    clock: Cell<Duration>,
    /// Where the wall clock stands still.
    frozen_at: Option<Timestamp>,
    counter: Cell<u64>,
}

impl Net {
    pub(super) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self {
            replies: RefCell::new(replies.into_iter().collect()),
            rest: None,
            sent: RefCell::default(),
            clock: Cell::new(Duration::ZERO),
            frozen_at: None,
            counter: Cell::new(7),
        }
    }

    pub(super) fn always(reply: Reply) -> Self {
        Self::new([]).then(reply)
    }

    /// The same, with an answer to everything that the script does not cover.
    pub(super) fn then(self, reply: Reply) -> Self {
        Self { rest: Some(reply), ..self }
    }

    /// The same, with a wall clock that stands still.
    pub(super) fn frozen_at(self, second: i64) -> Self {
        Self { frozen_at: Some(Timestamp::from_second(second).unwrap()), ..self }
    }

    /// The endpoints asked, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        let endpoint = |request: &Request| request.target.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
        self.sent.borrow().iter().map(endpoint).collect()
    }

    /// What a request carried.
    pub(super) fn form(&self, attempt: usize) -> Form {
        let request = &self.sent.borrow()[attempt];
        Form::read(request.headers.once("content-type").unwrap(), &request.body).unwrap_or_else(|_| panic!("no form"))
    }
}

#[async_trait(?Send)]
impl Outside for Net {
    async fn send(&self, request: Request, timeout: Duration) -> Reply {
        let target = request.target.clone();
        self.sent.borrow_mut().push(request);
        let reply = self.replies.borrow_mut().pop_front().or_else(|| self.rest.clone());
        let reply = reply.unwrap_or_else(|| panic!("not in the script: {target}"));
        if matches!(reply, Err(SendError::Lost(_))) {
            self.clock.set(self.clock.get() + timeout);
        }
        reply
    }

    async fn sleep(&self, time: Duration) {
        self.clock.set(self.clock.get() + time);
    }

    fn now(&self) -> Timestamp {
        self.frozen_at.unwrap_or_else(|| Timestamp::from_second(1_790_000_000).unwrap() + self.clock.get())
    }

    fn ticks(&self) -> Duration {
        self.clock.get()
    }

    fn random(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let next = self.counter.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.counter.set(next);
            *byte = next.to_be_bytes()[0];
        }
    }
}

/// Runs what never waits for anything but [`Net`].
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the scripted network never lets wait"),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a line of the script")]
pub(super) fn json(status: u16, body: impl AsRef<str>) -> Reply {
    Ok(Response::new(status, "application/json", body.as_ref()))
}

pub(super) fn with(reply: Reply, name: &str, value: &str) -> Reply {
    reply.map(|response| Response { headers: response.headers.with(name, value), ..response })
}

pub(super) fn lost() -> Reply {
    Err(SendError::Lost("timed out".to_owned()))
}

pub(super) fn not_sent() -> Reply {
    Err(SendError::NotSent("connection refused".to_owned()))
}

pub(super) fn connection(base_url: &str, api_key: &str, settings: &[(&str, &str)]) -> Connection {
    let setting = |(name, value): &(&str, &str)| Setting { name: (*name).to_owned(), value: (*value).to_owned() };
    contract::Connection {
        provider: "gp".to_owned(),
        base_url: base_url.to_owned(),
        key: String::new(),
        secret: api_key.to_owned(),
        settings: settings.iter().map(setting).collect(),
    }
    .into()
}

pub(super) fn at_with(settings: &[(&str, &str)]) -> Connection {
    connection("https://gp.example/api/v1/", API_KEY, settings)
}

pub(super) fn at() -> Connection {
    at_with(&[])
}

pub(super) fn call(attempt: u32) -> Call {
    Call { idempotency_key: "k".to_owned(), attempt, deadline_ms: 60_000, notes: Vec::new() }
}

pub(super) fn named(domain: &str) -> ServiceRef {
    ServiceRef { remote_id: Some(domain.to_owned()), domain: None, username: None }
}

pub(super) fn order() -> Order {
    Order {
        plan: "10K".to_owned(),
        term: None,
        domain: Some("Example.com".to_owned()),
        email: Some("customer@example.com".to_owned()),
        password: Some(PASSWORD.to_owned()),
        note: None,
        options: Vec::new(),
    }
}
