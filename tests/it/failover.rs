//! The PostgreSQL primary is killed in the middle of orders and its synchronous standby takes over: no order that was answered is
//! lost, none is there twice.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use provisor::audit::{Verdict, verify};
use provisor::vault::Vault;
use provisor_providers::money::Minor;
use provisor_tests::binary::{client_on, serve_on};
use provisor_tests::book::open;
use provisor_tests::postgres::Cluster;
use provisor_tests::resellers::{KernelHostKey, unique};
use serde_json::json;

const CLIENTS: usize = 8;
const CREDIT: Minor = Minor(1_000_000_000);
/// How long orders go on before the primary is killed, and after the standby was promoted.
const BEFORE: Duration = Duration::from_millis(1500);
const AFTER: Duration = Duration::from_millis(1500);
/// How long one order may be tried. Less than a host would wait for a server that says nothing: it has to notice that this one is gone.
const PATIENCE: Duration = Duration::from_secs(12);

/// Orders until it is told to stop; each order until it is answered. Key and id of each.
async fn order_on(key: KernelHostKey, stop: Arc<AtomicBool>) -> (BTreeMap<String, i64>, usize) {
    let body = json!({"product_id": 42, "billing_cycle": "monthly"});
    let (mut placed, mut retries) = (BTreeMap::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let name = format!("failover-{}", unique());
        let begun = Instant::now();
        let answer = loop {
            let answer = key.post("/v1/orders", &name, &body).await;
            if answer.status == 201 {
                break answer;
            }
            assert!(matches!(answer.status, 500 | 503), "{}", answer.json());
            assert!(begun.elapsed() < PATIENCE, "no answer to {name} for a long time");
            retries += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        placed.insert(name, answer.json()["id"].as_i64().unwrap());
    }
    (placed, retries)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answered_order_is_lost_or_doubled_by_a_failover() {
    let rounds = if std::env::var("PROVISOR_LONG").is_ok_and(|long| long == "1") { 20 } else { 2 };
    for _ in 0..rounds {
        fail_over().await;
    }
}

async fn fail_over() {
    let mut primary = Cluster::start();
    primary.sql("postgres", "CREATE DATABASE provisor");
    primary.sql("postgres", "ALTER DATABASE provisor SET synchronous_commit = 'remote_apply'");
    // The standby inherits the setting, as it would in earnest, and must not wait for itself when it is promoted.
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'second'");
    let standby = primary.standby("second");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    let url = format!("postgres://postgres@/provisor?host={},{}", primary.socket().display(), standby.socket().display());
    let directory = tempfile::tempdir().unwrap();
    Vault::create_key(directory.path(), &[7; 32]).unwrap();
    let key = client_on(directory.path(), &url, CREDIT);
    let host = serve_on(directory.path(), &url);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(order_on(key.at(&host), Arc::clone(&stop)))).collect();

    tokio::time::sleep(BEFORE).await;
    primary.kill();
    let killed = Instant::now();
    standby.promote();
    let promoted = killed.elapsed();
    tokio::time::sleep(AFTER).await;
    stop.store(true, Ordering::Relaxed);
    let (mut placed, mut retries) = (BTreeMap::new(), 0);
    for client in clients {
        let (more, times) = client.await.unwrap();
        placed.extend(more);
        retries += times;
    }
    host.kill();

    let mut ids: Vec<i64> = placed.values().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let count = i64::try_from(placed.len()).unwrap();
    assert_eq!(ids.len(), placed.len(), "an id was given twice");
    let number = |query: &str| standby.sql("provisor", query).parse::<i64>().unwrap();
    assert!(retries > 0, "the failover met no order: this test showed nothing");
    assert_eq!(number("SELECT COUNT(*) FROM orders"), count);
    assert_eq!(number("SELECT COUNT(*) FROM ledger WHERE kind = 'order'"), count);
    assert_eq!(number("SELECT balance FROM accounts"), CREDIT.0 - 990 * count);
    let listed: Vec<String> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(number(&format!("SELECT COUNT(*) FROM orders WHERE id IN ({})", listed.join(", "))), count);
    let store = open(&url, directory.path()).unwrap();
    assert!(matches!(store.read(verify).unwrap(), Verdict::Whole { .. }), "the audit chains");
    println!("{count} orders, {retries} times no answer or a refusal, promoted after {promoted:?}");
}
