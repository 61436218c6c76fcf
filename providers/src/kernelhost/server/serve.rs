//! One request inside its transaction (our choice, 2.2).
//!
//! The outer part (nonce, meter, lock counters, audit row) always commits. From routing on, everything runs in one attempt: what
//! it wrote is undone when it fails or panics, and the audit row then says 500.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::problem::{self, Halt, Handled, Refusal};
use super::routes::{self, Route};
use super::{Call, account, body, catalog, finish, invoices, orders, payments, services, webhooks};
use crate::books::{Attempted, AuditRow, Books, Fault, IdempotencyScope, Keep, Lock, Mail, Recorded};
use crate::kernelhost::guard::{Admitted, Reason, Refused};
use crate::kernelhost::wire::{self, header};
use crate::limits::{self, Meter, Reading};
use crate::message::Response;
use crate::server::{Key, Met, Need, Step, Visit, Work};

/// A record of an unpaid order lives so many seconds longer than the order, so that no retry can find the one without the other.
const UNFINISHED_MARGIN_S: i64 = 3600;
/// The status under which a change is recorded and audited that has no answer yet; it is never sent.
const RUNNING: u16 = 102;

/// A request that admission refused: counted against the key if it is of that kind, and audited.
pub(super) fn refused(visit: &Visit, refused: &Refused, books: &mut dyn Books) -> Result<Step, Fault> {
    let key = refused.key.as_deref();
    let mut reason = refused.reason;
    if let Some(key) = key {
        if is_stale(books, key)? {
            return Ok(Step::Stale);
        }
        if is_locked(visit, key, books)? {
            reason = Reason::UnknownOrLockedKey;
        } else if reason == Reason::SignatureMismatch {
            count_failure(visit, key, books)?;
        }
    }
    let response = problem::refused(reason).response(&visit.request_id);
    let by = By { key, key_id: refused.key_id.as_deref() };
    answer(visit, by, response, refused.hint, books)
}

/// A request whose signature holds.
pub(super) fn admitted(visit: &Arc<Visit>, admitted: &Arc<Admitted>, books: &mut dyn Books) -> Result<Step, Fault> {
    let (key, now) = (&*admitted.key, visit.moment.now);
    let standing = books.standing(key.row, now)?.filter(|standing| standing.version == key.version);
    let Some(standing) = standing else { return Ok(Step::Stale) };
    let by = By { key: Some(key), key_id: Some(&key.public_id) };
    if limits::keep_out(&standing.locks, visit.peer.to_canonical()) {
        let response = problem::refused(Reason::UnknownOrLockedKey).response(&visit.request_id);
        return answer(visit, by, response, None, books);
    }
    if !books.spend_nonce(key.row, &admitted.nonce, now, nonce_expiry(admitted.timestamp, now)?)? {
        let response = problem::refused(Reason::ReplayDetected).response(&visit.request_id);
        return answer(visit, by, response, None, books);
    }
    let (meter, reading) = standing.meter.unwrap_or_else(|| Meter::full(key.limits, now)).take(key.limits, now);
    if reading.allowed {
        books.set_meter(key.row, &meter, Some(now))?;
        return go_on(visit, admitted, reading, (None, 0), books);
    }
    let response = problem::rate_limited(reading.retry_after_s).response(&visit.request_id);
    answer(visit, by, metered(response, reading), None, books)
}

/// The endpoint's part. Where it needs something outside the transaction it comes here again with what that came to; nonce and
/// meter were taken the first time.
fn go_on(
    visit: &Arc<Visit>,
    admitted: &Arc<Admitted>,
    reading: Reading,
    (met, rounds): (Option<&Met>, u32),
    books: &mut dyn Books,
) -> Result<Step, Fault> {
    let key = &*admitted.key;
    match execute(&Call { visit, key, met, rounds }, books)? {
        Executed::Answer(response) => {
            let by = By { key: Some(key), key_id: Some(&key.public_id) };
            answer(visit, by, metered(response, reading), None, books)
        }
        Executed::Needs(need) => {
            // Money moves from here on, whether or not this request will live to see its answer.
            if let Need::Charge(charge) = &need {
                let by = By { key: Some(key), key_id: Some(&key.public_id) };
                let detail = Some(format!("payment {}", charge.payment));
                books.audit(&AuditRow { detail, ..row(visit, by, RUNNING, "payment.begun") })?;
            }
            let (visit, admitted) = (Arc::clone(visit), Arc::clone(admitted));
            let then =
                move |met| -> Work { Box::new(move |books| go_on(&visit, &admitted, reading, (Some(&met), rounds + 1), books)) };
            Ok(Step::Between { need, then: Box::new(then) })
        }
    }
}

