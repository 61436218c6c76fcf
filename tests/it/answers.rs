//! What every answer has, whoever gives it; and the days of the calendar on which programs break.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use jiff::{SignedDuration, Timestamp};
use provisor::clock::Clock;
use provisor::config::{Config, Environment};
use provisor::server::{Mounts, Options};
use provisor_tests::book::Engine;
use provisor_tests::house::House;
use provisor_tests::http::Http;
use provisor_tests::raw;
use provisor_tests::resellers::{KernelHostKey, KeyTraits};
use serde_json::{Value, json};

fn engine() -> Engine {
    Engine::of_module(module_path!())
}

#[tokio::test]
async fn every_answer_names_its_request_and_every_refusal_is_a_problem() {
    let house = House::start_in(engine()).await;
    let http = Http::default();
    let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
    let v1 = |path: &str| format!("{mount}{path}");
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, status) in [
        ("GET", "/healthz".to_owned(), 200),
        ("HEAD", "/healthz".to_owned(), 200),
        ("GET", "/readyz".to_owned(), 200),
        ("POST", "/readyz".to_owned(), 405),
        ("OPTIONS", "/healthz".to_owned(), 204),
        ("PUT", "/healthz".to_owned(), 405),
        ("GET", "/".to_owned(), 404),
        ("GET", "/nowhere?x=1".to_owned(), 404),
        ("DELETE", "/cp".to_owned(), 404),
        ("GET", mount.to_owned(), 404),
        ("GET", format!("{mount}x/v1/health"), 404),
        ("OPTIONS", "/favicon.ico".to_owned(), 404),
        ("GET", v1("/v1/health"), 200),
        ("HEAD", v1("/v1/health"), 200),
        ("GET", v1("/"), 401),
        ("GET", v1("/v1/me"), 401),
        ("HEAD", v1("/v1/me"), 401),
        ("OPTIONS", v1("/v1/services/7"), 204),
        ("OPTIONS", v1("/nowhere"), 401),
        ("PATCH", v1("/nowhere"), 401),
    ] {
        let answer = http.send(method, &format!("http://{}{path}", house.address()), &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        let id = answer.header("x-request-id").unwrap_or_else(|| panic!("{method} {path}: no request id")).to_owned();
        let is_crockford = |byte: u8| byte.is_ascii_digit() || (byte.is_ascii_uppercase() && !b"ILOU".contains(&byte));
        assert!(id.len() == 26 && id.bytes().all(is_crockford), "{id}");
        if method == "HEAD" {
            assert!(answer.body.is_empty(), "{path}");
        } else if status >= 400 {
            assert_eq!(answer.content_type(), Some("application/problem+json"), "{method} {path}");
            let problem = answer.json();
            assert_eq!((&problem["status"], &problem["request_id"]), (&json!(status), &json!(id)), "{path}");
            assert!(problem["type"].is_string() && problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        }
        if matches!(status, 204 | 405) {
            assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"), "{path}");
        }
        assert!(ids.insert(id), "a request id came twice");
    }
}

#[tokio::test]
async fn an_api_is_served_where_the_operator_wants_it() {
    for (prefix, url) in [("", "/"), ("/reseller/api", "/reseller/api")] {
        let mounts =
            Mounts::new([("kernelhost", prefix), ("gp", "/gp")].map(|(id, at)| (provisor_providers::find(id).unwrap(), at)));
        let house = House::start_on(engine(), Options { mounts, per_ip_per_minute: 0, ..Options::default() }).await;
        let account = house.reseller("10.00").await;
        let root = format!("http://{}", house.address());
        let key = house.kernelhost_key(account, KeyTraits::default()).await;
        let key = KernelHostKey { base_url: format!("{root}{prefix}"), ..key };
        assert_eq!(key.get("/v1/me").await.status, 200);
        let http = Http::default();
        let ask = async |path: &str| http.send("GET", &format!("{root}{path}"), &[], "").await;
        assert_eq!(ask(&format!("{prefix}/openapi.json")).await.json()["servers"][0]["url"], url);
        assert_eq!(ask("/healthz").await.body, "ok\n");
        assert_eq!(ask("/gp/list/").await.content_type(), Some("application/json"), "GP's own form");
        let before = ask("/cp/kh_reseller_api/v1/health").await.status;
        assert_eq!(before, if prefix.is_empty() { 401 } else { 404 }, "the default is not served besides");

        // Who signs the prefix too is told apart, for the operator.
        let now = house.clock.now().as_second();
        let signed = key.headers(now, "GET", &format!("{prefix}/v1/me?x=1"), b"");
        let head: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = http.send("GET", &format!("{root}{prefix}/v1/me?x=1"), &head, "").await;
        assert_eq!(answer.status, if prefix.is_empty() { 200 } else { 401 });
        let hinted = "SELECT COUNT(*) FROM audit WHERE detail = 'would match with the prefix in the signed path'";
        assert_eq!(house.book().number(hinted), i64::from(!prefix.is_empty()));
    }
}

/// Else calls of one API would go to the other, or a client's to nobody.
#[test]
fn no_api_is_served_where_its_calls_would_not_come() {
    let folder = tempfile::tempdir().unwrap();
    let load = |lines: &str| {
        let file = folder.path().join("provisor.toml");
        std::fs::write(&file, format!("[server.mounts]\n{lines}\n")).unwrap();
        Config::load(&file, &Environment::default()).map_err(|error| error.to_string())
    };
    for (lines, why) in [
        ("kernelhost = '/api'", "gp is served at /api/v1/"),
        ("kernelhost = '/'\ngp = '/v1'", "gp is served at /v1/"),
        ("kernelhost = '/'\ngp = '/v1/services'", "gp is served at /v1/services/"),
        ("gp = '/cp/kh_reseller_api/v1'", "kernelhost is served at /cp/kh_reseller_api/"),
        ("gp = '/'\nkernelhost = '/list'", "gp is served at /, "),
        ("gp = '/gp'\nkernelhost = '/api/v1'", "clients may leave out the /v1"),
    ] {
        let refused = load(lines).unwrap_err();
        assert!(refused.contains(why), "{lines}: {refused}");
    }
    for lines in ["kernelhost = '/'", "gp = '/'\nkernelhost = '/lists'", "kernelhost = '/'\ngp = '/v10'", "gp = '/v1'"] {
        load(lines).unwrap();
    }
}

/// The parser answers by itself: nobody was asked, so there is no id under which anything would be found.
#[tokio::test]
async fn what_is_no_request_is_refused_without_an_id() {
    let house = House::start_in(engine()).await;
    let large = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    for (bytes, status) in [("GET /healthz HTTP/1.1\r\nno field\r\n\r\n", 400), ("GET /a b HTTP/1.1\r\n\r\n", 400), (&large, 431)]
    {
        let answer = raw::exchange(house.address(), bytes.as_bytes()).await;
        assert_eq!((answer.status, answer.body.len(), answer.header("x-request-id")), (status, 0, None), "{bytes}");
    }
}

/// Whatever a request would have done is not done either.
#[tokio::test]
async fn without_its_audit_row_no_request_is_answered() {
    let house = House::start_in(engine()).await;
    let account = house.reseller("1000.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    let order = json!({"product_id": 42, "billing_cycle": "monthly"});
    let rows = || {
        ["orders", "invoices", "idempotency", "audit"].map(|table| house.book().number(&format!("SELECT COUNT(*) FROM {table}")))
    };
    assert_eq!(key.get("/v1/me").await.status, 200);
    let before = rows();
    house.book().forbid("INSERT", "audit", None);
    let large = key.send(house.clock.now().as_second(), "POST", "/v1/orders", &[], " ".repeat(65_537).as_bytes()).await;
    for answer in [key.get("/v1/me").await, key.get("/v1/nowhere").await, key.post("/v1/orders", "one", &order).await, large] {
        assert_eq!((answer.status, answer.content_type()), (503, Some("application/problem+json")));
        assert!(answer.json()["type"].as_str().unwrap().ends_with("/service_unavailable"), "{}", answer.json());
    }
    assert_eq!(rows(), before);
    house.book().permit("audit");
    assert_eq!(key.post("/v1/orders", "one", &order).await.status, 201);
}

#[tokio::test]
async fn readiness_tells_of_the_check_that_goes_on_behind_it() {
    let house = House::start_in(engine()).await;
    let http = Http::default();
    loop {
        let answer = http.send("GET", &format!("http://{}/readyz", house.address()), &[], "").await;
        assert_eq!(answer.status, 200, "ready while it is checked");
        let text = String::from_utf8(answer.body.into()).unwrap();
        if text == "ready\nquick_check: ok\n" {
            break;
        }
        assert_eq!(text, "ready\nquick_check: running\n");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

struct Day {
    house: House,
    key: KernelHostKey,
}

impl Day {
    async fn begin(at: &str) -> Self {
        let house = House::start_in(engine()).await;
        house.clock.set(at.parse().unwrap());
        let account = house.reseller("1000.00").await;
        let key = house.kernelhost_key(account, KeyTraits::default()).await;
        Self { house, key }
    }

    fn now(&self) -> i64 {
        self.house.clock.now().as_second()
    }

    async fn order(&self, idempotency_key: &str) -> (bool, Value) {
        let body = br#"{"product_id":42,"billing_cycle":"monthly"}"#;
        let answer = self.key.send(self.now(), "POST", "/v1/orders", &[("Idempotency-Key", idempotency_key)], body).await;
        assert_eq!(answer.status, 201, "{}", answer.json());
        (answer.header("idempotent-replayed").is_some(), answer.json())
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.key.send(self.now(), "GET", path, &[], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()
    }

    async fn service(&self, order: &Value) -> Value {
        loop {
            let order = self.get(&format!("/v1/orders/{}", order["id"])).await;
            if let Some(service) = order["service_id"].as_i64() {
                return self.get(&format!("/v1/services/{service}")).await;
            }
            // The schedule looks by the machine's clock.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn leap_days_and_the_end_of_32_bit_time_are_days_like_others() {
    for (at, next_due_at) in [
        ("2028-02-29T23:59:59.999Z", "2028-03-29T23:59:59Z"),
        ("2028-01-31T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("2027-01-15T08:00:00Z", "2027-02-15T08:00:00Z"),
        ("2038-01-19T03:14:07Z", "2038-02-19T03:14:07Z"),
        ("2038-01-19T03:14:08Z", "2038-02-19T03:14:08Z"),
        ("2099-12-31T23:59:59Z", "2100-01-31T23:59:59Z"),
    ] {
        let day = Day::begin(at).await;
        let (replayed, order) = day.order("one").await;
        let begin: Timestamp = at.parse().unwrap();
        assert_eq!((replayed, &order["created_at"]), (false, &json!(begin.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())));
        let service = day.service(&order).await;
        assert_eq!(service["next_due_at"], next_due_at, "{at}");
        // The window, over the end of a day, month, year or 32-bit second.
        for (offset, status) in [(-301, 401), (-300, 200), (300, 200), (301, 401)] {
            let answer = day.key.send(day.now() + offset, "GET", "/v1/me", &[], b"").await;
            assert_eq!(answer.status, status, "{at} {offset}");
        }
        let rows: i64 = 24 * 3600;
        for (later, expected) in [(rows - 1, true), (rows, false)] {
            day.house.clock.set(begin + SignedDuration::from_secs(later));
            assert_eq!(day.order("one").await.0, expected, "{at}, {later} s later");
        }
        day.house.clock.advance(SignedDuration::from_hours(35 * 24));
        assert_eq!(day.get("/v1/me").await["key"]["id"], day.key.id);
        assert!(matches!(day.house.store.read(provisor::audit::verify).unwrap(), provisor::audit::Verdict::Whole { .. }), "{at}");
    }
}

#[tokio::test]
async fn who_guesses_key_ids_is_kept_off_the_store_and_who_has_keys_is_not() {
    let mut house = House::start_in(engine()).await;
    let account = house.reseller("0.00").await;
    let mut keys = Vec::new();
    for _ in 0..80 {
        keys.push(house.kernelhost_key(account, KeyTraits::default()).await);
    }
    house.restart().await;
    for key in &mut keys {
        key.base_url = house.base_url("kernelhost");
        assert_eq!(key.get("/v1/me").await.status, 200, "one of many behind one address");
    }
    let mut answers = Vec::new();
    for guess in 0..80 {
        let stranger =
            KernelHostKey { id: format!("kh_live_{guess:0>32}ZZ").replace("kh_live_00", "kh_live_"), ..keys[0].clone() };
        answers.push(stranger.get("/v1/me").await.status);
    }
    assert_eq!((answers[0], answers[79]), (401, 503), "{answers:?}");
    let audited = house.book().number("SELECT COUNT(*) FROM audit WHERE status = 503 AND reason = 'busy' AND path = '/v1/me'");
    assert_eq!(audited, i64::try_from(answers.iter().filter(|status| **status == 503).count()).unwrap());
}
