//! The gateway's surface: who may ask, what is malformed, what is told to whom, and that a secret is in none of it.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use provisor_tests::binary::provisor_on;
use provisor_tests::book::Engine;
use provisor_tests::daemon::Daemon;
use provisor_tests::desk::{Desk, GP, KERNELHOST, PASSWORD, SHOPS, ask, domain, text};
use provisor_tests::faults::{Answer as Wrong, Fault};
use provisor_tests::hooks::{Receiver, Reply, until};
use provisor_tests::http::Http;
use provisor_tests::resellers::unique;
use serde_json::{Value, json};

fn document() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src/gateway/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_token_is_told_nothing_and_may_guess_only_so_often() {
    let desk = Desk::open().await;
    desk.made(GP).await;
    let http = Http::default();
    let address = desk.gateway().address();
    let wrong = ["pvr_wrong".to_owned(), String::new(), format!("{}x", desk.token), "MARKED".repeat(500)];
    let mut asked = 0;
    for (path, item) in document()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let url = format!("http://{address}{}", path.replace("{key}", "a").replace("{id}", "a").replace("{profile}", "gp"));
            let token = &wrong[asked % wrong.len()];
            let answer = ask(&http, &url, &method.to_uppercase(), token, Some(&json!({})), &[]).await.unwrap();
            assert_eq!(answer.status, 401, "{method} {path}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("MARKED"));
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            asked += 1;
        }
    }
    assert!(asked > 20);
    let url = format!("http://{address}/v1/profiles");
    let mut statuses = BTreeSet::new();
    for _ in 0..200 {
        statuses.insert(http.send("GET", &url, &[("Authorization", "Bearer guess")], "").await.status);
    }
    assert_eq!(statuses, BTreeSet::from([401, 429]));
    assert_eq!(desk.send("GET", "/v1/profiles", None, &[]).await.status, 200, "who has a token is not kept out");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_behind_a_proxy_are_counted_each_and_providers_apart_from_them() {
    let mut desk = Desk::open().await;
    desk.reconfigure(|settings| settings.replace("[gateway]\n", "[gateway]\ntrusted_proxies = ['127.0.0.0/8']\n"));
    let http = Http::default();
    let base = format!("http://{}", desk.gateway().address());
    let (guess, events) = (format!("{base}/v1/profiles"), format!("{base}/v1/profiles/kernelhost/events"));
    let from = |stranger: &'static str| [("X-Forwarded-For", stranger), ("Authorization", "Bearer guess")];
    let mut kept_out = false;
    for _ in 0..200 {
        kept_out |= http.send("GET", &guess, &from("203.0.113.7, 198.51.100.1"), "").await.status == 429;
    }
    assert!(kept_out);
    assert_eq!(
        http.send("GET", &guess, &from("203.0.113.7"), "").await.status,
        401,
        "the hop on the left is the caller's own word"
    );
    // A provider may send many webhooks in a minute, guesses of the same address or not.
    for _ in 0..300 {
        assert_ne!(http.send("POST", &events, &from("198.51.100.1"), "{}").await.status, 429);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reaches_its_profiles_and_no_others_and_can_be_taken_back() {
    let desk = Desk::open().await;
    let machine = desk.made(KERNELHOST).await;
    let narrow = desk.run(&["panel", "create", "--name", "narrow", "--profile", "gp"]);
    let token = text(&narrow, "token").to_owned();
    let (http, base) = (Http::default(), format!("http://{}", desk.gateway().address()));
    let asked = |method: &'static str, path: String, body: Option<Value>| {
        let (http, base, token) = (&http, &base, &token);
        async move { ask(http, &format!("{base}{path}"), method, token, body.as_ref(), &[]).await.unwrap() }
    };
    assert_eq!(asked("GET", "/v1/profiles/gp/check".into(), None).await.status, 200);
    for path in ["/v1/profiles/kernelhost", "/v1/profiles/kernelhost/check", "/v1/profiles/kernelhost/balance"] {
        assert_eq!(asked("GET", path.into(), None).await.status, 403, "{path}");
    }
    assert_eq!(asked("POST", "/v1/services/x/create".into(), Some(KERNELHOST.order(&domain()))).await.status, 403);
    assert_eq!(asked("POST", format!("/v1/services/{machine}/terminate"), Some(json!({}))).await.status, 404);
    assert_eq!(asked("GET", "/v1/services".into(), None).await.json()["services"], json!([]));
    assert_eq!(asked("GET", "/v1/operations".into(), None).await.json()["operations"], json!([]));
    let names: Vec<Value> = asked("GET", "/v1/profiles".into(), None).await.json()["profiles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|profile| profile["name"].clone())
        .collect();
    assert_eq!(names, [json!("gp")]);
    let rotated = desk.run(&["panel", "rotate", "narrow"]);
    assert_eq!(asked("GET", "/v1/profiles".into(), None).await.status, 401);
    let url = format!("{base}/v1/profiles");
    assert_eq!(ask(&http, &url, "GET", text(&rotated, "token"), None, &[]).await.unwrap().status, 200);
    desk.run(&["panel", "revoke", "narrow"]);
    assert_eq!(ask(&http, &url, "GET", text(&rotated, "token"), None, &[]).await.unwrap().status, 401);
    assert!(!desk.run(&["panel", "list"]).to_string().contains("pvr_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_refused_and_nothing_is_written() {
    let desk = Desk::open().await;
    let send = |method: &'static str, path: &'static str, headers: &'static [(&'static str, &'static str)], body: Vec<u8>| {
        let desk = &desk;
        async move {
            let token = format!("Bearer {}", desk.token);
            let mut all = vec![("Authorization", token.as_str())];
            all.extend(headers);
            let url = format!("http://{}{path}", desk.gateway().address());
            let answer = Http::default().send(method, &url, &all, body).await;
            assert!(answer.header("x-request-id").is_some() && answer.header("cache-control") == Some("no-store"));
            (answer.status, String::from_utf8_lossy(&answer.body).into_owned(), answer.header("allow").map(str::to_owned))
        }
    };
    let create = "/v1/services/a/create";
    let json_type: &[(&str, &str)] = &[("Content-Type", "application/json")];
    for body in [
        "",
        "[]",
        "null",
        "{",
        "{\"profile\":1,\"plan\":\"1\"}",
        "{\"plan\":\"1\"}",
        "{\"profile\":\"gp\",\"plan\":\"1\",\"x\":1}",
        "{\"profile\":\"gp\",\"plan\":\"1\",\"options\":{\"a\":[]}}",
        "{\"profile\":\"gp\",\"plan\":\"1\",\"plan\":\"2\"}",
    ] {
        assert_eq!(send("POST", create, json_type, body.as_bytes().to_vec()).await.0, 400, "{body}");
    }
    assert_eq!(send("POST", create, &[("Content-Type", "text/plain")], b"{}".to_vec()).await.0, 415);
    assert_eq!(send("POST", create, json_type, vec![b' '; 64 * 1024 + 1]).await.0, 413);
    assert_eq!(send("POST", "/v1/services/a%20b/create", json_type, b"{}".to_vec()).await.0, 400);
    let long = format!("{{\"profile\":\"gp\",\"plan\":\"1\",\"note\":\"{}\"}}", "x".repeat(11_000));
    assert_eq!(send("POST", create, json_type, long.into_bytes()).await.0, 400);
    assert_eq!(send("GET", create, &[], Vec::new()).await.2.as_deref(), Some("POST"));
    assert_eq!(send("DELETE", "/v1/services/a", &[], Vec::new()).await.2.as_deref(), Some("GET, HEAD"));
    for path in ["/", "/v1", "/v1/services/a/explode", "/v2/services", "/v1/profiles/gp/check/x"] {
        assert_eq!(send("GET", path, &[], Vec::new()).await.0, 404, "{path}");
    }
    for path in [
        "/v1/services?limit=0",
        "/v1/services?limit=201",
        "/v1/services?limit=x",
        "/v1/services?cursor=x",
        "/v1/services?state=odd",
        "/v1/services?drifted=yes",
        "/v1/services/a?fresh=2",
        "/v1/operations?state=odd",
        "/v1/profiles/gp/catalog?refresh=TRUE",
    ] {
        let (status, body, _) = send("GET", path, &[], Vec::new()).await;
        let told: Value = serde_json::from_str(&body).unwrap();
        let (field, _) = path.split_once('?').unwrap().1.split_once('=').unwrap();
        assert_eq!((status, &told["field"]), (400, &json!(field)), "{path}");
    }
    for path in ["/v1/services?state=&drifted=false&limit=", "/v1/services?state=active&drifted=1", "/v1/operations?state=done"] {
        assert_eq!(send("GET", path, &[], Vec::new()).await.0, 200, "{path}");
    }
    assert_eq!(
        desk.book.number("SELECT COUNT(*) FROM operations") + desk.book.number("SELECT COUNT(*) FROM managed_services"),
        0
    );
    assert_eq!(desk.upstream.seen(" /"), 0);
    // A reason that a customer wrote, of any length and content, is no reason to fail.
    let key = desk.made(KERNELHOST).await;
    let reason = "<script>alert('ä')</script>\u{0}\"'\\ 𝄞".repeat(500);
    desk.done(&key, "suspend", &json!({"reason": reason})).await;
}

/// Everything that is written while every operation is asked for: the log at its loudest, the whole book, the answers.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_the_book_or_an_answer() {
    let mut desk = Desk::open().await;
    desk.stop();
    let log = tempfile::NamedTempFile::new().unwrap();
    desk.start_logging("debug", Stdio::from(log.reopen().unwrap()));
    let mut answers = String::new();
    for shop in SHOPS {
        let key = format!("marked-{}", shop.provider);
        // One attempt is left in the journal with its problem, and a password waits sealed meanwhile.
        desk.upstream.inject(" /", Fault { reaches: false, answer: Wrong::Echo(400) }, 1);
        desk.upstream.inject(" /", Fault { reaches: false, answer: Wrong::Cut }, 4);
        for (operation, body) in [
            ("create", shop.order(&domain())),
            ("create", shop.order(&domain())),
            ("reset-password", json!({"password": format!("{PASSWORD}-2")})),
            ("power", json!({"action": "stop"})),
            ("change-package", json!({"plan": "20k"})),
            ("renew", json!({"due_at": "2050-01-15"})),
            ("suspend", json!({"reason": "unpaid"})),
            ("unsuspend", json!({})),
            ("terminate", json!({})),
        ] {
            let answer =
                desk.send("POST", &format!("/v1/services/{key}/{operation}"), Some(&body), &[("Prefer", "wait=2")]).await;
            answers.push_str(&String::from_utf8_lossy(&answer.body));
        }
        for path in ["/v1/operations", "/v1/services", "/v1/profiles", "/v1/describe?panel=whmcs", "/metrics"] {
            answers.push_str(&String::from_utf8_lossy(&desk.send("GET", path, None, &[]).await.body));
        }
        desk.upstream.heal();
    }
    desk.kill();
    let mut written = std::fs::read_to_string(log.path()).unwrap();
    assert!(written.len() > 5_000, "the log is empty: {written}");
    for file in std::fs::read_dir(desk.book.directory()).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if file.is_file() && !name.ends_with(".secret") && !name.starts_with("master.key") {
            let mut bytes = Vec::new();
            std::fs::File::open(&file).unwrap().read_to_end(&mut bytes).unwrap();
            written.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    let secret = |file: &str| std::fs::read_to_string(desk.book.directory().join(file)).unwrap();
    for marked in [PASSWORD.to_owned(), secret("kh.secret"), secret("gp.secret"), desk.token.clone()] {
        assert!(!written.contains(&marked), "in the log or the book: {}", &marked[..6]);
        assert!(!answers.contains(&marked), "in an answer: {}", &marked[..6]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_tells_is_asked_for_at_once_and_each_event_once() {
    let mut desk = Desk::open().await;
    std::fs::write(desk.book.directory().join("hook.secret"), "whsec_test").unwrap();
    let secret = "secret = { file = \"kh.secret\" }";
    desk.reconfigure(|settings| {
        settings.replace(secret, &format!("{secret}\nsettings = {{ webhook_secret = {{ file = \"hook.secret\" }} }}"))
    });
    let key = desk.made(KERNELHOST).await;
    let number: i64 = text(&desk.service(&key).await, "remote_id").strip_prefix("service/").unwrap().parse().unwrap();
    desk.provider.execute(&format!("UPDATE services SET status = 'terminated' WHERE id = {number}"));
    let event = |id: &str| {
        let now = jiff::Timestamp::now();
        let data = json!({"service_id": number, "order_id": 1});
        (
            json!({"id": id, "type": "service.terminated", "created_at": now.to_string(), "data": data}).to_string(),
            now.as_second(),
        )
    };
    let send = |body: String, signed: String| {
        let url = format!("http://{}/v1/profiles/kernelhost/events", desk.gateway().address());
        async move { Http::default().send("POST", &url, &[("KH-Webhook-Signature", &signed)], body).await }
    };
    let (body, now) = event("evt_1");
    let signed = provisor_providers::kernelhost::webhook::header(&[b"whsec_test"], now, body.as_bytes());
    let forged = provisor_providers::kernelhost::webhook::header(&[b"whsec_other"], now, body.as_bytes());
    assert_eq!(send(body.clone(), forged).await.status, 401);
    let first = send(body.clone(), signed.clone()).await;
    assert_eq!((first.status, first.json()), (200, json!({"received": 1})), "{}", first.json());
    assert_eq!(send(body, signed).await.json(), json!({"received": 0}));
    let began = Instant::now();
    while desk.service(&key).await["drift"].is_null() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", desk.service(&key).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(desk.service(&key).await["drift"]["kind"], "gone");
    let again = desk.change(&key, "create", &KERNELHOST.order(&domain())).await;
    assert_eq!((again.status, again.json()["kind"].clone()), (409, json!("wrong-state")), "{}", again.json());
    assert_eq!(text(&desk.run(&["operations", "list", "--limit", "1"]), "state"), "done");
    let url = format!("http://{}/v1/profiles/nobody/events", desk.gateway().address());
    assert_eq!(Http::default().send("POST", &url, &[], "x").await.status, 404);
}

/// The book would not be looked at again by itself: what ends the change is the provider's event.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_tells_the_gateway_once_its_webhook_is_set() {
    let mut desk = Desk::open().await;
    let gateway = desk.gateway().address();
    desk.reconfigure_providers(&format!("[webhooks]\nallow_targets = [\"{gateway}\"]\n[server.fulfilment]\nmode = \"manual\"\n"));
    let (base, url) = (format!("http://{gateway}"), format!("http://{gateway}/v1/profiles/kernelhost/events"));
    let file = desk.book.directory().join("webhook.secret");
    let set = ["profile", "webhook", "set", "kernelhost", "--gateway", &base, "--secret-file", file.to_str().unwrap()];
    let told = desk.run(&set);
    assert_eq!((text(&told, "url"), text(&told, "setting")), (url.as_str(), "webhook_secret"));
    let secret = || std::fs::read_to_string(&file).unwrap();
    let first = secret();
    assert!(first.starts_with("whsec_") && !told.to_string().contains("whsec_"), "{told}");
    // A second time is another secret, but not over one that is there.
    let asked = desk.upstream.seen("/v1/webhooks");
    let refused = provisor_on(desk.book.directory(), &desk.book.url()).args(set).output().unwrap();
    assert_eq!((refused.status.code(), desk.upstream.seen("/v1/webhooks"), secret()), (Some(2), asked, first.clone()));
    desk.run(&[&set[..], &["--force"]].concat());
    assert_ne!(secret(), first);
    desk.reload(|settings| {
        settings.replace("[profiles.gp]", "settings = { webhook_secret = { file = \"webhook.secret\" } }\n[profiles.gp]")
    });

    let order = KERNELHOST.order(&domain());
    let answer = desk.send("POST", "/v1/services/told/create", Some(&order), &[("Prefer", "wait=0")]).await;
    let id = text(&answer.json()["operation"], "id").to_owned();
    let (mine, theirs) = (|query: &str| desk.book.number(query), |query: &str| desk.provider.number(query));
    let untold = "SELECT COUNT(*) FROM deliveries WHERE delivered_at IS NULL";
    until(|| mine("SELECT COUNT(*) FROM provider_events") > 0 && theirs(untold) == 0, || "the order's events".to_owned()).await;
    let parked = || {
        desk.book.execute("UPDATE operations SET next_at = 9000000000000 WHERE state = 'waiting'");
        mine("SELECT COUNT(*) FROM operations WHERE state = 'waiting' AND next_at = 9000000000000") == 1
    };
    until(parked, || "an operation that nobody looks at".to_owned()).await;
    desk.run_at_provider(&["order", "fulfil", text(&desk.service("told").await, "remote_id").strip_prefix("order/").unwrap()]);
    desk.until(&id, &["done"]).await;

    let shown = desk.run(&["profile", "webhook", "show", "kernelhost"]);
    assert_eq!(shown["webhook"]["url"], json!(url), "{shown}");
    assert!(!shown.to_string().contains(&secret()));
    desk.run(&["profile", "webhook", "unset", "kernelhost"]);
    assert_eq!(desk.run(&["profile", "webhook", "show", "kernelhost"])["webhook"], Value::Null);
    let lacking =
        provisor_on(desk.book.directory(), &desk.book.url()).args(["profile", "webhook", "show", "gp"]).output().unwrap();
    assert_eq!(lacking.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_owns_is_found_and_left_alone() {
    let desk = Desk::open().await;
    desk.made(KERNELHOST).await;
    let ordered = async || {
        let order = json!({"product_id": 42, "billing_cycle": "monthly"});
        let order = desk.key.post("/v1/orders", &format!("by-hand-{}", unique()), &order).await;
        assert_eq!(order.status, 201, "{}", order.json());
        let began = Instant::now();
        loop {
            let order = desk.key.get(&format!("/v1/orders/{}", order.json()["id"])).await.json();
            if let Some(id) = order["service_id"].as_i64() {
                return format!("service/{id}");
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{order}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let listed = async || {
        let answer = desk.send("GET", "/v1/profiles/kernelhost/unowned", None, &[]).await;
        assert_eq!(answer.status, 200);
        let services = answer.json()["services"].as_array().unwrap().clone();
        services.iter().map(|service| text(service, "remote_id").to_owned()).collect::<Vec<_>>()
    };
    let taken = async || {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = jiff::Timestamp::now().as_millisecond();
        assert_eq!(desk.run(&["operations", "reconcile"])["inventories"], 1, "GP has no list");
        let query = format!("SELECT COUNT(*) FROM inventories WHERE taken_at >= {now}");
        until(|| desk.book.number(&query) > 0, || "an inventory".to_owned()).await;
    };
    until(|| desk.book.number("SELECT COUNT(*) FROM inventories") > 0, || "an inventory to be due".to_owned()).await;
    let (forgotten, live) = (ordered().await, desk.live(KERNELHOST));
    taken().await;
    assert_eq!(listed().await, std::slice::from_ref(&forgotten));
    let drift = provisor_on(desk.book.directory(), &desk.book.url()).args(["operations", "drift"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&drift.stdout).unwrap();
    assert_eq!((drift.status.code(), text(&shown, "drift"), text(&shown, "remote_id")), (Some(1), "unowned", forgotten.as_str()));
    desk.done("found", "adopt", &json!({"profile": "kernelhost", "remote_id": forgotten})).await;
    assert_eq!(listed().await, [""; 0]);

    // While an order is under way, what is found may be its service.
    desk.book.execute("UPDATE operations SET state = 'dead', ended_at = NULL WHERE kind = 'create'");
    let other = ordered().await;
    taken().await;
    assert_eq!(listed().await, [""; 0]);
    assert_eq!(desk.book.number("SELECT COUNT(*) FROM unowned_services WHERE is_certain = 0"), 1);
    desk.book.execute("UPDATE unowned_services SET since = since - 900001 WHERE is_certain = 0");
    taken().await;
    assert_eq!(listed().await, [other]);
    assert_eq!(desk.live(KERNELHOST), live + 1, "nothing is ended");
    let narrow = text(&desk.run(&["panel", "create", "--name", "narrow", "--profile", "gp"]), "token").to_owned();
    let url = format!("http://{}/v1/profiles/kernelhost/unowned", desk.gateway().address());
    assert_eq!(ask(&Http::default(), &url, "GET", &narrow, None, &[]).await.unwrap().status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_may_be_secret_is_sealed_and_survives_a_crash() {
    const OPTION: &str = "MARKED-message-of-the-day";
    let mut desk = Desk::open().await;
    desk.credit("-1000000.00");
    let plans = desk.send("GET", "/v1/profiles/kernelhost/catalog", None, &[]).await.json()["plans"].as_array().unwrap().clone();
    let plan = plans.iter().find(|plan| plan["options"].to_string().contains("\"motd\"")).unwrap();
    let options = json!({"hostname": domain(), "motd": OPTION});
    let order = json!({"profile": "kernelhost", "plan": plan["id"], "options": options});
    let answer = desk.send("POST", "/v1/services/game/create", Some(&order), &[("Prefer", "wait=1")]).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    let id = text(&answer.json()["operation"], "id").to_owned();
    let shown = desk.run(&["operations", "show", &id]);
    assert!(shown["request"].to_string().contains("hostname") && !shown.to_string().contains(OPTION), "{shown}");
    let sealed = |desk: &Desk| desk.book.number("SELECT COUNT(*) FROM operations WHERE sealed_options IS NOT NULL");
    assert_eq!(sealed(&desk), 1);
    // What was asked for is asked for again after a crash, in the same words, as an unlike request would be refused.
    let forgotten = "is_accepted = 0, accepted_at = NULL, next_at = 9000000000000";
    let parked = || {
        desk.book.execute(&format!("UPDATE operations SET {forgotten} WHERE state = 'waiting'"));
        desk.book.number("SELECT COUNT(*) FROM operations WHERE state = 'waiting' AND next_at = 9000000000000") == 1
    };
    until(parked, || "an operation that nobody looks at".to_owned()).await;
    desk.kill();
    desk.credit("1000.00");
    let seen = desk.upstream.seen("POST /cp/kh_reseller_api/v1/orders");
    desk.start();
    desk.run(&["operations", "retry", &id]);
    desk.until(&id, &["done"]).await;
    assert!(desk.upstream.seen("POST /cp/kh_reseller_api/v1/orders") > seen);
    assert_eq!((sealed(&desk), desk.live(KERNELHOST)), (0, 1));
    let files = std::fs::read_dir(desk.book.directory()).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(OPTION.len()).any(|window| window == OPTION.as_bytes()), "in {}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_of_each_day_once() {
    let receiver = Receiver::answering(|_, before| Reply::Status(if before == 0 { 503 } else { 200 })).await;
    let mut desk = Desk::open().await;
    let (machine, site) = (desk.made(KERNELHOST).await, desk.made(GP).await);
    desk.change(&site, "change-package", &json!({"plan": "Free"})).await;
    desk.done(&machine, "suspend", &json!({})).await;
    desk.stop();
    let midnight = jiff::Timestamp::now().as_second() / 86_400 * 86_400_000;
    for statement in [
        format!("UPDATE operations SET ended_at = {} WHERE kind <> 'suspend'", midnight - 1),
        format!("UPDATE operations SET ended_at = {midnight} WHERE kind = 'suspend'"),
        "UPDATE managed_services SET drift = 'gone', drift_since = 1 WHERE profile = 'gp'".to_owned(),
        "UPDATE operations SET state = 'dead', ended_at = NULL, created_at = 1 WHERE kind = 'create' AND profile = 'gp'"
            .to_owned(),
    ] {
        desk.book.execute(&statement);
    }
    std::fs::write(desk.book.directory().join("ops.secret"), "MARKED-ops").unwrap();
    desk.reconfigure(|settings| {
        format!(
            "{settings}\n[gateway.summary]\nat = \"00:00\"\nmail = \"ops@example.com\"\ncallback = \"ops\"\n
             [callbacks.ops]\nkind = \"signed\"\nurl = \"{}\"\nsecret = {{ file = \"ops.secret\" }}\n",
            receiver.url().split('?').next().unwrap()
        )
    });
    receiver.wait_for(1).await;
    // A call-back that does not take it is told again; not in this test's time, unless it is due.
    let was_tried = || desk.book.number("SELECT COUNT(*) FROM summaries WHERE tell_attempts = 1") == 1;
    until(was_tried, || "a call-back that was not taken".to_owned()).await;
    desk.book.execute("UPDATE summaries SET tell_at = 1");
    let told = receiver.wait_for(2).await.pop().unwrap();
    let (summary, signature) = (told.json()["summary"].clone(), told.header("provisor-signature").to_owned());
    let now = jiff::Timestamp::now();
    provisor_providers::kernelhost::webhook::verify(&signature, &told.body, &[b"MARKED-ops"], now).unwrap();
    for (member, value) in [
        ("done", json!(1)),
        ("failed", json!(1)),
        ("dead", json!(1)),
        ("unknown", json!(0)),
        ("open_over_a_day", json!(1)),
        ("drift", json!({"gone": 1})),
        ("left_alone", json!([])),
    ] {
        assert_eq!(summary[member], value, "{member}: {summary}");
    }
    let folder = desk.book.directory().join("mail");
    let mails = || {
        let files = std::fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|ending| ending == "eml")).collect::<Vec<_>>()
    };
    until(|| !mails().is_empty(), || "a mail".to_owned()).await;
    let mail = std::fs::read_to_string(&mails()[0]).unwrap();
    assert!(mail.contains("To: ops@example.com\r\n") && mail.contains("dead: for a person to settle"), "{mail}");
    for secret in [PASSWORD, "MARKED-ops", &desk.token, "@example.com\"", machine.as_str()] {
        assert!(!mail.contains(secret) && !summary.to_string().contains(secret), "{secret}");
    }
    assert_eq!(text(&desk.run(&["mail", "list"]), "to"), "ops@example.com");
    // Another start makes no second one; the next day does.
    desk.kill();
    desk.start();
    desk.book.execute("UPDATE summaries SET day = '2000-01-01'");
    until(|| desk.book.number("SELECT COUNT(*) FROM summaries") == 2, || "the next day's".to_owned()).await;
    receiver.wait_for(3).await;
    assert_eq!(desk.book.number("SELECT COUNT(*) FROM mails"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_on_one_database_make_each_change_once() {
    let desk = Desk::on(Engine::Postgres).await;
    let directory = tempfile::tempdir().unwrap();
    let other = desk.another(directory.path());
    for shop in SHOPS {
        let (order, charges) = (shop.order(&domain()), desk.charges());
        let path = format!("/v1/services/shared-{}/create", shop.provider);
        let clients = (0..16).map(|client| {
            let address = if client % 2 == 0 { desk.gateway().address() } else { other.address() };
            let (url, token, order) = (format!("http://{address}{path}"), desk.token.clone(), order.clone());
            tokio::spawn(async move { ask(&Http::default(), &url, "POST", &token, Some(&order), &[]).await.unwrap() })
        });
        let mut operations = BTreeSet::new();
        for client in clients.collect::<Vec<_>>() {
            let answer = client.await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.json());
            operations.insert(text(&answer.json()["operation"], "id").to_owned());
        }
        assert_eq!((operations.len(), desk.charges() - charges, desk.live(shop)), (1, 1, 1));
    }
    // What one host was at when it died, the other settles.
    desk.upstream.inject(
        "POST /cp/kh_reseller_api/v1/orders",
        Fault { reaches: true, answer: Wrong::Late(Duration::from_secs(5)) },
        1,
    );
    let url = format!("http://{}/v1/services/orphan/create", other.address());
    let order = KERNELHOST.order(&domain());
    let answer = ask(&Http::default(), &url, "POST", &desk.token, Some(&order), &[("Prefer", "wait=0")]).await.unwrap();
    let id = text(&answer.json()["operation"], "id").to_owned();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let charges = desk.charges();
    other.kill();
    desk.until(&id, &["done"]).await;
    assert!(desk.charges() <= charges + 1);
    assert_eq!(desk.live(KERNELHOST), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_settles_what_nobody_could() {
    let desk = Desk::with(Engine::Sqlite, "first_pause_ms = 20\nquiet_ms = 100\nsettle_for_s = 2\n").await;
    let lost = Fault { reaches: true, answer: Wrong::Cut };
    desk.upstream.inject("POST /cp/kh_reseller_api/v1/orders", lost, 1000);
    desk.upstream.inject("/cp/kh_reseller_api/", Fault { reaches: false, answer: Wrong::Status(502) }, 1000);
    // The order is there; every answer is lost until the time for settling is over.
    let order = json!({"profile": "kernelhost", "plan": "42", "domain": domain()});
    let answer = desk.send("POST", "/v1/services/dead/create", Some(&order), &[("Prefer", "wait=90")]).await;
    assert_eq!((answer.status, answer.json()["effect"].clone()), (504, json!("unknown")), "{}", answer.json());
    let id = text(&answer.json(), "operation").to_owned();
    assert_eq!(text(&desk.operation(&id).await, "state"), "dead");
    let blocked = desk.change("dead", "suspend", &json!({})).await;
    assert_eq!(blocked.status, 409, "nothing is done to what nobody knows");
    desk.upstream.heal();
    let charges = desk.charges();
    let path = format!("/v1/operations/{id}/resolve");
    let unnamed = desk.send("POST", &path, Some(&json!({"outcome": "done", "note": "seen"})), &[]).await;
    assert_eq!((unnamed.status, unnamed.json()["field"].clone()), (422, json!("remote_id")));
    let resolved = desk.send("POST", &path, Some(&json!({"outcome": "done", "remote_id": "order/1", "note": "seen"})), &[]).await;
    assert_eq!((resolved.status, resolved.json()["state"].clone()), (200, json!("done")), "{}", resolved.json());
    desk.done("dead", "suspend", &json!({})).await;
    assert_eq!((desk.charges(), desk.live(KERNELHOST)), (charges, 1));
    assert_eq!(desk.send("POST", &path, Some(&json!({"outcome": "failed", "note": "no"})), &[]).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_do_not_hold_up_the_others() {
    const CALLS: usize = 200;
    let desk = Desk::open().await;
    let rss = |daemon: &Daemon| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let idle = rss(desk.gateway());
    desk.upstream.inject(
        "POST /cp/kh_reseller_api/v1/orders",
        Fault { reaches: true, answer: Wrong::Late(Duration::from_secs(5)) },
        CALLS,
    );
    let (url, token) = (format!("http://{}", desk.gateway().address()), desk.token.clone());
    let began = Instant::now();
    let calls: Vec<_> = (0..CALLS)
        .map(|call| {
            let (url, token, order) =
                (format!("{url}/v1/services/slow-{call}/create"), token.clone(), KERNELHOST.order(&domain()));
            tokio::spawn(async move {
                ask(&Http::default(), &url, "POST", &token, Some(&order), &[("Prefer", "wait=110")]).await.unwrap().status
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = rss(desk.gateway());
    let mut ready = Vec::new();
    while ready.len() < 200 {
        let asked = Instant::now();
        assert_eq!(Http::default().send("GET", &format!("{url}/readyz"), &[], "").await.status, 200);
        ready.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ready.sort();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    println!(
        "{CALLS} calls against an upstream of 5 s took {:?}; /readyz p50 {:?} p99 {:?}; {} KiB per waiting call",
        began.elapsed(),
        ready[ready.len() / 2],
        ready[ready.len() * 99 / 100],
        waiting.saturating_sub(idle) / CALLS as u64
    );
    assert_eq!(desk.live(KERNELHOST), i64::try_from(CALLS).unwrap());
}

/// What ends while nobody waits is told: once, signed so that Stripe's scheme verifies it, or by a form as WHMCS takes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_panel_that_was_told_under_way_is_told_of_the_end() {
    let mut desk = Desk::open().await;
    let receiver = Receiver::answering(|_, before| if before == 0 { Reply::Status(500) } else { Reply::Status(200) }).await;
    let panel = Receiver::start().await;
    let whmcs = desk.run(&["panel", "create", "--name", "whmcs"]);
    std::fs::write(desk.book.directory().join("callback.secret"), "MARKED-callback").unwrap();
    let (signed, form) = (receiver.authority(), panel.authority());
    desk.reconfigure(|settings| {
        format!(
            "{settings}[callbacks.desk]\nkind = \"signed\"\nurl = \"http://{signed}/ended\"\nsecret = {{ file = \"callback.secret\" }}
             [callbacks.whmcs]\nkind = \"whmcs\"\nurl = \"http://{form}/includes/api.php\"\nidentifier = \"AbC\"
             secret = {{ file = \"callback.secret\" }}\n"
        )
    });
    // Answered at once, and so not told.
    desk.done("service-1", "create", &KERNELHOST.order(&domain())).await;
    let (url, order) = (format!("http://{}/v1/services/service-7/create", desk.gateway().address()), KERNELHOST.order(&domain()));
    let wait = [("Prefer", "wait=0")];
    let pending = desk.send("POST", "/v1/services/service-2/create", Some(&order), &wait).await;
    assert_eq!(pending.status, 202);
    let of_whmcs = ask(&Http::default(), &url, "POST", text(&whmcs, "token"), Some(&KERNELHOST.order(&domain())), &wait).await;
    assert_eq!(of_whmcs.unwrap().status, 202);
    let told = receiver.wait_for(2).await;
    assert_eq!(told[0].body.len(), told[1].body.len(), "the same again, since it was not taken");
    let ended = told[1].json();
    assert_eq!((text(&ended["operation"], "state"), text(&ended["service"], "key")), ("done", "service-2"));
    let secrets: &[&[u8]] = &[b"MARKED-callback"];
    let signature = told[1].header("provisor-signature");
    provisor_providers::kernelhost::webhook::verify(signature, &told[1].body, secrets, jiff::Timestamp::now()).unwrap();
    let form = panel.wait_for(1).await;
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&form[0].body).into_owned().collect();
    assert_eq!((form["action"].as_str(), form["serviceid"].as_str(), form["identifier"].as_str()), ("ModuleCreate", "7", "AbC"));
}
