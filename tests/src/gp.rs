//! The GP server without HTTP: its two steps run on a book, under a clock that stands still, and a network that loses what it is told to.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use provisor::store::{NewKey, Store, Transaction};
use provisor_providers::books::{AccountId, Books, Entry, Fault, License};
use provisor_providers::contract::{self, Call, ServiceRef};
use provisor_providers::gp::{Server, hash, password};
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::money::Minor;
use provisor_providers::outside::{Outside, SendError};
use provisor_providers::provisioning::Connection;
use provisor_providers::server::{Admission, From, Key, KeyLimits, Keys, Moment, Rules, Server as _, Step, Visit};
use secrecy::SecretString;

use crate::book::{Book, Engine};

/// The first reseller's API key.
pub const KEY: &str = "wF3E2mEex6yPup8tn6Cvn6dvJipU1LBPSSHkebbo";
/// The second one's.
pub const OTHER_KEY: &str = "QFS1BqkoUeuJHuIr3eBCF16mVhPuu6L3ID2drFhe";
/// One that every rule allows.
pub const PASSWORD: &str = "S3cure!pass";
/// Where the first reseller is.
pub const HERE: &str = "192.0.2.10";
/// The first reseller's second address.
pub const ALSO_HERE: &str = "192.0.2.11";
/// Where the second one is.
pub const THERE: &str = "198.51.100.7";
/// When it all begins: 2026-09-21 14:13:20 UTC.
pub const START: i64 = 1_790_000_000;
/// More than a test asks for.
pub const PLENTY: KeyLimits = KeyLimits { per_minute: 60_000, burst: 10_000, per_day: 1_000_000 };

/// A server with two resellers, [`KEY`] at [`HERE`] and [`ALSO_HERE`], and [`OTHER_KEY`] at [`THERE`], 100.00 EUR each.
pub struct House {
    /// The book.
    pub store: Store,
    /// The server's clock.
    pub now: Cell<Timestamp>,
    /// The operator's choices.
    pub rules: RefCell<Rules>,
    /// The first reseller.
    pub account: AccountId,
    runtime: tokio::runtime::Runtime,
    count: Cell<u64>,
    _book: Book,
}

struct FromStore<'a>(&'a Store);

impl Keys for FromStore<'_> {
    fn find(&self, provider: &str, public_id: &str, _from: From) -> Result<Option<Arc<Key>>, Fault> {
        self.0.read(|books| books.find_key(provider, public_id))
    }

    fn at_address(&self, provider: &str, address: IpAddr, _from: From) -> Result<Vec<Arc<Key>>, Fault> {
        self.0.read(|books| books.keys_at(provider, address))
    }
}

/// An answer with its body read as text.
pub struct Said {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub json: String,
    /// The head.
    pub headers: Headers,
    /// Not sooner than this does the host send it.
    pub floor: Duration,
}

impl House {
    /// A new one on an engine.
    pub fn on(engine: Engine) -> Self {
        let book = Book::new(engine);
        let store = book.open();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let now = Timestamp::from_second(START).unwrap();
        let mut house = Self {
            store,
            runtime,
            now: Cell::new(now),
            count: Cell::new(0),
            rules: RefCell::default(),
            account: AccountId(0),
            _book: book,
        };
        house.account = house.reseller(KEY, &[HERE, ALSO_HERE], "EUR", PLENTY);
        house.reseller(OTHER_KEY, &[THERE], "EUR", KeyLimits::default());
        house
    }

    /// A reseller with 100.00 of credit, whose key is found at these addresses.
    pub fn reseller(&self, secret: &'static str, addresses: &[&str], currency: &'static str, limits: KeyLimits) -> AccountId {
        let now = self.now.get();
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.transact(move |books| {
            let name = &secret[..8];
            let account = books.create_account(name, "reseller@example.com", currency, now)?;
            books.credit(account, Minor(10_000), &Entry { at: now, kind: "credit", reference: "test" })?;
            let key = NewKey {
                account,
                provider: "gp".to_owned(),
                public_id: format!("gp_{name}"),
                label: "test".to_owned(),
                secret: SecretString::from(secret),
                scopes: Vec::new(),
                allowed: Vec::new(),
                addresses: addresses.clone(),
                limits,
                expires_at: None,
            };
            books.create_key(&key, now)?;
            Ok(account)
        })
    }

