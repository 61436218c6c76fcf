//! The asking end.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::exchange::{Ask, Evidence, Exchange, Made, Value, api_key, check_url, undecided};
use super::password;
use super::wire::{self, Endpoint};
use crate::contract::{
    Account, Call, Capability, Effect, Field, FieldKind, FormPost, Money, Order, Outcome, Plan, Price, Problem, ProblemKind,
    Property, ProviderInfo, Service, ServiceRef, Setting, State,
};
use crate::money::Minor;
use crate::outside::Outside;
use crate::provisioning::{Connection, Provisioning, invalid, problem, unsupported};

/// How long an operation that only asks may take, all tries together.
const ASKING_TIME: Duration = Duration::from_secs(30);
/// A shorter API key leaves AES with known bytes.
const STRONG_KEY_BYTES: usize = 16;
/// Whom `sign-on` logs in where (our choice, 2.13). The last one is the customer.
const TARGETS: [&str; 3] = ["admin-dashboard", "gp-account", CUSTOMER_TARGET];
const CUSTOMER_TARGET: &str = "client-dashboard";
/// The one billing term (our choice, 2.8).
const MONTHLY: &str = "monthly";

/// The client of the GP API.
pub struct Client;

#[async_trait(?Send)]
impl Provisioning for Client {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            id: wire::PROVIDER.to_owned(),
            name: "GP website firewall".to_owned(),
            capabilities: capabilities(),
            settings: settings(),
            order_fields: vec![
                field("domain", "Domain", FieldKind::Text, true, "The web site to protect."),
                field("email", "E-mail address", FieldKind::Text, true, "Where notifications go."),
                field("password", "Dashboard password", FieldKind::Secret, true, "Weak ones may be refused."),
            ],
            hosts: Vec::new(),
            properties: vec![
                property("idempotency", "none"),
                property("default-base-url", "https://www.geniusplugin.com/api/v1"),
                property("credentials", "secret"),
            ],
        }
    }

    async fn check(&self, world: &dyn Outside, at: &Connection) -> Result<Account, Problem> {
        Exchange::open(world, at, ASKING_TIME, None)?.connection().await?;
        let is_short = api_key(at)?.expose_secret().len() < STRONG_KEY_BYTES;
        let warning = || property("warning", "the API key is shorter than 16 bytes, which weakens the password encryption");
        Ok(Account { id: None, name: None, scopes: Vec::new(), properties: is_short.then(warning).into_iter().collect() })
    }

    async fn balance(&self, world: &dyn Outside, at: &Connection) -> Result<Money, Problem> {
        let credit = Exchange::open(world, at, ASKING_TIME, None)?.credit().await?;
        Ok(money(at, credit))
    }

    /// The fixed list; prices come from the profile, since the provider publishes none.
    async fn catalog(&self, _world: &dyn Outside, at: &Connection) -> Result<Vec<Plan>, Problem> {
        wire::PACKAGES.into_iter().map(|name| plan(at, name)).collect()
    }

    async fn status(&self, world: &dyn Outside, at: &Connection, service: ServiceRef) -> Result<Service, Problem> {
        let domain = domain_of(&service)?;
        let (found, spelling) = Exchange::open(world, at, ASKING_TIME, None)?.look(&domain).await?;
        let properties = spelling.into_iter().map(|text| property("provider-state", &text)).collect();
        Ok(Service { properties, ..service_in(found, domain) })
    }

    async fn create(&self, world: &dyn Outside, at: &Connection, call: Call, order: Order) -> Result<Outcome, Problem> {
        let NewPackage { domain, package, email, password } = NewPackage::read(order)?;
        let exchange = Exchange::open(world, at, time(&call), Some(&password))?;
        // What was there before the first try is not ours; what is there later may be what an earlier try made.
        let is_taken = match note(&call, "status-before") {
            Some(state) => !matches!(state, "missing" | "terminated"),
            None => call.attempt <= 1 && !matches!(exchange.look(&domain).await?.0, State::Missing | State::Terminated),
        };
        if is_taken {
            let message = format!("the provider already has a live package for {domain}");
            return Err(Problem { field: Some("domain".to_owned()), ..problem(ProblemKind::AlreadyExists, message) });
        }
        let parameters =
            [("package", Value::Plain(&package)), ("password", Value::Sealed(&password)), ("uemail", Value::Plain(&email))];
        let ask = Ask { endpoint: Endpoint::AutoRegister, domain: &domain, parameters: &parameters };
        let Made { state, token } = exchange.change(ask, Evidence::Live, call.attempt > 1).await?;
        let properties = token.into_iter().map(|token| property("token", &token)).collect();
        let service = service_in(state.unwrap_or(State::Active), domain);
        Ok(Outcome::Done(Service { plan: Some(package), properties, ..service }))
    }

    async fn suspend(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        _reason: Option<String>,
    ) -> Result<Outcome, Problem> {
        set_state(world, at, &call, &service, Endpoint::Suspended, State::Suspended).await
    }

    async fn unsuspend(&self, world: &dyn Outside, at: &Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        set_state(world, at, &call, &service, Endpoint::Active, State::Active).await
    }

    async fn terminate(&self, world: &dyn Outside, at: &Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        set_state(world, at, &call, &service, Endpoint::Delete, State::Terminated).await
    }

    /// The provider shows no due dates and knows no idempotency: the credit is the only evidence (our choice, 2.12).
    async fn renew(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        _due_at: String,
    ) -> Result<Outcome, Problem> {
        let domain = domain_of(&service)?;
        let is_doubtful = call.attempt > 1;
        // A setting that is wrong by now says nothing of what an earlier call did.
        let doubtful = |told: Problem| if is_doubtful { Problem { effect: Effect::Unknown, ..told } } else { told };
        let price = amount_setting(at, "renew_price").map_err(doubtful)?;
        let exchange = Exchange::open(world, at, time(&call), None)?;
        let evidence = match balance_before(&call)? {
            Some(before) => Evidence::Paid { before, price },
            None if !is_doubtful => Evidence::Paid { before: exchange.credit().await?, price },
            None => return Err(undecided(&domain)),
        };
        let ask = Ask { endpoint: Endpoint::Renew, domain: &domain, parameters: &[] };
        exchange.change(ask, evidence, is_doubtful).await?;
        Ok(Outcome::Done(look_again(&exchange, domain).await))
    }

    async fn reset_password(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        password: Option<SecretString>,
    ) -> Result<Outcome, Problem> {
        let domain = domain_of(&service)?;
        let password = sendable(password)?;
        let exchange = Exchange::open(world, at, time(&call), Some(&password))?;
        let parameters = [("password", Value::Sealed(&password))];
        let ask = Ask { endpoint: Endpoint::PasswordReset, domain: &domain, parameters: &parameters };
        exchange.change(ask, Evidence::Repeatable, call.attempt > 1).await?;
        Ok(Outcome::Done(look_again(&exchange, domain).await))
    }

    /// The request carries the state to be in afterwards, so the present one is asked first.
    async fn change_package(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        plan: String,
        _options: Vec<Setting>,
    ) -> Result<Outcome, Problem> {
        let domain = domain_of(&service)?;
        let package = package_name(&plan)?;
        let exchange = Exchange::open(world, at, time(&call), None)?;
        let (state, _) = exchange.look(&domain).await?;
        let status = match state {
            State::Active => "active",
            State::Suspended => "suspended",
            State::Missing | State::Terminated => {
                return Err(problem(ProblemKind::NotFound, format!("the provider has no package for {domain}")));
            }
            _ => return Err(problem(ProblemKind::WrongState, format!("the package of {domain} is in a state unknown here"))),
        };
        let parameters = [("status", Value::Plain(status)), ("package", Value::Plain(&package))];
        let ask = Ask { endpoint: Endpoint::PackageUpdate, domain: &domain, parameters: &parameters };
        // The same package again is no upgrade and costs nothing.
        exchange.change(ask, Evidence::Repeatable, call.attempt > 1).await?;
        Ok(Outcome::Done(Service { plan: Some(package), ..service_in(state, domain) }))
    }

    /// A form for a login page that the profile names; nothing of it is the provider's protocol.
    async fn sign_on(
        &self,
        _world: &dyn Outside,
        at: &Connection,
        service: ServiceRef,
        target: String,
    ) -> Result<FormPost, Problem> {
        if !TARGETS.contains(&target.as_str()) {
            return Err(invalid("target", "no such login"));
        }
        let setting = |name: &str| at.setting(name).filter(|value| !value.is_empty());
        let url_setting = format!("login_url_{}", target.replace('-', "_"));
        let url = setting(&url_setting).or_else(|| setting("login_url")).ok_or_else(|| unsupported("sign-on"))?;
        check_url(at, url, "login_url")?;
        let user_field = setting("login_user_field").unwrap_or("username");
        let mut fields = Vec::new();
        if target == CUSTOMER_TARGET {
            let user = service.username.clone().filter(|user| !user.is_empty()).map_or_else(|| domain_of(&service), Ok)?;
            fields.push(property(user_field, &user));
        } else {
            let (Some(user), Some(password)) = (setting("login_user"), setting("login_password")) else {
                return Err(unsupported("sign-on"));
            };
            fields.push(property(user_field, user));
            fields.push(property(setting("login_password_field").unwrap_or("password"), password));
        }
        if let Some(domain_field) = setting("login_domain_field") {
            fields.push(property(domain_field, &domain_of(&service)?));
        }
        Ok(FormPost { url: url.to_owned(), fields })
    }
}

