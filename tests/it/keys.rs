//! Keys as the operator changes them while servers run, and what their owners are told.

use jiff::{SignedDuration, Timestamp};
use provisor::clock::Clock;
use provisor_tests::binary::{key, provisor, reseller, run, serve};
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::Daemon;
use provisor_tests::house::House;
use provisor_tests::http::Answer;
use provisor_tests::resellers::{KernelHostKey, KeyTraits};
use serde_json::{Value, json};

const LOCKED: &str = "unknown_or_locked_key";

fn reason(answer: &Answer) -> String {
    if answer.status < 400 { String::new() } else { answer.json()["reason"].as_str().unwrap_or("none").to_owned() }
}

/// A request that only a wrong secret explains.
async fn fail(key: &KernelHostKey, now: Timestamp) -> String {
    let wrong = KernelHostKey { secret: "wrong".into(), ..key.clone() };
    reason(&wrong.send(now.as_second(), "GET", "/v1/me", &[], b"").await)
}

fn engine() -> Engine {
    Engine::of_module(module_path!())
}

#[tokio::test]
async fn every_change_counts_at_once_in_servers_that_run() {
    let book = Book::new(engine());
    let data = book.directory();
    let key = key(data, &reseller(data, "10.00"));
    let id = key.id.as_str();
    let servers = [serve(data), serve(data)];
    let here = servers.each_ref().map(|server| key.at(server));
    let ask = async || [reason(&here[0].get("/v1/me").await), reason(&here[1].get("/v1/me").await)];
    let both = |reason: &str| [reason.to_owned(), reason.to_owned()];
    assert_eq!(ask().await, both(""));

    run(data, &["key", "set", id, "--ip", "::ffff:198.51.100.0/120", "--ip", "2001:db8::/48"]);
    assert_eq!(run(data, &["key", "show", id])["ip"], json!(["198.51.100.0/24", "2001:db8::/48"]));
    assert_eq!(ask().await, both("ip_not_allowed"));
    run(data, &["key", "set", id, "--ip", "::ffff:127.0.0.1"]);
    assert_eq!(ask().await, both(""));
    run(data, &["key", "set", id, "--anywhere"]);
    assert_eq!(ask().await, both(""));

    run(data, &["key", "set", id, "--scopes", "read:billing"]);
    assert_eq!(here[1].get("/v1/billing/balance").await.status, 200);
    assert_eq!(reason(&here[0].get("/v1/services").await), "missing_scope");

    run(data, &["key", "set", id, "--expires", "2020-02-29"]);
    assert_eq!(ask().await, both(LOCKED));
    let shown = run(data, &["key", "set", id, "--never-expires", "--per-minute", "1", "--burst", "1", "--per-day", "70"]);
    assert_eq!(
        (&shown["per_minute"], &shown["burst"], &shown["per_day"], &shown["expires_at"]),
        (&json!(1), &json!(1), &json!(70), &Value::Null)
    );
    assert_eq!(reason(&here[0].get("/v1/me").await), "");
    let limited = here[1].get("/v1/me").await;
    assert_eq!(
        (limited.status, limited.header("x-ratelimit-remaining")),
        (429, Some("0")),
        "the bucket is one, of all processes"
    );
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    run(data, &["key", "set", id, "--per-minute", "100000", "--burst", "1000", "--per-day", "100000"]);

    let new = run(data, &["key", "rotate", id])["secret"].as_str().unwrap().to_owned();
    assert_eq!(ask().await, both("signature_mismatch"));
    let renewed = KernelHostKey { secret: new.into(), ..here[1].clone() };
    assert_eq!(renewed.get("/v1/me").await.status, 200);
    run(data, &["key", "revoke", id]);
    assert_eq!(reason(&renewed.get("/v1/me").await), LOCKED);
    assert_eq!(provisor(data).args(["key", "unlock", id]).output().unwrap().status.code(), Some(2), "it is revoked");
    for event in ["key.created", "key.changed", "key.rotated", "key.revoked"] {
        assert!(book.number(&format!("SELECT COUNT(*) FROM audit WHERE event = '{event}'")) > 0, "{event}");
    }
    servers.into_iter().for_each(Daemon::stop);
}

#[tokio::test]
async fn two_servers_count_failures_together_and_an_unlock_frees_both() {
    let book = Book::new(engine());
    let data = book.directory();
    let key = key(data, &reseller(data, "10.00"));
    let servers = [serve(data), serve(data)];
    let here = servers.each_ref().map(|server| key.at(server));
    for at in [0, 1, 0, 1] {
        assert_eq!(fail(&here[at], Timestamp::now()).await, "signature_mismatch");
    }
    assert_eq!(here[1].get("/v1/me").await.status, 200, "four are not five");
    assert_eq!(fail(&here[0], Timestamp::now()).await, "signature_mismatch");
    for here in &here {
        assert_eq!(reason(&here.get("/v1/me").await), LOCKED);
    }
    assert_eq!(book.number("SELECT COUNT(*) FROM audit WHERE event = 'key.locked'"), 1);
    assert_eq!(book.number("SELECT COUNT(*) FROM mails WHERE kind = 'key.locked'"), 1);
    assert_eq!(run(data, &["key", "show", &key.id])["locks"][0]["network"], "127.0.0.0/24");
    assert_eq!(run(data, &["key", "unlock", &key.id])["locks"], 1);
    for here in &here {
        assert_eq!(here.get("/v1/me").await.status, 200);
    }
    assert_eq!(fail(&here[1], Timestamp::now()).await, "signature_mismatch");
    assert_eq!(here[0].get("/v1/me").await.status, 200, "the failures were forgotten too");
    servers.into_iter().for_each(Daemon::stop);
}

