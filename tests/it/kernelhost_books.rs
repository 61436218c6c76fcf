//! The KernelHost API's answering end over the real books: what each request changes, and what a refused one leaves.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provisor::store::{NewKey, Store};
use provisor_providers::books::{AccountId, Books, Entry, Fault};
use provisor_providers::kernelhost::server::Server;
use provisor_providers::kernelhost::{guard, sign};
use provisor_providers::message::{Headers, Request, Response};
use provisor_providers::money::Minor;
use provisor_providers::server::{
    Admission, From, Key, KeyLimits, Keys, Met, Moment, Need, Rules, Server as _, Step, Visit, Work,
};
use provisor_tests::book::{Book, Engine};
use serde_json::{Value, json};

const SECRET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALL_SCOPES: [&str; 9] = [
    "read:products",
    "read:orders",
    "write:orders",
    "read:services",
    "read:credentials",
    "write:services",
    "read:billing",
    "read:webhooks",
    "write:webhooks",
];

/// A book with one reseller, and the clock its requests are made by.
struct Desk {
    store: Store,
    book: Book,
    now: Timestamp,
    requests: u64,
    reseller: AccountId,
    key: String,
    peer: IpAddr,
}

/// Keys straight from the store.
struct StoreKeys<'a>(&'a Store);

impl Keys for StoreKeys<'_> {
    fn find(&self, provider: &str, public_id: &str, _: From) -> Result<Option<Arc<Key>>, Fault> {
        self.0.read(|books| books.find_key(provider, public_id))
    }

    fn at_address(&self, _: &str, _: IpAddr, _: From) -> Result<Vec<Arc<Key>>, Fault> {
        Ok(Vec::new())
    }
}

/// A request to be signed.
#[derive(Clone, Copy)]
struct Ask<'a> {
    method: &'a str,
    target: &'a str,
    body: &'a str,
    idempotency_key: Option<&'a str>,
}

fn get(target: &str) -> Ask<'_> {
    Ask { method: "GET", target, body: "", idempotency_key: None }
}

fn post<'a>(target: &'a str, body: &'a str, idempotency_key: &'a str) -> Ask<'a> {
    Ask { method: "POST", target, body, idempotency_key: Some(idempotency_key) }
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

impl Desk {
    async fn open(credit: i64) -> Self {
        let book = Book::new(Engine::of_module(module_path!()));
        let store = book.open();
        let now: Timestamp = "2027-01-31T08:00:00.25Z".parse().unwrap();
        let (reseller, key, peer) = (AccountId(0), String::new(), [203, 0, 113, 7].into());
        let mut desk = Self { store, book, now, requests: 0, reseller, key, peer };
        desk.reseller = desk.account("Reseller").await;
        desk.key = desk.key(desk.reseller, 'A', &ALL_SCOPES, KeyLimits { per_minute: 6000, burst: 1000, per_day: 100_000 }).await;
        desk.credit(credit).await;
        desk
    }

    async fn account(&self, name: &'static str) -> AccountId {
        let now = self.now;
        self.store.transact(move |books| books.create_account(name, "a@example.com", "EUR", now)).await.unwrap()
    }

