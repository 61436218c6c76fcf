//! Verifying the audit log: rows per second, hashes and order of a book that nothing was done to.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use provisor::audit::{Verdict, verify_store};
use provisor::store::Store;
use provisor::vault::Vault;
use provisor_providers::books::{AccountId, AuditRow, Books};
use provisor_tests::rounds::{ROUNDS, per_second};

/// As many as make a book larger than the cache of a processor.
const ROWS: usize = 1_000_000;
/// Rows in one transaction of the preparation.
const BATCH: usize = 10_000;
/// How the rows are spread over accounts, in turn.
const STREAMS: [i64; 2] = [1, 100];

#[tokio::main]
async fn main() {
    for streams in STREAMS {
        let directory = tempfile::tempdir().unwrap();
        Vault::create_key(directory.path(), &[7; 32]).unwrap();
        let vault = Arc::new(Vault::open(directory.path()).unwrap());
        let store = Store::open_sqlite(&directory.path().join("provisor.db"), vault).unwrap();
        for batch in 0..ROWS / BATCH {
            let append = store.transact(move |books| {
                (0..BATCH).try_for_each(|number| books.audit(&row(i64::try_from(batch * BATCH + number).unwrap_or(0), streams)))
            });
            append.await.unwrap();
        }
        let mut rounds: Vec<Duration> = (0..=ROUNDS).map(|_| round(&store)).skip(1).collect();
        rounds.sort();
        let (best, median) = (rounds[0], rounds[rounds.len() / 2]);
        println!(
            "audit verify, {streams} streams: {:.2} million rows/s (best {:.2})",
            per_second(ROWS, median) / 1e6,
            per_second(ROWS, best) / 1e6
        );
    }
}

fn round(store: &Store) -> Duration {
    let started = Instant::now();
    let verdict = verify_store(store, &[]).unwrap();
    assert!(matches!(verdict, Verdict::Whole { rows, .. } if rows == ROWS as u64), "{verdict:?}");
    started.elapsed()
}

/// What a signed GET leaves.
fn row(number: i64, streams: i64) -> AuditRow {
    AuditRow {
        account: Some(AccountId(1 + number % streams)),
        at: Timestamp::from_millisecond(1_800_000_000_000 + number).unwrap(),
        key_id: Some("kh_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".to_owned()),
        peer: [203, 0, 113, 7].into(),
        method: "GET".to_owned(),
        path: format!("/v1/services/{number}"),
        status: 200,
        reason: None,
        request_id: format!("01HX7Z3K8Q{number:016}"),
        event: "request".to_owned(),
        detail: None,
    }
}
