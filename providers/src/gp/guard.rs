//! The order of checks (our choice, 2.4): form, reseller by address, hash, lock, freshness, meter, single use, parameters, envelope.
//! What passes all of them is handed to the endpoint; every answer leaves one audit row.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base16ct::lower as hex;
use jiff::Timestamp;
use rand::Rng;
use secrecy::ExposeSecret;

use super::form::Form;
use super::hash;
use super::password::{self, Envelope};
use super::wire::{self, Answer, Asked, Endpoint, text};
use crate::books::{AccountId, Attempted, AuditRow, Books, Fault, HashUse, Keep};
use crate::limits;
use crate::message::{Request, Response};
use crate::server::{Admission, From, Key, Keys, Step, Visit};

/// No answer of an endpoint that takes a password comes sooner, so that opening, checking and hashing one cannot be told from
/// refusing it. More than Argon2id takes.
const PASSWORD_FLOOR: Duration = Duration::from_millis(150);
/// How long the identical request gets the stored answer, in seconds (our choice, 2.5).
const RESEND_S: i64 = 60;

/// Does what an admitted request asks for, inside the savepoint.
pub(super) type Act = fn(&Admitted, &mut dyn Books) -> Result<Answer, Stop>;

/// A request that passed every check, and all that its endpoint needs besides the books.
pub(super) struct Admitted {
    /// The reseller.
    pub(super) account: AccountId,
    /// What is asked for.
    pub(super) asked: Asked,
    /// Lower case.
    pub(super) domain: String,
    /// Argon2id, for the endpoints that take a password.
    pub(super) password_hash: String,
    /// For a new license.
    pub(super) token: String,
    /// The request's time.
    pub(super) now: Timestamp,
    /// Whether a second renew within ten minutes is free.
    pub(super) renew_dedupe: bool,
    /// So many days after its due date an unpaid package is suspended.
    pub(super) suspend_days: u32,
}

/// Why an endpoint changed nothing.
pub(super) enum Stop {
    /// The status text to answer.
    Refused(&'static str),
    /// The store's.
    Fault(Fault),
}

impl std::convert::From<&'static str> for Stop {
    fn from(text: &'static str) -> Self {
        Self::Refused(text)
    }
}

impl std::convert::From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The checks that need no transaction, and the work for those that do.
pub(super) fn admit(visit: Arc<Visit>, keys: &dyn Keys, act: Act) -> Result<Admission, Fault> {
    let endpoint = match route(&visit.request) {
        Route::Endpoint(endpoint) => endpoint,
        Route::Redirect(endpoint) => return Ok(Admission::Answered(redirect(endpoint, &visit.request_id))),
        Route::Nowhere(verdict) => return Ok(refuse(visit, Duration::ZERO, verdict)),
    };
    let floor = if endpoint.carries_password() { PASSWORD_FLOOR } else { Duration::ZERO };
    let form = read_form(&visit.request);
    let claim = match Claim::read(&form) {
        Ok(claim) => claim,
        Err(text) => return Ok(refuse(visit, floor, Verdict::refused(&text))),
    };
    Ok(match find_key(&claim, visit.peer, visit.moment.now, keys)? {
        Caller::Known(key) => {
            let case = Case::prepare(visit, key, endpoint, &form, claim, act);
            Admission::Work(Box::new(move |books| case.judge(books, floor)))
        }
        Caller::Unknown(candidates) => Admission::Work(Box::new(move |books| fail(&visit, &candidates, floor, books))),
    })
}

/// Whether the body matters.
pub(super) fn wants_body(head: &Request) -> bool {
    matches!(route(head), Route::Endpoint(_))
}

/// An answer as it leaves.
pub(super) fn respond(status: u16, json: &str, request_id: &str) -> Response {
    let mut response = Response::new(status, "application/json", json);
    response.headers.add("X-Request-Id", request_id);
    response
}

enum Route {
    Endpoint(Endpoint),
    Redirect(Endpoint),
    Nowhere(Verdict),
}

fn route(request: &Request) -> Route {
    if request.method != "POST" {
        return Route::Nowhere(Verdict::status(405, "Method not allowed. Use POST."));
    }
    let path = request.path();
    let path = path.strip_prefix('/').unwrap_or(path);
    let found = match path.strip_suffix('/') {
        Some(name) => Endpoint::find(name).map(Route::Endpoint),
        None => Endpoint::find(path).map(Route::Redirect),
    };
    found.unwrap_or_else(|| Route::Nowhere(Verdict::status(404, "Unknown endpoint")))
}

