//! The gateway's OpenAPI document against the gateway: whatever the document promises is really answered, or it is said here why a
//! test cannot have it answered; and whatever is answered stands in the document. Judged by packages from PyPI, by none of our own code.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::time::Duration;

use provisor_providers::kernelhost::webhook;
use provisor_tests::binary::is_long;
use provisor_tests::book::Engine;
use provisor_tests::desk::{Desk, GP, KERNELHOST, ask, domain, text};
use provisor_tests::faults::{Answer as Wrong, Fault};
use provisor_tests::http::{Answer, Http};
use provisor_tests::openapi::{self, Seen};
use provisor_tests::raw;
use provisor_tests::resellers::unique;
use serde_json::{Value, json};

const DOCUMENT: &str = "host/src/gateway/openapi.json";
/// Gives lost answers up after seconds.
const JOURNAL: &str = "first_pause_ms = 20\nquiet_ms = 100\nsettle_for_s = 2\n";
const CHANGES: [&str; 9] =
    ["create", "adopt", "suspend", "unsuspend", "renew", "reset-password", "change-package", "power", "terminate"];
/// What is asked of a profile, and under which path.
const OF_PROFILES: [(&str, &str); 5] =
    [("profile", ""), ("check", "/check"), ("balance", "/balance"), ("catalog", "/catalog"), ("unowned", "/unowned")];
/// A while before the gateway waits no longer for a body.
const BEFORE_THE_TIMEOUT: Duration = Duration::from_secs(8);

const KEY_REFUSED: Wrong = Wrong::Json(
    401,
    r#"{"type":"https://www.kernelhost.com/en/reseller-api/errors/auth_failed","title":"No","status":401,"detail":"No.","reason":"bad_key",
        "request_id":"01HX7Z3K8QABCDEFGHJKMNPQRS"}"#,
);
const STATE_REFUSED: Wrong = Wrong::Json(
    400,
    r#"{"type":"https://www.kernelhost.com/en/reseller-api/errors/validation_failed","title":"No","status":400,"detail":"No.",
        "request_id":"01HX7Z3K8QABCDEFGHJKMNPQRS","errors":[{"field":"action","code":"wrong_state","message":"No."}]}"#,
);
const REFUSED: Wrong = Wrong::Json(
    400,
    r#"{"type":"https://www.kernelhost.com/en/reseller-api/errors/odd","title":"No","status":400,"detail":"No.",
        "request_id":"01HX7Z3K8QABCDEFGHJKMNPQRS"}"#,
);
const GP_KEY_REFUSED: Wrong = Wrong::Json(200, r#"{"status":"Connection failed"}"#);

/// An operation of the document.
struct Operation {
    id: String,
    method: String,
    /// With names that are good ones, but nobody's.
    path: String,
    is_public: bool,
    /// Of the body, if it has one.
    media: Option<String>,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let content = operation["requestBody"]["content"].as_object();
            all.push(Operation {
                id: text(operation, "operationId").to_owned(),
                method: method.to_uppercase(),
                path: path.replace("{key}", "absent").replace("{id}", "absent").replace("{profile}", "kernelhost"),
                is_public: operation["security"] == json!([]),
                media: content.map(|content| content.keys().next().unwrap().clone()),
            });
        }
    }
    all
}

/// A panel that remembers what it was answered.
struct Panel<'a> {
    desk: &'a Desk,
    token: String,
    seen: &'a mut Seen,
}

