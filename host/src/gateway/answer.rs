//! Answers: JSON, or a problem in the contract's words with the status that its reader acts on.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::operations::{AskError, FreshError, problem};
use crate::plugin::contract::{Effect, Problem, ProblemKind, Retry};
use crate::plugin::words::to_json;
use crate::store::StoreError;

pub(super) type Answer = Response<Full<Bytes>>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a request is not answered with what it asks for.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) problem: Problem,
    /// The operation that the problem is about.
    pub(super) operation: Option<String>,
    /// What the resource can do, for 405.
    pub(super) allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: ProblemKind, message: impl Into<String>) -> Self {
        let problem = problem(kind, message);
        Self { status, problem, operation: None, allow: None }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ProblemKind::Invalid, message)
    }

    pub(super) fn field(mut self, field: &str) -> Self {
        self.problem.field = Some(field.to_owned());
        self
    }

    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.problem.retry = Retry::AfterMs(seconds * 1000);
        self
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ProblemKind::Unauthorized, "a bearer token that this gateway knows is required")
    }

    pub(super) fn nothing_here() -> Self {
        Self::new(StatusCode::NOT_FOUND, ProblemKind::NotFound, "there is nothing at this path")
    }

    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ProblemKind::RateLimited, "too many requests at the same time").after(1)
    }

    /// The host refused: nothing was sent.
    pub(super) fn refused(problem: Problem) -> Self {
        let status = match problem.kind {
            ProblemKind::NotFound => StatusCode::NOT_FOUND,
            ProblemKind::Forbidden => StatusCode::FORBIDDEN,
            ProblemKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            _ => status_of(&problem),
        };
        Self { status, problem, operation: None, allow: None }
    }

    /// The provider, or the way to it, failed.
    pub(super) fn failed(problem: Problem, operation: Option<String>) -> Self {
        Self { status: status_of(&problem), problem, operation, allow: None }
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(problem) => Self::refused(problem),
            AskError::Store(error) => error.into(),
        }
    }
}

impl From<FreshError> for Refusal {
    fn from(error: FreshError) -> Self {
        match error {
            FreshError::Problem(problem) => Self::failed(problem, None),
            FreshError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the journal did not take a request");
        match error {
            StoreError::Unknown => {
                let message = "whether the journal has this request is not known: the same request again finds out";
                let mut refusal = Self::new(StatusCode::GATEWAY_TIMEOUT, ProblemKind::Internal, message).after(1);
                refusal.problem.effect = Effect::Unknown;
                refusal
            }
            _ => Self::new(StatusCode::SERVICE_UNAVAILABLE, ProblemKind::Internal, "the journal cannot be written now").after(1),
        }
    }
}

impl From<provisor_providers::books::Fault> for Refusal {
    fn from(fault: provisor_providers::books::Fault) -> Self {
        StoreError::from(fault).into()
    }
}

/// What a panel does about a problem of the provider (DESIGN's table of errors).
fn status_of(problem: &Problem) -> StatusCode {
    if problem.effect == Effect::Unknown {
        return StatusCode::GATEWAY_TIMEOUT;
    }
    match problem.kind {
        ProblemKind::Invalid | ProblemKind::Refused | ProblemKind::Unsupported | ProblemKind::PaymentRequired => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ProblemKind::AlreadyExists | ProblemKind::WrongState | ProblemKind::NotFound => StatusCode::CONFLICT,
        ProblemKind::Unauthorized | ProblemKind::Forbidden | ProblemKind::Protocol => StatusCode::BAD_GATEWAY,
        ProblemKind::Internal if problem.retry == Retry::Never => StatusCode::INTERNAL_SERVER_ERROR,
        ProblemKind::RateLimited | ProblemKind::Unreachable | ProblemKind::Internal => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// An answer with JSON.
pub(super) fn json_answer(status: StatusCode, value: &Value) -> Answer {
    with_type(status, value.to_string(), "application/json")
}

/// 202: the change is under way, and where to ask for it.
pub(super) fn accepted(value: &Value, operation: &str, retry_after_s: u64) -> Answer {
    let mut answer = json_answer(StatusCode::ACCEPTED, value);
    let location = HeaderValue::from_str(&format!("/v1/operations/{operation}"));
    if let Ok(location) = location {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer.headers_mut().insert(RETRY_AFTER, retry_after_s.into());
    answer
}

pub(super) fn with_type(status: StatusCode, text: impl Into<Bytes>, media_type: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// RFC 9457, with the contract's problem beside its members.
pub(super) fn problem_answer(refusal: &Refusal, request_id: &str) -> Answer {
    problem_answer_with(refusal, request_id, Map::new())
}

/// The same with further members.
pub(super) fn problem_answer_with(refusal: &Refusal, request_id: &str, further: Map<String, Value>) -> Answer {
    let Refusal { status, problem, operation, allow } = refusal;
    let mut body = json!({
        "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "detail": problem.message,
        "operation": operation, "request_id": request_id,
    });
    if let (Value::Object(members), Ok(Value::Object(told))) = (&mut body, to_json(problem)) {
        members.extend(told);
        members.extend(further);
    }
    let mut answer = with_type(*status, body.to_string(), "application/problem+json");
    let headers = answer.headers_mut();
    if let Some(allow) = allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if *status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Retry::AfterMs(milliseconds) = problem.retry {
        headers.insert(RETRY_AFTER, milliseconds.div_ceil(1000).max(1).into());
    }
    answer
}

/// What every answer carries: its request's id, and that nobody may keep it.
pub(super) fn finish(mut answer: Answer, request_id: &str) -> Answer {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
