//! A provider that answers anything at all: the client comes to an end, with an outcome or a problem.
#![no_main]

use std::cell::Cell;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use provisor_fuzz::{KEY_ID, SECRET, now};
use provisor_providers::contract;
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::outside::{Outside, SendError};
use provisor_providers::provisioning::Connection;

/// Answers each request with a part of the input.
struct Hostile<'a> {
    input: &'a [u8],
    asked: Cell<usize>,
    ticks: Cell<u64>,
}

#[async_trait(?Send)]
impl Outside for Hostile<'_> {
    async fn send(&self, _request: Request, _timeout: Duration) -> Result<Response, SendError> {
        let asked = self.asked.replace(self.asked.get() + 1);
        assert!(asked < 2000, "the client asks for ever");
        let mut parts = self.input.split(|byte| *byte == 0xff).cycle();
        let part = parts.nth(asked % 8).unwrap_or_default();
        let Some((first, rest)) = part.split_first() else { return Err(SendError::Lost("cut".to_owned())) };
        const STATUSES: [u16; 12] = [200, 201, 202, 204, 301, 400, 401, 402, 404, 409, 429, 503];
        let status = STATUSES[usize::from(*first) % STATUSES.len()];
        let (head, body) = rest.split_at(rest.len().min(usize::from(*first >> 4)));
        let headers = Headers::new().with("content-type", "application/json").with("retry-after", head).with("date", head);
        Ok(Response { status, headers, body: body.to_vec() })
    }

    async fn sleep(&self, time: Duration) {
        self.ticks.set(self.ticks.get() + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2));
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn ticks(&self) -> Duration {
        self.ticks.set(self.ticks.get() + 1);
        Duration::from_millis(self.ticks.get())
    }

    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here ever waits"),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(provider) = provisor_providers::find("kernelhost") else { return };
    let at: Connection = contract::Connection {
        provider: "kernelhost".to_owned(),
        base_url: "https://api.example.com".to_owned(),
        key: KEY_ID.to_owned(),
        secret: SECRET.to_owned(),
        settings: Vec::new(),
    }
    .into();
    let world = || Hostile { input, asked: Cell::new(0), ticks: Cell::new(0) };
    let _check = run(provider.client.check(&world(), &at));
    let _catalog = run(provider.client.catalog(&world(), &at));
    let _balance = run(provider.client.balance(&world(), &at));
    let _services = run(provider.client.list_services(&world(), &at, None));
    let _invoices = run(provider.client.invoices(&world(), &at, None));
    let service = || contract::ServiceRef { remote_id: Some("service/7".to_owned()), domain: None, username: None };
    let _status = run(provider.client.status(&world(), &at, service()));
    let _login = run(provider.client.credentials(&world(), &at, service()));
    let _pdf = run(provider.client.invoice_pdf(&world(), &at, "7".to_owned()));
});
