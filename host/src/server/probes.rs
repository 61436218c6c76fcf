//! What the host answers by itself: probes of a supervisor, and paths at which no API is served.

use std::sync::OnceLock;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use provisor_providers::books::Fault;
use serde_json::json;

use super::State;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

type Answer = Response<Full<Bytes>>;

/// What checking the book's pages found, once it has ended.
pub(super) type Checked = OnceLock<Result<(), Fault>>;

/// After readiness, since it reads the whole book: a book that opens can be served from meanwhile.
pub(super) fn check(state: &State) {
    let found = state.store.read(|books| books.quick_check());
    match &found {
        Ok(()) => tracing::info!("the book's pages are in order"),
        Err(error) => tracing::error!(%error, "the book is damaged: restore it from a backup"),
    }
    // Nobody else sets it.
    let _first = state.checked.set(found);
}

pub(super) fn answer(state: &State, request: &Request<Incoming>, request_id: &str) -> Answer {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut answer = match request.uri().path() {
        "/healthz" if is_get => plain(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if is_get => ready(state),
        "/healthz" | "/readyz" => {
            let mut told = if request.method() == Method::OPTIONS {
                with_status(StatusCode::NO_CONTENT, String::new())
            } else {
                problem(StatusCode::METHOD_NOT_ALLOWED, "The resource does not have this method.", request_id)
            };
            told.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
            told
        }
        _ => problem(StatusCode::NOT_FOUND, "No API is served at this path.", request_id),
    };
    if let Ok(id) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}

/// Ready means: a request could be answered now. A sealed book could not.
fn ready(state: &State) -> Answer {
    if state.store.is_sealed() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "sealed: the master key of this book is missing\n".to_owned());
    }
    match state.store.read(|books| books.chain_head(0)) {
        Ok(_) => {
            let check = match state.checked.get() {
                None => "running",
                Some(Ok(())) => "ok",
                Some(Err(_)) => "FAILED, see the log",
            };
            plain(StatusCode::OK, format!("ready\nquick_check: {check}\n"))
        }
        Err(error) => {
            tracing::error!(%error, "not ready");
            plain(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n".to_owned())
        }
    }
}

/// RFC 9457; no provider's kind of problem, since no provider was asked.
fn problem(status: StatusCode, detail: &str, request_id: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or_default();
    let status_code = status.as_u16();
    let body = json!({"type": "about:blank", "title": title, "status": status_code, "detail": detail, "request_id": request_id});
    with_type(status, body.to_string(), "application/problem+json")
}

pub(super) fn plain(status: StatusCode, text: String) -> Answer {
    with_type(status, text, "text/plain; charset=utf-8")
}

pub(super) fn with_type(status: StatusCode, text: String, media_type: &'static str) -> Answer {
    let mut response = with_status(status, text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn with_status(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