fn metered(mut response: Response, reading: Reading) -> Response {
    response.headers.add(header::REMAINING, reading.remaining.to_string());
    response.headers.add(header::RESET, reading.reset_at.to_string());
    response
}

/// Whether the key changed since it was read: then neither its secret nor its limits can be trusted, not even to refuse.
fn is_stale(books: &mut dyn Books, key: &Key) -> Result<bool, Fault> {
    Ok(books.key_version(key.row)? != Some(key.version))
}

fn is_locked(visit: &Visit, key: &Key, books: &mut dyn Books) -> Result<bool, Fault> {
    limits::is_locked(books, key.row, visit.peer.to_canonical(), visit.moment.now)
}

fn count_failure(visit: &Visit, key: &Key, books: &mut dyn Books) -> Result<(), Fault> {
    let moment = &visit.moment;
    let Some(lock) = limits::count_failure(books, key, visit.peer.to_canonical(), moment.now, &moment.rules.lock)? else {
        return Ok(());
    };
    let Lock { network, until } = lock;
    let detail = format!("{} until {until}", network.as_deref().unwrap_or("everybody"));
    let by = By { key: Some(key), key_id: Some(&key.public_id) };
    let reason = Some(Reason::SignatureMismatch.as_str().to_owned());
    books.audit(&AuditRow { reason, detail: Some(detail), ..row(visit, by, 401, "key.locked") })
}

/// Kept for 600 s and until its timestamp has left the window: 600 s alone would leave a second in which a nonce from a clock
/// 300 s ahead could be spent again.
fn nonce_expiry(timestamp: i64, now: Timestamp) -> Result<Timestamp, Fault> {
    let out_of_window = timestamp + wire::WINDOW_S + 1;
    let out_of_window = Timestamp::from_second(out_of_window).map_err(|error| Fault(error.to_string()))?;
    Ok(out_of_window.max(now + SignedDuration::from_secs(wire::NONCE_S)))
}

/// What an endpoint came to.
enum Executed {
    Answer(Response),
    Needs(Need),
}

/// The endpoint's answer; or, when it broke, a 500 of which nothing but the audit row stays.
fn execute(call: &Call<'_>, books: &mut dyn Books) -> Result<Executed, Fault> {
    let request_id = &call.visit.request_id;
    let route = match permitted(call) {
        Ok(route) => route,
        Err(refusal) => return Ok(Executed::Answer(refusal.response(request_id))),
    };
    let mut executed = None;
    let attempted = books.attempt(&mut |books| {
        executed = Some(match dispatch(call, route, books) {
            Ok(answer) => Executed::Answer(answer),
            Err(Halt::Refused(refusal)) => Executed::Answer(refusal.response(request_id)),
            Err(Halt::Needs(need)) => Executed::Needs(need),
            Err(Halt::Fault(fault)) => return Err(fault),
        });
        Ok(Keep::Keep)
    })?;
    let response = match executed.filter(|_| attempted == Attempted::Kept) {
        Some(Executed::Answer(response)) => response,
        Some(Executed::Needs(need)) => return Ok(Executed::Needs(need)),
        None => problem::internal().response(request_id),
    };
    if let Route::Credentials(service) = route
        && response.status == 200
    {
        let by = By { key: Some(call.key), key_id: Some(&call.key.public_id) };
        let detail = Some(format!("service {service}"));
        books.audit(&AuditRow { detail, ..row(call.visit, by, 200, "credentials.read") })?;
        tell_owner(call, service, books)?;
    }
    Ok(Executed::Answer(response))
}