async fn set_state(
    world: &dyn Outside,
    at: &Connection,
    call: &Call,
    service: &ServiceRef,
    endpoint: Endpoint,
    wanted: State,
) -> Result<Outcome, Problem> {
    let domain = domain_of(service)?;
    let exchange = Exchange::open(world, at, time(call), None)?;
    let evidence = if wanted == State::Terminated { Evidence::Gone } else { Evidence::In(wanted) };
    exchange.change(Ask { endpoint, domain: &domain, parameters: &[] }, evidence, call.attempt > 1).await?;
    Ok(Outcome::Done(service_in(wanted, domain)))
}

/// The service after a change that says nothing of its state. The change is made, so a failure to look is none of it.
async fn look_again(exchange: &Exchange<'_>, domain: String) -> Service {
    let state = exchange.look(&domain).await.map_or(State::Unknown, |(state, _)| state);
    service_in(state, domain)
}

/// What `create` needs of an order.
struct NewPackage {
    domain: String,
    package: String,
    email: String,
    password: SecretString,
}

impl NewPackage {
    fn read(order: Order) -> Result<Self, Problem> {
        let password = sendable(order.password.map(SecretString::from))?;
        let domain = normal_domain(order.domain.as_deref().unwrap_or_default())?;
        let package = package_name(&order.plan)?;
        let email = order.email.unwrap_or_default();
        if email.is_empty() {
            return Err(invalid("email", "an e-mail address for notifications is required"));
        }
        if order.term.is_some_and(|term| term != MONTHLY) {
            return Err(invalid("term", "packages are sold by the month"));
        }
        Ok(Self { domain, package, email, password })
    }
}

