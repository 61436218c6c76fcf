//! What a refused or missing answer means: spec 12's errors and our choice 2.18's three outcomes, as the contract's problems.

use std::time::Duration;

use jiff::Timestamp;

use super::exchange::{Answer, Ask, http_date};
use crate::contract::{Effect, Problem, ProblemKind, Retry};
use crate::kernelhost::wire;
use crate::outside::SendError;
use crate::provisioning::problem;

/// When a caller may come back if the provider names no time, in milliseconds.
pub(super) const LATER_MS: u64 = 5_000;
/// Longer waits are not believed: the day's quota comes back within a day.
const MAX_WAIT: Duration = Duration::from_hours(24);
/// Below this a `Retry-After` or a reset counts seconds from now, from it on it is Unix time (our choice, 2.10).
const FIRST_UNIX_TIME: i64 = 1_000_000;
/// How much of the provider's words a message repeats, in bytes.
const MAX_QUOTE: usize = 500;
/// Longer codes, reasons and request ids are not tokens.
const MAX_TOKEN: usize = 64;

const TRY_LATER: &str = "The service cannot be reached at the moment. Please try again later.";

/// A failed attempt.
pub(super) struct Failure {
    pub(super) problem: Problem,
    /// Whether the loop makes another one.
    pub(super) again: Again,
    /// The provider has judged this very change: had an earlier attempt been executed, it would have said so instead.
    pub(super) settles: bool,
}

/// Whether and when to make another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    No,
    /// After a wait of our own.
    Backoff,
    /// Not before this.
    After(Duration),
    /// At once, with this many seconds added to our clock.
    WithClock(i64),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, again: Again::No, settles: false }
    }
}

/// No answer: what counts is whether the provider can have acted.
pub(super) fn unanswered(ask: &Ask<'_>, error: &SendError) -> Failure {
    let message = format!("{} {}: {}", ask.method, ask.path, quote(&error.to_string(), &[]));
    let unreachable = Problem {
        retry: Retry::AfterMs(LATER_MS),
        public_message: Some(TRY_LATER.to_owned()),
        ..problem(ProblemKind::Unreachable, message)
    };
    match error {
        SendError::Refused(_) => Problem { retry: Retry::AfterFix, public_message: None, ..unreachable }.into(),
        SendError::NotSent(_) => Failure { again: Again::Backoff, ..unreachable.into() },
        SendError::Lost(_) => Failure { again: Again::Backoff, ..Problem { effect: ask.lost(), ..unreachable }.into() },
        SendError::Unreadable(_) => Problem { kind: ProblemKind::Protocol, effect: ask.lost(), ..unreachable }.into(),
    }
}

/// An answer other than 2xx. `offset` is the server's clock minus ours in seconds, where it is known and can be corrected;
/// `secrets` are never quoted.
pub(super) fn answered(ask: &Ask<'_>, answer: &Answer, now: Timestamp, offset: Option<i64>, secrets: &[Option<&str>]) -> Failure {
    let refusal = Refusal::read(ask, answer, secrets);
    match answer.status {
        401 => refusal.unauthorized(offset),
        429 => refusal.rate_limited(wait(&answer.headers, now, true)),
        500.. => refusal.broken(wait(&answer.headers, now, false)),
        400..500 if refusal.told.is_none() => refusal.foreign(),
        400 if refusal.code == "validation_failed" => refusal.validation(),
        402 => refusal.payment(),
        403 if refusal.code == "forbidden_scope" => refusal.forbidden(),
        404 if refusal.code == "not_found" => refusal.not_found(),
        409 if refusal.code == "idempotency_conflict" => refusal.conflict(wait(&answer.headers, now, false)),
        400..500 => refusal.refused(),
        _ => refusal.foreign(),
    }
}

/// How long the provider asks to wait: `Retry-After` as seconds, Unix time or a date; else, where that describes the limit, the
/// bucket's reset.
fn wait(headers: &crate::message::Headers, now: Timestamp, limited: bool) -> Option<Duration> {
    let read = |text: &str| match text.trim().parse::<i64>() {
        Ok(seconds) if seconds >= FIRST_UNIX_TIME => Some(seconds.saturating_sub(now.as_second()).max(0)),
        Ok(seconds) => (seconds >= 0).then_some(seconds),
        Err(_) => http_date(text).map(|date| (date.as_second() - now.as_second()).max(0)),
    };
    let reset = || headers.once(wire::header::RESET).filter(|_| limited).and_then(read);
    let seconds = headers.once("Retry-After").and_then(read).or_else(reset)?;
    Some(Duration::from_secs(seconds.unsigned_abs()).min(MAX_WAIT))
}

/// A refusing answer, as far as it can be read.
struct Refusal<'a> {
    ask: &'a Ask<'a>,
    status: u16,
    /// None when the body is no JSON problem: then somebody else answered.
    told: Option<wire::Problem>,
    code: String,
    reason: String,
    /// The input at fault, in the contract's words.
    field: Option<String>,
    message: String,
}

