//! Services: what they are, how to log in, and what can be done to them (our choices, 2.12 and 2.19).

use jiff::Timestamp;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use secrecy::{ExposeSecret, SecretString};

use super::body::{self, Paging};
use super::catalog::is_text;
use super::payments::{self, Paying};
use super::problem::{self, Halt, Handled};
use super::serve::Again;
use super::{Call, events, json, ok, renewals, time};
use crate::books::{Account, AccountBooks, Attempted, Books, Fault, Keep, Power, Service, ServiceStatus};
use crate::kernelhost::wire::{self, ActionRequest, Credentials, Page};
use crate::server::{Moment, Need};

/// Characters of a generated password: 119 bits in base62.
const PASSWORD_CHARS: usize = 20;
/// Characters of a given password, at least and at most.
const PASSWORD_MIN: usize = 8;
const PASSWORD_MAX: usize = 128;
/// Characters of a reason and of an image's name.
const REASON_MAX: usize = 500;
const IMAGE_MAX: usize = 100;

/// `GET /v1/services`.
pub(super) fn list(call: &Call<'_>, books: &mut dyn Books) -> Handled {
    let paging = Paging::read(call.visit.request.query())?;
    let mut account = books.account(call.key.account);
    let meta = paging.meta(account.count_services()?);
    let data = account.services(paging.offset(), paging.per_page)?.iter().map(show).collect();
    let links = body::links(&meta);
    let mut response = ok(&Page::<wire::Service> { data, meta });
    response.headers.add("link", links);
    Ok(response)
}

/// `GET /v1/services/{id}`.
pub(super) fn one(call: &Call<'_>, id: i64, books: &mut dyn Books) -> Handled {
    Ok(ok(&show(&find(call, id, books)?)))
}

/// `GET /v1/services/{id}/credentials`. A terminated service has none, nor has one that could not be made.
pub(super) fn credentials(call: &Call<'_>, id: i64, books: &mut dyn Books) -> Handled {
    let service = find(call, id, books)?;
    if matches!(service.status, ServiceStatus::Terminated | ServiceStatus::Failed) {
        return Err(problem::not_found().into());
    }
    let login = books.account(call.key.account).login(id)?.ok_or_else(problem::not_found)?;
    let mut response = ok(&Credentials {
        service_id: Some(id),
        username: Some(login.username),
        password: Some(login.password.expose_secret().to_owned()),
        port: Some(login.port),
        url: None,
        note: None,
    });
    response.headers.add("cache-control", "no-store");
    Ok(response)
}

/// `POST /v1/services/{id}/actions`. Under simulated fulfilment an action completes at once.
pub(super) fn act(call: &Call<'_>, id: i64, again: Option<Again>, books: &mut dyn Books) -> Handled {
    let action = Action::read(body::read(call.body())?)?;
    let service = find(call, id, books)?;
    let name = action.name();
    match action {
        Action::Renew { due_at } => renew(call, &service, due_at, again.is_some_and(|again| again.is_running), books)?,
        Action::ResetPassword { password } => {
            if !matches!(service.status, ServiceStatus::Active | ServiceStatus::Suspended) {
                return Err(wrong_state().into());
            }
            let password = password.unwrap_or_else(|| generate_password(&mut call.visit.moment.rng()));
            books.account(call.key.account).set_password(id, &password)?;
        }
        Action::Switch(switch) => {
            let mut changed = switched(&service, switch).ok_or_else(wrong_state)?;
            if switch == Switch::Unsuspend && changed.next_due_at <= call.now() {
                // Overdue, and not for a moment longer than if it had not been suspended.
                changed.bill_at = Some(call.now());
            }
            if changed.status == ServiceStatus::Terminated {
                renewals::stop(call.key.account, &service, books)?;
            }
            let mut account = books.account(call.key.account);
            account.set_service(&changed)?;
            if switch == Switch::Reinstall {
                account.set_password(id, &generate_password(&mut call.visit.moment.rng()))?;
            }
            if let Some(kind) = event(service.status, changed.status) {
                let profile = account.profile()?;
                tell(&call.visit.moment, &profile, &mut *account, kind, &changed)?;
            }
        }
    }
    let service = find(call, id, books)?;
    Ok(json(
        202,
        &wire::Action {
            id: format!("act_{}", call.visit.request_id).into(),
            service_id: id,
            action: Some(name.to_owned()),
            status: wire::ActionStatus::Completed,
            service: Some(show(&service)),
        },
    ))
}

