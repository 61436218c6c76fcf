//! The asking end: the contract's operations as signed requests.
//!
//! Stateless: what one operation must remember (its deadline, a corrected clock) lives in [`exchange::Api`], for its length.

mod account;
mod events;
mod exchange;
mod failure;
mod mapping;
mod orders;
#[cfg(test)]
mod script;
mod services;

use async_trait::async_trait;
use secrecy::SecretString;

use self::exchange::Api;
use crate::contract::{
    Account, Call, Capability, Event, Field, FieldKind, InvoicePage, Login, Money, Order, Outcome, Plan, PowerAction, Problem,
    Property, ProviderInfo, Service, ServicePage, ServiceRef, State, Webhook,
};
use crate::kernelhost::wire::ActionRequest;
use crate::outside::Outside;
use crate::provisioning::{Connection, Provisioning};

/// Where KernelHost serves its API (spec 1), without the version.
const BASE_URL: &str = "https://www.kernelhost.com/cp/kh_reseller_api";

/// A client of the KernelHost Reseller API.
#[derive(Debug, Clone, Copy, Default)]
pub struct Client;

#[async_trait(?Send)]
impl Provisioning for Client {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            id: "kernelhost".to_owned(),
            name: "KernelHost".to_owned(),
            capabilities: capabilities(),
            settings: vec![Field {
                help: Some("Shown once when the webhook URL is set; without it webhooks are refused.".to_owned()),
                ..field("webhook_secret", "Webhook secret", FieldKind::Secret)
            }],
            order_fields: vec![
                Field { slot: Some(1), default: Some("1".to_owned()), ..field("quantity", "Quantity", FieldKind::Number) },
                Field {
                    slot: Some(2),
                    help: Some("Taken instead of the order's domain.".to_owned()),
                    ..field("hostname", "Host name", FieldKind::Text)
                },
            ],
            hosts: Vec::new(),
            properties: vec![
                property("idempotency", "native"),
                property("default-base-url", BASE_URL),
                property("credentials", "key-and-secret"),
            ],
        }
    }

    async fn check(&self, world: &dyn Outside, at: &Connection) -> Result<Account, Problem> {
        account::check(&Api::asking(world, at)?).await
    }

    async fn balance(&self, world: &dyn Outside, at: &Connection) -> Result<Money, Problem> {
        account::balance(&Api::asking(world, at)?).await
    }

    async fn catalog(&self, world: &dyn Outside, at: &Connection) -> Result<Vec<Plan>, Problem> {
        account::catalog(&Api::asking(world, at)?).await
    }

    async fn list_services(&self, world: &dyn Outside, at: &Connection, cursor: Option<String>) -> Result<ServicePage, Problem> {
        services::list(&Api::asking(world, at)?, cursor.as_deref()).await
    }

    async fn status(&self, world: &dyn Outside, at: &Connection, service: ServiceRef) -> Result<Service, Problem> {
        let api = Api::asking(world, at)?;
        let mut service = services::status(&api, &service).await?;
        api.report(&mut service.properties);
        Ok(service)
    }

    async fn create(&self, world: &dyn Outside, at: &Connection, call: Call, order: Order) -> Result<Outcome, Problem> {
        let api = Api::changing(world, at, &call)?;
        Ok(reported(&api, orders::create(&api, &call, order).await?))
    }

    async fn suspend(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        reason: Option<String>,
    ) -> Result<Outcome, Problem> {
        let api = Api::changing(world, at, &call)?;
        let request = ActionRequest { reason, ..services::action_request("suspend") };
        Ok(reported(&api, services::bring_to(&api, &call, &service, State::Suspended, request).await?))
    }

    async fn unsuspend(&self, world: &dyn Outside, at: &Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        let api = Api::changing(world, at, &call)?;
        let request = services::action_request("unsuspend");
        Ok(reported(&api, services::bring_to(&api, &call, &service, State::Active, request).await?))
    }

    async fn terminate(&self, world: &dyn Outside, at: &Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        let api = Api::changing(world, at, &call)?;
        let request = services::action_request("terminate");
        Ok(reported(&api, services::bring_to(&api, &call, &service, State::Terminated, request).await?))
    }

    async fn renew(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        due_at: String,
    ) -> Result<Outcome, Problem> {
        let api = Api::changing(world, at, &call)?;
        Ok(reported(&api, services::renew(&api, &call, &service, &due_at).await?))
    }

    async fn reset_password(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        password: Option<SecretString>,
    ) -> Result<Outcome, Problem> {
        let api = Api::changing(world, at, &call)?;
        Ok(reported(&api, services::reset_password(&api, &call, &service, password).await?))
    }

    async fn power(
        &self,
        world: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        action: PowerAction,
    ) -> Result<Outcome, Problem> {
        let api = Api::changing(world, at, &call)?;
        Ok(reported(&api, services::power(&api, &call, &service, action).await?))
    }

    async fn credentials(&self, world: &dyn Outside, at: &Connection, service: ServiceRef) -> Result<Login, Problem> {
        services::credentials(&Api::asking(world, at)?, &service).await
    }

    async fn invoices(&self, world: &dyn Outside, at: &Connection, cursor: Option<String>) -> Result<InvoicePage, Problem> {
        account::invoices(&Api::asking(world, at)?, cursor.as_deref()).await
    }

    async fn invoice_pdf(&self, world: &dyn Outside, at: &Connection, id: String) -> Result<Vec<u8>, Problem> {
        account::invoice_pdf(&Api::asking(world, at)?, &id).await
    }

    fn receive(&self, world: &dyn Outside, at: &Connection, headers: &[Property], body: &[u8]) -> Result<Vec<Event>, Problem> {
        events::receive(world, at, headers, body)
    }

    async fn get_webhook(&self, world: &dyn Outside, at: &Connection) -> Result<Option<Webhook>, Problem> {
        events::get_webhook(&Api::asking(world, at)?).await
    }

    async fn set_webhook(
        &self,
        world: &dyn Outside,
        at: &Connection,
        url: Option<String>,
    ) -> Result<Option<SecretString>, Problem> {
        events::set_webhook(&Api::asking(world, at)?, url).await
    }
}

