//! Both ends of the GP API against real books: the server on SQLite, and the client across a network that loses answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use provisor::store::{NewKey, Store};
use provisor_providers::books::{AccountId, Books, Entry, Fault, License};
use provisor_providers::contract::{self, Call, Order, Outcome, Problem, Property, ServiceRef, State};
use provisor_providers::gp::{Client, Server, hash, password};
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::money::Minor;
use provisor_providers::outside::{Outside, SendError};
use provisor_providers::provisioning::{Connection, Provisioning};
use provisor_providers::server::{Admission, From, Key, KeyLimits, Keys, Moment, Rules, Server as _, Step, Visit};
use provisor_tests::book::{Book, Engine};
use secrecy::SecretString;

const KEY: &str = "wF3E2mEex6yPup8tn6Cvn6dvJipU1LBPSSHkebbo";
const OTHER_KEY: &str = "QFS1BqkoUeuJHuIr3eBCF16mVhPuu6L3ID2drFhe";
const PASSWORD: &str = "S3cure!pass";
const HERE: &str = "192.0.2.10";
/// The first reseller's second address.
const ALSO_HERE: &str = "192.0.2.11";
const THERE: &str = "198.51.100.7";
const START: i64 = 1_790_000_000;
const PLENTY: KeyLimits = KeyLimits { per_minute: 60_000, burst: 10_000, per_day: 1_000_000 };

