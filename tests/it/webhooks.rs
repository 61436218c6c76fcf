//! Webhooks: set through the API, told by the courier, and what neither may be made to do. On both engines.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provisor::clock::Clock;
use provisor::resolve::{Resolution, Resolve};
use provisor::server::Options;
use provisor::store::{Attempt, Claim, Delivery, DeliverySummary, Then};
use provisor_providers::books::{AccountId, Books, Fault, KeyRow, NewEvent};
use provisor_providers::kernelhost::server::Server;
use provisor_providers::kernelhost::webhook::{Rejected, verify};
use provisor_providers::money::Minor;
use provisor_providers::server::{Moment, Server as _};
use provisor_tests::binary;
use provisor_tests::book::{Book, Engine};
use provisor_tests::hooks::{Accept, Received, Receiver, Reply, until};
use provisor_tests::house::House;
use provisor_tests::http::Answer;
use provisor_tests::resellers::{KernelHostKey, KeyTraits, unique};
use serde_json::{Value, json};

/// Names that resolve to what a test says, and to something else once it changes its mind.
#[derive(Debug, Default)]
struct Names(Mutex<BTreeMap<String, Vec<IpAddr>>>);

impl Names {
    fn point(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(name.to_owned(), addresses);
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolution<'a> {
        let found = self.0.lock().unwrap().get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| std::io::Error::other("no such name")) })
    }
}

/// A house that may reach the given targets privately.
async fn house(targets: &[&Receiver]) -> House {
    started(options(targets)).await
}

/// On the engine of this module.
async fn started(options: Options) -> House {
    House::start_on(Engine::of_module(module_path!()), options).await
}

fn options(targets: &[&Receiver]) -> Options {
    let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
    options.rules.fulfilment_delay = Duration::ZERO;
    options.rules.webhooks.allowed = targets.iter().map(|target| target.authority().parse().unwrap()).collect();
    options
}

async fn key(house: &House) -> (AccountId, KernelHostKey) {
    let account = house.reseller("1000.00").await;
    (account, house.kernelhost_key(account, KeyTraits::default()).await)
}

async fn put(house: &House, key: &KernelHostKey, body: &Value) -> Answer {
    key.send(house.clock.now().as_second(), "PUT", "/v1/webhooks", &[], body.to_string().as_bytes()).await
}

async fn get(house: &House, key: &KernelHostKey) -> Value {
    let answer = key.send(house.clock.now().as_second(), "GET", "/v1/webhooks", &[], b"").await;
    assert_eq!(answer.status, 200);
    answer.json()
}

/// Sets a webhook and returns its secret.
async fn listen(house: &House, key: &KernelHostKey, url: &str) -> String {
    let answer = put(house, key, &json!({"url": url})).await;
    assert_eq!(answer.status, 200, "{:?}", answer.json());
    answer.json()["secret"].as_str().unwrap().to_owned()
}

async fn post(house: &House, key: &KernelHostKey, path: &str, body: &Value) -> Value {
    let idempotency_key = format!("hook-{}", unique());
    let extra = [("Idempotency-Key", idempotency_key.as_str())];
    let answer = key.send(house.clock.now().as_second(), "POST", path, &extra, body.to_string().as_bytes()).await;
    assert!(answer.status < 300, "{path}: {:?}", answer.json());
    answer.json()
}

async fn order(house: &House, key: &KernelHostKey) -> i64 {
    post(house, key, "/v1/orders", &json!({"product_id": 42, "billing_cycle": "monthly"})).await["id"].as_i64().unwrap()
}

/// An event of a reseller that nothing else causes.
async fn happen(house: &House, account: AccountId, number: u64) -> String {
    let id = format!("evt_{number:026}");
    let (event_id, now) = (id.clone(), house.clock.now());
    let body = json!({"id": id, "object": "event", "type": "order.paid", "created": now.as_second(), "data": {"object": {"id": number}}});
    let body = body.to_string();
    let work = house.store.transact(move |books| {
        books.account(account).add_event(&NewEvent { id: &event_id, kind: "order.paid", body: &body, at: now })
    });
    work.await.unwrap();
    id
}

