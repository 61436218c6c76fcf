//! One request: read, limited, admitted, served in a transaction, answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request as HttpRequest, Response as HttpResponse, StatusCode};
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::server::{Admission, Moment, Server as Api, Step, TurnedAway, Visit, Work};

use super::keys::RequestKeys;
use super::{State, between, mounted, probes};
use crate::addresses;
use crate::listen::{BodyError, read_body};
use crate::store::{Store, StoreError};
use crate::telemetry::request_id_of;

/// The largest body either API takes.
const BODY_BYTES: usize = 64 * 1024;
/// Of one request: far more than any asks for, so that none goes on for ever.
const TRANSACTIONS_MAX: usize = 256;

/// What is known of a request before it is read.
struct Arrival {
    peer: IpAddr,
    /// All its randomness.
    seed: [u8; 32],
    request_id: String,
}

pub(super) async fn answer(state: &Arc<State>, request: HttpRequest<Incoming>, socket: IpAddr) -> HttpResponse<Full<Bytes>> {
    let seed = state.clock.seed();
    let request_id = request_id_of(state.clock.now(), &seed);
    let Some((api, prefix)) = mounted(request.uri().path()) else { return probes::answer(state, &request, &request_id) };
    let received = Instant::now();
    let peer = addresses::peer(socket, request.headers(), &state.options.trusted_proxies);
    let arrival = Arrival { peer, seed, request_id };
    let served = serve(state, api, prefix, request, &arrival).await;
    state.checkpoints.count();
    let (response, not_before) = served.unwrap_or_else(|why| (api.turn_away(why, &arrival.request_id), received));
    if not_before > Instant::now() {
        tokio::time::sleep_until(not_before.into()).await;
    }
    let elapsed = received.elapsed();
    state.metrics.answered(api.mount(), response.status, elapsed);
    tracing::debug!(request_id = arrival.request_id, status = response.status, ?elapsed, "answered");
    to_http(response)
}

async fn serve(
    state: &Arc<State>,
    api: &'static dyn Api,
    prefix: &str,
    request: HttpRequest<Incoming>,
    arrival: &Arrival,
) -> Result<(Response, Instant), TurnedAway> {
    let &Arrival { peer, seed, ref request_id } = arrival;
    state.addresses.take(peer, Instant::now()).map_err(|retry_after_s| TurnedAway::RateLimited { retry_after_s })?;
    let request = read(api, prefix, request).await?;
    // From here on: a caller who sends the body late must not use up the floor with that.
    let begun = Instant::now();
    let moment = Moment { now: state.clock.now(), seed, rules: state.options.rules.clone() };
    let visit = Arc::new(Visit { request, peer, request_id: request_id.clone(), moment });
    for distrust in [false, true] {
        let work = match admit(state, api, Arc::clone(&visit), distrust).await? {
            Admission::Answered(response) => return Ok((response, begun)),
            Admission::Work(work) => work,
        };
        if let Some((response, floor)) = work_off(state, work).await? {
            return Ok((response, begun + floor));
        }
        tracing::debug!(request_id, "the key changed: admitting once more");
    }
    Err(TurnedAway::Busy)
}

/// One transaction after the other until there is an answer; none when the key is stale.
async fn work_off(state: &State, mut work: Work) -> Result<Option<(Response, Duration)>, TurnedAway> {
    for _ in 0..TRANSACTIONS_MAX {
        match commit(&state.store, work).await? {
            Step::Answer { response, floor } => return Ok(Some((response, floor))),
            Step::Stale => return Ok(None),
            Step::Between { need, then } => work = then(between::meet(state, need).await),
        }
    }
    tracing::error!("a request wants more than {TRANSACTIONS_MAX} transactions");
    Err(TurnedAway::Internal)
}

/// What may derive a key would hold up every other request of this thread.
async fn admit(state: &Arc<State>, api: &'static dyn Api, visit: Arc<Visit>, distrust: bool) -> Result<Admission, TurnedAway> {
    let is_slow = api.admits_slowly(&visit.request);
    let admit = {
        let state = Arc::clone(state);
        move || {
            let keys = RequestKeys { cache: &state.keys, store: &state.store, peer: visit.peer, distrust };
            api.admit(visit, &keys)
        }
    };
    let admission = if is_slow {
        let _slot = state.admissions.acquire().await.map_err(|_| TurnedAway::Internal)?;
        // A panic in there is a defect of ours; the panic hook has logged it.
        tokio::task::spawn_blocking(admit).await.map_err(|_| TurnedAway::Internal)?
    } else {
        admit()
    };
    admission.map_err(|error| {
        tracing::error!(%error, "a key could not be read");
        TurnedAway::Busy
    })
}

/// No audit row, no answer: whatever keeps the transaction from committing, the caller is told to come again, or that it is not
/// known what became of the request.
async fn commit(store: &Store, work: Work) -> Result<Step, TurnedAway> {
    store.transact(move |books| work(books)).await.map_err(|error| match error {
        StoreError::Busy => TurnedAway::Busy,
        // Nobody may read "not executed" into the answer: a repeat under the same idempotency key finds out.
        StoreError::Unknown => {
            tracing::error!(%error, "whether a request was executed is not known");
            TurnedAway::Internal
        }
        StoreError::Fault(_) | StoreError::NotDone => {
            tracing::error!(%error, "a request was not executed");
            TurnedAway::Busy
        }
    })
}

async fn read(api: &'static dyn Api, prefix: &str, request: HttpRequest<Incoming>) -> Result<Request, TurnedAway> {
    let (head, body) = request.into_parts();
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        return Err(TurnedAway::Malformed);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request {
        method: head.method.as_str().to_owned(),
        target: target.strip_prefix(prefix).unwrap_or(target).to_owned(),
        headers: from_http(&head.headers),
        body: Vec::new(),
    };
    if api.wants_body(&request) {
        request.body = read_body(body, BODY_BYTES).await.map_err(|error| match error {
            BodyError::TooLarge => TurnedAway::BodyTooLarge,
            BodyError::Timeout => TurnedAway::BodyTimeout,
            BodyError::Broken => TurnedAway::Malformed,
        })?;
    }
    Ok(request)
}

fn from_http(headers: &HeaderMap) -> Headers {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

fn to_http(response: Response) -> HttpResponse<Full<Bytes>> {
    let mut http = HttpResponse::new(Full::new(Bytes::from(response.body)));
    *http.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(&name), HeaderValue::try_from(value)) {
            http.headers_mut().append(name, value);
        } else {
            tracing::error!(name, "a header of ours is not one HTTP allows");
        }
    }
    http
}