impl Panel<'_> {
    async fn send(&mut self, id: &str, status: u16, method: &str, path: &str, body: Option<&Value>, wait: &str) -> Answer {
        let url = format!("http://{}{path}", self.desk.gateway().address());
        let idempotency_key = format!("{}-{id}", path.replace('/', ":"));
        let headers = [("Prefer", wait), ("Idempotency-Key", idempotency_key.as_str())];
        let answer = ask(&Http::default(), &url, method, &self.token, body, &headers).await.unwrap();
        self.seen.saw(id, status, &answer);
        answer
    }

    async fn get(&mut self, id: &str, status: u16, path: &str) -> Value {
        let body = self.send(id, status, "GET", path, None, "").await.body;
        serde_json::from_slice(&body).unwrap_or_default()
    }

    async fn change(&mut self, status: u16, key: &str, operation: &str, body: &Value) -> Value {
        self.change_waiting(status, key, operation, body, "wait=60").await
    }

    async fn change_waiting(&mut self, status: u16, key: &str, operation: &str, body: &Value, wait: &str) -> Value {
        let path = format!("/v1/services/{key}/{operation}");
        self.send(operation, status, "POST", &path, Some(body), wait).await.json()
    }

    async fn intervene(&mut self, status: u16, id: &str, what: &str, body: Option<&Value>) -> Value {
        self.send(what, status, "POST", &format!("/v1/operations/{id}/{what}"), body, "").await.json()
    }

    /// Under way at first, then done.
    async fn both(&mut self, key: &str, operation: &str, body: &Value) {
        self.desk.upstream.inject(" /", Fault { reaches: true, answer: Wrong::Late(Duration::from_secs(1)) }, 1);
        let told = self.change_waiting(202, key, operation, body, "wait=0").await;
        self.desk.until(text(&told["operation"], "id"), &["done"]).await;
        self.change(200, key, operation, body).await;
    }

    /// Has the provider answer everything so.
    fn provider_says(&self, answer: Wrong) {
        self.desk.upstream.heal();
        self.desk.upstream.inject(" /", Fault { reaches: false, answer }, 1000);
    }
}

