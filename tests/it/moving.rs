//! Books on the move: backed up while they are served, copied from one engine into the other and back.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use provisor::audit::{Verdict, verify};
use provisor_providers::books::Books;
use provisor_providers::money::Minor;
use provisor_tests::binary::{client_on, provisor_on, run_on, serve_on};
use provisor_tests::book::{Book, Engine, open};
use provisor_tests::daemon::Daemon;
use serde_json::{Value, json};

const CREDIT: Minor = Minor(1_000_000);

/// What there is of each kind, and what belongs together.
fn figures(number: impl Fn(&str) -> i64) -> Vec<i64> {
    let tables =
        ["accounts", "api_keys", "orders", "invoices", "services", "ledger", "audit", "nonces", "products", "idempotency"];
    let counts = tables.map(|table| number(&format!("SELECT COUNT(*) FROM {table}")));
    counts.into_iter().chain([number("SELECT SUM(amount) FROM ledger"), number("SELECT balance FROM accounts")]).collect()
}

/// Places so many orders on a served book.
async fn order(host: &Daemon, key: &provisor_tests::resellers::KernelHostKey, names: std::ops::Range<usize>) {
    let key = key.at(host);
    for name in names {
        let answer =
            key.post("/v1/orders", &format!("order-{name}"), &json!({"product_id": 42, "billing_cycle": "monthly"})).await;
        assert_eq!(answer.status, 201, "{}", answer.json());
    }
}