/// A password that can be sent; the provider makes none up.
fn sendable(password: Option<SecretString>) -> Result<SecretString, Problem> {
    let password = password.ok_or_else(|| invalid("password", "a password is required"))?;
    password::check(password.expose_secret()).map_err(|error| invalid("password", error.to_string()))?;
    Ok(password)
}

/// The remote id of a package is its domain.
fn domain_of(service: &ServiceRef) -> Result<String, Problem> {
    let given = [&service.remote_id, &service.domain].into_iter().flatten().find(|text| !text.is_empty());
    normal_domain(given.map(String::as_str).unwrap_or_default())
}

fn normal_domain(text: &str) -> Result<String, Problem> {
    if wire::is_domain(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(invalid("domain", "a domain such as example.com is required; one with other letters in its xn-- form"))
}

/// The catalogue's spelling of a package; the provider's list is open ("..etc"), so it decides about others.
fn package_name(plan: &str) -> Result<String, Problem> {
    if let Some(known) = wire::PACKAGES.into_iter().find(|name| name.eq_ignore_ascii_case(plan)) {
        return Ok(known.to_owned());
    }
    let is_plain =
        (1..=32).contains(&plan.len()) && plan.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if is_plain { Ok(plan.to_owned()) } else { Err(invalid("plan", "not the name of a package")) }
}

fn time(call: &Call) -> Duration {
    Duration::from_millis(call.deadline_ms.into())
}

fn note<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.notes.iter().find(|note| note.name == name).map(|note| note.value.as_str())
}

