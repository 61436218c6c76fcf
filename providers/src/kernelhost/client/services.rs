//! Services: how they stand, and what is done to them.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroize;

use super::exchange::Api;
use super::{account, mapping};
use crate::contract::{
    Call, Effect, Login, Outcome, PowerAction, Problem, ProblemKind, Retry, Service, ServicePage, ServiceRef, State,
};
use crate::kernelhost::wire;
use crate::provisioning::{invalid, problem, unsupported};

/// When an order that has no service yet is worth another look, in milliseconds.
const ORDER_LATER_MS: u64 = 5_000;
/// When a renewal that the provider makes by itself is worth another look, in milliseconds.
const RENEWAL_LATER_MS: u64 = 3_600_000;

/// What a remote id names: the order until the service exists, the service from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Order(i64),
    Service(i64),
}

impl Target {
    /// The API finds services by id alone: without one, none is guessed.
    fn of(service: &ServiceRef) -> Result<Self, Problem> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|id| digits && *id > 0)
        };
        let target = service.remote_id.as_deref().and_then(|id| match id.split_once('/')? {
            ("order", id) => number(id).map(Self::Order),
            ("service", id) => number(id).map(Self::Service),
            _ => None,
        });
        target
            .ok_or_else(|| invalid("remote-id", "this provider needs a remote id of the form service/<number> or order/<number>"))
    }
}

/// A service as it is now. The one that was asked for and no other.
pub(super) async fn fetch(api: &Api<'_>, id: i64) -> Result<wire::Service, Problem> {
    let service: wire::Service = api.get(&format!("/v1/services/{id}")).await?;
    if service.id == id { Ok(service) } else { Err(mixed_up("service")) }
}

async fn fetch_order(api: &Api<'_>, id: i64) -> Result<wire::Order, Problem> {
    let order: wire::Order = api.get(&format!("/v1/orders/{id}")).await?;
    if order.id == id { Ok(order) } else { Err(mixed_up("order")) }
}

fn mixed_up(what: &str) -> Problem {
    problem(ProblemKind::Protocol, format!("the provider answered with another {what} than was asked for"))
}

/// How a service stands; an order leads to its service.
pub(super) async fn status(api: &Api<'_>, service: &ServiceRef) -> Result<Service, Problem> {
    let id = match Target::of(service)? {
        Target::Service(id) => id,
        Target::Order(id) => match fetch_order(api, id).await {
            Ok(wire::Order { service_id: Some(service), .. }) => service,
            Ok(order) => return Ok(mapping::order(&order)),
            Err(problem) => return missing(problem, format!("order/{id}")),
        },
    };
    match fetch(api, id).await {
        Ok(service) => Ok(mapping::service(&service)),
        Err(problem) => missing(problem, format!("service/{id}")),
    }
}

fn missing(problem: Problem, remote_id: String) -> Result<Service, Problem> {
    if problem.kind == ProblemKind::NotFound { Ok(mapping::bare(remote_id, State::Missing)) } else { Err(problem) }
}

/// One page of services.
pub(super) async fn list(api: &Api<'_>, cursor: Option<&str>) -> Result<ServicePage, Problem> {
    let (services, next) = account::page::<wire::Service>(api, "/v1/services", cursor).await?;
    Ok(ServicePage { services: services.iter().map(mapping::service).collect(), next })
}

/// What there is to act on.
enum Found {
    Service(i64),
    /// An order that has no service: not yet, or never.
    Order(wire::Order),
}

async fn find(api: &Api<'_>, target: Target) -> Result<Found, Problem> {
    let order = match target {
        Target::Service(id) => return Ok(Found::Service(id)),
        Target::Order(id) => fetch_order(api, id).await?,
    };
    Ok(order.service_id.map_or(Found::Order(order), Found::Service))
}

/// The id to act on. An order that has no service yet must be waited for; a cancelled one never gets one.
async fn resolve(api: &Api<'_>, target: Target) -> Result<i64, Problem> {
    match find(api, target).await? {
        Found::Service(id) => Ok(id),
        Found::Order(order) => Err(no_service(&order)),
    }
}

fn no_service(order: &wire::Order) -> Problem {
    let ordered = mapping::order(order);
    let wrong_state = |why: &str| problem(ProblemKind::WrongState, format!("order {} {why}", order.id));
    let refused = if ordered.state == State::Failed {
        wrong_state("was cancelled: it has no service")
    } else {
        Problem {
            retry: Retry::AfterMs(ORDER_LATER_MS),
            public_message: Some("The service is still being set up.".to_owned()),
            ..wrong_state("has no service yet")
        }
    };
    Problem { remote_id: Some(ordered.remote_id), ..refused }
}

/// What an action is to bring about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    State(State),
    /// `running` or `stopped`.
    Power(&'static str),
    /// A due date after this one.
    DueAfter(Timestamp),
    /// Nothing that shows on the service: the action's own status counts.
    Completion,
}

impl Goal {
    fn is_reached(self, service: &wire::Service, completed: bool) -> bool {
        match self {
            Self::State(state) => mapping::service(service).state == state,
            Self::Power(power) => service.power.as_deref().map_or(completed, |now| now.eq_ignore_ascii_case(power)),
            Self::DueAfter(due_at) => account::is_later(service.next_due_at.as_deref(), due_at),
            Self::Completion => completed,
        }
    }
}

