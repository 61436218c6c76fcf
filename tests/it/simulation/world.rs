//! One world: who is in it, and what can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use base16ct::lower as hex;
use jiff::{SignedDuration, Timestamp};
use provisor::store::{Attempt, Claim, Delivery, Store, StoreError, Then, Transaction};
use provisor_providers::books::{Books, Entry, Fault, KeyRow};
use provisor_providers::kernelhost::server::Server;
use provisor_providers::kernelhost::sign;
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::money::Minor;
use provisor_providers::server::{
    Admission, Charged, Chore, From, Key, Keys, Met, Moment, Need, Resume, Rules, Server as _, Step, Visit, Work,
};
use provisor_tests::one_key::OneKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use super::Tally;
use super::bank::Bank;
use super::place::{ACCOUNT, EPOCH, Place, SECRET};

const PRICE: i64 = 990;
const HOSTS: usize = 2;
const CLIENTS: usize = 3;
/// Of one client: more than its first credit pays.
const INTENTS: usize = 5;
/// For so long a client asks for the same: an hour or more less than its idempotency key is known.
const PATIENCE: SignedDuration = SignedDuration::from_hours(20);
/// A webhook's receiver that fails is tried again after so long, in seconds.
const AGAIN_S: i64 = 5;

/// A change that a client wants, once.
pub(super) struct Intent {
    path: String,
    idempotency_key: String,
    body: String,
    begun: Timestamp,
    /// The last answer that says something of it.
    pub(super) answer: Option<(u16, Value)>,
}

impl Intent {
    /// Whether the client will not ask again.
    fn is_over(&self, now: Timestamp) -> bool {
        let is_answered = self.answer.as_ref().is_some_and(|(status, _)| *status != 402);
        is_answered || now > self.begun + PATIENCE
    }

    pub(super) fn is_order(&self) -> bool {
        self.path == "/v1/orders"
    }

    /// The order that an answer to this names.
    pub(super) fn order(&self) -> Option<i64> {
        let (status, answer) = self.answer.as_ref()?;
        let id = if *status == 402 { &answer["order_id"] } else { &answer["id"] };
        id.as_i64().filter(|_| self.is_order())
    }
}

/// A message or a piece of work under way. What a host works on is gone when the host is.
enum Flight {
    /// On its way to some host.
    There(Sent),
    /// Taken by a host; its next transaction is still to come.
    Inside(usize, Sent, Work, Arc<Visit>),
    /// Between two transactions.
    Between(usize, Sent, Need, Resume, Arc<Visit>),
    /// The answer on its way back.
    Back(Sent, Response),
    /// An errand whose need is still to be met.
    Errand(usize, Need, Box<dyn FnOnce(Met) -> Chore + Send>),
    /// An event on its way to the webhook.
    Event(usize, Box<Delivery>),
}

impl Flight {
    fn host(&self) -> Option<usize> {
        match self {
            Self::There(_) | Self::Back(..) => None,
            Self::Inside(host, ..) | Self::Between(host, ..) | Self::Errand(host, ..) | Self::Event(host, _) => Some(*host),
        }
    }
}

/// A request, and whose intent it is.
#[derive(Clone)]
struct Sent {
    client: usize,
    intent: usize,
    request: Request,
}

/// A process with what it has in memory.
struct Host {
    store: Store,
    cache: BTreeMap<String, Arc<Key>>,
}

/// The keys as a process caches them.
struct Cached<'a> {
    cache: &'a mut BTreeMap<String, Arc<Key>>,
    store: &'a Store,
    distrust: bool,
}

struct KeysOf<'a>(std::cell::RefCell<Cached<'a>>);

impl Keys for KeysOf<'_> {
    fn find(&self, provider: &str, public_id: &str, from: From) -> Result<Option<Arc<Key>>, Fault> {
        let mut cached = self.0.borrow_mut();
        if from == From::Cache && !cached.distrust {
            return Ok(cached.cache.get(public_id).cloned());
        }
        let found = cached.store.read(|books| books.find_key(provider, public_id))?;
        if let Some(key) = &found {
            cached.cache.insert(public_id.to_owned(), Arc::clone(key));
        }
        Ok(found)
    }

    fn at_address(&self, _: &str, _: IpAddr, _: From) -> Result<Vec<Arc<Key>>, Fault> {
        Ok(Vec::new())
    }
}