/// What is sent along with a change.
fn body(operation: &str) -> Value {
    match operation {
        "create" => KERNELHOST.order(&domain()),
        "adopt" => json!({"profile": "kernelhost", "remote_id": "service/999999"}),
        "renew" => json!({"due_at": "2050-01-15"}),
        "reset-password" => json!({"password": "New-Passw0rd-1"}),
        "change-package" => json!({"plan": "20k"}),
        "power" => json!({"action": "stop"}),
        _ => json!({}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_stands_in_the_document_and_every_documented_answer_is_given() {
    let mut desk = Desk::with(Engine::Sqlite, JOURNAL).await;
    desk.listen().await;
    desk.reconfigure(|settings| settings.replace("renew_price =", "login_url = \"https://login.example.com/\", renew_price ="));
    let mut seen = Seen::of(DOCUMENT);
    let operations = operations(&seen.document());
    let mut panel = Panel { desk: &desk, token: desk.token.clone(), seen: &mut seen };
    changes(&mut panel).await;
    let dead = lost(&mut panel).await;
    interventions(&mut panel, &dead).await;
    questions(&mut panel).await;
    narrow(&mut panel).await;
    events(&mut panel).await;
    malformed(&mut panel, &operations).await;
    too_slow(&mut panel, &operations).await;
    strangers(&mut panel, &operations).await;
    without_a_book(&mut panel, &operations).await;
    excuse(&mut seen, &operations);
    seen.judge();
}

/// What becomes of changes whose provider answers.
async fn changes(panel: &mut Panel<'_>) {
    let desk = panel.desk;
    panel.both("machine", "create", &body("create")).await;
    let due = desk.service("machine").await["due_at"].clone();
    for (operation, body) in [("suspend", json!({})), ("unsuspend", json!({})), ("renew", json!({"due_at": due}))] {
        panel.both("machine", operation, &body).await;
    }
    for operation in ["reset-password", "power"] {
        panel.both("machine", operation, &body(operation)).await;
    }
    desk.done("site", "create", &GP.order(&domain())).await;
    panel.both("site", "change-package", &body("change-package")).await;
    let taken = domain();
    desk.done("gone", "create", &GP.order(&taken)).await;
    desk.book.execute(
        "UPDATE managed_services SET is_live = 0, state = 'failed', domain = NULL, remote_id = NULL WHERE service_key = 'gone'",
    );
    panel.both("adopted", "adopt", &json!({"profile": "gp", "domain": taken})).await;
    panel.change(409, "other", "create", &GP.order(&taken)).await;
    panel.change(409, "other", "adopt", &json!({"profile": "gp", "domain": taken})).await;
    panel.change(422, "other", "create", &json!({"profile": "kernelhost", "plan": "no such plan!"})).await;
    panel.change(422, "other", "adopt", &json!({"profile": "nobody", "remote_id": "service/1"})).await;
    for operation in &CHANGES[2..] {
        let (key, profile) = if *operation == "change-package" { ("site", "kernelhost") } else { ("machine", "gp") };
        let mut body = body(operation);
        panel.change(404, "absent", operation, &body).await;
        body["profile"] = json!(profile);
        panel.change(422, key, operation, &body).await;
    }
    panel.provider_says(KEY_REFUSED);
    for operation in CHANGES.iter().filter(|operation| **operation != "change-package") {
        let key = if matches!(*operation, "create" | "adopt") { "refused" } else { "machine" };
        let mut body = body(operation);
        if *operation == "power" {
            body["action"] = json!("start");
        }
        // Other than before, under the key of before: there the first one counts.
        let path = format!("/v1/services/{key}/{operation}");
        let answer = desk.send("POST", &path, Some(&body), &[]).await;
        panel.seen.saw(operation, 502, &answer);
    }
    panel.provider_says(GP_KEY_REFUSED);
    let answer = desk.send("POST", "/v1/services/site/change-package", Some(&json!({"plan": "40k"})), &[]).await;
    panel.seen.saw("change-package", 502, &answer);
    desk.upstream.heal();
    panel.both("machine", "terminate", &json!({})).await;
    desk.done("site", "terminate", &json!({})).await;
    let ended = ["suspend", "unsuspend", "renew", "reset-password", "change-package"].map(|operation| ("site", operation));
    for (key, operation) in ended.into_iter().chain([("machine", "power")]) {
        let answer = desk.send("POST", &format!("/v1/services/{key}/{operation}"), Some(&body(operation)), &[]).await;
        panel.seen.saw(operation, 409, &answer);
    }
}

/// What becomes of changes whose answers are lost until nobody waits for them any more; the dead operations by their kinds.
async fn lost(panel: &mut Panel<'_>) -> Vec<(String, String)> {
    let desk = panel.desk;
    let lost: Vec<&str> = CHANGES.into_iter().filter(|operation| *operation != "adopt").collect();
    for operation in &lost {
        let order = if *operation == "change-package" { GP.order(&domain()) } else { KERNELHOST.order(&domain()) };
        if *operation != "create" {
            desk.done(&format!("lost-{operation}"), "create", &order).await;
        }
    }
    desk.done("lost-unsuspend", "suspend", &json!({})).await;
    let due = desk.service("lost-renew").await["due_at"].clone();
    for target in ["POST /cp/kh_reseller_api/", "/packageupdate/"] {
        desk.upstream.inject(target, Fault { reaches: false, answer: Wrong::Cut }, 1000);
    }
    let bodies = lost.iter().map(|operation| match *operation {
        "renew" => json!({"due_at": due}),
        "create" => json!({"profile": "kernelhost", "plan": "42"}),
        operation => body(operation),
    });
    let asked: Vec<(&str, Value)> = lost.iter().copied().zip(bodies).collect();
    for (operation, body) in &asked {
        panel.change_waiting(202, &format!("lost-{operation}"), operation, body, "wait=0").await;
    }
    let mut dead = Vec::new();
    for (operation, body) in &asked {
        let told = panel.change(504, &format!("lost-{operation}"), operation, body).await;
        dead.push(((*operation).to_owned(), text(&told, "operation").to_owned()));
    }
    panel.change(409, "lost-suspend", "terminate", &json!({})).await;
    desk.upstream.heal();
    dead
}

/// What a person does to operations.
async fn interventions(panel: &mut Panel<'_>, dead: &[(String, String)]) {
    let desk = panel.desk;
    let id = |kind: &str| dead.iter().find(|(known, _)| known == kind).unwrap().1.clone();
    panel.intervene(422, &id("create"), "resolve", Some(&json!({"outcome": "done", "note": "seen"}))).await;
    panel.intervene(200, &id("create"), "resolve", Some(&json!({"outcome": "failed", "note": "not there"}))).await;
    panel.intervene(409, &id("create"), "resolve", Some(&json!({"outcome": "failed", "note": "not there"}))).await;
    panel.intervene(409, &id("create"), "retry", None).await;
    panel.intervene(409, &id("create"), "cancel", None).await;
    panel.intervene(200, &id("suspend"), "retry", None).await;
    panel.intervene(400, &id("renew"), "resolve", Some(&json!({"outcome": "perhaps", "note": ""}))).await;
    for what in ["retry", "cancel", "resolve"] {
        let body = (what == "resolve").then(|| json!({"outcome": "done", "note": "seen"}));
        panel.intervene(404, "absent", what, body.as_ref()).await;
    }
    let key = desk.made(KERNELHOST).await;
    desk.upstream.inject(" /", Fault { reaches: true, answer: Wrong::Late(Duration::from_secs(2)) }, 1);
    panel.change_waiting(202, &key, "suspend", &json!({}), "wait=0").await;
    let behind = panel.change_waiting(202, &key, "power", &body("power"), "wait=0").await;
    panel.intervene(200, text(&behind["operation"], "id"), "cancel", None).await;
}

/// What is asked of the journal, and through it of a provider.
async fn questions(panel: &mut Panel<'_>) {
    let desk = panel.desk;
    let (machine, site) = (desk.made(KERNELHOST).await, desk.made(GP).await);
    let operation = panel.get("operations", 200, "/v1/operations?limit=2").await["operations"][0].clone();
    panel.get("operations", 400, "/v1/operations?state=odd").await;
    panel.get("operation", 200, &format!("/v1/operations/{}", text(&operation, "id"))).await;
    panel.get("operation", 404, "/v1/operations/absent").await;
    panel.get("services", 200, "/v1/services?limit=1").await;
    panel.get("services", 400, "/v1/services?limit=0").await;
    panel.get("catalog", 400, "/v1/profiles/kernelhost/catalog?refresh=maybe").await;
    panel.get("profiles", 200, "/v1/profiles").await;
    panel.get("describe", 200, "/v1/describe?panel=whmcs").await;
    panel.get("unowned", 200, "/v1/profiles/kernelhost/unowned").await;
    panel.get("unowned", 400, "/v1/profiles/kernelhost/unowned?limit=0").await;
    for (id, path) in [("healthz", "/healthz"), ("readyz", "/readyz"), ("metrics", "/metrics"), ("openapi", "/openapi.json")] {
        panel.get(id, 200, path).await;
    }
    let (profile, service) = ("/v1/profiles/kernelhost", format!("/v1/services/{machine}"));
    let of_provider = [
        ("check", format!("{profile}/check")),
        ("balance", format!("{profile}/balance")),
        ("catalog", format!("{profile}/catalog?refresh=true")),
        ("service", format!("{service}?fresh=true")),
        ("credentials", format!("{service}/credentials")),
        ("invoices", format!("{service}/invoices")),
    ];
    for (id, path) in &of_provider {
        panel.get(id, 200, path).await;
    }
    for (answer, status) in [(STATE_REFUSED, 409), (REFUSED, 422), (KEY_REFUSED, 502)] {
        panel.provider_says(answer);
        for (id, path) in &of_provider {
            panel.get(id, status, path).await;
        }
    }
    desk.upstream.heal();
    panel.get("profile", 200, profile).await;
    panel.get("signOn", 200, &format!("/v1/services/{site}/sign-on?target=client-dashboard")).await;
    panel.get("signOn", 400, &format!("/v1/services/{site}/sign-on")).await;
    panel.get("signOn", 422, &format!("{service}/sign-on?target=client-dashboard")).await;
    for (id, what) in
        [("service", ""), ("credentials", "/credentials"), ("signOn", "/sign-on?target=x"), ("invoices", "/invoices")]
    {
        panel.get(id, 400, &format!("/v1/services/a%20b{what}")).await;
        panel.get(id, 404, &format!("/v1/services/absent{what}")).await;
    }
    for (id, what) in OF_PROFILES {
        panel.get(id, 404, &format!("/v1/profiles/absent{what}")).await;
    }
}

/// What a token is answered that may use one profile.
async fn narrow(panel: &mut Panel<'_>) {
    let desk = panel.desk;
    let made = desk.run(&["panel", "create", "--name", "narrow", "--profile", "gp"]);
    let mut narrow = Panel { desk, token: text(&made, "token").to_owned(), seen: &mut *panel.seen };
    narrow.change(200, "narrow", "create", &GP.order(&domain())).await;
    for operation in CHANGES {
        let mut body = body(operation);
        body["profile"] = json!("kernelhost");
        let key = if matches!(operation, "create" | "adopt") { "other" } else { "narrow" };
        narrow.change(403, key, operation, &body).await;
    }
    for (id, what) in OF_PROFILES {
        narrow.get(id, 403, &format!("/v1/profiles/kernelhost{what}")).await;
    }
    desk.book.execute("UPDATE panels SET profiles = '[\"kernelhost\"]' WHERE name = 'narrow'");
    for (id, what) in [("credentials", "/credentials"), ("signOn", "/sign-on?target=client-dashboard"), ("invoices", "/invoices")]
    {
        narrow.get(id, 403, &format!("/v1/services/narrow{what}")).await;
    }
}

/// What a provider is answered that tells something.
async fn events(panel: &mut Panel<'_>) {
    let desk = panel.desk;
    let secret = std::fs::read(desk.book.directory().join("hook.secret")).unwrap();
    let event = || json!({"id": format!("evt_{}", unique()), "type": "order.paid", "data": {"object": {"id": 1}}}).to_string();
    let url = |profile: &str| format!("http://{}/v1/profiles/{profile}/events", desk.gateway().address());
    let told = async |profile: &str, secret: &[u8], body: String| {
        let signature = webhook::header(&[secret], jiff::Timestamp::now().as_second(), body.as_bytes());
        Http::default().send("POST", &url(profile), &[("KH-Webhook-Signature", &signature)], body).await
    };
    for (profile, secret, body, status) in [
        ("kernelhost", &secret[..], event(), 200),
        ("kernelhost", &b"another"[..], event(), 401),
        ("kernelhost", &secret[..], "no event".to_owned(), 502),
        ("gp", &secret[..], event(), 422),
        ("absent", &secret[..], event(), 404),
    ] {
        panel.seen.saw("events", status, &told(profile, secret, body).await);
    }
    desk.book.execute("ALTER TABLE provider_events RENAME TO provider_events_away");
    panel.seen.saw("events", 503, &told("kernelhost", &secret, event()).await);
    desk.book.execute("ALTER TABLE provider_events_away RENAME TO provider_events");
    let broken = "POST /v1/profiles/kernelhost/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n";
    panel.seen.saw("events", 400, &raw::exchange(desk.gateway().address(), broken.as_bytes()).await);
}

/// Bodies that are none of what is asked for.
async fn malformed(panel: &mut Panel<'_>, operations: &[Operation]) {
    let desk = panel.desk;
    let authorization = format!("Bearer {}", desk.token);
    for Operation { id, method, path, media, .. } in operations {
        let Some(media) = media else { continue };
        let url = format!("http://{}{path}", desk.gateway().address());
        let send = async |media: &str, body: Vec<u8>| {
            let headers = [("Authorization", authorization.as_str()), ("Content-Type", media)];
            Http::default().send(method, &url, &headers, body).await
        };
        panel.seen.saw(id, 413, &send(media, vec![b' '; 64 * 1024 + 1]).await);
        if media == "*/*" {
            continue;
        }
        panel.seen.saw(id, 415, &send("text/plain", b"x".to_vec()).await);
        let malformed = if media == "application/json" { "{" } else { "a=1&a=2" };
        panel.seen.saw(id, 400, &send(media, malformed.into()).await);
    }
}

/// Bodies that do not come.
async fn too_slow(panel: &mut Panel<'_>, operations: &[Operation]) {
    let (address, token) = (panel.desk.gateway().address(), panel.desk.token.clone());
    let waiting = operations.iter().filter(|operation| operation.media.is_some()).map(|Operation { id, path, media, .. }| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: {}\r\nContent-Length: 9\r\n\r\n",
            media.as_ref().unwrap()
        );
        let answer = tokio::spawn(async move { raw::exchange_late(address, head.as_bytes(), BEFORE_THE_TIMEOUT, b"").await.1 });
        (id, answer)
    });
    for (id, answer) in waiting.collect::<Vec<_>>() {
        panel.seen.saw(id, 408, &answer.await.unwrap());
    }
}

/// Whoever has no token, and asks too often.
async fn strangers(panel: &mut Panel<'_>, operations: &[Operation]) {
    let http = Http::default();
    let address = panel.desk.gateway().address();
    let send = async |operation: &Operation| {
        let url = format!("http://{address}{}", operation.path);
        http.send(&operation.method, &url, &[], "").await
    };
    for operation in operations.iter().filter(|operation| !operation.is_public) {
        panel.seen.saw(&operation.id, 401, &send(operation).await);
    }
    for operation in operations.iter().filter(|operation| !operation.is_public || operation.id == "events") {
        let mut answer = send(operation).await;
        for _ in 0..5_000 {
            if answer.status == 429 {
                break;
            }
            answer = send(operation).await;
        }
        panel.seen.saw(&operation.id, 429, &answer);
    }
}

/// A gateway whose book cannot be read.
async fn without_a_book(panel: &mut Panel<'_>, operations: &[Operation]) {
    let desk = panel.desk;
    desk.book.execute("ALTER TABLE panels RENAME TO panels_away; ALTER TABLE operations RENAME TO operations_away");
    for Operation { id, method, path, is_public, .. } in operations {
        if !is_public || matches!(id.as_str(), "readyz" | "metrics") {
            let answer = desk.send(method, path, None, &[]).await;
            panel.seen.saw(id, 503, &answer);
        }
    }
}

/// Why some of what is documented is not answered to this test.
fn excuse(seen: &mut Seen, operations: &[Operation]) {
    let document = seen.document();
    for Operation { id, path, method, .. } in operations {
        let documented = document["paths"].as_object().unwrap().values().find_map(|item| {
            let operation = &item[method.to_lowercase()];
            (operation["operationId"] == json!(id)).then(|| operation["responses"].as_object().unwrap().keys())
        });
        for status in documented.unwrap().map(|status| status.parse::<u16>().unwrap()) {
            let why = match (id.as_str(), status) {
                (_, 500) => "a defect of the host or of the component",
                ("service" | "adopt" | "retry" | "cancel" | "resolve" | "events", 504) => {
                    "the database loses the answer to a commit, which SQLite does not"
                }
                ("signOn", 409 | 502) => "only a component that asks its provider for the form",
                (_, 200 | 202 | 403 | 404 | 409 | 422 | 502 | 504)
                    if !path.starts_with("/v1/") && path.matches('/').count() > 1 =>
                {
                    "what is answered to /v1/ in another form: tests/it/gateway_adapters.rs"
                }
                _ => continue,
            };
            seen.excuse(id, status, why);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_with_a_panel_s_token() {
    let desk = Desk::open().await;
    let url = format!("http://{}/openapi.json", desk.gateway().address());
    let (configuration, token) = (openapi::in_folder("gateway.toml"), desk.token.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let options = ["--config-file", configuration.to_str().unwrap()];
        openapi::schemathesis(&url, &options, "gateway.py", &[("PANEL_TOKEN", &token)], (1, if is_long() { 300 } else { 60 }));
    });
    asked.await.unwrap();
    assert!(desk.book.number("SELECT COUNT(*) FROM operations") > 10, "it never got past the first door");
}
