//! The contract's functions, called for one profile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tracing::Instrument as _;
use wasmtime::Store;

use super::contract::{
    Account, Call, Connection, Contract, Effect, Event, FieldKind, FormPost, InvoicePage, Login, Money, Order, Outcome, Plan,
    PowerAction, Problem, Property, ProviderInfo, Service, ServicePage, ServiceRef, Setting, Webhook,
};
use super::log::GuestLog;
use super::profile::{BindError, Profile};
use super::sandbox::{Errand, Guest, Running};
use super::words::to_json;
use super::{Plugin, sandbox::CallError};
use crate::egress::Egress;
use crate::redaction::Secrets;

/// A component as one profile sees it. Clones share its connections.
#[derive(Clone)]
pub struct Caller(Arc<Bound>);

struct Bound {
    plugin: Plugin,
    profile: Profile,
    base_url: String,
    egress: Egress,
}

/// How much longer than its own deadline a change may take: a component that keeps its deadline tells better how things stand
/// than one that is stopped at it.
const GRACE: Duration = Duration::from_secs(2);

/// How one operation is called.
struct Manner {
    changes: bool,
    deadline: Option<Duration>,
    secrets: Vec<SecretString>,
    /// Those of the order that may be secret are hidden, too.
    options: Vec<Setting>,
}

impl Manner {
    fn asking() -> Self {
        Self { changes: false, deadline: None, secrets: Vec::new(), options: Vec::new() }
    }

    fn changing(call: &Call) -> Self {
        Self { changes: true, deadline: Some(Duration::from_millis(call.deadline_ms.into())), ..Self::asking() }
    }

    /// A value of this call that no log may show.
    fn hiding(mut self, secret: Option<&str>) -> Self {
        self.secrets.extend(secret.map(SecretString::from));
        self
    }

    fn with(mut self, options: &[Setting]) -> Self {
        self.options = options.to_vec();
        self
    }
}

/// What a function of the contract gives back, while it runs.
type Answering<'a, T> = Running<'a, Result<T, Problem>>;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident / $raw:ident ($($arg:ident: $type:ty => $pass:expr),*) -> $result:ty, $manner:expr;)*) => {
        impl Caller {
            $(
                $(#[$doc])*
                pub async fn $name(&self, $($arg: $type),*) -> Result<$result, Problem> {
                    let manner = $manner;
                    self.run(stringify!($name), manner, move |contract, store, at| {
                        Box::pin(async move { contract.provisor_provisioning_provisioning().$raw(store, at, $($pass),*).await })
                    })
                    .await
                }
            )*
        }
    };
}

operations! {
    /// Whether the connection works.
    check / call_check() -> Account, Manner::asking();
    /// The credit left with the provider.
    balance / call_balance() -> Money, Manner::asking();
    /// All plans that can be ordered.
    catalog / call_catalog() -> Vec<Plan>, Manner::asking();
    /// The account's services, one part at a time.
    list_services / call_list_services(cursor: Option<String> => cursor.as_deref()) -> ServicePage, Manner::asking();
    /// How a service stands.
    status / call_status(service: ServiceRef => &service) -> Service, Manner::asking();
    /// Makes a service. Charges.
    create / call_create(call: Call => &call, order: Order => &order) -> Outcome,
        Manner::changing(&call).hiding(order.password.as_deref()).with(&order.options);
    /// Suspends.
    suspend / call_suspend(call: Call => &call, service: ServiceRef => &service, reason: Option<String> => reason.as_deref())
        -> Outcome, Manner::changing(&call);
    /// Takes a suspension back.
    unsuspend / call_unsuspend(call: Call => &call, service: ServiceRef => &service) -> Outcome, Manner::changing(&call);
    /// Ends a service for good.
    terminate / call_terminate(call: Call => &call, service: ServiceRef => &service) -> Outcome, Manner::changing(&call);
    /// Pays the term that follows `due_at`. Charges.
    renew / call_renew(call: Call => &call, service: ServiceRef => &service, due_at: String => &due_at) -> Outcome,
        Manner::changing(&call);
    /// Sets a new password.
    reset_password / call_reset_password(call: Call => &call, service: ServiceRef => &service,
        password: Option<String> => password.as_deref()) -> Outcome, Manner::changing(&call).hiding(password.as_deref());
    /// Moves a service to another plan. May charge.
    change_package / call_change_package(call: Call => &call, service: ServiceRef => &service, plan: String => &plan,
        options: Vec<Setting> => &options) -> Outcome, Manner::changing(&call).with(&options);
    /// Switches a machine.
    power / call_power(call: Call => &call, service: ServiceRef => &service, action: PowerAction => action) -> Outcome,
        Manner::changing(&call);
    /// How to log in to a service. Secret.
    credentials / call_credentials(service: ServiceRef => &service) -> Login, Manner::asking();
    /// A form that logs a person in. Secret.
    sign_on / call_sign_on(service: ServiceRef => &service, target: String => &target) -> FormPost, Manner::asking();
    /// The account's invoices, one part at a time.
    invoices / call_invoices(cursor: Option<String> => cursor.as_deref()) -> InvoicePage, Manner::asking();
    /// An invoice as a PDF file.
    invoice_pdf / call_invoice_pdf(id: String => &id) -> Vec<u8>, Manner::asking();
}

impl Caller {
    pub(super) fn new(plugin: Plugin, profile: Profile) -> Result<Self, BindError> {
        let (base_url, policy) = profile.fit(&plugin)?;
        let options = &plugin.0.host.options;
        let egress = Egress::new(policy, options.egress.clone(), Arc::clone(&options.resolver))
            .map_err(|error| BindError::Roots(error.to_string()))?;
        Ok(Self(Arc::new(Bound { plugin, profile, base_url, egress })))
    }