/// Everything there is, for one seed.
pub(super) struct World<'a> {
    rng: StdRng,
    pub(super) now: Timestamp,
    runtime: &'a Runtime,
    pub(super) place: &'a Place,
    hosts: Vec<Host>,
    secret: SecretString,
    pub(super) credited: i64,
    pub(super) bank: Bank,
    pub(super) clients: Vec<Vec<Intent>>,
    flights: Vec<Flight>,
    /// Links and power hold.
    is_healed: bool,
    /// Request ids of committed answers.
    pub(super) committed: BTreeSet<String>,
    /// Events that the webhook's receiver has seen.
    pub(super) events: BTreeSet<String>,
    /// What happened, for comparing two runs of a seed.
    story: Sha256,
    /// How often it did.
    tally: Tally,
    numbers: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(seed: u64, place: &'a Place, runtime: &'a Runtime) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: Timestamp::from_second(EPOCH).unwrap(),
            runtime,
            place,
            hosts: (0..HOSTS).map(|_| Host { store: place.open(), cache: BTreeMap::new() }).collect(),
            secret: SECRET.into(),
            credited: 0,
            bank: Bank::default(),
            clients: (0..CLIENTS).map(|_| Vec::new()).collect(),
            flights: Vec::new(),
            is_healed: false,
            committed: BTreeSet::new(),
            events: BTreeSet::new(),
            story: Sha256::new(),
            tally: Tally::new(),
            numbers: 0,
        };
        let credit = PRICE * world.rng.random_range(0..12_i64);
        world.top_up(credit);
        if world.rng.random_ratio(1, 2) {
            world.set_card();
        }
        world
    }

    pub(super) fn store(&self) -> &Store {
        &self.hosts[0].store
    }

    fn some_host(&mut self) -> usize {
        self.rng.random_range(0..HOSTS)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Something happened so often.
    pub(super) fn noted(&mut self, what: &str, often: u64) {
        if often > 0 {
            *self.tally.entry(what.to_owned()).or_default() += often;
        }
    }

    fn note(&mut self, what: &str) {
        self.noted(what, 1);
    }

    fn tell(&mut self, what: &str) {
        self.story.update(what);
        self.story.update([0]);
    }

    /// The hash of the story, and how often what happened.
    pub(super) fn end(mut self, last: &str) -> (String, Tally) {
        self.tell(last);
        (hex::encode_string(&self.story.finalize()), self.tally)
    }

    fn moment(&mut self) -> Moment {
        Moment { now: self.now, seed: self.rng.random(), rules: Rules::default() }
    }

    fn transact<T: Send + 'static>(
        &self,
        host: usize,
        work: impl FnMut(&mut Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.runtime.block_on(self.hosts[host].store.transact(work))
    }

    /// The same, unless power fails before the commit: then whatever the work wrote is gone.
    fn transact_or_lose<T: Send + 'static>(
        &mut self,
        host: usize,
        one_in: u32,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Option<T> {
        let is_lost = !self.is_healed && self.rng.random_ratio(1, one_in);
        let done = self.transact(host, move |books| {
            let done = work(books)?;
            if is_lost { Err(Fault("lost".to_owned())) } else { Ok(done) }
        });
        assert_eq!(done.is_err(), is_lost, "the store failed");
        done.ok()
    }

    fn top_up(&mut self, cents: i64) {
        let (host, moment) = (self.some_host(), self.moment());
        let work = self.transact(host, move |books| {
            books.credit(ACCOUNT, Minor(cents), &Entry { at: moment.now, kind: "top-up", reference: "" })?;
            Server.credited(&moment, ACCOUNT, books)
        });
        work.unwrap();
        self.credited += cents;
    }

    fn set_card(&mut self) {
        let (host, has_card) = (self.some_host(), self.rng.random_ratio(3, 4));
        let token = SecretString::from("token");
        let set = self.transact(host, move |books| books.set_card(ACCOUNT, has_card.then_some((&token, "card"))));
        assert!(set.unwrap());
    }

    fn rotate(&mut self) {
        let (host, secret) = (self.some_host(), SecretString::from(format!("{:040}", self.number())));
        self.secret = secret.clone();
        assert!(self.transact(host, move |books| books.rotate_key("kernelhost", OneKey::ID, &secret)).unwrap());
    }

    /// A request for an intent, signed now.
    fn send(&mut self, client: usize, intent: usize) {
        let (timestamp, nonce) = (self.now.as_second().to_string(), format!("{:032x}", self.number()));
        let Intent { path, idempotency_key, body, .. } = &self.clients[client][intent];
        let text = sign::signing_string("POST", path, &timestamp, &nonce, body.as_bytes());
        let headers = Headers::new()
            .with("KH-Key", OneKey::ID)
            .with("KH-Timestamp", timestamp)
            .with("KH-Nonce", nonce)
            .with("KH-Signature", sign::sign(self.secret.expose_secret().as_bytes(), &text))
            .with("Content-Type", "application/json")
            .with("Idempotency-Key", idempotency_key.as_str());
        let (method, target) = ("POST".to_owned(), path.clone());
        let request = Request { method, target, headers, body: body.clone().into_bytes() };
        self.flights.push(Flight::There(Sent { client, intent, request }));
    }

    /// A client sends what it wants, or once more what was not answered or not paid.
    fn act(&mut self, client: usize) {
        let intents = &self.clients[client];
        let (count, open) = (intents.len(), intents.iter().position(|intent| !intent.is_over(self.now)));
        let intent = match open {
            Some(open) if count == INTENTS || self.rng.random_ratio(1, 2) => open,
            _ if count == INTENTS => return,
            _ => {
                let intent = self.intend();
                self.clients[client].push(intent);
                count
            }
        };
        self.send(client, intent);
    }

    /// Something new to want: an order, or an action on a service that there is.
    fn intend(&mut self) -> Intent {
        let services = self.store().read(|books| books.account(ACCOUNT).services(0, 100)).unwrap();
        let idempotency_key = format!("intent-{}", self.number());
        let order = self.rng.random_ratio(2, 3);
        let (path, body) = if order || services.is_empty() {
            let quantity = self.rng.random_range(1..3);
            let order = json!({"product_id": 42, "billing_cycle": "monthly", "quantity": quantity, "note": idempotency_key});
            ("/v1/orders".to_owned(), order)
        } else {
            let service = &services[self.rng.random_range(0..services.len())];
            let due_at = format!("{:.0}", service.next_due_at);
            let action = match self.rng.random_range(0..8) {
                0..5 => json!({"action": "renew", "due_at": due_at}),
                5 => json!({"action": "suspend"}),
                6 => json!({"action": "unsuspend"}),
                _ => json!({"action": "terminate"}),
            };
            (format!("/v1/services/{}/actions", service.id), action)
        };
        Intent { path, idempotency_key, body: body.to_string(), begun: self.now, answer: None }
    }

    /// One thing happens.
    pub(super) fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..26 => {
                let client = self.rng.random_range(0..CLIENTS);
                self.act(client);
            }
            26..78 => self.advance(),
            78..83 => self.pass(),
            83..87 => {
                let host = self.some_host();
                self.tick(host);
            }
            87..90 => {
                let host = self.some_host();
                self.take_up(host);
            }
            90..93 => {
                let host = self.some_host();
                self.claim(host);
            }
            93..96 => {
                let host = self.some_host();
                self.crash(host);
            }
            96 => self.set_card(),
            97..99 => {
                let cents = PRICE * self.rng.random_range(1..4_i64);
                self.top_up(cents);
            }
            _ => self.rotate(),
        }
    }

    /// Time: mostly little of it, sometimes past a window or a lock, and now and then past a term.
    fn pass(&mut self) {
        let milliseconds = match self.rng.random_range(0..20) {
            0..14 => self.rng.random_range(1..2000),
            14..17 => self.rng.random_range(1..700_000),
            17..19 => self.rng.random_range(1..10_000_000),
            _ => 24 * 3_600_000 * self.rng.random_range(1..36_i64),
        };
        self.now += SignedDuration::from_millis(milliseconds);
    }

    /// Returns whether there is more to do at once.
    fn tick(&mut self, host: usize) -> bool {
        let moment = self.moment();
        let now = self.now;
        let Some(next) = self.transact_or_lose(host, 4, move |books| Server.tick(&moment, books)) else {
            self.note("lost tick");
            return true;
        };
        next.is_some_and(|next| next <= now)
    }

    /// Returns whether there was an errand.
    fn take_up(&mut self, host: usize) -> bool {
        let moment = self.moment();
        let Some(errand) = self.transact(host, move |books| Server.errand(&moment, books)).unwrap() else { return false };
        self.note("a charge is taken up");
        self.flights.push(Flight::Errand(host, errand.need, errand.then));
        true
    }

    /// A courier takes what is due.
    fn claim(&mut self, host: usize) -> bool {
        let (now, after) = (self.now, KeyRow(0));
        let claim = Claim { now, until: now + SignedDuration::from_secs(30), after, healthy: 4, failing: 4 };
        let claimed = self.transact(host, move |books| books.claim_deliveries(&claim)).unwrap();
        let is_something = !claimed.deliveries.is_empty();
        self.flights.extend(claimed.deliveries.into_iter().map(|delivery| Flight::Event(host, Box::new(delivery))));
        is_something
    }

    /// The process is gone with all that it had in memory, and starts again on the same book.
    fn crash(&mut self, host: usize) {
        self.tell("crash");
        self.note("crash");
        self.hosts[host] = Host { store: self.place.open(), cache: BTreeMap::new() };
        self.flights.retain(|flight| flight.host() != Some(host));
    }

    /// Something under way goes on, or is lost, or comes twice.
    fn advance(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.swap_remove(self.rng.random_range(0..self.flights.len()));
        match (flight, self.rng.random_range(0..20)) {
            (Flight::There(_) | Flight::Back(..), 0..2) => {}
            (Flight::There(sent), 2) => self.flights.extend([Flight::There(sent.clone()), Flight::There(sent)]),
            (flight, _) => self.go_on(flight),
        }
    }

    fn go_on(&mut self, flight: Flight) {
        match flight {
            Flight::There(sent) => {
                let host = self.some_host();
                self.admit(host, sent, false);
            }
            Flight::Inside(host, sent, work, visit) => self.commit(host, sent, work, visit),
            Flight::Between(host, sent, need, then, visit) => {
                let met = self.meet(need);
                self.flights.push(Flight::Inside(host, sent, then(met), visit));
            }
            Flight::Back(sent, response) => self.receive(&sent, &response),
            Flight::Errand(host, need, then) => {
                let chore = then(self.meet(need));
                if self.transact_or_lose(host, 4, move |books| chore(books)).is_none() {
                    self.note("lost errand");
                }
            }
            Flight::Event(host, delivery) => self.deliver(host, &delivery),
        }
    }

    fn meet(&mut self, need: Need) -> Met {
        match need {
            Need::Charge(charge) => {
                let came_to = self.bank.charge(&charge, self.is_healed, &mut self.rng);
                self.note(match came_to {
                    Charged::Captured => "captured",
                    Charged::Refused(_) => "declined",
                    Charged::Unknown => "the bank's answer is lost",
                });
                Met::Charged(charge, came_to)
            }
            Need::Pause(pause) => {
                self.note("a wait for a twin");
                self.now += SignedDuration::try_from(pause).unwrap();
                Met::Paused
            }
            Need::Resolve(_) | Need::Print(_) => panic!("nobody asked for that"),
        }
    }

    /// The receiver takes an event, or fails; what it says may be lost.
    fn deliver(&mut self, host: usize, delivery: &Delivery) {
        let luck = if self.is_healed { 0 } else { self.rng.random_range(0..4) };
        if luck == 3 {
            self.note("an event is lost");
        } else if !self.events.insert(delivery.event_id.clone()) {
            self.note("an event comes twice");
        }
        if luck == 2 {
            return;
        }
        let (at, is_taken) = (self.now, luck < 2);
        let then = if is_taken { Then::Delivered } else { Then::Again(at + SignedDuration::from_secs(AGAIN_S)) };
        let attempt = Attempt { at, status: is_taken.then_some(200), error: None, then };
        let (id, fence) = (delivery.id, delivery.fence);
        self.transact(host, move |books| books.settle_delivery(id, fence, &attempt)).unwrap();
    }

    fn admit(&mut self, host: usize, sent: Sent, distrust: bool) {
        let request_id = format!("{:026}", self.number());
        let (request, peer, moment) = (sent.request.clone(), [192, 0, 2, 1].into(), self.moment());
        let visit = Arc::new(Visit { request, prefix: "".into(), peer, request_id, moment });
        let Host { store, cache } = &mut self.hosts[host];
        let keys = KeysOf(Cached { cache, store, distrust }.into());
        match Server.admit(Arc::clone(&visit), &keys).unwrap() {
            Admission::Work(work) => self.flights.push(Flight::Inside(host, sent, work, visit)),
            Admission::Answered(_) => panic!("no change is answered without the books"),
        }
    }

    fn commit(&mut self, host: usize, sent: Sent, work: Work, visit: Arc<Visit>) {
        let step = self.transact_or_lose(host, 25, move |books| work(books));
        match step {
            None => {
                self.note("lost before the commit");
                self.crash(host);
            }
            Some(Step::Stale) => {
                self.note("stale");
                self.admit(host, sent, true);
            }
            Some(Step::Between { need, then }) => self.flights.push(Flight::Between(host, sent, need, then, visit)),
            Some(Step::Answer { response, .. }) => {
                self.committed.insert(visit.request_id.clone());
                let text = format!("{} {}", response.status, String::from_utf8_lossy(&response.body));
                self.tell(&text);
                // Power fails after the commit: the answer is lost, the change stands.
                if !self.is_healed && self.rng.random_ratio(1, 25) {
                    self.note("lost after the commit");
                    self.crash(host);
                } else {
                    self.flights.push(Flight::Back(sent, response));
                }
            }
        }
    }

    fn receive(&mut self, sent: &Sent, response: &Response) {
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        if response.headers.once("Idempotent-Replayed").is_some() {
            self.note("replayed");
        }
        let reason = if response.status == 401 { format!(" {}", body["reason"].as_str().unwrap()) } else { String::new() };
        self.note(&format!("{}{reason}", response.status));
        let intent = &mut self.clients[sent.client][sent.intent];
        match response.status {
            201 if intent.is_order() => {}
            202 | 400 if !intent.is_order() => {}
            402 => {}
            // The payment is still being worked on.
            409 if body["reason"] == "request_in_progress" => return,
            // Late, doubled, or signed before a rotation. None of it is an answer to the intent.
            401 => {
                let reasons = ["replay_detected", "timestamp_out_of_window", "signature_mismatch", "unknown_or_locked_key"];
                assert!(reasons.contains(&body["reason"].as_str().unwrap()), "{body}");
                return;
            }
            status => panic!("{status}: {body}"),
        }
        let (known, is_final) = (intent.order(), intent.answer.as_ref().is_some_and(|(status, _)| *status != 402));
        if is_final && response.status != 402 {
            assert_eq!(intent.answer, Some((response.status, body)), "two answers to one intent");
        } else if !is_final {
            // Messages overtake each other: an older 402 does not undo what came after it.
            intent.answer = Some((response.status, body));
            assert!(known.is_none_or(|known| intent.order() == Some(known)), "two orders for one intent");
        }
    }

    /// Links and power hold from here on: every intent that is not given up comes to an answer, and what has fallen due is done.
    pub(super) fn heal(&mut self) {
        self.flights.clear();
        self.is_healed = true;
        // Past every lock, lease and window.
        self.now += SignedDuration::from_secs(1000);
        self.settle();
        for client in 0..CLIENTS {
            for intent in 0..self.clients[client].len() {
                if self.clients[client][intent].is_over(self.now) {
                    continue;
                }
                self.send(client, intent);
                self.land();
                assert!(self.clients[client][intent].answer.is_some(), "no answer to an intent");
            }
        }
        // Whatever was not paid is cancelled, whatever was is provisioned.
        self.now += SignedDuration::from_hours(25);
        self.settle();
        // What a card was asked for then is looked at again.
        self.now += SignedDuration::from_secs(100);
        self.settle();
        while self.claim(0) {
            self.land();
            self.now += SignedDuration::from_secs(AGAIN_S);
        }
    }

    /// All that is under way ends.
    fn land(&mut self) {
        while let Some(flight) = self.flights.pop() {
            self.go_on(flight);
        }
    }

    /// Until the schedule has nothing more to do.
    fn settle(&mut self) {
        for host in (0..HOSTS).cycle().take(200) {
            let is_more = self.tick(host);
            let was_errand = self.take_up(host);
            self.land();
            if !is_more && !was_errand {
                return;
            }
        }
        panic!("the schedule never ends");
    }
}