/// Relative, since a proxy may have cut a prefix off: `list/` seen from `/api/v1/list` is `/api/v1/list/`.
fn redirect(endpoint: Endpoint, request_id: &str) -> Response {
    let mut response = respond(308, &Answer::new("Use the address with the ending slash.").to_json(), request_id);
    response.headers.add("Location", format!("{}/", endpoint.name()));
    response
}

fn read_form(request: &Request) -> Form {
    let content_type = request.headers.once("content-type").unwrap_or_default();
    Form::read(content_type, &request.body).unwrap_or_default()
}

/// The common parameters, well-formed.
struct Claim {
    /// As it was sent and hashed.
    domain: String,
    /// Lower case, so that another spelling is no other hash.
    hash: String,
    timestamp: String,
}

impl Claim {
    fn read(form: &Form) -> Result<Self, String> {
        let names = ["domain", "hash", "timestamp"];
        if names.iter().all(|name| form.get(name).is_none()) {
            return Err(text::MISSING_DATA.to_owned());
        }
        let checks: [fn(&str) -> bool; 3] = [wire::is_domain, wire::is_hash, wire::is_timestamp];
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            values.push(form.get(name).ok_or_else(|| wire::missing(name))?);
        }
        for ((name, is_well_formed), value) in names.into_iter().zip(checks).zip(&values) {
            if !is_well_formed(value) {
                return Err(wire::missing(name));
            }
        }
        let [domain, hash, timestamp] = [values[0], values[1], values[2]];
        Ok(Self { domain: domain.to_owned(), hash: hash.to_ascii_lowercase(), timestamp: timestamp.to_owned() })
    }
}

enum Caller {
    Known(Arc<Key>),
    /// Whose hash it is not.
    Unknown(Vec<Arc<Key>>),
}

fn find_key(claim: &Claim, peer: IpAddr, now: Timestamp, keys: &dyn Keys) -> Result<Caller, Fault> {
    let mut candidates = Vec::new();
    for from in [From::Cache, From::Store] {
        candidates = keys.at_address(wire::PROVIDER, peer, from)?;
        candidates.retain(|key| key.is_valid(now));
        // Every key is tried, so that the time does not tell which one matched.
        let holds = |key: &&Arc<Key>| hash::verify(key.secret.expose_secret(), &claim.domain, &claim.timestamp, &claim.hash);
        let matched = candidates.iter().filter(holds).fold(None, |found, key| found.or(Some(key)));
        if let Some(key) = matched {
            return Ok(Caller::Known(Arc::clone(key)));
        }
    }
    Ok(Caller::Unknown(candidates))
}

/// What is answered, and what the audit log says of it.
#[derive(Clone)]
struct Verdict {
    status: u16,
    json: String,
    retry_after_s: Option<u64>,
    reason: Option<String>,
    event: &'static str,
}

impl Verdict {
    fn done(answer: &Answer) -> Self {
        Self { status: 200, json: answer.to_json(), retry_after_s: None, reason: None, event: "request" }
    }

    /// Refusals that the documents show go out as 200 (our choice, 2.2).
    fn refused(text: &str) -> Self {
        Self { reason: Some(text.to_owned()), ..Self::done(&Answer::new(text)) }
    }

    fn status(status: u16, text: &str) -> Self {
        Self { status, ..Self::refused(text) }
    }

