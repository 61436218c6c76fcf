//! The contract called through the sandboxed component, as panels' changes are.

use async_trait::async_trait;
use provisor::plugin::{Caller, Host, Options, Plugin, Profile};
use provisor_providers::contract::{
    Account, Call, Event, FormPost, InvoicePage, Login, Money, Order, Outcome, Plan, PowerAction, Problem, Property,
    ProviderInfo, Service, ServicePage, ServiceRef, Setting, Webhook,
};
use provisor_providers::outside::Outside;
use provisor_providers::provisioning::{Connection, Provisioning};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A provider of the component inside the binary.
pub(super) struct ThroughComponent {
    plugin: Plugin,
    provider: &'static str,
}

impl ThroughComponent {
    pub(super) async fn load(provider: &'static str) -> Self {
        let plugin = Host::start(Options::default()).unwrap().builtin().await.unwrap();
        Self { plugin, provider }
    }

    /// The component bound to what a connection says.
    fn bind(&self, at: &Connection) -> Caller {
        let names = self.info().settings.into_iter().map(|field| field.name);
        let settings = names.filter_map(|name| Some((name.clone(), at.setting(&name)?.into())));
        let profile = Profile {
            name: "test".to_owned(),
            provider: self.provider.to_owned(),
            base_url: Some(at.base_url.clone()),
            key: at.key.clone(),
            secret: at.secret.clone(),
            settings: settings.collect(),
            hosts: Vec::new(),
            allow_private: true,
        };
        self.plugin.bind(profile).unwrap()
    }
}

/// The same value in the other end's words: both are made from one WIT.
fn same<A: Serialize, B: DeserializeOwned>(value: A) -> B {
    serde_json::from_value(serde_json::to_value(value).unwrap()).unwrap()
}

fn both<A: Serialize, E: Serialize, B: DeserializeOwned>(result: Result<A, E>) -> Result<B, Problem> {
    result.map(same).map_err(same)
}

#[async_trait(?Send)]
impl Provisioning for ThroughComponent {
    fn info(&self) -> ProviderInfo {
        same(self.plugin.provider(self.provider).unwrap())
    }

    async fn check(&self, _: &dyn Outside, at: &Connection) -> Result<Account, Problem> {
        both(self.bind(at).check().await)
    }

    async fn balance(&self, _: &dyn Outside, at: &Connection) -> Result<Money, Problem> {
        both(self.bind(at).balance().await)
    }

    async fn catalog(&self, _: &dyn Outside, at: &Connection) -> Result<Vec<Plan>, Problem> {
        both(self.bind(at).catalog().await)
    }

    async fn list_services(&self, _: &dyn Outside, at: &Connection, cursor: Option<String>) -> Result<ServicePage, Problem> {
        both(self.bind(at).list_services(cursor).await)
    }

    async fn status(&self, _: &dyn Outside, at: &Connection, service: ServiceRef) -> Result<Service, Problem> {
        both(self.bind(at).status(same(service)).await)
    }

    async fn create(&self, _: &dyn Outside, at: &Connection, call: Call, order: Order) -> Result<Outcome, Problem> {
        both(self.bind(at).create(same(call), same(order)).await)
    }

    async fn suspend(
        &self,
        _: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        reason: Option<String>,
    ) -> Result<Outcome, Problem> {
        both(self.bind(at).suspend(same(call), same(service), reason).await)
    }

    async fn unsuspend(&self, _: &dyn Outside, at: &Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        both(self.bind(at).unsuspend(same(call), same(service)).await)
    }

    async fn terminate(&self, _: &dyn Outside, at: &Connection, call: Call, service: ServiceRef) -> Result<Outcome, Problem> {
        both(self.bind(at).terminate(same(call), same(service)).await)
    }

    async fn renew(
        &self,
        _: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        due_at: String,
    ) -> Result<Outcome, Problem> {
        both(self.bind(at).renew(same(call), same(service), due_at).await)
    }

    async fn reset_password(
        &self,
        _: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        password: Option<SecretString>,
    ) -> Result<Outcome, Problem> {
        let password = password.map(|password| password.expose_secret().to_owned());
        both(self.bind(at).reset_password(same(call), same(service), password).await)
    }

    async fn change_package(
        &self,
        _: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        plan: String,
        options: Vec<Setting>,
    ) -> Result<Outcome, Problem> {
        both(self.bind(at).change_package(same(call), same(service), plan, same(options)).await)
    }

    async fn power(
        &self,
        _: &dyn Outside,
        at: &Connection,
        call: Call,
        service: ServiceRef,
        action: PowerAction,
    ) -> Result<Outcome, Problem> {
        both(self.bind(at).power(same(call), same(service), same(action)).await)
    }

    async fn credentials(&self, _: &dyn Outside, at: &Connection, service: ServiceRef) -> Result<Login, Problem> {
        both(self.bind(at).credentials(same(service)).await)
    }

    async fn sign_on(&self, _: &dyn Outside, at: &Connection, service: ServiceRef, target: String) -> Result<FormPost, Problem> {
        both(self.bind(at).sign_on(same(service), target).await)
    }

    async fn invoices(&self, _: &dyn Outside, at: &Connection, cursor: Option<String>) -> Result<InvoicePage, Problem> {
        both(self.bind(at).invoices(cursor).await)
    }

    async fn invoice_pdf(&self, _: &dyn Outside, at: &Connection, id: String) -> Result<Vec<u8>, Problem> {
        both(self.bind(at).invoice_pdf(id).await)
    }

    async fn get_webhook(&self, _: &dyn Outside, at: &Connection) -> Result<Option<Webhook>, Problem> {
        both(self.bind(at).get_webhook().await)
    }

    async fn set_webhook(&self, _: &dyn Outside, at: &Connection, url: Option<String>) -> Result<Option<SecretString>, Problem> {
        self.bind(at).set_webhook(url).await.map_err(same)
    }

    /// Needs no network, but the sandbox is called asynchronously.
    fn receive(&self, _: &dyn Outside, at: &Connection, headers: &[Property], body: &[u8]) -> Result<Vec<Event>, Problem> {
        let (caller, headers, body) = (self.bind(at), same(headers), body.to_vec());
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || both(runtime().block_on(caller.receive(headers, body)))).join().unwrap()
    }
}
