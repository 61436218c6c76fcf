//! The operator's commands about firewall packages, beside a server that runs on the same book.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use provisor_providers::gp::password;
use provisor_tests::binary::{provisor, reseller, run, serve};
use provisor_tests::daemon::Daemon;
use provisor_tests::hooks::until;
use provisor_tests::http::Http;
use provisor_tests::resellers::GpKey;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

fn key(data: &Path, server: &Daemon, ip: &str) -> GpKey {
    let made = run(data, &["key", "create", "--reseller", "1", "--provider", "gp", "--ip", ip]);
    assert_eq!(run(data, &["key", "show", made["id"].as_str().unwrap()])["ip"], json!([ip]));
    let secret = made["api_key"].as_str().unwrap();
    assert!(secret.len() == 40 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    GpKey { secret: secret.into(), base_url: server.base_url("gp"), http: Http::default() }
}

/// Exit code and error of a command that fails.
fn refused(data: &Path, arguments: &[&str]) -> (i32, String) {
    let output = provisor(data).args(arguments).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    (output.status.code().unwrap(), error["error"].to_string())
}

/// A second that no request of this test had.
fn second() -> i64 {
    use std::sync::atomic::{AtomicI64, Ordering};
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    Timestamp::now().as_second() + AHEAD.fetch_add(1, Ordering::Relaxed)
}

async fn register(key: &GpKey, domain: &str, package: &str) -> String {
    let mut iv = [0; 16];
    getrandom::fill(&mut iv).unwrap();
    let sealed = password::seal(key.secret.expose_secret(), "S3cure!pass", iv).unwrap();
    let more = [("package", package), ("password", sealed.as_str()), ("uemail", "a@example.com")];
    key.ask(second(), "autoregister", domain, &more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_packages_and_sets_prices_beside_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    reseller(data, "100.00");
    let server = serve(data);
    let here = key(data, &server, "127.0.0.1");
    let elsewhere = key(data, &server, "203.0.113.7");
    assert_eq!(here.ask(second(), "connection", "example.com", &[]).await, "ok");
    assert_eq!(elsewhere.ask(second(), "connection", "example.com", &[]).await, "Connection failed");

    let set = run(data, &["package", "price", "10K", "EUR", "5.90"]);
    assert_eq!(set, json!({"package": "10k", "currency": "EUR", "price": "5.90"}));
    assert_eq!(register(&here, "Shop.Example.com", "10k").await, "ok");
    assert_eq!(here.ask(second(), "getcredit", "example.com", &[]).await, "OK - 94.10");
    let listed = run(data, &["package", "list", "--reseller", "1"]);
    let told =
        |row: &Value| ["domain", "package", "state", "price", "currency"].map(|name| row[name].as_str().unwrap().to_owned());
    assert_eq!(told(&listed), ["shop.example.com", "10k", "active", "5.90", "EUR"]);
    assert_eq!(run(data, &["package", "show", "SHOP.example.com"]), listed);
    assert!(!listed.to_string().contains("argon2id") && listed.get("token").is_none());
    assert_eq!(run(data, &["package", "list", "--reseller", "2"]), Value::Null);
    let (code, error) = refused(data, &["package", "price", "10k", "EUR", "--remove"]);
    assert!(code == 1 && error.contains("nobody could renew it"), "{code} {error}");
    assert_eq!(run(data, &["package", "price", "20k", "EUR", "--remove"])["price"], Value::Null);
    assert_eq!(register(&here, "second.example.com", "20k").await, "Invalid package name");

    for (arguments, expected) in [
        (&["package", "show", "nobody.example.com"][..], "no reseller has or had"),
        (&["package", "price", "5k", "EUR", "1.00"], "Free, 10k, 20k"),
        (&["package", "price", "free", "EUR", "1.00"], "costs nothing"),
        (&["package", "price", "10k", "euro", "1.00"], "not a currency"),
        (&["package", "price", "10k", "EUR", "--", "-1.00"], "less than nothing"),
        (&["package", "price", "10k", "EUR"], "required"),
        (&["package", "price", "10k", "EUR", "1,00"], "invalid value"),
    ] {
        let (code, error) = refused(data, arguments);
        assert!(code == 2 && error.contains(expected), "{arguments:?}: {code} {error}");
    }
    server.stop();
}

#[test]
fn a_catalogue_that_would_strand_a_package_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    reseller(data, "1.00");
    let book = rusqlite::Connection::open(data.join("provisor.db")).unwrap();
    let licensed = "INSERT INTO licenses (account_id, domain, package, token, state, email, password_hash, due_at, created_at)
                    VALUES (1, 'a.example', '20k', '', 'active', '', '', 1, 1)";
    book.execute_batch(licensed).unwrap();
    let file = data.join("catalogue.toml");
    let import = |packages: &str| {
        std::fs::write(&file, packages).unwrap();
        provisor(data).args(["product", "import"]).arg(&file).output().unwrap()
    };
    let package = |name: &str, price: &str| format!("[[package]]\nname = \"{name}\"\nprices = {{ EUR = \"{price}\" }}\n");
    for (packages, code, expected) in [
        (package("Free", "0") + &package("10k", "1.00"), 1, "resellers have the package 20k"),
        ("[[package]]\nname = \"20k\"\nprices = { USD = \"1.00\" }\n".to_owned(), 1, "pay in EUR"),
        (package("20k", "1.00") + &package("20K", "2.00"), 2, "occur once"),
        (package("20k", "1.00") + &package("Free", "1.00"), 2, "costs nothing"),
    ] {
        let output = import(&packages);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && error.contains(expected), "{packages}: {error}");
    }
    assert!(import(&(package("Free", "0.00") + &package("20k", "7.00"))).status.success());
    let priced = run(data, &["package", "prices"]);
    assert_eq!(priced, json!({"package": "20k", "currency": "EUR", "price": "7.00"}), "the last line");
    assert_eq!(run(data, &["package", "list"])["price"], "7.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_suspends_what_is_not_paid_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    reseller(data, "100.00");
    let server = serve(data);
    let here = key(data, &server, "127.0.0.1");
    assert_eq!(register(&here, "shop.example.com", "10k").await, "ok");
    let overdue = "UPDATE licenses SET due_at = due_at - 86400000 * 40, look_at = due_at - 86400000 * 40";
    rusqlite::Connection::open(data.join("provisor.db")).unwrap().execute_batch(overdue).unwrap();
    let state = || run(data, &["package", "list"]);
    until(|| state()["state"] == "suspended", || format!("a suspension, there is {}", state())).await;
    assert!(state()["unpaid_since"].is_string());
    let mail = run(data, &["mail", "list"]);
    assert_eq!(mail["subject"], "The firewall of shop.example.com is suspended");
    assert_eq!(here.ask(second(), "active", "shop.example.com", &[]).await, "Package is unpaid. Please renew it to continue.");
    assert_eq!(here.ask(second(), "renew", "shop.example.com", &[]).await, "ok");
    assert_eq!(here.ask(second(), "list", "shop.example.com", &[]).await, "active");
    assert_eq!(here.ask(second(), "getcredit", "example.com", &[]).await, "OK - 90.20");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((state()["state"].as_str(), state()["unpaid_since"].is_null()), (Some("active"), true));
    server.stop();
}
