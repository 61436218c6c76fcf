//! Requests and answers of the asking end: what is tried again, what an answer proves, and how an answer that was lost is made up
//! for by evidence (our choices 2.3 and 2.12).

use std::cell::RefCell;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use secrecy::{ExposeSecret, SecretString};

use super::form;
use super::hash::{self, php_trim};
use super::password;
use super::wire::{Answer, Endpoint, NO_DOMAIN, text};
use crate::contract::{Effect, Problem, ProblemKind, Retry, State};
use crate::message::{Headers, Request, Response};
use crate::money::Minor;
use crate::outside::{Outside, SendError};
use crate::provisioning::{Connection, invalid, problem};

/// How often one request is sent at most, within the call's deadline.
const TRIES: u32 = 4;
/// No single answer is waited for longer.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The first pause is below this, each further one below the double of the one before (full jitter).
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// What a caller is told to wait when the provider does not say.
const LATER: Duration = Duration::from_secs(5);
/// Longer waits that a provider asks for are not believed.
const MAX_RETRY_AFTER_S: u64 = 3600;
/// The worst second has 90 shuffles, and no operation sends half as many requests.
const MAX_REDRAWS: u32 = 100;
/// Of the provider's words, in a problem.
const MAX_SPOKEN: usize = 200;

/// One operation's dealings with the provider.
pub(super) struct Exchange<'a> {
    world: &'a dyn Outside,
    base: &'a str,
    api_key: SecretString,
    /// On the world's ticks.
    until: Duration,
    rng: RefCell<StdRng>,
    /// The shuffles sent so far. One sent twice could bring the answer that the server keeps for a resent request: old evidence.
    shuffles: RefCell<Vec<String>>,
    /// The order's password, kept out of problems like the API key.
    password: Option<&'a SecretString>,
}

/// The value of a parameter.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Plain(&'a str),
    /// Sealed anew for every try.
    Sealed(&'a SecretString),
}

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) domain: &'a str,
    /// Besides domain, hash and timestamp.
    pub(super) parameters: &'a [(&'a str, Value<'a>)],
}

/// How it is found out whether a change took place whose answer was lost.
#[derive(Clone, Copy)]
pub(super) enum Evidence {
    /// `list` shows the package.
    Live,
    /// `list` shows the package in this state.
    In(State),
    /// `list` does not show the package.
    Gone,
    /// The credit fell: by the price if that is known.
    Paid {
        /// The credit before the first try.
        before: Minor,
        /// For one term.
        price: Option<Minor>,
    },
    /// There is none, but the change may be repeated.
    Repeatable,
}

/// What the evidence says.
enum Finding {
    Done(Option<State>),
    NotDone,
    Repeatable,
    CannotTell,
}

/// A change that was made.
#[derive(Default)]
pub(super) struct Made {
    /// The state afterwards, where the evidence showed it.
    pub(super) state: Option<State>,
    /// The license token, where an answer brought it.
    pub(super) token: Option<String>,
}

/// One try that brought no status text.
struct Failure {
    problem: Problem,
    /// The pause before another try is worth while, if it ever is.
    again: Option<Duration>,
}

impl<'a> Exchange<'a> {
    /// Checks address and key; sends nothing.
    pub(super) fn open(
        world: &'a dyn Outside,
        at: &'a Connection,
        time: Duration,
        password: Option<&'a SecretString>,
    ) -> Result<Self, Problem> {
        let api_key = api_key(at)?;
        check_url(at, &at.base_url, "base-url")?;
        let mut seed = [0; 32];
        world.random(&mut seed);
        let until = world.ticks() + time;
        Ok(Self {
            world,
            base: &at.base_url,
            api_key,
            until,
            rng: RefCell::new(StdRng::from_seed(seed)),
            shuffles: RefCell::default(),
            password,
        })
    }

    /// Whether the connection is accepted.
    pub(super) async fn connection(&self) -> Result<(), Problem> {
        let answer = self.ask(Ask { endpoint: Endpoint::Connection, domain: NO_DOMAIN, parameters: &[] }).await?;
        if answer.is_ok() { Ok(()) } else { Err(self.refusal(&answer.status)) }
    }

