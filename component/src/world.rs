//! The outside world as WASI gives it. Every function blocks; the host suspends the instance meanwhile.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use provisor_providers::message::{Request, Response};
use provisor_providers::outside::{Outside, SendError};
use wasi::clocks::{monotonic_clock, wall_clock};
use wasi::http::outgoing_handler;
use wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme, http_error_code,
};
use wasi::io::poll::{Pollable, poll};
use wasi::io::streams::StreamError;

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    wit_bindgen::generate!({ path: "../wit", world: "surroundings", generate_all });
}
use generated::wasi;

/// The largest answer that is read; a `Response` promises no more.
const BODY_MAX: usize = 1024 * 1024;
/// The most that `blocking-write-and-flush` takes at once, by its definition in wasi:io.
const WRITE_MAX: usize = 4096;

/// The world of this component's instance.
pub(crate) struct World;

#[async_trait(?Send)]
impl Outside for World {
    async fn send(&self, request: Request, timeout: Duration) -> Result<Response, SendError> {
        let deadline = Deadline::after(timeout);
        let answer = start(&request, timeout)?;
        let response = head(&answer, &deadline)?;
        let status = response.status();
        let headers = response.headers().entries().into_iter().collect();
        Ok(Response { status, headers, body: body(&response, &deadline)? })
    }

    async fn sleep(&self, time: Duration) {
        monotonic_clock::subscribe_duration(nanoseconds(time)).block();
    }

    fn now(&self) -> Timestamp {
        let now = wall_clock::now();
        // Only a host whose clock stands past the year 9999 gets there.
        Timestamp::new(now.seconds.cast_signed(), now.nanoseconds.cast_signed()).unwrap_or(Timestamp::MAX)
    }

    fn ticks(&self) -> Duration {
        Duration::from_nanos(monotonic_clock::now())
    }

    fn random(&self, bytes: &mut [u8]) {
        let length = bytes.len() as u64;
        bytes.copy_from_slice(&wasi::random::random::get_random_bytes(length));
    }
}