impl<'a> Refusal<'a> {
    fn read(ask: &'a Ask<'a>, answer: &Answer, secrets: &[Option<&str>]) -> Self {
        let told: Option<wire::Problem> = serde_json::from_slice(&answer.body).ok();
        let member = |text: &str| token(text, secrets).unwrap_or_default();
        let code = told.as_ref().map(|told| member(told.code())).unwrap_or_default();
        let reason = told.as_ref().and_then(|told| told.reason.as_deref()).map(member).unwrap_or_default();
        let header = answer.headers.once(wire::header::REQUEST_ID).unwrap_or_default();
        let request_id = told.as_ref().and_then(|told| token(&told.request_id, secrets)).or_else(|| token(header, secrets));
        let mut message = format!("{} {}: HTTP {}", ask.method, ask.path, answer.status);
        for part in [&code, &reason].into_iter().filter(|part| !part.is_empty()) {
            message.push(' ');
            message.push_str(part);
        }
        let words = told.as_ref().map(words).unwrap_or_default();
        if !words.is_empty() {
            message.push_str(": ");
            message.push_str(&quote(&words, secrets));
        }
        if let Some(id) = request_id {
            message = format!("{message} (request {id})");
        }
        let field = told.as_ref().and_then(|told| told.errors.iter().find_map(|error| contract_name(&error.field, secrets)));
        Self { ask, status: answer.status, told, code, reason, field, message }
    }

    /// A problem that left nothing behind, with a hint for staff where we have one.
    fn problem(&self, kind: ProblemKind, retry: Retry, hint: &str) -> Problem {
        let message = if hint.is_empty() { self.message.clone() } else { format!("{}; {hint}", self.message) };
        let code = match (self.code.as_str(), self.reason.as_str()) {
            ("", _) => format!("HTTP {}", self.status),
            (code, "") => code.to_owned(),
            (code, reason) => format!("{code}/{reason}"),
        };
        Problem { retry, provider_code: Some(code), ..problem(kind, message) }
    }

    fn unauthorized(self, offset: Option<i64>) -> Failure {
        let hint = match self.reason.as_str() {
            "missing_headers" => "something on the way may drop the KH-* headers",
            "bad_key" => "the profile's key id is not one of this provider",
            "timestamp_out_of_window" => "this machine's clock is off",
            "signature_mismatch" => "the profile's secret is wrong or was rotated",
            "replay_detected" => "something on the way sent the request twice: its first copy may have been executed",
            "unknown_or_locked_key" => "the key is unknown or revoked, or locked for 15 minutes after failed signatures",
            "ip_not_allowed" => "this machine's address is not on the key's allow-list",
            _ => "",
        };
        let refused = self.problem(ProblemKind::Unauthorized, Retry::AfterFix, hint);
        match (self.reason.as_str(), offset) {
            ("timestamp_out_of_window", Some(offset)) => Failure { again: Again::WithClock(offset), ..refused.into() },
            // Every attempt has a nonce of its own, so the copy that came first was ours, and it was accepted.
            ("replay_detected", _) => Problem { effect: self.ask.lost(), ..refused }.into(),
            _ => refused.into(),
        }
    }

    fn rate_limited(self, wait: Option<Duration>) -> Failure {
        let limited = Problem {
            public_message: Some(TRY_LATER.to_owned()),
            ..self.problem(ProblemKind::RateLimited, after(wait), "the key's or the address's request limit is reached")
        };
        Failure { again: wait.map_or(Again::Backoff, Again::After), ..limited.into() }
    }

    /// 5xx. A 503 that says when to come back was not executed; of everything else nobody can tell.
    fn broken(self, wait: Option<Duration>) -> Failure {
        let kind = if matches!(self.status, 502..=504) { ProblemKind::Unreachable } else { ProblemKind::Protocol };
        let effect = if self.status == 503 && wait.is_some() { Effect::None } else { self.ask.lost() };
        let hint = if self.code == "internal_error" { "the provider's support can trace the request id" } else { "" };
        let broken = Problem { effect, public_message: Some(TRY_LATER.to_owned()), ..self.problem(kind, after(wait), hint) };
        let again = match self.status {
            500 | 502..=504 => wait.map_or(Again::Backoff, Again::After),
            _ => Again::No,
        };
        Failure { again, ..broken.into() }
    }

    /// A redirect, or a refusal that is not this API's: a wrong base URL or a machine in between. A 404 of that kind must never
    /// pass for a service that is gone.
    fn foreign(self) -> Failure {
        let executed = !(400..500).contains(&self.status) || matches!(self.status, 402 | 409);
        let effect = if executed { self.ask.lost() } else { Effect::None };
        let hint = "the answer is not this API's: is the base URL right?";
        Problem { effect, ..self.problem(ProblemKind::Protocol, Retry::AfterFix, hint) }.into()
    }

