//! What the server tells monitoring, on a listener of its own: the one for resellers is everybody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use provisor_providers::books::Fault;
use provisor_providers::{PROVIDERS, Provider};
use tokio::sync::watch;

use super::{State, probes};
use crate::exposition::{self, Exposition, Histogram, Metric};
use crate::listen::Listener;
use crate::store::{Backlog, Queue};

/// Bounds of the histogram of answers, in milliseconds.
const BOUNDS_MS: [u64; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000];
/// The least status of HTTP, and how many there are.
const STATUS_MIN: u16 = 100;
const STATUSES: usize = 500;

/// Counters since this process began.
pub(super) struct Metrics(Vec<Answers>);

/// What one provider's API answered.
struct Answers {
    provider: &'static Provider,
    by_status: [AtomicU64; STATUSES],
    took: Histogram<{ BOUNDS_MS.len() }>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let answers = PROVIDERS.iter().map(|provider| Answers {
            provider,
            by_status: [const { AtomicU64::new(0) }; STATUSES],
            took: Histogram::new(&BOUNDS_MS),
        });
        Self(answers.collect())
    }

    /// Counts an answer of a provider's API.
    pub(super) fn answered(&self, provider: &Provider, status: u16, took: Duration) {
        let Some(answers) = self.0.iter().find(|answers| answers.provider.id == provider.id) else { return };
        if let Some(count) = answers.by_status.get(usize::from(status.wrapping_sub(STATUS_MIN))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        answers.took.count(took);
    }

    fn text(&self, is_sealed: bool, book: &Backlog) -> String {
        let mut all = Exposition::new(is_sealed);
        let mut requests = all.counter("provisor_requests_total", "Requests of resellers, by what was answered.");
        for answers in &self.0 {
            for (status, count) in (STATUS_MIN..).zip(&answers.by_status) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    requests.sample(&[("provider", answers.provider.id), ("status", &status.to_string())], count);
                }
            }
        }
        let mut took = all.histogram("provisor_request_seconds", "How long requests of resellers took.");
        for answers in &self.0 {
            took.counted(&[("provider", answers.provider.id)], &answers.took);
        }
        all.gauge("provisor_orders_unpaid", "Orders that wait for their payment.").sample(&[], book.pending_orders);
        all.gauge("provisor_charges", "Cards that are being charged.").sample(&[], book.charges);
        let help = "For how long the order has been due that the schedule should have taken up first.";
        all.gauge("provisor_orders_overdue_seconds", help).sample(&[], book.orders_overdue_s);
        waiting(&mut all.gauge("provisor_deliveries", "Events for webhooks that are not delivered, by state."), &book.deliveries);
        let help = "For how long the event has been due that should have been delivered first.";
        all.gauge("provisor_deliveries_overdue_seconds", help).sample(&[], book.deliveries.overdue_s);
        waiting(&mut all.gauge("provisor_mails", "Mails that are not sent, by state."), &book.mails);
        let help = "For how long the mail has been due that should have been sent first.";
        all.gauge("provisor_mails_overdue_seconds", help).sample(&[], book.mails.overdue_s);
        all.into_text()
    }
}

fn waiting(metric: &mut Metric<'_>, queue: &Queue) {
    metric.sample(&[("state", "waiting")], queue.waiting);
    metric.sample(&[("state", "dead")], queue.dead);
}

pub(super) async fn serve(listener: Listener, state: Arc<State>, stopped: watch::Receiver<bool>) {
    let service = move |request, _| {
        let answer = answer(&state, &request);
        async move { answer }
    };
    listener.serve(service, stopped).await;
}

fn answer(state: &State, request: &Request<Incoming>) -> hyper::Response<Full<Bytes>> {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/metrics" if is_get => match metrics(state) {
            Ok(text) => probes::with_type(StatusCode::OK, text, exposition::MEDIA_TYPE),
            Err(error) => {
                tracing::error!(%error, "the book cannot be counted");
                probes::plain(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n".to_owned())
            }
        },
        "/metrics" => {
            let mut refused = probes::plain(StatusCode::METHOD_NOT_ALLOWED, "GET /metrics\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
        _ => probes::plain(StatusCode::NOT_FOUND, "GET /metrics\n".to_owned()),
    }
}

fn metrics(state: &State) -> Result<String, Fault> {
    let now = state.clock.now();
    let backlog = state.store.read(|books| books.backlog(now))?;
    Ok(state.metrics.text(state.store.is_sealed(), &backlog))
}
