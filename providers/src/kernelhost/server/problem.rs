//! Errors as this API tells them: RFC 9457 problems (spec 12), named by meaning.

use super::payments::Unpaid;
use crate::books::Fault;
use crate::kernelhost::guard::Reason;
use crate::kernelhost::wire::{self, FieldError, Problem, header};
use crate::message::{Headers, Response};
use crate::server::{Need, TurnedAway};

/// A problem's `errors[]` names at most so many fields.
const ERRORS_MAX: usize = 20;

/// Why a handler stops.
pub(super) enum Halt {
    /// The caller's doing. What was written before stays: a 402 leaves its order.
    Refused(Refusal),
    /// The store's or our own failure. Nothing stays.
    Fault(Fault),
    /// The handler cannot go on before this has happened, outside the transaction. What was written before stays, and the handler
    /// is run again with what it came to.
    Needs(Need),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What a handler answers.
pub(super) type Handled = Result<Response, Halt>;

/// An answer that says no.
pub(super) struct Refusal {
    problem: Problem,
    headers: Headers,
    /// Whether the answer is one of the business layer, to be given again to the same idempotency key.
    pub(super) is_final: bool,
}

impl Refusal {
    fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("{}{code}", wire::PROBLEM_TYPE),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            ..Problem::default()
        };
        Self { problem, headers: Headers::new(), is_final: true }
    }

    fn because(mut self, reason: &str) -> Self {
        self.problem.reason = Some(reason.to_owned());
        self
    }

    fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.add(name, value.into());
        self
    }

    fn not_final(mut self) -> Self {
        self.is_final = false;
        self
    }

    /// The response, `X-Request-Id` aside.
    pub(super) fn response(mut self, request_id: &str) -> Response {
        request_id.clone_into(&mut self.problem.request_id);
        let mut response = Response::new(self.problem.status, wire::PROBLEM_JSON, to_json(&self.problem));
        for (name, value) in self.headers.iter() {
            response.headers.add(name, value);
        }
        response
    }
}

/// A body of our own making as JSON.
pub(super) fn to_json(body: &impl serde::Serialize) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "structs of texts, numbers and lists always have a JSON form")]
    serde_json::to_vec(body).expect("structs of texts, numbers and lists always have a JSON form")
}

/// What the audit row says of an answer: the exact reason, or else the code. Replayed answers have no other source for it.
pub(super) fn reason(response: &Response) -> Option<String> {
    if response.status < 400 {
        return None;
    }
    let problem: Problem = serde_json::from_slice(&response.body).ok()?;
    Some(problem.reason.clone().unwrap_or_else(|| problem.code().to_owned()))
}

/// One field's error.
pub(super) fn field(field: impl Into<String>, code: &str, message: impl Into<String>) -> FieldError {
    FieldError { field: field.into(), code: code.to_owned(), message: message.into() }
}

/// 400: fields of the request have no acceptable value.
pub(super) fn invalid(mut errors: Vec<FieldError>) -> Refusal {
    errors.truncate(ERRORS_MAX);
    let mut refusal = Refusal::new(400, "validation_failed", "Validation failed", "The request has invalid values.");
    refusal.problem.errors = errors;
    refusal
}

/// 400: one field has no acceptable value.
pub(super) fn invalid_field(name: &str, code: &str, message: impl Into<String>) -> Refusal {
    invalid(vec![field(name, code, message)])
}

/// 400: the body or a header is not of the form asked for. Refused before the business layer, hence never recorded.
pub(super) fn malformed(error: FieldError) -> Refusal {
    invalid(vec![error]).not_final()
}

/// 401, or 400 for a target that is none.
pub(super) fn refused(reason: Reason) -> Refusal {
    if reason == Reason::MalformedTarget {
        let message = "A path of printable ASCII characters without a fragment is expected.";
        return malformed(field("request-target", "malformed", message)).because(reason.as_str());
    }
    Refusal::new(401, "auth_failed", "Authentication failed", "The request could not be authenticated.").because(reason.as_str())
}

