//! One operation's talk with the API: each attempt is signed, sent and read in one place, and repeated by one bounded loop.

use std::cell::Cell;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::failure::{self, Again, Failure};
use crate::contract::{Call, Effect, Problem, ProblemKind, Property, Retry};
use crate::kernelhost::{sign, wire};
use crate::message::{Headers, Request, Response};
use crate::outside::Outside;
use crate::provisioning::{Connection, invalid, problem};

/// How long an operation may take that only asks: the contract gives those no deadline of their own.
const ASK_DEADLINE: Duration = Duration::from_secs(30);
/// How long one attempt may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts of one request (our choice, 2.18).
const MAX_TRIES: u32 = 4;
/// Full jitter: the wait is drawn from nothing up to this, doubled with each attempt.
const BACKOFF: Duration = Duration::from_millis(500);
/// A clock further off than this is not corrected but reported, in seconds (our choice, 2.18).
const MAX_OFFSET_S: i64 = 86_400;

/// The API, for the length of one operation.
pub(super) struct Api<'a> {
    world: &'a dyn Outside,
    at: &'a Connection,
    /// The base URL up to what is signed.
    root: &'a str,
    /// In the world's ticks.
    ends_at: Duration,
    /// What is added to our clock, in seconds; set once, after the server refused our timestamp.
    correction: Cell<Option<i64>>,
    /// The server's clock minus ours at its last answer, in seconds.
    measured: Cell<Option<i64>>,
}

/// One request, the same for all its attempts.
pub(super) struct Ask<'a> {
    pub(super) method: &'static str,
    /// From `/v1` on, query included: what is signed, byte for byte as it is sent.
    pub(super) path: &'a str,
    body: &'a [u8],
    /// Present on changes, and on nothing else.
    idempotency_key: Option<&'a str>,
    /// Everything but the health check.
    signed: bool,
    /// What must not be quoted back, the connection's secret aside.
    secret: Option<&'a str>,
}

impl<'a> Ask<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: "GET", path, body: &[], idempotency_key: None, signed: true, secret: None }
    }

    /// What a failure left behind of which nobody knows whether the provider acted: nothing, when nothing was to be changed.
    pub(super) fn lost(&self) -> Effect {
        if self.idempotency_key.is_some() { Effect::Unknown } else { Effect::None }
    }
}

/// An answer, wiped when dropped: it may hold credentials.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { status: response.status, headers: response.headers, body: Zeroizing::new(response.body) }
    }
}

impl<'a> Api<'a> {
    /// For an operation that only asks.
    pub(super) fn asking(world: &'a dyn Outside, at: &'a Connection) -> Result<Self, Problem> {
        Self::until(world, at, ASK_DEADLINE)
    }

    /// For an operation that changes something, within its own deadline.
    pub(super) fn changing(world: &'a dyn Outside, at: &'a Connection, call: &Call) -> Result<Self, Problem> {
        if !wire::is_idempotency_key(&call.idempotency_key) {
            return Err(invalid("idempotency-key", "an idempotency key is 1 to 80 characters of A-Z a-z 0-9 _ . -"));
        }
        Self::until(world, at, Duration::from_millis(call.deadline_ms.into()))
    }

    fn until(world: &'a dyn Outside, at: &'a Connection, deadline: Duration) -> Result<Self, Problem> {
        let printable = |text: &str| !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if !printable(&at.key) {
            return Err(invalid("key", "the key id is empty or holds blanks"));
        }
        if at.secret.expose_secret().is_empty() {
            return Err(invalid("secret", "the secret is empty"));
        }
        Ok(Self {
            world,
            at,
            root: root(&at.base_url)?,
            ends_at: world.ticks().saturating_add(deadline),
            correction: Cell::new(None),
            measured: Cell::new(None),
        })
    }