/// Whoever asked for it is told each time credentials are read (spec 9).
fn tell_owner(call: &Call<'_>, service: i64, books: &mut dyn Books) -> Result<(), Fault> {
    let mut account = books.account(call.key.account);
    if !account.notifies_credentials()? {
        return Ok(());
    }
    let (at, peer, key) = (call.now().strftime("%Y-%m-%d %H:%M:%S UTC"), call.visit.peer, &call.key.public_id);
    let body = format!(
        "The credentials of service {service} were read at {at}\nfrom {peer} with the key {key}.\n\nIf that was not you, have the key \
         rotated and the service's password changed.\n\nRequest id: {}\n",
        call.visit.request_id
    );
    let subject = format!("Credentials of service {service} were read");
    account.queue_mail(&Mail { kind: "credentials.read".to_owned(), subject, body, at: call.now() })
}

/// The endpoint that the request names, if its key may use it.
fn permitted(call: &Call<'_>) -> Result<Route, Refusal> {
    let request = &call.visit.request;
    let route = routes::find(&request.method, request.path())?;
    if let Some(scope) = route.scope().filter(|scope| !call.key.scopes.iter().any(|held| held == scope)) {
        return Err(problem::missing_scope(scope));
    }
    body::check_content_type(request)?;
    Ok(route)
}

fn dispatch(call: &Call<'_>, route: Route, books: &mut dyn Books) -> Handled {
    if let Some(Met::Charged(charge, came_to)) = call.met {
        payments::settle(&call.visit.moment, charge, *came_to, books)?;
    }
    match route {
        Route::Me => account::me(call, books),
        Route::Products => catalog::list(call, books),
        Route::Product(id) => catalog::one(call, id, books),
        Route::PlaceOrder => once(call, books, &mut |again, books| orders::place(call, again, books)),
        Route::Order(id) => orders::one(call, id, books),
        Route::Services => services::list(call, books),
        Route::Service(id) => services::one(call, id, books),
        Route::Credentials(id) => services::credentials(call, id, books),
        Route::Act(id) => once(call, books, &mut |again, books| services::act(call, id, again, books)),
        Route::Balance => account::balance(call, books),
        Route::Invoices => invoices::list(call, books),
        Route::InvoicePdf(id) => invoices::pdf(call, id, books),
        Route::Webhook => webhooks::show(call, books),
        Route::SetWebhook => webhooks::set(call, books),
    }
}

/// The same change was asked for before and is not done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    /// The order that waits for its payment, where the change is one.
    pub(super) order: Option<i64>,
    /// Whether a card is, or was until now, being charged by another request, whose outcome is this one's too: the first request, which has
    /// no answer yet, or whichever this repeat waited for. Else the first request was answered with a 402.
    pub(super) is_running: bool,
}

/// Runs a change once for each idempotency key (our choice, 2.5): a repeat is given the first answer. A 402 is unfinished: a repeat
/// tries again, with the order that waits for its payment. Where the first has no answer yet, a repeat waits for it.
fn once(call: &Call<'_>, books: &mut dyn Books, change: &mut dyn FnMut(Option<Again>, &mut dyn Books) -> Handled) -> Handled {
    let request = &call.visit.request;
    let scope = IdempotencyScope {
        key: call.key.row,
        method: &request.method,
        path: request.path(),
        idempotency_key: body::idempotency_key(&request.headers)?,
    };
    let body_sha256 = Sha256::digest(&request.body).into();
    let earlier = books.idempotent(&scope, call.now())?;
    if let Some(earlier) = &earlier {
        if earlier.body_sha256 != body_sha256 {
            return Err(problem::body_mismatch().into());
        }
        if !matches!(earlier.response.status, RUNNING | 402) {
            return Ok(replayed(earlier.response.clone()));
        }
    }
    // Whose payment a repeat waited for, and whether that was its own first one, does not matter: it begins none after it.
    let has_waited = matches!(call.met, Some(Met::Paused));
    let again = earlier
        .as_ref()
        .map(|earlier| Again { order: earlier.unfinished_order, is_running: has_waited || earlier.response.status == RUNNING });
    let at = earlier.as_ref().map_or(call.now(), |earlier| earlier.at);
    let record = |response: &Response, unfinished_order, life_s| Recorded {
        body_sha256,
        response: response.clone(),
        unfinished_order,
        at,
        expires_at: at + SignedDuration::from_secs(life_s),
    };
    let response = match change(again, books) {
        Ok(response) => response,
        Err(Halt::Refused(refusal)) if refusal.is_final => refusal.response(&call.visit.request_id),
        Err(Halt::Needs(Need::Charge(card))) => {
            let running = earlier.map_or_else(|| Response::new(RUNNING, "", Vec::new()), |earlier| earlier.response);
            let running = Response { status: RUNNING, ..running };
            books.record_idempotent(&scope, &record(&running, card.order, wire::DAY_S + UNFINISHED_MARGIN_S))?;
            return Err(Halt::Needs(Need::Charge(card)));
        }
        Err(halt) => return Err(halt),
    };
    let is_unpaid = response.status == 402;
    // The same 402 is the first one again, also if a card was charged in vain in between.
    let first = earlier.as_ref().filter(|_| is_unpaid).map(|earlier| Response { status: 402, ..earlier.response.clone() });
    let first = first.filter(|first| problem::reason(first) == problem::reason(&response));
    let is_repeat = first.is_some();
    let response = first.unwrap_or(response);
    let life_s = wire::DAY_S + if is_unpaid || earlier.is_some() { UNFINISHED_MARGIN_S } else { 0 };
    let unfinished_order = if is_unpaid { problem::order_id(&response) } else { None };
    books.record_idempotent(&scope, &record(&response, unfinished_order, life_s))?;
    Ok(if is_repeat { replayed(response) } else { response })
}

