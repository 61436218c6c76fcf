//! Every refusal of KernelHost's answering end, over HTTP. Whatever a test sends, each answer carries a request id and no secret;
//! at the end the audit chain is whole and no file of the book holds a secret.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use hyper::header::HeaderName;
use jiff::{SignedDuration, Timestamp};
use provisor::audit::{Verdict, verify};
use provisor::clock::Clock;
use provisor::server::Options;
use provisor::store::StoredAuditRow;
use provisor_providers::books::AccountId;
use provisor_providers::server::{KeyLimits, LockMode};
use provisor_tests::book::Engine;
use provisor_tests::house::House;
use provisor_tests::http::{Answer, Http};
use provisor_tests::raw;
use provisor_tests::resellers::{ALL_SCOPES, GENEROUS, KernelHostKey, KeyTraits, unique};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// 2027-01-15 08:00 UTC.
const EPOCH: i64 = 1_800_000_000;
/// How every secret of these tests begins.
const MARK: &str = "MARKED";
/// Two networks, and what the server believes of them: it trusts a proxy on this machine.
const HERE: &str = "198.51.100.7";
const ELSEWHERE: &str = "203.0.113.7";
const ORDER: &str = r#"{"product_id":42,"billing_cycle":"monthly"}"#;
const NOTHING: &[u8] = b"";
const BODY_BYTES: usize = 64 * 1024;

fn engine() -> Engine {
    Engine::of_module(module_path!())
}

/// The headers of a request, in their order.
type Head = Vec<(String, String)>;

/// A house whose clock stands still, with a reseller of its own.
struct Gate {
    house: House,
    account: AccountId,
    key: KernelHostKey,
    http: Http,
}

impl Gate {
    async fn open() -> Self {
        Self::open_with(LockMode::Scoped, KeyTraits::default()).await
    }

    async fn open_with(mode: LockMode, traits: KeyTraits<'_>) -> Self {
        let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
        options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        options.rules.lock.mode = mode;
        Self::furnish(House::start_on(engine(), options).await, traits).await
    }

    async fn furnish(house: House, traits: KeyTraits<'_>) -> Self {
        house.clock.set(Timestamp::from_second(EPOCH).unwrap());
        let account = house.reseller("1000.00").await;
        let key = house.kernelhost_key(account, traits).await;
        Self { house, account, key, http: Http::default() }
    }

    fn now(&self) -> i64 {
        self.house.clock.now().as_second()
    }

    /// Moves the clock to so many seconds after the first moment.
    fn at(&self, second: i64) {
        self.house.clock.set(Timestamp::from_second(EPOCH + second).unwrap());
    }

    /// The headers of a request that will be admitted.
    fn sign(&self, method: &str, path: &str, body: &[u8]) -> Head {
        sign_by(&self.key, self.now(), method, path, body)
    }

    async fn send(&self, method: &str, path: &str, head: &Head, body: &[u8]) -> Answer {
        let head: Vec<(&str, &str)> = head.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        checked(self.http.send(method, &format!("{}{path}", self.key.base_url), &head, body.to_vec()).await, method)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &self.sign("GET", path, b""), b"").await
    }

    async fn post(&self, path: &str, idempotency_key: &str, body: &str) -> Answer {
        let extra = [("Idempotency-Key", idempotency_key), ("Content-Type", "application/json")];
        self.send("POST", path, &with(self.sign("POST", path, body.as_bytes()), &extra), body.as_bytes()).await
    }

    /// Sends bytes as they are.
    async fn raw(&self, request: &[u8]) -> Answer {
        checked(raw::exchange(self.house.address(), request).await, "raw")
    }

    /// The audit rows of the reseller, or of nobody.
    fn audit(&self, stream: i64) -> Vec<StoredAuditRow> {
        self.house.store.read(|books| books.audit_rows(stream, 0, 10_000)).unwrap()
    }

    /// What belongs to nobody and was not even admitted: status, reason, and what was asked.
    fn turned_away(&self) -> Vec<(u16, String, String)> {
        let rows = self.audit(0).into_iter().map(|stored| stored.row);
        rows.map(|row| (row.status, row.reason.unwrap_or_default(), format!("{} {}", row.method, row.path))).collect()
    }

    /// Stops the server, and looks for what it must not have left.
    async fn close(mut self) {
        self.house.stop().await;
        let Verdict::Whole { rows, .. } = self.house.store.read(verify).unwrap() else { panic!("the audit chain is broken") };
        assert!(rows > 0, "nothing was audited");
        let mut searched = 0;
        for file in self.house.book().files() {
            let bytes = std::fs::read(&file).unwrap();
            let found = bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes());
            assert!(!found, "{} holds a secret", file.display());
            // The book and its log, or a server's tables and log.
            let name = file.display().to_string();
            searched += usize::from(["/provisor.db", "/base/", "/pg_wal/"].iter().any(|part| name.contains(part)));
        }
        assert!(searched >= 2, "the book and its log were to be searched");
    }
}

