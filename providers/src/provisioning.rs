//! The contract as a trait: a provider's client overrides what the provider can do, everything else is `unsupported`, said once.

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use crate::contract::{
    self, Account, Call, Effect, Event, FormPost, InvoicePage, Login, Money, Order, Outcome, Plan, PowerAction, Problem,
    ProblemKind, Property, ProviderInfo, Retry, Service, ServicePage, ServiceRef, Setting, Webhook,
};
use crate::outside::Outside;

/// Where a provider is and as whom to ask. Prints no secret and wipes them when dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Without a trailing slash.
    pub base_url: String,
    /// The public half of the credentials.
    pub key: String,
    /// The secret half.
    pub secret: SecretString,
    settings: BTreeMap<String, SecretString>,
}

impl Connection {
    /// A profile's setting. Any of them may be a secret (`webhook_secret`), so none prints.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(ExposeSecret::expose_secret)
    }
}

impl From<contract::Connection> for Connection {
    fn from(at: contract::Connection) -> Self {
        Self {
            base_url: at.base_url.trim_end_matches('/').to_owned(),
            key: at.key,
            secret: at.secret.into(),
            settings: at.settings.into_iter().map(|setting| (setting.name, setting.value.into())).collect(),
        }
    }
}

/// What a panel can ask of one provider; `wit/provider.wit` documents each function.
#[async_trait(?Send)]
#[expect(missing_docs, reason = "wit/provider.wit documents each function")]
pub trait Provisioning: Sync {
    fn info(&self) -> ProviderInfo;

    async fn check(&self, _world: &dyn Outside, _at: &Connection) -> Result<Account, Problem> {
        Err(unsupported("check"))
    }

    async fn balance(&self, _world: &dyn Outside, _at: &Connection) -> Result<Money, Problem> {
        Err(unsupported("balance"))
    }

    async fn catalog(&self, _world: &dyn Outside, _at: &Connection) -> Result<Vec<Plan>, Problem> {
        Err(unsupported("catalog"))
    }

    async fn list_services(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _cursor: Option<String>,
    ) -> Result<ServicePage, Problem> {
        Err(unsupported("list-services"))
    }

    async fn status(&self, _world: &dyn Outside, _at: &Connection, _service: ServiceRef) -> Result<Service, Problem> {
        Err(unsupported("status"))
    }

    async fn create(&self, _world: &dyn Outside, _at: &Connection, _call: Call, _order: Order) -> Result<Outcome, Problem> {
        Err(unsupported("create"))
    }

    async fn suspend(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _call: Call,
        _service: ServiceRef,
        _reason: Option<String>,
    ) -> Result<Outcome, Problem> {
        Err(unsupported("suspend"))
    }

    async fn unsuspend(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _call: Call,
        _service: ServiceRef,
    ) -> Result<Outcome, Problem> {
        Err(unsupported("unsuspend"))
    }

    async fn terminate(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _call: Call,
        _service: ServiceRef,
    ) -> Result<Outcome, Problem> {
        Err(unsupported("terminate"))
    }

    async fn renew(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _call: Call,
        _service: ServiceRef,
        _due_at: String,
    ) -> Result<Outcome, Problem> {
        Err(unsupported("renew"))
    }

    async fn reset_password(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _call: Call,
        _service: ServiceRef,
        _password: Option<SecretString>,
    ) -> Result<Outcome, Problem> {
        Err(unsupported("reset-password"))
    }

    async fn change_package(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _call: Call,
        _service: ServiceRef,
        _plan: String,
        _options: Vec<Setting>,
    ) -> Result<Outcome, Problem> {
        Err(unsupported("change-package"))
    }

    async fn power(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _call: Call,
        _service: ServiceRef,
        _action: PowerAction,
    ) -> Result<Outcome, Problem> {
        Err(unsupported("power"))
    }

    async fn credentials(&self, _world: &dyn Outside, _at: &Connection, _service: ServiceRef) -> Result<Login, Problem> {
        Err(unsupported("credentials"))
    }

    async fn sign_on(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _service: ServiceRef,
        _target: String,
    ) -> Result<FormPost, Problem> {
        Err(unsupported("sign-on"))
    }

    async fn invoices(&self, _world: &dyn Outside, _at: &Connection, _cursor: Option<String>) -> Result<InvoicePage, Problem> {
        Err(unsupported("invoices"))
    }

    async fn invoice_pdf(&self, _world: &dyn Outside, _at: &Connection, _id: String) -> Result<Vec<u8>, Problem> {
        Err(unsupported("invoice-pdf"))
    }

    /// `events.receive`: needs no network, only the clock for the signature's age.
    fn receive(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _headers: &[Property],
        _body: &[u8],
    ) -> Result<Vec<Event>, Problem> {
        Err(unsupported("receive"))
    }

    async fn get_webhook(&self, _world: &dyn Outside, _at: &Connection) -> Result<Option<Webhook>, Problem> {
        Err(unsupported("get-webhook"))
    }

    async fn set_webhook(
        &self,
        _world: &dyn Outside,
        _at: &Connection,
        _url: Option<String>,
    ) -> Result<Option<SecretString>, Problem> {
        Err(unsupported("set-webhook"))
    }
}

/// The answer to an operation that a provider lacks.
pub fn unsupported(operation: &str) -> Problem {
    problem(ProblemKind::Unsupported, format!("the provider has no operation `{operation}`"))
}

/// A failure that left nothing behind and that no retry mends; the caller changes what differs.
pub fn problem(kind: ProblemKind, message: impl Into<String>) -> Problem {
    Problem {
        kind,
        effect: Effect::None,
        retry: Retry::Never,
        message: message.into(),
        public_message: None,
        field: None,
        provider_code: None,
        remote_id: None,
    }
}

/// An input that is wrong, by its name.
pub fn invalid(field: &str, message: impl Into<String>) -> Problem {
    Problem { field: Some(field.to_owned()), retry: Retry::AfterFix, ..problem(ProblemKind::Invalid, message) }
}