    async fn key(&self, account: AccountId, letter: char, scopes: &[&str], limits: KeyLimits) -> String {
        let public_id = format!("kh_live_{}", letter.to_string().repeat(32));
        let (id, now) = (public_id.clone(), self.now);
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let make = move |books: &mut provisor::store::Transaction<'_>| {
            let key = NewKey {
                account,
                provider: guard::PROVIDER.to_owned(),
                public_id: id.clone(),
                label: "panel".to_owned(),
                secret: SECRET.into(),
                scopes: scopes.clone(),
                allowed: Vec::new(),
                addresses: Vec::new(),
                limits,
                expires_at: None,
            };
            books.create_key(&key, now)
        };
        self.store.transact(make).await.unwrap();
        public_id
    }

    async fn credit(&self, amount: i64) {
        let (id, now) = (self.reseller, self.now);
        let entry = move || Entry { at: now, kind: "top-up", reference: "test" };
        self.store.transact(move |books| books.credit(id, Minor(amount), &entry())).await.unwrap().unwrap();
    }

    fn balance(&self) -> i64 {
        self.store.read(|books| Ok(books.account(self.reseller).profile()?.balance.0)).unwrap()
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn moment(&self) -> Moment {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.requests.to_be_bytes());
        Moment { now: self.now, seed, rules: Rules::default() }
    }

    fn sign(&mut self, ask: Ask<'_>) -> Request {
        self.requests += 1;
        let (timestamp, nonce) = (self.now.as_second().to_string(), format!("{:032}", self.requests));
        let signed = sign::signing_string(ask.method, ask.target, &timestamp, &nonce, ask.body.as_bytes());
        let mut headers = Headers::new()
            .with("KH-Key", self.key.as_str())
            .with("KH-Timestamp", timestamp)
            .with("KH-Nonce", nonce)
            .with("KH-Signature", sign::sign(SECRET.as_bytes(), &signed));
        if !ask.body.is_empty() {
            headers.add("Content-Type", "application/json");
        }
        if let Some(key) = ask.idempotency_key {
            headers.add("Idempotency-Key", key);
        }
        Request { method: ask.method.to_owned(), target: ask.target.to_owned(), headers, body: ask.body.into() }
    }

    fn admit(&self, request: Request) -> Admission {
        let request_id = format!("01HX7Z3K8Q{:016}", self.requests);
        let visit = Arc::new(Visit { request, prefix: "".into(), peer: self.peer, request_id, moment: self.moment() });
        Server.admit(visit, &StoreKeys(&self.store)).unwrap()
    }

    async fn work(&self, work: Work) -> Step {
        self.store.transact(move |books| work(books)).await.unwrap()
    }

    async fn send(&self, request: Request) -> Response {
        let work = match self.admit(request) {
            Admission::Answered(response) => return response,
            Admission::Work(work) => work,
        };
        match self.work(work).await {
            Step::Answer { response, .. } => response,
            Step::Stale => panic!("the key changed meanwhile"),
            Step::Between { need, .. } => panic!("nobody here meets {need:?}"),
        }
    }

    async fn ask(&mut self, ask: Ask<'_>) -> Response {
        let request = self.sign(ask);
        self.send(request).await
    }

    async fn tick(&mut self) -> Option<Timestamp> {
        self.requests += 1;
        let moment = self.moment();
        self.store.transact(move |books| Server.tick(&moment, books)).await.unwrap()
    }

    /// Orders product 42 for a month and waits for its service.
    async fn service(&mut self, idempotency_key: &str) -> i64 {
        let order = self.ask(post("/v1/orders", ORDER, idempotency_key)).await;
        assert_eq!(order.status, 201, "{}", body(&order));
        self.pass(2);
        self.tick().await;
        let order = self.ask(get(&format!("/v1/orders/{}", body(&order)["id"]))).await;
        body(&order)["service_id"].as_i64().unwrap()
    }

    async fn act(&mut self, service: i64, action: &Value, idempotency_key: &str) -> Response {
        self.ask(post(&format!("/v1/services/{service}/actions"), &action.to_string(), idempotency_key)).await
    }

    /// Event, status and reason of each audit row of the reseller, oldest first.
    fn audit(&self) -> Vec<(String, u16, Option<String>)> {
        let rows = self.store.read(|books| books.audit_rows(self.reseller.0, 0, 1000)).unwrap();
        rows.into_iter().map(|stored| (stored.row.event, stored.row.status, stored.row.reason)).collect()
    }

    fn count(&self, table: &str) -> i64 {
        self.book.number(&format!("SELECT COUNT(*) FROM {table}"))
    }
}

const ORDER: &str = r#"{"product_id":42,"billing_cycle":"monthly","hostname":"web.example.com"}"#;