    /// The same, but its component is told another base URL than the one that decides where it may go: what a component that
    /// goes astray would do.
    #[must_use]
    pub fn told_base_url(&self, base_url: &str) -> Self {
        let Bound { plugin, profile, egress, .. } = &*self.0;
        let (plugin, profile, egress) = (plugin.clone(), profile.clone(), egress.clone());
        Self(Arc::new(Bound { plugin, profile, base_url: base_url.to_owned(), egress }))
    }

    /// The profile it was made for.
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

    /// What the component says of the profile's provider.
    pub fn provider(&self) -> Option<&ProviderInfo> {
        self.0.plugin.provider(&self.0.profile.provider)
    }

    /// The options of an order of which the provider says that they are not secret. Any other may be.
    pub fn plain_options(&self) -> impl Iterator<Item = &str> {
        let fields = self.provider().into_iter().flat_map(|info| &info.order_fields);
        fields.filter(|field| field.kind != FieldKind::Secret).map(|field| field.name.as_str())
    }

    /// Evidence from before a change, under the name by which a capability asks for it. None for a name that this host does not know.
    pub async fn evidence(&self, name: &str, service: ServiceRef) -> Result<Option<Property>, Problem> {
        let value = match name {
            "balance" => self.balance().await?.minor.to_string(),
            "status" => word(&self.status(service).await?.state),
            _ => return Ok(None),
        };
        Ok(Some(Property { name: format!("{name}-before"), value }))
    }

    /// Verifies and reads a webhook of the provider: every header in its order, the raw body. Reaches no network.
    pub async fn receive(&self, headers: Vec<Property>, body: Vec<u8>) -> Result<Vec<Event>, Problem> {
        self.run("receive", Manner::asking(), move |contract, store, at| {
            Box::pin(async move { contract.provisor_provisioning_events().call_receive(store, at, &headers, &body).await })
        })
        .await
    }

    /// Where the provider sends webhooks now.
    pub async fn get_webhook(&self) -> Result<Option<Webhook>, Problem> {
        self.run("get_webhook", Manner::asking(), move |contract, store, at| {
            Box::pin(async move { contract.provisor_provisioning_events().call_get_webhook(store, at).await })
        })
        .await
    }

    /// Has webhooks sent to this address, or to none; the secret that signs them from now on, where the provider makes one.
    pub async fn set_webhook(&self, url: Option<String>) -> Result<Option<SecretString>, Problem> {
        let manner = Manner { changes: true, ..Manner::asking() };
        let set = self.run("set_webhook", manner, move |contract, store, at| {
            Box::pin(async move { contract.provisor_provisioning_events().call_set_webhook(store, at, url.as_deref()).await })
        });
        Ok(set.await?.map(SecretString::from))
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        manner: Manner,
        ask: impl for<'a> FnOnce(&'a Contract, &'a mut Store<Guest>, &'a Connection) -> Answering<'a, T> + Send + 'static,
    ) -> Result<T, Problem> {
        let Bound { plugin, profile, base_url, egress } = &*self.0;
        let log = GuestLog::default();
        let sent = Arc::new(AtomicU32::new(0));
        let limits = &plugin.0.host.sandbox.limits;
        let wall = manner.deadline.map_or(limits.wall, |deadline| limits.change_wall.min(deadline + GRACE));
        let errand = Errand { egress: Some(egress.clone()), wall, log: log.clone(), sent: Arc::clone(&sent) };
        let at = profile.connection(base_url);
        let pre = plugin.0.pre.clone();
        let running = plugin.0.host.sandbox.call(errand, move |store| {
            Box::pin(async move {
                let contract = pre.instantiate_async(&mut *store).await?;
                ask(&contract, store, &at.0).await
            })
        });
        // The caller's span carries the request id.
        let span = tracing::info_span!("plugin", profile = profile.name, operation);
        let answer = running.instrument(span.clone()).await;
        span.in_scope(|| {
            let may_be_secret = |option: &&Setting| self.plain_options().all(|plain| plain != option.name);
            let options = manner.options.iter().filter(may_be_secret).map(|option| SecretString::from(option.value.as_str()));
            let options: Vec<SecretString> = options.collect();
            let secrets = Secrets::new(profile.secrets().chain(&manner.secrets).chain(&options));
            plugin.0.host.tell(&log, &secrets);
            match answer {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(problem)) if manner.changes => Err(redacted(problem, &secrets)),
                // A question has no effect, whatever the component says.
                Ok(Err(problem)) => Err(Problem { effect: Effect::None, ..redacted(problem, &secrets) }),
                Err(error) => Err(failed(&error, manner.changes && sent.load(Ordering::Relaxed) > 0)),
            }
        })
    }
}

/// A case of an enum, as WIT spells it.
fn word<T: serde::Serialize>(case: &T) -> String {
    to_json(case).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn failed(error: &CallError, may_have_acted: bool) -> Problem {
    tracing::error!(%error, may_have_acted, "a component's call failed");
    error.problem(may_have_acted)
}

/// A problem travels to logs, journals and panels.
fn redacted(problem: Problem, secrets: &Secrets) -> Problem {
    let clean = |text: Option<String>| text.map(|text| secrets.redact(&text));
    Problem {
        message: secrets.redact(&problem.message),
        public_message: clean(problem.public_message),
        provider_code: clean(problem.provider_code),
        field: clean(problem.field),
        ..problem
    }
}
