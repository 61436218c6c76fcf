//! A scripted network for this folder's tests: it answers attempt by attempt and records what was sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::contract::{self, Call, Problem, ServiceRef, Setting};
use crate::message::{Headers, Request, Response};
use crate::outside::{Outside, SendError};
use crate::provisioning::Connection;

pub(super) const KEY: &str = "kh_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Marked, so that a test can look for it where it must not be.
pub(super) const SECRET: &str = "MARKEDSECRETfghijklmnopqrstuvwxyz0123456";
pub(super) const WEBHOOK_SECRET: &str = "whsec_MARKEDwebhook";
pub(super) const EPOCH: i64 = 1_800_000_000;

/// Where the clock that never goes back stands at first.
const START: Duration = Duration::from_secs(1000);

type Answer = Result<Response, SendError>;

/// The network and the clock. Time passes only by sleeping, and while an answer that never comes is waited for.
pub(super) struct Net {
    answers: RefCell<VecDeque<Answer>>,
    /// The answer to everything once the script is at its end.
    rest: Option<Answer>,
    pub(super) sent: RefCell<Vec<(Request, Duration)>>,
    pub(super) slept: RefCell<Vec<Duration>>,
    clock: Cell<Duration>,
    counter: Cell<u64>,
}

impl Net {
    pub(super) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: RefCell::new(answers.into_iter().collect()),
            rest: None,
            sent: RefCell::default(),
            slept: RefCell::default(),
            clock: Cell::new(START),
            counter: Cell::new(7),
        }
    }

    pub(super) fn always(answer: Answer) -> Self {
        Self { rest: Some(answer), ..Self::new([]) }
    }

    /// `METHOD target`, without the host, per attempt.
    pub(super) fn asked(&self) -> Vec<String> {
        let line = |(request, _): &(Request, Duration)| format!("{} {}", request.method, path(request));
        self.sent.borrow().iter().map(line).collect()
    }

    pub(super) fn header(&self, attempt: usize, name: &str) -> String {
        self.sent.borrow()[attempt].0.headers.once(name).unwrap_or_default().to_owned()
    }

    pub(super) fn body(&self, attempt: usize) -> serde_json::Value {
        serde_json::from_slice(&self.sent.borrow()[attempt].0.body).unwrap()
    }
}

/// From `/v1` on.
pub(super) fn path(request: &Request) -> &str {
    &request.target[request.target.find("/v1").unwrap()..]
}

#[async_trait(?Send)]
impl Outside for Net {
    async fn send(&self, request: Request, timeout: Duration) -> Answer {
        let asked = format!("{} {}", request.method, request.target);
        self.sent.borrow_mut().push((request, timeout));
        let answer = self.answers.borrow_mut().pop_front().or_else(|| self.rest.clone());
        let answer = answer.unwrap_or_else(|| panic!("not in the script: {asked}"));
        if matches!(answer, Err(SendError::Lost(_))) {
            self.clock.set(self.clock.get() + timeout);
        }
        answer
    }

    async fn sleep(&self, time: Duration) {
        self.slept.borrow_mut().push(time);
        self.clock.set(self.clock.get() + time);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(EPOCH - START.as_secs().cast_signed()).unwrap() + self.clock.get()
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

#[expect(clippy::unnecessary_wraps, reason = "one of a script's answers, which may be none")]
pub(super) fn json(status: u16, body: impl AsRef<str>) -> Answer {
    Ok(Response::new(status, "application/json", body.as_ref()))
}

pub(super) fn with(answer: Answer, name: &str, value: &str) -> Answer {
    answer.map(|response| Response { headers: response.headers.with(name, value), ..response })
}

/// A problem as documented.
#[expect(clippy::unnecessary_wraps, reason = "one of a script's answers, which may be none")]
pub(super) fn refusal(status: u16, code: &str, reason: &str, more: &str) -> Answer {
    let body = format!(
        r#"{{"type":"https://www.kernelhost.com/en/reseller-api/errors/{code}","title":"Title","status":{status},
            "detail":"The detail.","request_id":"01HX7Z3K8QABCDEFGHJKMNPQRS","reason":"{reason}"{more}}}"#
    );
    Ok(Response { status, headers: Headers::new(), body: body.into_bytes() })
}

pub(super) fn lost() -> Answer {
    Err(SendError::Lost("timed out".to_owned()))
}

pub(super) fn not_sent() -> Answer {
    Err(SendError::NotSent("connection refused".to_owned()))
}

pub(super) fn connection(base_url: &str) -> Connection {
    contract::Connection {
        provider: "kernelhost".to_owned(),
        base_url: base_url.to_owned(),
        key: KEY.to_owned(),
        secret: SECRET.to_owned(),
        settings: vec![Setting { name: "webhook_secret".to_owned(), value: WEBHOOK_SECRET.to_owned() }],
    }
    .into()
}

pub(super) fn at() -> Connection {
    connection("https://kh.example/cp/kh_reseller_api")
}

pub(super) fn call() -> Call {
    Call { idempotency_key: "create-17.1".to_owned(), attempt: 1, deadline_ms: 60_000, notes: Vec::new() }
}

pub(super) fn named(remote_id: &str) -> ServiceRef {
    ServiceRef { remote_id: Some(remote_id.to_owned()), domain: Some("a.example".to_owned()), username: None }
}

/// A service's body.
pub(super) fn service(id: i64, status: &str) -> String {
    format!(
        r#"{{"id":{id},"order_id":17,"product_id":42,"status":"{status}","power":"running","hostname":"a.example",
            "ip_addresses":["192.0.2.1"],"billing_cycle":"monthly","next_due_at":"2027-02-15T08:00:00Z","created_at":null}}"#
    )
}

/// An order's body.
pub(super) fn order(status: &str, service: &str) -> String {
    format!(r#"{{"id":17,"status":"{status}","product_id":42,"billing_cycle":"monthly","service_id":{service},"invoice_id":3}}"#)
}

/// No text of a problem holds a marked secret.
pub(super) fn assert_discreet(problem: &Problem) {
    let told = format!("{problem:?}");
    assert!(!told.contains("MARKED"), "{told}");
}