/// 20 characters of base62.
pub(super) fn generate_password(rng: &mut StdRng) -> SecretString {
    SecretString::from(Alphanumeric.sample_string(rng, PASSWORD_CHARS))
}

fn find(call: &Call<'_>, id: i64, books: &mut dyn Books) -> Result<Service, Halt> {
    Ok(books.account(call.key.account).service(id)?.ok_or_else(problem::not_found)?)
}

/// Pays the term after `due_at`, once: a service that is due later already is left as it is.
fn renew(call: &Call<'_>, service: &Service, due_at: Timestamp, is_running: bool, books: &mut dyn Books) -> Result<(), Halt> {
    if !matches!(service.status, ServiceStatus::Active | ServiceStatus::Suspended) {
        return Err(wrong_state().into());
    }
    // On the wire a due date has whole seconds.
    match service.next_due_at.as_second().cmp(&due_at.as_second()) {
        std::cmp::Ordering::Greater => return Ok(()),
        std::cmp::Ordering::Less => {
            let message = "The service is not paid until this date; renew the term that is due first.";
            return Err(problem::invalid_field("due_at", "not_due", message).into());
        }
        std::cmp::Ordering::Equal => {}
    }
    let mut unpaid = None;
    let attempted = books.attempt(&mut |books| {
        let invoice = renewals::invoice(&call.visit.moment, call.key.account, service, books)?;
        match payments::pay(call, &invoice, is_running, books) {
            Ok(Paying::Unpaid(why)) => unpaid = Some(problem::renewal_unpaid(why).into()),
            Ok(Paying::Paid | Paying::Charge(_) | Paying::InProgress) => {}
            Err(Halt::Fault(fault)) => return Err(fault),
            Err(halt) => {
                let stays = matches!(halt, Halt::Needs(Need::Charge(_)));
                unpaid = Some(halt);
                return Ok(if stays { Keep::Keep } else { Keep::Undo });
            }
        }
        // A renewal that is asked for and not paid leaves no invoice that was not there before, unless a card was charged for it.
        Ok(if unpaid.is_some() { Keep::Undo } else { Keep::Keep })
    })?;
    match (attempted, unpaid) {
        (Attempted::Broke, _) => Err(Fault("an inner attempt broke".to_owned()).into()),
        (_, Some(halt)) => Err(halt),
        (_, None) => Ok(()),
    }
}

/// What a change of status is called as an event.
fn event(before: ServiceStatus, after: ServiceStatus) -> Option<&'static str> {
    use ServiceStatus::{Active, Suspended, Terminated};
    match (before, after) {
        (Active, Suspended) => Some("service.suspended"),
        (Suspended, Active) => Some("service.unsuspended"),
        (before, Terminated) if before != Terminated => Some("service.terminated"),
        _ => None,
    }
}

/// Tells that `kind` happened to a service.
pub(super) fn tell(
    moment: &Moment,
    profile: &Account,
    books: &mut dyn AccountBooks,
    kind: &str,
    service: &Service,
) -> Result<(), Fault> {
    if profile.listens { events::emit(moment, books, kind, service.id, &show(service)) } else { Ok(()) }
}

/// What is asked for, checked.
enum Action {
    Switch(Switch),
    Renew { due_at: Timestamp },
    ResetPassword { password: Option<SecretString> },
}

/// The documented actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    Start,
    Stop,
    Reboot,
    Reinstall,
    Suspend,
    Unsuspend,
    Terminate,
}

impl Switch {
    const ALL: [(&'static str, Self); 7] = [
        ("start", Self::Start),
        ("stop", Self::Stop),
        ("reboot", Self::Reboot),
        ("reinstall", Self::Reinstall),
        ("suspend", Self::Suspend),
        ("unsuspend", Self::Unsuspend),
        ("terminate", Self::Terminate),
    ];
}

impl Action {
    fn read(request: ActionRequest) -> Result<Self, problem::Refusal> {
        let ActionRequest { action, reason, image, due_at, password } = request;
        let password = password.map(SecretString::from);
        let mut errors = Vec::new();
        if reason.is_some_and(|reason| !is_text(&reason, REASON_MAX)) {
            errors.push(problem::field("reason", "malformed", "At most 500 characters, no control characters, are expected."));
        }
        if image.as_deref().is_some_and(|image| image.is_empty() || !is_text(image, IMAGE_MAX)) {
            errors.push(problem::field("image", "malformed", "1 to 100 characters, no control characters, are expected."));
        }
        for (member, is_given, owner) in [
            ("image", image.is_some(), "reinstall"),
            ("due_at", due_at.is_some(), "renew"),
            ("password", password.is_some(), "reset_password"),
        ] {
            if is_given && action != owner {
                errors.push(problem::field(member, "unexpected", format!("Only {owner} takes this member.")));
            }
        }
        let read = Self::find(&action, due_at, password).map_err(|error| errors.push(error));
        read.ok().filter(|_| errors.is_empty()).ok_or_else(|| problem::invalid(errors))
    }