    /// One text for every reason that a caller must not learn.
    fn connection_failed(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::refused(text::CONNECTION_FAILED) }
    }

    fn too_many(retry_after_s: u64) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::status(429, text::TOO_MANY) }
    }

    /// What is kept of it under the request's hash.
    fn stored(&self) -> String {
        format!("{} {}", self.status, self.json)
    }

    fn replayed(stored: &str) -> Self {
        let (status, json) = stored.split_once(' ').unwrap_or(("200", stored));
        let status = status.parse().unwrap_or(200);
        let retry_after_s = (status == 429).then_some(1);
        Self { status, json: json.to_owned(), retry_after_s, reason: None, event: "gp.resent" }
    }

    fn locking(self, locked: bool) -> Self {
        if locked { Self { event: "key.locked", ..self } } else { self }
    }

    /// Writes the audit row; without it there is no answer.
    fn deliver(self, visit: &Visit, key: Option<&Key>, floor: Duration, books: &mut dyn Books) -> Result<Step, Fault> {
        let mut response = respond(self.status, &self.json, &visit.request_id);
        if let Some(seconds) = self.retry_after_s {
            response.headers.add("Retry-After", seconds.max(1).to_string());
        }
        if self.status == 405 {
            response.headers.add("Allow", "POST");
        }
        books.audit(&AuditRow {
            account: key.map(|key| key.account),
            key_id: key.map(|key| key.public_id.clone()),
            reason: self.reason,
            // Without the query, which is no part of this protocol and may hold what was meant for the body.
            ..visit.audit_row(visit.request.path(), self.status, self.event)
        })?;
        Ok(Step::Answer { response, floor })
    }
}

/// A refusal that belongs to nobody.
fn refuse(visit: Arc<Visit>, floor: Duration, verdict: Verdict) -> Admission {
    Admission::Work(Box::new(move |books| verdict.clone().deliver(&visit, None, floor, books)))
}

/// A well-formed hash that is nobody's. It counts against every key of the address, since it names none.
fn fail(visit: &Visit, candidates: &[Arc<Key>], floor: Duration, books: &mut dyn Books) -> Result<Step, Fault> {
    let now = visit.moment.now;
    let mut locked = false;
    for key in candidates {
        // A lock does not grow by what it keeps out.
        if books.key_version(key.row)?.is_some() && !limits::is_locked(books, key.row, visit.peer, now)? {
            locked |= limits::count_failure(books, key, visit.peer, now, &visit.moment.rules.lock)?.is_some();
        }
    }
    let owner = if let [only] = candidates { Some(&**only) } else { None };
    let reason = if candidates.is_empty() { "unknown_address" } else { "wrong_hash" };
    Verdict::connection_failed(reason).locking(locked).deliver(visit, owner, floor, books)
}

/// A request whose hash holds, ready to be judged in a transaction.
struct Case {
    visit: Arc<Visit>,
    key: Arc<Key>,
    endpoint: Endpoint,
    claim: Claim,
    parameters_sha256: [u8; 32],
    is_fresh: bool,
    /// What is asked for, or the text that names the parameter at fault.
    asked: Result<Asked, String>,
    password: Option<Password>,
    token: String,
    act: Act,
}

/// What became of a password parameter.
struct Password {
    /// By what the envelope is known again, and its IV; `None` if it could not be taken apart.
    identity: Option<([u8; 32], [u8; 16])>,
    /// Of an acceptable password.
    hash: Option<String>,
}

impl Password {
    fn read(key: &Key, text: &str, salt: [u8; 16]) -> Self {
        let Ok(envelope) = Envelope::read(text) else { return Self { identity: None, hash: None } };
        let opened = envelope.accept(key.secret.expose_secret());
        Self {
            identity: Some((envelope.ciphertext_sha256(), envelope.iv())),
            hash: opened.ok().map(|password| password::digest(&password, salt)),
        }
    }
}