/// 402: the order waits for its payment.
pub(super) fn order_unpaid(order_id: i64, why: Unpaid) -> Refusal {
    let mut refusal = unpaid("The order could not be paid.", why);
    refusal.problem.order_id = Some(order_id);
    refusal
}

/// 402: the renewal was not paid.
pub(super) fn renewal_unpaid(why: Unpaid) -> Refusal {
    unpaid("The renewal could not be paid.", why)
}

/// 402: nothing is sold to this account.
pub(super) fn no_client() -> Refusal {
    unpaid("The account does not exist or is closed.", Unpaid::NoClient)
}

fn unpaid(detail: &str, why: Unpaid) -> Refusal {
    Refusal::new(402, "payment_required", "Payment required", detail).because(why.as_str())
}

/// 403: the key may not do this.
pub(super) fn missing_scope(scope: &str) -> Refusal {
    Refusal::new(403, "forbidden_scope", "Forbidden", format!("The key lacks the scope {scope}.")).because("missing_scope")
}

/// 404: absent, or another reseller's. The text is constant, so that the two cannot be told apart.
pub(super) fn not_found() -> Refusal {
    Refusal::new(404, "not_found", "Not found", "There is no such resource.")
}

/// 405.
pub(super) fn method_not_allowed(allow: &str) -> Refusal {
    Refusal::new(405, "method_not_allowed", "Method not allowed", "The resource does not have this method.")
        .with_header("allow", allow)
}

/// 409: the idempotency key belongs to another request.
pub(super) fn body_mismatch() -> Refusal {
    let detail = "The idempotency key was used with another body.";
    Refusal::new(409, "idempotency_conflict", "Idempotency conflict", detail).because("body_mismatch").not_final()
}

/// 409: the first request with this idempotency key has no answer yet.
pub(super) fn request_in_progress() -> Refusal {
    let detail = "The payment is still being worked on; ask again with the same idempotency key.";
    Refusal::new(409, "idempotency_conflict", "Idempotency conflict", detail)
        .because("request_in_progress")
        .with_header("retry-after", "1")
        .not_final()
}

/// 415.
pub(super) fn unsupported_media_type() -> Refusal {
    Refusal::new(415, "unsupported_media_type", "Unsupported media type", "The body must be application/json.")
}

/// 429.
pub(super) fn rate_limited(retry_after_s: u64) -> Refusal {
    Refusal::new(429, "rate_limited", "Too many requests", "The rate limit is exhausted.")
        .with_header("retry-after", retry_after_s.max(1).to_string())
}

/// 500.
pub(super) fn internal() -> Refusal {
    Refusal::new(500, "internal_error", "Internal error", "Quote the request id to support.")
}

/// What the host answers without asking the books.
pub(super) fn turned_away(why: TurnedAway, request_id: &str) -> Response {
    let refusal = match why {
        TurnedAway::RateLimited { retry_after_s } => rate_limited(retry_after_s),
        TurnedAway::BodyTooLarge => {
            Refusal::new(413, "payload_too_large", "Payload too large", "The body is larger than 64 KiB.")
        }
        TurnedAway::BodyTimeout => {
            Refusal::new(408, "request_timeout", "Request timeout", "The body did not arrive within 10 s.")
        }
        TurnedAway::Malformed => malformed(field("request", "malformed", "The message is ambiguous or malformed.")),
        TurnedAway::Busy => Refusal::new(503, "service_unavailable", "Service unavailable", "Nothing was executed; try again.")
            .with_header("retry-after", "1"),
        TurnedAway::Internal => internal(),
    };
    let mut response = refusal.response(request_id);
    response.headers.add(header::REQUEST_ID, request_id);
    response
}

/// The order that a 402 names.
pub(super) fn order_id(response: &Response) -> Option<i64> {
    serde_json::from_slice::<Problem>(&response.body).ok()?.order_id
}