    /// A transaction past the API.
    pub fn transact<T: Send + 'static>(&self, work: impl FnMut(&mut Transaction<'_>) -> Result<T, Fault> + Send + 'static) -> T {
        self.runtime.block_on(self.store.transact(work)).unwrap()
    }

    /// Lets time go by.
    pub fn pass(&self, seconds: i64) {
        self.now.set(self.now.get() + SignedDuration::from_secs(seconds));
    }

    /// The scheduler's turn: everything that is due. Returns when it wants to be called next.
    pub fn tick(&self) -> Option<Timestamp> {
        for _ in 0..100 {
            let moment = Moment { now: self.now.get(), seed: seed(0), rules: self.rules.borrow().clone() };
            let next = self.transact(move |books| Server.tick(&moment, books));
            if next.is_none_or(|next| next > self.now.get()) {
                return next;
            }
        }
        panic!("the scheduler finds no end");
    }

    /// What the server says to a request from an address.
    pub fn serve(&self, request: Request, peer: &str) -> Said {
        let count = self.count.get() + 1;
        self.count.set(count);
        let moment = Moment { now: self.now.get(), seed: seed(count), rules: self.rules.borrow().clone() };
        let visit =
            Visit { request, prefix: "".into(), peer: peer.parse().unwrap(), request_id: format!("request-{count}"), moment };
        let (response, floor) = match Server.admit(Arc::new(visit), &FromStore(&self.store)).unwrap() {
            Admission::Answered(response) => (response, Duration::ZERO),
            Admission::Work(work) => match self.transact(move |books| work(books)) {
                Step::Answer { response, floor } => (response, floor),
                Step::Stale => panic!("no key changed"),
                Step::Between { need, .. } => panic!("this API needs nothing between transactions, not even {need:?}"),
            },
        };
        assert_eq!(response.headers.once("x-request-id"), Some(format!("request-{count}").as_str()));
        assert_eq!(response.headers.once("content-type"), Some("application/json"));
        let Response { status, headers, body } = response;
        Said { status, json: String::from_utf8(body).unwrap(), headers, floor }
    }

    /// The same for a form at an endpoint.
    pub fn post(&self, endpoint: &str, fields: &[(&str, &str)], peer: &str) -> Said {
        self.serve(request("POST", &format!("/{endpoint}/"), &urlencoded(fields)), peer)
    }

    /// A request as an honest client would send it now; a second one gets another shuffle.
    pub fn fields(&self, key: &str, domain: &str) -> [(&'static str, String); 3] {
        let count = self.count.get() + 1;
        self.count.set(count);
        let moment = Moment { now: self.now.get(), seed: seed(count), rules: Rules::default() };
        let timestamp = hash::shuffled_timestamp(moment.now, &mut moment.rng());
        let hash = hash::hash(key, domain, &timestamp);
        [("domain", domain.to_owned()), ("hash", hash), ("timestamp", timestamp)]
    }

    /// What the first reseller is answered, at status 200.
    pub fn ask(&self, endpoint: &str, domain: &str, more: &[(&str, &str)]) -> String {
        let signed = self.fields(KEY, domain);
        let fields: Vec<(&str, &str)> =
            signed.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
        let said = self.post(endpoint, &fields, HERE);
        assert_eq!(said.status, 200, "{}", said.json);
        said.json
    }

    /// The first reseller orders a package.
    pub fn register(&self, domain: &str, package: &str) -> String {
        let sealed = self.sealed(PASSWORD);
        self.ask("autoregister", domain, &[("package", package), ("password", &sealed), ("uemail", "a@example.com")])
    }

    /// A password sealed by the first reseller, under an IV of its own.
    pub fn sealed(&self, password: &str) -> String {
        let count = self.count.get() + 1;
        self.count.set(count);
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&count.to_be_bytes());
        password::seal(KEY, password, iv).unwrap()
    }

    /// The first reseller's credit in cents.
    pub fn balance(&self) -> i64 {
        let account = self.account;
        self.store.read(move |books| books.account(account).profile()).unwrap().balance.0
    }

    /// The first reseller's license.
    pub fn license(&self, domain: &str) -> Option<License> {
        let account = self.account;
        self.store.read(|books| books.account(account).license(domain)).unwrap()
    }

    /// Event and reason of the last request that belongs to the first reseller.
    pub fn last_audited(&self) -> (String, Option<String>) {
        let stream = self.account.0;
        let rows = self.store.read(|books| books.audit_rows(stream, 0, 1000)).unwrap();
        let last = rows.last().unwrap();
        (last.row.event.clone(), last.row.reason.clone())
    }
}