    /// Asks for one JSON document.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let ask = Ask::get(path);
        read(&ask, &self.exchange(&ask).await?)
    }

    /// Asks for one file.
    pub(super) async fn get_file(&self, path: &str) -> Result<Vec<u8>, Problem> {
        let mut answer = self.exchange(&Ask::get(path)).await?;
        Ok(std::mem::take(&mut *answer.body))
    }

    /// Asks, without credentials, whether the API is there. What it says is not documented and not needed (spec 16).
    pub(super) async fn health(&self) -> Result<Option<wire::Health>, Problem> {
        let ask = Ask { signed: false, ..Ask::get("/v1/health") };
        Ok(read(&ask, &self.exchange(&ask).await?).ok())
    }

    /// Makes a change. Every attempt carries the same key and the same body.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &impl Serialize,
        secret: Option<&str>,
    ) -> Result<T, Problem> {
        let body = Zeroizing::new(
            serde_json::to_vec(body).map_err(|_| problem(ProblemKind::Internal, "the request could not be written"))?,
        );
        let ask = Ask { method: "POST", path, body: &body, idempotency_key: Some(key), signed: true, secret };
        read(&ask, &self.exchange(&ask).await?)
    }

    /// The one loop: at most [`MAX_TRIES`] attempts, within the deadline, and only where another one can help.
    async fn exchange(&self, ask: &Ask<'_>) -> Result<Answer, Problem> {
        let mut last: Option<Failure> = None;
        let mut uncertain = false;
        for tries in 1..=MAX_TRIES {
            let timeout = self.time_left().min(TRY_TIMEOUT);
            if timeout.is_zero() {
                break;
            }
            let failure = match self.attempt(ask, timeout).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            uncertain |= failure.problem.effect == Effect::Unknown;
            let wait = self.wait(&failure.again, tries);
            last = Some(failure);
            match wait {
                Some(wait) if wait < self.time_left() => self.world.sleep(wait).await,
                _ => break,
            }
        }
        Err(last.map_or_else(out_of_time, |failure| self.told(failure, uncertain)))
    }

    /// One attempt: signs, sends, reads. Each has a timestamp, a nonce and a signature of its own.
    async fn attempt(&self, ask: &Ask<'_>, timeout: Duration) -> Result<Answer, Failure> {
        let answer: Answer = match self.world.send(self.request(ask), timeout).await {
            Ok(response) => response.into(),
            Err(error) => return Err(failure::unanswered(ask, &error)),
        };
        let now = self.world.now();
        let offset = answer.headers.once("Date").and_then(http_date).map(|server| server.as_second() - now.as_second());
        self.measured.set(offset);
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let secrets = [Some(self.at.secret.expose_secret()), self.at.setting("webhook_secret"), ask.secret];
        Err(failure::answered(ask, &answer, now, offset.filter(|offset| offset.abs() <= MAX_OFFSET_S), &secrets))
    }

    fn request(&self, ask: &Ask<'_>) -> Request {
        let mut headers = Headers::new().with("Accept", "application/json, application/problem+json, application/pdf");
        if ask.signed {
            let mut nonce = [0; 16];
            self.world.random(&mut nonce);
            let nonce = hex::encode(nonce);
            let timestamp = self.world.now().as_second().saturating_add(self.correction.get().unwrap_or(0));
            let timestamp = format!("{timestamp:010}");
            let lines = sign::signing_string(ask.method, ask.path, &timestamp, &nonce, ask.body);
            headers.add(wire::header::KEY, self.at.key.as_str());
            headers.add(wire::header::SIGNATURE, sign::sign(self.at.secret.expose_secret().as_bytes(), &lines));
            headers.add(wire::header::TIMESTAMP, timestamp);
            headers.add(wire::header::NONCE, nonce);
        }
        if let Some(key) = ask.idempotency_key {
            headers.add(wire::header::IDEMPOTENCY_KEY, key);
        }
        if !ask.body.is_empty() {
            headers.add("Content-Type", "application/json");
        }
        Request { method: ask.method.to_owned(), target: format!("{}{}", self.root, ask.path), headers, body: ask.body.to_vec() }
    }

    /// How long to wait before another attempt, if one is to be made.
    fn wait(&self, again: &Again, tries: u32) -> Option<Duration> {
        if tries == MAX_TRIES {
            return None;
        }
        let jitter = || self.random_below(BACKOFF.saturating_mul(1 << (tries - 1)));
        match again {
            Again::No => None,
            Again::Backoff => Some(jitter()),
            // Many callers are told the same second: the jitter keeps them from coming back in it together.
            Again::After(wait) => Some(wait.saturating_add(self.random_below(BACKOFF))),
            Again::WithClock(offset) => {
                let first = self.correction.get().is_none();
                if first {
                    self.correction.set(Some(*offset));
                }
                first.then_some(Duration::ZERO)
            }
        }
    }

    fn random_below(&self, limit: Duration) -> Duration {
        let mut bytes = [0; 4];
        self.world.random(&mut bytes);
        limit.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
    }

    fn time_left(&self) -> Duration {
        self.ends_at.saturating_sub(self.world.ticks())
    }

    /// The last failure, in the light of the attempts before it. It speaks of this call alone: what an earlier call may have done
    /// the host knows.
    fn told(&self, failure: Failure, uncertain: bool) -> Problem {
        let mut problem = failure.problem;
        if uncertain && !failure.settles && problem.effect == Effect::None {
            problem.effect = Effect::Unknown;
            problem.message.push_str("; an earlier attempt may have been executed");
        }
        if let Some(offset) = self.correction.get() {
            problem.message = format!("{}; this machine's clock was corrected by {offset} s", problem.message);
        }
        problem
    }

    /// The server's clock minus ours, in seconds, where its last answer told.
    pub(super) fn measured_offset(&self) -> Option<i64> {
        self.measured.get()
    }

    /// Reports a corrected clock with what the operation hands back.
    pub(super) fn report(&self, properties: &mut Vec<Property>) {
        if let Some(offset) = self.correction.get() {
            properties.push(Property { name: "clock-offset-s".to_owned(), value: offset.to_string() });
        }
    }
}