/// Tells with the outcome that the clock had to be corrected.
fn reported(api: &Api<'_>, mut outcome: Outcome) -> Outcome {
    let (Outcome::Done(service) | Outcome::Pending(service)) = &mut outcome;
    api.report(&mut service.properties);
    outcome
}

fn capabilities() -> Vec<Capability> {
    let plain = [
        "check",
        "balance",
        "catalog",
        "list-services",
        "status",
        "suspend",
        "unsuspend",
        "terminate",
        "power",
        "credentials",
        "invoices",
        "invoice-pdf",
        "get-webhook",
        "set-webhook",
    ];
    let charging = Capability { charges: true, ..capability("create", Vec::new()) };
    let extended = [
        charging,
        Capability { charges: true, ..capability("renew", vec![property("extension", "renew")]) },
        capability("reset-password", vec![property("extension", "reset_password")]),
        capability("receive", vec![property("needs-setting", "webhook_secret")]),
    ];
    plain.into_iter().map(|operation| capability(operation, Vec::new())).chain(extended).collect()
}

fn capability(operation: &str, properties: Vec<Property>) -> Capability {
    Capability { operation: operation.to_owned(), charges: false, evidence: Vec::new(), properties }
}

fn property(name: &str, value: &str) -> Property {
    Property { name: name.to_owned(), value: value.to_owned() }
}

fn field(name: &str, label: &str, kind: FieldKind) -> Field {
    Field {
        name: name.to_owned(),
        label: label.to_owned(),
        kind,
        required: false,
        default: None,
        choices: Vec::new(),
        slot: None,
        help: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::script::{Net, at, call, lost, named, run};
    use super::*;
    use crate::contract::{Effect, ProblemKind};

    #[test]
    fn what_is_listed_is_offered_and_what_is_not_is_unsupported() {
        let info = Client.info();
        let listed: BTreeSet<&str> = info.capabilities.iter().map(|capability| capability.operation.as_str()).collect();
        assert_eq!((info.capabilities.len(), listed.len()), (18, 18));
        let (net, at, service) = (Net::always(lost()), at(), || named("service/5"));
        let order = Order {
            plan: "42".to_owned(),
            term: None,
            domain: None,
            email: None,
            password: None,
            note: None,
            options: Vec::new(),
        };
        let kinds = [
            ("check", run(Client.check(&net, &at)).err()),
            ("balance", run(Client.balance(&net, &at)).err()),
            ("catalog", run(Client.catalog(&net, &at)).err()),
            ("list-services", run(Client.list_services(&net, &at, None)).err()),
            ("status", run(Client.status(&net, &at, service())).err()),
            ("create", run(Client.create(&net, &at, call(), order)).err()),
            ("suspend", run(Client.suspend(&net, &at, call(), service(), None)).err()),
            ("unsuspend", run(Client.unsuspend(&net, &at, call(), service())).err()),
            ("terminate", run(Client.terminate(&net, &at, call(), service())).err()),
            ("renew", run(Client.renew(&net, &at, call(), service(), "2027-01-15".to_owned())).err()),
            ("reset-password", run(Client.reset_password(&net, &at, call(), service(), None)).err()),
            ("change-package", run(Client.change_package(&net, &at, call(), service(), String::new(), Vec::new())).err()),
            ("power", run(Client.power(&net, &at, call(), service(), PowerAction::Stop)).err()),
            ("credentials", run(Client.credentials(&net, &at, service())).err()),
            ("sign-on", run(Client.sign_on(&net, &at, service(), String::new())).err()),
            ("invoices", run(Client.invoices(&net, &at, None)).err()),
            ("invoice-pdf", run(Client.invoice_pdf(&net, &at, "7".to_owned())).err()),
            ("receive", Client.receive(&net, &at, &[], b"").err()),
            ("get-webhook", run(Client.get_webhook(&net, &at)).err()),
            ("set-webhook", run(Client.set_webhook(&net, &at, None)).err()),
        ];
        for (operation, problem) in kinds {
            let problem = problem.unwrap();
            assert_eq!(problem.kind != ProblemKind::Unsupported, listed.contains(operation), "{operation}");
            // A renewal and a reset read before they change: there a lost answer left nothing behind.
            let changes = ["create", "suspend", "unsuspend", "terminate", "power", "set-webhook"].contains(&operation);
            assert_eq!(problem.effect, if changes { Effect::Unknown } else { Effect::None }, "{operation}");
        }
    }

    #[test]
    fn what_charges_is_told_and_slots_never_move() {
        let info = Client.info();
        let charging = info.capabilities.iter().filter(|capability| capability.charges);
        assert_eq!(charging.map(|capability| capability.operation.as_str()).collect::<Vec<_>>(), ["create", "renew"]);
        let slots: Vec<_> = info.order_fields.iter().map(|field| (field.slot, field.name.as_str())).collect();
        assert_eq!(slots, [(Some(1), "quantity"), (Some(2), "hostname")]);
        assert!(info.settings.iter().any(|field| field.name == "webhook_secret" && field.kind == FieldKind::Secret));
    }
}
