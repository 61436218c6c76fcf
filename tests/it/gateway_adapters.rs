//! The conformance list of panels through the routes that need no plug-in: Upmind's functions and the notices of Blesta's Universal
//! Module, at both providers.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::fs::File;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use provisor_tests::desk::{Desk, GP, KERNELHOST, PASSWORD, SHOPS, Shop, domain, text};
use provisor_tests::faults::{Answer as Wrong, Fault};
use provisor_tests::http::{Answer, Http};
use provisor_tests::openapi::Seen;
use provisor_tests::resellers::unique;
use serde_json::{Value, json};

const LOST: Fault = Fault { reaches: true, answer: Wrong::Cut };
const NOT_SENT: Fault = Fault { reaches: false, answer: Wrong::Cut };
const EVERYTHING: &str = " /";
const CLIENT: &str = "7";

/// A panel without a plug-in of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Upmind,
    Blesta,
}

const ROUTES: [Route; 2] = [Route::Upmind, Route::Blesta];

/// A service as one of these panels keeps it.
#[derive(Debug, Clone)]
struct Kept {
    route: Route,
    shop: Shop,
    /// Upmind's id of its contract product.
    id: String,
    domain: String,
    plan: String,
    /// Seconds that the panel waits.
    wait: u32,
}

impl Kept {
    fn new(route: Route, shop: Shop) -> Self {
        let plan = text(&shop.order(""), "plan").to_owned();
        Self { route, shop, id: format!("cp{}", unique()), domain: domain(), plan, wait: 60 }
    }

    fn key(&self) -> String {
        match self.route {
            Route::Upmind => format!("upmind-{}", self.id),
            Route::Blesta => format!("blesta-{CLIENT}-{}", self.domain),
        }
    }

    /// Does what Upmind's word stands for.
    async fn call(&self, desk: &Desk, function: &str) -> Answer {
        self.call_with(desk, function, &[]).await
    }

    /// The same with further values.
    async fn call_with(&self, desk: &Desk, function: &str, further: &[(&str, &str)]) -> Answer {
        let address = format!("profile={}&wait={}", self.shop.provider, self.wait);
        match self.route {
            Route::Upmind => {
                let mut body = match function {
                    "create" => self.upmind_order(),
                    _ => json!({"service_id": self.key(), "package_identifier": self.plan, "extra": {}}),
                };
                for (name, value) in further {
                    body["extra"][*name] = json!(value);
                }
                desk.send("POST", &format!("/upmind/{function}?{address}"), Some(&body), &[]).await
            }
            Route::Blesta => {
                let event = event_of(function);
                let mut fields = self.blesta_fields(event);
                fields.retain(|(name, _)| !further.iter().any(|(further, _)| further == name));
                fields.extend(further.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
                post(desk, &format!("/blesta/universal/{event}?{address}&key={}", self.key_field()), &encoded(&fields)).await
            }
        }
    }

    fn upmind_order(&self) -> Value {
        let mut extra = json!({"contract_product_id": self.id});
        if self.shop == GP {
            extra["password"] = json!(PASSWORD);
        }
        json!({
            "customer_id": "c-1", "customer_email": "a@example.com", "service_identifier": self.domain,
            "package_identifier": self.plan, "extra": extra,
        })
    }

    /// GP sells domains; what KernelHost sells has a host name.
    fn key_field(&self) -> &'static str {
        if self.shop == GP { "domain" } else { "hostname" }
    }