/// Suspends, unsuspends or terminates.
pub(super) async fn bring_to(
    api: &Api<'_>,
    call: &Call,
    service: &ServiceRef,
    state: State,
    request: wire::ActionRequest,
) -> Result<Outcome, Problem> {
    let id = match find(api, Target::of(service)?).await? {
        Found::Service(id) => id,
        Found::Order(order) => return without_service(&order, state),
    };
    let refused = match act(api, call, id, &request, Goal::State(state)).await {
        Err(problem) if problem.effect == Effect::None => problem,
        other => return other,
    };
    // A provider may refuse what is already so.
    if matches!(refused.kind, ProblemKind::WrongState | ProblemKind::Invalid | ProblemKind::Refused)
        && let Ok(now) = fetch(api, id).await
        && Goal::State(state).is_reached(&now, false)
    {
        return Ok(Outcome::Done(mapping::service(&now)));
    }
    Err(refused)
}

/// Nothing was made of a cancelled order and nothing will be: that is what ending it asks for.
fn without_service(order: &wire::Order, state: State) -> Result<Outcome, Problem> {
    let ordered = mapping::order(order);
    if state == State::Terminated && ordered.state == State::Failed {
        return Ok(Outcome::Done(Service { state, ..ordered }));
    }
    Err(no_service(order))
}

/// Sends an action and judges by the service it leaves.
async fn act(api: &Api<'_>, call: &Call, id: i64, request: &wire::ActionRequest, goal: Goal) -> Result<Outcome, Problem> {
    let path = format!("/v1/services/{id}/actions");
    let taken: wire::Action = api.post(&path, &call.idempotency_key, request, request.password.as_deref()).await?;
    let completed = taken.status.as_deref().is_some_and(|status| status.eq_ignore_ascii_case("completed"));
    // Accepted: an answer that shows no service, or a failure to read it, is no failure of the action.
    let shown = match taken.service.filter(|service| service.id == id) {
        Some(service) => Some(service),
        None => fetch(api, id).await.ok(),
    };
    Ok(match shown {
        Some(service) if goal.is_reached(&service, completed) => Outcome::Done(mapping::service(&service)),
        Some(service) => Outcome::Pending(mapping::service(&service)),
        None => Outcome::Pending(mapping::bare(format!("service/{id}"), State::Unknown)),
    })
}

/// Switches a machine.
pub(super) async fn power(api: &Api<'_>, call: &Call, service: &ServiceRef, action: PowerAction) -> Result<Outcome, Problem> {
    let (word, goal) = match action {
        PowerAction::Start => ("start", Goal::Power("running")),
        PowerAction::Stop => ("stop", Goal::Power("stopped")),
        PowerAction::Reboot => ("reboot", Goal::Completion),
        PowerAction::Reinstall => ("reinstall", Goal::Completion),
    };
    let id = resolve(api, Target::of(service)?).await?;
    act(api, call, id, &action_request(word), goal).await
}

/// An action without parameters.
pub(super) fn action_request(action: &str) -> wire::ActionRequest {
    wire::ActionRequest { action: action.to_owned(), reason: None, image: None, due_at: None, password: None }
}

/// Renews (our choice, 2.19). The documented API renews by itself: there a renewal is confirmed from the due date; where the server
/// offers the extension, it is paid at once. Due dates are compared first, so that a repeat costs nothing.
pub(super) async fn renew(api: &Api<'_>, call: &Call, service: &ServiceRef, due_at: &str) -> Result<Outcome, Problem> {
    let renewed = mapping::time(due_at)
        .ok_or_else(|| invalid("due-at", "the due date being renewed is RFC 3339, such as 2027-01-15T08:00:00Z"))?;
    let id = resolve(api, Target::of(service)?).await?;
    let now = fetch(api, id).await?;
    if account::is_later(now.next_due_at.as_deref(), renewed) {
        return Ok(Outcome::Done(mapping::service(&now)));
    }
    if account::advertises(api, "renew").await? {
        let request = wire::ActionRequest { due_at: Some(renewed.to_string()), ..action_request("renew") };
        return act(api, call, id, &request, Goal::DueAfter(renewed)).await;
    }
    let until = now.next_due_at.as_deref().unwrap_or("an unknown date");
    let message = format!("the provider renews by itself and has not yet: due {until}, to be renewed {renewed}");
    Err(match account::owed(api, &now).await {
        Some(owed) => Problem {
            retry: Retry::AfterFix,
            remote_id: Some(format!("service/{id}")),
            ..problem(ProblemKind::PaymentRequired, format!("{message}; {owed}"))
        },
        None => Problem { retry: Retry::AfterMs(RENEWAL_LATER_MS), ..problem(ProblemKind::Refused, message) },
    })
}

/// Sets a password, where the server offers that (our choice, 2.19); never by reinstalling.
pub(super) async fn reset_password(
    api: &Api<'_>,
    call: &Call,
    service: &ServiceRef,
    password: Option<SecretString>,
) -> Result<Outcome, Problem> {
    let target = Target::of(service)?;
    if !account::advertises(api, "reset_password").await? {
        return Err(unsupported("reset-password"));
    }
    let id = resolve(api, target).await?;
    let mut request = action_request("reset_password");
    request.password = password.as_ref().map(|password| password.expose_secret().to_owned());
    let outcome = act(api, call, id, &request, Goal::Completion).await;
    request.password.zeroize();
    outcome
}

/// How to log in. The provider records each reading (spec 9).
pub(super) async fn credentials(api: &Api<'_>, service: &ServiceRef) -> Result<Login, Problem> {
    let id = resolve(api, Target::of(service)?).await?;
    let told: wire::Credentials = api.get(&format!("/v1/services/{id}/credentials")).await?;
    if told.service_id.is_some_and(|answered| answered != id) {
        return Err(mixed_up("service"));
    }
    Ok(Login {
        username: told.username,
        password: told.password,
        port: told.port,
        url: told.url,
        properties: mapping::properties([("note", told.note)]),
    })
}