    fn find(action: &str, due_at: Option<String>, password: Option<SecretString>) -> Result<Self, wire::FieldError> {
        if let Some((_, switch)) = Switch::ALL.into_iter().find(|(name, _)| *name == action) {
            return Ok(Self::Switch(switch));
        }
        match action {
            "renew" => {
                let due_at = due_at.and_then(|text| text.parse().ok());
                let message = "The due date that is being renewed is expected, such as 2027-01-15T08:00:00Z.";
                Ok(Self::Renew { due_at: due_at.ok_or_else(|| problem::field("due_at", "malformed", message))? })
            }
            "reset_password" if password.as_ref().is_some_and(|password| !is_password(password.expose_secret())) => {
                let message = "8 to 128 characters, none of them a control character, are expected.";
                Err(problem::field("password", "malformed", message))
            }
            "reset_password" => Ok(Self::ResetPassword { password }),
            _ => Err(problem::field("action", "unknown", "There is no such action.")),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Switch(switch) => Switch::ALL.iter().find(|(_, known)| known == switch).map_or("", |(name, _)| name),
            Self::Renew { .. } => "renew",
            Self::ResetPassword { .. } => "reset_password",
        }
    }
}

fn is_password(text: &str) -> bool {
    is_text(text, PASSWORD_MAX) && text.chars().nth(PASSWORD_MIN - 1).is_some()
}

/// The service after an action; unchanged where it is so already, `None` where the action cannot apply (our choice, 2.12).
fn switched(service: &Service, switch: Switch) -> Option<Service> {
    use ServiceStatus::{Active, Suspended, Terminated};
    if switch == Switch::Unsuspend && service.unpaid_since.is_some() {
        // Only its renewal brings it back.
        return None;
    }
    let powered = |power| service.power.map(|_| power);
    let (status, power) = match (switch, service.status) {
        (Switch::Start | Switch::Stop | Switch::Reboot, Active) if service.power.is_none() => return None,
        (Switch::Start | Switch::Reboot | Switch::Reinstall, Active) | (Switch::Unsuspend, Suspended) => {
            (Active, powered(Power::Running))
        }
        (Switch::Stop, Active) => (Active, powered(Power::Stopped)),
        (Switch::Suspend, Active | Suspended) => (Suspended, powered(Power::Stopped)),
        (Switch::Unsuspend, Active) => (Active, service.power),
        (Switch::Terminate, _) => (Terminated, None),
        _ => return None,
    };
    let bill_at = service.bill_at.filter(|_| status != Terminated);
    let unpaid_since = service.unpaid_since.filter(|_| status == Suspended);
    Some(Service { status, power, bill_at, unpaid_since, ..service.clone() })
}

fn wrong_state() -> problem::Refusal {
    problem::invalid_field("action", "wrong_state", "The service's state does not allow this.")
}

fn show(service: &Service) -> wire::Service {
    wire::Service {
        id: service.id,
        order_id: Some(service.order_id),
        product_id: Some(service.product_id),
        status: service.status.as_str().to_owned(),
        power: service.power.map(|power| power.as_str().to_owned()),
        hostname: Some(service.hostname.clone()),
        ip_addresses: service.addresses.iter().map(ToString::to_string).collect(),
        billing_cycle: Some(service.cycle.clone()),
        next_due_at: Some(time(service.next_due_at)),
        created_at: Some(time(service.created_at)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(status: ServiceStatus, power: Option<Power>) -> Service {
        let at: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        Service {
            id: 7,
            order_id: 1001,
            product_id: 42,
            status,
            power,
            hostname: "web.example".to_owned(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            cycle: "monthly".to_owned(),
            recurring: crate::money::Minor(990),
            currency: "EUR".to_owned(),
            next_due_at: at,
            bill_at: Some(at),
            unpaid_since: None,
            created_at: at,
        }
    }

    #[test]
    fn each_action_has_the_states_it_applies_to() {
        use Power::{Running, Stopped};
        use ServiceStatus::{Active, Failed, Provisioning, Suspended, Terminated};
        use Switch::{Reboot, Reinstall, Start, Stop, Suspend, Terminate, Unsuspend};
        for (switch, status, power, after) in [
            (Start, Active, Some(Stopped), Some((Active, Some(Running)))),
            (Start, Active, Some(Running), Some((Active, Some(Running)))),
            (Start, Active, None, None),
            (Stop, Active, Some(Running), Some((Active, Some(Stopped)))),
            (Reboot, Active, Some(Stopped), Some((Active, Some(Running)))),
            (Reboot, Suspended, Some(Stopped), None),
            (Reboot, Terminated, None, None),
            (Reinstall, Active, None, Some((Active, None))),
            (Reinstall, Suspended, Some(Stopped), None),
            (Suspend, Active, Some(Running), Some((Suspended, Some(Stopped)))),
            (Suspend, Suspended, Some(Stopped), Some((Suspended, Some(Stopped)))),
            (Suspend, Terminated, None, None),
            (Suspend, Provisioning, None, None),
            (Unsuspend, Suspended, Some(Stopped), Some((Active, Some(Running)))),
            (Unsuspend, Active, Some(Stopped), Some((Active, Some(Stopped)))),
            (Unsuspend, Terminated, None, None),
            (Unsuspend, Failed, None, None),
            (Terminate, Active, Some(Running), Some((Terminated, None))),
            (Terminate, Failed, None, Some((Terminated, None))),
            (Terminate, Terminated, None, Some((Terminated, None))),
        ] {
            let found = switched(&service(status, power), switch).map(|service| (service.status, service.power));
            assert_eq!(found, after, "{switch:?} {status:?} {power:?}");
        }
    }

    #[test]
    fn what_is_suspended_for_want_of_payment_is_not_unsuspended_for_the_asking() {
        let unpaid = Service { unpaid_since: Some(Timestamp::UNIX_EPOCH), ..service(ServiceStatus::Suspended, None) };
        assert!(switched(&unpaid, Switch::Unsuspend).is_none());
        let again = switched(&unpaid, Switch::Suspend).unwrap();
        assert!(again.unpaid_since.is_some() && again.bill_at.is_some());
        let gone = switched(&unpaid, Switch::Terminate).unwrap();
        assert_eq!((gone.unpaid_since, gone.bill_at), (None, None));
    }

    fn read(body: Value) -> Result<Action, Value> {
        Action::read(serde_json::from_value(body).unwrap()).map_err(|refusal| {
            let problem: Value = serde_json::from_slice(&refusal.response("id").body).unwrap();
            problem["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect()
        })
    }

    #[test]
    fn members_belong_to_their_actions() {
        for (body, name) in [
            (json!({"action": "stop", "reason": "maintenance"}), "stop"),
            (json!({"action": "reinstall", "image": "debian-13"}), "reinstall"),
            (json!({"action": "renew", "due_at": "2027-01-15T08:00:00Z"}), "renew"),
            (json!({"action": "reset_password"}), "reset_password"),
            (json!({"action": "reset_password", "password": "eight ch"}), "reset_password"),
        ] {
            assert_eq!(read(body.clone()).map(|action| action.name()), Ok(name), "{body}");
        }
        for (body, field) in [
            (json!({"action": "explode"}), "action"),
            (json!({"action": "Stop"}), "action"),
            (json!({"action": "stop", "reason": "a\nb"}), "reason"),
            (json!({"action": "stop", "image": "debian-13"}), "image"),
            (json!({"action": "reinstall", "image": ""}), "image"),
            (json!({"action": "renew"}), "due_at"),
            (json!({"action": "renew", "due_at": "2027-01-15"}), "due_at"),
            (json!({"action": "terminate", "due_at": "2027-01-15T08:00:00Z"}), "due_at"),
            (json!({"action": "reinstall", "password": "long enough"}), "password"),
            (json!({"action": "reset_password", "password": "seven c"}), "password"),
            (json!({"action": "reset_password", "password": "x".repeat(129)}), "password"),
            (json!({"action": "reset_password", "password": "control\u{7f}"}), "password"),
        ] {
            assert_eq!(read(body.clone()).err(), Some(json!([field])), "{body}");
        }
    }

    #[test]
    fn generated_passwords_follow_the_seed() {
        use rand::SeedableRng;
        let password = |seed| generate_password(&mut StdRng::from_seed([seed; 32])).expose_secret().to_owned();
        assert!(password(1).len() == PASSWORD_CHARS && password(1).bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(password(1), password(1));
        assert_ne!(password(1), password(2));
    }
}
