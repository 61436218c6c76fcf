//! The answering end: [`Server`] as the host mounts it, its endpoints in the modules below.

use std::sync::Arc;

use jiff::Timestamp;
use rand::RngExt;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use secrecy::SecretString;
use serde::Serialize;

use super::guard::{self, Verdict};
use super::webhook;
use super::wire::{self, header};
use crate::books::{AccountId, Books, Fault};
use crate::message::{Headers, Request, Response};
use crate::server::{Admission, Errand, Key, Keys, Met, Moment, Scope, TestEvent, TurnedAway, Visit};

mod account;
mod body;
pub mod catalog;
pub mod cycle;
mod document;
mod events;
mod fulfilment;
mod invoices;
mod orders;
mod payments;
mod problem;
mod renewals;
mod routes;
mod serve;
mod services;
mod webhooks;

/// What a key's id is made of (spec 2).
const KEY_ID_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Characters of a secret (our choice, 2.17).
const SECRET_LENGTH: usize = 40;

/// All there are (spec 6). New keys only read, and no credentials (our choice, 2.17).
const SCOPES: &[Scope] = &[
    Scope { name: "read:products", by_default: true },
    Scope { name: "read:orders", by_default: true },
    Scope { name: "read:services", by_default: true },
    Scope { name: "read:billing", by_default: true },
    Scope { name: "read:webhooks", by_default: true },
    Scope { name: "write:orders", by_default: false },
    Scope { name: "write:services", by_default: false },
    Scope { name: "write:webhooks", by_default: false },
    Scope { name: "read:credentials", by_default: false },
];

/// The KernelHost Reseller API.
#[derive(Debug, Clone, Copy, Default)]
pub struct Server;

impl crate::server::Server for Server {
    fn mount(&self) -> &'static str {
        guard::MOUNT
    }

    fn refuses_mount(&self, prefix: &str) -> Option<&'static str> {
        prefix.ends_with("/v1").then_some(
            "clients may leave out the /v1 at the end of the address that they are given, and would then miss this one",
        )
    }

    fn owns(&self, path: &str) -> bool {
        path == "/v1" || path.starts_with("/v1/")
    }

    fn wants_body(&self, head: &Request) -> bool {
        has_body(&head.headers) && guard::is_well_formed(head)
    }

    fn admit(&self, visit: Arc<Visit>, keys: &dyn Keys) -> Result<Admission, Fault> {
        match public(&visit.request) {
            Some("/v1/health") => return Ok(Admission::Answered(health(&visit))),
            Some(document::PATH) => return Ok(Admission::Answered(finish(document::answer(&visit), &visit))),
            _ => {}
        }
        if let Some(told) = options(&visit.request) {
            return Ok(Admission::Answered(finish(told, &visit)));
        }
        Ok(Admission::Work(match guard::judge(&visit, keys)? {
            Verdict::Admitted(admitted) => {
                let admitted = Arc::new(admitted);
                Box::new(move |books| serve::admitted(&visit, &admitted, books))
            }
            Verdict::Refused(refused) => Box::new(move |books| serve::refused(&visit, &refused, books)),
        }))
    }

    fn turn_away(&self, why: TurnedAway, request_id: &str) -> Response {
        problem::turned_away(why, request_id)
    }

    fn new_key_id(&self, rng: &mut StdRng, is_sandbox: bool) -> String {
        let kind = if is_sandbox { wire::TEST_KEY } else { wire::LIVE_KEY };
        let id: String = (0..32).map(|_| char::from(KEY_ID_ALPHABET[rng.random_range(0..KEY_ID_ALPHABET.len())])).collect();
        format!("{kind}{id}")
    }

    fn new_secret(&self, rng: &mut StdRng) -> SecretString {
        Alphanumeric.sample_string(rng, SECRET_LENGTH).into()
    }

    fn scopes(&self) -> &'static [Scope] {
        SCOPES
    }

    fn sign_webhook(&self, secrets: &[&[u8]], at: Timestamp, body: &[u8]) -> Headers {
        Headers::new().with(header::WEBHOOK_SIGNATURE, webhook::header(secrets, at.as_second(), body))
    }

    fn test_event(&self, moment: &Moment) -> Option<TestEvent> {
        Some(events::test(moment))
    }

    fn tick(&self, moment: &Moment, books: &mut dyn Books) -> Result<Option<Timestamp>, Fault> {
        let next = [fulfilment::tick(moment, books)?, renewals::tick(moment, books)?];
        Ok(next.into_iter().flatten().min())
    }

    fn errand(&self, moment: &Moment, books: &mut dyn Books) -> Result<Option<Errand>, Fault> {
        payments::errand(moment, books)
    }

    fn credited(&self, moment: &Moment, account: AccountId, books: &mut dyn Books) -> Result<(), Fault> {
        payments::credited(moment, account, books)
    }

    fn fulfil_order(&self, moment: &Moment, account: AccountId, order: i64, books: &mut dyn Books) -> Result<bool, Fault> {
        let Some(order) = books.account(account).order(order)? else { return Ok(false) };
        fulfilment::by_hand(moment, account, &order, books)
    }

    fn fail_order(&self, moment: &Moment, account: AccountId, order: i64, books: &mut dyn Books) -> Result<bool, Fault> {
        let Some(order) = books.account(account).order(order)? else { return Ok(false) };
        fulfilment::give_up(moment, account, &order, books)
    }

    fn cancel_order(&self, moment: &Moment, account: AccountId, order: i64, books: &mut dyn Books) -> Result<bool, Fault> {
        let Some(order) = books.account(account).order(order)? else { return Ok(false) };
        orders::cancel(moment, account, &order, books)
    }
}