/// A server with two resellers, `KEY` at `HERE` and `ALSO_HERE`, and `OTHER_KEY` at `THERE`, 100.00 EUR each.
struct House {
    store: Store,
    runtime: tokio::runtime::Runtime,
    now: Cell<Timestamp>,
    count: Cell<u64>,
    rules: RefCell<Rules>,
    account: AccountId,
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
struct Said {
    status: u16,
    json: String,
    headers: Headers,
    floor: Duration,
}

impl House {
    fn new() -> Self {
        let book = Book::new(Engine::of_module(module_path!()));
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

    fn reseller(&self, secret: &'static str, addresses: &[&str], currency: &'static str, limits: KeyLimits) -> AccountId {
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

    fn transact<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut provisor::store::Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> T {
        self.runtime.block_on(self.store.transact(work)).unwrap()
    }

    fn pass(&self, seconds: i64) {
        self.now.set(self.now.get() + SignedDuration::from_secs(seconds));
    }

    fn serve(&self, request: Request, peer: &str) -> Said {
        let count = self.count.get() + 1;
        self.count.set(count);
        let moment = Moment { now: self.now.get(), seed: seed(count), rules: self.rules.borrow().clone() };
        let visit = Visit { request, peer: peer.parse().unwrap(), request_id: format!("request-{count}"), moment };
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

    fn post(&self, endpoint: &str, fields: &[(&str, &str)], peer: &str) -> Said {
        self.serve(request("POST", &format!("/{endpoint}/"), &urlencoded(fields)), peer)
    }

    /// A request as an honest client would send it now; a second one gets another shuffle.
    fn fields(&self, key: &str, domain: &str) -> [(&'static str, String); 3] {
        let count = self.count.get() + 1;
        self.count.set(count);
        let moment = Moment { now: self.now.get(), seed: seed(count), rules: Rules::default() };
        let timestamp = hash::shuffled_timestamp(moment.now, &mut moment.rng());
        let hash = hash::hash(key, domain, &timestamp);
        [("domain", domain.to_owned()), ("hash", hash), ("timestamp", timestamp)]
    }

    fn ask(&self, endpoint: &str, domain: &str, more: &[(&str, &str)]) -> String {
        let signed = self.fields(KEY, domain);
        let fields: Vec<(&str, &str)> =
            signed.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
        let said = self.post(endpoint, &fields, HERE);
        assert_eq!(said.status, 200, "{}", said.json);
        said.json
    }

    fn register(&self, domain: &str, package: &str) -> String {
        let sealed = self.sealed(PASSWORD);
        self.ask("autoregister", domain, &[("package", package), ("password", &sealed), ("uemail", "a@example.com")])
    }

    /// Under an IV of its own.
    fn sealed(&self, password: &str) -> String {
        let count = self.count.get() + 1;
        self.count.set(count);
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&count.to_be_bytes());
        password::seal(KEY, password, iv).unwrap()
    }

    fn balance(&self) -> i64 {
        let account = self.account;
        self.store.read(move |books| books.account(account).profile()).unwrap().balance.0
    }

    fn license(&self, domain: &str) -> Option<License> {
        let account = self.account;
        self.store.read(|books| books.account(account).license(domain)).unwrap()
    }

    /// Event and reason of the last request that belongs to the first reseller.
    fn last_audited(&self) -> (String, Option<String>) {
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

fn request(method: &str, target: &str, body: &str) -> Request {
    let headers = Headers::new().with("Content-Type", "application/x-www-form-urlencoded");
    Request { method: method.to_owned(), target: target.to_owned(), headers, body: body.as_bytes().to_vec() }
}

fn urlencoded(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

fn status(text: &str) -> String {
    format!(r#"{{"status":"{text}"}}"#)
}

fn failed() -> String {
    status("Connection failed")
}

#[test]
fn the_life_of_a_package() {
    let house = House::new();
    let domain = "example.com";
    assert_eq!(house.ask("connection", domain, &[]), status("ok"));
    assert_eq!(house.ask("getcredit", domain, &[]), status("OK - 100.00"));
    assert_eq!(house.ask("list", domain, &[]), status("Package not Found!"));
    let made = house.register("Example.COM", "10K");
    let token = house.license(domain).unwrap().token;
    assert!(token.len() == 40 && token.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
    assert_eq!(made, format!(r#"{{"status":"ok","token":"{token}"}}"#));
    assert_eq!(house.ask("list", domain, &[]), r#"{"status":"active","exist":"exists"}"#);
    let after_order = house.balance();
    assert!(after_order < 10_000);

    // The same again is the same package; another one is not.
    assert_eq!(house.register(domain, "10k"), made);
    assert_eq!(house.register(domain, "20k"), status("Domain already registered"));
    assert_eq!(house.balance(), after_order);

    let update = |state: &str, package: &str| house.ask("packageupdate", domain, &[("status", state), ("package", package)]);
    for _ in 0..2 {
        assert_eq!(house.ask("suspended", domain, &[]), status("ok"));
    }
    assert_eq!(house.ask("list", domain, &[]), r#"{"status":"suspended","exist":"exists"}"#);
    house.pass(60);
    assert_eq!(update("active", "20k"), status("Package is suspended. Please unsuspend it to continue."));
    let sealed = house.sealed(PASSWORD);
    let no_package = status("Error changing password. No active package found!");
    assert_eq!(house.ask("passwordreset", domain, &[("password", &sealed)]), no_package);
    for _ in 0..2 {
        assert_eq!(house.ask("active", domain, &[]), status("ok"));
    }
    assert_eq!(update("active", "5k"), status("Invalid package name"));
    assert_eq!(update("active", "Free"), status("Downgrade not allowed."));
    assert_eq!(update("active", "20K"), status("ok"));
    assert_eq!(house.license(domain).unwrap().package, "20k");

    assert_eq!(house.ask("delete", domain, &[]), status("ok"));
    for (endpoint, text) in [
        ("list", "Package not Found!"),
        ("suspended", "Package not Found!"),
        ("active", "Package not found!"),
        ("renew", "Package not found!"),
        ("delete", "Package not found!"),
    ] {
        assert_eq!(house.ask(endpoint, domain, &[]), status(text), "{endpoint}");
    }
    // A package of its own.
    house.pass(60);
    assert_ne!(house.register(domain, "10k"), made);
}

#[test]
fn money_moves_once_and_exactly() {
    let house = House::new();
    house.register("a.example", "10k");
    assert_eq!(house.balance(), 10_000 - 490);
    let due = |domain: &str| house.license(domain).unwrap().due_at.to_string()[..10].to_owned();
    assert_eq!(due("a.example"), "2026-10-21");
    // A second more than 20 of the 30 days are left: more than two thirds of 3.00, rounded up.
    house.pass(10 * 86_400 - 1);
    for _ in 0..2 {
        house.ask("packageupdate", "a.example", &[("status", "active"), ("package", "20k")]);
        assert_eq!(house.balance(), 9510 - 201);
    }
    for (seconds, balance) in [(0, 9309 - 790), (599, 9309 - 790), (1, 9309 - 2 * 790)] {
        house.pass(seconds);
        assert_eq!(house.ask("renew", "a.example", &[]), status("ok"));
        assert_eq!(house.balance(), balance, "{seconds}");
    }
    assert_eq!(due("a.example"), "2026-12-21");
    // Long overdue: the new term begins now.
    house.pass(100 * 86_400);
    house.ask("renew", "a.example", &[]);
    assert_eq!(due("a.example"), "2027-02-09");

    house.register("free.example", "Free");
    let before = house.balance();
    assert_eq!(house.ask("renew", "free.example", &[]), status("ok"));
    assert_eq!(house.register("rich.example", "1M"), status("Insufficient credit"));
    assert!(house.license("rich.example").is_none());
    assert_eq!(house.balance(), before);
}

#[test]
fn others_learn_one_thing_only() {
    let house = House::new();
    house.register("a.example", "10k");
    let sealed = password::seal(OTHER_KEY, PASSWORD, [1; 16]).unwrap();
    for (endpoint, text) in [
        ("autoregister", "Domain already registered"),
        ("list", "Package not Found!"),
        ("suspended", "Package not Found!"),
        ("delete", "Package not found!"),
        ("renew", "Package not found!"),
        ("packageupdate", "Package not found!"),
        ("passwordreset", "Error changing password. No active package found!"),
    ] {
        let signed = house.fields(OTHER_KEY, "a.example");
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend([("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com"), ("status", "active")]);
        assert_eq!(house.post(endpoint, &fields, THERE).json, status(text), "{endpoint}");
    }
    assert!(house.license("a.example").is_some());
}

#[test]
fn the_order_of_checks() {
    let house = House::new();
    let signed = house.fields(KEY, "example.com");
    let [domain, hash, timestamp] = signed.each_ref().map(|(_, value)| value.as_str());
    let upper = hash.to_uppercase();
    for (fields, expected) in [
        (&[][..], "Request Missing data!"),
        (&[("domain", ""), ("other", "x")], "Request Missing data!"),
        (&[("hash", hash), ("timestamp", timestamp)], "Request Missing data! domain"),
        (&[("domain", domain), ("timestamp", timestamp)], "Request Missing data! hash"),
        (&[("domain", domain), ("hash", hash)], "Request Missing data! timestamp"),
        (&[("domain", domain), ("domain", domain), ("hash", hash), ("timestamp", timestamp)], "Request Missing data! domain"),
        (&[("domain", "example.com."), ("hash", hash), ("timestamp", timestamp)], "Request Missing data! domain"),
        (&[("domain", domain), ("hash", &hash[..39]), ("timestamp", timestamp)], "Request Missing data! hash"),
        (&[("domain", domain), ("hash", hash), ("timestamp", "179000000")], "Request Missing data! timestamp"),
        (&[("domain", "EXAMPLE.com"), ("hash", hash), ("timestamp", timestamp)], "Connection failed"),
        (&[("domain", domain), ("hash", &upper), ("timestamp", timestamp)], "ok"),
        // Spelled otherwise, it is the same hash.
        (&[("domain", domain), ("hash", hash), ("timestamp", timestamp)], "Connection failed"),
    ] {
        assert_eq!(house.post("connection", fields, HERE).json, status(expected));
    }
    let good = house.fields(KEY, "example.com");
    let good: Vec<(&str, &str)> = good.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(house.post("connection", &good, THERE).json, failed());
    assert_eq!(house.post("connection", &good, "203.0.113.1").json, failed());
    assert_eq!(house.post("connection", &good, "::ffff:192.0.2.10").json, status("ok"));
}

#[test]
fn what_is_not_a_post_to_an_endpoint() {
    let house = House::new();
    for (method, target, code, text, location) in [
        ("GET", "/list/", 405, "Method not allowed. Use POST.", None),
        ("GET", "/nowhere", 405, "Method not allowed. Use POST.", None),
        ("post", "/list/", 405, "Method not allowed. Use POST.", None),
        ("POST", "/list", 308, "Use the address with the ending slash.", Some("list/")),
        ("POST", "/", 404, "Unknown endpoint", None),
        ("POST", "/LIST/", 404, "Unknown endpoint", None),
        ("POST", "//list/", 404, "Unknown endpoint", None),
        ("POST", "/list//", 404, "Unknown endpoint", None),
        ("POST", "/%6cist/", 404, "Unknown endpoint", None),
        ("POST", "/list/?domain=a.example", 200, "Request Missing data!", None),
    ] {
        let said = house.serve(request(method, target, ""), HERE);
        assert_eq!((said.status, said.json), (code, status(text)), "{method} {target}");
        assert_eq!(said.headers.once("location"), location);
        assert_eq!(said.headers.once("allow"), (code == 405).then_some("POST"));
    }
    let mut strange = request("POST", "/connection/", "{}");
    strange.headers = Headers::new().with("Content-Type", "application/json");
    assert_eq!(house.serve(strange, HERE).json, status("Request Missing data!"));
}

#[test]
fn phps_multipart_works_too() {
    let house = House::new();
    let sealed = house.sealed(PASSWORD);
    let more = [("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com")];
    let signed = house.fields(KEY, "example.com");
    let fields = signed.iter().map(|(name, value)| (*name, value.as_str())).chain(more);
    let mut body: String = fields
        .map(|(name, value)| format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"))
        .collect::<Vec<_>>()
        .concat();
    body.push_str("--b0--\r\n");
    let mut posted = request("POST", "/autoregister/", &body);
    posted.headers = Headers::new().with("Content-Type", "multipart/form-data; boundary=b0");
    assert!(house.serve(posted, HERE).json.starts_with(r#"{"status":"ok","token":""#));
}

#[test]
fn a_hash_is_good_for_one_request() {
    let house = House::new();
    house.register("example.com", "10k");
    let balance = house.balance();
    let signed = house.fields(KEY, "example.com");
    let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let first = house.post("renew", &fields, HERE).json;
    let paid = house.balance();
    assert!(first == status("ok") && paid < balance);
    house.rules.borrow_mut().renew_dedupe = false;
    // A transport's retry gets the answer, not the effect.
    assert_eq!(house.post("renew", &fields, HERE).json, first);
    assert_eq!(house.last_audited().0, "gp.resent");
    let reused = ("gp.hash_reuse".to_owned(), Some("hash_reuse".to_owned()));
    // Anything else under the hash is a replay.
    assert_eq!(house.post("renew", &fields, ALSO_HERE).json, failed());
    assert_eq!(house.last_audited(), reused);
    let mut more = fields.clone();
    more.push(("extra", "1"));
    assert_eq!(house.post("renew", &more, HERE).json, failed());
    assert_eq!(house.last_audited(), reused);
    for endpoint in ["delete", "suspended", "list", "getcredit"] {
        assert_eq!(house.post(endpoint, &fields, HERE).json, failed(), "{endpoint}");
        assert_eq!(house.last_audited(), reused);
    }
    house.pass(60);
    assert_eq!(house.post("renew", &fields, HERE).json, first);
    house.pass(1);
    assert_eq!(house.post("renew", &fields, HERE).json, failed());
    assert_eq!(house.balance(), paid);
    // Honest shuffles collide, so none of this has locked the key.
    assert_eq!(house.ask("list", "example.com", &[]), r#"{"status":"active","exist":"exists"}"#);
    // A year later the digits may be fresh again; the hash is not.
    house.rules.borrow_mut().freshness = false;
    house.pass(365 * 86_400);
    assert_eq!(house.post("delete", &fields, HERE).json, failed());
}

#[test]
fn stale_digits_are_refused_unless_the_operator_says_otherwise() {
    let house = House::new();
    let captured = || {
        let signed = house.fields(KEY, "example.com");
        house.pass(12_345);
        signed
    };
    let signed = captured();
    let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(house.post("connection", &fields, HERE).json, failed());
    assert_eq!(house.last_audited().1.as_deref(), Some("stale_timestamp"));
    house.rules.borrow_mut().freshness = false;
    assert_eq!(house.post("connection", &fields, HERE).json, status("ok"));
}

#[test]
fn five_wrong_hashes_lock_the_key_for_a_quarter_of_an_hour() {
    let house = House::new();
    let wrong = || {
        let signed = house.fields("not the key", "example.com");
        let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(house.post("list", &fields, HERE).json, failed());
    };
    for _ in 0..4 {
        wrong();
    }
    assert_eq!(house.ask("connection", "example.com", &[]), status("ok"));
    wrong();
    assert_eq!(house.last_audited().0, "key.locked");
    assert_eq!(house.ask("connection", "example.com", &[]), failed());
    assert_eq!(house.last_audited().1.as_deref(), Some("locked_key"));
    // A lock does not grow by what it keeps out.
    house.pass(600);
    for _ in 0..5 {
        wrong();
    }
    house.pass(299);
    assert_eq!(house.ask("connection", "example.com", &[]), failed());
    house.pass(1);
    assert_eq!(house.ask("connection", "example.com", &[]), status("ok"));
}

/// Every MAC below holds: what keeps the padding oracle shut is one answer, and one IV per ciphertext.
#[test]
fn a_rewritten_envelope_is_no_oracle() {
    let house = House::new();
    house.rules.borrow_mut().lock.failures = 0;
    house.register("example.com", "10k");
    let captured = password::seal(KEY, "Tr0ub4dor&3xyz!", [9; 16]).unwrap();
    let reset = |envelope: &str| {
        house.pass(10);
        let signed = house.fields(KEY, "example.com");
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.push(("password", envelope));
        house.post("passwordreset", &fields, HERE)
    };
    assert_eq!(reset(&captured).json, status("ok"));
    let stored = house.license("example.com").unwrap().password_hash;
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    for last in 0..=255_u8 {
        let rewritten = with_iv(&captured, |iv| iv[15] = last);
        let said = reset(&rewritten);
        if rewritten == captured {
            assert_eq!(said.json, status("ok"));
        } else {
            assert_eq!((said.json, said.floor), (status("Invalid Password"), Duration::from_millis(150)));
        }
    }
    // A ciphertext first seen under a rewritten IV is noted although it does not open.
    let undelivered = password::seal(KEY, "Tr0ub4dor&3xyz!", [8; 16]).unwrap();
    assert_eq!(reset(&with_iv(&undelivered, |iv| iv[15] ^= 0x40)).json, status("Invalid Password"));
    assert_eq!(reset(&undelivered).json, status("Invalid Password"));
    // And although the request fails for another reason.
    let sealed = password::seal(KEY, "Tr0ub4dor&3xyz!", [7; 16]).unwrap();
    let more = [("package", "1M"), ("password", sealed.as_str()), ("uemail", "a@example.com")];
    assert_eq!(house.ask("autoregister", "rich.example", &more), status("Insufficient credit"));
    assert_eq!(reset(&with_iv(&sealed, |iv| iv[0] ^= 0x01)).json, status("Invalid Password"));
}

/// The envelope under a changed IV. Base64 is undone by hand of the fixed layout: the IV is the first 16 bytes.
fn with_iv(envelope: &str, change: impl FnOnce(&mut [u8])) -> String {
    use base64::Engine;
    let mut bytes = base64::engine::general_purpose::STANDARD.decode(envelope).unwrap();
    change(&mut bytes[..16]);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn every_bad_envelope_gets_one_answer_and_counts() {
    let house = House::new();
    house.register("example.com", "10k");
    let weak = house.sealed("alllowercase");
    let foreign = password::seal(OTHER_KEY, PASSWORD, [3; 16]).unwrap();
    let short = "AAAA".to_owned();
    let garbage = "not base64".to_owned();
    // An absent parameter is no failure.
    for _ in 0..5 {
        assert_eq!(house.ask("passwordreset", "example.com", &[]), status("Request Missing data! password"));
    }
    for envelope in [&weak, &foreign, &short, &garbage] {
        assert_eq!(house.ask("passwordreset", "example.com", &[("password", envelope)]), status("Invalid Password"));
    }
    assert_eq!(house.ask("passwordreset", "example.com", &[("password", &garbage)]), status("Invalid Password"));
    assert_eq!(house.last_audited().0, "key.locked");
    assert_eq!(house.ask("list", "example.com", &[]), failed());
}

#[test]
fn the_time_floor_covers_every_answer_that_follows_a_password() {
    let house = House::new();
    let sealed = house.sealed(PASSWORD);
    for (endpoint, floored) in [("autoregister", true), ("passwordreset", true), ("list", false), ("renew", false)] {
        let signed = house.fields(KEY, "example.com");
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend([("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com")]);
        let good = house.post(endpoint, &fields, HERE);
        let unsigned = house.post(endpoint, &fields[3..], HERE);
        let unknown = house.post(endpoint, &fields, "203.0.113.1");
        let empty = house.post(endpoint, &fields[..3], HERE);
        for said in [good, unsigned, unknown, empty] {
            assert_eq!(said.floor > Duration::ZERO, floored, "{endpoint} {}", said.json);
        }
    }
}

#[test]
fn twenty_at_once_and_the_rest_has_to_wait() {
    let house = House::new();
    let send = |endpoint: &str, signed: &[(&str, String); 3]| {
        let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        house.post(endpoint, &fields, THERE)
    };
    for _ in 0..20 {
        assert_eq!(send("connection", &house.fields(OTHER_KEY, "example.com")).status, 200);
    }
    let signed = house.fields(OTHER_KEY, "example.com");
    let said = send("connection", &signed);
    assert_eq!((said.status, said.json), (429, status("Too many requests")));
    assert_eq!(said.headers.once("retry-after"), Some("1"));
    // The hash is spent: it would have been good for any endpoint.
    house.pass(5);
    assert_eq!(send("delete", &signed).json, failed());
    assert_eq!(send("connection", &signed).status, 429);
    assert_eq!(send("connection", &house.fields(OTHER_KEY, "example.com")).status, 200);
}

#[test]
fn two_resellers_may_share_an_address() {
    let house = House::new();
    let shared = "yF3E2mEex6yPup8tn6Cvn6dvJipU1LBPSSHkebbo";
    house.reseller(shared, &[HERE], "JPY", PLENTY);
    for (key, credit) in [(KEY, status("OK - 100.00")), (shared, status("OK - 100.00")), (OTHER_KEY, failed())] {
        let signed = house.fields(key, "example.com");
        let fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(house.post("getcredit", &fields, HERE).json, credit);
    }
    // No price in their currency: not on sale to them, but for the free one.
    for (package, starts) in [("10k", "{\"status\":\"Invalid package name\"}"), ("free", "{\"status\":\"ok\",\"token\":")] {
        let signed = house.fields(shared, "b.example");
        let sealed = password::seal(shared, PASSWORD, [5; 16]).unwrap();
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend([("package", package), ("password", sealed.as_str()), ("uemail", "a@example.com")]);
        assert!(house.post("autoregister", &fields, HERE).json.starts_with(starts), "{package}");
    }
}

/// The network between both ends. It can lose the answer, or the request itself, of chosen endpoints.
struct Wire<'a> {
    house: &'a House,
    lose_answers: RefCell<Vec<&'static str>>,
    lose_requests: RefCell<Vec<&'static str>>,
    asked: RefCell<Vec<String>>,
    /// Seconds that a request takes.
    pace: i64,
    counter: Cell<u64>,
}

impl<'a> Wire<'a> {
    fn new(house: &'a House) -> Self {
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

fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("this network never lets wait"),
    }
}

fn at() -> Connection {
    contract::Connection {
        provider: "gp".to_owned(),
        base_url: "https://gp.example/api/v1".to_owned(),
        key: String::new(),
        secret: format!(" {KEY}\n"),
        settings: Vec::new(),
    }
    .into()
}

fn call(attempt: u32) -> Call {
    Call { idempotency_key: "k".to_owned(), attempt, deadline_ms: 60_000, notes: Vec::new() }
}

fn named() -> ServiceRef {
    ServiceRef { remote_id: Some("example.com".to_owned()), domain: None, username: None }
}

fn create(wire: &Wire<'_>, attempt: u32) -> Result<Outcome, Problem> {
    let order = Order {
        plan: "10k".to_owned(),
        term: None,
        domain: Some("example.com".to_owned()),
        email: Some("a@example.com".to_owned()),
        password: Some(PASSWORD.to_owned()),
        note: None,
        options: Vec::new(),
    };
    run(Client.create(wire, &at(), call(attempt), order))
}

fn state(outcome: Result<Outcome, Problem>) -> State {
    match outcome.unwrap() {
        Outcome::Done(service) => service.state,
        Outcome::Pending(_) => panic!("GP never leaves anything pending"),
    }
}

/// The whole life through both ends, in good weather and with every first answer or request of every change lost.
#[test]
fn whatever_is_lost_happens_once() {
    let changes = ["autoregister", "suspended", "active", "renew", "passwordreset", "packageupdate", "delete"];
    let mut ends = Vec::new();
    for weather in 0..3 {
        let house = House::new();
        let wire = Wire::new(&house);
        match weather {
            1 => wire.lose_answers.borrow_mut().extend(changes),
            2 => wire.lose_requests.borrow_mut().extend(changes),
            _ => {}
        }
        let (now, at) = (&house, at());
        assert!(run(Client.check(&wire, &at)).unwrap().properties.is_empty());
        assert_eq!(state(create(&wire, 1)), State::Active);
        assert_eq!(create(&wire, 1).unwrap_err().kind, contract::ProblemKind::AlreadyExists);
        assert_eq!(state(create(&wire, 2)), State::Active);
        let after_create = house.balance();
        assert_eq!(state(run(Client.suspend(&wire, &at, call(1), named(), None))), State::Suspended);
        assert_eq!(state(run(Client.unsuspend(&wire, &at, call(1), named()))), State::Active);
        house.rules.borrow_mut().renew_dedupe = false;
        assert_eq!(state(run(Client.renew(&wire, &at, call(1), named(), String::new()))), State::Active);
        let paid = after_create - house.balance();
        assert!(paid > 0);
        // The host tries again, as if it had not heard.
        let notes = vec![Property { name: "balance-before".to_owned(), value: after_create.to_string() }];
        assert!(run(Client.renew(&wire, &at, Call { notes, ..call(2) }, named(), String::new())).is_ok());
        assert_eq!(after_create - house.balance(), paid);
        let new_password = Some(SecretString::from("An0ther!pass"));
        assert!(run(Client.reset_password(&wire, &at, call(1), named(), new_password)).is_ok());
        assert!(run(Client.change_package(&wire, &at, call(1), named(), "20k".to_owned(), Vec::new())).is_ok());
        assert_eq!(now.license("example.com").unwrap().package, "20k");
        assert_eq!(state(run(Client.terminate(&wire, &at, call(1), named()))), State::Terminated);
        assert_eq!(run(Client.status(&wire, &at, named())).unwrap().state, State::Missing);
        assert_eq!(run(Client.terminate(&wire, &at, call(1), named())).unwrap_err().kind, contract::ProblemKind::NotFound);
        assert!(wire.lose_answers.borrow().is_empty() && wire.lose_requests.borrow().is_empty());
        ends.push((after_create, paid));
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

/// 2027-01-15 08:00 UTC: eight zeros leave 90 shuffles, so honest requests of one second collide, and the client tries again.
#[test]
fn the_worst_second_of_the_calendar() {
    let house = House::new();
    house.register("example.com", "10k");
    house.now.set(Timestamp::from_second(1_800_000_000).unwrap());
    let wire = Wire { pace: 0, ..Wire::new(&house) };
    for _ in 0..14 {
        assert_eq!(run(Client.status(&wire, &at(), named())).unwrap().state, State::Active);
        assert_eq!(run(Client.balance(&wire, &at())).unwrap().minor, 9510);
    }
    assert!(wire.asked.borrow().len() > 28, "none of these shuffles collided");
}
