//! The ten endpoints (spec 3; our choices 2.8 to 2.11).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use secrecy::SecretString;

use super::guard::{self, Admitted, Stop, respond};
use super::terms::{self, Catalogue};
use super::wire::{Answer, Asked, Endpoint, text};
use crate::books::{Books, Entry, Fault, License, LicenseState};
use crate::message::{Request, Response};
use crate::money::Minor;
use crate::server::{Admission, Keys, Moment, TurnedAway, Visit};

/// How long a second renew of a package is answered without a charge (our choice, 2.12).
const RENEW_DEDUPE: SignedDuration = SignedDuration::from_mins(10);

/// The answering end of the GP API.
pub struct Server;

impl crate::server::Server for Server {
    fn mount(&self) -> &'static str {
        "/api/v1"
    }

    fn owns(&self, path: &str) -> bool {
        path.strip_prefix('/').is_some_and(|name| Endpoint::find(name).is_some())
    }

    fn wants_body(&self, head: &Request) -> bool {
        guard::wants_body(head)
    }

    fn admits_slowly(&self, request: &Request) -> bool {
        !request.body.is_empty()
    }

    fn admit(&self, visit: Arc<Visit>, keys: &dyn Keys) -> Result<Admission, Fault> {
        guard::admit(visit, keys, act)
    }

    fn turn_away(&self, why: TurnedAway, request_id: &str) -> Response {
        let (status, text, retry_after_s) = match why {
            TurnedAway::RateLimited { retry_after_s } => (429, text::TOO_MANY, Some(retry_after_s)),
            TurnedAway::BodyTooLarge => (413, "Request too large", None),
            TurnedAway::BodyTimeout => (408, "Request timeout", None),
            TurnedAway::Malformed => (400, "Bad request", None),
            TurnedAway::Busy => (503, "Busy. Please try again.", Some(1)),
            TurnedAway::Internal => (500, text::ERROR, None),
        };
        let mut response = respond(status, &Answer::new(text).to_json(), request_id);
        if let Some(seconds) = retry_after_s {
            response.headers.add("Retry-After", seconds.to_string());
        }
        response
    }

    fn new_key_id(&self, rng: &mut StdRng, _is_sandbox: bool) -> String {
        format!("gp_{}", Alphanumeric.sample_string(rng, 16))
    }

    /// The envelope's AES key is the first 16 characters: base62 makes them worth 95 bits (our choice, 2.7).
    fn new_secret(&self, rng: &mut StdRng) -> SecretString {
        Alphanumeric.sample_string(rng, 40).into()
    }

    fn finds_keys_by_address(&self) -> bool {
        true
    }

    fn tick(&self, moment: &Moment, books: &mut dyn Books) -> Result<Option<Timestamp>, Fault> {
        terms::tick(moment, books)
    }
}

fn act(request: &Admitted, books: &mut dyn Books) -> Result<Answer, Stop> {
    match &request.asked {
        Asked::Connection => Ok(ok()),
        Asked::Credit => credit(request, books),
        Asked::List => list(request, books),
        Asked::Register { package, email } => register(request, package, email, books),
        Asked::Suspend => set_state(request, LicenseState::Suspended, text::NOT_FOUND_CAPITAL, books),
        Asked::Unsuspend => set_state(request, LicenseState::Active, text::NOT_FOUND, books),
        Asked::Delete => set_state(request, LicenseState::Cancelled, text::NOT_FOUND, books),
        Asked::Update { state, package } => update(request, *state, package, books),
        Asked::Password => set_password(request, books),
        Asked::Renew => renew(request, books),
    }
}

fn ok() -> Answer {
    Answer::new(text::OK)
}

fn credit(request: &Admitted, books: &mut dyn Books) -> Result<Answer, Stop> {
    let balance = books.account(request.account).profile()?.balance;
    Ok(Answer::new(format!("OK - {balance}")))
}

fn list(request: &Admitted, books: &mut dyn Books) -> Result<Answer, Stop> {
    let license = license(request, text::NOT_FOUND_CAPITAL, books)?;
    Ok(Answer { exist: Some(text::EXISTS.to_owned()), ..Answer::new(license.state.as_str()) })
}

