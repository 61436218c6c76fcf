//! The OpenAPI document against the server: whatever the document promises is really answered, and whatever is answered stands in
//! the document. Judged by packages from PyPI, by none of our own code.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use jiff::Timestamp;
use provisor::audit::{Verdict, verify};
use provisor::server::Options;
use provisor_providers::message::Response;
use provisor_providers::server::{KeyLimits, TurnedAway};
use provisor_tests::binary::{self, is_long, key_for, serve};
use provisor_tests::book::{Book, Engine};
use provisor_tests::house::House;
use provisor_tests::http::{Answer, Http};
use provisor_tests::openapi::{self, Seen};
use provisor_tests::raw;
use provisor_tests::resellers::{KernelHostKey, KeyTraits};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

const ORDER: &str = r#"{"product_id":42,"billing_cycle":"monthly"}"#;
const DOCUMENT: &str = "providers/src/kernelhost/server/openapi.json";
const REQUEST_ID: &str = "01KFA2M7W3T8Q6Z5C4B3A2X1Y0";

fn engine() -> Engine {
    Engine::of_module(module_path!())
}

/// An operation of the document.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Operation {
    id: String,
    method: String,
    /// With an id that no test makes.
    absent: String,
    is_public: bool,
    has_scope: bool,
    has_body: bool,
    has_id: bool,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            all.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase(),
                absent: path.replace("{id}", "999999"),
                is_public: security.is_empty(),
                has_scope: security.iter().any(|needed| needed["KH-Key"] != json!([])),
                has_body: operation.get("requestBody").is_some(),
                has_id: path.contains("{id}"),
            });
        }
    }
    all
}

/// What the host answers without the books.
fn turned_away(seen: &mut Seen, operation: &str, why: TurnedAway) {
    let server = provisor_providers::find("kernelhost").unwrap().server;
    let Response { status, headers, body } = server.turn_away(why, REQUEST_ID);
    let headers = headers.iter().map(|(name, value)| (name, std::str::from_utf8(value).unwrap()));
    seen.add(operation, status, &headers.collect::<Vec<_>>(), &body);
}

/// A reseller whose key may do everything, and who remembers what it was answered.
struct Client<'a> {
    house: &'a House,
    key: KernelHostKey,
    seen: &'a mut Seen,
}

