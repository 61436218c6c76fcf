//! Services: how they stand, and what is done to them.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroize;

use super::exchange::Api;
use super::{account, failure, mapping};
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
    let refused = if ordered.state == State::Terminated {
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
    if state == State::Terminated && ordered.state == state {
        return Ok(Outcome::Done(ordered));
    }
    Err(no_service(order))
}

/// Sends an action and judges by the service it leaves.
async fn act(api: &Api<'_>, call: &Call, id: i64, request: &wire::ActionRequest, goal: Goal) -> Result<Outcome, Problem> {
    let path = format!("/v1/services/{id}/actions");
    let taken: wire::Action = api.post(&path, &call.idempotency_key, request, request.password.as_deref()).await?;
    if taken.service_id != id {
        // Whether the one that was meant was acted on too, nobody knows.
        return Err(Problem { effect: Effect::Unknown, retry: Retry::AfterMs(failure::LATER_MS), ..mixed_up("service") });
    }
    let completed = taken.status == wire::ActionStatus::Completed;
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

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::super::script::{Net, at, call, json, lost, named, order, refusal, run, service};
    use super::*;
    use crate::kernelhost::client::Client;
    use crate::provisioning::Provisioning;

    const DUE: &str = "2027-02-15T08:00:00Z";

    fn action(status: &str, service: &str) -> String {
        format!(r#"{{"id":1,"service_id":5,"action":"x","status":"{status}","service":{service}}}"#)
    }

    fn remote_id_and_state(outcome: &Outcome) -> (bool, &str, State) {
        match outcome {
            Outcome::Done(service) => (true, &service.remote_id, service.state),
            Outcome::Pending(service) => (false, &service.remote_id, service.state),
        }
    }

    #[test]
    fn the_api_finds_services_by_id_alone() {
        for bad in [
            "",
            "5",
            "service/",
            "service/0",
            "service/-5",
            "service/+5",
            "service/5/actions",
            "service/5?x",
            "order/99999999999999999999",
            "vm/5",
            "service/٥",
        ] {
            let problem = run(Client.status(&Net::new([]), &at(), named(bad))).unwrap_err();
            assert_eq!((problem.kind, problem.field.as_deref()), (ProblemKind::Invalid, Some("remote-id")), "{bad}");
        }
        let nameless = ServiceRef { remote_id: None, ..named("") };
        assert!(run(Client.terminate(&Net::new([]), &at(), call(), nameless)).is_err());
    }

    #[test]
    fn an_order_leads_to_its_service() {
        for (status, id, state) in [
            ("pending_payment", "null", State::Pending),
            ("paid", "null", State::Pending),
            ("completed", "null", State::Pending),
            ("cancelled", "null", State::Terminated),
            ("on_hold", "null", State::Unknown),
        ] {
            let net = Net::new([json(200, order(status, id))]);
            let told = run(Client.status(&net, &at(), named("order/17"))).unwrap();
            assert_eq!((told.remote_id.as_str(), told.state), ("order/17", state));
            assert!(told.properties.iter().any(|property| property.name == "order-state" && property.value == status));
        }
        for id in ["5", "\"5\""] {
            let net = Net::new([json(200, order("completed", id)), json(200, service(5, "active"))]);
            let told = run(Client.status(&net, &at(), named("order/17"))).unwrap();
            assert_eq!((told.remote_id.as_str(), told.state), ("service/5", State::Active));
            assert_eq!(net.asked(), ["GET /v1/orders/17", "GET /v1/services/5"]);
        }
    }

    #[test]
    fn only_the_providers_own_not_found_is_missing() {
        let absent = || refusal(404, "not_found", "", "");
        for (answers, id) in [(vec![absent()], "order/17"), (vec![json(200, order("completed", "5")), absent()], "service/5")] {
            let told = run(Client.status(&Net::new(answers), &at(), named("order/17"))).unwrap();
            assert_eq!((told.remote_id.as_str(), told.state), (id, State::Missing));
        }
        // Another one's answer is nobody's state.
        let problem = run(Client.status(&Net::new([json(200, service(6, "active"))]), &at(), named("service/5"))).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Protocol);
        let problem = run(Client.terminate(&Net::new([absent()]), &at(), call(), named("service/5"))).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::NotFound);
    }

    #[test]
    fn states_are_the_contracts_or_told_in_the_providers_word() {
        for (word, state) in [
            ("provisioning", State::Pending),
            ("Active", State::Active),
            ("suspended", State::Suspended),
            ("terminated", State::Terminated),
            ("failed", State::Failed),
            ("fraud", State::Unknown),
        ] {
            let told = run(Client.status(&Net::new([json(200, service(5, word))]), &at(), named("service/5"))).unwrap();
            assert_eq!(told.state, state);
            assert_eq!(told.properties.iter().any(|property| property.name == "provider-state"), state == State::Unknown);
        }
    }

    #[test]
    fn what_the_client_does_not_need_never_fails_an_answer() {
        let odd = r#"{"id":"5","status":"active","order_id":"17","product_id":{},"power":1,"hostname":null,"ip_addresses":"none",
            "billing_cycle":[],"next_due_at":20270215,"extra":{"deep":[1]}}"#;
        for body in [odd, r#"{"id":5,"status":"active"}"#] {
            let told = run(Client.status(&Net::new([json(200, body)]), &at(), named("service/5"))).unwrap();
            assert_eq!((told.state, told.due_at, told.addresses), (State::Active, None, Vec::new()));
        }
        for body in ["{}", r#"{"id":5}"#, r#"{"id":5.5,"status":"active"}"#, r#"{"id":5,"status":null}"#] {
            let problem = run(Client.status(&Net::new([json(200, body)]), &at(), named("service/5"))).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Protocol, "{body}");
        }
    }

    #[test]
    fn an_action_is_done_when_the_service_shows_it() {
        for (status, shown, done, state) in [
            ("completed", service(5, "suspended"), true, State::Suspended),
            ("accepted", service(5, "suspended"), true, State::Suspended),
            ("accepted", service(5, "active"), false, State::Active),
            ("completed", service(5, "active"), false, State::Active),
        ] {
            let net = Net::new([json(202, action(status, &shown))]);
            let outcome = run(Client.suspend(&net, &at(), call(), named("service/5"), Some("unpaid".to_owned()))).unwrap();
            assert_eq!(remote_id_and_state(&outcome), (done, "service/5", state));
            assert_eq!(net.asked(), ["POST /v1/services/5/actions"]);
            assert_eq!(net.body(0), value!({"action": "suspend", "reason": "unpaid"}));
            assert_eq!(net.header(0, "Idempotency-Key"), call().idempotency_key);
        }
        // Shown by the next question, or not at all.
        let bare = r#"{"service_id":"5","status":"Completed","service":null}"#;
        let net = Net::new([json(202, bare), json(200, service(5, "terminated"))]);
        let outcome = run(Client.terminate(&net, &at(), call(), named("service/5"))).unwrap();
        assert_eq!(remote_id_and_state(&outcome), (true, "service/5", State::Terminated));
        let net = Net::new([json(202, action("accepted", &service(6, "active"))), refusal(403, "forbidden_scope", "", "")]);
        let outcome = run(Client.unsuspend(&net, &at(), call(), named("service/5"))).unwrap();
        assert_eq!(remote_id_and_state(&outcome), (false, "service/5", State::Unknown));
    }

    #[test]
    fn an_answer_of_another_shape_accepts_nothing() {
        for body in [
            "{}",
            r#"{"status":1}"#,
            r#"{"status":"ok"}"#,
            r#"{"status":"completed"}"#,
            r#"{"service_id":5}"#,
            r#"{"service_id":5,"status":null}"#,
            r#"{"service_id":5,"status":"failed"}"#,
            r#"{"service_id":6,"status":"completed"}"#,
            r#"{"service_id":0,"status":"accepted"}"#,
            r#"[{"service_id":5,"status":"accepted"}]"#,
        ] {
            for status in [200, 202] {
                // What the service shows is not asked: whether that is what this action left, nobody knows.
                let net = Net::new([json(status, body)]);
                let problem = run(Client.suspend(&net, &at(), call(), named("service/5"), None)).unwrap_err();
                assert_eq!((problem.kind, problem.effect), (ProblemKind::Protocol, Effect::Unknown), "{body}");
            }
        }
    }

    #[test]
    fn what_is_already_so_is_a_success_and_nothing_else_is() {
        let wrong = || refusal(400, "validation_failed", "", r#","errors":[{"field":"action","code":"wrong_state"}]"#);
        let net = Net::new([wrong(), json(200, service(5, "suspended"))]);
        let outcome = run(Client.suspend(&net, &at(), call(), named("service/5"), None)).unwrap();
        assert_eq!(remote_id_and_state(&outcome), (true, "service/5", State::Suspended));
        for after in [json(200, service(5, "terminated")), refusal(404, "not_found", "", ""), json(200, "")] {
            let problem = run(Client.suspend(&Net::new([wrong(), after]), &at(), call(), named("service/5"), None)).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::WrongState);
        }
        // An unknown outcome is never explained away.
        let net = Net::new([lost(), refusal(409, "idempotency_conflict", "body_mismatch", "")]);
        let problem = run(Client.suspend(&net, &at(), call(), named("service/5"), None)).unwrap_err();
        assert_eq!(problem.effect, Effect::Unknown);
    }

    #[test]
    fn an_order_without_a_service_is_waited_for_and_a_cancelled_one_is_ended() {
        let net = Net::new([json(200, order("paid", "null"))]);
        let problem = run(Client.suspend(&net, &at(), call(), named("order/17"), None)).unwrap_err();
        assert_eq!(
            (problem.kind, problem.effect, problem.retry),
            (ProblemKind::WrongState, Effect::None, Retry::AfterMs(ORDER_LATER_MS))
        );
        let net = Net::new([json(200, order("cancelled", "null"))]);
        let problem = run(Client.suspend(&net, &at(), call(), named("order/17"), None)).unwrap_err();
        assert_eq!((problem.kind, problem.retry), (ProblemKind::WrongState, Retry::Never));

        let net = Net::new([json(200, order("cancelled", "null"))]);
        let outcome = run(Client.terminate(&net, &at(), call(), named("order/17"))).unwrap();
        assert_eq!(remote_id_and_state(&outcome), (true, "order/17", State::Terminated));
        let net = Net::new([json(200, order("pending_payment", "null"))]);
        assert!(run(Client.terminate(&net, &at(), call(), named("order/17"))).is_err());

        let net = Net::new([json(200, order("completed", "5")), json(202, action("completed", &service(5, "active")))]);
        let outcome = run(Client.power(&net, &at(), call(), named("order/17"), PowerAction::Reboot)).unwrap();
        assert_eq!(remote_id_and_state(&outcome), (true, "service/5", State::Active));
        assert_eq!(net.asked(), ["GET /v1/orders/17", "POST /v1/services/5/actions"]);
    }

    #[test]
    fn power_is_judged_by_the_machine() {
        for (asked, word, status, done) in [
            (PowerAction::Start, "start", "accepted", true),
            (PowerAction::Stop, "stop", "completed", false),
            (PowerAction::Reboot, "reboot", "accepted", false),
            (PowerAction::Reinstall, "reinstall", "completed", true),
        ] {
            let net = Net::new([json(202, action(status, &service(5, "active")))]);
            let outcome = run(Client.power(&net, &at(), call(), named("service/5"), asked)).unwrap();
            assert_eq!(remote_id_and_state(&outcome).0, done, "{word}");
            assert_eq!(net.body(0), value!({"action": word}));
        }
    }

    fn renew(
        answers: Vec<Result<crate::message::Response, crate::outside::SendError>>,
        due_at: &str,
    ) -> (Net, Result<Outcome, Problem>) {
        let net = Net::new(answers);
        let outcome = run(Client.renew(&net, &at(), call(), named("service/5"), due_at.to_owned()));
        (net, outcome)
    }

    #[test]
    fn a_service_due_later_is_renewed_without_a_charge() {
        for due_at in ["2027-01-15T08:00:00Z", "2027-02-15T08:59:59+01:00", "2027-02-15"] {
            let (net, outcome) = renew(vec![json(200, service(5, "active"))], due_at);
            assert!(remote_id_and_state(&outcome.unwrap()).0);
            assert_eq!(net.asked(), ["GET /v1/services/5"]);
        }
        for bad in ["", "soon", "2027-02-30", "15.02.2027"] {
            assert_eq!(renew(vec![], bad).1.unwrap_err().field.as_deref(), Some("due-at"));
        }
    }

    #[test]
    fn the_extension_pays_at_once_where_it_is_offered() {
        let me = || json(200, r#"{"extensions":["renew"]}"#);
        let later = service(5, "active").replace("2027-02-15", "2027-03-15");
        for (shown, done) in [(later.as_str(), true), (&service(5, "active"), false)] {
            let (net, outcome) = renew(vec![json(200, service(5, "active")), me(), json(202, action("accepted", shown))], DUE);
            assert_eq!(remote_id_and_state(&outcome.unwrap()).0, done);
            assert_eq!(net.body(2), value!({"action": "renew", "due_at": DUE}));
        }
        let unpaid = refusal(402, "payment_required", "card_declined", "");
        let problem = renew(vec![json(200, service(5, "active")), me(), unpaid], DUE).1.unwrap_err();
        assert_eq!((problem.kind, problem.effect), (ProblemKind::PaymentRequired, Effect::None));
    }

    #[test]
    fn without_the_extension_a_renewal_is_only_confirmed() {
        let start = || vec![json(200, service(5, "active")), json(200, "{}")];
        let invoices = |status: &str, order: i64| {
            json(
                200,
                format!(
                    r#"{{"data":[{{"id":3,"number":"R-3","status":"{status}","total":{{"amount":9.9,"currency":"EUR"}},"order_id":{order}}}]}}"#
                ),
            )
        };
        let product = || {
            json(
                200,
                r#"{"id":42,"name":"KVM","prices":[{"billing_cycle":"monthly","price":{"amount":"9.90","currency":"EUR"}}]}"#,
            )
        };
        let balance = |amount: &str, card: bool| {
            json(200, format!(r#"{{"balance":{{"amount":{amount},"currency":"EUR"}},"card_on_file":{card}}}"#))
        };
        let forbidden = || refusal(403, "forbidden_scope", "missing_scope", "");
        let cases = [
            (vec![invoices("unpaid", 17)], ProblemKind::PaymentRequired, "invoice R-3 over 9.90 EUR is unpaid"),
            (
                vec![invoices("paid", 17), balance("9.89", false), product()],
                ProblemKind::PaymentRequired,
                "9.89 does not cover 9.90",
            ),
            (vec![invoices("unpaid", 18), balance("9.90", false), product()], ProblemKind::Refused, ""),
            (vec![invoices("paid", 17), balance("0", true), product()], ProblemKind::Refused, ""),
            (vec![forbidden(), forbidden()], ProblemKind::Refused, ""),
        ];
        for (more, kind, told) in cases {
            let (net, outcome) = renew(start().into_iter().chain(more).collect(), DUE);
            let problem = outcome.unwrap_err();
            assert_eq!((problem.kind, problem.effect), (kind, Effect::None));
            for part in [told, "due 2027-02-15T08:00:00Z, to be renewed 2027-02-15T08:00:00Z"] {
                assert!(problem.message.contains(part), "{}", problem.message);
            }
            assert!(net.asked().iter().all(|asked| asked.starts_with("GET ")));
        }
    }

    #[test]
    fn a_password_is_reset_only_by_the_extension() {
        let reset = |net: &Net, password: Option<&str>| {
            run(Client.reset_password(net, &at(), call(), named("service/5"), password.map(Into::into)))
        };
        let net = Net::new([json(200, r#"{"extensions":["renew"]}"#)]);
        assert_eq!(reset(&net, None).unwrap_err().kind, ProblemKind::Unsupported);
        for (password, body) in [
            (None, value!({"action": "reset_password"})),
            (Some("new one"), value!({"action": "reset_password", "password": "new one"})),
        ] {
            let me = json(200, r#"{"extensions":["reset_password"]}"#);
            let net = Net::new([me, json(202, action("completed", &service(5, "active")))]);
            assert!(remote_id_and_state(&reset(&net, password).unwrap()).0);
            assert_eq!(net.body(1), body);
        }
    }

    #[test]
    fn credentials_are_those_of_the_service_asked_for() {
        let net = Net::new([json(200, r#"{"service_id":5,"username":"root","password":"pw","port":22,"note":"n"}"#)]);
        let login = run(Client.credentials(&net, &at(), named("service/5"))).unwrap();
        assert_eq!((login.username.as_deref(), login.password.as_deref(), login.port), (Some("root"), Some("pw"), Some(22)));
        assert_eq!(net.asked(), ["GET /v1/services/5/credentials"]);
        let net = Net::new([json(200, r#"{"service_id":6,"password":"MARKED"}"#)]);
        let problem = run(Client.credentials(&net, &at(), named("service/5"))).unwrap_err();
        super::super::script::assert_discreet(&problem);
    }
}
