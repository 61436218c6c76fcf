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
        let is_order = self.ask.path == "/v1/orders";
        // What a renewal's answer names could only be the order that the service came from.
        let order = self.told.as_ref().and_then(|told| told.order_id).filter(|_| is_order);
        let effect = if is_order { Effect::Partial } else { Effect::None };
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
        // Whoever used it was us: the catalogue, from which an order is put together, has changed since.
        let used = self.problem(ProblemKind::Refused, Retry::Never, "this idempotency key was used with other contents before");
        Problem { effect: self.ask.lost(), ..used }.into()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::{Order, ServiceRef};
    use crate::kernelhost::client::Client;
    use crate::kernelhost::client::script::{
        EPOCH, Net, SECRET, WEBHOOK_SECRET, assert_discreet, at, call, json, named, refusal, run, with,
    };
    use crate::message::{Headers, Response};
    use crate::provisioning::Provisioning;

    fn order() -> Order {
        Order {
            plan: "42".to_owned(),
            term: None,
            domain: Some("a.example".to_owned()),
            email: None,
            password: Some("MARKEDpassword".to_owned()),
            note: None,
            options: Vec::new(),
        }
    }

    /// What a create comes to after one answer.
    fn create(answer: Result<Response, SendError>) -> Problem {
        let problem = run(Client.create(&Net::always(answer), &at(), call(), order())).unwrap_err();
        assert_discreet(&problem);
        problem
    }

    #[test]
    fn every_documented_refusal_has_its_meaning() {
        use ProblemKind::{
            Forbidden, Invalid, NotFound, PaymentRequired, Protocol, RateLimited, Refused, Unauthorized, Unreachable,
        };
        let reasons401 = [
            "missing_headers",
            "bad_key",
            "bad_timestamp",
            "timestamp_out_of_window",
            "bad_nonce",
            "bad_signature",
            "signature_mismatch",
            "unknown_or_locked_key",
            "ip_not_allowed",
            "never_heard_of",
        ];
        let reasons402 =
            ["insufficient_credit_and_no_card", "card_declined", "card_expired", "client_not_found", "never_heard_of"];
        let later = Retry::AfterMs(LATER_MS);
        let table = [
            (400, "validation_failed", "", Invalid, Effect::None, Retry::AfterFix),
            (401, "auth_failed", "replay_detected", Unauthorized, Effect::Unknown, Retry::AfterFix),
            (403, "forbidden_scope", "missing_scope", Forbidden, Effect::None, Retry::AfterFix),
            (404, "not_found", "", NotFound, Effect::None, Retry::Never),
            (409, "idempotency_conflict", "", Refused, Effect::Unknown, Retry::Never),
            (409, "idempotency_conflict", "body_mismatch", Refused, Effect::Unknown, Retry::Never),
            (409, "idempotency_conflict", "request_in_progress", Refused, Effect::Unknown, later),
            (429, "rate_limited", "", RateLimited, Effect::None, later),
            (500, "internal_error", "", Protocol, Effect::Unknown, later),
            (503, "busy", "", Unreachable, Effect::Unknown, later),
            // Codes that nobody documented.
            (400, "odd", "", Refused, Effect::None, Retry::Never),
            (403, "odd", "", Refused, Effect::None, Retry::Never),
            (404, "odd", "", Refused, Effect::None, Retry::Never),
            (409, "odd", "", Refused, Effect::Unknown, Retry::Never),
            (418, "odd", "", Refused, Effect::None, Retry::Never),
            (599, "odd", "", Protocol, Effect::Unknown, later),
            (302, "odd", "", Protocol, Effect::Unknown, Retry::AfterFix),
        ];
        let unauthorized = reasons401.map(|reason| (401, "auth_failed", reason, Unauthorized, Effect::None, Retry::AfterFix));
        let unpaid =
            reasons402.map(|reason| (402, "payment_required", reason, PaymentRequired, Effect::Partial, Retry::AfterFix));
        for (status, code, reason, kind, effect, retry) in table.into_iter().chain(unauthorized).chain(unpaid) {
            let problem = create(refusal(status, code, reason, ""));
            assert_eq!((problem.kind, problem.effect, problem.retry), (kind, effect, retry), "{status} {code} {reason}");
            let code = if reason.is_empty() { code.to_owned() } else { format!("{code}/{reason}") };
            assert_eq!(problem.provider_code, Some(code));
            for told in ["POST /v1/orders", "Title; The detail.", "(request 01HX7Z3K8QABCDEFGHJKMNPQRS)"] {
                assert!(problem.message.contains(told), "{}", problem.message);
            }
        }
    }

    #[test]
    fn an_unpaid_order_is_named() {
        let problem = create(refusal(402, "payment_required", "card_declined", r#","order_id":17"#));
        assert_eq!(problem.remote_id.as_deref(), Some("order/17"));
        assert!(problem.public_message.is_some());
        let problem = create(refusal(402, "payment_required", "card_declined", r#","order_id":"../x""#));
        assert_eq!(problem.remote_id, None);
    }

    #[test]
    fn a_wrong_input_is_named_in_the_contracts_words() {
        for (member, field) in [
            ("product_id", Some("plan")),
            ("billing_cycle", Some("term")),
            ("hostname", Some("domain")),
            ("config_options.os", Some("os")),
            ("Idempotency-Key", Some("idempotency-key")),
            ("note", Some("note")),
            ("<script>", None),
            (SECRET, None),
        ] {
            let errors = format!(r#","errors":[{{"field":"{member}","code":"bad","message":"no good"}}]"#);
            let problem = create(refusal(400, "validation_failed", "", &errors));
            assert_eq!(problem.field.as_deref(), field, "{member}");
            assert!(problem.message.contains("no good"));
        }
        let problem = create(refusal(400, "validation_failed", "", r#","errors":[{"field":"action","code":"wrong_state"}]"#));
        assert_eq!((problem.kind, problem.retry), (ProblemKind::WrongState, Retry::Never));
    }

    #[test]
    fn who_else_answers_never_makes_a_service_missing() {
        for body in ["", "<html>404</html>", "null", "\"not_found\"", "17"] {
            let net = Net::always(json(404, body));
            let problem = run(Client.status(&net, &at(), named("service/5"))).unwrap_err();
            assert_eq!((problem.kind, problem.retry), (ProblemKind::Protocol, Retry::AfterFix), "{body}");
        }
        for body in ["{}", "[]", r#"{"error":"no route"}"#, r#"{"type":"about:blank","status":404}"#] {
            let net = Net::always(json(404, body));
            let problem = run(Client.status(&net, &at(), named("service/5"))).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Refused, "{body}");
        }
        for (status, effect) in [(402, Effect::Unknown), (403, Effect::None), (409, Effect::Unknown), (307, Effect::Unknown)] {
            let problem = create(json(status, "<html>"));
            assert_eq!((problem.kind, problem.effect), (ProblemKind::Protocol, effect), "{status}");
            assert_eq!(problem.provider_code, Some(format!("HTTP {status}")));
        }
    }

    #[test]
    fn waits_are_seconds_unix_time_or_a_date() {
        let now = Timestamp::from_second(EPOCH).unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("999999", Some(86_400)),
            ("1000000", Some(0)),
            ("1800000007", Some(7)),
            ("Fri, 15 Jan 2027 08:00:09 GMT", Some(9)),
            ("Fri, 15 Jan 2027 07:00:00 GMT", Some(0)),
            ("9223372036854775807", Some(86_400)),
            ("-1", None),
            ("-9223372036854775808", None),
            ("99999999999999999999", None),
            ("soon", None),
            ("", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(wait(&Headers::new().with("retry-after", text), now, false), expected, "{text}");
            assert_eq!(wait(&Headers::new().with("X-RateLimit-Reset", text), now, true), expected, "{text}");
            assert_eq!(wait(&Headers::new().with("X-RateLimit-Reset", text), now, false), None);
        }
        let limited = with(with(json(429, "{}"), "X-RateLimit-Reset", "1800000050"), "Retry-After", "300");
        assert_eq!(create(limited).retry, Retry::AfterMs(300_000));
    }

    #[test]
    fn secrets_are_not_quoted_back() {
        for secret in [SECRET, WEBHOOK_SECRET] {
            for status in [400, 401, 402, 403, 404, 409, 418, 429, 500, 503] {
                let errors =
                    format!(r#","errors":[{{"field":"{secret}","code":"{secret}","message":"is {secret}"}}],"x":"{secret}""#);
                let answer = refusal(status, secret, secret, &errors);
                let body = String::from_utf8(answer.unwrap().body).unwrap();
                let body =
                    body.replace("The detail.", &format!("You sent '{secret}'.")).replace("01HX7Z3K8QABCDEFGHJKMNPQRS", secret);
                let problem = create(with(json(status, body), "X-Request-Id", secret));
                assert!(problem.message.contains("You sent '[secret]'."), "{}", problem.message);
                create(with(json(status, format!("<p>{secret}</p>")), "X-Request-Id", secret));
            }
        }
    }

    #[test]
    fn a_new_password_is_not_quoted_back() {
        let me = json(200, r#"{"extensions":["reset_password"]}"#);
        let answer = refusal(
            400,
            "validation_failed",
            "MARKEDpassword",
            r#","errors":[{"field":"MARKEDpassword","message":"MARKEDpassword is weak"}]"#,
        );
        let net = Net::new([me, answer]);
        let problem =
            run(Client.reset_password(&net, &at(), call(), named("service/5"), Some("MARKEDpassword".into()))).unwrap_err();
        assert_discreet(&problem);
        assert!(problem.message.contains("[secret] is weak"), "{}", problem.message);
    }

    #[test]
    fn quotes_are_short_and_on_one_line() {
        let long = "ü".repeat(100_000);
        let problem = create(refusal(418, &long, &long, &format!(r#","detail2":"{long}","order_id":1e99"#)));
        assert!(problem.message.len() < 800);
        let body = format!(r#"{{"type":"x/odd","detail":"a\n\u0000b {long}"}}"#);
        let problem = create(json(418, body));
        assert!(problem.message.contains("a  b ü") && problem.message.len() < 800);
        assert!(!problem.message.chars().any(char::is_control));
    }

    /// Whatever comes back, the answer is a value.
    fn ask_everything(answer: &Result<Response, SendError>) {
        let (net, at, service) = (Net::always(answer.clone()), at(), || named("order/17"));
        let problems = [
            run(Client.check(&net, &at)).err(),
            run(Client.balance(&net, &at)).err(),
            run(Client.catalog(&net, &at)).err(),
            run(Client.list_services(&net, &at, Some("2".to_owned()))).err(),
            run(Client.status(&net, &at, service())).err(),
            run(Client.create(&net, &at, call(), order())).err(),
            run(Client.create(&net, &at, call(), Order { plan: "KVM".to_owned(), ..order() })).err(),
            run(Client.suspend(&net, &at, call(), service(), None)).err(),
            run(Client.terminate(&net, &at, call(), named("service/5"))).err(),
            run(Client.renew(&net, &at, call(), named("service/5"), "2027-02-15T08:00:00Z".to_owned())).err(),
            run(Client.reset_password(&net, &at, call(), named("service/5"), Some("MARKEDpassword".into()))).err(),
            run(Client.credentials(&net, &at, named("service/5"))).err(),
            run(Client.invoices(&net, &at, None)).err(),
            run(Client.invoice_pdf(&net, &at, "7".to_owned())).err(),
            run(Client.power(&net, &at, call(), ServiceRef { remote_id: None, ..service() }, crate::contract::PowerAction::Stop))
                .err(),
        ];
        problems.iter().flatten().for_each(assert_discreet);
    }

    #[test]
    fn hostile_answers_are_values() {
        let deep = "[".repeat(10_000);
        let huge = format!(r#"{{"data":[{}]}}"#, vec!["1"; 2_000].join(","));
        let mixed =
            r#"{"id":5,"status":"active","service_id":-1,"data":[{"id":1e400}],"meta":{"total_pages":1e30},"order_id":9.5}"#;
        let bodies =
            ["", " ", "\u{feff}{}", "null", "[]", "{}", "0", "<!doctype html>", mixed, deep.as_str(), huge.as_str(), "{\"id\":"];
        for status in [100, 200, 201, 204, 299, 301, 400, 401, 402, 403, 404, 409, 429, 500, 503, 599, 999, u16::MAX, 0] {
            for body in bodies {
                ask_everything(&with(with(json(status, body), "Date", "never"), "Retry-After", "-9"));
            }
        }
        ask_everything(&Ok(Response { status: 200, headers: Headers::new(), body: vec![0xff; 1000] }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_bytes_are_values(status in 0_u16.., body in proptest::collection::vec(any::<u8>(), 0..200), header in ".*") {
            ask_everything(&with(Ok(Response { status, headers: Headers::new(), body }), "Retry-After", &header));
        }
    }
}