    /// The credit.
    pub(super) async fn credit(&self) -> Result<Minor, Problem> {
        let answer = self.ask(Ask { endpoint: Endpoint::GetCredit, domain: NO_DOMAIN, parameters: &[] }).await?;
        if let Some((word, amount)) = answer.status.split_once(" - ")
            && word.trim().eq_ignore_ascii_case(text::OK)
        {
            return amount.trim().parse().map_err(|_| self.unreadable("the credit is not an amount", &answer.status));
        }
        if answer.is_ok() {
            return Err(self.unreadable("an answer without the credit", &answer.status));
        }
        Err(self.refusal(&answer.status))
    }

    /// How a package stands, and the provider's word for a state that the contract does not know.
    pub(super) async fn look(&self, domain: &str) -> Result<(State, Option<String>), Problem> {
        let answer = self.ask(Ask { endpoint: Endpoint::List, domain, parameters: &[] }).await?;
        let word = normal(&answer.status);
        let exists = answer.exist.as_deref().is_some_and(|exist| normal(exist) == text::EXISTS);
        match word.as_str() {
            "active" => Ok((State::Active, None)),
            "suspended" => Ok((State::Suspended, None)),
            "cancelled" => Ok((State::Terminated, None)),
            _ if exists => Ok((State::Unknown, Some(self.spoken(&answer.status)))),
            _ if word == normal(text::NOT_FOUND) => Ok((State::Missing, None)),
            text::OK => Err(self.unreadable("an answer without a state", &answer.status)),
            _ => Err(self.refusal(&answer.status)),
        }
    }

