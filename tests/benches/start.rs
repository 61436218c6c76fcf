//! From the start of the process to the first answer, on a book of a million orders whose last server was killed.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]

use std::path::Path;
use std::time::{Duration, Instant};

use provisor_tests::binary::{key, reseller, serve};
use provisor_tests::http::Http;
use provisor_tests::rounds::ROUNDS;
use serde_json::json;

const ORDERS: u32 = 1_000_000;

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let key = key(data, &reseller(data, "100000.00"));
    for (orders, name) in [(0, "an empty book"), (ORDERS, "a million orders")] {
        fill(data, orders);
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let begin = Instant::now();
            let server = serve(data);
            let ready = Http::default().send("GET", &format!("http://{}/readyz", server.address()), &[], "").await;
            assert_eq!(ready.status, 200);
            if round > 0 {
                rounds.push(begin.elapsed());
            }
            // What the killed server leaves in the write-ahead log is for the next one to replay.
            let here = key.at(&server);
            for number in 0..200 {
                let body = json!({"product_id": 42, "billing_cycle": "monthly"});
                assert_eq!(here.post("/v1/orders", &format!("{orders}-{round}-{number}"), &body).await.status, 201);
            }
            server.kill();
        }
        rounds.sort();
        println!(
            "start after kill -9, {name}: {:?} (slowest {:?})",
            rounds[ROUNDS / 2],
            rounds.last().copied().unwrap_or(Duration::ZERO)
        );
    }
}

/// Orders as they stand once they are completed.
fn fill(data: &Path, orders: u32) {
    let book = rusqlite::Connection::open(data.join("provisor.db")).unwrap();
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {orders})");
    book.execute_batch(&format!(
        "PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; BEGIN;
         {numbers} INSERT INTO invoices (id, account_id, status, total, currency, issued_at, due_at, paid_at, previous, number)
           SELECT 1000000 + i, 1, 'paid', 990, 'EUR', i, i, i, 999999 + i, i FROM n WHERE {orders} > 0;
         {numbers} INSERT INTO orders (id, account_id, product_id, cycle, quantity, config_options, total, recurring, currency, invoice_id,
                                       created_at, expires_at, status, service_id, paid_at)
           SELECT 1000000 + i, 1, 42, 'monthly', 1, '{{}}', 990, 990, 'EUR', 1000000 + i, i, i, 'completed', 1000000 + i, i FROM n WHERE {orders} > 0;
         {numbers} INSERT INTO services (id, account_id, order_id, product_id, status, power, hostname, addresses, cycle, recurring, currency,
                                         next_due_at, created_at, username, sealed_password, port)
           SELECT 1000000 + i, 1, 1000000 + i, 42, 'active', 'running', 'web.example', '192.0.2.1', 'monthly', 990, 'EUR', 4102444800000, i, 'root',
                  (SELECT sealed_secret FROM api_keys LIMIT 1), 22 FROM n WHERE {orders} > 0;
         COMMIT"
    ))
    .unwrap();
}
