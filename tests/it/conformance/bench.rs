//! A reseller at a provider's answering end, a machine in front of that, and the client under test.

use std::cell::RefCell;
use std::time::Duration;

use provisor::server::Options;
use provisor_providers::books::{AccountId, Entry};
use provisor_providers::contract::{
    self, Account, Call, Capability, Money, Order, Outcome, Plan, PowerAction, Problem, Property, Service, ServiceRef, State,
};
use provisor_providers::money::Minor;
use provisor_providers::provisioning::{Connection, Provisioning};
use provisor_tests::faults::Upstream;
use provisor_tests::house::House;
use provisor_tests::resellers::unique;
use provisor_tests::world::World;
use rusqlite::types::FromSql;
use serde::Serialize;

use super::subjects::{MARK, PASSWORD, Subject, subject};
use super::through_component::ThroughComponent;

/// Enough for every test.
const CREDIT: &str = "1000.00";
/// Longer than any call of these tests takes.
const DEADLINE_MS: u32 = 20_000;

/// How the client is called.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    InProcess,
    ThroughTheComponent,
}

impl Way {
    pub(super) async fn to(self, provider: &'static str) -> Candidate {
        let client = match self {
            Self::InProcess => provisor_providers::find(provider).unwrap().client,
            // A test process runs one test.
            Self::ThroughTheComponent => Box::leak(Box::new(ThroughComponent::load(provider).await)),
        };
        Candidate { provider, client }
    }
}

/// A client to test.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) provider: &'static str,
    pub(super) client: &'static dyn Provisioning,
}

/// The operations that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Suspend,
    Unsuspend,
    Terminate,
    Renew,
    ResetPassword,
    ChangePackage,
    Power,
}

impl Operation {
    pub(super) const ALL: [Self; 8] = [
        Self::Create,
        Self::Suspend,
        Self::Unsuspend,
        Self::Renew,
        Self::ResetPassword,
        Self::ChangePackage,
        Self::Power,
        Self::Terminate,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Suspend => "suspend",
            Self::Unsuspend => "unsuspend",
            Self::Terminate => "terminate",
            Self::Renew => "renew",
            Self::ResetPassword => "reset-password",
            Self::ChangePackage => "change-package",
            Self::Power => "power",
        }
    }
}

/// What an operation is called with.
#[derive(Clone)]
pub(super) struct Intent {
    pub(super) operation: Operation,
    pub(super) call: Call,
    order: Order,
    service: ServiceRef,
    due_at: String,
}

impl Intent {
    /// The same, tried once more.
    pub(super) fn again(mut self) -> Self {
        self.call.attempt += 1;
        self
    }
}

/// The place where a property is tried.
pub(super) struct Bench {
    pub(super) house: House,
    pub(super) upstream: Upstream,
    pub(super) account: AccountId,
    pub(super) subject: &'static dyn Subject,
    pub(super) client: &'static dyn Provisioning,
    pub(super) world: World,
    pub(super) at: Connection,
    raw: contract::Connection,
    /// All that was told, to be searched for secrets.
    told: RefCell<String>,
}

impl Candidate {
    /// A reseller with plenty of credit.
    pub(super) async fn bench(self) -> Bench {
        self.bench_with(CREDIT).await
    }

    /// A reseller with so much credit.
    pub(super) async fn bench_with(self, credit: &str) -> Bench {
        let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
        options.rules.fulfilment_delay = Duration::ZERO;
        // A choice of our server: no client may lean on it.
        options.rules.renew_dedupe = false;
        let house = House::start_with(options).await;
        let upstream = Upstream::start(house.address()).await;
        let account = house.reseller(credit).await;
        let subject = subject(self.provider);
        let (key, secret) = subject.key(&house, account).await;
        let mount = provisor_providers::find(self.provider).unwrap().server.mount();
        let base_url = format!("http://{}{mount}", upstream.address());
        let mut settings = subject.settings();
        settings.push(contract::Setting { name: "allow_private".to_owned(), value: "true".to_owned() });
        let raw = contract::Connection { provider: self.provider.to_owned(), base_url, key, secret, settings };
        let at = raw.clone().into();
        let told = RefCell::default();
        Bench { house, upstream, account, subject, client: self.client, world: World::default(), at, raw, told }
    }
}

impl Bench {
    /// The connection with something else in it.
    pub(super) fn at(&self, change: impl FnOnce(&mut contract::Connection)) -> Connection {
        let mut raw = self.raw.clone();
        change(&mut raw);
        raw.into()
    }

    pub(super) fn capability(&self, operation: &str) -> Option<Capability> {
        self.client.info().capabilities.into_iter().find(|capability| capability.operation == operation)
    }

    pub(super) fn offers(&self, operation: Operation) -> bool {
        self.capability(operation.name()).is_some()
    }

    /// Keeps what was told.
    pub(super) fn told<T: Serialize>(&self, result: Result<T, Problem>) -> Result<T, Problem> {
        let text = result.as_ref().map_or_else(serde_json::to_string, serde_json::to_string).unwrap();
        self.told.borrow_mut().push_str(&text);
        result
    }

    pub(super) async fn check(&self) -> Result<Account, Problem> {
        self.told(self.client.check(&self.world, &self.at).await)
    }

    pub(super) async fn balance(&self) -> Result<Money, Problem> {
        self.told(self.client.balance(&self.world, &self.at).await)
    }

    pub(super) async fn catalog(&self) -> Result<Vec<Plan>, Problem> {
        self.told(self.client.catalog(&self.world, &self.at).await)
    }

