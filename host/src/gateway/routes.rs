//! From a request to what answers it.

use std::net::IpAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, StatusCode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::answer::{Answer, Refusal, finish, problem_answer, with_type};
use super::body::OPERATIONS;
use super::questions::Query;
use super::{OPENAPI, State, blesta, changes, envelope, questions, upmind};
use crate::addresses::{self, Addresses};
use crate::exposition;
use crate::plugin::contract::ProblemKind;
use crate::store::Panel;
use crate::telemetry::request_id;

const GET: &str = "GET, HEAD";
const POST: &str = "POST";

pub(super) async fn answer(state: &State, request: Request<Incoming>, peer: IpAddr) -> Answer {
    let request_id = request_id(&*state.clock);
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let peer = addresses::peer(peer, &head.headers, &state.trusted_proxies);
    let span = tracing::info_span!("gateway", request_id);
    let answered = tracing::Instrument::instrument(route(state, &head, body, peer, &request_id), span).await;
    let answer = answered.unwrap_or_else(|refusal| {
        if envelope::is_asked(&head) { envelope::refused(&refusal, &request_id) } else { problem_answer(&refusal, &request_id) }
    });
    let status = answer.status().as_u16();
    tracing::debug!(request_id, method = %head.method, path = head.uri.path(), status, elapsed = ?began.elapsed(), "answered");
    finish(answer, &request_id)
}

async fn route(state: &State, head: &Parts, body: Incoming, peer: IpAddr, request_id: &str) -> Result<Answer, Refusal> {
    let path: Vec<&str> = head.uri.path().strip_prefix('/').unwrap_or_default().split('/').collect();
    let allow = match path.as_slice() {
        ["healthz" | "readyz" | "metrics" | "openapi.json"]
        | ["v1", "services" | "operations" | "profiles" | "describe"]
        | ["v1", "services" | "operations" | "profiles", _]
        | ["v1", "services", _, "credentials" | "sign-on" | "invoices"]
        | ["v1", "profiles", _, "check" | "balance" | "catalog" | "unowned"] => GET,
        ["v1", "services", _, operation] if OPERATIONS.contains(operation) => POST,
        ["v1", "operations", _, "retry" | "resolve" | "cancel"]
        | ["v1", "profiles", _, "events"]
        | ["upmind", _]
        | ["blesta", "universal", _] => POST,
        _ => return Err(Refusal::nothing_here()),
    };
    let is_get = matches!(head.method, Method::GET | Method::HEAD);
    if !(if allow == POST { head.method == Method::POST } else { is_get }) {
        let refusal =
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ProblemKind::Invalid, "the resource does not have this method");
        return Err(Refusal { allow: Some(allow), ..refusal });
    }
    match path.as_slice() {
        ["healthz"] => Ok(with_type(StatusCode::OK, "ok\n", TEXT)),
        ["readyz"] => ready(state),
        ["metrics"] => Ok(with_type(StatusCode::OK, state.operations.metrics()?, exposition::MEDIA_TYPE)),
        ["openapi.json"] => Ok(with_type(StatusCode::OK, OPENAPI, "application/json")),
        ["v1", "profiles", name, "events"] => {
            within(&state.webhooks, peer)?;
            questions::events(state, name, head, body).await
        }
        _ => {
            let _place = state.places.try_acquire().map_err(|_| Refusal::busy())?;
            let panel = authenticated(state, &head.headers, path[0] == "blesta", peer)?;
            let query = Query::of(head);
            of_panel(state, &panel, &path, &query, (head, body), request_id).await
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// What takes a token.
async fn of_panel(
    state: &State,
    panel: &Panel,
    path: &[&str],
    query: &Query,
    (head, body): (&Parts, Incoming),
    request_id: &str,
) -> Result<Answer, Refusal> {
    match path {
        ["v1", "services"] => questions::services(state, panel, query),
        ["v1", "operations"] => questions::operations(state, panel, query),
        ["v1", "profiles"] => questions::profiles(state, panel),
        ["v1", "describe"] => questions::describe(state, panel),
        ["v1", "services", key] => questions::service(state, panel, key, query).await,
        ["v1", "operations", id] => questions::operation(state, panel, id),
        ["v1", "profiles", name] => questions::profile(state, panel, name, "", query).await,
        ["v1", "profiles", name, what] => questions::profile(state, panel, name, what, query).await,
        ["v1", "operations", id, what] => changes::intervene(state, panel, id, what, (head, body)).await,
        ["v1", "services", key, what @ ("credentials" | "sign-on" | "invoices")] => {
            questions::of_service(state, panel, key, what, query).await
        }
        ["v1", "services", key, operation] => changes::change(state, panel, key, operation, (head, body), request_id).await,
        ["upmind", function] => upmind::call(state, panel, function, query, (head, body), request_id).await,
        ["blesta", "universal", event] => blesta::notice(state, panel, event, query, (head, body), request_id).await,
        _ => Err(Refusal::nothing_here()),
    }
}

/// The panel that a request's token belongs to. Whoever has none may guess only so often.
fn authenticated(state: &State, headers: &HeaderMap, takes_basic: bool, peer: IpAddr) -> Result<Panel, Refusal> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        within(&state.strangers, peer)?;
        return Err(Refusal::unauthorized());
    };
    let token = value.as_bytes().split_first_chunk::<7>().filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let token = token.map(|(_, token)| Zeroizing::new(token.to_vec()));
    let token = token.or_else(|| if takes_basic { basic_password(headers, value) } else { None });
    if let Some(token) = token
        && let Some(panel) = state.store.read(|books| books.panel_of_token(&Sha256::digest(&*token).into()))?
    {
        return Ok(panel);
    }
    within(&state.strangers, peer)?;
    Err(Refusal::unauthorized())
}

/// The password of HTTP basic authentication, for a panel that can be given an address but no header. A browser that was given the
/// same address would send it for any page that asks, and says so in `Origin`.
fn basic_password(headers: &HeaderMap, value: &HeaderValue) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, encoded) = value.as_bytes().split_first_chunk::<6>()?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") || headers.contains_key(ORIGIN) {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(Zeroizing::new(pair[colon + 1..].to_vec()))
}

fn within(limit: &Addresses, peer: IpAddr) -> Result<(), Refusal> {
    limit.take(peer, Instant::now()).map_err(|seconds| {
        let message = "too many requests from this address";
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, ProblemKind::RateLimited, message).after(seconds)
    })
}

/// Ready means: a change could be written down now. A sealed book could not keep its password.
fn ready(state: &State) -> Result<Answer, Refusal> {
    let unready = |why: &str| Ok(with_type(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"), TEXT));
    if state.store.is_sealed() {
        return unready("sealed: the master key of this book is missing");
    }
    match state.store.read(|books| books.open_operation_counts()) {
        Ok(_) => Ok(with_type(StatusCode::OK, "ready\n", TEXT)),
        Err(error) => {
            tracing::error!(%error, "not ready");
            unready("the store does not answer")
        }
    }
}