/// An authentic request, as the endpoints see it.
struct Call<'a> {
    visit: &'a Visit,
    key: &'a Key,
    /// What the last need of this request came to; none at first.
    met: Option<&'a Met>,
    /// How many needs of this request were met.
    rounds: u32,
}

impl Call<'_> {
    fn now(&self) -> Timestamp {
        self.visit.moment.now
    }

    fn body(&self) -> &[u8] {
        &self.visit.request.body
    }
}

/// Whatever the method: a body that was sent was signed.
fn has_body(head: &Headers) -> bool {
    head.all("transfer-encoding").next().is_some() || head.all("content-length").any(|length| length != b"0")
}

/// The path, if it may be one that is answered to everybody.
fn public(request: &Request) -> Option<&str> {
    matches!(request.method.as_str(), "GET" | "HEAD").then(|| request.path())
}

/// What OPTIONS is answered, to everybody: it tells no more than the documentation. A path that is none is not told from others here.
fn options(request: &Request) -> Option<Response> {
    if request.method != "OPTIONS" {
        return None;
    }
    let allow = routes::allowed(request.path())?;
    Some(Response { status: 204, headers: Headers::new().with("allow", allow), body: Vec::new() })
}

fn health(visit: &Visit) -> Response {
    let body = wire::Health {
        status: "ok".to_owned(),
        time: Some(time(visit.moment.now)),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    };
    finish(ok(&body), visit)
}

/// What every answer has: the request id; and to HEAD no body.
fn finish(mut response: Response, visit: &Visit) -> Response {
    response.headers.add(header::REQUEST_ID, visit.request_id.as_str());
    if visit.request.method == "HEAD" {
        response.body.clear();
    }
    response
}

/// 200 with a body.
fn ok(body: &impl Serialize) -> Response {
    json(200, body)
}

fn json(status: u16, body: &impl Serialize) -> Response {
    Response::new(status, "application/json", problem::to_json(body))
}