fn deliveries(house: &House) -> Vec<DeliverySummary> {
    house.store.read(|books| books.deliveries(None, false, 1000)).unwrap()
}

fn the_delivery(house: &House) -> DeliverySummary {
    let mut all = deliveries(house);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn signed(came: &Received, secret: &str, now: Timestamp) -> Result<(), Rejected> {
    verify(came.header("KH-Webhook-Signature"), &came.body, &[secret.as_bytes()], now)
}

fn is_secret(text: &str) -> bool {
    text.strip_prefix("whsec_").is_some_and(|rest| rest.len() >= 32 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[tokio::test]
async fn a_webhook_is_set_shown_changed_and_unset() {
    let receiver = Receiver::start().await;
    let mut house = house(&[&receiver]).await;
    let (account, key) = key(&house).await;
    let unset = json!({"url": null, "events": [], "secret_hint": null, "last_delivery": null});
    assert_eq!(get(&house, &key).await, unset);

    let url = receiver.url();
    let answer = put(&house, &key, &json!({"url": url, "events": ["service.suspended", "order.paid"]})).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let set = answer.json();
    let first = set["secret"].as_str().unwrap().to_owned();
    assert!(is_secret(&first), "{first}");
    let hint = format!("whsec_..{}", &first[first.len() - 4..]);
    let shown = json!({"url": url, "events": ["order.paid", "service.suspended"], "secret_hint": hint, "last_delivery": null});
    assert_eq!(get(&house, &key).await, shown, "shown, and its secret never again");

    let again = put(&house, &key, &json!({"url": url})).await.json();
    assert_eq!((again.get("secret"), again["events"].as_array().unwrap().len()), (None, 10), "all types, the same secret");
    let rotated = put(&house, &key, &json!({"url": url, "rotate_secret": true})).await.json();
    assert!(is_secret(rotated["secret"].as_str().unwrap()) && rotated["secret"] != first.as_str());
    let moved = put(&house, &key, &json!({"url": format!("{url}&b")})).await.json();
    assert!(is_secret(moved["secret"].as_str().unwrap()) && moved["secret"] != rotated["secret"], "another address");

    let other = house.kernelhost_key(account, KeyTraits::default()).await;
    assert_eq!(get(&house, &other).await, unset, "one per key");
    assert_eq!(put(&house, &other, &json!({"url": null})).await.json(), unset);
    assert_ne!(get(&house, &key).await, unset);
    assert_eq!(put(&house, &key, &json!({"url": null})).await.json(), unset);
    assert_eq!(get(&house, &key).await, unset);

    let reading = house.kernelhost_key(account, KeyTraits { scopes: &["read:webhooks"], ..KeyTraits::default() }).await;
    assert_eq!(put(&house, &reading, &json!({"url": url})).await.json()["reason"], "missing_scope");
    house.stop().await;
}

#[tokio::test]
async fn nothing_is_said_of_what_a_name_resolves_to() {
    let names = Arc::new(Names::default());
    names.point("inside.example.com", &["10.1.2.3"]);
    names.point("both.example.com", &["93.184.216.34", "10.1.2.3"]);
    names.point("metadata.example.com", &["169.254.169.254"]);
    names.point("mapped.example.com", &["::ffff:127.0.0.1"]);
    names.point("outside.example.com", &["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"]);
    let mut house = started(Options { resolver: names, ..options(&[]) }).await;
    let (_, key) = key(&house).await;
    let mut told = BTreeSet::new();
    for name in ["inside", "both", "metadata", "mapped", "absent"] {
        let answer = put(&house, &key, &json!({"url": format!("https://{name}.example.com/hook")})).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["errors"][0]["field"]), (400, &json!("url")), "{problem}");
        assert_eq!(problem["errors"][0]["code"], "not_public");
        told.insert(problem["errors"].to_string());
    }
    assert_eq!(told.len(), 1, "one answer for all: {told:?}");
    for (url, code) in [
        ("http://outside.example.com/", "not_https"),
        ("https://u@outside.example.com/", "userinfo"),
        ("https://outside.example.com:8443/", "port"),
        ("https://outside/", "host"),
        ("https://0x7f.1/", "not_public"),
        ("outside.example.com", "malformed"),
    ] {
        assert_eq!(put(&house, &key, &json!({"url": url})).await.json()["errors"][0]["code"], code, "{url}");
    }
    assert_eq!(get(&house, &key).await["url"], Value::Null);
    listen(&house, &key, "https://outside.example.com/hook").await;
    house.stop().await;
}

#[tokio::test]
async fn a_services_life_is_told() {
    let receiver = Receiver::start().await;
    let mut house = house(&[&receiver]).await;
    let (_, key) = key(&house).await;
    let secret = listen(&house, &key, &receiver.url()).await;
    let of_services = |all: Vec<Received>| all.into_iter().filter(|one| one.kind().starts_with("service.")).collect::<Vec<_>>();
    order(&house, &key).await;
    until(|| of_services(receiver.received()).len() == 1, || "service.provisioned".to_owned()).await;
    let service = of_services(receiver.received())[0].json()["data"]["object"]["id"].as_i64().unwrap();
    let actions = format!("/v1/services/{service}/actions");
    for action in ["suspend", "suspend", "unsuspend", "reboot", "terminate", "terminate"] {
        post(&house, &key, &actions, &json!({"action": action})).await;
    }
    until(|| of_services(receiver.received()).len() >= 4, || "the service's changes".to_owned()).await;
    let told = of_services(receiver.received());
    let kinds: BTreeSet<String> = told.iter().map(Received::kind).collect();
    let all = ["provisioned", "suspended", "unsuspended", "terminated"].map(|change| format!("service.{change}"));
    assert_eq!((told.len(), kinds), (4, BTreeSet::from(all)), "what changes nothing tells nothing");
    for one in receiver.received() {
        assert_eq!(signed(&one, &secret, Timestamp::now()), Ok(()));
        assert_eq!(signed(&one, "whsec_another", Timestamp::now()), Err(Rejected::Mismatch));
        assert_eq!((one.path.as_str(), one.header("content-type")), ("/hook?tenant=7", "application/json"));
        assert!(one.header("user-agent").starts_with("Provisor/"));
        assert_eq!(one.header("host"), receiver.authority());
        let event = one.json();
        assert_eq!((&event["object"], event["id"].as_str().unwrap().len()), (&json!("event"), 30));
    }
    let suspended = told.iter().find(|one| one.kind() == "service.suspended").unwrap().json();
    assert_eq!(
        (&suspended["data"]["object"]["status"], &suspended["data"]["object"]["id"]),
        (&json!("suspended"), &json!(service))
    );
    until(|| deliveries(&house).iter().all(|one| one.delivered_at.is_some()), || "the books".to_owned()).await;
    let last = get(&house, &key).await["last_delivery"].clone();
    assert_eq!((&last["status"], &last["response_status"], &last["attempts"]), (&json!("delivered"), &json!(200), &json!(1)));
    house.stop().await;
}

#[tokio::test]
async fn services_that_cannot_be_made_are_told_of() {
    let receiver = Receiver::start().await;
    let mut options = options(&[&receiver]);
    options.rules.is_fulfilled_by_hand = true;
    let moment = Moment { now: Timestamp::now(), seed: [1; 32], rules: options.rules.clone() };
    let mut house = started(options).await;
    let (account, key) = key(&house).await;
    listen(&house, &key, &receiver.url()).await;
    let order = json!({"product_id": 42, "billing_cycle": "monthly", "quantity": 2});
    let order = post(&house, &key, "/v1/orders", &order).await["id"].as_i64().unwrap();
    let give_up = move |books: &mut provisor::store::Transaction<'_>| Server.fail_order(&moment, account, order, books);
    assert!(house.store.transact(give_up).await.unwrap());
    let of = |kind: &str| receiver.received().into_iter().filter(|one| one.kind() == kind).collect::<Vec<_>>();
    until(|| of("service.failed").len() == 2 && of("order.cancelled").len() == 1, || "the end of an order".to_owned()).await;
    for failed in of("service.failed") {
        let service = failed.json()["data"]["object"].take();
        assert_eq!((&service["order_id"], &service["status"]), (&json!(order), &json!("failed")));
    }
    assert_eq!(of("order.cancelled")[0].json()["data"]["object"]["id"], order);
    assert!(of("service.provisioned").is_empty());
    house.stop().await;
}

#[tokio::test]
async fn only_what_was_asked_for_is_told_and_to_each_key_apart() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let mut house = house(&[&first, &second]).await;
    let (account, one) = key(&house).await;
    let two = house.kernelhost_key(account, KeyTraits::default()).await;
    let (_, stranger) = key(&house).await;
    put(&house, &one, &json!({"url": first.url(), "events": ["order.created"]})).await;
    listen(&house, &two, &second.url()).await;
    listen(&house, &stranger, &first.url()).await;
    let id = happen(&house, account, 1).await;
    assert_eq!(second.wait_for(1).await[0].id(), id);
    // Rolled back with what it tells of.
    let rolled_back = house.store.transact(move |books| {
        let event = NewEvent { id: "evt_never", kind: "order.paid", body: "{}", at: Timestamp::now() };
        books.account(account).add_event(&event)?;
        Err::<(), _>(Fault("on purpose".to_owned()))
    });
    assert!(rolled_back.await.is_err());
    let (revoked, now) = (two.id.clone(), house.clock.now());
    house.store.transact(move |books| books.revoke_key("kernelhost", &revoked, now)).await.unwrap();
    happen(&house, account, 2).await;
    assert_eq!(deliveries(&house).len(), 1);
    assert_eq!((first.received().len(), second.received().len()), (0, 1));
    house.stop().await;
}

