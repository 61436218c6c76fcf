//! One operation's talk with the API: each attempt is signed, sent and read in one place, and repeated by one bounded loop.

use std::cell::Cell;
use std::time::Duration;

use base16ct::lower as hex;
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
    /// Whether an earlier call may have made the change.
    is_doubtful: bool,
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
    /// Present on changes that a repeat would make twice, and on nothing else.
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
        if self.method == "GET" { Effect::None } else { Effect::Unknown }
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
        let api = Self::until(world, at, Duration::from_millis(call.deadline_ms.into()))?;
        Ok(Self { is_doubtful: call.attempt > 1, ..api })
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
            is_doubtful: false,
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
        let body = written(body)?;
        let ask = Ask { method: "POST", path, body: &body, idempotency_key: Some(key), signed: true, secret };
        read(&ask, &self.exchange(&ask).await?)
    }

    /// Sets what a repeat sets again: it needs no key.
    pub(super) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Problem> {
        let body = written(body)?;
        let ask = Ask { method: "PUT", body: &body, ..Ask::get(path) };
        read(&ask, &self.exchange(&ask).await?)
    }

    /// The one loop: at most [`MAX_TRIES`] attempts, within the deadline, and only where another one can help.
    async fn exchange(&self, ask: &Ask<'_>) -> Result<Answer, Problem> {
        let mut last: Option<Failure> = None;
        let mut uncertain = self.is_doubtful && ask.idempotency_key.is_some();
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
            let nonce = hex::encode_string(&nonce);
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

    /// A failure to get as far as asking for the change. Of what an earlier call did it says nothing.
    pub(super) fn before_asking(&self, problem: Problem) -> Problem {
        if self.is_doubtful { Problem { effect: Effect::Unknown, ..problem } } else { problem }
    }

    /// The last failure, in the light of the attempts before it, an earlier call's too.
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

fn written(body: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let written = serde_json::to_vec(body).map_err(|_| problem(ProblemKind::Internal, "the request could not be written"))?;
    Ok(Zeroizing::new(written))
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::kernelhost::client::script::{
        KEY, Net, SECRET, at, call, connection, json, lost, not_sent, path, refusal, run, with,
    };

    const DATE: &str = "Fri, 15 Jan 2027 09:00:00 GMT"; // an hour after the script's clock

    fn get(net: &Net) -> Result<Value, Problem> {
        let at = at();
        run(Api::asking(net, &at)?.get("/v1/me"))
    }

    fn post(net: &Net) -> Result<Value, Problem> {
        post_within(net, 60_000)
    }

    fn post_within(net: &Net, deadline_ms: u32) -> Result<Value, Problem> {
        post_as(net, &Call { deadline_ms, ..call() })
    }

    fn post_again(net: &Net) -> Result<Value, Problem> {
        post_as(net, &Call { attempt: 2, ..call() })
    }

    fn post_as(net: &Net, call: &Call) -> Result<Value, Problem> {
        let at = at();
        let api = Api::changing(net, &at, call)?;
        run(api.post("/v1/services/5/actions", &call.idempotency_key, &serde_json::json!({"action": "stop"}), None))
    }

    #[derive(Deserialize)]
    struct Vector {
        method: String,
        path: String,
        body: Option<String>,
        secret: String,
        timestamp: String,
        nonce: String,
        signature: String,
    }

    /// The vectors' nonces and clock, as the world gives them.
    struct Fixed<'a>(&'a Net, Timestamp, Vec<u8>);

    #[async_trait::async_trait(?Send)]
    impl Outside for Fixed<'_> {
        async fn send(&self, request: Request, timeout: Duration) -> Result<Response, crate::outside::SendError> {
            self.0.send(request, timeout).await
        }
        async fn sleep(&self, time: Duration) {
            self.0.sleep(time).await;
        }
        fn now(&self) -> Timestamp {
            self.1
        }
        fn ticks(&self) -> Duration {
            self.0.ticks()
        }
        fn random(&self, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.2);
        }
    }

    #[test]
    fn requests_are_signed_as_openssl_signs_them() {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../../../../tests/vectors/kernelhost-signing.json")).unwrap();
        assert!(vectors.len() >= 10);
        for vector in vectors {
            let Some(body) = &vector.body else { continue };
            let net = Net::always(json(200, "{}"));
            let now = Timestamp::from_second(vector.timestamp.parse().unwrap()).unwrap();
            let world = Fixed(&net, now, base16ct::mixed::decode_vec(&vector.nonce).unwrap());
            let at = crate::contract::Connection {
                provider: String::new(),
                base_url: "https://kh.example/any/prefix/v1/".to_owned(),
                key: KEY.to_owned(),
                secret: vector.secret.clone(),
                settings: Vec::new(),
            };
            let at = at.into();
            let api = Api::asking(&world, &at).unwrap();
            let method = ["GET", "POST", "PUT"].into_iter().find(|method| *method == vector.method).unwrap();
            let ask = Ask { method, body: body.as_bytes(), ..Ask::get(&vector.path) };
            run(api.exchange(&ask)).map_err(|problem| problem.message).unwrap();
            assert_eq!(net.header(0, "KH-Signature"), vector.signature);
            assert_eq!(net.header(0, "KH-Timestamp"), vector.timestamp);
            assert_eq!(net.header(0, "KH-Nonce"), vector.nonce);
            assert_eq!(net.sent.borrow()[0].0.target, format!("https://kh.example/any/prefix{}", vector.path));
        }
    }

    #[test]
    fn attempts_share_body_and_key_and_differ_in_nonce_time_and_signature() {
        let net = Net::new([lost(), json(500, "{}"), not_sent(), json(202, r#"{"status":"completed"}"#)]);
        assert_eq!(post(&net).unwrap()["status"], "completed");
        let distinct = |name: &str| (0..4).map(|i| net.header(i, name)).collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!((distinct("Idempotency-Key"), distinct("KH-Nonce"), distinct("KH-Signature")), (1, 4, 4));
        assert!(distinct("KH-Timestamp") > 1);
        let sent = net.sent.borrow();
        for (request, timeout) in sent.iter() {
            assert!(request.body == sent[0].0.body && request.body == br#"{"action":"stop"}"#);
            assert_eq!(*timeout, TRY_TIMEOUT);
            let header = |name| request.headers.once(name).unwrap();
            let (timestamp, nonce) = (header("KH-Timestamp"), header("KH-Nonce"));
            assert!(wire::is_nonce(nonce) && wire::is_timestamp(timestamp) && header("KH-Key") == KEY);
            let lines = sign::signing_string("POST", path(request), timestamp, nonce, &request.body);
            assert!(sign::verify(SECRET.as_bytes(), &lines, header("KH-Signature")));
        }
    }

    #[test]
    fn four_attempts_and_no_more_each_wait_with_its_own_bound() {
        for (answer, effect) in [
            (not_sent(), Effect::None),
            (lost(), Effect::Unknown),
            (json(500, "{}"), Effect::Unknown),
            (json(502, ""), Effect::Unknown),
            (json(503, ""), Effect::Unknown),
            (json(504, "<html>"), Effect::Unknown),
            (with(json(503, ""), "Retry-After", "1"), Effect::None),
            (with(json(429, ""), "Retry-After", "1"), Effect::None),
        ] {
            let net = Net::always(answer.clone());
            assert_eq!(post(&net).unwrap_err().effect, effect);
            assert_eq!((net.sent.borrow().len(), net.slept.borrow().len()), (4, 3));
            for (index, wait) in net.slept.borrow().iter().enumerate() {
                let told = answer.as_ref().is_ok_and(|response| response.headers.once("Retry-After").is_some());
                let (least, most) = if told { (1000, 1500) } else { (0, 500 << index) };
                assert!((least..=most).contains(&wait.as_millis()), "{wait:?}");
            }
            // Nothing is left behind by a question.
            assert_eq!(get(&Net::always(answer)).unwrap_err().effect, Effect::None);
        }
    }

    #[test]
    fn nothing_else_is_repeated() {
        let codes = [
            (400, "validation_failed"),
            (402, "payment_required"),
            (403, "forbidden_scope"),
            (404, "not_found"),
            (409, "idempotency_conflict"),
            (413, "x"),
            (501, "x"),
            (520, "x"),
            (301, "x"),
        ];
        let refusals = codes.into_iter().map(|(status, code)| refusal(status, code, "request_in_progress", ""));
        let unreadable = [
            json(200, "<html>"),
            json(200, r#"{"cut":"#),
            Err(crate::outside::SendError::Unreadable("big".to_owned())),
            Err(crate::outside::SendError::Refused("not allowed".to_owned())),
        ];
        let unauthorized = ["missing_headers", "bad_key", "signature_mismatch", "replay_detected", "timestamp_out_of_window"];
        let unauthorized = unauthorized.into_iter().map(|reason| refusal(401, "auth_failed", reason, ""));
        for answer in refusals.chain(unreadable).chain(unauthorized) {
            let net = Net::new([answer]);
            post(&net).unwrap_err();
            assert_eq!(net.sent.borrow().len(), 1);
        }
    }

    #[test]
    fn an_attempt_nobody_saw_the_end_of_stays_unknown_until_the_provider_judges() {
        for (last, effect) in [
            (refusal(401, "auth_failed", "signature_mismatch", ""), Effect::Unknown),
            (refusal(403, "forbidden_scope", "missing_scope", ""), Effect::Unknown),
            (refusal(413, "too_large", "", ""), Effect::Unknown),
            (refusal(400, "validation_failed", "", ""), Effect::None),
            (refusal(404, "not_found", "", ""), Effect::None),
            (json(404, "<html>"), Effect::Unknown),
        ] {
            assert_eq!(post(&Net::new([lost(), last.clone()])).unwrap_err().effect, effect);
            assert_eq!(post(&Net::new([not_sent(), last.clone()])).unwrap_err().effect, Effect::None);
            // What an earlier call did is as open.
            assert_eq!(post_again(&Net::new([last])).unwrap_err().effect, effect);
        }
        // Whoever used this key before was us.
        let used = refusal(409, "idempotency_conflict", "body_mismatch", "");
        assert_eq!(post(&Net::new([used])).unwrap_err().effect, Effect::Unknown);
    }

    #[test]
    fn the_deadline_ends_attempts_and_waits() {
        let net = Net::always(lost());
        assert_eq!(post_within(&net, 12_000).unwrap_err().effect, Effect::Unknown);
        let timeouts: Vec<_> = net.sent.borrow().iter().map(|(_, timeout)| *timeout).collect();
        assert_eq!(timeouts.len(), 2);
        assert!(timeouts[1] <= Duration::from_secs(2));

        let net = Net::always(with(json(429, ""), "Retry-After", "40"));
        let problem = post_within(&net, 30_000).unwrap_err();
        assert_eq!((problem.kind, problem.retry), (ProblemKind::RateLimited, Retry::AfterMs(40_000)));
        assert_eq!((net.sent.borrow().len(), net.slept.borrow().len()), (1, 0));

        let net = Net::new([]);
        let problem = post_within(&net, 0).unwrap_err();
        assert_eq!((problem.effect, problem.retry), (Effect::None, Retry::Now));

        // Questions have a deadline too: three attempts of ten seconds.
        let net = Net::always(lost());
        get(&net).unwrap_err();
        assert_eq!(net.sent.borrow().len(), 3);
    }

    #[test]
    fn a_clock_that_is_off_is_corrected_once_and_told() {
        let late = || with(refusal(401, "auth_failed", "timestamp_out_of_window", ""), "Date", DATE);
        let net = Net::new([late(), json(202, "{}"), json(202, "{}")]);
        let (at, call) = (at(), call());
        let api = Api::changing(&net, &at, &call).unwrap();
        for _ in 0..2 {
            run(api.post::<Value>("/v1/orders", "k", &1, None)).unwrap();
        }
        let stamp = |attempt| net.header(attempt, "KH-Timestamp").parse::<i64>().unwrap();
        assert_eq!((stamp(1) - stamp(0), stamp(2) - stamp(0)), (3600, 3600));
        assert!(net.slept.borrow().iter().all(Duration::is_zero));
        let mut properties = Vec::new();
        api.report(&mut properties);
        assert_eq!((properties[0].name.as_str(), properties[0].value.as_str()), ("clock-offset-s", "3600"));

        let net = Net::always(late());
        let problem = get(&net).unwrap_err();
        assert_eq!(net.sent.borrow().len(), 2);
        assert_eq!((problem.kind, problem.retry), (ProblemKind::Unauthorized, Retry::AfterFix));
        assert!(problem.message.contains("corrected by 3600 s"), "{}", problem.message);
    }

    #[test]
    fn a_clock_off_by_more_than_a_day_or_by_nobody_knows_what_is_not_corrected() {
        for date in ["Sat, 16 Jan 2027 08:00:01 GMT", "Thu, 14 Jan 2027 07:59:59 GMT", "yesterday", ""] {
            let net = Net::always(with(refusal(401, "auth_failed", "timestamp_out_of_window", ""), "Date", date));
            get(&net).unwrap_err();
            assert_eq!(net.sent.borrow().len(), 1, "{date}");
        }
        // Another refusal's date corrects nothing.
        let net = Net::always(with(refusal(401, "auth_failed", "signature_mismatch", ""), "Date", DATE));
        get(&net).unwrap_err();
        assert_eq!(net.sent.borrow().len(), 1);
    }

    #[test]
    fn a_base_url_is_an_address_with_or_without_the_version() {
        for (given, target) in [
            ("https://kh.example", "https://kh.example/v1/me"),
            ("https://kh.example/v1", "https://kh.example/v1/me"),
            ("https://kh.example/v1//", "https://kh.example/v1/me"),
            ("http://127.0.0.1:8080/cp/kh_reseller_api/v1", "http://127.0.0.1:8080/cp/kh_reseller_api/v1/me"),
            ("https://kh.example/av1", "https://kh.example/av1/v1/me"),
        ] {
            let (net, at) = (Net::always(json(200, "{}")), connection(given));
            run(Api::asking(&net, &at).unwrap().get::<Value>("/v1/me")).unwrap();
            assert_eq!(net.sent.borrow()[0].0.target, target);
        }
        for bad in [
            "",
            "kh.example",
            "ftp://kh.example",
            "https://",
            "https:///v1",
            "https://user:MARKED@kh.example",
            "https://kh.example?x=1",
            "https://kh.example/#x",
            "https://kh.example/a b",
            "https://kh.example/\r\nX: 1",
            "https://kh.example/ü",
        ] {
            let (net, at) = (Net::new([]), connection(bad));
            let problem = Api::asking(&net, &at).err().unwrap();
            assert_eq!(problem.field.as_deref(), Some("base-url"), "{bad}");
            assert!(!problem.message.contains("MARKED"));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_before_it_is() {
        let (net, at) = (Net::new([]), at());
        for key in ["", "a b", "ü", &"k".repeat(81), "a\r\nX-Other: 1"] {
            let call = Call { idempotency_key: key.to_owned(), ..call() };
            let problem = Api::changing(&net, &at, &call).err().unwrap();
            assert_eq!(problem.field.as_deref(), Some("idempotency-key"));
        }
        for (key, secret, field) in [("", SECRET, "key"), ("a\nb", SECRET, "key"), (KEY, "", "secret")] {
            let mut at = at.clone();
            (at.key, at.secret) = (key.to_owned(), secret.to_owned().into());
            assert_eq!(Api::asking(&net, &at).err().unwrap().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn an_unreadable_answer_is_told_without_its_contents() {
        for body in
            ["", "<html>MARKED</html>", r#"{"id":"MARKED""#, r#"["MARKED"]"#, r#"{"id":"MARKED","status":1}"#, "\u{0}", "nul"]
        {
            for (change, effect) in [(true, Effect::Unknown), (false, Effect::None)] {
                let (net, at, call) = (Net::always(json(200, body)), at(), call());
                let api = Api::changing(&net, &at, &call).unwrap();
                let read = if change {
                    run(api.post::<wire::Service>("/v1/orders", "k", &1, None))
                } else {
                    run(api.get::<wire::Service>("/v1/services/1"))
                };
                let problem = read.err().unwrap();
                assert_eq!((problem.kind, problem.effect), (ProblemKind::Protocol, effect), "{body}");
                crate::kernelhost::client::script::assert_discreet(&problem);
            }
        }
    }
}
