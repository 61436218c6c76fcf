//! Money at the KernelHost API's answering end: invoices, cards, pending orders, renewals. Real server, real book of either engine, the clock
//! moved by hand.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::process::Command;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use provisor::clock::Clock;
use provisor::server::Options;
use provisor_providers::PROVIDERS;
use provisor_providers::books::{AccountId, Books, Entry};
use provisor_providers::money::Minor;
use provisor_tests::book::{Book, Engine};
use provisor_tests::house::House;
use provisor_tests::http::Answer;
use provisor_tests::resellers::{KernelHostKey, KeyTraits, unique};
use secrecy::SecretString;
use serde_json::{Value, json};

/// How long the schedule may take to do what has fallen due.
const PATIENCE: Duration = Duration::from_secs(30);
const DAY_S: i64 = 86_400;

/// A reseller of a house, and how it asks.
struct Shop {
    house: House,
    reseller: AccountId,
    key: KernelHostKey,
}

impl Shop {
    async fn open(credit: &str) -> Self {
        Self::open_at(credit, "2027-01-31T08:00:00Z", |_| ()).await
    }

    async fn open_at(credit: &str, now: &str, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
        options.rules.fulfilment_delay = Duration::ZERO;
        change(&mut options);
        let house = House::start_on(Engine::of_module(module_path!()), options).await;
        house.clock.set(now.parse().unwrap());
        let reseller = house.reseller(credit).await;
        let key = house.kernelhost_key(reseller, KeyTraits::default()).await;
        Self { house, reseller, key }
    }

    fn now(&self) -> i64 {
        self.house.clock.now().as_second()
    }

    async fn get(&self, path: &str) -> Answer {
        self.key.send(self.now(), "GET", path, &[], b"").await
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        answer.json()
    }

    async fn post(&self, path: &str, idempotency_key: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.key.send(self.now(), "POST", path, &[("Idempotency-Key", idempotency_key)], body.as_bytes()).await
    }

    async fn order(&self, idempotency_key: &str) -> Answer {
        self.post("/v1/orders", idempotency_key, &json!({"product_id": 42, "billing_cycle": "monthly"})).await
    }

    async fn act(&self, service: i64, idempotency_key: &str, action: &Value) -> Answer {
        self.post(&format!("/v1/services/{service}/actions"), idempotency_key, action).await
    }