#[tokio::test]
async fn during_a_rotation_both_secrets_sign_for_a_day() {
    let receiver = Receiver::start().await;
    let mut house = house(&[&receiver]).await;
    house.clock.set("2028-02-29T23:59:59Z".parse().unwrap());
    let (account, key) = key(&house).await;
    let before = listen(&house, &key, &receiver.url()).await;
    let rotated = put(&house, &key, &json!({"url": receiver.url(), "rotate_secret": true})).await.json();
    let after = rotated["secret"].as_str().unwrap();
    for (number, advance_s, signatures) in [(1, 0, 2), (2, 86_399, 2), (3, 1, 1)] {
        house.clock.advance(SignedDuration::from_secs(advance_s));
        happen(&house, account, number).await;
        let count = usize::try_from(number).unwrap();
        let came = receiver.wait_for(count).await.remove(count - 1);
        let now = house.clock.now();
        assert_eq!(came.header("KH-Webhook-Signature").matches("v1=").count(), signatures);
        assert!(came.header("KH-Webhook-Signature").starts_with(&format!("t={},", now.as_second())));
        assert_eq!(signed(&came, after, now), Ok(()));
        assert_eq!(signed(&came, &before, now).is_ok(), signatures == 2);
    }
    house.stop().await;
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_not_followed() {
    let receiver = Receiver::start().await;
    let names = Arc::new(Names::default());
    let mut options = Options { resolver: Arc::<Names>::clone(&names), ..options(&[]) };
    // As if the receiver stood on a public port.
    options.rules.webhooks.ports.push(receiver.port());
    let mut house = started(options).await;
    let (account, key) = key(&house).await;
    names.point("rebound.example.com", &["93.184.216.34"]);
    listen(&house, &key, &format!("https://rebound.example.com:{}/", receiver.port())).await;
    for (number, addresses) in
        (1..).zip([&["127.0.0.1"][..], &["93.184.216.34", "127.0.0.1"], &["::ffff:127.0.0.1"], &["::1"], &["0.0.0.0"], &[]])
    {
        names.point("rebound.example.com", addresses);
        let id = happen(&house, account, number).await;
        let tried = || deliveries(&house).into_iter().find(|one| one.event_id == id && one.attempts > 0);
        until(|| tried().is_some(), || "an attempt".to_owned()).await;
        assert_eq!(tried().unwrap().last_error.as_deref(), Some("the address is refused as not_public"), "{addresses:?}");
    }
    assert_eq!(receiver.connections(), 0);
    house.stop().await;
}

/// TLS with a certificate of a name.
#[derive(Clone)]
struct Tls(tokio_rustls::TlsAcceptor);

impl Accept for Tls {
    type Stream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

    async fn accept(&self, stream: tokio::net::TcpStream) -> Option<Self::Stream> {
        self.0.accept(stream).await.ok()
    }
}

#[tokio::test]
async fn over_tls_the_name_is_proved() {
    let made = rcgen::generate_simple_self_signed(["hooks.example.com".to_owned()]).unwrap();
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], private.into()).unwrap();
    let tls = Tls(tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    let receiver = Receiver::accepting(tls, |_, _| Reply::Status(204)).await;
    let names = Arc::new(Names::default());
    for name in ["hooks.example.com", "other.example.com"] {
        names.point(name, &["127.0.0.1"]);
    }
    for (name, trusted, expected) in [
        ("hooks.example.com", true, None),
        ("other.example.com", true, Some("TLS: ")),
        ("hooks.example.com", false, Some("TLS: ")),
    ] {
        let mut options = Options { resolver: Arc::<Names>::clone(&names), ..options(&[]) };
        options.rules.webhooks.allowed = vec![format!("{name}:{}", receiver.port()).parse().unwrap()];
        options.extra_roots = if trusted { vec![made.cert.der().clone()] } else { Vec::new() };
        let mut house = started(options).await;
        let (account, key) = key(&house).await;
        let secret = listen(&house, &key, &format!("https://{name}:{}/hook", receiver.port())).await;
        happen(&house, account, 1).await;
        until(|| the_delivery(&house).attempts > 0, || "an attempt".to_owned()).await;
        let delivery = the_delivery(&house);
        match expected {
            None => {
                assert_eq!((delivery.last_status, delivery.delivered_at.is_some()), (Some(204), true), "{delivery:?}");
                assert_eq!(signed(&receiver.received()[0], &secret, Timestamp::now()), Ok(()));
            }
            Some(why) => assert!(delivery.last_error.unwrap().starts_with(why)),
        }
        house.stop().await;
    }
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_a_failure() {
    let inside = Receiver::start().await;
    let location = inside.url();
    let receiver = Receiver::answering(move |_, _| Reply::With(307, "location", location.clone())).await;
    let mut house = house(&[&receiver, &inside]).await;
    let (account, key) = key(&house).await;
    listen(&house, &key, &receiver.url()).await;
    happen(&house, account, 1).await;
    until(|| the_delivery(&house).attempts == 1, || "an attempt".to_owned()).await;
    let delivery = the_delivery(&house);
    assert_eq!((delivery.last_status, delivery.delivered_at, delivery.dead_at), (Some(307), None, None));
    assert_eq!(inside.connections(), 0);
    house.stop().await;
}

#[tokio::test]
async fn a_slow_receiver_delays_no_other() {
    let slow = Receiver::answering(|_, _| Reply::Hang).await;
    let fast = Receiver::start().await;
    let mut house = house(&[&slow, &fast]).await;
    let (slow_account, slow_key) = key(&house).await;
    let (fast_account, fast_key) = key(&house).await;
    listen(&house, &slow_key, &slow.url()).await;
    listen(&house, &fast_key, &fast.url()).await;
    for number in 0..50 {
        happen(&house, slow_account, number).await;
    }
    slow.wait_for(4).await;
    for number in 0..50 {
        happen(&house, fast_account, 100 + number).await;
    }
    let fast_ids: BTreeSet<String> = fast.wait_for(50).await.iter().map(Received::id).collect();
    assert_eq!(fast_ids.len(), 50);
    assert_eq!(slow.received().len(), 4, "four at a time and no more");
    house.stop().await;
}

#[tokio::test]
async fn who_does_not_answer_in_time_has_failed_and_is_tried_again() {
    assert_eq!(Options::default().webhook_timeout, Duration::from_secs(15));
    let receiver = Receiver::answering(|_, before| if before == 0 { Reply::Hang } else { Reply::Status(200) }).await;
    let mut house = started(Options { webhook_timeout: Duration::from_millis(300), ..options(&[&receiver]) }).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    let (account, key) = key(&house).await;
    listen(&house, &key, &receiver.url()).await;
    let id = happen(&house, account, 1).await;
    until(|| the_delivery(&house).attempts == 1, || "an attempt".to_owned()).await;
    let delivery = the_delivery(&house);
    assert_eq!((delivery.last_status, delivery.last_error.as_deref()), (None, Some("no answer within 300ms")));
    house.clock.set(delivery.next_at.unwrap());
    until(|| the_delivery(&house).delivered_at.is_some(), || "the second attempt".to_owned()).await;
    assert!(receiver.received().iter().all(|came| came.id() == id));
    house.stop().await;
}

#[tokio::test]
async fn what_cannot_be_delivered_is_given_up_after_eight_attempts_and_can_be_sent_again() {
    let receiver = Receiver::answering(|_, before| Reply::Status(if before < 8 { 500 } else { 200 })).await;
    let mut house = house(&[&receiver]).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    let (account, key) = key(&house).await;
    let secret = listen(&house, &key, &receiver.url()).await;
    let id = happen(&house, account, 1).await;
    for (attempts, seconds) in (1..).zip([5, 300, 1800, 7200, 18_000, 36_000, 36_000]) {
        until(|| the_delivery(&house).attempts == attempts, || format!("attempt {attempts}")).await;
        let (delivery, now) = (the_delivery(&house), house.clock.now());
        let wait = delivery.next_at.unwrap().duration_since(now).as_millis();
        assert!((900 * seconds..=1100 * seconds).contains(&wait), "{attempts}: {wait} ms");
        house.clock.set(delivery.next_at.unwrap());
    }
    until(|| the_delivery(&house).dead_at.is_some(), || "the end".to_owned()).await;
    let delivery = the_delivery(&house);
    assert_eq!((delivery.attempts, delivery.next_at, delivery.last_status), (8, None, Some(500)));
    assert_eq!(get(&house, &key).await["last_delivery"]["status"], "failed");

    let (number, now) = (delivery.id, house.clock.now());
    assert!(house.store.transact(move |books| books.redeliver(number, now)).await.unwrap());
    assert!(!house.store.transact(move |books| books.redeliver(number + 1, now)).await.unwrap());
    until(|| the_delivery(&house).delivered_at.is_some(), || "the second try".to_owned()).await;
    let came = receiver.received();
    assert!(came.len() == 9 && came.iter().all(|one| one.id() == id), "one event, one id");
    let times: BTreeSet<&str> = came.iter().map(|one| one.header("KH-Webhook-Signature")).collect();
    assert_eq!(times.len(), 8, "each attempt is signed anew, and the last two in one second");
    assert_eq!(signed(&came[8], &secret, house.clock.now()), Ok(()));
    house.stop().await;
}

#[tokio::test]
async fn a_receiver_may_ask_for_more_time() {
    let receiver = Receiver::answering(|_, _| Reply::With(503, "retry-after", "3600".to_owned())).await;
    let mut house = house(&[&receiver]).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    let (account, key) = key(&house).await;
    listen(&house, &key, &receiver.url()).await;
    happen(&house, account, 1).await;
    until(|| the_delivery(&house).attempts == 1, || "an attempt".to_owned()).await;
    assert_eq!(the_delivery(&house).next_at.unwrap(), house.clock.now() + SignedDuration::from_hours(1));
    house.stop().await;
}

/// The mails of a house about disabled webhooks.
fn mails_about_it(house: &House) -> usize {
    let mails = house.store.read(|books| books.mails(100)).unwrap();
    mails.iter().filter(|mail| mail.kind == "webhook.disabled").count()
}

#[tokio::test]
async fn who_is_gone_is_told_nothing_more() {
    let receiver = Receiver::answering(|_, before| Reply::Status(if before == 0 { 410 } else { 200 })).await;
    let mut house = house(&[&receiver]).await;
    let (account, key) = key(&house).await;
    let secret = listen(&house, &key, &receiver.url()).await;
    happen(&house, account, 1).await;
    until(|| get_disabled(&house), || "410 to disable".to_owned()).await;
    happen(&house, account, 2).await;
    let delivery = the_delivery(&house);
    assert_eq!((delivery.dead_at.is_some(), delivery.last_status), (true, Some(410)), "given up at once");
    assert_eq!(mails_about_it(&house), 1);
    assert!(get(&house, &key).await["disabled_at"].is_string());

    let set = put(&house, &key, &json!({"url": receiver.url()})).await.json();
    assert_eq!((set.get("disabled_at"), set.get("secret")), (None, None), "enabled again, with its secret");
    let id = happen(&house, account, 3).await;
    let came = receiver.wait_for(2).await;
    assert_eq!((came[1].id(), signed(&came[1], &secret, Timestamp::now())), (id, Ok(())));
    house.stop().await;
}

/// What the old address says of it does not count, and disables nothing.
#[tokio::test]
async fn what_is_on_its_way_to_an_old_address_goes_to_the_new_one() {
    let (old, new) = (Receiver::answering(|_, _| Reply::Hang).await, Receiver::start().await);
    // The old one has not failed yet when the new one is told.
    let mut house = started(Options { webhook_timeout: Duration::from_secs(600), ..options(&[&old, &new]) }).await;
    let (account, key) = key(&house).await;
    listen(&house, &key, &old.url()).await;
    let id = happen(&house, account, 1).await;
    old.wait_for(1).await;
    assert_eq!(put(&house, &key, &json!({"url": new.url()})).await.status, 200);
    let stale = Attempt { at: house.clock.now(), status: Some(410), error: Some("status 410".to_owned()), then: Then::Dead };
    let settled = house.store.transact(move |books| books.settle_delivery(1, 1, &stale)).await.unwrap();
    assert!(settled.is_none() && !get_disabled(&house));
    assert_eq!(new.received().len(), 0, "it is held for the old one still");
    house.clock.advance(SignedDuration::from_secs(61));
    let came = new.wait_for(1).await;
    assert_eq!(came[0].id(), id);
    until(|| the_delivery(&house).delivered_at.is_some(), || "delivered".to_owned()).await;
    house.stop().await;
}

fn get_disabled(house: &House) -> bool {
    house.store.read(|books| books.webhooks(None)).unwrap().iter().all(|webhook| webhook.disabled_at.is_some())
}

#[tokio::test]
async fn five_days_of_failures_disable_a_webhook_with_one_mail() {
    let receiver = Receiver::answering(|_, _| Reply::Status(500)).await;
    let mut house = house(&[&receiver]).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    let (account, key) = key(&house).await;
    listen(&house, &key, &receiver.url()).await;
    happen(&house, account, 1).await;
    until(|| the_delivery(&house).attempts == 1, || "an attempt".to_owned()).await;
    for (number, advance_s, is_disabled) in [(2, 120 * 3600 - 1, false), (3, 1, true)] {
        house.clock.advance(SignedDuration::from_secs(advance_s));
        let id = happen(&house, account, number).await;
        let tried = || deliveries(&house).iter().any(|one| one.event_id == id && (one.attempts > 0 || one.dead_at.is_some()));
        until(tried, || format!("event {number}")).await;
        assert_eq!(get_disabled(&house), is_disabled, "event {number}");
    }
    until(|| deliveries(&house).iter().all(|one| one.dead_at.is_some()), || "what waits to be given up".to_owned()).await;
    assert_eq!(mails_about_it(&house), 1);
    house.stop().await;
}

#[tokio::test]
async fn what_a_dead_courier_held_is_delivered_by_another() {
    let receiver = Receiver::start().await;
    let mut house = house(&[&receiver]).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    let (account, key) = key(&house).await;
    listen(&house, &key, &receiver.url()).await;
    let now = house.clock.now();
    // Event and claim in one transaction, so that the house's own courier does not come first.
    let claimed = house.store.transact(move |books| {
        let event = NewEvent { id: "evt_held", kind: "order.paid", body: r#"{"id":"evt_held","type":"order.paid"}"#, at: now };
        books.account(account).add_event(&event)?;
        let until = now + SignedDuration::from_secs(60);
        books.claim_deliveries(&Claim { now, until, after: KeyRow(0), healthy: 10, failing: 10 })
    });
    let held: Vec<Delivery> = claimed.await.unwrap().deliveries;
    assert_eq!((held.len(), held[0].event_id.as_str()), (1, "evt_held"));
    house.clock.advance(SignedDuration::from_secs(59));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(receiver.received().len(), 0, "it is held");
    house.clock.advance(SignedDuration::from_secs(1));
    receiver.wait_for(1).await;
    until(|| the_delivery(&house).delivered_at.is_some(), || "the books".to_owned()).await;
    let (id, fence) = (held[0].id, held[0].fence);
    let late = Attempt { at: now, status: None, error: Some("late".to_owned()), then: Then::Dead };
    assert!(house.store.transact(move |books| books.settle_delivery(id, fence, &late)).await.unwrap().is_none());
    assert_eq!((the_delivery(&house).dead_at, the_delivery(&house).attempts), (None, 1), "its word counts no more");
    house.stop().await;
}

#[tokio::test]
async fn every_event_arrives_from_a_receiver_that_often_fails() {
    let receiver = Receiver::answering(|_, before| Reply::Status(if before < 60 && before % 3 == 0 { 503 } else { 200 })).await;
    let mut house = house(&[&receiver]).await;
    house.clock.set("2027-01-15T08:00:00Z".parse().unwrap());
    let (account, key) = key(&house).await;
    listen(&house, &key, &receiver.url()).await;
    let mut ids = BTreeSet::new();
    for number in 0..60 {
        ids.insert(happen(&house, account, number).await);
    }
    let waiting = || deliveries(&house).iter().filter(|one| one.delivered_at.is_none()).count();
    until(
        || {
            house.clock.advance(SignedDuration::from_secs(1));
            waiting() == 0
        },
        || format!("{} deliveries", waiting()),
    )
    .await;
    let told: BTreeSet<String> = receiver.received().iter().map(Received::id).collect();
    assert_eq!(told, ids);
    house.stop().await;
}

/// The shipped binary is killed after it has posted and before it has noted that: a duplicate, never a loss.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_was_delivering_is_delivered_again() {
    let receiver = Receiver::answering(|_, before| if before == 0 { Reply::Hang } else { Reply::Status(200) }).await;
    let book = Book::new(Engine::of_module(module_path!()));
    let (data, url) = (book.directory(), &book.url());
    let settings = format!("[webhooks]\nallow_targets = [\"{}\"]\n", receiver.authority());
    std::fs::write(data.join("provisor.toml"), settings).unwrap();
    let key = binary::client_on(data, url, Minor(100_000_000));
    let server = binary::serve_on(data, url);
    let key = key.at(&server);
    let now = Timestamp::now().as_second();
    let set = key.send(now, "PUT", "/v1/webhooks", &[], json!({"url": receiver.url()}).to_string().as_bytes()).await;
    assert_eq!(set.status, 200, "{}", set.json());
    let body = json!({"product_id": 42, "billing_cycle": "monthly"});
    assert_eq!(key.post("/v1/orders", "killed", &body).await.status, 201);
    let first = receiver.wait_for(1).await[0].id();
    server.kill();

    let count = |condition: &str| book.number(&format!("SELECT COUNT(*) FROM deliveries WHERE {condition}"));
    assert!(count("leased_until IS NOT NULL AND delivered_at IS NULL") > 0, "it died while it held one");
    // A minute passes.
    book.execute("UPDATE deliveries SET next_at = 0, leased_until = 0 WHERE leased_until IS NOT NULL");
    let server = binary::serve_on(data, url);
    until(|| count("delivered_at IS NULL") == 0, || "all deliveries".to_owned()).await;
    server.kill();
    let told: Vec<String> = receiver.received().iter().map(Received::id).collect();
    assert!(told.iter().filter(|id| **id == first).count() >= 2, "{told:?}");
    let known = i64::try_from(told.iter().collect::<BTreeSet<_>>().len()).unwrap();
    assert_eq!(known, count("1 = 1"), "every event arrived");
}
