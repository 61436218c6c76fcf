//! Secrets in every wrong place of a request: none of them is found in an answer, in the log at its most talkative, or in the
//! clear in a file of the book.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::fs::File;

use jiff::Timestamp;
use provisor_tests::binary::{key_for, reseller, serve_logging};
use provisor_tests::book::{Book, Engine};
use provisor_tests::http::{Answer, Http};
use provisor_tests::resellers::unique;
use secrecy::ExposeSecret;

const ORDER: &str = r#"{"product_id":42,"billing_cycle":"monthly"}"#;

/// How every secret here begins.
const MARK: &str = "Canary0";

/// A secret that nothing else looks like.
fn secret() -> String {
    format!("{MARK}{:0>33}", unique())
}

fn says(answer: &Answer) -> String {
    format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body))
}

fn assert_silent(name: &str, bytes: &[u8]) {
    let found = bytes.windows(MARK.len()).position(|window| window == MARK.as_bytes());
    assert_eq!(
        found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(80)..(at + 46).min(bytes.len())])),
        None,
        "in {name}"
    );
}

fn assert_nothing_in(book: &Book) {
    let mut searched = 0;
    for file in book.files() {
        assert_silent(&file.display().to_string(), &std::fs::read(&file).unwrap());
        searched += 1;
    }
    assert!(searched >= 3, "only {searched} files to search");
}

#[tokio::test]
async fn a_secret_in_the_wrong_place_stays_a_secret() {
    let (book, directory) = (Book::new(Engine::of_module(module_path!())), tempfile::tempdir().unwrap());
    let data = book.directory();
    let mut key = key_for(data, &reseller(data, "100.00"), "all");
    let log = directory.path().join("log");
    let server = serve_logging(data, "trace", File::create(&log).unwrap().into());
    key.base_url = server.base_url("kernelhost");
    let now = Timestamp::now().as_second();
    let http = Http::default();
    let url = format!("{}/v1/orders", key.base_url);

    // In each header that authenticates, in the place of what belongs there.
    for wrong in ["KH-Key", "KH-Timestamp", "KH-Nonce", "KH-Signature", "Authorization", "Cookie"] {
        let secret = secret();
        let signed = key.headers(now, "POST", "/v1/orders", ORDER.as_bytes());
        let mut headers: Vec<(&str, &str)> =
            signed.iter().map(|(name, value)| (*name, value.as_str())).filter(|(name, _)| *name != wrong).collect();
        headers.extend([(wrong, secret.as_str()), ("Content-Type", "application/json"), ("Idempotency-Key", "a b")]);
        let answer = http.send("POST", &url, &headers, ORDER).await;
        assert!((400..500).contains(&answer.status), "{wrong}");
        assert_silent(wrong, says(&answer).as_bytes());
    }
    // As a value of each type that a body's member may have.
    for member in
        ["product_id", "billing_cycle", "quantity", "config_options", "hostname", "note", "action", "due_at", "password"]
    {
        for value in [format!("\"{}\"", secret()), format!("[\"{}\"]", secret()), format!("{{\"a\":\"{}\"}}", secret())] {
            let body = format!("{{\"{member}\":{value}}}");
            for path in ["/v1/orders", "/v1/services/1/actions"] {
                let idempotency_key = format!("k{}", unique());
                let answer = key.send(now, "POST", path, &[("Idempotency-Key", &idempotency_key)], body.as_bytes()).await;
                assert!((400..500).contains(&answer.status), "{body}");
                assert_silent(&body, says(&answer).as_bytes());
            }
        }
    }
    // In a query, signed or not.
    for query in ["secret", "page=1&secret"] {
        let target = format!("/v1/services?{query}={}", secret());
        let answer = key.get(&target).await;
        assert_eq!(answer.status, 400);
        assert_silent(&target, says(&answer).as_bytes());
        assert_eq!(http.send("GET", &format!("{}{target}", key.base_url), &[], "").await.status, 401);
    }
    // A password where it belongs.
    let service = {
        let order = key.post("/v1/orders", "order", &serde_json::from_str(ORDER).unwrap()).await.json();
        loop {
            let order = key.get(&format!("/v1/orders/{}", order["id"])).await.json();
            if let Some(service) = order["service_id"].as_i64() {
                break service;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let password = secret();
    let path = format!("/v1/services/{service}");
    let body = serde_json::json!({"action": "reset_password", "password": password});
    let reset = key.post(&format!("{path}/actions"), "reset", &body).await;
    assert_eq!(reset.status, 202);
    assert_silent("the reset", says(&reset).as_bytes());
    assert_eq!(key.get(&format!("{path}/credentials")).await.json()["password"], password);
    server.kill();
    let log = std::fs::read(&log).unwrap();
    assert!(log.len() > 5_000, "the log says little: {}", log.len());
    assert_silent("the log", &log);
    let text = String::from_utf8_lossy(&log);
    assert!(!text.contains(key.secret.expose_secret()), "the key's secret is in the log");
    assert_nothing_in(&book);
}