fn last_error(output: &std::process::Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    error["error"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_book_is_backed_up_whole() {
    let book = Book::new(Engine::Sqlite);
    let key = client_on(book.directory(), &book.url(), CREDIT);
    let host = serve_on(book.directory(), &book.url());
    order(&host, &key, 0..10).await;
    let copies = tempfile::tempdir().unwrap();
    let file = copies.path().join("copy.db");
    let name = file.to_str().unwrap();
    let ((), made) = tokio::join!(order(&host, &key, 10..60), async {
        tokio::task::block_in_place(|| run_on(book.directory(), &book.url(), &["backup", name]))
    });
    assert_eq!(made["bytes"].as_u64(), Some(file.metadata().unwrap().len()));
    host.kill();
    let refused = provisor_on(book.directory(), &book.url()).args(["backup", name]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(last_error(&refused).contains("is there already"));

    let number =
        |query: &str| rusqlite::Connection::open(&file).unwrap().query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    let orders = number("SELECT COUNT(*) FROM orders");
    assert!((10..=60).contains(&orders), "{orders}");
    assert_eq!(number("SELECT balance FROM accounts"), CREDIT.0 - 990 * orders);
    let store = open(&format!("sqlite:{name}"), book.directory()).unwrap();
    assert!(matches!(store.read(verify).unwrap(), Verdict::Whole { .. }));
    assert!(!store.is_sealed());
    let bytes = std::fs::read(&file).unwrap();
    let master = std::fs::read(book.directory().join("master.key.v1")).unwrap();
    assert!(!bytes.windows(master.len()).any(|window| window == master), "the master key does not belong into a copy");
}

/// Somebody kept a request that the old book had accepted, and the backup knows nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_book_does_not_accept_again_what_it_forgot() {
    let book = Book::new(Engine::Sqlite);
    let key = client_on(book.directory(), &book.url(), CREDIT);
    let copy = book.directory().join("copy.db");
    run_on(book.directory(), &book.url(), &["backup", copy.to_str().unwrap()]);
    let order = r#"{"product_id":42,"billing_cycle":"monthly"}"#;
    let mut kept = key.headers(Timestamp::now().as_second() + 250, "POST", "/v1/orders", order.as_bytes()).to_vec();
    kept.extend([("Content-Type", "application/json".to_owned()), ("Idempotency-Key", "kept".to_owned())]);
    let kept: Vec<(&str, &str)> = kept.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let send = async |host: &Daemon| key.http.send("POST", &format!("{}/v1/orders", key.at(host).base_url), &kept, order).await;
    let host = serve_on(book.directory(), &book.url());
    assert_eq!(send(&host).await.status, 201);
    host.kill();

    let url = book.url();
    let file = url.strip_prefix("sqlite:").unwrap();
    for ending in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{file}{ending}")).unwrap();
    }
    std::fs::rename(&copy, file).unwrap();
    for _ in 0..2 {
        let host = serve_on(book.directory(), &book.url());
        for answer in [send(&host).await, key.at(&host).get("/v1/me").await] {
            assert_eq!((answer.status, answer.json()["reason"].as_str()), (401, Some("timestamp_out_of_window")));
        }
        host.kill();
    }
    assert_eq!(book.number("SELECT COUNT(*) FROM orders"), 0);
}

/// What an operator says of a restored book, of one in PostgreSQL too.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_raises_and_moves_the_fence() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let book = Book::new(engine);
        let key = client_on(book.directory(), &book.url(), CREDIT);
        let me = async || {
            let host = serve_on(book.directory(), &book.url());
            let status = key.at(&host).get("/v1/me").await.status;
            host.kill();
            status
        };
        assert_eq!(me().await, 200);
        let said = run_on(book.directory(), &book.url(), &["store", "fence"]);
        let ago = Timestamp::now().duration_since(said["lost_until"].as_str().unwrap().parse().unwrap()).as_secs();
        assert!((0..10).contains(&ago), "{ago} s");
        assert_eq!(me().await, 401, "{engine:?}");
        let doctor = provisor_on(book.directory(), &book.url()).arg("doctor").output().unwrap();
        let found =
            format!("restored: requests that may have been accepted until {}", &said["lost_until"].as_str().unwrap()[..19]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains(&found), "{doctor:?}");
        let ended = (Timestamp::now() - SignedDuration::from_secs(301)).to_string();
        run_on(book.directory(), &book.url(), &["store", "fence", "--lost-until", &ended]);
        assert_eq!(me().await, 200, "{engine:?}");
        let refused =
            provisor_on(book.directory(), &book.url()).args(["store", "fence", "--lost-until", "2999-01-01T00:00:00Z"]).output();
        let refused = refused.unwrap();
        assert_eq!(refused.status.code(), Some(2));
        assert!(last_error(&refused).contains("is still to come"), "{}", last_error(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_is_copied_into_postgresql_and_back() {
    let book = Book::new(Engine::Sqlite);
    let key = client_on(book.directory(), &book.url(), CREDIT);
    let host = serve_on(book.directory(), &book.url());
    order(&host, &key, 0..20).await;
    let first = key.at(&host).post("/v1/orders", "repeated", &json!({"product_id": 42, "billing_cycle": "monthly"})).await;
    host.kill();
    // More than a page, and every kind of value.
    book.execute(
        "INSERT INTO nonces (key_id, nonce, expires_at) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1700) SELECT 1, 'n' || i, i FROM n",
    );
    let before = figures(|query| book.number(query));

    let server = Book::new(Engine::Postgres);
    let copy = |from: &str, to: &str| {
        provisor_on(book.directory(), &book.url()).args(["store", "copy", "--from", from, "--to", to]).output().unwrap()
    };
    let copied = copy(&book.url(), &server.url());
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert!(String::from_utf8_lossy(&copied.stderr).lines().any(|line| line.starts_with("copying audit, ")));
    assert_eq!(figures(|query| server.number(query)), before);
    let again = copy(&book.url(), &server.url());
    assert_eq!(again.status.code(), Some(1));
    assert!(last_error(&again).contains("a book is copied into an empty database"), "{}", last_error(&again));

    // It is the same book: the same key, the same answer to a repeat, and the next ids.
    let host = serve_on(book.directory(), &server.url());
    let repeat = key.at(&host).post("/v1/orders", "repeated", &json!({"product_id": 42, "billing_cycle": "monthly"})).await;
    assert_eq!((repeat.status, &repeat.body), (201, &first.body));
    order(&host, &key, 100..105).await;
    host.kill();
    assert_eq!(server.number("SELECT MAX(id) FROM orders"), 26);
    let after = figures(|query| server.number(query));

    let back = book.directory().join("back.db");
    let url = format!("sqlite:{}", back.display());
    let copied = copy(&server.url(), &url);
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let number =
        |query: &str| rusqlite::Connection::open(&back).unwrap().query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(figures(number), after);
    let store = open(&url, book.directory()).unwrap();
    let account = provisor_providers::books::AccountId(1);
    let made = store.transact(move |books| {
        books.credit(account, Minor(1), &provisor_providers::books::Entry { at: Timestamp::now(), kind: "test", reference: "1" })
    });
    assert!(made.await.unwrap().is_some());
    assert!(store.read(|books| books.account(account).profile()).is_ok());
}

/// Nothing arrives of a book whose audit log was changed.
#[tokio::test]
async fn a_book_that_does_not_verify_is_not_copied() {
    let book = Book::new(Engine::Sqlite);
    let key = client_on(book.directory(), &book.url(), CREDIT);
    let host = serve_on(book.directory(), &book.url());
    assert_eq!(key.at(&host).get("/v1/me").await.status, 200);
    host.kill();
    book.execute("UPDATE audit SET path = '/v1/other'");
    let to = book.directory().join("copy.db");
    let url = format!("sqlite:{}", to.display());
    let refused =
        provisor_on(book.directory(), &book.url()).args(["store", "copy", "--from", &book.url(), "--to", &url]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(last_error(&refused).contains("the audit log is broken at row 1 of stream 1"), "{}", last_error(&refused));
    assert_eq!(rows(&to), 0);
}

fn rows(file: &Path) -> i64 {
    let book = rusqlite::Connection::open(file).unwrap();
    book.query_row("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'accounts'", [], |row| row.get(0)).unwrap()
}