/// A moment that several waits share.
struct Deadline {
    at: Pollable,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { at: monotonic_clock::subscribe_duration(nanoseconds(timeout)) }
    }

    /// Waits for `ready`. Past the deadline the request may have been executed.
    fn wait(&self, ready: &Pollable) -> Result<(), SendError> {
        // Index 0 is `ready`: what is there counts, even at the last moment.
        if poll(&[ready, &self.at]).contains(&0) {
            return Ok(());
        }
        Err(SendError::Lost("no whole answer in time".to_owned()))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Hands a whole request to the host.
fn start(request: &Request, timeout: Duration) -> Result<FutureIncomingResponse, SendError> {
    let outgoing = outgoing(request)?;
    let options = RequestOptions::new();
    for set in
        [RequestOptions::set_connect_timeout, RequestOptions::set_first_byte_timeout, RequestOptions::set_between_bytes_timeout]
    {
        // A host without this option has limits of its own, and `Deadline` stands in any case.
        let _ = set(&options, Some(nanoseconds(timeout)));
    }
    if request.body.is_empty() {
        return outgoing_handler::handle(outgoing, Some(options)).map_err(|code| refused(&code));
    }
    let body = outgoing.body().map_err(|()| SendError::Refused("the request has no body to write".to_owned()))?;
    let answer = outgoing_handler::handle(outgoing, Some(options)).map_err(|code| refused(&code))?;
    // A host that stops reading has an error or an early answer to tell, which `answer` brings.
    let _ = write(body, &request.body);
    Ok(answer)
}

fn outgoing(request: &Request) -> Result<OutgoingRequest, SendError> {
    let (scheme, rest) = request.target.split_once("://").ok_or_else(|| not_a_url("no scheme"))?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return Err(not_a_url("neither http nor https")),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let outgoing = OutgoingRequest::new(fields(request)?);
    outgoing.set_method(&method(&request.method)).map_err(|()| not_a_url("method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| not_a_url("scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| not_a_url("host"))?;
    outgoing.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(|()| not_a_url("path"))?;
    Ok(outgoing)
}

/// The URL itself may hold what a log must not.
fn not_a_url(part: &str) -> SendError {
    SendError::Refused(format!("the request's address cannot be used: {part}"))
}

fn fields(request: &Request) -> Result<Fields, SendError> {
    let fields = Fields::new();
    for (name, value) in request.headers.iter() {
        fields.append(name, value).map_err(|error| SendError::Refused(format!("header `{name}`: {error}")))?;
    }
    Ok(fields)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), StreamError> {
    let stream = body.write().map_err(|()| StreamError::Closed)?;
    for chunk in bytes.chunks(WRITE_MAX) {
        stream.blocking_write_and_flush(chunk)?;
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|_| StreamError::Closed)
}

fn head(answer: &FutureIncomingResponse, deadline: &Deadline) -> Result<IncomingResponse, SendError> {
    deadline.wait(&answer.subscribe())?;
    match answer.get() {
        Some(Ok(Ok(response))) => Ok(response),
        Some(Ok(Err(code))) => Err(failed(&code)),
        Some(Err(())) | None => Err(SendError::Lost("the host gave no answer".to_owned())),
    }
}

fn body(response: &IncomingResponse, deadline: &Deadline) -> Result<Vec<u8>, SendError> {
    let lost = |()| SendError::Lost("the host gave no body".to_owned());
    let body: IncomingBody = response.consume().map_err(lost)?;
    let stream = body.stream().map_err(lost)?;
    let ready = stream.subscribe();
    let mut bytes = Vec::new();
    loop {
        match stream.read(64 * 1024) {
            Ok(chunk) if chunk.is_empty() => deadline.wait(&ready)?,
            Ok(chunk) if bytes.len() + chunk.len() > BODY_MAX => {
                return Err(SendError::Unreadable(format!("more than {BODY_MAX} bytes")));
            }
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match http_error_code(&error) {
                    Some(code) => in_the_body(failed(&code)),
                    None => SendError::Lost("the answer broke off".to_owned()),
                });
            }
        }
    }
}

/// Whatever a code says of a connection: once the head is there, the request was sent.
fn in_the_body(error: SendError) -> SendError {
    match error {
        SendError::Refused(why) | SendError::NotSent(why) => SendError::Lost(why),
        error => error,
    }
}

/// `handle` itself fails only for requests that the host does not even begin to send.
fn refused(code: &ErrorCode) -> SendError {
    SendError::Refused(code.to_string())
}

/// What a failure tells about the provider: names that say nothing certain count as a lost answer.
fn failed(code: &ErrorCode) -> SendError {
    let why = code.to_string();
    match code {
        ErrorCode::HttpRequestDenied
        | ErrorCode::DestinationIpProhibited
        | ErrorCode::HttpRequestBodySize(_)
        | ErrorCode::HttpRequestMethodInvalid
        | ErrorCode::HttpRequestUriInvalid
        | ErrorCode::HttpRequestUriTooLong
        | ErrorCode::HttpRequestHeaderSectionSize(_)
        | ErrorCode::HttpRequestHeaderSize(_)
        | ErrorCode::HttpRequestTrailerSectionSize(_)
        | ErrorCode::HttpRequestTrailerSize(_) => SendError::Refused(why),
        // A TLS alert is not among these: TLS 1.3 servers may send one after they read a request.
        ErrorCode::DnsTimeout
        | ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError => SendError::NotSent(why),
        ErrorCode::HttpResponseHeaderSectionSize(_)
        | ErrorCode::HttpResponseHeaderSize(_)
        | ErrorCode::HttpResponseBodySize(_)
        | ErrorCode::HttpResponseTrailerSectionSize(_)
        | ErrorCode::HttpResponseTrailerSize(_)
        | ErrorCode::HttpResponseTransferCoding(_)
        | ErrorCode::HttpResponseContentCoding(_)
        | ErrorCode::HttpUpgradeFailed
        | ErrorCode::HttpProtocolError => SendError::Unreadable(why),
        _ => SendError::Lost(why),
    }
}