fn balance_before(call: &Call) -> Result<Option<Minor>, Problem> {
    let amount = note(call, "balance-before").map(|amount| amount.parse().map(Minor)).transpose();
    amount.map_err(|_| problem(ProblemKind::Internal, "the note `balance-before` is not a number of minor units"))
}

fn amount_setting(at: &Connection, name: &str) -> Result<Option<Minor>, Problem> {
    let value = at.setting(name).filter(|value| !value.is_empty());
    value.map(|value| value.parse().map_err(|_| invalid(name, "expected an amount such as 4.90"))).transpose()
}

fn money(at: &Connection, amount: Minor) -> Money {
    Money { minor: amount.0, currency: at.setting("currency").filter(|code| !code.is_empty()).map(str::to_owned) }
}

fn plan(at: &Connection, name: &str) -> Result<Plan, Problem> {
    let price = if name == wire::FREE { Some(Minor::ZERO) } else { amount_setting(at, &price_setting(name))? };
    let price = price.map(|price| Price { term: MONTHLY.to_owned(), amount: money(at, price), setup_fee: None });
    Ok(Plan {
        id: name.to_owned(),
        name: name.to_owned(),
        family: Some("firewall".to_owned()),
        description: None,
        prices: price.into_iter().collect(),
        options: Vec::new(),
        available: None,
    })
}

fn price_setting(package: &str) -> String {
    format!("price_{}", package.to_ascii_lowercase())
}

fn service_in(state: State, domain: String) -> Service {
    Service {
        remote_id: domain.clone(),
        state,
        plan: None,
        domain: Some(domain),
        addresses: Vec::new(),
        due_at: None,
        properties: Vec::new(),
    }
}

fn capabilities() -> Vec<Capability> {
    let operation =
        |name: &str, charges| Capability { operation: name.to_owned(), charges, evidence: Vec::new(), properties: Vec::new() };
    let mut all: Vec<Capability> =
        ["check", "balance", "catalog", "status", "suspend", "unsuspend", "terminate", "reset-password"]
            .into_iter()
            .map(|name| operation(name, false))
            .collect();
    all.push(Capability { evidence: vec!["status".to_owned()], ..operation("create", true) });
    all.push(operation("change-package", true));
    all.push(Capability { evidence: vec!["balance".to_owned()], ..operation("renew", true) });
    let mut sign_on = operation("sign-on", false);
    sign_on.properties.push(property("needs-setting", "login_url"));
    sign_on.properties.extend(TARGETS.map(|target| property("target", target)));
    all.push(sign_on);
    all
}

fn settings() -> Vec<Field> {
    let text = |name: &str, label: &str, help: &str| field(name, label, FieldKind::Text, false, help);
    let mut all: Vec<Field> = wire::PACKAGES
        .into_iter()
        .filter(|name| *name != wire::FREE)
        .map(|name| text(&price_setting(name), &format!("Price of {name}"), "What the provider takes per month, such as 4.90."))
        .collect();
    all.push(text("renew_price", "Price of a renewal", "If all packages cost the same: proves a renewal whose answer was lost."));
    all.push(text("currency", "Currency", "Of credit and prices, such as EUR; the provider does not say."));
    all.push(text("login_url", "Login page", "Where sign-on posts its form, https."));
    for target in TARGETS {
        let name = format!("login_url_{}", target.replace('-', "_"));
        all.push(text(&name, &format!("Login page ({target})"), "Instead of the one for all targets."));
    }
    all.push(text("login_user_field", "User field", "The form field's name; `username` unless given."));
    all.push(text("login_password_field", "Password field", "The form field's name; `password` unless given."));
    all.push(text(
        "login_domain_field",
        "Domain field",
        "The name of a form field for the service's domain, if the page takes one.",
    ));
    all.push(text("login_user", "User", "For admin-dashboard and gp-account; client-dashboard sends the customer's user name."));
    all.push(field("login_password", "Password", FieldKind::Secret, false, "For admin-dashboard and gp-account."));
    all
}

fn field(name: &str, label: &str, kind: FieldKind, required: bool, help: &str) -> Field {
    Field {
        name: name.to_owned(),
        label: label.to_owned(),
        kind,
        required,
        default: None,
        choices: Vec::new(),
        slot: None,
        help: Some(help.to_owned()),
    }
}

fn property(name: &str, value: &str) -> Property {
    Property { name: name.to_owned(), value: value.to_owned() }
}

#[cfg(test)]
mod tests;