    /// What the Universal Module posts.
    fn blesta_fields(&self, event: &str) -> Vec<(String, String)> {
        let mut fields = vec![(self.key_field().to_owned(), self.domain.clone())];
        fields.push((format!("{}_name", self.key_field()), self.domain.clone()));
        if self.shop == GP {
            fields.push(("email".to_owned(), "a@example.com".to_owned()));
            fields.push(("password".to_owned(), PASSWORD.to_owned()));
        }
        let told = [("plan", self.plan.as_str()), ("plan_name", "A plan"), ("_package[id]", "3"), ("_package[name]", "<b>P</b>")];
        fields.extend(told.map(|(name, value)| (name.to_owned(), value.to_owned())));
        fields.push(("_action".to_owned(), format!("service_notice_{event}")));
        let about = if event == "add" { [("_other[client_id]", CLIENT)].as_slice() } else { &BLESTA_SERVICE };
        fields.extend(about.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        fields
    }

    /// A call that must succeed; its data.
    async fn done(&self, desk: &Desk, function: &str) -> Value {
        self.done_with(desk, function, &[]).await
    }

    async fn done_with(&self, desk: &Desk, function: &str, further: &[(&str, &str)]) -> Value {
        let answer = self.call_with(desk, function, further).await;
        let told = answer.json();
        assert_eq!((answer.status, &told["success"]), (200, &json!(true)), "{self:?} {function}: {told}");
        assert_eq!(text(&told["data"], "service_id"), self.key());
        told["data"].clone()
    }

    /// Calls until it succeeds, as a person or a queue does who is told that it is in progress.
    async fn until_done(&self, desk: &Desk, function: &str) -> Value {
        for _ in 0..60 {
            let answer = self.call(desk, function).await;
            match answer.status {
                200 => return answer.json()["data"].clone(),
                202 => assert_eq!(answer.json()["success"], false),
                status => panic!("{self:?} {function}: {status} {}", answer.json()),
            }
        }
        panic!("{self:?} {function} comes to no end");
    }
}

const BLESTA_SERVICE: [(&str, &str); 3] =
    [("_service[id]", "12"), ("_service[client_id]", CLIENT), ("_service[date_renews]", "2027-01-15 00:00:00")];

/// Blesta's word for Upmind's.
fn event_of(function: &str) -> &str {
    match function {
        "create" => "add",
        "terminate" => "cancel",
        "changePackage" => "package_change",
        event => event,
    }
}

fn encoded(fields: &[(String, String)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn basic(token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("blesta:{token}")))
}

async fn post(desk: &Desk, path: &str, form: &str) -> Answer {
    let url = format!("http://{}{path}", desk.gateway().address());
    let token = basic(&desk.token);
    let headers = [("Authorization", token.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
    Http::default().send("POST", &url, &headers, form.to_owned()).await
}

/// A failure in the form of these routes.
fn failure(answer: &Answer, status: u16, kind: &str) -> Value {
    let told = answer.json();
    assert_eq!((answer.status, text(&told, "kind")), (status, kind), "{told}");
    assert_eq!((&told["success"], &told["data"]), (&json!(false), &Value::Null));
    assert!(!text(&told, "message").is_empty());
    told
}

fn every() -> impl Iterator<Item = Kept> {
    ROUTES.into_iter().flat_map(|route| SHOPS.into_iter().map(move |shop| Kept::new(route, shop)))
}

fn ordering(shop: Shop) -> &'static str {
    if shop == GP { "/autoregister/" } else { "POST /cp/kh_reseller_api/v1/orders" }
}

fn operations(desk: &Desk) -> i64 {
    desk.book.number("SELECT COUNT(*) FROM operations")
}

#[tokio::test(flavor = "multi_thread")]
async fn create_twice_makes_one_service() {
    let desk = Desk::open().await;
    for kept in every() {
        let (charges, live) = (desk.charges(), desk.live(kept.shop));
        let (one, other) = tokio::join!(kept.done(&desk, "create"), kept.done(&desk, "create"));
        assert_eq!(one["service_id"], other["service_id"]);
        let again = kept.done(&desk, "create").await;
        assert_eq!((desk.charges(), desk.live(kept.shop)), (charges + 1, live + 1), "{kept:?}");
        assert_eq!((text(&again, "service_status"), text(&again["extra"], "profile")), ("active", kept.shop.provider));
        assert_eq!(text(&desk.service(&kept.key()).await, "state"), "active");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_after_a_lost_answer_is_the_first_one() {
    let desk = Desk::open().await;
    for kept in every() {
        let kept = Kept { wait: 1, ..kept };
        let charges = desk.charges();
        desk.upstream.inject(ordering(kept.shop), LOST, 1);
        desk.upstream.inject(EVERYTHING, NOT_SENT, 6);
        kept.until_done(&desk, "create").await;
        assert_eq!((desk.charges(), desk.live(kept.shop)), (charges + 1, 1), "{kept:?}");
        desk.upstream.heal();
        kept.until_done(&desk, "terminate").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn create_refused_leaves_nothing_and_a_retry_makes_it() {
    let desk = Desk::open().await;
    for kept in every() {
        let wrong = Kept { plan: "no such plan!".to_owned(), ..kept.clone() };
        let charges = desk.charges();
        let told = failure(&wrong.call(&desk, "create").await, 422, "invalid");
        assert_eq!((text(&told, "field"), text(&told, "effect")), ("plan", "none"));
        assert_eq!((desk.charges(), desk.live(kept.shop)), (charges, 0));
        assert_eq!(kept.done(&desk, "create").await["extra"]["generation"], 1);
        kept.done(&desk, "terminate").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_unsuspend_and_terminate_twice_are_a_success() {
    let desk = Desk::open().await;
    for kept in every() {
        kept.done(&desk, "create").await;
        for (function, state) in [("suspend", "suspended"), ("unsuspend", "active"), ("terminate", "terminated")] {
            for _ in 0..2 {
                assert_eq!(text(&kept.done(&desk, function).await, "service_status"), state, "{kept:?}");
            }
        }
        assert_eq!(desk.live(kept.shop), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminate_of_what_is_gone_is_a_success() {
    let desk = Desk::open().await;
    for kept in every() {
        kept.done(&desk, "create").await;
        desk.provider.execute("UPDATE licenses SET state = 'cancelled'; UPDATE services SET status = 'terminated'");
        assert_eq!(text(&kept.done(&desk, "terminate").await, "service_status"), "terminated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_the_journal_does_not_know_is_404_and_nothing_is_sent() {
    let desk = Desk::open().await;
    let before = desk.upstream.seen(EVERYTHING);
    for kept in every() {
        for function in ["suspend", "unsuspend", "terminate", "changePackage"] {
            failure(&kept.call(&desk, function).await, 404, "not-found");
        }
        failure(&kept.call_with(&desk, "renew", &[("due_at", "2027-01-15")]).await, 404, "not-found");
        let other = if kept.route == Route::Upmind { "getInfo" } else { "edit" };
        failure(&kept.call_with(&desk, other, &[("new_password", PASSWORD)]).await, 404, "not-found");
    }
    assert_eq!((desk.upstream.seen(EVERYTHING), operations(&desk)), (before, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn create_after_terminate_is_a_new_generation() {
    let desk = Desk::open().await;
    for kept in every() {
        let first = kept.done(&desk, "create").await;
        kept.done(&desk, "terminate").await;
        let second = kept.done(&desk, "create").await;
        assert_eq!((&first["extra"]["generation"], &second["extra"]["generation"]), (&json!(1), &json!(2)));
        assert_eq!((text(&second, "service_status"), desk.live(kept.shop)), ("active", 1));
        kept.done(&desk, "terminate").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_payment_is_no_success_and_the_order_is_not_made_twice() {
    for route in ROUTES {
        let desk = Desk::open().await;
        let kept = Kept { wait: 1, ..Kept::new(route, KERNELHOST) };
        desk.credit("-1000000.00");
        for _ in 0..2 {
            let answer = kept.call(&desk, "create").await;
            let told = answer.json();
            assert_eq!((answer.status, &told["success"]), (202, &json!(false)), "{told}");
            assert_eq!(text(&told["data"], "service_status"), "pending");
            assert!(text(&told, "message").starts_with("create is in progress ("), "{told}");
            assert!(answer.header("retry-after").is_some() && answer.header("location").is_some());
        }
        desk.credit("100.00");
        kept.until_done(&desk, "create").await;
        assert_eq!(desk.provider.number("SELECT COUNT(*) FROM orders"), 1);
        // Where the provider keeps no order, the panel has to come again.
        let kept = Kept::new(route, GP);
        desk.credit("-90.10");
        failure(&kept.call(&desk, "create").await, 422, "payment-required");
        desk.credit("100.00");
        kept.done(&desk, "create").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_told_or_written() {
    let desk = Desk::open().await;
    let http = Http::default();
    let base = format!("http://{}", desk.gateway().address());
    let (bearer, right) = (format!("Bearer {}", desk.token), basic(&desk.token));
    let wrong = [vec![], vec![("Authorization", "Bearer pvr_nobody")], vec![("Authorization", "Basic !")]];
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let sent = Kept::new(Route::Blesta, GP);
    let sent = encoded(&sent.blesta_fields("add"));
    let wrong_password = basic("pvr_nobody");
    for (path, content) in [("/upmind/create", ("Content-Type", "application/json")), ("/blesta/universal/add", form)] {
        let others =
            [vec![("Authorization", wrong_password.as_str())], vec![("Authorization", &bearer), ("Authorization", &bearer)]];
        for headers in wrong.iter().chain(&others) {
            let headers = [&headers[..], &[content]].concat();
            failure(&http.send("POST", &format!("{base}{path}"), &headers, sent.clone()).await, 401, "unauthorized");
        }
        let told = failure(&http.send("GET", &format!("{base}{path}"), &[("Authorization", &bearer)], "").await, 405, "invalid");
        assert_eq!(told["status"], 405);
    }
    // The password of an address is for the panel that can send nothing else, and for no browser that remembers it.
    let basic = ("Authorization", right.as_str());
    failure(&http.send("POST", &format!("{base}/upmind/create"), &[basic], "{}").await, 401, "unauthorized");
    assert_eq!(http.send("GET", &format!("{base}/v1/services"), &[basic], "").await.status, 401);
    let add = format!("{base}/blesta/universal/add?profile=gp&key=domain");
    failure(
        &http.send("POST", &add, &[basic, form, ("Origin", "https://evil.example")], sent.clone()).await,
        401,
        "unauthorized",
    );
    assert_eq!(operations(&desk), 0);
    let told = http.send("POST", &add, &[("Authorization", &bearer), form], sent).await;
    assert_eq!(told.status, 200, "{}", told.json());
}

/// Sends what it should not, and finds it told as a mistake of the caller, without what was sent, and nothing sent on.
async fn refused(desk: &Desk, path: &str, content: &str, body: String, status: u16) {
    let url = format!("http://{}{path}", desk.gateway().address());
    let token = format!("Bearer {}", desk.token);
    let headers = [("Authorization", token.as_str()), ("Content-Type", content)];
    let shown: String = body.chars().take(200).collect();
    let answer = Http::default().send("POST", &url, &headers, body).await;
    let told = answer.json();
    assert_eq!((answer.status, &told["success"]), (status, &json!(false)), "{path} {shown}: {told}");
    assert!(!told.to_string().contains("MARKED"), "{path} {shown}: {told}");
    assert!(answer.content_type().unwrap().contains("json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_is_the_callers_mistake() {
    let desk = Desk::open().await;
    let before = desk.upstream.seen(EVERYTHING);
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let long = "MARKED".repeat(2_000);
    let order = |member: &str, value: Value| {
        let mut body = Kept::new(Route::Upmind, GP).upmind_order();
        match member.strip_prefix("extra.") {
            Some(member) => body["extra"][member] = value,
            None => body[member] = value,
        }
        body.to_string()
    };
    let create = "/upmind/create?profile=gp";
    for member in ["customer_id", "customer_email", "service_identifier", "package_identifier", "extra.profile", "extra.note"] {
        for value in [json!(["MARKED"]), json!({"MARKED": "MARKED"})] {
            refused(&desk, create, json, order(member, value), 400).await;
        }
    }
    for (member, value) in [
        ("extra", json!(["MARKED"])),
        ("extra", json!("MARKED")),
        ("extra.contract_product_id", json!("<img src=MARKED>")),
        ("extra.contract_product_id", json!("M".repeat(200))),
        ("extra.contract_product_id", json!("../../MARKED")),
        ("extra.note", json!(long)),
        ("service_identifier", json!(long)),
        ("customer_id", json!(null)),
        ("package_identifier", json!(" ")),
    ] {
        refused(&desk, create, json, order(member, value), 400).await;
    }
    refused(&desk, create, json, order("extra.note", json!("MARKED".repeat(12_000))), 413).await;
    refused(&desk, create, json, r#"{"service_id":"a","service_id":"MARKED"}"#.to_owned(), 400).await;
    refused(&desk, create, json, "MARKED".to_owned(), 400).await;
    refused(&desk, create, form, "customer_id=MARKED".to_owned(), 415).await;
    refused(&desk, "/upmind/create", json, order("service_identifier", json!("MARKED.example.com")), 400).await;
    for function in ["customFunction", "resetPassword", "%3Cb%3EMARKED", "constructor"] {
        refused(&desk, &format!("/upmind/{function}"), json, json!({"service_id": "a", "function": "MARKED"}).to_string(), 422)
            .await;
    }
    for key in ["<b>MARKED</b>", "MARKED/../x", "", " "] {
        refused(&desk, "/upmind/terminate", json, json!({"service_id": key}).to_string(), 400).await;
    }

    let add = "/blesta/universal/add?profile=gp&key=domain";
    let with = |further: &str| format!("{}&{further}", encoded(&Kept::new(Route::Blesta, GP).blesta_fields("add")));
    for further in ["plan=MARKED", "note%5B0%5D=MARKED", "note%5B%5D=MARKED", "domain=MARKED", "_action=MARKED"] {
        refused(&desk, add, form, with(further), 400).await;
    }
    refused(&desk, add, form, with(&format!("note={long}")), 400).await;
    refused(&desk, add, form, with(&format!("note={}", "MARKED".repeat(12_000))), 413).await;
    refused(&desk, add, json, "{}".to_owned(), 415).await;
    for body in
        ["", "domain=MARKED.example.com", "_other%5Bclient_id%5D=7&domain=%3Cb%3EMARKED", "domain%5B%5D=MARKED", "%ff=%ff"]
    {
        refused(&desk, add, form, body.to_owned(), 400).await;
    }
    refused(&desk, "/blesta/universal/add?key=domain", form, with("a=MARKED"), 400).await;
    refused(&desk, "/blesta/universal/add?profile=gp", form, with("a=MARKED"), 400).await;
    refused(&desk, "/blesta/universal/cancel?key=domain", form, with("a=MARKED"), 400).await;
    refused(&desk, "/blesta/universal/MARKED", form, with("a=b"), 404).await;
    assert_eq!((desk.upstream.seen(EVERYTHING), operations(&desk)), (before, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_in_a_value_stays_text() {
    let desk = Desk::open().await;
    for route in ROUTES {
        let kept = Kept { plan: r#"<script>"success":true</script>"#.to_owned(), ..Kept::new(route, KERNELHOST) };
        let answer = kept.call(&desk, "create").await;
        failure(&answer, 422, "invalid");
        assert!(!String::from_utf8_lossy(&answer.body).contains(r#""success":true"#), "{}", answer.json());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_told_logged_or_kept_in_the_clear() {
    let mut desk = Desk::open().await;
    desk.stop();
    let log = desk.book.directory().join("log");
    desk.start_logging("trace", File::create(&log).unwrap().into());
    let mut told = Vec::new();
    for route in ROUTES {
        let kept = Kept::new(route, GP);
        let password = [("password", PASSWORD), ("new_password", PASSWORD)];
        told.push(kept.call_with(&desk, "create", &password[..1]).await);
        told.push(kept.call_with(&desk, "create", &password[..1]).await);
        let bigger = Kept { plan: "20k".to_owned(), ..kept.clone() };
        told.push(bigger.call_with(&desk, "changePackage", &password).await);
        for function in ["suspend", "unsuspend"] {
            told.push(kept.call_with(&desk, function, &password).await);
        }
        let other = if route == Route::Upmind { "getInfo" } else { "edit" };
        told.push(kept.call_with(&desk, other, &password).await);
        told.push(kept.call_with(&desk, "terminate", &password).await);
    }
    for answer in &told {
        assert_eq!(answer.status, 200, "{}", answer.json());
        assert!(!answer.json().to_string().contains(PASSWORD));
    }
    desk.stop();
    for entry in
        std::fs::read_dir(desk.book.directory()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()), "in {}", entry.display());
    }
    assert!(std::fs::metadata(&log).unwrap().len() > 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_due_date_is_renewed_once_though_panels_know_it_to_the_day() {
    let desk = Desk::open().await;
    for kept in every() {
        kept.done(&desk, "create").await;
        let due = desk.service(&kept.key()).await["due_at"].as_str().unwrap_or("2027-01-15T08:00:00Z").to_owned();
        let charges = desk.charges();
        for _ in 0..2 {
            match kept.route {
                Route::Upmind => kept.done_with(&desk, "renew", &[("due_at", &due[..10])]).await,
                Route::Blesta => {
                    let mut fields = kept.blesta_fields("renew");
                    fields.retain(|(name, _)| name != "_service[date_renews]");
                    fields.push(("_service[date_last_renewed]".to_owned(), format!("{} 00:00:00", &due[..10])));
                    let path = format!("/blesta/universal/renew?key={}&due=date_last_renewed", kept.key_field());
                    let answer = post(&desk, &path, &encoded(&fields)).await;
                    assert_eq!(answer.status, 200, "{}", answer.json());
                    answer.json()["data"].clone()
                }
            };
            assert_eq!(desk.charges(), charges + 1, "{kept:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_changed_and_paid_once() {
    let desk = Desk::open().await;
    for route in ROUTES {
        let kept = Kept::new(route, GP);
        kept.done(&desk, "create").await;
        let charges = desk.charges();
        let bigger = Kept { plan: "20k".to_owned(), ..kept };
        bigger.done(&desk, "changePackage").await;
        let written = operations(&desk);
        for _ in 0..2 {
            assert_eq!(bigger.done(&desk, "changePackage").await["extra"]["plan"], "20k");
        }
        assert_eq!(desk.charges(), charges + 1, "{route:?}");
        assert_eq!(operations(&desk), written);
        let machine = Kept::new(route, KERNELHOST);
        machine.done(&desk, "create").await;
        failure(&Kept { plan: "43".to_owned(), ..machine }.call(&desk, "changePackage").await, 422, "unsupported");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upmind_order_without_an_id_is_known_by_what_it_says() {
    let desk = Desk::open().await;
    let kept = Kept::new(Route::Upmind, GP);
    let mut order = kept.upmind_order();
    order["extra"] = json!({"profile": "gp", "password": PASSWORD});
    let create = async |order: &Value| desk.send("POST", "/upmind/create", Some(order), &[]).await;
    let first = create(&order).await.json();
    let key = text(&first["data"], "service_id").to_owned();
    assert!(key.starts_with("upmind-x") && key.ends_with("-1"), "{first}");
    assert_eq!(create(&order).await.json()["data"]["service_id"], first["data"]["service_id"]);
    assert_eq!(desk.live(GP), 1);
    // A day later it is no repeat: the domain is taken, and once the service has ended it is an order of its own.
    desk.book.execute("UPDATE managed_services SET created_at = created_at - 86400000");
    failure(&create(&order).await, 409, "already-exists");
    let ended = desk.send("POST", "/upmind/terminate", Some(&json!({"service_id": key})), &[]).await;
    assert_eq!(ended.status, 200, "{}", ended.json());
    let second = create(&order).await.json();
    assert!(text(&second["data"], "service_id").ends_with("-2"), "{second}");
    // What differs in anything is another order; one that says too little is none.
    let mut other = order.clone();
    other["customer_id"] = json!("c-2");
    failure(&create(&other).await, 409, "already-exists");
    order["service_identifier"] = Value::Null;
    assert_eq!(text(&failure(&create(&order).await, 400, "invalid"), "field"), "contract_product_id");
    assert_eq!(desk.live(GP), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_says_which_profile_whatever_an_order_says() {
    let desk = Desk::open().await;
    for route in ROUTES {
        let kept = Kept::new(route, GP);
        let made = kept.done_with(&desk, "create", &[("profile", "kernelhost")]).await;
        assert_eq!(text(&made["extra"], "profile"), "gp");
    }
    assert_eq!((desk.live(GP), desk.live(KERNELHOST)), (2, 0));
    let info = desk.send("POST", "/upmind/getInfo?fresh=true", Some(&json!({"service_id": "nobody-s"})), &[]).await;
    failure(&info, 404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_at_the_address_of_another_does_nothing() {
    let desk = Desk::open().await;
    let kept = Kept::new(Route::Blesta, GP);
    kept.done(&desk, "create").await;
    for (address, action) in [("cancel", "suspend"), ("cancel", "package_change"), ("suspend", "cancel")] {
        let answer = post(&desk, &format!("/blesta/universal/{address}?key=domain"), &encoded(&kept.blesta_fields(action))).await;
        assert_eq!(text(&failure(&answer, 400, "invalid"), "field"), "_action");
    }
    failure(&kept.call(&desk, "edit").await, 422, "unsupported");
    assert_eq!(text(&desk.service(&kept.key()).await, "state"), "active");
    let sent = desk.upstream.seen("/passwordreset/");
    kept.done_with(&desk, "edit", &[("new_password", "New-Passw0rd-1")]).await;
    assert_eq!(desk.upstream.seen("/passwordreset/"), sent + 1);
}

/// What PHP makes of objects, null and truth values, and what curl makes of a password in an address.
#[tokio::test(flavor = "multi_thread")]
async fn php_and_curl_are_understood() {
    let desk = Desk::open().await;
    let at = format!("blesta:{}@{}", desk.token, desk.gateway().address());
    let add = format!("http://{at}/blesta/universal/add?profile=kernelhost&key=hostname");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/foreign/universal_module.php");
    let run = |url: String, event: &'static str| async move {
        let output = tokio::task::spawn_blocking(move || Command::new("php").args([script, &url, event]).output().unwrap());
        let output = output.await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = run(add.clone(), "add").await;
    assert!(told.starts_with("200\n") && told.contains(r#""success":true"#), "{told}");
    assert!(run(add, "add").await.starts_with("200\n"));
    let cancel = |key: &str| format!("http://{at}/blesta/universal/cancel?key={key}");
    let told = run(cancel("hostname"), "cancel").await;
    assert!(told.starts_with("200\n") && told.contains(r#""service_status":"terminated""#), "{told}");
    let told = run(cancel("other"), "cancel").await;
    assert!(told.starts_with("400\n") && told.contains(r#""success":false"#), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_stands_in_the_document() {
    let desk = Desk::open().await;
    let mut seen = Seen::of("host/src/gateway/openapi.json");
    let mut statuses = std::collections::BTreeSet::new();
    let document = seen.document();
    for route in ROUTES {
        let (site, machine) = (Kept::new(route, GP), Kept { wait: 0, ..Kept::new(route, KERNELHOST) });
        let path = |function: &str| match route {
            Route::Upmind => format!("/upmind/{function}"),
            Route::Blesta => format!("/blesta/universal/{}", event_of(function)),
        };
        let wrong = Kept { plan: "no such plan!".to_owned(), ..site.clone() };
        for (kept, function) in [
            (&site, "suspend"),
            (&wrong, "create"),
            (&site, "create"),
            (&machine, "create"),
            (&site, "suspend"),
            (&site, "unsuspend"),
            (&site, "renew"),
            (&site, "changePackage"),
            (&site, if route == Route::Upmind { "getInfo" } else { "edit" }),
            (&site, "terminate"),
        ] {
            let due: &[(&str, &str)] = if route == Route::Upmind { &[("due_at", "2027-01-15")] } else { &[] };
            let answer = kept.call_with(&desk, function, due).await;
            statuses.insert(answer.status);
            seen.saw(text(&document["paths"][path(function)]["post"], "operationId"), answer.status, &answer);
        }
    }
    assert!(statuses.is_superset(&[200, 202, 404, 422].into()), "{statuses:?}");
    seen.judge_these();
}
