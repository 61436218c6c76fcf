//! One request: read, limited, admitted, served in a transaction, answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request as HttpRequest, Response as HttpResponse, StatusCode};
use provisor_providers::books::{AuditRow, Books as _, Fault};
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::server::{Admission, Moment, Server as Api, Step, TurnedAway, Visit, Work};

use super::keys::RequestKeys;
use super::{State, between, probes};
use crate::addresses;
use crate::listen::{BodyError, read_body};
use crate::store::{Store, StoreError, Transaction};
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
    let Some((provider, prefix)) = state.options.mounts.find(request.uri().path()) else {
        return probes::answer(state, &request, &request_id);
    };
    let received = Instant::now();
    let peer = addresses::peer(socket, request.headers(), &state.options.trusted_proxies);
    let arrival = Arrival { peer, seed, request_id };
    let api = provider.server;
    let served = serve(state, api, Arc::clone(prefix), request, &arrival).await;
    state.checkpoints.count();
    let (response, not_before) = served.unwrap_or_else(|why| (api.turn_away(why, &arrival.request_id), received));
    if not_before > Instant::now() {
        tokio::time::sleep_until(not_before.into()).await;
    }
    let elapsed = received.elapsed();
    state.metrics.answered(provider, response.status, elapsed);
    tracing::debug!(request_id = arrival.request_id, status = response.status, ?elapsed, "answered");
    to_http(response)
}

async fn serve(
    state: &Arc<State>,
    api: &'static dyn Api,
    prefix: Arc<str>,
    request: HttpRequest<Incoming>,
    arrival: &Arrival,
) -> Result<(Response, Instant), TurnedAway> {
    let &Arrival { peer, seed, ref request_id } = arrival;
    state.addresses.take(peer, Instant::now()).map_err(|retry_after_s| TurnedAway::RateLimited { retry_after_s })?;
    let (request, unread) = read(api, &prefix, request).await;
    // From here on: a caller who sends the body late must not use up the floor with that.
    let begun = Instant::now();
    let moment = Moment { now: state.clock.now(), seed, rules: state.options.rules.clone() };
    let visit = Arc::new(Visit { request, prefix, peer, request_id: request_id.clone(), moment });
    if let Some(why) = unread {
        return turn_away(state, api, &visit, why).await;
    }
    for distrust in [false, true] {
        let work = match admit(state, api, Arc::clone(&visit), distrust).await {
            Ok(Admission::Answered(response)) => return Ok((response, begun)),
            Ok(Admission::Work(work)) => work,
            Err(why) => return turn_away(state, api, &visit, why).await,
        };
        match carried_out(state, &visit, work).await {
            Err(Defect) => return turn_away(state, api, &visit, TurnedAway::Internal).await,
            Ok(answered) => {
                if let Some((response, floor)) = answered? {
                    return Ok((response, begun + floor));
                }
            }
        }
        tracing::debug!(request_id, "the key changed: admitting once more");
    }
    turn_away(state, api, &visit, TurnedAway::Busy).await
}

/// Answers what is not admitted, once its audit row is written. What a target's query may hold is the API's to know: it is left out.
async fn turn_away(state: &State, api: &dyn Api, visit: &Visit, why: TurnedAway) -> Result<(Response, Instant), TurnedAway> {
    let response = api.turn_away(why, &visit.request_id);
    let row = visit.audit_row(visit.request.path(), response.status, "request");
    let row = AuditRow { reason: Some(why.reason().to_owned()), ..row };
    commit(&state.store, move |books| books.audit(&row)).await?;
    Ok((response, Instant::now()))
}

/// A panic of ours; its hook has logged it.
struct Defect;

/// Works off what may change something in a task of its own: a caller who hangs up ends the future of his request, and what was begun
/// has to go on to its end and its audit row. That costs more than a read is worth, which is not answered either then.
async fn carried_out(state: &Arc<State>, visit: &Visit, work: Work) -> Result<Worked, Defect> {
    if visit.request.method == "GET" {
        return Ok(work_off(state, work).await);
    }
    let slot = Arc::clone(&state.changes).acquire_owned().await.map_err(|_| Defect)?;
    let state = Arc::clone(state);
    let working = tokio::spawn(async move {
        let _slot = slot;
        work_off(&state, work).await
    });
    working.await.map_err(|_| Defect)
}

/// The answer and how long it has to take at least; none when the key is stale.
type Worked = Result<Option<(Response, Duration)>, TurnedAway>;

/// One transaction after the other until there is an answer.
async fn work_off(state: &State, mut work: Work) -> Worked {
    for _ in 0..TRANSACTIONS_MAX {
        match commit(&state.store, move |books| work(books)).await? {
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
async fn commit<T: Send + 'static>(
    store: &Store,
    work: impl Fn(&mut Transaction<'_>) -> Result<T, Fault> + Send + 'static,
) -> Result<T, TurnedAway> {
    store.transact(work).await.map_err(|error| match error {
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

/// The request, and why the rest of it was not read, if that is so.
async fn read(api: &'static dyn Api, prefix: &str, request: HttpRequest<Incoming>) -> (Request, Option<TurnedAway>) {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request {
        method: head.method.as_str().to_owned(),
        target: target.strip_prefix(prefix).unwrap_or(target).to_owned(),
        headers: from_http(&head.headers),
        body: Vec::new(),
    };
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        return (request, Some(TurnedAway::Malformed));
    }
    if !api.wants_body(&request) {
        return (request, None);
    }
    let unread = match read_body(body, BODY_BYTES).await {
        Ok(body) => {
            request.body = body;
            None
        }
        Err(BodyError::TooLarge) => Some(TurnedAway::BodyTooLarge),
        Err(BodyError::Timeout) => Some(TurnedAway::BodyTimeout),
        Err(BodyError::Broken) => Some(TurnedAway::Malformed),
    };
    (request, unread)
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