    /// Orders product 42 for a month and waits for its service.
    async fn service(&self) -> i64 {
        let order = self.order(&format!("service-{}", unique())).await.json()["id"].clone();
        let path = format!("/v1/orders/{order}");
        self.until(&path, |order| order["status"] == "completed").await["service_id"].as_i64().unwrap()
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let answer = self.json(path).await;
            if is_so(&answer) {
                return answer;
            }
            assert!(begin.elapsed() < PATIENCE, "{path} stays {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn service_until(&self, service: i64, status: &str) -> Value {
        self.until(&format!("/v1/services/{service}"), |service| service["status"] == status).await
    }

    /// Waits until nothing is due any more.
    async fn settle(&self) {
        let begin = Instant::now();
        loop {
            let now = self.house.clock.now().as_millisecond();
            let due = format!(
                "SELECT (SELECT COUNT(*) FROM services WHERE bill_at <= {now}) + (SELECT COUNT(*) FROM orders WHERE due_at <= {now})
                      + (SELECT COUNT(*) FROM payments WHERE status = 'charging')"
            );
            if self.number(&due) == 0 {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "something stays due");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn pass(&self, seconds: i64) {
        self.house.clock.advance(SignedDuration::from_secs(seconds));
    }

    /// Waits until the bank has charged so often.
    async fn charged(&self, times: i64) {
        let begin = Instant::now();
        while self.number("SELECT COUNT(*) FROM simulated_charges") < times {
            assert!(begin.elapsed() < PATIENCE, "the bank charges");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn card(&self, token: Option<&'static str>) {
        let id = self.reseller;
        let token = token.map(SecretString::from);
        let set = move |books: &mut provisor::store::Transaction<'_>| {
            books.set_card(id, token.as_ref().map(|token| (token, "test card")))
        };
        assert!(self.house.store.transact(set).await.unwrap());
    }

    /// As `provisor reseller credit` does it.
    async fn credit(&self, amount: i64) {
        let (id, moment) = (self.reseller, self.house.clock.moment(provisor_providers::server::Rules::default()));
        let work = self.house.store.transact(move |books| {
            books.credit(id, Minor(amount), &Entry { at: moment.now, kind: "credit", reference: "test" })?.unwrap();
            PROVIDERS.iter().try_for_each(|provider| provider.server.credited(&moment, id, books))
        });
        work.await.unwrap();
    }

    fn balance(&self) -> i64 {
        self.house.store.read(|books| Ok(books.account(self.reseller).profile()?.balance.0)).unwrap()
    }

    fn book(&self) -> &Book {
        self.house.book()
    }

    fn number(&self, query: &str) -> i64 {
        self.book().number(&format!("SELECT CAST(COALESCE(({query}), 0) AS BIGINT)"))
    }

    /// What must be true of the money whenever no card is being charged.
    fn reckon(&self) {
        assert_eq!(self.number("SELECT SUM(amount) FROM ledger"), self.balance(), "the ledger adds up to the balance");
        let credits = self.number("SELECT SUM(amount) FROM ledger WHERE kind IN ('credit', 'top-up', 'card')");
        let paid = self.number("SELECT SUM(total) FROM invoices WHERE status = 'paid'");
        assert_eq!(credits - paid, self.balance(), "balance = credits - paid invoices");
        let taken = self.number("SELECT SUM(amount) FROM simulated_charges WHERE outcome = 'captured'");
        let known = self.number("SELECT SUM(amount) FROM payments WHERE status IN ('done', 'refunded')");
        let booked = self.number("SELECT SUM(amount) FROM ledger WHERE kind = 'card'");
        assert_eq!((taken, taken), (known, booked), "what cards gave is what is booked");
        let open = "SELECT COUNT(*) FROM payments WHERE status = 'charging' OR sealed_card IS NOT NULL";
        assert_eq!(self.number(open), 0, "no payment is stuck, and none keeps its card");
        let orders =
            "SELECT COUNT(*) FROM orders JOIN invoices ON invoices.id = orders.invoice_id WHERE (invoices.status = 'paid')
                        <> (orders.status IN ('paid', 'provisioning', 'completed'))";
        assert_eq!(self.number(orders), 0, "an order is paid as its invoice is");
    }
}

fn told(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json()["reason"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn invoices_are_listed_and_the_pdf_shows_what_the_json_says() {
    let shop = Shop::open_at("100.00", "2027-01-31T08:00:00Z", |options| {
        options.rules.invoices.seller = "Hoster GmbH\nWürzburger Straße 1\nVAT DE 123".into();
        options.rules.invoices.tax_basis_points = 1900;
    })
    .await;
    shop.book().execute("UPDATE accounts SET name = 'Łukasz & Σίσυφος (Zoë) €'");
    let order =
        shop.post("/v1/orders", "one", &json!({"product_id": 42, "billing_cycle": "monthly", "quantity": 3})).await.json();
    let listed = shop.json("/v1/billing/invoices").await;
    let invoice = &listed["data"][0];
    assert_eq!(listed["meta"], json!({"page": 1, "per_page": 25, "total": 1, "total_pages": 1}));
    let id = order["invoice_id"].as_i64().unwrap();
    let expected = json!({
        "id": id, "number": format!("KH-2027-{id:06}"), "status": "paid", "total": {"amount": "29.70", "currency": "EUR"},
        "order_id": order["id"], "issued_at": "2027-01-31T08:00:00Z", "due_at": "2027-02-01T08:00:00Z",
        "paid_at": "2027-01-31T08:00:00Z",
    });
    assert_eq!(*invoice, expected);
    let path = format!("/v1/billing/invoices/{id}/pdf");
    let pdf = shop.get(&path).await;
    assert_eq!((pdf.status, pdf.header("content-type")), (200, Some("application/pdf")));
    assert_eq!(pdf.header("content-disposition"), Some(&*format!("inline; filename=\"KH-2027-{id:06}.pdf\"")));
    assert_eq!(shop.get(&path).await.body, pdf.body, "the bytes follow from the invoice alone");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("invoice.pdf");
    std::fs::write(&file, &pdf.body).unwrap();
    let text = poppler("pdftotext", &["-layout", file.to_str().unwrap(), "-"]);
    let text = String::from_utf8(text).unwrap();
    for shown in [
        format!("KH-2027-{id:06}").as_str(),
        "2027-01-31",
        "Hoster GmbH",
        "Würzburger Straße 1",
        "VAT DE 123",
        "Lukasz & Sisuphos (Zoë) €",
        "owner@example.com",
        "9.90",
        "24.96",
        "Tax 19.00 %",
        "4.74",
        "Total EUR",
        "29.70",
        "PAID 2027-01-31",
    ] {
        assert!(text.contains(shown), "`{shown}` is missing:\n{text}");
    }
    poppler("pdftoppm", &["-r", "50", "-png", file.to_str().unwrap(), directory.path().join("page").to_str().unwrap()]);
    let page = std::fs::metadata(directory.path().join("page-1.png")).unwrap();
    assert!(page.len() > 1000, "the page is empty");

    let stranger = shop.house.reseller("0.00").await;
    let key = shop.house.kernelhost_key(stranger, KeyTraits::default()).await;
    for path in [path.as_str(), "/v1/billing/invoices/999/pdf"] {
        assert_eq!(key.send(shop.now(), "GET", path, &[], b"").await.status, 404, "{path}");
    }
    assert_eq!(key.send(shop.now(), "GET", "/v1/billing/invoices", &[], b"").await.json()["data"], json!([]));
    let narrow = KeyTraits { scopes: &["read:orders"], ..KeyTraits::default() };
    let key = shop.house.kernelhost_key(shop.reseller, narrow).await;
    assert_eq!(told(&key.send(shop.now(), "GET", &path, &[], b"").await), (403, json!("missing_scope")));
}

fn poppler(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} of poppler-utils is missing ({error}): run tests/run"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn each_card_has_its_answer_and_a_refused_one_takes_nothing() {
    let shop = Shop::open("5.00").await;
    for (index, (token, reason)) in [
        (None, "insufficient_credit_and_no_card"),
        (Some("sim_declined"), "card_declined"),
        (Some("sim_3ds"), "card_declined"),
        (Some("sim_expired"), "card_expired"),
        (Some("of another gateway"), "card_declined"),
    ]
    .into_iter()
    .enumerate()
    {
        shop.card(token).await;
        let key = format!("order-{index}");
        let refused = shop.order(&key).await;
        assert_eq!(told(&refused), (402, json!(reason)), "{token:?}");
        assert_eq!(shop.json("/v1/billing/balance").await["card_on_file"], token.is_some());
        let id = refused.json()["order_id"].clone();
        let order = shop.json(&format!("/v1/orders/{id}")).await;
        assert_eq!((&order["status"], shop.balance()), (&json!("pending_payment"), 500), "{token:?}");
        let again = shop.order(&key).await;
        assert_eq!((again.status, &again.body), (402, &refused.body), "{token:?}");
    }
    shop.reckon();
    // The same request again pays the same order, with the card that is there now.
    shop.card(Some("sim_success")).await;
    let paid = shop.order("order-1").await;
    assert_eq!((paid.status, &paid.json()["status"], shop.balance()), (201, &json!("paid"), 0));
    assert_eq!(shop.order("order-1").await.body, paid.body);
    assert_eq!(
        shop.number("SELECT amount FROM simulated_charges WHERE outcome = 'captured'"),
        490,
        "credit first, the rest by card"
    );
    assert_eq!(
        (shop.number("SELECT COUNT(*) FROM orders"), shop.number("SELECT COUNT(*) FROM orders WHERE paid_at > 0")),
        (5, 1)
    );
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_the_gateway_charges_once() {
    let shop = Shop::open("0.00").await;
    shop.card(Some("sim_lost")).await;
    assert_eq!(shop.order("one").await.status, 201);
    assert_eq!(shop.number("SELECT COUNT(*) FROM simulated_charges"), 1);
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_answer_in_time_is_asked_again_later() {
    let shop = Shop::open_at("3.00", "2027-01-31T08:00:00Z", |options| {
        options.gateway_timeout = Duration::from_millis(100);
        options.rules.charge_lease = Duration::from_millis(300);
    })
    .await;
    shop.card(Some("sim_slow")).await;
    let open = shop.order("one").await;
    assert_eq!((told(&open), open.header("retry-after")), ((409, json!("request_in_progress")), Some("1")));
    assert_eq!(shop.balance(), 0, "the credit is held");
    // Only the card that was charged can tell what became of it: one that comes after it is not asked, nor is there none.
    shop.card(None).await;
    shop.charged(1).await;
    let begin = Instant::now();
    while shop.number("SELECT COUNT(*) FROM payments WHERE status = 'charging'") > 0 {
        assert!(begin.elapsed() < PATIENCE, "the bank is asked again");
        // The gateway's rest is over.
        shop.pass(10);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let paid = shop.order("one").await;
    assert_eq!((paid.status, shop.number("SELECT COUNT(*) FROM orders")), (201, 1));
    shop.reckon();
}

/// Else a caller could have a card charged of which the audit log says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_while_a_card_is_charged_leaves_an_audited_order() {
    let shop = Shop::open("0.00").await;
    shop.card(Some("sim_slow")).await;
    let rows = |event: &str, status: u16| {
        shop.number(&format!("SELECT COUNT(*) FROM audit WHERE event = '{event}' AND status = {status} AND path = '/v1/orders'"))
    };
    let begin = Instant::now();
    let noted = async {
        while rows("payment.begun", 102) == 0 {
            assert!(begin.elapsed() < PATIENCE, "noted with the payment");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        () = noted => {}
        answer = shop.order("one") => panic!("the bank takes a second: {}", answer.json()),
    }
    // No time passes: the lease holds, and nobody else takes the charge up.
    while rows("request", 201) == 0 {
        assert!(begin.elapsed() < PATIENCE, "the request goes on without its caller");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((shop.order("one").await.status, shop.number("SELECT COUNT(*) FROM simulated_charges")), (201, 1));
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_wait_for_the_one_charge_and_get_its_answer() {
    let shop = Shop::open("0.00").await;
    shop.card(Some("sim_slow")).await;
    let order = || shop.order("one");
    // All are sent before the first is answered: a card takes a second.
    let (a, b, c, d) = tokio::join!(order(), order(), order(), order());
    let answers = [a, b, c, d];
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.body == answers[0].body));
    assert_eq!((shop.number("SELECT COUNT(*) FROM orders"), shop.number("SELECT COUNT(*) FROM simulated_charges")), (1, 1));
    let other = shop.post("/v1/orders", "one", &json!({"product_id": 42, "billing_cycle": "annually"})).await;
    assert_eq!(told(&other), (409, json!("body_mismatch")));
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_pays_what_waits_oldest_first_and_what_waited_a_day_is_cancelled() {
    let shop = Shop::open("0.00").await;
    let mut orders = Vec::new();
    for index in 0..3 {
        orders.push(shop.order(&format!("order-{index}")).await.json()["order_id"].as_i64().unwrap());
        shop.pass(1);
    }
    let dear = shop.post("/v1/orders", "dear", &json!({"product_id": 42, "billing_cycle": "monthly", "quantity": 100})).await;
    assert_eq!(dear.status, 402);
    shop.credit(2000).await;
    let status = async |id: i64| shop.json(&format!("/v1/orders/{id}")).await["status"].clone();
    assert_ne!(status(orders[0]).await, "pending_payment");
    assert_ne!(status(orders[1]).await, "pending_payment");
    assert_eq!((status(orders[2]).await, shop.balance()), (json!("pending_payment"), 20));
    assert_eq!(shop.order("order-0").await.status, 201, "its request finds it paid");
    shop.pass(DAY_S);
    shop.until(&format!("/v1/orders/{}", orders[2]), |order| order["status"] == "cancelled").await;
    shop.credit(2000).await;
    let late = shop.order("order-2").await;
    assert_eq!((late.status, late.json()["order_id"].as_i64(), shop.balance()), (402, Some(orders[2]), 2020));
    assert_eq!(shop.number("SELECT COUNT(*) FROM invoices WHERE status = 'cancelled'"), 2);
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_comes_after_the_cancellation_becomes_credit() {
    let shop = Shop::open("1.00").await;
    shop.card(Some("sim_slow")).await;
    let mut paying = Box::pin(shop.order("one"));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut paying).await.is_err());
    // A day passes while the bank thinks.
    shop.pass(DAY_S);
    let late = paying.await;
    assert_eq!(late.status, 402, "{}", late.json());
    // The lease was over too, so the schedule asks the bank again, which remembers.
    shop.settle().await;
    let order = shop.json(&format!("/v1/orders/{}", late.json()["order_id"])).await;
    assert_eq!((&order["status"], shop.balance()), (&json!("cancelled"), 990));
    assert_eq!(shop.number("SELECT COUNT(*) FROM payments WHERE status = 'refunded'"), 1);
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn to_a_closed_account_nothing_is_sold() {
    let shop = Shop::open("50.00").await;
    let service = shop.service().await;
    let id = shop.reseller;
    let close = async |at: Option<Timestamp>| shop.house.store.transact(move |books| books.close_account(id, at)).await.unwrap();
    assert!(close(Some(shop.house.clock.now())).await);
    assert_eq!(told(&shop.order("one").await), (402, json!("client_not_found")));
    let due = shop.json(&format!("/v1/services/{service}")).await["next_due_at"].clone();
    let renew = json!({"action": "renew", "due_at": due});
    assert_eq!(told(&shop.act(service, "renew", &renew).await), (402, json!("client_not_found")));
    assert_eq!((shop.number("SELECT COUNT(*) FROM orders"), shop.balance()), (1, 4010));
    assert!(close(None).await);
    assert_eq!(shop.order("one").await.status, 201);
    assert_eq!(shop.act(service, "renew", &renew).await.status, 202);
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_billed_before_charged_on_and_given_up_after_its_due_date() {
    let shop = Shop::open("9.90").await;
    let service = shop.service().await;
    let path = format!("/v1/services/{service}");
    // Due on February 28: billed on the 21st, not a second earlier.
    let invoices = async || shop.json("/v1/billing/invoices").await["data"].as_array().unwrap().clone();
    shop.pass(21 * DAY_S - 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(invoices().await.len(), 1);
    shop.pass(1);
    shop.until("/v1/billing/invoices", |list| list["data"].as_array().unwrap().len() == 2).await;
    let renewal = invoices().await.pop().unwrap();
    assert_eq!((&renewal["status"], &renewal["due_at"]), (&json!("unpaid"), &json!("2027-02-28T08:00:00Z")));
    shop.pass(7 * DAY_S);
    shop.settle().await;
    assert_eq!(shop.json(&path).await["status"], "active", "three days of grace");
    shop.pass(3 * DAY_S);
    shop.service_until(service, "suspended").await;
    let refused = shop.act(service, "unsuspend", &json!({"action": "unsuspend"})).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["code"]), (400, &json!("wrong_state")));
    // Credit pays the invoice and brings the service back.
    shop.credit(990).await;
    let back = shop.json(&path).await;
    assert_eq!(
        (&back["status"], &back["power"], &back["next_due_at"]),
        (&json!("active"), &json!("running"), &json!("2027-03-31T08:00:00Z"))
    );
    shop.reckon();
    // The next term is not paid at all.
    shop.pass(28 * DAY_S + 14 * DAY_S);
    shop.service_until(service, "terminated").await;
    shop.settle().await;
    let last = invoices().await.pop().unwrap();
    assert_eq!((&last["status"], &last["due_at"]), (&json!("cancelled"), &json!("2027-03-31T08:00:00Z")));
    assert_eq!(shop.number("SELECT COUNT(*) FROM services WHERE bill_at IS NOT NULL"), 0);
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reseller_suspended_stays_so_when_it_is_paid() {
    let shop = Shop::open("9.90").await;
    let service = shop.service().await;
    assert_eq!(shop.act(service, "suspend", &json!({"action": "suspend"})).await.status, 202);
    shop.pass(35 * DAY_S);
    shop.settle().await;
    shop.credit(990).await;
    let paid = shop.json(&format!("/v1/services/{service}")).await;
    assert_eq!((&paid["status"], &paid["next_due_at"]), (&json!("suspended"), &json!("2027-03-31T08:00:00Z")));
    assert_eq!(shop.act(service, "unsuspend", &json!({"action": "unsuspend"})).await.status, 202);
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_are_paid_over_jumps_leap_days_and_2038() {
    for (start, jump_days, dues) in [
        ("2027-01-31T08:00:00Z", 35, ["2027-02-28T08:00:00Z", "2027-03-31T08:00:00Z"]),
        ("2028-01-31T08:00:00Z", 35, ["2028-02-29T08:00:00Z", "2028-03-31T08:00:00Z"]),
        ("2028-02-29T12:00:00Z", 29, ["2028-03-29T12:00:00Z", "2028-04-29T12:00:00Z"]),
        ("2038-01-19T03:14:07Z", 32, ["2038-02-19T03:14:07Z", "2038-03-19T03:14:07Z"]),
    ] {
        let shop = Shop::open_at("0.00", start, |_| ()).await;
        shop.card(Some("sim_success")).await;
        let service = shop.service().await;
        let path = format!("/v1/services/{service}");
        assert_eq!(shop.json(&path).await["next_due_at"], dues[0], "{start}");
        shop.pass(DAY_S);
        shop.pass((jump_days - 1) * DAY_S);
        shop.until(&path, |service| service["next_due_at"] == dues[1]).await;
        shop.settle().await;
        assert_eq!(shop.number("SELECT COUNT(*) FROM simulated_charges"), 2, "{start}");
        assert_eq!(shop.number("SELECT COUNT(*) FROM invoices WHERE status = 'paid'"), 2, "{start}");
        shop.reckon();
    }
}

/// Else a reseller could have it run unpaid until it is terminated.
#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_service_that_its_owner_suspended_does_not_run_again_unpaid() {
    let shop = Shop::open("9.90").await;
    let service = shop.service().await;
    assert_eq!(shop.act(service, "suspend", &json!({"action": "suspend"})).await.status, 202);
    // Due on February 28, and to be suspended three days later.
    shop.pass(32 * DAY_S);
    shop.settle().await;
    assert_eq!(shop.act(service, "unsuspend", &json!({"action": "unsuspend"})).await.status, 202);
    shop.service_until(service, "suspended").await;
    let again = shop.act(service, "again", &json!({"action": "unsuspend"})).await;
    assert_eq!((again.status, &again.json()["errors"][0]["code"]), (400, &json!("wrong_state")));
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_asked_for_pays_the_open_invoice_once() {
    let shop = Shop::open("9.90").await;
    let service = shop.service().await;
    shop.pass(22 * DAY_S);
    shop.until("/v1/billing/invoices", |list| list["data"].as_array().unwrap().len() == 2).await;
    let renew = json!({"action": "renew", "due_at": "2027-02-28T08:00:00Z"});
    assert_eq!(told(&shop.act(service, "renew", &renew).await), (402, json!("insufficient_credit_and_no_card")));
    shop.card(Some("sim_declined")).await;
    assert_eq!(told(&shop.act(service, "renew", &renew).await), (402, json!("card_declined")));
    shop.card(Some("sim_slow")).await;
    let (one, twin, other) =
        tokio::join!(shop.act(service, "renew", &renew), shop.act(service, "renew", &renew), shop.act(service, "other", &renew));
    for answer in [one, twin, other] {
        assert_eq!(answer.status, 202, "{}", answer.json());
        assert_eq!(answer.json()["service"]["next_due_at"], "2027-03-31T08:00:00Z");
    }
    shop.pass(10 * DAY_S);
    shop.settle().await;
    assert_eq!(shop.number("SELECT COUNT(*) FROM simulated_charges WHERE outcome = 'captured'"), 1);
    assert_eq!(shop.number("SELECT COUNT(*) FROM invoices"), 2);
    shop.reckon();
}

/// Not what it was answered itself before.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_waits_for_another_s_charge_is_told_what_came_of_that() {
    let shop = Shop::open("9.90").await;
    let service = shop.service().await;
    shop.pass(22 * DAY_S);
    shop.until("/v1/billing/invoices", |list| list["data"].as_array().unwrap().len() == 2).await;
    let renew = json!({"action": "renew", "due_at": "2027-02-28T08:00:00Z"});
    shop.card(Some("sim_declined")).await;
    assert_eq!(told(&shop.act(service, "renew", &renew).await), (402, json!("card_declined")));
    shop.card(Some("sim_slow")).await;
    let charging = async {
        while shop.number("SELECT COUNT(*) FROM payments WHERE status = 'charging'") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shop.act(service, "renew", &renew).await
    };
    let (other, repeat) = tokio::join!(shop.act(service, "other", &renew), charging);
    for answer in [other, repeat] {
        assert_eq!(answer.status, 202, "{}", answer.json());
    }
    assert_eq!(shop.number("SELECT COUNT(*) FROM simulated_charges WHERE outcome = 'captured'"), 1);
    shop.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_to_who_listens() {
    let shop = Shop::open_at("9.90", "2027-01-31T08:00:00Z", |options| options.rules.billing.suspend_days = 0).await;
    let key_id = &shop.key.id;
    let listen = format!(
        "INSERT INTO webhooks (key_id, account_id, url, events, sealed_secret, created_at)
         SELECT id, account_id, 'https://127.0.0.1:9/', '', sealed_secret, 0 FROM api_keys WHERE public_id = '{key_id}'"
    );
    shop.book().execute(&listen);
    let service = shop.service().await;
    shop.act(service, "suspend", &json!({"action": "suspend"})).await;
    shop.act(service, "again", &json!({"action": "suspend"})).await;
    shop.act(service, "unsuspend", &json!({"action": "unsuspend"})).await;
    shop.order("unpaid").await;
    shop.pass(DAY_S);
    shop.settle().await;
    // Due today, since a webhook that does not answer for many days is disabled.
    let due = format!("UPDATE services SET next_due_at = next_due_at - {}, bill_at = 0", 27 * DAY_S * 1000);
    shop.book().execute(&due);
    shop.settle().await;
    shop.credit(990).await;
    shop.act(service, "terminate", &json!({"action": "terminate"})).await;
    let deliveries = shop.house.store.read(|books| books.deliveries(None, false, 100)).unwrap();
    let kinds: Vec<&str> = deliveries.iter().rev().map(|delivery| delivery.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "order.created",
            "order.paid",
            "invoice.created",
            "invoice.paid",
            "service.provisioned",
            "service.suspended",
            "service.unsuspended",
            "order.created",
            "invoice.created",
            "order.cancelled",
            "invoice.created",
            "service.suspended",
            "service.unsuspended",
            "invoice.paid",
            "service.terminated",
        ]
    );
    for (kind, shows, count) in [
        ("order.created", r#""status":"pending_payment""#, 2),
        ("order.paid", r#""status":"paid""#, 1),
        ("order.cancelled", r#""status":"cancelled""#, 1),
        ("invoice.created", r#""status":"unpaid""#, 3),
        ("invoice.paid", r#""status":"paid""#, 2),
        ("invoice.paid", r#""number":"KH-2027-"#, 2),
        ("service.suspended", r#""status":"suspended""#, 2),
        ("service.unsuspended", r#""status":"active""#, 2),
        ("service.terminated", r#""power":null"#, 1),
    ] {
        let query = format!("SELECT COUNT(*) FROM deliveries WHERE kind = '{kind}' AND body LIKE '%{shows}%'");
        assert_eq!(shop.number(&query), count, "{kind} with {shows}");
    }
}

/// What a reseller, its operator and time may do.
#[derive(Debug, Clone, Copy)]
enum Op {
    Order { quantity: u32, key: u8 },
    Credit(i64),
    Card(Option<&'static str>),
    Renew,
    Terminate,
    Pass { hours: i64 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let token = prop_oneof![
        Just(None),
        Just(Some("sim_success")),
        Just(Some("sim_declined")),
        Just(Some("sim_expired")),
        Just(Some("sim_lost")),
        Just(Some("sim_slow")),
    ];
    let op = prop_oneof![
        4 => (1_u32..4, 0_u8..6).prop_map(|(quantity, key)| Op::Order { quantity, key }),
        2 => (1_i64..4000).prop_map(Op::Credit),
        2 => token.prop_map(Op::Card),
        1 => Just(Op::Renew),
        1 => Just(Op::Terminate),
        2 => prop_oneof![Just(1_i64), Just(25), Just(24 * 8), Just(24 * 35)].prop_map(|hours| Op::Pass { hours }),
    ];
    proptest::collection::vec(op, 8..24)
}

async fn perform(shop: &Shop, op: Op) {
    match op {
        Op::Order { quantity, key } => {
            let order = json!({"product_id": 42, "billing_cycle": "monthly", "quantity": quantity});
            let answer = shop.post("/v1/orders", &format!("order-{key}"), &order).await;
            // The clock may have moved while it was on its way.
            assert!(matches!(answer.status, 201 | 401 | 402 | 409), "{}: {}", answer.status, answer.json());
        }
        Op::Credit(amount) => shop.credit(amount).await,
        Op::Card(token) => shop.card(token).await,
        Op::Renew | Op::Terminate => {
            let services = shop.get("/v1/services").await.json();
            let Some(service) = services["data"].as_array().and_then(|all| all.last()) else { return };
            let action = match op {
                Op::Renew => json!({"action": "renew", "due_at": service["next_due_at"]}),
                _ => json!({"action": "terminate"}),
            };
            let answer = shop.act(service["id"].as_i64().unwrap(), &format!("act-{}", unique()), &action).await;
            assert!(matches!(answer.status, 202 | 400 | 401 | 402 | 409), "{}: {}", answer.status, answer.json());
        }
        Op::Pass { hours } => shop.pass(hours * 3600),
    }
}

#[test]
fn whatever_happens_at_once_the_ledger_adds_up() {
    let is_long = std::env::var("PROVISOR_LONG").is_ok_and(|long| long == "1");
    let cases = match Engine::of_module(module_path!()) {
        _ if is_long => 100,
        Engine::Sqlite => 8,
        // Each has a server of its own to start.
        Engine::Postgres => 2,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases, max_shrink_iters: 20, failure_persistence: None, ..Config::default() });
    let run = |ops: Vec<Op>| {
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let shop = &Shop::open("20.00").await;
                for together in ops.chunks(4) {
                    let begun = |index: usize| async move {
                        if let Some(op) = together.get(index) {
                            perform(shop, *op).await;
                        }
                    };
                    tokio::join!(begun(0), begun(1), begun(2), begun(3));
                    shop.settle().await;
                }
                shop.reckon();
            });
        }));
        checked.map_err(|_| TestCaseError::fail("see above"))
    };
    runner.run(&ops(), run).unwrap();
}