    fn validation(self) -> Failure {
        let errors = self.told.as_ref().map(|told| told.errors.as_slice()).unwrap_or_default();
        let problem = if errors.iter().any(|error| error.code == "wrong_state") {
            Problem {
                public_message: Some("The service's present state does not allow this.".to_owned()),
                // The answer is kept under the idempotency key: only another call gets another one.
                ..self.problem(ProblemKind::WrongState, Retry::Never, "")
            }
        } else {
            Problem { field: self.field.clone(), ..self.problem(ProblemKind::Invalid, Retry::AfterFix, "") }
        };
        Failure { settles: true, ..problem.into() }
    }

    /// The order stays and waits 24 h for its payment (spec 8); the same key tries to pay the same order again (our choice, 2.11).
    fn payment(self) -> Failure {
        let hint = match self.reason.as_str() {
            "insufficient_credit_and_no_card" => "top up the credit or add a card in the provider's portal",
            "card_declined" => "use another card or ask the bank",
            "card_expired" => "add a new card in the provider's portal",
            "client_not_found" => "ask the provider's support",
            _ => "",
        };
        let order = self.told.as_ref().and_then(|told| told.order_id);
        let effect = if self.ask.path == "/v1/orders" { Effect::Partial } else { Effect::None };
        let problem = Problem {
            effect,
            remote_id: order.map(|id| format!("order/{id}")),
            public_message: (effect == Effect::Partial).then(|| "The order was received and waits to be set up.".to_owned()),
            ..self.problem(ProblemKind::PaymentRequired, Retry::AfterFix, hint)
        };
        Failure { settles: true, ..problem.into() }
    }

    fn forbidden(self) -> Failure {
        self.problem(ProblemKind::Forbidden, Retry::AfterFix, "the key lacks a scope for this: enable it in the portal").into()
    }

    fn not_found(self) -> Failure {
        let problem = self.problem(ProblemKind::NotFound, Retry::Never, "");
        Failure { settles: true, ..problem.into() }
    }

    fn conflict(self, wait: Option<Duration>) -> Failure {
        if self.reason == "request_in_progress" {
            let running = self.problem(ProblemKind::Refused, after(wait), "an earlier try of the same change is still running");
            return Problem { effect: self.ask.lost(), ..running }.into();
        }
        self.problem(ProblemKind::Refused, Retry::Never, "this idempotency key was used with other contents before").into()
    }

    fn refused(self) -> Failure {
        let effect = if self.status == 409 { self.ask.lost() } else { Effect::None };
        Problem { effect, ..self.problem(ProblemKind::Refused, Retry::Never, "") }.into()
    }
}

fn after(wait: Option<Duration>) -> Retry {
    Retry::AfterMs(wait.map_or(LATER_MS, |wait| u64::try_from(wait.as_millis()).unwrap_or(LATER_MS)))
}

/// What the provider says for people: title, detail, and what is wrong with which field.
fn words(told: &wire::Problem) -> String {
    let title_and_detail = [&told.title, &told.detail].into_iter().filter(|text| !text.is_empty()).cloned();
    let errors = told.errors.iter().take(5).map(|error| match error.message.as_str() {
        "" => format!("{} {}", error.field, error.code),
        message => format!("{} {message}", error.field),
    });
    title_and_detail.chain(errors).collect::<Vec<_>>().join("; ")
}

/// The contract's name of a request member at fault, where it is a name at all.
fn contract_name(member: &str, secrets: &[Option<&str>]) -> Option<String> {
    let member = token(member, secrets)?;
    Some(match member.as_str() {
        "product_id" => "plan".to_owned(),
        "billing_cycle" => "term".to_owned(),
        "due_at" => "due-at".to_owned(),
        "Idempotency-Key" => "idempotency-key".to_owned(),
        other => other.strip_prefix("config_options.").unwrap_or(other).to_owned(),
    })
}

/// A machine's word: short, plain, no secret; anything else is dropped.
fn token(text: &str, secrets: &[Option<&str>]) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_token = (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(plain);
    (is_token && quote(text, secrets) == text).then(|| text.to_owned())
}

/// Somebody else's words, fit for a message and a log: without our secrets, on one line, at most [`MAX_QUOTE`] bytes.
fn quote(text: &str, secrets: &[Option<&str>]) -> String {
    let hide = |text: String, secret: &str| if secret.is_empty() { text } else { text.replace(secret, "[secret]") };
    let text = secrets.iter().flatten().fold(text.to_owned(), |text, secret| hide(text, secret));
    let mut line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    if line.len() > MAX_QUOTE {
        line.truncate(line.floor_char_boundary(MAX_QUOTE));
        line.push('…');
    }
    line
}