#[tokio::test]
async fn a_paid_order_becomes_a_service() {
    let mut desk = Desk::open(5000).await;
    let answer = desk.ask(post("/v1/orders", ORDER, "one")).await;
    let order = body(&answer);
    assert_eq!(
        (answer.status, &order["status"], &order["total"]),
        (201, &json!("paid"), &json!({"amount": "9.90", "currency": "EUR"}))
    );
    assert_eq!(desk.balance(), 4010);

    desk.tick().await;
    assert_eq!(desk.count("services"), 0, "fulfilment takes a second");
    desk.pass(2);
    assert_eq!(desk.tick().await.unwrap().to_string(), "2027-02-21T08:00:02Z", "the renewal's invoice is next");
    let target = format!("/v1/orders/{}", order["id"]);
    let order = body(&desk.ask(get(&target)).await);
    assert_eq!(order["status"], "completed");

    let target = format!("/v1/services/{}", order["service_id"]);
    let service = body(&desk.ask(get(&target)).await);
    assert_eq!(
        (&service["status"], &service["power"], &service["hostname"]),
        (&json!("active"), &json!("running"), &json!("web.example.com"))
    );
    assert_eq!(
        (&service["created_at"], &service["next_due_at"]),
        (&json!("2027-01-31T08:00:02Z"), &json!("2027-02-28T08:00:02Z"))
    );

    let credentials = desk.ask(get(&format!("{target}/credentials"))).await;
    assert_eq!(credentials.headers.once("cache-control"), Some("no-store"));
    assert_eq!(
        (body(&credentials)["username"].as_str(), body(&credentials)["password"].as_str().map(str::len)),
        (Some("root"), Some(20))
    );
    let events: Vec<_> = desk.audit().into_iter().map(|(event, status, _)| (event, status)).collect();
    let request = |status| ("request".to_owned(), status);
    assert_eq!(events, [request(201), request(200), request(200), ("credentials.read".to_owned(), 200), request(200)]);
}