impl Case {
    fn prepare(visit: Arc<Visit>, key: Arc<Key>, endpoint: Endpoint, form: &Form, claim: Claim, act: Act) -> Self {
        let (mut salt, mut token, mut rng) = ([0; 16], [0; 20], visit.moment.rng());
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut token);
        let moment = &visit.moment;
        let is_fresh = !moment.rules.freshness || hash::is_fresh(&claim.timestamp, moment.now);
        let asked = Asked::read(endpoint, form);
        // Deriving a hash is slow: not for what is refused anyway.
        let is_wanted = is_fresh && asked.is_ok() && endpoint.carries_password();
        let password = form.get("password").filter(|_| is_wanted).map(|text| Password::read(&key, text, salt));
        let parameters_sha256 = form.sha256();
        Self { visit, key, endpoint, claim, parameters_sha256, is_fresh, asked, password, token: hex::encode_string(&token), act }
    }

    fn judge(&self, books: &mut dyn Books, floor: Duration) -> Result<Step, Fault> {
        if books.key_version(self.key.row)? != Some(self.key.version) {
            return Ok(Step::Stale);
        }
        self.decide(books)?.deliver(&self.visit, Some(&self.key), floor, books)
    }

    fn decide(&self, books: &mut dyn Books) -> Result<Verdict, Fault> {
        let now = self.visit.moment.now;
        if limits::is_locked(books, self.key.row, self.visit.peer, now)? {
            return Ok(Verdict::connection_failed("locked_key"));
        }
        if !self.is_fresh {
            return Ok(Verdict::connection_failed("stale_timestamp"));
        }
        let reading = limits::meter(books, &self.key, now)?;
        if let Some(used) = books.hash_use(self.key.row, &self.claim.hash)? {
            return Ok(self.used_before(&used));
        }
        let verdict = if reading.allowed { self.execute(books)? } else { Verdict::too_many(reading.retry_after_s) };
        // Spent even if nothing was executed: the hash would hold for every other endpoint too.
        let used = HashUse {
            endpoint: self.endpoint.name().to_owned(),
            parameters_sha256: self.parameters_sha256,
            peer: self.visit.peer,
            at: now,
            answer: verdict.stored(),
        };
        books.record_hash(self.key.row, &self.claim.hash, &used)?;
        Ok(verdict)
    }

    /// The identical request soon after is a transport's retry; anything else is a replay. Neither has an effect, and neither
    /// counts towards the lock, since honest shuffles collide.
    fn used_before(&self, used: &HashUse) -> Verdict {
        let age_s = self.visit.moment.now.as_second() - used.at.as_second();
        let is_identical = used.endpoint == self.endpoint.name()
            && used.parameters_sha256 == self.parameters_sha256
            && used.peer == self.visit.peer
            && age_s <= RESEND_S;
        if is_identical {
            return Verdict::replayed(&used.answer);
        }
        Verdict { event: "gp.hash_reuse", ..Verdict::connection_failed("hash_reuse") }
    }

    fn execute(&self, books: &mut dyn Books) -> Result<Verdict, Fault> {
        let now = self.visit.moment.now;
        let asked = match &self.asked {
            Ok(asked) => asked.clone(),
            Err(text) => return Ok(Verdict::refused(text)),
        };
        let mut password_hash = String::new();
        if let Some(password) = &self.password {
            let Some(hash) = self.take_envelope(password, books)? else {
                let lock = limits::count_failure(books, &self.key, self.visit.peer, now, &self.visit.moment.rules.lock)?;
                return Ok(Verdict::refused(text::INVALID_PASSWORD).locking(lock.is_some()));
            };
            password_hash = hash;
        }
        books.touch_key(self.key.row, now)?;
        let admitted = Admitted {
            account: self.key.account,
            asked,
            domain: self.claim.domain.to_ascii_lowercase(),
            password_hash,
            token: self.token.clone(),
            now,
            renew_dedupe: self.visit.moment.rules.renew_dedupe,
            suspend_days: self.visit.moment.rules.billing.suspend_days,
        };
        attempt(self.act, &admitted, books)
    }

    /// The hash of an acceptable password. A ciphertext is noted whether it opens or not and whatever the endpoint makes of it:
    /// an oracle needs one ciphertext under many IVs, no honest client ever sends that.
    fn take_envelope(&self, password: &Password, books: &mut dyn Books) -> Result<Option<String>, Fault> {
        let Some((ciphertext, iv)) = &password.identity else { return Ok(None) };
        match books.envelope_iv(self.key.row, ciphertext)? {
            Some(known) if known != *iv => return Ok(None),
            Some(_) => {}
            None => books.record_envelope(self.key.row, ciphertext, iv, self.visit.moment.now)?,
        }
        Ok(password.hash.clone())
    }
}

fn attempt(act: Act, admitted: &Admitted, books: &mut dyn Books) -> Result<Verdict, Fault> {
    let mut verdict = None;
    let attempted = books.attempt(&mut |books| match act(admitted, books) {
        Ok(answer) => {
            verdict = Some(Verdict::done(&answer));
            Ok(Keep::Keep)
        }
        Err(Stop::Refused(text)) => {
            verdict = Some(Verdict::refused(text));
            Ok(Keep::Undo)
        }
        Err(Stop::Fault(fault)) => Err(fault),
    })?;
    Ok(match (attempted, verdict) {
        (Attempted::Kept | Attempted::Undone, Some(verdict)) => verdict,
        _ => Verdict::status(500, text::ERROR),
    })
}