/// RFC 3339, UTC, whole seconds (our choice, 2.8).
fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::Value;

    use super::*;
    use crate::server::{From, Rules, Server as _};

    /// Health must not ask for keys.
    struct NoKeys;

    impl Keys for NoKeys {
        fn find(&self, _: &str, _: &str, _: From) -> Result<Option<Arc<Key>>, Fault> {
            Err(Fault("asked for a key".to_owned()))
        }

        fn at_address(&self, _: &str, _: IpAddr, _: From) -> Result<Vec<Arc<Key>>, Fault> {
            Err(Fault("asked for keys".to_owned()))
        }
    }

    fn request(method: &str, target: &str, headers: Headers) -> Request {
        Request { method: method.to_owned(), target: target.to_owned(), headers, body: Vec::new() }
    }

    #[test]
    fn the_document_needs_no_key() {
        for (method, target) in [("GET", "/openapi.json"), ("GET", "/openapi.json?v=1"), ("HEAD", "/openapi.json")] {
            let Admission::Answered(response) = admit(method, target) else { panic!("{method} {target}") };
            assert_eq!((response.status, response.headers.once("X-Request-Id")), (200, Some("01HX7Z3K8Q")));
            assert_eq!(response.body.is_empty(), method == "HEAD");
        }
        for (method, target) in [("POST", "/openapi.json"), ("GET", "/v1/openapi.json"), ("GET", "/openapi.json/")] {
            assert!(matches!(admit(method, target), Admission::Work(_)), "{method} {target}");
        }
    }

    fn admit(method: &str, target: &str) -> Admission {
        let moment = Moment { now: "2027-01-15T08:00:00.5Z".parse().unwrap(), seed: [0; 32], rules: Rules::default() };
        let request = request(method, target, Headers::new());
        let (peer, request_id) = ([192, 0, 2, 1].into(), "01HX7Z3K8Q".to_owned());
        let visit = Visit { request, prefix: "".into(), peer, request_id, moment };
        Server.admit(Arc::new(visit), &NoKeys).unwrap()
    }

    #[test]
    fn health_needs_no_key() {
        for (method, target) in [("GET", "/v1/health"), ("GET", "/v1/health?probe=1"), ("HEAD", "/v1/health")] {
            let Admission::Answered(response) = admit(method, target) else { panic!("{method} {target}") };
            assert_eq!((response.status, response.headers.once("X-Request-Id")), (200, Some("01HX7Z3K8Q")));
            if method == "HEAD" {
                assert!(response.body.is_empty());
            } else {
                let body: Value = serde_json::from_slice(&response.body).unwrap();
                assert_eq!((&body["status"], &body["time"]), (&"ok".into(), &"2027-01-15T08:00:00Z".into()));
            }
        }
        for (method, target) in [("POST", "/v1/health"), ("GET", "/v1/health/"), ("GET", "/v1/me"), ("GET", "/")] {
            assert!(matches!(admit(method, target), Admission::Work(_)), "{method} {target}");
        }
    }

    #[test]
    fn what_a_path_allows_needs_no_key() {
        for (target, allow) in [
            ("/v1/health", "GET, HEAD, OPTIONS"),
            ("/v1/orders", "POST, OPTIONS"),
            ("/v1/services/7?x=1", "GET, HEAD, OPTIONS"),
            ("/v1/webhooks", "GET, HEAD, PUT, OPTIONS"),
            ("/openapi.json", "GET, HEAD, OPTIONS"),
        ] {
            let Admission::Answered(response) = admit("OPTIONS", target) else { panic!("{target}") };
            assert_eq!((response.status, response.headers.once("allow")), (204, Some(allow)), "{target}");
            assert_eq!((response.headers.once("X-Request-Id"), response.body.len()), (Some("01HX7Z3K8Q"), 0));
        }
        for (method, target) in
            [("OPTIONS", "/v1/nothing"), ("OPTIONS", "*"), ("OPTIONS", "/v1/me#"), ("options", "/v1/me"), ("TRACE", "/v1/me")]
        {
            assert!(matches!(admit(method, target), Admission::Work(_)), "{method} {target}");
        }
    }

    #[test]
    fn a_body_is_read_only_when_it_can_matter() {
        let bare = Headers::new()
            .with("KH-Key", format!("kh_live_{}", "A".repeat(32)))
            .with("KH-Timestamp", "1767225600")
            .with("KH-Nonce", "0".repeat(22))
            .with("KH-Signature", "0".repeat(64));
        let headers = bare.clone().with("content-length", "2");
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
            assert!(Server.wants_body(&request(method, "/v1/orders", headers.clone())), "{method}");
            assert!(Server.wants_body(&request(method, "/v1/orders", bare.clone().with("transfer-encoding", "chunked"))));
            assert!(!Server.wants_body(&request(method, "/v1/orders", bare.clone())), "{method}");
            assert!(!Server.wants_body(&request(method, "/v1/orders", bare.clone().with("content-length", "0"))), "{method}");
        }
        assert!(!Server.wants_body(&request("POST", "/v1/orders", Headers::new().with("content-length", "2"))));
        assert!(!Server.wants_body(&request("POST", "/v1/orders#", headers.clone())));
        assert!(!Server.wants_body(&request("POST", "/v1/orders", headers.with("KH-Nonce", "1".repeat(22)))));
    }

    #[test]
    fn whoever_is_turned_away_gets_a_problem() {
        for (why, status, code, retry_after) in [
            (TurnedAway::RateLimited { retry_after_s: 7 }, 429, "rate_limited", Some("7")),
            (TurnedAway::RateLimited { retry_after_s: 0 }, 429, "rate_limited", Some("1")),
            (TurnedAway::BodyTooLarge, 413, "payload_too_large", None),
            (TurnedAway::BodyTimeout, 408, "request_timeout", None),
            (TurnedAway::Malformed, 400, "validation_failed", None),
            (TurnedAway::Busy, 503, "service_unavailable", Some("1")),
            (TurnedAway::Internal, 500, "internal_error", None),
        ] {
            let response = Server.turn_away(why, "01HX7Z3K8Q");
            let body: wire::Problem = serde_json::from_slice(&response.body).unwrap();
            assert_eq!((response.status, body.status, body.code()), (status, status, code));
            assert_eq!(body.kind, format!("https://www.kernelhost.com/en/reseller-api/errors/{code}"));
            assert_eq!((body.request_id.as_str(), response.headers.once("x-request-id")), ("01HX7Z3K8Q", Some("01HX7Z3K8Q")));
            assert_eq!(response.headers.once("content-type"), Some("application/problem+json"));
            assert_eq!(response.headers.once("retry-after"), retry_after);
        }
    }
}
