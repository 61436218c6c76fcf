//! The door between a component's wasi:http and the egress. Nothing else of the network is linked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::egress::{BODY_MAX, Egress, EgressError, HEAD_MAX};

/// Requests of one call that are under way or whose answers are held: each may hold [`BODY_MAX`] bytes of the host's memory.
const AT_ONCE: usize = 4;

pub(super) struct Door {
    egress: Option<Egress>,
    sent: Arc<AtomicU32>,
    places: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(egress: Option<Egress>, sent: Arc<AtomicU32>) -> Self {
        Self { egress, sent, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// What `send_request` returns: the answer, and a future for an error in the request's body, which we have read already.
type Sent = Box<dyn Future<Output = Result<(Response<WasiBody>, Outcome), Error>> + Send>;
type Outcome = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Door {
    // The egress writes it from the checked address.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(&mut self, request: Request<WasiBody>, options: Option<RequestOptions>, _: Outcome) -> Sent {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let egress = self.egress.clone();
        let sent = Arc::clone(&self.sent);
        Box::new(async move {
            // Waiting for a place could be waiting for an answer that the component itself holds.
            let place = place.map_err(|_| Error::ConnectionLimitReached)?;
            let egress = egress.ok_or(Error::HttpRequestDenied)?;
            // From here on a call that dies may have acted; an answer that says otherwise takes it back.
            sent.fetch_add(1, Ordering::Relaxed);
            let first_byte = options.and_then(|options| options.first_byte_timeout);
            let response = egress.send(request, first_byte).await.map_err(|error| {
                if !error.sent() {
                    sent.fetch_sub(1, Ordering::Relaxed);
                }
                tracing::debug!(%error, "a component's request failed");
                code(&error)
            })?;
            let response = response.map(|body: Bytes| {
                let held = Full::new(body).map_err(move |never| {
                    let _place = &place;
                    match never {}
                });
                held.boxed_unsync()
            });
            Ok((response, Box::new(async { Ok(()) }) as Outcome))
        })
    }
}

/// The word of wasi:http from which the component tells refused, not sent, lost and unreadable apart.
fn code(error: &EgressError) -> Error {
    let size = |bytes: usize| u32::try_from(bytes).ok();
    match error {
        EgressError::HostDenied(_) | EgressError::MethodDenied(_) => Error::HttpRequestDenied,
        EgressError::AddressDenied(_) => Error::DestinationIpProhibited,
        EgressError::RequestHead => Error::HttpRequestHeaderSectionSize(size(HEAD_MAX)),
        EgressError::RequestBody | EgressError::RequestUnfinished => Error::HttpRequestBodySize(Some(BODY_MAX as u64)),
        EgressError::Dns(_) => Error::DnsError { rcode: None, info_code: None },
        EgressError::NoAddress => Error::DestinationNotFound,
        EgressError::Connect(std::io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
        EgressError::Connect(_) | EgressError::Unwritten => Error::DestinationUnavailable,
        EgressError::ConnectTimeout => Error::ConnectionTimeout,
        EgressError::Certificate(_) => Error::TlsCertificateError,
        EgressError::Tls(_) => Error::TlsProtocolError,
        EgressError::Broken(_) => Error::ConnectionTerminated,
        EgressError::FirstByteTimeout | EgressError::TotalTimeout => Error::HttpResponseTimeout,
        EgressError::Stalled => Error::ConnectionReadTimeout,
        EgressError::ResponseHead(_) => Error::HttpProtocolError,
        EgressError::ResponseBody => Error::HttpResponseBodySize(Some(BODY_MAX as u64)),
        EgressError::ResponseBroken(_) => Error::HttpResponseIncomplete,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;

    use super::*;
    use crate::egress::upstream::{Upstream, ok};
    use crate::egress::{EgressOptions, EgressPolicy};
    use crate::resolve::SystemResolver;

    fn door(port: u16) -> Door {
        let policy = EgressPolicy::new(&format!("http://127.0.0.1:{port}"), &[], true).unwrap();
        let egress = Egress::new(policy, EgressOptions::default(), Arc::new(SystemResolver)).unwrap();
        Door::new(Some(egress), Arc::new(AtomicU32::new(0)))
    }

    async fn ask(door: &mut Door, uri: &str) -> Result<Response<WasiBody>, Error> {
        let request = Request::get(uri).body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap();
        let sent = door.send_request(request, None, Box::new(async { Ok(()) }));
        Box::into_pin(sent).await.map(|(response, _)| response)
    }

    #[tokio::test]
    async fn answers_that_are_held_take_up_the_places() {
        let upstream = Upstream::start(|_| ok("{}")).await;
        let (mut door, uri) = (door(upstream.port), format!("http://127.0.0.1:{}/", upstream.port));
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(ask(&mut door, &uri).await.unwrap());
        }
        assert!(matches!(ask(&mut door, &uri).await, Err(Error::ConnectionLimitReached)));
        drop(held.pop());
        assert!(ask(&mut door, &uri).await.is_ok());
    }

    #[tokio::test]
    async fn only_what_may_have_arrived_counts_as_sent() {
        let upstream = Upstream::start(|_| ok("{}")).await;
        let mut door = door(upstream.port);
        let sent = Arc::clone(&door.sent);
        assert!(matches!(ask(&mut door, "http://169.254.169.254/").await, Err(Error::HttpRequestDenied)));
        assert_eq!(sent.load(Ordering::Relaxed), 0);
        ask(&mut door, &format!("http://127.0.0.1:{}/", upstream.port)).await.unwrap();
        assert_eq!(sent.load(Ordering::Relaxed), 1);
        let mut closed = Door::new(None, sent);
        assert!(matches!(ask(&mut closed, "http://127.0.0.1/").await, Err(Error::HttpRequestDenied)));
    }
}