#[tokio::test]
async fn the_same_key_and_body_are_answered_once() {
    let mut desk = Desk::open(5000).await;
    let first = desk.ask(post("/v1/orders", ORDER, "one")).await;
    let again = desk.ask(post("/v1/orders", ORDER, "one")).await;
    assert!(again.status == 201 && again.body == first.body);
    assert_eq!((first.headers.once("idempotent-replayed"), again.headers.once("idempotent-replayed")), (None, Some("true")));
    assert_ne!(first.headers.once("x-request-id"), again.headers.once("x-request-id"));

    let other = desk.ask(post("/v1/orders", r#"{"product_id":42,"billing_cycle":"annually"}"#, "one")).await;
    assert_eq!((other.status, body(&other)["reason"].as_str()), (409, Some("body_mismatch")));
    assert_eq!((desk.count("orders"), desk.balance()), (1, 4010));

    desk.pass(86_399);
    assert_eq!(desk.ask(post("/v1/orders", ORDER, "one")).await.body, first.body);
    desk.pass(1);
    assert_ne!(desk.ask(post("/v1/orders", ORDER, "one")).await.body, first.body);

    for keys in [None, Some("a b"), Some("")] {
        let refused = desk.ask(Ask { idempotency_key: keys, ..post("/v1/orders", ORDER, "") }).await;
        assert_eq!((refused.status, body(&refused)["errors"][0]["field"].as_str()), (400, Some("Idempotency-Key")));
    }
}

#[tokio::test]
async fn refusals_of_the_business_layer_are_final_and_malformed_bodies_are_not() {
    let mut desk = Desk::open(5000).await;
    let unknown = r#"{"product_id":1,"billing_cycle":"monthly"}"#;
    let first = desk.ask(post("/v1/orders", unknown, "one")).await;
    let again = desk.ask(post("/v1/orders", unknown, "one")).await;
    assert_eq!((first.status, again.body == first.body, again.headers.once("idempotent-replayed")), (400, true, Some("true")));
    for malformed in ["{", r#"{"product_id":42}"#, r#"{"product_id":42,"billing_cycle":"monthly","x":1}"#] {
        assert_eq!(desk.ask(post("/v1/orders", malformed, "two")).await.status, 400, "{malformed}");
    }
    assert_eq!(desk.ask(post("/v1/orders", ORDER, "two")).await.status, 201);
    let foreign = post("/v1/services/99/actions", r#"{"action":"stop"}"#, "three");
    assert_eq!(desk.ask(foreign).await.status, 404);
    assert_eq!(desk.ask(foreign).await.headers.once("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn an_unpaid_order_is_paid_by_the_same_request_or_cancelled() {
    let mut desk = Desk::open(989).await;
    let refused = desk.ask(post("/v1/orders", ORDER, "one")).await;
    let problem = body(&refused);
    assert_eq!((refused.status, problem["reason"].as_str()), (402, Some("insufficient_credit_and_no_card")));
    let target = format!("/v1/orders/{}", problem["order_id"]);
    let order = body(&desk.ask(get(&target)).await);
    assert_eq!((&order["status"], &order["expires_at"]), (&json!("pending_payment"), &json!("2027-02-01T08:00:00Z")));
    let again = desk.ask(post("/v1/orders", ORDER, "one")).await;
    assert!(again.body == refused.body && again.headers.once("idempotent-replayed") == Some("true"));

    desk.credit(1).await;
    let paid = desk.ask(post("/v1/orders", ORDER, "one")).await;
    assert_eq!((paid.status, &body(&paid)["id"], desk.balance()), (201, &problem["order_id"], 0));
    assert_eq!(desk.ask(post("/v1/orders", ORDER, "one")).await.body, paid.body);
    assert_eq!((desk.count("orders"), desk.count("invoices WHERE status = 'paid'")), (1, 1));

    let lost = body(&desk.ask(post("/v1/orders", ORDER, "two")).await);
    desk.pass(86_400);
    assert!(desk.tick().await.unwrap() > desk.now);
    let order = body(&desk.ask(get(&format!("/v1/orders/{}", lost["order_id"]))).await);
    assert_eq!(order["status"], "cancelled");
    assert_eq!(desk.count("invoices WHERE status = 'cancelled'"), 1);
    // Credit that comes too late must not bring a second order under the same key.
    desk.credit(990).await;
    let late = desk.ask(post("/v1/orders", ORDER, "two")).await;
    assert_eq!((late.status, &body(&late)["order_id"], desk.balance()), (402, &lost["order_id"], 990));
}

#[tokio::test]
async fn stock_goes_with_payment() {
    let mut desk = Desk::open(13_000).await;
    let order = r#"{"product_id":50,"billing_cycle":"monthly"}"#;
    assert_eq!(desk.ask(post("/v1/orders", order, "one")).await.status, 402);
    let stock = |desk: &Desk| desk.book.number("SELECT stock FROM products WHERE id = 50");
    assert_eq!(stock(&desk), 5);
    desk.credit(100_000).await;
    assert_eq!(desk.ask(post("/v1/orders", order, "one")).await.status, 201);
    assert_eq!(stock(&desk), 4);
    let many = desk.ask(post("/v1/orders", r#"{"product_id":50,"billing_cycle":"monthly","quantity":5}"#, "two")).await;
    assert_eq!((many.status, body(&many)["errors"][0]["code"].as_str()), (400, Some("out_of_stock")));
    assert_eq!(stock(&desk), 4);
}

#[tokio::test]
async fn an_order_of_many_makes_many_services() {
    let mut desk = Desk::open(100_000).await;
    let order = r#"{"product_id":60,"billing_cycle":"monthly","quantity":3}"#;
    assert_eq!(body(&desk.ask(post("/v1/orders", order, "one")).await)["total"]["amount"], "7.47");
    desk.pass(1);
    desk.tick().await;
    let page = desk.ask(get("/v1/services?per_page=2")).await;
    assert_eq!(body(&page)["meta"], json!({"page": 1, "per_page": 2, "total": 3, "total_pages": 2}));
    assert!(page.headers.once("link").unwrap().contains("<?page=2&per_page=2>; rel=\"next\""));
    let last = body(&desk.ask(get("/v1/services?per_page=2&page=2")).await);
    assert_eq!((last["data"].as_array().unwrap().len(), &last["data"][0]["power"]), (1, &Value::Null));
    assert_eq!(desk.ask(get("/v1/services?per_page=0")).await.status, 400);
    let service = format!("/v1/services/{}", last["data"][0]["id"]);
    let username = body(&desk.ask(get(&format!("{service}/credentials"))).await)["username"].clone();
    assert!(username.as_str().unwrap().starts_with("web"), "{username}");
    assert_eq!(desk.count("services WHERE recurring = 249"), 3);
}

#[tokio::test]
async fn a_nonce_is_spent_by_whatever_follows() {
    let mut desk = Desk::open(0).await;
    let limits = KeyLimits { per_minute: 60, burst: 2, per_day: 100 };
    desk.key = desk.key(desk.reseller, 'B', &["read:orders"], limits).await;
    for (ask, status) in [(get("/v1/products"), 403), (get("/v1/orders/1"), 404), (get("/v1/orders/1"), 429)] {
        let request = desk.sign(ask);
        let answer = desk.send(request.clone()).await;
        assert_eq!(answer.status, status);
        assert!(answer.headers.once("x-ratelimit-remaining").is_some() && answer.headers.once("x-ratelimit-reset").is_some());
        assert_eq!(answer.headers.once("retry-after"), (status == 429).then_some("1"));
        let replay = desk.send(request).await;
        assert_eq!((replay.status, body(&replay)["reason"].as_str()), (401, Some("replay_detected")));
        assert!(replay.headers.once("x-ratelimit-remaining").is_none());
    }
    let reasons: Vec<_> = desk.audit().into_iter().map(|(_, status, reason)| (status, reason.unwrap())).collect();
    let row = |status, reason: &str| (status, reason.to_owned());
    let replay = row(401, "replay_detected");
    assert_eq!(
        reasons,
        [row(403, "missing_scope"), replay.clone(), row(404, "not_found"), replay.clone(), row(429, "rate_limited"), replay]
    );
}

#[tokio::test]
async fn a_nonce_from_a_fast_clock_cannot_be_replayed_at_the_end_of_its_window() {
    let mut desk = Desk::open(0).await;
    desk.pass(300);
    let request = desk.sign(get("/v1/me"));
    desk.pass(-300);
    assert_eq!(desk.send(request.clone()).await.status, 200);
    desk.pass(600);
    assert_eq!(body(&desk.send(request.clone()).await)["reason"], "replay_detected");
    desk.pass(1);
    assert_eq!(body(&desk.send(request).await)["reason"], "timestamp_out_of_window");
}

#[tokio::test]
async fn five_wrong_signatures_lock_the_network_out_for_a_quarter_of_an_hour() {
    let mut desk = Desk::open(0).await;
    for _ in 0..5 {
        let mut request = desk.sign(get("/v1/me"));
        request.target = "/v1/products".to_owned();
        assert_eq!(body(&desk.send(request).await)["reason"], "signature_mismatch");
    }
    let locked = desk.ask(get("/v1/me")).await;
    assert_eq!((locked.status, body(&locked)["reason"].as_str()), (401, Some("unknown_or_locked_key")));
    let mut wrong = desk.sign(get("/v1/me"));
    wrong.target = "/v1/products".to_owned();
    assert_eq!(body(&desk.send(wrong).await)["reason"], "unknown_or_locked_key");
    desk.peer = [198, 51, 100, 1].into();
    assert_eq!(desk.ask(get("/v1/me")).await.status, 200, "key ids are public: a stranger must not lock the owner out");
    desk.peer = [203, 0, 113, 200].into();
    desk.pass(899);
    assert_eq!(desk.ask(get("/v1/me")).await.status, 401);
    desk.pass(1);
    assert_eq!(desk.ask(get("/v1/me")).await.status, 200);
    assert_eq!(desk.audit().iter().filter(|(event, ..)| event == "key.locked").count(), 1);
    assert_eq!(desk.audit().iter().filter(|(event, ..)| event == "request").count(), 10);
}

#[tokio::test]
async fn a_key_that_changed_after_admission_is_admitted_again() {
    let mut desk = Desk::open(0).await;
    for (spoil, revoke) in [(false, false), (true, false), (false, true)] {
        let mut request = desk.sign(get("/v1/me"));
        if spoil {
            request.target.push('x');
        }
        let visit =
            Visit { request, prefix: "".into(), peer: desk.peer, request_id: "01HX7Z3K8Q".to_owned(), moment: desk.moment() };
        let Admission::Work(work) = Server.admit(Arc::new(visit), &StoreKeys(&desk.store)).unwrap() else { panic!("answered") };
        let (id, now) = (desk.key.clone(), desk.now);
        let change = move |books: &mut provisor::store::Transaction<'_>| {
            if revoke {
                books.revoke_key(guard::PROVIDER, &id, now)
            } else {
                books.rotate_key(guard::PROVIDER, &id, &SECRET.into())
            }
        };
        assert!(desk.store.transact(change).await.unwrap());
        assert!(matches!(desk.store.transact(move |books| work(books)).await.unwrap(), Step::Stale));
    }
    assert!(desk.audit().is_empty());
    assert_eq!(body(&desk.ask(get("/v1/me")).await)["reason"], "unknown_or_locked_key");
}

#[tokio::test]
async fn foreign_and_absent_services_look_the_same() {
    let mut desk = Desk::open(5000).await;
    let service = desk.service("one").await;
    let stranger = desk.account("Stranger").await;
    desk.key = desk.key(stranger, 'C', &ALL_SCOPES, KeyLimits::default()).await;
    let strip = |response: &Response| {
        let mut problem = body(response);
        problem.as_object_mut().unwrap().remove("request_id");
        (response.status, problem)
    };
    for path in ["", "/credentials"] {
        let foreign = desk.ask(get(&format!("/v1/services/{service}{path}"))).await;
        let absent = desk.ask(get(&format!("/v1/services/999{path}"))).await;
        assert_eq!(strip(&foreign), strip(&absent));
    }
    let foreign = desk.act(service, &json!({"action": "terminate"}), "one").await;
    assert_eq!(strip(&foreign), strip(&desk.act(999, &json!({"action": "terminate"}), "one").await));
    assert_eq!(desk.count("services WHERE status = 'active'"), 1);
}

#[tokio::test]
async fn actions_change_the_service_at_once() {
    let mut desk = Desk::open(5000).await;
    let service = desk.service("order").await;
    for (index, (action, status, power)) in [
        ("stop", "active", json!("stopped")),
        ("start", "active", json!("running")),
        ("suspend", "suspended", json!("stopped")),
        ("suspend", "suspended", json!("stopped")),
        ("unsuspend", "active", json!("running")),
        ("terminate", "terminated", Value::Null),
        ("terminate", "terminated", Value::Null),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = desk.act(service, &json!({"action": action}), &format!("a{index}")).await;
        let done = body(&answer);
        assert_eq!((answer.status, &done["status"]), (202, &json!("completed")), "{done}");
        assert_eq!((&done["service"]["status"], &done["service"]["power"]), (&json!(status), &power));
    }
    let late = desk.act(service, &json!({"action": "reboot"}), "late").await;
    assert_eq!((late.status, body(&late)["errors"][0]["code"].as_str()), (400, Some("wrong_state")));
    assert_eq!(desk.ask(get(&format!("/v1/services/{service}/credentials"))).await.status, 404);
}

#[tokio::test]
async fn a_password_is_given_or_made_and_read_back() {
    let mut desk = Desk::open(5000).await;
    let service = desk.service("order").await;
    let credentials = format!("/v1/services/{service}/credentials");
    let mut known = vec![body(&desk.ask(get(&credentials)).await)["password"].clone()];
    for (index, action) in [
        json!({"action": "reset_password"}),
        json!({"action": "reset_password", "password": "correct horse"}),
        json!({"action": "reinstall", "image": "debian-13"}),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = desk.act(service, &action, &format!("p{index}")).await;
        assert_eq!(answer.status, 202);
        let password = body(&desk.ask(get(&credentials)).await)["password"].clone();
        assert!(!String::from_utf8(answer.body).unwrap().contains(password.as_str().unwrap()));
        assert!(!known.contains(&password), "{action}");
        known.push(password);
    }
    assert_eq!(known[2], "correct horse");
}

#[tokio::test]
async fn a_term_is_renewed_once_however_often_it_is_asked() {
    let mut desk = Desk::open(990 + 989).await;
    let service = desk.service("order").await;
    let renew = json!({"action": "renew", "due_at": "2027-02-28T08:00:02Z"});
    let refused = desk.act(service, &renew, "renew").await;
    assert_eq!((refused.status, desk.balance(), desk.count("invoices")), (402, 989, 1));
    desk.credit(991).await;
    let renewed = desk.act(service, &renew, "renew").await;
    assert_eq!((renewed.status, &body(&renewed)["service"]["next_due_at"]), (202, &json!("2027-03-31T08:00:02Z")));
    assert_eq!((desk.balance(), desk.count("invoices WHERE status = 'paid'")), (990, 2));
    for key in ["renew", "another"] {
        let again = desk.act(service, &renew, key).await;
        assert_eq!((again.status, &body(&again)["service"]["next_due_at"]), (202, &json!("2027-03-31T08:00:02Z")));
    }
    assert_eq!((desk.balance(), desk.count("invoices")), (990, 2));
    let early = desk.act(service, &json!({"action": "renew", "due_at": "2027-04-30T08:00:02Z"}), "early").await;
    assert_eq!((early.status, desk.balance()), (400, 990));
}

#[tokio::test]
async fn what_breaks_leaves_its_audit_row_alone() {
    let mut desk = Desk::open(5000).await;
    desk.book.execute("UPDATE products SET config_options = 'no JSON' WHERE id = 42");
    let request = desk.sign(post("/v1/orders", ORDER, "one"));
    let broken = desk.send(request.clone()).await;
    assert_eq!((broken.status, body(&broken)["type"].as_str().unwrap().ends_with("/internal_error")), (500, true));
    assert_eq!(body(&desk.send(request).await)["reason"], "replay_detected", "the nonce stays spent");
    assert_eq!((desk.count("orders"), desk.count("invoices"), desk.count("idempotency"), desk.balance()), (0, 0, 0, 5000));
    assert_eq!(desk.audit()[0], ("request".to_owned(), 500, Some("internal_error".to_owned())));
    // Within the order's own attempt too: nothing is charged for what could not be written.
    desk.book.execute("UPDATE products SET config_options = '[]' WHERE id = 42");
    desk.book.forbid("INSERT", "orders", None);
    assert_eq!(desk.ask(post("/v1/orders", ORDER, "one")).await.status, 500);
    assert_eq!((desk.count("orders"), desk.count("idempotency"), desk.balance()), (0, 0, 5000));
    desk.book.permit("orders");
    assert_eq!(desk.ask(post("/v1/orders", ORDER, "one")).await.status, 201);
}

#[tokio::test]
async fn an_order_that_cannot_be_fulfilled_does_not_hold_up_others() {
    let mut desk = Desk::open(5000).await;
    desk.ask(post("/v1/orders", ORDER, "one")).await;
    desk.ask(post("/v1/orders", r#"{"product_id":60,"billing_cycle":"monthly"}"#, "two")).await;
    desk.book.forbid("INSERT", "services", Some("NEW.product_id = 42"));
    desk.pass(5);
    let next = desk.tick().await.unwrap();
    assert_eq!((desk.count("services"), next.duration_since(desk.now).as_secs()), (1, 60));
    desk.book.permit("services");
    desk.pass(60);
    assert!(desk.tick().await.unwrap() > desk.now);
    assert_eq!((desk.count("services"), desk.count("orders WHERE status = 'completed'")), (2, 2));
}

#[tokio::test]
async fn whoever_asks_learns_who_they_are_and_what_there_is() {
    let mut desk = Desk::open(5000).await;
    let me = body(&desk.ask(get("/v1/me")).await);
    assert_eq!((&me["account"]["currency"], &me["key"]["id"]), (&json!("EUR"), &json!(desk.key)));
    assert_eq!(me["extensions"], json!(["renew", "reset_password"]));
    let balance = body(&desk.ask(get("/v1/billing/balance")).await);
    assert_eq!(balance, json!({"balance": {"amount": "50.00", "currency": "EUR"}, "card_on_file": false}));
    let products = body(&desk.ask(get("/v1/products")).await);
    assert_eq!(products["data"][0], body(&desk.ask(get("/v1/products/42")).await));
    assert!(!products.to_string().contains("USD"));
    let head = desk.ask(Ask { method: "HEAD", ..get("/v1/products") }).await;
    assert!(head.status == 200 && head.body.is_empty());
    let options = desk.ask(Ask { method: "OPTIONS", ..get("/v1/products") }).await;
    assert_eq!((options.status, options.headers.once("allow")), (204, Some("GET, HEAD, OPTIONS")));
    let delete = desk.ask(Ask { method: "DELETE", ..get("/v1/products") }).await;
    assert_eq!((delete.status, delete.headers.once("allow")), (405, Some("GET, HEAD, OPTIONS")));
    let stranger = |target| {
        let (method, target) = ("OPTIONS".to_owned(), format!("/v1/{target}"));
        Request { method, target, headers: Headers::new(), body: Vec::new() }
    };
    assert_eq!(desk.send(stranger("products")).await.status, 204);
    let refused = desk.send(stranger("nothing")).await;
    assert_eq!((refused.status, body(&refused)["reason"].as_str()), (401, Some("missing_headers")));
    let mut text = desk.sign(post("/v1/orders", ORDER, "one"));
    text.headers = text.headers.iter().fold(Headers::new(), |headers, (name, value)| {
        headers.with(name, if name == "Content-Type" { b"text/plain".as_slice() } else { value })
    });
    assert_eq!(desk.send(text).await.status, 415);
}

/// The first one's card is being charged; its twin waits, and nobody has to wait with it here.
#[tokio::test]
async fn the_twin_of_a_request_in_flight_waits_for_ten_seconds() {
    let mut desk = Desk::open(0).await;
    let reseller = desk.reseller;
    let card = move |books: &mut provisor::store::Transaction<'_>| books.set_card(reseller, Some((&"sim_slow".into(), "card")));
    assert!(desk.store.transact(card).await.unwrap());
    let first = desk.sign(post("/v1/orders", ORDER, "one"));
    let Admission::Work(first) = desk.admit(first) else { panic!("answered without a transaction") };
    let Step::Between { need: Need::Charge(charge), .. } = desk.work(first).await else { panic!("no card is charged") };

    let twin = desk.sign(post("/v1/orders", ORDER, "one"));
    let Admission::Work(mut work) = desk.admit(twin) else { panic!("answered without a transaction") };
    let mut waited = Duration::ZERO;
    let answer = loop {
        match desk.work(work).await {
            Step::Between { need: Need::Pause(pause), then } => {
                waited += pause;
                work = then(Met::Paused);
            }
            Step::Between { need, .. } => panic!("the twin wants {need:?}"),
            Step::Stale => panic!("the key changed meanwhile"),
            Step::Answer { response, .. } => break response,
        }
    };
    assert_eq!(
        (waited, answer.status, body(&answer)["reason"].as_str()),
        (Duration::from_secs(10), 409, Some("request_in_progress"))
    );
    assert_eq!(answer.headers.once("retry-after"), Some("1"));
    assert_eq!((desk.count("orders"), desk.count("payments")), (1, 1));
    assert_eq!(charge.amount, Minor(990));
}