fn register(request: &Admitted, name: &str, email: &str, books: &mut dyn Books) -> Result<Answer, Stop> {
    let catalogue = Catalogue::read(request.account, books)?;
    let (package, price) = catalogue.find(name)?;
    if let Some(live) = books.account(request.account).license(&request.domain)? {
        // The same again, so that a retry is safe.
        if live.package.eq_ignore_ascii_case(&package.name) {
            return Ok(Answer { token: Some(live.token), ..ok() });
        }
        return Err(text::ALREADY_REGISTERED.into());
    }
    if books.licensee(&request.domain)?.is_some() {
        return Err(text::ALREADY_REGISTERED.into());
    }
    charge(request, &catalogue, price, "gp.autoregister", books)?;
    let due_at = terms::months_from(request.now, 1)?;
    books.account(request.account).add_license(&License {
        id: 0,
        domain: request.domain.clone(),
        package: package.name.clone(),
        token: request.token.clone(),
        state: LicenseState::Active,
        email: email.to_owned(),
        password_hash: request.password_hash.clone(),
        due_at,
        created_at: request.now,
        renewed_at: None,
        look_at: Some(due_at),
        unpaid_since: None,
    })?;
    Ok(Answer { token: Some(request.token.clone()), ..ok() })
}

fn set_state(request: &Admitted, state: LicenseState, absent: &'static str, books: &mut dyn Books) -> Result<Answer, Stop> {
    let license = license(request, absent, books)?;
    if license.state == state {
        return Ok(ok());
    }
    let is_unpaid = |catalogue: Catalogue| catalogue.is_unpaid(&license, request.now, request.suspend_days);
    if state == LicenseState::Active && is_unpaid(Catalogue::read(request.account, books)?) {
        return Err(text::UNPAID.into());
    }
    books.account(request.account).set_license(&in_state(state, license))?;
    Ok(ok())
}

fn update(request: &Admitted, state: LicenseState, name: &str, books: &mut dyn Books) -> Result<Answer, Stop> {
    let license = license(request, text::NOT_FOUND, books)?;
    let catalogue = Catalogue::read(request.account, books)?;
    let (package, price) = catalogue.find(name)?;
    if license.state == LicenseState::Suspended {
        return Err(text::IS_SUSPENDED.into());
    }
    let (current, current_price) = catalogue.find(&license.package)?;
    if package.rank < current.rank {
        return Err(text::DOWNGRADE.into());
    }
    // A package that ends now has no rest to pay for.
    if state != LicenseState::Cancelled {
        let difference = Minor((price.0 - current_price.0).max(0));
        let rest = terms::pro_rata(difference, request.now, license.due_at)?;
        charge(request, &catalogue, rest, "gp.packageupdate", books)?;
    }
    let package = package.name.clone();
    books.account(request.account).set_license(&in_state(state, License { package, ..license }))?;
    Ok(ok())
}

fn set_password(request: &Admitted, books: &mut dyn Books) -> Result<Answer, Stop> {
    let license = license(request, text::NO_ACTIVE_PACKAGE, books)?;
    if license.state != LicenseState::Active {
        return Err(text::NO_ACTIVE_PACKAGE.into());
    }
    books.account(request.account).set_license(&License { password_hash: request.password_hash.clone(), ..license })?;
    Ok(ok())
}

fn renew(request: &Admitted, books: &mut dyn Books) -> Result<Answer, Stop> {
    let license = license(request, text::NOT_FOUND, books)?;
    let is_recent = |renewed: Timestamp| request.now.duration_since(renewed) < RENEW_DEDUPE;
    if request.renew_dedupe && license.renewed_at.is_some_and(is_recent) {
        return Ok(ok());
    }
    let catalogue = Catalogue::read(request.account, books)?;
    let (_, price) = catalogue.find(&license.package)?;
    charge(request, &catalogue, price, "gp.renew", books)?;
    let due_at = terms::next_due(license.due_at, request.now)?;
    // Takes back a suspension for want of payment, but not the reseller's own.
    let state = if license.unpaid_since.is_some() { LicenseState::Active } else { license.state };
    let renewed_at = Some(request.now);
    books.account(request.account).set_license(&in_state(state, License { due_at, renewed_at, ..license }))?;
    Ok(ok())
}

/// The license in a state that the reseller chose or paid for.
fn in_state(state: LicenseState, license: License) -> License {
    License { state, look_at: terms::look_at(state, license.due_at), unpaid_since: None, ..license }
}

/// The live license of the request's domain.
fn license(request: &Admitted, absent: &'static str, books: &mut dyn Books) -> Result<License, Stop> {
    books.account(request.account).license(&request.domain)?.ok_or(Stop::Refused(absent))
}

/// Takes what something costs; from a reseller to whom nothing is sold any more not even nothing.
fn charge(request: &Admitted, from: &Catalogue, amount: Minor, kind: &str, books: &mut dyn Books) -> Result<(), Stop> {
    if from.is_closed() {
        return Err(text::CLOSED.into());
    }
    let entry = Entry { at: request.now, kind, reference: &request.domain };
    let is_paid = amount == Minor::ZERO || books.account(request.account).charge(amount, &entry)?;
    if is_paid { Ok(()) } else { Err(text::INSUFFICIENT_CREDIT.into()) }
}