    /// Asks what changes nothing: repeated freely.
    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Problem> {
        let mut was_refused = false;
        let mut pauses = self.pauses();
        loop {
            match self.send(ask, self.left().min(MAX_WAIT)).await {
                Ok(answer) if answer.is_connection_failure() && !was_refused => was_refused = true,
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    let problem = Problem { effect: Effect::None, ..failure.problem };
                    let Some(pause) = pauses.next(failure.again) else { return Err(problem) };
                    self.world.sleep(pause).await;
                }
            }
        }
    }

    /// Makes a change at most once: from the moment an answer is lost, evidence decides before anything is sent again.
    /// `is_doubtful` says that an earlier call may have had an effect.
    pub(super) async fn change(&self, ask: Ask<'_>, evidence: Evidence, is_doubtful: bool) -> Result<Made, Problem> {
        let mut doubt = is_doubtful;
        let mut must_look = is_doubtful;
        let mut was_refused = false;
        let mut pauses = self.pauses();
        let last = loop {
            if must_look {
                match self.find(evidence, ask.domain).await.map_err(|problem| in_doubt(problem, ask.domain))? {
                    Finding::Done(state) => return Ok(Made { state, token: None }),
                    Finding::NotDone | Finding::Repeatable => must_look = false,
                    Finding::CannotTell => return Err(undecided(ask.domain)),
                }
            }
            // A quarter of the time is kept for looking.
            match self.send(ask, (self.left() * 3 / 4).min(MAX_WAIT)).await {
                Ok(answer) if answer.is_ok() => return Ok(Made { state: None, token: answer.token }),
                Ok(answer) if answer.is_connection_failure() && !was_refused => was_refused = true,
                Ok(answer) => break self.refusal(&answer.status),
                Err(failure) => {
                    let is_lost = failure.problem.effect != Effect::None;
                    doubt |= is_lost;
                    must_look |= is_lost;
                    let Some(pause) = pauses.next(failure.again) else { break failure.problem };
                    self.world.sleep(pause).await;
                }
            }
        };
        if doubt { self.settle(last, evidence, ask.domain).await } else { Err(last) }
    }

    /// The end of a change of which some answer was lost.
    async fn settle(&self, last: Problem, evidence: Evidence, domain: &str) -> Result<Made, Problem> {
        match self.find(evidence, domain).await {
            Ok(Finding::Done(state)) => Ok(Made { state, token: None }),
            Ok(Finding::NotDone) => Err(Problem { effect: Effect::None, ..last }),
            Ok(Finding::Repeatable) if is_about_the_change(last.kind) => Err(last),
            Ok(Finding::Repeatable | Finding::CannotTell) | Err(_) => Err(in_doubt(last, domain)),
        }
    }

    /// That nothing was done is believed when it is said twice: a shuffle that another call drew within the same minute would bring the
    /// answer that a server may keep for that one (our choice, 2.5), and whoever believed it would pay twice.
    async fn find(&self, evidence: Evidence, domain: &str) -> Result<Finding, Problem> {
        match self.find_once(evidence, domain).await? {
            Finding::NotDone => self.find_once(evidence, domain).await,
            found => Ok(found),
        }
    }

    async fn find_once(&self, evidence: Evidence, domain: &str) -> Result<Finding, Problem> {
        let is_done = |state: State| match evidence {
            Evidence::Live => !matches!(state, State::Missing | State::Terminated),
            Evidence::In(wanted) => state == wanted,
            _ => matches!(state, State::Missing | State::Terminated),
        };
        match evidence {
            Evidence::Live | Evidence::In(_) | Evidence::Gone => {
                let (state, _) = self.look(domain).await?;
                Ok(if is_done(state) { Finding::Done(Some(state)) } else { Finding::NotDone })
            }
            Evidence::Paid { before, price } => {
                let spent = before.0 - self.credit().await?.0;
                let is_the_price = price.map_or(spent > 0, |price| spent == price.0);
                Ok(match spent {
                    0 => Finding::NotDone,
                    _ if is_the_price => Finding::Done(None),
                    _ => Finding::CannotTell,
                })
            }
            Evidence::Repeatable => Ok(Finding::Repeatable),
        }
    }

    /// One request, signed with a fresh shuffle.
    async fn send(&self, ask: Ask<'_>, timeout: Duration) -> Result<Answer, Failure> {
        if timeout.is_zero() {
            return Err(Failure { problem: later(ProblemKind::Unreachable, "the call's time ran out", LATER), again: None });
        }
        let request = self.request(ask).map_err(|problem| Failure { problem, again: None })?;
        match self.world.send(request, timeout).await {
            Ok(response) => self.read(&response),
            Err(error) => Err(self.unanswered(&error)),
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request, Problem> {
        let api_key = self.api_key.expose_secret();
        let timestamp = self.fresh_timestamp();
        let hash = hash::hash(api_key, ask.domain, &timestamp);
        let mut parameters = vec![("domain", ask.domain.to_owned()), ("hash", hash), ("timestamp", timestamp)];
        for (name, value) in ask.parameters {
            let value = match value {
                Value::Plain(text) => (*text).to_owned(),
                Value::Sealed(secret) => {
                    let mut iv = [0; 16];
                    self.world.random(&mut iv);
                    password::seal(api_key, secret.expose_secret(), iv).map_err(|error| invalid("password", error.to_string()))?
                }
            };
            parameters.push((name, value));
        }
        let parameters: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Ok(Request {
            method: "POST".to_owned(),
            target: format!("{}/{}/", self.base, ask.endpoint.name()),
            headers: Headers::new().with("content-type", "application/x-www-form-urlencoded").with("accept", "application/json"),
            body: form::encode(&parameters).into_bytes(),
        })
    }

    fn fresh_timestamp(&self) -> String {
        let (mut rng, mut shuffles) = (self.rng.borrow_mut(), self.shuffles.borrow_mut());
        let mut timestamp = hash::shuffled_timestamp(self.world.now(), &mut *rng);
        for _ in 0..MAX_REDRAWS {
            if !shuffles.contains(&timestamp) {
                break;
            }
            timestamp = hash::shuffled_timestamp(self.world.now(), &mut *rng);
        }
        shuffles.push(timestamp.clone());
        timestamp
    }

    /// What an HTTP answer proves. The provider documents no statuses: a status text counts below 500, success only at 2xx.
    fn read(&self, response: &Response) -> Result<Answer, Failure> {
        let status = response.status;
        let retry_after = retry_after(response);
        let answer = Answer::from_json(&response.body);
        let said = answer.as_ref().map(|answer| format!(": {}", self.spoken(&answer.status))).unwrap_or_default();
        let message = format!("HTTP {status}{said}");
        let executed = |kind| Problem { effect: Effect::Unknown, ..later(kind, &message, LATER) };
        let (problem, again) = match status {
            200..=299 => match answer {
                Some(answer) => return Ok(answer),
                None => (executed(ProblemKind::Protocol), None),
            },
            429 => {
                let pause = retry_after.unwrap_or(LATER);
                (later(ProblemKind::RateLimited, &message, pause), Some(pause))
            }
            503 if retry_after.is_some() => {
                let pause = retry_after.unwrap_or(LATER);
                (later(ProblemKind::Unreachable, &message, pause), Some(pause))
            }
            500..=599 => (executed(ProblemKind::Protocol), Some(Duration::ZERO)),
            400..=499 => match answer {
                Some(answer) if !answer.claims_success() => return Ok(answer),
                Some(_) => (executed(ProblemKind::Protocol), None),
                None => (not_this_api(status, &message), None),
            },
            300..=399 => (not_this_api(status, &message), None),
            _ => (executed(ProblemKind::Protocol), None),
        };
        Err(Failure { problem, again })
    }

    fn unanswered(&self, error: &SendError) -> Failure {
        let message = self.spoken(&error.to_string());
        let (problem, again) = match error {
            SendError::Refused(_) => (Problem { retry: Retry::AfterFix, ..problem(ProblemKind::Unreachable, message) }, None),
            SendError::NotSent(_) => (later(ProblemKind::Unreachable, &message, LATER), Some(Duration::ZERO)),
            SendError::Lost(_) => {
                let problem = later(ProblemKind::Unreachable, &message, LATER);
                (Problem { effect: Effect::Unknown, ..problem }, Some(Duration::ZERO))
            }
            SendError::Unreadable(_) => {
                (Problem { effect: Effect::Unknown, ..later(ProblemKind::Protocol, &message, LATER) }, None)
            }
        };
        Failure { problem, again }
    }

    /// The provider's no, as a problem (our choice, 2.3 and the table below it).
    fn refusal(&self, status: &str) -> Problem {
        let (kind, retry, field) = meaning(&normal(status));
        let words = self.spoken(status);
        Problem {
            kind,
            retry,
            field: field.map(str::to_owned),
            provider_code: Some(words.clone()),
            ..problem(kind, format!("the provider answered: {words}"))
        }
    }

    fn unreadable(&self, what: &str, status: &str) -> Problem {
        problem(ProblemKind::Protocol, format!("{what}: {}", self.spoken(status)))
    }

    /// The provider's words, fit for a log: it could know both secrets, so they are cut out.
    fn spoken(&self, words: &str) -> String {
        let mut words: String = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        for secret in [Some(&self.api_key), self.password].into_iter().flatten() {
            words = words.replace(secret.expose_secret(), "***");
        }
        words.chars().take(MAX_SPOKEN).collect()
    }

    fn left(&self) -> Duration {
        self.until.saturating_sub(self.world.ticks())
    }

    fn pauses(&self) -> Pauses<'_, 'a> {
        Pauses { exchange: self, sent: 1, ceiling: FIRST_PAUSE }
    }
}

/// Decides whether there is another try, and after which pause.
struct Pauses<'e, 'a> {
    exchange: &'e Exchange<'a>,
    sent: u32,
    ceiling: Duration,
}

impl Pauses<'_, '_> {
    /// `at_least` is the pause the failure asks for, `None` if trying again is pointless.
    fn next(&mut self, at_least: Option<Duration>) -> Option<Duration> {
        let at_least = at_least?;
        if self.sent == TRIES {
            return None;
        }
        let jitter = self.exchange.rng.borrow_mut().random_range(Duration::ZERO..=self.ceiling);
        let pause = at_least + jitter;
        self.sent += 1;
        self.ceiling *= 2;
        (pause < self.exchange.left()).then_some(pause)
    }
}

impl Answer {
    /// A JSON object with a status text.
    fn from_json(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    pub(super) fn is_ok(&self) -> bool {
        normal(&self.status) == text::OK
    }

    /// Whether it says that something was done, at a status that says it was not.
    fn claims_success(&self) -> bool {
        let word = normal(&self.status);
        let is_success = word.starts_with(text::OK) || matches!(word.as_str(), "active" | "suspended" | "cancelled");
        is_success || self.exist.is_some() || self.token.is_some()
    }

    fn is_connection_failure(&self) -> bool {
        normal(&self.status) == normal(text::CONNECTION_FAILED)
    }
}

/// Texts compare without case and surrounding blanks.
fn normal(text: &str) -> String {
    text.trim().to_ascii_lowercase()
}

fn meaning(status: &str) -> (ProblemKind, Retry, Option<&'static str>) {
    let is = |text: &str| status == normal(text);
    let input = |field| (ProblemKind::Invalid, Retry::AfterFix, field);
    if let Some(name) = status.strip_prefix(&normal(text::MISSING_DATA)) {
        return input(match name.trim() {
            "domain" => Some("domain"),
            "package" => Some("plan"),
            "password" => Some("password"),
            "uemail" => Some("email"),
            _ => None,
        });
    }
    match status {
        _ if is(text::MISSING_PASSWORD) || is(text::INVALID_PASSWORD) => input(Some("password")),
        _ if is(text::INVALID_PACKAGE) => input(Some("plan")),
        _ if is(text::INVALID_EMAIL) => input(Some("email")),
        _ if is(text::CONNECTION_FAILED) => (ProblemKind::Unauthorized, Retry::AfterFix, None),
        _ if is(text::NOT_FOUND) || is(text::NO_ACTIVE_PACKAGE) => (ProblemKind::NotFound, Retry::Never, None),
        _ if is(text::IS_SUSPENDED) => (ProblemKind::WrongState, Retry::AfterFix, None),
        _ if is(text::INSUFFICIENT_CREDIT) || is(text::UNPAID) => (ProblemKind::PaymentRequired, Retry::AfterFix, None),
        _ if is(text::ALREADY_REGISTERED) => (ProblemKind::AlreadyExists, Retry::Never, None),
        _ => (ProblemKind::Refused, Retry::Never, None),
    }
}

/// A failure before anything was executed that may pass.
fn later(kind: ProblemKind, message: &str, pause: Duration) -> Problem {
    let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    Problem { retry: Retry::AfterMs(pause_ms), ..problem(kind, message) }
}

/// A redirect, a 404: something answers there, but not this API.
fn not_this_api(status: u16, message: &str) -> Problem {
    let kind = if matches!(status, 401 | 403) { ProblemKind::Unauthorized } else { ProblemKind::Protocol };
    Problem { retry: Retry::AfterFix, ..problem(kind, format!("{message}: is the base URL right?")) }
}

/// Whether a refused repetition shows that no earlier try was made either: the same change made before would have been answered
/// `ok`. `Downgrade not allowed.` does not show it, since the provider may mean the same package by it.
fn is_about_the_change(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::Invalid | ProblemKind::NotFound | ProblemKind::WrongState | ProblemKind::PaymentRequired)
}

fn in_doubt(problem: Problem, domain: &str) -> Problem {
    Problem { effect: Effect::Unknown, remote_id: Some(domain.to_owned()), ..problem }
}

pub(super) fn undecided(domain: &str) -> Problem {
    let message = "an answer was lost, and there is no evidence of whether the change was made";
    in_doubt(Problem { retry: Retry::AfterFix, ..problem(ProblemKind::Unreachable, message) }, domain)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers.once("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.clamp(1, MAX_RETRY_AFTER_S)))
}

/// The API key as both the hash and the envelope use it: PHP trims it for the hash alone, so a pasted line break would spoil
/// every envelope.
pub(super) fn api_key(at: &Connection) -> Result<SecretString, Problem> {
    let key = php_trim(at.secret.expose_secret());
    if key.is_empty() || key.contains('\0') {
        return Err(invalid("secret", "the API key is empty or has a NUL in it"));
    }
    Ok(SecretString::from(key))
}

/// The hash covers neither endpoint nor parameters, so TLS has to (our choice, 2.6). With `allow_private` the egress makes sure
/// that the address really is a private one.
pub(super) fn check_url(at: &Connection, url: &str, field: &str) -> Result<(), Problem> {
    let starts_with = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let is_plain_allowed = at.setting("allow_private") == Some("true");
    if !(starts_with("https://") || (is_plain_allowed && starts_with("http://"))) {
        return Err(invalid(field, "only https protects these requests; plain http needs allow_private and a private address"));
    }
    let is_clean = url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'#' | b'\\'));
    if is_clean && (field != "base-url" || !url.contains('?')) {
        return Ok(());
    }
    Err(invalid(field, "not a plain URL: user names, fragments and blanks have no place in it, nor a query in a base URL"))
}