impl Client<'_> {
    async fn get(&mut self, operation: &str, status: u16, path: &str) -> Answer {
        let answer = self.key.get(path).await;
        self.seen.saw(operation, status, &answer);
        answer
    }

    async fn send(&mut self, operation: &str, status: u16, method: &str, path: &str, key: &str, body: &str) -> Answer {
        let answer = self.key.send(now(), method, path, &[("Idempotency-Key", key)], body.as_bytes()).await;
        self.seen.saw(operation, status, &answer);
        answer
    }

    async fn order(&mut self, status: u16, key: &str, body: &str) -> Answer {
        self.send("placeOrder", status, "POST", "/v1/orders", key, body).await
    }

    async fn act(&mut self, status: u16, service: i64, key: &str, body: &Value) -> Answer {
        let path = format!("/v1/services/{service}/actions");
        self.send("actOnService", status, "POST", &path, key, &body.to_string()).await
    }

    async fn put_webhook(&mut self, status: u16, body: &Value) {
        self.send("setWebhook", status, "PUT", "/v1/webhooks", "none", &body.to_string()).await;
    }

    /// The service of a paid order.
    async fn service(&mut self, order: &Answer) -> i64 {
        let path = format!("/v1/orders/{}", order.json()["id"]);
        loop {
            let order = self.get("getOrder", 200, &path).await.json();
            if let Some(service) = order["service_id"].as_i64() {
                return service;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[tokio::test]
async fn every_answer_stands_in_the_document_and_every_documented_answer_is_given() {
    let house = House::start_in(engine()).await;
    let mut seen = Seen::of(DOCUMENT);
    let document = seen.document();
    let operations = operations(&document);
    assert_eq!(operations.iter().filter(|operation| operation.id != "getDocument").count(), 15);
    let key = house.kernelhost_key(house.reseller("100.00").await, KeyTraits::default()).await;
    let mut client = Client { house: &house, key, seen: &mut seen };
    public(&mut client, &document).await;
    business(&mut client).await;
    let key = client.key.clone();
    for operation in &operations {
        refusals(&house, &key, operation, &mut seen).await;
    }
    over_the_limits(&house, &operations, &mut seen).await;
    seen.judge();
}

/// What needs no key.
async fn public(client: &mut Client<'_>, document: &Value) {
    let (http, base) = (client.key.http.clone(), client.key.base_url.clone());
    client.seen.saw("getHealth", 200, &http.send("GET", &format!("{base}/v1/health"), &[], "").await);
    let url = format!("{base}/openapi.json");
    let answer = http.send("GET", &url, &[], "").await;
    client.seen.saw("getDocument", 200, &answer);
    assert_eq!(answer.json(), *document);
    let known = http.send("GET", &url, &[("If-None-Match", answer.header("etag").unwrap())], "").await;
    client.seen.saw("getDocument", 304, &known);
    let head = http.send("HEAD", &url, &[], "").await;
    assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, answer.header("etag")));
    assert!(head.header("x-request-id").is_some());
}

/// A reseller's life.
async fn business(client: &mut Client<'_>) {
    client.get("getMe", 200, "/v1/me").await;
    client.get("getMe", 200, "/v1/me").await;
    client.get("listProducts", 200, "/v1/products").await;
    client.get("getProduct", 200, "/v1/products/42").await;
    client.get("listServices", 200, "/v1/services").await;
    let order = client.order(201, "first", ORDER).await;
    client.order(201, "first", ORDER).await;
    client.order(409, "first", &ORDER.replace("42", "43")).await;
    client.order(400, "second", &ORDER.replace("monthly", "weekly")).await;
    client.order(400, "second", &ORDER.replace("monthly", "weekly")).await;
    client.order(400, "third", "{").await;
    client.order(400, "no key!", ORDER).await;
    let dear = ORDER.replace("42", "50");
    let unpaid = client.order(402, "dear", &dear).await.json();
    client.order(402, "dear", &dear).await;
    client.get("getOrder", 200, &format!("/v1/orders/{}", unpaid["order_id"])).await;
    let service = client.service(&order).await;
    let path = format!("/v1/services/{service}");
    client.get("listServices", 200, "/v1/services?per_page=1&page=2").await;
    client.get("listServices", 400, "/v1/services?page=0").await;
    client.get("listServices", 400, "/v1/services?sort=id").await;
    let due_at = client.get("getService", 200, &path).await.json()["next_due_at"].clone();
    client.get("getCredentials", 200, &format!("{path}/credentials")).await;
    for action in ["stop", "start", "reboot", "reinstall", "suspend", "unsuspend", "reset_password"] {
        client.act(202, service, action, &json!({"action": action})).await;
    }
    client.act(202, service, "renew", &json!({"action": "renew", "due_at": due_at})).await;
    client.act(202, service, "renew", &json!({"action": "renew", "due_at": due_at})).await;
    client.act(409, service, "renew", &json!({"action": "reboot"})).await;
    client.act(202, service, "terminate", &json!({"action": "terminate"})).await;
    client.act(400, service, "late", &json!({"action": "reboot"})).await;
    client.get("getService", 200, &path).await;
    client.get("getCredentials", 404, &format!("{path}/credentials")).await;
    client.get("getBalance", 200, "/v1/billing/balance").await;
    client.get("listInvoices", 200, "/v1/billing/invoices").await;
    client.get("listInvoices", 200, "/v1/billing/invoices?page=2&per_page=1").await;
    client.get("listInvoices", 400, "/v1/billing/invoices?per_page=101").await;
    let invoice = order.json()["invoice_id"].clone();
    client.get("getInvoicePdf", 200, &format!("/v1/billing/invoices/{invoice}/pdf")).await;
    webhooks(client).await;
    poor(client).await;
}

/// An address that needs no resolver, and to which nothing is sent here.
async fn webhooks(client: &mut Client<'_>) {
    const URL: &str = "https://1.1.1.1/hook";
    client.get("getWebhook", 200, "/v1/webhooks").await;
    client.put_webhook(200, &json!({"url": URL})).await;
    client.put_webhook(200, &json!({"url": URL, "events": ["order.paid"], "rotate_secret": true})).await;
    client.get("getWebhook", 200, "/v1/webhooks").await;
    client.put_webhook(400, &json!({"url": "https://127.0.0.1/"})).await;
    client.put_webhook(400, &json!({"url": URL, "events": ["order.eaten"]})).await;
    client.put_webhook(200, &json!({"url": null})).await;
}

/// Whose renewal cannot be paid.
async fn poor(client: &mut Client<'_>) {
    let key = client.house.kernelhost_key(client.house.reseller("9.90").await, KeyTraits::default()).await;
    let mut client = Client { house: client.house, key, seen: &mut *client.seen };
    let order = client.order(201, "first", ORDER).await;
    let service = client.service(&order).await;
    let due_at = client.get("getService", 200, &format!("/v1/services/{service}")).await.json()["next_due_at"].clone();
    client.act(402, service, "renew", &json!({"action": "renew", "due_at": due_at})).await;
    client.act(402, service, "renew", &json!({"action": "renew", "due_at": due_at})).await;
}

/// What every operation answers to whom it cannot serve.
async fn refusals(house: &House, key: &KernelHostKey, operation: &Operation, seen: &mut Seen) {
    let Operation { id, method, absent, .. } = operation;
    let url = format!("{}{absent}", key.base_url);
    let ambiguous = format!("{method} {url} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    seen.saw(id, 400, &raw::exchange(house.address(), ambiguous.as_bytes()).await);
    for why in [TurnedAway::Internal, TurnedAway::Busy] {
        turned_away(seen, id, why);
    }
    if operation.has_body {
        turned_away(seen, id, TurnedAway::BodyTimeout);
        seen.saw(id, 413, &key.send(now(), method, absent, &[], &vec![b' '; 64 * 1024 + 1]).await);
        let signed = key.headers(now(), method, absent, b"x");
        let headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        seen.saw(id, 415, &key.http.send(method, &url, &headers, "x").await);
    }
    if operation.is_public {
        return;
    }
    seen.saw(id, 401, &key.http.send(method, &url, &[], "").await);
    if operation.has_scope {
        let account = house.reseller("0.00").await;
        let bare = house.kernelhost_key(account, KeyTraits { scopes: &[], ..KeyTraits::default() }).await;
        seen.saw(id, 403, &bare.send(now(), method, absent, &[], b"").await);
    }
    if operation.has_id {
        let body = if operation.has_body { &br#"{"action":"start"}"#[..] } else { b"" };
        seen.saw(id, 404, &key.send(now(), method, absent, &[("Idempotency-Key", "absent")], body).await);
    }
}

/// A key that has spent its day, and an address that has spent its minute.
async fn over_the_limits(house: &House, operations: &[Operation], seen: &mut Seen) {
    let limits = KeyLimits { per_minute: 1, burst: 1, per_day: 1 };
    let key = house.kernelhost_key(house.reseller("0.00").await, KeyTraits { limits, ..KeyTraits::default() }).await;
    seen.saw("getMe", 200, &key.get("/v1/me").await);
    let strict = House::start_with(Options { per_ip_per_minute: 1, ..Options::default() }).await;
    let (base, http) = (strict.base_url("kernelhost"), Http::default());
    seen.saw("getHealth", 200, &http.send("GET", &format!("{base}/v1/health"), &[], "").await);
    for Operation { id, method, absent, is_public, .. } in operations {
        seen.saw(id, 429, &http.send(method, &format!("{base}{absent}"), &[], "").await);
        if !is_public {
            seen.saw(id, 429, &key.send(now(), method, absent, &[], b"").await);
        }
    }
}

/// Lets schemathesis loose on the shipped binary.
fn schemathesis(scopes: &str, seconds: u32) {
    let book = Book::new(engine());
    let data = book.directory();
    let key = key_for(data, &binary::reseller(data, "1000000.00"), scopes);
    let server = serve(data);
    let url = format!("{}/openapi.json", server.base_url("kernelhost"));
    let environment = [("KH_KEY", key.id.as_str()), ("KH_SECRET", key.secret.expose_secret())];
    // Each engine is asked other things.
    let seed = if engine() == Engine::Sqlite { 1 } else { 2 };
    openapi::schemathesis(&url, &[], "signing.py", &environment, (seed, seconds));
    server.kill();
    let Verdict::Whole { rows, .. } = book.open().read(verify).unwrap() else { panic!("the audit chain is broken") };
    assert!(rows > 500, "only {rows} requests");
}

#[test]
fn schemathesis_finds_nothing_with_a_key_for_everything() {
    schemathesis("all", if is_long() { 300 } else { 40 });
}

#[test]
fn schemathesis_finds_nothing_with_a_key_for_nothing() {
    schemathesis("none", if is_long() { 60 } else { 40 });
}