fn replayed(mut response: Response) -> Response {
    response.headers.add(header::REPLAYED, "true");
    response
}

/// Whose request it is, as far as is known.
#[derive(Clone, Copy)]
struct By<'a> {
    key: Option<&'a Key>,
    key_id: Option<&'a str>,
}

/// The one audit row of a request, and the answer.
fn answer(visit: &Visit, by: By<'_>, response: Response, detail: Option<&str>, books: &mut dyn Books) -> Result<Step, Fault> {
    let replayed = response.headers.once(header::REPLAYED).map(|_| "replayed");
    let detail = detail.or(replayed).map(str::to_owned);
    books.audit(&AuditRow { reason: problem::reason(&response), detail, ..row(visit, by, response.status, "request") })?;
    Ok(Step::answer(finish(response, visit)))
}

fn row(visit: &Visit, by: By<'_>, status: u16, event: &str) -> AuditRow {
    AuditRow {
        account: by.key.map(|key| key.account),
        key_id: by.key_id.map(str::to_owned),
        ..visit.audit_row(shown(&visit.request.target), status, event)
    }
}

/// A query that names a page, or none: any other may hold what is secret, and nothing leaves the chain again.
fn shown(target: &str) -> &str {
    let Some((path, query)) = target.split_once('?') else { return target };
    let names_page = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or_default();
        matches!(name, "page" | "per_page") && value.bytes().all(|byte| byte.is_ascii_digit())
    };
    if query.split('&').all(names_page) { target } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_noted_where_it_can_hold_no_secret() {
        for kept in ["/v1/me", "/v1/services?page=2", "/v1/services?per_page=50&page=0"] {
            assert_eq!(shown(kept), kept);
        }
        for (target, noted) in [
            ("/v1/me?secret=x", "/v1/me"),
            ("/v1/services?page=2&secret=1", "/v1/services"),
            ("/v1/services?page=x", "/v1/services"),
            ("/v1/services?page=1?x", "/v1/services"),
            ("/v1/me?", "/v1/me"),
        ] {
            assert_eq!(shown(target), noted);
        }
    }

    #[test]
    fn a_nonce_outlives_its_window_and_ten_minutes() {
        let now: Timestamp = "2027-01-15T08:00:00.9Z".parse().unwrap();
        let (second, after) = (now.as_second(), now + SignedDuration::from_secs(600));
        for (timestamp, expiry) in [
            (second - 300, after),
            (second, after),
            (second + 299, after),
            (second + 300, Timestamp::from_second(second + 601).unwrap()),
        ] {
            assert_eq!(nonce_expiry(timestamp, now).unwrap(), expiry, "{}", timestamp - second);
        }
    }
}