    pub(super) async fn status(&self, service: &ServiceRef) -> Result<Service, Problem> {
        self.told(self.client.status(&self.world, &self.at, service.clone()).await)
    }

    /// An intended change with a key of its own, and with the evidence that `describe` asks the host to read before.
    pub(super) async fn intend(&self, operation: Operation, service: Option<&Service>) -> Intent {
        let reading = self.intend_at(&self.at, operation, service).await;
        reading.unwrap_or_else(|problem| panic!("the evidence: {}", problem.message))
    }

    /// The same; reading the evidence may fail.
    pub(super) async fn intend_at(
        &self,
        at: &Connection,
        operation: Operation,
        service: Option<&Service>,
    ) -> Result<Intent, Problem> {
        let (mut notes, order) = (Vec::new(), self.subject.order());
        for evidence in self.capability(operation.name()).map(|capability| capability.evidence).unwrap_or_default() {
            let value = match evidence.as_str() {
                "balance" => self.told(self.client.balance(&self.world, at).await)?.minor.to_string(),
                "status" => {
                    let ordered = ServiceRef { remote_id: None, domain: order.domain.clone(), username: None };
                    match self.told(self.client.status(&self.world, at, ordered).await)?.state {
                        State::Missing => "missing",
                        State::Terminated => "terminated",
                        _ => "active",
                    }
                    .to_owned()
                }
                other => panic!("a kind of evidence that the host does not know: {other}"),
            };
            notes.push(Property { name: format!("{evidence}-before"), value });
        }
        let call = Call { idempotency_key: format!("key-{}", unique()), attempt: 1, deadline_ms: DEADLINE_MS, notes };
        let due_at = service.and_then(|service| service.due_at.clone()).unwrap_or_else(|| "2027-01-15T08:00:00Z".to_owned());
        let service = service.map_or_else(|| self.subject.unknown(), reference);
        Ok(Intent { operation, call, order, service, due_at })
    }

    pub(super) async fn run(&self, intent: &Intent) -> Result<Outcome, Problem> {
        self.told(self.perform(&self.at, intent.clone()).await)
    }

    /// An operation at a connection.
    pub(super) async fn perform(&self, at: &Connection, intent: Intent) -> Result<Outcome, Problem> {
        let Intent { operation, call, order, service, due_at } = intent;
        let (client, world) = (self.client, &self.world);
        match operation {
            Operation::Create => client.create(world, at, call, order).await,
            Operation::Suspend => client.suspend(world, at, call, service, Some("unpaid".to_owned())).await,
            Operation::Unsuspend => client.unsuspend(world, at, call, service).await,
            Operation::Terminate => client.terminate(world, at, call, service).await,
            Operation::Renew => client.renew(world, at, call, service, due_at).await,
            Operation::ResetPassword => client.reset_password(world, at, call, service, Some(PASSWORD.into())).await,
            Operation::ChangePackage => {
                client.change_package(world, at, call, service, self.subject.other_plan().to_owned(), Vec::new()).await
            }
            Operation::Power => client.power(world, at, call, service, PowerAction::Stop).await,
        }
    }

    /// An active service.
    pub(super) async fn service(&self) -> Service {
        let intent = self.intend(Operation::Create, None).await;
        let made = self.run(&intent).await.unwrap_or_else(|problem| panic!("create: {}", problem.message));
        self.settled(service_of(made)).await
    }

    /// The service once the provider has finished it.
    pub(super) async fn settled(&self, mut service: Service) -> Service {
        for _ in 0..200 {
            service = self.status(&reference(&service)).await.unwrap();
            if service.state != State::Pending {
                return service;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} stays pending", service.remote_id);
    }

    /// Services bought and not ended, from the book.
    pub(super) fn bought(&self) -> i64 {
        self.query(self.subject.bought())
    }

    /// Charges, from the book.
    pub(super) fn charges(&self) -> i64 {
        self.query("SELECT COUNT(*) FROM ledger WHERE account_id = ?1 AND amount < 0")
    }

    /// Everything that can be changed, from the book.
    pub(super) fn everything(&self) -> String {
        self.query(self.subject.everything())
    }

    fn query<T: FromSql>(&self, query: &str) -> T {
        let book = rusqlite::Connection::open(self.house.directory().join("provisor.db")).unwrap();
        book.query_row(query, [self.account.0], |row| row.get(0)).unwrap()
    }

    /// Gives the reseller credit.
    pub(super) async fn credit(&self, amount: &str) {
        let (account, amount, now) = (self.account, amount.parse::<Minor>().unwrap(), jiff::Timestamp::now());
        let entry = move |books: &mut provisor::store::Transaction<'_>| {
            books.credit(account, amount, &Entry { at: now, kind: "top-up", reference: "test" })
        };
        self.house.store.transact(entry).await.unwrap();
    }
}

impl Drop for Bench {
    /// No property may let a secret out.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let told = self.told.borrow();
            let found = told.find(MARK).map(|at| told[at.saturating_sub(200)..].chars().take(300).collect::<String>());
            assert_eq!(found, None, "a secret was told");
        }
    }
}

/// A service by its id.
pub(super) fn reference(service: &Service) -> ServiceRef {
    ServiceRef { remote_id: Some(service.remote_id.clone()), domain: None, username: None }
}

/// The service of an outcome, finished or not.
pub(super) fn service_of(outcome: Outcome) -> Service {
    let (Outcome::Done(service) | Outcome::Pending(service)) = outcome;
    service
}