/// What holds for every answer.
fn checked(answer: Answer, method: &str) -> Answer {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let request_id = answer.header("x-request-id").unwrap_or_else(|| panic!("{}: no request id: {body}", answer.status));
    assert!(request_id.len() == 26 && request_id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{request_id}");
    assert!(!format!("{:?}{body}", answer.headers).contains(MARK), "{}: a secret: {body}", answer.status);
    if answer.status >= 400 && method != "HEAD" {
        assert_eq!(answer.content_type(), Some("application/problem+json"), "{body}");
        let problem = answer.json();
        assert_eq!((&problem["status"], &problem["request_id"]), (&json!(answer.status), &json!(request_id)), "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    }
    answer
}

/// The headers of a request that will be admitted, by another key or at another moment.
fn sign_by(key: &KernelHostKey, now: i64, method: &str, path: &str, body: &[u8]) -> Head {
    let signed = key.headers(now, method, path, body).into_iter().map(|(name, value)| (name.to_owned(), value));
    signed.chain([("X-Forwarded-For".to_owned(), HERE.to_owned())]).collect()
}

fn with(mut head: Head, extra: &[(&str, &str)]) -> Head {
    head.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    head
}

fn without(mut head: Head, name: &str) -> Head {
    head.retain(|(header, _)| header != name);
    head
}

fn set(head: Head, name: &str, value: &str) -> Head {
    with(without(head, name), &[(name, value)])
}

fn reason(answer: &Answer) -> String {
    let problem = if answer.status >= 400 { answer.json() } else { Value::Null };
    problem["reason"].as_str().unwrap_or_default().to_owned()
}

/// Status, code and reason: what a caller's program goes by.
fn refusal(answer: &Answer) -> (u16, String, String) {
    let problem = answer.json();
    let code = problem["type"].as_str().and_then(|kind| kind.rsplit('/').next()).unwrap_or_default().to_owned();
    (answer.status, code, reason(answer))
}

fn told(status: u16, code: &str, reason: &str) -> (u16, String, String) {
    (status, code.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn each_line_of_the_guard_has_its_reason() {
    let gate = Gate::open().await;
    let far = gate
        .house
        .kernelhost_key(gate.account, KeyTraits { allowed: vec!["192.0.2.0/24".parse().unwrap()], ..KeyTraits::default() });
    let far = far.await;
    let good = || gate.sign("GET", "/v1/me", b"");
    let again = |name: &str| {
        let value = good().into_iter().find(|(header, _)| header == name).unwrap().1;
        with(good(), &[(name, value.as_str())])
    };
    let secret = gate.key.secret.expose_secret();
    let stranger = format!("kh_live_{}", "Z".repeat(32));
    let mut rows: Vec<(Head, &str)> = Vec::new();
    for name in ["KH-Key", "KH-Timestamp", "KH-Nonce", "KH-Signature"] {
        rows.extend([without(good(), name), set(good(), name, ""), again(name)].map(|head| (head, "missing_headers")));
    }
    rows.push((Head::new(), "missing_headers"));
    for (name, value, expected) in [
        ("KH-Key", "kh_live_short", "bad_key"),
        ("KH-Key", gate.key.id.replace("kh_live", "KH_LIVE").as_str(), "bad_key"),
        // A secret in the wrong place must not be written down.
        ("KH-Key", secret, "bad_key"),
        ("KH-Timestamp", "180000000", "bad_timestamp"),
        ("KH-Timestamp", "18000000000", "bad_timestamp"),
        ("KH-Timestamp", "+800000000", "bad_timestamp"),
        ("KH-Timestamp", "1799999699", "timestamp_out_of_window"),
        ("KH-Timestamp", "1800000301", "timestamp_out_of_window"),
        ("KH-Nonce", "n".repeat(21).as_str(), "bad_nonce"),
        ("KH-Nonce", "n".repeat(45).as_str(), "bad_nonce"),
        ("KH-Nonce", "00112233445566778899aabbccddee/+", "bad_nonce"),
        ("KH-Signature", "0".repeat(63).as_str(), "bad_signature"),
        ("KH-Signature", "g".repeat(64).as_str(), "bad_signature"),
        ("KH-Key", stranger.as_str(), "unknown_or_locked_key"),
        ("KH-Signature", "0".repeat(64).as_str(), "signature_mismatch"),
    ] {
        rows.push((set(good(), name, value), expected));
    }
    rows.push((sign_by(&far, EPOCH, "GET", "/v1/me", b""), "ip_not_allowed"));
    for (head, expected) in rows {
        let answer = gate.send("GET", "/v1/me", &head, b"").await;
        assert_eq!(refusal(&answer), told(401, "auth_failed", expected), "{head:?}");
    }
    let head = good();
    assert_eq!(gate.send("GET", "/v1/me", &head, b"").await.status, 200);
    assert_eq!(reason(&gate.send("GET", "/v1/me", &head, b"").await), "replay_detected");

    // Each has its audit row: in the reseller's stream where the key is known, in nobody's elsewhere.
    let rows = [gate.audit(0), gate.audit(gate.account.0)].concat();
    let mut noted: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.row.status == 401) {
        *noted.entry(row.row.reason.clone().unwrap_or_default()).or_default() += 1;
    }
    let expected = [
        ("bad_key", 3),
        ("bad_nonce", 3),
        ("bad_signature", 2),
        ("bad_timestamp", 3),
        ("ip_not_allowed", 1),
        ("missing_headers", 13),
        ("replay_detected", 1),
        ("signature_mismatch", 1),
        ("timestamp_out_of_window", 2),
        ("unknown_or_locked_key", 1),
    ];
    assert_eq!(noted, expected.map(|(reason, count)| (reason.to_owned(), count)).into());
    gate.close().await;
}

/// What is signed is what was sent: another method, path, query or body is another request.
#[tokio::test]
async fn a_signature_covers_method_path_query_and_body() {
    let gate = Gate::open().await;
    let body = ORDER.as_bytes();
    let changed = ORDER.replace("42", "43");
    for (number, (signed, sent)) in [
        (("GET", "/v1/me", NOTHING), ("HEAD", "/v1/me", NOTHING)),
        (("GET", "/v1/services", NOTHING), ("GET", "/v1/products", NOTHING)),
        (("GET", "/v1/services?page=1", NOTHING), ("GET", "/v1/services?page=2", NOTHING)),
        (("GET", "/v1/services?page=1", NOTHING), ("GET", "/v1/services", NOTHING)),
        (("GET", "/v1/services", NOTHING), ("GET", "/v1/services?", NOTHING)),
        (("GET", "/v1/services?page=1&per_page=2", NOTHING), ("GET", "/v1/services?per_page=2&page=1", NOTHING)),
        (("GET", "/cp/kh_reseller_api/v1/me", NOTHING), ("GET", "/v1/me", NOTHING)),
        (("POST", "/v1/orders", body), ("POST", "/v1/orders", changed.as_bytes())),
        (("POST", "/v1/orders", NOTHING), ("POST", "/v1/orders", body)),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("198.51.{number}.1");
        let head = set(gate.sign(signed.0, signed.1, signed.2), "X-Forwarded-For", &address);
        let head = with(head, &[("Idempotency-Key", "k"), ("Content-Type", "application/json")]);
        assert_eq!(gate.send(sent.0, sent.1, &head, sent.2).await.status, 401, "{number}");
        // One network's failures lock that network alone; many networks' failures, the key: so each row is forgotten.
        gate.at(1000 * (i64::try_from(number).unwrap() + 1));
    }
    let balance = gate.get("/v1/billing/balance").await;
    assert_eq!(balance.json()["balance"]["amount"], "1000.00");
    gate.close().await;
}

#[tokio::test]
async fn the_window_is_300_seconds_on_both_sides() {
    let gate = Gate::open().await;
    for (offset, expected) in [
        (-301, "timestamp_out_of_window"),
        (-300, ""),
        (-299, ""),
        (0, ""),
        (299, ""),
        (300, ""),
        (301, "timestamp_out_of_window"),
    ] {
        let head = sign_by(&gate.key, EPOCH + offset, "GET", "/v1/me", b"");
        let answer = gate.send("GET", "/v1/me", &head, b"").await;
        assert_eq!(reason(&answer), expected, "{offset}");
        assert_eq!(answer.status == 200, expected.is_empty(), "{offset}");
    }
    gate.close().await;
}

/// A request can never be sent again, and its nonce only once ten minutes have gone and its timestamp has left the window.
#[tokio::test]
async fn a_nonce_is_single_use_for_as_long_as_it_could_be_replayed() {
    for (ahead, later, again, reused) in [
        (0, 1, "replay_detected", "replay_detected"),
        (0, 300, "replay_detected", "replay_detected"),
        (0, 301, "timestamp_out_of_window", "replay_detected"),
        (0, 599, "timestamp_out_of_window", "replay_detected"),
        (0, 600, "timestamp_out_of_window", ""),
        (-300, 599, "timestamp_out_of_window", "replay_detected"),
        (300, 599, "replay_detected", "replay_detected"),
        (300, 600, "replay_detected", "replay_detected"),
        (300, 601, "timestamp_out_of_window", ""),
        (300, 602, "timestamp_out_of_window", ""),
    ] {
        let gate = Gate::open().await;
        let first = sign_by(&gate.key, EPOCH + ahead, "GET", "/v1/me", b"");
        assert_eq!(gate.send("GET", "/v1/me", &first, b"").await.status, 200);
        gate.at(later);
        let answer = gate.send("GET", "/v1/me", &first, b"").await;
        assert_eq!(reason(&answer), again, "the same request, {ahead} s ahead, after {later} s");

        let nonce = &first.iter().find(|(name, _)| name == "KH-Nonce").unwrap().1;
        let timestamp = gate.now().to_string();
        let text = provisor_providers::kernelhost::sign::signing_string("GET", "/v1/me", &timestamp, nonce, b"");
        let signature = provisor_providers::kernelhost::sign::sign(gate.key.secret.expose_secret().as_bytes(), &text);
        let second = set(set(first.clone(), "KH-Timestamp", &timestamp), "KH-Signature", &signature);
        let answer = gate.send("GET", "/v1/me", &second, b"").await;
        assert_eq!(reason(&answer), reused, "the same nonce, {ahead} s ahead, after {later} s");
        gate.close().await;
    }
}

/// Another key's nonces are its own, and a restart forgets none.
#[tokio::test]
async fn a_nonce_belongs_to_its_key_and_survives_a_restart() {
    let mut gate = Gate::open().await;
    let other = gate.house.kernelhost_key(gate.account, KeyTraits::default()).await;
    let head = gate.sign("GET", "/v1/me", b"");
    assert_eq!(gate.send("GET", "/v1/me", &head, b"").await.status, 200);
    let nonce = &head.iter().find(|(name, _)| name == "KH-Nonce").unwrap().1;
    let text = provisor_providers::kernelhost::sign::signing_string("GET", "/v1/me", &EPOCH.to_string(), nonce, b"");
    let signature = provisor_providers::kernelhost::sign::sign(other.secret.expose_secret().as_bytes(), &text);
    let others = set(set(head.clone(), "KH-Key", &other.id), "KH-Signature", &signature);
    assert_eq!(gate.send("GET", "/v1/me", &others, b"").await.status, 200);
    gate.house.restart().await;
    gate.key.base_url = gate.house.base_url("kernelhost");
    assert_eq!(reason(&gate.send("GET", "/v1/me", &head, b"").await), "replay_detected");
    gate.close().await;
}

impl Gate {
    /// A request that only a wrong secret explains.
    async fn fail_from(&self, address: &str) {
        let head = set(self.sign("GET", "/v1/me", b""), "KH-Signature", &"0".repeat(64));
        let answer = self.send("GET", "/v1/me", &set(head, "X-Forwarded-For", address), b"").await;
        assert_eq!(answer.status, 401);
    }

    /// Why a good request from an address is refused; nothing if it is not.
    async fn knock_from(&self, address: &str) -> String {
        let head = set(self.sign("GET", "/v1/me", b""), "X-Forwarded-For", address);
        reason(&self.send("GET", "/v1/me", &head, b"").await)
    }

    fn locks(&self) -> usize {
        self.audit(self.account.0).iter().filter(|row| row.row.event == "key.locked").count()
    }
}

const LOCKED: &str = "unknown_or_locked_key";

#[tokio::test]
async fn the_fifth_failure_in_ten_minutes_locks_for_a_quarter_of_an_hour() {
    for (mode, elsewhere) in [(LockMode::Scoped, ""), (LockMode::Faithful, LOCKED)] {
        for (fifth, locks) in [(599, true), (601, false)] {
            let gate = Gate::open_with(mode, KeyTraits::default()).await;
            gate.fail_from(HERE).await;
            gate.at(300);
            for _ in 0..3 {
                gate.fail_from(HERE).await;
            }
            assert_eq!(gate.knock_from(HERE).await, "", "four are not five");
            gate.at(fifth);
            gate.fail_from(HERE).await;
            assert_eq!(gate.knock_from(HERE).await, if locks { LOCKED } else { "" }, "{mode:?}, the fifth at {fifth} s");
            assert_eq!(gate.knock_from(ELSEWHERE).await, if locks { elsewhere } else { "" }, "{mode:?}, {fifth} s");
            assert_eq!(gate.locks(), usize::from(locks));
            if locks {
                for (later, expected) in [(14 * 60 + 59, LOCKED), (15 * 60 + 1, "")] {
                    gate.at(fifth + later);
                    assert_eq!(gate.knock_from(HERE).await, expected, "{mode:?}, {later} s after the lock");
                    assert_eq!(gate.knock_from(ELSEWHERE).await, if expected.is_empty() { "" } else { elsewhere }, "{mode:?}");
                }
            }
            gate.close().await;
        }
    }
}

#[tokio::test]
async fn strangers_in_three_networks_lock_a_key_only_while_its_owner_is_silent() {
    for (owner_was_there, expected) in [(true, ""), (false, LOCKED)] {
        let gate = Gate::open().await;
        if owner_was_there {
            assert_eq!(gate.knock_from("192.0.2.1").await, "");
        }
        for address in ["198.51.100.1", "203.0.113.1", "2001:db8::1", "198.51.100.2", "203.0.113.2"] {
            gate.fail_from(address).await;
        }
        assert_eq!(gate.knock_from("192.0.2.1").await, expected, "the owner was there: {owner_was_there}");
        gate.close().await;
    }
}

#[tokio::test]
async fn failures_from_outside_an_allow_list_lock_nobody_unless_faithful() {
    let allowed = || KeyTraits { allowed: vec!["198.51.100.0/24".parse().unwrap()], ..KeyTraits::default() };
    for (mode, failing, expected) in
        [(LockMode::Scoped, ELSEWHERE, ""), (LockMode::Scoped, "198.51.100.200", LOCKED), (LockMode::Faithful, ELSEWHERE, LOCKED)]
    {
        let gate = Gate::open_with(mode, allowed()).await;
        for _ in 0..5 {
            gate.fail_from(failing).await;
        }
        assert_eq!(gate.knock_from(HERE).await, expected, "{mode:?}, failures from {failing}");
        gate.close().await;
    }
}

/// Replays, clocks, forms, scopes and limits are an honest client's mistakes.
#[tokio::test]
async fn only_wrong_signatures_count_towards_the_lock() {
    let traits = KeyTraits { scopes: &["read:products"], limits: KeyLimits { burst: 20, ..GENEROUS }, ..KeyTraits::default() };
    let gate = Gate::open_with(LockMode::Faithful, traits).await;
    let replayed = gate.sign("GET", "/v1/me", b"");
    for _ in 0..7 {
        gate.send("GET", "/v1/me", &replayed, b"").await;
        gate.send("GET", "/v1/me", &sign_by(&gate.key, EPOCH - 400, "GET", "/v1/me", b""), b"").await;
        gate.send("GET", "/v1/me", &set(gate.sign("GET", "/v1/me", b""), "KH-Nonce", "short"), b"").await;
        gate.send("GET", "/v1/me", &set(gate.sign("GET", "/v1/me", b""), "KH-Signature", "short"), b"").await;
        assert_eq!(gate.get("/v1/services").await.status, 403);
    }
    while gate.get("/v1/me").await.status == 200 {}
    for _ in 0..7 {
        assert_eq!(gate.get("/v1/me").await.status, 429);
    }
    gate.at(60);
    assert_eq!((gate.knock_from(HERE).await.as_str(), gate.locks()), ("", 0));
    gate.close().await;
}

#[tokio::test]
async fn a_revoked_key_is_unknown_at_once() {
    let gate = Gate::open().await;
    assert_eq!(gate.get("/v1/me").await.status, 200);
    let (id, now) = (gate.key.id.clone(), gate.house.clock.now());
    assert!(gate.house.store.transact(move |books| books.revoke_key("kernelhost", &id, now)).await.unwrap());
    assert_eq!(reason(&gate.get("/v1/me").await), LOCKED);
    gate.close().await;
}

#[tokio::test]
async fn a_rotated_secret_counts_at_once_and_the_old_one_no_more() {
    let gate = Gate::open().await;
    assert_eq!(gate.get("/v1/me").await.status, 200);
    let secret = SecretString::from(format!("{MARK}rotated{:0>27}", unique()));
    let (id, new) = (gate.key.id.clone(), secret.clone());
    assert!(gate.house.store.transact(move |books| books.rotate_key("kernelhost", &id, &new)).await.unwrap());
    assert_eq!(reason(&gate.get("/v1/me").await), "signature_mismatch");
    let rotated = KernelHostKey { secret, ..gate.key.clone() };
    let head = sign_by(&rotated, EPOCH, "GET", "/v1/me", b"");
    assert_eq!(gate.send("GET", "/v1/me", &head, b"").await.status, 200);
    gate.close().await;
}

#[tokio::test]
async fn an_expired_key_is_unknown() {
    let gate = Gate::open().await;
    assert_eq!(gate.get("/v1/me").await.status, 200);
    let expires_at = (EPOCH + 10) * 1000;
    gate.house.book().execute(&format!("UPDATE api_keys SET expires_at = {expires_at}, version = version + 1"));
    for (second, expected) in [(9, ""), (10, LOCKED), (11, LOCKED)] {
        gate.at(second);
        assert_eq!(gate.knock_from(HERE).await, expected, "{second}");
    }
    gate.close().await;
}

#[tokio::test]
async fn each_scope_opens_its_own_endpoints_and_no_other() {
    let mut gate = Gate::open().await;
    for (method, path, scope) in [
        ("GET", "/v1/products", "read:products"),
        ("GET", "/v1/products/42", "read:products"),
        ("POST", "/v1/orders", "write:orders"),
        ("GET", "/v1/orders/1", "read:orders"),
        ("GET", "/v1/services", "read:services"),
        ("GET", "/v1/services/1", "read:services"),
        ("GET", "/v1/services/1/credentials", "read:credentials"),
        ("POST", "/v1/services/1/actions", "write:services"),
        ("GET", "/v1/billing/balance", "read:billing"),
        ("GET", "/v1/billing/invoices", "read:billing"),
        ("GET", "/v1/billing/invoices/1/pdf", "read:billing"),
        ("GET", "/v1/webhooks", "read:webhooks"),
        ("PUT", "/v1/webhooks", "write:webhooks"),
    ] {
        let others: Vec<&str> = ALL_SCOPES.iter().copied().filter(|&held| held != scope).collect();
        for (scopes, allowed) in [(&others[..], false), (&[scope][..], true)] {
            gate.key = gate.house.kernelhost_key(gate.account, KeyTraits { scopes, ..KeyTraits::default() }).await;
            let answer = match method {
                "POST" => gate.post(path, "k", ORDER).await,
                "PUT" => {
                    let head = with(gate.sign("PUT", path, b"{\"url\":null}"), &[("Content-Type", "application/json")]);
                    gate.send("PUT", path, &head, b"{\"url\":null}").await
                }
                _ => gate.get(path).await,
            };
            if allowed {
                assert_ne!(answer.status, 403, "{method} {path} with {scope}");
            } else {
                assert_eq!(refusal(&answer), told(403, "forbidden_scope", "missing_scope"), "{method} {path} without {scope}");
            }
            assert_eq!(gate.get("/v1/me").await.status, 200, "any key may ask who it is");
        }
    }
    gate.close().await;
}

/// A caller must not learn which ids other resellers have.
#[tokio::test]
async fn a_foreign_id_and_an_absent_one_are_told_apart_by_nothing() {
    let gate = Gate::open().await;
    let neighbour = gate.house.reseller("100.00").await;
    let neighbour = gate.house.kernelhost_key(neighbour, KeyTraits::default()).await;
    let head = sign_by(&neighbour, EPOCH, "POST", "/v1/orders", ORDER.as_bytes());
    let head = with(head, &[("Idempotency-Key", "k"), ("Content-Type", "application/json")]);
    let ordered = gate.send("POST", "/v1/orders", &head, ORDER.as_bytes()).await.json();
    let (order, invoice) = (ordered["id"].as_i64().unwrap(), ordered["invoice_id"].as_i64().unwrap());
    let service = loop {
        gate.house.clock.advance(SignedDuration::from_secs(1));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let path = format!("/v1/orders/{order}");
        let head = sign_by(&neighbour, gate.now(), "GET", &path, b"");
        if let Some(service) = gate.send("GET", &path, &head, b"").await.json()["service_id"].as_i64() {
            break service;
        }
    };
    let text = |answer: &Answer| {
        let mut problem = answer.json();
        problem["request_id"].take();
        // Of the moment, not of the resource.
        let own = ["x-request-id", "date", "x-ratelimit-remaining", "x-ratelimit-reset"];
        let value =
            |name: &HeaderName| if own.contains(&name.as_str()) { None } else { answer.header(name.as_str()).map(str::to_owned) };
        let headers: Vec<_> = answer.headers.keys().map(|name| (name.to_string(), value(name))).collect();
        (answer.status, problem, headers)
    };
    for (path, id) in [
        ("/v1/orders/ID", order),
        ("/v1/services/ID", service),
        ("/v1/services/ID/credentials", service),
        ("/v1/services/ID/actions", service),
        ("/v1/billing/invoices/ID/pdf", invoice),
    ] {
        let mut seen = Vec::new();
        for id in [id, 999_999_999] {
            let path = path.replace("ID", &id.to_string());
            let action = r#"{"action":"terminate"}"#;
            let is_action = path.ends_with("actions");
            let answer = if is_action { gate.post(&path, &format!("k{id}"), action).await } else { gate.get(&path).await };
            assert_eq!(refusal(&answer), told(404, "not_found", ""), "{path}");
            seen.push(text(&answer));
        }
        assert_eq!(seen[0], seen[1], "{path}");
        let rows = gate.audit(gate.account.0).into_iter().rev().take(2);
        let noted: Vec<_> =
            rows.map(|stored| (stored.row.status, stored.row.reason, stored.row.event, stored.row.detail)).collect();
        assert!(noted.len() == 2 && noted[0] == noted[1], "{path}: {noted:?}");
    }
    let path = format!("/v1/services/{service}");
    let head = sign_by(&neighbour, gate.now(), "GET", &path, b"");
    assert_eq!(gate.send("GET", &path, &head, b"").await.json()["status"], "active", "nobody else terminated it");
    gate.close().await;
}

#[tokio::test]
async fn paths_and_methods_are_told_only_to_those_who_signed() {
    let gate = Gate::open().await;
    for (method, path, status, allow) in [
        ("DELETE", "/v1/me", 405, Some("GET, HEAD, OPTIONS")),
        ("GET", "/v1/orders", 405, Some("POST, OPTIONS")),
        ("PUT", "/v1/services/1/actions", 405, Some("POST, OPTIONS")),
        ("POST", "/v1/health", 405, Some("GET, HEAD, OPTIONS")),
        ("GET", "/v1/secrets", 404, None),
        ("GET", "/", 404, None),
        ("GET", "/v1/products/042", 404, None),
        ("GET", "/v1/%6de", 404, None),
    ] {
        let unsigned = gate.send(method, path, &Head::new(), b"").await;
        assert_eq!((unsigned.status, unsigned.header("allow")), (401, None), "{method} {path}, unsigned");
        let signed = gate.send(method, path, &gate.sign(method, path, b""), b"").await;
        assert_eq!((signed.status, signed.header("allow")), (status, allow), "{method} {path}, signed");
    }
    for method in ["GET", "HEAD"] {
        let health = gate.send(method, "/v1/health", &Head::new(), b"").await;
        assert_eq!((health.status, health.body.is_empty()), (200, method == "HEAD"));
    }
    let head = gate.send("HEAD", "/v1/me", &gate.sign("HEAD", "/v1/me", b""), b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0), "HEAD is signed as HEAD");
    gate.close().await;
}

impl Gate {
    fn signed_order(&self, body: &[u8]) -> Head {
        let key = format!("order-{}", unique());
        with(self.sign("POST", "/v1/orders", body), &[("Idempotency-Key", &key), ("Content-Type", "application/json")])
    }
}

/// A request as bytes; `framing` tells how long its body is.
fn bytes(method: &str, target: &str, framing: &str, head: &Head, body: &[u8]) -> Vec<u8> {
    let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
    let mut lines = vec![format!("{method} {mount}{target} HTTP/1.1"), "Host: localhost".to_owned(), framing.to_owned()];
    lines.extend(head.iter().map(|(name, value)| format!("{name}: {value}")));
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for chunk in body.chunks(10_000) {
        message.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        message.extend([chunk, b"\r\n"].concat());
    }
    message.extend(b"0\r\n\r\n");
    message
}

#[tokio::test]
async fn a_body_of_64_kib_is_taken_and_one_byte_more_is_not() {
    let gate = Gate::open().await;
    for (length, status) in [(BODY_BYTES, 201), (BODY_BYTES + 1, 413)] {
        // Blanks after a document are JSON too.
        let body = [ORDER.as_bytes(), " ".repeat(length - ORDER.len()).as_bytes()].concat();
        let framing = format!("Content-Length: {length}");
        let sized = bytes("POST", "/v1/orders", &framing, &gate.signed_order(&body), &body);
        assert_eq!(gate.raw(&sized).await.status, status, "{length} with Content-Length");
        let framing = "Transfer-Encoding: chunked";
        let in_chunks = bytes("POST", "/v1/orders", framing, &gate.signed_order(&body), &chunked(&body));
        assert_eq!(gate.raw(&in_chunks).await.status, status, "{length} in chunks");
    }
    assert_eq!(gate.get("/v1/billing/balance").await.json()["balance"]["amount"], "980.20", "two orders");
    assert_eq!(gate.turned_away(), vec![(413, "body_too_large".to_owned(), "POST /v1/orders".to_owned()); 2]);
    gate.close().await;
}

/// The head alone decides: whoever cannot sign cannot make the server read either.
#[tokio::test]
async fn a_body_is_not_read_for_those_who_did_not_sign() {
    let gate = Gate::open().await;
    for framing in ["Content-Length: 10000000", "Transfer-Encoding: chunked"] {
        for head in [Head::new(), without(gate.signed_order(b""), "KH-Nonce"), set(gate.signed_order(b""), "KH-Key", "x")] {
            let announced = bytes("POST", "/v1/orders", framing, &head, b"");
            assert_eq!(gate.raw(&announced).await.status, 401, "{framing} {head:?}");
        }
    }
    gate.close().await;
}

/// Two readers of one such message could disagree on what it says.
#[tokio::test]
async fn ambiguous_messages_are_refused_or_end_their_connection() {
    let gate = Gate::open().await;
    // Of two lengths the chunks count (RFC 9112, 6.3), and whatever else a proxy took for a second request is never read.
    let body = ORDER.as_bytes();
    for framing in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"] {
        let both = bytes("POST", "/v1/orders", framing, &gate.signed_order(body), &chunked(body));
        let answer = gate.raw(&both).await;
        assert_eq!((answer.status, answer.header("connection")), (201, Some("close")), "{framing}");
    }
    assert_eq!(gate.get("/v1/billing/balance").await.json()["balance"]["amount"], "980.20");

    let path = "/v1/me?\u{fc}";
    let other = bytes("GET", path, "Content-Length: 0", &gate.sign("GET", path, b""), b"");
    assert_eq!(refusal(&gate.raw(&other).await), told(400, "validation_failed", "malformed_target"));

    let absolute = bytes("GET", "/v1/me", "Content-Length: 0", &gate.sign("GET", "/v1/me", b""), b"");
    let absolute = String::from_utf8(absolute).unwrap().replacen("GET ", "GET http://localhost", 1);
    assert_eq!(refusal(&gate.raw(absolute.as_bytes()).await), told(400, "validation_failed", ""));
    let chunk = bytes("POST", "/v1/orders?x=1", "Transfer-Encoding: chunked", &gate.signed_order(b""), b"no length\r\n");
    assert_eq!(refusal(&gate.raw(&chunk).await), told(400, "validation_failed", ""));
    let malformed = |request: &str| (400, "malformed".to_owned(), request.to_owned());
    let found: Vec<_> = gate.turned_away().into_iter().filter(|(_, reason, _)| reason == "malformed").collect();
    assert_eq!(found, [malformed("GET /v1/me"), malformed("POST /v1/orders")]);
    gate.close().await;
}

/// Head and body have ten seconds each.
#[tokio::test]
async fn whoever_is_slow_is_not_waited_for() {
    let gate = Gate::open().await;
    let announced = bytes("POST", "/v1/orders", "Content-Length: 43", &gate.signed_order(b""), b"");
    let (head, body) = tokio::join!(
        raw::until_closed(gate.house.address(), &announced[..announced.len() - 4]),
        raw::until_closed(gate.house.address(), &announced)
    );
    // Nobody knows whose request the first would have been.
    assert!(head.bytes.is_empty(), "{:?}", String::from_utf8_lossy(&head.bytes));
    assert!(body.bytes.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&body.bytes));
    for took in [head.took, body.took] {
        assert!((9..30).contains(&took.as_secs()), "{took:?}");
    }
    assert_eq!(gate.turned_away(), [(408, "body_timeout".to_owned(), "POST /v1/orders".to_owned())]);
    gate.close().await;
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_refused() {
    let gate = Gate::open().await;
    for (content_type, status) in [
        (None, 415),
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (Some("application/jsonx"), 415),
        (Some("application/json; charset=utf-8"), 201),
        (Some("Application/JSON"), 201),
    ] {
        let mut head = without(gate.signed_order(ORDER.as_bytes()), "Content-Type");
        if let Some(content_type) = content_type {
            head = with(head, &[("Content-Type", content_type)]);
        }
        let answer = gate.send("POST", "/v1/orders", &head, ORDER.as_bytes()).await;
        assert_eq!(answer.status, status, "{content_type:?}");
    }
    let twice = with(gate.signed_order(ORDER.as_bytes()), &[("Content-Type", "application/json")]);
    assert_eq!(gate.send("POST", "/v1/orders", &twice, ORDER.as_bytes()).await.status, 415);
    gate.close().await;
}

#[tokio::test]
async fn invalid_orders_name_the_field_and_repeat_no_value() {
    let gate = Gate::open().await;
    for (body, field) in [
        ("", "body"),
        ("{", "body"),
        ("[]", "body"),
        (r#"{"billing_cycle":"monthly"}"#, "product_id"),
        (r#"{"product_id":42}"#, "billing_cycle"),
        (r#"{"product_id":"MARKED42","billing_cycle":"monthly"}"#, "body"),
        (r#"{"product_id":42,"billing_cycle":"MARKEDly"}"#, "billing_cycle"),
        (r#"{"product_id":99999,"billing_cycle":"monthly"}"#, "product_id"),
        (r#"{"product_id":42,"billing_cycle":"monthly","colour":"MARKEDred"}"#, "colour"),
        (r#"{"product_id":42,"product_id":43,"billing_cycle":"monthly"}"#, "product_id"),
        (r#"{"product_id":42,"billing_cycle":"monthly","quantity":0}"#, "quantity"),
        (r#"{"product_id":42,"billing_cycle":"monthly","config_options":{"image":"MARKEDos"}}"#, "config_options.image"),
    ] {
        let answer = gate.post("/v1/orders", &format!("order-{}", unique()), body).await;
        assert_eq!(refusal(&answer), told(400, "validation_failed", ""), "{body}");
        let fields: Vec<Value> = answer.json()["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
        assert_eq!(fields, [field], "{body}");
    }
    for query in ["page=0", "page=x", "per_page=101", "per_page=0", "sort=id", "page=1&page=2"] {
        assert_eq!(gate.get(&format!("/v1/services?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(gate.get("/v1/billing/balance").await.json()["balance"]["amount"], "1000.00");
    gate.close().await;
}

#[tokio::test]
async fn an_order_needs_exactly_one_idempotency_key_of_the_right_form() {
    let gate = Gate::open().await;
    let without_key = || without(gate.signed_order(ORDER.as_bytes()), "Idempotency-Key");
    let long = "k".repeat(81);
    for (keys, code) in [
        (&[][..], "required"),
        (&[""], "malformed"),
        (&["a b"], "malformed"),
        (&["a/b"], "malformed"),
        (&[long.as_str()], "malformed"),
        (&["one", "one"], "malformed"),
        (&["one", "two"], "malformed"),
    ] {
        let keys: Vec<(&str, &str)> = keys.iter().map(|key| ("Idempotency-Key", *key)).collect();
        let answer = gate.send("POST", "/v1/orders", &with(without_key(), &keys), ORDER.as_bytes()).await;
        assert_eq!(answer.status, 400, "{keys:?}");
        let error = &answer.json()["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&json!("Idempotency-Key"), &json!(code)), "{keys:?}");
    }
    let longest = format!("aZ09_.-{}", "k".repeat(73));
    assert_eq!(gate.post("/v1/orders", &longest, ORDER).await.status, 201, "80 characters");
    gate.close().await;
}

#[tokio::test]
async fn a_key_used_with_another_body_is_a_conflict() {
    let gate = Gate::open().await;
    let first = gate.post("/v1/orders", "k", ORDER).await;
    assert_eq!(first.status, 201);
    let spaced = ORDER.replace(':', ": ");
    for other in [ORDER.replace("42", "43"), spaced] {
        let answer = gate.post("/v1/orders", "k", &other).await;
        assert_eq!(refusal(&answer), told(409, "idempotency_conflict", "body_mismatch"), "{other}");
    }
    let again = gate.post("/v1/orders", "k", ORDER).await;
    assert_eq!((again.status, &again.body, again.header("idempotent-replayed")), (201, &first.body, Some("true")));
    // The key is this endpoint's alone.
    assert_eq!(gate.post("/v1/services/1/actions", "k", r#"{"action":"stop"}"#).await.status, 404);
    assert_eq!(gate.get("/v1/billing/balance").await.json()["balance"]["amount"], "990.10");
    gate.close().await;
}

#[tokio::test]
async fn a_key_has_twenty_at_once_and_one_a_second() {
    let traits = KeyTraits { limits: KeyLimits::default(), ..KeyTraits::default() };
    let gate = Gate::open_with(LockMode::Scoped, traits).await;
    for left in (0..20).rev() {
        let answer = gate.get("/v1/me").await;
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (200, Some(left.to_string().as_str())));
        let full_at = (EPOCH + 20 - left).to_string();
        assert_eq!(answer.header("x-ratelimit-reset"), Some(full_at.as_str()));
    }
    let answer = gate.get("/v1/me").await;
    assert_eq!(refusal(&answer), told(429, "rate_limited", ""));
    let state = ["retry-after", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| answer.header(name).unwrap().to_owned());
    assert_eq!(state, ["1".to_owned(), "0".to_owned(), (EPOCH + 20).to_string()]);
    gate.at(1);
    assert_eq!((gate.get("/v1/me").await.status, gate.get("/v1/me").await.status), (200, 429));
    gate.close().await;
}

#[tokio::test]
async fn a_days_quota_comes_back_at_midnight_utc() {
    let traits = KeyTraits { limits: KeyLimits { per_day: 3, ..GENEROUS }, ..KeyTraits::default() };
    let gate = Gate::open_with(LockMode::Scoped, traits).await;
    for _ in 0..3 {
        assert_eq!(gate.get("/v1/me").await.status, 200);
    }
    let answer = gate.get("/v1/me").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("57600")), "16 hours until midnight");
    gate.at(57_599);
    assert_eq!(gate.get("/v1/me").await.status, 429);
    gate.at(57_600);
    assert_eq!(gate.get("/v1/me").await.status, 200);
    gate.close().await;
}

#[tokio::test]
async fn an_address_has_its_own_limit_before_anything_else() {
    let options = Options { per_ip_per_minute: 5, trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..Options::default() };
    let mut gate = Gate::furnish(House::start_on(engine(), options).await, KeyTraits::default()).await;
    for _ in 0..5 {
        assert_eq!(gate.send("GET", "/v1/health", &with(Head::new(), &[("X-Forwarded-For", HERE)]), b"").await.status, 200);
    }
    for head in [gate.sign("GET", "/v1/me", b""), with(Head::new(), &[("X-Forwarded-For", HERE)])] {
        let answer = gate.send("GET", "/v1/me", &head, b"").await;
        assert_eq!(refusal(&answer), told(429, "rate_limited", ""));
        let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=12).contains(&retry_after), "{retry_after}");
        assert_eq!(answer.header("x-ratelimit-remaining"), None, "that is the key's");
    }
    assert_eq!(gate.knock_from(ELSEWHERE).await, "", "a neighbour is unharmed");
    gate.house.stop().await;
    let rows = gate.audit(0);
    let summary: Vec<_> = rows.iter().filter(|row| row.row.event == "requests.refused").collect();
    assert_eq!(summary.len(), 1, "one row per address and minute");
    let peer: IpAddr = HERE.parse().unwrap();
    assert_eq!((summary[0].row.peer, summary[0].row.detail.as_deref()), (peer, Some("2 requests")));
    gate.close().await;
}