fn seed(count: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&count.to_be_bytes());
    seed
}

/// A form as it is posted.
pub fn request(method: &str, target: &str, body: &str) -> Request {
    let headers = Headers::new().with("Content-Type", "application/x-www-form-urlencoded");
    Request { method: method.to_owned(), target: target.to_owned(), headers, body: body.as_bytes().to_vec() }
}

/// A form as a body.
pub fn urlencoded(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{}={}", percent(name.as_bytes()), percent(value.as_bytes()));
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Every byte percent-encoded.
pub fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}

/// A body that is a status alone.
pub fn status(text: &str) -> String {
    format!(r#"{{"status":"{text}"}}"#)
}

/// The body of every refusal that must not say why.
pub fn failed() -> String {
    status("Connection failed")
}

/// The network between both ends. It can lose the answer, or the request itself, of chosen endpoints.
pub struct Wire<'a> {
    house: &'a House,
    /// Of these endpoints the next answer is lost, the request was executed.
    pub lose_answers: RefCell<Vec<&'static str>>,
    /// Of these the next request does not arrive.
    pub lose_requests: RefCell<Vec<&'static str>>,
    /// The endpoints asked so far.
    pub asked: RefCell<Vec<String>>,
    /// Seconds that a request takes.
    pace: i64,
    counter: Cell<u64>,
}

impl<'a> Wire<'a> {
    /// One on which no time passes.
    pub fn at_once(house: &'a House) -> Self {
        Self { pace: 0, ..Self::new(house) }
    }

    /// One that loses nothing.
    pub fn new(house: &'a House) -> Self {
        let counter = Cell::new(house.count.get().wrapping_mul(1_000_003) + 11);
        Self {
            house,
            lose_answers: RefCell::default(),
            lose_requests: RefCell::default(),
            asked: RefCell::default(),
            pace: 1,
            counter,
        }
    }
}

fn takes(list: &RefCell<Vec<&'static str>>, endpoint: &str) -> bool {
    let mut list = list.borrow_mut();
    let found = list.iter().position(|name| *name == endpoint);
    found.map(|position| list.remove(position)).is_some()
}

#[async_trait(?Send)]
impl Outside for Wire<'_> {
    async fn send(&self, mut request: Request, _timeout: Duration) -> Result<Response, SendError> {
        request.target = request.target.replace("https://gp.example/api/v1", "");
        let endpoint = request.target.trim_matches('/').to_owned();
        self.asked.borrow_mut().push(endpoint.clone());
        self.house.pass(self.pace);
        if takes(&self.lose_requests, &endpoint) {
            return Err(SendError::Lost("reset".to_owned()));
        }
        let said = self.house.serve(request, HERE);
        if takes(&self.lose_answers, &endpoint) {
            return Err(SendError::Lost("reset".to_owned()));
        }
        Ok(Response { status: said.status, headers: said.headers, body: said.json.into_bytes() })
    }

    async fn sleep(&self, _time: Duration) {
        self.house.pass(1);
    }

    fn now(&self) -> Timestamp {
        self.house.now.get()
    }

    fn ticks(&self) -> Duration {
        Duration::ZERO
    }

    fn random(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let next = self.counter.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.counter.set(next);
            *byte = next.to_be_bytes()[0];
        }
    }
}

/// Runs what never waits for anything but [`Wire`].
pub fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("this network never lets wait"),
    }
}

/// The first reseller's connection, the key pasted with what stood around it.
pub fn at() -> Connection {
    contract::Connection {
        provider: "gp".to_owned(),
        base_url: "https://gp.example/api/v1".to_owned(),
        key: String::new(),
        secret: format!(" {KEY}\n"),
        settings: Vec::new(),
    }
    .into()
}

/// A change, tried for the so manieth time.
pub fn call(attempt: u32) -> Call {
    Call { idempotency_key: "k".to_owned(), attempt, deadline_ms: 60_000, notes: Vec::new() }
}

/// The service of example.com.
pub fn named() -> ServiceRef {
    ServiceRef { remote_id: Some("example.com".to_owned()), domain: None, username: None }
}