/// The base URL without the ending `/v1` (our choice, 2.1). Nothing but an address may stand in it: no credentials, which would end
/// up in logs, no query, no fragment.
fn root(base_url: &str) -> Result<&str, Problem> {
    let wrong = |why: &str| Err(invalid("base-url", format!("the base URL {why}")));
    let Some((scheme, rest)) = base_url.split_once("://") else { return wrong("has no scheme") };
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return wrong("is neither https nor http");
    }
    if rest.is_empty() || rest.starts_with('/') {
        return wrong("names no host");
    }
    if rest.bytes().any(|byte| !(0x21..0x7f).contains(&byte) || matches!(byte, b'?' | b'#' | b'@' | b'\\')) {
        return wrong("holds more than a host and a path");
    }
    let root = base_url.trim_end_matches('/');
    Ok(root.strip_suffix("/v1").unwrap_or(root).trim_end_matches('/'))
}

/// Reads a 2xx answer. The reader's own message is not repeated: it quotes values, and those may be secrets.
fn read<T: DeserializeOwned>(ask: &Ask<'_>, answer: &Answer) -> Result<T, Problem> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "JSON of another shape than expected",
            serde_json::error::Category::Eof => "cut off",
            _ => "not JSON",
        };
        let (line, column) = (error.line(), error.column());
        let message = format!(
            "{} {}: HTTP {}, the answer of {} bytes is {what} (line {line}, column {column})",
            ask.method,
            ask.path,
            answer.status,
            answer.body.len()
        );
        Problem {
            effect: ask.lost(),
            retry: Retry::AfterMs(failure::LATER_MS),
            provider_code: Some(format!("HTTP {}", answer.status)),
            ..problem(ProblemKind::Protocol, message)
        }
    })
}

fn out_of_time() -> Problem {
    Problem {
        retry: Retry::Now,
        ..problem(ProblemKind::Unreachable, "the time allowed ended before the request could be sent; nothing was sent")
    }
}

/// A `Date` or `Retry-After` in HTTP's form, such as `Tue, 15 Nov 1994 08:12:31 GMT`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}
