//! The providers as one WebAssembly component: each function of the contract is handed to the provider it names.

mod world;

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use provisor_providers::contract::{
    self, Account, Call, Effect, Event, FormPost, InvoicePage, Login, Money, Order, Outcome, Plan, PowerAction, Problem,
    ProblemKind, Property, ProviderInfo, Service, ServicePage, ServiceRef, Setting, Webhook,
};
use provisor_providers::provisioning::{Connection, Provisioning, invalid, problem};
use secrecy::ExposeSecret;
use world::World;

struct Component;

provisor_providers::contract::generated::export!(Component);

impl contract::provisioning::Guest for Component {
    fn describe() -> Vec<ProviderInfo> {
        provisor_providers::CLIENTS.iter().map(|(_, client)| client.info()).collect()
    }

    fn check(at: contract::Connection) -> Result<Account, Problem> {
        ask(at, |client, at| client.check(&World, at))
    }

    fn balance(at: contract::Connection) -> Result<Money, Problem> {
        ask(at, |client, at| client.balance(&World, at))
    }

    fn catalog(at: contract::Connection) -> Result<Vec<Plan>, Problem> {
        ask(at, |client, at| client.catalog(&World, at))
    }

    fn list_services(at: contract::Connection, cursor: Option<String>) -> Result<ServicePage, Problem> {
        ask(at, |client, at| client.list_services(&World, at, cursor))
    }

    fn status(at: contract::Connection, service: ServiceRef) -> Result<Service, Problem> {
        ask(at, |client, at| client.status(&World, at, service))
    }

    fn create(at: contract::Connection, call: Call, order: Order) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.create(&World, at, call, order))
    }

    fn suspend(at: contract::Connection, call: Call, service: ServiceRef, reason: Option<String>) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.suspend(&World, at, call, service, reason))
    }

    fn unsuspend(at: contract::Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.unsuspend(&World, at, call, service))
    }

    fn terminate(at: contract::Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.terminate(&World, at, call, service))
    }

    fn renew(at: contract::Connection, call: Call, service: ServiceRef, due_at: String) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.renew(&World, at, call, service, due_at))
    }

    fn reset_password(
        at: contract::Connection,
        call: Call,
        service: ServiceRef,
        password: Option<String>,
    ) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.reset_password(&World, at, call, service, password.map(Into::into)))
    }

    fn change_package(
        at: contract::Connection,
        call: Call,
        service: ServiceRef,
        plan: String,
        options: Vec<Setting>,
    ) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.change_package(&World, at, call, service, plan, options))
    }

    fn power(at: contract::Connection, call: Call, service: ServiceRef, action: PowerAction) -> Result<Outcome, Problem> {
        ask(at, |client, at| client.power(&World, at, call, service, action))
    }

    fn credentials(at: contract::Connection, service: ServiceRef) -> Result<Login, Problem> {
        ask(at, |client, at| client.credentials(&World, at, service))
    }

    fn sign_on(at: contract::Connection, service: ServiceRef, target: String) -> Result<FormPost, Problem> {
        ask(at, |client, at| client.sign_on(&World, at, service, target))
    }

    fn invoices(at: contract::Connection, cursor: Option<String>) -> Result<InvoicePage, Problem> {
        ask(at, |client, at| client.invoices(&World, at, cursor))
    }

    fn invoice_pdf(at: contract::Connection, id: String) -> Result<Vec<u8>, Problem> {
        ask(at, |client, at| client.invoice_pdf(&World, at, id))
    }
}

impl contract::events::Guest for Component {
    fn receive(at: contract::Connection, headers: Vec<Property>, body: Vec<u8>) -> Result<Vec<Event>, Problem> {
        let (client, at) = meet(at)?;
        client.receive(&World, &at, &headers, &body)
    }

    fn get_webhook(at: contract::Connection) -> Result<Option<Webhook>, Problem> {
        ask(at, |client, at| client.get_webhook(&World, at))
    }

    fn set_webhook(at: contract::Connection, url: Option<String>) -> Result<Option<String>, Problem> {
        let secret = ask(at, |client, at| client.set_webhook(&World, at, url))?;
        Ok(secret.map(|secret| secret.expose_secret().to_owned()))
    }
}

/// An operation under way.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + 'a>>;

/// Asks the provider that a connection names.
fn ask<T>(
    at: contract::Connection,
    operation: impl for<'a> FnOnce(&'static dyn Provisioning, &'a Connection) -> Answer<'a, T>,
) -> Result<T, Problem> {
    let (client, at) = meet(at)?;
    // Everything in `World` blocks, so an operation that awaits nothing else is ready at the first poll.
    match pin!(operation(client, &at)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(Problem {
            effect: Effect::Unknown,
            ..problem(ProblemKind::Internal, "the provider's client waits for something outside its world")
        }),
    }
}

/// The provider that a connection names, and the connection in the form that prints no secret.
fn meet(at: contract::Connection) -> Result<(&'static dyn Provisioning, Connection), Problem> {
    match provisor_providers::CLIENTS.iter().find(|(id, _)| *id == at.provider) {
        Some((_, client)) => Ok((*client, at.into())),
        None => Err(invalid("provider", format!("there is no provider `{}`", at.provider))),
    }
}