fn mails(house: &House, kind: &str) -> Vec<(String, String)> {
    let one = |column: &str, number: i64| {
        house.book().text(&format!("SELECT {column} FROM mails WHERE kind = '{kind}' ORDER BY id LIMIT 1 OFFSET {number}"))
    };
    let count = house.book().number(&format!("SELECT COUNT(*) FROM mails WHERE kind = '{kind}'"));
    (0..count).map(|number| (one("subject", number), one("body", number))).collect()
}

#[tokio::test]
async fn an_owner_gets_a_mail_for_each_lock_and_at_most_four_in_a_day() {
    let house = House::start_in(engine()).await;
    let begin: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
    house.clock.set(begin);
    let account = house.reseller("10.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    for (minutes, sent) in [(0, 1), (16, 2), (32, 3), (48, 4), (64, 4), (24 * 60 - 1, 4), (24 * 60 + 15, 5), (24 * 60 + 31, 6)] {
        house.clock.set(begin + SignedDuration::from_mins(minutes));
        for _ in 0..6 {
            fail(&key, house.clock.now()).await;
        }
        assert_eq!(mails(&house, "key.locked").len(), sent, "after {minutes} minutes");
    }
    let (subject, body) = &mails(&house, "key.locked")[0];
    assert_eq!(subject, "Your API key is locked until 2027-01-15 08:15:00 UTC");
    assert!(body.contains(&key.id) && body.contains("127.0.0.0/24") && !body.contains("MARKED"), "{body}");
}

#[tokio::test]
async fn whoever_wants_it_is_told_each_time_credentials_are_read() {
    let house = House::start_in(engine()).await;
    let account = house.reseller("100.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    let order = json!({"product_id": 42, "billing_cycle": "monthly"});
    assert_eq!(key.post("/v1/orders", "one", &order).await.status, 201);
    let service = loop {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if let Some(service) = key.get("/v1/services").await.json()["data"][0]["id"].as_i64() {
            break service;
        }
    };
    let path = format!("/v1/services/{service}/credentials");
    for (wanted, sent) in [(None, 0), (Some(Timestamp::now()), 1), (None, 1)] {
        assert!(house.store.transact(move |books| books.notify_credentials(account, wanted)).await.unwrap());
        let answer = key.get(&path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(key.get("/v1/services/999999/credentials").await.status, 404, "of which nobody is told");
        let found = mails(&house, "credentials.read");
        assert_eq!(found.len(), sent);
        if wanted.is_some() {
            let (subject, body) = &found[0];
            let request_id = answer.header("x-request-id").unwrap();
            assert!(subject.contains(&service.to_string()) && body.contains("127.0.0.1") && body.contains(request_id), "{body}");
            assert!(!body.contains(answer.json()["password"].as_str().unwrap()), "{body}");
        }
    }
    let noted = house.book().number("SELECT COUNT(*) FROM audit WHERE event = 'credentials.read'");
    assert_eq!(noted, 3, "the audit log has them all");
}

#[tokio::test]
async fn a_sandbox_has_keys_of_its_own_kind() {
    let book = Book::new(engine());
    let data = book.directory();
    assert_eq!(run(data, &["store", "sandbox"]), json!({"sandbox": true}));
    assert_eq!(run(data, &["store", "sandbox"]), json!({"sandbox": true}), "saying it twice is nothing new");
    let doctor = provisor(data).arg("doctor").output().unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("a sandbox: its keys are for trying out"), "{doctor:?}");
    let test = key(data, &reseller(data, "10.00"));
    assert!(test.id.len() == 40 && test.id.starts_with("kh_test_"), "{}", test.id);
    assert_eq!(run(data, &["store", "sandbox"]), json!({"sandbox": true}), "also once it has a reseller");
    let server = serve(data);
    assert_eq!(test.at(&server).get("/v1/me").await.json()["key"]["id"], test.id);
    let renewed = KernelHostKey { secret: run(data, &["key", "rotate", &test.id])["secret"].as_str().unwrap().into(), ..test };
    assert_eq!(renewed.at(&server).get("/v1/me").await.status, 200);
    server.stop();

    let real = Book::new(engine());
    let key = key(real.directory(), &reseller(real.directory(), "10.00"));
    assert!(key.id.starts_with("kh_live_"), "{}", key.id);
    let refused = provisor(real.directory()).args(["store", "sandbox"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has resellers already"), "{refused:?}");
}
